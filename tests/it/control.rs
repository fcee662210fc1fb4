//! The emulator's control plane from outside: HTTPS by hand, signed here with neither the crate's signer nor its verifier.

use std::time::{Duration, SystemTime};

use aws_lc_rs::{digest, hmac};
use fleetmint::emulator::Emulator;
use fleetmint::emulator::scenario::Scenario;
use rcgen::{CertificateParams, KeyPair, PublicKeyData};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::macros::format_description;
use x509_parser::pem::parse_x509_pem;

use crate::emulator::{Client, header, hex, scenario, start};

/// A request that is signed in its Authorization header.
struct Request<'a> {
    method: &'a str,
    target: &'a str,
    principal: Option<&'a str>,
    body: &'a str,
    secret: &'a str,
    at: SystemTime,
    /// Lines that are not signed.
    more: &'a str,
}

fn get(target: &str) -> Request<'_> {
    let secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
    Request { method: "GET", target, principal: None, body: "", secret, at: SystemTime::now(), more: "" }
}

impl Request<'_> {
    fn sign(&self, emulator: &Emulator) -> String {
        let host = format!("localhost:{}", emulator.local_addr().port());
        let date = OffsetDateTime::from(self.at)
            .format(format_description!("[year][month][day]T[hour][minute][second]Z"))
            .unwrap();
        let scope = format!("{}/{}/iot/aws4_request", &date[..8], Scenario::default().region);
        let sha256 = |bytes: &[u8]| hex(digest::digest(&digest::SHA256, bytes).as_ref());
        let mut headers = vec![("host", host.as_str()), ("x-amz-date", &date)];
        headers.extend(self.principal.map(|principal| ("x-amzn-principal", principal)));
        let names = headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
        let lines: String = headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
        let (path, query) = self.target.split_once('?').unwrap_or((self.target, ""));
        let path = path.replace('%', "%25");
        let canonical =
            format!("{}\n{path}\n{query}\n{lines}\n{names}\n{}", self.method, sha256(self.body.as_bytes()));
        let to_sign = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", sha256(canonical.as_bytes()));
        let mac = |key: &[u8], text: &str| {
            hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
        };
        let key =
            scope.split('/').fold(format!("AWS4{}", self.secret).into_bytes(), |key, part| mac(&key, part));
        let signature = hex(&mac(&key, &to_sign));
        let access_key = Scenario::default().access_key_id;
        let received: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let length = self.body.len();
        format!(
            "{} {} HTTP/1.1\r\n{received}Authorization: AWS4-HMAC-SHA256 Credential={access_key}/{scope}, \
             SignedHeaders={names}, Signature={signature}\r\nContent-Length: {length}\r\n{}\r\n{}",
            self.method, self.target, self.more, self.body
        )
    }
}

/// Performs an operation; its status and body.
pub async fn perform(emulator: &Emulator, method: &str, target: &str) -> (String, String) {
    let request = Request { method, ..get(target) }.sign(emulator);
    let (head, body) = Client::dial(emulator).await.ask(&request).await;
    (status_of(&head).to_owned(), body)
}

/// Performs an operation on a principal, or with a body; its status and body.
pub async fn ask(
    emulator: &Emulator,
    method: &str,
    target: &str,
    principal: Option<&str>,
    body: &str,
) -> (String, String) {
    let request = Request { method, principal, body, ..get(target) }.sign(emulator);
    let (head, body) = Client::dial(emulator).await.ask(&request).await;
    (status_of(&head).to_owned(), body)
}

fn status_of(head: &str) -> &str {
    head.split(' ').nth(1).unwrap()
}

fn parse(body: &str) -> Value {
    serde_json::from_str(body).unwrap()
}

