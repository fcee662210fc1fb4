//! Compact forms of certificates (their bytes), names and attributes, one allocation each: a device has few of them,
//! but an account has many devices.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use ::pem::parse as parse_pem;
use serde::de::Deserializer;
use serde::{Deserialize, Serialize, Serializer};

use super::super::pem::encode;

/// Separates entries. No name or value in the registry may contain it.
const BETWEEN: char = '\n';
/// Separates an attribute's name from its value. No attribute name may contain it.
const EQUALS: char = '=';

/// A set of names, in order.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Names(Box<str>);

/// Names, each with a value, ordered by name.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Attributes(Box<str>);

/// A certificate as PEM, stored as DER if that reproduces the same text, which takes a quarter less space.
#[derive(Clone, PartialEq, Eq)]
pub struct CertificatePem(Packed);

#[derive(Clone, PartialEq, Eq)]
enum Packed {
    Der(Box<[u8]>),
    Text(Box<str>),
}

const LABEL: &str = "CERTIFICATE";

impl CertificatePem {
    /// Packs this text, whether or not it is a valid certificate.
    pub fn new(text: &str) -> Self {
        let der = parse_pem(text).ok().map(|pem| pem.into_contents());
        let same = der.filter(|der| encode(LABEL, der) == text);
        Self(same.map_or_else(|| Packed::Text(text.into()), |der| Packed::Der(der.into())))
    }
}

/// Writes the text exactly as it was given.
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
    /// All names, in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        entries(&self.0)
    }

    /// The number of names.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether there are no names.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `name` is in the set.
    pub fn contains(&self, name: &str) -> bool {
        self.iter().any(|known| known == name)
    }

    /// Adds `name`. Returns whether it was new.
    pub fn insert(&mut self, name: &str) -> bool {
        let is_new = !self.contains(name);
        if is_new {
            *self = self.iter().chain([name]).collect();
        }
        is_new
    }

    /// Removes `name`. Returns whether it was present.
    pub fn remove(&mut self, name: &str) -> bool {
        let was_there = self.contains(name);
        if was_there {
            *self = self.iter().filter(|known| *known != name).collect();
        }
        was_there
    }
}

impl Attributes {
    /// All attributes, ordered by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        entries(&self.0).map(|entry| entry.split_once(EQUALS).unwrap_or((entry, "")))
    }

    /// The value of the attribute `name`; `None` if there is no such attribute.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// The number of attributes.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether there are no attributes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'a> FromIterator<&'a str> for Names {
    fn from_iter<I: IntoIterator<Item = &'a str>>(names: I) -> Self {
        Self(pack(names.into_iter().map(str::to_owned).collect::<BTreeSet<_>>()))
    }
}

/// If a name has several values, the last one wins.
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

/// An empty text has no entries: names are never empty, and an attribute contains its separator.
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
