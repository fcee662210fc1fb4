//! Which documents are valid, and what they allow.

use super::*;

fn statement(body: &str) -> String {
    format!(r#"{{"Version": "2012-10-17", "Statement": [{body}]}}"#)
}

#[test]
fn a_document_that_is_not_one_says_why() {
    for (text, expected) in [
        ("", "not JSON at line 1 column 0"),
        ("not json", "not JSON at line 1 column 2"),
        ("[]", "the document is not an object"),
        ("{}", "there is no Statement"),
        (r#"{"hello": "x"}"#, "the document has an unknown key \"hello\""),
        (r#"{"Statement": []}"#, "Statement is empty"),
        (r#"{"Version": "2020-01-01", "Statement": []}"#, "Version is \"2020-01-01\", not \"2012-10-17\""),
        (r#"{"Statement": {"Effect": "Maybe"}}"#, "Statement 0: Effect is not Allow or Deny"),
        (
            r#"{"Statement": {"Effect": "Allow", "Resource": "*"}}"#,
            "Statement 0: there must be one of Action and NotAction",
        ),
        (
            r#"{"Statement": {"Effect": "Allow", "Action": "Publish", "Resource": "*"}}"#,
            "Statement 0: \"Publish\" is not an action such as \"iot:Publish\"",
        ),
        (
            r#"{"Statement": {"Effect": "Allow", "Action": [], "Resource": "*"}}"#,
            "Statement 0: Action is not a string or a list of strings",
        ),
        (
            r#"{"Statement": {"Effect": "Allow", "Action": "iot:*", "Resource": "topic/a"}}"#,
            "Statement 0: \"topic/a\" is not an ARN or \"*\"",
        ),
        (
            r#"{"Statement": {"Effect": "Allow", "Action": "iot:*", "Resource": "*", "Principal": "*"}}"#,
            "Statement 0 has an unknown key \"Principal\"",
        ),
    ] {
        let error = Document::parse(text).unwrap_err().to_string();
        assert_eq!(error, format!("policy document is malformed: {expected}"));
    }
}

#[test]
fn white_space_does_not_count() {
    let blank = statement(&format!(
        r#"{{"Effect": "Allow", "Action": "iot:*", {}"Resource": "*"}}"#,
        " \n".repeat(4_000)
    ));
    assert!(Document::parse(&blank).is_ok());
    let long = statement(&format!(
        r#"{{"Effect": "Allow", "Action": "iot:*", "Resource": "arn:{}"}}"#,
        "a".repeat(2_000)
    ));
    assert!(Document::parse(&long).unwrap_err().to_string().contains("at most 2048"));
}

/// The decision of a document with these statements on an action on a resource, for the client `c`.
fn decision(statements: &str, action: &str, resource: &str) -> Decision {
    let document = Document::parse(&statement(statements)).unwrap();
    let variable = |name: &str| match name {
        "iot:ClientId" => Some(String::from("c")),
        "iot:Connection.Thing.IsAttached" => Some(String::from("true")),
        _ => None,
    };
    decide([&document], &Attempt { action, resource: Some(resource), variable: &variable })
}

#[test]
fn a_deny_beats_an_allow_and_silence_allows_nothing() {
    let both = r#"{"Effect": "Allow", "Action": ["iot:Publish", "iot:Sub*"], "Resource": "*"},
        {"Effect": "Deny", "Action": "iot:Publish", "Resource": "arn:x:topic/secret/*"}"#;
    assert_eq!(decision(both, "iot:Publish", "arn:x:topic/a"), Decision::Allowed);
    assert_eq!(decision(both, "iot:subscribe", "arn:x:topicfilter/#"), Decision::Allowed);
    assert_eq!(decision(both, "iot:Publish", "arn:x:topic/secret/a"), Decision::Denied);
    assert_eq!(decision(both, "iot:Connect", "arn:x:client/c"), Decision::Unmentioned);
}

#[test]
fn negations_select_the_rest() {
    let rest = r#"{"Effect": "Allow", "NotAction": "iot:Connect", "NotResource": "arn:x:topic/a"}"#;
    assert_eq!(decision(rest, "iot:Publish", "arn:x:topic/b"), Decision::Allowed);
    assert_eq!(decision(rest, "iot:Publish", "arn:x:topic/a"), Decision::Unmentioned);
    assert_eq!(decision(rest, "iot:Connect", "arn:x:topic/b"), Decision::Unmentioned);
}

#[test]
fn variables_and_conditions_are_about_the_connection() {
    let own = r#"{"Effect": "Allow", "Action": "iot:Connect", "Resource": "arn:x:client/${iot:ClientId}",
        "Condition": {"Bool": {"iot:Connection.Thing.IsAttached": ["true"]}}}"#;
    assert_eq!(decision(own, "iot:Connect", "arn:x:client/c"), Decision::Allowed);
    assert_eq!(decision(own, "iot:Connect", "arn:x:client/d"), Decision::Unmentioned);
    for (condition, expected) in [
        (r#"{"StringLike": {"iot:ClientId": "c*"}}"#, Decision::Allowed),
        (r#"{"StringNotEquals": {"iot:ClientId": "c"}}"#, Decision::Unmentioned),
        (r#"{"StringEqualsIfExists": {"iot:Other": "x"}}"#, Decision::Allowed),
        (r#"{"StringEquals": {"iot:Other": "x"}}"#, Decision::Unmentioned),
        (r#"{"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}"#, Decision::Unmentioned),
    ] {
        let statement =
            format!(r#"{{"Effect": "Allow", "Action": "iot:*", "Resource": "*", "Condition": {condition}}}"#);
        assert_eq!(decision(&statement, "iot:Publish", "arn:x:topic/a"), expected, "{condition}");
    }
    let deny = r#"{"Effect": "Deny", "Action": "iot:*", "Resource": "*",
        "Condition": {"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}}"#;
    assert_eq!(decision(deny, "iot:Publish", "arn:x:topic/a"), Decision::Denied);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    #[test]
    fn any_text_is_read_or_refused(text in r#"[{}\[\]":,*$?a-zA-Z0-9 ]{0,80}"#) {
        let _ = Document::parse(&text);
        let _ = pattern::expand(&text, &|_| None);
    }
}
