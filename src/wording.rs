//! Foreign text, made safe to show.
//!
//! Text from a service, a proxy or an operating system is shortened, and control characters and everything that looks
//! like a secret are removed ([`clean`]). A name or value that someone chose is shown unchanged, but with invisible
//! characters escaped ([`Excerpt`], [`plain`]): such a character may be the very problem. And numbers, with their nouns.

use std::error::Error;
use std::fmt;

/// The longest text that [`clean`] returns, in characters, the ellipsis included.
pub const MAX_CHARS: usize = 500;

/// A run of this many base64 characters is treated as a key or token, unless it is a [topic or a path](is_place). A
/// certificate id with its ARN's `cert/` has 69.
const SECRET_RUN: usize = 72;

/// A run of this many base64 characters is always treated as a key or token. The longest topic has 88.
const LONG_RUN: usize = 100;

/// Names whose values are secret at any length: query parameters, which error pages often repeat with the refused
/// URL, and JSON fields.
const SECRET_NAMES: [&str; 8] = [
    "x-amz-security-token",
    "x-amz-signature",
    "certificateownershiptoken",
    "privatekey",
    "secretaccesskey",
    "secret_access_key",
    "sessiontoken",
    "session_token",
];

/// A number with its noun: `1 device`, `2 devices`.
pub fn number(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// A name without case, spaces and punctuation: what names have in common that differ in how they are written.
pub fn folded(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// Shortens `text` to [`MAX_CHARS`], turns invisible characters into spaces, and removes private keys, signatures,
/// session tokens and long runs of base64.
pub fn clean(text: &str) -> String {
    let text = without_private_keys(text);
    let text = without_named_secrets(&text);
    let text = without_long_runs(&text);
    let text: String = text.chars().map(|c| if is_invisible(c) { ' ' } else { c }).collect();
    shortened(text.trim())
}

/// Shortens `text` to [`MAX_CHARS`] and escapes invisible characters: for names that are not secret but that anyone
/// may have chosen, such as a device's key.
pub fn plain(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    escape(text, &mut shown).expect("a String takes every write");
    shortened(&shown)
}

/// A name or value within a message: invisible characters, and spaces at the ends, are escaped, as in
/// `"0420001\u{a0}"`; of a long text only both ends are shown.
#[derive(Debug, Clone, Copy)]
pub struct Excerpt<'a>(pub &'a str);

/// A text up to this many characters is shown in full.
const SHOWN_IN_FULL: usize = 40;

/// How many characters of a longer text are shown from its beginning and from its end.
const SHOWN_OF_MORE: (usize, usize) = (24, 12);

impl fmt::Display for Excerpt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.chars().nth(SHOWN_IN_FULL).is_none() {
            return escape(self.0, f);
        }
        let count = self.0.chars().count();
        let place = |character| self.0.char_indices().nth(character).map_or(self.0.len(), |(place, _)| place);
        let (head, tail) = (place(SHOWN_OF_MORE.0), place(count - SHOWN_OF_MORE.1));
        // Escaped as one text, so that a space beside the gap does not count as one at an end.
        let whole = format!("{}…{}", &self.0[..head], &self.0[tail..]);
        escape(&whole, f)?;
        write!(f, " ({count} characters)")
    }
}

fn escape(text: &str, out: &mut dyn fmt::Write) -> fmt::Result {
    let inner = text.trim_start_matches(' ');
    let leading = text.len() - inner.len();
    let inner = inner.trim_end_matches(' ');
    let trailing = text.len() - leading - inner.len();
    out.write_str(&"\\u{20}".repeat(leading))?;
    for character in inner.chars() {
        if is_invisible(character) {
            write!(out, "{}", character.escape_default())?;
        } else {
            out.write_char(character)?;
        }
    }
    out.write_str(&"\\u{20}".repeat(trailing))
}

/// Whether `character` is invisible, or a terminal would act on it: control characters, white space other than the
/// space itself, and what Unicode says is not displayed, such as zero-width characters, the byte order mark and
/// direction marks. Source: Unicode Character Database, `Default_Ignorable_Code_Point` and `White_Space`; in
/// addition, the blank Braille pattern and the interlinear annotation marks.
pub fn is_invisible(character: char) -> bool {
    let is_ignorable = matches!(character,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fff8}' | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}');
    is_ignorable
        || character.is_control()
        || (character.is_whitespace() && character != ' ')
        || matches!(character, '\u{2800}' | '\u{fff9}'..='\u{fffb}')
}

/// A hexadecimal run of this many characters is an id: a UUID has 36 with its hyphens, a certificate id 64.
const ID: usize = 32;

/// `text` with an ellipsis in place of each id.
pub fn without_ids(text: &str) -> String {
    let is_hex = |c: char| c.is_ascii_hexdigit() || c == '-';
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let run = rest.find(|c| !is_hex(c)).unwrap_or(rest.len());
        out.push_str(if run >= ID { "…" } else { &rest[..run] });
        rest = &rest[run..];
        let gap = rest.find(is_hex).unwrap_or(rest.len());
        out.push_str(&rest[..gap]);
        rest = &rest[gap..];
    }
    out
}

