//! Set-ups that are wrong in one way each: each is named in one line, and the exit code says whether a run could succeed.

use std::path::PathBuf;
use std::sync::Arc;

use fleetmint::certificate::Secret;
use fleetmint::control_plane::{AwsSettings, ControlPlane, NewTemplate};
use fleetmint::emulator::Emulator;
use fleetmint::emulator::scenario::Scenario;
use fleetmint::proxy::Proxies;
use fleetmint::sigv4::Credentials;
use serde_json::json;

use super::*;
use crate::control::ask;

#[test]
fn a_right_set_up_is_told_line_by_line_and_nothing_is_changed() {
    let setup = Setup::new();
    let said = run(&mut setup.check(LOT)).expect_code(0).expect_out(&[
        "ok       credentials arn:aws:iam::123456789012:user/emulated of account 123456789012",
        "ok       endpoint    ",
        "ok       clock       ",
        "ok       connection  with a signature, and all subscriptions granted",
        "ok       template    KETTLE is there and enabled",
        "ok       parameters  2 sent, and all that KETTLE needs",
        "3 rows, 3 still to be registered",
        "ok       names       3 different things",
        "ok       thing type  Kettle",
        "ok       group       kitchen",
        "ok       policy      KettlePolicy",
        "ok       things      none is there yet (all 3 looked for)",
        "ok       quotas      ",
        "3 devices take at least 1s",
        "ok       disk        ",
        "ok       open files  room for 3 connections",
    ]);
    // The role of a scenario's template is not one of AWS's.
    assert!(complaints(&said).iter().all(|line| line.contains("role")), "{}", said.out);
    assert_eq!(setup.scratch.files(), ["lot.csv", "scenario.toml", "template.json"]);
    // A default that is taken is said; it is not wrong.
    run(&mut setup.check("SerialNumber\nSN1\n"))
        .expect_code(0)
        .expect_out(&["the template's defaults for Site"]);
}

/// Wrong in the credentials, the endpoint or the machine.
#[test]
fn who_and_where() {
    let setup = Setup::new();
    let mut command = setup.check(LOT);
    command.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
    says_one_thing(&mut command, 69, &["wrong", "credentials", "AWS_ACCESS_KEY_ID"]);
    let mut command = setup.check(LOT);
    command.env_remove("AWS_SECRET_ACCESS_KEY");
    says_one_thing(&mut command, 69, &["credentials", "AWS_SECRET_ACCESS_KEY is not"]);

    let mut command = setup.check(LOT);
    command.env("AWS_SECRET_ACCESS_KEY", "wrong");
    says_one_thing(
        &mut command,
        77,
        &["wrong    credentials", "the credentials were refused", "get new credentials"],
    );

    let lot = setup.scratch.write("lot.csv", LOT);
    let mut command = fleetmint();
    command.arg("check").arg(&lot).args([
        "--endpoint",
        "a1-ats.iot.eu-west-1.amazonaws.com",
        "--template",
        "T",
    ]);
    run(command.args(["--region", "us-east-1"])).expect_code(64).expect_err(&["--region", "eu-west-1"]);

    // Nothing listens there, for the connection; the account answers all the same.
    let mut command = fleetmint();
    command.arg("check").arg(&lot).args([
        "--endpoint",
        "localhost:1",
        "--region",
        "us-east-1",
        "--template",
        "KETTLE",
    ]);
    command.args(["--ca-file", setup.emulate.text("ca_file"), "--control-endpoint", &setup.control()]);
    command
        .args(["--service-quotas-endpoint", &setup.control()])
        .env("AWS_ENDPOINT_URL_STS", setup.control());
    setup.sign(&mut command);
    let said = run(&mut command).expect_code(69);
    assert!(complaints(&said).iter().any(|line| line.starts_with("wrong    connection")), "{}", said.out);

    let mut command = fleetmint();
    command.arg("check").arg(&lot).args(["--endpoint", setup.emulate.text("endpoint")]);
    command.args(["--region", "us-east-1", "--template", "KETTLE"]);
    setup.sign(&mut command);
    let said = run(&mut command).expect_code(69);
    assert!(
        complaints(&said).iter().any(|line| line.contains("connection") && line.contains("--ca-file")),
        "{}",
        said.out
    );

    let mut command = setup.check(LOT);
    command.arg("--ledger").arg(setup.scratch.path("no/such/folder/x.ledger"));
    let said = run(&mut command).expect_code(74);
    assert!(
        complaints(&said).iter().any(|line| line.contains("disk") && line.contains("--ledger")),
        "{}",
        said.out
    );
}

