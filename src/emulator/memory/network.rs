//! Packets under way, and the service at their end.
//!
//! Owns the queue of what is still to happen, the dice, and what a mishap does to a request. One task, [`Network::serve`],
//! lets time pass for it.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::super::account::random::Random;
use super::super::account::{Account, Answer, Operation, Route, Verdict, route};
use super::super::scenario::Refusal;
use super::{Faults, Minter, Mishap, NetworkSettings, Observer, Request, Sighting};
use crate::provisioning::{Lane, Topics};

/// Packets that wait for a client; one more ends the connection.
const MAILBOX: usize = 256;
/// How many accepted replies of each lane are kept to be delivered to someone else.
const REMEMBERED: usize = 16;
/// A connection that is to end by itself does so within this.
const LONGEST_LIFE: Duration = Duration::from_secs(60);

/// A network with an account at its end. Cheap to clone; all clones are the same network.
#[derive(Clone)]
pub struct Network {
    state: Arc<Mutex<State>>,
    wake: Arc<Notify>,
    observer: Arc<dyn Observer>,
    epoch: Instant,
    base: SystemTime,
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network").finish_non_exhaustive()
    }
}

/// What reaches a client.
#[derive(Debug, Clone)]
pub(super) enum Packet {
    PubAck,
    Publish { topic: String, payload: Bytes, is_duplicate: bool },
}

/// How a dial goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct DialCourse {
    /// How long its packets are under way, all together.
    pub(super) way: Duration,
    /// How long the service takes until its CONNACK.
    pub(super) connack: Duration,
    /// And from SUBSCRIBE to its SUBACK.
    pub(super) suback: Duration,
    /// If it fails, how: a number to choose a failure by.
    pub(super) failure: Option<u64>,
}

struct State {
    account: Account,
    minter: Minter,
    faults: Faults,
    dice: Dice,
    /// What is still to happen, by instant and by the order in which it was decided.
    events: BTreeMap<(Instant, u64), Event>,
    decided: u64,
    mailboxes: BTreeMap<u64, mpsc::Sender<Packet>>,
    connections: u64,
    /// Accepted replies of each lane, and whose they were.
    accepted: [VecDeque<(u64, Bytes)>; 3],
}

enum Event {
    Arrive { request: Request, topics: Arc<Topics>, mishap: Option<Mishap> },
    Deliver { connection: u64, packet: Packet },
    Close { connection: u64 },
}

impl Network {
    /// A network as `settings` say.
    pub fn new(settings: NetworkSettings) -> Self {
        let NetworkSettings { account, minter, faults, seed, base, observer } = settings;
        let state = State {
            account,
            minter,
            faults,
            dice: Dice(Random::new(seed)),
            events: BTreeMap::new(),
            decided: 0,
            mailboxes: BTreeMap::new(),
            connections: 0,
            accepted: Default::default(),
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            wake: Arc::new(Notify::new()),
            observer,
            epoch: Instant::now(),
            base,
        }
    }

    /// Lets everything happen that is to happen, for ever.
    pub async fn serve(self) {
        loop {
            let due = self.lock().events.first_key_value().map(|((at, _), _)| *at);
            match due {
                None => self.wake.notified().await,
                Some(at) if at > Instant::now() => {
                    tokio::select! {
                        biased;
                        () = self.wake.notified() => {}
                        () = tokio::time::sleep_until(at) => {}
                    }
                }
                Some(_) => self.happen(),
            }
        }
    }

    /// How long it has been there.
    pub fn age(&self) -> Duration {
        self.epoch.elapsed()
    }

    /// The service's wall clock.
    pub fn now(&self) -> SystemTime {
        self.base + self.age()
    }

    /// Changes what goes wrong with requests from here on.
    pub fn set_faults(&self, faults: Faults) {
        self.lock().faults = faults;
    }

    /// Looks at the account.
    pub fn with_account<T>(&self, look: impl FnOnce(&Account) -> T) -> T {
        look(&self.lock().account)
    }

    pub(super) fn observe(&self, sighting: &Sighting<'_>) {
        self.observer.see(self.age(), sighting);
    }

    /// A new connection, and what it will receive.
    pub(super) fn open(&self) -> (u64, mpsc::Receiver<Packet>) {
        let (sender, receiver) = mpsc::channel(MAILBOX);
        let mut state = self.lock();
        let number = state.number();
        state.mailboxes.insert(number, sender);
        let closings = state.faults.closings;
        if state.dice.chance(closings) {
            let life = state.dice.duration(Duration::ZERO, LONGEST_LIFE);
            state.schedule(life, Event::Close { connection: number });
            self.wake.notify_one();
        }
        (number, receiver)
    }

    pub(super) fn forget(&self, connection: u64) {
        self.lock().mailboxes.remove(&connection);
    }

    /// How a dial that begins now goes.
    pub(super) fn dial(&self) -> DialCourse {
        let mut state = self.lock();
        let way = state.latency();
        let dials = state.faults.dials;
        let fails = state.dice.chance(dials);
        let failure = fails.then(|| state.dice.below(1 << 32));
        let arrives = self.age() + way;
        let stalled = state.account.taken_up(arrives).saturating_sub(arrives);
        let connack = stalled + state.account.draw_latency(Operation::Connect);
        let suback = state.account.draw_latency(Operation::Subscribe);
        DialCourse { way, connack, suback, failure }
    }

