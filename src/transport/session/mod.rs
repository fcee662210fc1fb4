//! A client's MQTT 3.1.1 session as needed here, without IO: bytes and `now` in, events and bytes out.
//!
//! Owns the order of packets: CONNECT, one SUBSCRIBE to the four response topics, then one PUBLISH at a time; packet
//! ids, acknowledgements and the keep-alive. [`Inbox`] decides which reply answers which request.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rumqttc::mqttbytes::v4::{
    Connect, Disconnect, PingReq, PubAck, Publish, Subscribe, SubscribeFilter, SubscribeReasonCode,
};
use rumqttc::mqttbytes::{Protocol, QoS};
use tokio::time::Instant;

use super::inbox::{self, Arrival, Inbox};
use super::packet::{self, Incoming, garbled};
use super::{Heard, Ping, Verdict};
use crate::call::Call;
use crate::failure::Cause;
use crate::provisioning::{Delivery, Topics};

/// How many unsolicited packets and frames are tolerated between two of our own. A healthy server sends hardly any;
/// one that floods us would otherwise be served for ever.
const MAX_UNASKED: u32 = 1000;

/// How long an acknowledgement waits for a request to be sent with. Long enough for a commit to disk, after which the
/// next request follows; negligible to a service that waits many seconds for acknowledgements.
const ACK_DELAY: Duration = Duration::from_millis(200);

/// Acknowledgements of more bytes than this are sent at once.
const MANY_ACKS: usize = 256;

/// An event that the session's owner waits for. Has `Debug` in tests only: a reply may hold a private key.
#[cfg_attr(any(test, fuzzing), derive(Debug))]
#[derive(PartialEq, Eq)]
pub(super) enum Event {
    /// CONNACK: accepted.
    Connected,
    /// SUBACK: all four topics granted.
    Subscribed,
    /// The reply of the exchange in flight.
    Replied { verdict: Verdict, payload: Bytes },
}

/// How far the session has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Connecting,
    Connected,
    Subscribing,
    Open,
}

/// The request in flight.
#[derive(Debug, Clone, Copy)]
struct Request {
    id: u16,
    is_acknowledged: bool,
}

/// One connection's MQTT state. Has no `Debug`: private keys pass through its buffers.
pub(super) struct Session {
    client_id: Box<str>,
    inbox: Inbox,
    phase: Phase,
    keep_alive: Duration,
    /// The latest input, not yet read. Kept as received, so that a reply's payload is a slice of it.
    arrived: Bytes,
    /// Input before `arrived`: the beginning of a packet that spans frames. Usually empty.
    pieces: BytesMut,
    out: BytesMut,
    /// Until when the acknowledgements in `out` wait for a request to be sent with; `None` if `out` should be sent
    /// now.
    acks_due: Option<Instant>,
    last_id: u16,
    request: Option<Request>,
    sent_at: Instant,
    ping_sent_at: Option<Instant>,
    /// The PINGREQ sent since the request in flight was published, and its answer.
    ping: Ping,
    /// Unsolicited packets and frames since our last packet other than an acknowledgement.
    unasked: u32,
}

impl Session {
    /// A session whose CONNECT (section 3.1) is queued: clean session, no user name, since the client is
    /// authenticated already.
    pub(super) fn new(client_id: String, topics: Arc<Topics>, keep_alive: Duration, now: Instant) -> Self {
        let own = topics.of_client(&client_id);
        let connect = Connect {
            protocol: Protocol::V4,
            // Zero would turn the keep-alive off.
            keep_alive: u16::try_from(keep_alive.as_secs().max(1)).unwrap_or(u16::MAX),
            client_id: client_id.clone(),
            clean_session: true,
            last_will: None,
            login: None,
        };
        let mut out = BytesMut::new();
        connect.write(&mut out).expect(FITS);
        let topics = own.map_or(topics, Arc::new);
        Self {
            client_id: client_id.into(),
            inbox: Inbox::new(topics),
            phase: Phase::Connecting,
            keep_alive,
            arrived: Bytes::new(),
            pieces: BytesMut::new(),
            out,
            acks_due: None,
            last_id: 0,
            request: None,
            sent_at: now,
            ping_sent_at: None,
            ping: Ping::NotSent,
            unasked: 0,
        }
    }

