//! Signature Version 4 as the service checks it: a presigned WebSocket handshake, taken apart from what was received.
//!
//! Owns the verdict and the words of a refusal. Knows no socket. Shares no code with the crate's signer: two
//! implementations that agree are evidence, one that agrees with itself is not.
//!
//! Sources: AWS IAM User Guide, "Create a signed AWS API request"; AWS IoT Developer Guide, "Protocols" (the session token
//! stands outside the signature); refusals captured by users of the service for the texts and for the window of five
//! minutes, which `X-Amz-Expires` neither widens nor narrows.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::SystemTime;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::{digest, hmac};
use time::{
    Duration, OffsetDateTime, PrimitiveDateTime, format_description::BorrowedFormatItem,
    macros::format_description,
};

/// How far the signing clock and ours may be apart, either way.
pub const WINDOW: Duration = Duration::minutes(5);

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const DATE_FORMAT: &[BorrowedFormatItem<'_>] =
    format_description!("[year][month][day]T[hour][minute][second]Z");

/// A request as it was received: nothing decoded, nothing normalised.
#[derive(Debug, Clone, Copy)]
pub struct SignedRequest<'a> {
    /// The method.
    pub method: &'a str,
    /// The request target, path and query.
    pub target: &'a str,
    /// Header names and values in their order; names in any case.
    pub headers: &'a [(String, Vec<u8>)],
}

/// Whose signatures are accepted, and for what.
#[derive(Debug, Clone, Copy)]
pub struct Realm<'a> {
    /// The only access key.
    pub access_key_id: &'a str,
    /// Its secret.
    pub secret_access_key: &'a str,
    /// The session token that must come with it, if the credentials are temporary.
    pub session_token: Option<&'a str>,
    /// The region that must stand in the credential scope.
    pub region: &'a str,
    /// The services that may stand in the credential scope.
    pub services: &'a [&'a str],
}

/// Why a request is refused. `Display` is the diagnosis, for people who run the emulator; [`Refusal::message`] is what the
/// client is told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A `%` in the query that no two hexadecimal digits follow.
    #[error("the query holds a % without two hexadecimal digits behind it")]
    MalformedQuery,
    /// A parameter stands in the query more than once.
    #[error("the query parameter {0} stands in the query twice")]
    DuplicateParameter(String),
    /// A parameter that a signature needs is not there.
    #[error("the query parameter {0} is missing")]
    MissingParameter(&'static str),
    /// `X-Amz-Algorithm` is not the one that exists.
    #[error("X-Amz-Algorithm is not AWS4-HMAC-SHA256")]
    UnknownAlgorithm,
    /// `X-Amz-Credential` is not key/date/region/service/aws4_request.
    #[error("X-Amz-Credential is not <key id>/<yyyymmdd>/<region>/<service>/aws4_request")]
    MalformedCredential,
    /// `X-Amz-Date` is not a date in ISO 8601's basic form.
    #[error("X-Amz-Date is not a date like 20251123T234432Z")]
    MalformedDate,
    /// The credential scope names another day than `X-Amz-Date`.
    #[error("the credential scope is for {scope}, but X-Amz-Date is {date}")]
    ScopeOfAnotherDay {
        /// The day in the scope.
        scope: String,
        /// The moment of signing.
        date: String,
    },
    /// Signed for a region that is not this one.
    #[error("signed for the region {found}, but this is {wanted}")]
    WrongRegion {
        /// The region in the scope.
        found: String,
        /// Our region.
        wanted: String,
    },
    /// Signed for a service that is not this one.
    #[error("signed for the service {found}, but this is {wanted}")]
    WrongService {
        /// The service in the scope.
        found: String,
        /// Our service.
        wanted: String,
    },
    /// An access key that the account does not have.
    #[error("the access key {0} does not exist here")]
    UnknownAccessKey(String),
    /// Signed more than [`WINDOW`] before now.
    #[error("signed at {signed}, more than five minutes before {now}")]
    Expired {
        /// The moment of signing.
        signed: String,
        /// The earliest moment that would have done.
        earliest: String,
        /// Our clock.
        now: String,
    },
    /// Signed more than [`WINDOW`] after now.
    #[error("signed at {signed}, more than five minutes after {now}")]
    NotYetCurrent {
        /// The moment of signing.
        signed: String,
        /// The latest moment that would have done.
        latest: String,
        /// Our clock.
        now: String,
    },
    /// `X-Amz-SignedHeaders` lists nothing, or an empty name.
    #[error("X-Amz-SignedHeaders is not a list of header names")]
    MalformedSignedHeaders,
    /// `X-Amz-SignedHeaders` does not list the host.
    #[error("X-Amz-SignedHeaders does not list host")]
    HostNotSigned,
    /// `X-Amz-SignedHeaders` lists a header that did not come.
    #[error("X-Amz-SignedHeaders lists {0}, and the request has no such header")]
    SignedHeaderAbsent(String),
    /// The credentials are temporary, and no session token came.
    #[error("X-Amz-Security-Token is missing, and these credentials have a session token")]
    MissingSessionToken,
    /// A session token that is not the one of these credentials.
    #[error("X-Amz-Security-Token is not the session token of these credentials")]
    WrongSessionToken,
    /// The signature is not the one we compute.
    #[error("the signature does not match{0}")]
    SignatureMismatch(Suspicion),
}

