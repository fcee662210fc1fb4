//! Floods of requests that are refused anyway: which of them a throttle refuses shows the throttle.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until};

use super::super::Stopped;
use super::super::facts::Fact;
use super::super::findings::{Rejection, Settled, Timed};
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
/// The pause before a flood, in which a throttle recovers.
const RECOVERY: Duration = Duration::from_secs(6);
/// How long to wait for the answers after a flood.
const AFTERWARDS: Duration = Duration::from_secs(2);

/// What one connection met.
#[derive(Default)]
struct Met {
    flood: Flood,
    throttled: Option<Rejection>,
    /// What was accepted, against expectation.
    accepted: Vec<Answer>,
}

/// What the connections of a flood have in common.
struct Course<'a> {
    topics: &'a CallTopics,
    payload: &'a Bytes,
    began: Instant,
    /// Something was accepted on one of them: none sends anything more.
    is_over: AtomicBool,
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
            if self.findings.settled(fact).is_some_and(|settled| is_sure(&settled)) {
                self.flood(call, timed, &payload).await?;
            }
        }
        Ok(())
    }

    async fn flood(&mut self, call: Call, timed: Timed, payload: &Value) -> Result<(), Stopped> {
        let topics = self.topics.call(call).clone();
        let payload = Bytes::from(payload.to_string());
        let mut floods = Vec::new();
        let mut last = None;
        for _ in 0..FLOODS {
            sleep(RECOVERY).await;
            let mut connections = Vec::new();
            for _ in 0..CONNECTIONS {
                connections.push(self.open(&[&topics.accepted, &topics.rejected]).await?);
            }
            if let Some(began) = last {
                sleep_until(other_phase(began, Instant::now())).await;
            }
            let course = Course {
                topics: &topics,
                payload: &payload,
                began: Instant::now(),
                is_over: AtomicBool::new(false),
            };
            last = Some(course.began);
            let each = connections.into_iter().zip(0..).map(|(raw, place)| {
                // They take turns.
                let first = course.began + Duration::from_secs(1) * place / FLOOD_PER_S;
                course.flood_on(raw, first)
            });
            let met = join_all(each).await;
            if let Some(rejection) = met.iter().find_map(|met| met.throttled.clone()) {
                let rejection = self.anonymous(rejection, "");
                self.findings.note(Fact::Throttled, rejection);
            }
            for answer in met.iter().flat_map(|met| &met.accepted) {
                self.keep_unwanted(answer)?;
            }
            if course.is_over.into_inner() {
                return Ok(());
            }
            floods.push(met.into_iter().flat_map(|met| met.flood).collect::<Flood>());
        }
        self.findings.throttles.insert(timed, Throttle::of(&floods));
        Ok(())
    }
}

/// When half a second and a whole number of seconds have passed since `began`. A clock of whole windows shows itself by its
/// first one, which is cut short, unless it has just begun: not twice, half a window apart.
fn other_phase(began: Instant, now: Instant) -> Instant {
    began + Duration::from_secs((now - began).as_secs() + 1) + Duration::from_millis(500)
}

/// Whether a request is surely refused: it was each time, for what it is.
fn is_sure(settled: &Settled) -> bool {
    let is_its_own = |rejection: &Rejection| (400..500).contains(&rejection.status) && !rejection.may_pass();
    settled.seen == settled.of && settled.answer.rejection.as_ref().is_some_and(is_its_own)
}

impl Course<'_> {
    /// Sends one connection's share of a flood, and notes when each answer came.
    async fn flood_on(&self, mut raw: Raw, first: Instant) -> Met {
        let mut met = Met::default();
        let every = Duration::from_secs(1) * CONNECTIONS / FLOOD_PER_S;
        let mut due = first;
        while due < self.began + FLOOD_TIME {
            self.listen(&mut met, &mut raw, due).await;
            if self.is_over.load(Ordering::Relaxed) {
                break;
            }
            if raw.publish(&self.topics.request, self.payload.clone()).await.is_err() {
                return met;
            }
            due += every;
        }
        self.listen(&mut met, &mut raw, due + AFTERWARDS).await;
        raw.close().await;
        met
    }

    async fn listen(&self, met: &mut Met, raw: &mut Raw, until: Instant) {
        while let Some((came, event)) = raw.next(until).await {
            match event {
                RawEvent::Message { topic, payload } if topic == self.topics.accepted => {
                    self.is_over.store(true, Ordering::Relaxed);
                    met.accepted.push(Answer::Accepted(payload));
                }
                RawEvent::Message { payload, .. } => {
                    let Answer::Rejected(rejection) = rejected(&payload) else { continue };
                    let is_admitted = rejection.status != 429;
                    met.flood.push((came - self.began, is_admitted));
                    if !is_admitted {
                        met.throttled.get_or_insert(rejection);
                    }
                }
                RawEvent::Ended(_) => return,
                RawEvent::Acknowledged(_) | RawEvent::Subscribed(_) => {}
            }
        }
    }
}
