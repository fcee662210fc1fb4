//! An emulator with a template of its own, the real binary against it, and another client: raw requests to the control plane,
//! signed here.

use std::path::{Path, PathBuf};
use std::process::Command;

use fleetmint::emulator::Emulator;
use fleetmint::emulator::account::State;
use fleetmint::emulator::scenario::Scenario;
use serde_json::{Value, json};

use crate::control::ask;
use crate::harness::{Said, Scratch, column, fleetmint, run};

const ARN: &str = "arn:aws:iot:us-east-1:123456789012";

/// Attributes of the row, a constant and a default; a type, a group, a policy that is there, and one that is the device's own.
pub const TEMPLATE: &str = r#"{
  "Parameters": {
    "DeviceId": {"Type": "String"}, "SerialNumber": {"Type": "String"}, "MacAddress": {"Type": "String"},
    "Site": {"Type": "String", "Default": "north"}, "AWS::IoT::Certificate::Id": {"Type": "String"}
  },
  "Resources": {
    "thing": {"Type": "AWS::IoT::Thing", "Properties": {
      "ThingName": {"Ref": "DeviceId"}, "ThingTypeName": "Meter", "ThingGroups": ["all"],
      "AttributePayload": {"serial": {"Ref": "SerialNumber"}, "mac": {"Ref": "MacAddress"},
                           "site": {"Ref": "Site"}, "maker": "us"}}},
    "certificate": {"Type": "AWS::IoT::Certificate",
      "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}, "Status": "ACTIVE"}},
    "shared": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": "Shared"}},
    "own": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyDocument": {
      "Version": "2012-10-17",
      "Statement": [
        {"Effect": "Allow", "Action": "iot:Connect",
         "Resource": {"Fn::Join": ["", ["arn:aws:iot:us-east-1:123456789012:client/", {"Ref": "DeviceId"}]]}},
        {"Effect": "Allow", "Action": "iot:Publish",
         "Resource": {"Fn::Join": ["", ["arn:aws:iot:us-east-1:123456789012:topic/meters/", {"Ref": "DeviceId"}]]}}
      ]}}}
  }
}"#;

/// No more than a device needs to hear.
const SHARED: &str = r#"{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "iot:Receive", "Resource": "*"}]}"#;

pub struct Lab {
    pub scratch: Scratch,
    pub emulator: Emulator,
    ca_file: PathBuf,
}

impl Lab {
    /// One with [`TEMPLATE`], and `more` lines of the scenario before its tables.
    pub async fn new(more: &str) -> Self {
        Self::with_template(TEMPLATE, more, "").await
    }

    /// One with this template; `tables` of the scenario come last.
    pub async fn with_template(template: &str, more: &str, tables: &str) -> Self {
        let scratch = Scratch::new();
        scratch.write("template.json", template);
        scratch.write("shared.json", SHARED);
        let text = format!(
            "keys = \"p256\"\nthing_types = [\"Meter\"]\nthing_groups = [\"all\", \"other\"]\n{more}\n\
             [[policies]]\nname = \"Shared\"\nfile = \"shared.json\"\n{tables}\n"
        );
        let text = if tables.contains("[[templates]]") {
            text
        } else {
            format!("{text}[[templates]]\nname = \"LOT\"\nfile = \"template.json\"\n")
        };
        let scenario = Scenario::read(&scratch.write("scenario.toml", text)).unwrap();
        let emulator = crate::emulator::start(scenario).await;
        let ca_file = scratch.write("ca.pem", emulator.ca_pem());
        Self { scratch, emulator, ca_file }
    }

    /// `fleetmint VERB` with this account; a verb may be of two words.
    pub fn command(&self, verb: &str) -> Command {
        let mut command = fleetmint();
        let default = Scenario::default();
        command
            .args(verb.split(' '))
            .args(["--endpoint", &self.emulator.endpoint(), "--region", "us-east-1"])
            .arg("--ca-file")
            .arg(&self.ca_file)
            .env("AWS_ACCESS_KEY_ID", default.access_key_id)
            .env("AWS_SECRET_ACCESS_KEY", default.secret_access_key);
        command
    }

