//! Removes from the account what was made for a ledger's devices, and nothing else.
//!
//! Before the first request that changes anything for a device, the ledger records that its undoing has begun, and
//! which policies may be deleted. A run after a crash can therefore tell an earlier run's changes from another
//! client's.

mod policies;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::inspection::{Begun, Keep, Made, Seen, SeenCertificate, Step, Undoing, Untouched, Wanted, undo};
use super::look::{Looker, Subject, there};
use super::round::{Books, Trouble, go_through};
use super::{Ended, Setting, Shared};
use crate::certificate::CertificateId;
use crate::control_plane::AskError;
use crate::event::DeviceState;
use crate::identity::MADE_UP_TO_CALIBRATE;
use crate::ledger::{
    CredentialId, Finding, Ledger, MadeCertificate, MadeDevice, MadeKind, MadeScope, RunId, Undone,
};
use crate::shard::Shard;

/// The verb under which the ledger records the findings.
pub const VERB: &str = "cleanup";

/// What became of a device: the names of the outcomes in the ledger.
pub mod outcome {
    /// Its undoing has begun.
    pub const BEGUN: &str = "begun";
    /// Everything is gone except its own policies, which may still be in use.
    pub const POLICIES: &str = "policies";
    /// Its certificate is gone, and something else was kept.
    pub const KEPT: &str = "kept";
    /// Nothing was touched, because another client has changed its certificate, or the account did not allow the first step.
    pub const LEFT_ALONE: &str = "left_alone";
    /// All is gone.
    pub const REMOVED: &str = "removed";
}

/// The longest wait for a detachment to take effect: the API reference says several seconds (DetachThingPrincipal).
const DETACHED_WITHIN: Duration = Duration::from_secs(120);
/// The first pause before a retry that waits for a detachment. Each later pause is twice as long, up to
/// [`LONGEST_PAUSE`].
const PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// What to undo.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// Only devices with one of these keys; empty for any.
    pub keys: HashSet<String>,
    /// Only devices of this shard; `None` for any.
    pub shard: Option<Shard>,
    /// Only devices that reached their state in this run or a later one.
    pub since_run: Option<RunId>,
    /// Whether to include certificates that were issued but never registered.
    pub orphans: bool,
    /// Whether to include devices whose certificate another client has changed.
    pub changed: bool,
    /// Whether to change nothing, and only report what would be done.
    pub is_rehearsal: bool,
}

impl Plan {
    /// The devices that the plan chooses.
    pub fn scope(&self) -> MadeScope {
        let of = if self.orphans { MadeKind::Certified } else { MadeKind::OnceRegistered };
        MadeScope {
            verb: VERB,
            keys: self.keys.clone(),
            shard: self.shard,
            since_run: self.since_run,
            ..MadeScope::of(of)
        }
    }
}

/// What a run did, or what a rehearsal would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Tally {
    /// Devices of which nothing is left.
    pub removed: u64,
    /// Devices whose certificate is gone, while something else was kept.
    pub kept: u64,
    /// Devices that were left untouched.
    pub left_alone: u64,
    /// Certificates deleted.
    pub certificates: u64,
    /// Things deleted.
    pub things: u64,
    /// Policies deleted.
    pub policies: u64,
}

/// Something that is still in the account.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Left {
    /// The device's key.
    pub key: String,
    /// What is left, and why.
    pub what: String,
}

/// How a run ended, and what it did.
#[derive(Debug)]
pub struct Outcome {
    /// Why the run ended.
    pub ended: Ended,
    /// What the run did.
    pub tally: Tally,
    /// What is left: at most [`MOST_LEFT`] entries.
    pub left: Vec<Left>,
    /// The ledger, handed back.
    pub ledger: Ledger,
}

/// The most entries in [`Outcome::left`].
pub const MOST_LEFT: usize = 10_000;

/// Undoes what `plan` chooses.
pub async fn run(plan: &Plan, ledger: Ledger, setting: &Setting) -> Outcome {
    let is_made_up = ledger.view().lot().source.starts_with(MADE_UP_TO_CALIBRATE);
    let shared = Shared::new(ledger);
    let (books, keeper) = Books::open(&shared, VERB, setting.clock);
    let cleaner = Arc::new(Cleaner {
        looker: Looker::new(setting.control_plane.clone()),
        setting: setting.clone(),
        books,
        plan: plan.clone(),
        is_made_up,
        done: std::sync::Mutex::default(),
    });
    let act = |device| {
        let cleaner = cleaner.clone();
        async move { cleaner.clean(device).await }
    };
    let mut ended = go_through(&shared, plan.scope(), setting, act).await;
    if matches!(ended, Ended::Complete) {
        let policies = if plan.is_rehearsal {
            policies::rehearse(&cleaner).await
        } else {
            policies::delete(&shared, &cleaner).await
        };
        ended = policies.err().unwrap_or(ended);
    }
    let Done { tally, left, .. } = std::mem::take(&mut *cleaner.done());
    drop(cleaner);
    let problem = keeper.close().await;
    let ended = problem.map_or(ended, Ended::Ledger);
    Outcome { ended, tally, left, ledger: shared.into_ledger().await }
}

