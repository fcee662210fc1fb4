//! Private keys encrypted at rest with age (<https://age-encryption.org/v1>).
//!
//! Owns recipients and identities: how they are read, how keys are sealed to recipients and opened with identities.
//! Does not know where sealed keys are kept.

use std::fmt;
use std::io::{Read, Write};
use std::sync::Arc;

use age::armor::{ArmoredReader, ArmoredWriter, Format};
use age::x25519::Recipient;
use age::{DecryptError, Decryptor, Encryptor, Identity, IdentityFile};
use zeroize::Zeroizing;

use crate::certificate::{SealedKey, Secret, StoredKey};

/// The most recipients: each costs 100 bytes and one key agreement per device.
pub const MAX_RECIPIENTS: usize = 20;

/// Seals private keys. Cheap to clone.
#[derive(Clone)]
pub struct Sealer {
    recipients: Arc<[Recipient]>,
    names: Arc<[String]>,
}

/// Text that is not a recipient, or the wrong number of recipients.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoRecipient {
    /// Text that is not a recipient.
    #[error(
        "{found:?} is no age recipient; wanted one like age1…, as `age-keygen` prints it as the public key"
    )]
    Malformed {
        /// What was given, shortened.
        found: String,
    },
    /// A secret key instead of a public one.
    #[error(
        "that is an age identity, which is secret: pass the recipient (`age-keygen -y FILE` prints it), and keep the identity for export"
    )]
    IsAnIdentity,
    /// A recipient of an unsupported kind.
    #[error(
        "{found:?} is not an age recipient of the kind supported here, X25519: age1 and 58 more characters"
    )]
    Unsupported {
        /// What was given, shortened.
        found: String,
    },
    /// No recipient, or more than [`MAX_RECIPIENTS`].
    #[error("{0} recipients; wanted 1 to {MAX_RECIPIENTS}")]
    Count(usize),
}

impl Sealer {
    /// Seals to all of `recipients`, each `age1…`; the identity of any one of them opens what was sealed. Duplicates
    /// count once.
    ///
    /// # Errors
    /// If one is not an X25519 recipient, or there are none or too many.
    pub fn new<T: AsRef<str>>(recipients: &[T]) -> Result<Self, NoRecipient> {
        let mut names: Vec<String> = Vec::new();
        let mut parsed = Vec::new();
        for text in recipients.iter().map(|text| text.as_ref().trim()) {
            let recipient = parse_recipient(text)?;
            if !names.contains(&recipient.to_string()) {
                names.push(recipient.to_string());
                parsed.push(recipient);
            }
        }
        match names.len() {
            1..=MAX_RECIPIENTS => Ok(Self { recipients: parsed.into(), names: names.into() }),
            count => Err(NoRecipient::Count(count)),
        }
    }

    /// The recipients that it seals to.
    pub fn recipients(&self) -> &[String] {
        &self.names
    }

    /// Encrypts a key's PEM.
    pub fn seal(&self, key: &Secret<String>) -> SealedKey {
        let recipients = self.recipients.iter().map(|recipient| recipient as &dyn age::Recipient);
        let encryptor = Encryptor::with_recipients(recipients)
            .expect("there is a recipient, and X25519 recipients go together");
        let armored =
            encrypt(encryptor, key.expose().as_bytes()).expect("memory takes all that is written to it");
        let age = String::from_utf8(armored).expect("armor is ASCII");
        SealedKey { age, recipients: self.names.clone() }
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sealer").field(&self.names).finish()
    }
}

fn encrypt(encryptor: Encryptor, plain: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut writer = encryptor.wrap_output(ArmoredWriter::wrap_output(Vec::new(), Format::AsciiArmor)?)?;
    writer.write_all(plain)?;
    writer.finish()?.finish()
}

fn parse_recipient(text: &str) -> Result<Recipient, NoRecipient> {
    // Never quoted: this is a secret.
    if text.to_ascii_uppercase().contains("AGE-SECRET-KEY-") || text.contains("PRIVATE KEY") {
        return Err(NoRecipient::IsAnIdentity);
    }
    let found = || text.chars().take(80).collect();
    text.parse().map_err(|_| match text {
        _ if text.starts_with("ssh-") || (text.starts_with("age1") && text.len() != 62) => {
            NoRecipient::Unsupported { found: found() }
        }
        _ => NoRecipient::Malformed { found: found() },
    })
}