/// What would explain a signature that does not match: a request that differs in this one point would have matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suspicion {
    /// Nothing that we know: most often a wrong secret.
    Nothing,
    /// The client signed the host without the port that its Host header has.
    HostSignedWithoutPort,
    /// The client added `X-Amz-Expires` after it had signed.
    ExpiresNotSigned,
    /// The client signed `X-Amz-Security-Token`, which this service wants outside the signature.
    SessionTokenSigned,
}

impl std::fmt::Display for Suspicion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Nothing => "; the secret access key is the usual suspect",
            Self::HostSignedWithoutPort => ": the port in the Host header was not signed",
            Self::ExpiresNotSigned => ": X-Amz-Expires was not signed",
            Self::SessionTokenSigned => {
                ": X-Amz-Security-Token was signed, and must be appended after the signature"
            }
        })
    }
}

impl Refusal {
    /// What the client is told, in the service's words.
    ///
    /// The texts for a mismatch, for an expired and for a future signature reproduce the lengths of captured answers. The
    /// others are what AWS services say in general; they were not captured from this one.
    pub fn message(&self) -> String {
        match self {
            Self::Expired { signed, earliest, now } => {
                format!("Signature expired: {signed} is now earlier than {earliest} ({now} - 5 min.)")
            }
            Self::NotYetCurrent { signed, latest, now } => {
                format!("Signature not yet current: {signed} is still later than {latest} ({now} + 5 min.)")
            }
            Self::SignatureMismatch(_) | Self::SignedHeaderAbsent(_) => String::from(
                "The request signature we calculated does not match the signature you provided. Check your AWS \
                 Secret Access Key and signing method. Consult the service documentation for details.",
            ),
            Self::UnknownAccessKey(_) | Self::MissingSessionToken | Self::WrongSessionToken => {
                String::from("The security token included in the request is invalid.")
            }
            Self::WrongService { wanted, .. } => {
                format!("Credential should be scoped to correct service: '{wanted}'.")
            }
            Self::WrongRegion { wanted, .. } => {
                format!("Credential should be scoped to a valid region, such as '{wanted}'.")
            }
            Self::HostNotSigned => {
                String::from("'Host' or ':authority' must be a 'SignedHeader' in the AWS Signature.")
            }
            Self::MissingParameter("X-Amz-Algorithm") => String::from("Missing Authentication Token"),
            Self::MissingParameter(name) => {
                format!(
                    "AWS query-string parameters must include '{name}'. Re-examine the query-string parameters."
                )
            }
            other => format!("The request is not signed properly: {other}."),
        }
    }
}

