use super::super::Scenario;
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

#[test]
fn impossible_faults_are_refused() {
    let complaint = |text: &str| Scenario::from_toml(text).unwrap_err().to_string();
    for (line, words) in [
        ("silent = 1.5", "wanted a probability"),
        ("silent = -1", "wanted a probability"),
        ("silent = nan", "wanted a probability"),
        ("silent = 0.6\nno_reply = 0.6", "that are 1.2 together; wanted 1 at most"),
        ("delay = 0.1", "delay"),
        ("delay = { p = 0.1 }", "no `time`"),
        ("slient = 0.1", "unknown field `slient`"),
    ] {
        let complaint = complaint(&format!("[faults.register_thing]\n{line}"));
        assert!(complaint.contains(words), "{line}: {complaint}");
    }
    for (rule, words) in [
        ("on = \"tcp\"\nfault = \"garble\"", "`garble` on `tcp`; wanted one of create_keys"),
        ("on = \"nowhere\"\nfault = \"garble\"", "on"),
        ("on = []\nfault = \"garble\"", "no target"),
        ("on = \"connect\"\nfault = \"quake\"", "fault `quake`; wanted one of silence"),
        ("on = \"connect\"\nfault = \"connack\"", "without `status`"),
        ("on = \"upgrade\"\nfault = \"http_status\"\nstatus = 200", "from 300 to 599"),
        ("on = \"connect\"\nfault = \"silence\"\nstatus = 3", "`status` with fault `silence`"),
        ("on = \"connect\"\nfault = \"delay\"\ntime = \"-1s\"", "a duration"),
        ("on = \"connect\"\nfault = \"silence\"\nevery = 0", "every"),
    ] {
        let complaint = complaint(&format!("[[faults.rules]]\n{rule}"));
        assert!(complaint.contains(words), "{rule}: {complaint}");
    }
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
