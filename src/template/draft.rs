//! Drafts a template for a lot's columns, and the IAM documents that go with it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::TemplateError;
use super::limits::{check_attribute_name, check_attribute_value, check_thing_name};
use super::secrets::looks_secret;
use crate::service::{MAX_ATTRIBUTES_WITH_TYPE, MAX_ATTRIBUTES_WITHOUT_TYPE, MAX_TEMPLATE_BODY};

/// What one pass over a lot's rows shows of its columns.
#[derive(Debug, Clone, Default)]
pub struct Columns {
    names: Vec<String>,
    key: usize,
    /// By column, its first value that cannot be an attribute's: the line, and the error.
    unfit: BTreeMap<usize, (u64, TemplateError)>,
    /// The first key that cannot be a thing's name: the line, and the error.
    unfit_key: Option<(u64, TemplateError)>,
    /// Columns with a value that looks like a private key.
    secrets: BTreeSet<usize>,
}

/// The settings that cannot be derived from the lot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DraftSettings {
    /// The thing type, if things are to have one. It must exist.
    pub thing_type: Option<String>,
    /// The devices' policy, if an existing one is to be used. If `None`, the template carries a document that lets a
    /// device connect under its thing's name, and publish and subscribe below it.
    pub policy: Option<String>,
    /// The account and its region.
    pub place: AccountPlace,
}

/// The account and region in ARNs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountPlace {
    /// The region; `None` for any.
    pub region: Option<String>,
    /// The account's number; `None` for any.
    pub account: Option<String>,
}

/// A draft of a template, and what was decided about the columns.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    /// The body: JSON.
    pub body: String,
    /// Columns that are not attributes, each with the reason.
    pub left_out: Vec<(String, LeftOut)>,
    /// Columns that are attributes under another name.
    pub renamed: Vec<(String, String)>,
    /// The columns that the template takes.
    pub taken: Vec<String>,
    /// The first key that cannot be a thing's name: the line, and the error.
    pub unfit_key: Option<(u64, TemplateError)>,
}

/// Why a column is not an attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeftOut {
    /// It looks like a secret, and everyone who may describe things can read attributes.
    Secret,
    /// It has a value that cannot be an attribute's: the line, and the error.
    Unfit(u64, TemplateError),
    /// Things already have the maximum number of attributes.
    TooMany(usize),
    /// The service reserves its name.
    Reserved,
    /// With it, the body would be longer than a template may be.
    TooLong,
}

impl Columns {
    /// Columns with these names; the one at index `key` identifies a device.
    pub fn new(names: Vec<String>, key: usize) -> Self {
        Self { names, key, ..Self::default() }
    }

    /// Examines a row, given its line and its values in the order of the columns.
    pub fn look(&mut self, line: u64, values: &[String]) {
        for (at, value) in values.iter().enumerate() {
            if value.contains("-----BEGIN ") {
                self.secrets.insert(at);
            }
            if at == self.key && self.unfit_key.is_none() {
                self.unfit_key = check_thing_name(value).err().map(|error| (line, error));
            }
            let Some(name) = self.names.get(at) else { continue };
            if !self.unfit.contains_key(&at)
                && let Err(error) = check_attribute_value(name, value)
            {
                self.unfit.insert(at, (line, error));
            }
        }
    }

    /// Drafts a template: the key becomes the thing's name, and the other columns become attributes if they can.
    pub fn draft(&self, settings: &DraftSettings) -> Draft {
        let most = if settings.thing_type.is_some() {
            MAX_ATTRIBUTES_WITH_TYPE
        } else {
            MAX_ATTRIBUTES_WITHOUT_TYPE
        };
        let (mut attributes, mut left_out, mut renamed) =
            (Vec::<(String, String)>::new(), Vec::new(), Vec::new());
        for (at, column) in self.names.iter().enumerate() {
            if at == self.key {
                continue;
            }
            let mut leave_out = |why| left_out.push((column.clone(), why));
            if column.starts_with("AWS::") {
                leave_out(LeftOut::Reserved);
            } else if looks_secret(column) || self.secrets.contains(&at) {
                leave_out(LeftOut::Secret);
            } else if let Some((line, error)) = self.unfit.get(&at) {
                leave_out(LeftOut::Unfit(*line, error.clone()));
            } else if attributes.len() == most {
                leave_out(LeftOut::TooMany(most));
            } else {
                let name = attribute_name(column, &attributes);
                if name != *column {
                    renamed.push((column.clone(), name.clone()));
                }
                attributes.push((name, column.clone()));
            }
        }
        let key = self.names.get(self.key).map_or("", String::as_str);
        let mut body = body(key, &attributes, settings);
        while body.chars().count() > MAX_TEMPLATE_BODY
            && let Some((name, column)) = attributes.pop()
        {
            renamed.retain(|(_, renamed)| *renamed != name);
            left_out.push((column, LeftOut::TooLong));
            body = self::body(key, &attributes, settings);
        }
        let taken = [key.to_owned()].into_iter().chain(attributes.into_iter().map(|(_, column)| column));
        Draft { body, left_out, renamed, taken: taken.collect(), unfit_key: self.unfit_key.clone() }
    }
}

