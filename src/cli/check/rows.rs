//! Checks of the rows of a lot.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};

use super::Devices;
use super::findings::Finding;
use crate::cli::exit::{Exit, Fatal, ledger as ledger_error};
use crate::cli::lot::OpenLot;
use crate::control_plane::DescribedTemplate;
use crate::event::Registration;
use crate::ledger::{View, Work};
use crate::preflight::{Expected, Rows, Standing};
use crate::shard::Shard;
use crate::template::Template;
use crate::wording::number;

/// The result of checking a lot's rows.
pub(super) struct Looked {
    pub(super) findings: Vec<Finding>,
    /// Rows that are still to be registered.
    pub(super) open: u64,
    /// What they become, if the template could be evaluated.
    pub(super) expected: Option<Expected>,
}

/// How many things are queried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Things {
    /// All of them.
    All,
    /// This many, spread over the lot.
    Sample(usize),
}

/// How many devices are read from a ledger at once.
const PAGE: usize = 1_000;

/// Checks the rows of a lot; those that are done according to the ledger cannot fail any more.
pub(super) fn look(
    devices: Devices<'_>,
    described: Option<&DescribedTemplate>,
    things: Things,
) -> Result<Looked, Fatal> {
    let template = described.and_then(|described| Template::parse(&described.body).ok());
    let parameters = devices.parameters().cloned().unwrap_or_default();
    let most = match things {
        Things::All => None,
        Things::Sample(most) => Some(most),
    };
    let mut rows = template.as_ref().map(|template| Rows::new(template, &parameters, most));
    let (mut findings, open) = match devices {
        Devices::Lot(lot, view, shard) => look_at_lot(*lot, view, shard, rows.as_mut())?,
        Devices::Ledger(view, _) => (Vec::new(), look_at_ledger(view, rows.as_mut())?),
        Devices::Unread(_) => {
            let found = "a lot that is no file can be read only once, and is read by the run";
            (vec![Finding::skipped("lot", found)], 0)
        }
        Devices::None => (Vec::new(), 0),
    };
    let expected = rows.map(Rows::finish);
    if let (Some(expected), Some(described)) = (&expected, described) {
        findings.extend(judge(expected, described.hook.is_some()));
    }
    Ok(Looked { findings, open, expected })
}

fn look_at_lot(
    lot: OpenLot,
    view: Option<&View>,
    shard: Option<Shard>,
    mut rows: Option<&mut Rows<'_>>,
) -> Result<(Vec<Finding>, u64), Fatal> {
    let (mut all, mut open, mut failed) = (0_u64, 0_u64, None);
    let mut keys = Keys::default();
    let source = lot.source.clone();
    // The first shard checks the lot as a whole, the others check their own rows.
    let shard = shard.filter(|shard| shard.index != 0);
    let read = lot.look_through(|identity| {
        if shard.is_some_and(|shard| !shard.has(&identity.key)) {
            return;
        }
        all += 1;
        keys.add(&identity.key, identity.line);
        let is_to_come = view.map_or(Ok(true), |view| view.is_to_come(&identity.key));
        let standing = match is_to_come {
            Ok(false) => Standing::Done,
            Ok(true) => Standing::Open,
            Err(error) => {
                failed.get_or_insert(error);
                Standing::Open
            }
        };
        open += u64::from(standing == Standing::Open);
        if let Some(rows) = &mut rows {
            rows.look(identity, standing);
        }
    });
    if let Some(error) = failed {
        return Err(ledger_error(error));
    }
    let lot = match read {
        Ok(()) => Finding::ok(
            "lot",
            format!("{source}: {}, {open} still to be registered", number(all, "row", "rows")),
        ),
        Err(fatal) => Finding::of_fatal("lot", &fatal),
    };
    Ok(([lot].into_iter().chain(keys.finding()).collect(), open))
}

/// Counts the open devices of a ledger; a device whose registration may have happened is not checked again.
fn look_at_ledger(view: &View, mut rows: Option<&mut Rows<'_>>) -> Result<u64, Fatal> {
    let (mut open, mut after) = (0, None);
    loop {
        let page = view.open_devices(after, PAGE).map_err(ledger_error)?;
        let Some(last) = page.last() else { return Ok(open) };
        after = Some(last.id);
        for device in &page {
            let may_be_there =
                matches!(device.work, Work::Register { registration: Registration::MaySent, .. });
            let standing = if may_be_there { Standing::Done } else { Standing::Open };
            open += u64::from(standing == Standing::Open);
            if let Some(rows) = &mut rows {
                rows.look(&device.identity, standing);
            }
        }
    }
}

/// Findings about what the rows become. A hook may change all of it.
fn judge(expected: &Expected, has_hook: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    let bad = |check, found: String| {
        if has_hook {
            Finding::warning(
                check,
                format!("{found} (unless the template's pre-provisioning hook changes it)"),
            )
        } else {
            Finding::wrong(check, Exit::BadIdentities, found)
        }
    };
    for refused in expected.refused.values() {
        let (line, error) = &refused.first;
        let rows = number(refused.rows, "row", "rows");
        let found = format!("{rows} would be refused, the first on line {line}: {error}");
        let finding = bad("values", found).remedy("mend the lot, or the template");
        findings.push(if refused.is_unsent { finding.follows("parameters") } else { finding });
    }
    if let Some(why) = &expected.unknown_names {
        findings
            .push(Finding::skipped("names", format!("what the things will be called is not known: {why}")));
    } else if expected.clashes > 0 {
        let examples: Vec<_> = expected.clash_examples.iter().map(ToString::to_string).collect();
        let rows = number(expected.clashes, "row becomes", "rows become");
        let found = format!("{rows} a thing that an earlier row becomes too: {}", examples.join(", "));
        findings.push(
            bad("names", found)
                .follows("keys")
                .remedy("each device needs a thing of its own: mend the lot, or the template's ThingName"),
        );
    } else if expected.open > 0 && expected.refused.is_empty() {
        findings.push(Finding::ok("names", format!("{} different things", expected.rows)));
    }
    if expected.documents.len() > 1 {
        let found = "the template makes a policy of its own for each device";
        findings.push(Finding::warning("policies", found).remedy(
            "policy variables such as ${iot:Connection.Thing.ThingName} let all devices share one, and CreatePolicy is slow",
        ));
    }
    findings
}

/// Finds keys that occur twice in a lot.
#[derive(Default)]
struct Keys {
    hashers: [RandomState; 2],
    lines: HashMap<u128, u64>,
    twice: Option<(String, u64, u64)>,
    count: u64,
}

impl Keys {
    fn add(&mut self, key: &str, line: u64) {
        let [high, low] = [&self.hashers[0], &self.hashers[1]].map(|hasher| u128::from(hasher.hash_one(key)));
        let first = *self.lines.entry(high << 64 | low).or_insert(line);
        if first != line {
            self.count += 1;
            self.twice.get_or_insert_with(|| (key.to_owned(), first, line));
        }
    }

    fn finding(&self) -> Option<Finding> {
        let (key, first, second) = self.twice.as_ref()?;
        let more = if self.count > 1 { format!(", and {} more", self.count - 1) } else { String::new() };
        let found = format!("the key {key:?} stands on lines {first} and {second}{more}");
        Some(
            Finding::wrong("keys", Exit::BadIdentities, found)
                .remedy("each device has a key of its own; --key-column chooses the column"),
        )
    }
}
