//! The registry's limits on names, values and their number.
//!
//! Source: the service's API model (CreateThing, CreatePolicy); for the number of attributes the Developer Guide's
//! "Thing types", for the number of groups its "Static thing groups".

use super::super::policy::Document;
use super::super::scenario::Refusal;
use super::answer::Refused;
use super::packed::Names;
use crate::template::{Plan, PolicyPlan, ThingPlan};

/// The most attributes of a thing without a type. With a type it is 50.
const ATTRIBUTES_UNTYPED: usize = 3;
const ATTRIBUTES_TYPED: usize = 50;
/// The most policies attached to a certificate.
pub(in crate::emulator) const POLICIES: usize = 10;
/// The most groups that a thing may be in.
const GROUPS: usize = 10;
/// The characters that a registry name may contain besides letters and digits.
const IN_REGISTRY: &[u8] = b":_-";
const IN_POLICY: &[u8] = b"_+=,.@-";
const IN_ATTRIBUTE: &[u8] = b"_.,@/:#-";
const IN_VALUE: &[u8] = b"_.,@/:#=[]-";
/// The characters that a package's name and version may contain besides letters and digits. The service may allow more:
/// only these are known to be allowed.
const IN_PACKAGE: &[u8] = b"_.-";

/// Checks all names and values of a plan.
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

/// Checks the number of attributes of a thing, with or without a type.
pub(in crate::emulator) fn check_attributes(count: usize, type_name: Option<&str>) -> Result<(), Refused> {
    let (most, kind) = match type_name {
        Some(_) => (ATTRIBUTES_TYPED, "with"),
        None => (ATTRIBUTES_UNTYPED, "without"),
    };
    if count > most {
        return Err(wrong(format!("{count} attributes; a thing {kind} a thing type has at most {most}")));
    }
    Ok(())
}

/// Checks the number of groups that a thing is in.
pub(in crate::emulator) fn check_groups(groups: &Names) -> Result<(), Refused> {
    if groups.len() > GROUPS {
        return Err(wrong(format!("{} thing groups; a thing is in at most {GROUPS}", groups.len())));
    }
    Ok(())
}

fn check_thing(thing: &ThingPlan) -> Result<(), Refused> {
    let kinds = [
        ("Thing name", Some(&thing.name)),
        ("Thing type name", thing.type_name.as_ref()),
        ("Billing group name", thing.billing_group.as_ref()),
    ];
    let groups = thing.groups.iter().flatten().map(|group| ("Thing group name", group));
    for (kind, name) in kinds.into_iter().filter_map(|(kind, name)| Some((kind, name?))).chain(groups) {
        check_name(kind, name)?;
    }
    for (name, value) in thing.attributes.iter().flatten() {
        check_attribute(name, value)?;
    }
    for (name, version) in &thing.package_versions {
        check_text("Package name", name, 1, 128, IN_PACKAGE)?;
        check_text(&format!("Version of package {name}"), version, 1, 64, IN_PACKAGE)?;
    }
    Ok(())
}

/// Checks the name of a thing, thing type or group.
pub(in crate::emulator) fn check_name(kind: &str, name: &str) -> Result<(), Refused> {
    check_text(kind, name, 1, 128, IN_REGISTRY)
}

/// Checks the name of a policy.
pub(in crate::emulator) fn check_policy_name(name: &str) -> Result<(), Refused> {
    check_text("Policy name", name, 1, 128, IN_POLICY)
}

/// Checks an attribute's name and value.
pub(in crate::emulator) fn check_attribute(name: &str, value: &str) -> Result<(), Refused> {
    check_text("Attribute name", name, 1, 128, IN_ATTRIBUTE)?;
    check_text(&format!("Value of attribute {name}"), value, 0, 800, IN_VALUE)
}

fn check_policy(policy: &PolicyPlan) -> Result<(), Refused> {
    match policy {
        PolicyPlan::Named(name) => check_policy_name(name),
        PolicyPlan::Inline(document) => match Document::parse(document) {
            Ok(_) => Ok(()),
            Err(malformed) => Err(Refused::new(Refusal::MalformedPolicy, malformed.to_string())),
        },
    }
}

fn check_text(kind: &str, text: &str, least: usize, most: usize, besides: &[u8]) -> Result<(), Refused> {
    let length = text.chars().count();
    if !(least..=most).contains(&length) {
        return Err(wrong(format!("{kind} of {length} characters; {least} to {most} are allowed")));
    }
    let is_allowed = |character: char| {
        character.is_ascii_alphanumeric() || u8::try_from(character).is_ok_and(|byte| besides.contains(&byte))
    };
    match text.chars().enumerate().find(|(_, character)| !is_allowed(*character)) {
        Some((at, character)) => {
            let besides = String::from_utf8_lossy(besides);
            Err(wrong(format!(
                "{kind} has {} (U+{:04X}) as character {}; letters, digits and {besides} are allowed",
                character.escape_debug(),
                u32::from(character),
                at + 1
            )))
        }
        None => Ok(()),
    }
}

fn wrong(detail: String) -> Refused {
    Refused::new(Refusal::InvalidName, detail)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::template::{Activation, Overrides, PrincipalType};

    fn plan(name: &str, type_name: Option<&str>, attributes: &[(&str, &str)]) -> Plan {
        Plan {
            thing: Some(ThingPlan {
                name: name.into(),
                type_name: type_name.map(Into::into),
                attributes: Some(attributes.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect()),
                groups: None,
                billing_group: None,
                package_versions: BTreeMap::new(),
                overrides: Overrides::default(),
            }),
            certificate: None,
            principal_type: PrincipalType::NonExclusive,
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
            ("a b", Some("Thing name has   (U+0020) as character 2; letters, digits and :_- are allowed")),
            (
                "가나다",
                Some("Thing name has 가 (U+AC00) as character 1; letters, digits and :_- are allowed"),
            ),
            ("a\nb", Some("Thing name has \\n (U+000A) as character 2; letters, digits and :_- are allowed")),
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
            (
                "a b",
                Some(
                    "Value of attribute k has   (U+0020) as character 2; letters, digits and _.,@/:#=[]- are allowed",
                ),
            ),
        ] {
            assert_eq!(complaint(&plan("n", None, &[("k", value)])).as_deref(), expected, "{value}");
        }
        let complaint = complaint(&plan("n", Some("a type"), &[]));
        assert_eq!(
            complaint.as_deref(),
            Some("Thing type name has   (U+0020) as character 2; letters, digits and :_- are allowed")
        );
    }

    #[test]
    fn attributes_are_counted_by_thing_type() {
        assert!(check_attributes(3, None).is_ok() && check_attributes(4, None).is_err());
        assert!(check_attributes(50, Some("t")).is_ok() && check_attributes(51, Some("t")).is_err());
    }

    #[test]
    fn policies_have_limits() {
        let with = |policies| Plan { policies, ..plan("n", None, &[]) };
        assert_eq!(complaint(&with(vec![PolicyPlan::Named("TwokDevicePolicy".into())])), None);
        assert!(complaint(&with(vec![PolicyPlan::Named("a:b".into())])).is_some());
        let malformed = complaint(&with(vec![PolicyPlan::Inline(String::new())])).unwrap();
        assert_eq!(malformed, "policy document is malformed: not JSON at line 1 column 0");
        assert!(complaint(&with(vec![PolicyPlan::Named("p".into()); 11])).is_some());
    }
}
