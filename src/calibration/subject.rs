//! What a calibration works with: the template, and devices that are made up for it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::certificate::CertificateId;
use crate::identity::{Identity, ParameterPlan};
use crate::provisioning::Topics;
use crate::template::{CertificateFacts, Parameters, Template};

/// The template, and devices that are made up for it.
#[derive(Debug)]
pub struct Subject {
    /// The template's name.
    pub template: String,
    /// Its body.
    pub body: String,
    /// The devices, each with its number in the ledger.
    pub devices: Vec<(i64, Identity)>,
    /// What a row becomes.
    pub parameters: ParameterPlan,
    /// The parameter that is left out of a request, and the device that does without it: its place in the list. Its value
    /// in that row is empty, unless it is the key.
    pub left_out: (String, usize),
}

impl Subject {
    /// The topics of the template, and those of certificates.
    pub(super) fn topics(&self) -> Topics {
        Topics::new(&self.template)
    }

    /// The parameters of a device.
    pub(super) fn parameters(&self, device: &Identity, id: &CertificateId) -> BTreeMap<String, String> {
        let expanded = self.parameters.expand(device, id.as_str());
        expanded.map(|(name, value)| (name.to_owned(), value.into_owned())).collect()
    }

    /// The thing that the template makes of these parameters; `None` if that cannot be told.
    pub(super) fn thing(&self, parameters: &BTreeMap<String, String>, id: &CertificateId) -> Option<String> {
        let template = Template::parse(&self.body).ok()?;
        let parameters: Parameters<'_> =
            parameters.iter().map(|(name, value)| (name.into(), value.into())).collect();
        let facts = CertificateFacts { id: Some(id.as_str()), subject: None };
        Some(template.evaluate(facts, &parameters).ok()?.thing?.name)
    }

    /// The thing that the template makes of these parameters, if it would not make the same without their values.
    pub(super) fn telling_thing(
        &self,
        parameters: &BTreeMap<String, String>,
        id: &CertificateId,
    ) -> Option<String> {
        let without = self.thing(&blank(parameters), id);
        self.thing(parameters, id).filter(|name| Some(name) != without.as_ref())
    }

    /// The names of the things that the template makes of the devices, or of empty values, where they can be told.
    pub fn things(&self) -> BTreeSet<String> {
        // Of no certificate that there is: a name that depends on it is new.
        let id = CertificateId::try_from("0".repeat(64)).expect("64 digits are an id");
        let names = |(_, device): &(i64, Identity)| {
            let parameters = self.parameters(device, &id);
            [self.thing(&blank(&parameters), &id), self.thing(&parameters, &id)]
        };
        self.devices.iter().flat_map(names).flatten().filter(|name| !name.is_empty()).collect()
    }

    /// `text` without anything that names this account or what it has: the template, its parameters and their values,
    /// account numbers, ids. A literal of two characters is as likely a part of any sentence, and stays. `detail` is what was
    /// to blame, which becomes a scenario's placeholder for it.
    pub(super) fn anonymous(&self, text: &str, detail: &str) -> String {
        let mut names = vec![Name::word(detail, "{detail}"), Name::word(&self.template, "TEMPLATE")];
        names.extend(self.parameters.names().map(|name| Name::word(name, "PARAMETER")));
        for (_, device) in &self.devices {
            names.extend(device.values.iter().map(|value| Name::word(value, "VALUE")));
            // Those of constants, too.
            names.extend(self.parameters.expand(device, "").map(|(_, value)| Name::word(&value, "VALUE")));
        }
        if let Ok(body) = serde_json::from_str::<Value>(&self.body) {
            literals(&body["Resources"], false, &mut names);
            literals(&body["Mappings"], false, &mut names);
            for declared in body["Parameters"].as_object().into_iter().flat_map(|all| all.values()) {
                literals(&declared["Default"], false, &mut names);
            }
        }
        names.retain(|name| !name.text.is_empty());
        // A stable order: of equal ones what is to blame comes first.
        names.sort_by_key(|name| Reverse(name.text.len()));
        let text = replaced(&without_resources(&without_place(text, detail)), &names);
        without_account(&crate::wording::without_ids(&text))
    }
}

/// The same parameters, all empty.
fn blank(parameters: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    parameters.keys().map(|name| (name.clone(), String::new())).collect()
}

/// `text` without the place in the template where what is to blame is: another template has it elsewhere.
fn without_place(text: &str, detail: &str) -> String {
    let clause = format!("{detail}, which Resources.");
    let parts = text.split_once(&clause).and_then(|(before, after)| {
        after.split_once(" refers to,").map(|(_, after)| format!("{before}{detail}{after}"))
    });
    parts.unwrap_or_else(|| text.to_owned())
}

