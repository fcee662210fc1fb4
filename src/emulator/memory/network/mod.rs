//! Packets under way, and the service at their end.
//!
//! Owns the queue of future events and the dice; `service` is what a request meets at its end. One task,
//! [`Network::serve`], makes the events happen as time passes.

mod service;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::super::account::random::Random;
use super::super::account::{Account, Operation, route};
use super::super::fault::{self, Fate};
use super::super::mint::SeededMint;
use super::super::scenario::{ConnectExcess, Fault, FaultTarget};
use super::super::session::{ReplyPolicy, Rules, Usage};
use super::weather::BurstState;
use super::{Faults, NetworkSettings, Observer, Request, Sighting};
use crate::failure::Cause;
use crate::provisioning::Topics;

/// How many packets may wait for a client; one more ends the connection.
const MAILBOX: usize = 256;
/// The longest time after which a connection that is to end by itself does so.
const LONGEST_LIFE: Duration = Duration::from_secs(60);
/// How long a CONNECT that is to wait for a free connection waits before it asks again.
const FULL_PAUSE: Duration = Duration::from_millis(100);
/// How long until the layers below resend what a dial lost in an outage.
const OUTAGE_PAUSE: Duration = Duration::from_millis(500);

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

/// A packet that reaches a client.
#[derive(Debug, Clone)]
pub(super) enum Packet {
    PubAck,
    PingResp,
    Publish { topic: String, payload: Bytes, is_duplicate: bool },
}

/// How a dial proceeds.
#[derive(Debug, Clone, Copy)]
pub(super) struct DialCourse {
    /// How long the dial's packets are under way in total.
    pub(super) way: Duration,
    /// A number that selects the failure; `None` if the dial does not fail.
    pub(super) failure: Option<u64>,
}

/// How a CONNECT is received.
#[derive(Debug)]
pub(super) enum Welcome {
    /// A CONNACK after this time.
    After(Duration),
    /// Nothing yet: the CONNECT is to be tried again after this time.
    AskAgain(Duration),
    /// No CONNACK that admits the client.
    Never(Cause),
}

struct State {
    account: Account,
    mint: SeededMint,
    faults: Faults,
    /// The faults of requests.
    requests: fault::Dice,
    dice: Dice,
    /// Future events, ordered by instant and then by the order in which they were scheduled.
    events: BTreeMap<(Instant, u64), Event>,
    decided: u64,
    lines: BTreeMap<u64, Line>,
    /// What a connection may do.
    rules: Rules,
    burst: BurstState,
    epoch: Instant,
    connections: u64,
    /// Accepted replies of each call, each with the number of its connection.
    accepted: [VecDeque<(u64, Bytes)>; 4],
}

/// An open connection, as the service sees it.
struct Line {
    mailbox: mpsc::Sender<Packet>,
    usage: Usage,
    /// Whether the connection carries nothing.
    is_mute: bool,
    /// The event that ends the connection when it reaches the greatest age allowed: its key.
    ends: (Instant, u64),
}

enum Event {
    Arrive {
        request: Request,
        topics: Arc<Topics>,
        fate: Fate,
    },
    Deliver {
        connection: u64,
        packet: Packet,
    },
    Close {
        connection: u64,
    },
    /// Requests from other clients of the account arrive.
    Other,
}

impl Network {
    /// A network with these settings.
    pub fn new(settings: NetworkSettings) -> Self {
        let NetworkSettings { account, faults, seed, base, observer } = settings;
        let epoch = Instant::now();
        let rules = Rules::new(ReplyPolicy::ToRequester, account.quotas(), *account.limits());
        let mut state = State {
            account,
            // A separate stream from the network's own dice, so that what is minted does not change what happens to
            // packets.
            mint: SeededMint::new(!seed),
            requests: fault::Dice::new(seeded(&faults, seed)),
            faults,
            dice: Dice(Random::new(seed)),
            events: BTreeMap::new(),
            decided: 0,
            lines: BTreeMap::new(),
            rules,
            burst: BurstState::default(),
            epoch,
            connections: 0,
            accepted: Default::default(),
        };
        if state.faults.weather.others.is_some() {
            state.schedule(Duration::ZERO, Event::Other);
        }
        Self { state: Arc::new(Mutex::new(state)), wake: Arc::new(Notify::new()), observer, epoch, base }
    }

    /// Makes all scheduled events happen, for ever.
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

    /// How long ago the network was made.
    pub fn age(&self) -> Duration {
        self.epoch.elapsed()
    }

    /// The service's wall clock.
    pub fn now(&self) -> SystemTime {
        self.base + self.age()
    }

