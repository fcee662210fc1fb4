//! The client id that a device may connect with, and a topic that it may publish to, by its policies: for a trial of a
//! new certificate.
//!
//! Understands common policies. A `Deny` statement that it does not understand denies everything; an `Allow` allows
//! nothing.
//!
//! Source: AWS IoT Developer Guide, "AWS IoT Core policies" and "Thing policy variables".

use std::collections::BTreeMap;

use serde_json::Value;

/// The longest topic, in bytes (AWS IoT Core quotas).
const MAX_TOPIC: usize = 256;
const MAX_LEVELS: usize = 8;
/// Replaces wildcards in a trial's client id or topic.
const ANYTHING: &str = "fleetmint-verify";

/// A device that is about to connect.
#[derive(Debug, Clone, Copy)]
pub struct Client<'a> {
    /// Its thing, if it has one.
    pub thing: Option<&'a str>,
    /// The thing's type, if it has one.
    pub type_name: Option<&'a str>,
    /// The thing's attributes.
    pub attributes: &'a BTreeMap<String, String>,
}

/// What a device's policies allow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publishable {
    /// The client id to connect with.
    pub client_id: String,
    /// A topic that it may publish to; `None` if none was found.
    pub topic: Option<String>,
}

/// A client id to connect with and a topic to publish to, by the JSON `documents` of a device's policies. If they allow
/// no client id, it is the thing's name.
pub fn topic_to_publish(documents: &[&str], client: Client<'_>) -> Publishable {
    let statements: Vec<Statement> = documents.iter().flat_map(|document| read(document)).collect();
    let name = client.thing.unwrap_or(ANYTHING);
    let client_id = find(&statements, "iot:Connect", "client/", client, name, Some(name));
    let client_id = client_id.unwrap_or_else(|| name.to_owned());
    let topic = find(&statements, "iot:Publish", "topic/", client, &client_id, None);
    Publishable { topic: topic.filter(|topic| is_topic(topic)), client_id }
}

struct Statement {
    allows: bool,
    /// `None` unless the actions and the resources are plain lists of strings.
    plain: Option<Plain>,
    is_conditional: bool,
}

struct Plain {
    actions: Vec<String>,
    resources: Vec<String>,
}

fn read(document: &str) -> Vec<Statement> {
    let document: Value = serde_json::from_str(document).unwrap_or_default();
    let statements = match document.get("Statement") {
        Some(Value::Array(statements)) => statements.clone(),
        Some(statement) => vec![statement.clone()],
        None => Vec::new(),
    };
    let texts = |value: Option<&Value>| match value? {
        Value::String(text) => Some(vec![text.clone()]),
        Value::Array(items) => items.iter().map(|item| item.as_str().map(str::to_owned)).collect(),
        _ => None,
    };
    let statement = |value: &Value| Statement {
        allows: value.get("Effect").and_then(Value::as_str) == Some("Allow"),
        plain: texts(value.get("Action"))
            .zip(texts(value.get("Resource")))
            .map(|(actions, resources)| Plain { actions, resources }),
        is_conditional: value.get("Condition").is_some(),
    };
    statements.iter().map(statement).collect()
}

/// A name that `action` is allowed on: `preferred` if allowed, otherwise one made from the first suitable pattern.
fn find(
    statements: &[Statement],
    action: &str,
    kind: &str,
    client: Client<'_>,
    client_id: &str,
    preferred: Option<&str>,
) -> Option<String> {
    // What cannot be told of a pattern counts as allowing nothing, and as denying everything.
    let patterns = |statement: &Statement| -> Vec<String> {
        let Some(plain) = &statement.plain else { return Vec::new() };
        if !plain.actions.iter().any(|pattern| matches(&pattern.to_lowercase(), &action.to_lowercase())) {
            return Vec::new();
        }
        let of_kind = plain.resources.iter().filter_map(|resource| name_in(resource, kind));
        let unknown = || (!statement.allows).then(|| String::from("*"));
        of_kind.filter_map(|name| expand(name, client, client_id).or_else(unknown)).collect()
    };
    let is_denied = |name: &str| {
        statements.iter().filter(|statement| !statement.allows).any(|statement| match &statement.plain {
            None => true,
            Some(_) => patterns(statement).iter().any(|pattern| matches(pattern, name)),
        })
    };
    let allowing = statements.iter().filter(|statement| statement.allows && !statement.is_conditional);
    let allowed: Vec<String> = allowing.flat_map(patterns).collect();
    let preferred = preferred.filter(|name| allowed.iter().any(|pattern| matches(pattern, name)));
    let made = allowed.iter().map(|pattern| pattern.replace('*', ANYTHING).replace('?', "x"));
    let mut names = preferred.map(str::to_owned).into_iter().chain(made);
    names.find(|name| !name.is_empty() && !name.starts_with('$') && !is_denied(name))
}

/// The part of an ARN pattern after `kind`, such as `topic/`.
fn name_in<'a>(resource: &'a str, kind: &str) -> Option<&'a str> {
    if resource == "*" {
        return Some(resource);
    }
    let after_account = resource.strip_prefix("arn:")?.splitn(5, ':').nth(4)?;
    after_account.strip_prefix(kind).or((after_account == "*").then_some(after_account))
}

