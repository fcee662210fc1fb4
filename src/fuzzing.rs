//! Fuzz targets: for each parser of foreign bytes, a function that panics if a guarantee is broken.
//!
//! `tests/fuzz` runs them with libFuzzer; the tests below run the same functions on random and damaged bytes with
//! every `cargo test`. Compiled only for these two.

use std::collections::BTreeMap;
use std::io::{BufReader, Read};
use std::path::Path;

use crate::certificate::{Evidence, Secret, SigningRequest};
use crate::emulator::policy::{Attempt, Document, decide};
use crate::emulator::scenario::Scenario;
use crate::endpoint::Endpoint;
use crate::failure::Cause;
use crate::identity::{Identity, LotReader, LotShape, Pattern, RowError};
use crate::ledger::{Binding, Counts, LotInfo, RunInfo, RunStanding, RunStatus, Status};
use crate::metrics::threshold::Threshold;
use crate::rate::RateLimit;
use crate::report::{NextStep, StatusReport, render_status};
use crate::results::Results;
use crate::schedule::Profile;
use crate::template::{CertificateFacts, Template};
use crate::wording::is_invisible;
use crate::{csr, keys, provisioning, sealing, transport};

type Target = fn(&[u8]);

/// Every target, by its name in `tests/fuzz`.
const TARGETS: [(&str, Target); 14] = [
    ("cbor", crate::emulator::fuzzing::cbor),
    ("grammars", grammars),
    ("http_answer", transport::fuzzing::http_answer),
    ("http_request", crate::emulator::fuzzing::http_request),
    ("ledger_settings", ledger_settings),
    ("lot", lot),
    ("mqtt_client", transport::fuzzing::mqtt),
    ("mqtt_server", crate::emulator::fuzzing::mqtt),
    ("pem", pem),
    ("policy", policy),
    ("replies", replies),
    ("results", results),
    ("scenario", scenario),
    ("template", template),
];

/// Runs the target with this name.
pub fn run(name: &str, data: &[u8]) {
    let (_, target) = TARGETS.into_iter().find(|(known, _)| *known == name).expect("it is in the table");
    target(data);
}

/// A lot: the rows and errors do not depend on how it is read in pieces, and each row has a value for every column.
fn lot(data: &[u8]) {
    let whole = rows(data);
    assert_eq!(whole, rows(OneByOne(data)), "the pieces do not matter");
    let Ok((columns, rows)) = whole else { return };
    for row in rows.into_iter().flatten() {
        assert!(row.line > 1 && !row.key.is_empty() && row.values.len() == columns, "{row:?}");
    }
}

/// The number of columns and the rows, or what is wrong with the header.
type Rows = Result<(usize, Vec<Result<Identity, Vec<RowError>>>), Vec<RowError>>;

fn rows(source: impl Read) -> Rows {
    let reader = LotReader::new(source, None)?;
    Ok((reader.shape().columns.len(), reader.collect()))
}

/// A reader that returns one byte at a time.
struct OneByOne<'a>(&'a [u8]);

impl Read for OneByOne<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let room = buffer.len().min(1);
        self.0.read(&mut buffer[..room])
    }
}

/// A provisioning template's body. A valid one can be evaluated with any parameters.
fn template(data: &[u8]) {
    let Some(text) = text(data) else { return };
    match Template::parse(text) {
        Ok(template) => {
            let _ = template.check_for_fleets();
            let subject = BTreeMap::new();
            for id in [None, Some("c0ffee")] {
                let facts = CertificateFacts { id, subject: Some(&subject) };
                if let Err(error) = template.evaluate(facts, &BTreeMap::new()) {
                    show(&error.to_string());
                }
            }
        }
        Err(error) => show(&error.to_string()),
    }
}

/// A scenario of the emulator.
fn scenario(data: &[u8]) {
    let Some(text) = text(data) else { return };
    if let Err(error) = Scenario::from_toml(text) {
        assert!(!error.to_string().is_empty());
    }
}

/// A policy document. A valid one can be evaluated.
fn policy(data: &[u8]) {
    let Some(text) = text(data) else { return };
    if let Ok(document) = Document::parse(text) {
        let variable = |_: &str| Some(String::from("a"));
        for (action, resource) in [("iot:Connect", "arn:aws:iot:eu-west-1:1:client/a"), ("", "")] {
            decide([&document], &Attempt { action, resource: Some(resource), variable: &variable });
        }
    }
}

