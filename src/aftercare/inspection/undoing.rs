//! The order in which a device's resources are removed, and which of them are kept.
//!
//! Source of the order: AWS IoT API Reference, DeleteCertificate (inactive, without policies and things) and
//! DeleteThing (without principals).

use std::fmt;

use super::differences::is_same_attributes;
use super::wanted::{Expected, Wanted, WantedPolicy};
use super::{Seen, SeenCertificate, SeenPolicy, SeenThing};
use crate::wording::plain;

/// What the ledger knows of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Made<'a> {
    /// The thing that it was registered as, or that it must be if it is registered.
    pub thing: Option<&'a str>,
    /// The id of the certificate that it is registered with; `None` if it is not known to be registered.
    pub registered: Option<&'a str>,
    /// The ids of all its certificates, of which the account may have lost some.
    pub certificates: &'a [&'a str],
    /// Whether its undoing had begun before.
    pub begun: Begun,
    /// Whether it was made up to calibrate: what was sent for it is not always its row, and before there was no thing
    /// with the name that its template and its row make.
    pub is_made_up: bool,
}

impl Made<'_> {
    /// Whether a principal is one of the device's certificates, even one that the account no longer has.
    fn has(&self, principal: &str) -> bool {
        let id = principal.rsplit_once(":cert/").map(|(_, id)| id);
        id.is_some_and(|id| self.certificates.contains(&id))
    }
}

/// Whether an earlier run had begun to undo a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begun {
    /// It had: changes since the registration may be that run's.
    Yes,
    /// It had not: any change since the registration was made by another client.
    No,
    /// The device is to be undone whoever has changed it.
    Whatever,
}

/// One request to the control plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// DetachPolicy.
    DetachPolicy {
        /// The policy.
        policy: String,
        /// The certificate's ARN.
        arn: String,
    },
    /// DetachThingPrincipal.
    DetachPrincipal {
        /// The thing.
        thing: String,
        /// The certificate's ARN.
        arn: String,
    },
    /// UpdateCertificate to INACTIVE.
    Deactivate {
        /// The certificate's id.
        certificate: String,
    },
    /// DeleteCertificate.
    DeleteCertificate {
        /// The certificate's id.
        certificate: String,
    },
    /// DeleteThing, which fails if the thing no longer has this version.
    DeleteThing {
        /// The thing.
        thing: String,
        /// Its version.
        version: i64,
    },
}

/// Something that is detached but kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keep {
    /// The kind and the name, such as `thing NAME` or `policy NAME`.
    pub what: String,
    /// Why.
    pub why: String,
}

impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.why)
    }
}

/// What to do for a device.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Undoing {
    /// The requests, in order.
    pub steps: Vec<Step>,
    /// What is kept.
    pub kept: Vec<Keep>,
    /// The names of the policies that the template carries: to be deleted once nothing is attached to them any more.
    pub policies: Vec<String>,
}

/// Why nothing of a device is touched: another client has changed its certificate since it was registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Untouched {
    /// Its certificate has another status.
    #[error("its certificate is {found}, and was {wanted}: another client has changed it")]
    Status {
        /// The status now.
        found: String,
        /// The status that the registration gave it.
        wanted: String,
    },
    /// Its certificate is not active, and there is no template to say that it should not be.
    #[error("its certificate is {0}; without its template it is not known whether it was registered so")]
    NotActive(String),
    /// The template cannot be evaluated for its row, so that what it made of it is not known.
    #[error("what its template makes of its row is not known: {0}")]
    NotEvaluated(String),
    /// A policy of the template was detached.
    #[error("another client has detached {0} from its certificate")]
    PolicyDetached(String),
    /// The certificate was detached from its thing.
    #[error("another client has detached its certificate from thing {}", plain(.0))]
    Detached(String),
    /// The account rejects a question about it.
    #[error("what the account has of it is not known: {0}")]
    NotSeen(String),
    /// The account has another certificate under the recorded id.
    #[error("the account has another certificate under the id that the ledger has")]
    OtherCertificate,
}