/// Opens stored keys with the identities that it was given.
pub struct KeyOpener {
    identities: Vec<Box<dyn Identity + Send + Sync>>,
    sealed: SealedKeys,
}

/// What to do about sealed keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SealedKeys {
    Open,
    PassOn,
}

/// A key ready for export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenedKey {
    /// The text: PEM, or an armored age file.
    pub text: Secret<String>,
    /// The form of the text.
    pub form: KeyForm,
}

/// The form of a key's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyForm {
    /// PEM.
    Pem,
    /// An armored age file, as stored in the ledger.
    Age,
    /// No key: only the device has it. The text is empty.
    Absent,
}

/// Why a stored key cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// It is sealed, and no identity was given.
    #[error(
        "its private key is sealed to {}, and no age identity was given to open it",
        .recipients.join(", ")
    )]
    NoIdentity {
        /// The recipients that it is sealed to.
        recipients: Arc<[String]>,
    },
    /// It is sealed to other identities.
    #[error("its private key is sealed to {}, and the identities that were given are of none of them", .recipients.join(", "))]
    OtherIdentity {
        /// The recipients that it is sealed to.
        recipients: Arc<[String]>,
    },
    /// The stored text is not what was sealed.
    #[error("its sealed private key is damaged; restore the ledger from a backup")]
    Damaged,
    /// It was purged.
    #[error(
        "its private key was purged from the ledger at {at}, after it had been exported; only that export has it"
    )]
    Purged {
        /// When it was purged, RFC 3339.
        at: String,
    },
}

impl KeyOpener {
    /// Opens plain keys only.
    pub fn plain_only() -> Self {
        Self { identities: Vec::new(), sealed: SealedKeys::Open }
    }

    /// Passes sealed keys on unopened.
    pub fn pass_sealed_on() -> Self {
        Self { identities: Vec::new(), sealed: SealedKeys::PassOn }
    }

    /// Adds the identities in the content of an identity file.
    ///
    /// # Errors
    /// If the file holds no usable identity.
    pub fn add_identities(&mut self, file: &[u8]) -> Result<(), IdentityError> {
        self.identities.extend(read_identities(file)?);
        Ok(())
    }

    /// The key in the form for export.
    ///
    /// # Errors
    /// If it cannot be opened with the given identities, or was purged.
    pub fn open(&self, key: &StoredKey) -> Result<OpenedKey, OpenError> {
        match (key, self.sealed) {
            (StoredKey::Plain(pem), _) => Ok(OpenedKey { text: pem.clone(), form: KeyForm::Pem }),
            (StoredKey::Sealed(sealed), SealedKeys::PassOn) => {
                Ok(OpenedKey { text: Secret::new(sealed.age.clone()), form: KeyForm::Age })
            }
            (StoredKey::Sealed(sealed), SealedKeys::Open) => {
                Ok(OpenedKey { text: self.unseal(sealed)?, form: KeyForm::Pem })
            }
            (StoredKey::Elsewhere, _) => {
                Ok(OpenedKey { text: Secret::new(String::new()), form: KeyForm::Absent })
            }
            (StoredKey::Purged { at }, _) => Err(OpenError::Purged { at: at.clone() }),
        }
    }

    fn unseal(&self, sealed: &SealedKey) -> Result<Secret<String>, OpenError> {
        let recipients = || sealed.recipients.clone();
        if self.identities.is_empty() {
            return Err(OpenError::NoIdentity { recipients: recipients() });
        }
        let identities = self.identities.iter().map(|identity| identity.as_ref() as &dyn Identity);
        let opened = Decryptor::new_buffered(ArmoredReader::new(sealed.age.as_bytes()))
            .and_then(|decryptor| decryptor.decrypt(identities));
        let mut reader = opened.map_err(|error| match error {
            DecryptError::NoMatchingKeys => OpenError::OtherIdentity { recipients: recipients() },
            _ => OpenError::Damaged,
        })?;
        // As large as the largest key, so that it does not reallocate and leave copies; anything larger is not a key.
        let mut plain = Zeroizing::new(vec![0; LARGEST_KEY]);
        let mut length = 0;
        loop {
            match reader.read(&mut plain[length..]) {
                Ok(0) if length < LARGEST_KEY => break,
                Ok(0) | Err(_) => return Err(OpenError::Damaged),
                Ok(more) => length += more,
            }
        }
        let pem = std::str::from_utf8(&plain[..length]).map_err(|_| OpenError::Damaged)?;
        Ok(Secret::new(pem.to_owned()))
    }
}

