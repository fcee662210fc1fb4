//! The account as its clients see it.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::super::scenario::{NamedTemplate, Scenario, TemplateSource};
use super::*;

const CONFIGURED: &str = include_str!("../../../fixtures/templates/configured-device.json");
const TEMPLATE: &str = "TEMP_DEVICE";

/// `seconds` after some instant.
fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_766_000_000 + seconds)
}

/// The `n`-th certificate. It need not be real, because the account does not parse it.
fn minted(n: u64) -> Minted {
    Minted {
        certificate_pem: format!("-----BEGIN CERTIFICATE-----\n{n}\n-----END CERTIFICATE-----\n"),
        certificate_id: format!("{n:064x}"),
        private_key_pem: Secret::new(format!("-----BEGIN RSA PRIVATE KEY-----\n{n}\n")),
    }
}

fn account(scenario: &str) -> Account {
    Account::new(&Scenario::from_toml(scenario).unwrap()).unwrap()
}

/// The id of the `n`-th certificate.
fn id(n: u64) -> Fingerprint {
    minted(n).certificate_id.parse().unwrap()
}

/// The ids of the certificates on a thing.
fn principals(thing: &Thing) -> Vec<Fingerprint> {
    thing.certificate_ids().collect()
}

/// An account whose `TEMP_DEVICE` is this body.
fn account_with_template(body: &str) -> Account {
    let source = TemplateSource::Body(body.to_owned());
    let templates = vec![NamedTemplate { name: TEMPLATE.to_owned(), source, hook: None }];
    Account::new(&Scenario { templates, resources: Resources::Assumed, ..Scenario::default() }).unwrap()
}

fn parse(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.payload).unwrap()
}

/// Makes the `n`-th certificate and returns its token.
fn create(account: &mut Account, now: SystemTime, n: u64) -> String {
    let answer = account.create_keys(now, b"{}", minted(n));
    assert_eq!(answer.verdict, Verdict::Accepted);
    parse(&answer)["certificateOwnershipToken"].as_str().unwrap().to_owned()
}

fn request(token: &str, name: &str) -> Vec<u8> {
    let parameters = json!({"DeviceId": name, "SerialNumber": "1", "MacAddress": "AA:BB"});
    json!({"certificateOwnershipToken": token, "parameters": parameters}).to_string().into_bytes()
}

fn register(account: &mut Account, now: SystemTime, token: &str, name: &str) -> Answer {
    account.register(now, TEMPLATE, &request(token, name))
}

/// Asserts that `answer` is a rejection, and returns its status, code and message.
fn rejection(answer: &Answer) -> (u64, String, String) {
    assert_eq!(answer.verdict, Verdict::Rejected, "{:?}", parse(answer));
    let reply = parse(answer);
    let text = |name: &str| reply[name].as_str().unwrap().to_owned();
    assert_eq!(reply.as_object().unwrap().len(), 3);
    (reply["statusCode"].as_u64().unwrap(), text("errorCode"), text("errorMessage"))
}

fn message(answer: &Answer) -> String {
    rejection(answer).2
}