/// How to undo a device. `wanted` is `None` if there is no template.
///
/// # Errors
/// [`Untouched`] if the device must be left untouched.
pub fn undo(made: Made<'_>, wanted: Option<&Wanted>, seen: &Seen) -> Result<Undoing, Untouched> {
    if let Some(certificate) = made.registered.and_then(|id| seen.certificate(id)) {
        match made.begun {
            Begun::No => check_unchanged(made, wanted, seen, certificate)?,
            Begun::Yes => check_undone_in_order(wanted, certificate)?,
            Begun::Whatever => {}
        }
    }
    let mut undoing = Undoing::default();
    for certificate in &seen.certificates {
        if !certificate.is_as_recorded {
            return Err(Untouched::OtherCertificate);
        }
        undoing.take_apart(certificate, made, wanted, seen);
    }
    if let Some(thing) = &seen.thing {
        undoing.detach_gone(thing, made, seen);
        match reason_to_keep(thing, made, wanted) {
            None => {
                let step = Step::DeleteThing { thing: thing.name.clone(), version: thing.version };
                undoing.steps.push(step);
            }
            Some(why) => undoing.keep(format!("thing {}", thing.name), why),
        }
    }
    Ok(undoing)
}

fn check_unchanged(
    made: Made<'_>,
    wanted: Option<&Wanted>,
    seen: &Seen,
    certificate: &SeenCertificate,
) -> Result<(), Untouched> {
    match wanted.map(|wanted| wanted.status.known()) {
        Some(Some(status)) if *status != certificate.status => {
            let (found, wanted) = (certificate.status.clone(), (*status).to_owned());
            return Err(Untouched::Status { found, wanted });
        }
        None if certificate.status != "ACTIVE" => {
            return Err(Untouched::NotActive(certificate.status.clone()));
        }
        _ => {}
    }
    let policies = wanted.map_or(&[][..], |wanted| &wanted.policies);
    for policy in policies.iter().filter_map(Expected::known) {
        if !certificate.policies.iter().any(|seen| policy.is(seen)) {
            return Err(Untouched::PolicyDetached(match policy {
                WantedPolicy::Named(name) => format!("policy {}", plain(name)),
                WantedPolicy::Inline(_) => String::from("the policy whose document the template carries"),
            }));
        }
    }
    if let Some(thing) = made.thing
        && seen.thing.is_some()
        && !certificate.things.iter().any(|name| name == thing)
    {
        return Err(Untouched::Detached(thing.to_owned()));
    }
    Ok(())
}

/// A run deactivates a certificate after it has detached all of its policies: one that is deactivated and still has
/// those of the template was deactivated by another client.
fn check_undone_in_order(wanted: Option<&Wanted>, certificate: &SeenCertificate) -> Result<(), Untouched> {
    let Some(wanted) = wanted else { return Ok(()) };
    let mut policies = wanted.policies.iter().filter_map(Expected::known).peekable();
    let is_whole = policies.peek().is_some()
        && policies.all(|policy| certificate.policies.iter().any(|it| policy.is(it)));
    match wanted.status.known() {
        Some(status) if *status != certificate.status && is_whole => {
            let (found, wanted) = (certificate.status.clone(), (*status).to_owned());
            Err(Untouched::Status { found, wanted })
        }
        _ => Ok(()),
    }
}

/// Why a thing is kept; `None` if nothing suggests that it is not what the registration made.
fn reason_to_keep(thing: &SeenThing, made: Made<'_>, wanted: Option<&Wanted>) -> Option<String> {
    if let Some(other) = thing.principals.iter().find(|principal| !made.has(principal)) {
        return Some(format!("{} is attached to it, which this ledger does not have", plain(other)));
    }
    let wanted = wanted.and_then(|wanted| wanted.thing.as_ref());
    if made.is_made_up && wanted.is_some_and(|wanted| wanted.name.known() == Some(&thing.name)) {
        return None;
    }
    if thing.version != 1 {
        let version = thing.version;
        return Some(format!(
            "it has version {version}: it was there before, or another client has changed it"
        ));
    }
    let attributes = wanted?.attributes.known().filter(|_| !made.is_made_up)?;
    (!is_same_attributes(attributes, &thing.attributes)).then(|| {
        String::from("its attributes are not what the template and the row make: it was there before")
    })
}

