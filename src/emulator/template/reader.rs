//! From JSON to a [`Template`]: every shape checked, every error with its path.
//!
//! Owns the grammar's spelling. What the pieces mean is the expression module's.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::expression::{CERTIFICATE_ID, Document, List, Text};
use super::{
    CertificateResource, MAX_BODY, Mappings, Override, Overrides, PolicyResource, Template, TemplateError,
    ThingResource,
};

type Read<T> = Result<T, TemplateError>;

/// Built-in parameters may be declared, and need not be.
const BUILT_IN: [&str; 8] = [
    CERTIFICATE_ID,
    "AWS::IoT::Certificate::CommonName",
    "AWS::IoT::Certificate::SerialNumber",
    "AWS::IoT::Certificate::Country",
    "AWS::IoT::Certificate::Organization",
    "AWS::IoT::Certificate::OrganizationalUnit",
    "AWS::IoT::Certificate::DistinguishedNameQualifier",
    "AWS::IoT::Certificate::StateName",
];

const TEXT: &str = "a string, {\"Ref\": …} or a Fn:: function";
const LIST: &str = "a list, or {\"Fn::Split\": […]}";

/// A JSON value and where it stands.
#[derive(Clone)]
struct Node<'a> {
    at: String,
    value: &'a Value,
}

/// Reads a whole template.
pub(super) fn read(body: &str) -> Read<Template> {
    let length = body.chars().count();
    if length > MAX_BODY {
        let found = format!("{length} characters");
        return Err(wrong("the template", found, format!("at most {MAX_BODY}")));
    }
    let value: Value = serde_json::from_str(body).map_err(|error| {
        let at = format!("line {}, column {}", error.line(), error.column());
        wrong(at, "something that is not JSON", "a JSON object")
    })?;
    let top = Node { at: String::from("the template"), value: &value };
    top.only(&["Parameters", "Mappings", "Mapping", "Resources", "DeviceConfiguration"])?;
    let parameters = read_parameters(&top)?;
    let mappings = read_mappings(&top)?;
    let grammar = Grammar { parameters: &parameters };
    let (thing, certificate, policies) = grammar.resources(&top)?;
    let device_configuration = grammar.device_configuration(&top)?;
    Ok(Template { thing, certificate, policies, device_configuration, parameters, mappings })
}

fn read_parameters(top: &Node<'_>) -> Read<BTreeMap<String, Option<String>>> {
    let mut parameters = BTreeMap::new();
    for (name, node) in top.optional_members("Parameters")? {
        node.only(&["Type", "Default"])?;
        let kind = node.required("Type")?;
        if kind.string()? != "String" {
            return Err(kind.found("\"String\", the only type"));
        }
        let default = node.member("Default")?.map(|node| node.string().map(str::to_owned)).transpose()?;
        parameters.insert(name.to_owned(), default);
    }
    Ok(parameters)
}

/// The guide writes `Mappings`, and once `Mapping`.
fn read_mappings(top: &Node<'_>) -> Read<Mappings> {
    let mut mappings = Mappings::new();
    for key in ["Mappings", "Mapping"] {
        for (name, map) in top.optional_members(key)? {
            let mut rows = BTreeMap::new();
            for (top_key, row) in map.members()? {
                let mut values = BTreeMap::new();
                for (second_key, value) in row.members()? {
                    values.insert(second_key.to_owned(), value.string()?.to_owned());
                }
                rows.insert(top_key.to_owned(), values);
            }
            mappings.insert(name.to_owned(), rows);
        }
    }
    Ok(mappings)
}

/// Reads what may refer to parameters.
struct Grammar<'a> {
    parameters: &'a BTreeMap<String, Option<String>>,
}

type Resources = (Option<ThingResource>, CertificateResource, Vec<PolicyResource>);

