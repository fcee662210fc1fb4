//! The expressions of a template and their evaluation: literals, `Ref` and the `Fn::` functions.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::BTreeMap;

use serde_json::Value;

use super::{CertificateFacts, Evaluated, Mappings, Parameters, Reason};

/// The prefix of the parameters that the service fills in itself.
pub(super) const OF_CERTIFICATE: &str = "AWS::IoT::Certificate::";

/// The most bytes that parameters may add up to in one evaluation, counting every reference: no message is larger.
const MAX_VALUES: usize = 128 * 1024;

/// What an evaluation has access to.
pub(super) struct Scope<'a> {
    pub(super) certificate: CertificateFacts<'a>,
    pub(super) given: &'a Parameters<'a>,
    pub(super) declared: &'a BTreeMap<String, Option<String>>,
    pub(super) mappings: &'a Mappings,
    /// The bytes of parameters used so far.
    pub(super) used: Cell<usize>,
}

/// Something that evaluates to a string.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Text {
    Literal(String),
    Ref(String),
    /// `Fn::Join`, or `Fn::Sub` after parsing.
    Join {
        delimiter: String,
        parts: List,
    },
    Select {
        index: Box<Text>,
        list: List,
    },
    FindInMap(Box<[Text; 3]>),
}

/// Something that evaluates to a list of strings.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum List {
    Items(Vec<Text>),
    Split { delimiter: String, source: Box<Text> },
}

/// Something that evaluates to JSON: a policy document, or a value of the device configuration.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Document {
    Text(Text),
    /// Null, a boolean or a number.
    Plain(Value),
    Array(Vec<Document>),
    Object(Vec<(String, Document)>),
}

impl<'a> Scope<'a> {
    /// The value of a parameter. The service's own take precedence, so that a caller cannot override them.
    fn parameter(&self, name: &str) -> Result<Cow<'a, str>, Reason> {
        let default = || self.declared.get(name).and_then(Option::as_deref);
        let value = self.fact(name).or_else(|| self.given.get(name).map(|value| &**value)).or_else(default);
        let value = value.ok_or_else(|| Reason::MissingParameter(name.to_owned()))?;
        self.used.set(self.used.get() + value.len());
        if self.used.get() > MAX_VALUES {
            return Err(Reason::Failed(format!(
                "the values of the parameters come to more than {MAX_VALUES} bytes"
            )));
        }
        Ok(Cow::Borrowed(value))
    }

    fn fact(&self, name: &str) -> Option<&'a str> {
        match name.strip_prefix(OF_CERTIFICATE)? {
            "Id" => self.certificate.id,
            field => self.certificate.subject?.get(field).map(String::as_str),
        }
    }

    /// The value of the property `key` at `place`.
    pub(super) fn text(&self, place: &str, key: &str, text: &'a Text) -> Evaluated<String> {
        text.evaluate(self).map(Cow::into_owned).map_err(|reason| reason.at(place, key))
    }

    pub(super) fn optional(
        &self,
        place: &str,
        key: &str,
        text: Option<&'a Text>,
    ) -> Evaluated<Option<String>> {
        text.map(|text| self.text(place, key, text)).transpose()
    }

    /// The values of the members of the property `key` at `place`.
    pub(super) fn map(
        &self,
        place: &str,
        key: &str,
        members: &'a [(String, Text)],
    ) -> Evaluated<BTreeMap<String, String>> {
        let value = |(name, text): &'a (String, Text)| {
            let value = text.evaluate(self).map_err(|reason| reason.at(place, &format!("{key}.{name}")))?;
            Ok((name.clone(), value.into_owned()))
        };
        members.iter().map(value).collect()
    }
}

impl Text {
    /// Calls `show` with the name of every parameter that the text refers to.
    pub(super) fn each_reference<'a>(&'a self, show: &mut impl FnMut(&'a str)) {
        match self {
            Self::Literal(_) => {}
            Self::Ref(name) => show(name),
            Self::Join { parts, .. } => parts.each_reference(show),
            Self::Select { index, list } => {
                index.each_reference(show);
                list.each_reference(show);
            }
            Self::FindInMap(keys) => keys.iter().for_each(|key| key.each_reference(show)),
        }
    }

