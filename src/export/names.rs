//! The name of a device's folder: safe on every file system, and different for different keys.

use std::fmt::Write as _;

use super::files::sha256;

/// Names longer than this are shortened; file systems allow 255 bytes.
pub(super) const LONGEST_NAME: usize = 200;

/// The part of a long name that is kept before its hash.
const KEPT_OF_LONG_NAME: usize = 160;

/// A directory's name for `key`: safe everywhere, and different for different keys.
///
/// All but `A-Z a-z 0-9 . _ : -` is percent-encoded, and so is a dot in the beginning. `~` is in no encoded key, so a
/// hashed name is never that of another key.
pub(super) fn directory_name(key: &str) -> String {
    let mut name = String::with_capacity(key.len());
    for (at, byte) in key.bytes().enumerate() {
        match byte {
            b'.' if at == 0 => name.push_str("%2E"),
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b':' | b'-' => {
                name.push(char::from(byte))
            }
            _ => write!(name, "%{byte:02X}").expect("a String takes all that is written to it"),
        }
    }
    match name.len() {
        1..=LONGEST_NAME => name,
        _ => hashed_name(&name, key),
    }
}

/// Another name for `key`, where `name` is taken.
pub(super) fn hashed_name(name: &str, key: &str) -> String {
    let kept = &name[..name.len().min(KEPT_OF_LONG_NAME)];
    format!("{kept}~{}", &sha256(key.as_bytes())[..32])
}
