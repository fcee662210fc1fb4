//! What all connections of an emulator share: the account behind its lock, the mint, the broker, the counts.
//!
//! Owns how a request reaches the account and comes back: admitted at once, delayed as the scenario says, with its key
//! minted outside the lock. Knows no packets and no sockets.

use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::account::{Account, Answer, Route, Verdict, route};
use super::broker::Broker;
use super::mint::Mint;
use super::scenario::{Refusal, Scenario};
use super::session::ReplyPolicy;
use super::tally::Tally;
use super::verify::Realm;

/// The services that a signature may name.
const SERVICES: &[&str] = &["iotdevicegateway"];

/// What all connections share.
pub(super) struct Door {
    pub(super) scenario: Scenario,
    pub(super) account: Mutex<Account>,
    pub(super) mint: Mint,
    pub(super) broker: Broker,
    pub(super) tally: Tally,
    pub(super) stop: CancellationToken,
}

/// A request's answer, and where it goes.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) topic: String,
    pub(super) payload: Bytes,
}

impl Door {
    /// Whose signatures open it.
    pub(super) fn realm(&self) -> Realm<'_> {
        Realm {
            access_key_id: &self.scenario.access_key_id,
            secret_access_key: &self.scenario.secret_access_key,
            session_token: self.scenario.session_token.as_deref(),
            region: &self.scenario.region,
            services: SERVICES,
        }
    }

    /// When replies are sent.
    pub(super) fn reply_policy(&self) -> ReplyPolicy {
        if self.scenario.require_subscription { ReplyPolicy::ToSubscriber } else { ReplyPolicy::ToRequester }
    }

    /// Looks at the account, or changes it, for as long as `look` takes: nothing that waits belongs there.
    pub(super) fn account<R>(&self, look: impl FnOnce(&mut Account) -> R) -> R {
        // The account's calls are pure and total; if one panics after all, its test finds it, and others go on.
        look(&mut self.account.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Answers the request `payload` that was published on `topic`.
    pub(super) async fn answer(&self, topic: &str, payload: &[u8]) -> Reply {
        let route = route(topic);
        let answer = match self.account(|account| account.admit(SystemTime::now(), &route)) {
            Err(throttled) => {
                self.tally.requests_throttled.add();
                throttled
            }
            Ok(()) => self.perform(&route, payload).await,
        };
        match answer.verdict {
            Verdict::Accepted => self.tally.requests_accepted.add(),
            Verdict::Rejected => self.tally.requests_rejected.add(),
        }
        Reply { topic: format!("{topic}/{}", answer.verdict.name()), payload: answer.payload }
    }

    async fn perform(&self, route: &Route<'_>, payload: &[u8]) -> Answer {
        let latency = &self.scenario.latency;
        match route {
            Route::CreateKeys => {
                tokio::time::sleep(latency.create_keys_and_certificate).await;
                let minted = self.mint.take().await;
                self.account(|account| account.create_keys(SystemTime::now(), payload, minted))
            }
            Route::Register { template } => {
                tokio::time::sleep(latency.register_thing).await;
                self.account(|account| account.register(SystemTime::now(), template, payload))
            }
            // The session asks for nothing but requests, and of those the emulator lacks this one.
            _ => self.account(|account| account.refuse(Refusal::NotEmulated)),
        }
    }
}