impl Grammar<'_> {
    fn resources(&self, top: &Node<'_>) -> Read<Resources> {
        let resources = top.required("Resources")?;
        let (mut thing, mut certificate, mut policies) = (None, None, Vec::new());
        for (_, node) in resources.members()? {
            node.only(&["Type", "Properties", "OverrideSettings"])?;
            let kind = node.required("Type")?;
            let twice = match kind.string()? {
                "AWS::IoT::Thing" => thing.replace(self.thing(&node)?).is_some(),
                "AWS::IoT::Certificate" => certificate.replace(self.certificate(&node)?).is_some(),
                "AWS::IoT::Policy" => {
                    policies.push(self.policy(&node)?);
                    false
                }
                _ => return Err(kind.found("AWS::IoT::Thing, AWS::IoT::Certificate or AWS::IoT::Policy")),
            };
            if twice {
                return Err(kind.found("one resource of this type"));
            }
        }
        let certificate = certificate.ok_or_else(|| {
            wrong(&resources.at, "no AWS::IoT::Certificate", "one: without it there is nothing to activate")
        })?;
        Ok((thing, certificate, policies))
    }

    fn thing(&self, node: &Node<'_>) -> Read<ThingResource> {
        let properties = node.required("Properties")?;
        properties.only(&[
            "ThingName",
            "ThingTypeName",
            "AttributePayload",
            "ThingGroups",
            "BillingGroup",
        ])?;
        let mut attributes = Vec::new();
        for (name, value) in properties.optional_members("AttributePayload")? {
            attributes.push((name.to_owned(), self.text(&value)?));
        }
        Ok(ThingResource {
            name: self.text(&properties.required("ThingName")?)?,
            type_name: self.optional_text(&properties, "ThingTypeName")?,
            attributes,
            groups: properties.member("ThingGroups")?.map(|groups| self.list(&groups)).transpose()?,
            billing_group: self.optional_text(&properties, "BillingGroup")?,
            overrides: read_overrides(node)?,
        })
    }

    fn certificate(&self, node: &Node<'_>) -> Read<CertificateResource> {
        if let Some(settings) = node.member("OverrideSettings")? {
            // The certificate of a token always exists, and is what gets registered: only the shape is checked.
            settings.only(&["Status"])?;
            settings.member("Status")?.map(|node| read_override(&node, Merging::No)).transpose()?;
        }
        let Some(properties) = node.member("Properties")? else {
            return Ok(CertificateResource { id: None, status: None });
        };
        properties.only(&["CertificateId", "Status", "ThingPrincipalType"])?;
        if let Some(kind) = properties.member("ThingPrincipalType")?
            && !["EXCLUSIVE_THING", "NON_EXCLUSIVE_THING"].contains(&kind.string()?)
        {
            return Err(kind.found("\"EXCLUSIVE_THING\" or \"NON_EXCLUSIVE_THING\""));
        }
        Ok(CertificateResource {
            id: self.optional_text(&properties, "CertificateId")?,
            status: self.optional_text(&properties, "Status")?,
        })
    }

    fn policy(&self, node: &Node<'_>) -> Read<PolicyResource> {
        if let Some(settings) = node.member("OverrideSettings")? {
            return Err(settings.found("no overrides: a policy has none"));
        }
        let properties = node.required("Properties")?;
        properties.only(&["PolicyName", "PolicyDocument"])?;
        let name = self.optional_text(&properties, "PolicyName")?;
        match (properties.member("PolicyDocument")?, name) {
            (None, Some(name)) => Ok(PolicyResource::Named(name)),
            (Some(document), None) => Ok(PolicyResource::Inline(self.policy_document(&document)?)),
            _ => Err(wrong(&properties.at, "both or neither", "one of PolicyName and PolicyDocument")),
        }
    }

    fn policy_document(&self, node: &Node<'_>) -> Read<Document> {
        match self.document(node)? {
            Document::Plain(_) | Document::Array(_) => Err(node.found("an object, or a string of JSON")),
            document => Ok(document),
        }
    }

    fn device_configuration(&self, top: &Node<'_>) -> Read<Vec<(String, Document)>> {
        let mut configuration = Vec::new();
        for (name, node) in top.optional_members("DeviceConfiguration")? {
            match self.document(&node)? {
                Document::Array(_) | Document::Object(_) => return Err(node.found("a flat value")),
                value => configuration.push((name.to_owned(), value)),
            }
        }
        Ok(configuration)
    }

    fn document(&self, node: &Node<'_>) -> Read<Document> {
        Ok(match node.value {
            Value::String(_) => Document::Text(self.text(node)?),
            Value::Object(_) if node.function().is_some() => Document::Text(self.text(node)?),
            Value::Array(items) => {
                Document::Array(node.items(items).map(|item| self.document(&item)).collect::<Read<_>>()?)
            }
            Value::Object(_) => {
                let mut members = Vec::new();
                for (name, member) in node.members()? {
                    members.push((name.to_owned(), self.document(&member)?));
                }
                Document::Object(members)
            }
            plain => Document::Plain(plain.clone()),
        })
    }

    fn optional_text(&self, node: &Node<'_>, key: &str) -> Read<Option<Text>> {
        node.member(key)?.map(|member| self.text(&member)).transpose()
    }

    fn text(&self, node: &Node<'_>) -> Read<Text> {
        if let Value::String(text) = node.value {
            return Ok(Text::Literal(text.clone()));
        }
        let (name, argument) = node.function().ok_or_else(|| node.found(TEXT))?;
        match name {
            "Ref" => self.reference(argument.string()?, &argument),
            "Fn::Join" => {
                let [delimiter, parts] = argument.elements("[delimiter, list]")?;
                Ok(Text::Join { delimiter: delimiter.string()?.to_owned(), parts: self.list(&parts)? })
            }
            "Fn::Select" => {
                let [index, list] = argument.elements("[index, list]")?;
                Ok(Text::Select { index: Box::new(self.index(&index)?), list: self.list(&list)? })
            }
            "Fn::FindInMap" => {
                let [map, top, second] = argument.elements("[map, key, key]")?;
                let keys = [self.text(&map)?, self.text(&top)?, self.text(&second)?];
                Ok(Text::FindInMap(Box::new(keys)))
            }
            "Fn::Sub" => self.substitution(&argument),
            "Fn::Split" => Err(node.found("a string: Fn::Split makes a list")),
            _ => Err(node.found(TEXT)),
        }
    }

    fn list(&self, node: &Node<'_>) -> Read<List> {
        if let Value::Array(items) = node.value {
            return Ok(List::Items(node.items(items).map(|item| self.text(&item)).collect::<Read<_>>()?));
        }
        match node.function() {
            Some(("Fn::Split", argument)) => {
                let [delimiter, source] = argument.elements("[delimiter, string]")?;
                if delimiter.string()?.is_empty() {
                    return Err(delimiter.found("a delimiter of at least one character"));
                }
                let delimiter = delimiter.string()?.to_owned();
                Ok(List::Split { delimiter, source: Box::new(self.text(&source)?) })
            }
            _ => Err(node.found(LIST)),
        }
    }

    /// An index may be a number or, as the guide's examples have it, a string of one.
    fn index(&self, node: &Node<'_>) -> Read<Text> {
        match node.value {
            Value::Number(number) if number.is_u64() => Ok(Text::Literal(number.to_string())),
            Value::Number(_) => Err(node.found("an index from 0")),
            _ => self.text(node),
        }
    }

    fn reference(&self, name: &str, node: &Node<'_>) -> Read<Text> {
        if BUILT_IN.contains(&name) || self.parameters.contains_key(name) {
            return Ok(Text::Ref(name.to_owned()));
        }
        Err(node.found("a parameter that is declared under Parameters"))
    }

    /// `Fn::Sub`, by CloudFormation's rules: `${Name}`, and `${!Literal}` for a literal `${Literal}`. IoT's own page does
    /// not show the syntax.
    fn substitution(&self, node: &Node<'_>) -> Read<Text> {
        let (pattern, variables) = match node.value {
            Value::Array(_) => {
                let [pattern, variables] = node.elements("a string, or [string, map]")?;
                (pattern, Some(variables))
            }
            _ => (node.clone(), None),
        };
        let mut local = BTreeMap::new();
        if let Some(variables) = variables {
            for (name, value) in variables.members()? {
                local.insert(name, self.text(&value)?);
            }
        }
        let parts = self.pieces(pattern.string()?, &local, &pattern)?;
        Ok(Text::Join { delimiter: String::new(), parts: List::Items(parts) })
    }

    fn pieces(&self, pattern: &str, local: &BTreeMap<&str, Text>, node: &Node<'_>) -> Read<Vec<Text>> {
        let mut pieces = Vec::new();
        let mut rest = pattern;
        while let Some((before, after)) = rest.split_once("${") {
            let Some((name, after)) = after.split_once('}') else { break };
            pieces.push(Text::Literal(before.to_owned()));
            pieces.push(match (name.strip_prefix('!'), local.get(name)) {
                (Some(literal), _) => Text::Literal(format!("${{{literal}}}")),
                (None, Some(text)) => text.clone(),
                (None, None) => self.reference(name, node)?,
            });
            rest = after;
        }
        pieces.push(Text::Literal(rest.to_owned()));
        Ok(pieces)
    }
}

