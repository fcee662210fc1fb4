//! One MQTT connection: moves packets between a stream, its session, the other clients and the account.
//!
//! Owns the loop, its waits and their limits. The session decides what is allowed, the account what is answered.

mod admission;
mod under_way;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{sleep_until, timeout};

use super::account::{Action, Operation, Principal};
use super::clients::{Client, Entrance, Hangup, MAILBOX};
use super::mqtt::{Decoder, Incoming, Packet, encode};
use super::mqtt_stream::{MqttStream, Received};
use super::scenario::Framing;
use super::service::{Reply, Service};
use super::session::{Delivery, Effect, Ending, Message, Session};
use super::socket::Socket;
use under_way::Done;

/// How long a client may leave sent data unread.
pub(super) const WRITE_WITHIN: Duration = Duration::from_secs(10);
/// How long closing the connection may take.
pub(super) const CLOSE_WITHIN: Duration = Duration::from_secs(1);
/// How long the requests of a client that has left may still take. Those that take longer are dropped, so that a client
/// that floods the emulator and leaves does not delay others.
const FINISH_WITHIN: Duration = Duration::from_secs(1);
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
