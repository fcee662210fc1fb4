//! PEM (RFC 7468) as the service writes it: 64 columns, with lines ended by `\n`.

use ::pem::{EncodeConfig, LineEnding, Pem};

/// `der` as a PEM block with this label.
pub(super) fn encode(label: &str, der: &[u8]) -> String {
    ::pem::encode_config(&Pem::new(label, der), EncodeConfig::new().set_line_ending(LineEnding::LF))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_64_columns() {
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