/// The prose also spells the keys in capitals; all samples use camel case, and so does this.
fn read_overrides(node: &Node<'_>) -> Read<Overrides> {
    let Some(settings) = node.member("OverrideSettings")? else { return Ok(Overrides::default()) };
    settings.only(&["AttributePayload", "ThingTypeName", "ThingGroups"])?;
    let setting = |key, merging| settings.member(key)?.map(|node| read_override(&node, merging)).transpose();
    Ok(Overrides {
        attributes: setting("AttributePayload", Merging::Yes)?,
        type_name: setting("ThingTypeName", Merging::No)?,
        groups: setting("ThingGroups", Merging::Yes)?,
    })
}

/// Whether a property has parts that can be merged.
#[derive(Clone, Copy, PartialEq)]
enum Merging {
    Yes,
    No,
}

fn read_override(node: &Node<'_>, merging: Merging) -> Read<Override> {
    match (node.string()?, merging) {
        ("DO_NOTHING", _) => Ok(Override::DoNothing),
        ("REPLACE", _) => Ok(Override::Replace),
        ("FAIL", _) => Ok(Override::Fail),
        ("MERGE", Merging::Yes) => Ok(Override::Merge),
        (_, Merging::Yes) => Err(node.found("DO_NOTHING, REPLACE, FAIL or MERGE")),
        (_, Merging::No) => Err(node.found("DO_NOTHING, REPLACE or FAIL")),
    }
}

