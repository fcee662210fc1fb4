//! The files that Espressif's tools read: the CSV of the NVS partition generator, and the two tables of the
//! manufacturing utility.
//!
//! Owns the NVS names and their restrictions. Source: ESP-IDF's "NVS Partition Generator Utility" and "Manufacturing
//! Utility", and the behaviour of `esp-idf-nvs-partition-gen` 0.3.0. Both tools resolve paths against their working
//! directory: the paths here are relative to the export's root, so start the tools there.
//!
//! The certificate and the key are entries of type `file`, so that line ends reach the image unchanged.

use std::str::FromStr;

use super::ExportError;
use crate::certificate::RegisteredThing;
use crate::ledger::CertifiedDevice;

/// The default namespace of the entries.
pub const DEFAULT_NAMESPACE: &str = "fleetmint";

/// The longest namespace and the longest name of an entry, in bytes.
pub const LONGEST_NAME: usize = 15;

/// The longest text of an entry, in bytes: with its NUL it must fit the 124 entries that a page has for one string.
pub const LONGEST_TEXT: usize = 124 * 32 - 1;

/// The columns of the generator's CSV.
pub(super) const COLUMNS: [&str; 4] = ["key", "type", "encoding", "value"];

/// The first column of the manufacturing utility's values, for `--fileid`, which names the images. Not part of any
/// image.
pub(super) const FILE_ID: &str = "file_id";

/// The content of a device's image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// The namespace of its entries.
    pub(super) namespace: String,
    /// Its entries, with unique names.
    pub(super) entries: Vec<Entry>,
}

/// An entry of an image. All entries are strings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name by which the firmware reads it.
    pub name: String,
    /// The source of its value.
    pub source: Source,
}

/// The source of an entry's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The device's key.
    Key,
    /// The name of its thing.
    ThingName,
    /// The id of its certificate.
    CertificateId,
    /// Its device configuration, as JSON.
    Configuration,
    /// Its certificate, PEM.
    Certificate,
    /// Its private key, PEM.
    PrivateKey,
    /// The value of a column of the lot.
    Column(String),
}

/// Text that is not an entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "wanted NAME=SOURCE, SOURCE being key, thing_name, certificate_id, device_config, certificate, private_key or column:COLUMN, not {found:?}"
)]
pub struct NotAnEntry {
    found: String,
}

impl FromStr for Entry {
    type Err = NotAnEntry;

    fn from_str(text: &str) -> Result<Self, NotAnEntry> {
        let wrong = || NotAnEntry { found: text.to_owned() };
        let (name, source) = text.split_once('=').ok_or_else(wrong)?;
        let source = match source {
            "key" => Source::Key,
            "thing_name" => Source::ThingName,
            "certificate_id" => Source::CertificateId,
            "device_config" => Source::Configuration,
            "certificate" => Source::Certificate,
            "private_key" => Source::PrivateKey,
            other => Source::Column(other.strip_prefix("column:").ok_or_else(wrong)?.to_owned()),
        };
        Ok(Self { name: name.to_owned(), source })
    }
}

impl Source {
    /// The type of the entry for this source.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Source::Certificate | Source::PrivateKey => "file",
            _ => "data",
        }
    }
}

/// The entries of an image if none are requested.
fn default_entries() -> Vec<Entry> {
    let entry = |name: &str, source| Entry { name: name.to_owned(), source };
    vec![
        entry("device_key", Source::Key),
        entry("thing_name", Source::ThingName),
        entry("certificate_id", Source::CertificateId),
        entry("device_config", Source::Configuration),
        entry("certificate", Source::Certificate),
        entry("private_key", Source::PrivateKey),
    ]
}

impl Partition {
    /// An image with these entries, or with the usual ones if there are none.
    ///
    /// # Errors
    /// [`ExportError::NvsName`] if NVS or one of the tools does not accept a name; [`ExportError::NvsNameTaken`] if a
    /// name occurs twice.
    pub fn new(namespace: &str, entries: Vec<Entry>) -> Result<Self, ExportError> {
        check_name("namespace", namespace)?;
        for (at, entry) in entries.iter().enumerate() {
            check_name("entry's name", &entry.name)?;
            if entry.name == FILE_ID || entries[..at].iter().any(|earlier| earlier.name == entry.name) {
                return Err(ExportError::NvsNameTaken { found: entry.name.clone() });
            }
        }
        let entries = if entries.is_empty() { default_entries() } else { entries };
        Ok(Self { namespace: namespace.to_owned(), entries })
    }