#[tokio::test]
async fn a_provisioned_device_is_described_and_cleaned_up_on_one_connection() {
    let emulator = start(scenario()).await;
    let (issued, _) = Client::connected(&emulator, "device").await.provision("a:b").await;
    let id = issued["certificateId"].as_str().unwrap();
    let arn = format!("arn:aws:iot:us-east-1:123456789012:cert/{id}");
    let mut client = Client::dial(&emulator).await;

    let (head, thing) = client.ask(&get("/things/a%3Ab").sign(&emulator)).await;
    assert_eq!(status_of(&head), "200");
    assert_eq!(header(&head, "content-type"), Some("application/json"));
    assert_eq!(parse(&thing)["thingName"], "a:b");
    let certificate_path = format!("/certificates/{id}");
    let (_, certificate) = client.ask(&get(&certificate_path).sign(&emulator)).await;
    let description = &parse(&certificate)["certificateDescription"];
    assert_eq!(description["certificatePem"], issued["certificatePem"]);
    // Developer Guide, "X.509 client certificates": 2049-12-31T23:59:59Z.
    assert_eq!(description["validity"]["notAfter"], 2_524_607_999_u32);
    let principals = Request { principal: Some(&arn), ..get("/principals/things?maxResults=3") };
    let (_, things) = client.ask(&principals.sign(&emulator)).await;
    assert_eq!(parse(&things), json!({"things": ["a:b"]}));
    let (_, endpoint) = client.ask(&get("/endpoint").sign(&emulator)).await;
    assert_eq!(parse(&endpoint)["endpointAddress"], format!("localhost:{}", emulator.local_addr().port()));

    let inactive = format!("{certificate_path}?newStatus=INACTIVE");
    let target = json!({ "target": arn }).to_string();
    let expecting = "Expect: 100-continue\r\n";
    for (status, request) in [
        ("406", Request { method: "DELETE", ..get(&certificate_path) }),
        ("200", Request { method: "PUT", ..get(&inactive) }),
        ("200", Request { method: "DELETE", principal: Some(&arn), ..get("/things/a%3Ab/principals") }),
        ("200", Request { method: "POST", body: &target, ..get("/target-policies/TwokDevicePolicy") }),
        ("200", Request { method: "DELETE", ..get(&certificate_path) }),
        ("200", Request { method: "DELETE", ..get("/things/a%3Ab") }),
        ("404", get("/things/a%3Ab")),
        ("404", Request { method: "POST", body: &target, more: expecting, ..get("/target-policies/p") }),
    ] {
        let (mut head, mut body) = client.ask(&request.sign(&emulator)).await;
        if !request.more.is_empty() {
            assert_eq!((status_of(&head), body.as_str()), ("100", ""));
            (head, body) = client.ask("").await;
        }
        assert_eq!(status_of(&head), status, "{} {}: {body}", request.method, request.target);
        assert_eq!(header(&head, "x-amzn-ErrorType").is_some(), status != "200");
    }
    assert!(emulator.inspect(|account| account.state().things.is_empty()));
    assert_eq!((emulator.counters().control_requests, emulator.counters().accepted), (12, 2));
    emulator.shutdown().await;
}