/// Small grammars that users type: a parsed value, shown, parses to itself.
fn grammars(data: &[u8]) {
    let Some(text) = text(data) else { return };
    if let Ok(limit) = text.parse::<RateLimit>() {
        assert_eq!(limit.to_string().parse(), Ok(limit));
    }
    if let Ok(threshold) = text.parse::<Threshold>() {
        assert_eq!(threshold.to_string().parse(), Ok(threshold));
    }
    if let Ok(endpoint) = text.parse::<Endpoint>() {
        assert_eq!(endpoint.to_string().parse(), Ok(endpoint));
    }
    if let Ok(profile) = text.parse::<Profile>() {
        let again: Profile = profile.to_string().parse().expect("a profile is shown as it is written");
        assert_eq!(again.arrivals(), profile.arrivals());
    }
    if let Ok(proxies) = crate::proxy::Proxies::new(text, "") {
        let _ = proxies.on_the_way_to("example.com", 443);
    }
    let _ = text.parse::<Pattern>();
    let _ = crate::identity::parse_constant(text);
    let _ = crate::instant::from_text(text);
}

/// Replies of the provisioning API. An error names the field that is wrong, in one short line.
fn replies(data: &[u8]) {
    let garbled = [
        provisioning::parse_issued(data).err(),
        provisioning::parse_certified(data).err(),
        provisioning::parse_registered(data).err(),
        Some(provisioning::parse_rejected(data)),
    ];
    for cause in garbled.into_iter().flatten() {
        match cause {
            Cause::Garbled { detail } => show(&detail),
            Cause::Rejected { status_code, error_code, error_message } => {
                assert!((100..=599).contains(&status_code));
                show(&error_code);
                show(&error_message);
            }
            other => panic!("no parser says {other:?}"),
        }
    }
}

/// Certificates, keys and requests: PEM, DER, and sealed keys.
fn pem(data: &[u8]) {
    if let Ok(checked) = csr::check(data) {
        assert_eq!(csr::read(data).as_ref(), Ok(&checked.request));
        assert_eq!(csr::check(checked.request.pem.as_bytes()).as_ref(), Ok(&checked), "PEM of it is it");
    }
    let _ = transport::wss::Claim::from_pem(data, data);
    let _ = transport::wss::check_authorities(data);
    let _ = sealing::KeyOpener::plain_only().add_identities(data);
    let Some(text) = text(data) else { return };
    crate::emulator::fuzzing::signing_request(text);
    crate::ledger::fuzz_pem(text);
    let key = Secret::new(text.to_owned());
    let _ = keys::check_pair("c0ffee", text, &key);
    let _ = keys::check_certificate(&SigningRequest { pem: text.to_owned() }, text);
    if let Ok(evidence) = Evidence::of(text) {
        let _ = evidence.check_key(&key);
    }
}

/// A results file: its seconds are in order, and an error ends it.
fn results(data: &[u8]) {
    let Ok(mut results) = Results::read(Path::new("x"), BufReader::new(data)) else { return };
    let mut last = None;
    let mut has_failed = false;
    for interval in &mut results {
        assert!(!has_failed, "an error is the end");
        match interval {
            Ok(interval) => {
                assert!(last < Some(interval.second), "seconds come in order");
                last = Some(interval.second);
            }
            Err(_) => has_failed = true,
        }
    }
    assert!(results.ending().is_some());
}

/// The settings that an earlier run recorded in the ledger.
fn ledger_settings(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let owned = || text.to_owned();
    let lot = LotInfo {
        source: owned(),
        digest: owned(),
        shape: LotShape { columns: vec![owned()], key_column: 0 },
        devices: 1,
        binding: Binding { template: owned(), region: owned(), account: text.into(), ..Binding::default() },
        created_at: owned(),
    };
    let run = RunInfo {
        id: 1,
        started_at: owned(),
        ended_at: Some(owned()),
        pid: 1,
        settings: owned(),
        outcome: Some(owned()),
        summary: Some(owned()),
    };
    let status = Status {
        counts: Counts { pending: 1, ..Counts::default() },
        troubles: Vec::new(),
        runs: vec![RunStatus { run, standing: RunStanding::Ended }],
        holds_plain_keys: false,
        writer: None,
    };
    let path = Path::new("x.ledger");
    let next = vec![NextStep { step: "resume", why: owned(), command: Some(owned()) }];
    let shown = render_status(&StatusReport::new(path, &lot, &status, next));
    assert!(!shown.chars().any(|character| character.is_control() && character != '\n'), "{shown:?}");
}

