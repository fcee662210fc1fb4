//! `template init`, `lint` and `create`.

use super::*;

fn template(words: &[&str]) -> Command {
    let mut command = fleetmint();
    command.arg("template").args(words);
    command
}

/// A lot as a factory has it: a secret, a value that no attribute can have, an umlaut.
#[test]
fn a_template_for_an_awkward_lot_provisions_it() {
    let scratch = Scratch::new();
    let lot = scratch.write(
        "lot.csv",
        "SerialNumber;Wi-Fi Password;Größe;Note;Color\nSN1;hunter2;10;two words;red\nSN2;hunter3;12;;blue\n",
    );
    let said = run(&mut template(&["init", lot.to_str().unwrap(), "--template", "AWKWARD"]))
        .expect_code(0)
        .expect_out(&[
            "left out: the column Wi-Fi Password, which looks like a secret",
            "left out: the column Note, because no attribute can have its value on line 2: found a space",
            "renamed: the column Größe is the attribute Gr__e",
            "fleetmint template create",
            "--columns 'SerialNumber,Größe,Color'",
        ]);
    assert!(!said.out.contains("hunter2") && !said.out.contains("two words"), "{}", said.out);
    assert_eq!(
        scratch.files(),
        ["lot.csv", "lot.role-trust.json", "lot.run-policy.json", "lot.template.json"]
    );
    let body = std::fs::read_to_string(scratch.path("lot.template.json")).unwrap();
    assert!(!body.contains("Password"), "{body}");
    let policy = std::fs::read_to_string(scratch.path("lot.run-policy.json")).unwrap();
    assert!(policy.contains("topic/$aws/provisioning-templates/AWKWARD/provision/json"), "{policy}");
    let trust = std::fs::read_to_string(scratch.path("lot.role-trust.json")).unwrap();
    assert!(trust.contains("iot.amazonaws.com"), "{trust}");
    let file = scratch.path("lot.template.json").display().to_string();
    run(&mut template(&["lint", &file])).expect_code(0).expect_out(&["nothing is wrong"]);

    // What is there is left as it is.
    run(&mut template(&["init", lot.to_str().unwrap()])).expect_code(74).expect_err(&["is there already"]);

    // Into an account, and a run with it.
    let emulate = Emulate::start(&[]);
    let role = "arn:aws:iam::123456789012:role/Minting";
    let create = |more: &[&str]| {
        let mut command = template(&["create", &file, "--template", "AWKWARD", "--role", role]);
        command.args(["--endpoint", emulate.text("endpoint"), "--region", "us-east-1"]);
        command.args(["--ca-file", emulate.text("ca_file")]).args(more);
        command.env("AWS_ACCESS_KEY_ID", emulate.text("access_key_id"));
        command.env("AWS_SECRET_ACCESS_KEY", emulate.text("secret_access_key"));
        run(&mut command)
    };
    // It asks first, and there is nobody to ask.
    create(&[]).expect_code(64).expect_err(&["--yes"]);
    create(&["--yes"])
        .expect_code(0)
        .expect_out(&["arn:aws:iot:us-east-1:123456789012:provisioningtemplate/AWKWARD"]);
    create(&["--yes"]).expect_code(69).expect_err(&["ResourceAlreadyExistsException", "another --template"]);
    for verb in ["check", "provision"] {
        let mut command = fleetmint();
        command.arg(verb).arg(&lot).args(["--endpoint", emulate.text("endpoint"), "--region", "us-east-1"]);
        command.args(["--template", "AWKWARD", "--ca-file", emulate.text("ca_file")]);
        command.args(["--columns", "SerialNumber,Größe,Color"]);
        command.env("AWS_ACCESS_KEY_ID", emulate.text("access_key_id"));
        command.env("AWS_SECRET_ACCESS_KEY", emulate.text("secret_access_key"));
        run(&mut command).expect_code(0);
    }
}

#[test]
fn what_init_decided_is_json_too() {
    let scratch = Scratch::new();
    let lot = scratch.write("lot.csv", "SerialNumber,DeviceKey,A,B,C,D\nSN 1,x,1,2,3,4\n");
    let out = scratch.path("out");
    std::fs::create_dir(&out).unwrap();
    let words = ["init", lot.to_str().unwrap(), "--out", out.to_str().unwrap(), "--json"];
    let told = json(&run(&mut template(&words)).expect_code(0));
    assert_eq!(told["parameters"], serde_json::json!(["SerialNumber", "A", "B", "C"]));
    let left_out: Vec<_> =
        told["left_out"].as_array().unwrap().iter().map(|one| one["column"].as_str().unwrap()).collect();
    assert_eq!(left_out, ["DeviceKey", "D"]);
    assert!(told["unfit_key"]["error"].as_str().unwrap().contains("a space in \"SN 1\""), "{told}");
    assert!(out.join("lot.template.json").exists() && !scratch.path("lot.template.json").exists());
}