#[tokio::test]
async fn a_request_that_is_not_signed_well_is_forbidden_by_name() {
    let emulator = start(scenario()).await;
    let mut client = Client::dial(&emulator).await;
    let ten_minutes = Duration::from_secs(600);
    let wrong = Request { secret: "wrong", ..get("/endpoint") };
    let late = Request { at: SystemTime::now() - ten_minutes, ..get("/endpoint") };
    let unknown = get("/endpoint").sign(&emulator).replace("Credential=AKIA", "Credential=AKIB");
    let bare = String::from("GET /endpoint HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let garbled = get("/endpoint").sign(&emulator).replace("Signature=", "Sig=");
    let another = get("/endpoint").sign(&emulator).replace("GET /endpoint", "GET /things/t");
    for (request, kind) in [
        (wrong.sign(&emulator), "InvalidSignatureException"),
        (late.sign(&emulator), "InvalidSignatureException"),
        (another, "InvalidSignatureException"),
        (unknown, "UnrecognizedClientException"),
        (bare, "MissingAuthenticationTokenException"),
        (garbled, "IncompleteSignatureException"),
    ] {
        let (head, body) = client.ask(&request).await;
        assert_eq!((status_of(&head), header(&head, "x-amzn-ErrorType")), ("403", Some(kind)), "{body}");
        assert!(parse(&body)["message"].is_string());
    }
    assert_eq!(status_of(&client.ask(&get("/endpoint").sign(&emulator)).await.0), "200");
    // What there is not is told to those who may ask: by the operation's name where the service has it.
    for (target, status, words) in [
        ("/audit/tasks", "501", "The emulator does not offer ListAuditTasks."),
        ("/nothing", "404", "There is no operation at GET /nothing; MQTT over WebSockets is at /mqtt."),
    ] {
        let (head, body) = client.ask(&get(target).sign(&emulator)).await;
        assert_eq!((status_of(&head), parse(&body)["message"].as_str()), (status, Some(words)));
    }
    assert_eq!((emulator.counters().forbidden, emulator.counters().control_requests), (6, 3));
    emulator.shutdown().await;
}

#[tokio::test]
async fn what_http_cannot_carry_is_told_and_closed() {
    let emulator = start(scenario()).await;
    let request = |line: &str, headers: &str| format!("{line} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
    for (request, status) in [
        (request("POST /target-policies/p", "Content-Length: 65537\r\n"), "413"),
        (request("POST /target-policies/p", "Transfer-Encoding: chunked\r\n"), "411"),
        (request("POST /target-policies/p", "Content-Length: x\r\n"), "400"),
        (Request { more: "Connection: close\r\n", ..get("/endpoint") }.sign(&emulator), "200"),
    ] {
        let mut client = Client::dial(&emulator).await;
        let (head, body) = client.ask(&request).await;
        assert_eq!(status_of(&head), status, "{request}");
        assert_eq!(header(&head, "connection"), Some("close"));
        assert!(parse(&body).is_object());
        assert!(!client.fill().await, "{status}: closed");
    }
    emulator.shutdown().await;
}

#[tokio::test]
async fn a_clients_own_key_is_certified_and_registered() {
    let emulator = start(scenario()).await;
    let mut client = Client::connected(&emulator, "device").await;
    let topic = "$aws/certificates/create-from-csr/json";
    let key = KeyPair::generate().unwrap();
    let der = CertificateParams::default().serialize_request(&key).unwrap().der().to_vec();
    let csr = crate::emulator::pem("CERTIFICATE REQUEST", &der);
    let request = json!({ "certificateSigningRequest": csr });
    let mut ids = Vec::new();
    for name in ["one", "two"] {
        let (reply, issued) = client.request(topic, &request).await;
        assert_eq!(reply, format!("{topic}/accepted"), "{issued}");
        assert_eq!(issued.as_object().unwrap().len(), 3);
        let (_, pem) = parse_x509_pem(issued["certificatePem"].as_str().unwrap().as_bytes()).unwrap();
        let certificate = pem.parse_x509().unwrap();
        assert_eq!(certificate.public_key().raw, key.subject_public_key_info());
        assert_eq!(issued["certificateId"], hex(digest::digest(&digest::SHA256, &pem.contents).as_ref()));
        client.register(&issued["certificateOwnershipToken"], name).await;
        ids.push(issued["certificateId"].clone());
    }
    assert_ne!(ids[0], ids[1], "the same request twice makes two certificates");
    let broken = json!({ "certificateSigningRequest": csr.replacen("MI", "MJ", 1) });
    let (reply, error) = client.request(topic, &broken).await;
    assert_eq!((reply, &error["statusCode"]), (format!("{topic}/rejected"), &json!(400)));
    assert!(error["errorMessage"].as_str().unwrap().contains("not a PKCS#10"), "{error}");
    emulator.shutdown().await;
}

#[tokio::test]
async fn a_principal_that_is_not_signed_is_not_acted_on() {
    let emulator = start(scenario()).await;
    let (issued, _) = Client::connected(&emulator, "device").await.provision("a").await;
    let id = issued["certificateId"].as_str().unwrap();
    let more = format!("x-amzn-principal: arn:aws:iot:us-east-1:123456789012:cert/{id}\r\n");
    let request = Request { method: "DELETE", more: &more, ..get("/things/a/principals") };
    let (head, body) = Client::dial(&emulator).await.ask(&request.sign(&emulator)).await;
    assert_eq!(status_of(&head), "403", "{body}");
    emulator.inspect(|account| assert_eq!(account.state().things["a"].principals.len(), 1));
    emulator.shutdown().await;
}
