//! Deliberately wrong set-ups, more than twenty: each is named in exactly one line, with the exit code of a run.

use super::*;

/// That a check complains in one line, which begins so and has these words. The role of a scenario's template is not one
/// of AWS's, which is said of each.
#[track_caller]
fn is_named(command: &mut Command, code: i32, begins: &str, words: &[&str]) {
    let said = run(command);
    let found: Vec<_> =
        complaints(&said).into_iter().filter(|line| !line.starts_with("warning  role")).collect();
    assert!(found.len() == 1 && found[0].starts_with(begins), "wanted {begins}:\n{}\n{}", said.out, said.err);
    for word in words {
        assert!(found[0].contains(word), "no {word:?} in {}", found[0]);
    }
    said.expect_code(code);
}

#[test]
fn wrong_lots() {
    const PARAMETERS: &str = "wrong    parameters";
    const VALUES: &str = "wrong    values";
    const IN_LOT: &str = "wrong    lot";
    let setup = Setup::new();
    let long = format!("SerialNumber,Site\n{},x\n", "9".repeat(129));
    let header = |rows: &str| format!("SerialNumber,Site\n{rows}");
    for (lot, args, begins, words) in [
        (header("1,B\n"), &["--columns", "Site"][..], PARAMETERS, &["SerialNumber", "--param"][..]),
        (String::from("SerialNumber,site\n1,B\n"), &[], PARAMETERS, &["--param 'Site={site}'"]),
        (header("1,B\n1,C\n"), &[], "wrong    keys", &["\"1\" stands on lines 2 and 3"]),
        (header("SN 1,B\n"), &[], VALUES, &["line 2", "ThingName", "a space in \"SN 1\""]),
        (header("1,Köln\n"), &[], VALUES, &["line 2", "AttributePayload.site"]),
        (long, &[], VALUES, &["129 characters"]),
        (header("1\n"), &[], IN_LOT, &["line 2", "found 1 field"]),
        (String::from("SerialNumber;Site\n1;B\n"), &["--delimiter", ","], IN_LOT, &["SerialNumber;Site"]),
        (String::new(), &[], IN_LOT, &["line 1", "an empty file"]),
    ] {
        is_named(setup.check(&lot).args(args), 65, begins, words);
    }
    let absent = setup.scratch.path("absent.csv");
    is_named(&mut setup.verb("check", &absent), 65, IN_LOT, &["absent.csv"]);
    let unused = &mut setup.check("SerialNumber,Site,Colour\n1,B,red\n");
    is_named(unused, 0, "warning  parameters", &["no parameter Colour", "--columns"]);
    let nowhere = setup.scratch.path("no/such/x.ledger");
    is_named(setup.check(LOT).arg("--ledger").arg(nowhere), 74, "wrong    disk", &["no/such", "--ledger"]);
}

#[test]
fn wrong_credentials() {
    const CREDENTIALS: &str = "wrong    credentials";
    let setup = Setup::new();
    let mut none = setup.check(LOT);
    none.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
    is_named(&mut none, 69, CREDENTIALS, &["AWS_ACCESS_KEY_ID"]);
    let mut half = setup.check(LOT);
    half.env_remove("AWS_SECRET_ACCESS_KEY");
    is_named(&mut half, 69, CREDENTIALS, &["AWS_SECRET_ACCESS_KEY is not"]);
    let mut wrong = setup.check(LOT);
    wrong.env("AWS_SECRET_ACCESS_KEY", "wrong");
    is_named(&mut wrong, 77, CREDENTIALS, &["refused", "get new credentials"]);
}

