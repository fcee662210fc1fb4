//! The client's side of the simulated network: what the engine uses in place of sockets.
//!
//! Owns how dials end, and how exchanges and idle waits proceed as packets arrive. Does not decide which packet is a
//! reply.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc::{self, error::TryRecvError};
use tokio::time::{Instant, sleep, sleep_until};

use super::network::{DialCourse, Network, Packet, Welcome};
use super::{Power, Request, Sighting};
use crate::call::Call;
use crate::event::DialPhases;
use crate::failure::{Cause, Failure, Stage};
use crate::provisioning::Topics;
use crate::transport::{
    Arrival, Connection, Connector, Delivery, Dial, Heard, Inbox, Lost, Patience, Ping, Reply, Verdict, Wait,
};

/// How long a dial waits for a service that does not answer.
const SILENCE: Duration = Duration::from_secs(20);

/// Dials into a [`Network`].
#[derive(Debug)]
pub struct MemoryConnector {
    network: Network,
    topics: Arc<Topics>,
    power: Power,
}

impl MemoryConnector {
    pub(super) fn new(network: Network, topics: Arc<Topics>, power: Power) -> Self {
        Self { network, topics, power }
    }
}

impl Connector for MemoryConnector {
    type Connection = MemoryConnection;

    async fn dial(&self) -> Dial<MemoryConnection> {
        self.power.go_on().await;
        self.network.observe(&Sighting::Dialling);
        self.power.go_on().await;
        let course = self.network.dial();
        sleep(course.way).await;
        self.power.go_on().await;
        let dial = match course.failure {
            Some(choice) => failed_dial(choice, course.way),
            None => self.open(&course).await,
        };
        self.power.go_on().await;
        let connection = match &dial.outcome {
            Ok(connection) => connection.number,
            Err(_) => self.network.skip_number(),
        };
        self.network.observe(&Sighting::Dialled { connection, is_open: dial.outcome.is_ok() });
        self.power.go_on().await;
        dial
    }
}

impl MemoryConnector {
    async fn open(&self, course: &DialCourse) -> Dial<MemoryConnection> {
        let each = course.way / 5;
        let mut phases =
            DialPhases { tcp: Some(each), tls: Some(each), upgrade: Some(each), ..DialPhases::default() };
        let fail = |phases, stage, cause| Dial { phases, outcome: Err(Failure::new(stage, cause)) };
        let connack = match self.connack().await {
            Ok(took) => took,
            Err(cause) => return fail(phases, Stage::Connack, cause),
        };
        phases.connack = Some(each + connack);
        let Some(suback) = self.network.suback(2 * self.topics.calls.len()) else {
            sleep(SILENCE).await;
            return fail(phases, Stage::Suback, Cause::TimedOut { after: SILENCE });
        };
        pass(suback).await;
        phases.suback = Some(each + suback);
        let (number, mailbox) = self.network.open();
        let own = self.topics.of_client(&number.to_string());
        let topics = own.map_or_else(|| self.topics.clone(), Arc::new);
        let connection = MemoryConnection {
            network: self.network.clone(),
            inbox: Inbox::new(topics.clone()),
            topics,
            power: self.power.clone(),
            number,
            mailbox,
        };
        Dial { phases, outcome: Ok(connection) }
    }

    /// Waits for the CONNACK. Returns how long that took.
    async fn connack(&self) -> Result<Duration, Cause> {
        let asked = Instant::now();
        loop {
            match self.network.connack() {
                Welcome::After(latency) => {
                    pass(latency).await;
                    return Ok(asked.elapsed());
                }
                Welcome::AskAgain(_) if asked.elapsed() > SILENCE => {
                    return Err(Cause::TimedOut { after: asked.elapsed() });
                }
                Welcome::AskAgain(after) => sleep(after).await,
                Welcome::Never(cause) => return Err(cause),
            }
        }
    }
}

/// Lets time pass. Zero time does not even yield to the runtime, so that it has no effect at all.
async fn pass(time: Duration) {
    if !time.is_zero() {
        sleep(time).await;
    }
}

/// One of the ways in which a dial can fail.
fn failed_dial(choice: u64, took: Duration) -> Dial<MemoryConnection> {
    let refused = |status| Cause::UpgradeRefused { status, message: String::from("no"), skew_s: None };
    let (stage, cause) = match choice % 8 {
        0 => (Stage::Tcp, Cause::Unreachable { detail: String::from("connection refused") }),
        1 => (Stage::Tls, Cause::Closed { detail: String::from("cut off") }),
        2 => (Stage::Upgrade, refused(403)),
        3 => (Stage::Upgrade, refused(429)),
        4 => (Stage::Upgrade, refused(503)),
        5 => (Stage::Connack, Cause::ConnectRefused { code: 3 }),
        6 => (Stage::Connack, Cause::TimedOut { after: took }),
        _ => (Stage::Suback, Cause::Closed { detail: String::from("cut off") }),
    };
    Dial {
        phases: DialPhases { tcp: Some(took), ..DialPhases::default() },
        outcome: Err(Failure::new(stage, cause)),
    }
}

