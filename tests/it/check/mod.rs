//! `check`, `template`, and what runs look at before they begin: the real binary against the emulator.

mod before;
mod setups;
mod templates;
mod twenty;
mod vectors;

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::harness::{Emulate, Said, Scratch, fleetmint, run};

/// A template with everything in it that an account has to have.
const WHOLE: &str = r#"{
  "Parameters": {
    "SerialNumber": {"Type": "String"},
    "Site": {"Type": "String", "Default": "WA"},
    "AWS::IoT::Certificate::Id": {"Type": "String"}
  },
  "Resources": {
    "thing": {"Type": "AWS::IoT::Thing", "Properties": {
      "ThingName": {"Ref": "SerialNumber"},
      "ThingTypeName": "Kettle",
      "ThingGroups": ["kitchen"],
      "BillingGroup": "lot-1",
      "AttributePayload": {"site": {"Ref": "Site"}}
    }},
    "certificate": {"Type": "AWS::IoT::Certificate", "Properties": {
      "CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}, "Status": "ACTIVE"}},
    "policy": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": "KettlePolicy"}}
  }
}"#;

/// What the account has to have for [`WHOLE`].
const RESOURCES: [&str; 4] = [
    "thing_types = [\"Kettle\"]",
    "thing_groups = [\"kitchen\"]",
    "billing_groups = [\"lot-1\"]",
    "[[policies]]\nname = \"KettlePolicy\"",
];

const LOT: &str = "SerialNumber,Site\nSN1,Berlin\nSN2,Bonn\nSN3,Kiel\n";

/// An account and a lot, right until somebody makes it wrong.
struct Setup {
    scratch: Scratch,
    emulate: Emulate,
}

/// The scenario of an account with the template KETTLE, and `more` before its tables.
fn scenario(scratch: &Scratch, template: &str, more: &str, resources: &[&str]) -> String {
    scratch.write("template.json", template);
    let text = format!(
        "keys = \"p256\"\n{more}\n{}\n[[templates]]\nname = \"KETTLE\"\nfile = \"template.json\"\n",
        resources.join("\n")
    );
    scratch.write("scenario.toml", text).display().to_string()
}

impl Setup {
    fn new() -> Self {
        Self::with(WHOLE, "", &RESOURCES, &[])
    }

    fn with(template: &str, more: &str, resources: &[&str], args: &[&str]) -> Self {
        let scratch = Scratch::new();
        let scenario = scenario(&scratch, template, more, resources);
        let args: Vec<_> = ["--scenario", &scenario].into_iter().chain(args.iter().copied()).collect();
        let emulate = Emulate::start(&args);
        Self { scratch, emulate }
    }

    /// `fleetmint VERB LOT` against this account.
    fn verb(&self, verb: &str, lot: &Path) -> Command {
        let mut command = fleetmint();
        command.arg(verb).arg(lot).args(["--endpoint", self.emulate.text("endpoint")]);
        command.args([
            "--region",
            "us-east-1",
            "--template",
            "KETTLE",
            "--ca-file",
            self.emulate.text("ca_file"),
        ]);
        self.sign(&mut command);
        command
    }

    fn sign(&self, command: &mut Command) {
        command.env("AWS_ACCESS_KEY_ID", self.emulate.text("access_key_id"));
        command.env("AWS_SECRET_ACCESS_KEY", self.emulate.text("secret_access_key"));
    }

    fn check(&self, lot: &str) -> Command {
        self.verb("check", &self.scratch.write("lot.csv", lot))
    }

    /// The control plane's address.
    fn control(&self) -> String {
        self.emulate.text("endpoint").replace("wss://", "https://").replace("/mqtt", "")
    }
}

/// A set-up whose template has a pre-provisioning hook.
fn hooked() -> Setup {
    let hook = "pre_provisioning_hook = \"arn:aws:lambda:us-east-1:123456789012:function:f\"\n";
    let scratch = Scratch::new();
    let text = std::fs::read_to_string(scenario(&scratch, WHOLE, "", &RESOURCES)).unwrap() + hook;
    let emulate = Emulate::start(&["--scenario", scratch.write("scenario.toml", text).to_str().unwrap()]);
    Setup { scratch, emulate }
}

/// The lines of a check that do not say that all is well.
fn complaints(said: &Said) -> Vec<&str> {
    let is_complaint =
        |line: &&str| ["wrong", "warning", "skipped"].iter().any(|word| line.starts_with(word));
    said.out.lines().filter(is_complaint).collect()
}

/// That a check says exactly one thing, and ends so.
#[track_caller]
fn says_one_thing(command: &mut Command, code: i32, words: &[&str]) {
    let said = run(command);
    let found = complaints(&said);
    assert_eq!(found.len(), 1, "code {:?}\n{}\n{}", said.code, said.out, said.err);
    for word in words {
        assert!(found[0].contains(word), "no {word:?} in {}", found[0]);
    }
    said.expect_code(code);
}

fn json(said: &Said) -> Value {
    serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}: {}", said.out))
}
