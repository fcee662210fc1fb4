//! Templates, and the plans that they become.

use super::*;

const CONFIGURED: &str = include_str!("../../fixtures/templates/configured-device.json");
const ID: &str = "c0ffee";

fn facts() -> CertificateFacts<'static> {
    CertificateFacts { id: Some(ID), subject: None }
}

fn parameters<'a>(pairs: &[(&'a str, &'a str)]) -> Parameters<'a> {
    pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
}

/// A template whose thing name is the JSON expression `name`.
fn named(name: &str) -> Result<Template, TemplateError> {
    Template::parse(&format!(
        r#"{{"Parameters": {{"A": {{"Type": "String"}}, "B": {{"Type": "String", "Default": "x,y"}}}},
            "Mappings": {{"M": {{"k": {{"v": "found"}}}}}},
            "Resources": {{
              "t": {{"Type": "AWS::IoT::Thing", "Properties": {{"ThingName": {name}}}}},
              "c": {{"Type": "AWS::IoT::Certificate", "Properties": {{}}}}}}}}"#
    ))
}

fn name_of(name: &str, given: &[(&str, &str)]) -> Result<String, Reason> {
    let plan = named(name).unwrap().evaluate(facts(), &parameters(given));
    Ok(plan.map_err(|error| error.reason)?.thing.unwrap().name)
}

#[test]
fn a_whole_template_becomes_a_plan() {
    let template = Template::parse(CONFIGURED).unwrap();
    let plan = template.evaluate(facts(), &parameters(&[("SerialNumber", "42"), ("Unheard", "of")])).unwrap();
    assert_eq!(
        plan.thing.unwrap(),
        ThingPlan {
            name: "device-42".into(),
            type_name: None,
            attributes: Some([("label".into(), "DEV:42".into()), ("second".into(), "b".into())].into()),
            groups: Some(vec!["all".into(), "dev".into()]),
            billing_group: Some("lot-1".into()),
            package_versions: BTreeMap::new(),
            overrides: Overrides::default(),
        }
    );
    assert_eq!(plan.certificate, Some(CertificateSource::Id(ID.into())));
    assert_eq!(plan.activation, Activation::Inactive);
    assert_eq!(
        serde_json::to_string(&plan.device_configuration).unwrap(),
        r#"{"Endpoint":"https://dev.example.com","Interval":30}"#
    );
    let document = concat!(
        r#"{"Statement":[{"Action":["iot:Publish"],"Effect":"Allow","#,
        r#""Resource":["arn:aws:iot:us-east-1:123456789012:topic/42"]}],"Version":"2012-10-17"}"#
    );
    assert_eq!(plan.policies, [PolicyPlan::Inline(document.into())]);
}

