//! Services in Python that share no code with us: what they do is found out, and nothing is left in them.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use super::{Calibrated, command, finished};
use crate::harness::{Scratch, run};

/// A service with these habits, and where it says what is left.
struct Service {
    child: Child,
    ready: Value,
}

impl Service {
    fn start(scratch: &Scratch, habits: &Value) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/calibration/service.py");
        let mut child = Command::new("python3")
            .arg(script)
            .args(["--habits", &habits.to_string(), "--left"])
            .arg(scratch.path("left.json"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { child, ready: serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}")) }
    }

    fn text(&self, key: &str) -> &str {
        self.ready[key].as_str().unwrap()
    }

    fn reached_by<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command
            .args(["--endpoint", self.text("endpoint"), "--region", self.text("region")])
            .args(["--template", self.text("template"), "--ca-file", self.text("ca_file")])
            .args(["--denied-topic", "denied/topic"])
            .env("AWS_ACCESS_KEY_ID", self.text("access_key_id"))
            .env("AWS_SECRET_ACCESS_KEY", self.text("secret_access_key"))
    }

    /// Ends it; what is left in the account.
    fn left(mut self, scratch: &Scratch) -> Value {
        drop(self.child.stdin.take());
        assert!(self.child.wait().unwrap().success());
        serde_json::from_str(&std::fs::read_to_string(scratch.path("left.json")).unwrap()).unwrap()
    }
}

fn calibrated(habits: &Value, options: &[&str]) -> Calibrated {
    ended(habits, options, 0)
}

/// A calibration of a service with these habits, which ends with this code and leaves nothing.
fn ended(habits: &Value, options: &[&str], code: i32) -> Calibrated {
    let scratch = Scratch::new();
    let service = Service::start(&scratch, habits);
    let (ledger, out) = (scratch.path("l.ledger"), scratch.path("account.toml"));
    let mut command = command(&ledger, &out);
    let said = run(service.reached_by(&mut command).args(options)).expect_code(code);
    let left = service.left(&scratch);
    assert_eq!((&left["things"], &left["active"]), (&json!([]), &json!([])), "{}", said.err);
    let done = finished(said, out, scratch);
    for name in ["FAKE", "Serial", "Colour", "000011112222"] {
        assert!(!done.written.contains(name) && !done.said.out.contains(name), "{name}: {}", done.said.out);
    }
    done
}

#[test]
fn a_lenient_service_is_found_out() {
    let habits = json!({"capitals": true, "key": "rsa", "reuse": "accept", "missing": "empty", "denied": "suback",
        "puback": "last", "expires": true, "token_s": 8});
    let done = calibrated(&habits, &["--expired-after", "10s"]);
    for (fact, found) in [
        ("capitalised_parameters", "taken"),
        ("answer_without_subscription", "comes"),
        ("answer_connection", "the one that asked"),
        ("puback_order", "the answer"),
        ("used_token", "taken, with the same answer"),
        ("missing_parameter", "taken, as if it were empty"),
        ("second_certificate", "taken, for the same thing"),
        // Whatever registers before it leaves a thing for it.
        ("expired_token", "refused: 410 TooOld: this token is too old"),
        ("denied_subscribe", "SUBACK with 0x80"),
        ("denied_publish", "the connection ends"),
        ("clock_window", "within 5 minutes"),
        ("x_amz_expires", "heeded"),
        ("keys", "RSA 2048"),
        ("empty_token", "refused: 422 NoToken: where is it?"),
        ("foreign_token", "refused: 403 Foreign: this token is none of ours"),
        ("unknown_template", "refused: 404 NoTemplate: {detail} is not in account 123456789012"),
        ("invalid_payload", "refused: 400 NotAnObject: wanted an object"),
        ("invalid_csr", "refused: 400 BadRequest: not a certification request"),
    ] {
        assert_eq!(done.found(fact), found, "{fact}");
    }
    assert!(!done.scenario.strict && done.written.contains("token_reuse = \"accept\""), "{}", done.written);
}

