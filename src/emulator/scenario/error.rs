//! What is wrong with a scenario, worded for its author.
//!
//! Owns the error type, and the conversion of a TOML error into line, key, found and wanted. Reads no file.

use std::path::PathBuf;

/// Why a scenario cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScenarioError {
    /// The text is not a scenario.
    #[error("line {line}, {key}: found {found}; wanted {wanted}")]
    Invalid {
        /// The line, from 1.
        line: usize,
        /// The key with its table; without a key, the table alone or `the file`.
        key: String,
        /// What was found there.
        found: String,
        /// What was wanted there.
        wanted: String,
    },
    /// There is neither a scenario nor a file of that name.
    #[error("found no scenario `{name}`; wanted one of {known}, or a file")]
    NoSuchScenario {
        /// The name that was asked for.
        name: String,
        /// The known names.
        known: String,
    },
    /// The scenario, or a template it names, cannot be read.
    #[error("{} cannot be read: {detail}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        detail: String,
    },
}

impl ScenarioError {
    /// The TOML error in `text`, in our words.
    pub(super) fn in_text(text: &str, error: &toml::de::Error) -> Self {
        let start = error.span().map_or(0, |span| span.start).min(text.len());
        let line = text.as_bytes()[..start].iter().filter(|byte| **byte == b'\n').count() + 1;
        let (found, wanted) = split(error.message());
        Self::Invalid { line, key: key_at(text, line), found, wanted }
    }
}

/// The dotted key on `line`, with its table.
fn key_at(text: &str, line: usize) -> String {
    let mut table = "";
    for current in text.lines().take(line) {
        if let Some(header) = current.trim().strip_prefix('[') {
            table = header.split(']').next().unwrap_or_default().trim_start_matches('[').trim();
        }
    }
    let here = text.lines().nth(line - 1).unwrap_or_default();
    let key = match here.split_once('=') {
        Some((key, _)) => key.trim(),
        None => "",
    };
    match (table, key) {
        ("", "") => String::from("the file"),
        (table, "") => format!("table `{table}`"),
        ("", key) => format!("key `{key}`"),
        (table, key) => format!("key `{table}.{key}`"),
    }
}

/// Splits a serde message into what was found and what was expected.
fn split(message: &str) -> (String, String) {
    let (found, wanted) = message.split_once(", expected ").unwrap_or((message, "valid TOML"));
    let found = ["invalid type: ", "invalid value: "]
        .iter()
        .find_map(|prefix| found.strip_prefix(prefix))
        .unwrap_or(found);
    match found.strip_prefix("missing field ") {
        Some(field) => (format!("no {field}"), format!("{field} to be given")),
        None => (found.trim_end().to_owned(), wanted.trim_end().to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Scenario;

    fn complaint(text: &str) -> String {
        Scenario::from_toml(text).unwrap_err().to_string()
    }

    #[test]
    fn errors_name_line_key_found_and_wanted() {
        for (text, expected) in [
            ("seed = \"x\"", "line 1, key `seed`: found string \"x\"; wanted u64"),
            ("\nstrict = 1", "line 2, key `strict`: found integer `1`; wanted a boolean"),
            (
                "keys = \"dsa\"",
                "line 1, key `keys`: found unknown variant `dsa`; wanted one of `rsa2048`, `p256`, `recycled`",
            ),
            (
                "[quotas]\n\nregister_thing = \"10\"",
                "line 3, key `quotas.register_thing`: found string \"10\"; wanted a rate such as \"10/s\" or \"600/min\", \"unlimited\", or a schedule such as \"10/s until 60s, then 20/s\"",
            ),
            (
                "token_lifetime = \"1 hour\"",
                "line 1, key `token_lifetime`: found string \"1 hour\"; wanted a duration such as \"250ms\", \"90s\" or \"1h\"",
            ),
            (
                "[[templates]]\nname = \"a b\"\nbody = \"\"",
                "line 1, table `templates`: found template name `a b`; wanted 1 to 36 letters, digits, `_` or `-`",
            ),
            (
                "[[templates]]\nname = \"a\"",
                "line 1, table `templates`: found neither `file` nor `body`; wanted one of them",
            ),
            (
                "[[templates]]\nbody = \"a\"",
                "line 1, table `templates`: found no `name`; wanted `name` to be given",
            ),
            (
                "[errors.throttled]\nstatus = 200",
                "line 2, key `errors.throttled.status`: found integer `200`; wanted a status from 400 to 599",
            ),
        ] {
            assert_eq!(complaint(text), expected);
        }
    }

    #[test]
    fn an_unknown_key_is_an_error_that_lists_the_known_ones() {
        let text = complaint("region = \"a\"\nregoin = \"b\"");
        assert!(
            text.starts_with("line 2, key `regoin`: found unknown field `regoin`; wanted one of `region`,"),
            "{text}"
        );
        let text = complaint("[errors.throtled]\ncode = \"x\"");
        assert!(
            text.starts_with("line 1, table `errors.throtled`: found unknown variant `throtled`"),
            "{text}"
        );
    }

    #[test]
    fn broken_toml_names_its_line() {
        let text = complaint("region = \"a\"\nkeys = = 1");
        assert!(text.starts_with("line 2, key `keys`: found "), "{text}");
    }
}
