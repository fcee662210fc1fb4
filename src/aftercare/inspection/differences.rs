//! How a device differs from what its template and its row say.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::wanted::{Expected, Wanted, WantedPolicy, WantedThing};
use super::{Seen, SeenCertificate, SeenPolicy, SeenThing, is_same_json};
use crate::wording::{Excerpt, plain};

/// One way in which a device differs from what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// There is no thing of this name.
    NoThing(String),
    /// The thing's recorded name is not the one that the template and the row make.
    ThingName {
        /// The name that the ledger has.
        recorded: String,
        /// The name that the template and the row make.
        wanted: String,
    },
    /// The device has a thing although the template has none, or the other way round.
    ThingUnexpected {
        /// The name that the ledger has; `None` if the device has no thing.
        recorded: Option<String>,
    },
    /// An attribute of the thing differs.
    Attribute {
        /// Its name.
        name: String,
        /// What the thing has.
        found: Option<String>,
        /// What it should have.
        wanted: Option<String>,
    },
    /// The thing's type differs.
    ThingType {
        /// What the thing has.
        found: Option<String>,
        /// What it should have.
        wanted: Option<String>,
    },
    /// The thing's billing group differs.
    BillingGroup {
        /// What the thing has.
        found: Option<String>,
        /// What it should have.
        wanted: Option<String>,
    },
    /// The thing is not in this group.
    NotInGroup(String),
    /// The thing is in a group that the template does not name.
    InOtherGroup(String),
    /// The account does not have the certificate.
    NoCertificate,
    /// The account has another certificate under this id.
    OtherCertificate,
    /// The certificate's status.
    Status {
        /// What it has.
        found: String,
        /// What it should have.
        wanted: String,
    },
    /// The certificate is not attached to this thing, its own.
    NotAttached(String),
    /// Another principal, with this ARN, is attached to the thing.
    OtherPrincipal(String),
    /// The certificate is attached to this thing too.
    OtherThing(String),
    /// A policy of the template is not attached to the certificate: its name, or `None` if the template carries its
    /// document.
    NoPolicy(Option<String>),
    /// A policy is attached that the template does not have.
    OtherPolicy(String),
}

impl Difference {
    /// The stable name of the kind, for counting.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NoThing(_) => "no_thing",
            Self::ThingName { .. } => "thing_name",
            Self::ThingUnexpected { .. } => "thing_unexpected",
            Self::Attribute { .. } => "attribute",
            Self::ThingType { .. } => "thing_type",
            Self::BillingGroup { .. } => "billing_group",
            Self::NotInGroup(_) => "not_in_group",
            Self::InOtherGroup(_) => "in_other_group",
            Self::NoCertificate => "no_certificate",
            Self::OtherCertificate => "other_certificate",
            Self::Status { .. } => "certificate_status",
            Self::NotAttached(_) => "not_attached",
            Self::OtherPrincipal(_) => "other_principal",
            Self::OtherThing(_) => "other_thing",
            Self::NoPolicy(_) => "no_policy",
            Self::OtherPolicy(_) => "other_policy",
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = |value: &Option<String>| {
            value.as_deref().map_or(String::from("none"), |value| Excerpt(value).to_string())
        };
        match self {
            Self::NoThing(name) => write!(f, "there is no thing {}", plain(name)),
            Self::ThingName { recorded, wanted } => write!(
                f,
                "registered as thing {}; the template and the row make {}",
                plain(recorded),
                plain(wanted)
            ),
            Self::ThingUnexpected { recorded: Some(name) } => {
                write!(f, "registered as thing {}; the template has no thing", plain(name))
            }
            Self::ThingUnexpected { recorded: None } => {
                f.write_str("registered without a thing; the template has one")
            }
            Self::Attribute { name, found, wanted } => {
                write!(f, "attribute {}: found {}; wanted {}", plain(name), said(found), said(wanted))
            }
            Self::ThingType { found, wanted } => {
                write!(f, "thing type: found {}; wanted {}", said(found), said(wanted))
            }
            Self::BillingGroup { found, wanted } => {
                write!(f, "billing group: found {}; wanted {}", said(found), said(wanted))
            }
            Self::NotInGroup(name) => write!(f, "not in the thing group {}", plain(name)),
            Self::InOtherGroup(name) => {
                write!(f, "in the thing group {}, which the template does not name", plain(name))
            }
            Self::NoCertificate => f.write_str("the account does not have its certificate"),
            Self::OtherCertificate => {
                f.write_str("the account has another certificate under the id that the ledger has")
            }
            Self::Status { found, wanted } => write!(f, "certificate: found {found}; wanted {wanted}"),
            Self::NotAttached(thing) => {
                write!(f, "the certificate is not attached to thing {}", plain(thing))
            }
            Self::OtherPrincipal(arn) => write!(f, "{} is attached to the thing too", plain(arn)),
            Self::OtherThing(name) => {
                write!(f, "the certificate is attached to thing {} too", plain(name))
            }
            Self::NoPolicy(Some(name)) => {
                write!(f, "policy {} is not attached to the certificate", plain(name))
            }
            Self::NoPolicy(None) => f.write_str(
                "the policy whose document the template carries is not attached to the certificate",
            ),
            Self::OtherPolicy(name) => {
                write!(f, "policy {} is attached, which the template does not have", plain(name))
            }
        }
    }
}

