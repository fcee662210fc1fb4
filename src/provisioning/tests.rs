use serde_json::{Value, json};

use super::*;
use crate::call::Call;

/// Made by OpenSSL, as all in fixtures/issued.
const KEY: &str = include_str!("../../fixtures/issued/rsa.key");
const PEM: &str = include_str!("../../fixtures/issued/rsa.pem");
/// `openssl x509 -in rsa.pem -outform der | sha256sum`
const ID: &str = "310abfb620d4ed5b94410bc3ff786c934abd673aa708fefbcb8fff16deb6a425";

fn issued() -> Value {
    json!({
        "certificateId": ID,
        "certificatePem": PEM,
        "privateKey": KEY,
        "certificateOwnershipToken": "ey..pUIn0=",
    })
}

fn garbled<T: std::fmt::Debug>(outcome: Result<T, Cause>) -> String {
    match outcome {
        Err(Cause::Garbled { detail }) => detail,
        other => panic!("not garbled: {other:?}"),
    }
}

/// `issued()` with one field changed, or taken out.
fn issued_but(name: &str, value: Option<Value>) -> Vec<u8> {
    let mut reply = issued();
    match value {
        Some(value) => reply[name] = value,
        None => drop(reply.as_object_mut().unwrap().remove(name)),
    }
    reply.to_string().into_bytes()
}

/// The reply as the flow that this project grew from shows it: escaped newlines, this order.
#[test]
fn the_create_reply_of_the_seed() {
    let reply = format!(
        r#"{{
        "certificateId": "{ID}",
        "certificatePem": "{}",
        "privateKey": "{}",
        "certificateOwnershipToken": "ey..pUIn0="
    }}"#,
        PEM.replace('\n', "\\n"),
        KEY.replace('\n', "\\n")
    );
    let issued = parse_issued(reply.as_bytes()).unwrap();
    assert_eq!(issued.certificate_id.as_str(), ID);
    assert_eq!(issued.certificate_pem, PEM);
    assert_eq!(issued.private_key.expose(), KEY);
    assert_eq!(issued.ownership_token.expose(), "ey..pUIn0=");
}

#[test]
fn key_certificate_and_id_belong_together() {
    let other_key = include_str!("../../fixtures/issued/rsa-other.key");
    let other_kind = include_str!("../../fixtures/issued/p256.key");
    for (name, value, what) in [
        ("privateKey", other_key.to_owned(), "privateKey is not the private key of the certificate"),
        (
            "privateKey",
            other_kind.to_owned(),
            "privateKey does not parse as a private key of the certificate's kind",
        ),
        (
            "privateKey",
            KEY.replace("MII", "MIJ"),
            "privateKey does not parse as a private key of the certificate's kind",
        ),
        ("privateKey", format!("{KEY}{KEY}"), "privateKey has a second PEM block after the first"),
        ("certificateId", "0".repeat(64), "certificateId is not the SHA-256 of the certificate"),
        ("certificatePem", format!("{PEM}hunter2"), "certificatePem has text after its END line"),
        ("certificatePem", format!("{PEM}{PEM}"), "certificatePem has a second PEM block after the first"),
    ] {
        let reply = issued_but(name, Some(json!(value)));
        assert_eq!(garbled(parse_issued(&reply)), format!("accepted reply: {what}"));
    }
    for (name, value) in [("certificateId", "0".repeat(64)), ("certificatePem", format!("{PEM}{PEM}"))] {
        let mut reply: Value = serde_json::from_slice(&issued_but("privateKey", None)).unwrap();
        reply[name] = json!(value);
        assert!(garbled(parse_certified(reply.to_string().as_bytes())).contains(name));
    }
}

