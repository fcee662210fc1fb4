//! The policies that the template carries, which go last: once nothing is attached to them any more.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::{Cleaner, LONGEST_PAUSE, PAUSE, once_detached, outcome};
use crate::aftercare::look::there;
use crate::aftercare::{Ended, Shared};
use crate::control_plane::{AskError, ControlPlane};
use crate::event::DeviceId;
use crate::ledger::{Finding, Ledger, LedgerError, MadeDevice, MadeScope, Undone};
use crate::wording::plain;

/// The longest wait for a policy's detachment to take effect: up to five minutes (DeletePolicy).
const DETACHED_WITHIN: Duration = Duration::from_secs(360);
/// How many policies are in progress at once.
const UNDER_WAY: usize = 32;

/// A device whose policies are still to be deleted.
pub(super) struct Waiting {
    id: DeviceId,
    key: String,
    thing: Value,
    certificate: Value,
    policies: Vec<String>,
    kept: Vec<String>,
}

/// What happens to a policy.
enum Fate {
    /// It was deleted, or would be.
    Deleted,
    /// It was gone before.
    Gone,
    /// It is kept, for this reason.
    Kept(String),
}

/// Why policies are kept, by name.
type Kept = BTreeMap<String, String>;

/// Deletes the policies of the plan's devices, and records the outcome for each device.
pub(super) async fn delete(shared: &Shared, cleaner: &Arc<Cleaner>) -> Result<(), Ended> {
    let scope = cleaner.plan.scope();
    let found = shared.with(move |ledger| waiting(ledger, scope)).await;
    let devices = found.map_err(Ended::Ledger)?;
    let control_plane = &cleaner.setting.control_plane;
    let kept = each(cleaner, &devices, |name| {
        let control_plane = control_plane.clone();
        async move { delete_policy(&control_plane, &name).await }
    });
    let kept = kept.await?;
    for mut device in devices {
        let policies = device.settle(cleaner, &kept);
        let outcome = if device.kept.is_empty() { outcome::REMOVED } else { outcome::KEPT };
        let details = json!({
            "thing": device.thing,
            "certificate": device.certificate,
            "policies": policies,
            "kept": device.kept,
        });
        let finding = Finding { device: device.id, outcome: outcome.to_owned(), details };
        if cleaner.books.note(Undone { finding, gone: Vec::new() }).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// Says what [`delete`] would do once the certificates of the plan's devices are gone.
pub(super) async fn rehearse(cleaner: &Arc<Cleaner>) -> Result<(), Ended> {
    let (devices, going) = {
        let mut done = cleaner.done();
        (std::mem::take(&mut done.waiting), std::mem::take(&mut done.going))
    };
    let (control_plane, going) = (&cleaner.setting.control_plane, Arc::new(going));
    let kept = each(cleaner, &devices, |name| {
        let (control_plane, going) = (control_plane.clone(), going.clone());
        async move { rehearse_policy(&control_plane, &name, &going).await }
    });
    let kept = kept.await?;
    for mut device in devices {
        device.settle(cleaner, &kept);
    }
    Ok(())
}

impl Waiting {
    pub(super) fn rehearsed(device: &MadeDevice, policies: Vec<String>, kept: Vec<String>) -> Self {
        let (id, key) = (device.id, device.identity.key.clone());
        Self { id, key, thing: Value::Null, certificate: Value::Null, policies, kept }
    }

    /// A device that is waiting in the ledger; `None` if it is not.
    fn recorded(device: MadeDevice) -> Option<Self> {
        let finding = device.finding.filter(|finding| finding.outcome == outcome::POLICIES)?;
        let texts = |name: &str| -> Vec<String> {
            serde_json::from_value(finding.details[name].clone()).unwrap_or_default()
        };
        Some(Self {
            id: device.id,
            key: device.identity.key,
            thing: finding.details["thing"].clone(),
            certificate: finding.details["certificate"].clone(),
            policies: texts("policies"),
            kept: texts("kept"),
        })
    }

    /// Counts the device as kept if any of its policies is; returns those.
    fn settle(&mut self, cleaner: &Cleaner, kept: &Kept) -> Vec<String> {
        let was_all_gone = self.kept.is_empty();
        let still: Vec<String> =
            self.policies.iter().filter(|name| kept.contains_key(*name)).cloned().collect();
        let mut done = cleaner.done();
        for name in &still {
            let what = format!("policy {name}: {}", kept[name]);
            done.leave(&self.key, &what);
            self.kept.push(what);
        }
        if was_all_gone && !still.is_empty() {
            done.tally.removed = done.tally.removed.saturating_sub(1);
            done.tally.kept += 1;
        }
        still
    }
}

/// The devices of `scope` whose policies are to be deleted.
fn waiting(ledger: &mut Ledger, scope: MadeScope) -> Result<Vec<Waiting>, LedgerError> {
    const PAGE: usize = 500;
    let view = ledger.view();
    let mut devices = view.made_devices(scope)?;
    let mut found = Vec::new();
    loop {
        let page = view.next_made(&mut devices, PAGE)?;
        if page.is_empty() {
            return Ok(found);
        }
        found.extend(page.into_iter().filter_map(Waiting::recorded));
    }
}

/// Runs `act` on each policy of `devices`, and counts the deleted ones.
async fn each<F>(cleaner: &Cleaner, devices: &[Waiting], act: impl Fn(String) -> F) -> Result<Kept, Ended>
where
    F: Future<Output = Result<Fate, AskError>> + Send + 'static,
{
    let names: BTreeSet<&String> = devices.iter().flat_map(|device| &device.policies).collect();
    let mut names = names.into_iter();
    let (mut tasks, mut kept) = (JoinSet::new(), Kept::new());
    loop {
        while tasks.len() < UNDER_WAY
            && let Some(name) = names.next()
        {
            let (fate, name) = (act(name.clone()), name.clone());
            tasks.spawn(async move { (fate.await, name) });
        }
        let joined = tokio::select! {
            biased;
            () = cleaner.setting.halt.drain.cancelled() => return Err(Ended::Stopped),
            joined = tasks.join_next() => joined,
        };
        match joined {
            None => return Ok(kept),
            Some(Ok((Ok(Fate::Deleted), _))) => cleaner.done().tally.policies += 1,
            Some(Ok((Ok(Fate::Gone), _))) => {}
            Some(Ok((Ok(Fate::Kept(why)), name))) => drop(kept.insert(name, why)),
            Some(Ok((Err(error @ (AskError::NotPermitted { .. } | AskError::Refused { .. })), _))) => {
                return Err(Ended::Refused(error));
            }
            Some(Ok((Err(error), name))) => {
                let devices = devices.iter().filter(|device| device.policies.contains(&name)).count() as u64;
                return Err(Ended::Unanswered { devices, error });
            }
            Some(Err(ended)) => std::panic::resume_unwind(ended.into_panic()),
        }
    }
}

async fn delete_policy(control_plane: &ControlPlane, name: &str) -> Result<Fate, AskError> {
    let began = Instant::now();
    let mut pause = PAUSE;
    while let Some(target) = there(control_plane.policy_target(name, |_| true).await)?.flatten() {
        // The list may still show a certificate that this run has detached and deleted.
        if !is_gone(control_plane, &target).await? || began.elapsed() >= DETACHED_WITHIN {
            return Ok(Fate::attached(&target));
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    let deleted = once_detached(DETACHED_WITHIN, || control_plane.delete_policy(name)).await;
    match there(deleted) {
        Ok(Some(())) => Ok(Fate::Deleted),
        Ok(None) => Ok(Fate::Gone),
        Err(AskError::Rejected { detail, .. }) => Ok(Fate::Kept(detail)),
        Err(error) => Err(error),
    }
}

/// What would happen to a policy once the certificates with the ids `going` are gone.
async fn rehearse_policy(
    control_plane: &ControlPlane,
    name: &str,
    going: &HashSet<String>,
) -> Result<Fate, AskError> {
    let mut gone: HashSet<String> = HashSet::new();
    loop {
        let stays = |target: &str| {
            let is_going = certificate_of(target).is_some_and(|id| going.contains(id));
            !is_going && !gone.contains(target)
        };
        let Some(found) = there(control_plane.policy_target(name, stays).await)? else {
            return Ok(Fate::Gone);
        };
        let Some(target) = found else { return Ok(Fate::Deleted) };
        if !is_gone(control_plane, &target).await? {
            return Ok(Fate::attached(&target));
        }
        gone.insert(target);
    }
}

impl Fate {
    fn attached(target: &str) -> Self {
        Self::Kept(format!("{} is attached to it", plain(target)))
    }
}

/// Whether the target of a policy is a certificate that the account no longer has.
async fn is_gone(control_plane: &ControlPlane, target: &str) -> Result<bool, AskError> {
    match certificate_of(target) {
        Some(id) => Ok(there(control_plane.certificate(id).await)?.is_none()),
        None => Ok(false),
    }
}

/// The id of the certificate that an ARN is of.
fn certificate_of(arn: &str) -> Option<&str> {
    arn.rsplit_once(":cert/").map(|(_, id)| id)
}