    /// Refuses entries whose column the lot does not have.
    pub(super) fn check_columns(&self, columns: &[String]) -> Result<(), ExportError> {
        for entry in &self.entries {
            if let Source::Column(column) = &entry.source
                && !columns.contains(column)
            {
                let (found, columns) = (column.clone(), columns.to_vec());
                return Err(ExportError::NoColumn { found, columns });
            }
        }
        Ok(())
    }

    /// The values of a device's entries, in order; `files` are its certificate and its private key.
    ///
    /// # Errors
    /// If a value is too long, or has characters that the tools would change.
    pub(super) fn values(
        &self,
        device: &CertifiedDevice,
        columns: &[String],
        files: &[String; 2],
    ) -> Result<Vec<String>, ExportError> {
        let [certificate_file, private_key_file] = files;
        let value = |entry: &Entry| {
            let value = match &entry.source {
                Source::Key => device.key.clone(),
                Source::ThingName => {
                    device.thing.as_ref().map_or_else(String::new, |thing| thing.thing_name.clone())
                }
                Source::CertificateId => device.certificate_id.to_string(),
                Source::Configuration => configuration_text(device.thing.as_ref()),
                Source::Certificate => certificate_file.clone(),
                Source::PrivateKey => private_key_file.clone(),
                Source::Column(wanted) => {
                    let value = columns.iter().zip(&device.values).find(|(column, _)| *column == wanted);
                    value.map_or_else(String::new, |(_, value)| value.clone())
                }
            };
            check_text(&device.key, &entry.name, &value)?;
            Ok(value)
        };
        self.entries.iter().map(value).collect()
    }
}

/// Refuses a name that NVS or one of the tools does not accept.
fn check_name(what: &'static str, name: &str) -> Result<(), ExportError> {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !b",\"'#".contains(&byte);
    // Words that the manufacturing utility treats specially in any field of a row.
    let is_reserved = ["namespace", "REPEAT"].contains(&name);
    if (1..=LONGEST_NAME).contains(&name.len()) && name.bytes().all(is_plain) && !is_reserved {
        Ok(())
    } else {
        Err(ExportError::NvsName { what, found: name.to_owned() })
    }
}

/// Refuses a file that is too long for a string.
pub(super) fn check_file(key: &str, what: &str, content: &str) -> Result<(), ExportError> {
    if content.len() <= LONGEST_TEXT {
        return Ok(());
    }
    let why = format!("an NVS string has at most {LONGEST_TEXT} bytes, and it has {}", content.len());
    Err(ExportError::Unfit { key: key.to_owned(), what: what.to_owned(), why })
}

/// The device's configuration as JSON on one line; empty if there is none.
pub(super) fn configuration_text(thing: Option<&RegisteredThing>) -> String {
    let configuration = thing.map(|thing| &thing.device_configuration).filter(|found| !found.is_empty());
    configuration.map_or_else(String::new, |found| {
        serde_json::to_string(found).expect("JSON that was read can be written")
    })
}

fn check_text(key: &str, what: &str, text: &str) -> Result<(), ExportError> {
    if text.chars().any(char::is_control) {
        let why = String::from("Espressif's tools do not pass on control characters in a CSV as they are");
        return Err(ExportError::Unfit { key: key.to_owned(), what: what.to_owned(), why });
    }
    check_file(key, what, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_as_typed() {
        let entry = |text: &str| text.parse::<Entry>();
        assert_eq!(entry("cert=certificate"), Ok(Entry { name: "cert".into(), source: Source::Certificate }));
        let column = Source::Column(String::from("Hw Rev=2"));
        assert_eq!(entry("rev=column:Hw Rev=2"), Ok(Entry { name: "rev".into(), source: column }));
        for wrong in ["", "cert", "cert=", "cert=pem", "cert=Certificate", "x=column"] {
            assert!(entry(wrong).unwrap_err().to_string().contains("NAME=SOURCE"), "{wrong}");
        }
    }

    #[test]
    fn a_name_is_taken_once() {
        let named = |names: &[&str]| {
            let entries =
                names.iter().map(|name| Entry { name: name.to_string(), source: Source::Key }).collect();
            Partition::new(DEFAULT_NAMESPACE, entries)
        };
        assert!(named(&["a", "b"]).is_ok());
        for wrong in [&["a", "a"][..], &["file_id"], &["sixteen-letters-"], &["a b"], &[""], &["REPEAT"]] {
            assert!(named(wrong).is_err(), "{wrong:?}");
        }
    }
}