/// Everything that is wrong is said at once, with the path of each.
#[test]
fn lint_names_everything_with_its_path() {
    let scratch = Scratch::new();
    let file = scratch.write(
        "t.json",
        r#"{
          "Parameters": {"Id": {"Type": "Number"}, "DeviceKey": {"Type": "String"}, "Old": {"Type": "String"}},
          "Resources": {
            "thing": {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": {"Ref": "Nobody"}}},
            "certificate": {"Type": "AWS::IoT::Certificate", "Properties": {"Colour": "red"}},
            "bucket": {"Type": "AWS::S3::Bucket"}
          },
          "DeviceConfiguration": {"deep": {"er": 1}}
        }"#,
    );
    let file = file.to_str().unwrap();
    run(&mut template(&["lint", file])).expect_code(69).expect_out(&[
        "t.json: error: Parameters.Id.Type: found \"Number\"; wanted \"String\"",
        "error: Resources.thing.Properties.ThingName.Ref: found \"Nobody\"",
        "error: Resources.certificate.Properties: found unknown key \"Colour\"",
        "error: Resources.bucket.Type: found \"AWS::S3::Bucket\"",
        "error: DeviceConfiguration.deep: found an object",
    ]);
    let told = json(&run(&mut template(&["lint", file, "--json"])).expect_code(69));
    assert_eq!(told["errors"].as_array().unwrap().len(), 5, "{told}");

    // What the service takes, and then refuses each device; and what is probably not meant.
    let file = scratch.write(
        "u.json",
        r#"{
          "Parameters": {"Id": {"Type": "String"}, "DeviceKey": {"Type": "String"}, "Old": {"Type": "String"}},
          "Resources": {
            "thing": {"Type": "AWS::IoT::Thing", "Properties": {
              "ThingName": {"Fn::Join": [" ", ["kettle", {"Ref": "Id"}]]}, "ThingGroups": ["kitch en"],
              "AttributePayload": {"key": {"Ref": "DeviceKey"}, "b": "1", "c": "2", "d": "3"}}},
            "certificate": {"Type": "AWS::IoT::Certificate", "Properties": {"CertificateId": {"Ref": "Id"}}},
            "policy": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyDocument": {"Version": "2012-10-17",
              "Statement": [{"Effect": "Allow", "Action": "iot:*", "Resource": {"Fn::Sub": "arn:aws:iot:*:*:topic/${Id}"}}]}}}
          }
        }"#,
    );
    run(&mut template(&["lint", file.to_str().unwrap()])).expect_code(69).expect_out(&[
        "error: Resources.thing.Properties.AttributePayload: found 4 attributes; wanted at most 3",
        "error: Resources.thing.Properties.ThingName: found a space in \"kettle 0\"",
        "error: Resources.thing.Properties.ThingGroups: found a space in \"kitch en\"",
        "warning: Resources.thing.Properties.AttributePayload.key: found DeviceKey, which looks like a secret",
        "warning: Resources.certificate.Properties.CertificateId: found the parameter Id",
        "warning: Resources.policy.Properties.PolicyDocument: found references to Id",
        "warning: Parameters.Old: found a parameter that nothing refers to",
    ]);
    run(&mut template(&["lint", "/no/such/file"])).expect_code(64).expect_err(&["/no/such/file"]);
}

/// A template that the service would refuse never gets that far.
#[test]
fn create_sends_nothing_that_lint_refuses() {
    let scratch = Scratch::new();
    let file = scratch.write("t.json", "{\"Resources\": {}}");
    let role = "arn:aws:iam::123456789012:role/Minting";
    let words = [
        "create",
        file.to_str().unwrap(),
        "--template",
        "T",
        "--role",
        role,
        "--region",
        "us-east-1",
        "--yes",
    ];
    run(template(&words).args(["--endpoint", "localhost:1"]))
        .expect_code(69)
        .expect_err(&["Resources: found no AWS::IoT::Certificate", "Nothing was made"]);
    let words = ["create", file.to_str().unwrap(), "--template", "T", "--role", "Minting", "--yes"];
    run(&mut template(&words))
        .expect_code(64)
        .expect_err(&["--role", "arn:aws:iam::123456789012:role/Minting"]);
}