/// Of the parameters without a default, the one that things are named by, and one to leave out that they are not named
/// by; the same one if there is no other.
pub fn roles<'a>(body: &str, parameters: &'a [String]) -> Option<(&'a String, &'a String)> {
    let thing = |changed: Option<&String>| -> Option<String> {
        let value = |name: &String| if Some(name) == changed { "another" } else { "one" };
        let given: Parameters<'_> = parameters.iter().map(|name| (name.into(), value(name).into())).collect();
        let facts = CertificateFacts { id: Some("0"), subject: None };
        Some(Template::parse(body).ok()?.evaluate(facts, &given).ok()?.thing?.name)
    };
    let usual = thing(None);
    let names = |name: &&String| usual.is_some() && thing(Some(name)) != usual;
    let naming = parameters.iter().find(names).or(parameters.first())?;
    let others = || parameters.iter().filter(|name| *name != naming);
    let left_out = others().find(|name| !names(name)).or(others().next()).unwrap_or(naming);
    Some((naming, left_out))
}

/// What names something of an account, and what is said instead.
struct Name {
    text: String,
    by: &'static str,
    /// Whether it may be a part of a word: the template joins it with something.
    is_piece: bool,
}

impl Name {
    fn word(text: &str, by: &'static str) -> Self {
        Self { text: text.to_owned(), by, is_piece: false }
    }
}

/// Words of provisioning templates, which name nothing of an account.
const WORDS: [&str; 9] =
    ["ACTIVE", "INACTIVE", "REPLACE", "MERGE", "DO_NOTHING", "FAIL", "Allow", "Deny", "2012-10-17"];
/// A shorter literal is as likely a part of any sentence.
const SHORTEST: usize = 3;