/// A word for a POSIX shell, quoted only if necessary: `shlex` would quote every `=` and `,` of a command.
pub fn shell_word(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_./:=@%+,-".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// A cell that spreadsheets do not treat as a formula. Source: OWASP, "CSV Injection".
pub fn harmless_cell(cell: &str) -> String {
    if cell.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{cell}") } else { cell.to_owned() }
}

/// An error's message, followed by what each of its causes adds.
pub fn causes(error: &(dyn Error + 'static)) -> String {
    let mut said = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        // Many errors already repeat their cause.
        if !said.ends_with(&more) {
            said.push_str(": ");
            said.push_str(&more);
        }
        source = cause.source();
    }
    said
}

fn without_private_keys(text: &str) -> String {
    const MARKER: &str = "PRIVATE KEY";
    const REDACTED: &str = "[private key redacted]";
    let Some(marker) = text.find(MARKER) else { return text.to_owned() };
    // Without a BEGIN line the key may be anywhere before the marker, so everything before it is removed.
    let start = text[..marker].rfind("-----BEGIN").unwrap_or(0);
    let after = &text[marker + MARKER.len()..];
    let rest = after
        .find("-----END")
        .and_then(|end| after[end..].find(MARKER).map(|at| end + at + MARKER.len()))
        .map_or("", |end| after[end..].trim_start_matches('-'));
    format!("{}{REDACTED}{}", &text[..start], without_private_keys(rest))
}

fn without_named_secrets(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while let Some(value) = next_secret(&lower, at) {
        out.push_str(&text[at..value]);
        out.push_str("[redacted]");
        let ends = |c: char| matches!(c, '&' | '"' | '\'' | '<' | ',' | '}' | '\\') || c.is_whitespace();
        at = text[value..].find(ends).map_or(text.len(), |end| value + end);
    }
    out.push_str(&text[at..]);
    out
}

/// Where the next named secret's value starts, searching from `at`: after `=` or `:` and any quotes and blanks around
/// it.
fn next_secret(lower: &str, at: usize) -> Option<usize> {
    let value_of = |name: &&str| {
        lower[at..].match_indices(*name).find_map(|(found, _)| {
            let end = at + found + name.len();
            let is_between = |c: char| matches!(c, '"' | '\'' | '\\') || c.is_whitespace();
            let rest = lower[end..].trim_start_matches(is_between).strip_prefix(['=', ':'])?;
            Some(lower.len() - rest.trim_start_matches(is_between).len())
        })
    };
    SECRET_NAMES.iter().filter_map(value_of).min()
}

fn without_long_runs(text: &str) -> String {
    let in_run = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=' | '-' | '_');
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let run = rest.find(|c| !in_run(c)).unwrap_or(rest.len());
        let is_secret = run >= LONG_RUN || (run >= SECRET_RUN && !is_place(&rest[..run]));
        out.push_str(if is_secret { "[redacted]" } else { &rest[..run] });
        rest = &rest[run..];
        let gap = rest.find(in_run).unwrap_or(rest.len());
        out.push_str(&rest[..gap]);
        rest = &rest[gap..];
    }
    out
}

/// Whether a run of characters is a topic of the service or a path.
fn is_place(run: &str) -> bool {
    run.starts_with("aws/") || (run.starts_with('/') && run.matches('/').count() >= 3)
}

