//! A value of the template with its path for errors, and the checks of its shape.

use serde_json::{Map, Value};

use super::super::TemplateError;
use super::Read;

/// A JSON value and its path.
#[derive(Clone)]
pub(super) struct Node<'a> {
    pub(super) at: String,
    pub(super) value: &'a Value,
}

impl<'a> Node<'a> {
    pub(super) fn child(&self, key: &str, value: &'a Value) -> Self {
        let at = match self.at.as_str() {
            "the template" => key.to_owned(),
            at => format!("{at}.{key}"),
        };
        Self { at, value }
    }

    pub(super) fn object(&self) -> Read<&'a Map<String, Value>> {
        self.value.as_object().ok_or_else(|| self.found("an object"))
    }

    pub(super) fn string(&self) -> Read<&'a str> {
        self.value.as_str().ok_or_else(|| self.found("a string"))
    }

    pub(super) fn only(&self, known: &[&str]) -> Read<()> {
        match self.object()?.keys().find(|key| !known.contains(&key.as_str())) {
            Some(key) => Err(wrong(&self.at, format!("unknown key {key:?}"), known.join(", "))),
            None => Ok(()),
        }
    }

    pub(super) fn member(&self, key: &str) -> Read<Option<Self>> {
        Ok(self.object()?.get(key).map(|value| self.child(key, value)))
    }

    pub(super) fn required(&self, key: &str) -> Read<Self> {
        self.member(key)?.ok_or_else(|| wrong(&self.at, format!("no {key}"), format!("{key} to be given")))
    }

    pub(super) fn members(&self) -> Read<Vec<(&'a str, Self)>> {
        Ok(self.object()?.iter().map(|(key, value)| (key.as_str(), self.child(key, value))).collect())
    }

    /// The members of the object at `key`; empty if there is no such key.
    pub(super) fn optional_members(&self, key: &str) -> Read<Vec<(&'a str, Self)>> {
        self.member(key)?.map_or(Ok(Vec::new()), |node| node.members())
    }

    pub(super) fn items(&self, items: &'a [Value]) -> impl Iterator<Item = Self> {
        items.iter().enumerate().map(|(index, value)| self.child(&index.to_string(), value))
    }

    /// The elements of a list of exactly `N`; `wanted` describes it in errors.
    pub(super) fn elements<const N: usize>(&self, wanted: &str) -> Read<[Self; N]> {
        let items = self.value.as_array().ok_or_else(|| self.found(wanted))?;
        let items: Vec<_> = self.items(items).collect();
        items.try_into().map_err(|_| self.found(wanted))
    }

    /// The name and the argument of the function, if the value is an object with a function as its only member.
    pub(super) fn function(&self) -> Option<(&'a str, Self)> {
        let object = self.value.as_object()?;
        let (name, argument) = object.iter().next()?;
        let is_function = object.len() == 1 && (name == "Ref" || name.starts_with("Fn::"));
        is_function.then(|| (name.as_str(), self.child(name, argument)))
    }

    pub(super) fn found(&self, wanted: &str) -> TemplateError {
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

pub(super) fn wrong(
    at: impl Into<String>,
    found: impl Into<String>,
    wanted: impl Into<String>,
) -> TemplateError {
    TemplateError::new(&at.into(), &found.into(), &wanted.into())
}
