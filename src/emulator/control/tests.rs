//! The list of operations, and the rules of some. `scripts/control-plane` shows that third-party clients understand
//! them.

use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};

use super::*;
use crate::emulator::account::{Account, Certified};

const ID: &str = "0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f";

fn arn() -> String {
    format!("arn:aws:iot:us-east-1:123456789012:cert/{ID}")
}

struct Bench {
    scenario: Scenario,
    account: Account,
    seconds: u64,
}

impl Bench {
    /// An account with a registered thing `t` on the certificate [`ID`], of the built-in template.
    fn new(scenario: Scenario) -> Self {
        let account = Account::new(&scenario).unwrap();
        let mut bench = Self { scenario, account, seconds: 1_766_000_000 };
        bench.register(ID, "t");
        bench
    }

    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.seconds)
    }

    fn register(&mut self, id: &str, thing: &str) {
        let now = self.now();
        let certified = Certified { certificate_pem: String::from("pem\n"), certificate_id: id.to_owned() };
        let created = self.account.create_from_csr(now, certified).payload;
        let created: Value = serde_json::from_slice(&created).unwrap();
        let parameters = json!({"DeviceId": thing, "SerialNumber": "1", "MacAddress": "AA"});
        let request = json!({
            "certificateOwnershipToken": created["certificateOwnershipToken"],
            "parameters": parameters,
        });
        let answer = self.account.register(now, "TEMP_DEVICE", request.to_string().as_bytes());
        assert_eq!(answer.verdict.name(), "accepted");
    }

    /// Sends a request with this method, target, header and body. Returns an error's status and type, and the reply.
    fn ask(
        &mut self,
        method: &str,
        target: &str,
        header: Option<(&str, &str)>,
        body: &str,
    ) -> (String, Value) {
        let path = target.split('?').next().unwrap();
        let Asked::Known(row, names) = find_path(method, path) else { panic!("{method} {path}") };
        let mut headers: Vec<_> =
            header.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect();
        let names_signed = header.map_or("host", |(name, _)| name);
        let authorization =
            format!("AWS4-HMAC-SHA256 Credential=x, SignedHeaders=host;{names_signed}, Signature=x");
        headers.push((String::from("authorization"), authorization.into_bytes()));
        let signed = SignedRequest { method, target, headers: &headers };
        let owner = Owner { scenario: &self.scenario, port: 8443, host: "localhost", age: Duration::ZERO };
        let now = UNIX_EPOCH + Duration::from_secs(self.seconds);
        self.account.expire(now);
        let mut call = Call {
            owner: &owner,
            account: &mut self.account,
            now,
            names,
            query: Query::of_target(target),
            signed: &signed,
            body: body.as_bytes(),
            material: Material::None,
        };
        let answer = (row.perform)(&mut call);
        let response = reply::response(Api::Iot, answer, UNIX_EPOCH);
        let kind = response.headers.iter().find(|(name, _)| *name == "x-amzn-ErrorType");
        let outcome =
            kind.map_or(String::from("ok"), |(_, kind)| format!("{} {kind}", &response.status[..3]));
        (outcome, serde_json::from_str(&response.body).unwrap())
    }

    fn outcome(&mut self, method: &str, target: &str, header: Option<(&str, &str)>, body: &str) -> String {
        self.ask(method, target, header, body).0
    }
}

#[test]
fn every_row_is_an_operation_of_the_service_at_its_place() {
    let known: Vec<_> = catalogue::rows().collect();
    for row in IOT {
        assert!(
            known.contains(&(row.method, row.path, row.name)),
            "{} {} {}",
            row.method,
            row.path,
            row.name
        );
        assert_eq!(row.permission, format!("iot:{}", row.name));
        assert!(is_permission(row.permission));
    }
    for action in ["iot:Describe", "iot:ListAuditTasks", "sts:GetCallerIdentity", ""] {
        assert!(!is_permission(action), "{action}");
    }
}

