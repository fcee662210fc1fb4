//! What is accepted, and what is refused with which words.

use super::*;

const CERTIFICATE: &str = r#""c": {"Type": "AWS::IoT::Certificate"}"#;

fn complaint(body: &str) -> String {
    read(body).unwrap_err().to_string()
}

/// The error for a template with a thing of these properties.
fn about_thing(properties: &str) -> String {
    complaint(&format!(
        r#"{{"Resources": {{{CERTIFICATE}, "t": {{"Type": "AWS::IoT::Thing", "Properties": {properties}}}}}}}"#
    ))
}

#[test]
fn errors_name_path_found_and_wanted() {
    for (body, expected) in [
        ("", "line 1, column 0: found something that is not JSON; wanted a JSON object"),
        (
            "{\n  \"Resources\": }",
            "line 2, column 16: found something that is not JSON; wanted a JSON object",
        ),
        ("[]", "the template: found a list of 0; wanted an object"),
        ("{}", "the template: found no Resources; wanted Resources to be given"),
        (
            r#"{"Resource": {}}"#,
            "the template: found unknown key \"Resource\"; \
             wanted Parameters, Mappings, Mapping, Resources, DeviceConfiguration",
        ),
        (
            r#"{"Resources": {}}"#,
            "Resources: found no AWS::IoT::Certificate; wanted one: without it there is nothing to activate",
        ),
        (
            r#"{"Resources": {"x": {"Type": "AWS::S3::Bucket"}}}"#,
            "Resources.x.Type: found \"AWS::S3::Bucket\"; \
             wanted AWS::IoT::Thing, AWS::IoT::Certificate or AWS::IoT::Policy",
        ),
        (
            r#"{"Resources": {"a": {"Type": "AWS::IoT::Certificate"}, "b": {"Type": "AWS::IoT::Certificate"}}}"#,
            "Resources.b.Type: found \"AWS::IoT::Certificate\"; wanted one resource of this type",
        ),
        (
            r#"{"Parameters": {"A": {"Type": "Number"}}, "Resources": {}}"#,
            "Parameters.A.Type: found \"Number\"; wanted \"String\", the only type",
        ),
        (
            r#"{"Mappings": {"M": {"k": {"v": {"Ref": "A"}}}}, "Resources": {}}"#,
            "Mappings.M.k.v: found an object with the key \"Ref\"; wanted a string",
        ),
        (
            r#"{"Resources": {"p": {"Type": "AWS::IoT::Policy", "Properties": {}}}}"#,
            "Resources.p.Properties: found both or neither; wanted one of PolicyName and PolicyDocument",
        ),
    ] {
        assert_eq!(complaint(body), expected);
    }
}

#[test]
fn a_thing_is_checked_in_every_part() {
    for (properties, expected) in [
        ("{}", "Resources.t.Properties: found no ThingName; wanted ThingName to be given"),
        (
            r#"{"ThingName": 7}"#,
            "Resources.t.Properties.ThingName: found 7; wanted a string, {\"Ref\": …} or a Fn:: function",
        ),
        (
            r#"{"ThingName": {"Ref": "Nobody"}}"#,
            "Resources.t.Properties.ThingName.Ref: found \"Nobody\"; \
             wanted a parameter that is declared under Parameters",
        ),
        (
            r#"{"ThingName": {"Fn::Sub": "${Nobody}"}}"#,
            "Resources.t.Properties.ThingName.Fn::Sub: found ${Nobody}; wanted a parameter that is declared under \
             Parameters, or ${!Nobody} to keep ${Nobody} as it is",
        ),
        (
            r#"{"ThingName": {"Fn::Join": ["-"]}}"#,
            "Resources.t.Properties.ThingName.Fn::Join: found a list of 1; wanted [delimiter, list]",
        ),
        (
            r#"{"ThingName": {"Fn::Reverse": "a"}}"#,
            "Resources.t.Properties.ThingName: found an object with the key \"Fn::Reverse\"; \
             wanted a string, {\"Ref\": …} or a Fn:: function",
        ),
        (
            r#"{"ThingName": {"Fn::Select": ["0", {"Fn::Split": ["", "a"]}]}}"#,
            "Resources.t.Properties.ThingName.Fn::Select.1.Fn::Split.0: found \"\"; \
             wanted a delimiter of at least one character",
        ),
        (
            r#"{"ThingName": "n", "ThingGroups": "all"}"#,
            "Resources.t.Properties.ThingGroups: found \"all\"; wanted a list, or {\"Fn::Split\": […]}",
        ),
        (
            r#"{"ThingName": "n", "Colour": "red"}"#,
            "Resources.t.Properties: found unknown key \"Colour\"; \
             wanted ThingName, ThingTypeName, AttributePayload, ThingGroups, BillingGroup, PackageVersions",
        ),
    ] {
        assert_eq!(about_thing(properties), expected);
    }
}