struct Cleaner {
    looker: Looker,
    setting: Setting,
    books: Books,
    plan: Plan,
    /// Whether the devices were made up to calibrate.
    is_made_up: bool,
    done: std::sync::Mutex<Done>,
}

#[derive(Default)]
struct Done {
    tally: Tally,
    left: Vec<Left>,
    /// Devices of a rehearsal whose policies would be deleted.
    waiting: Vec<policies::Waiting>,
    /// Ids of the certificates that a rehearsal would delete.
    going: HashSet<String>,
}

impl Done {
    /// Counts a device of which `tally` was deleted, and `kept` was not.
    fn count(&mut self, key: &str, tally: &Tally, kept: &[String]) {
        self.tally.certificates += tally.certificates;
        self.tally.things += tally.things;
        let devices = if kept.is_empty() { &mut self.tally.removed } else { &mut self.tally.kept };
        *devices += 1;
        for what in kept {
            self.leave(key, what);
        }
    }

    fn leave(&mut self, key: &str, what: impl ToString) {
        if self.left.len() < MOST_LEFT {
            self.left.push(Left { key: key.to_owned(), what: what.to_string() });
        }
    }
}

/// What an earlier run recorded about a device.
struct Earlier {
    begun: Begun,
    was_cut_off: bool,
    policies: Vec<String>,
    kept: Vec<String>,
    /// The certificate that the device was registered with, which its template may refer to.
    certificate: Option<CertificateId>,
}

impl Earlier {
    fn of(device: &MadeDevice) -> Self {
        let finding = device.finding.as_ref();
        let outcome = finding.map_or("", |finding| finding.outcome.as_str());
        let details = finding.map_or(Value::Null, |finding| finding.details.clone());
        let texts =
            |value: &Value| -> Vec<String> { serde_json::from_value(value.clone()).unwrap_or_default() };
        let has_begun = [outcome::BEGUN, outcome::POLICIES, outcome::KEPT].contains(&outcome);
        Self {
            begun: if has_begun { Begun::Yes } else { Begun::No },
            was_cut_off: [outcome::BEGUN, outcome::POLICIES].contains(&outcome),
            policies: if has_begun { texts(&details["policies"]) } else { Vec::new() },
            kept: if has_begun { texts(&details["kept"]) } else { Vec::new() },
            certificate: details["certificate"].as_str().and_then(|id| id.to_owned().try_into().ok()),
        }
    }
}

impl Earlier {
    /// What is kept of `device`: by `undoing`, and what an interrupted run had detached and decided to keep, which no
    /// longer shows up in the account. The device's own thing and deletable policies are judged anew.
    fn kept(&self, device: &MadeDevice, undoing: &Undoing) -> Vec<String> {
        let mut kept: Vec<String> = undoing.kept.iter().map(Keep::to_string).collect();
        let own_thing = device.thing_name.iter().map(|name| format!("thing {name}: "));
        let own: Vec<String> =
            own_thing.chain(undoing.policies.iter().map(|name| format!("policy {name}: "))).collect();
        for what in self.kept.iter().filter(|_| self.was_cut_off) {
            if !own.iter().any(|own| what.starts_with(own)) && !kept.contains(what) {
                kept.push(what.clone());
            }
        }
        kept
    }
}