/// How a device differs from `wanted`. `recorded` is the thing that it was registered as, if any, and `certificate_id`
/// its certificate.
pub fn differences(
    wanted: &Wanted,
    recorded: Option<&str>,
    certificate_id: &str,
    seen: &Seen,
) -> Vec<Difference> {
    let mut found = Vec::new();
    match (&wanted.thing, recorded) {
        (Some(thing), Some(recorded)) => {
            if let Some(name) = thing.name.known()
                && name != recorded
            {
                let (recorded, wanted) = (recorded.to_owned(), name.clone());
                found.push(Difference::ThingName { recorded, wanted });
            }
            match &seen.thing {
                Some(seen) => compare_thing(thing, seen, &mut found),
                None => found.push(Difference::NoThing(recorded.to_owned())),
            }
        }
        (None, None) => {}
        (_, recorded) => {
            found.push(Difference::ThingUnexpected { recorded: recorded.map(str::to_owned) });
        }
    }
    let certificate = seen.certificate(certificate_id);
    if let Some(thing) = &seen.thing {
        let arn = certificate.map(|certificate| &certificate.arn);
        let is_own = |principal: &&String| match arn {
            Some(arn) => *principal == arn,
            None => principal.ends_with(&format!("cert/{certificate_id}")),
        };
        let others = thing.principals.iter().filter(|principal| !is_own(principal));
        found.extend(others.cloned().map(Difference::OtherPrincipal));
    }
    match certificate {
        None => found.push(Difference::NoCertificate),
        Some(certificate) => compare_certificate(wanted, recorded, seen, certificate, &mut found),
    }
    found
}

fn compare_thing(wanted: &WantedThing, seen: &SeenThing, found: &mut Vec<Difference>) {
    if let Some(name) = wanted.type_name.known()
        && *name != seen.type_name
    {
        found.push(Difference::ThingType { found: seen.type_name.clone(), wanted: name.clone() });
    }
    if let Some(attributes) = wanted.attributes.known() {
        compare_attributes(attributes, &seen.attributes, found);
    }
    if let Some(group) = wanted.billing_group.known()
        && *group != seen.billing_group
    {
        found.push(Difference::BillingGroup { found: seen.billing_group.clone(), wanted: group.clone() });
    }
    if let (Some(Some(groups)), Some(seen)) = (wanted.groups.known(), &seen.groups) {
        let seen: BTreeSet<_> = seen.iter().cloned().collect();
        found.extend(groups.difference(&seen).cloned().map(Difference::NotInGroup));
        found.extend(seen.difference(groups).cloned().map(Difference::InOtherGroup));
    }
}

/// Whether a thing's attributes are what they should be.
pub(super) fn is_same_attributes(
    wanted: &BTreeMap<String, Expected<String>>,
    seen: &BTreeMap<String, String>,
) -> bool {
    let mut found = Vec::new();
    compare_attributes(wanted, seen, &mut found);
    found.is_empty()
}

/// Compares attributes. The registry keeps no empty values, so an empty attribute equals a missing one.
fn compare_attributes(
    wanted: &BTreeMap<String, Expected<String>>,
    seen: &BTreeMap<String, String>,
    found: &mut Vec<Difference>,
) {
    let names: BTreeSet<&String> = wanted.keys().chain(seen.keys()).collect();
    for name in names {
        let wanted = match wanted.get(name) {
            Some(Expected::NotCheckable) => continue,
            Some(Expected::Known(value)) => Some(value.as_str()),
            None => None,
        };
        let seen = seen.get(name).map(String::as_str);
        if wanted.unwrap_or_default() != seen.unwrap_or_default() {
            let owned = |value: Option<&str>| value.filter(|value| !value.is_empty()).map(str::to_owned);
            found.push(Difference::Attribute {
                name: name.clone(),
                found: owned(seen),
                wanted: owned(wanted),
            });
        }
    }
}

