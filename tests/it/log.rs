//! The log: it tells the story of a device, one JSON object a line, and no secret.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::harness::{Said, Scratch, column, fleetmint, run};
use crate::keys::{Seen, exported_keys, needles, needles_of_text};

/// What a careless service might say.
const LEAK: &str = "cannot keep -----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----";

/// A run on the built-in emulator whose every word is logged. The device whose name has a space is rejected, and keeps its token.
struct Logged {
    scratch: Scratch,
    said: Said,
    session_token: String,
}

impl Logged {
    fn run(log: &str, args: &[&str]) -> Self {
        let scratch = Scratch::new();
        let session_token = format!("session//{}", "t0ken".repeat(30));
        let scenario = scratch.write(
            "s.toml",
            format!(
                "keys = \"p256\"\nsession_token = \"{session_token}\"\nsecret_access_key = \"{SECRET}\"\n\
                 [faults]\nseed = 3\n[faults.register_thing]\nreject_5xx = 0.3\n\
                 [errors.unavailable]\nstatus = 503\ncode = \"X\"\nmessage = '''{LEAK}'''\n"
            ),
        );
        let lot = scratch.write(
            "lot.csv",
            "DeviceId,SerialNumber,MacAddress\nA,1,x\nB,2,y\nC,3,z\nno spaces,4,z\nE,5,z\nF,6,z\nG,7,z\nH,8,z\n",
        );
        let mut command = fleetmint();
        command.arg("provision").arg(&lot).arg(format!("--emulator={}", scenario.display()));
        command.args(["--connections", "1", "--timeout", "1s", "--log-format", "json"]).args(args);
        let said = run(command.env("FLEETMINT_LOG", log)).expect_code(3);
        Self { scratch, said, session_token }
    }

    /// The lines of stderr, all of them JSON.
    fn lines(&self) -> Vec<Value> {
        let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        self.said.err.lines().map(parse).collect()
    }
}

/// The emulator's secret access key, in these tests.
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYNOSUCHKEY";

/// A line of a device's story: the innermost span, with the field that tells it from others of its name, and the message.
fn told(line: &Value) -> String {
    let span = line["spans"].as_array().and_then(|spans| spans.last()).unwrap();
    let which = ["call", "change", "key"].into_iter().find_map(|field| span[field].as_str());
    format!(
        "{} {}: {}",
        span["name"].as_str().unwrap(),
        which.unwrap_or("?"),
        line["message"].as_str().unwrap()
    )
}

#[test]
fn the_log_tells_the_story_of_a_device() {
    let logged = Logged::run("debug", &[]);
    let lines = logged.lines();
    let of_device = |key: &str| {
        let is_its = |line: &&Value| {
            let mut spans = line["spans"].as_array().into_iter().flatten();
            spans.any(|span| span["name"] == "device" && span["key"] == key)
        };
        lines.iter().filter(is_its).collect::<Vec<_>>()
    };
    let ledger = logged.scratch.path("lot.ledger");
    for key in ["1", "2", "3", "5", "6", "7", "8"] {
        let story = of_device(key);
        let text: Vec<_> = story.iter().map(|line| told(line)).collect();
        // What went wrong on the way, and was mended, left out.
        let mended = [": failed", ": trying again", ": connected", ": could not connect"];
        let plot: Vec<_> = text.iter().filter(|line| !mended.iter().any(|end| line.ends_with(end))).collect();
        let wanted = [
            format!("device {key}: taken up"),
            String::from("call create_certificate: accepted"),
            String::from("commit issued: durable"),
            String::from("call register_thing: accepted"),
            String::from("commit registered: durable"),
        ];
        assert_eq!(plot, wanted.iter().collect::<Vec<_>>(), "{text:#?}");
        let certificate =
            column(&ledger, &format!("SELECT certificate_id FROM certificate WHERE device = {key}"));
        let issued = story.iter().find(|line| told(line) == "commit issued: durable").unwrap();
        assert_eq!(issued["spans"].as_array().unwrap().last().unwrap()["certificate_id"], certificate[0]);
    }
}

#[test]
fn the_log_has_no_secret() {
    let everything = "trace";
    for args in [&["--keys", "aws"][..], &["--keys", "local"]] {
        let logged = Logged::run(everything, args);
        let ledger = logged.scratch.path("lot.ledger");
        let out = logged.scratch.path("out");
        let exporting = run(fleetmint().arg("export").arg(&ledger).arg("--out").arg(&out)).expect_code(0);
        let mut seen = Seen::default();
        seen.add("stdout", logged.said.out.clone());
        seen.add("the log", logged.said.err.clone());
        seen.add("stderr of export", exporting.err);
        let keys = exported_keys(&out);
        assert_eq!(keys.len(), 7);
        for key in &keys {
            seen.expect_none(&needles(key), "a private key");
        }
        let tokens =
            column(&ledger, "SELECT ownership_token FROM certificate WHERE ownership_token IS NOT NULL");
        assert!(!tokens.is_empty(), "the rejected device keeps its token");
        for text in tokens.iter().chain([&logged.session_token, &SECRET.to_owned()]) {
            seen.expect_none(&needles_of_text(text), "a token or a credential");
        }
        let marks = ["PRIVATE KEY-----", "hunter2", "X-Amz-Signature=", "x-amz-signature="];
        seen.expect_none(&marks.map(|mark| mark.as_bytes().to_vec()), "a secret's mark");
        // A signature is 64 hexadecimal digits, and so is the ID of a certificate: nothing else of that form is there.
        let known: BTreeSet<_> =
            column(&ledger, "SELECT certificate_id FROM certificate").into_iter().collect();
        let found = long_hex(&logged.said.err);
        assert!(!found.is_empty() && found.is_subset(&known), "{found:?} besides {known:?}");
    }
}

/// The runs of exactly 64 hexadecimal digits.
fn long_hex(text: &str) -> BTreeSet<String> {
    let runs = text.split(|character: char| !character.is_ascii_hexdigit());
    runs.filter(|run| run.len() == 64).map(str::to_lowercase).collect()
}

#[test]
fn what_is_no_filter_is_refused() {
    run(fleetmint().args(["status", "x.ledger"]).env("FLEETMINT_LOG", "fleetmint=loud"))
        .expect_code(64)
        .expect_err(&[
            "FLEETMINT_LOG is \"fleetmint=loud\"",
            "wanted error, warn, info, debug, trace or off",
        ]);
}
