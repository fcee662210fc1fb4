//! One MQTT connection: moves packets between a stream, its session, the other clients and the account.
//!
//! Owns the loop, its waits and their limits. The session decides what is allowed, the account what is answered.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{sleep, sleep_until, timeout};

use super::account::{Action, Operation, Principal, Route, route};
use super::clients::{Client, Entrance, Hangup, MAILBOX};
use super::fault::Fate;
use super::mqtt::{ConnAck, Decoder, Incoming, Packet, Reason, encode};
use super::mqtt_stream::{MqttStream, Received};
use super::scenario::{Acts, ConnectExcess, Fault, FaultTarget, Framing};
use super::service::{Reply, Requester, Service};
use super::session::{Delivery, Effect, Ending, Message, Session};
use super::socket::Socket;

/// How long a client may leave sent data unread.
pub(super) const WRITE_WITHIN: Duration = Duration::from_secs(10);
/// How long closing the connection may take.
pub(super) const CLOSE_WITHIN: Duration = Duration::from_secs(1);
/// The longest that a CONNECT above its quota waits, if the scenario makes it wait.
const CONNECT_DELAY: Duration = Duration::from_secs(60);
/// How long the requests of a client that has left may still take. Those that take longer are dropped, so that a client
/// that floods the emulator and leaves does not delay others.
const FINISH_WITHIN: Duration = Duration::from_secs(1);
/// How long a reply that is to be sent after the next one waits for it.
const REORDERED_WITHIN: Duration = Duration::from_secs(2);
/// The most packets written at once.
const MAX_OUTBOX: usize = 64;

/// Serves MQTT on `stream` for `principal` until either side ends it.
pub(super) async fn serve<S: Socket>(service: Arc<Service>, stream: MqttStream<S>, principal: Principal) {
    let hangup = Arc::new(Hangup::new(&service.stop));
    let (mailbox, messages) = mpsc::channel(MAILBOX);
    let certificate = match &principal {
        Principal::Signer(_) => None,
        Principal::Certificate(id) => Some(id.clone()),
    };
    let client = Client { number: service.clients.number(), hangup, mailbox, certificate };
    let session = Session::new(Arc::clone(&service.rules), service.started.into(), Instant::now());
    let mut connection = Connection {
        stream,
        session,
        principal,
        decoder: Decoder::default(),
        framing: Framing::Whole,
        held: None,
        outbox: Vec::new(),
        in_flight: FuturesUnordered::new(),
        reordered: None,
        client_id: None,
        turn: Arc::new(Semaphore::new(1)),
        client,
        messages,
        service,
    };
    let ending = connection.run().await;
    connection.conclude(ending).await;
}

struct Connection<S> {
    service: Arc<Service>,
    stream: MqttStream<S>,
    session: Session,
    principal: Principal,
    decoder: Decoder,
    framing: Framing,
    /// Nothing is read before this instant.
    held: Option<Instant>,
    /// Packets to write before the next wait.
    outbox: Vec<Packet>,
    in_flight: FuturesUnordered<BoxFuture<'static, Done>>,
    /// A reply that is to be sent after the next one.
    reordered: Option<Reply>,
    /// The client id; `None` until the client has connected.
    client_id: Option<String>,
    /// See [`Requester::turn`].
    turn: Arc<Semaphore>,
    client: Client,
    messages: mpsc::Receiver<Message>,
}

/// A result that takes time while the connection goes on.
enum Done {
    Answered(Reply),
    /// The answer is sent twice.
    AnsweredTwice(Reply),
    /// The answer is sent after the next one.
    Reordered(Reply),
    /// The reordered reply has waited long enough for another one.
    ReorderedLongEnough,
    /// The request gets no answer.
    Unanswered,
    /// The request gets no answer, and the connection ends.
    Ended(Ending),
    /// Packets whose delay is over.
    Due(Vec<Packet>),
}

/// What ended a wait.
enum Wake {
    Received(Received),
    Done(Done),
    Message(Message),
    Deadline,
    Released,
    HungUp(Ending),
}

impl<S: Socket> Connection<S> {
    async fn run(&mut self) -> Ending {
        loop {
            if let Err(ending) = self.step().await {
                self.outbox.extend(self.session.farewell(&ending));
                // What was decided before the end is still sent, such as a CONNACK that refuses.
                if ending != Ending::Reset {
                    let _ = self.write().await;
                }
                return ending;
            }
        }
    }