    /// Replaces the faults of requests from now on.
    pub fn set_faults(&self, faults: Faults) {
        let mut state = self.lock();
        state.requests.load(faults.requests.clone());
        state.faults = faults;
    }

    /// Runs `look` on the account.
    pub fn with_account<T>(&self, look: impl FnOnce(&Account) -> T) -> T {
        look(&self.lock().account)
    }

    pub(super) fn observe(&self, sighting: &Sighting<'_>) {
        self.observer.see(self.age(), sighting);
    }

    /// Opens a connection. Returns its number and the packets that it will receive.
    pub(super) fn open(&self) -> (u64, mpsc::Receiver<Packet>) {
        let (sender, receiver) = mpsc::channel(MAILBOX);
        let mut state = self.lock();
        let number = state.number();
        let now = Instant::now();
        let lifetime = state.rules.limits.connection_lifetime;
        let ends = state.schedule(lifetime, Event::Close { connection: number });
        let usage = Usage::new(self.epoch.into_std(), now.into_std());
        let mutes = state.faults.weather.mutes;
        let is_mute = mutes > 0.0 && state.dice.chance(mutes);
        state.lines.insert(number, Line { mailbox: sender, usage, is_mute, ends });
        let stillbirths = state.faults.stillbirths;
        // Short-circuited: odds of zero draw nothing, so that they leave other draws unchanged.
        if stillbirths > 0.0 && state.dice.chance(stillbirths) {
            state.schedule(Duration::ZERO, Event::Close { connection: number });
            self.wake.notify_one();
        }
        let closings = state.faults.closings;
        if state.dice.chance(closings) {
            let life = state.dice.duration(Duration::ZERO, LONGEST_LIFE);
            state.schedule(life, Event::Close { connection: number });
        }
        self.wake.notify_one();
        (number, receiver)
    }

    pub(super) fn forget(&self, connection: u64) {
        self.lock().hang_up(connection);
    }

    /// How a dial that begins now proceeds.
    pub(super) fn dial(&self) -> DialCourse {
        let mut state = self.lock();
        let way = state.latency();
        let dials = state.faults.dials;
        let fails = state.dice.chance(dials);
        let failure = fails.then(|| state.dice.below(1 << 32));
        DialCourse { way, failure }
    }

    /// How the service receives a CONNECT that arrives now, and how long its CONNACK takes.
    pub(super) fn connack(&self) -> Welcome {
        let mut state = self.lock();
        let (age, limits) = (self.age(), state.rules.limits);
        if state.faults.weather.is_out(age) {
            return Welcome::AskAgain(OUTAGE_PAUSE);
        }
        let taken_up = state.account.taken_up(age);
        if taken_up > age {
            return Welcome::AskAgain(taken_up - age);
        }
        let admitted = if state.lines.len() < limits.connections as usize {
            state.account.admit_connect(age, None)
        } else {
            Err(age + FULL_PAUSE)
        };
        match (admitted, state.account.quotas().connect_excess) {
            (Ok(()), _) => Welcome::After(state.account.draw_latency(Operation::Connect)),
            (Err(retry_at), ConnectExcess::Delay) => {
                Welcome::AskAgain(retry_at.saturating_sub(age).max(Duration::from_millis(1)))
            }
            (Err(_), ConnectExcess::Refuse) => Welcome::Never(Cause::ConnectRefused { code: 3 }),
            (Err(_), ConnectExcess::Close) => {
                Welcome::Never(Cause::Closed { detail: String::from("ended by the service") })
            }
        }
    }

    /// How long the service takes from a SUBSCRIBE with this many filters to its SUBACK; `None` if there is no SUBACK.
    pub(super) fn suback(&self, filters: usize) -> Option<Duration> {
        let mut state = self.lock();
        let is_admitted = state.account.admit_subscribe(self.age(), filters);
        is_admitted.then(|| state.account.draw_latency(Operation::Subscribe))
    }

    /// How long a query to the control plane takes, and whether it fails.
    pub(super) fn question(&self) -> (Duration, bool) {
        let mut state = self.lock();
        let took = state.latency() + state.latency();
        let unsettled = state.faults.unsettled;
        (took, state.dice.chance(unsettled))
    }

    /// Takes a connection number for a connection that was never opened.
    pub(super) fn skip_number(&self) -> u64 {
        self.lock().number()
    }

    pub(super) fn publish(&self, request: &Request, topics: &Arc<Topics>) {
        let mut state = self.lock();
        let fate = state.requests.throw(FaultTarget::of(&route(&topics.call(request.call).request)));
        let delay = state.latency();
        let event = Event::Arrive { request: request.clone(), topics: topics.clone(), fate };
        state.schedule(delay, event);
        self.wake.notify_one();
    }

