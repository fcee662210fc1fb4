//! Signature Version 4 in the Authorization header, as control plane requests have it.
//!
//! Owns the header's format. Its parts are checked like those of a signature in the query.

use std::time::SystemTime;

use super::{
    Canonical, Claim, Query, Realm, Refusal, SignedRequest, Suspicion, Variant, parse_query,
    verify_slices_are_equal,
};

/// Checks the signature in the Authorization header of `request` with this `body`, as of `now`. Unlike for a query
/// signature, the session token is an ordinary header, and the body is signed.
///
/// # Errors
///
/// The first error found, in this order: the header, the query, the scope, the clock, the signed headers, the session
/// token, the signature.
pub fn verify_header(
    request: &SignedRequest<'_>,
    body: &[u8],
    realm: &Realm<'_>,
    now: SystemTime,
) -> Result<(), Refusal> {
    let authorization = header(request, "authorization").ok_or(Refusal::NotSigned)?;
    let date = header(request, "x-amz-date").ok_or(Refusal::MissingHeader("X-Amz-Date"))?;
    let parts = Parts::of(authorization)?;
    let (path, query) = request.target.split_once('?').unwrap_or((request.target, ""));
    let query: Query = parse_query(query)?;
    let claim = Claim::new(parts.credential, date, parts.signed_headers, parts.signature.as_bytes())?;
    claim.check_scope(realm)?;
    claim.check_clock(now.into())?;
    let signed_headers = claim.signed_headers(request)?;
    check_all_signed(request, parts.signed_headers)?;
    check_session_token(request, realm)?;
    let canonical = Canonical { request, path, query: &query, signed_headers: &signed_headers, body };
    if claim.matches(&canonical, Variant::AsReceived, realm) {
        return Ok(());
    }
    let suspicion = if claim.matches(&canonical, Variant::HostWithoutPort, realm) {
        Suspicion::HostSignedWithoutPort
    } else {
        Suspicion::Nothing
    };
    Err(Refusal::SignatureMismatch(suspicion))
}

/// The parts of the header: `AWS4-HMAC-SHA256 Credential=…, SignedHeaders=…, Signature=…`.
struct Parts<'a> {
    credential: &'a str,
    signed_headers: &'a str,
    signature: &'a str,
}

impl<'a> Parts<'a> {
    fn of(authorization: &'a str) -> Result<Self, Refusal> {
        let (algorithm, rest) = authorization.split_once(' ').ok_or(Refusal::MalformedAuthorization)?;
        if algorithm != super::ALGORITHM {
            return Err(Refusal::UnknownAlgorithm);
        }
        let part = |name: &str| {
            let named = |part: &'a str| part.trim().strip_prefix(name)?.strip_prefix('=');
            let mut values = rest.split(',').filter_map(named);
            // Each may be given only once: of two, a proxy could have meant the other.
            values.next().filter(|_| values.next().is_none()).ok_or(Refusal::MalformedAuthorization)
        };
        Ok(Self {
            credential: part("Credential")?,
            signed_headers: part("SignedHeaders")?,
            signature: part("Signature")?,
        })
    }
}

/// Checks that AWS's own headers are signed, because they are acted on: otherwise an intermediary could choose whose
/// policy is detached.
fn check_all_signed(request: &SignedRequest<'_>, signed: &str) -> Result<(), Refusal> {
    let acted_on = |name: &str| {
        name.starts_with("x-amz-")
            || matches!(name, "x-amzn-principal" | "x-amzn-iot-principal" | "x-amzn-iot-policy")
    };
    let mut names = request.headers.iter().map(|(name, _)| name.to_ascii_lowercase());
    match names.find(|name| acted_on(name) && !signed.split(';').any(|other| other == name)) {
        Some(name) => Err(Refusal::UnsignedHeader(name)),
        None => Ok(()),
    }
}

fn check_session_token(request: &SignedRequest<'_>, realm: &Realm<'_>) -> Result<(), Refusal> {
    match (header(request, "x-amz-security-token"), realm.session_token) {
        (None, None) => Ok(()),
        (None, Some(_)) => Err(Refusal::MissingSessionToken),
        (Some(_), None) => Err(Refusal::WrongSessionToken),
        (Some(given), Some(wanted)) => verify_slices_are_equal(given.as_bytes(), wanted.as_bytes())
            .map_err(|_| Refusal::WrongSessionToken),
    }?;
    if realm.has_expired { Err(Refusal::ExpiredToken) } else { Ok(()) }
}

/// Whether the signature covers the header `name`. An intermediary could have added an unsigned one.
pub fn is_signed(request: &SignedRequest<'_>, name: &str) -> bool {
    let parts = header(request, "authorization").and_then(|authorization| Parts::of(authorization).ok());
    parts.is_some_and(|parts| parts.signed_headers.split(';').any(|signed| signed.eq_ignore_ascii_case(name)))
}

/// The credential in the Authorization header.
pub(super) fn credential<'a>(request: &SignedRequest<'a>) -> Option<&'a str> {
    Parts::of(header(request, "authorization")?).ok().map(|parts| parts.credential)
}