    async fn step(&mut self) -> Result<(), Ending> {
        self.read_packets().await?;
        self.take_ready()?;
        self.write().await?;
        match self.wait().await {
            Wake::Received(received) => self.take_received(received),
            Wake::Done(done) => self.take_done(done),
            Wake::Message(message) => {
                self.check_receive(&message.topic)?;
                let delivery = if self.service.admit_delivery() {
                    self.session.deliver(Instant::now(), message)?
                } else {
                    Delivery::Dropped
                };
                self.send(delivery);
                Ok(())
            }
            Wake::Released => {
                self.held = None;
                // The server did not read: that must not count against the client.
                self.session.excuse(Instant::now());
                Ok(())
            }
            Wake::Deadline => {
                let now = Instant::now();
                self.outbox.extend(self.session.redeliver(now));
                self.session.overdue(now).map_or(Ok(()), Err)
            }
            Wake::HungUp(ending) => Err(ending),
        }
    }

    /// Processes all complete packets, unless too many requests are unanswered.
    async fn read_packets(&mut self) -> Result<(), Ending> {
        let mut effects = Vec::new();
        self.stall();
        while self.listens() {
            let taken = match self.decoder.next() {
                Ok(None) => return Ok(()),
                Ok(Some(packet)) => self.take_packet(packet, &mut effects).await,
                Err(malformed) => Err(self.session.reject(malformed, &mut effects)),
            };
            for effect in effects.drain(..) {
                self.apply(effect);
            }
            taken?;
            if self.outbox.len() >= MAX_OUTBOX {
                self.write().await?;
            }
        }
        Ok(())
    }

    async fn take_packet(&mut self, packet: Incoming, effects: &mut Vec<Effect>) -> Result<(), Ending> {
        match &packet {
            Incoming::Connect(connect) if self.client_id.is_none() => {
                self.hesitate(&connect.client_id).await?;
            }
            Incoming::Subscribe(subscribe) if self.client_id.is_some() => {
                if !self.service.admit_subscribe(subscribe.filters.len()) {
                    // Above the account's quota of subscriptions: the SUBSCRIBE is read and dropped.
                    self.service.counts.subscribes_dropped.add();
                    self.session.excuse(Instant::now());
                    return Ok(());
                }
                if self.loses_subscribe(subscribe.id, subscribe.filters.len())? {
                    return Ok(());
                }
            }
            _ => {}
        }
        let (service, principal, known) = (&self.service, &self.principal, self.client_id.as_deref());
        let permits = |action, name: &str| service.permits(principal, known.unwrap_or(name), action, name);
        self.session.receive(Instant::now(), packet, &permits, effects)
    }

    /// Applies the scenario's fault and latency to a CONNECT. Nothing may overtake its CONNACK.
    async fn hesitate(&mut self, client_id: &str) -> Result<(), Ending> {
        let fate = self.service.fate(FaultTarget::Connect);
        match fate.fault {
            Some(Fault::HangUp(_)) => return Err(Ending::Lost),
            Some(Fault::Reset) => return Err(Ending::Reset),
            Some(Fault::Silence) => {
                let ended = timeout(CONNECT_DELAY, self.client.hangup.triggered()).await;
                return Err(ended.unwrap_or(Ending::Lost));
            }
            Some(Fault::Connack(code)) => {
                self.outbox.push(Packet::ConnAck(ConnAck { reason: Reason(code), terms: None }));
                return Err(Ending::Lost);
            }
            Some(Fault::Framing(framing)) => self.framing = framing,
            _ => {}
        }
        self.admit_connect(client_id).await?;
        let latency = self.service.draw_latency(Operation::Connect) + fate.delay;
        if latency.is_zero() {
            return Ok(());
        }
        tokio::select! {
            () = self.service.timer.wait_until(Instant::now() + latency) => Ok(()),
            ending = self.client.hangup.triggered() => Err(ending),
        }
    }

    /// Waits for the quotas to admit the CONNECT if the scenario says so, or else refuses it.
    async fn admit_connect(&mut self, client_id: &str) -> Result<(), Ending> {
        let give_up = tokio::time::Instant::now() + CONNECT_DELAY;
        let mut is_counted = false;
        while let Err(retry_at) = self.service.admit_connect(client_id) {
            if !is_counted {
                self.service.counts.connects_throttled.add();
                is_counted = true;
            }
            let excess = self.service.scenario.quotas.connect_excess;
            if excess == ConnectExcess::Refuse {
                let refused = ConnAck { reason: Reason::SERVER_UNAVAILABLE, terms: None };
                self.outbox.push(Packet::ConnAck(refused));
            }
            if excess != ConnectExcess::Delay || retry_at > give_up {
                return Err(Ending::ConnectThrottled);
            }
            tokio::select! {
                () = sleep_until(retry_at) => {}
                ending = self.client.hangup.triggered() => return Err(ending),
            }
        }
        Ok(())
    }