#[test]
fn the_register_reply_of_the_seed() {
    let thing = parse_registered(br#"{"deviceConfiguration":{},"thingName":"TWOK_9999999999"}"#).unwrap();
    assert_eq!(thing.thing_name, "TWOK_9999999999");
    assert!(thing.device_configuration.is_empty());
}

/// AWS IoT Developer Guide, RegisterThing response payload.
#[test]
fn the_register_reply_of_the_guide() {
    let reply =
        br#"{"deviceConfiguration": {"string": "string", "n": 1}, "thingName": "string", "new": [1]}"#;
    let thing = parse_registered(reply).unwrap();
    assert_eq!(thing.thing_name, "string");
    assert_eq!(thing.device_configuration["string"], "string");
    // A template without a thing.
    for reply in ["{}", r#"{"thingName":null}"#, r#"{"thingName":"","deviceConfiguration":null}"#] {
        assert_eq!(parse_registered(reply.as_bytes()).unwrap().thing_name, "", "{reply}");
    }
    for reply in [r#"{"thingName":"t"}"#, r#"{"thingName":"t","deviceConfiguration":null}"#] {
        assert!(parse_registered(reply.as_bytes()).unwrap().device_configuration.is_empty());
    }
}

/// The one literal rejection of the service that its users have published.
#[test]
fn a_rejection_of_the_service() {
    let reply = br#"{"statusCode":400,"errorCode":"InvalidCertificateOwnershipToken","errorMessage":"Certificate ownership token cannot be empty."}"#;
    assert_eq!(
        parse_rejected(reply),
        Cause::Rejected {
            status_code: 400,
            error_code: String::from("InvalidCertificateOwnershipToken"),
            error_message: String::from("Certificate ownership token cannot be empty."),
        }
    );
    for reply in [r#"{"statusCode":429}"#, r#"{"statusCode":429,"errorCode":null,"errorMessage":null}"#] {
        assert_eq!(parse_rejected(reply.as_bytes()).name(), "throttled");
    }
}

#[test]
fn requests_are_what_the_api_documents() {
    assert_eq!(&create_request().payload[..], b"{}");
    let token = Secret::new(String::from("ey\"\\="));
    let request = register_request(&token, [("SerialNumber", "1\n한"), ("B", "")]).payload;
    assert_eq!(
        std::str::from_utf8(&request).unwrap(),
        r#"{"certificateOwnershipToken":"ey\"\\=","parameters":{"SerialNumber":"1\n한","B":""}}"#
    );
    let request = register_request(&token, []).payload;
    assert_eq!(serde_json::from_slice::<Value>(&request).unwrap()["parameters"], json!({}));
}

#[test]
fn a_certificate_for_our_own_key_comes_without_one() {
    let request = csr_request(&SigningRequest { pem: String::from("-----BEGIN…\n\"") }).payload;
    assert_eq!(std::str::from_utf8(&request).unwrap(), r#"{"certificateSigningRequest":"-----BEGIN…\n\""}"#);
    let certified = parse_certified(&issued_but("privateKey", None)).unwrap();
    assert_eq!((certified.certificate_pem.as_str(), certified.private_key), (PEM, ()));
    for value in [json!(KEY), json!(null), json!("")] {
        let detail = garbled(parse_certified(&issued_but("privateKey", Some(value))));
        assert_eq!(detail, "accepted reply: privateKey is there, and the request was one without");
    }
    let only = |name: &str| {
        let mut reply = issued();
        let fields = reply.as_object_mut().unwrap();
        fields.remove("privateKey");
        fields.remove(name);
        reply.to_string().into_bytes()
    };
    for name in ["certificateId", "certificatePem", "certificateOwnershipToken"] {
        assert_eq!(garbled(parse_certified(&only(name))), format!("accepted reply: {name} is missing"));
    }
}

#[test]
fn only_the_lanes_of_a_run_are_subscribed_to() {
    let topics = Topics::of("T", &[Call::CreateCertificateFromCsr, Call::RegisterThing]);
    assert_eq!(topics.calls, [Call::CreateCertificateFromCsr, Call::RegisterThing]);
    assert_eq!(topics.call(Call::CreateCertificateFromCsr).request, "$aws/certificates/create-from-csr/json");
    assert_eq!(Topics::new("T").calls, [Call::CreateKeysAndCertificate, Call::RegisterThing]);
}

#[test]
fn a_wrong_field_is_named_and_not_quoted() {
    for name in ["certificateId", "certificatePem", "privateKey", "certificateOwnershipToken"] {
        let detail = garbled(parse_issued(&issued_but(name, None)));
        assert_eq!(detail, format!("accepted reply: {name} is missing"));
        for (value, kind) in [
            (json!(null), "null"),
            (json!(31337), "a number"),
            (json!(3.25), "a number"),
            (json!(true), "a boolean"),
            (json!(["hunter2"]), "an array"),
            (json!({"hunter2": 1}), "an object"),
        ] {
            let detail = garbled(parse_issued(&issued_but(name, Some(value))));
            assert_eq!(detail, format!("accepted reply: {name} is {kind}, not a string"));
        }
        let detail = garbled(parse_issued(&issued_but(name, Some(json!("")))));
        assert_eq!(detail, format!("accepted reply: {name} is empty"));
    }
    for (name, value, what) in [
        ("certificateId", "hunter2", "is not 64 hexadecimal digits"),
        ("certificatePem", "hunter2", "is not a certificate in PEM"),
        ("certificatePem", KEY, "is not a certificate in PEM"),
        ("privateKey", "hunter2", "is not a private key in PEM"),
        ("privateKey", PEM, "is not a private key in PEM"),
        ("privateKey", "-----BEGIN RSA PRIVATE KEY-----\nhunter2", "is not a private key in PEM"),
    ] {
        let detail = garbled(parse_issued(&issued_but(name, Some(json!(value)))));
        assert_eq!(detail, format!("accepted reply: {name} {what}"));
    }
}

#[test]
fn wrong_things_and_rejections_are_named() {
    for (reply, what) in [
        (r#"{"thingName":7}"#, "thingName is a number, not a string"),
        (r#"{"thingName":"a\u0000b"}"#, "thingName has control characters"),
        (r#"{"thingName":"t","deviceConfiguration":"x"}"#, "deviceConfiguration is a string, not an object"),
        (r#"{"thingName":"t","deviceConfiguration":[]}"#, "deviceConfiguration is an array, not an object"),
        (r#"{"thingName":"t","deviceConfiguration":{"a":1,"a":2}}"#, "deviceConfiguration has a key twice"),
    ] {
        assert_eq!(garbled(parse_registered(reply.as_bytes())), format!("accepted reply: {what}"));
    }
    for (reply, what) in [
        (r#"{}"#, "statusCode is missing"),
        (r#"{"statusCode":"429"}"#, "statusCode is a string, not an integer"),
        (r#"{"statusCode":429.5}"#, "statusCode is a number, not an integer"),
        (r#"{"statusCode":null}"#, "statusCode is null, not an integer"),
        (r#"{"statusCode":99}"#, "statusCode is not between 100 and 599"),
        (r#"{"statusCode":600}"#, "statusCode is not between 100 and 599"),
        (r#"{"statusCode":-400}"#, "statusCode is not between 100 and 599"),
        (r#"{"statusCode":18446744073709551615}"#, "statusCode is not between 100 and 599"),
        (r#"{"statusCode":400,"errorCode":7}"#, "errorCode is a number, not a string"),
        (r#"{"statusCode":400,"errorMessage":{}}"#, "errorMessage is an object, not a string"),
    ] {
        let Cause::Garbled { detail } = parse_rejected(reply.as_bytes()) else { panic!("{reply}") };
        assert_eq!(detail, format!("rejected reply: {what}"));
    }
}

#[test]
fn what_is_not_one_json_object_is_garbled() {
    let mut trailing = issued().to_string().into_bytes();
    trailing.extend_from_slice(b"hunter2");
    let twice = format!("{{\"privateKey\":\"hunter2\",{}", &issued().to_string()[1..]);
    let huge = format!("{{\"x\":\"{}\"}}", "h".repeat(MAX_PAYLOAD));
    for (payload, what) in [
        (&b""[..], "malformed JSON at line 1 column 0"),
        (b"\"hunter2\"", "not a JSON object"),
        (b"[]", "not a JSON object"),
        (b"null", "not a JSON object"),
        (b"{\"privateKey\":\"hunter2", "malformed JSON at line 1 column"),
        (b"{'hunter2'}", "malformed JSON at line 1 column 2"),
        (b"\xef\xbb\xbf{}", "malformed JSON"),
        (b"{\"a\":\"\xff\"}", "not UTF-8"),
        (&trailing, "malformed JSON"),
        (twice.as_bytes(), "privateKey is there twice"),
        (b"{\"hunter2\":1,\"hunter2\":2}", "an unknown key is there twice"),
        (huge.as_bytes(), "more than the service's 131072"),
    ] {
        let detail = garbled(parse_issued(payload));
        assert!(detail.contains(what), "{detail}");
        assert!(!detail.contains("hunter2"), "{detail}");
    }
}

#[test]
fn words_of_a_rejection_are_cleaned() {
    let message = format!("bad\u{1b}[2J {KEY} {}", "long ".repeat(300));
    let reply = json!({"statusCode": 400, "errorCode": "E\r\nX", "errorMessage": message}).to_string();
    let Cause::Rejected { error_code, error_message, .. } = parse_rejected(reply.as_bytes()) else {
        panic!("not a rejection")
    };
    assert_eq!(error_code, "E  X");
    assert!(error_message.starts_with("bad [2J [private key redacted]"), "{error_message}");
    assert_eq!(error_message.chars().count(), crate::wording::MAX_CHARS);
}

#[test]
fn template_names_are_checked() {
    for right in ["T", "TEMP_DEVICE", "a-b_0", &"x".repeat(36)] {
        assert_eq!(check_template_name(right), Ok(()));
    }
    for wrong in ["", "a b", "a/b", "+", "#", "템플릿", &"x".repeat(37)] {
        let said = check_template_name(wrong).unwrap_err().to_string();
        assert!(said.contains("1 to 36"), "{said}");
    }
}

mod any_bytes {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn are_parsed_or_refused(at in 0_usize..400, byte in any::<u8>(), cut in 0_usize..400) {
            let mut payload = issued().to_string().into_bytes();
            if let Some(target) = payload.get_mut(at) { *target = byte; }
            let cut = payload.len().saturating_sub(cut / 4);
            for payload in [&payload[..], &payload[..cut]] {
                for cause in [parse_issued(payload).err(), parse_registered(payload).err(), Some(parse_rejected(payload))] {
                    let shown = format!("{cause:?}");
                    prop_assert!(!shown.contains("MIIE"), "{}", shown);
                }
            }
        }
    }
}