/// A column's name, changed into one that is valid for an attribute and not among `others`.
fn attribute_name(column: &str, others: &[(String, String)]) -> String {
    let is_allowed = |c: &char| check_attribute_name(c.encode_utf8(&mut [0; 4])).is_ok();
    // Leaves room for a number to be appended.
    let name: String =
        column.trim().chars().take(120).map(|c| if is_allowed(&c) { c } else { '_' }).collect();
    let is_taken = |name: &str| others.iter().any(|(other, _)| other == name);
    if !is_taken(&name) {
        return name;
    }
    let numbered = (2..).map(|number| format!("{name}_{number}"));
    numbered.into_iter().find(|name| !is_taken(name)).expect("numbers do not end")
}

fn body(key: &str, attributes: &[(String, String)], settings: &DraftSettings) -> String {
    let mut parameters = Map::new();
    for column in [key].into_iter().chain(attributes.iter().map(|(_, column)| column.as_str())) {
        parameters.insert(column.to_owned(), json!({"Type": "String"}));
    }
    parameters.insert(String::from("AWS::IoT::Certificate::Id"), json!({"Type": "String"}));
    let mut thing = Map::new();
    thing.insert(String::from("ThingName"), json!({"Ref": key}));
    if let Some(thing_type) = &settings.thing_type {
        thing.insert(String::from("ThingTypeName"), json!(thing_type));
    }
    if !attributes.is_empty() {
        let payload = attributes.iter().map(|(name, column)| (name.clone(), json!({"Ref": column})));
        thing.insert(String::from("AttributePayload"), Value::Object(payload.collect()));
    }
    let policy = match &settings.policy {
        Some(name) => json!({"PolicyName": name}),
        None => json!({"PolicyDocument": device_policy(&settings.place)}),
    };
    let body = json!({
        "Parameters": parameters,
        "Resources": {
            "thing": {
                "Type": "AWS::IoT::Thing",
                "Properties": thing,
                "OverrideSettings": {
                    "AttributePayload": "MERGE",
                    "ThingTypeName": "REPLACE",
                    "ThingGroups": "DO_NOTHING",
                },
            },
            "certificate": {
                "Type": "AWS::IoT::Certificate",
                "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}, "Status": "ACTIVE"},
            },
            "policy": {"Type": "AWS::IoT::Policy", "Properties": policy},
        },
    });
    serde_json::to_string_pretty(&body).expect("JSON can be written") + "\n"
}

/// A policy under which a device may connect under its thing's name, and publish and subscribe to topics that begin
/// with it. The document is the same for every device, so that they share one policy.
fn device_policy(place: &AccountPlace) -> Value {
    const THING: &str = "${iot:Connection.Thing.ThingName}";
    let arn = |rest: &str| place.arn(&format!("{rest}/{THING}"));
    json!({
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Action": "iot:Connect", "Resource": arn("client")},
            {"Effect": "Allow", "Action": ["iot:Publish", "iot:Receive"], "Resource": arn("topic") + "/*"},
            {"Effect": "Allow", "Action": "iot:Subscribe", "Resource": arn("topicfilter") + "/*"},
        ],
    })
}

impl AccountPlace {
    fn arn(&self, rest: &str) -> String {
        let (region, account) =
            (self.region.as_deref().unwrap_or("*"), self.account.as_deref().unwrap_or("*"));
        format!("arn:{}:iot:{region}:{account}:{rest}", self.partition())
    }

