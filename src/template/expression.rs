//! The values of a template: literals, `Ref` and the `Fn::` functions.
//!
//! Owns their meaning. How they are written is the reader's.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::Value;

use super::{EvaluationError, Mappings, Parameters};

/// The parameter that the service fills in itself.
pub(super) const CERTIFICATE_ID: &str = "AWS::IoT::Certificate::Id";

/// What an evaluation can see.
pub(super) struct Scope<'a> {
    pub(super) certificate_id: &'a str,
    pub(super) given: &'a Parameters<'a>,
    pub(super) declared: &'a BTreeMap<String, Option<String>>,
    pub(super) mappings: &'a Mappings,
}

/// Something that evaluates to a string.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Text {
    Literal(String),
    Ref(String),
    /// `Fn::Join`, and `Fn::Sub` once it is read.
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
    /// The value of a parameter. The service's own comes first: a caller cannot put another in its place.
    fn parameter(&self, name: &str) -> Result<Cow<'a, str>, EvaluationError> {
        if name == CERTIFICATE_ID {
            return Ok(Cow::Borrowed(self.certificate_id));
        }
        let default = || self.declared.get(name).and_then(Option::as_deref);
        self.given
            .get(name)
            .map(|value| &**value)
            .or_else(default)
            .map(Cow::Borrowed)
            .ok_or_else(|| EvaluationError::MissingParameter(name.to_owned()))
    }
}

impl Text {
    pub(super) fn evaluate<'a>(&'a self, scope: &Scope<'a>) -> Result<Cow<'a, str>, EvaluationError> {
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
    pub(super) fn evaluate<'a>(&'a self, scope: &Scope<'a>) -> Result<Vec<Cow<'a, str>>, EvaluationError> {
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
    pub(super) fn evaluate(&self, scope: &Scope<'_>) -> Result<Value, EvaluationError> {
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
                    .collect::<Result<_, EvaluationError>>()?,
            ),
        })
    }
}

/// An element out of range is a provisioning error, as the guide says.
fn select<'a>(index: &str, mut list: Vec<Cow<'a, str>>) -> Result<Cow<'a, str>, EvaluationError> {
    let Ok(at) = index.parse::<usize>() else {
        return Err(EvaluationError::Failed(format!("Fn::Select: {index} is not an index")));
    };
    if at < list.len() {
        return Ok(list.swap_remove(at));
    }
    Err(EvaluationError::Failed(format!("Fn::Select: there is no element {at} in a list of {}", list.len())))
}

fn find<'a>(keys: &'a [Text; 3], scope: &Scope<'a>) -> Result<Cow<'a, str>, EvaluationError> {
    let [map, top, second] = keys;
    let (map, top, second) = (map.evaluate(scope)?, top.evaluate(scope)?, second.evaluate(scope)?);
    scope
        .mappings
        .get(&*map)
        .and_then(|map| map.get(&*top))
        .and_then(|row| row.get(&*second))
        .map(|value| Cow::Borrowed(value.as_str()))
        .ok_or_else(|| EvaluationError::Failed(format!("Fn::FindInMap: nothing at {map}, {top}, {second}")))
}
