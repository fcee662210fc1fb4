//! A JSON object, read strictly and without ever quoting it.
//!
//! Owns the one way in which replies are opened: known fields are kept, unknown ones are skipped, twins are refused. serde's
//! own type errors are not used, because they repeat the value that they complain about, and a value may be a private key.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::error::Category;
use zeroize::Zeroizing;

/// The value of a known field.
pub(super) enum Field {
    /// A string; it may be a secret, so it is zeroed if nobody takes it.
    Text(Zeroizing<String>),
    /// A number without fraction or exponent.
    Integer(i128),
    /// Any other number.
    Fraction,
    /// True or false.
    Boolean,
    /// null.
    Null,
    /// An array.
    Array,
    /// An object.
    Object(BTreeMap<String, Value>),
    /// An object that has a key twice.
    ObjectWithTwins,
}

impl Field {
    /// Its type, as said to people.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Field::Text(_) => "a string",
            Field::Integer(_) | Field::Fraction => "a number",
            Field::Boolean => "a boolean",
            Field::Null => "null",
            Field::Array => "an array",
            Field::Object(_) | Field::ObjectWithTwins => "an object",
        }
    }
}

/// The known fields of an object.
pub(super) struct Fields<const N: usize> {
    names: [&'static str; N],
    values: [Option<Field>; N],
}

impl<const N: usize> Fields<N> {
    /// Reads `payload` as one object, of which the fields called `names` are kept. Says what is wrong without quoting.
    pub(super) fn read(payload: &[u8], names: [&'static str; N]) -> Result<Self, String> {
        let text = std::str::from_utf8(payload).map_err(|_| String::from("not UTF-8"))?;
        let mut reader = Reader { names, values: [const { None }; N], extra: Vec::new(), twin: None };
        let mut json = serde_json::Deserializer::from_str(text);
        json.deserialize_map(&mut reader).and_then(|()| json.end()).map_err(|error| describe(&error))?;
        match reader.twin {
            Some(name) => Err(format!("{name} is there twice")),
            None => Ok(Self { names, values: reader.values }),
        }
    }

    /// The value of the field called `name`, if it is there and was not taken before.
    pub(super) fn take(&mut self, name: &str) -> Option<Field> {
        let index = self.names.iter().position(|known| *known == name)?;
        self.values[index].take()
    }
}

fn describe(error: &serde_json::Error) -> String {
    match error.classify() {
        // Nothing below asks for a type, so the only thing that can have the wrong one is the whole.
        Category::Data => String::from("not a JSON object"),
        _ => format!("malformed JSON at line {} column {}", error.line(), error.column()),
    }
}

struct Reader<const N: usize> {
    names: [&'static str; N],
    values: [Option<Field>; N],
    /// Unknown keys, kept only to notice twins.
    extra: Vec<String>,
    twin: Option<&'static str>,
}

impl<'de, const N: usize> Visitor<'de> for &mut Reader<N> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key_seed(KeyReader)? {
            match self.names.iter().position(|name| *name == key) {
                Some(index) if self.values[index].is_none() => self.values[index] = Some(map.next_value()?),
                Some(index) => {
                    self.twin = Some(self.names[index]);
                    map.next_value::<IgnoredAny>()?;
                }
                None => {
                    if self.extra.iter().any(|seen| *seen == key) {
                        self.twin = Some("an unknown key");
                    } else if self.extra.len() < EXTRA_KEYS {
                        self.extra.push(key.into_owned());
                    }
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

/// How many unknown keys are watched for twins; beyond them the search would cost more than it is worth.
const EXTRA_KEYS: usize = 32;

/// Reads a key without copying it where it needs no unescaping.
struct KeyReader;

impl<'de> DeserializeSeed<'de> for KeyReader {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for KeyReader {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E>(self, key: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(key))
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(key.to_owned()))
    }
}

impl<'de> Deserialize<'de> for Field {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        json.deserialize_any(FieldReader)
    }
}

/// Takes any type for what it is.
struct FieldReader;

impl<'de> Visitor<'de> for FieldReader {
    type Value = Field;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_str<E>(self, text: &str) -> Result<Field, E> {
        Ok(Field::Text(Zeroizing::new(text.to_owned())))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Field, E> {
        Ok(Field::Integer(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Field, E> {
        Ok(Field::Integer(number.into()))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Field, E> {
        Ok(Field::Fraction)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Field, E> {
        Ok(Field::Boolean)
    }

    fn visit_unit<E>(self) -> Result<Field, E> {
        Ok(Field::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Field, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Field::Array)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Field, A::Error> {
        let (mut values, mut has_twins) = (BTreeMap::new(), false);
        while let Some((key, value)) = map.next_entry::<String, Value>()? {
            has_twins |= values.insert(key, value).is_some();
        }
        Ok(if has_twins { Field::ObjectWithTwins } else { Field::Object(values) })
    }
}
