//! Which packet answers which request.
//!
//! Owns the rule by which a PUBLISH on a response topic becomes the reply of the exchange in flight, an ignored
//! redelivery, or the end of the connection. Replies carry no correlation field, so everything depends on having one
//! exchange at a time, and on recognising replies that were consumed before.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Verdict;
use crate::call::Call;
use crate::failure::Cause;
use crate::provisioning::Topics;
use crate::wording::clean;

/// How long an exchange waits for another reply after one that equals a reply consumed before. Redeliveries come soon
/// after the first delivery; if nothing else comes, the equal reply was the answer. Longer than the 5 s that the
/// service gives a pre-provisioning hook, so that a slow true reply is still awaited.
pub const GRACE: Duration = Duration::from_secs(6);

/// How many consumed replies are remembered. A device has two, and the service retries within seconds.
const REMEMBERED: usize = 8;

/// How many redeliveries are tolerated in one exchange, or in one wait between exchanges.
const MAX_REDELIVERIES: u32 = 1000;

/// The relevant parts of a PUBLISH. Has no `Debug`: its payload may hold a private key.
#[derive(Clone, Copy)]
pub struct Delivery<'a> {
    /// Its topic name.
    pub topic: &'a str,
    /// Its payload.
    pub payload: &'a [u8],
    /// Its DUP flag: it may have been delivered before (MQTT 3.1.1 section 3.3.1.1).
    pub is_duplicate: bool,
}

/// What a delivery means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// The reply of the exchange in flight, which ends.
    Reply(Verdict),
    /// A reply consumed before: acknowledge and ignore it.
    Redelivery,
}

/// The replies of one connection.
#[derive(Debug)]
pub struct Inbox {
    topics: Arc<Topics>,
    awaited: Option<Call>,
    /// Fingerprints of the replies consumed last, in a ring.
    consumed: [Option<u64>; REMEMBERED],
    next: usize,
    doubted_at: Option<Instant>,
    /// Redeliveries since the last [`Inbox::take_redelivered`].
    redelivered: u32,
    /// Redeliveries since the last [`Inbox::expect`].
    in_a_row: u32,
}

impl Inbox {
    /// The inbox of a fresh connection.
    pub fn new(topics: Arc<Topics>) -> Self {
        Self {
            topics,
            awaited: None,
            consumed: [None; REMEMBERED],
            next: 0,
            doubted_at: None,
            redelivered: 0,
            in_a_row: 0,
        }
    }

    /// The topics whose deliveries are recognised.
    pub fn topics(&self) -> &Topics {
        &self.topics
    }

    /// Call before publishing a request of `call`: the next reply on its topics is its own.
    pub fn expect(&mut self, call: Call) {
        self.awaited = Some(call);
        self.doubted_at = None;
        self.in_a_row = 0;
    }

    /// What a delivery means.
    ///
    /// # Errors
    /// The connection must no longer be used: [`Cause::Garbled`] for an unknown topic or a flood, [`Cause::Anomaly`]
    /// for a reply that no request waits for.
    pub fn receive(&mut self, delivery: Delivery<'_>, now: Instant) -> Result<Arrival, Cause> {
        let Some((call, verdict)) = self.origin(delivery.topic) else {
            let topic: String = clean(delivery.topic).chars().take(100).collect();
            return Err(Cause::Garbled { detail: format!("unknown topic {topic:?} in a PUBLISH") });
        };
        let print = fingerprint(delivery.topic, delivery.payload);
        let is_known = self.consumed.contains(&Some(print));
        let is_awaited = self.awaited == Some(call);
        match verdict {
            // Two requests may be rejected in the same words, so an equal rejection is an answer if one is awaited.
            Verdict::Rejected if is_awaited => Ok(self.consume(print, verdict)),
            Verdict::Accepted if is_awaited && !is_known => Ok(self.consume(print, verdict)),
            _ if is_known => {
                if is_awaited && !delivery.is_duplicate {
                    self.doubted_at.get_or_insert(now);
                }
                self.count_redelivery()
            }
            _ => Err(Cause::Anomaly {
                detail: format!("a reply on {} that no request waits for", delivery.topic),
            }),
        }
    }