/// Checks the signature in the query of `request`, as of `now`.
///
/// Headers that `X-Amz-SignedHeaders` lists are taken as they were received, whichever they are: the AWS SDKs' C core signs
/// `connection;host`. Parameters may come in any order, escaped in any way; the session token may stand anywhere.
///
/// # Errors
///
/// The first thing found wrong, in this order: the query, the scope, the clock, the signed headers, the session token,
/// the signature.
pub fn verify(request: &SignedRequest<'_>, realm: &Realm<'_>, now: SystemTime) -> Result<(), Refusal> {
    let (path, query) = request.target.split_once('?').unwrap_or((request.target, ""));
    let query = parse_query(query)?;
    let claim = Claim::parse(&query)?;
    claim.check_scope(realm)?;
    claim.check_clock(now.into())?;
    let signed_headers = claim.signed_headers(request)?;
    check_session_token(&query, realm)?;

    let canonical = Canonical { request, path, query: &query, signed_headers: &signed_headers };
    if claim.matches(&canonical, Variant::AsReceived, realm) {
        return Ok(());
    }
    let suspicion = [
        (Variant::HostWithoutPort, Suspicion::HostSignedWithoutPort),
        (Variant::WithoutExpires, Suspicion::ExpiresNotSigned),
        (Variant::WithSessionToken, Suspicion::SessionTokenSigned),
    ]
    .into_iter()
    .find(|(variant, _)| claim.matches(&canonical, *variant, realm))
    .map_or(Suspicion::Nothing, |(_, suspicion)| suspicion);
    Err(Refusal::SignatureMismatch(suspicion))
}

/// The query's parameters, decoded.
type Query = BTreeMap<Vec<u8>, Vec<u8>>;

/// What the signature claims about itself.
struct Claim<'a> {
    access_key_id: &'a str,
    day: &'a str,
    region: &'a str,
    service: &'a str,
    date: &'a str,
    instant: OffsetDateTime,
    signed_headers: &'a str,
    signature: &'a [u8],
}

impl<'a> Claim<'a> {
    fn parse(query: &'a Query) -> Result<Self, Refusal> {
        if required(query, "X-Amz-Algorithm")? != ALGORITHM.as_bytes() {
            return Err(Refusal::UnknownAlgorithm);
        }
        let credential = text(required(query, "X-Amz-Credential")?).ok_or(Refusal::MalformedCredential)?;
        let mut parts = credential.split('/');
        let [Some(access_key_id), Some(day), Some(region), Some(service), Some("aws4_request"), None] =
            std::array::from_fn(|_| parts.next())
        else {
            return Err(Refusal::MalformedCredential);
        };
        let date = text(required(query, "X-Amz-Date")?).ok_or(Refusal::MalformedDate)?;
        Ok(Self {
            access_key_id,
            day,
            region,
            service,
            date,
            instant: parse_date(date).ok_or(Refusal::MalformedDate)?,
            signed_headers: text(required(query, "X-Amz-SignedHeaders")?)
                .ok_or(Refusal::MalformedSignedHeaders)?,
            signature: required(query, "X-Amz-Signature")?,
        })
    }

    fn check_scope(&self, realm: &Realm<'_>) -> Result<(), Refusal> {
        if !self.date.starts_with(self.day) || self.day.len() != 8 {
            return Err(Refusal::ScopeOfAnotherDay {
                scope: self.day.to_owned(),
                date: self.date.to_owned(),
            });
        }
        if self.region != realm.region {
            let (found, wanted) = (self.region.to_owned(), realm.region.to_owned());
            return Err(Refusal::WrongRegion { found, wanted });
        }
        if !realm.services.contains(&self.service) {
            let wanted = realm.services.first().copied().unwrap_or_default().to_owned();
            return Err(Refusal::WrongService { found: self.service.to_owned(), wanted });
        }
        if self.access_key_id != realm.access_key_id {
            return Err(Refusal::UnknownAccessKey(self.access_key_id.to_owned()));
        }
        Ok(())
    }