/// A connection into a [`Network`].
#[derive(Debug)]
pub struct MemoryConnection {
    network: Network,
    inbox: Inbox,
    topics: Arc<Topics>,
    power: Power,
    number: u64,
    mailbox: mpsc::Receiver<Packet>,
}

impl Drop for MemoryConnection {
    fn drop(&mut self) {
        self.network.forget(self.number);
    }
}

impl Connection for MemoryConnection {
    async fn exchange(
        mut self,
        call: Call,
        payload: Bytes,
        patience: impl Patience,
    ) -> Result<(Reply, Self), Lost> {
        self.power.go_on().await;
        if let Err(cause) = self.settle() {
            return Err(self.lost(Stage::Idle, cause, Duration::ZERO));
        }
        let request = Request { connection: self.number, call, payload };
        self.network.observe(&Sighting::Publishing(&request));
        self.power.go_on().await;
        self.inbox.expect(call);
        self.network.publish(&request, &self.topics);
        self.network.observe(&Sighting::Published(&request));
        self.power.go_on().await;
        let sent = Instant::now();
        let answered = self.answer(sent, &patience).await;
        let service = sent.elapsed();
        match answered {
            Ok((verdict, payload)) => {
                let redelivered = self.inbox.take_redelivered();
                Ok((Reply { verdict, payload, service, redelivered }, self))
            }
            Err(cause) => Err(self.lost(Stage::Call(call), cause, service)),
        }
    }

    async fn idle(&mut self) -> Failure {
        loop {
            let received = self.mailbox.recv().await;
            self.power.go_on().await;
            if let Err(cause) = self.ignore(received) {
                return Failure::new(Stage::Idle, cause);
            }
        }
    }

    async fn close(self) {
        self.power.go_on().await;
    }
}

impl MemoryConnection {
    /// Handles the packets that arrived while the client was not waiting for any.
    fn settle(&mut self) -> Result<(), Cause> {
        loop {
            match self.mailbox.try_recv() {
                Ok(packet) => self.ignore(Some(packet))?,
                Err(TryRecvError::Empty) => return Ok(()),
                Err(TryRecvError::Disconnected) => return Err(closed()),
            }
        }
    }

    fn ignore(&mut self, received: Option<Packet>) -> Result<(), Cause> {
        match received {
            None => Err(closed()),
            Some(Packet::PubAck | Packet::PingResp) => Ok(()),
            Some(Packet::Publish { topic, payload, is_duplicate }) => {
                match self.receive(&topic, &payload, is_duplicate)? {
                    Arrival::Redelivery => Ok(()),
                    Arrival::Reply(_) => {
                        Err(Cause::Garbled { detail: String::from("a reply where none was awaited") })
                    }
                }
            }
        }
    }

    /// Waits for the reply to the request that was just published.
    async fn answer(&mut self, sent: Instant, patience: &impl Patience) -> Result<(Verdict, Bytes), Cause> {
        let mut heard = Heard::default();
        let mut limit = sent;
        loop {
            heard.age = sent.elapsed();
            if Instant::now() >= limit {
                let until = match patience.next(heard) {
                    Wait::Until(age) => age,
                    Wait::PingUntil(age) => {
                        heard.ping = Ping::Sent;
                        self.network.ping(self.number);
                        age
                    }
                    Wait::GiveUp => return Err(self.silence(heard)),
                };
                limit = sent + until;
            }
            let grace = self.inbox.grace_ends();
            let received = tokio::select! {
                biased;
                received = self.mailbox.recv() => received,
                () = sleep_until(grace.map_or(limit, |grace| grace.min(limit))) => {
                    self.power.go_on().await;
                    if grace.is_some_and(|grace| Instant::now() >= grace) {
                        return Err(Inbox::same_reply());
                    }
                    continue;
                }
            };
            self.power.go_on().await;
            match received {
                None => return Err(closed()),
                Some(Packet::PubAck) => heard.is_acknowledged = true,
                Some(Packet::PingResp) => heard.ping = Ping::Answered,
                Some(Packet::Publish { topic, payload, is_duplicate }) => {
                    let arrival = self.receive(&topic, &payload, is_duplicate);
                    self.power.go_on().await;
                    if let Arrival::Reply(verdict) = arrival? {
                        return Ok((verdict, payload));
                    }
                }
            }
        }
    }

    fn silence(&self, heard: Heard) -> Cause {
        match heard {
            _ if self.inbox.grace_ends().is_some() => Inbox::same_reply(),
            Heard { is_acknowledged: true, age, .. } => Cause::NoReply { after: age },
            Heard { age, .. } => Cause::NoPuback { after: age },
        }
    }

    fn receive(&mut self, topic: &str, payload: &Bytes, is_duplicate: bool) -> Result<Arrival, Cause> {
        self.network.observe(&Sighting::Delivered { connection: self.number, topic, payload });
        self.inbox.receive(Delivery { topic, payload, is_duplicate }, Instant::now())
    }

    fn lost(&mut self, stage: Stage, cause: Cause, service: Duration) -> Lost {
        Lost { failure: Failure::new(stage, cause), service, redelivered: self.inbox.take_redelivered() }
    }
}

fn closed() -> Cause {
    Cause::Closed { detail: String::from("ended by the service") }
}