fn shortened(text: &str) -> String {
    if text.chars().nth(MAX_CHARS).is_none() {
        return text.to_owned();
    }
    text.chars().take(MAX_CHARS - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_a_spreadsheet_would_run_is_made_harmless_and_nothing_else() {
        for formula in ["=1+1", "+49", "-rf", "@SUM(A1)", "\t=1", "\r=1"] {
            assert_eq!(harmless_cell(formula), format!("'{formula}"));
        }
        for text in ["", "SN-1", "a=b", "'x", " =1"] {
            assert_eq!(harmless_cell(text), text);
        }
    }

    #[test]
    fn private_keys_go() {
        let key = "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\n-----END RSA PRIVATE KEY-----\n";
        assert_eq!(clean(&format!("bad key {key}given")), "bad key [private key redacted] given");
        assert_eq!(clean(&format!("{key}{key}")), "[private key redacted] [private key redacted]");
        assert_eq!(clean("a -----BEGIN EC PRIVATE KEY-----\\nMIIEow"), "a [private key redacted]");
        assert_eq!(clean("MIIEow\n-----END PRIVATE KEY-----"), "[private key redacted]");
        assert!(!clean("MIIEow -----END PRIVATE KEY----- MIIEow -----END PRIVATE KEY-----").contains("MII"));
    }

    #[test]
    fn signatures_and_tokens_go_from_a_repeated_url() {
        let page =
            "<pre>Cannot GET /mqtt?X-Amz-Date=1&amp;X-Amz-Signature=abc&x-amz-security-token=s%2Fecret</pre>";
        let cleaned = clean(page);
        assert!(cleaned.contains("X-Amz-Date=1"), "{cleaned}");
        assert!(
            !cleaned.contains("abc") && !cleaned.contains("ecret<") && !cleaned.contains("s%2F"),
            "{cleaned}"
        );
    }

    #[test]
    fn long_runs_of_base64_go_and_certificate_ids_stay() {
        let id = "a1".repeat(32);
        let message = format!("token {} of arn:aws:iot:eu-west-1:1:cert/{id}", "eyJ2".repeat(100));
        assert_eq!(clean(&message), format!("token [redacted] of arn:aws:iot:eu-west-1:1:cert/{id}"));
    }

    #[test]
    fn topics_stay_whole_and_short_tokens_go() {
        let topic = format!("$aws/provisioning-templates/{}/provision/json/accepted", "T".repeat(36));
        let message = format!("not authorized: topicfilter/{topic}");
        assert_eq!(clean(&message), message);
        assert_eq!(clean(&"tOk3n+/=".repeat(10)), "[redacted]", "80 characters");
        assert_eq!(clean(&"ab".repeat(32)), "ab".repeat(32), "a certificate's id");
        let named =
            r#"{"certificateOwnershipToken": "short", "SessionToken":"s", "privateKey" : 'k', "x": 1}"#;
        let shown = r#"{"certificateOwnershipToken": "[redacted]", "SessionToken":"[redacted]", "privateKey" : '[redacted]', "x": 1}"#;
        assert_eq!(clean(named), shown);
        assert_eq!(
            clean("aws_secret_access_key=abc aws_session_token=d"),
            "aws_secret_access_key=[redacted] aws_session_token=[redacted]"
        );
        assert_eq!(clean("accepted reply: privateKey is missing"), "accepted reply: privateKey is missing");
    }

    #[test]
    fn control_characters_become_spaces_and_long_texts_end_in_an_ellipsis() {
        assert_eq!(clean(" a\r\nb\u{1b}[31mc\u{202e}d "), "a  b [31mc d");
        let long = clean(&"ab ".repeat(1000));
        assert_eq!(long.chars().count(), MAX_CHARS);
        assert!(long.ends_with('…'));
    }

    #[test]
    fn a_token_of_80_characters_goes_and_topics_and_paths_stay() {
        let token = "eyJ2ZXJzaW9uIjoi".repeat(5);
        assert_eq!((token.len(), clean(&token).as_str()), (80, "[redacted]"));
        let topic = format!("$aws/provisioning-templates/{}/provision/json/accepted", "T".repeat(36));
        let path = format!("/home/{}/lots/today.csv", "factory-7/".repeat(6));
        for place in [topic, path] {
            assert!(place.len() > SECRET_RUN);
            assert_eq!(clean(&place), place);
        }
    }

    #[test]
    fn a_word_for_a_shell_is_one_word() {
        for (word, quoted) in [
            ("", "''"),
            ("--emulator=a,b", "--emulator=a,b"),
            ("my lot", "'my lot'"),
            ("it's {DeviceId}", r"'it'\''s {DeviceId}'"),
            ("$HOME", "'$HOME'"),
        ] {
            assert_eq!(shell_word(word), quoted);
        }
    }

    #[test]
    fn an_excerpt_shows_what_nobody_could_see() {
        for (text, shown) in [
            ("", ""),
            ("plain é 🔑", "plain é 🔑"),
            ("KETTLE ", "KETTLE\\u{20}"),
            ("  a b", "\\u{20}\\u{20}a b"),
            ("   ", "\\u{20}\\u{20}\\u{20}"),
            ("0420001\u{a0}", "0420001\\u{a0}"),
            ("\u{200b}a\u{feff}b\u{3000}", "\\u{200b}a\\u{feff}b\\u{3000}"),
            ("a\r\n\t\0\u{1b}[31m\u{85}", "a\\r\\n\\t\\u{0}\\u{1b}[31m\\u{85}"),
            ("\u{202e}abc\u{2028}\u{2066}\u{61c}\u{ad}", "\\u{202e}abc\\u{2028}\\u{2066}\\u{61c}\\u{ad}"),
            (&"x".repeat(40), &"x".repeat(40)),
            (&"ü".repeat(41), &format!("{}…{} (41 characters)", "ü".repeat(24), "ü".repeat(12))),
            (
                &format!("{}\u{a0}", "k".repeat(1000)),
                &format!("{}…{}\\u{{a0}} (1001 characters)", "k".repeat(24), "k".repeat(11)),
            ),
            (
                &format!("{} {}", "k".repeat(23), "k".repeat(30)),
                &format!("{} …{} (54 characters)", "k".repeat(23), "k".repeat(12)),
            ),
        ] {
            assert_eq!(Excerpt(text).to_string(), shown);
        }
        assert_eq!(plain(" a\tb"), "\\u{20}a\\tb");
        assert_eq!(plain(&" ".repeat(1000)).chars().count(), MAX_CHARS);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn any_text_is_cleaned(text in "(\\PC|[\r\n&=-]|PRIVATE KEY|-----BEGIN|-----END|X-Amz-Signature=|ÄÖ){0,60}") {
            let cleaned = clean(&text);
            prop_assert!(cleaned.chars().count() <= MAX_CHARS);
            prop_assert!(!cleaned.chars().any(char::is_control));
        }
    }
}
