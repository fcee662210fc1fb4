//! A scenario that is calibrated gives itself back, wherever it can be observed.

use std::time::Duration;

use fleetmint::emulator::scenario::{LatencyLaw, MissingParameter, Refusal, Scenario, TokenReuse};

use super::{Calibrated, calibrate};
use crate::harness::Scratch;

/// The refusals that a calibration of the built-in template may meet.
const REFUSALS: [(&str, Refusal); 7] = [
    ("empty_token", Refusal::EmptyToken),
    ("unknown_token", Refusal::UnknownToken),
    ("unknown_template", Refusal::UnknownTemplate),
    ("invalid_payload", Refusal::InvalidPayload),
    ("invalid_csr", Refusal::InvalidCsr),
    ("used_token", Refusal::UsedToken),
    ("missing_parameter", Refusal::MissingParameter),
];

/// Where a scenario and what was found of it differ, and what should have been found.
struct Compared {
    wrong: Vec<String>,
    missing: Vec<String>,
}

fn compare(given: &Scenario, done: &Calibrated) -> Compared {
    let table: toml::Table = done.written.parse().unwrap();
    let found = &done.scenario;
    let mut compared = Compared { wrong: Vec::new(), missing: Vec::new() };
    for (key, is_same) in [
        ("region", found.region == given.region),
        ("strict", found.strict == given.strict),
        ("require_subscription", found.require_subscription == given.require_subscription),
        ("token_reuse", found.token_reuse == given.token_reuse),
        ("missing_parameter", found.missing_parameter == given.missing_parameter),
        ("keys", found.keys == given.keys),
    ] {
        compared.note(key, table.contains_key(key), is_same);
    }
    let errors = table.get("errors").and_then(toml::Value::as_table);
    for (name, refusal) in REFUSALS {
        let is_met = match refusal {
            Refusal::UsedToken => given.token_reuse == TokenReuse::Reject,
            Refusal::MissingParameter => given.missing_parameter == MissingParameter::Reject,
            _ => true,
        };
        if is_met {
            let is_there = errors.is_some_and(|errors| errors.contains_key(name));
            compared.note(name, is_there, is_same_text(given, found, refusal));
        }
    }
    // These are met only with options, or never.
    for (name, refusal) in [
        ("resource_conflict", Refusal::ResourceConflict),
        ("expired_token", Refusal::ExpiredToken),
        ("throttled", Refusal::Throttled),
    ] {
        if errors.is_some_and(|errors| errors.contains_key(name)) {
            compared.note(name, true, is_same_text(given, found, refusal));
        }
    }
    if table.contains_key("permissions") {
        let is_same = found.permissions.subscribe == given.permissions.subscribe;
        compared.note("permissions.subscribe", true, is_same);
    }
    let (theirs, ours) = (&given.latency, &found.latency);
    for (name, given, found) in [
        ("connect", &theirs.connect, &ours.connect),
        ("subscribe", &theirs.subscribe, &ours.subscribe),
        ("publish", &theirs.publish, &ours.publish),
        ("create", &theirs.create_keys_and_certificate, &ours.create_keys_and_certificate),
        ("csr", &theirs.create_certificate_from_csr, &ours.create_certificate_from_csr),
        ("register", &theirs.register_thing, &ours.register_thing),
    ] {
        compared.note(name, !found.is_zero(), is_possible_law(given, found));
    }
    compared
}

impl Compared {
    fn note(&mut self, name: &str, is_there: bool, is_same: bool) {
        match (is_there, is_same) {
            (false, _) => self.missing.push(name.to_owned()),
            (true, false) => self.wrong.push(name.to_owned()),
            (true, true) => {}
        }
    }
}

/// Status and code are the same, and the message is one that the given text can become.
fn is_same_text(given: &Scenario, found: &Scenario, refusal: Refusal) -> bool {
    let (given, found) = (given.errors.text(refusal), found.errors.text(refusal));
    let is_instance = match given.message.split_once("{detail}") {
        // What is to blame has a name, which must not be in what was found.
        Some(_) if matches!(refusal, Refusal::UnknownTemplate | Refusal::MissingParameter) => {
            given.message == found.message
        }
        Some((before, after)) => found.message.starts_with(before) && found.message.ends_with(after),
        None => given.message == found.message,
    };
    given.status == found.status && given.code == found.code && is_instance
}

/// A process and its machine only ever take longer: how well a law is told is in `laws.rs`, without them.
fn is_possible_law(given: &LatencyLaw, found: &LatencyLaw) -> bool {
    const ROUNDED: Duration = Duration::from_millis(1);
    found.quantile(0.5) + ROUNDED >= given.quantile(0.0)
}

#[track_caller]
fn gives_itself_back(name: &str, given: &Scenario, done: &Calibrated, may_miss: usize) {
    let Compared { wrong, missing } = compare(given, done);
    let is_good = wrong.is_empty() && missing.len() <= may_miss;
    assert!(is_good, "{name}: wrong {wrong:?}, missing {missing:?}\n{}\n{}", done.written, done.said.out);
}

fn shipped(name: &str, may_miss: usize) {
    let done = calibrate(&[&format!("--emulator={name}")]);
    gives_itself_back(name, &Scenario::named(name).unwrap(), &done, may_miss);
}

#[test]
fn the_default_scenario_gives_itself_back() {
    shipped("default", 0);
}

#[test]
fn the_strict_scenario_gives_itself_back() {
    shipped("strict", 0);
}