impl fmt::Debug for KeyOpener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyOpener({} identities, {:?})", self.identities.len(), self.sealed)
    }
}

/// More than the service's longest reply, so more than any key in one.
const LARGEST_KEY: usize = 160 * 1024;

/// Why an identity file cannot be used. Never quotes the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// It is encrypted.
    #[error(
        "the identity file is protected with a passphrase, which is not asked for here; decrypt it first (`age -d -o FILE …`)"
    )]
    Protected,
    /// It holds an SSH key.
    #[error("the identity file is an SSH key; wanted an age identity file with a line AGE-SECRET-KEY-1…")]
    Ssh,
    /// A line is not an identity.
    #[error(
        "line {line} of the identity file is no age identity; wanted a line AGE-SECRET-KEY-1…, as `age-keygen` writes it"
    )]
    Malformed {
        /// The number of the line.
        line: usize,
    },
    /// It holds no identity.
    #[error(
        "the identity file holds no identity; wanted a line AGE-SECRET-KEY-1…, as `age-keygen` writes it"
    )]
    Empty,
}

fn read_identities(file: &[u8]) -> Result<Vec<Box<dyn Identity + Send + Sync>>, IdentityError> {
    let starts = |text: &str| file.trim_ascii_start().starts_with(text.as_bytes());
    if starts("age-encryption.org/") || starts("-----BEGIN AGE ENCRYPTED FILE-----") {
        return Err(IdentityError::Protected);
    }
    if starts("-----BEGIN") {
        return Err(IdentityError::Ssh);
    }
    // Some editors save lines with a CR at the end.
    let text = Zeroizing::new(String::from_utf8_lossy(file).replace('\r', ""));
    for (line, content) in (1..).zip(text.lines()) {
        let is_identity = content.parse::<age::x25519::Identity>().is_ok();
        if !(content.is_empty() || content.starts_with('#') || is_identity) {
            return Err(IdentityError::Malformed { line });
        }
    }
    let identities = IdentityFile::from_buffer(text.as_bytes())
        .ok()
        .and_then(|file| file.into_identities().ok())
        .unwrap_or_default();
    if identities.is_empty() { Err(IdentityError::Empty) } else { Ok(identities) }
}

#[cfg(test)]
mod tests {
    use age::secrecy::ExposeSecret;

    use super::*;

    const PEM: &str = "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\n";

    /// An identity file and its recipient.
    fn identity() -> (String, String) {
        let identity = age::x25519::Identity::generate();
        let recipient = identity.to_public().to_string();
        (
            format!("# created: now\n# public key: {recipient}\n{}\n", identity.to_string().expose_secret()),
            recipient,
        )
    }

    fn sealed_to(recipients: &[&str]) -> StoredKey {
        StoredKey::Sealed(Sealer::new(recipients).unwrap().seal(&Secret::new(PEM.to_owned())))
    }

    fn open(key: &StoredKey, files: &[&str]) -> Result<OpenedKey, OpenError> {
        let mut opener = KeyOpener::plain_only();
        files.iter().for_each(|file| opener.add_identities(file.as_bytes()).unwrap());
        opener.open(key)
    }