    /// Takes a PINGREQ. Its PINGRESP follows unless the connection carries nothing.
    pub(super) fn ping(&self, connection: u64) {
        let mut state = self.lock();
        let delay = state.latency() + state.latency();
        state.schedule(delay, Event::Deliver { connection, packet: Packet::PingResp });
        self.wake.notify_one();
    }

    /// Makes the next event happen.
    fn happen(&self) {
        let mut state = self.lock();
        let age = self.age();
        let Some(((_, order), event)) = state.events.pop_first() else { return };
        match event {
            Event::Arrive { .. } if state.account.taken_up(age) > age => {
                let resumes = self.epoch + state.account.taken_up(age);
                state.events.insert((resumes, order), event);
            }
            Event::Arrive { request, topics, mut fate } => {
                // What exceeds a quota is dropped without notice.
                if fate.fault != Some(Fault::Silence)
                    && (state.weather_takes(request.connection) || !state.admits_publish(request.connection))
                {
                    fate.fault = Some(Fault::Silence);
                }
                let answer = state.arrive(self.now(), &request, &topics, &fate);
                drop(state);
                let fault = fate.fault.as_ref();
                self.observe(&Sighting::Answered { request: &request, fault, account: answer.as_ref() });
            }
            Event::Deliver { connection, .. } if state.is_cut_off(connection) => {}
            Event::Deliver { connection, packet } => {
                if !matches!(packet, Packet::Publish { .. }) || state.admits_delivery(connection) {
                    state.deliver(connection, packet);
                }
            }
            Event::Other => state.other(age),
            Event::Close { connection } => {
                let was_open = state.hang_up(connection);
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

    fn schedule(&mut self, after: Duration, event: Event) -> (Instant, u64) {
        self.decided += 1;
        let key = (Instant::now() + after, self.decided);
        self.events.insert(key, event);
        key
    }

    /// Ends a connection. Returns whether it existed.
    fn hang_up(&mut self, connection: u64) -> bool {
        let Some(line) = self.lines.remove(&connection) else { return false };
        self.events.remove(&line.ends);
        true
    }

    fn age(&self) -> Duration {
        self.epoch.elapsed()
    }

    /// Whether a connection carries nothing now.
    fn is_cut_off(&self, connection: u64) -> bool {
        let is_mute = self.lines.get(&connection).is_some_and(|line| line.is_mute);
        is_mute || self.faults.weather.is_out(self.age())
    }

    /// Whether a request is lost on the way by chance.
    fn weather_takes(&mut self, connection: u64) -> bool {
        if self.is_cut_off(connection) {
            return true;
        }
        let Some(bursts) = self.faults.weather.bursts else { return false };
        let age = self.age();
        let dice = &mut self.dice;
        bursts.are_on(&mut self.burst, age, || dice.unit()) && self.dice.chance(bursts.share)
    }

    /// Whether the quotas admit one more message from a connection.
    fn admits_publish(&mut self, connection: u64) -> bool {
        self.admits_message(connection) && self.account.admit_publish(self.age())
    }

    fn admits_delivery(&mut self, connection: u64) -> bool {
        self.account.admit_delivery(self.age()) && self.admits_message(connection)
    }

    /// Whether a connection's own quota admits a message. A connection that is gone has no quota of its own.
    fn admits_message(&mut self, connection: u64) -> bool {
        let now = Instant::now().into_std();
        self.lines.get_mut(&connection).is_none_or(|line| line.usage.message(&self.rules, now))
    }

    fn latency(&mut self) -> Duration {
        let (least, most) = self.faults.latency;
        self.dice.duration(least, most)
    }

    fn deliver(&mut self, connection: u64, packet: Packet) {
        let is_taken = self.lines.get(&connection).is_some_and(|line| line.mailbox.try_send(packet).is_ok());
        if !is_taken {
            self.hang_up(connection);
        }
    }
}

/// The faults of requests, with dice seeded by the network's seed.
fn seeded(faults: &Faults, seed: u64) -> super::super::scenario::Faults {
    super::super::scenario::Faults { seed, ..faults.requests.clone() }
}

/// The network's randomness.
struct Dice(Random);

impl Dice {
    /// A uniform number from 0 to below 1.
    fn unit(&mut self) -> f64 {
        self.0.unit()
    }

    fn chance(&mut self, odds: f64) -> bool {
        self.unit() < odds
    }

    /// A uniform number from 0 to below `limit`.
    fn below(&mut self, limit: u64) -> u64 {
        (self.unit() * limit as f64) as u64
    }

    /// A uniform duration between the two.
    fn duration(&mut self, least: Duration, most: Duration) -> Duration {
        least + most.saturating_sub(least).mul_f64(self.unit())
    }
}