impl Cleaner {
    fn done(&self) -> std::sync::MutexGuard<'_, Done> {
        self.done.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Cleans up after `device`; returns whether something of it is left.
    async fn clean(&self, device: MadeDevice) -> Result<bool, Trouble> {
        let earlier = Earlier::of(&device);
        let id = registered_with(&device).or(earlier.certificate.as_ref());
        let (wanted, why_not) = self.setting.expectation.of(&device, id);
        let seen = match self.look(&device, &earlier, wanted.as_ref()).await {
            Err(error @ AskError::Rejected { .. }) => {
                return self.leave_alone(&device, &earlier, &Untouched::NotSeen(error.to_string())).await;
            }
            seen => seen?,
        };
        let certificates: Vec<&str> = device
            .certificates
            .iter()
            .map(|certificate| &certificate.id)
            .chain(&earlier.certificate)
            .map(CertificateId::as_str)
            .collect();
        let made = Made {
            thing: seen.thing.as_ref().map(|thing| thing.name.as_str()).or(device.thing_name.as_deref()),
            registered: (device.state == DeviceState::Registered)
                .then(|| device.certificate().map(|certificate| certificate.id.as_str()))
                .flatten(),
            certificates: &certificates,
            begun: if self.plan.changed { Begun::Whatever } else { earlier.begun },
            is_made_up: self.is_made_up,
        };
        let undoing = match why_not {
            // A certificate by itself was made by this ledger, whatever the template says.
            Some(why) if !is_bare(&seen) => Err(Untouched::NotEvaluated(why)),
            _ => undo(made, wanted.as_ref(), &seen),
        };
        let mut undoing = match undoing {
            Ok(undoing) => undoing,
            Err(untouched) => return self.leave_alone(&device, &earlier, &untouched).await,
        };
        let new = earlier.policies.iter().filter(|name| !undoing.policies.contains(name));
        let new: Vec<String> = new.cloned().collect();
        undoing.policies.extend(new);
        let mut kept = earlier.kept(&device, &undoing);
        if self.plan.is_rehearsal {
            return Ok(self.rehearse(&device, undoing, kept));
        }
        self.note(&device, outcome::BEGUN, &undoing.policies, &kept, Vec::new()).await?;
        let mut tally = Tally::default();
        for (at, step) in undoing.steps.iter().enumerate() {
            if let Err(error) = self.take(step, &mut tally, &mut kept).await {
                return self.halt(&device, &earlier, at, error, &tally).await;
            }
        }
        self.finish(&device, &undoing, &kept, tally).await
    }

    /// Ends what is done for `device`, whose step number `at` failed. A refusal of this step is its own affair: what is
    /// left of it waits for another run, and the other devices go on.
    async fn halt(
        &self,
        device: &MadeDevice,
        earlier: &Earlier,
        at: usize,
        error: AskError,
        tally: &Tally,
    ) -> Result<bool, Trouble> {
        let is_refused = matches!(
            error,
            AskError::NotPermitted { .. } | AskError::Refused { .. } | AskError::Rejected { .. }
        );
        if is_refused && at == 0 && earlier.begun == Begun::No {
            // What others change from now on must not be taken for this run's doing.
            self.note_untouched(device, &error.to_string()).await?;
        }
        if !matches!(error, AskError::Rejected { .. }) {
            return Err(error.into());
        }
        self.done().count(&device.identity.key, tally, &[format!("its certificate: {error}")]);
        Ok(true)
    }

    async fn note_untouched(&self, device: &MadeDevice, why: &str) -> Result<(), Trouble> {
        let details = json!({ "thing": device.thing_name, "why": why });
        let finding = Finding { device: device.id, outcome: outcome::LEFT_ALONE.to_owned(), details };
        self.books.note(Undone { finding, gone: Vec::new() }).await
    }

    /// What the account has for a device. Its thing is the one in the ledger; for a device not known to be registered
    /// it is the one that the template and the row make, if the certificate is attached to that; for one that was made up
    /// to calibrate, whichever the certificate is attached to. A thing that was deleted before and exists again belongs to
    /// another client.
    async fn look(
        &self,
        device: &MadeDevice,
        earlier: &Earlier,
        wanted: Option<&Wanted>,
    ) -> Result<Seen, AskError> {
        let certificates: Vec<&MadeCertificate> = device.certificates.iter().collect();
        let was_kept = |name: &str| {
            let what = format!("thing {name}: ");
            earlier.kept.iter().any(|kept| kept.starts_with(&what))
        };
        let thing = device.thing_name.as_deref();
        let thing = thing.filter(|name| !certificates.is_empty() || was_kept(name));
        let subject = Subject { thing, certificates: &certificates, wanted };
        let mut seen = self.looker.look(&subject).await?;
        let expected = wanted.and_then(|it| it.thing.as_ref()).and_then(|it| it.name.known());
        let mut attached = seen.certificates.iter().flat_map(|certificate| &certificate.things);
        if thing.is_none()
            && let Some(name) = attached.find(|name| self.is_made_up || expected == Some(*name))
        {
            let subject = Subject { thing: Some(name), certificates: &[], wanted };
            seen.thing = self.looker.look(&subject).await?.thing;
        }
        Ok(seen)
    }

    async fn leave_alone(
        &self,
        device: &MadeDevice,
        earlier: &Earlier,
        why: &Untouched,
    ) -> Result<bool, Trouble> {
        let key = &device.identity.key;
        {
            let mut done = self.done();
            done.tally.left_alone += 1;
            done.leave(key, format!("left alone: {why}"));
        }
        // What an earlier run has begun is still to be finished.
        if !self.plan.is_rehearsal && earlier.begun == Begun::No {
            self.note_untouched(device, &why.to_string()).await?;
        }
        Ok(true)
    }