    pub(super) fn client_id(&self) -> &str {
        &self.client_id
    }

    /// Queues the one SUBSCRIBE (section 3.8); call once, after [`Event::Connected`]. `false` if there is nothing to
    /// subscribe to: a connection that is only held open has no topics, and MQTT has no empty SUBSCRIBE.
    pub(super) fn subscribe(&mut self) -> bool {
        if self.filters().is_empty() {
            self.phase = Phase::Open;
            return false;
        }
        let filter = |path: &str| SubscribeFilter { path: path.to_owned(), qos: QoS::AtLeastOnce };
        let filters = self.filters().into_iter().map(filter).collect();
        let subscribe = Subscribe { pkid: self.next_id(), filters };
        subscribe.write(&mut self.out).expect(FITS);
        self.phase = Phase::Subscribing;
        true
    }

    /// Queues the PUBLISH of a request of `call`; call after [`Event::Subscribed`], with no request in flight.
    pub(super) fn publish(&mut self, call: Call, payload: Bytes) {
        self.inbox.expect(call);
        let id = self.next_id();
        let topics = self.inbox.topics();
        let topic = topics.call(call).request.clone();
        let qos = match (call, topics.delivery) {
            (Call::Publish, Delivery::AtMostOnce) => QoS::AtMostOnce,
            _ => QoS::AtLeastOnce,
        };
        let publish = Publish { dup: false, qos, retain: false, topic, pkid: id, payload };
        publish.write(&mut self.out).expect(FITS);
        // QoS 0 has no PUBACK to wait for.
        self.request = Some(Request { id, is_acknowledged: qos == QoS::AtMostOnce });
        self.ping = Ping::NotSent;
        self.unasked = 0;
        self.acks_due = None;
    }

    /// Queues a PINGREQ, because the request in flight has no reply.
    pub(super) fn ping(&mut self, now: Instant) {
        self.ask_for_life(now);
        self.ping = Ping::Sent;
    }

    /// What was heard of the request in flight, whose age is `age`.
    pub(super) fn heard(&self, age: Duration) -> Heard {
        let is_acknowledged = self.request.is_some_and(|request| request.is_acknowledged);
        Heard { age, is_acknowledged, ping: self.ping }
    }

    /// Queues DISCONNECT (section 3.14).
    pub(super) fn disconnect(&mut self) {
        Disconnect.write(&mut self.out).expect(FITS);
        self.acks_due = None;
    }

    /// Takes input from the server, for [`Session::next_event`] to read.
    pub(super) fn feed(&mut self, bytes: Bytes) {
        if self.pieces.is_empty() && self.arrived.is_empty() {
            self.arrived = bytes;
        } else {
            let before = std::mem::take(&mut self.arrived);
            self.pieces.extend_from_slice(&before);
            self.pieces.extend_from_slice(&bytes);
        }
    }

    /// Counts a packet or frame that is well-formed but unsolicited.
    ///
    /// # Errors
    /// [`Cause::Garbled`] if there are too many.
    pub(super) fn came_unasked(&mut self) -> Result<(), Cause> {
        self.unasked += 1;
        if self.unasked <= MAX_UNASKED {
            Ok(())
        } else {
            Err(garbled(format!("a flood: more than {MAX_UNASKED} packets or frames that nothing asked for")))
        }
    }