/// Where the file system is in memory, keys do not outlive the machine.
#[cfg(target_os = "linux")]
#[test]
fn a_ledger_in_memory_is_warned_about() {
    let setup = Setup::new();
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let mut command = setup.check(LOT);
    command.arg("--ledger").arg(folder.path().join("x.ledger"));
    let said = run(&mut command).expect_code(0);
    assert!(
        complaints(&said).iter().any(|line| line.contains("durability") && line.contains("in memory")),
        "{}",
        said.out
    );
}

/// A clock that is ten minutes off, by the service's own.
#[test]
fn a_clock_that_is_off_is_named() {
    let skew = "[[faults.rules]]\non = \"control_plane\"\nfault = \"clock_skew\"\ntime = \"-10m\"\n";
    let setup = Setup::with(WHOLE, "", &[&RESOURCES.join("\n"), skew], &[]);
    let said = run(&mut setup.check(LOT)).expect_code(69);
    let wrong: Vec<_> = complaints(&said).into_iter().filter(|line| line.starts_with("wrong")).collect();
    assert!(wrong.len() == 1 && wrong[0].contains("10m ahead of the service's"), "{}", said.out);
}

/// Wrong in what an account has.
#[test]
fn what_the_account_has_not_got() {
    for (missing, words) in [
        (0, ["wrong    thing type", "Kettle is not in the account", "create-thing-type"]),
        (1, ["wrong    group", "kitchen is not in the account", "create-thing-group"]),
        (2, ["wrong    billing group", "lot-1 is not in the account", "create-billing-group"]),
        (3, ["wrong    policy", "KettlePolicy is not in the account", "create-policy"]),
    ] {
        let resources: Vec<_> = (0..4).filter(|at| *at != missing).map(|at| RESOURCES[at]).collect();
        let setup = Setup::with(WHOLE, "", &resources, &[]);
        let said = run(&mut setup.check(LOT)).expect_code(69).expect_out(&words);
        assert_eq!(said.out.lines().filter(|line| line.starts_with("wrong")).count(), 1, "{}", said.out);
    }
    let setup = Setup::new();
    let mut command = setup.verb("check", &setup.scratch.write("lot.csv", LOT));
    let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    let mut other = fleetmint();
    other.args(
        arguments
            .iter()
            .map(|argument| if argument == "KETTLE" { "TOASTER".into() } else { argument.clone() }),
    );
    setup.sign(&mut other);
    run(&mut other).expect_code(69).expect_out(&[
        "wrong    template",
        "no template TOASTER",
        "template create",
    ]);
    run(&mut command).expect_code(0);
}

/// A permission that is missing is named, and the check skipped.
#[test]
fn a_missing_permission_is_named_and_only_that_check_skipped() {
    for (action, check) in [
        ("iot:DescribeProvisioningTemplate", "skipped  template"),
        ("iot:DescribeEndpoint", "skipped  endpoint"),
        ("iot:DescribeThing", "skipped  things"),
        ("iot:DescribeThingType", "skipped  thing type"),
        ("iot:DescribeThingGroup", "skipped  group"),
        ("iot:DescribeBillingGroup", "skipped  billing group"),
        ("iot:GetPolicy", "skipped  policy"),
        ("servicequotas:GetServiceQuota", "skipped  quotas"),
    ] {
        let setup = Setup::with(WHOLE, &format!("deny = [\"{action}\"]"), &RESOURCES, &[]);
        let said = run(&mut setup.check(LOT)).expect_code(0).expect_out(&[check, action, "is not permitted"]);
        assert_eq!(said.out.lines().filter(|line| line.starts_with("skipped")).count(), 1, "{}", said.out);
    }
}