    /// When to end an exchange that has got only an earlier reply again: that reply was then its answer, and names a
    /// thing or certificate of another device. `None` while no reply is in doubt.
    pub fn grace_ends(&self) -> Option<Instant> {
        self.doubted_at.map(|at| at + GRACE)
    }

    /// The cause for an exchange whose answer equals an earlier reply.
    pub fn same_reply() -> Cause {
        Cause::Anomaly { detail: String::from("the same reply as for the device before") }
    }

    /// How many redeliveries there were since this was last called.
    pub fn take_redelivered(&mut self) -> u32 {
        std::mem::take(&mut self.redelivered)
    }

    fn origin(&self, topic: &str) -> Option<(Call, Verdict)> {
        self.topics.calls.iter().copied().find_map(|call| {
            let topics = self.topics.call(call);
            if topic == topics.accepted {
                Some((call, Verdict::Accepted))
            } else if topic == topics.rejected {
                Some((call, Verdict::Rejected))
            } else {
                None
            }
        })
    }

    fn consume(&mut self, print: u64, verdict: Verdict) -> Arrival {
        self.consumed[self.next] = Some(print);
        self.next = (self.next + 1) % REMEMBERED;
        self.awaited = None;
        self.doubted_at = None;
        Arrival::Reply(verdict)
    }

    fn count_redelivery(&mut self) -> Result<Arrival, Cause> {
        self.redelivered = self.redelivered.saturating_add(1);
        self.in_a_row += 1;
        if self.in_a_row <= MAX_REDELIVERIES {
            Ok(Arrival::Redelivery)
        } else {
            Err(Cause::Garbled {
                detail: format!("a flood: more than {MAX_REDELIVERIES} replies delivered again"),
            })
        }
    }
}