    fn check_clock(&self, now: OffsetDateTime) -> Result<(), Refusal> {
        // The service's texts know whole seconds only, and so does the comparison.
        let now = now.replace_nanosecond(0).unwrap_or(now);
        let (earliest, latest) = (now - WINDOW, now + WINDOW);
        let signed = self.date.to_owned();
        if self.instant < earliest {
            return Err(Refusal::Expired { signed, earliest: print_date(earliest), now: print_date(now) });
        }
        if self.instant > latest {
            return Err(Refusal::NotYetCurrent { signed, latest: print_date(latest), now: print_date(now) });
        }
        Ok(())
    }

    fn signed_headers(&self, request: &SignedRequest<'_>) -> Result<Vec<&'a str>, Refusal> {
        let names: Vec<&str> = self.signed_headers.split(';').collect();
        if names.iter().any(|name| name.is_empty()) {
            return Err(Refusal::MalformedSignedHeaders);
        }
        if !names.contains(&"host") {
            return Err(Refusal::HostNotSigned);
        }
        let received =
            |name: &&str| request.headers.iter().any(|(other, _)| other.eq_ignore_ascii_case(name));
        match names.iter().find(|name| !received(name)) {
            Some(absent) => Err(Refusal::SignedHeaderAbsent((*absent).to_owned())),
            None => Ok(names),
        }
    }

    fn matches(&self, canonical: &Canonical<'_>, variant: Variant, realm: &Realm<'_>) -> bool {
        let scope = format!("{}/{}/{}/aws4_request", self.day, self.region, self.service);
        let hashed = hex(digest::digest(&digest::SHA256, &canonical.bytes(variant)).as_ref());
        let string_to_sign = format!("{ALGORITHM}\n{}\n{scope}\n{hashed}", self.date);
        let seed = format!("AWS4{}", realm.secret_access_key);
        let key = [self.region, self.service, "aws4_request"]
            .iter()
            .fold(keyed_hash(seed.as_bytes(), self.day.as_bytes()), |key, part| {
                keyed_hash(key.as_ref(), part.as_bytes())
            });
        let signature = hex(keyed_hash(key.as_ref(), string_to_sign.as_bytes()).as_ref());
        verify_slices_are_equal(signature.as_bytes(), self.signature).is_ok()
    }
}

/// Which request to canonicalise: the one received, or one that a known mistake would have signed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Variant {
    AsReceived,
    HostWithoutPort,
    WithoutExpires,
    WithSessionToken,
}

/// The parts of a canonical request.
struct Canonical<'a> {
    request: &'a SignedRequest<'a>,
    path: &'a str,
    query: &'a Query,
    signed_headers: &'a [&'a str],
}

impl Canonical<'_> {
    fn bytes(&self, variant: Variant) -> Vec<u8> {
        let mut out = Vec::with_capacity(1024);
        for line in [self.request.method, &canonical_path(self.path), &self.query(variant)] {
            out.extend_from_slice(line.as_bytes());
            out.push(b'\n');
        }
        for name in self.signed_headers {
            out.extend_from_slice(name.as_bytes());
            out.push(b':');
            out.extend_from_slice(&self.header(name, variant));
            out.push(b'\n');
        }
        out.push(b'\n');
        out.extend_from_slice(self.signed_headers.join(";").as_bytes());
        out.push(b'\n');
        // A handshake has no body: the hash of nothing.
        out.extend_from_slice(hex(digest::digest(&digest::SHA256, b"").as_ref()).as_bytes());
        out
    }

    fn query(&self, variant: Variant) -> String {
        let signed = |name: &[u8]| match name {
            b"X-Amz-Signature" => false,
            b"X-Amz-Security-Token" => variant == Variant::WithSessionToken,
            b"X-Amz-Expires" => variant != Variant::WithoutExpires,
            _ => true,
        };
        let parameters = self.query.iter().filter(|(name, _)| signed(name));
        let mut pairs: Vec<_> = parameters.map(|(name, value)| (escape(name), escape(value))).collect();
        // The order is that of the escaped names, which is not that of the decoded ones.
        pairs.sort_unstable();
        pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
    }

    /// All values of a header, trimmed, inner runs of spaces made one, joined by commas.
    fn header(&self, name: &str, variant: Variant) -> Vec<u8> {
        let values = self.request.headers.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name));
        let joined = values.map(|(_, value)| squeeze(value)).collect::<Vec<_>>().join(&b',');
        if variant == Variant::HostWithoutPort && name == "host" { without_port(joined) } else { joined }
    }
}