/// Adds the names in a part of a template: its literals, and the parameters that it refers to.
fn literals(part: &Value, is_piece: bool, names: &mut Vec<Name>) {
    match part {
        Value::Object(entries) => {
            for (key, value) in entries {
                match value {
                    Value::String(name) if key == "Ref" => literal(name, "PARAMETER", false, names),
                    _ => literals(value, is_piece || key.starts_with("Fn::"), names),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| literals(value, is_piece, names)),
        // A policy's document is JSON in a text.
        Value::String(text) if text.starts_with('{') => match serde_json::from_str(text) {
            Ok(document) => literals(&document, is_piece, names),
            Err(_) => literal(text, "VALUE", is_piece, names),
        },
        Value::String(text) => {
            let mut pieces = text.split("${");
            literal(pieces.next().unwrap_or_default(), "VALUE", is_piece, names);
            for piece in pieces {
                let (name, rest) = piece.split_once('}').unwrap_or(("", piece));
                literal(name, "PARAMETER", false, names);
                literal(rest, "VALUE", true, names);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn literal(text: &str, by: &'static str, is_piece: bool, names: &mut Vec<Name>) {
    let is_of_aws = text.starts_with("AWS::") || text.starts_with("iot:") || WORDS.contains(&text);
    if text.chars().count() >= SHORTEST && !is_of_aws {
        names.push(Name { text: text.to_owned(), by, is_piece });
    }
}

/// `text` with every occurrence of a name replaced, by the first that fits. What is put in is not looked at again.
fn replaced(text: &str, names: &[Name]) -> String {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let (mut out, mut rest, mut in_word) = (String::with_capacity(text.len()), text, false);
    while let Some(first) = rest.chars().next() {
        let fits = |name: &&Name| {
            rest.strip_prefix(name.text.as_str()).is_some_and(|after| {
                let begins = !in_word || !name.text.starts_with(is_part);
                let ends = !after.starts_with(is_part) || !name.text.ends_with(is_part);
                name.is_piece || begins && ends
            })
        };
        if let Some(name) = names.iter().find(fits) {
            out.push_str(name.by);
            (rest, in_word) = (&rest[name.text.len()..], false);
        } else {
            out.push(first);
            (rest, in_word) = (&rest[first.len_utf8()..], is_part(first));
        }
    }
    out
}

/// `text` without what follows the account's number in its ARNs.
fn without_resources(text: &str) -> String {
    let ends = |c: char| c.is_whitespace() || "\"'`()[]{}<>".contains(c);
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(at) = rest.find("arn:") {
        let end = rest[at..].find(ends).map_or(rest.len(), |end| at + end);
        let arn = &rest[at..end];
        out.push_str(&rest[..at]);
        match arn.match_indices(':').nth(4) {
            Some((account, _)) => {
                out.push_str(&arn[..=account]);
                out.push_str("RESOURCE");
            }
            None => out.push_str(arn),
        }
        rest = &rest[end..];
    }
    out + rest
}

/// `text` with the account number of AWS's documentation in place of any other.
fn without_account(text: &str) -> String {
    const EXAMPLE: &str = "123456789012";
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let digits = rest[start..].find(|c: char| !c.is_ascii_digit()).map_or(rest.len(), |end| start + end);
        out.push_str(&rest[..start]);
        out.push_str(if digits - start == EXAMPLE.len() { EXAMPLE } else { &rest[start..digits] });
        rest = &rest[digits..];
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::LotShape;

    fn subject(body: &str, constants: &[(String, String)]) -> Subject {
        let shape = LotShape { columns: vec![String::from("Serial")], key_column: 0 };
        Subject {
            template: String::from("Kettles"),
            body: body.to_owned(),
            devices: vec![(
                1,
                Identity { line: 2, key: String::from("C-1"), values: vec![String::from("C-1")] },
            )],
            parameters: ParameterPlan::new(&shape, constants).unwrap(),
            left_out: (String::from("Serial"), 0),
        }
    }

    #[test]
    fn what_names_an_account_is_taken_out() {
        let subject = subject("", &[]);
        let text = "arn:aws:iot:x:998877665544:t/Kettles of C-1: Serial, Serials, 4cfb3c8e-4cfb-3c8e-4cfb-3c8e4cfb3c8e";
        assert_eq!(
            subject.anonymous(text, ""),
            "arn:aws:iot:x:123456789012:RESOURCE of VALUE: PARAMETER, Serials, …"
        );
        assert_eq!(subject.anonymous("no Serial", "Serial"), "no {detail}");
        let placed = "Serial, which Resources.kettle.Properties.ThingName refers to, is missing";
        assert_eq!(subject.anonymous(placed, "Serial"), "{detail} is missing");
        assert_eq!(subject.anonymous("Kettles of C-1", "C-1"), "TEMPLATE of {detail}");
    }

    #[test]
    fn a_thing_tells_whether_parameters_were_read_only_if_it_is_named_by_them() {
        let id = CertificateId::try_from("0".repeat(64)).unwrap();
        let parameters: BTreeMap<_, _> = [(String::from("Serial"), String::from("C-1"))].into();
        let named = |name: &str| {
            let declared =
                r#"{"Serial": {"Type": "String"}, "AWS::IoT::Certificate::Id": {"Type": "String"}}"#;
            let certificate = r#"{"Type": "AWS::IoT::Certificate", "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}}}"#;
            let thing = format!(r#"{{"Type": "AWS::IoT::Thing", "Properties": {{"ThingName": {name}}}}}"#);
            let resources = format!(r#"{{"thing": {thing}, "certificate": {certificate}}}"#);
            let body = format!(r#"{{"Parameters": {declared}, "Resources": {resources}}}"#);
            subject(&body, &[]).telling_thing(&parameters, &id)
        };
        assert_eq!(named(r#"{"Ref": "Serial"}"#).as_deref(), Some("C-1"));
        assert_eq!(named(r#"{"Ref": "AWS::IoT::Certificate::Id"}"#), None);
        assert_eq!(subject("", &[]).telling_thing(&parameters, &id), None);
    }

    #[test]
    fn constants_and_what_the_template_names_are_taken_out() {
        let body = r#"{"Resources": {
            "thing": {"Type": "AWS::IoT::Thing", "OverrideSettings": {"ThingGroups": "DO_NOTHING"}, "Properties": {
                "ThingName": {"Fn::Join": ["", ["acme", {"Ref": "Serial"}]]}, "ThingTypeName": "Boiler",
                "ThingGroups": ["Line-7", "Line-7-b", {"Fn::Sub": "hall_${Hall}_x"}], "BillingGroup": "B2"}},
            "policy": {"Type": "AWS::IoT::Policy", "Properties": {
                "PolicyDocument": "{\"Statement\": [{\"Effect\": \"Allow\", \"Condition\": \"Acme GmbH\"}]}"}}}}"#;
        let body = body.replacen(
            '{',
            r#"{"Parameters": {"City": {"Type": "String", "Default": "Bonn-Plant"}}, "#,
            1,
        );
        let subject = subject(&body, &[(String::from("Site"), String::from("Bonn {Serial}"))]);
        for (text, anonymous) in [
            ("acmeC-1 is a Boiler", "VALUEVALUE is a VALUE"),
            ("Line-7-b, Line-7, Line-77", "VALUE, VALUE, Line-77"),
            ("group Bonn-Plant of Bonn-Plants", "group VALUE of Bonn-Plants"),
            ("hall_9: Hall", "VALUE9: PARAMETER"),
            ("Site is Bonn C-1", "PARAMETER is VALUE"),
            ("Acme GmbH: Allow DO_NOTHING AWS::IoT::Thing B2", "VALUE: Allow DO_NOTHING AWS::IoT::Thing B2"),
            ("(arn:aws:iam::998877665544:role/Ours) arn:x", "(arn:aws:iam::123456789012:RESOURCE) arn:x"),
        ] {
            assert_eq!(subject.anonymous(text, ""), anonymous);
        }
    }
}