#[test]
fn a_device_is_provisioned() {
    let mut account = account("");
    let answer = account.create_keys(at(0), b"", minted(1));
    assert_eq!(answer.verdict, Verdict::Accepted);
    let reply = parse(&answer);
    let names: Vec<_> = reply.as_object().unwrap().keys().collect();
    assert_eq!(names, ["certificateId", "certificateOwnershipToken", "certificatePem", "privateKey"]);
    assert_eq!(reply["certificateId"], minted(1).certificate_id);
    assert_eq!(reply["privateKey"], **minted(1).private_key_pem.expose());
    let certificate = &account.state().certificates[&id(1)];
    assert_eq!(certificate.status, CertificateStatus::PendingActivation);
    assert_eq!(certificate.created, at(0));

    let token = reply["certificateOwnershipToken"].as_str().unwrap();
    let answer = register(&mut account, at(1), token, "thing-1");
    assert_eq!(answer.verdict, Verdict::Accepted);
    assert_eq!(answer.payload, r#"{"deviceConfiguration":{},"thingName":"thing-1"}"#);
    let state = account.state();
    let thing = &state.things["thing-1"];
    assert_eq!(thing.type_name.as_deref(), Some("TwokDevice"));
    assert_eq!(thing.attributes.get("deviceType"), Some("H"), "a default");
    assert_eq!(principals(thing), [id(1)]);
    let certificate = &state.certificates[&id(1)];
    assert_eq!(certificate.status, CertificateStatus::Active);
    assert_eq!(certificate.things.iter().collect::<Vec<_>>(), ["thing-1"]);
    assert_eq!(certificate.policies.iter().collect::<Vec<_>>(), ["TwokDevicePolicy"]);
    assert_eq!((state.counters.certificates_created, state.counters.registered), (1, 1));
    assert_eq!((state.counters.rejected, state.counters.capitalised_parameters), (0, 0));
}

/// The seed's request, verbatim except for what the create reply provides.
fn seed_request(token: &str) -> Vec<u8> {
    json!({
        "certificateOwnershipToken": token,
        "Parameters": {
            "CertificateId": minted(1).certificate_id,
            "MacAddress": "AA:BB:CC:DD:EE:01",
            "DeviceId": "TWOK_9999999999",
            "DeviceKey": "ABCDEFG",
            "DeviceType": "H",
            "Environment": "DEV",
            "SerialNumber": "123456789012",
            "Version": "1.0.1"
        }
    })
    .to_string()
    .into_bytes()
}

#[test]
fn the_seeds_request_is_answered_as_the_seed_shows_and_counted() {
    let mut account = account("");
    let token = create(&mut account, at(0), 1);
    let answer = account.register(at(1), TEMPLATE, &seed_request(&token));
    assert_eq!(answer.payload, r#"{"deviceConfiguration":{},"thingName":"TWOK_9999999999"}"#);
    assert_eq!(account.state().counters.capitalised_parameters, 1);
    let attributes = &account.state().things["TWOK_9999999999"].attributes;
    assert_eq!(attributes.get("macAddress"), Some("AA:BB:CC:DD:EE:01"));
    assert_eq!(attributes.get("version"), Some("1.0.1"));
    assert!(
        !attributes.iter().any(|(_, value)| value == "ABCDEFG"),
        "a thing's attributes are no place for a key"
    );
}

#[test]
fn a_strict_account_does_not_see_capitals() {
    let mut account = account("strict = true");
    let token = create(&mut account, at(0), 1);
    let answer = account.register(at(1), TEMPLATE, &seed_request(&token));
    let (status, _, message) = rejection(&answer);
    assert_eq!(
        (status, message.as_str()),
        (
            400,
            "Parameter DeviceId, which Resources.thing.Properties.ThingName refers to, has neither a value nor a default."
        )
    );
    assert_eq!(account.state().counters.capitalised_parameters, 1);
    assert!(account.state().things.is_empty());
}

#[test]
fn a_token_must_be_there_and_known() {
    let mut account = account("");
    create(&mut account, at(0), 1);
    let empty = (
        400,
        "InvalidCertificateOwnershipToken".to_owned(),
        "Certificate ownership token cannot be empty.".to_owned(),
    );
    for payload in ["{}", r#"{"certificateOwnershipToken":""}"#, r#"{"certificateOwnershipToken":null}"#] {
        assert_eq!(rejection(&account.register(at(1), TEMPLATE, payload.as_bytes())), empty);
    }
    let answer = register(&mut account, at(1), "ey…", "t");
    assert_eq!(message(&answer), "Certificate ownership token is not valid.");
    let (status, code, _) = rejection(&account.register(at(1), TEMPLATE, b"[]"));
    assert_eq!((status, code.as_str()), (400, "InvalidPayload"));
    assert_eq!(account.state().counters.rejected, 5);
}

#[test]
fn a_token_is_valid_for_less_than_an_hour() {
    let mut account = account("");
    let token = create(&mut account, at(0), 1);
    let just_before = at(3600) - Duration::from_nanos(1);
    let answer = register(&mut account, at(3600), &token, "t");
    assert_eq!(message(&answer), "Certificate ownership token has expired.");
    assert_eq!(register(&mut account, just_before, &token, "t").verdict, Verdict::Accepted);
}

#[test]
fn an_unused_certificate_lapses_with_its_token() {
    let mut account = account("");
    let lost = create(&mut account, at(0), 1);
    let used = create(&mut account, at(0), 2);
    create(&mut account, at(1), 3);
    register(&mut account, at(1), &used, "t");
    account.expire(at(3600) - Duration::from_nanos(1));
    assert_eq!(account.state().certificates.len(), 3);
    account.expire(at(3600));
    let left: Vec<_> = account.state().certificates.keys().copied().collect();
    assert_eq!(left, [id(2), id(3)]);
    assert_eq!(account.state().counters.certificates_lapsed, 1);
    assert_eq!(account.state().tokens.len(), 1, "used and lapsed tokens are forgotten");
    // The token stays invalid, even for a client whose clock is behind.
    let answer = register(&mut account, at(10), &lost, "t");
    assert_eq!(message(&answer), "Certificate ownership token is not valid.");
}

#[test]
fn an_inactive_certificate_stays_while_it_is_attached() {
    let body = |resources: &str| {
        format!(
            r#"{{"Resources": {{"c": {{"Type": "AWS::IoT::Certificate", "Properties": {{"Status": "INACTIVE"}}}}{resources}}}}}"#
        )
    };
    let policy = r#", "p": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": "p"}}"#;
    for (resources, left) in [("", 0), (policy, 1)] {
        let mut account = account_with_template(&body(resources));
        let token = create(&mut account, at(0), 1);
        let answer = register(&mut account, at(1), &token, "t");
        assert_eq!(answer.payload, r#"{"deviceConfiguration":{}}"#, "no thing, no thing name");
        account.expire(at(3600));
        assert_eq!(account.state().certificates.len(), left);
    }
}

#[test]
fn a_used_token_is_refused() {
    let mut account = account("");
    let token = create(&mut account, at(0), 1);
    register(&mut account, at(1), &token, "t");
    let before = account.state().things.clone();
    let answer = register(&mut account, at(2), &token, "other");
    assert_eq!(message(&answer), "Certificate ownership token has already been used.");
    assert_eq!(account.state().things, before);
}

#[test]
fn a_used_token_gets_the_same_answer_where_reuse_is_accepted() {
    let mut account = account("token_reuse = \"accept\"");
    let token = create(&mut account, at(0), 1);
    let first = register(&mut account, at(1), &token, "t");
    let before = account.state().things.clone();
    assert_eq!(register(&mut account, at(2), &token, "t"), first);
    assert_eq!(account.state().things, before, "nothing new came of it");
    let answer = register(&mut account, at(3600), &token, "t");
    assert_eq!(message(&answer), "Certificate ownership token has expired.");
}

#[test]
fn a_rejection_spends_no_token() {
    let mut account = account("");
    let token = create(&mut account, at(0), 1);
    let answer = account.register(at(1), "Nobody", &request(&token, "t"));
    let (status, _, message) = rejection(&answer);
    assert_eq!((status, message.as_str()), (404, "Provisioning template Nobody was not found."));
    let (status, code, _) = rejection(&register(&mut account, at(1), &token, "not a name"));
    assert_eq!((status, code.as_str()), (400, "InvalidRequestException"));
    assert!(account.state().things.is_empty());
    assert_eq!(register(&mut account, at(1), &token, "a-name").verdict, Verdict::Accepted);
}

#[test]
fn a_thing_registered_again_keeps_its_old_certificates() {
    let mut account = account("");
    let (first, second) = (create(&mut account, at(0), 1), create(&mut account, at(0), 2));
    register(&mut account, at(1), &first, "t");
    register(&mut account, at(2), &second, "t");
    let state = account.state();
    assert_eq!(principals(&state.things["t"]), [id(1), id(2)]);
    assert_eq!(state.things["t"].version, 1, "nothing of the thing itself changed");
    assert!(state.certificates.values().all(|certificate| certificate.status == CertificateStatus::Active));
}

#[test]
fn a_create_request_that_is_no_object_is_refused() {
    let mut account = account("");
    let (status, code, _) = rejection(&account.create_keys(at(0), b"[1]", minted(1)));
    assert_eq!((status, code.as_str()), (400, "InvalidPayload"));
    assert!(account.state().certificates.is_empty());
}

#[test]
fn a_certificate_never_comes_twice() {
    let mut account = account("");
    create(&mut account, at(0), 1);
    assert_eq!(rejection(&account.create_keys(at(0), b"{}", minted(1))).0, 500);
}

#[test]
fn quotas_throttle_each_operation_by_itself() {
    let mut account = account("[quotas]\ncreate_keys_and_certificate = \"10/s\"\nregister_thing = \"2/s\"");
    let mut through = |age, route: &Route<'_>| {
        (0..20).filter(|_| account.admit(Duration::from_millis(age), route).is_ok()).count()
    };
    let register = Route::Register { template: TEMPLATE };
    assert_eq!(through(0, &Route::CreateKeys), 10);
    assert_eq!(through(0, &register), 2);
    assert_eq!(through(500, &Route::CreateKeys), 5);
    assert_eq!(through(500, &register), 1);
    assert_eq!(through(0, &Route::Other), 20);
    let counters = &account.state().counters;
    assert_eq!((counters.throttled_create_keys, counters.throttled_register), (10 + 15, 18 + 19));
    assert_eq!(counters.rejected, 62);
    let throttled = account.admit(Duration::ZERO, &Route::CreateKeys).unwrap_err();
    assert_eq!(
        throttled.payload,
        r#"{"statusCode":429,"errorCode":"ThrottlingException","errorMessage":"Rate exceeded"}"#
    );
}

#[test]
fn the_scenarios_words_are_used() {
    let mut account = account("[errors.empty_token]\nstatus = 403\ncode = \"No\"\nmessage = \"[{detail}]\"");
    let answer = account.register(at(0), TEMPLATE, b"{}");
    assert_eq!(answer.payload, r#"{"statusCode":403,"errorCode":"No","errorMessage":"[]"}"#);
    assert_eq!(rejection(&account.refuse(Refusal::NotEmulated)).1, "UnsupportedOperation");
}

#[test]
fn a_certificate_id_may_have_to_match() {
    let body = r#"{"Parameters": {"CertificateId": {"Type": "String"}}, "Resources": {"c":
        {"Type": "AWS::IoT::Certificate", "Properties": {"CertificateId": {"Ref": "CertificateId"}}}}}"#;
    for (check, verdict) in [
        (CertificateIdMismatch::Ignore, Verdict::Accepted),
        (CertificateIdMismatch::Reject, Verdict::Rejected),
    ] {
        let mut account = account_with_template(body);
        account.rules.certificate_id_mismatch = check;
        let mut with = |id: &str, n| {
            let token = create(&mut account, at(0), n);
            let payload = json!({"certificateOwnershipToken": token, "parameters": {"CertificateId": id}});
            account.register(at(0), TEMPLATE, payload.to_string().as_bytes()).verdict
        };
        assert_eq!(with("other", 1), verdict);
        assert_eq!(with(&minted(2).certificate_id, 2), Verdict::Accepted);
    }
}

/// A template with these override settings, two attributes of which one is `Version`, and a group.
fn overriding(settings: &str) -> Account {
    account_with_template(&format!(
        r#"{{"Parameters": {{"Version": {{"Type": "String"}}}},
            "Resources": {{
              "t": {{"Type": "AWS::IoT::Thing",
                "Properties": {{"ThingName": "t", "ThingTypeName": {{"Fn::Join": ["", ["T", {{"Ref": "Version"}}]]}},
                  "AttributePayload": {{"version": {{"Ref": "Version"}}}},
                  "ThingGroups": [{{"Fn::Join": ["", ["G", {{"Ref": "Version"}}]]}}]}},
                "OverrideSettings": {settings}}},
              "c": {{"Type": "AWS::IoT::Certificate"}}}}}}"#
    ))
}