/// Tells deliveries apart: eight bytes at a time, because every reply of a run passes through here. It does not
/// withstand deliberate collisions, which would only cause an anomaly.
fn fingerprint(topic: &str, payload: &[u8]) -> u64 {
    const SPREAD: u128 = 0x9e37_79b9_7f4a_7c15;
    let mix = |state: u64, word: u64| {
        let product = u128::from(state ^ word) * SPREAD;
        (product as u64) ^ ((product >> 64) as u64).rotate_left(32)
    };
    let absorb = |state: u64, bytes: &[u8]| {
        let mut words = bytes.chunks_exact(8);
        let state = words
            .by_ref()
            .fold(state, |state, word| mix(state, u64::from_le_bytes(word.try_into().expect("eight bytes"))));
        let mut last = [0; 8];
        last[..words.remainder().len()].copy_from_slice(words.remainder());
        mix(mix(state, u64::from_le_bytes(last)), bytes.len() as u64)
    };
    absorb(absorb(0x243f_6a88_85a3_08d3, topic.as_bytes()), payload)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn inbox() -> Inbox {
        Inbox::new(Arc::new(Topics::new("T")))
    }

    const CREATED: &str = "$aws/certificates/create/json/accepted";
    const NOT_CREATED: &str = "$aws/certificates/create/json/rejected";
    const REGISTERED: &str = "$aws/provisioning-templates/T/provision/json/accepted";

    fn deliver(inbox: &mut Inbox, topic: &str, payload: &str) -> Result<Arrival, Cause> {
        let delivery = Delivery { topic, payload: payload.as_bytes(), is_duplicate: false };
        inbox.receive(delivery, Instant::now())
    }

    const ACCEPTED: Result<Arrival, Cause> = Ok(Arrival::Reply(Verdict::Accepted));
    const REJECTED: Result<Arrival, Cause> = Ok(Arrival::Reply(Verdict::Rejected));
    const AGAIN: Result<Arrival, Cause> = Ok(Arrival::Redelivery);

    #[test]
    fn a_reply_is_consumed_once() {
        let mut inbox = inbox();
        inbox.expect(Call::CreateKeysAndCertificate);
        assert_eq!(deliver(&mut inbox, CREATED, "1"), ACCEPTED);
        assert_eq!(deliver(&mut inbox, CREATED, "1"), AGAIN);
        inbox.expect(Call::RegisterThing);
        assert_eq!(deliver(&mut inbox, CREATED, "1"), AGAIN);
        assert_eq!(inbox.grace_ends(), None, "the other call's redelivery raises no doubt");
        assert_eq!(deliver(&mut inbox, REGISTERED, "1"), ACCEPTED);
        assert_eq!((inbox.take_redelivered(), inbox.take_redelivered()), (2, 0));
    }

    #[test]
    fn an_equal_reply_is_doubted_until_another_comes() {
        let mut inbox = inbox();
        inbox.expect(Call::RegisterThing);
        assert_eq!(deliver(&mut inbox, REGISTERED, "thing"), ACCEPTED);
        inbox.expect(Call::RegisterThing);
        let now = Instant::now();
        let again = Delivery { topic: REGISTERED, payload: b"thing", is_duplicate: true };
        assert_eq!(inbox.receive(again, now), AGAIN);
        assert_eq!(inbox.grace_ends(), None, "DUP says that it is a redelivery");
        for later in [0, 1] {
            let again = Delivery { is_duplicate: false, ..again };
            assert_eq!(inbox.receive(again, now + Duration::from_secs(later)), AGAIN);
            assert_eq!(inbox.grace_ends(), Some(now + GRACE));
        }
        assert_eq!(deliver(&mut inbox, REGISTERED, "other"), ACCEPTED);
        assert_eq!(inbox.grace_ends(), None);
    }

    #[test]
    fn equal_rejections_are_answers() {
        let mut inbox = inbox();
        for _ in 0..2 {
            inbox.expect(Call::CreateKeysAndCertificate);
            assert_eq!(deliver(&mut inbox, NOT_CREATED, "throttled"), REJECTED);
        }
        assert_eq!(deliver(&mut inbox, NOT_CREATED, "throttled"), AGAIN);
    }

    #[test]
    fn what_nobody_waits_for_ends_the_connection() {
        for call in [None, Some(Call::CreateKeysAndCertificate)] {
            let mut inbox = inbox();
            if let Some(call) = call {
                inbox.expect(call);
            }
            let Err(Cause::Anomaly { detail }) = deliver(&mut inbox, REGISTERED, "1") else {
                panic!("{call:?}")
            };
            assert!(detail.contains("no request waits for"), "{detail}");
        }
        let Err(Cause::Garbled { detail }) = deliver(&mut inbox(), "x\u{7}y", "1") else { panic!() };
        assert_eq!(detail, "unknown topic \"x y\" in a PUBLISH");
    }

    #[test]
    fn a_flood_of_redeliveries_ends_the_connection() {
        let mut inbox = inbox();
        inbox.expect(Call::CreateKeysAndCertificate);
        assert_eq!(deliver(&mut inbox, CREATED, "1"), ACCEPTED);
        let ended = (0..=MAX_REDELIVERIES).find_map(|_| deliver(&mut inbox, CREATED, "1").err());
        assert!(matches!(ended, Some(Cause::Garbled { .. })), "{ended:?}");
    }

    #[test]
    fn only_the_last_replies_are_known_again() {
        let mut inbox = inbox();
        for device in 0..=REMEMBERED {
            inbox.expect(Call::CreateKeysAndCertificate);
            assert_eq!(deliver(&mut inbox, CREATED, &device.to_string()), ACCEPTED);
        }
        assert_eq!(deliver(&mut inbox, CREATED, "1"), AGAIN);
        assert!(deliver(&mut inbox, CREATED, "0").is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn any_changed_byte_changes_the_fingerprint(
            payload in proptest::collection::vec(any::<u8>(), 1..60),
            at in any::<prop::sample::Index>(),
            flip in 1_u8..,
        ) {
            let mut changed = payload.clone();
            changed[at.index(payload.len())] ^= flip;
            prop_assert_ne!(fingerprint("t", &payload), fingerprint("t", &changed));
            changed.clone_from(&payload);
            changed.push(0);
            prop_assert_ne!(fingerprint("t", &payload), fingerprint("t", &changed));
        }
    }
}
