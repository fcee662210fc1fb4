//! The verifier against the vectors, and against requests that no client would sign.

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
            has_expired: false,
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

/// The requests that botocore and aws4fetch signed, each with its own order of parameters.
#[derive(Deserialize)]
struct Signed {
    name: String,
    access_key: String,
    secret_key: String,
    session_token: Option<String>,
    region: String,
    host_header: String,
    datetime: String,
    url: String,
    url_aws4fetch: Option<String>,
}

#[test]
fn every_url_that_the_reference_signers_made_is_accepted() {
    #[derive(Deserialize)]
    struct SignFixture {
        sign: Vec<Signed>,
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/sigv4-vectors.json");
    let signed = serde_json::from_slice::<SignFixture>(&std::fs::read(path).unwrap()).unwrap().sign;
    assert!(signed.len() >= 30);
    for vector in signed {
        for url in [Some(&vector.url), vector.url_aws4fetch.as_ref()].into_iter().flatten() {
            let target = &url[url.find("/mqtt").unwrap()..];
            let headers = [(String::from("Host"), vector.host_header.clone().into_bytes())];
            let realm = Realm {
                access_key_id: &vector.access_key,
                secret_access_key: &vector.secret_key,
                session_token: vector.session_token.as_deref(),
                has_expired: false,
                region: &vector.region,
                services: &["iotdevicegateway"],
            };
            let request = SignedRequest { method: "GET", target, headers: &headers };
            let now = parse_date(&vector.datetime).unwrap().into();
            assert_eq!(verify(&request, &realm, now), Ok(()), "{}: {target}", vector.name);
        }
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
    assert_eq!(with("X-Amz-Algorithm=AWS4-HMAC-SHA256", "X-Amz-Algorithm=AWS3"), Refusal::UnknownAlgorithm);
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
    let headers: Vec<_> = vector.headers.iter().map(|(n, v)| (n.clone(), v.clone().into_bytes())).collect();
    let request = SignedRequest { method: "GET", target: &vector.target, headers: &headers };
    let canonical =
        Canonical { request: &request, path: "/mqtt", query: &query, signed_headers: &["host"], body: b"" };
    let hashed =
        hex::encode(digest::digest(&digest::SHA256, &canonical.bytes(Variant::WithSessionToken)).as_ref());
    let scope = "20251123/ap-northeast-1/iotdevicegateway/aws4_request";
    let string_to_sign = format!("{ALGORITHM}\n20251123T234432Z\n{scope}\n{hashed}");
    let seed = format!("AWS4{}", vector.secret_key).into_bytes();
    let key = scope.split('/').fold(seed, |key, part| keyed_hash(&key, part.as_bytes()).as_ref().to_vec());
    let signature = hex::encode(keyed_hash(&key, string_to_sign.as_bytes()).as_ref());
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
            access_key_id: "A", secret_access_key: "B", session_token: None, has_expired: false, region: "r", services: &["s"],
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
