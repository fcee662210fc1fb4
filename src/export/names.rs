//! The name of a device's folder: valid on every file system, the same in every export, and different for different
//! devices even where case is ignored.

use std::fmt::Write as _;

use super::files::sha256;

/// Names longer than this are shortened; file systems allow 255 bytes.
pub(super) const LONGEST_NAME: usize = 200;

/// How much of a long name is kept before its hash.
const KEPT_OF_LONG_NAME: usize = 160;

/// How many hexadecimal digits of the hash a shortened name gets.
const DIGITS_OF_LONG_NAME: usize = 32;

/// How many hexadecimal digits of the hash a key gets that equals another except for case.
const DIGITS_OF_TWIN: usize = 8;

/// What an export has in its root besides folders.
pub(super) const MANIFEST_FILE: &str = "manifest.csv";
pub(super) const CONFIG_FILE: &str = "config.csv";
pub(super) const VALUES_FILE: &str = "values.csv";

/// Whether a key is the first in its ledger with its spelling, ignoring case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spelling {
    /// No earlier row has it.
    First,
    /// An earlier row has it.
    Later,
}

/// The name of the folder for `key`.
///
/// Everything except `A-Z a-z 0-9 . _ -` is percent-encoded, and so are a leading dot or dash, a trailing dot, and
/// the first letter of a Windows device name such as `nul.txt`. No encoded key contains `~`, so a name with a hash
/// never equals another key's name.
pub(super) fn folder_name(key: &str, spelling: Spelling) -> String {
    let name = encoded(key);
    let is_taken =
        [MANIFEST_FILE, CONFIG_FILE, VALUES_FILE].iter().any(|own| own.eq_ignore_ascii_case(&name));
    if name.is_empty() || name.len() > LONGEST_NAME {
        let kept = &name[..name.len().min(KEPT_OF_LONG_NAME)];
        return with_hash(kept, key, DIGITS_OF_LONG_NAME);
    }
    if is_taken || spelling == Spelling::Later {
        return with_hash(&name, key, DIGITS_OF_TWIN);
    }
    name
}

/// A name for `key` with its whole hash, for the unlikely case that `name` is taken.
pub(super) fn full_name(name: &str, key: &str) -> String {
    with_hash(name, key, 64)
}

fn with_hash(name: &str, key: &str, digits: usize) -> String {
    format!("{name}~{}", &sha256(key.as_bytes())[..digits])
}

fn encoded(key: &str) -> String {
    let last = key.len().saturating_sub(1);
    let is_device = is_windows_device(key);
    let mut name = String::with_capacity(key.len());
    for (at, byte) in key.bytes().enumerate() {
        let is_kept = match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' => at > 0 || !is_device,
            b'.' => at > 0 && at < last,
            b'-' => at > 0,
            b'_' => true,
            _ => false,
        };
        if is_kept {
            name.push(char::from(byte));
        } else {
            write!(name, "%{byte:02X}").expect("a String takes all that is written to it");
        }
    }
    name
}

/// Whether Windows treats a file of that name as a device, whatever follows the first dot.
/// Source: Microsoft, "Naming Files, Paths, and Namespaces".
fn is_windows_device(key: &str) -> bool {
    let stem = key.split('.').next().unwrap_or_default().to_ascii_uppercase();
    let is_numbered =
        |kind: &str| stem.strip_prefix(kind).is_some_and(|number| matches!(number.as_bytes(), [b'0'..=b'9']));
    matches!(&*stem, "CON" | "PRN" | "AUX" | "NUL") || is_numbered("COM") || is_numbered("LPT")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn first(key: &str) -> String {
        folder_name(key, Spelling::First)
    }

    #[test]
    fn a_name_survives_on_every_file_system() {
        for (key, name) in [
            ("AB-12_3.x", "AB-12_3.x"),
            ("AA:BB", "AA%3ABB"),
            ("a<b>c\"d|e?f*g\\h/i", "a%3Cb%3Ec%22d%7Ce%3Ff%2Ag%5Ch%2Fi"),
            ("CON", "%43ON"),
            ("nul.txt", "%6Eul.txt"),
            ("com1", "%63om1"),
            ("LPT9.a.b", "%4CPT9.a.b"),
            ("COM10", "COM10"),
            ("CONSOLE", "CONSOLE"),
            ("unit.", "unit%2E"),
            ("unit ", "unit%20"),
            (".", "%2E"),
            ("..", "%2E%2E"),
            ("../x", "%2E.%2Fx"),
            ("-rf", "%2Drf"),
            ("ключ", "%D0%BA%D0%BB%D1%8E%D1%87"),
        ] {
            assert_eq!(first(key), name);
        }
    }

    #[test]
    fn a_name_that_is_taken_gets_eight_digits_of_its_keys_hash() {
        // As sha256sum computes them.
        assert_eq!(folder_name("AB", Spelling::Later), "AB~38164fbd");
        assert!(first("manifest.csv").starts_with("manifest.csv~"));
        assert!(first("Values.CSV").starts_with("Values.CSV~"));
    }

    #[test]
    fn long_names_are_shortened() {
        let name = first(&"x".repeat(4096));
        assert_eq!(name.len(), KEPT_OF_LONG_NAME + 1 + DIGITS_OF_LONG_NAME);
        assert_ne!(name, first(&"x".repeat(4095)));
        assert_eq!(first(&"x".repeat(LONGEST_NAME)).len(), LONGEST_NAME);
    }

    proptest! {
        #[test]
        fn no_two_names_are_equal_but_for_case(keys in prop::collection::btree_set("[ABab.: %~*-]{1,3}|\\PC{0,40}|CON", 2..40)) {
            let mut names = BTreeSet::new();
            let mut spellings = BTreeSet::new();
            for key in &keys {
                let spelling = if spellings.insert(key.to_ascii_lowercase()) { Spelling::First } else { Spelling::Later };
                let name = folder_name(key, spelling);
                prop_assert!(!name.is_empty() && name.len() <= LONGEST_NAME + 9);
                prop_assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._%~-".contains(&byte)), "{}", name);
                prop_assert!(!name.starts_with(['.', '-']) && !name.ends_with('.'), "{}", name);
                prop_assert!(!is_windows_device(&name), "{}", name);
                prop_assert!(names.insert(name.to_ascii_lowercase()), "{}", name);
            }
        }
    }
}
