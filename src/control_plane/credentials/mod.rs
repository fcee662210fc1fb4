//! Credentials that are renewed before they expire, without making a request wait.
//!
//! Owns the loads: one at a time, ahead of the expiry while the present credentials are still good, and at once after
//! the service has refused them. [`state`] decides when; [`chain`] loads them.

mod chain;
mod state;

pub use chain::{NoClient, aws_chain, profile_region};

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use self::state::{Advice, State};
use crate::sigv4::{CredentialSource, Credentials, NoCredentials};

/// How long a load may take, including its providers' retries.
const LOAD_WITHIN: Duration = Duration::from_secs(30);

/// Loads credentials once, without regard to earlier loads.
pub type Loader = Arc<dyn Fn() -> BoxFuture<'static, Result<Loaded, NoCredentials>> + Send + Sync>;

/// The result of a load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The credentials to sign with.
    pub credentials: Credentials,
    /// When the credentials expire; `None` if that is unknown.
    pub expires: Option<SystemTime>,
}

/// A [`CredentialSource`] that loads when needed. Dropping it stops a load that is under way.
pub struct RefreshedCredentials {
    shared: Arc<Shared>,
    /// The load under way, if any.
    loads: Mutex<JoinSet<()>>,
}

struct Shared {
    clock: Arc<dyn Fn() -> SystemTime + Send + Sync>,
    load: Loader,
    state: Mutex<State>,
    /// How many loads have ended.
    ended: watch::Sender<u64>,
}

impl fmt::Debug for RefreshedCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RefreshedCredentials").finish_non_exhaustive()
    }
}

impl RefreshedCredentials {
    /// Credentials from `load`, by the time of `clock`. Loads nothing yet.
    pub fn new(load: Loader, clock: Arc<dyn Fn() -> SystemTime + Send + Sync>) -> Self {
        let shared = Shared { clock, load, state: Mutex::default(), ended: watch::Sender::new(0) };
        Self { shared: Arc::new(shared), loads: Mutex::default() }
    }

    /// When the present credentials expire; `None` if there are none or they do not.
    pub fn expires(&self) -> Option<SystemTime> {
        self.shared.state().expires()
    }

    async fn current(&self) -> Result<Credentials, NoCredentials> {
        let mut ended = {
            let mut state = self.shared.state();
            match state.advice((self.shared.clock)()) {
                Advice::Give(credentials) => return Ok(credentials),
                Advice::GiveAndLoad(credentials) => {
                    self.start_load(&mut state);
                    return Ok(credentials);
                }
                Advice::Refuse(why) => return Err(why),
                Advice::Load => {
                    self.start_load(&mut state);
                    // The state is locked, so this load has not been noted yet.
                    self.shared.ended.subscribe()
                }
            }
        };
        // A load is bounded and always noted, and this struct holds the sender: the channel cannot close.
        let _ = ended.changed().await;
        self.shared.state().after_load((self.shared.clock)())
    }

    /// Starts a load unless one is under way.
    fn start_load(&self, state: &mut State) {
        if !state.begin_load() {
            return;
        }
        let load = Arc::clone(&self.shared.load);
        // Weak, so that the owner is dropped last, never the load.
        let shared: Weak<Shared> = Arc::downgrade(&self.shared);
        let mut loads = self.loads.lock().unwrap_or_else(PoisonError::into_inner);
        while loads.try_join_next().is_some() {}
        loads.spawn(async move {
            let loading = timeout(LOAD_WITHIN, async move { load().await });
            // A panic is noted like any other end, or callers would wait for ever.
            let loaded = match AssertUnwindSafe(loading).catch_unwind().await {
                Ok(Ok(loaded)) => loaded,
                Ok(Err(_)) => Err(NoCredentials::because(format!("no answer within {LOAD_WITHIN:?}"))),
                Err(_) => Err(NoCredentials::because("looking for them failed in an unforeseen way")),
            };
            if let Some(shared) = shared.upgrade() {
                shared.note(loaded);
            }
        });
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, loaded: Result<Loaded, NoCredentials>) {
        if let Err(why) = &loaded {
            tracing::warn!(%why, "credentials could not be loaded");
        }
        let mut state = self.state();
        state.note(loaded, (self.clock)());
        self.ended.send_modify(|ended| *ended += 1);
    }
}

impl CredentialSource for RefreshedCredentials {
    fn credentials(&self) -> BoxFuture<'_, Result<Credentials, NoCredentials>> {
        Box::pin(self.current())
    }

    fn refused(&self, credentials: &Credentials) {
        self.shared.state().note_refusal(credentials, (self.shared.clock)());
    }
}

#[cfg(test)]
mod tests;