    /// Runs `fleetmint VERB LEDGER` with these arguments.
    pub async fn run(&self, verb: &str, ledger: &Path, args: &[&str]) -> Said {
        let mut command = self.command(verb);
        command.arg(ledger).args(args);
        tokio::task::spawn_blocking(move || run(&mut command)).await.unwrap()
    }

    /// Provisions a lot of so many devices; its ledger.
    pub async fn provision(&self, devices: usize) -> PathBuf {
        let lot = self.scratch.lot("lot.csv", devices);
        self.run("provision", &lot, &["--template", "LOT"]).await.expect_code(0);
        self.scratch.path("lot.ledger")
    }

    /// Another client's request, which must succeed.
    pub async fn ask(&self, method: &str, target: &str, principal: Option<&str>, body: &Value) -> Value {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let (status, answer) = ask(&self.emulator, method, target, principal, &body).await;
        assert_eq!(status, "200", "{method} {target}: {answer}");
        serde_json::from_str(&answer).unwrap()
    }

    pub fn state<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        self.emulator.inspect(|account| look(account.state()))
    }

    /// How many certificates, things and policies there are.
    pub fn holdings(&self) -> (usize, usize, usize) {
        self.state(|state| (state.certificates.len(), state.things.len(), state.policies.len()))
    }

    /// How often an operation was asked for, and how often that was throttled.
    pub fn asked(&self, operation: &str) -> (u64, u64) {
        self.emulator.inspect(|account| {
            let mut counts = account.operation_counts();
            counts.find(|(name, _)| *name == operation).map_or((0, 0), |(_, it)| (it.requests, it.throttled))
        })
    }

    /// Has another client make what [`TEMPLATE`] makes for device number `n`, of nothing but its certificate.
    pub async fn make_by_hand(&self, n: usize, certificate_pem: &str) {
        let name = format!("DEVICE_{n:06}");
        let none = Value::Null;
        let body = json!({ "certificatePem": certificate_pem, "status": "ACTIVE" });
        let registered = self.ask("POST", "/certificate/register-no-ca", None, &body).await;
        let arn = registered["certificateArn"].as_str().unwrap();
        let attributes = json!({
            "serial": format!("SN{n:06}"), "mac": format!("AA:BB:CC:00:00:{n:02X}"), "site": "north", "maker": "us",
        });
        let body = json!({ "thingTypeName": "Meter", "attributePayload": { "attributes": attributes } });
        self.ask("POST", &format!("/things/{name}"), None, &body).await;
        let body = json!({ "thingName": name, "thingGroupName": "all" });
        self.ask("PUT", "/thing-groups/addThingToThingGroup", None, &body).await;
        self.ask("PUT", &format!("/things/{name}/principals"), Some(arn), &none).await;
        self.ask("PUT", "/target-policies/Shared", None, &json!({ "target": arn })).await;
        let document = json!({
            "Version": "2012-10-17",
            "Statement": [
                { "Effect": "Allow", "Action": "iot:Connect", "Resource": format!("{ARN}:client/{name}") },
                { "Effect": "Allow", "Action": "iot:Publish", "Resource": format!("{ARN}:topic/meters/{name}") },
            ],
        });
        let body = json!({ "policyDocument": document.to_string() });
        self.ask("POST", &format!("/policies/own-{n}"), None, &body).await;
        self.ask("PUT", &format!("/target-policies/own-{n}"), None, &json!({ "target": arn })).await;
    }

    pub async fn close(self) {
        self.emulator.shutdown().await;
    }
}

/// The ARN of a certificate.
pub fn arn(id: &str) -> String {
    format!("{ARN}:cert/{id}")
}

/// The ids of a ledger's certificates, in the order of its devices.
pub fn ids(ledger: &Path) -> Vec<String> {
    column(ledger, "SELECT certificate_id FROM devices ORDER BY id")
}

/// What a command said as JSON.
pub fn json_of(said: &Said) -> Value {
    serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}: {}\n{}", said.out, said.err))
}

/// The reasons of exceptions, by the device's key.
pub fn reasons(report: &Value) -> Vec<(String, Vec<String>)> {
    let exceptions = report["exceptions"].as_array().unwrap().iter();
    let texts = |value: &Value| serde_json::from_value::<Vec<String>>(value.clone()).unwrap();
    exceptions.map(|it| (it["key"].as_str().unwrap().to_owned(), texts(&it["reasons"]))).collect()
}