    fn rehearse(&self, device: &MadeDevice, undoing: Undoing, kept: Vec<String>) -> bool {
        let mut tally = Tally::default();
        let mut done = self.done();
        for step in undoing.steps {
            match step {
                Step::DeleteCertificate { certificate } => {
                    tally.certificates += 1;
                    done.going.insert(certificate);
                }
                Step::DeleteThing { .. } => tally.things += 1,
                Step::DetachPolicy { .. } | Step::DetachPrincipal { .. } | Step::Deactivate { .. } => {}
            }
        }
        let key = &device.identity.key;
        done.count(key, &tally, &kept);
        let is_kept = !kept.is_empty();
        if !undoing.policies.is_empty() {
            done.waiting.push(policies::Waiting::rehearsed(device, undoing.policies, kept));
        }
        is_kept
    }

    /// Does one step. Something already gone needs no request; a thing that turns out to be undeletable is kept.
    async fn take(&self, step: &Step, tally: &mut Tally, kept: &mut Vec<String>) -> Result<(), AskError> {
        let control_plane = &self.setting.control_plane;
        match step {
            Step::DetachPolicy { policy, arn } => {
                there(control_plane.detach_policy(policy, arn).await)?;
            }
            Step::DetachPrincipal { thing, arn } => {
                there(control_plane.detach_principal(thing, arn).await)?;
            }
            Step::Deactivate { certificate } => {
                there(control_plane.deactivate(certificate).await)?;
            }
            Step::DeleteCertificate { certificate } => {
                let deleted =
                    once_detached(DETACHED_WITHIN, || control_plane.delete_certificate(certificate)).await;
                tally.certificates += u64::from(there(deleted)?.is_some());
            }
            Step::DeleteThing { thing, version } => {
                let deleted =
                    once_detached(DETACHED_WITHIN, || control_plane.delete_thing(thing, *version)).await;
                match there(deleted) {
                    Ok(_) => tally.things += 1,
                    Err(AskError::Rejected { detail, .. }) => kept.push(format!("thing {thing}: {detail}")),
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    async fn finish(
        &self,
        device: &MadeDevice,
        undoing: &Undoing,
        kept: &[String],
        tally: Tally,
    ) -> Result<bool, Trouble> {
        let outcome = match (undoing.policies.is_empty(), kept.is_empty()) {
            (false, _) => outcome::POLICIES,
            (true, true) => outcome::REMOVED,
            (true, false) => outcome::KEPT,
        };
        let gone = device.certificates.iter().map(|certificate| certificate.row).collect();
        self.note(device, outcome, &undoing.policies, kept, gone).await?;
        self.done().count(&device.identity.key, &tally, kept);
        Ok(!kept.is_empty())
    }

    async fn note(
        &self,
        device: &MadeDevice,
        outcome: &str,
        policies: &[String],
        kept: &[String],
        gone: Vec<CredentialId>,
    ) -> Result<(), Trouble> {
        let earlier = Earlier::of(device).certificate;
        let certificate = registered_with(device).or(earlier.as_ref());
        let details = json!({
            "thing": device.thing_name,
            "certificate": certificate,
            "policies": policies,
            "kept": kept,
        });
        let finding = Finding { device: device.id, outcome: outcome.to_owned(), details };
        self.books.note(Undone { finding, gone }).await
    }
}

/// Whether all that the account has of a device is a certificate that was never activated or attached to anything.
fn is_bare(seen: &Seen) -> bool {
    let is_bare = |certificate: &SeenCertificate| {
        certificate.status != "ACTIVE" && certificate.policies.is_empty() && certificate.things.is_empty()
    };
    seen.thing.is_none() && seen.certificates.iter().all(is_bare)
}

/// The device's current certificate, or its first one.
fn registered_with(device: &MadeDevice) -> Option<&CertificateId> {
    device.certificate().or(device.certificates.first()).map(|certificate| &certificate.id)
}

/// Retries while the answer is that something is still attached, for at most `within`. Any other refusal is returned at
/// once.
async fn once_detached<F>(within: Duration, send: impl Fn() -> F) -> Result<(), AskError>
where
    F: Future<Output = Result<(), AskError>>,
{
    let (began, mut pause) = (Instant::now(), PAUSE);
    loop {
        match send().await {
            Err(error) if is_attached(&error) && began.elapsed() < within => {
                sleep(pause.mul_f64(rand::random_range(0.75..1.25))).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            answer => return answer,
        }
    }
}

/// Whether the service may be saying that something is still attached. For a thing with principals it answers
/// InvalidRequestException, a code it also uses for lasting problems: those fail again on the retry.
fn is_attached(error: &AskError) -> bool {
    let AskError::Rejected { code, .. } = error else { return false };
    matches!(code.as_str(), "DeleteConflictException" | "InvalidRequestException")
}
