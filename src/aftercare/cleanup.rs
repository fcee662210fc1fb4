//! Removes from the account what was made for a ledger's devices, and nothing else.
//!
//! Before the first request that changes anything for a device, the ledger records that its undoing has begun, and
//! which policies may be deleted. A run after a crash can therefore tell an earlier run's changes from another
//! client's.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::inspection::{Begun, Expected, Keep, Made, Seen, Step, Undoing, Untouched, Wanted, undo};
use super::look::{Looker, Subject, there};
use super::round::{Books, Trouble, go_through};
use super::{Ended, Setting, Shared};
use crate::certificate::CertificateId;
use crate::control_plane::{AskError, ControlPlane};
use crate::event::{DeviceId, DeviceState};
use crate::ledger::{
    CredentialId, Finding, Ledger, LedgerError, MadeCertificate, MadeDevice, MadeKind, MadeScope, RunId,
    Undone,
};
use crate::wording::plain;

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
    /// Nothing was touched, because another client has changed its certificate.
    pub const LEFT_ALONE: &str = "left_alone";
    /// All is gone.
    pub const REMOVED: &str = "removed";
}

/// The longest wait for a detachment to take effect: the API reference says several seconds (DetachThingPrincipal).
const DETACHED_WITHIN: Duration = Duration::from_secs(120);
/// The longest wait for a policy's detachment to take effect: up to five minutes (DeletePolicy).
const POLICY_DETACHED_WITHIN: Duration = Duration::from_secs(360);
/// The first pause before a retry that waits for a detachment. Each later pause is twice as long, up to
/// [`LONGEST_PAUSE`].
const PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How many policies are deleted concurrently.
const POLICIES_UNDER_WAY: usize = 32;

/// What to undo.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// Only devices with one of these keys; empty for any.
    pub keys: HashSet<String>,
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
        MadeScope {
            verb: VERB,
            of: if self.orphans { MadeKind::Certified } else { MadeKind::OnceRegistered },
            keys: self.keys.clone(),
            since_run: self.since_run,
            not_since: None,
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
    let shared = Shared::new(ledger);
    let (books, keeper) = Books::open(&shared, VERB, setting.clock);
    let cleaner = Arc::new(Cleaner {
        looker: Looker::new(setting.control_plane.clone()),
        setting: setting.clone(),
        books,
        plan: plan.clone(),
        done: std::sync::Mutex::default(),
    });
    let act = |device| {
        let cleaner = cleaner.clone();
        async move { cleaner.clean(device).await }
    };
    let mut ended = go_through(&shared, plan.scope(), setting, act).await;
    if matches!(ended, Ended::Complete) && !plan.is_rehearsal {
        ended = delete_policies(&shared, &cleaner).await;
    }
    let Done { mut tally, left, policies } = std::mem::take(&mut *cleaner.done());
    tally.policies += policies.len() as u64;
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
    done: std::sync::Mutex<Done>,
}

#[derive(Default)]
struct Done {
    tally: Tally,
    left: Vec<Left>,
    /// Policies that a rehearsal would delete.
    policies: HashSet<String>,
}

impl Done {
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
            was_cut_off: outcome == outcome::BEGUN,
            policies: if has_begun { texts(&details["policies"]) } else { Vec::new() },
            kept: if has_begun { texts(&details["kept"]) } else { Vec::new() },
            certificate: details["certificate"].as_str().and_then(|id| id.to_owned().try_into().ok()),
        }
    }
}