    /// Whether a SUBSCRIBE is lost because of a fault of the scenario.
    fn loses_subscribe(&mut self, id: u16, filters: usize) -> Result<bool, Ending> {
        let fate = self.service.fate(FaultTarget::Subscribe);
        match fate.fault {
            Some(Fault::SubackFailure) => {
                let reasons = vec![Reason::UNSPECIFIED; filters];
                self.outbox.push(Packet::SubAck { id, reasons });
                Ok(true)
            }
            Some(Fault::Silence) => Ok(true),
            Some(Fault::HangUp(_)) => Err(Ending::Lost),
            Some(Fault::Reset) => Err(Ending::Reset),
            _ => {
                if !fate.delay.is_zero() {
                    self.held = Some(Instant::now() + fate.delay);
                }
                Ok(false)
            }
        }
    }

    fn listens(&self) -> bool {
        self.held.is_none() && self.in_flight.len() < self.most_in_flight()
    }

    /// The number of unanswered messages at which the connection is no longer read.
    fn most_in_flight(&self) -> usize {
        self.service.scenario.limits.unacked_inbound as usize
    }

    /// Stops reading while the scenario stalls, or while the connection has used up its throughput.
    fn stall(&mut self) {
        let now = Instant::now();
        if let Some(until) = self.session.held_until(now) {
            self.held = Some(until);
        }
        let age = self.service.age();
        let taken_up = self.service.scenario.latency.taken_up(age);
        if taken_up > age {
            self.held = Some((self.service.started + taken_up).into());
        }
    }

    fn apply(&mut self, effect: Effect) {
        match effect {
            Effect::Send(packet @ Packet::SubAck { .. }) => self.grant(packet),
            Effect::Send(packet) => self.outbox.push(packet),
            Effect::Enter(client_id) => self.enter(client_id),
            Effect::Dropped => self.service.counts.publishes_dropped.add(),
            Effect::Request { .. } | Effect::Relay { .. } if !self.service.admit_publish() => {
                self.service.counts.publishes_dropped.add();
            }
            Effect::Request { topic, payload, acknowledge } => self.request(topic, payload, acknowledge),
            Effect::Relay { message, acknowledge } => self.relay(message, acknowledge),
            Effect::Watch(filter) => self.service.clients.watch(&self.client, filter),
            Effect::Unwatch(filter) => self.service.clients.unwatch(self.client.number, &filter),
        }
    }

    fn enter(&mut self, client_id: String) {
        self.service.counts.connected.add();
        if self.service.clients.enter(&client_id, self.client.clone()) == Entrance::TookOver {
            self.service.counts.takeovers.add();
        }
        self.client_id = Some(client_id);
    }

    fn grant(&mut self, packet: Packet) {
        let latency = self.service.draw_latency(Operation::Subscribe);
        self.send_after(latency, vec![packet]);
    }

    /// Sends packets after a latency, which may be zero.
    fn send_after(&mut self, latency: Duration, packets: Vec<Packet>) {
        if latency.is_zero() {
            self.outbox.extend(packets);
            return;
        }
        let (service, due) = (Arc::clone(&self.service), Instant::now() + latency);
        self.in_flight.push(Box::pin(async move {
            service.timer.wait_until(due).await;
            Done::Due(packets)
        }));
    }

    fn request(&mut self, topic: String, payload: Bytes, acknowledge: Option<u16>) {
        let route = route(&topic);
        match route {
            Route::Register { .. } => self.service.counts.register_requests.add(),
            _ => self.service.counts.create_requests.add(),
        }
        let fate = self.service.fate(FaultTarget::of(&route));
        match fate.fault {
            Some(Fault::HangUp(Acts::Undone)) => return self.client.hangup.trigger(Ending::Lost),
            Some(Fault::Reset) => return self.client.hangup.trigger(Ending::Reset),
            Some(Fault::Silence) => return,
            Some(Fault::Unacknowledged | Fault::NoPuback) => {}
            _ => self.outbox.extend(puback(acknowledge)),
        }
        let service = Arc::clone(&self.service);
        let requester = Requester {
            number: self.client.number,
            client_id: self.client_id.clone().unwrap_or_default(),
            certificate_id: self.client.certificate.clone(),
            turn: Arc::clone(&self.turn),
        };
        self.in_flight
            .push(Box::pin(async move { answer(&service, &requester, &topic, &payload, fate).await }));
    }

