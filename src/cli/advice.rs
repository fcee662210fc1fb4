//! What to do about it: what errors say in the library's words, with what to type.

use std::path::Path;

use crate::failure::Failure;
use crate::ledger::Counts;

/// Says why a run stopped, and what to do.
pub(super) fn stopped(failure: &Failure) -> Vec<String> {
    let mut words = vec![format!("error: stopped: {failure}")];
    if !failure.hint().is_empty() {
        words.push(format!("  -> {}", failure.hint()));
    }
    words
}

/// Says that something happened that cannot.
pub(super) fn bug(detail: &str) -> String {
    format!("error: a defect of fleetmint, please report it: {detail}")
}

/// Says what of a load test's or a search's devices stays in the account, and how to find it.
pub(super) fn left_behind(counts: &Counts, ledger: &Path) -> Vec<String> {
    let ledger = ledger.display();
    let mut words = Vec::new();
    let unregistered = counts.issued_not_sent + counts.issued_may_sent;
    if unregistered > 0 {
        words.push(format!(
            "{unregistered} certificates were issued and not registered: the service deletes those by itself when their \
             tokens lapse, after an hour"
        ));
    }
    if counts.registered > 0 {
        words.push(format!(
            "{} things were registered, and stay: `fleetmint export {ledger} --format csv --out FILE` lists them and their \
             certificates for deletion",
            counts.registered
        ));
    }
    if counts.issued_may_sent + counts.unknown > 0 {
        words.push(format!("what is uncertain: fleetmint status {ledger}"));
    }
    words
}
