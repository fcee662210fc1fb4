//! Certificate ownership tokens and their shape: base64 of `{"version":"20191023","cipher":"<base64>"}`, as decoded
//! from a token that the service once issued. That one was 464 characters long, and so are these. Clients must treat
//! them as opaque.

use aws_lc_rs::digest::{Context, SHA256};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::random::Random;

/// The number of bytes in the inner base64, which brings a token to 464 characters.
const CIPHER: usize = 234;

/// A token for this certificate. It depends on the certificate as well, so that two accounts with the same seed do not
/// issue each other's tokens.
pub(super) fn issue(random: &mut Random, certificate_id: &str) -> String {
    let mut context = Context::new(&SHA256);
    context.update(&random.next().to_le_bytes());
    context.update(certificate_id.as_bytes());
    let mut seed = [0; 8];
    seed.copy_from_slice(&context.finish().as_ref()[..8]);
    let mut cipher = [0; CIPHER];
    Random::new(u64::from_le_bytes(seed)).fill(&mut cipher);
    STANDARD.encode(format!(r#"{{"version":"20191023","cipher":"{}"}}"#, STANDARD.encode(cipher)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_the_services_shape() {
        let token = issue(&mut Random::new(0), "id");
        assert_eq!(token.len(), 464);
        assert!(token.starts_with("ey"), "{token}");
        let json: serde_json::Value = serde_json::from_slice(&STANDARD.decode(&token).unwrap()).unwrap();
        assert_eq!(json["version"], "20191023");
        assert_eq!(STANDARD.decode(json["cipher"].as_str().unwrap()).unwrap().len(), CIPHER);
    }

    #[test]
    fn tokens_differ_by_seed_turn_and_certificate() {
        let mut random = Random::new(0);
        let first = issue(&mut random, "id");
        assert_ne!(first, issue(&mut random, "id"));
        assert_ne!(first, issue(&mut Random::new(1), "id"));
        assert_ne!(first, issue(&mut Random::new(0), "other"));
        assert_eq!(first, issue(&mut Random::new(0), "id"));
    }
}
