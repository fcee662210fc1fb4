//! The notation of faults, both ways.

use super::super::Scenario;
use super::notation::KINDS;
use super::*;

fn rules(text: &str) -> Vec<FaultRule> {
    Scenario::from_toml(text).unwrap().faults.rules
}

#[test]
fn the_short_form_is_read_for_each_operation() {
    let text = "[faults]\nseed = 7\n[faults.register_thing]\ndrop_after = 0.25\nduplicate = 0.5\nsilent = 0\n\
                delay = { p = 1, time = \"50ms\" }";
    assert_eq!(Scenario::from_toml(text).unwrap().faults.seed, 7);
    let rules = rules(text);
    let odds: Vec<_> = rules.iter().map(|rule| (rule.fault.clone(), rule.probability)).collect();
    let delay = Fault::Delay(Duration::from_millis(50));
    // Half of all is two thirds of what the first leaves.
    assert_eq!(odds, [(Fault::HangUp(Acts::Done), 0.25), (Fault::Duplicate, 0.5 / 0.75), (delay, 1.0)]);
    assert!(rules.iter().all(|rule| rule.on == [FaultTarget::RegisterThing]));
}

#[test]
fn a_rule_says_where_what_how_often_and_when() {
    let rules = rules(
        "[[faults.rules]]\non = [\"register_thing\", \"create_keys_and_certificate\"]\nfault = \"reject\"\n\
         status = 418\ncode = \"Teapot\"\ndone = true\nprobability = 0.5\nafter = 10\nfirst = 20\nevery = 3\nmax = 2\n\
         [[faults.rules]]\non = \"upgrade\"\nfault = \"clock_skew\"\ntime = \"-10m\"",
    );
    let reject = Fault::Reject { status: 418, code: Some(String::from("Teapot")), acts: Acts::Done };
    let on = vec![FaultTarget::RegisterThing, FaultTarget::CreateKeysAndCertificate];
    assert_eq!(
        rules[0],
        FaultRule { on, fault: reject, probability: 0.5, after: 10, first: Some(20), every: 3, max: Some(2) }
    );
    assert_eq!(rules[1], FaultRule::always(&[FaultTarget::Upgrade], Fault::ClockSkew(-600)));
}

fn complaint(text: &str) -> String {
    Scenario::from_toml(text).unwrap_err().to_string()
}

#[test]
fn impossible_odds_are_refused() {
    let odds = [
        "silent = 1.5",
        "silent = -1",
        "silent = nan",
        "silent = 0.6\nno_reply = 0.6",
        "delay = 0.1",
        "delay = { p = 0.1 }",
        "slient = 0.1",
    ];
    let odds = odds.map(|line| complaint(&format!("[faults.register_thing]\n{line}")));
    assert_eq!(
        odds,
        [
            "line 2, key `faults.register_thing.silent`: found floating point `1.5`; wanted a probability from 0 \
             to 1",
            "line 2, key `faults.register_thing.silent`: found floating point `-1.0`; wanted a probability from \
             0 to 1",
            "line 2, key `faults.register_thing.silent`: found floating point `NaN`; wanted a probability from 0 \
             to 1",
            "line 1, table `faults.register_thing`: found faults of register_thing that are 1.2 together; wanted \
             1 at most, as a request meets one",
            "line 2, key `faults.register_thing.delay`: found floating point `0.1`; wanted struct Delay",
            "line 2, key `faults.register_thing.delay`: found no `time`; wanted `time` to be given",
            "line 2, key `faults.register_thing.slient`: found unknown field `slient`; wanted one of \
             `drop_before`, `drop_after`, `silent`, `no_reply`, `duplicate`, `reject_5xx`, `delay`"
        ]
    );
}

#[test]
fn impossible_rules_are_refused() {
    let rules = [
        "on = \"tcp\"\nfault = \"garble\"",
        "on = \"nowhere\"\nfault = \"garble\"",
        "on = []\nfault = \"garble\"",
        "on = \"connect\"\nfault = \"quake\"",
        "on = \"connect\"\nfault = \"connack\"",
        "on = \"upgrade\"\nfault = \"http_status\"\nstatus = 200",
        "on = \"connect\"\nfault = \"silence\"\nstatus = 3",
        "on = \"connect\"\nfault = \"delay\"\ntime = \"-1s\"",
        "on = \"connect\"\nfault = \"silence\"\nevery = 0",
    ];
    let rules = rules.map(|rule| complaint(&format!("[[faults.rules]]\n{rule}")));
    assert_eq!(
        rules,
        [
            "line 1, table `faults.rules`: found fault `garble` on `tcp`; wanted one of \
             create_keys_and_certificate, create_certificate_from_csr, register_thing",
            "line 2, key `faults.rules.on`: found data did not match any variant of untagged enum OneOrMany; \
             wanted valid TOML",
            "line 1, table `faults.rules`: found no target in `on`, or `every = 0`; wanted at least one, and 1 \
             or more",
            "line 1, table `faults.rules`: found fault `quake`; wanted one of silence, unacknowledged, \
             no_puback, no_reply, hang_up, reject, duplicate, delay, reorder, garble, missing_field, \
             extra_field, wrong_thing, suback_failure, connack, http_status, clock_skew, reset, \
             stalled_handshake, corrupt_tls, split_frames, joined_frames",
            "line 1, table `faults.rules`: found fault `connack` without `status`; wanted `status` from 1 to 255",
            "line 1, table `faults.rules`: found `status` 200; wanted `status` from 300 to 599",
            "line 1, table `faults.rules`: found `status` with fault `silence`; wanted it to be left out",
            "line 1, table `faults.rules`: found `time` \"-1s\" with fault `delay`; wanted a duration such as \
             \"250ms\"",
            "line 1, table `faults.rules`: found no target in `on`, or `every = 0`; wanted at least one, and 1 \
             or more"
        ]
    );
}

#[test]
fn every_kind_of_fault_has_a_name_that_parses() {
    for kind in KINDS.split(", ") {
        let takes = ["", "time = \"1s\"", "status = 503", "status = 5"];
        let targets = ["tcp", "upgrade", "connect", "subscribe", "register_thing"];
        let parses = takes.iter().any(|takes| {
            targets.iter().any(|on| {
                let rule = format!("[[faults.rules]]\non = \"{on}\"\nfault = \"{kind}\"\n{takes}");
                Scenario::from_toml(&rule).is_ok_and(|scenario| {
                    let rules = serde_json::json!({"rules": [scenario.faults.rules[0].to_json()]});
                    let read: Faults = serde_json::from_value(rules).unwrap();
                    read == scenario.faults && read.rules[0].fault.kind() == kind
                })
            })
        });
        assert!(parses, "{kind}");
    }
}