/// The first header with this name, if it is text.
fn header<'a>(request: &SignedRequest<'a>, name: &str) -> Option<&'a str> {
    let (_, value) = request.headers.iter().find(|(other, _)| other.eq_ignore_ascii_case(name))?;
    std::str::from_utf8(value).ok().map(str::trim)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::super::parse_date;
    use super::*;

    const REALM: Realm<'_> = Realm {
        access_key_id: "AKIDEXAMPLE",
        secret_access_key: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
        session_token: None,
        has_expired: false,
        region: "us-east-1",
        services: &["iot", "execute-api"],
    };
    const NOW: &str = "20251123T234432Z";
    const HOST: &str = "localhost:8443";

    /// A request that botocore signed with the keys, the host and the time above.
    #[derive(Clone, Deserialize)]
    struct Vector {
        method: String,
        target: String,
        /// Those that were signed besides the host and the date.
        headers: Vec<(String, String)>,
        body: String,
        service: String,
        signed_headers: String,
        signature: String,
    }

    #[derive(Deserialize)]
    struct Fixture {
        vectors: Vec<Vector>,
    }

    fn vectors() -> Vec<Vector> {
        let text = include_str!("../../../fixtures/sigv4-header-vectors.json");
        serde_json::from_str::<Fixture>(text).unwrap().vectors
    }

    impl Vector {
        fn received(&self) -> Vec<(String, Vec<u8>)> {
            let authorization = format!(
                "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20251123/us-east-1/{}/aws4_request, \
                 SignedHeaders={}, Signature={}",
                self.service, self.signed_headers, self.signature
            );
            let own = [("Host", HOST), ("X-Amz-Date", NOW), ("Authorization", &authorization)];
            let own = own.map(|(name, value)| (name.to_owned(), value.to_owned()));
            let all = own.into_iter().chain(self.headers.clone());
            all.map(|(name, value)| (name, value.into_bytes())).collect()
        }

        /// The realm that it was signed for.
        fn realm(&self) -> Realm<'_> {
            let token = self.headers.iter().find(|(name, _)| name == "X-Amz-Security-Token");
            Realm { session_token: token.map(|(_, token)| token.as_str()), ..REALM }
        }

        fn verdict(&self, realm: &Realm<'_>) -> Result<(), Refusal> {
            self.verdict_of(&self.received(), realm)
        }

        fn verdict_of(&self, headers: &[(String, Vec<u8>)], realm: &Realm<'_>) -> Result<(), Refusal> {
            let request = SignedRequest { method: &self.method, target: &self.target, headers };
            verify_header(&request, self.body.as_bytes(), realm, parse_date(NOW).unwrap().into())
        }
    }

    #[test]
    fn what_botocore_signed_is_taken_and_nothing_else() {
        assert!(vectors().len() >= 8);
        let mismatch = || Err(Refusal::SignatureMismatch(Suspicion::Nothing));
        for vector in vectors() {
            let (realm, name) = (vector.realm(), &vector.target);
            assert_eq!(vector.verdict(&realm), Ok(()), "{name}");
            assert_eq!(vector.verdict(&Realm { secret_access_key: "wrong", ..realm }), mismatch(), "{name}");
            for change in [
                |vector: &mut Vector| vector.body.push(' '),
                |vector: &mut Vector| vector.method.push('X'),
                |vector: &mut Vector| vector.target.push('X'),
                |vector: &mut Vector| vector.signature.replace_range(..1, "x"),
            ] {
                let mut changed = vector.clone();
                change(&mut changed);
                assert_eq!(changed.verdict(&realm), mismatch(), "{name}");
            }
        }
    }

    #[test]
    fn each_thing_that_is_wrong_has_its_own_reason() {
        let vector = &vectors()[0];
        let with = |name: &str, change: &dyn Fn(&str) -> Option<String>| {
            let changed = vector.received().into_iter().filter_map(|(other, value)| {
                if other == name {
                    change(std::str::from_utf8(&value).unwrap()).map(|value| (other, value.into_bytes()))
                } else {
                    Some((other, value))
                }
            });
            let changed: Vec<_> = changed.collect();
            vector.verdict_of(&changed, &REALM).unwrap_err()
        };
        let authorization = |from: &'static str, to: &'static str| {
            with("Authorization", &|value| {
                assert!(value.contains(from), "{from}");
                Some(value.replace(from, to))
            })
        };
        assert_eq!(with("Authorization", &|_| None), Refusal::NotSigned);
        assert_eq!(with("X-Amz-Date", &|_| None), Refusal::MissingHeader("X-Amz-Date"));
        assert_eq!(with("X-Amz-Date", &|_| Some(String::from("now"))), Refusal::MalformedDate);
        assert_eq!(with("Authorization", &|_| Some(String::from("Bearer"))), Refusal::MalformedAuthorization);
        assert_eq!(authorization("AWS4-HMAC-SHA256", "AWS3"), Refusal::UnknownAlgorithm);
        assert_eq!(authorization("Signature=", "Sig="), Refusal::MalformedAuthorization);
        assert_eq!(authorization("Signature=", "Signature=x, Signature="), Refusal::MalformedAuthorization);
        assert_eq!(authorization("aws4_request", "aws5_request"), Refusal::MalformedCredential);
        assert_eq!(authorization("AKIDEXAMPLE", "AKIDOTHER"), Refusal::UnknownAccessKey("AKIDOTHER".into()));
        assert!(matches!(authorization("/iot/", "/iotdata/"), Refusal::WrongService { .. }));
        assert!(matches!(authorization("us-east-1", "eu-west-1"), Refusal::WrongRegion { .. }));
        assert_eq!(authorization("host;", ""), Refusal::HostNotSigned);
        assert_eq!(authorization("host;", "host;x-a;"), Refusal::SignedHeaderAbsent("x-a".into()));
        assert_eq!(
            with("Host", &|_| Some(String::from("other"))),
            Refusal::SignatureMismatch(Suspicion::Nothing)
        );
        let temporary = Realm { session_token: Some("token"), ..REALM };
        assert_eq!(vector.verdict(&temporary), Err(Refusal::MissingSessionToken));
        let expired = Realm { has_expired: true, ..REALM };
        assert_eq!(vector.verdict(&expired), Err(Refusal::ExpiredToken));
    }
}
