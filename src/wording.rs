//! Text from the other side, made fit to show to people.
//!
//! Owns what may pass into failures and logs from a service, a proxy or an operating system: shortened, without control
//! characters, and with everything that looks like a secret taken out. Knows nothing of where the text came from.

use std::error::Error;

/// The longest text that [`clean`] returns, in characters, the ellipsis included.
pub const MAX_CHARS: usize = 500;

/// A run of this many base64 characters is taken for a key or a token. Above a certificate id with its ARN's `cert/` and the
/// longest topic, below the body of the shortest key.
const SECRET_RUN: usize = 100;

/// Query parameters that are secret; error pages like to repeat the URL that they refuse.
const SECRET_PARAMETERS: [&str; 2] = ["x-amz-security-token=", "x-amz-signature="];

/// Shortens `text` to [`MAX_CHARS`], turns control and direction-changing characters into spaces, and takes out
/// private keys, signatures, session tokens and long runs of base64.
pub fn clean(text: &str) -> String {
    let text = without_private_keys(text);
    let text = without_query_secrets(&text);
    let text = without_long_runs(&text);
    plain(&text)
}

/// What an error says, and what each of its causes adds.
pub fn causes(error: &(dyn Error + 'static)) -> String {
    let mut said = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        // Many errors repeat their cause.
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
    // Without a BEGIN line the key may be anywhere before the marker, so everything goes.
    let start = text[..marker].rfind("-----BEGIN").unwrap_or(0);
    let after = &text[marker + MARKER.len()..];
    let rest = after
        .find("-----END")
        .and_then(|end| after[end..].find(MARKER).map(|at| end + at + MARKER.len()))
        .map_or("", |end| after[end..].trim_start_matches('-'));
    format!("{}{REDACTED}{}", &text[..start], without_private_keys(rest))
}

fn without_query_secrets(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while let Some(value) = next_secret(&lower, at) {
        out.push_str(&text[at..value]);
        out.push_str("[redacted]");
        let end =
            text[value..].find(|c: char| c == '&' || c == '"' || c == '\'' || c == '<' || c.is_whitespace());
        at = end.map_or(text.len(), |end| value + end);
    }
    out.push_str(&text[at..]);
    out
}

/// Where the next secret parameter's value starts, from `at` on.
fn next_secret(lower: &str, at: usize) -> Option<usize> {
    SECRET_PARAMETERS
        .iter()
        .filter_map(|name| lower[at..].find(name).map(|found| at + found + name.len()))
        .min()
}

fn without_long_runs(text: &str) -> String {
    let in_run = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=' | '-' | '_');
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let run = rest.find(|c| !in_run(c)).unwrap_or(rest.len());
        out.push_str(if run >= SECRET_RUN { "[redacted]" } else { &rest[..run] });
        rest = &rest[run..];
        let gap = rest.find(in_run).unwrap_or(rest.len());
        out.push_str(&rest[..gap]);
        rest = &rest[gap..];
    }
    out
}

/// Shortens `text` to [`MAX_CHARS`] and turns control and direction-changing characters into spaces; for what holds no
/// secret, but may have been written by anyone, such as a device's key.
pub fn plain(text: &str) -> String {
    let shown = |c: char| if c.is_control() || changes_direction(c) { ' ' } else { c };
    let text: String = text.trim().chars().map(shown).take(MAX_CHARS + 1).collect();
    if text.chars().count() <= MAX_CHARS {
        return text.trim().to_owned();
    }
    text.chars().take(MAX_CHARS - 1).chain(['…']).collect()
}

/// Characters that make a terminal show text in another order than it was written.
fn changes_direction(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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
    fn control_characters_become_spaces_and_long_texts_end_in_an_ellipsis() {
        assert_eq!(clean(" a\r\nb\u{1b}[31mc\u{202e}d "), "a  b [31mc d");
        let long = clean(&"ab ".repeat(1000));
        assert_eq!(long.chars().count(), MAX_CHARS);
        assert!(long.ends_with('…'));
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