    /// The AWS partition: China and the US government have their own.
    pub fn partition(&self) -> &'static str {
        match self.region.as_deref() {
            Some(region) if region.starts_with("cn-") => "aws-cn",
            Some(region) if region.starts_with("us-gov-") => "aws-us-gov",
            _ => "aws",
        }
    }
}

/// The IAM policy for running fleetmint with `template` and client ids that begin with `client_id_prefix`. It covers a
/// run, the check before it and the verification after it. Pass `from_csr` if the service does not make the keys.
///
/// Source: AWS IoT Developer Guide, "Provisioning devices that don't have device certificates using fleet
/// provisioning". Each operation of the control plane needs the action of the same name (AWS IoT API Reference).
pub fn run_policy(place: &AccountPlace, template: &str, client_id_prefix: &str, from_csr: bool) -> String {
    let create = if from_csr { "create-from-csr" } else { "create" };
    let topics = |kind: &str, end: &str| {
        json!([
            place.arn(&format!("{kind}/$aws/certificates/{create}/json{end}")),
            place.arn(&format!("{kind}/$aws/provisioning-templates/{template}/provision/json{end}")),
        ])
    };
    let describe = [
        "DescribeEndpoint",
        "DescribeProvisioningTemplate",
        "DescribeThing",
        "DescribeThingType",
        "DescribeThingGroup",
        "DescribeBillingGroup",
        "GetPolicy",
        "DescribeCertificate",
        "ListPrincipalThings",
        "ListThingPrincipals",
        "ListAttachedPolicies",
        "ListThingGroupsForThing",
    ];
    let describe: Vec<String> = describe.iter().map(|action| format!("iot:{action}")).collect();
    let policy = json!({
        "Version": "2012-10-17",
        "Statement": [
            {"Sid": "Connect", "Effect": "Allow", "Action": "iot:Connect",
             "Resource": place.arn(&format!("client/{client_id_prefix}-*"))},
            {"Sid": "Ask", "Effect": "Allow", "Action": "iot:Publish", "Resource": topics("topic", "")},
            {"Sid": "Hear", "Effect": "Allow", "Action": "iot:Subscribe", "Resource": topics("topicfilter", "/*")},
            {"Sid": "Receive", "Effect": "Allow", "Action": "iot:Receive", "Resource": topics("topic", "/*")},
            {"Sid": "Look", "Effect": "Allow", "Action": describe, "Resource": "*"},
            {"Sid": "Quotas", "Effect": "Allow",
             "Action": ["servicequotas:GetServiceQuota", "servicequotas:GetAWSDefaultServiceQuota"], "Resource": "*"},
        ],
    });
    serde_json::to_string_pretty(&policy).expect("JSON can be written") + "\n"
}

/// The trust policy of the provisioning role, which lets AWS IoT assume it. The role also needs the managed policy
/// `AWSIoTThingsRegistration`.
///
/// Sources: AWS IoT Developer Guide, "Provisioning devices that don't have device certificates using fleet
/// provisioning" and "Cross-service confused deputy prevention".
pub fn role_trust(place: &AccountPlace) -> String {
    let mut statement = json!({
        "Effect": "Allow",
        "Principal": {"Service": "iot.amazonaws.com"},
        "Action": "sts:AssumeRole",
    });
    // Only for templates of this account.
    if let Some(account) = &place.account {
        statement["Condition"] = json!({"StringEquals": {"aws:SourceAccount": account}});
    }
    let trust = json!({"Version": "2012-10-17", "Statement": [statement]});
    serde_json::to_string_pretty(&trust).expect("JSON can be written") + "\n"
}

#[cfg(test)]
mod tests {
    use super::super::{Template, declared_parameters, fit, lint};
    use super::*;

    fn settings() -> DraftSettings {
        DraftSettings { thing_type: None, policy: None, place: AccountPlace { region: None, account: None } }
    }

    fn columns(names: &[&str], key: usize) -> Columns {
        Columns::new(names.iter().map(|name| (*name).to_owned()).collect(), key)
    }

