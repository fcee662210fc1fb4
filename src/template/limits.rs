//! The limits on names and values in AWS IoT's registry, to detect what it would refuse before a certificate is spent.
//!
//! Source: AWS IoT API Reference (CreateThing, CreateThingType, CreatePolicy: patterns and lengths); Developer Guide,
//! "Thing types" (number of attributes) and "Static thing groups" (number of groups); AWS IoT Core quotas (policies per
//! certificate, length of a policy document).

use serde_json::Value;

use super::{Plan, PolicyPlan, TemplateError, ThingPlan};
use crate::service::{
    MAX_ATTRIBUTES_WITH_TYPE, MAX_ATTRIBUTES_WITHOUT_TYPE, MAX_GROUPS, MAX_POLICIES, MAX_POLICY_DOCUMENT,
};
use crate::wording::Excerpt;

/// The limits on a text.
struct Limit {
    least: usize,
    most: usize,
    /// The characters allowed besides ASCII letters and digits.
    besides: &'static str,
    /// Whether errors show the text: a value may be a secret.
    shown: Shown,
}

#[derive(Clone, Copy, PartialEq)]
enum Shown {
    Whole,
    WrongCharacter,
}

const NAME: Limit = Limit { least: 1, most: 128, besides: ":_-", shown: Shown::Whole };
const POLICY_NAME: Limit = Limit { least: 1, most: 128, besides: "_+=,.@-", shown: Shown::Whole };
const ATTRIBUTE_NAME: Limit = Limit { least: 1, most: 128, besides: "_.,@/:#-", shown: Shown::Whole };
const ATTRIBUTE_VALUE: Limit =
    Limit { least: 0, most: 800, besides: "_.,@/:#=[]-", shown: Shown::WrongCharacter };

impl Limit {
    fn check(&self, at: &str, text: &str) -> Result<(), TemplateError> {
        let Self { least, most, besides, shown } = *self;
        let characters = text.chars().count();
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || besides.contains(c);
        let found = if characters < least {
            String::from("an empty text")
        } else if characters > most {
            format!("{characters} characters")
        } else if let Some((place, wrong)) = text.chars().enumerate().find(|(_, c)| !is_allowed(*c)) {
            let what = if wrong == ' ' { String::from("a space") } else { format!("{wrong:?}") };
            match shown {
                Shown::Whole => format!("{what} in \"{}\"", Excerpt(text)),
                Shown::WrongCharacter => format!("{what} as character {}", place + 1),
            }
        } else {
            return Ok(());
        };
        let wanted = format!("{least} to {most} of: letters A-Z and a-z, digits, {besides}");
        Err(TemplateError::new(at, &found, &wanted))
    }
}

/// Checks that the service accepts `name` as a thing's name.
///
/// # Errors
/// What is wrong with the name.
pub fn check_thing_name(name: &str) -> Result<(), TemplateError> {
    NAME.check("ThingName", name)
}

/// Checks that the service accepts `name` as an attribute's name.
///
/// # Errors
/// What is wrong with the name.
pub fn check_attribute_name(name: &str) -> Result<(), TemplateError> {
    ATTRIBUTE_NAME.check(&format!("AttributePayload.{name}"), name)
}

/// Checks that the service accepts `value` for the attribute `name`.
///
/// # Errors
/// What is wrong with the value.
pub fn check_attribute_value(name: &str, value: &str) -> Result<(), TemplateError> {
    ATTRIBUTE_VALUE.check(&format!("AttributePayload.{name}"), value)
}

/// Checks the form of a policy document, not its meaning, against what the service accepts.
///
/// # Errors
/// What is wrong with the document.
pub fn check_policy_document(document: &str) -> Result<(), TemplateError> {
    let wrong = |found: String, wanted: &str| Err(TemplateError::new("PolicyDocument", &found, wanted));
    let length = document.chars().filter(|c| !c.is_whitespace()).count();
    if length > MAX_POLICY_DOCUMENT {
        return wrong(format!("{length} characters besides white space"), "at most 2048");
    }
    let Ok(Value::Object(policy)) = serde_json::from_str(document) else {
        return wrong(String::from("something that is not a JSON object"), "a policy document");
    };
    let statements = match policy.get("Statement") {
        Some(Value::Array(statements)) if !statements.is_empty() => statements.as_slice(),
        Some(statement @ Value::Object(_)) => std::slice::from_ref(statement),
        _ => return wrong(String::from("no Statement"), "at least one statement"),
    };
    for (number, statement) in statements.iter().enumerate() {
        if !matches!(statement["Effect"].as_str(), Some("Allow" | "Deny")) {
            return wrong(format!("no Effect in statement {number}"), "Allow or Deny");
        }
        for either in [["Action", "NotAction"], ["Resource", "NotResource"]] {
            if either.iter().all(|key| statement.get(key).is_none()) {
                return wrong(format!("no {} in statement {number}", either[0]), "one");
            }
        }
    }
    Ok(())
}

