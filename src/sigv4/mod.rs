//! Presigned WebSocket URLs: AWS Signature Version 4 in the query, service `iotdevicegateway`.
//!
//! Owns the canonical request and the order of the query. The day's key is derived by aws-sigv4; the one HMAC with it is
//! aws-lc-rs's, which keeps the key's half of the work for the day. aws-sigv4's request signer is not used: it always adds
//! `X-Amz-Expires`, and it signs the session token, which the device gateway refuses. Sources: IAM User Guide, "Create a signed
//! AWS API request"; AWS IoT Developer Guide, "MQTT over WebSocket".

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use aws_sigv4::sign::v4::generate_signing_key;
use futures::future::{BoxFuture, ready};
use time::OffsetDateTime;

use crate::certificate::Secret;
use crate::service::SIGNING_NAME;

/// SHA-256 of the empty string: an upgrade request has no body.
const EMPTY_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// What requests are signed with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The access key id; sent in the clear.
    pub access_key_id: String,
    /// The secret access key; never sent.
    pub secret_access_key: Secret<String>,
    /// The session token of temporary credentials; sent beside the signature.
    pub session_token: Option<Secret<String>>,
}

/// Why there are no credentials: what is missing or wrong, for people. Never a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoCredentials(String);

impl NoCredentials {
    /// There are none, for this reason.
    pub fn because(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

/// Where credentials come from. Asked once per dial and per request, so that temporary ones are fresh.
pub trait CredentialSource: Send + Sync + 'static {
    /// The credentials to sign with now.
    ///
    /// # Errors
    /// [`NoCredentials`] says why there are none.
    fn credentials(&self) -> BoxFuture<'_, Result<Credentials, NoCredentials>>;

    /// The service has refused `credentials` as such. A source that can look for newer ones does so before it gives out any
    /// again.
    fn refused(&self, credentials: &Credentials) {
        let _ = credentials;
    }
}

/// Credentials that never change.
impl CredentialSource for Credentials {
    fn credentials(&self) -> BoxFuture<'_, Result<Credentials, NoCredentials>> {
        Box::pin(ready(Ok(self.clone())))
    }
}

/// Why nothing could be signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// The access key id is empty.
    #[error("the access key id is empty")]
    NoAccessKeyId,
    /// The secret access key is empty.
    #[error("the secret access key is empty")]
    NoSecretAccessKey,
    /// The instant is not between 1970 and 9999.
    #[error("the clock is wrong: it is not between the years 1970 and 9999")]
    Clock,
}

/// Signs for one region. Keeps the day's signing key, which saves four of the five HMACs of a signature.
#[derive(Debug)]
pub struct Signer {
    region: String,
    day_key: Mutex<Option<DayKey>>,
}

#[derive(Debug)]
struct DayKey {
    date: [u8; 8],
    secret: Secret<String>,
    /// Zeroed by aws-lc when it is dropped; its Debug shows only the algorithm.
    key: hmac::Key,
}

impl Signer {
    /// A signer for `region`.
    pub fn new(region: &str) -> Self {
        Self { region: region.to_owned(), day_key: Mutex::new(None) }
    }

    /// The region it signs for.
    pub fn region(&self) -> &str {
        &self.region
    }