    fn relay(&mut self, message: Message, acknowledge: Option<u16>) {
        self.service.counts.messages.add();
        let fate = self.service.fate(FaultTarget::Publish);
        let copies = match fate.fault {
            Some(Fault::HangUp(_)) => return self.client.hangup.trigger(Ending::Lost),
            Some(Fault::Reset) => return self.client.hangup.trigger(Ending::Reset),
            Some(Fault::Silence) => return,
            Some(Fault::Duplicate) => 2,
            _ => 1,
        };
        let acknowledge = if fate.fault == Some(Fault::NoPuback) { None } else { acknowledge };
        let latency = self.service.draw_latency(Operation::Publish) + fate.delay;
        let from = self.client.number;
        if latency.is_zero() {
            self.outbox.extend(puback(acknowledge));
            (0..copies).for_each(|_| self.service.clients.relay(from, &message));
            return;
        }
        let (service, due) = (Arc::clone(&self.service), Instant::now() + latency);
        self.in_flight.push(Box::pin(async move {
            service.timer.wait_until(due).await;
            (0..copies).for_each(|_| service.clients.relay(from, &message));
            Done::Due(puback(acknowledge).into_iter().collect())
        }));
    }

    fn take_received(&mut self, received: Received) -> Result<(), Ending> {
        match received {
            Received::Bytes(bytes) => {
                self.session.transferred(Instant::now(), bytes.len());
                self.decoder.push(&bytes);
                Ok(())
            }
            Received::Nothing => Ok(()),
            Received::NotBinary => Err(Ending::NotBinary),
            Received::Gone => Err(Ending::Gone),
        }
    }

    /// Takes the answers that are ready without waiting, so that they are sent in the same write as the PUBACKs of
    /// their requests.
    fn take_ready(&mut self) -> Result<(), Ending> {
        while let Some(Some(done)) = self.in_flight.next().now_or_never() {
            self.take_done(done)?;
        }
        Ok(())
    }

    fn take_done(&mut self, done: Done) -> Result<(), Ending> {
        if self.in_flight.len() + 1 == self.most_in_flight() {
            self.session.excuse(Instant::now());
        }
        match done {
            Done::Answered(reply) => {
                self.reply(reply)?;
                self.release_reordered()?;
            }
            Done::AnsweredTwice(reply) => {
                self.reply(reply.clone())?;
                self.reply(reply)?;
            }
            Done::Reordered(reply) => {
                self.release_reordered()?;
                self.reordered = Some(reply);
                self.in_flight.push(Box::pin(sleep(REORDERED_WITHIN).map(|()| Done::ReorderedLongEnough)));
            }
            Done::ReorderedLongEnough => self.release_reordered()?,
            Done::Due(packets) => self.outbox.extend(packets),
            Done::Unanswered => {}
            Done::Ended(ending) => return Err(ending),
        }
        Ok(())
    }

    fn release_reordered(&mut self) -> Result<(), Ending> {
        self.reordered.take().map_or(Ok(()), |reply| self.reply(reply))
    }

    fn reply(&mut self, reply: Reply) -> Result<(), Ending> {
        self.check_receive(&reply.topic)?;
        let delivery = if self.service.admit_delivery() {
            self.session.reply(Instant::now(), reply.topic, reply.payload)?
        } else {
            Delivery::Dropped
        };
        self.send(delivery);
        Ok(())
    }

    /// Checks that the client may receive the message. A message that it may not receive ends the connection.
    fn check_receive(&self, topic: &str) -> Result<(), Ending> {
        let client_id = self.client_id.as_deref().unwrap_or_default();
        if self.service.permits(&self.principal, client_id, Action::Receive, topic) {
            Ok(())
        } else {
            Err(Ending::Denied(Action::Receive, topic.to_owned()))
        }
    }

    fn send(&mut self, delivery: Delivery) {
        match delivery {
            Delivery::Send(packet) => self.outbox.push(packet),
            Delivery::Nothing => {}
            Delivery::Dropped => self.service.counts.deliveries_dropped.add(),
        }
    }