/// What is asked over MQTT is refused: a run could not begin.
#[test]
fn a_subscription_that_is_not_granted_is_wrong() {
    for action in ["iot:Connect", "iot:Subscribe"] {
        let permissions = "[permissions]\nsubscribe = \"answer\"\n";
        let setup =
            Setup::with(WHOLE, &format!("deny = [\"{action}\"]"), &[&RESOURCES.join("\n"), permissions], &[]);
        let said = run(&mut setup.check(LOT)).expect_code(77);
        assert!(complaints(&said).iter().any(|line| line.starts_with("wrong    connection")), "{}", said.out);
    }
}

/// Wrong in the lot, or between the lot and the template.
#[test]
fn what_the_lot_has() {
    let setup = Setup::new();
    for (lot, words) in [
        // Parameters.
        ("DeviceId,Site\n1,Berlin\n", &["parameters", "needs the parameter SerialNumber", "--param"][..]),
        ("SerialNumber,site\n1,Berlin\n", &["parameters", "the parameter Site", "--param 'Site={site}'"]),
        // Rows.
        ("SerialNumber,Site\n1,Berlin\n1,Bonn\n", &["keys", "\"1\" stands on lines 2 and 3"]),
        ("SerialNumber,Site\nSN 1,Berlin\n", &["values", "line 2", "ThingName", "a space in \"SN 1\""]),
        (
            "SerialNumber,Site\n1,Köln\n2,Berlin Mitte\n",
            &["values", "2 rows", "line 2", "AttributePayload.site"],
        ),
        (&format!("SerialNumber,Site\n{},x\n", "9".repeat(129)), &["values", "129 characters"]),
        ("SerialNumber,Site\n1\n", &["lot", "line 2"]),
        ("", &["lot"]),
    ] {
        let said = run(&mut setup.check(lot)).expect_code(65);
        let wrong: Vec<_> = said.out.lines().filter(|line| line.starts_with("wrong")).collect();
        assert!(!wrong.is_empty(), "{}", said.out);
        for word in words {
            assert!(said.out.contains(word), "no {word:?} in:\n{}", said.out);
        }
    }
    // What is sent for nothing is no reason not to go on.
    run(&mut setup.check("SerialNumber,Site,Colour\n1,Berlin,red\n")).expect_code(0).expect_out(&[
        "warning  parameters",
        "no parameter Colour",
        "--columns",
    ]);
    let mut missing = setup.verb("check", &setup.scratch.path("absent.csv"));
    run(&mut missing).expect_code(65).expect_out(&["wrong    lot", "absent.csv"]);
}

/// Two devices, one thing; and more attributes than a thing without a type may have.
#[test]
fn what_the_template_makes_of_rows() {
    let by_site = WHOLE.replace(r#""ThingName": {"Ref": "SerialNumber"}"#, r#""ThingName": {"Ref": "Site"}"#);
    let setup = Setup::with(&by_site, "", &RESOURCES, &[]);
    run(&mut setup.check("SerialNumber,Site\n1,Berlin\n2,Bonn\n3,Berlin\n")).expect_code(65).expect_out(&[
        "wrong    names",
        "1 row becomes a thing",
        "lines 2 and 4 both become \"Berlin\"",
    ]);

    let four = WHOLE.replace("\"ThingTypeName\": \"Kettle\",", "").replace(
        r#"{"site": {"Ref": "Site"}}"#,
        r#"{"a": "1", "b": "2", "c": "3", "site": {"Ref": "Site"}}"#,
    );
    let setup = Setup::with(&four, "", &RESOURCES, &[]);
    run(&mut setup.check(LOT)).expect_code(65).expect_out(&[
        "wrong    values",
        "3 rows",
        "4 attributes",
        "at most 3 for a thing without a thing type",
    ]);

    let by_certificate = WHOLE.replace(
        r#""ThingName": {"Ref": "SerialNumber"}"#,
        r#""ThingName": {"Ref": "AWS::IoT::Certificate::Id"}"#,
    );
    let setup = Setup::with(&by_certificate, "", &RESOURCES, &[]);
    run(&mut setup.check(LOT))
        .expect_code(0)
        .expect_out(&["skipped  names", "line 2 has the certificate's id in it"]);

    let document = r#"{"PolicyDocument": {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "iot:Connect",
        "Resource": {"Fn::Join": ["", ["arn:aws:iot:us-east-1:123456789012:client/", {"Ref": "SerialNumber"}]]}}]}}"#;
    let per_device = WHOLE.replace(r#"{"PolicyName": "KettlePolicy"}"#, document);
    let setup = Setup::with(&per_device, "", &RESOURCES, &[]);
    run(&mut setup.check(LOT))
        .expect_code(0)
        .expect_out(&["warning  policies", "a policy of its own for each device"]);
}

