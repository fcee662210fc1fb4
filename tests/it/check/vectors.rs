//! AWS's published examples of templates and functions, each with the result worked out by hand from the guide's words: what the
//! emulator and `check` share must not only agree with itself.
//!
//! Sources: AWS IoT Developer Guide, "Provisioning templates" (fixtures/templates/aws: the examples as they stand there);
//! AWS CloudFormation User Guide, "Intrinsic functions", for the functions' own examples, which the IoT guide names and does not
//! show.

use std::collections::BTreeMap;

use fleetmint::template::{
    Activation, CertificateFacts, CertificateSource, EvaluationError, Override, Overrides, Parameters, Plan,
    PolicyPlan, PrincipalType, Reason, Template, ThingPlan, declared_parameters, lint,
};
use serde_json::json;

fn example(name: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(root.join("fixtures/templates/aws").join(name)).unwrap()
}

use std::path::Path;

fn parameters<'a>(pairs: &[(&'a str, &'a str)]) -> Parameters<'a> {
    pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
}

fn evaluated(body: &str, given: &[(&str, &str)]) -> Result<Plan, EvaluationError> {
    let facts = CertificateFacts { id: Some("c0ffee"), subject: None };
    Template::parse(body).unwrap().evaluate(facts, &parameters(given))
}

fn strings<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Equal as JSON, whatever the spaces.
#[track_caller]
fn assert_is_document(plan: &PolicyPlan, expected: serde_json::Value) {
    let PolicyPlan::Inline(document) = plan else { panic!("{plan:?} is not a document") };
    assert_eq!(serde_json::from_str::<serde_json::Value>(document).unwrap(), expected);
}

/// "Fleet provisioning": the JSON example.
#[test]
fn the_fleet_example() {
    let body = example("fleet.json");
    let given = [("ThingName", "bulb-1"), ("SerialNumber", "S77"), ("DeviceLocation", "Seattle")];
    let plan = evaluated(&body, &given).unwrap();
    let expected = ThingPlan {
        name: String::from("bulb-1"),
        // {"Fn::Join": ["", ["ThingPrefix_", {"Ref": "SerialNumber"}]]}
        type_name: Some(String::from("ThingPrefix_S77")),
        // The example has the text serialNumber there, not a Ref.
        attributes: Some(strings([("version", "v1"), ("serialNumber", "serialNumber")])),
        groups: Some(vec![String::from("v1-lightbulbs"), String::from("WA")]),
        billing_group: Some(String::from("LightBulbBillingGroup")),
        package_versions: BTreeMap::new(),
        overrides: Overrides {
            attributes: Some(Override::Merge),
            type_name: Some(Override::Replace),
            groups: Some(Override::DoNothing),
        },
    };
    assert_eq!(plan.thing, Some(expected));
    assert_eq!(plan.certificate, Some(CertificateSource::Id(String::from("c0ffee"))));
    assert_eq!((plan.activation, plan.principal_type), (Activation::Active, PrincipalType::NonExclusive));
    assert_eq!(plan.policies.len(), 1);
    assert_is_document(
        &plan.policies[0],
        json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": ["iot:Publish"],
               "Resource": ["arn:aws:iot:us-east-1:123456789012:topic/foo/bar"]}]}),
    );
    let configuration =
        json!({"FallbackUrl": "https://www.example.com/test-site", "LocationUrl": "https://example.aws"});
    assert_eq!(serde_json::Value::Object(plan.device_configuration.clone()), configuration);
    assert!(plan.refused().is_empty());

    // A location that is not in the table has no URL; a parameter without a default that nobody sends has no value.
    let elsewhere = [("ThingName", "bulb-1"), ("SerialNumber", "S77"), ("DeviceLocation", "Boston")];
    assert!(matches!(evaluated(&body, &elsewhere).unwrap_err().reason, Reason::Failed(_)));
    let missing = evaluated(&body, &given[1..]).unwrap_err().reason;
    assert_eq!(missing, Reason::MissingParameter(String::from("ThingName")));
    assert!(lint(&body).errors.is_empty(), "{:?}", lint(&body).errors);
}