    /// The path and query of a GET that opens a WebSocket on `host_header`, signed at `now`.
    ///
    /// `host_header` is what the request's `Host` will say, with the port if it says one; `path` holds nothing but
    /// unreserved characters and slashes, as an [`Endpoint`](crate::endpoint::Endpoint)'s does. `expires` adds
    /// `X-Amz-Expires` in whole seconds; the service ignores it and gives every signature five minutes.
    ///
    /// The result grants access for as long as the signature is valid, hence a [`Secret`].
    ///
    /// # Errors
    /// [`SignError`] if the credentials are empty, or `now` is not between the years 1970 and 9999.
    pub fn presign(
        &self,
        credentials: &Credentials,
        host_header: &str,
        path: &str,
        now: SystemTime,
        expires: Option<Duration>,
    ) -> Result<Secret<String>, SignError> {
        if credentials.access_key_id.is_empty() {
            return Err(SignError::NoAccessKeyId);
        }
        if credentials.secret_access_key.expose().is_empty() {
            return Err(SignError::NoSecretAccessKey);
        }
        let stamp = Stamp::of(now)?;
        let mut target = self.unsigned_target(credentials, path, &stamp, expires);
        let canonical = canonical_request(&target, path, host_header);
        let signature = self.sign(credentials, &stamp, now, &self.string_to_sign(&stamp, &canonical));
        target.push_str("&X-Amz-Signature=");
        push_hex(&mut target, signature.as_ref());
        if let Some(token) = &credentials.session_token {
            // Behind the signature, which does not cover it: the device gateway refuses a token that was signed.
            target.push_str("&X-Amz-Security-Token=");
            push_encoded(&mut target, token.expose());
        }
        Ok(Secret::new(target))
    }

    /// Path and query, its parameters sorted, as the canonical request wants them. Has room for what follows, so that no
    /// reallocation leaves the token behind in memory.
    fn unsigned_target(
        &self,
        credentials: &Credentials,
        path: &str,
        stamp: &Stamp,
        expires: Option<Duration>,
    ) -> String {
        let token_length = credentials.session_token.as_ref().map_or(0, |token| token.expose().len());
        let access_key_id = &credentials.access_key_id;
        let mut target = String::with_capacity(
            path.len() + 3 * (access_key_id.len() + self.region.len() + token_length) + 384,
        );
        target.push_str(path);
        target.push_str("?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=");
        push_encoded(&mut target, access_key_id);
        for part in [stamp.date(), &self.region, SIGNING_NAME] {
            target.push_str("%2F");
            push_encoded(&mut target, part);
        }
        target.push_str("%2Faws4_request&X-Amz-Date=");
        target.push_str(stamp.date_time());
        if let Some(expires) = expires {
            target.push_str("&X-Amz-Expires=");
            target.push_str(&expires.as_secs().to_string());
        }
        target.push_str("&X-Amz-SignedHeaders=host");
        target
    }

    fn string_to_sign(&self, stamp: &Stamp, canonical: &str) -> String {
        let mut text = String::with_capacity(160 + self.region.len());
        let scope = [stamp.date(), "/", &self.region, "/", SIGNING_NAME, "/aws4_request\n"];
        for part in ["AWS4-HMAC-SHA256\n", stamp.date_time(), "\n"].into_iter().chain(scope) {
            text.push_str(part);
        }
        push_hex(&mut text, digest(&SHA256, canonical.as_bytes()).as_ref());
        text
    }

    /// Signs with the key of `stamp`'s day, which is derived again if the day or the secret has changed.
    fn sign(&self, credentials: &Credentials, stamp: &Stamp, now: SystemTime, text: &str) -> hmac::Tag {
        let secret = &credentials.secret_access_key;
        // No panic can leave a half-written key: the key is replaced as a whole.
        let mut cached = self.day_key.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(day) = &*cached
            && day.date[..] == stamp.0[..8]
            && day.secret == *secret
        {
            return hmac::sign(&day.key, text.as_bytes());
        }
        let derived = generate_signing_key(secret.expose(), now, &self.region, SIGNING_NAME);
        let key = hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref());
        let mut date = [0; 8];
        date.copy_from_slice(&stamp.0[..8]);
        let day = cached.insert(DayKey { date, secret: secret.clone(), key });
        hmac::sign(&day.key, text.as_bytes())
    }
}

/// The region in the name of an AWS IoT endpoint, lower case as [`Endpoint::host`](crate::endpoint::Endpoint::host) gives it.
///
/// Knows the data endpoints `PREFIX-ats.iot.REGION`, `PREFIX.iot.REGION`, `PREFIX.ats.iot.REGION` (China), `data.iot-fips.REGION`
/// and `VPCE.data.iot.REGION.vpce`, in `amazonaws.com`, `amazonaws.com.cn` and `api.aws`.
pub fn region_of(host: &str) -> Option<&str> {
    const DOMAINS: [&str; 5] =
        [".vpce.amazonaws.com.cn", ".vpce.amazonaws.com", ".amazonaws.com.cn", ".amazonaws.com", ".api.aws"];
    let name = DOMAINS.iter().find_map(|domain| host.strip_suffix(domain))?;
    let (rest, region) = name.rsplit_once('.')?;
    let service = rest.rsplit('.').next()?;
    (matches!(service, "iot" | "iot-fips") && is_region(region)).then_some(region)
}