impl<'a> Node<'a> {
    fn child(&self, key: &str, value: &'a Value) -> Self {
        let at = match self.at.as_str() {
            "the template" => key.to_owned(),
            at => format!("{at}.{key}"),
        };
        Self { at, value }
    }

    fn object(&self) -> Read<&'a Map<String, Value>> {
        self.value.as_object().ok_or_else(|| self.found("an object"))
    }

    fn string(&self) -> Read<&'a str> {
        self.value.as_str().ok_or_else(|| self.found("a string"))
    }

    fn only(&self, known: &[&str]) -> Read<()> {
        match self.object()?.keys().find(|key| !known.contains(&key.as_str())) {
            Some(key) => Err(wrong(&self.at, format!("unknown key {key:?}"), known.join(", "))),
            None => Ok(()),
        }
    }

    fn member(&self, key: &str) -> Read<Option<Self>> {
        Ok(self.object()?.get(key).map(|value| self.child(key, value)))
    }

    fn required(&self, key: &str) -> Read<Self> {
        self.member(key)?.ok_or_else(|| wrong(&self.at, format!("no {key}"), format!("{key} to be given")))
    }

    fn members(&self) -> Read<Vec<(&'a str, Self)>> {
        Ok(self.object()?.iter().map(|(key, value)| (key.as_str(), self.child(key, value))).collect())
    }

    /// The members of the object at `key`; none if there is no such key.
    fn optional_members(&self, key: &str) -> Read<Vec<(&'a str, Self)>> {
        self.member(key)?.map_or(Ok(Vec::new()), |node| node.members())
    }

    fn items(&self, items: &'a [Value]) -> impl Iterator<Item = Self> {
        items.iter().enumerate().map(|(index, value)| self.child(&index.to_string(), value))
    }

    /// Exactly `N` elements of a list.
    fn elements<const N: usize>(&self, wanted: &str) -> Read<[Self; N]> {
        let items = self.value.as_array().ok_or_else(|| self.found(wanted))?;
        let items: Vec<_> = self.items(items).collect();
        items.try_into().map_err(|_| self.found(wanted))
    }

    /// The function that an object of one member names, and its argument.
    fn function(&self) -> Option<(&'a str, Self)> {
        let object = self.value.as_object()?;
        let (name, argument) = object.iter().next()?;
        let is_function = object.len() == 1 && (name == "Ref" || name.starts_with("Fn::"));
        is_function.then(|| (name.as_str(), self.child(name, argument)))
    }

    fn found(&self, wanted: &str) -> TemplateError {
        let found = match self.value {
            Value::Null => String::from("null"),
            Value::Bool(value) => value.to_string(),
            Value::Number(number) => number.to_string(),
            Value::String(text) => format!("{:?}", text.chars().take(60).collect::<String>()),
            Value::Array(items) => format!("a list of {}", items.len()),
            Value::Object(members) => match members.keys().next() {
                Some(key) if members.len() == 1 => format!("an object with the key {key:?}"),
                _ => format!("an object of {}", members.len()),
            },
        };
        wrong(&self.at, found, wanted)
    }
}

