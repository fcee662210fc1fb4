//! Columns against the template that takes them.

use std::path::{Path, PathBuf};

use crate::harness::{Said, Scratch, Transcript, column, expect_text, fleetmint, run};

/// A scenario whose one template takes SerialNumber, and Site with the default WA.
fn scenario(scratch: &Scratch, more: &str) -> PathBuf {
    let body =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/field/templates/defaults-hide-a-column.json");
    scratch.write("template.json", std::fs::read(body).unwrap());
    scratch.write(
        "scenario.toml",
        format!("{more}\n[[templates]]\nname = \"KETTLE\"\nfile = \"template.json\"\n"),
    )
}

fn provision(scratch: &Scratch, lot: &str, args: &[&str]) -> Said {
    let lot = scratch.write("lot.csv", lot);
    let scenario = scratch.path("scenario.toml");
    run(fleetmint().arg("provision").arg(lot).arg(format!("--emulator={}", scenario.display())).args(args))
}

/// Whoever writes `site` for `Site`: every thing carried the template's default.
#[test]
fn a_column_that_is_nearly_a_parameter_is_refused_with_what_to_type() {
    let scratch = Scratch::new();
    scenario(&scratch, "");
    let mut refused = Transcript::default();
    for near in ["site", "SITE", "si_te"] {
        refused.add(near, &provision(&scratch, &format!("SerialNumber,{near}\n1,Berlin\n"), &[]));
    }
    expect_text("template-fit-near-misses", &scratch, &refused, &[]);
    assert_eq!(scratch.files(), ["lot.csv", "scenario.toml", "template.json"]);
    provision(&scratch, "SerialNumber,site\n1,Berlin\n", &["--param", "Site={site}"])
        .expect_code(0)
        .expect_err(&["no parameter site"]);
}

/// Whoever lacks a parameter altogether: every device was rejected, and a certificate spent on each.
#[test]
fn a_missing_parameter_is_refused_with_the_option_that_renames_a_column() {
    let scratch = Scratch::new();
    scenario(&scratch, "");
    let refused = provision(&scratch, "DeviceId,Site\n1,Berlin\n", &[]);
    expect_text("template-fit-missing", &scratch, &refused, &[]);
    provision(&scratch, "DeviceId,Site\n1,Berlin\n", &["--param", "SerialNumber={DeviceId}"]).expect_code(0);
}

/// Whoever has more columns than the template takes.
#[test]
fn columns_that_no_template_takes_are_named_and_can_be_left_out() {
    let scratch = Scratch::new();
    scenario(&scratch, "");
    let lot = "SerialNumber,Site,Batch,Colour\n1,Berlin,7,red\n";
    provision(&scratch, lot, &["--ledger", &scratch.path("a.ledger").display().to_string()])
        .expect_code(0)
        .expect_err(&["no parameter Batch, Colour", "--columns"]);
    let said = provision(&scratch, lot, &["--columns", "SerialNumber,Site"]).expect_code(0);
    assert!(!said.err.contains("no parameter"), "{}", said.err);
    let refused = provision(&scratch, lot, &["--columns", "serialnumber"]);
    expect_text("template-fit-wrong-column", &scratch, &refused, &[]);
}

/// Whoever may not read the template: it is said that nothing was compared.
#[test]
fn a_template_that_may_not_be_read_is_said() {
    let scratch = Scratch::new();
    scenario(&scratch, "deny = [\"iot:DescribeProvisioningTemplate\"]");
    provision(&scratch, "SerialNumber,Site\n1,Berlin\n", &[])
        .expect_code(0)
        .expect_err(&["could not be compared with template KETTLE", "DescribeProvisioningTemplate"]);
}

/// Whoever leaves a cell empty for the template's default to be taken.
#[test]
fn empty_cells_are_sent_or_left_out() {
    let scratch = Scratch::new();
    scratch.write(
        "template.json",
        r#"{"Parameters": {"SerialNumber": {"Type": "String"}, "Site": {"Type": "String", "Default": "WA"}},
            "Resources": {
                "thing": {"Type": "AWS::IoT::Thing", "Properties": {
                    "ThingName": {"Fn::Join": ["-", [{"Ref": "SerialNumber"}, {"Ref": "Site"}]]}}},
                "certificate": {"Type": "AWS::IoT::Certificate", "Properties": {
                    "CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}, "Status": "ACTIVE"}}}}"#,
    );
    scratch.write("scenario.toml", "[[templates]]\nname = \"KETTLE\"\nfile = \"template.json\"\n");
    for (ledger, args, thing) in
        [("a", &["--empty", "omit"][..], "S1-WA"), ("b", &["--empty", "send"], "S1-"), ("c", &[], "S1-")]
    {
        let ledger = scratch.path(ledger);
        let place = ledger.display().to_string();
        let args = [args, &["--ledger", &place]].concat();
        provision(&scratch, "SerialNumber,Site\nS1,\n", &args).expect_code(0);
        assert_eq!(column(&ledger, "SELECT thing_name FROM device"), [thing]);
    }
}

/// The load tester: a hundred thousand arrivals that were rejected, each, for a column that is called otherwise.
#[test]
fn load_tests_and_searches_compare_columns_too() {
    let scratch = Scratch::new();
    let scenario = scenario(&scratch, "").display().to_string();
    let lot = scratch.write("lot.csv", "SerialNumber,site\n1,Berlin\n2,Rome\n");
    let ledger = scratch.path("x.ledger");
    let test = |verb: &[&str], devices: &[&str]| {
        let mut command = fleetmint();
        command.args(verb).arg(format!("--emulator={scenario}")).args(devices).arg("--ledger").arg(&ledger);
        run(&mut command)
    };
    let load = ["load", "provision", "--rate", "5/s", "--for", "1s"];
    for verb in [&load[..], &["find-limit", "register", "--max-rate", "4/s"]] {
        test(verb, &["--lot", lot.to_str().unwrap()])
            .expect_code(65)
            .expect_err(&["--param 'Site={site}'", "Nothing was sent"]);
        test(verb, &["--devices", "9", "--key-column", "DeviceId"])
            .expect_code(65)
            .expect_err(&["needs the parameter SerialNumber"]);
        assert!(!ledger.exists());
    }
    test(&load, &["--devices", "9"]).expect_code(0);
}
