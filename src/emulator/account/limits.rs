//! The registry's limits on names and values.
//!
//! Owns the numbers and character sets. Source: the service's API model (CreateThing, CreatePolicy), and the Developer
//! Guide's "Thing types" for the number of attributes.

use std::collections::BTreeMap;

use super::super::scenario::Refusal;
use super::answer::Refused;
use crate::template::{Plan, PolicyPlan, ThingPlan};

/// A thing without a type has at most this many attributes, one with a type 50.
const ATTRIBUTES_UNTYPED: usize = 3;
const ATTRIBUTES_TYPED: usize = 50;
/// Characters of a policy document.
const POLICY_DOCUMENT: usize = 2048;
/// Policies on one certificate.
const POLICIES: usize = 10;

/// Checks every name and value of a plan.
pub(super) fn check(plan: &Plan) -> Result<(), Refused> {
    if let Some(thing) = &plan.thing {
        check_thing(thing)?;
    }
    if plan.policies.len() > POLICIES {
        return Err(wrong(format!(
            "{} policies; at most {POLICIES} attach to a certificate",
            plan.policies.len()
        )));
    }
    plan.policies.iter().try_for_each(check_policy)
}

/// Checks how many attributes a thing of this type, or of none, may have.
pub(super) fn check_attributes(
    attributes: &BTreeMap<String, String>,
    type_name: Option<&str>,
) -> Result<(), Refused> {
    let (most, kind) = match type_name {
        Some(_) => (ATTRIBUTES_TYPED, "with"),
        None => (ATTRIBUTES_UNTYPED, "without"),
    };
    if attributes.len() > most {
        let count = attributes.len();
        return Err(wrong(format!("{count} attributes; a thing {kind} a thing type has at most {most}")));
    }
    Ok(())
}

fn check_thing(thing: &ThingPlan) -> Result<(), Refused> {
    let registry_name = |byte: u8| byte.is_ascii_alphanumeric() || b":_-".contains(&byte);
    let kinds = [
        ("Thing name", Some(&thing.name)),
        ("Thing type name", thing.type_name.as_ref()),
        ("Billing group name", thing.billing_group.as_ref()),
    ];
    let groups = thing.groups.iter().flatten().map(|group| ("Thing group name", group));
    for (kind, name) in kinds.into_iter().filter_map(|(kind, name)| Some((kind, name?))).chain(groups) {
        check_text(kind, name, 1, 128, registry_name)?;
    }
    for (name, value) in &thing.attributes {
        check_text("Attribute name", name, 1, 128, |byte| {
            byte.is_ascii_alphanumeric() || b"_.,@/:#-".contains(&byte)
        })?;
        check_text(&format!("Value of attribute {name}"), value, 0, 800, |byte| {
            byte.is_ascii_alphanumeric() || b"_.,@/:#=[]-".contains(&byte)
        })?;
    }
    Ok(())
}

fn check_policy(policy: &PolicyPlan) -> Result<(), Refused> {
    match policy {
        PolicyPlan::Named(name) => check_text("Policy name", name, 1, 128, |byte| {
            byte.is_ascii_alphanumeric() || b"_+=,.@-".contains(&byte)
        }),
        PolicyPlan::Inline(document) if document.chars().count() > POLICY_DOCUMENT => {
            let length = document.chars().count();
            Err(wrong(format!(
                "Policy document of {length} characters; at most {POLICY_DOCUMENT} are allowed"
            )))
        }
        PolicyPlan::Inline(_) => Ok(()),
    }
}

fn check_text(
    kind: &str,
    text: &str,
    least: usize,
    most: usize,
    allowed: impl Fn(u8) -> bool,
) -> Result<(), Refused> {
    let length = text.chars().count();
    if !(least..=most).contains(&length) {
        return Err(wrong(format!("{kind} of {length} characters; {least} to {most} are allowed")));
    }
    if !text.bytes().all(allowed) {
        return Err(wrong(format!("{kind} has a character that is not allowed")));
    }
    Ok(())
}

fn wrong(detail: String) -> Refused {
    Refused::new(Refusal::InvalidName, detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::{Activation, Overrides};

    fn plan(name: &str, type_name: Option<&str>, attributes: &[(&str, &str)]) -> Plan {
        Plan {
            thing: Some(ThingPlan {
                name: name.into(),
                type_name: type_name.map(Into::into),
                attributes: attributes.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
                groups: None,
                billing_group: None,
                overrides: Overrides::default(),
            }),
            certificate_id: None,
            activation: Activation::Active,
            policies: Vec::new(),
            device_configuration: serde_json::Map::new(),
        }
    }

    fn complaint(plan: &Plan) -> Option<String> {
        check(plan).err().map(|refused| refused.detail)
    }

    #[test]
    fn names_and_values_have_their_characters_and_lengths() {
        let (longest, too_long) = ("a".repeat(128), "a".repeat(129));
        for (name, expected) in [
            ("TWOK_9999999999", None),
            (":-_", None),
            (&longest, None),
            (&too_long, Some("Thing name of 129 characters; 1 to 128 are allowed")),
            ("", Some("Thing name of 0 characters; 1 to 128 are allowed")),
            ("a b", Some("Thing name has a character that is not allowed")),
            ("가나다", Some("Thing name has a character that is not allowed")),
        ] {
            assert_eq!(complaint(&plan(name, None, &[])).as_deref(), expected, "{name}");
        }
        let (longest, too_long) = ("a".repeat(800), "a".repeat(801));
        for (value, expected) in [
            ("AA:BB:CC:DD:EE:01", None),
            ("", None),
            ("[a=b]#/,@.", None),
            (&longest, None),
            (&too_long, Some("Value of attribute k of 801 characters; 0 to 800 are allowed")),
            ("a b", Some("Value of attribute k has a character that is not allowed")),
        ] {
            assert_eq!(complaint(&plan("n", None, &[("k", value)])).as_deref(), expected, "{value}");
        }
        let complaint = complaint(&plan("n", Some("a type"), &[]));
        assert_eq!(complaint.as_deref(), Some("Thing type name has a character that is not allowed"));
    }

    #[test]
    fn attributes_are_counted_by_thing_type() {
        let attributes = |count: usize| (0..count).map(|n| (n.to_string(), String::new())).collect();
        assert!(check_attributes(&attributes(3), None).is_ok());
        assert!(check_attributes(&attributes(4), None).is_err());
        assert!(check_attributes(&attributes(50), Some("t")).is_ok());
        assert!(check_attributes(&attributes(51), Some("t")).is_err());
    }

    #[test]
    fn policies_have_limits() {
        let with = |policies| Plan { policies, ..plan("n", None, &[]) };
        assert_eq!(complaint(&with(vec![PolicyPlan::Named("TwokDevicePolicy".into())])), None);
        assert!(complaint(&with(vec![PolicyPlan::Named("a:b".into())])).is_some());
        assert_eq!(complaint(&with(vec![PolicyPlan::Inline("x".repeat(2048))])), None);
        assert!(complaint(&with(vec![PolicyPlan::Inline("x".repeat(2049))])).is_some());
        assert!(complaint(&with(vec![PolicyPlan::Named("p".into()); 11])).is_some());
    }
}