    /// Columns as they occur in spreadsheets.
    #[test]
    fn an_awkward_lot_gets_a_template_that_nothing_is_wrong_with() {
        let names =
            ["Seriennummer", "Wi-Fi Password", "Straße", "Stra_e", "a b", "Größe", "Hersteller", "note"];
        let mut columns = columns(&names, 0);
        let row = ["SN 1", "hunter2", "1", "2", "3", "4", "5", "two words"].map(str::to_owned);
        columns.look(2, &row);
        let draft = columns.draft(&DraftSettings { thing_type: Some("Kettle".into()), ..settings() });
        let found = lint(&draft.body);
        assert_eq!((&found.errors[..], &found.warnings[..]), (&[][..], &[][..]), "{}", draft.body);
        assert!(!draft.body.contains("Password"), "{}", draft.body);
        let left_out: Vec<_> = draft.left_out.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(left_out, ["Wi-Fi Password", "note"]);
        assert_eq!(draft.left_out[0].1, LeftOut::Secret);
        assert!(
            matches!(&draft.left_out[1].1, LeftOut::Unfit(2, error) if error.found == "a space as character 4")
        );
        let renamed = [("Straße", "Stra_e"), ("Stra_e", "Stra_e_2"), ("a b", "a_b"), ("Größe", "Gr__e")];
        assert_eq!(draft.renamed, renamed.map(|(from, to)| (from.to_owned(), to.to_owned())));
        assert_eq!(draft.unfit_key.unwrap().1.found, "a space in \"SN 1\"");
        // The declared parameters are exactly those that are sent.
        let declared = declared_parameters(&draft.body).unwrap();
        assert!(fit(&declared, draft.taken.iter().map(String::as_str)).is_perfect());
    }

    #[test]
    fn without_a_thing_type_there_are_three_attributes_and_with_one_fifty() {
        let names: Vec<String> = (0..60).map(|n| format!("c{n}")).collect();
        let columns = Columns::new(names, 0);
        let plain = columns.draft(&settings());
        let left_out = plain.left_out.iter().filter(|(_, why)| *why == LeftOut::TooMany(3));
        assert_eq!((plain.taken.len(), left_out.count()), (4, 56));
        let typed = columns.draft(&DraftSettings { thing_type: Some("T".into()), ..settings() });
        assert_eq!((typed.taken.len(), typed.left_out.len()), (51, 9));
        for draft in [plain, typed] {
            assert_eq!(lint(&draft.body), super::super::Lint::default());
        }
    }

    #[test]
    fn a_body_is_never_longer_than_a_template_may_be() {
        let names: Vec<String> = (0..51).map(|n| format!("{n:0>200}")).collect();
        let draft =
            Columns::new(names, 0).draft(&DraftSettings { thing_type: Some("T".into()), ..settings() });
        assert!(draft.body.chars().count() <= MAX_TEMPLATE_BODY);
        assert!(Template::parse(&draft.body).is_ok());
        assert!(draft.left_out.iter().all(|(_, why)| *why == LeftOut::TooLong));
        assert_eq!(draft.taken.len() + draft.left_out.len(), 51);
    }

    #[test]
    fn private_keys_are_left_out_whatever_their_column_is_called() {
        let mut columns = columns(&["Id", "Blob", "AWS::IoT::Certificate::Id"], 0);
        columns.look(2, &["a".into(), "-----BEGIN EC PRIVATE KEY-----".into(), "x".into()]);
        let left_out: Vec<_> = columns.draft(&settings()).left_out.into_iter().map(|(_, why)| why).collect();
        assert_eq!(left_out, [LeftOut::Secret, LeftOut::Reserved]);
    }

    #[test]
    fn arns_are_of_the_partition_region_and_account() {
        let place = AccountPlace { region: Some("cn-north-1".into()), account: Some("123456789012".into()) };
        let policy = run_policy(&place, "T", "fleetmint", true);
        assert!(policy.contains(
            "arn:aws-cn:iot:cn-north-1:123456789012:topic/$aws/certificates/create-from-csr/json/*"
        ));
        assert!(policy.contains("\"arn:aws-cn:iot:cn-north-1:123456789012:client/fleetmint-*\""));
        assert!(role_trust(&place).contains("aws:SourceAccount"));
        let anywhere = AccountPlace { region: None, account: None };
        assert!(!role_trust(&anywhere).contains("Condition"));
        assert!(
            run_policy(&anywhere, "T", "x", false)
                .contains("arn:aws:iot:*:*:topic/$aws/certificates/create/json\"")
        );
    }
}
