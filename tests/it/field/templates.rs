//! Provisioning templates as people have them, and what a registration with them does.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use fleetmint::certificate::Secret;
use fleetmint::emulator::account::{Account, AccountError, Fingerprint, Minted};
use fleetmint::emulator::scenario::Scenario;
use serde_json::{Value, json};

use crate::harness::{Scratch, column, fleetmint, run};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

/// A scenario, in a folder of its own, whose template `T` is this fixture.
fn scenario(template: &str, more: &str) -> Result<Scenario, String> {
    let scratch = Scratch::new();
    let file = fixture(template);
    let text = format!("{more}\n[[templates]]\nname = \"T\"\nfile = {:?}\n", file.display().to_string());
    Scenario::read(&scratch.write("scenario.toml", text)).map_err(|error| error.to_string())
}

struct Bench {
    account: Account,
    made: u8,
}

impl Bench {
    fn new(template: &str, more: &str) -> Self {
        Self { account: Self::load(template, more).unwrap(), made: 0 }
    }

    fn load(template: &str, more: &str) -> Result<Account, AccountError> {
        Account::new(&scenario(template, more).unwrap())
    }

    /// Registers a new certificate; the reply, accepted or not, and the certificate's id.
    fn register(&mut self, parameters: Value) -> (Value, Fingerprint) {
        let now = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_766_000_000);
        self.made += 1;
        let id = Fingerprint::of(&[self.made]);
        let minted = Minted {
            certificate_pem: String::from("-----BEGIN CERTIFICATE-----\n"),
            certificate_id: id.to_string(),
            private_key_pem: Secret::new(String::from("-----BEGIN RSA PRIVATE KEY-----\n")),
        };
        let created: Value =
            serde_json::from_slice(&self.account.create_keys(now, b"{}", minted).payload).unwrap();
        let request = json!({
            "certificateOwnershipToken": created["certificateOwnershipToken"],
            "parameters": parameters,
        });
        let answer = self.account.register(now, "T", request.to_string().as_bytes());
        (serde_json::from_slice(&answer.payload).unwrap(), id)
    }

    /// Asserts that a registration is rejected with these words, and has changed nothing.
    #[track_caller]
    fn expect_rejected(&mut self, parameters: Value, code: &str, words: &[&str]) {
        let count = |account: &Account| {
            let state = account.state();
            (state.things.len(), state.policies.len(), state.thing_types.len(), state.thing_groups.len())
        };
        let before = count(&self.account);
        let (reply, id) = self.register(parameters);
        assert_eq!(reply["errorCode"], code, "{reply}");
        let message = reply["errorMessage"].as_str().unwrap();
        words.iter().for_each(|word| assert!(message.contains(word), "{message}"));
        assert_eq!(count(&self.account), before);
        assert!(self.account.state().certificates[&id].policies.is_empty());
    }
}

fn serial() -> Value {
    json!({"SerialNumber": "a"})
}

/// Whoever writes a policy by hand: documents that the service refuses were attached to devices.
#[test]
fn a_policy_document_that_is_not_one_is_rejected_as_malformed() {
    for (template, words) in [
        ("policy-empty.json", "not JSON"),
        ("policy-not-json.json", "not JSON"),
        ("policy-no-statement.json", "unknown key \"hello\""),
    ] {
        let mut bench = Bench::new(&format!("field/templates/{template}"), "");
        bench.expect_rejected(serial(), "MalformedPolicyException", &["malformed", words]);
    }
}

/// Whoever indents a long document: white space does not count towards the limit.
#[test]
fn a_policy_document_is_measured_without_its_white_space() {
    let mut bench = Bench::new("field/templates/policy-long-with-blanks.json", "");
    assert_eq!(bench.register(serial()).0["thingName"], "a");
}

/// Whoever forgets to create the policy, the thing type or the group first.
#[test]
fn what_a_template_names_must_exist_unless_the_scenario_assumes_it() {
    let template = "field/templates/policy-that-nobody-made.json";
    let code = "ResourceRegistrationFailureException";
    Bench::new(template, "").expect_rejected(serial(), code, &["Thing type no-such-type does not exist"]);
    let typed = "thing_types = [\"no-such-type\"]";
    Bench::new(template, typed).expect_rejected(
        serial(),
        code,
        &["Thing group no-such-group does not exist"],
    );
    let grouped = format!("{typed}\nthing_groups = [\"no-such-group\"]");
    Bench::new(template, &grouped).expect_rejected(serial(), code, &["Policy no-such-policy does not exist"]);
    for declared in [
        format!("{grouped}\n[[policies]]\nname = \"no-such-policy\""),
        String::from("resources = \"assumed\""),
    ] {
        let mut bench = Bench::new(template, &declared);
        let (reply, id) = bench.register(serial());
        assert_eq!(reply["thingName"], "a", "{declared}: {reply}");
        assert!(bench.account.state().certificates[&id].policies.contains("no-such-policy"));
        assert!(bench.account.state().policies.contains_key("no-such-policy"));
    }
}

