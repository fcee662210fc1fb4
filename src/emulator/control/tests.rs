//! The operations on an account, without a wire.

use std::time::Duration;

use super::super::account::Certified;
use super::*;

const ID: &str = "0f0f";
const ARN: &str = "arn:aws:iot:us-east-1:123456789012:cert/0f0f";

/// An account with a registered thing `t` on the certificate [`ID`], of the built-in template.
fn account(scenario: &Scenario) -> Account {
    let mut account = Account::new(scenario).unwrap();
    register(&mut account, ID, "t");
    account
}

fn register(account: &mut Account, id: &str, thing: &str) {
    let now = UNIX_EPOCH + Duration::from_millis(1_766_000_000_500);
    let certified = Certified { certificate_pem: String::from("pem\n"), certificate_id: id.to_owned() };
    let created: Value = serde_json::from_slice(&account.create_from_csr(now, certified).payload).unwrap();
    let parameters = json!({"DeviceId": thing, "SerialNumber": "1", "MacAddress": "AA"});
    let request =
        json!({"certificateOwnershipToken": created["certificateOwnershipToken"], "parameters": parameters});
    let answer = account.register(now, "TEMP_DEVICE", request.to_string().as_bytes());
    assert_eq!(answer.verdict.name(), "accepted");
}

/// Asks with method, target, principal and body; the status and the reply or error.
fn ask(
    account: &mut Account,
    method: &str,
    target: &str,
    principal: Option<&str>,
    body: &str,
) -> (String, Value) {
    let scenario = Scenario::default();
    let path = target.split('?').next().unwrap();
    let operation = Operation::of(method, path).unwrap();
    let asked = Asked { query: Query::of(target), principal, body: body.as_bytes() };
    let owner = Owner { scenario: &scenario, port: 8443, host: "localhost" };
    let response = match operation.perform(&owner, account, &asked) {
        Ok(reply) => success(&reply, UNIX_EPOCH),
        Err(error) => refused(&error, UNIX_EPOCH),
    };
    let kind = response.headers.iter().find(|(name, _)| *name == "x-amzn-ErrorType");
    let outcome = kind.map_or(String::from("ok"), |(_, kind)| format!("{} {kind}", &response.status[..3]));
    (outcome, serde_json::from_str(&response.body).unwrap())
}

#[test]
fn what_is_there_is_described() {
    let account = &mut account(&Scenario::default());
    let (_, thing) = ask(account, "GET", "/things/t", None, "");
    assert_eq!(thing["thingArn"], "arn:aws:iot:us-east-1:123456789012:thing/t");
    assert_eq!((&thing["thingTypeName"], &thing["version"]), (&json!("TwokDevice"), &json!(1)));
    assert_eq!(thing["attributes"]["macAddress"], "AA");
    assert_eq!(thing["thingId"].as_str().unwrap().len(), 36);
    assert!(thing.get("billingGroupName").is_none());
    let (_, certificate) = ask(account, "GET", "/certificates/0f0f", None, "");
    let description = &certificate["certificateDescription"];
    assert_eq!((&description["certificateArn"], &description["status"]), (&json!(ARN), &json!("ACTIVE")));
    assert_eq!(description["creationDate"], json!(1_766_000_000.5));
    let (_, principals) = ask(account, "GET", "/things/t/principals", None, "");
    assert_eq!(principals, json!({"principals": [ARN]}));
    let (_, things) = ask(account, "GET", "/principals/things", Some(ARN), "");
    assert_eq!(things, json!({"things": ["t"]}));
    let target = "/attached-policies/arn%3Aaws%3Aiot%3Aus-east-1%3A123456789012%3Acert%2F0f0f";
    let (_, policies) = ask(account, "POST", target, None, "");
    assert_eq!(policies["policies"][0]["policyName"], "TwokDevicePolicy");
    let (_, endpoint) = ask(account, "GET", "/endpoint?endpointType=iot%3AData-ATS", None, "");
    assert_eq!(endpoint, json!({"endpointAddress": "localhost:8443"}));
    let (_, template) = ask(account, "GET", "/provisioning-templates/TEMP_DEVICE", None, "");
    assert!(template["templateBody"].as_str().unwrap().contains("AWS::IoT::Thing"));
}