#[test]
#[ignore = "takes minutes: scripts/calibration/check"]
fn every_shipped_scenario_gives_itself_back() {
    // What goes wrong in some hides a fact now and then.
    let may_miss = |name: &str| match name {
        "flaky" | "faults" => 3,
        "hostile" => 6,
        _ => 0,
    };
    let names: Vec<_> = Scenario::names().filter(|name| !matches!(*name, "default" | "strict")).collect();
    in_pairs(&names, |name| shipped(name, may_miss(name)));
}

#[test]
fn a_random_scenario_gives_itself_back() {
    random(1);
}

/// A throttle is no answer: what is throttled is asked again until it is not.
#[test]
fn a_small_quota_becomes_no_fact() {
    let scratch = Scratch::new();
    let text = "keys = \"p256\"\nmissing_parameter = \"empty\"\ntoken_reuse = \"accept\"\n[quotas]\nregister_thing = \"1/s\"\n";
    let file = scratch.write("given.toml", text);
    let done = calibrate(&[&format!("--emulator={}", file.display())]);
    gives_itself_back("a small quota", &Scenario::from_toml(text).unwrap(), &done, 0);
    assert!(!done.written.contains("429") && !done.said.out.contains("429 "), "{}", done.written);
}

#[test]
#[ignore = "takes minutes: scripts/calibration/check"]
fn twenty_random_scenarios_give_themselves_back() {
    let seeds: Vec<u64> = (2..22).collect();
    in_pairs(&seeds, |seed| random(*seed));
}

#[test]
#[ignore = "takes minutes: scripts/calibration/check"]
fn the_throttles_of_a_scenario_are_found() {
    let cases = [("bucket", 10, 20, 12), ("fixed", 10, 20, 8), ("sliding", 8, 15, 10)];
    in_pairs(&cases, |(window, create, csr, register)| {
        let scratch = Scratch::new();
        let text = format!(
            "keys = \"p256\"\n[quotas]\nwindow = \"{window}\"\nburst = \"1s\"\ncreate_keys_and_certificate = \"{create}/s\"\n\
             create_certificate_from_csr = \"{csr}/s\"\nregister_thing = \"{register}/s\"\n\
             [errors.throttled]\nstatus = 429\ncode = \"Slow\"\nmessage = \"down\"\n"
        );
        let given = Scenario::from_toml(&text).unwrap();
        let file = scratch.write("given.toml", &text);
        let done = calibrate(&["--limits", &format!("--emulator={}", file.display())]);
        gives_itself_back(window, &given, &done, 0);
        let (found, given) = (&done.scenario.quotas, &given.quotas);
        assert_eq!((found.window, found.burst), (given.window, given.burst), "{}", done.written);
        for (found, given) in [
            (&found.create_keys_and_certificate, &given.create_keys_and_certificate),
            (&found.create_certificate_from_csr, &given.create_certificate_from_csr),
            (&found.register_thing, &given.register_thing),
        ] {
            let rate = |quota: &Option<fleetmint::emulator::scenario::Quota>| {
                let quota = quota.as_ref().unwrap_or_else(|| panic!("no quota\n{}", done.said.out));
                quota.at(Duration::ZERO).unwrap().as_per_second()
            };
            assert!((rate(found) / rate(given) - 1.0).abs() < 0.15, "{}", done.written);
        }
        assert_eq!(done.found("throttled"), "refused: 429 Slow: down");
    });
}

/// Two at a time: they wait more than they work.
fn in_pairs<T: Sync>(cases: &[T], check: impl Fn(&T) + Sync) {
    for pair in cases.chunks(2) {
        std::thread::scope(|scope| pair.iter().for_each(|case| drop(scope.spawn(|| check(case)))));
    }
}

fn random(seed: u64) {
    let scratch = Scratch::new();
    let text = scenario_of(&mut Draws(seed));
    let file = scratch.write("given.toml", &text);
    let done = calibrate(&[&format!("--emulator={}", file.display())]);
    gives_itself_back(&format!("seed {seed}:\n{text}"), &Scenario::from_toml(&text).unwrap(), &done, 0);
}

/// SplitMix64.
pub struct Draws(pub u64);

impl Draws {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let bits = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^ (bits >> 31)
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.next() as usize % from.len()]
    }
}

fn scenario_of(draws: &mut Draws) -> String {
    let mut text = format!(
        "region = \"{}\"\nkeys = \"{}\"\nstrict = {}\nrequire_subscription = {}\ntoken_reuse = \"{}\"\n\
         missing_parameter = \"{}\"\nseed = {}\n",
        draws.pick(&["eu-central-1", "us-west-2"]),
        draws.pick(&["rsa2048", "p256", "recycled"]),
        draws.pick(&[true, false]),
        draws.pick(&[true, false]),
        draws.pick(&["accept", "reject"]),
        draws.pick(&["empty", "reject"]),
        draws.next() % 1_000,
    );
    text += "[latency]\n";
    for key in [
        "connect",
        "subscribe",
        "publish",
        "create_keys_and_certificate",
        "create_certificate_from_csr",
        "register_thing",
    ] {
        let law = draws.pick(&["0", "20ms", "40ms..120ms", "150ms", "200ms"]);
        text += &format!("{key} = \"{law}\"\n");
    }
    for (name, _) in REFUSALS {
        let status = draws.pick(&[400, 401, 403, 404, 409, 422]);
        let code = draws.pick(&["Wrong", "InvalidRequest", "NotFound", "A.B:C"]);
        let message = match name {
            "unknown_template" => "there is no {detail} here",
            "missing_parameter" => "{detail}, please",
            _ => draws.pick(&["no", "it is \\\"wrong\\\" \u{e4}", "see the documentation (section 3)"]),
        };
        text += &format!("[errors.{name}]\nstatus = {status}\ncode = \"{code}\"\nmessage = \"{message}\"\n");
    }
    text
}
