//! PEM, RFC 7468, as the service writes it: 64 columns, lines ended by `\n`.
//!
//! Owns the text form only.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

/// `der` as a PEM block with this label.
pub(in crate::emulator) fn encode(label: &str, der: &[u8]) -> String {
    let body = Zeroizing::new(STANDARD.encode(der));
    let mut text = String::with_capacity(body.len() + body.len() / 64 + 2 * label.len() + 34);
    text.push_str("-----BEGIN ");
    text.push_str(label);
    text.push_str("-----\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        // Base64 is ASCII: any index is a character boundary.
        let (line, after) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text.push_str("-----END ");
    text.push_str(label);
    text.push_str("-----\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_64_columns() {
        assert_eq!(encode("X", b""), "-----BEGIN X-----\n-----END X-----\n");
        assert_eq!(
            encode("X", &[0; 48]),
            format!("-----BEGIN X-----\n{}\n-----END X-----\n", "A".repeat(64))
        );
        assert_eq!(
            encode("A KEY", &[0; 49]),
            format!("-----BEGIN A KEY-----\n{}\nAA==\n-----END A KEY-----\n", "A".repeat(64))
        );
    }
}