impl Earlier {
    /// What an interrupted undoing had decided to keep, except the device's own thing and deletable policies: those are
    /// checked again.
    fn detached<'a>(
        &'a self,
        device: &'a MadeDevice,
        undoing: &'a Undoing,
    ) -> impl Iterator<Item = &'a String> {
        let own_thing = device.thing_name.iter().map(|name| format!("thing {name}: "));
        let own: Vec<String> =
            own_thing.chain(undoing.policies.iter().map(|name| format!("policy {name}: "))).collect();
        let kept = self.kept.iter().filter(|_| self.was_cut_off);
        kept.filter(move |what| !own.iter().any(|own| what.starts_with(own)))
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
        let (wanted, _) = self.setting.expectation.of(&device, id);
        let seen = self.look(&device, &earlier, wanted.as_ref()).await?;
        let made = Made {
            thing: seen.thing.as_ref().map(|thing| thing.name.as_str()).or(device.thing_name.as_deref()),
            registered: (device.state == DeviceState::Registered)
                .then(|| device.certificate().map(|certificate| certificate.id.as_str()))
                .flatten(),
            begun: if self.plan.changed { Begun::Yes } else { earlier.begun },
        };
        let mut undoing = match undo(made, wanted.as_ref(), &seen) {
            Ok(undoing) => undoing,
            Err(untouched) => return self.leave_alone(&device, &untouched).await,
        };
        let new = earlier.policies.iter().filter(|name| !undoing.policies.contains(name));
        let new: Vec<String> = new.cloned().collect();
        undoing.policies.extend(new);
        if self.plan.is_rehearsal {
            return Ok(self.rehearse(&device, &undoing));
        }
        let mut kept: Vec<String> = undoing.kept.iter().map(Keep::to_string).collect();
        // Things and policies that an interrupted undoing detached no longer show up in the account.
        for what in earlier.detached(&device, &undoing) {
            if !kept.contains(what) {
                kept.push(what.clone());
            }
        }
        self.note(&device, outcome::BEGUN, &undoing.policies, &kept, Vec::new()).await?;
        let mut tally = Tally::default();
        for step in &undoing.steps {
            self.take(step, &mut tally, &mut kept).await?;
        }
        self.finish(&device, &undoing, &kept, tally).await
    }

    /// What the account has for a device. Its thing is the one in the ledger; for a device not known to be registered
    /// it is the one that the template and the row make, if the certificate is attached to that. A thing that was
    /// deleted before and exists again belongs to another client.
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
        if thing.is_none()
            && let Some(Expected::Known(name)) = wanted.and_then(|it| it.thing.as_ref()).map(|it| &it.name)
            && seen.certificates.iter().any(|certificate| certificate.things.contains(name))
        {
            let subject = Subject { thing: Some(name), certificates: &[], wanted };
            seen.thing = self.looker.look(&subject).await?.thing;
        }
        Ok(seen)
    }

    async fn leave_alone(&self, device: &MadeDevice, why: &Untouched) -> Result<bool, Trouble> {
        let key = &device.identity.key;
        {
            let mut done = self.done();
            done.tally.left_alone += 1;
            done.leave(key, format!("left alone: {why}"));
        }
        if !self.plan.is_rehearsal {
            let details = json!({ "thing": device.thing_name, "why": why.to_string() });
            let finding = Finding { device: device.id, outcome: outcome::LEFT_ALONE.to_owned(), details };
            self.books.note(Undone { finding, gone: Vec::new() }).await?;
        }
        Ok(true)
    }

    fn rehearse(&self, device: &MadeDevice, undoing: &Undoing) -> bool {
        let mut done = self.done();
        for step in &undoing.steps {
            match step {
                Step::DeleteCertificate { .. } => done.tally.certificates += 1,
                Step::DeleteThing { .. } => done.tally.things += 1,
                Step::DetachPolicy { .. } | Step::DetachPrincipal { .. } | Step::Deactivate { .. } => {}
            }
        }
        done.policies.extend(undoing.policies.iter().cloned());
        let is_kept = !undoing.kept.is_empty();
        let devices = if is_kept { &mut done.tally.kept } else { &mut done.tally.removed };
        *devices += 1;
        for keep in &undoing.kept {
            done.leave(&device.identity.key, keep);
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
        let mut done = self.done();
        done.tally.certificates += tally.certificates;
        done.tally.things += tally.things;
        let devices = if kept.is_empty() { &mut done.tally.removed } else { &mut done.tally.kept };
        *devices += 1;
        for what in kept {
            done.leave(&device.identity.key, what);
        }
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

/// The policies to delete, each with the devices it belonged to.
type OfPolicy = BTreeMap<String, BTreeSet<DeviceId>>;

/// Deletes the policies that the template carries, once nothing is attached to them any more, and records the outcome
/// for their devices.
async fn delete_policies(shared: &Shared, cleaner: &Arc<Cleaner>) -> Ended {
    let found = match shared.with(|ledger| waiting(ledger)).await {
        Ok(found) => found,
        Err(error) => return Ended::Ledger(error),
    };
    let Waiting { devices, policies } = found;
    let control_plane = &cleaner.setting.control_plane;
    let mut names = policies.keys().cloned();
    let mut tasks = tokio::task::JoinSet::new();
    let mut kept = BTreeMap::new();
    loop {
        while tasks.len() < POLICIES_UNDER_WAY
            && let Some(name) = names.next()
        {
            let control_plane = control_plane.clone();
            tasks.spawn(async move { (delete_policy(&control_plane, &name).await, name) });
        }
        let joined = tokio::select! {
            biased;
            () = cleaner.setting.halt.drain.cancelled() => return Ended::Stopped,
            joined = tasks.join_next() => joined,
        };
        match joined {
            None => break,
            Some(Ok((Ok(Gone::Deleted), _))) => cleaner.done().tally.policies += 1,
            Some(Ok((Ok(Gone::Before), _))) => {}
            Some(Ok((Ok(Gone::Not(why)), name))) => drop(kept.insert(name, why)),
            Some(Ok((Err(error @ (AskError::NotPermitted { .. } | AskError::Refused { .. })), _))) => {
                return Ended::Refused(error);
            }
            Some(Ok((Err(error), name))) => {
                let devices = policies.get(&name).map_or(0, BTreeSet::len) as u64;
                return Ended::Unanswered { devices, error };
            }
            Some(Err(ended)) => std::panic::resume_unwind(ended.into_panic()),
        }
    }
    for (id, Device { key, thing, certificate, policies, mut kept_before }) in devices {
        let still: Vec<&String> = policies.iter().filter(|name| kept.contains_key(*name)).collect();
        for name in &still {
            let what = format!("policy {name}: {}", kept[*name]);
            cleaner.done().leave(&key, &what);
            kept_before.push(what);
        }
        let outcome = if kept_before.is_empty() { outcome::REMOVED } else { outcome::KEPT };
        if !still.is_empty() && kept_before.len() == still.len() {
            let mut done = cleaner.done();
            done.tally.removed = done.tally.removed.saturating_sub(1);
            done.tally.kept += 1;
        }
        let details =
            json!({ "thing": thing, "certificate": certificate, "policies": still, "kept": kept_before });
        let finding = Finding { device: id, outcome: outcome.to_owned(), details };
        if cleaner.books.note(Undone { finding, gone: Vec::new() }).await.is_err() {
            break;
        }
    }
    Ended::Complete
}

/// A device whose policies are still to be deleted.
struct Device {
    key: String,
    thing: Value,
    certificate: Value,
    policies: Vec<String>,
    kept_before: Vec<String>,
}

struct Waiting {
    devices: Vec<(DeviceId, Device)>,
    policies: OfPolicy,
}

fn waiting(ledger: &Ledger) -> Result<Waiting, LedgerError> {
    let mut found = Waiting { devices: Vec::new(), policies: OfPolicy::new() };
    ledger.view().for_each_finding::<LedgerError>(VERB, |each| {
        let Finding { device, outcome, details } = each.finding;
        if outcome != outcome::POLICIES {
            return Ok(());
        }
        let texts =
            |name: &str| -> Vec<String> { serde_json::from_value(details[name].clone()).unwrap_or_default() };
        let (policies, kept_before) = (texts("policies"), texts("kept"));
        for name in &policies {
            found.policies.entry(name.clone()).or_default().insert(device);
        }
        let (thing, certificate) = (details["thing"].clone(), details["certificate"].clone());
        found.devices.push((device, Device { key: each.key, thing, certificate, policies, kept_before }));
        Ok(())
    })?;
    Ok(found)
}

/// The outcome of deleting a policy.
enum Gone {
    Deleted,
    Before,
    /// It is still there, for this reason.
    Not(String),
}

async fn delete_policy(control_plane: &ControlPlane, name: &str) -> Result<Gone, AskError> {
    let began = Instant::now();
    let mut pause = PAUSE;
    while let Some(target) =
        there(control_plane.policy_targets(name).await)?.and_then(|targets| targets.into_iter().next())
    {
        // The list may still show a certificate that this run has detached and deleted.
        let is_detached = match target.rsplit_once(":cert/") {
            Some((_, id)) => there(control_plane.certificate(id).await)?.is_none(),
            None => false,
        };
        if !is_detached || began.elapsed() >= POLICY_DETACHED_WITHIN {
            return Ok(Gone::Not(format!("{} is attached to it", plain(&target))));
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    let deleted = once_detached(POLICY_DETACHED_WITHIN, || control_plane.delete_policy(name)).await;
    match there(deleted) {
        Ok(Some(())) => Ok(Gone::Deleted),
        Ok(None) => Ok(Gone::Before),
        Err(AskError::Rejected { detail, .. }) => Ok(Gone::Not(detail)),
        Err(error) => Err(error),
    }
}