#[test]
fn a_path_leads_to_its_operation() {
    let found = |method: &str, path: &str| match find_path(method, path) {
        Asked::Known(row, names) => format!("{} {}", row.name, names.join("|")),
        Asked::Missing(name) => format!("lacks {name}"),
        Asked::Nothing => String::from("nothing"),
    };
    for (method, path, expected) in [
        ("GET", "/things/a%3Ab", "DescribeThing a:b"),
        ("GET", "/things/a:b", "DescribeThing a:b"),
        ("GET", "/things/a:b/principals", "ListThingPrincipals a:b"),
        ("POST", "/attached-policies/a%2Fb", "ListAttachedPolicies a/b"),
        ("PUT", "/thing-groups/addThingToThingGroup", "AddThingToThingGroup "),
        ("GET", "/provisioning-templates/T/versions/2", "DescribeProvisioningTemplateVersion T|2"),
        ("GET", "/audit/tasks", "lacks ListAuditTasks"),
        ("POST", "/thing-registration-tasks", "lacks StartThingRegistrationTask"),
        ("HEAD", "/things/t", "nothing"),
        ("GET", "/", "nothing"),
        ("GET", "*", "nothing"),
        ("GET", "/things/", "nothing"),
        ("GET", "/things/a/principals/b", "nothing"),
        ("GET", "/things/%GG", "nothing"),
        ("GET", "/things/%ff", "nothing"),
        ("GET", "/Things/t", "nothing"),
    ] {
        assert_eq!(found(method, path), expected, "{method} {path}");
    }
}

#[test]
fn a_device_is_cleaned_up_in_the_services_order_only() {
    let mut bench = Bench::new(Scenario::default());
    let (arn, certificate) = (arn(), format!("/certificates/{ID}"));
    let target = json!({ "target": arn }).to_string();
    let principal = Some(("x-amzn-principal", arn.as_str()));
    let inactive = format!("{certificate}?newStatus=INACTIVE");
    for (expected, method, path, header, body) in [
        ("406 CertificateStateException", "DELETE", certificate.as_str(), None, ""),
        ("400 InvalidRequestException", "DELETE", "/things/t", None, ""),
        ("ok", "PUT", &inactive, None, ""),
        ("409 DeleteConflictException", "DELETE", &certificate, None, ""),
        ("400 InvalidRequestException", "DELETE", "/things/t/principals", None, ""),
        ("ok", "DELETE", "/things/t/principals", principal, ""),
        ("409 DeleteConflictException", "DELETE", &certificate, None, ""),
        ("409 DeleteConflictException", "DELETE", "/policies/TwokDevicePolicy", None, ""),
        ("ok", "POST", "/target-policies/TwokDevicePolicy", None, &target),
        ("ok", "DELETE", "/policies/TwokDevicePolicy", None, ""),
        ("ok", "DELETE", &certificate, None, ""),
        ("404 ResourceNotFoundException", "DELETE", &certificate, None, ""),
        ("409 VersionConflictException", "DELETE", "/things/t?expectedVersion=7", None, ""),
        ("ok", "DELETE", "/things/t?expectedVersion=1", None, ""),
        ("ok", "DELETE", "/things/t", None, ""),
    ] {
        assert_eq!(bench.outcome(method, path, header, body), expected, "{method} {path}");
    }
    assert!(bench.account.state().things.is_empty() && bench.account.state().certificates.is_empty());
}

#[test]
fn a_detachment_may_take_a_while() {
    let mut bench = Bench::new(Scenario { detach_lag: Duration::from_secs(3), ..Scenario::default() });
    let arn = arn();
    let principal = Some(("x-amzn-principal", arn.as_str()));
    let listed =
        |bench: &mut Bench| bench.ask("GET", "/things/t/principals", None, "").1["principals"].clone();
    assert_eq!(bench.outcome("DELETE", "/things/t/principals", principal, ""), "ok");
    assert_eq!(listed(&mut bench), json!([arn]), "not yet");
    assert_eq!(bench.outcome("DELETE", "/things/t", None, ""), "400 InvalidRequestException");
    bench.seconds += 3;
    assert_eq!(listed(&mut bench), json!([]));
    // A certificate that was attached again meanwhile stays attached.
    assert_eq!(bench.outcome("PUT", "/things/t/principals", principal, ""), "ok");
    assert_eq!(bench.outcome("DELETE", "/things/t/principals", principal, ""), "ok");
    assert_eq!(bench.outcome("PUT", "/things/t/principals", principal, ""), "ok");
    bench.seconds += 60;
    assert_eq!(listed(&mut bench), json!([arn]));
}