fn text(data: &[u8]) -> Option<&str> {
    std::str::from_utf8(data).ok()
}

/// Text shown to users contains nothing that a terminal would act on.
#[track_caller]
fn show(words: &str) {
    assert!(!words.chars().any(|character| is_invisible(character) && character != ' '), "{words:?}");
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::Index;
    use proptest::test_runner::{Config, TestRunner};

    use super::*;

    /// A way to damage a seed.
    #[derive(Debug, Clone)]
    enum Damage {
        Flip(Index, u8),
        Cut(Index),
        Remove(Index, u8),
        Insert(Index, Vec<u8>),
        Repeat(Index, u8),
    }

    fn damage() -> impl Strategy<Value = Damage> {
        prop_oneof![
            (any::<Index>(), 0..8_u8).prop_map(|(at, bit)| Damage::Flip(at, bit)),
            any::<Index>().prop_map(Damage::Cut),
            (any::<Index>(), any::<u8>()).prop_map(|(at, length)| Damage::Remove(at, length)),
            (any::<Index>(), vec(any::<u8>(), 1..6)).prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
            (any::<Index>(), any::<u8>()).prop_map(|(at, length)| Damage::Repeat(at, length)),
        ]
    }

    fn damaged(mut bytes: Vec<u8>, damages: Vec<Damage>) -> Vec<u8> {
        for damage in damages {
            if bytes.is_empty() {
                break;
            }
            let length = bytes.len();
            let range =
                |at: Index, of: u8| at.index(length)..(at.index(length) + usize::from(of)).min(length);
            match damage {
                Damage::Flip(at, bit) => bytes[at.index(length)] ^= 1 << bit,
                Damage::Cut(at) => bytes.truncate(at.index(length)),
                Damage::Remove(at, of) => drop(bytes.drain(range(at, of))),
                Damage::Insert(at, more) => {
                    bytes.splice(at.index(length)..at.index(length), more);
                }
                Damage::Repeat(at, of) => {
                    let again = bytes[range(at, of)].to_vec();
                    bytes.splice(at.index(length)..at.index(length), again);
                }
            }
        }
        bytes
    }

    fn runner() -> TestRunner {
        TestRunner::new(Config { cases: 64, failure_persistence: None, ..Config::default() })
    }

    /// The seeds of a target; the fuzzer starts from them too.
    fn seeds(target: &str) -> Vec<Vec<u8>> {
        files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/seeds").join(target))
    }

    /// The content of all files in a folder and its subfolders.
    fn files(folder: &Path) -> Vec<Vec<u8>> {
        let entries =
            std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let read = |path: &Path| if path.is_dir() { files(path) } else { vec![std::fs::read(path).unwrap()] };
        entries.flat_map(|entry| read(&entry.unwrap().path())).collect()
    }

    #[test]
    fn no_seed_breaks_a_promise() {
        for (name, target) in TARGETS {
            let seeds = seeds(name);
            assert!(!seeds.is_empty(), "{name} has none");
            seeds.iter().for_each(|seed| target(seed));
        }
    }

    #[test]
    fn no_damaged_seed_breaks_a_promise() {
        for (name, target) in TARGETS {
            let seed = prop::sample::select(seeds(name));
            let mut runner = runner();
            let outcome = runner.run(&(seed, vec(damage(), 1..8)), |(seed, damages)| {
                target(&damaged(seed, damages));
                Ok(())
            });
            outcome.unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }

    #[test]
    fn no_random_bytes_break_a_promise() {
        for (name, target) in TARGETS {
            let mut runner = runner();
            let outcome = runner.run(&vec(any::<u8>(), 0..200), |bytes| {
                target(&bytes);
                Ok(())
            });
            outcome.unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }

    /// The fuzzer and these tests must cover the same targets.
    #[test]
    fn the_fuzzer_has_the_same_targets() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/fuzz_targets");
        let name = |file: std::io::Result<std::fs::DirEntry>| {
            file.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned()
        };
        let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(name).collect();
        files.sort();
        assert_eq!(files, TARGETS.map(|(name, _)| name));
        let manifest = include_str!("../tests/fuzz/Cargo.toml");
        for (name, _) in TARGETS {
            assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
        }
    }
}