/// Registers with version 1 and then 2.
fn register_twice(account: &mut Account) -> Answer {
    let mut answers = [1, 2].map(|n| {
        let token = create(account, at(0), n);
        let payload = json!({"certificateOwnershipToken": token, "parameters": {"Version": n.to_string()}});
        Some(account.register(at(0), TEMPLATE, payload.to_string().as_bytes()))
    });
    answers[1].take().unwrap()
}

#[test]
fn overrides_decide_what_becomes_of_an_existing_thing() {
    for (settings, attribute, type_name, groups) in [
        ("{}", "1", "T1", &["G1"][..]),
        (r#"{"AttributePayload": "REPLACE"}"#, "2", "T1", &["G1"]),
        (r#"{"AttributePayload": "MERGE", "ThingGroups": "MERGE"}"#, "2", "T1", &["G1", "G2"]),
        (r#"{"ThingTypeName": "REPLACE", "ThingGroups": "REPLACE"}"#, "1", "T2", &["G2"]),
    ] {
        let mut account = overriding(settings);
        assert_eq!(register_twice(&mut account).verdict, Verdict::Accepted);
        let thing = &account.state().things["t"];
        assert_eq!(thing.attributes.get("version"), Some(attribute), "{settings}");
        assert_eq!(thing.type_name.as_deref(), Some(type_name), "{settings}");
        assert!(thing.groups.iter().eq(groups.iter().copied()), "{settings}");
        assert_eq!(thing.version, if settings == "{}" { 1 } else { 2 }, "{settings}");
        assert_eq!(thing.principals.len(), 2);
    }
    let mut account = overriding(r#"{"AttributePayload": "FAIL"}"#);
    let (status, code, message) = rejection(&register_twice(&mut account));
    assert_eq!(
        (status, code.as_str(), message.as_str()),
        (409, "ResourceConflictsException", "Thing t already exists.")
    );
    assert_eq!(account.state().things["t"].principals.len(), 1);
}

#[test]
fn a_configured_device_is_told_its_configuration() {
    let mut account = account_with_template(CONFIGURED);
    let mut with = |environment: &str, n: u64| {
        let token = create(&mut account, at(0), n);
        let parameters = json!({"SerialNumber": n.to_string(), "Environment": environment});
        let payload = json!({"certificateOwnershipToken": token, "parameters": parameters}).to_string();
        account.register(at(0), TEMPLATE, payload.as_bytes())
    };
    assert_eq!(
        with("PRD", 1).payload,
        r#"{"deviceConfiguration":{"Endpoint":"https://prd.example.com","Interval":30},"thingName":"device-1"}"#
    );
    assert_eq!(
        message(&with("TST", 2)),
        "The provisioning template cannot be evaluated: Resources.thing.Properties.ThingGroups: Fn::FindInMap: nothing at \
         Env, TST, Group"
    );
    with("DEV", 3);
    let state = account.state();
    assert_eq!(state.certificates[&id(1)].status, CertificateStatus::Inactive);
    assert_eq!(state.things["device-1"].groups.iter().collect::<Vec<_>>(), ["all", "prd"]);
    assert_eq!(state.things["device-1"].billing_group.as_deref(), Some("lot-1"));
    assert_eq!(state.policies.len(), 1 + 2, "a document with a parameter in it is a policy a device");
}

#[test]
fn a_state_is_stored_and_resumed() {
    let scenario = Scenario::default();
    let mut account = Account::new(&scenario).unwrap();
    let used = create(&mut account, at(0), 1);
    let fresh = create(&mut account, at(0), 2);
    register(&mut account, at(1), &used, "t");
    let stored = serde_json::to_string(account.state()).unwrap();
    assert!(!stored.contains("PRIVATE KEY") && !stored.contains(&fresh), "no secret is stored");

    let mut resumed = Account::resume(&scenario, serde_json::from_str(&stored).unwrap()).unwrap();
    assert_eq!(resumed.state(), account.state());
    assert_eq!(register(&mut resumed, at(2), &fresh, "u").verdict, Verdict::Accepted);
    assert_eq!(
        message(&register(&mut resumed, at(2), &used, "u")),
        "Certificate ownership token has already been used."
    );
    assert_eq!(create(&mut resumed, at(3), 3), create(&mut account, at(3), 3), "the randomness goes on");
}

#[test]
fn a_scenario_whose_templates_cannot_be_used_makes_no_account() {
    let complaint = |text: &str| Account::new(&Scenario::from_toml(text).unwrap()).unwrap_err().to_string();
    assert_eq!(
        complaint("[[templates]]\nname = \"T\"\nbody = \"{}\""),
        "template T: the template: found no Resources; wanted Resources to be given"
    );
    assert!(
        complaint("[[templates]]\nname = \"T\"\nfile = \"t.json\"")
            .starts_with("template T: found the name of a file")
    );
    let body = r#"body = '{"Resources": {"c": {"Type": "AWS::IoT::Certificate"}}}'"#;
    let twice = format!("[[templates]]\nname = \"T\"\n{body}\n[[templates]]\nname = \"T\"\n{body}");
    assert_eq!(complaint(&twice), "template T: found it twice; wanted each name once");
}

#[test]
fn a_certified_request_waits_for_its_registration_like_any_other() {
    let mut account = account("[quotas]\ncreate_certificate_from_csr = \"1/s\"");
    assert_eq!(account.signing_request(br#"{"certificateSigningRequest":"csr"}"#).unwrap(), "csr");
    let (status, _, text) = rejection(&account.signing_request(b"{}").unwrap_err());
    assert_eq!(
        (status, text.as_str()),
        (400, "The certificate signing request is not valid: none was given.")
    );
    let Minted { certificate_pem, certificate_id, .. } = minted(1);
    let certified = Certified { certificate_pem, certificate_id };
    let reply = parse(&account.create_from_csr(at(0), certified.clone()));
    let names: Vec<_> = reply.as_object().unwrap().keys().collect();
    assert_eq!(names, ["certificateId", "certificateOwnershipToken", "certificatePem"]);
    assert_eq!(rejection(&account.create_from_csr(at(0), certified)).0, 500);
    let token = reply["certificateOwnershipToken"].as_str().unwrap();
    assert_eq!(register(&mut account, at(1), token, "t").verdict, Verdict::Accepted);
    assert_eq!(principals(&account.state().things["t"]), [id(1)]);
    assert!(account.admit(Duration::ZERO, &Route::CreateFromCsr).is_ok());
    assert_eq!(rejection(&account.admit(Duration::ZERO, &Route::CreateFromCsr).unwrap_err()).0, 429);
    assert_eq!(account.state().counters.throttled_create_from_csr, 1);
}

#[test]
fn changes_lead_another_state_to_the_same_records() {
    let mut account = account("token_lifetime = \"1h\"");
    assert_eq!(account.take_changes(), None, "nobody asked");
    account.watch_changes();
    let mut copy = account.state().clone();
    let mut follow = |account: &mut Account| {
        let changes = account.take_changes().unwrap();
        let text = serde_json::to_string(&changes).unwrap();
        assert!(!text.contains("PRIVATE KEY"));
        for _ in 0..2 {
            copy.apply(serde_json::from_str(&text).unwrap());
        }
        assert_eq!(copy, *account.state());
        assert_eq!(account.take_changes(), None);
    };
    let (used, refused) = (create(&mut account, at(0), 1), create(&mut account, at(0), 2));
    follow(&mut account);
    register(&mut account, at(1), &used, "t");
    register(&mut account, at(1), &used, "u");
    follow(&mut account);
    register(&mut account, at(1), &refused, "no name");
    assert_eq!(account.take_changes(), None, "a rejection changes no record");
    account.expire(at(3600));
    follow(&mut account);
    assert_eq!(account.state().certificates.len(), 1);
}

#[test]
fn changes_are_appended_in_their_order() {
    let mut account = account("");
    account.watch_changes();
    let before = account.state().clone();
    let token = create(&mut account, at(0), 1);
    let mut changes = account.take_changes().unwrap();
    register(&mut account, at(1), &token, "t");
    changes.append(account.take_changes().unwrap());
    let mut after = before;
    after.apply(changes);
    assert_eq!(after, *account.state());
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    /// Whatever is sent, the account answers, and a rejection changes only the counters.
    #[test]
    fn any_payload_is_answered(payload in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..60)) {
        let mut account = account("");
        let answer = account.register(at(0), TEMPLATE, &payload);
        proptest::prop_assert_eq!(answer.verdict, Verdict::Rejected);
        proptest::prop_assert!(parse(&answer)["statusCode"].is_u64());
        proptest::prop_assert!(account.state().things.is_empty());
    }
}

#[test]
fn a_hook_is_told_who_asks() {
    const HOOK: &str = "arn:aws:lambda:us-east-1:123456789012:function:check";
    let input = |claim_of_signer: &str, registrant: Registrant<'_>| -> Value {
        let mut account = account(&format!(
            "claim_of_signer = \"{claim_of_signer}\"\n[[templates]]\nname = \"T\"\nbody = '''{CONFIGURED}'''\n\
             pre_provisioning_hook = \"{HOOK}\"\n"
        ));
        let token = create(&mut account, at(0), 1);
        let call = account.hook_call(at(1), registrant, "T", &request(&token, "a")).unwrap();
        assert_eq!(call.target_arn, HOOK);
        serde_json::from_str(&call.input).unwrap()
    };
    let signer = Registrant { client_id: "c", certificate_id: None };
    let claim = Registrant { certificate_id: Some("0f"), ..signer };
    assert_eq!(input("omitted", claim)["claimCertificateId"], "0f");
    assert_eq!(input("empty", signer)["claimCertificateId"], "");
    let told = input("omitted", signer);
    assert_eq!((&told["clientId"], &told["parameters"]["DeviceId"]), (&json!("c"), &json!("a")));
    assert_eq!(told.get("claimCertificateId"), None);
}

#[test]
fn a_parameter_without_a_value_is_refused_or_empty() {
    let verdict = |missing_parameter: &str| {
        let mut account = account(&format!("missing_parameter = \"{missing_parameter}\""));
        let token = create(&mut account, at(0), 1);
        let parameters = json!({"DeviceId": "a", "SerialNumber": "1"});
        let request = json!({"certificateOwnershipToken": token, "parameters": parameters}).to_string();
        let answer = account.register(at(1), TEMPLATE, request.as_bytes());
        (
            answer.verdict,
            account
                .state()
                .things
                .get("a")
                .and_then(|thing| thing.attributes.get("macAddress").map(str::to_owned)),
        )
    };
    assert_eq!(verdict("reject"), (Verdict::Rejected, None));
    assert_eq!(verdict("empty"), (Verdict::Accepted, Some(String::new())));
}
