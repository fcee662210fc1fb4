//! What Espressif's tools read: the CSV of the NVS partition generator, and the pair of the manufacturing utility.
//!
//! Owns the NVS names, and what they allow. Source: ESP-IDF's "NVS Partition Generator Utility" and "Manufacturing
//! Utility", and the behaviour of `esp-idf-nvs-partition-gen` 0.3.0. Both tools look for files from the directory that
//! they are started in: the paths here are relative to the export's root, and start the tools there.
//!
//! The certificate and the key are entries of type `file`, so that line ends reach the image as they are.

use super::ExportError;
use crate::certificate::RegisteredThing;
use crate::ledger::CertifiedDevice;

/// The namespace of the entries unless another is asked for.
pub const DEFAULT_NAMESPACE: &str = "fleetmint";

/// The longest namespace and the longest name of an entry, in bytes.
pub const LONGEST_NAME: usize = 15;

/// The longest text of an entry, in bytes: with its NUL it must fit the 124 entries that a page leaves to one string.
pub const LONGEST_TEXT: usize = 124 * 32 - 1;

/// The columns of the generator's CSV.
pub(super) const COLUMNS: [&str; 4] = ["key", "type", "encoding", "value"];

/// The first column of the manufacturing utility's values: what `--fileid` takes for the images' names. In no image.
pub(super) const FILE_ID: &str = "file_id";

/// The entries of a device's image: name and type; all are strings.
pub(super) const ENTRIES: [(&str, &str); 6] = [
    ("device_key", "data"),
    ("thing_name", "data"),
    ("certificate_id", "data"),
    ("device_config", "data"),
    ("certificate", "file"),
    ("private_key", "file"),
];

/// Refuses a namespace that NVS, or a tool on the way, does not take as it is.
pub(super) fn check_namespace(name: &str) -> Result<(), ExportError> {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !b",\"'#".contains(&byte);
    // Words that the manufacturing utility looks for in every field of a row.
    let is_reserved = ["namespace", "REPEAT"].contains(&name);
    match (1..=LONGEST_NAME).contains(&name.len()) && name.bytes().all(is_plain) && !is_reserved {
        true => Ok(()),
        false => Err(ExportError::Namespace { found: name.to_owned() }),
    }
}

/// The values of a device's [`ENTRIES`], in their order; files are at the paths given.
///
/// # Errors
/// If one does not fit: too long, or with characters that the tools would not pass on as they are.
pub(super) fn values(
    device: &CertifiedDevice,
    certificate_file: &str,
    private_key_file: &str,
) -> Result<[String; 6], ExportError> {
    let values = [
        device.key.clone(),
        device.thing.as_ref().map(|thing| thing.thing_name.clone()).unwrap_or_default(),
        device.certificate_id.to_string(),
        configuration_text(device.thing.as_ref()),
        certificate_file.to_owned(),
        private_key_file.to_owned(),
    ];
    for ((name, _), value) in ENTRIES.into_iter().zip(&values) {
        check_text(&device.key, name, value)?;
    }
    Ok(values)
}

/// The size of a string that is taken from a file.
pub(super) fn check_file(key: &str, what: &'static str, content: &str) -> Result<(), ExportError> {
    match content.len() {
        ..=LONGEST_TEXT => Ok(()),
        length => Err(too_long(key, what, length)),
    }
}

/// The device's configuration as JSON on one line; empty if there is none.
pub(super) fn configuration_text(thing: Option<&RegisteredThing>) -> String {
    let configuration = thing.map(|thing| &thing.device_configuration).filter(|found| !found.is_empty());
    configuration.map_or(String::new(), |found| {
        serde_json::to_string(found).expect("JSON that was read can be written")
    })
}

fn check_text(key: &str, what: &'static str, text: &str) -> Result<(), ExportError> {
    if text.chars().any(char::is_control) {
        let why = String::from("Espressif's tools do not pass on control characters in a CSV as they are");
        return Err(ExportError::Unfit { key: key.to_owned(), what, why });
    }
    check_file(key, what, text)
}

fn too_long(key: &str, what: &'static str, length: usize) -> ExportError {
    let why = format!("an NVS string has at most {LONGEST_TEXT} bytes, and it has {length}");
    ExportError::Unfit { key: key.to_owned(), what, why }
}