/// "Template example for bulk registration": a default, a policy as a string of JSON, and a certificate that fleet provisioning
/// cannot take.
#[test]
fn the_bulk_example() {
    let body = example("bulk-csr.json");
    let plan = evaluated(&body, &[("ThingName", "b"), ("SerialNumber", "9"), ("CSR", "-----BEGIN")]).unwrap();
    let thing = plan.thing.unwrap();
    assert_eq!(thing.attributes, Some(strings([("version", "v1"), ("serialNumber", "9")])));
    assert_eq!(thing.groups, Some(vec![String::from("v1-lightbulbs"), String::from("WA")]));
    assert_eq!((thing.type_name.as_deref(), thing.billing_group), (Some("lightBulb-versionA"), None));
    assert_eq!(plan.certificate, Some(CertificateSource::SigningRequest(String::from("-----BEGIN"))));
    assert_is_document(
        &plan.policies[0],
        json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": ["iot:Publish"],
               "Resource": ["arn:aws:iot:us-east-1:123456789012:topic/foo/bar"]}]}),
    );
    let optional: Vec<_> =
        declared_parameters(&body).unwrap().into_iter().filter(|one| one.is_optional).collect();
    assert_eq!(optional.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["Location"]);
    let errors = lint(&body).errors;
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert_eq!(errors[0].at, "Resources.certificate.Properties");
}

/// "Template example for just-in-time provisioning": what the certificate's subject says.
#[test]
fn the_jitp_example() {
    let subject: BTreeMap<&'static str, String> = [
        ("CommonName", "bulb-3".to_owned()),
        ("SerialNumber", "77".to_owned()),
        ("Country", "DE".to_owned()),
    ]
    .into();
    let facts = CertificateFacts { id: Some("c0ffee"), subject: Some(&subject) };
    let template = Template::parse(&example("jitp.json")).unwrap();
    let thing = template.evaluate(facts, &Parameters::new()).unwrap().thing.unwrap();
    assert_eq!(thing.name, "bulb-3");
    assert_eq!(thing.attributes, Some(strings([("version", "v1"), ("serialNumber", "77")])));
    assert_eq!(thing.groups, Some(vec![String::from("v1-lightbulbs"), String::from("DE")]));
}

/// The functions' own examples.
#[test]
fn the_functions() {
    let named = |name: &str| {
        let body = json!({
            "Parameters": {"Domain": {"Type": "String", "Default": "example"}},
            "Mappings": {"RegionMap": {"us-east-1": {"HVM64": "ami-0ff8a91507f77f867"},
                                       "us-west-1": {"HVM64": "ami-0bdb828fd58c52235"}}},
            "Resources": {
                "t": {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": serde_json::from_str::<serde_json::Value>(name).unwrap()}},
                "c": {"Type": "AWS::IoT::Certificate"},
            },
        });
        evaluated(&body.to_string(), &[]).map(|plan| plan.thing.unwrap().name)
    };
    for (expression, result) in [
        (r#"{"Fn::Join": [":", ["a", "b", "c"]]}"#, "a:b:c"),
        (r#"{"Fn::Select": ["1", ["apples", "grapes", "oranges", "mangoes"]]}"#, "grapes"),
        (r#"{"Fn::Select": ["2", {"Fn::Split": ["|", "a|b|c"]}]}"#, "c"),
        (r#"{"Fn::Select": ["1", {"Fn::Split": ["|", "a||c|"]}]}"#, ""),
        (r#"{"Fn::FindInMap": ["RegionMap", "us-west-1", "HVM64"]}"#, "ami-0bdb828fd58c52235"),
        (r#"{"Fn::Sub": ["www.${Domain}", {"Domain": "root"}]}"#, "www.root"),
        (r#"{"Fn::Sub": "www.${Domain}.com"}"#, "www.example.com"),
        (r#"{"Fn::Sub": "${!Literal}"}"#, "${Literal}"),
    ] {
        assert_eq!(named(expression).as_deref(), Ok(result), "{expression}");
    }
    // "If the index is out of range": a provisioning error.
    assert!(named(r#"{"Fn::Select": ["4", ["apples", "grapes", "oranges", "mangoes"]]}"#).is_err());
}