fn wrong(at: impl Into<String>, found: impl Into<String>, wanted: impl Into<String>) -> TemplateError {
    TemplateError { at: at.into(), found: found.into(), wanted: wanted.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CERTIFICATE: &str = r#""c": {"Type": "AWS::IoT::Certificate"}"#;

    fn complaint(body: &str) -> String {
        read(body).unwrap_err().to_string()
    }

    /// The complaint about a template with this thing in it.
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
                "Resources.t.Properties.ThingName.Fn::Sub: found \"${Nobody}\"; \
                 wanted a parameter that is declared under Parameters",
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
                 wanted ThingName, ThingTypeName, AttributePayload, ThingGroups, BillingGroup",
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
    fn device_configuration_is_flat() {
        let body =
            format!(r#"{{"Resources": {{{CERTIFICATE}}}, "DeviceConfiguration": {{"a": {{"b": 1}}}}}}"#);
        assert_eq!(
            complaint(&body),
            "DeviceConfiguration.a: found an object with the key \"b\"; wanted a flat value"
        );
    }

    #[test]
    fn a_body_has_at_most_10_kib() {
        let body = format!(r#"{{"Resources": {{{CERTIFICATE}}}}}"#);
        let fits = format!("{body}{}", " ".repeat(MAX_BODY - body.len()));
        assert!(read(&fits).is_ok());
        assert_eq!(
            complaint(&format!("{fits} ")),
            "the template: found 10241 characters; wanted at most 10240"
        );
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

        /// A body from anyone is refused or read, and never a panic.
        #[test]
        fn any_text_is_read_or_refused(body in r#"[{}\[\]":,a-zA-Z0-9 ]{0,80}"#) {
            let _ = read(&body);
        }
    }
}