    pub(super) fn evaluate<'a>(&'a self, scope: &Scope<'a>) -> Result<Cow<'a, str>, Reason> {
        match self {
            Self::Literal(text) => Ok(Cow::Borrowed(text)),
            Self::Ref(name) => scope.parameter(name),
            Self::Join { delimiter, parts } => Ok(Cow::Owned(parts.evaluate(scope)?.join(delimiter))),
            Self::Select { index, list } => select(&index.evaluate(scope)?, list.evaluate(scope)?),
            Self::FindInMap(keys) => find(keys, scope),
        }
    }
}

impl List {
    /// Calls `show` with the name of every parameter that the list refers to.
    pub(super) fn each_reference<'a>(&'a self, show: &mut impl FnMut(&'a str)) {
        match self {
            Self::Items(items) => items.iter().for_each(|item| item.each_reference(show)),
            Self::Split { source, .. } => source.each_reference(show),
        }
    }

    pub(super) fn evaluate<'a>(&'a self, scope: &Scope<'a>) -> Result<Vec<Cow<'a, str>>, Reason> {
        match self {
            Self::Items(items) => items.iter().map(|item| item.evaluate(scope)).collect(),
            Self::Split { delimiter, source } => Ok(match source.evaluate(scope)? {
                Cow::Borrowed(text) => text.split(delimiter.as_str()).map(Cow::Borrowed).collect(),
                Cow::Owned(text) => {
                    text.split(delimiter.as_str()).map(|part| Cow::Owned(part.to_owned())).collect()
                }
            }),
        }
    }
}

impl Document {
    /// Calls `show` with the name of every parameter that the document refers to.
    pub(super) fn each_reference<'a>(&'a self, show: &mut impl FnMut(&'a str)) {
        match self {
            Self::Text(text) => text.each_reference(show),
            Self::Plain(_) => {}
            Self::Array(items) => items.iter().for_each(|item| item.each_reference(show)),
            Self::Object(members) => members.iter().for_each(|(_, member)| member.each_reference(show)),
        }
    }

    pub(super) fn evaluate(&self, scope: &Scope<'_>) -> Result<Value, Reason> {
        Ok(match self {
            Self::Text(text) => Value::String(text.evaluate(scope)?.into_owned()),
            Self::Plain(value) => value.clone(),
            Self::Array(items) => {
                Value::Array(items.iter().map(|item| item.evaluate(scope)).collect::<Result<_, _>>()?)
            }
            Self::Object(members) => Value::Object(
                members
                    .iter()
                    .map(|(name, member)| Ok((name.clone(), member.evaluate(scope)?)))
                    .collect::<Result<_, Reason>>()?,
            ),
        })
    }
}

/// `Fn::Select`. An index out of range is a provisioning error, according to the guide.
fn select<'a>(index: &str, mut list: Vec<Cow<'a, str>>) -> Result<Cow<'a, str>, Reason> {
    let Ok(at) = index.parse::<usize>() else {
        return Err(Reason::Failed(format!("Fn::Select: {index} is not an index")));
    };
    if at < list.len() {
        return Ok(list.swap_remove(at));
    }
    Err(Reason::Failed(format!("Fn::Select: there is no element {at} in a list of {}", list.len())))
}

fn find<'a>(keys: &'a [Text; 3], scope: &Scope<'a>) -> Result<Cow<'a, str>, Reason> {
    let [map, top, second] = keys;
    let (map, top, second) = (map.evaluate(scope)?, top.evaluate(scope)?, second.evaluate(scope)?);
    scope
        .mappings
        .get(&*map)
        .and_then(|map| map.get(&*top))
        .and_then(|row| row.get(&*second))
        .map(|value| Cow::Borrowed(value.as_str()))
        .ok_or_else(|| Reason::Failed(format!("Fn::FindInMap: nothing at {map}, {top}, {second}")))
}