    /// Reads packets until one is an event, or none is left.
    ///
    /// # Errors
    /// The cause for which the connection can no longer be used.
    pub(super) fn next_event(&mut self, now: Instant) -> Result<Option<Event>, Cause> {
        while let Some(incoming) = self.next_packet()? {
            if let Some(event) = self.handle(incoming, now)? {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    /// How many bytes of output are pending.
    pub(super) fn pending_output(&self) -> usize {
        self.out.len()
    }

    /// Whether output should be sent now. Acknowledgements wait a little for the next request, because a write of
    /// their own costs as much as the request's.
    pub(super) fn wants_output(&self) -> bool {
        !self.out.is_empty() && (self.acks_due.is_none() || self.out.len() > MANY_ACKS)
    }

    /// Takes all pending output, which is sent `now`.
    pub(super) fn take_output(&mut self, now: Instant) -> Bytes {
        self.sent_at = now;
        self.acks_due = None;
        // Taken whole, not split off: an idle connection should hold no buffer.
        std::mem::take(&mut self.out).freeze()
    }

    /// The latest instant at which to call [`Session::tick`].
    pub(super) fn deadline(&self) -> Instant {
        let alive = match self.ping_sent_at {
            Some(at) => at + self.keep_alive,
            None => self.sent_at + self.quiet_limit(),
        };
        [self.inbox.grace_ends(), self.acks_due].into_iter().flatten().fold(alive, Instant::min)
    }

    /// Does what is due `now`: sends acknowledgements that have waited long enough, and a PINGREQ after silence on
    /// our side (section 3.1.2.10).
    ///
    /// # Errors
    /// The server did not answer a PINGREQ, or the exchange in flight got an earlier reply as its answer.
    pub(super) fn tick(&mut self, now: Instant) -> Result<(), Cause> {
        if self.inbox.grace_ends().is_some_and(|ends| now >= ends) {
            return Err(Inbox::same_reply());
        }
        self.acks_due = self.acks_due.filter(|due| now < *due);
        match self.ping_sent_at {
            Some(at) if now >= at + self.keep_alive => Err(Cause::Closed {
                detail: format!("no PINGRESP within {:?}: the server is gone", self.keep_alive),
            }),
            None if now >= self.sent_at + self.quiet_limit() => {
                self.ask_for_life(now);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The cause if the exchange in flight has no reply by `after` its publish.
    pub(super) fn silence(&self, after: Duration) -> Cause {
        // In tenths of a second: otherwise failures that differ by microseconds would not count as one cause.
        let after = Duration::from_millis((after.as_millis() as u64).saturating_add(50) / 100 * 100);
        match self.request {
            _ if self.inbox.grace_ends().is_some() => Inbox::same_reply(),
            Some(Request { is_acknowledged: true, .. }) => Cause::NoReply { after },
            _ => Cause::NoPuback { after },
        }
    }

    /// How many replies were delivered again since this was last called.
    pub(super) fn take_redelivered(&mut self) -> u32 {
        self.inbox.take_redelivered()
    }

    fn ask_for_life(&mut self, now: Instant) {
        PingReq.write(&mut self.out).expect(FITS);
        self.acks_due = None;
        self.ping_sent_at = Some(now);
        self.unasked = 0;
    }

    /// How long there may be no output before a PINGREQ is due: a tenth less than the keep-alive, which is an upper
    /// limit, since neither timers nor networks are punctual.
    fn quiet_limit(&self) -> Duration {
        self.keep_alive - self.keep_alive / 10
    }

    fn filters(&self) -> Vec<&str> {
        let topics = self.inbox.topics();
        let answers = topics.calls.iter().map(|call| topics.call(*call));
        let filters = answers.flat_map(|call| [call.accepted.as_str(), call.rejected.as_str()]);
        filters.filter(|filter| !filter.is_empty()).collect()
    }

    /// The next packet id, never zero (section 2.3.1).
    fn next_id(&mut self) -> u16 {
        self.last_id = self.last_id.checked_add(1).unwrap_or(1);
        self.last_id
    }

    fn next_packet(&mut self) -> Result<Option<Incoming>, Cause> {
        if self.pieces.is_empty() {
            let Some(header) = packet::frame(&self.arrived)? else {
                if !self.arrived.is_empty() {
                    self.pieces.extend_from_slice(&std::mem::take(&mut self.arrived));
                }
                return Ok(None);
            };
            return packet::read(header, self.arrived.split_to(header.frame_length())).map(Some);
        }
        let Some(header) = packet::frame(&self.pieces)? else { return Ok(None) };
        let bytes = self.pieces.split_to(header.frame_length()).freeze();
        if self.pieces.is_empty() {
            // Releases the buffer, which may have grown to a large packet's size.
            self.pieces = BytesMut::new();
        }
        packet::read(header, bytes).map(Some)
    }

    fn handle(&mut self, incoming: Incoming, now: Instant) -> Result<Option<Event>, Cause> {
        match (self.phase, incoming) {
            (Phase::Connecting, Incoming::ConnAck(0)) => {
                self.phase = Phase::Connected;
                Ok(Some(Event::Connected))
            }
            (Phase::Connecting, Incoming::ConnAck(code)) => Err(Cause::ConnectRefused { code }),
            (Phase::Connecting, _) => Err(garbled("a packet before CONNACK")),
            (_, Incoming::ConnAck(_)) => Err(garbled("a second CONNACK")),
            (Phase::Subscribing, Incoming::SubAck { id, codes }) => self.granted(id, &codes).map(Some),
            (_, Incoming::SubAck { .. }) => Err(garbled("a SUBACK that answers no SUBSCRIBE")),
            (_, Incoming::PubAck(id)) => {
                match self.request.as_mut().filter(|request| request.id == id) {
                    Some(request) if !request.is_acknowledged => request.is_acknowledged = true,
                    // Most likely the PUBACK of a request whose reply came before it.
                    _ => self.came_unasked()?,
                }
                Ok(None)
            }
            (_, Incoming::PingResp) => {
                if self.ping_sent_at.take().is_none() {
                    self.came_unasked()?;
                } else if self.ping == Ping::Sent {
                    self.ping = Ping::Answered;
                }
                Ok(None)
            }
            (_, Incoming::Publish(publish)) => self.delivered(publish, now),
        }
    }

    /// Checks every return code (section 3.9.3). A lower QoS than requested is still a grant.
    fn granted(&mut self, id: u16, codes: &[SubscribeReasonCode]) -> Result<Event, Cause> {
        let filters = self.filters();
        if id != self.last_id {
            return Err(garbled("a SUBACK for another SUBSCRIBE"));
        }
        if codes.len() != filters.len() {
            return Err(garbled(format!(
                "a SUBACK with {} return codes for {} filters",
                codes.len(),
                filters.len()
            )));
        }
        for (filter, code) in filters.into_iter().zip(codes) {
            match code {
                SubscribeReasonCode::Failure => {
                    return Err(Cause::SubscriptionRefused { filter: filter.to_owned() });
                }
                SubscribeReasonCode::Success(QoS::ExactlyOnce) => {
                    return Err(garbled("a SUBACK that grants QoS 2 where QoS 1 was asked for"));
                }
                SubscribeReasonCode::Success(_) => {}
            }
        }
        self.phase = Phase::Open;
        Ok(Event::Subscribed)
    }

    fn delivered(&mut self, publish: Publish, now: Instant) -> Result<Option<Event>, Cause> {
        if publish.qos == QoS::AtLeastOnce {
            if self.out.is_empty() {
                self.acks_due = Some(now + ACK_DELAY);
            }
            PubAck { pkid: publish.pkid }.write(&mut self.out).expect(FITS);
        }
        let Publish { dup: is_duplicate, topic, payload, .. } = publish;
        let delivery = inbox::Delivery { topic: &topic, payload: &payload, is_duplicate };
        match self.inbox.receive(delivery, now)? {
            Arrival::Redelivery => Ok(None),
            Arrival::Reply(verdict) => {
                self.request = None;
                Ok(Some(Event::Replied { verdict, payload }))
            }
        }
    }
}

/// Why writing a packet to memory cannot fail.
const FITS: &str = "packets that are sent have ids and are far below the 256 MB that MQTT can frame";

#[cfg(test)]
mod tests;