/// Whoever clears the attributes of a thing by registering it again.
#[test]
fn an_empty_payload_replaces_the_attributes_that_were_there() {
    let template = "field/templates/replace-with-nothing.json";
    let more = format!(
        "[[templates]]\nname = \"FIRST\"\nfile = {:?}\n",
        fixture("field/templates/defaults-hide-a-column.json").display().to_string()
    );
    let mut bench = Bench::new(template, &more);
    // The same thing, first by a template that gives it an attribute.
    let now = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_766_000_000);
    let minted = Minted {
        certificate_pem: String::from("-----BEGIN CERTIFICATE-----\n"),
        certificate_id: Fingerprint::of(b"first").to_string(),
        private_key_pem: Secret::new(String::new()),
    };
    let created: Value =
        serde_json::from_slice(&bench.account.create_keys(now, b"{}", minted).payload).unwrap();
    let request =
        json!({"certificateOwnershipToken": created["certificateOwnershipToken"], "parameters": serial()});
    bench.account.register(now, "FIRST", request.to_string().as_bytes());
    assert_eq!(bench.account.state().things["a"].attributes.get("site"), Some("WA"));
    bench.register(serial());
    let thing = &bench.account.state().things["a"];
    assert!(thing.attributes.is_empty() && thing.groups.is_empty());
    assert_eq!((thing.principals.len(), thing.version), (2, 2));
}

/// Whoever tracks software: a documented property was refused.
#[test]
fn package_versions_are_taken_and_kept() {
    let mut bench = Bench::new("field/templates/package-versions.json", "");
    assert_eq!(bench.register(serial()).0["thingName"], "a");
    assert_eq!(bench.account.state().things["a"].package_versions.get("firmware"), Some("1.2.0"));
}

/// Whoever has many groups: a thing is in ten at most.
#[test]
fn an_eleventh_group_is_rejected() {
    let mut bench = Bench::new("field/templates/eleven-groups.json", "resources = \"assumed\"");
    bench.expect_rejected(serial(), "InvalidRequestException", &["11 thing groups", "at most 10"]);
}

/// Whoever puts a policy variable into Fn::Sub: the message was cut before the variable.
#[test]
fn a_policy_variable_in_a_substitution_is_named_with_its_remedy() {
    let error = Bench::load("field/templates/sub-with-policy-variable.json", "").unwrap_err().to_string();
    assert_eq!(
        error,
        "template T: Resources.policy.Properties.PolicyDocument.Statement.0.Resource.Fn::Sub: found ${iot:ClientId}; wanted a \
         parameter that is declared under Parameters, or ${!iot:ClientId} to keep ${iot:ClientId} as it is"
    );
}

/// Whoever saves a template with a Windows editor.
#[test]
fn a_byte_order_mark_is_no_part_of_a_template() {
    assert_eq!(Bench::new("field/templates/with-bom.json", "").register(serial()).0["thingName"], "a");
}

/// Whoever keeps what `aws iot describe-provisioning-template` said.
#[test]
fn the_whole_answer_that_describes_a_template_is_one() {
    let scratch = Scratch::new();
    let body = std::fs::read_to_string(fixture("field/templates/with-bom.json")).unwrap();
    let answer = json!({
        "templateArn": "arn:aws:iot:us-east-1:123456789012:provisioningtemplate/T",
        "templateName": "T",
        "templateBody": body.trim_start_matches('\u{feff}'),
        "enabled": true,
    });
    for text in [answer.to_string(), format!("\u{feff}{answer}")] {
        scratch.write("described.json", text);
        let file = scratch.write("scenario.toml", "[[templates]]\nname = \"T\"\nfile = \"described.json\"\n");
        let account = Account::new(&Scenario::read(&file).unwrap()).unwrap();
        assert_eq!(Bench { account, made: 0 }.register(serial()).0["thingName"], "a");
    }
}

/// Whoever has a blank in a serial number: the refusal shows it, and where it came from.
#[test]
fn a_refusal_names_the_character_and_the_unresolved_parameter_its_place() {
    let mut bench = Bench::new("field/templates/with-bom.json", "");
    bench.expect_rejected(
        json!({"SerialNumber": "a b"}),
        "InvalidRequestException",
        &["(U+0020) as character 2"],
    );
    bench.expect_rejected(
        json!({"SerialNumber": "a\u{200b}"}),
        "InvalidRequestException",
        &["\\u{200b} (U+200B)"],
    );
    bench.expect_rejected(
        json!({"Serialnumber": "a"}),
        "InvalidRequestException",
        &["SerialNumber", "Resources.thing.Properties.ThingName"],
    );
}