/// A pattern with its policy variables replaced; `None` if one of them is unknown.
fn expand(pattern: &str, client: Client<'_>, client_id: &str) -> Option<String> {
    let mut expanded = String::new();
    let mut rest = pattern;
    while let Some((before, after)) = rest.split_once("${") {
        let (name, after) = after.split_once('}')?;
        expanded += before;
        expanded += match name.strip_prefix("iot:")? {
            "ClientId" => client_id,
            "Connection.Thing.ThingName" => client.thing?,
            "Connection.Thing.ThingTypeName" => client.type_name?,
            "Connection.Thing.IsAttached" => "true",
            other => {
                let attribute = other.strip_prefix("Connection.Thing.Attributes[")?.strip_suffix(']')?;
                client.attributes.get(attribute)?
            }
        };
        rest = after;
    }
    Some(expanded + rest)
}

/// Whether `pattern` matches `text`: `*` stands for any characters, `?` for exactly one.
fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&c) if c == '?' || c == text[t] => (p, t) = (p + 1, t + 1),
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    (p, t) = (at + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

fn is_topic(topic: &str) -> bool {
    topic.len() <= MAX_TOPIC && topic.split('/').count() <= MAX_LEVELS && !topic.contains(['+', '#'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(statements: &str) -> String {
        format!(r#"{{"Version": "2012-10-17", "Statement": [{statements}]}}"#)
    }

    fn said(statements: &str) -> (String, Option<String>) {
        let attributes = [(String::from("site"), String::from("north"))].into();
        let client = Client { thing: Some("dev-42"), type_name: Some("Meter"), attributes: &attributes };
        let Publishable { client_id, topic } = topic_to_publish(&[&document(statements)], client);
        (client_id, topic)
    }

    fn own(client_id: &str, topic: Option<&str>) -> (String, Option<String>) {
        (client_id.to_owned(), topic.map(str::to_owned))
    }

    #[test]
    fn policies_as_the_guide_has_them_say_who_and_where() {
        let arn = "arn:aws:iot:eu-west-1:123456789012";
        assert_eq!(
            said(&format!(
                r#"{{"Effect": "Allow", "Action": "iot:Connect", "Resource": "{arn}:client/${{iot:Connection.Thing.ThingName}}"}},
                   {{"Effect": "Allow", "Action": ["iot:Publish", "iot:Receive"],
                     "Resource": ["{arn}:topic/$aws/things/${{iot:Connection.Thing.ThingName}}/shadow/update",
                                  "{arn}:topic/sites/${{iot:Connection.Thing.Attributes[site]}}/${{iot:ClientId}}/*"]}}"#
            )),
            own("dev-42", Some("sites/north/dev-42/fleetmint-verify"))
        );
        assert_eq!(
            said(r#"{"Effect": "Allow", "Action": "iot:*", "Resource": "*"}"#),
            own("dev-42", Some("fleetmint-verify"))
        );
        assert_eq!(
            said(&format!(
                r#"{{"Effect": "Allow", "Action": "iot:Connect", "Resource": "{arn}:client/gateway-?"}}"#
            )),
            own("gateway-x", None)
        );
        assert_eq!(said(""), own("dev-42", None));
    }

    #[test]
    fn what_is_denied_conditional_or_not_understood_is_no_place_to_publish() {
        let allow =
            r#"{"Effect": "Allow", "Action": "iot:Publish", "Resource": "arn:aws:iot:r:1:topic/a/*"}"#;
        assert_eq!(said(allow).1.as_deref(), Some("a/fleetmint-verify"));
        for more in [
            r#"{"Effect": "Deny", "Action": "iot:Pub*", "Resource": "arn:aws:iot:r:1:topic/a/fleet*"}"#,
            r#"{"Effect": "Deny", "NotAction": "iot:Connect", "Resource": "*"}"#,
            r#"{"Effect": "Deny", "Action": "iot:Publish", "Resource": "arn:aws:iot:r:1:topic/${iot:Certificate.Subject.CommonName}"}"#,
        ] {
            assert_eq!(said(&format!("{allow}, {more}")).1, None, "{more}");
        }
        let other = r#"{"Effect": "Deny", "Action": "iot:Publish", "Resource": "arn:aws:iot:r:1:topic/b/*"}"#;
        assert_eq!(said(&format!("{allow}, {other}")).1.as_deref(), Some("a/fleetmint-verify"));
        for statement in [
            r#"{"Effect": "Allow", "Action": "iot:Publish", "Resource": "*", "Condition": {"Bool": {"x": "true"}}}"#,
            r#"{"Effect": "Allow", "Action": "iot:Publish", "Resource": "arn:aws:iot:r:1:topic/${iot:Certificate.Subject.CommonName}"}"#,
            r#"{"Effect": "Allow", "Action": "iot:Publish", "Resource": "arn:aws:iot:r:1:topic/a/b/c/d/e/f/g/h/i"}"#,
            r#"{"Effect": "Allow", "Action": "iot:Publish", "NotResource": "arn:aws:iot:r:1:topic/a"}"#,
        ] {
            assert_eq!(said(statement).1, None, "{statement}");
        }
    }
}
