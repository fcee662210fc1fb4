//! The devices of a load test, in the ledger's order: those without a certificate, or those with one to register.
//!
//! Owns reading them ahead and, where keys are made here, making those ahead too: neither is the service's time.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::StreamExt;
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;

use super::{LoadPlan, Scenario};
use crate::engine::clock::Clock;
use crate::engine::context::Context;
use crate::engine::end::End;
use crate::engine::frame::Tasks;
use crate::engine::keys::{KeyPolicy, KeySource};
use crate::engine::recorder::RecorderHandle;
use crate::engine::store::{CommitMode, Store};
use crate::event::{Change, Registration};
use crate::keys::KeyType;
use crate::ledger::{OpenDevice, Receipt, Work};

/// How many devices are read from the ledger at once.
const PAGE: usize = 256;
/// How much longer a certificate's token must be good for it to be taken up: it waits for its arrival.
const TOKEN_LEFT: Duration = Duration::from_secs(120);
/// How many keys are made at a time: enough for their commits to share a transaction.
const KEYS_AT_ONCE: usize = 64;

/// The workers' end of the queue: many take from one queue.
#[derive(Clone)]
pub(super) struct Devices(Arc<Mutex<mpsc::Receiver<OpenDevice>>>);

impl Devices {
    /// Starts reading ahead, if the scenario takes devices.
    pub(super) fn start<C>(
        context: &Context<C>,
        plan: &LoadPlan,
        store: Option<Store>,
        over: CancellationToken,
        tasks: &mut Tasks,
    ) -> Self {
        let (sender, receiver) = mpsc::channel(PAGE);
        if let (true, Some(store)) = (plan.scenario.takes_devices(), store) {
            let wanted = Wanted {
                scenario: plan.scenario,
                clock: context.clock.clone(),
                token_lifetime: plan.token_lifetime,
            };
            let preparation = match plan.keys.source {
                _ if plan.scenario == Scenario::Register => None,
                KeySource::Service | KeySource::Device => None,
                KeySource::Local(key_type) => Some(Preparation {
                    key_type,
                    policy: plan.keys.clone(),
                    recorder: context.recorder.clone(),
                    mode: plan.commit_mode.clone(),
                }),
            };
            tasks.spawn(async move {
                tokio::select! {
                    biased;
                    () = over.cancelled() => Ok(()),
                    fed = feed(store, wanted, preparation, sender) => fed,
                }
            });
        }
        Self(Arc::new(Mutex::new(receiver)))
    }

    /// The next device; `None` when none is left.
    pub(super) async fn next(self) -> Option<OpenDevice> {
        self.0.lock().await.recv().await
    }
}

/// Which devices a scenario takes.
struct Wanted {
    scenario: Scenario,
    clock: Clock,
    token_lifetime: Duration,
}

impl Wanted {
    fn takes(&self, device: &OpenDevice) -> bool {
        let is_fresh = |issued_at: SystemTime| {
            let age = self.clock.now().duration_since(issued_at).unwrap_or_default();
            age + TOKEN_LEFT < self.token_lifetime
        };
        match (&device.work, self.scenario) {
            (Work::Register { issued_at, registration, .. }, Scenario::Register) => {
                *registration == Registration::NotSent && is_fresh(*issued_at)
            }
            // An earlier run requested it: resuming it would not be the operation under test.
            (Work::Register { .. }, _) => false,
            (_, scenario) => scenario != Scenario::Register,
        }
    }
}

async fn feed(
    store: Store,
    wanted: Wanted,
    preparation: Option<Preparation>,
    sender: mpsc::Sender<OpenDevice>,
) -> Result<(), End> {
    let mut after = None;
    loop {
        let page = store.with(move |ledger| ledger.view().open_devices(after, PAGE)).await;
        let page = page.map_err(End::Ledger)?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some(last.id);
        let fresh = page.into_iter().filter(|device| wanted.takes(device));
        let prepare = |device| prepare(device, preparation.as_ref());
        let mut prepared = futures::stream::iter(fresh.map(prepare)).buffered(KEYS_AT_ONCE);
        while let Some(device) = prepared.next().await {
            let Some(device) = device else { return Ok(()) };
            if sender.send(device).await.is_err() {
                return Ok(());
            }
        }
    }
}

/// What is needed to make a device's key.
struct Preparation {
    key_type: KeyType,
    policy: KeyPolicy,
    recorder: RecorderHandle,
    mode: CommitMode,
}

/// Gives the device a key if it needs one; `None` if the recorder is gone.
async fn prepare(device: OpenDevice, preparation: Option<&Preparation>) -> Option<OpenDevice> {
    let (Work::Create, Some(preparation)) = (&device.work, preparation) else { return Some(device) };
    let (policy, key_type) = (preparation.policy.clone(), preparation.key_type);
    let make = move || policy.prepare(key_type);
    let key = match preparation.mode {
        CommitMode::Blocking => match tokio::task::spawn_blocking(make).await {
            Ok(key) => key,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        },
        CommitMode::Inline | CommitMode::Simulated(_) => make(),
    };
    let change = Change::KeyPrepared { device: device.id, key };
    match preparation.recorder.commit(change).await.ok()? {
        Receipt::KeyPrepared(request) => Some(OpenDevice { work: Work::Certify { request }, ..device }),
        other => unreachable!("the ledger answers KeyPrepared with the request, not {other:?}"),
    }
}
