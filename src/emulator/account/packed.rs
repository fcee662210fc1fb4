//! Certificates as their bytes, names and attributes in one allocation each: a device has few of them, an account has many devices.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use ::pem::parse as parse_pem;
use serde::de::Deserializer;
use serde::{Deserialize, Serialize, Serializer};

use super::super::pem::encode;

/// Stands between two entries. No name or value of the registry may hold it.
const BETWEEN: char = '\n';
/// Stands between the name and the value of an attribute. No name of an attribute may hold it.
const EQUALS: char = '=';

/// A set of names, in order.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Names(Box<str>);

/// Names with a value each, in the order of the names.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Attributes(Box<str>);

/// A certificate as PEM, kept as DER where that gives the same text again, which is a quarter less.
#[derive(Clone, PartialEq, Eq)]
pub struct CertificatePem(Packed);

#[derive(Clone, PartialEq, Eq)]
enum Packed {
    Der(Box<[u8]>),
    Text(Box<str>),
}

const LABEL: &str = "CERTIFICATE";

impl CertificatePem {
    /// The certificate of this text, whatever that is.
    pub fn new(text: &str) -> Self {
        let der = parse_pem(text).ok().map(|pem| pem.into_contents());
        let same = der.filter(|der| encode(LABEL, der) == text);
        Self(same.map_or_else(|| Packed::Text(text.into()), |der| Packed::Der(der.into())))
    }
}

/// The text as it was given.
impl fmt::Display for CertificatePem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Packed::Der(der) => f.write_str(&encode(LABEL, der)),
            Packed::Text(text) => f.write_str(text),
        }
    }
}

impl fmt::Debug for CertificatePem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for CertificatePem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for CertificatePem {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self::new(&text))
    }
}

impl Names {
    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        entries(&self.0)
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether there is not one.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `name` is one of them.
    pub fn contains(&self, name: &str) -> bool {
        self.iter().any(|known| known == name)
    }

    /// Adds `name`; whether it was not there.
    pub fn insert(&mut self, name: &str) -> bool {
        let is_new = !self.contains(name);
        if is_new {
            *self = self.iter().chain([name]).collect();
        }
        is_new
    }

    /// Removes `name`; whether it was there.
    pub fn remove(&mut self, name: &str) -> bool {
        let was_there = self.contains(name);
        if was_there {
            *self = self.iter().filter(|known| *known != name).collect();
        }
        was_there
    }
}

impl Attributes {
    /// All of them, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        entries(&self.0).map(|entry| entry.split_once(EQUALS).unwrap_or((entry, "")))
    }

    /// The value of the attribute `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether there is not one.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'a> FromIterator<&'a str> for Names {
    fn from_iter<I: IntoIterator<Item = &'a str>>(names: I) -> Self {
        Self(pack(names.into_iter().map(str::to_owned).collect::<BTreeSet<_>>()))
    }
}

/// The last of several values of a name counts.
impl<'a> FromIterator<(&'a str, &'a str)> for Attributes {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(attributes: I) -> Self {
        let attributes: BTreeMap<_, _> = attributes.into_iter().collect();
        Self(pack(attributes.into_iter().map(|(name, value)| format!("{name}{EQUALS}{value}"))))
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl fmt::Debug for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl Serialize for Names {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl Serialize for Attributes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let names = Vec::<String>::deserialize(deserializer)?;
        Ok(names.iter().map(String::as_str).collect())
    }
}

impl<'de> Deserialize<'de> for Attributes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let attributes = BTreeMap::<String, String>::deserialize(deserializer)?;
        Ok(attributes.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect())
    }
}

/// An empty text has no entry: names are never empty, and an attribute has its separator.
fn entries(packed: &str) -> impl Iterator<Item = &str> {
    packed.split(BETWEEN).filter(|entry| !entry.is_empty())
}

fn pack(entries: impl IntoIterator<Item = String>) -> Box<str> {
    let mut packed = String::new();
    for entry in entries {
        if !packed.is_empty() {
            packed.push(BETWEEN);
        }
        packed.push_str(&entry);
    }
    packed.into_boxed_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_the_text_that_was_given() {
        let usual = encode(LABEL, &[7; 100]);
        let unusual = usual.replace('\n', "\r\n");
        for text in [usual.as_str(), &unusual, "pem\n", ""] {
            let pem = CertificatePem::new(text);
            assert_eq!(pem.to_string(), text);
            assert_eq!(matches!(pem.0, Packed::Der(_)), text == usual);
            let json = serde_json::to_string(&pem).unwrap();
            assert_eq!(json, serde_json::to_string(text).unwrap());
            assert_eq!(serde_json::from_str::<CertificatePem>(&json).unwrap(), pem);
        }
    }

    #[test]
    fn names_are_a_set_in_order() {
        let mut names: Names = ["b", "a", "b"].into_iter().collect();
        assert_eq!((names.len(), names.iter().collect::<Vec<_>>()), (2, vec!["a", "b"]));
        assert!(names.insert("ab") && !names.insert("a") && names.contains("ab") && !names.contains("c"));
        assert!(names.remove("a") && !names.remove("a"));
        assert_eq!(serde_json::to_string(&names).unwrap(), r#"["ab","b"]"#);
        assert_eq!(serde_json::from_str::<Names>(r#"["b","ab"]"#).unwrap(), names);
        assert!(Names::default().is_empty() && Names::default().iter().next().is_none());
    }

    #[test]
    fn attributes_have_a_value_each() {
        let attributes: Attributes = [("k", "x=y"), ("empty", ""), ("k", "z=")].into_iter().collect();
        assert_eq!(
            (attributes.get("k"), attributes.get("empty"), attributes.get("no")),
            (Some("z="), Some(""), None)
        );
        assert_eq!(attributes.len(), 2);
        let text = serde_json::to_string(&attributes).unwrap();
        assert_eq!(text, r#"{"empty":"","k":"z="}"#);
        assert_eq!(serde_json::from_str::<Attributes>(&text).unwrap(), attributes);
        assert!(Attributes::default().is_empty());
    }
}