/// Whether a certificate has more policies with the document of `policy` than the template has: which of them it made is
/// not known.
fn is_surplus(
    inline: &WantedPolicy,
    policy: &SeenPolicy,
    wanted: Option<&Wanted>,
    certificate: &SeenCertificate,
) -> bool {
    let of_template = wanted.iter().flat_map(|wanted| &wanted.policies).filter_map(Expected::known);
    let attached = certificate.policies.iter().filter(|it| inline.is(it)).count();
    attached > of_template.filter(|it| it.is(policy)).count()
}

impl Undoing {
    fn take_apart(
        &mut self,
        certificate: &SeenCertificate,
        made: Made<'_>,
        wanted: Option<&Wanted>,
        seen: &Seen,
    ) {
        let arn = || certificate.arn.clone();
        for policy in &certificate.policies {
            self.steps.push(Step::DetachPolicy { policy: policy.name.clone(), arn: arn() });
            let of_template = wanted.map(|wanted| wanted.policies.iter().filter_map(Expected::known));
            let kind = of_template.and_then(|mut policies| policies.find(|wanted| wanted.is(policy)));
            let has_open = wanted.is_some_and(|wanted| wanted.policies.iter().any(|it| it.known().is_none()));
            match kind {
                // The template only names it, so it existed before.
                Some(WantedPolicy::Named(_)) => {}
                Some(WantedPolicy::Inline(_)) if self.policies.contains(&policy.name) => {}
                Some(inline) if is_surplus(inline, policy, wanted, certificate) => {
                    let why = "more policies with its document are attached than the template has";
                    self.keep(format!("policy {}", policy.name), String::from(why));
                }
                Some(WantedPolicy::Inline(_)) => self.policies.push(policy.name.clone()),
                None => {
                    let why = match wanted {
                        None => "there is no template to say whether it carries its document",
                        Some(_) if has_open => "the template's hook may have changed its document",
                        Some(_) => "the template does not have it",
                    };
                    self.keep(format!("policy {}", policy.name), String::from(why));
                }
            }
        }
        let mut things: Vec<&String> = certificate.things.iter().collect();
        if let Some(thing) = &seen.thing
            && thing.principals.contains(&certificate.arn)
            && !things.contains(&&thing.name)
        {
            things.push(&thing.name);
        }
        for thing in things {
            self.steps.push(Step::DetachPrincipal { thing: thing.clone(), arn: arn() });
            let is_its_own = seen.thing.as_ref().is_some_and(|seen| seen.name == *thing);
            if !is_its_own && made.thing != Some(thing) {
                let why = "this ledger does not have it; its certificate was attached to it";
                self.keep(format!("thing {thing}"), String::from(why));
            }
        }
        let id = || certificate.id.clone();
        if certificate.status == "ACTIVE" {
            self.steps.push(Step::Deactivate { certificate: id() });
        }
        self.steps.push(Step::DeleteCertificate { certificate: id() });
    }

    /// Detaches from the thing what is left of certificates that the account no longer has.
    fn detach_gone(&mut self, thing: &SeenThing, made: Made<'_>, seen: &Seen) {
        let is_there =
            |principal: &str| seen.certificates.iter().any(|certificate| certificate.arn == principal);
        let gone = thing.principals.iter().filter(|it| made.has(it) && !is_there(it));
        self.steps
            .extend(gone.map(|arn| Step::DetachPrincipal { thing: thing.name.clone(), arn: arn.clone() }));
    }