#[test]
fn a_strict_service_is_found_out() {
    let habits = json!({"subscription": true, "second": "refuse", "delay_ms": 80, "token_s": 8});
    let done = calibrated(&habits, &["--expired-after", "10s"]);
    for (fact, found) in [
        ("capitalised_parameters", "refused, as if there were none: 400 Missing"),
        ("answer_without_subscription", "does not come"),
        ("puback_order", "the PUBACK"),
        ("used_token", "refused: 409 Again: used before"),
        ("missing_parameter", "refused: 400 Missing: a value for {detail} is missing"),
        ("second_certificate", "refused: 409 Exists: there is a {detail}"),
        ("expired_token", "refused: 410 TooOld: this token is too old"),
        ("denied_subscribe", "the connection ends"),
        ("x_amz_expires", "ignored"),
        ("keys", "P-256"),
    ] {
        assert_eq!(done.found(fact), found, "{fact}");
    }
    // What is refused is refused at once, and tells nothing of what is accepted.
    let accepted = |key: &str| {
        let laws = done.report["latency"].as_array().unwrap();
        let law =
            laws.iter().find(|law| law["operation"] == key).unwrap_or_else(|| panic!("{key}: {laws:?}"));
        law["milliseconds"].as_array().unwrap().iter().all(|ms| ms.as_f64().unwrap() >= 80.0)
    };
    assert!(accepted("register_thing") && accepted("create_keys_and_certificate"), "{}", done.said.out);
}

#[test]
fn a_service_that_is_unlike_any_is_found_out() {
    let habits = json!({"to_all": true, "window_s": 900, "reuse": "accept"});
    let done = calibrated(&habits, &[]);
    for (fact, found) in [
        ("answer_connection", "all of them"),
        ("clock_window", "5½ minutes are taken too"),
        ("x_amz_expires", "neither heeded nor ignored: both were taken"),
        ("used_token", "taken, with the same answer"),
    ] {
        assert_eq!(done.found(fact), found, "{fact}");
    }
}

/// Where nothing can be registered, nothing is known of how a registration is read.
#[test]
fn a_service_that_refuses_each_registration_shows_nothing_of_parameters() {
    let done = calibrated(&json!({"deny": true, "token_s": 1}), &["--expired-after", "2s"]);
    for fact in
        ["capitalised_parameters", "missing_parameter", "used_token", "second_certificate", "expired_token"]
    {
        assert!(done.is_left_out(fact), "{fact}: {}", done.said.out);
    }
    for key in ["strict", "missing_parameter", "token_reuse"] {
        assert!(!done.written.contains(key), "{key}: {}", done.written);
    }
    assert_eq!(done.found("empty_token"), "refused: 422 NoToken: where is it?");
}

#[test]
fn this_machines_clock_is_not_taken_for_the_services() {
    for skew_s in [-45, 45] {
        let done = calibrated(&json!({"skew_s": skew_s}), &[]);
        assert_eq!(done.found("clock_window"), "within 5 minutes", "{skew_s}");
        assert_eq!(done.found("x_amz_expires"), "ignored", "{skew_s}");
    }
}

#[test]
fn credentials_that_are_refused_show_nothing_of_dates() {
    let done = ended(&json!({"forbid": true}), &[], 77);
    for fact in ["clock_window", "x_amz_expires"] {
        assert!(done.is_left_out(fact), "{fact}: {}", done.said.out);
    }
    assert_eq!(done.report["cut_short"], "the service could not be reached any more");
}

