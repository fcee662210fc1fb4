//! Parses JSON into a [`Template`]: every shape is checked, and every error has its path.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::Value;

mod node;

use node::{Node, wrong};

use super::expression::{Document, List, OF_CERTIFICATE, Text};
use super::{
    CertificateResource, CertificateSource, Mappings, NamedOrInline, Override, Overrides, PolicyResource,
    PrincipalType, Template, TemplateError, ThingResource,
};
use crate::service::MAX_TEMPLATE_BODY;

type Read<T> = Result<T, TemplateError>;

/// What may follow [`OF_CERTIFICATE`]. Such parameters may be declared, but need not be.
const FACTS: [&str; 8] = [
    "Id",
    "CommonName",
    "SerialNumber",
    "Country",
    "Organization",
    "OrganizationalUnit",
    "DistinguishedNameQualifier",
    "StateName",
];

const TEXT: &str = "a string, {\"Ref\": …} or a Fn:: function";
const LIST: &str = "a list, or {\"Fn::Split\": […]}";

/// The template's body from a file, which may contain the body itself or the whole answer of
/// `aws iot describe-provisioning-template`, whose `templateBody` is a string. A byte order mark is dropped.
pub fn body_of(text: &str) -> Cow<'_, str> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    match serde_json::from_str(text) {
        Ok(Value::Object(mut answer)) => match answer.remove("templateBody") {
            Some(Value::String(body)) => Cow::Owned(body),
            Some(tree) => Cow::Owned(tree.to_string()),
            None => Cow::Borrowed(text),
        },
        _ => Cow::Borrowed(text),
    }
}

/// Parses a whole template, or returns the first error.
pub(super) fn read(body: &str) -> Read<Template> {
    read_whole(body).map_err(|mut errors| errors.swap_remove(0))
}

/// Parses a whole template, or returns the first error of each resource and of each other part. The list of errors is
/// never empty.
pub(super) fn read_whole(body: &str) -> Result<Template, Vec<TemplateError>> {
    let value = read_json(body).map_err(|error| vec![error])?;
    let top = Node { at: String::from("the template"), value: &value };
    let mut errors = Errors(Vec::new());
    errors.take(top.only(&["Parameters", "Mappings", "Mapping", "Resources", "DeviceConfiguration"]));
    // A parameter with a wrong declaration still counts as declared, so that references to it are not errors as well.
    let parameters = errors.take(read_parameters(&top)).unwrap_or_else(|| declared(&value));
    let mappings = errors.take(read_mappings(&top)).unwrap_or_default();
    let grammar = Grammar { parameters: &parameters };
    let resources = grammar.resources(&top, &mut errors);
    let device_configuration = errors.take(grammar.device_configuration(&top)).unwrap_or_default();
    let reads_subject = FACTS[1..].iter().any(|fact| body.contains(&format!("{OF_CERTIFICATE}{fact}")));
    match resources {
        Some((thing, certificate, policies)) if errors.0.is_empty() => Ok(Template {
            thing,
            certificate,
            policies,
            device_configuration,
            parameters,
            mappings,
            reads_subject,
        }),
        _ => Err(errors.0),
    }
}

fn read_json(body: &str) -> Read<Value> {
    let length = body.chars().count();
    if length > MAX_TEMPLATE_BODY {
        let found = format!("{length} characters");
        return Err(wrong("the template", found, format!("at most {MAX_TEMPLATE_BODY}")));
    }
    serde_json::from_str(body).map_err(|error| {
        let at = format!("line {}, column {}", error.line(), error.column());
        wrong(at, "something that is not JSON", "a JSON object")
    })
}

/// The errors found so far.
struct Errors(Vec<TemplateError>);

impl Errors {
    /// The parsed value; on an error, `None`, and the error is noted.
    fn take<T>(&mut self, read: Read<T>) -> Option<T> {
        read.map_err(|error| {
            if !self.0.contains(&error) {
                self.0.push(error);
            }
        })
        .ok()
    }
}

/// The names of the parameters that a template declares, even if it is wrong otherwise.
fn declared(template: &Value) -> BTreeMap<String, Option<String>> {
    let names = template["Parameters"].as_object().into_iter().flatten();
    names.map(|(name, _)| (name.clone(), None)).collect()
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

/// Reads the mappings. The guide writes `Mappings`, and once `Mapping`.
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

/// A resource of any type.
enum Resource {
    Thing(ThingResource),
    Certificate(CertificateResource),
    Policy(PolicyResource),
}

/// Parses what may refer to parameters.
struct Grammar<'a> {
    parameters: &'a BTreeMap<String, Option<String>>,
}