    fn keep(&mut self, what: String, why: String) {
        let keep = Keep { what, why };
        if !self.kept.contains(&keep) {
            self.kept.push(keep);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::wanted::WantedThing;
    use super::*;

    const DOCUMENT: &str = r#"{"Version":"2012-10-17","Statement":[]}"#;

    fn arn(id: &str) -> String {
        format!("arn:aws:iot:eu-west-1:1:cert/{id}")
    }

    fn wanted() -> Wanted {
        Wanted {
            thing: Some(WantedThing {
                name: Expected::Known("dev-42".into()),
                type_name: Expected::Known(None),
                attributes: Expected::Known([("serial".to_owned(), Expected::Known("42".to_owned()))].into()),
                groups: Expected::Known(None),
                billing_group: Expected::Known(None),
            }),
            status: Expected::Known("ACTIVE"),
            policies: vec![
                Expected::Known(WantedPolicy::Named("Shared".into())),
                Expected::Known(WantedPolicy::Inline(DOCUMENT.into())),
            ],
        }
    }

    fn seen() -> Seen {
        let policy = |name: &str, document: Option<&str>| SeenPolicy {
            name: name.into(),
            document: document.map(String::from),
        };
        Seen {
            thing: Some(SeenThing {
                name: "dev-42".into(),
                attributes: [("serial".into(), "42".into())].into(),
                version: 1,
                principals: vec![arn("c0ffee")],
                ..SeenThing::default()
            }),
            certificates: vec![SeenCertificate {
                id: "c0ffee".into(),
                arn: arn("c0ffee"),
                status: "ACTIVE".into(),
                is_as_recorded: true,
                policies: vec![policy("Shared", None), policy("5e1f", Some(DOCUMENT))],
                things: vec!["dev-42".into()],
            }],
        }
    }

    const MADE: Made<'_> = Made {
        thing: Some("dev-42"),
        registered: Some("c0ffee"),
        certificates: &["c0ffee", "b0b"],
        begun: Begun::No,
        is_made_up: false,
    };

    fn short(undoing: &Undoing) -> Vec<String> {
        let words = |step: &Step| match step {
            Step::DetachPolicy { policy, arn } => format!("detach policy {policy} from {}", &arn[29..]),
            Step::DetachPrincipal { thing, arn } => format!("detach {} from {thing}", &arn[29..]),
            Step::Deactivate { certificate } => format!("deactivate {certificate}"),
            Step::DeleteCertificate { certificate } => format!("delete {certificate}"),
            Step::DeleteThing { thing, version } => format!("delete {thing} at {version}"),
        };
        undoing.steps.iter().map(words).collect()
    }

    #[test]
    fn what_was_made_is_undone_from_the_outside_in() {
        let undoing = undo(MADE, Some(&wanted()), &seen()).unwrap();
        assert_eq!(
            short(&undoing),
            [
                "detach policy Shared from c0ffee",
                "detach policy 5e1f from c0ffee",
                "detach c0ffee from dev-42",
                "deactivate c0ffee",
                "delete c0ffee",
                "delete dev-42 at 1"
            ]
        );
        assert_eq!(undoing.policies, ["5e1f"]);
        assert_eq!(undoing.kept, []);
    }

    #[test]
    fn a_thing_that_may_not_be_of_this_ledger_is_detached_and_kept() {
        let kept = |change: fn(&mut SeenThing)| {
            let mut seen = seen();
            change(seen.thing.as_mut().unwrap());
            let undoing = undo(MADE, Some(&wanted()), &seen).unwrap();
            assert_eq!(short(&undoing).last().unwrap(), "delete c0ffee");
            assert_eq!(short(&undoing)[2], "detach c0ffee from dev-42");
            undoing.kept.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(
            kept(|thing| thing.version = 2),
            ["thing dev-42: it has version 2: it was there before, or another client has changed it"]
        );
        assert_eq!(
            kept(|thing| thing.principals.push(arn("dead"))),
            [
                "thing dev-42: arn:aws:iot:eu-west-1:1:cert/dead is attached to it, which this ledger does not have"
            ]
        );
        assert_eq!(
            kept(|thing| {
                thing.attributes.clear();
            }),
            ["thing dev-42: its attributes are not what the template and the row make: it was there before"]
        );
    }

    #[test]
    fn a_certificate_that_another_client_has_changed_is_left_alone_unless_this_has_begun() {
        let untouched = |change: fn(&mut SeenCertificate), begun| {
            let mut seen = seen();
            change(&mut seen.certificates[0]);
            let made = Made { begun, ..MADE };
            undo(made, Some(&wanted()), &seen).map(|undoing| short(&undoing)).map_err(|it| it.to_string())
        };
        let inactive = |certificate: &mut SeenCertificate| certificate.status = "INACTIVE".into();
        assert_eq!(
            untouched(inactive, Begun::No).unwrap_err(),
            "its certificate is INACTIVE, and was ACTIVE: another client has changed it"
        );
        let as_a_run_leaves_it = |certificate: &mut SeenCertificate| {
            certificate.status = "INACTIVE".into();
            certificate.policies.clear();
        };
        let rest = ["detach c0ffee from dev-42", "delete c0ffee", "delete dev-42 at 1"];
        assert_eq!(untouched(as_a_run_leaves_it, Begun::Yes).unwrap(), rest);
        assert_eq!(untouched(inactive, Begun::Whatever).unwrap()[2..], rest);
        let bare = |certificate: &mut SeenCertificate| certificate.policies.truncate(1);
        assert_eq!(
            untouched(bare, Begun::No).unwrap_err(),
            "another client has detached the policy whose document the template carries from its certificate"
        );
        assert_eq!(untouched(bare, Begun::Yes).unwrap().len(), 5);
        // Its policies would have been detached first.
        let deactivated = untouched(inactive, Begun::Yes).unwrap_err();
        assert_eq!(deactivated, "its certificate is INACTIVE, and was ACTIVE: another client has changed it");
        let loose = |certificate: &mut SeenCertificate| certificate.things.clear();
        assert_eq!(
            untouched(loose, Begun::No).unwrap_err(),
            "another client has detached its certificate from thing dev-42"
        );
        let other = |certificate: &mut SeenCertificate| certificate.is_as_recorded = false;
        for begun in [Begun::No, Begun::Yes] {
            assert!(untouched(other, begun).unwrap_err().contains("another certificate"));
        }
    }

    #[test]
    fn what_others_have_attached_is_detached_and_kept() {
        let mut seen = seen();
        seen.certificates[0].things.push("other".into());
        seen.certificates[0].policies.push(SeenPolicy { name: "Theirs".into(), document: None });
        let undoing = undo(MADE, Some(&wanted()), &seen).unwrap();
        let kept: Vec<_> = undoing.kept.iter().map(ToString::to_string).collect();
        assert_eq!(
            kept,
            [
                "policy Theirs: the template does not have it",
                "thing other: this ledger does not have it; its certificate was attached to it"
            ]
        );
        let steps = short(&undoing);
        assert_eq!(
            steps[2..5],
            ["detach policy Theirs from c0ffee", "detach c0ffee from dev-42", "detach c0ffee from other"]
        );
        assert_eq!(undoing.policies, ["5e1f"]);
    }

    #[test]
    fn a_thing_that_was_made_up_to_calibrate_is_new_by_its_name() {
        let made = Made { is_made_up: true, ..MADE };
        let kept = |change: fn(&mut SeenThing)| {
            let mut seen = seen();
            change(seen.thing.as_mut().unwrap());
            undo(made, Some(&wanted()), &seen).unwrap().kept.len()
        };
        assert_eq!(kept(|thing| thing.version = 2), 0);
        assert_eq!(kept(|thing| thing.attributes.clear()), 0);
        assert_eq!(kept(|thing| thing.principals.push(arn("dead"))), 1);
        // Under a name that nobody has looked for, a later version may be another client's.
        let named = |version| {
            let mut seen = seen();
            let thing = seen.thing.as_mut().unwrap();
            (thing.name, thing.version) = ("dev-".into(), version);
            undo(made, Some(&wanted()), &seen).unwrap().kept.iter().any(|keep| keep.what == "thing dev-")
        };
        assert_eq!((named(1), named(2)), (false, true));
    }

    #[test]
    fn of_two_policies_with_the_templates_document_none_is_deleted() {
        let mut seen = seen();
        let theirs = SeenPolicy { name: "Theirs".into(), document: Some(DOCUMENT.into()) };
        seen.certificates[0].policies.push(theirs);
        let undoing = undo(MADE, Some(&wanted()), &seen).unwrap();
        assert!(undoing.policies.is_empty(), "{undoing:?}");
        let why = "more policies with its document are attached than the template has";
        let kept: Vec<_> = undoing.kept.iter().map(ToString::to_string).collect();
        assert_eq!(kept, [format!("policy 5e1f: {why}"), format!("policy Theirs: {why}")]);
        let mut wanted = wanted();
        wanted.policies.push(Expected::Known(WantedPolicy::Inline(DOCUMENT.into())));
        assert_eq!(undo(MADE, Some(&wanted), &seen).unwrap().policies, ["5e1f", "Theirs"]);
    }

    #[test]
    fn an_earlier_certificate_of_a_device_goes_with_it_and_one_that_is_gone_needs_nothing() {
        let mut seen = seen();
        let earlier = SeenCertificate {
            id: "b0b".into(),
            arn: arn("b0b"),
            status: "INACTIVE".into(),
            policies: vec![],
            ..seen.certificates[0].clone()
        };
        seen.certificates.insert(0, earlier);
        seen.thing.as_mut().unwrap().principals.push(arn("b0b"));
        let undoing = undo(MADE, Some(&wanted()), &seen).unwrap();
        assert_eq!(
            short(&undoing)[..3],
            ["detach b0b from dev-42", "delete b0b", "detach policy Shared from c0ffee"]
        );
        assert_eq!(short(&undoing).last().unwrap(), "delete dev-42 at 1");
        assert_eq!(undo(MADE, Some(&wanted()), &Seen::default()), Ok(Undoing::default()));
    }

    #[test]
    fn what_the_account_still_lists_of_a_certificate_that_is_gone_keeps_no_thing() {
        for begun in [Begun::No, Begun::Yes] {
            let seen = Seen { certificates: vec![], ..seen() };
            let undoing = undo(Made { begun, ..MADE }, Some(&wanted()), &seen).unwrap();
            assert_eq!(short(&undoing), ["detach c0ffee from dev-42", "delete dev-42 at 1"]);
            assert_eq!(undoing.kept, []);
        }
    }

    #[test]
    fn without_a_template_a_certificate_that_is_not_as_it_was_made_is_left_alone_too() {
        let untouched = |change: fn(&mut SeenCertificate)| {
            let mut seen = seen();
            change(&mut seen.certificates[0]);
            undo(MADE, None, &seen).unwrap_err().to_string()
        };
        assert_eq!(
            untouched(|certificate| certificate.status = "INACTIVE".into()),
            "its certificate is INACTIVE; without its template it is not known whether it was registered so"
        );
        assert_eq!(
            untouched(|certificate| certificate.things.clear()),
            "another client has detached its certificate from thing dev-42"
        );
    }

    #[test]
    fn without_a_template_policies_are_kept_and_an_orphan_needs_no_deactivation() {
        let undoing = undo(MADE, None, &seen()).unwrap();
        assert!(undoing.policies.is_empty());
        assert_eq!(undoing.kept.len(), 2);
        let orphan = SeenCertificate {
            id: "c0ffee".into(),
            arn: arn("c0ffee"),
            status: "PENDING_ACTIVATION".into(),
            is_as_recorded: true,
            ..SeenCertificate::default()
        };
        let made = Made { thing: None, registered: None, ..MADE };
        let seen = Seen { thing: None, certificates: vec![orphan] };
        assert_eq!(short(&undo(made, Some(&wanted()), &seen).unwrap()), ["delete c0ffee"]);
    }
}