fn check_session_token(query: &Query, realm: &Realm<'_>) -> Result<(), Refusal> {
    let given = query.get(b"X-Amz-Security-Token".as_slice());
    match (given, realm.session_token) {
        (None, None) => Ok(()),
        (None, Some(_)) => Err(Refusal::MissingSessionToken),
        // A long-lived key has no token; one that comes with a token is not the key we know.
        (Some(_), None) => Err(Refusal::WrongSessionToken),
        (Some(given), Some(wanted)) => {
            verify_slices_are_equal(given, wanted.as_bytes()).map_err(|_| Refusal::WrongSessionToken)
        }
    }
}

fn required<'a>(query: &'a Query, name: &'static str) -> Result<&'a [u8], Refusal> {
    query.get(name.as_bytes()).map(Vec::as_slice).ok_or(Refusal::MissingParameter(name))
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

fn parse_query(raw: &str) -> Result<Query, Refusal> {
    let mut query = Query::new();
    for pair in raw.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = unescape(name).ok_or(Refusal::MalformedQuery)?;
        let value = unescape(value).ok_or(Refusal::MalformedQuery)?;
        if query.contains_key(&name) {
            return Err(Refusal::DuplicateParameter(String::from_utf8_lossy(&name).into_owned()));
        }
        query.insert(name, value);
    }
    Ok(query)
}

/// Undoes percent-encoding, upper or lower case; `+` stays a plus.
fn unescape(raw: &str) -> Option<Vec<u8>> {
    let mut bytes = raw.bytes();
    let mut out = Vec::with_capacity(raw.len());
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => nibble(bytes.next()?)? << 4 | nibble(bytes.next()?)?,
            plain => plain,
        });
    }
    Some(out)
}

fn nibble(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// Percent-encodes all but RFC 3986's unreserved characters, in upper case.
fn escape(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for &byte in bytes {
        escape_byte(byte, &mut out);
    }
    out
}

fn escape_byte(byte: u8, out: &mut String) {
    match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(byte.into()),
        _ => write!(out, "%{byte:02X}").expect("writing to a String does not fail"),
    }
}

/// The path escaped once more than it was received, as SigV4 wants it of every service but S3.
fn canonical_path(path: &str) -> Cow<'_, str> {
    if path.is_empty() {
        return Cow::Borrowed("/");
    }
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte == b'/' { out.push('/') } else { escape_byte(byte, &mut out) }
    }
    Cow::Owned(out)
}

fn squeeze(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len());
    for &byte in value.trim_ascii() {
        if byte != b' ' || out.last() != Some(&b' ') {
            out.push(byte);
        }
    }
    out
}

fn without_port(mut host: Vec<u8>) -> Vec<u8> {
    let digits = host.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let colon = host.len() - digits;
    if colon > 0 && host[colon - 1] == b':' {
        host.truncate(colon - 1);
    }
    host
}

fn parse_date(text: &str) -> Option<OffsetDateTime> {
    // The parser would take a sign before the year; the form of the service has digits at these places and nothing else.
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    if text.len() != 16 || digits != 14 {
        return None;
    }
    PrimitiveDateTime::parse(text, DATE_FORMAT).ok().map(PrimitiveDateTime::assume_utc)
}