impl Plan {
    /// What the service refuses regardless of the account's content: invalid names and values, and too many of
    /// something.
    pub fn refused(&self) -> Vec<TemplateError> {
        let mut refused = Vec::new();
        if let Some(thing) = &self.thing {
            thing.add_refused(&mut refused);
        }
        if self.policies.len() > MAX_POLICIES {
            let found = format!("{} policies", self.policies.len());
            refused.push(too_many("Resources", found, format!("at most {MAX_POLICIES} on a certificate")));
        }
        refused.extend(self.policies.iter().filter_map(|policy| {
            match policy {
                PolicyPlan::Named(name) => POLICY_NAME.check("PolicyName", name),
                PolicyPlan::Inline(document) => check_policy_document(document),
            }
            .err()
        }));
        refused
    }
}

impl ThingPlan {
    fn add_refused(&self, refused: &mut Vec<TemplateError>) {
        let names = [
            ("ThingName", Some(&self.name)),
            ("ThingTypeName", self.type_name.as_ref()),
            ("BillingGroup", self.billing_group.as_ref()),
        ];
        let names = names.into_iter().filter_map(|(at, name)| Some((at, name?)));
        let groups = self.groups.iter().flatten().map(|group| ("ThingGroups", group));
        refused.extend(names.chain(groups).filter_map(|(at, name)| NAME.check(at, name).err()));
        for (name, value) in self.attributes.iter().flatten() {
            refused.extend(check_attribute_name(name).err());
            refused.extend(check_attribute_value(name, value).err());
        }
        let attributes = self.attributes.as_ref().map_or(0, |attributes| attributes.len());
        let (most, kind) = match self.type_name {
            Some(_) => (MAX_ATTRIBUTES_WITH_TYPE, "with"),
            None => (MAX_ATTRIBUTES_WITHOUT_TYPE, "without"),
        };
        if attributes > most {
            let wanted = format!("at most {most} for a thing {kind} a thing type");
            refused.push(too_many("AttributePayload", format!("{attributes} attributes"), wanted));
        }
        let groups = self.groups.as_ref().map_or(0, Vec::len);
        if groups > MAX_GROUPS {
            let found = format!("{groups} groups");
            refused.push(too_many("ThingGroups", found, format!("at most {MAX_GROUPS} for a thing")));
        }
    }
}

fn too_many(at: &str, found: String, wanted: String) -> TemplateError {
    TemplateError::new(at, &found, &wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_service_refuses_is_told_with_what_is_wrong() {
        for name in ["a", "TWOK:1_2-3", &"x".repeat(128)] {
            assert_eq!(check_thing_name(name), Ok(()));
        }
        for (name, found) in [
            ("", "an empty text"),
            ("a b", "a space in \"a b\""),
            ("a.b", "'.' in \"a.b\""),
            ("Gerät", "'ä' in \"Gerät\""),
            (&"x".repeat(129), "129 characters"),
        ] {
            let error = check_thing_name(name).unwrap_err();
            assert_eq!((error.at.as_str(), error.found.as_str()), ("ThingName", found), "{error}");
        }
        for value in ["", "1.0,[x]=y@z/#:", &"9".repeat(800)] {
            assert_eq!(check_attribute_value("a", value), Ok(()));
        }
        for value in ["Köln", "a b", "a+b", &"9".repeat(801)] {
            assert!(check_attribute_value("a", value).is_err(), "{value}");
        }
    }

    #[test]
    fn a_policy_document_is_one_by_its_form() {
        let statement = r#"{"Effect": "Allow", "Action": "iot:*", "Resource": "*"}"#;
        for document in
            [format!(r#"{{"Statement": {statement}}}"#), format!(r#"{{"Statement": [{statement}]}}"#)]
        {
            assert_eq!(check_policy_document(&document), Ok(()));
        }
        for document in [
            "",
            "[]",
            "{}",
            r#"{"Statement": []}"#,
            r#"{"Statement": {"Effect": "Maybe", "Action": "a", "Resource": "r"}}"#,
            r#"{"Statement": {"Effect": "Allow", "Resource": "r"}}"#,
            r#"{"Statement": {"Effect": "Allow", "Action": "a"}}"#,
            &format!(r#"{{"Statement": {statement}, "Id": "{}"}}"#, "x".repeat(2048)),
        ] {
            assert!(check_policy_document(document).is_err(), "{document}");
        }
        // White space is not counted.
        assert_eq!(
            check_policy_document(&format!(r#"{{"Statement": {statement}{}}}"#, " ".repeat(3000))),
            Ok(())
        );
    }
}
