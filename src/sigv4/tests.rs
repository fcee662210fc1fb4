//! Signatures against vectors from two other implementations.

use serde::Deserialize;

use super::*;
use crate::endpoint::Endpoint;

#[derive(Deserialize)]
struct Vectors {
    sign: Vec<Vector>,
}

#[derive(Deserialize)]
struct Vector {
    name: String,
    access_key: String,
    secret_key: String,
    session_token: Option<String>,
    region: String,
    host: String,
    host_header: String,
    path: String,
    datetime: String,
    expires: Option<u64>,
    canonical_request: String,
    string_to_sign: String,
    signing_key: String,
    signature: String,
    url: String,
}

impl Vector {
    fn credentials(&self) -> Credentials {
        Credentials {
            access_key_id: self.access_key.clone(),
            secret_access_key: Secret::new(self.secret_key.clone()),
            session_token: self.session_token.clone().map(Secret::new),
        }
    }

    fn now(&self) -> SystemTime {
        let format = time::macros::format_description!("[year][month][day]T[hour][minute][second]Z");
        time::PrimitiveDateTime::parse(&self.datetime, format).unwrap().assume_utc().into()
    }
}

fn vectors() -> Vec<Vector> {
    let text = include_str!("../../fixtures/sigv4-vectors.json");
    serde_json::from_str::<Vectors>(text).unwrap().sign
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    push_hex(&mut text, bytes);
    text
}

/// Computed with botocore and cross-checked with aws4fetch; neither shares code with this file or aws-sigv4.
#[test]
fn every_vector_is_reproduced_step_by_step() {
    let vectors = vectors();
    assert_eq!(vectors.len(), 31);
    for vector in vectors {
        let (credentials, now) = (vector.credentials(), vector.now());
        let expires = vector.expires.map(Duration::from_secs);
        let signer = Signer::new(&vector.region);
        let stamp = Stamp::of(now).unwrap();
        let target = signer.unsigned_target(&credentials, &vector.path, &stamp, expires);
        let canonical = canonical_request(&target, &vector.path, &vector.host_header);
        assert_eq!(canonical, vector.canonical_request, "{}", vector.name);
        assert_eq!(signer.string_to_sign(&stamp, &canonical), vector.string_to_sign, "{}", vector.name);
        let key = generate_signing_key(&vector.secret_key, now, &vector.region, SIGNING_NAME);
        assert_eq!(hex(key.as_ref()), vector.signing_key, "{}", vector.name);

        // Twice: the second time the key comes from the cache.
        for _ in 0..2 {
            let signed =
                signer.presign(&credentials, &vector.host_header, &vector.path, now, expires).unwrap();
            assert_eq!(format!("wss://{}{}", vector.host, signed.expose()), vector.url, "{}", vector.name);
            assert!(signed.expose().contains(&vector.signature), "{}", vector.name);
        }
    }
}

#[test]
fn an_endpoint_gives_the_host_header_that_is_signed() {
    for vector in vectors() {
        let endpoint: Endpoint = vector.host.parse().unwrap();
        assert_eq!(endpoint.host_header(), vector.host_header, "{}", vector.name);
    }
}

#[test]
fn upper_case_in_the_host_header_is_signed_in_lower_case() {
    let vector = vectors().into_iter().find(|vector| vector.host != vector.host_header).unwrap();
    let signed = Signer::new(&vector.region)
        .presign(&vector.credentials(), &vector.host_header.to_ascii_uppercase(), "/mqtt", vector.now(), None)
        .unwrap();
    assert!(signed.expose().contains(&vector.signature));
}

#[test]
fn one_signer_follows_the_day_and_the_secret() {
    let signer = Signer::new("ap-northeast-1");
    for vector in vectors().iter().chain(vectors().iter().rev()) {
        if vector.region == signer.region() && vector.expires.is_none() {
            let signed =
                signer.presign(&vector.credentials(), &vector.host_header, "/mqtt", vector.now(), None);
            assert!(signed.unwrap().expose().contains(&vector.signature), "{}", vector.name);
        }
    }
}

#[test]
fn neither_signer_nor_result_shows_a_secret() {
    let vector = vectors().into_iter().find(|vector| vector.session_token.is_some()).unwrap();
    let signer = Signer::new(&vector.region);
    let credentials = vector.credentials();
    let signed = signer.presign(&credentials, "h", "/mqtt", vector.now(), None).unwrap();
    let shown = format!("{signer:?} {credentials:?} {signed:?}");
    assert!(!shown.contains(&vector.secret_key) && !shown.contains("IQoJ"), "{shown}");
    assert!(!shown.contains("X-Amz-Signature"), "{shown}");
}

#[test]
fn what_cannot_be_signed_is_said() {
    let signer = Signer::new("eu-west-1");
    let credentials = |id: &str, secret: &str| Credentials {
        access_key_id: id.to_owned(),
        secret_access_key: Secret::new(secret.to_owned()),
        session_token: None,
    };
    let sign = |credentials: &Credentials, now| signer.presign(credentials, "h", "/mqtt", now, None);
    let now = SystemTime::UNIX_EPOCH;
    assert_eq!(sign(&credentials("", "s"), now), Err(SignError::NoAccessKeyId));
    assert_eq!(sign(&credentials("a", ""), now), Err(SignError::NoSecretAccessKey));
    let good = credentials("a", "s");
    assert_eq!(sign(&good, now - Duration::from_secs(1)), Err(SignError::Clock));
    assert_eq!(sign(&good, now + Duration::from_secs(253_402_300_800)), Err(SignError::Clock));
    assert!(sign(&good, now + Duration::from_secs(253_402_300_799)).is_ok());
}

#[test]
fn regions_are_found_in_endpoint_names() {
    for (host, region) in [
        ("a1b2-ats.iot.ap-northeast-1.amazonaws.com", Some("ap-northeast-1")),
        ("a1b2.iot.us-east-1.amazonaws.com", Some("us-east-1")),
        ("a1b2.ats.iot.cn-north-1.amazonaws.com.cn", Some("cn-north-1")),
        ("a1b2-ats.iot.us-gov-west-1.amazonaws.com", Some("us-gov-west-1")),
        ("data.iot-fips.us-west-2.amazonaws.com", Some("us-west-2")),
        ("vpce-0a-1b.data.iot.eu-west-3.vpce.amazonaws.com", Some("eu-west-3")),
        ("a1b2-ats.iot.eu-central-1.api.aws", Some("eu-central-1")),
        ("iot.eu-west-1.amazonaws.com", Some("eu-west-1")),
        ("s3.eu-west-1.amazonaws.com", None),
        ("a1b2-ats.iot.amazonaws.com", None),
        ("a1b2-ats.iot.eu-west-1.amazonaws.com.evil.example", None),
        ("a1b2-ats.iot.nowhere.amazonaws.com", None),
        ("localhost", None),
        ("", None),
    ] {
        assert_eq!(region_of(host), region, "{host}");
    }
}
