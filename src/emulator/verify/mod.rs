//! Checks Signature Version 4 as the service does, on a request as it was received: in the query of a WebSocket
//! handshake, or in the Authorization header of a control plane request.
//!
//! Owns the verdict and the texts of refusals. Knows no socket. Shares no code with the crate's signer: two
//! implementations that agree are evidence, one that agrees with itself is not.
//!
//! Sources: AWS IAM User Guide, "Create a signed AWS API request"; AWS IoT Developer Guide, "Protocols" (the session
//! token is outside the signature); refusals captured by users of the service, for the texts and for the window of five
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

mod header;
mod refusal;

pub use header::{is_signed, verify_header};
pub use refusal::{Refusal, Suspicion};

/// How far the signer's clock and ours may be apart, in either direction.
pub const WINDOW: Duration = Duration::minutes(5);

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const DATE_FORMAT: &[BorrowedFormatItem<'_>] =
    format_description!("[year][month][day]T[hour][minute][second]Z");

/// A request as it was received: neither decoded nor normalised.
#[derive(Debug, Clone, Copy)]
pub struct SignedRequest<'a> {
    /// The method.
    pub method: &'a str,
    /// The request target, path and query.
    pub target: &'a str,
    /// Header names and values in order; names in any case.
    pub headers: &'a [(String, Vec<u8>)],
}

/// The credentials and scope of signatures that are accepted.
#[derive(Debug, Clone, Copy)]
pub struct Realm<'a> {
    /// The access key.
    pub access_key_id: &'a str,
    /// Its secret.
    pub secret_access_key: &'a str,
    /// The session token that must accompany the access key; `None` if the credentials are not temporary.
    pub session_token: Option<&'a str>,
    /// Whether these credentials are temporary and have expired.
    pub has_expired: bool,
    /// The region that the credential scope must have.
    pub region: &'a str,
    /// The services that the credential scope may have.
    pub services: &'a [&'a str],
}

/// Checks the signature in the query of `request`, as of `now`.
///
/// Headers that `X-Amz-SignedHeaders` lists are used as received, whichever they are: the AWS SDKs' C core signs
/// `connection;host`. Parameters may come in any order, escaped in any way; the session token may be anywhere.
///
/// # Errors
///
/// The first error found, in this order: the query, the scope, the clock, the signed headers, the session token, the
/// signature.
pub fn verify(request: &SignedRequest<'_>, realm: &Realm<'_>, now: SystemTime) -> Result<(), Refusal> {
    let (path, query) = request.target.split_once('?').unwrap_or((request.target, ""));
    let query = parse_query(query)?;
    let claim = Claim::parse(&query)?;
    claim.check_scope(realm)?;
    claim.check_clock(now.into())?;
    let signed_headers = claim.signed_headers(request)?;
    check_session_token(&query, realm)?;

    // A handshake has no body.
    let canonical = Canonical { request, path, query: &query, signed_headers: &signed_headers, body: b"" };
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

/// The access key that a request claims to be signed with, in its query or its Authorization header. It selects the
/// realm.
pub fn claimed_access_key(request: &SignedRequest<'_>) -> Option<String> {
    let (_, query) = request.target.split_once('?').unwrap_or((request.target, ""));
    let query = parse_query(query).ok()?;
    let credential = match query.get(b"X-Amz-Credential".as_slice()) {
        Some(credential) => text(credential)?,
        None => header::credential(request)?,
    };
    credential.split('/').next().map(str::to_owned)
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
        let date = text(required(query, "X-Amz-Date")?).ok_or(Refusal::MalformedDate)?;
        let signed_headers =
            text(required(query, "X-Amz-SignedHeaders")?).ok_or(Refusal::MalformedSignedHeaders)?;
        Self::new(credential, date, signed_headers, required(query, "X-Amz-Signature")?)
    }

    fn new(
        credential: &'a str,
        date: &'a str,
        signed_headers: &'a str,
        signature: &'a [u8],
    ) -> Result<Self, Refusal> {
        let mut parts = credential.split('/');
        let [Some(access_key_id), Some(day), Some(region), Some(service), Some("aws4_request"), None] =
            std::array::from_fn(|_| parts.next())
        else {
            return Err(Refusal::MalformedCredential);
        };
        Ok(Self {
            access_key_id,
            day,
            region,
            service,
            date,
            instant: parse_date(date).ok_or(Refusal::MalformedDate)?,
            signed_headers,
            signature,
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
        // The service's texts have whole seconds only, so the comparison uses whole seconds too.
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
        let hashed = hex::encode(digest::digest(&digest::SHA256, &canonical.bytes(variant)).as_ref());
        let string_to_sign = format!("{ALGORITHM}\n{}\n{scope}\n{hashed}", self.date);
        let seed = format!("AWS4{}", realm.secret_access_key);
        let key = [self.region, self.service, "aws4_request"]
            .iter()
            .fold(keyed_hash(seed.as_bytes(), self.day.as_bytes()), |key, part| {
                keyed_hash(key.as_ref(), part.as_bytes())
            });
        let signature = hex::encode(keyed_hash(key.as_ref(), string_to_sign.as_bytes()).as_ref());
        verify_slices_are_equal(signature.as_bytes(), self.signature).is_ok()
    }
}

/// The request to canonicalise: as received, or as it would be signed with a known mistake.
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
    body: &'a [u8],
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
        out.extend_from_slice(hex::encode(digest::digest(&digest::SHA256, self.body).as_ref()).as_bytes());
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
        // The order is that of the escaped names, which differs from that of the decoded ones.
        pairs.sort_unstable();
        pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
    }

    /// All values of a header, trimmed, with inner runs of spaces collapsed to one, joined by commas.
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
        // A long-lived key has no token; a key that comes with one is not the key we know.
        (Some(_), None) => Err(Refusal::WrongSessionToken),
        (Some(given), Some(wanted)) => {
            verify_slices_are_equal(given, wanted.as_bytes()).map_err(|_| Refusal::WrongSessionToken)
        }
    }?;
    if realm.has_expired { Err(Refusal::ExpiredToken) } else { Ok(()) }
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
        let name = unescape_form(name).ok_or(Refusal::MalformedQuery)?;
        let value = unescape_form(value).ok_or(Refusal::MalformedQuery)?;
        if query.contains_key(&name) {
            return Err(Refusal::DuplicateParameter(String::from_utf8_lossy(&name).into_owned()));
        }
        query.insert(name, value);
    }
    Ok(query)
}

/// Decodes a query, with `+` as a space, as in forms: aws4fetch encodes tokens that way. A token with an unescaped `+`
/// therefore decodes to a different one.
fn unescape_form(raw: &str) -> Option<Vec<u8>> {
    unescape(&raw.replace('+', "%20"))
}

/// Decodes percent-encoding, in upper or lower case; `+` stays a plus.
pub(super) fn unescape(raw: &str) -> Option<Vec<u8>> {
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

/// Percent-encodes all but RFC 3986's unreserved characters, in upper-case hexadecimal.
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

/// The path, escaped once more than it was received, as SigV4 requires for every service but S3.
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
    // The parser would accept a sign before the year; the service's format has only digits at these places.
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

#[cfg(test)]
mod tests;
