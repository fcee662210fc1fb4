//! Floods of requests that are refused anyway: which of them a throttle refuses shows the throttle.

use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::super::Stopped;
use super::super::facts::{Fact, REFUSED};
use super::super::findings::{Rejection, Timed};
use super::super::prober::{Answer, Prober, Raw, rejected};
use super::super::throttle::{Flood, Throttle};
use super::super::{FLOOD_PER_S, FLOOD_TIME};
use crate::call::Call;
use crate::provisioning::CallTopics;
use crate::transport::RawEvent;

/// How many connections share a flood: a connection has a quota of its own.
const CONNECTIONS: u32 = 4;
/// How often each kind of request is flooded.
const FLOODS: usize = 2;
/// The pause before a flood, in which a throttle recovers. Not a whole number of seconds: a clock of whole windows is met at
/// another phase each time.
const RECOVERY: Duration = Duration::from_millis(6_300);
/// How long to wait for the answers after a flood.
const AFTERWARDS: Duration = Duration::from_secs(2);

/// What one connection met.
#[derive(Default)]
struct Met {
    flood: Flood,
    throttled: Option<Rejection>,
    /// Something was made, against expectation: nothing more is sent.
    has_made: bool,
}

impl Prober<'_> {
    pub(super) async fn probe_limits(&mut self) -> Result<(), Stopped> {
        if !self.settings.limits {
            return Ok(());
        }
        let csr = json!({"certificateSigningRequest": "this is not a certification request"});
        for (fact, call, timed, payload) in [
            (
                Fact::EmptyToken,
                Call::RegisterThing,
                Timed::Register,
                json!({"certificateOwnershipToken": ""}),
            ),
            (Fact::InvalidPayload, Call::CreateKeysAndCertificate, Timed::CreateKeys, json!([])),
            (Fact::InvalidCsr, Call::CreateCertificateFromCsr, Timed::CreateFromCsr, csr),
        ] {
            // Only what is surely refused is sent in such numbers.
            let is_refused = |said: &str| said.starts_with(REFUSED);
            let is_safe = self
                .findings
                .settled(fact)
                .is_some_and(|settled| settled.seen == settled.of && is_refused(&settled.answer.said));
            if is_safe {
                self.flood(call, timed, &payload).await?;
            }
        }
        Ok(())
    }

    async fn flood(&mut self, call: Call, timed: Timed, payload: &Value) -> Result<(), Stopped> {
        let topics = self.topics.call(call).clone();
        let payload = Bytes::from(payload.to_string());
        let mut floods = Vec::new();
        for _ in 0..FLOODS {
            sleep(RECOVERY).await;
            let mut connections = Vec::new();
            for _ in 0..CONNECTIONS {
                connections.push(self.open(&[&topics.accepted, &topics.rejected]).await?);
            }
            let began = Instant::now();
            let each = connections.into_iter().zip(0..).map(|(raw, place)| {
                // They take turns.
                let first = began + Duration::from_secs(1) * place / FLOOD_PER_S;
                flood_on(raw, &topics, &payload, began, first)
            });
            let met = join_all(each).await;
            if let Some(rejection) = met.iter().find_map(|met| met.throttled.clone()) {
                let rejection = self.anonymous(rejection, "");
                self.findings.note(Fact::Throttled, rejection);
            }
            if met.iter().any(|met| met.has_made) {
                return Ok(());
            }
            floods.push(met.into_iter().flat_map(|met| met.flood).collect::<Flood>());
        }
        self.findings.throttles.insert(timed, Throttle::of(&floods));
        Ok(())
    }
}

/// Sends this connection's share of a flood, and notes when each answer came.
async fn flood_on(mut raw: Raw, topics: &CallTopics, payload: &Bytes, began: Instant, first: Instant) -> Met {
    let mut met = Met::default();
    let every = Duration::from_secs(1) * CONNECTIONS / FLOOD_PER_S;
    let mut due = first;
    while due < began + FLOOD_TIME && !met.has_made {
        met.listen(&mut raw, topics, began, due).await;
        if raw.publish(&topics.request, payload.clone()).await.is_err() {
            return met;
        }
        due += every;
    }
    met.listen(&mut raw, topics, began, due + AFTERWARDS).await;
    raw.close().await;
    met
}

impl Met {
    async fn listen(&mut self, raw: &mut Raw, topics: &CallTopics, began: Instant, until: Instant) {
        while let Some((came, event)) = raw.next(until).await {
            match event {
                RawEvent::Message { topic, .. } if topic == topics.accepted => self.has_made = true,
                RawEvent::Message { payload, .. } => {
                    let Answer::Rejected(rejection) = rejected(&payload) else { continue };
                    let is_admitted = rejection.status != 429;
                    self.flood.push((came - began, is_admitted));
                    if !is_admitted {
                        self.throttled.get_or_insert(rejection);
                    }
                }
                RawEvent::Ended(_) => return,
                RawEvent::Acknowledged(_) | RawEvent::Subscribed(_) => {}
            }
        }
    }
}