    /// How long a question to the control plane takes, and whether it fails.
    pub(super) fn question(&self) -> (Duration, bool) {
        let mut state = self.lock();
        let took = state.latency() + state.latency();
        let unsettled = state.faults.unsettled;
        (took, state.dice.chance(unsettled))
    }

    /// The number that a connection would have which was never opened.
    pub(super) fn skip_number(&self) -> u64 {
        self.lock().number()
    }

    pub(super) fn publish(&self, request: &Request, topics: &Arc<Topics>) {
        let mut state = self.lock();
        let mishap = state.draw_mishap();
        let delay = state.latency();
        let event = Event::Arrive { request: request.clone(), topics: topics.clone(), mishap };
        state.schedule(delay, event);
        self.wake.notify_one();
    }

    /// Lets the next event happen.
    fn happen(&self) {
        let mut state = self.lock();
        let age = self.age();
        let Some(((_, order), event)) = state.events.pop_first() else { return };
        match event {
            Event::Arrive { .. } if state.account.taken_up(age) > age => {
                let resumes = self.epoch + state.account.taken_up(age);
                state.events.insert((resumes, order), event);
            }
            Event::Arrive { request, topics, mishap } => {
                let answer = state.arrive(self.now(), &request, &topics, mishap);
                drop(state);
                self.observe(&Sighting::Answered { request: &request, mishap, account: answer.as_ref() });
            }
            Event::Deliver { connection, packet } => state.deliver(connection, packet),
            Event::Close { connection } => {
                let was_open = state.mailboxes.remove(&connection).is_some();
                drop(state);
                if was_open {
                    self.observe(&Sighting::Closed { connection });
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds this lock, or the simulation has failed")
    }
}

impl State {
    fn number(&mut self) -> u64 {
        let number = self.connections;
        self.connections += 1;
        number
    }

    fn schedule(&mut self, after: Duration, event: Event) {
        self.decided += 1;
        self.events.insert((Instant::now() + after, self.decided), event);
    }

    fn latency(&mut self) -> Duration {
        let (least, most) = self.faults.latency;
        self.dice.duration(least, most)
    }

    fn draw_mishap(&mut self) -> Option<Mishap> {
        let mut roll = self.dice.unit();
        for (mishap, odds) in &self.faults.mishaps {
            roll -= odds;
            if roll < 0.0 {
                return Some(*mishap);
            }
        }
        None
    }

    /// A request is there: acts on it, unless its mishap says otherwise, and sends back what comes of it.
    fn arrive(
        &mut self,
        now: SystemTime,
        request: &Request,
        topics: &Arc<Topics>,
        mishap: Option<Mishap>,
    ) -> Option<Answer> {
        let acts = mishap.is_none_or(Mishap::reaches_account);
        let (answer, took) = match acts.then(|| self.act(now, request, topics)) {
            Some((answer, took)) => (Some(answer), took),
            None => (None, Duration::ZERO),
        };
        let answered = match (mishap, &answer) {
            (Some(Mishap::Throttled), _) => Some(self.account.refuse(Refusal::Throttled)),
            (Some(Mishap::Refused), _) => Some(self.rejection(&[400, 401, 403, 404, 409, 422], request)),
            (Some(Mishap::BrokenUndone | Mishap::BrokenDone), _) => {
                Some(self.rejection(&[500, 502, 503], request))
            }
            (_, Some(answer)) => Some(answer.clone()),
            (_, None) => None,
        };
        self.send_back(request, topics, mishap, answered, took);
        answer
    }

    /// What the account says, and how long it takes to say it.
    fn act(&mut self, now: SystemTime, request: &Request, topics: &Topics) -> (Answer, Duration) {
        self.account.expire(now);
        let asked = route(&topics.lane(request.lane).request);
        if let Err(throttled) = self.account.admit(now, &asked) {
            return (throttled, Duration::ZERO);
        }
        let took = self.account.draw_latency(Operation::of(&asked));
        let answer = match asked {
            Route::CreateKeys => {
                let minted = (self.minter)();
                self.account.create_keys(now, &request.payload, minted)
            }
            Route::Register { template } => self.account.register(now, template, &request.payload),
            _ => self.account.refuse(Refusal::NotEmulated),
        };
        (answer, took)
    }

    /// A rejection that is nobody's fault, in words that repeat the request, secrets and all.
    fn rejection(&mut self, statuses: &[u16], request: &Request) -> Answer {
        let status = statuses[self.dice.below(statuses.len() as u64) as usize];
        let words = format!("cannot process {}", String::from_utf8_lossy(&request.payload));
        let reply = serde_json::json!({"statusCode": status, "errorCode": "Mishap", "errorMessage": words});
        Answer { verdict: Verdict::Rejected, payload: Bytes::from(reply.to_string()) }
    }

    fn send_back(
        &mut self,
        request: &Request,
        topics: &Topics,
        mishap: Option<Mishap>,
        answer: Option<Answer>,
        took: Duration,
    ) {
        let Request { connection, lane, .. } = *request;
        let mut delay = self.latency();
        if matches!(mishap, Some(Mishap::ClosedUndone | Mishap::ClosedDone)) {
            return self.schedule(delay, Event::Close { connection });
        }
        if matches!(mishap, Some(Mishap::Lost | Mishap::Unacknowledged)) {
            return;
        }
        let is_overtaken = self.dice.chance(self.faults.overtakings);
        let puback = if is_overtaken { delay + self.latency() } else { delay };
        self.schedule(puback, Event::Deliver { connection, packet: Packet::PubAck });
        delay += took;
        let Some(answer) = answer else { return };
        if matches!(mishap, Some(Mishap::UnansweredDone)) {
            return;
        }
        let topics = topics.lane(lane);
        let topic = match answer.verdict {
            Verdict::Accepted => &topics.accepted,
            Verdict::Rejected => &topics.rejected,
        };
        // Short-circuited, so that what is drawn without delays is drawn alike with none.
        let is_delayed = self.faults.delays > 0.0 && self.dice.chance(self.faults.delays);
        if is_delayed || mishap == Some(Mishap::Late) {
            delay = self.dice.duration(delay, self.faults.latest);
        }
        if mishap == Some(Mishap::Foreign) {
            if let Some(payload) = self.foreign(connection, lane) {
                self.reply(connection, delay, &topics.accepted, payload, false);
            }
            delay += self.latency();
        }
        let payload = match mishap {
            Some(Mishap::Garbled) => self.garble(&answer.payload),
            _ => answer.payload,
        };
        if answer.verdict == Verdict::Accepted && mishap.is_none() {
            self.remember(connection, lane, payload.clone());
        }
        self.reply(connection, delay, topic, payload.clone(), false);
        self.redeliver(connection, delay, topic, &payload);
    }

    /// The same reply again, soon or much later, with or without a word that it is not the first time.
    fn redeliver(&mut self, connection: u64, after: Duration, topic: &str, payload: &Bytes) {
        while self.dice.chance(self.faults.redeliveries) {
            let most = if self.dice.chance(0.7) { Duration::from_millis(500) } else { self.faults.latest };
            let delay = after + self.dice.duration(Duration::ZERO, most);
            let is_duplicate = self.dice.chance(0.5);
            self.reply(connection, delay, topic, payload.clone(), is_duplicate);
        }
    }

    fn reply(&mut self, connection: u64, after: Duration, topic: &str, payload: Bytes, is_duplicate: bool) {
        let packet = Packet::Publish { topic: topic.to_owned(), payload, is_duplicate };
        self.schedule(after, Event::Deliver { connection, packet });
    }

    fn remember(&mut self, connection: u64, lane: Lane, payload: Bytes) {
        let accepted = &mut self.accepted[index(lane)];
        accepted.push_back((connection, payload));
        if accepted.len() > REMEMBERED {
            accepted.pop_front();
        }
    }

    /// A reply that some other connection was given.
    fn foreign(&mut self, connection: u64, lane: Lane) -> Option<Bytes> {
        let of_others =
            self.accepted[index(lane)].iter().filter(|(whose, _)| *whose != connection).collect::<Vec<_>>();
        let chosen = self.dice.below(of_others.len().max(1) as u64) as usize;
        of_others.get(chosen).map(|(_, payload)| payload.clone())
    }

    /// What is left of a reply after something has been at it.
    fn garble(&mut self, payload: &Bytes) -> Bytes {
        match self.dice.below(4) {
            0 => payload.slice(..payload.len() / 2),
            1 => Bytes::from_static(b"{}"),
            2 => Bytes::new(),
            _ => Bytes::from(
                String::from_utf8_lossy(payload)
                    .replace("\"certificateId\"", "\"x\"")
                    .replace("thingName", "x"),
            ),
        }
    }

    fn deliver(&mut self, connection: u64, packet: Packet) {
        let is_taken =
            self.mailboxes.get(&connection).is_some_and(|mailbox| mailbox.try_send(packet).is_ok());
        if !is_taken {
            self.mailboxes.remove(&connection);
        }
    }
}

fn index(lane: Lane) -> usize {
    match lane {
        Lane::Create => 0,
        Lane::Register => 1,
        Lane::CreateFromCsr => 2,
    }
}

/// The network's randomness.
struct Dice(Random);

impl Dice {
    /// Evenly from 0 to below 1.
    fn unit(&mut self) -> f64 {
        self.0.unit()
    }

    fn chance(&mut self, odds: f64) -> bool {
        self.unit() < odds
    }

    /// Evenly from 0 to below `limit`.
    fn below(&mut self, limit: u64) -> u64 {
        (self.unit() * limit as f64) as u64
    }

    /// Evenly between the two.
    fn duration(&mut self, least: Duration, most: Duration) -> Duration {
        least + most.saturating_sub(least).mul_f64(self.unit())
    }
}