#[test]
fn functions() {
    for (expression, expected) in [
        (r#""plain""#, "plain"),
        (r#"{"Ref": "A"}"#, "1"),
        (r#"{"Ref": "B"}"#, "x,y"),
        (r#"{"Ref": "AWS::IoT::Certificate::Id"}"#, ID),
        (r#"{"Fn::Join": ["-", ["a", {"Ref": "A"}, "c"]]}"#, "a-1-c"),
        (r#"{"Fn::Join": ["/", {"Fn::Split": [",", {"Ref": "B"}]}]}"#, "x/y"),
        (r#"{"Fn::Select": ["1", ["a", "b"]]}"#, "b"),
        (r#"{"Fn::Select": [0, {"Fn::Split": [",", {"Ref": "B"}]}]}"#, "x"),
        (r#"{"Fn::Select": [{"Ref": "A"}, ["a", "b"]]}"#, "b"),
        (r#"{"Fn::FindInMap": ["M", "k", "v"]}"#, "found"),
        (r#"{"Fn::Sub": "<${A}|${!A}|${B}>"}"#, "<1|${A}|x,y>"),
        (r#"{"Fn::Sub": ["${A}${Z}", {"Z": {"Fn::FindInMap": ["M", "k", "v"]}}]}"#, "1found"),
        (r#"{"Fn::Sub": "no end ${A"}"#, "no end ${A"),
    ] {
        assert_eq!(name_of(expression, &[("A", "1")]), Ok(expected.into()), "{expression}");
    }
}

#[test]
fn a_function_without_a_result_says_which_and_why() {
    for (expression, expected) in [
        (r#"{"Fn::Select": ["2", ["a", "b"]]}"#, "Fn::Select: there is no element 2 in a list of 2"),
        (r#"{"Fn::Select": ["one", ["a", "b"]]}"#, "Fn::Select: one is not an index"),
        (r#"{"Fn::FindInMap": ["M", "k", {"Ref": "A"}]}"#, "Fn::FindInMap: nothing at M, k, 1"),
    ] {
        assert_eq!(name_of(expression, &[("A", "1")]), Err(Reason::Failed(expected.into())));
    }
    let missing = name_of(r#"{"Fn::Join": ["-", ["a", {"Ref": "A"}]]}"#, &[("B", "1")]);
    assert_eq!(missing, Err(Reason::MissingParameter("A".into())));
}

#[test]
fn the_certificates_own_id_cannot_be_overridden() {
    let given = [("AWS::IoT::Certificate::Id", "forged")];
    assert_eq!(name_of(r#"{"Ref": "AWS::IoT::Certificate::Id"}"#, &given), Ok(ID.into()));
}

#[test]
fn a_subject_is_the_certificates_and_else_the_default() {
    let body = r#"{"Parameters": {"AWS::IoT::Certificate::Country": {"Type": "String", "Default": "none"}},
        "Resources": {
          "t": {"Type": "AWS::IoT::Thing", "Properties": {
            "ThingName": {"Ref": "AWS::IoT::Certificate::CommonName"},
            "AttributePayload": {"country": {"Ref": "AWS::IoT::Certificate::Country"}}}},
          "c": {"Type": "AWS::IoT::Certificate"}}}"#;
    let template = Template::parse(body).unwrap();
    let subject = [("CommonName", String::from("cn-1"))].into();
    let of = |subject| CertificateFacts { id: Some(ID), subject };
    let thing = template.evaluate(of(Some(&subject)), &Parameters::new()).unwrap().thing.unwrap();
    assert_eq!((thing.name.as_str(), &thing.attributes.unwrap()["country"][..]), ("cn-1", "none"));
    let missing = template.evaluate(of(None), &Parameters::new()).unwrap_err();
    assert_eq!(
        missing.to_string(),
        "Resources.t.Properties.ThingName: parameter AWS::IoT::Certificate::CommonName has neither a value nor a \
         default"
    );
}

#[test]
fn a_certificates_status_is_active_unless_said_otherwise() {
    let activation = |properties: &str| {
        let body = format!(
            r#"{{"Parameters": {{"S": {{"Type": "String"}}}},
                "Resources": {{"c": {{"Type": "AWS::IoT::Certificate", "Properties": {properties}}}}}}}"#
        );
        Template::parse(&body)
            .unwrap()
            .evaluate(facts(), &parameters(&[("S", "odd")]))
            .map(|plan| plan.activation)
    };
    assert_eq!(activation("{}"), Ok(Activation::Active));
    assert_eq!(activation(r#"{"Status": "Active"}"#), Ok(Activation::Active));
    assert_eq!(activation(r#"{"Status": "INACTIVE"}"#), Ok(Activation::Inactive));
    let failed = activation(r#"{"Status": {"Ref": "S"}}"#).unwrap_err().to_string();
    assert_eq!(failed, "Resources.c.Properties.Status: odd is not ACTIVE or INACTIVE");
}

#[test]
fn a_policy_document_may_be_a_string() {
    let template = Template::parse(
        r#"{"Resources": {"c": {"Type": "AWS::IoT::Certificate"},
            "p": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyDocument": "{ \"Version\": \"2012-10-17\" }"}}}}"#,
    )
    .unwrap();
    let plan = template.evaluate(facts(), &Parameters::new()).unwrap();
    assert_eq!(plan.policies, [PolicyPlan::Inline(r#"{ "Version": "2012-10-17" }"#.into())]);
    assert_eq!(plan.thing, None);
}

#[test]
fn the_built_in_template_is_one() {
    let body = include_str!("../../fixtures/templates/temp-device.json");
    let template = Template::parse(body).unwrap();
    let overrides = template.thing.as_ref().unwrap().overrides;
    assert_eq!(overrides.attributes, Some(Override::Merge));
    assert_eq!((overrides.type_name, overrides.groups), (Some(Override::Replace), Some(Override::DoNothing)));
}