type Resources = (Option<ThingResource>, CertificateResource, Vec<PolicyResource>);

impl Grammar<'_> {
    /// Parses all resources; `None` only if something was wrong.
    fn resources(&self, top: &Node<'_>, errors: &mut Errors) -> Option<Resources> {
        let (mut thing, mut certificate, mut policies) = (None, None, Vec::new());
        let resources = errors.take(top.required("Resources"))?;
        let mut has_certificate = false;
        for (_, node) in errors.take(resources.members())? {
            has_certificate |= node.value["Type"] == "AWS::IoT::Certificate";
            let Some((kind, resource)) = errors.take(self.resource(&node)) else { continue };
            let is_second = match resource {
                Resource::Thing(new) => thing.replace(new).is_some(),
                Resource::Certificate(new) => certificate.replace(new).is_some(),
                Resource::Policy(policy) => {
                    policies.push(policy);
                    false
                }
            };
            if is_second {
                errors.take::<()>(Err(kind.found("one resource of this type")));
            }
        }
        if !has_certificate && errors.0.iter().all(|error| !error.at.starts_with("Resources")) {
            let wanted = "one: without it there is nothing to activate";
            errors.take::<()>(Err(wrong(&resources.at, "no AWS::IoT::Certificate", wanted)));
        }
        Some((thing, certificate?, policies))
    }

    fn resource<'n>(&self, node: &Node<'n>) -> Read<(Node<'n>, Resource)> {
        node.only(&["Type", "Properties", "OverrideSettings"])?;
        let kind = node.required("Type")?;
        let resource = match kind.string()? {
            "AWS::IoT::Thing" => Resource::Thing(self.thing(node)?),
            "AWS::IoT::Certificate" => Resource::Certificate(self.certificate(node)?),
            "AWS::IoT::Policy" => Resource::Policy(self.policy(node)?),
            _ => return Err(kind.found("AWS::IoT::Thing, AWS::IoT::Certificate or AWS::IoT::Policy")),
        };
        Ok((kind, resource))
    }

    fn thing(&self, node: &Node<'_>) -> Read<ThingResource> {
        let properties = node.required("Properties")?;
        properties.only(&[
            "ThingName",
            "ThingTypeName",
            "AttributePayload",
            "ThingGroups",
            "BillingGroup",
            "PackageVersions",
        ])?;
        Ok(ThingResource {
            at: properties.at.clone(),
            name: self.text(&properties.required("ThingName")?)?,
            type_name: self.optional_text(&properties, "ThingTypeName")?,
            attributes: properties.member("AttributePayload")?.map(|node| self.texts(&node)).transpose()?,
            groups: properties.member("ThingGroups")?.map(|groups| self.list(&groups)).transpose()?,
            billing_group: self.optional_text(&properties, "BillingGroup")?,
            package_versions: match properties.member("PackageVersions")? {
                Some(node) => self.texts(&node)?,
                None => Vec::new(),
            },
            overrides: read_overrides(node)?,
        })
    }

    fn certificate(&self, node: &Node<'_>) -> Read<CertificateResource> {
        if let Some(settings) = node.member("OverrideSettings")? {
            // A token's certificate always exists, and it is the one to be registered: only the shape matters.
            settings.only(&["Status"])?;
            settings.member("Status")?.map(|node| read_override(&node, Merging::No)).transpose()?;
        }
        let Some(properties) = node.member("Properties")? else {
            let at = format!("{}.Properties", node.at);
            return Ok(CertificateResource {
                at,
                source: None,
                status: None,
                principal_type: PrincipalType::default(),
            });
        };
        properties.only(&[
            "CertificateId",
            "CertificateSigningRequest",
            "CertificatePem",
            "CACertificatePem",
            "Status",
            "ThingPrincipalType",
        ])?;
        // Nothing here needs the authority that signed a certificate: only the shape is checked.
        self.optional_text(&properties, "CACertificatePem")?;
        Ok(CertificateResource {
            at: properties.at.clone(),
            source: self.certificate_source(&properties)?,
            status: self.optional_text(&properties, "Status")?,
            principal_type: match properties.member("ThingPrincipalType")? {
                Some(node) => read_principal_type(&node)?,
                None => PrincipalType::default(),
            },
        })
    }

    fn certificate_source(&self, properties: &Node<'_>) -> Read<Option<CertificateSource<Text>>> {
        use CertificateSource::{Id, Pem, SigningRequest};
        let sources = [
            self.optional_text(properties, "CertificateId")?.map(Id),
            self.optional_text(properties, "CertificateSigningRequest")?.map(SigningRequest),
            self.optional_text(properties, "CertificatePem")?.map(Pem),
        ];
        let mut sources = sources.into_iter().flatten();
        match (sources.next(), sources.next()) {
            (source, None) => Ok(source),
            _ => {
                let wanted = "one of CertificateId, CertificateSigningRequest and CertificatePem";
                Err(wrong(&properties.at, "several", wanted))
            }
        }
    }

    fn policy(&self, node: &Node<'_>) -> Read<PolicyResource> {
        if let Some(settings) = node.member("OverrideSettings")? {
            return Err(settings.found("no overrides: a policy has none"));
        }
        let properties = node.required("Properties")?;
        properties.only(&["PolicyName", "PolicyDocument"])?;
        let name = self.optional_text(&properties, "PolicyName")?;
        let policy = match (properties.member("PolicyDocument")?, name) {
            (None, Some(name)) => NamedOrInline::Named(name),
            (Some(document), None) => NamedOrInline::Inline(self.policy_document(&document)?),
            _ => {
                return Err(wrong(&properties.at, "both or neither", "one of PolicyName and PolicyDocument"));
            }
        };
        Ok(PolicyResource { at: properties.at, policy })
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

    fn texts(&self, node: &Node<'_>) -> Read<Vec<(String, Text)>> {
        let members = node.members()?;
        members.into_iter().map(|(name, member)| Ok((name.to_owned(), self.text(&member)?))).collect()
    }

    fn text(&self, node: &Node<'_>) -> Read<Text> {
        if let Value::String(text) = node.value {
            return Ok(Text::Literal(text.clone()));
        }
        let (name, argument) = node.function().ok_or_else(|| node.found(TEXT))?;
        match name {
            "Ref" => {
                let name = argument.string()?;
                self.reference(name)
                    .ok_or_else(|| argument.found("a parameter that is declared under Parameters"))
            }
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

    /// An index, which may be a number or, as in the guide's examples, a string with a number.
    fn index(&self, node: &Node<'_>) -> Read<Text> {
        match node.value {
            Value::Number(number) if number.is_u64() => Ok(Text::Literal(number.to_string())),
            Value::Number(_) => Err(node.found("an index from 0")),
            _ => self.text(node),
        }
    }

    /// A reference to a parameter, if that is declared or the service's own.
    fn reference(&self, name: &str) -> Option<Text> {
        let is_fact = name.strip_prefix(OF_CERTIFICATE).is_some_and(|fact| FACTS.contains(&fact));
        (is_fact || self.parameters.contains_key(name)).then(|| Text::Ref(name.to_owned()))
    }

    /// `Fn::Sub` by CloudFormation's rules: `${Name}`, and `${!Literal}` for a literal `${Literal}`. IoT's own page
    /// does not show the syntax.
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
                (None, None) => self.reference(name).ok_or_else(|| {
                    let wanted = format!(
                        "a parameter that is declared under Parameters, or ${{!{name}}} to keep ${{{name}}} as it is"
                    );
                    wrong(&node.at, format!("${{{name}}}"), wanted)
                })?,
            });
            rest = after;
        }
        pieces.push(Text::Literal(rest.to_owned()));
        Ok(pieces)
    }
}

/// Reads the override settings. The guide's prose also spells the keys in capitals; all samples use camel case, and so
/// does this.
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

fn read_principal_type(node: &Node<'_>) -> Read<PrincipalType> {
    match node.string()? {
        "EXCLUSIVE_THING" => Ok(PrincipalType::Exclusive),
        "NON_EXCLUSIVE_THING" => Ok(PrincipalType::NonExclusive),
        _ => Err(node.found("EXCLUSIVE_THING or NON_EXCLUSIVE_THING")),
    }
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

#[cfg(test)]
mod tests;
