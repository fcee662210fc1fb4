//! The emulator's own keys, stored: the device authority's, the TLS authority's and the TLS server's.
//!
//! Owns the file's format. The keys protect nothing of value, but the file has mode 0600 all the same.

use std::fs;
use std::io::{ErrorKind, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::super::mint::{Authority, MintError, TlsAuthority};
use super::{IDENTITY, StateDir, StoreError};

/// The emulator's identity, towards devices and TLS clients.
pub(in super::super) struct Identity {
    /// Signs device certificates.
    pub(in super::super) authority: Authority,
    /// Signs the server's certificate.
    pub(in super::super) tls: TlsAuthority,
}

/// The format of the file. Keys are PKCS#8 in base64.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
struct Kept {
    device_authority_key: String,
    device_authority_pem: String,
    tls_authority_key: String,
    tls_authority_pem: String,
    tls_server_key: String,
}

impl Identity {
    /// Generates a new identity.
    pub(in super::super) fn generate() -> Result<Self, MintError> {
        Ok(Self { authority: Authority::generate()?, tls: TlsAuthority::generate()? })
    }

    fn to_kept(&self) -> Kept {
        let encode = |key: &[u8]| STANDARD.encode(key);
        Kept {
            device_authority_key: encode(self.authority.key_der()),
            device_authority_pem: self.authority.certificate_pem().to_owned(),
            tls_authority_key: encode(self.tls.key_der()),
            tls_authority_pem: self.tls.certificate_pem().to_owned(),
            tls_server_key: encode(self.tls.server_key_der()),
        }
    }
}

impl Kept {
    fn restore(&self) -> Result<Identity, String> {
        let decode = |key: &str| STANDARD.decode(key).map(Zeroizing::new).map_err(|_| "a key is not base64");
        let authority =
            Authority::restore(&decode(&self.device_authority_key)?, self.device_authority_pem.clone())
                .map_err(|error| error.to_string())?;
        let tls = TlsAuthority::restore(
            &decode(&self.tls_authority_key)?,
            self.tls_authority_pem.clone(),
            &decode(&self.tls_server_key)?,
        )
        .map_err(|error| error.to_string())?;
        Ok(Identity { authority, tls })
    }
}

impl StateDir {
    /// Reads the stored identity; `None` if there is none.
    pub(in super::super) fn read_identity(&self) -> Result<Option<Identity>, StoreError> {
        let path = self.file(IDENTITY);
        let text = match fs::read_to_string(&path) {
            Ok(text) => Zeroizing::new(text),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StoreError::io("reading", &path)(error)),
        };
        // The parser's own message could contain part of a key.
        let kept: Kept = serde_json::from_str(&text).map_err(|error| {
            StoreError::damaged(&path, format!("line {} column {}", error.line(), error.column()))
        })?;
        kept.restore().map(Some).map_err(|detail| StoreError::damaged(&path, detail))
    }

    /// Stores `identity`.
    pub(in super::super) fn write_identity(&self, identity: &Identity) -> Result<(), StoreError> {
        let text = serde_json::to_string_pretty(&identity.to_kept()).map(Zeroizing::new);
        let text = text.expect("strings are always JSON");
        self.replace(IDENTITY, |file| file.write_all(text.as_bytes())).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::super::super::scenario::Keys;
    use super::*;

    #[test]
    fn an_identity_survives_and_goes_on_signing_as_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let directory = StateDir::open(folder.path()).unwrap();
        assert!(directory.read_identity().unwrap().is_none());
        let first = Identity::generate().unwrap();
        directory.write_identity(&first).unwrap();
        let second = directory.read_identity().unwrap().unwrap();
        assert_eq!(second.authority.certificate_pem(), first.authority.certificate_pem());
        assert_eq!(second.tls.certificate_pem(), first.tls.certificate_pem());
        assert_eq!(second.tls.server_key_der(), first.tls.server_key_der());
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_766_000_000);
        let minted = second.authority.mint(Keys::P256, now).unwrap();
        let der = |pem: &str| x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap().1.contents;
        let (device, authority) = (der(&minted.certificate_pem), der(first.authority.certificate_pem()));
        let device = x509_parser::parse_x509_certificate(&device).unwrap().1;
        let authority = x509_parser::parse_x509_certificate(&authority).unwrap().1;
        aws_lc_rs::signature::UnparsedPublicKey::new(
            &aws_lc_rs::signature::RSA_PKCS1_2048_8192_SHA256,
            &*authority.public_key().subject_public_key.data,
        )
        .verify(device.tbs_certificate.as_ref(), &device.signature_value.data)
        .unwrap();
    }

    #[test]
    fn a_damaged_identity_is_refused_without_a_word_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let directory = StateDir::open(folder.path()).unwrap();
        directory.write_identity(&Identity::generate().unwrap()).unwrap();
        let path = directory.file(IDENTITY);
        let text = fs::read_to_string(&path).unwrap();
        for broken in [String::new(), text[..200].to_owned(), text.replace("device_authority_key", "x")] {
            fs::write(&path, &broken).unwrap();
            let error = directory.read_identity().err().unwrap().to_string();
            assert!(error.contains("identity.json is damaged: line "), "{error}");
        }
        fs::write(&path, text.replacen("_key\": \"M", "_key\": \"N", 1)).unwrap();
        assert!(directory.read_identity().err().unwrap().to_string().contains("is damaged"));
    }
}