/// A hook may give what is missing and change what is wrong: nothing of it stops a run.
#[test]
fn with_a_hook_the_lot_is_only_warned_about() {
    let setup = hooked();
    run(&mut setup.check("DeviceId,Site\n1,Köln\n")).expect_code(0).expect_out(&[
        "hook",
        "arn:aws:lambda",
        "warning  parameters",
        "needs the parameter SerialNumber",
        "unless the template's pre-provisioning hook",
    ]);
}

/// More groups than are asked for before a run.
#[test]
fn what_is_not_looked_for_is_said() {
    let by_site = WHOLE.replace(r#"["kitchen"]"#, r#"[{"Ref": "Site"}]"#);
    let sites: Vec<_> = (0..60).map(|n| format!("\"site-{n}\"")).collect();
    let groups = format!("thing_groups = [{}]", sites.join(", "));
    let setup = Setup::with(&by_site, "", &[RESOURCES[0], &groups, RESOURCES[2], RESOURCES[3]], &[]);
    let rows: String = (0..60).map(|n| format!("SN{n},site-{n}\n")).collect();
    let lot = format!("SerialNumber,Site\n{rows}");
    run(&mut setup.check(&lot)).expect_code(0).expect_out(&[
        "skipped  group",
        "50 of 60 were looked for, not the others",
        "--deep",
    ]);
    let deep = run(setup.check(&lot).arg("--deep")).expect_code(0);
    assert!(!deep.out.contains("skipped  group"), "{}", deep.out);
}

/// What this ledger registered is its own; a thing that exists otherwise is a warning, with the count.
#[test]
fn things_that_exist_are_counted_unless_they_are_the_ledgers_own() {
    let setup = Setup::new();
    let lot = setup.scratch.write("lot.csv", LOT);
    run(setup.verb("provision", &lot).args(["--limit", "2"])).expect_code(0);
    run(&mut setup.verb("check", &lot))
        .expect_code(0)
        .expect_out(&["3 rows, 1 still to be registered", "none is there yet (all 1 looked for)"]);
    let other = setup.scratch.path("other.ledger");
    for deep in [&[][..], &["--deep"]] {
        let said = run(setup.verb("check", &lot).arg("--ledger").arg(&other).args(deep)).expect_code(0);
        let found = complaints(&said).into_iter().find(|line| line.starts_with("warning  things")).unwrap();
        for word in ["2 exist already (all 3 looked for)", "\"SN1\"", "--if-exists refuse"] {
            assert!(found.contains(word), "{found}");
        }
    }
    assert!(!other.exists());
}

#[test]
fn json_has_every_finding_and_the_exit_code() {
    let setup = Setup::with(WHOLE, "", &RESOURCES[..3], &[]);
    let said = run(setup.check(LOT).arg("--json")).expect_code(69);
    let report = json(&said);
    assert_eq!(report["can_succeed"], json!(false));
    assert_eq!(report["exit_code"], json!(69));
    assert_eq!(report["counts"]["wrong"], json!(1));
    let findings = report["findings"].as_array().unwrap();
    let policy = findings.iter().find(|finding| finding["check"] == "policy").unwrap();
    assert_eq!(
        (&policy["outcome"], &policy["exit_code"], &policy["found"]),
        (&json!("wrong"), &json!(69), &json!("KettlePolicy is not in the account"))
    );
    assert!(policy["remedy"].as_str().unwrap().contains("aws iot create-policy"));
}

/// With a claim and no credentials: the connection and the lot are looked at, and what cannot be is said.
#[test]
fn a_claim_without_credentials_is_checked_as_far_as_that_goes() {
    let scratch = Scratch::new();
    let claims = scratch.path("claims");
    let scenario = scenario(&scratch, WHOLE, "", &RESOURCES);
    let emulate = Emulate::start(&["--scenario", &scenario, "--claim-dir", claims.to_str().unwrap()]);
    let check = |lot: &str, key: PathBuf| {
        let mut command = fleetmint();
        command.arg("check").arg(scratch.write("lot.csv", lot)).args([
            "--template",
            "KETTLE",
            "--region",
            "us-east-1",
        ]);
        command.args(["--endpoint", emulate.text("mqtt_endpoint").trim_start_matches("mqtts://")]);
        command
            .args(["--ca-file", emulate.text("ca_file")])
            .arg("--claim-cert")
            .arg(claims.join("claim.pem"));
        command.arg("--claim-key").arg(key);
        run(&mut command)
    };
    let said = check(LOT, claims.join("claim-key.pem"))
        .expect_code(0)
        .expect_out(&["ok       connection  with the claim certificate", "3 rows, 3 still to be registered"]);
    let found = complaints(&said);
    assert!(found.len() == 1 && found[0].contains("no AWS credentials"), "{}", said.out);
    check("SerialNumber,Site\n1,a\n1,b\n", claims.join("claim-key.pem"))
        .expect_code(65)
        .expect_out(&["wrong    keys"]);
}

fn plane(emulator: &Emulator) -> ControlPlane {
    let scenario = Scenario::default();
    ControlPlane::new(AwsSettings {
        endpoint_url: Some(format!("https://localhost:{}", emulator.local_addr().port())),
        region: scenario.region,
        credentials: Arc::new(Credentials {
            access_key_id: scenario.access_key_id,
            secret_access_key: Secret::new(scenario.secret_access_key),
            session_token: None,
        }),
        extra_roots: emulator.ca_pem().as_bytes().to_vec(),
        proxies: Proxies::default(),
    })
}

/// Templates that no device can register with, of the wrong role, and a thing type that no new thing can have.
#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_made_that_cannot_work() {
    let emulator = crate::emulator::start(Scenario::default()).await;
    let role = "arn:aws:iam::999999999999:role/Minting";
    let body = r#"{"Parameters": {"SerialNumber": {"Type": "String"}}, "Resources": {
        "t": {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": {"Ref": "SerialNumber"}, "ThingTypeName": "Old"}},
        "c": {"Type": "AWS::IoT::Certificate", "Properties": {}},
        "p": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": "TwokDevicePolicy"}}}}"#;
    let new = NewTemplate { name: "MADE", body, role, hook: None };
    plane(&emulator).create_template(&new).await.unwrap();
    let jitp = json!({"templateName": "JITP", "templateBody": body, "provisioningRoleArn": role, "type": "JITP",
        "enabled": true});
    for (method, target, body) in [
        ("POST", "/provisioning-templates", jitp),
        ("POST", "/thing-types/Old", json!({})),
        ("POST", "/thing-types/Old/deprecate", json!({})),
    ] {
        let (status, answer) = ask(&emulator, method, target, None, &body.to_string()).await;
        assert_eq!(status, "200", "{target}: {answer}");
    }
    let scratch = Scratch::new();
    let (lot, ca) =
        (scratch.write("lot.csv", "SerialNumber\nSN1\n"), scratch.write("ca.pem", emulator.ca_pem()));
    let endpoint = format!("localhost:{}", emulator.local_addr().port());
    let check = |template: &'static str| {
        let mut command = fleetmint();
        command.arg("check").arg(&lot).args(["--endpoint", &endpoint, "--region", "us-east-1"]);
        command.args(["--template", template]).arg("--ca-file").arg(&ca);
        command.env("AWS_ACCESS_KEY_ID", Scenario::default().access_key_id);
        command.env("AWS_SECRET_ACCESS_KEY", Scenario::default().secret_access_key);
        tokio::task::block_in_place(|| run(&mut command))
    };
    check("JITP").expect_code(69).expect_out(&[
        "wrong    template",
        "just-in-time provisioning",
        "FLEET_PROVISIONING",
    ]);
    check("MADE").expect_code(69).expect_out(&[
        "warning  role",
        "of another account than 123456789012",
        "wrong    thing type",
        "Old is deprecated",
    ]);
    let disabled = json!({"enabled": false}).to_string();
    let (status, _) = ask(&emulator, "PATCH", "/provisioning-templates/MADE", None, &disabled).await;
    assert_eq!(status, "200");
    check("MADE").expect_code(69).expect_out(&["wrong    template", "MADE is disabled", "--enabled"]);
    emulator.shutdown().await;
}