#[test]
fn overrides_are_checked() {
    let with = |settings: &str| {
        read(&format!(
            r#"{{"Resources": {{{CERTIFICATE}, "t": {{"Type": "AWS::IoT::Thing",
                "Properties": {{"ThingName": "n"}}, "OverrideSettings": {settings}}}}}}}"#
        ))
    };
    let overrides = with(r#"{"ThingGroups": "MERGE"}"#).unwrap().thing.unwrap().overrides;
    assert_eq!(overrides, Overrides { groups: Some(Override::Merge), ..Overrides::default() });
    assert_eq!(
        with(r#"{"ThingTypeName": "MERGE"}"#).unwrap_err().to_string(),
        "Resources.t.OverrideSettings.ThingTypeName: found \"MERGE\"; wanted DO_NOTHING, REPLACE or FAIL"
    );
}

#[test]
fn a_certificate_comes_from_one_place() {
    let about = |properties: &str| {
        complaint(&format!(
            r#"{{"Resources": {{"c": {{"Type": "AWS::IoT::Certificate", "Properties": {properties}}}}}}}"#
        ))
    };
    assert_eq!(
        about(r#"{"CertificateId": "a", "CertificatePem": "b"}"#),
        "Resources.c.Properties: found several; wanted one of CertificateId, CertificateSigningRequest and \
         CertificatePem"
    );
    assert_eq!(
        about(r#"{"ThingPrincipalType": "ANY"}"#),
        "Resources.c.Properties.ThingPrincipalType: found \"ANY\"; wanted EXCLUSIVE_THING or NON_EXCLUSIVE_THING"
    );
}

#[test]
fn a_file_holds_the_body_or_what_the_service_answered() {
    let body = r#"{"Resources": {"c": {"Type": "AWS::IoT::Certificate"}}}"#;
    let answer = serde_json::json!({"templateName": "T", "templateBody": body}).to_string();
    let tree = format!(r#"{{"templateBody": {body}, "roleArn": "r"}}"#);
    for file in [body.to_owned(), format!("\u{feff}{body}"), answer, tree] {
        assert!(read(&body_of(&file)).is_ok(), "{file}");
    }
    assert_eq!(body_of("not JSON"), "not JSON");
}

#[test]
fn device_configuration_is_flat() {
    let body = format!(r#"{{"Resources": {{{CERTIFICATE}}}, "DeviceConfiguration": {{"a": {{"b": 1}}}}}}"#);
    assert_eq!(
        complaint(&body),
        "DeviceConfiguration.a: found an object with the key \"b\"; wanted a flat value"
    );
}

#[test]
fn a_body_has_at_most_10_kib() {
    let body = format!(r#"{{"Resources": {{{CERTIFICATE}}}}}"#);
    let fits = format!("{body}{}", " ".repeat(MAX_TEMPLATE_BODY - body.len()));
    assert!(read(&fits).is_ok());
    assert_eq!(complaint(&format!("{fits} ")), "the template: found 10241 characters; wanted at most 10240");
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    /// Any body is accepted or refused, without a panic.
    #[test]
    fn any_text_is_read_or_refused(body in r#"[{}\[\]":,a-zA-Z0-9 ]{0,80}"#) {
        let _ = read(&body);
    }
}

/// Found by the fuzzer: a key of the template is a part of the path.
#[test]
fn what_a_terminal_would_act_on_is_escaped_in_paths_too() {
    let body = r#"{"Parameters": {}, "Resources": {"c\u001b[2J": {"Type": "AWS::IoT::Certificate", "Properties": {"Odd": ""}}}}"#;
    let error = Template::parse(body).unwrap_err().to_string();
    assert!(error.contains(r"Resources.c\u{1b}[2J.Properties: found unknown key"), "{error}");
}