#[test]
fn a_device_is_cleaned_up_in_the_services_order_only() {
    let account = &mut account(&Scenario::default());
    let target = json!({"target": ARN}).to_string();
    let steps: [(&str, &str, Option<&str>, &str, &str); 12] = [
        ("DELETE", "/certificates/0f0f", None, "", "406 CertificateStateException"),
        ("DELETE", "/things/t", None, "", "400 InvalidRequestException"),
        ("PUT", "/certificates/0f0f?newStatus=INACTIVE", None, "", "ok"),
        ("DELETE", "/certificates/0f0f?forceDelete=true", None, "", "409 DeleteConflictException"),
        ("DELETE", "/things/t/principals", Some(ARN), "", "ok"),
        ("DELETE", "/things/t/principals", Some(ARN), "", "ok"),
        ("DELETE", "/certificates/0f0f", None, "", "409 DeleteConflictException"),
        ("POST", "/target-policies/TwokDevicePolicy", None, &target, "ok"),
        ("DELETE", "/certificates/0f0f", None, "", "ok"),
        ("DELETE", "/things/t?expectedVersion=2", None, "", "409 VersionConflictException"),
        ("DELETE", "/things/t?expectedVersion=1", None, "", "ok"),
        ("DELETE", "/things/t", None, "", "ok"),
    ];
    for (method, path, principal, body, outcome) in steps {
        assert_eq!(ask(account, method, path, principal, body).0, outcome, "{method} {path}");
    }
    assert!(account.state().things.is_empty() && account.state().certificates.is_empty());
}

#[test]
fn a_forced_deletion_takes_policies_along() {
    let account = &mut account(&Scenario::default());
    ask(account, "DELETE", "/things/t/principals", Some(ARN), "");
    ask(account, "PUT", "/certificates/0f0f?newStatus=REVOKED", None, "");
    assert_eq!(ask(account, "DELETE", "/certificates/0f0f?forceDelete=true", None, "").0, "ok");
}

#[test]
fn what_is_not_there_and_what_is_not_right_have_their_errors() {
    let account = &mut account(&Scenario::default());
    let unknown = Some("arn:aws:iot:us-east-1:123456789012:cert/00");
    let (not_found, invalid) = ("404 ResourceNotFoundException", "400 InvalidRequestException");
    let cases: [(&str, &str, Option<&str>, &str, &str); 19] = [
        ("GET", "/things/x", None, "", not_found),
        ("GET", "/things/x/principals", None, "", not_found),
        ("DELETE", "/things/x/principals", Some(ARN), "", not_found),
        ("DELETE", "/things/t/principals", unknown, "", not_found),
        ("GET", "/certificates/00", None, "", not_found),
        ("PUT", "/certificates/00?newStatus=ACTIVE", None, "", not_found),
        ("DELETE", "/certificates/00", None, "", not_found),
        ("GET", "/principals/things", unknown, "", not_found),
        ("GET", "/provisioning-templates/x", None, "", not_found),
        ("GET", "/principals/things", None, "", invalid),
        ("GET", "/principals/things", Some("0f0f"), "", invalid),
        ("DELETE", "/things/t/principals", Some("arn:aws:iot:eu-west-1:1:cert/0f0f"), "", invalid),
        ("PUT", "/certificates/0f0f", None, "", invalid),
        ("PUT", "/certificates/0f0f?newStatus=PENDING_ACTIVATION", None, "", invalid),
        ("POST", "/target-policies/p", None, "", invalid),
        ("POST", "/target-policies/p", None, "[]", invalid),
        ("GET", "/things/t/principals?maxResults=0", None, "", invalid),
        ("GET", "/things/t/principals?nextToken=%21", None, "", invalid),
        ("GET", "/endpoint?endpointType=iot:Jobs", None, "", invalid),
    ];
    for (method, path, principal, body, outcome) in cases {
        let (found, error) = ask(account, method, path, principal, body);
        assert_eq!(found, outcome, "{method} {path}");
        assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{method} {path}");
    }
}

#[test]
fn long_lists_come_in_pages() {
    let account = &mut account(&Scenario::default());
    for n in 1..=4 {
        register(account, &format!("{n:04x}"), "t");
    }
    let (mut found, mut token) = (Vec::new(), String::new());
    for size in [2, 2, 1] {
        let target = format!("/things/t/principals?maxResults=2{token}");
        let (_, page) = ask(account, "GET", &target, None, "");
        assert_eq!(page["principals"].as_array().unwrap().len(), size);
        found.extend(page["principals"].as_array().unwrap().clone());
        token = page["nextToken"].as_str().map(|token| format!("&nextToken={token}")).unwrap_or_default();
    }
    assert_eq!(token, "");
    found.dedup();
    assert_eq!(found.len(), 5);
}

#[test]
fn what_the_control_plane_changed_is_a_change() {
    let account = &mut account(&Scenario::default());
    account.watch_changes();
    let mut copy = account.state().clone();
    for (method, path) in [
        ("PUT", "/certificates/0f0f?newStatus=INACTIVE"),
        ("DELETE", "/things/t/principals"),
        ("DELETE", "/certificates/0f0f?forceDelete=true"),
        ("DELETE", "/things/t"),
    ] {
        assert_eq!(ask(account, method, path, Some(ARN), "").0, "ok");
        copy.apply(account.take_changes().unwrap());
        assert_eq!(copy, *account.state(), "{method} {path}");
    }
}