fn compare_certificate(
    wanted: &Wanted,
    recorded: Option<&str>,
    seen: &Seen,
    certificate: &SeenCertificate,
    found: &mut Vec<Difference>,
) {
    if !certificate.is_as_recorded {
        found.push(Difference::OtherCertificate);
    }
    if let Some(status) = wanted.status.known()
        && *status != certificate.status
    {
        let wanted = (*status).to_owned();
        found.push(Difference::Status { found: certificate.status.clone(), wanted });
    }
    if let Some(thing) = recorded {
        let is_on_thing = seen.thing.as_ref().is_none_or(|thing| thing.principals.contains(&certificate.arn));
        if seen.thing.is_some() && !(is_on_thing && certificate.things.iter().any(|name| name == thing)) {
            found.push(Difference::NotAttached(thing.to_owned()));
        }
    }
    let others = certificate.things.iter().filter(|name| Some(name.as_str()) != recorded);
    found.extend(others.cloned().map(Difference::OtherThing));
    compare_policies(&wanted.policies, &certificate.policies, found);
}

/// Compares policies. If a hook may have changed one, policies that the template does not have are not reported.
fn compare_policies(wanted: &[Expected<WantedPolicy>], seen: &[SeenPolicy], found: &mut Vec<Difference>) {
    let mut others: Vec<&SeenPolicy> = seen.iter().collect();
    for policy in wanted.iter().filter_map(Expected::known) {
        match others.iter().position(|seen| policy.is(seen)) {
            Some(at) => {
                others.remove(at);
            }
            // Two policy resources of the template may be one and the same policy.
            None if seen.iter().any(|seen| policy.is(seen)) => {}
            None => found.push(Difference::NoPolicy(match policy {
                WantedPolicy::Named(name) => Some(name.clone()),
                WantedPolicy::Inline(_) => None,
            })),
        }
    }
    let not_checkable = wanted.iter().filter(|policy| policy.known().is_none()).count();
    if not_checkable == 0 {
        found.extend(others.into_iter().map(|policy| Difference::OtherPolicy(policy.name.clone())));
    }
}