fn print_date(date: OffsetDateTime) -> String {
    date.format(DATE_FORMAT).unwrap_or_default()
}

fn keyed_hash(key: &[u8], message: &[u8]) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        write!(out, "{byte:02x}").expect("writing to a String does not fail");
        out
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    /// A handshake and the verdict a server must reach, computed with botocore and aws4fetch.
    #[derive(Deserialize)]
    struct Vector {
        name: String,
        ok: bool,
        reason: String,
        method: String,
        target: String,
        headers: Vec<(String, String)>,
        access_key: String,
        secret_key: String,
        session_token: Option<String>,
        region: String,
        now: String,
    }

    #[derive(Deserialize)]
    struct Fixture {
        verify: Vec<Vector>,
    }

    fn vectors() -> Vec<Vector> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/sigv4-vectors.json");
        serde_json::from_slice::<Fixture>(&std::fs::read(path).unwrap()).unwrap().verify
    }

    fn vector(name: &str) -> Vector {
        vectors().into_iter().find(|vector| vector.name == name).unwrap()
    }

    impl Vector {
        fn verdict_at(&self, now: &str) -> Result<(), Refusal> {
            let headers: Vec<_> =
                self.headers.iter().map(|(name, value)| (name.clone(), value.clone().into_bytes())).collect();
            let request = SignedRequest { method: &self.method, target: &self.target, headers: &headers };
            let realm = Realm {
                access_key_id: &self.access_key,
                secret_access_key: &self.secret_key,
                session_token: self.session_token.as_deref(),
                region: &self.region,
                services: &["iotdevicegateway"],
            };
            verify(&request, &realm, parse_date(now).unwrap().into())
        }

        fn verdict(&self) -> Result<(), Refusal> {
            self.verdict_at(&self.now)
        }
    }

    fn name_of(verdict: &Result<(), Refusal>) -> String {
        let Err(refusal) = verdict else { return String::from("ok") };
        match refusal {
            Refusal::MissingParameter(name) => format!("missing_{name}"),
            Refusal::DuplicateParameter(_) => String::from("duplicate_query_parameter"),
            Refusal::MalformedCredential => String::from("malformed_credential"),
            Refusal::MalformedDate => String::from("bad_date"),
            Refusal::WrongService { .. } => String::from("wrong_service"),
            Refusal::UnknownAccessKey(_) => String::from("unknown_access_key"),
            Refusal::MissingSessionToken => String::from("missing_session_token"),
            Refusal::SignatureMismatch(Suspicion::HostSignedWithoutPort) => {
                String::from("host_signed_without_port")
            }
            Refusal::SignatureMismatch(Suspicion::ExpiresNotSigned) => String::from("expires_not_signed"),
            Refusal::SignatureMismatch(Suspicion::Nothing) => String::from("signature_mismatch"),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn every_vector_gets_its_verdict_and_its_reason() {
        let vectors = vectors();
        assert!(vectors.len() >= 20);
        for vector in vectors {
            let verdict = vector.verdict();
            assert_eq!(verdict.is_ok(), vector.ok, "{}: {verdict:?}", vector.name);
            assert_eq!(name_of(&verdict), vector.reason, "{}", vector.name);
        }
    }

    #[test]
    fn the_window_is_five_minutes_either_way_whatever_expires_says() {
        let vector = vector("botocore order");
        assert!(vector.target.contains("X-Amz-Expires=3600"));
        for (now, reason) in [
            ("20251123T234932Z", "ok"),
            ("20251123T233932Z", "ok"),
            ("20251123T234933Z", "Expired"),
            ("20251123T233931Z", "NotYetCurrent"),
        ] {
            assert!(name_of(&vector.verdict_at(now)).starts_with(reason), "{now}");
        }
    }

    #[test]
    fn refusals_say_what_the_service_said_when_it_was_captured() {
        let vector = vector("botocore order");
        let late = vector.verdict_at("20251124T000000Z").unwrap_err().message();
        assert_eq!(
            late,
            "Signature expired: 20251123T234432Z is now earlier than 20251123T235500Z (20251124T000000Z - 5 min.)"
        );
        let early = vector.verdict_at("20251123T233000Z").unwrap_err().message();
        assert_eq!(
            early,
            "Signature not yet current: 20251123T234432Z is still later than 20251123T233500Z (20251123T233000Z + 5 min.)"
        );
    }

    #[test]
    fn each_malformed_part_has_its_own_reason() {
        let with = |from: &str, to: &str| {
            let mut vector = vector("botocore order");
            assert!(vector.target.contains(from), "{from}");
            vector.target = vector.target.replace(from, to);
            vector.verdict().unwrap_err()
        };
        assert_eq!(
            with("X-Amz-Algorithm=AWS4-HMAC-SHA256", "X-Amz-Algorithm=AWS3"),
            Refusal::UnknownAlgorithm
        );
        assert_eq!(with("X-Amz-Date=", "X-Amz-Datum="), Refusal::MissingParameter("X-Amz-Date"));
        assert_eq!(with("X-Amz-Signature=", "x="), Refusal::MissingParameter("X-Amz-Signature"));
        assert_eq!(with("aws4_request", "aws5_request"), Refusal::MalformedCredential);
        assert_eq!(with("%2Faws4_request", "%2Faws4_request%2F"), Refusal::MalformedCredential);
        assert_eq!(with("aws4_request", "aws4%GGrequest"), Refusal::MalformedQuery);
        assert_eq!(with("aws4_request", "aws4_request%2"), Refusal::MalformedQuery);
        assert_eq!(with("SignedHeaders=host", "SignedHeaders="), Refusal::MalformedSignedHeaders);
        assert_eq!(with("SignedHeaders=host", "SignedHeaders=upgrade"), Refusal::HostNotSigned);
        assert_eq!(
            with("SignedHeaders=host", "SignedHeaders=host;x-absent"),
            Refusal::SignedHeaderAbsent(String::from("x-absent"))
        );
        assert!(matches!(with("ap-northeast-1", "us-east-1"), Refusal::WrongRegion { .. }));
        assert!(matches!(with("%2F20251123%2F", "%2F20251122%2F"), Refusal::ScopeOfAnotherDay { .. }));
        assert!(matches!(with("%2F20251123%2F", "%2F%2F"), Refusal::ScopeOfAnotherDay { .. }));
    }

    #[test]
    fn a_session_token_must_be_the_one_of_the_credentials() {
        let mut wrong = vector("token appended after signing");
        wrong.target = wrong.target.replace("a%2Bb%2Fc%3D%3D", "other");
        assert_eq!(wrong.verdict().unwrap_err(), Refusal::WrongSessionToken);

        let mut unexpected = vector("token appended after signing");
        unexpected.session_token = None;
        assert_eq!(unexpected.verdict().unwrap_err(), Refusal::WrongSessionToken);
    }

    #[test]
    fn a_session_token_that_was_signed_is_refused_and_named() {
        // Signed by this module's own primitives over the query with the token in it, as aws-sdk-js#1456 did.
        let mut vector = vector("token appended after signing");
        let query = parse_query(vector.target.split_once('?').unwrap().1).unwrap();
        let headers: Vec<_> =
            vector.headers.iter().map(|(n, v)| (n.clone(), v.clone().into_bytes())).collect();
        let request = SignedRequest { method: "GET", target: &vector.target, headers: &headers };
        let canonical =
            Canonical { request: &request, path: "/mqtt", query: &query, signed_headers: &["host"] };
        let hashed =
            hex(digest::digest(&digest::SHA256, &canonical.bytes(Variant::WithSessionToken)).as_ref());
        let scope = "20251123/ap-northeast-1/iotdevicegateway/aws4_request";
        let string_to_sign = format!("{ALGORITHM}\n20251123T234432Z\n{scope}\n{hashed}");
        let seed = format!("AWS4{}", vector.secret_key).into_bytes();
        let key =
            scope.split('/').fold(seed, |key, part| keyed_hash(&key, part.as_bytes()).as_ref().to_vec());
        let signature = hex(keyed_hash(&key, string_to_sign.as_bytes()).as_ref());
        let old = String::from_utf8(query[b"X-Amz-Signature".as_slice()].clone()).unwrap();
        vector.target = vector.target.replace(&old, &signature);
        assert_eq!(vector.verdict().unwrap_err(), Refusal::SignatureMismatch(Suspicion::SessionTokenSigned));
    }

    #[test]
    fn the_vectors_of_the_aws_sdk_and_aws4fetch_with_other_keys_agree() {
        // Known answers for AKIDEXAMPLE, the last as the AWS SDKs' C core signs.
        for (host, signed_headers, signature) in [
            (
                "abcdef123-ats.iot.ap-northeast-1.amazonaws.com",
                "host",
                "39d1b6ad25be5a3167d762b72ca21482fb12a33c0da7503eb3613031dc278049",
            ),
            ("127.0.0.1:8443", "host", "c3dea4e497fe885d0476f6db33b138546fa91d0c32708b2837cbcffb195befcc"),
            (
                "abcdef123-ats.iot.ap-northeast-1.amazonaws.com",
                "connection;host",
                "ddfe15da8821630097f07ad9555c8fcb00f6c0625c514e9e3cbeead35b8ac3f5",
            ),
        ] {
            let vector = Vector {
                name: String::new(),
                ok: true,
                reason: String::new(),
                method: String::from("GET"),
                target: format!(
                    "/mqtt?X-Amz-Signature={signature}&X-Amz-Date=20251123T234432Z&X-Amz-Algorithm=AWS4-HMAC-SHA256&\
                     X-Amz-Credential=AKIDEXAMPLE/20251123/ap-northeast-1/iotdevicegateway/aws4_request&\
                     X-Amz-SignedHeaders={signed_headers}"
                ),
                headers: vec![
                    (String::from("hOST"), format!("  {host} ")),
                    (String::from("Connection"), String::from("Upgrade")),
                ],
                access_key: String::from("AKIDEXAMPLE"),
                secret_key: String::from("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"),
                session_token: None,
                region: String::from("ap-northeast-1"),
                now: String::from("20251123T234432Z"),
            };
            assert_eq!(vector.verdict(), Ok(()), "{host} {signed_headers}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn no_target_panics_and_none_gets_in(target in "/mqtt\\?[ -~]{0,200}", header in prop::collection::vec(any::<u8>(), 0..40)) {
            let headers = [(String::from("Host"), header)];
            let request = SignedRequest { method: "GET", target: &target, headers: &headers };
            let realm = Realm {
                access_key_id: "A", secret_access_key: "B", session_token: None, region: "r", services: &["s"],
            };
            prop_assert!(verify(&request, &realm, SystemTime::UNIX_EPOCH).is_err());
        }

        #[test]
        fn any_one_changed_byte_of_a_good_request_is_refused(at in 0..4096_usize, to in 0x21..0x7f_u8) {
            let mut vector = vector("botocore order");
            let at = at % vector.target.len();
            let mut bytes = vector.target.clone().into_bytes();
            prop_assume!(bytes[at] != to);
            bytes[at] = to;
            let changed = String::from_utf8(bytes).unwrap();
            // Another spelling of the same parameters is the same request.
            let query = |target: &str| target.split_once('?').map(|(path, query)| (path.to_owned(), parse_query(query)));
            prop_assume!(query(&changed) != query(&vector.target));
            vector.target = changed;
            prop_assert!(vector.verdict().is_err());
        }
    }
}