#[test]
fn a_header_that_is_not_signed_is_not_there() {
    let mut bench = Bench::new(Scenario::default());
    let arn = arn();
    let headers = [
        (String::from("x-amzn-principal"), arn.clone().into_bytes()),
        (
            String::from("authorization"),
            b"AWS4-HMAC-SHA256 Credential=x, SignedHeaders=host, Signature=x".to_vec(),
        ),
    ];
    let signed = SignedRequest { method: "GET", target: "/principals/things", headers: &headers };
    let owner = Owner { scenario: &bench.scenario, port: 1, host: "localhost", age: Duration::ZERO };
    let call = Call {
        owner: &owner,
        account: &mut bench.account,
        now: UNIX_EPOCH,
        names: Vec::new(),
        query: Query::default(),
        signed: &signed,
        body: b"",
        material: Material::None,
    };
    assert_eq!(call.header("x-amzn-principal"), None);
}

#[test]
fn a_list_comes_in_pages() {
    let mut bench = Bench::new(Scenario::default());
    for number in 0..5 {
        bench.register(&format!("{number:064x}"), "t");
        bench.seconds += 1;
    }
    for (path, field, key, token, size) in [
        ("/things/t/principals", "principals", None, "nextToken", "maxResults"),
        ("/certificates", "certificates", Some("certificateArn"), "marker", "pageSize"),
    ] {
        let mut seen = Vec::new();
        let mut target = format!("{path}?{size}=2");
        for page in 0..3 {
            let (_, reply) = bench.ask("GET", &target, None, "");
            let items = reply[field].as_array().unwrap().clone();
            assert_eq!(items.len(), 2);
            seen.extend(items.into_iter().map(|item| key.map_or(item.clone(), |key| item[key].clone())));
            let next = reply.get(if token == "marker" { "nextMarker" } else { "nextToken" });
            assert_eq!(next.is_some(), page < 2, "{path}");
            target = format!("{path}?{size}=2&{token}={}", next.and_then(Value::as_str).unwrap_or_default());
        }
        let mut sorted = seen.clone();
        sorted.sort_by_key(Value::to_string);
        sorted.dedup();
        assert_eq!(sorted.len(), 6, "{path}: {seen:?}");
        if token == "marker" {
            assert!(seen[0].as_str().unwrap().ends_with('4'), "the latest first");
        }
    }
    for wrong in ["maxResults=0", "maxResults=251", "maxResults=x", "nextToken=%21"] {
        let outcome = bench.outcome("GET", &format!("/things?{wrong}"), None, "");
        assert_eq!(outcome, "400 InvalidRequestException", "{wrong}");
    }
}

#[test]
fn a_journal_sees_what_the_control_plane_changes() {
    let mut bench = Bench::new(Scenario::default());
    bench.account.watch_changes();
    let mut copy = bench.account.state().clone();
    let arn = arn();
    let (target, principal) =
        (json!({ "target": arn }).to_string(), Some(("x-amzn-principal", arn.as_str())));
    let certificate = format!("/certificates/{ID}");
    let inactive = format!("{certificate}?newStatus=INACTIVE");
    for (method, path, header, body) in [
        ("PUT", inactive.as_str(), None, ""),
        ("POST", "/thing-groups/g", None, "{}"),
        ("PUT", "/thing-groups/addThingToThingGroup", None, r#"{"thingName": "t", "thingGroupName": "g"}"#),
        ("POST", "/billing-groups/b", None, "{}"),
        (
            "PUT",
            "/billing-groups/addThingToBillingGroup",
            None,
            r#"{"thingName": "t", "billingGroupName": "b"}"#,
        ),
        ("DELETE", "/things/t/principals", principal, ""),
        ("POST", "/target-policies/TwokDevicePolicy", None, &target),
        ("DELETE", &certificate, None, ""),
        ("DELETE", "/thing-groups/g", None, ""),
        ("DELETE", "/things/t", None, ""),
        ("POST", "/thing-types/TwokDevice/deprecate", None, ""),
        ("DELETE", "/provisioning-templates/TEMP_DEVICE", None, ""),
    ] {
        assert_eq!(bench.outcome(method, path, header, body), "ok", "{method} {path}");
        copy.apply(bench.account.take_changes().unwrap());
        assert_eq!(copy, *bench.account.state(), "{method} {path}");
    }
}

#[test]
fn a_template_has_as_many_versions_as_the_scenario_says() {
    let mut bench = Bench::new(Scenario { template_versions: 2, ..Scenario::default() });
    let body =
        json!({ "templateBody": include_str!("../../../fixtures/templates/temp-device.json") }).to_string();
    let mut add = || bench.ask("POST", "/provisioning-templates/TEMP_DEVICE/versions", None, &body);
    assert_eq!(add().1["versionId"], 2);
    assert_eq!(add().0, "409 VersionsLimitExceededException");
}