    async fn wait(&mut self) -> Wake {
        let listens = self.listens();
        // Messages above the connection's throughput wait, in either direction.
        let flows = self.session.held_until(Instant::now()).is_none();
        let held = self.held;
        let deadline = self.session.deadline().into();
        tokio::select! {
            ending = self.client.hangup.triggered() => Wake::HungUp(ending),
            received = self.stream.receive(), if listens => Wake::Received(received),
            Some(done) = self.in_flight.next() => Wake::Done(done),
            Some(message) = self.messages.recv(), if flows => Wake::Message(message),
            () = sleep_until(held.unwrap_or_else(Instant::now).into()), if held.is_some() => Wake::Released,
            () = sleep_until(deadline), if listens => Wake::Deadline,
        }
    }

    /// Writes the outbox and flushes it once. A packet that is larger than the client accepts is left out.
    async fn write(&mut self) -> Result<(), Ending> {
        if self.outbox.is_empty() {
            return Ok(());
        }
        let (version, largest) = (self.session.version(), self.session.largest_packet());
        let packets = self.outbox.drain(..).filter_map(|packet| encode(&packet, version));
        let packets: Vec<Bytes> = packets.filter(|packet| packet.len() <= largest).collect();
        let now = Instant::now();
        packets.iter().for_each(|packet| self.session.transferred(now, packet.len()));
        tokio::select! {
            written = timeout(WRITE_WITHIN, self.stream.send(&packets, self.framing)) => match written {
                Ok(Ok(())) => Ok(()),
                Ok(Err(_)) => Err(Ending::Gone),
                Err(_) => Err(Ending::SlowConsumer),
            },
            ending = self.client.hangup.triggered() => Err(ending),
        }
    }

    /// Ends the connection, then lets the account finish its requests for a moment: the service acts on requests that
    /// it acknowledged, whether or not the client is there for the reply.
    async fn conclude(mut self, ending: Ending) {
        if let Some(client_id) = &self.client_id {
            self.service.clients.leave(client_id, &self.client);
        }
        self.count(&ending);
        tracing::debug!(client_id = self.client_id.as_deref(), %ending, "connection ended");
        // A lost connection just ends, as it does when the other side crashes.
        match ending {
            Ending::Lost => {}
            Ending::Reset => self.stream.reset(),
            _ => {
                let _ = timeout(CLOSE_WITHIN, self.stream.close()).await;
            }
        }
        drop(self.stream);
        let finish = async { while self.in_flight.next().await.is_some() {} };
        let _ = self.service.stop.run_until_cancelled(timeout(FINISH_WITHIN, finish)).await;
    }

    fn count(&self, ending: &Ending) {
        match ending {
            Ending::Lost | Ending::Reset | Ending::ConnectThrottled | Ending::Deactivated => {}
            Ending::Disconnected | Ending::Gone | Ending::TakenOver | Ending::Stopped | Ending::Lifetime => {}
            Ending::SlowConsumer => self.service.counts.slow_consumers.add(),
            _ => self.service.counts.violations.add(),
        }
    }
}

fn puback(acknowledge: Option<u16>) -> Option<Packet> {
    acknowledge.map(|id| Packet::PubAck { id, reason: Reason::SUCCESS })
}

/// Answers a request as its fate says.
async fn answer(service: &Service, requester: &Requester, topic: &str, payload: &[u8], fate: Fate) -> Done {
    let Fate { fault, delay } = fate;
    let acts = fault.as_ref().is_none_or(Fault::acts);
    let answered = if acts { service.answer(requester, topic, payload).await.map(Some) } else { Ok(None) };
    let Ok(answered) = answered else { return Done::Ended(Ending::Lost) };
    if !delay.is_zero() {
        sleep(delay).await;
    }
    let answered = match &fault {
        Some(Fault::Reject { status, code, .. }) => Some(service.reject(*status, code.as_deref())),
        _ => answered,
    };
    let Some(answered) = answered else { return Done::Unanswered };
    let reply = service.reply(topic, answered, fault.as_ref());
    match fault {
        Some(Fault::HangUp(_)) => Done::Ended(Ending::Lost),
        Some(Fault::NoReply(_) | Fault::Unacknowledged) => Done::Unanswered,
        Some(Fault::Duplicate) => Done::AnsweredTwice(reply),
        Some(Fault::Reorder) => Done::Reordered(reply),
        _ => Done::Answered(reply),
    }
}
