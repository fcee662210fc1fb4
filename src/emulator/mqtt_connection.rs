//! One MQTT connection: moves packets between a WebSocket, its session, the other clients and the account.
//!
//! Owns the loop, its waits and their bounds. What is allowed is the session's matter, what is answered the account's.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, SinkExt, StreamExt};
use rumqttc::mqttbytes::v4::{ConnAck, ConnectReturnCode, Packet, PubAck};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::{sleep, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as Frame;

use super::account::{Operation, Route, route};
use super::clients::{Client, Entrance, Hangup, MAILBOX};
use super::fault::{Fate, Fault};
use super::mqtt::{Decoder, Incoming, encode};
use super::scenario::ConnectExcess;
use super::service::{Reply, Service};
use super::session::{Delivery, Effect, Ending, Message, Session};
use super::uuid::random_uuid;

/// How long a client may leave what it is sent unread.
pub(super) const WRITE_WITHIN: Duration = Duration::from_secs(10);
/// How long a goodbye may take.
pub(super) const CLOSE_WITHIN: Duration = Duration::from_secs(1);
/// How long a CONNECT above its quota waits at most, where the scenario has it wait.
const CONNECT_DELAY: Duration = Duration::from_secs(60);
/// Packets that are written at once, at most.
const MAX_OUTBOX: usize = 64;

/// Serves MQTT on `socket` until either side ends it.
pub(super) async fn serve<S>(service: Arc<Service>, socket: WebSocketStream<S>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let hangup = Arc::new(Hangup::new(&service.stop));
    let (mailbox, messages) = mpsc::channel(MAILBOX);
    let client = Client { number: service.clients.number(), hangup, mailbox };
    let session = Session::new(Arc::clone(&service.rules), service.started.into(), Instant::now());
    let mut connection = Connection {
        socket,
        session,
        decoder: Decoder::default(),
        held: None,
        outbox: Vec::new(),
        in_flight: FuturesUnordered::new(),
        client_id: None,
        client,
        messages,
        service,
    };
    let ending = connection.run().await;
    connection.conclude(ending).await;
}

struct Connection<S> {
    service: Arc<Service>,
    socket: WebSocketStream<S>,
    session: Session,
    decoder: Decoder,
    /// Nothing is read before this instant.
    held: Option<Instant>,
    /// Packets to write before the next wait.
    outbox: Vec<Packet>,
    in_flight: FuturesUnordered<BoxFuture<'static, Done>>,
    /// Once connected.
    client_id: Option<String>,
    client: Client,
    messages: mpsc::Receiver<Message>,
}

/// What takes time while the connection goes on.
enum Done {
    Answered(Reply),
    /// The answer comes twice.
    AnsweredTwice(Reply),
    /// There will be no answer to this one.
    Unanswered,
    /// There will be no answer, and no further one.
    Lost,
    Granted(Packet),
    /// A plain message, which may want a PUBACK.
    Relayed(Option<u16>),
}

/// What ends a wait.
enum Wake {
    Frame(Option<Frame>),
    Done(Done),
    Message(Message),
    Deadline,
    Released,
    HungUp(Ending),
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Connection<S> {
    async fn run(&mut self) -> Ending {
        loop {
            if let Err(ending) = self.step().await {
                // What was decided before the end still goes out, a refusing CONNACK above all.
                let _ = self.write().await;
                return ending;
            }
        }
    }

    async fn step(&mut self) -> Result<(), Ending> {
        self.read_packets().await?;
        self.take_ready()?;
        self.write().await?;
        match self.wait().await {
            Wake::Frame(frame) => self.take_frame(frame),
            Wake::Done(done) => self.take_done(done),
            Wake::Message(message) => {
                let admitted = self.service.admit_delivery();
                let delivery =
                    if admitted { self.session.deliver(Instant::now(), message)? } else { Delivery::Dropped };
                self.send(delivery);
                Ok(())
            }
            Wake::Released => {
                self.held = None;
                // The server did not listen: no client pays for that.
                self.session.excuse(Instant::now());
                Ok(())
            }
            Wake::Deadline => self.session.overdue(Instant::now()).map_or(Ok(()), Err),
            Wake::HungUp(ending) => Err(ending),
        }
    }

    /// Takes all packets that are whole, unless too many requests are unanswered.
    async fn read_packets(&mut self) -> Result<(), Ending> {
        let mut effects = Vec::new();
        self.stall();
        while self.listens() {
            let taken = match self.decoder.next() {
                Ok(None) => return Ok(()),
                Ok(Some(packet)) => {
                    self.hesitate(&packet).await?;
                    if self.ignores(&packet) {
                        continue;
                    }
                    self.session.receive(Instant::now(), packet, &mut effects)
                }
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

    /// A CONNECT takes as long as the scenario says, and nothing may overtake its CONNACK.
    async fn hesitate(&mut self, packet: &Incoming) -> Result<(), Ending> {
        let Incoming::Connect(connect) = packet else { return Ok(()) };
        if self.client_id.is_none() {
            self.admit_connect(&connect.client_id).await?;
        }
        let latency = self.service.draw_latency(Operation::Connect);
        if latency.is_zero() {
            return Ok(());
        }
        tokio::select! {
            () = self.service.timer.wait_until(Instant::now() + latency) => Ok(()),
            ending = self.client.hangup.triggered() => Err(ending),
        }
    }

    /// Waits for the quotas where the scenario says so, or refuses.
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
                let refused = ConnAck::new(ConnectReturnCode::ServiceUnavailable, false);
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

    /// Whether a packet is above the account's quota of subscriptions: it was heard, and that is all.
    fn ignores(&mut self, packet: &Incoming) -> bool {
        let Incoming::Subscribe(subscribe) = packet else { return false };
        if self.client_id.is_none() || self.service.admit_subscribe(subscribe.filters.len()) {
            return false;
        }
        self.service.counts.subscribes_dropped.add();
        self.session.excuse(Instant::now());
        true
    }

    fn listens(&self) -> bool {
        self.held.is_none() && self.in_flight.len() < self.most_in_flight()
    }

    /// It is not listened to while so many of its messages are unanswered.
    fn most_in_flight(&self) -> usize {
        self.service.scenario.limits.unacked_inbound as usize
    }

    /// Stops listening for as long as the scenario stalls, or the connection has used up its throughput.
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
            Effect::Send(packet @ Packet::SubAck(_)) => self.grant(packet),
            Effect::Send(packet) => self.outbox.push(packet),
            Effect::Enter(client_id) => self.enter(client_id),
            Effect::Dropped => self.service.counts.publishes_dropped.add(),
            Effect::Request { .. } | Effect::Relay { .. } if !self.service.admit_publish() => {
                self.service.counts.publishes_dropped.add();
            }
            Effect::Request { topic, payload, acknowledge } => self.request(topic, payload, acknowledge),
            Effect::Relay { message, acknowledge } => self.relay(message, acknowledge),
            Effect::Watch { filter, qos } => self.service.clients.watch(&self.client, filter, qos),
            Effect::Unwatch(filter) => self.service.clients.unwatch(self.client.number, &filter),
        }
    }

    fn enter(&mut self, asked: String) {
        // The service gives ids of this form to clients that bring none; no client can ask for one.
        let client_id = if asked.is_empty() { format!("$GEN/{}", random_uuid()) } else { asked };
        self.service.counts.connected.add();
        if self.service.clients.enter(&client_id, self.client.clone()) == Entrance::TookOver {
            self.service.counts.takeovers.add();
        }
        self.client_id = Some(client_id);
    }

    fn grant(&mut self, packet: Packet) {
        let latency = self.service.draw_latency(Operation::Subscribe);
        if latency.is_zero() {
            self.outbox.push(packet);
            return;
        }
        let (service, due) = (Arc::clone(&self.service), Instant::now() + latency);
        self.in_flight.push(Box::pin(async move {
            service.timer.wait_until(due).await;
            Done::Granted(packet)
        }));
    }

    fn request(&mut self, topic: String, payload: Bytes, acknowledge: Option<u16>) {
        match route(&topic) {
            Route::Register { .. } => self.service.counts.register_requests.add(),
            _ => self.service.counts.create_requests.add(),
        }
        let fate = self.service.fate(&topic);
        match fate.fault {
            Some(Fault::DropBefore) => return self.client.hangup.trigger(Ending::Lost),
            Some(Fault::Silent) => return,
            _ => self.outbox.extend(acknowledge.map(|id| Packet::PubAck(PubAck::new(id)))),
        }
        let service = Arc::clone(&self.service);
        self.in_flight.push(Box::pin(async move { answer(&service, &topic, &payload, fate).await }));
    }

    fn relay(&mut self, message: Message, acknowledge: Option<u16>) {
        self.service.counts.messages.add();
        let latency = self.service.draw_latency(Operation::Publish);
        if latency.is_zero() {
            self.outbox.extend(acknowledge.map(|id| Packet::PubAck(PubAck::new(id))));
            return self.service.clients.relay(&message);
        }
        let (service, due) = (Arc::clone(&self.service), Instant::now() + latency);
        self.in_flight.push(Box::pin(async move {
            service.timer.wait_until(due).await;
            service.clients.relay(&message);
            Done::Relayed(acknowledge)
        }));
    }

    fn take_frame(&mut self, frame: Option<Frame>) -> Result<(), Ending> {
        match frame {
            Some(Frame::Binary(bytes)) => {
                self.session.transferred(Instant::now(), bytes.len());
                self.decoder.push(&bytes);
                Ok(())
            }
            // The WebSocket library answers pings by itself. They are no MQTT packets and keep no session alive.
            Some(Frame::Ping(_) | Frame::Pong(_)) => Ok(()),
            Some(Frame::Text(_)) => Err(Ending::NotBinary),
            Some(Frame::Close(_) | Frame::Frame(_)) | None => Err(Ending::Gone),
        }
    }

    /// Takes the answers that need no wait, so that they go out with the PUBACKs of their requests: one write, not two.
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
            Done::Answered(reply) => self.reply(reply)?,
            Done::AnsweredTwice(reply) => {
                self.reply(reply.clone())?;
                self.reply(reply)?;
            }
            Done::Granted(packet) => self.outbox.push(packet),
            Done::Relayed(acknowledge) => {
                self.outbox.extend(acknowledge.map(|id| Packet::PubAck(PubAck::new(id))));
            }
            Done::Unanswered => {}
            Done::Lost => return Err(Ending::Lost),
        }
        Ok(())
    }

    fn reply(&mut self, reply: Reply) -> Result<(), Ending> {
        let delivery = if self.service.admit_delivery() {
            self.session.reply(Instant::now(), reply.topic, reply.payload)?
        } else {
            Delivery::Dropped
        };
        self.send(delivery);
        Ok(())
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
        // What is above the connection's throughput waits in either direction.
        let flows = self.session.held_until(Instant::now()).is_none();
        let held = self.held;
        let deadline = self.session.deadline().into();
        tokio::select! {
            ending = self.client.hangup.triggered() => Wake::HungUp(ending),
            frame = self.socket.next(), if listens => Wake::Frame(frame.and_then(Result::ok)),
            Some(done) = self.in_flight.next() => Wake::Done(done),
            Some(message) = self.messages.recv(), if flows => Wake::Message(message),
            () = sleep_until(held.unwrap_or_else(Instant::now).into()), if held.is_some() => Wake::Released,
            () = sleep_until(deadline), if listens => Wake::Deadline,
        }
    }

    /// Writes the outbox, one packet a WebSocket message, flushed once.
    async fn write(&mut self) -> Result<(), Ending> {
        if self.outbox.is_empty() {
            return Ok(());
        }
        let socket = &mut self.socket;
        let outbox = &mut self.outbox;
        let session = &mut self.session;
        let written = async {
            for packet in outbox.drain(..) {
                let bytes = encode(&packet);
                session.transferred(Instant::now(), bytes.len());
                socket.feed(Frame::Binary(bytes)).await?;
            }
            socket.flush().await
        };
        tokio::select! {
            written = timeout(WRITE_WITHIN, written) => match written {
                Ok(Ok(())) => Ok(()),
                Ok(Err(_)) => Err(Ending::Gone),
                Err(_) => Err(Ending::SlowConsumer),
            },
            ending = self.client.hangup.triggered() => Err(ending),
        }
    }

    /// Ends the connection, then lets the account finish what it was asked: the service acts on requests that it
    /// acknowledged, whether or not anyone is there for the reply.
    async fn conclude(mut self, ending: Ending) {
        if let Some(client_id) = &self.client_id {
            self.service.clients.leave(client_id, self.client.number);
        }
        self.count(&ending);
        tracing::debug!(client_id = self.client_id.as_deref(), %ending, "connection ended");
        let socket = &mut self.socket;
        // A connection that is lost just ends, as it does when the other side crashes.
        let goodbye = async {
            if ending == Ending::Lost {
                return;
            }
            let _ = socket.close(None).await;
            while let Some(Ok(_)) = socket.next().await {}
            let _ = socket.get_mut().shutdown().await;
        };
        let _ = timeout(CLOSE_WITHIN, goodbye).await;
        drop(self.socket);
        let finish = async { while self.in_flight.next().await.is_some() {} };
        let _ = self.service.stop.run_until_cancelled(finish).await;
    }

    fn count(&self, ending: &Ending) {
        match ending {
            Ending::Lost | Ending::ConnectThrottled => {}
            Ending::Disconnected | Ending::Gone | Ending::TakenOver | Ending::Stopped | Ending::Lifetime => {}
            Ending::SlowConsumer => self.service.counts.slow_consumers.add(),
            _ => self.service.counts.violations.add(),
        }
    }
}

/// Answers a request as its fate is.
async fn answer(service: &Service, topic: &str, payload: &[u8], fate: Fate) -> Done {
    let answered = match fate.fault {
        Some(Fault::Reject) => Ok(service.unavailable(topic)),
        _ => service.answer(topic, payload).await,
    };
    if !fate.delay.is_zero() {
        sleep(fate.delay).await;
    }
    match (answered, fate.fault) {
        (Err(_), _) | (Ok(_), Some(Fault::DropAfter)) => Done::Lost,
        (Ok(_), Some(Fault::NoReply)) => Done::Unanswered,
        (Ok(reply), Some(Fault::Duplicate)) => Done::AnsweredTwice(reply),
        (Ok(reply), _) => Done::Answered(reply),
    }
}
