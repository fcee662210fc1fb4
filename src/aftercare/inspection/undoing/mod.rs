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
mod tests;