#[test]
fn wrong_accounts() {
    for (missing, begins, word) in [
        (0, "wrong    thing type", "Kettle is not in the account"),
        (1, "wrong    group", "kitchen is not in the account"),
        (2, "wrong    billing group", "lot-1 is not in the account"),
        (3, "wrong    policy", "KettlePolicy is not in the account"),
    ] {
        let resources: Vec<_> = (0..4).filter(|at| *at != missing).map(|at| RESOURCES[at]).collect();
        let setup = Setup::with(WHOLE, "", &resources, &[]);
        is_named(&mut setup.check(LOT), 69, begins, &[word, "make it: aws iot create-"]);
    }
    let answered = "[permissions]\nsubscribe = \"answer\"\n";
    for (denied, code, begins) in [
        ("iot:Subscribe", 77, "wrong    connection"),
        ("iot:DescribeThing", 0, "skipped  things"),
        ("iot:DescribeProvisioningTemplate", 0, "skipped  template"),
        ("servicequotas:GetServiceQuota", 0, "skipped  quotas"),
    ] {
        let resources = [&RESOURCES.join("\n"), answered];
        let setup = Setup::with(WHOLE, &format!("deny = [\"{denied}\"]"), &resources, &[]);
        is_named(&mut setup.check(LOT), code, begins, &[denied]);
    }
    let skew = "[[faults.rules]]\non = \"control_plane\"\nfault = \"clock_skew\"\ntime = \"-10m\"\n";
    let setup = Setup::with(WHOLE, "", &[&RESOURCES.join("\n"), skew], &[]);
    is_named(&mut setup.check(LOT), 69, "wrong    clock", &["10m ahead of the service's", "set it"]);
    // Another hand has registered one of the devices.
    let setup = Setup::new();
    let lot = setup.scratch.write("lot.csv", LOT);
    run(setup.verb("provision", &lot).args(["--limit", "1"])).expect_code(0);
    let mut other = setup.verb("check", &lot);
    other.arg("--ledger").arg(setup.scratch.path("other.ledger"));
    is_named(&mut other, 0, "warning  things", &["1 exist already", "\"SN1\"", "--if-exists refuse"]);
}

#[test]
fn wrong_templates() {
    let name = r#""ThingName": {"Ref": "SerialNumber"}"#;
    let policy = r#"{"PolicyDocument": {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "iot:Connect",
        "Resource": {"Fn::Join": ["", ["arn:aws:iot:us-east-1:123456789012:client/", {"Ref": "SerialNumber"}]]}}]}}"#;
    let attributes = r#"{"a": "1", "b": "2", "c": "3", "site": {"Ref": "Site"}}"#;
    let one_thing = WHOLE.replace(name, r#""ThingName": "kettle""#);
    let by_certificate = WHOLE.replace(name, r#""ThingName": {"Ref": "AWS::IoT::Certificate::Id"}"#);
    let untyped = WHOLE.replace("\"ThingTypeName\": \"Kettle\",", "");
    let four = untyped.replace(r#"{"site": {"Ref": "Site"}}"#, attributes);
    let per_device = WHOLE.replace(r#"{"PolicyName": "KettlePolicy"}"#, policy);
    for (template, code, begins, words) in [
        (
            one_thing,
            65,
            "wrong    names",
            &["2 rows become a thing", "lines 2 and 3 both become \"kettle\""][..],
        ),
        (by_certificate, 0, "skipped  names", &["the certificate's id in it"]),
        (four, 65, "wrong    values", &["3 rows", "4 attributes"]),
        (per_device, 0, "warning  policies", &["a policy of its own for each device"]),
    ] {
        let setup = Setup::with(&template, "", &RESOURCES, &[]);
        is_named(&mut setup.check(LOT), code, begins, words);
    }
    let setup = Setup::new();
    let lot = setup.scratch.write("lot.csv", LOT);
    let mut other = fleetmint();
    other.arg("check").arg(&lot).args([
        "--endpoint",
        setup.emulate.text("endpoint"),
        "--region",
        "us-east-1",
    ]);
    other.args(["--template", "TOASTER", "--ca-file", setup.emulate.text("ca_file")]);
    setup.sign(&mut other);
    is_named(&mut other, 69, "wrong    template", &["no template TOASTER", "template create"]);
}