/// The files of a profile whose services are in the emulator: configuration and credentials.
fn profile(setup: &Setup) -> [PathBuf; 2] {
    let config = setup.scratch.write(
        "config",
        format!(
            "[profile here]\nregion = us-east-1\nservices = emulated\nendpoint_url = https://localhost:1\n\
             [services emulated]\niot =\n  endpoint_url = {0}\nsts =\n  endpoint_url = {0}\nservice_quotas =\n  endpoint_url = {0}\n",
            setup.control()
        ),
    );
    let credentials = setup.scratch.write(
        "credentials",
        format!(
            "[here]\naws_access_key_id = {}\naws_secret_access_key = {}\n",
            setup.emulate.text("access_key_id"),
            setup.emulate.text("secret_access_key")
        ),
    );
    [config, credentials]
}

/// `AWS_ENDPOINT_URL_<SERVICE>`, the profile's services, and what turns them off; what is typed goes before all of them.
#[test]
fn services_are_where_every_aws_tool_looks_for_them() {
    let setup = Setup::new();
    let lot = setup.scratch.write("lot.csv", LOT);
    let [config, credentials] = profile(&setup);
    // Even the endpoint to dial is found there.
    let check = |env: &[(&str, &str)], args: &[&str]| {
        let mut command = fleetmint();
        command.arg("check").arg(&lot).args([
            "--template",
            "KETTLE",
            "--ca-file",
            setup.emulate.text("ca_file"),
        ]);
        command.env("AWS_CONFIG_FILE", &config).env("AWS_SHARED_CREDENTIALS_FILE", &credentials);
        run(command.args(args).envs(env.iter().copied()))
    };
    let all_is_well = |said: Said| {
        let said =
            said.expect_code(0).expect_out(&["ok       credentials", "ok       template", "ok       quotas"]);
        assert!(said.err.contains("which DescribeEndpoint has found"), "{}", said.err);
    };
    all_is_well(check(&[], &["--profile", "here"]));
    all_is_well(check(&[("AWS_PROFILE", "here")], &[]));
    let control = setup.control();
    let keys = [
        ("AWS_ACCESS_KEY_ID", setup.emulate.text("access_key_id")),
        ("AWS_SECRET_ACCESS_KEY", setup.emulate.text("secret_access_key")),
        ("AWS_REGION", "us-east-1"),
    ];
    let with = |more: &[(&'static str, &str)], args: &[&str]| {
        let env: Vec<_> = keys.iter().chain(more).copied().collect();
        check(&env, args)
    };
    all_is_well(with(&[("AWS_ENDPOINT_URL", &control)], &[]));
    let nowhere = "https://localhost:1";
    let one_by_one = [
        ("AWS_ENDPOINT_URL", nowhere),
        ("AWS_ENDPOINT_URL_IOT", control.as_str()),
        ("AWS_ENDPOINT_URL_STS", &control),
        ("AWS_ENDPOINT_URL_SERVICE_QUOTAS", &control),
    ];
    all_is_well(with(&one_by_one, &[]));
    // On loopback the endpoint answers for all of them, unless something else is configured.
    let endpoint = ["--endpoint", setup.emulate.text("endpoint")];
    let said = with(&[("AWS_ENDPOINT_URL_IOT", nowhere)], &endpoint).expect_code(0);
    assert!(complaints(&said).iter().any(|line| line.starts_with("skipped  template")), "{}", said.out);
    let typed = [endpoint[0], endpoint[1], "--control-endpoint", &control];
    with(&[("AWS_ENDPOINT_URL_IOT", nowhere)], &typed).expect_code(0).expect_out(&["ok       template"]);
    let ignored = [("AWS_ENDPOINT_URL", nowhere), ("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true")];
    with(&ignored, &endpoint).expect_code(0).expect_out(&["ok       template", "ok       credentials"]);
}