/// Of each of these a thing is not as its row and template would make it: nothing is left all the same.
#[test]
fn a_thing_that_is_not_as_its_row_is_removed_too() {
    let empty = json!({"missing": "empty", "prefix": "dev-"});
    assert_eq!(calibrated(&empty, &[]).found("capitalised_parameters"), "ignored");
    let rising = json!({"reuse": "accept", "rising": true});
    assert_eq!(calibrated(&rising, &[]).found("second_certificate"), "taken, for the same thing");
    let refusing = json!({"hook": "hall-7-", "second": "refuse", "capitals": true});
    let done = calibrated(&refusing, &[]);
    assert!(done.found("second_certificate").starts_with("refused"));
    // What a hook names does not tell which parameters it was given.
    assert!(done.is_left_out("capitalised_parameters"), "{}", done.said.out);
}

#[test]
fn a_thing_that_is_there_already_is_not_touched() {
    let scratch = Scratch::new();
    let service = Service::start(&scratch, &json!({"there": "C-001"}));
    let (ledger, out) = (scratch.path("l.ledger"), scratch.path("account.toml"));
    let mut command = command(&ledger, &out);
    run(service.reached_by(&mut command).args(["--column", "Serial=C-{n:03}"]))
        .expect_code(64)
        .expect_err(&["--column", "thing C-001 is there already"]);
    assert_eq!(service.left(&scratch)["things"], json!(["C-001"]));
}

/// The first request of a flood that is accepted ends it on all of its connections. What was under way may be accepted too.
#[test]
#[ignore = "takes a minute: scripts/calibration/check"]
fn a_flood_ends_as_soon_as_something_is_made() {
    let scratch = Scratch::new();
    let service = Service::start(&scratch, &json!({"tired": 40}));
    let (ledger, out) = (scratch.path("l.ledger"), scratch.path("account.toml"));
    let mut command = command(&ledger, &out);
    run(service.reached_by(&mut command).arg("--limits")).expect_code(0);
    let left = service.left(&scratch);
    // A flood has 300, and there are two.
    let wrong = left["wrong"].as_u64().unwrap();
    assert!((41..200).contains(&wrong), "{left}");
}

/// A token is a secret while it is good; and whatever it is, it does not make two answers of one.
#[test]
fn a_token_that_a_refusal_repeats_is_taken_out() {
    let done = calibrated(&json!({"repeats": true}), &[]);
    for (fact, found) in [
        ("foreign_token", "refused: 403 Foreign: this token is none of ours ([redacted])"),
        ("unknown_template", "refused: 404 NoTemplate: {detail} is not in account 123456789012 ([redacted])"),
    ] {
        assert_eq!(done.found(fact), found);
    }
    assert!(done.written.contains("unknown_token"), "{}", done.written);
}

/// A connection that fails now and then is not why a subscription is refused.
#[test]
fn topics_that_may_not_be_subscribed_to_only_leave_out_what_is_asked_there() {
    let done = calibrated(&json!({"no_csr": true}), &[]);
    assert!(done.is_left_out("invalid_csr"), "{}", done.said.out);
    assert_eq!(done.found("used_token"), "refused: 409 Again: used before");
    assert_eq!(done.report["cut_short"], serde_json::Value::Null);
}

/// Without a PUBACK nobody knows whether a request without an answer has arrived, nor what would have come first.
#[test]
#[ignore = "takes a minute: scripts/calibration/check"]
fn a_service_without_pubacks_shows_nothing_of_order_and_silence() {
    let done = calibrated(&json!({"puback": "never", "subscription": true}), &["--timeout", "5s"]);
    assert!(done.is_left_out("puback_order"), "{}", done.said.out);
    assert!(done.is_left_out("answer_without_subscription"), "{}", done.said.out);
    assert_eq!(done.found("foreign_token"), "refused: 403 Foreign: this token is none of ours");
}

/// No answer to a request that was acknowledged is an answer, after two of them.
#[test]
#[ignore = "takes a minute: scripts/calibration/check"]
fn a_service_that_does_not_answer_wrong_requests_is_found_out() {
    let done = calibrated(&json!({"mute": true}), &["--timeout", "4s"]);
    for fact in ["empty_token", "foreign_token", "invalid_payload", "invalid_csr", "unknown_template"] {
        assert_eq!(done.found(fact), "no answer", "{fact}");
    }
}