impl WantedPolicy {
    /// Whether `seen` is this policy.
    pub fn is(&self, seen: &SeenPolicy) -> bool {
        match self {
            Self::Named(name) => *name == seen.name,
            Self::Inline(wanted) => {
                seen.document.as_ref().is_some_and(|document| is_same_json(wanted, document))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "c0ffee";
    const ARN: &str = "arn:aws:iot:eu-west-1:1:cert/c0ffee";

    fn wanted() -> Wanted {
        let known = |text: &str| Expected::Known(text.to_owned());
        Wanted {
            thing: Some(WantedThing {
                name: known("dev-42"),
                type_name: Expected::Known(Some("Meter".into())),
                attributes: Expected::Known(
                    [("serial".to_owned(), known("42")), ("note".to_owned(), known(""))].into(),
                ),
                groups: Expected::Known(Some(["all".to_owned()].into())),
                billing_group: Expected::Known(None),
            }),
            status: Expected::Known("ACTIVE"),
            policies: vec![
                Expected::Known(WantedPolicy::Named("Shared".into())),
                Expected::Known(WantedPolicy::Inline(r#"{"Version":"2012-10-17","Statement":[]}"#.into())),
            ],
        }
    }

    fn seen() -> Seen {
        Seen {
            thing: Some(SeenThing {
                name: "dev-42".into(),
                type_name: Some("Meter".into()),
                attributes: [("serial".into(), "42".into())].into(),
                billing_group: None,
                version: 1,
                groups: Some(vec!["all".into()]),
                principals: vec![ARN.into()],
            }),
            certificates: vec![SeenCertificate {
                id: ID.into(),
                arn: ARN.into(),
                status: "ACTIVE".into(),
                is_as_recorded: true,
                policies: vec![
                    SeenPolicy {
                        name: "5e1f".into(),
                        document: Some("{ \"Statement\": [], \"Version\": \"2012-10-17\" }".into()),
                    },
                    SeenPolicy { name: "Shared".into(), document: None },
                ],
                things: vec!["dev-42".into()],
            }],
        }
    }

    fn said(change: impl FnOnce(&mut Wanted, &mut Seen)) -> Vec<String> {
        let (mut wanted, mut seen) = (wanted(), seen());
        change(&mut wanted, &mut seen);
        let found = differences(&wanted, Some("dev-42"), ID, &seen);
        found.iter().map(|difference| format!("{}: {difference}", difference.kind())).collect()
    }

    #[test]
    fn a_device_as_it_should_be_differs_in_nothing() {
        assert_eq!(said(|_, _| {}), Vec::<String>::new());
    }

    #[test]
    fn what_another_client_did_to_the_thing_is_found() {
        let thing = |change: fn(&mut SeenThing)| said(|_, seen| change(seen.thing.as_mut().unwrap()));
        assert_eq!(
            thing(|thing| {
                thing.attributes.insert("serial".into(), "43".into());
                thing.attributes.insert("extra".into(), "x".into());
            }),
            [
                "attribute: attribute extra: found x; wanted none",
                "attribute: attribute serial: found 43; wanted 42"
            ]
        );
        assert_eq!(
            thing(|thing| thing.attributes.clear()),
            ["attribute: attribute serial: found none; wanted 42"]
        );
        assert_eq!(
            thing(|thing| thing.type_name = None),
            ["thing_type: thing type: found none; wanted Meter"]
        );
        assert_eq!(
            thing(|thing| thing.groups = Some(vec!["other".into()])),
            [
                "not_in_group: not in the thing group all",
                "in_other_group: in the thing group other, which the template does not name"
            ]
        );
        assert_eq!(
            thing(|thing| thing.billing_group = Some("b".into())),
            ["billing_group: billing group: found b; wanted none"]
        );
        assert_eq!(
            thing(|thing| thing.principals.push("arn:aws:iot:eu-west-1:1:cert/dead".into())),
            ["other_principal: arn:aws:iot:eu-west-1:1:cert/dead is attached to the thing too"]
        );
        assert_eq!(said(|_, seen| seen.thing = None), ["no_thing: there is no thing dev-42"]);
    }

    #[test]
    fn what_happened_to_the_certificate_is_found() {
        let certificate =
            |change: fn(&mut SeenCertificate)| said(|_, seen| change(&mut seen.certificates[0]));
        assert_eq!(
            certificate(|certificate| certificate.status = "INACTIVE".into()),
            ["certificate_status: certificate: found INACTIVE; wanted ACTIVE"]
        );
        assert_eq!(
            certificate(|certificate| {
                certificate.policies.remove(1);
            }),
            ["no_policy: policy Shared is not attached to the certificate"]
        );
        assert_eq!(
            certificate(|certificate| certificate.policies[0].document = Some("{}".into())),
            [
                "no_policy: the policy whose document the template carries is not attached to the certificate",
                "other_policy: policy 5e1f is attached, which the template does not have"
            ]
        );
        assert_eq!(
            certificate(|certificate| certificate.things.push("other".into())),
            ["other_thing: the certificate is attached to thing other too"]
        );
        assert_eq!(
            certificate(|certificate| certificate.is_as_recorded = false),
            ["other_certificate: the account has another certificate under the id that the ledger has"]
        );
        assert_eq!(
            said(|_, seen| {
                seen.certificates[0].things.clear();
                seen.thing.as_mut().unwrap().principals.clear();
            }),
            ["not_attached: the certificate is not attached to thing dev-42"]
        );
        assert_eq!(
            said(|_, seen| seen.certificates.clear()),
            ["no_certificate: the account does not have its certificate"]
        );
    }

    #[test]
    fn what_a_hook_may_have_changed_is_no_difference() {
        let found = said(|wanted, seen| {
            let thing = wanted.thing.as_mut().unwrap();
            let Expected::Known(attributes) = &mut thing.attributes else { panic!("they are known") };
            attributes.insert("serial".into(), Expected::NotCheckable);
            thing.name = Expected::NotCheckable;
            wanted.policies[1] = Expected::NotCheckable;
            seen.thing.as_mut().unwrap().attributes.insert("serial".into(), "elsewhere".into());
            seen.certificates[0].policies[0].document = Some("{}".into());
        });
        assert_eq!(found, Vec::<String>::new());
    }

    #[test]
    fn a_device_without_a_thing_is_judged_by_its_certificate() {
        let (wanted, mut seen) = (Wanted { thing: None, ..wanted() }, seen());
        seen.thing = None;
        seen.certificates[0].things.clear();
        assert_eq!(differences(&wanted, None, ID, &seen), []);
        assert_eq!(
            differences(&wanted, Some("x"), ID, &seen),
            [Difference::ThingUnexpected { recorded: Some("x".into()) }]
        );
    }
}