/// `xx-name[-name]-N`, such as `us-gov-west-1`.
fn is_region(text: &str) -> bool {
    let mut parts = text.split('-');
    let is_word = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase());
    let number = parts.next_back();
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
        && parts.clone().count() >= 2
        && parts.all(is_word)
}

/// The canonical request of a GET with an empty body and one signed header (IAM User Guide, "Create a canonical
/// request").
fn canonical_request(target: &str, path: &str, host_header: &str) -> String {
    let mut text = String::with_capacity(target.len() + host_header.len() + 96);
    text.push_str("GET\n");
    text.push_str(path);
    text.push('\n');
    text.push_str(&target[path.len() + 1..]);
    text.push_str("\nhost:");
    let host = text.len();
    text.push_str(host_header);
    text[host..].make_ascii_lowercase();
    text.push_str("\n\nhost\n");
    text.push_str(EMPTY_SHA256);
    text
}

/// An instant as `yyyymmddThhmmssZ`.
struct Stamp([u8; 16]);

impl Stamp {
    fn of(now: SystemTime) -> Result<Self, SignError> {
        let seconds = now.duration_since(SystemTime::UNIX_EPOCH).map_err(|_| SignError::Clock)?.as_secs();
        let utc = i64::try_from(seconds)
            .ok()
            .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
            .ok_or(SignError::Clock)?;
        let mut text = *b"00000000T000000Z";
        let year = utc.year().unsigned_abs();
        put_digits(&mut text[0..4], year);
        put_digits(&mut text[4..6], u32::from(u8::from(utc.month())));
        put_digits(&mut text[6..8], u32::from(utc.day()));
        put_digits(&mut text[9..11], u32::from(utc.hour()));
        put_digits(&mut text[11..13], u32::from(utc.minute()));
        put_digits(&mut text[13..15], u32::from(utc.second()));
        Ok(Self(text))
    }

    fn date_time(&self) -> &str {
        std::str::from_utf8(&self.0).expect("a stamp is made of ASCII digits")
    }

    fn date(&self) -> &str {
        &self.date_time()[..8]
    }
}

/// Writes `number` right-aligned over `text`.
fn put_digits(text: &mut [u8], mut number: u32) {
    for digit in text.iter_mut().rev() {
        *digit = b'0' + u8::try_from(number % 10).expect("a remainder of ten is a digit");
        number /= 10;
    }
}

/// Percent-encodes all but unreserved characters (RFC 3986 section 2.3), as SigV4 wants: upper-case hexadecimal, a space as
/// `%20`.
fn push_encoded(out: &mut String, text: &str) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let is_unreserved = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    let bytes = text.as_bytes();
    let mut plain = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        if !is_unreserved(byte) {
            // Runs are pushed as a whole. All bytes of a run are ASCII, so it starts and ends between characters; an empty
            // run may lie inside of one, where it cannot be sliced.
            out.push_str(text.get(plain..at).unwrap_or_default());
            out.push('%');
            out.push(char::from(DIGITS[usize::from(byte >> 4)]));
            out.push(char::from(DIGITS[usize::from(byte & 15)]));
            plain = at + 1;
        }
    }
    out.push_str(text.get(plain..).unwrap_or_default());
}

/// At most 32 bytes.
fn push_hex(out: &mut String, bytes: &[u8]) {
    let mut room = [0; 64];
    let text = &mut room[..2 * bytes.len()];
    hex::encode_to_slice(bytes, text).expect("there is room for two digits a byte");
    out.push_str(std::str::from_utf8(text).expect("digits are ASCII"));
}

#[cfg(test)]
mod tests;