/// Whoever starts from the Developer Guide's examples: they load, but for those that bring a certificate of their own,
/// which the guide itself rules out for fleets ("Only certificate IDs can be used with a fleet provisioning template").
#[test]
fn the_templates_that_aws_publishes_load() {
    let more = "thing_types = [\"lightBulb-versionA\", \"ThingPrefix_7\"]\nthing_groups = [\"v1-lightbulbs\", \"WA\", \"US\"]\n\
                billing_groups = [\"LightBulbBillingGroup\"]";
    let mut fleet = Bench::new("templates/aws/fleet.json", more);
    let parameters = json!({"ThingName": "a", "SerialNumber": "7", "DeviceLocation": "Seattle"});
    let (reply, _) = fleet.register(parameters);
    assert_eq!(
        reply,
        json!({
            "deviceConfiguration": {
                "FallbackUrl": "https://www.example.com/test-site",
                "LocationUrl": "https://example.aws",
            },
            "thingName": "a",
        })
    );
    for template in ["jitp.json", "jitp-with-role.json"] {
        let mut bench = Bench::new(&format!("templates/aws/{template}"), more);
        // A certificate of fleet provisioning has a common name, and no country.
        bench.expect_rejected(json!({}), "InvalidRequestException", &["AWS::IoT::Certificate::"]);
    }
    let error = Bench::load("templates/aws/bulk-csr.json", more).unwrap_err().to_string();
    assert_eq!(
        error,
        "template T: Resources.certificate.Properties: found CertificateSigningRequest; wanted CertificateId, the only one that a \
         fleet provisioning template can use"
    );
}

/// Whoever asks for one huge parameter many times over: 100 KB made an answer of 180 MB.
#[test]
fn a_large_parameter_is_rejected_before_anything_is_done() {
    let many = |count: usize| (0..count).map(|_| r#"{"Ref": "P"}"#).collect::<Vec<_>>().join(",");
    let body = format!(
        r#"{{"Parameters": {{"P": {{"Type": "String"}}}}, "Resources": {{"certificate": {{"Type": "AWS::IoT::Certificate"}}}},
            "DeviceConfiguration": {{"all": {{"Fn::Join": ["", [{}]]}}}}}}"#,
        many(300)
    );
    let scratch = Scratch::new();
    scratch.write("t.json", body);
    let file = scratch.write("scenario.toml", "[[templates]]\nname = \"T\"\nfile = \"t.json\"\n");
    let mut bench = Bench { account: Account::new(&Scenario::read(&file).unwrap()).unwrap(), made: 0 };
    let large = json!({"P": "x".repeat(100_000)});
    bench.expect_rejected(large, "InvalidRequestException", &["131072 bytes"]);
    // Characters that JSON escapes make the answer larger than the parameters.
    bench.expect_rejected(
        json!({"P": "\u{1}".repeat(400)}),
        "InvalidRequestException",
        &["the answer would be"],
    );
    assert!(bench.register(json!({"P": "x".repeat(400)})).0["deviceConfiguration"]["all"].is_string());
}

/// Whoever provisions certificates alone, as Terraform's own example does: every device ended unknown, for ever.
#[test]
fn a_template_without_a_thing_registers_devices_that_can_be_exported() {
    let scratch = Scratch::new();
    scratch.write("t.json", std::fs::read(fixture("field/templates/no-thing.json")).unwrap());
    let scenario =
        scratch.write("scenario.toml", "keys = \"p256\"\n[[templates]]\nname = \"T\"\nfile = \"t.json\"\n");
    let lot = scratch.write("lot.csv", "SerialNumber\n1\n2\n3\n");
    let emulator = format!("--emulator={}", scenario.display());
    // One connection, on which all answers are alike.
    let ran = run(fleetmint().arg("provision").arg(lot).args([&emulator, "--connections", "1"]));
    assert!(!ran.expect_code(0).out.contains("what went wrong"), "no answer is taken for another device's");
    let ledger = scratch.path("lot.ledger");
    assert_eq!(column(&ledger, "SELECT state FROM device"), ["registered"; 3]);
    assert_eq!(column(&ledger, "SELECT count(thing_name) FROM device"), ["0"]);
    let out = scratch.path("devices.jsonl");
    run(fleetmint().arg("export").arg(&ledger).args(["--format", "jsonl", "--out"]).arg(&out)).expect_code(0);
    assert_eq!(std::fs::read_to_string(out).unwrap().lines().count(), 3);
    let mut load = fleetmint();
    load.args(["load", "provision", &emulator, "--devices", "9", "--rate", "9/s", "--for", "1s"]);
    load.args(["--max-connections", "1", "--connections", "1", "--threshold", "register_thing.accepted=9"]);
    load.arg("--ledger").arg(scratch.path("load.ledger")).arg("--key-column").arg("SerialNumber");
    run(&mut load).expect_code(0);
}