    #[test]
    fn each_recipient_opens_what_was_sealed_to_all() {
        let ((one, to_one), (two, to_two), (three, _)) = (identity(), identity(), identity());
        let key = sealed_to(&[&to_one, &to_two, &to_one]);
        let StoredKey::Sealed(sealed) = &key else { panic!("{key:?}") };
        assert_eq!(sealed.recipients[..], [to_one, to_two]);
        assert!(sealed.age.starts_with("-----BEGIN AGE ENCRYPTED FILE-----\n"), "{}", sealed.age);
        for files in [vec![&one[..]], vec![&two], vec![&three, &two], vec![&one.replace('\n', "\r\n")]] {
            assert_eq!(
                open(&key, &files).unwrap(),
                OpenedKey { text: Secret::new(PEM.into()), form: KeyForm::Pem }
            );
        }
        assert!(matches!(open(&key, &[&three]), Err(OpenError::OtherIdentity { .. })));
        let error = KeyOpener::plain_only().open(&key).unwrap_err().to_string();
        assert!(error.contains("no age identity") && error.contains(&sealed.recipients[1]), "{error}");
        let passed = KeyOpener::pass_sealed_on().open(&key).unwrap();
        assert_eq!((passed.text.expose(), passed.form), (&sealed.age, KeyForm::Age));
    }

    #[test]
    fn sealing_twice_gives_nothing_away() {
        let (_, recipient) = identity();
        assert_ne!(sealed_to(&[&recipient]), sealed_to(&[&recipient]));
        assert!(!format!("{:?}", sealed_to(&[&recipient])).contains("hunter2"));
    }

    #[test]
    fn plain_keys_need_no_identity_and_purged_ones_are_gone() {
        let plain = StoredKey::Plain(Secret::new(PEM.to_owned()));
        for opener in [KeyOpener::plain_only(), KeyOpener::pass_sealed_on()] {
            assert_eq!(opener.open(&plain).unwrap().text.expose(), PEM);
            let purged = StoredKey::Purged { at: String::from("2026-01-01T00:00:00.000Z") };
            let error = opener.open(&purged).unwrap_err().to_string();
            assert!(error.contains("purged") && error.contains("2026-01-01"), "{error}");
        }
    }

    #[test]
    fn what_was_damaged_is_not_opened() {
        let (file, recipient) = identity();
        let StoredKey::Sealed(sealed) = sealed_to(&[&recipient]) else { unreachable!() };
        for at in (40..sealed.age.len() - 40).step_by(7) {
            let mut age = sealed.age.clone().into_bytes();
            age[at] = if age[at] == b'A' { b'B' } else { b'A' };
            let damaged = SealedKey { age: String::from_utf8(age).unwrap(), ..sealed.clone() };
            let error = open(&StoredKey::Sealed(damaged), &[&file]).unwrap_err();
            assert!(matches!(error, OpenError::Damaged | OpenError::OtherIdentity { .. }), "{error}");
        }
    }

    #[test]
    fn bad_recipients_are_named_and_secrets_are_not() {
        let (file, recipient) = identity();
        let secret = file.lines().last().unwrap();
        let fails = |text: &str| Sealer::new(&[text]).unwrap_err();
        assert_eq!(fails(secret), NoRecipient::IsAnIdentity);
        assert_eq!(fails(&secret.to_lowercase()), NoRecipient::IsAnIdentity);
        for wrong in ["", "age1", "alice", &recipient[..61], &recipient.replace("age1", "ege1")] {
            assert!(fails(wrong).to_string().contains("age1"), "{wrong}");
        }
        assert!(matches!(fails("ssh-ed25519 AAAA me@here"), NoRecipient::Unsupported { .. }));
        assert_eq!(Sealer::new::<&str>(&[]).unwrap_err(), NoRecipient::Count(0));
    }

    #[test]
    fn identity_files_that_cannot_be_used_are_told_apart() {
        let fails = |text: &str| KeyOpener::plain_only().add_identities(text.as_bytes()).unwrap_err();
        assert_eq!(fails("age-encryption.org/v1\n-> scrypt x 18\n"), IdentityError::Protected);
        assert_eq!(fails("-----BEGIN AGE ENCRYPTED FILE-----\nYWdl\n"), IdentityError::Protected);
        assert_eq!(fails("-----BEGIN OPENSSH PRIVATE KEY-----\n"), IdentityError::Ssh);
        assert_eq!(fails("# nothing\n\n"), IdentityError::Empty);
        assert_eq!(fails("# one\nhunter2\n"), IdentityError::Malformed { line: 2 });
        assert!(KeyOpener::plain_only().add_identities(b"\xff\xfe").is_err());
    }
}
