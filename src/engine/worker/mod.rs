//! A worker: one connection, one device at a time.
//!
//! Owns the connection's life (dial, keep alive, renew, drop, redial) and single attempts under the limits. What a device
//! needs in which order is [`super::flow`]'s; how often to redial is [`redial`]'s.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::time::Instant;

use super::held::{Ended, Held, Life, beside};
use super::queue::Queue;
use super::rate::{Permit, Sign};
use super::recorder::RecorderGone;
use super::{CommitMode, KeyPolicy, Shared};
use crate::call::Call;
use crate::event::{Change, Counter, Note, Operation, Timing};
use crate::failure::{Cause, Failure, Remedy, Stage, Tried, redial, remedy};
use crate::ledger::{OpenDevice, Receipt};
use crate::provisioning::{self, Request};
use crate::transport::{Connection, Connector, Reply, Verdict};

pub(super) struct Worker<C: Connector> {
    pub(super) shared: Arc<Shared<C>>,
    queue: Queue,
    held: Option<Held<C::Connection>>,
    /// How long the device at hand has waited at limits.
    waited: Duration,
    /// Before this the connection may not carry another request; none before its first.
    rested_at: Option<Instant>,
    /// In a row: dials that failed, and connections that ended before they had proven themselves.
    setbacks: u32,
    /// The last of them, as long as it is not waited out.
    setback: Option<Setback>,
    jitter: SmallRng,
    number: u64,
}

/// A dial that failed, or a connection that ended.
struct Setback {
    at: Instant,
    failure: Failure,
}

/// A connection, alive, that may carry a request now.
pub(super) struct Permitted<C> {
    held: Held<C>,
    permit: Permit,
    /// How long it took to get.
    wait: Duration,
}

/// What came of one attempt.
pub(super) struct Attempt<T> {
    pub(super) timing: Timing,
    pub(super) answer: Result<T, Failure>,
}

/// What came of asking for a permit.
enum Asked {
    /// It may be used now.
    Granted(Permit),
    /// It was given while there was no connection to use it on. It is older than a permit may get, and let go.
    GrantedTooEarly,
    /// There is no use for one any more.
    TooLate,
}

/// Why a worker leaves a device before its end.
#[derive(Debug)]
pub(super) enum Halt {
    /// The run drains.
    Drain,
    /// The run must stop, for this.
    Stop(Failure),
    /// The recorder is gone; it has said why itself.
    Recorder,
}

impl From<RecorderGone> for Halt {
    fn from(RecorderGone: RecorderGone) -> Self {
        Halt::Recorder
    }
}

impl<C: Connector> Worker<C> {
    pub(super) fn new(shared: Arc<Shared<C>>, queue: Queue, number: u64) -> Self {
        let jitter = SmallRng::seed_from_u64(shared.plan.seed ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        Self {
            shared,
            queue,
            held: None,
            waited: Duration::ZERO,
            rested_at: None,
            setbacks: 0,
            setback: None,
            jitter,
            number,
        }
    }

    /// Works until no device is left or the run stops; an error stops the run.
    pub(super) async fn run(mut self) -> Result<(), Failure> {
        let crew = self.shared.crew.clone();
        let ended = loop {
            if crew.dismisses() {
                break Ok(());
            }
            let Some(device) = self.next_device().await else {
                crew.exhausted();
                break Ok(());
            };
            let began = Instant::now();
            self.waited = Duration::ZERO;
            match self.provision(device).await {
                Ok(()) => crew.done(began.elapsed().saturating_sub(self.waited)),
                Err(Halt::Stop(failure)) => break Err(failure),
                Err(Halt::Drain | Halt::Recorder) => break Ok(()),
            }
        };
        self.disconnect().await;
        ended
    }

    async fn next_device(&mut self) -> Option<OpenDevice> {
        let queue = self.queue.clone();
        self.unless_draining(queue.next()).await.unwrap_or_default()
    }

    /// One attempt of a request, on a connection that has its permit. The connection survives only an answer that leaves
    /// no doubt what comes next on it. The caller ends the attempt with [`Worker::conclude`], once it knows what the
    /// answer is worth.
    pub(super) async fn attempt<T>(
        &mut self,
        permitted: Permitted<C::Connection>,
        request: &Request<T>,
    ) -> Attempt<T> {
        let Permitted { held: Held { connection, life }, permit, wait } = permitted;
        let gauges = self.shared.gauges.clone();
        // The request and its reply.
        let rest = self.shared.plan.publishes_per_connection.map(|rate| 2 * rate.period());
        self.rested_at = rest.map(|rest| Instant::now() + rest);
        let in_flight = gauges.exchange();
        let patience = permit.patience(self.shared.plan.exchange_timeout);
        let exchange = connection.exchange(request.call, request.payload.clone(), patience);
        let exchanged = exchange.await;
        let (service, redelivered, answer) = match exchanged {
            Ok((reply, connection)) => {
                let (service, redelivered) = (reply.service, reply.redelivered);
                self.shared.health.served();
                let held = Held { connection, life: life.answered() };
                (service, redelivered, self.judge(request, reply, held, permit).await)
            }
            Err(lost) => {
                self.connection_gone();
                self.set_back(&life, lost.failure.clone());
                let answer = Err(lost.failure);
                permit.heard(Sign::of(&answer));
                (lost.service, lost.redelivered, answer)
            }
        };
        drop(in_flight);
        self.shared.crew.was_busy(service);
        if redelivered > 0 {
            self.shared.recorder.note(Note::Counted(Counter::Redelivered, redelivered.into())).await;
        }
        Attempt { timing: Timing { wait, service }, answer }
    }

    /// Counts an attempt, once.
    pub(super) async fn conclude(&mut self, call: Call, timing: Timing, outcome: Result<(), Failure>) {
        self.shared.recorder.note(Note::Exchanged { operation: Operation::of(call), timing, outcome }).await;
    }

    /// What a reply means, and whether the connection may carry another exchange after it.
    async fn judge<T>(
        &mut self,
        request: &Request<T>,
        reply: Reply,
        held: Held<C::Connection>,
        permit: Permit,
    ) -> Result<T, Failure> {
        let answer = match reply.verdict {
            Verdict::Accepted => (request.parse)(&reply.payload),
            Verdict::Rejected => Err(provisioning::parse_rejected(&reply.payload)),
        };
        let answer = answer.map_err(|cause| Failure::new(Stage::Call(request.call), cause));
        permit.heard(Sign::of(&answer));
        match answer.as_ref().map_err(|failure| &failure.cause) {
            Ok(_) => self.held = Some(held),
            // Certificates are interchangeable, or show whose key they are for, so a throttled create leaves no doubt. Any
            // other rejection names no device: delivered again, it would be credited to the next one. Such a connection
            // is not used again.
            Err(Cause::Rejected { status_code: 429 | 500.., .. }) if request.call != Call::RegisterThing => {
                self.held = Some(held);
            }
            Err(_) => {
                self.connection_gone();
                held.connection.close().await;
            }
        }
        answer
    }

    /// Takes the connection out, opened if need be, with a permit to create a certificate in hand.
    pub(super) async fn permit_creation(&mut self) -> Result<Permitted<C::Connection>, Halt> {
        let shared = self.shared.clone();
        let shared = &shared;
        let ask = || async move {
            let permit = shared.limits.create.permit();
            unless(shared.stop.drain.cancelled(), permit).await.map(Asked::Granted).ok_or(Halt::Drain)
        };
        loop {
            // Nothing makes it too late to ask for this.
            if let Some(permitted) = self.permitted(ask).await? {
                return Ok(permitted);
            }
        }
    }

    /// Takes the connection out, opened if need be, with a permit to register a certificate in hand; `None` if that took
    /// longer than the certificate's token is fresh. Who gives up spends no permit: otherwise, where more devices wait
    /// than the limit lets pass in a token's life, all permits would go to tokens that are stale.
    pub(super) async fn permit_registration(
        &mut self,
        fresh_for: Duration,
    ) -> Result<Option<Permitted<C::Connection>>, Halt> {
        if fresh_for.is_zero() {
            return Ok(None);
        }
        let stale_at = Instant::now() + fresh_for;
        let shared = self.shared.clone();
        let shared = &shared;
        let ask = || async move {
            if Instant::now() >= stale_at {
                return Ok(Asked::TooLate);
            }
            let permit = tokio::time::timeout_at(stale_at, shared.limits.register.permit());
            // A certificate in hand is registered even while the run drains: it would go stale otherwise.
            let permit = unless(shared.recorder.gone(), permit).await.ok_or(Halt::Recorder)?;
            Ok(permit.map_or(Asked::TooLate, Asked::Granted))
        };
        let Some(permitted) = self.permitted(ask).await? else { return Ok(None) };
        if Instant::now() >= stale_at {
            self.held = Some(permitted.held);
            return Ok(None);
        }
        Ok(Some(permitted))
    }

    /// Takes the connection out, opened if need be, once `ask` has given a permit; `None` if it was too late for one.
    async fn permitted<F>(&mut self, ask: impl Fn() -> F) -> Result<Option<Permitted<C::Connection>>, Halt>
    where
        F: Future<Output = Result<Asked, Halt>>,
    {
        let due = Instant::now();
        loop {
            self.connect().await?;
            if let Some(rested_at) = self.rested_at {
                self.while_idle(tokio::time::sleep_until(rested_at)).await;
            }
            let permit = match self.queue_up(pin!(ask())).await? {
                Asked::TooLate => return Ok(None),
                Asked::Granted(permit) => permit,
                Asked::GrantedTooEarly => continue,
            };
            // It may have ended at the same instant.
            if let Some(held) = self.held.take() {
                let wait = due.elapsed();
                self.waited += wait;
                return Ok(Some(Permitted { held, permit, wait }));
            }
        }
    }

    /// Waits for a permit, and replaces the connection if it ends meanwhile, without leaving the queue: where the service
    /// keeps connections for a shorter time than the queue is long, nobody would ever get to its head.
    async fn queue_up(
        &mut self,
        mut permit: Pin<&mut impl Future<Output = Result<Asked, Halt>>>,
    ) -> Result<Asked, Halt> {
        loop {
            if let Some(asked) = self.until_gone(permit.as_mut()).await {
                return asked;
            }
            let (connected, asked) = beside(self.connect(), permit.as_mut()).await;
            connected?;
            match asked {
                None => {}
                Some(Ok(Asked::Granted(_))) => return Ok(Asked::GrantedTooEarly),
                Some(asked) => return asked,
            }
        }
    }

    /// Sees to it that there is a connection, and a young one. Gives up when the policy does.
    pub(super) async fn connect(&mut self) -> Result<(), Halt> {
        if self.held.as_ref().is_some_and(|held| held.life.is_due()) {
            self.renew().await;
        }
        while self.held.is_none() {
            self.wait_out_setback().await?;
            let due = Instant::now();
            let shared = self.shared.clone();
            let permit = shared.limits.connect.permit();
            let permit = unless(shared.stop.drain.cancelled(), permit).await.ok_or(Halt::Drain)?;
            self.dial(due, permit).await;
        }
        Ok(())
    }

    /// Waits out the last setback, if there is one, as long as the policy says. What was waited since then counts.
    async fn wait_out_setback(&mut self) -> Result<(), Halt> {
        let Some(Setback { at, failure }) = self.setback.take() else { return Ok(()) };
        let tried = self.tried(self.setbacks);
        let after = match redial(&failure, tried, &self.shared.plan.retry) {
            Remedy::Redial { after } | Remedy::Again { after } | Remedy::Slower { after } => after,
            Remedy::StopRun | Remedy::GiveUp | Remedy::Reissue => return Err(Halt::Stop(failure)),
        };
        self.pause((at + after).saturating_duration_since(Instant::now())).await
    }

    async fn dial(&mut self, due: Instant, permit: Permit) {
        let started = Instant::now();
        let dial = self.shared.connector.dial().await;
        let timing = Timing { wait: started - due, service: started.elapsed() };
        permit.heard(Sign::of(&dial.outcome));
        self.shared.crew.was_busy(timing.service);
        let outcome = dial.outcome.as_ref().map(|_| ()).map_err(Failure::clone);
        self.shared.recorder.note(Note::Dialled { timing, phases: dial.phases, outcome }).await;
        match dial.outcome {
            Ok(connection) => self.hold(connection),
            Err(failure) => {
                self.setbacks = self.setbacks.saturating_add(1);
                self.setback = Some(Setback { at: Instant::now(), failure });
            }
        }
    }

    /// From here on the worker has this connection.
    pub(super) fn hold(&mut self, connection: C::Connection) {
        let life = Life::new(self.shared.plan.connection_lifetime, self.jitter.random());
        self.held = Some(Held { connection, life });
        self.shared.health.connected();
        self.shared.gauges.connection_opened();
    }

    /// Its number among the run's, from 0.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// A connection has ended. One that was good begins a new row.
    fn set_back(&mut self, life: &Life, failure: Failure) {
        if life.is_proven(self.shared.plan.retry.proven_after) {
            self.shared.health.served();
            self.setbacks = 0;
        }
        self.setbacks = self.setbacks.saturating_add(1);
        self.setback = Some(Setback { at: Instant::now(), failure });
    }

    /// Waits before a retry. A run that drains does not wait for retries.
    pub(super) async fn pause(&mut self, time: Duration) -> Result<(), Halt> {
        let began = Instant::now();
        let paused = self.unless_draining(tokio::time::sleep(time)).await;
        self.shared.crew.paused(began.elapsed());
        paused
    }

    /// Waits for `work` on an idle connection; a run that drains does not.
    async fn unless_draining<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Halt> {
        let drain = self.shared.stop.drain.clone();
        self.while_idle(unless(drain.cancelled(), work)).await.ok_or(Halt::Drain)
    }

    /// Waits for `work` while the connection, if there is one, is kept alive. If it ends, `work` goes on without it.
    pub(super) async fn while_idle<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        match self.until_gone(work.as_mut()).await {
            Some(value) => value,
            None => work.await,
        }
    }

    /// The same, but only for as long as there is a connection; `None` if there is none any more.
    pub(super) async fn until_gone<T>(&mut self, mut work: Pin<&mut impl Future<Output = T>>) -> Option<T> {
        let ended = tokio::select! {
            biased;
            value = &mut work => return Some(value),
            ended = self.held.as_mut()?.idle() => ended,
        };
        let part = async {
            match ended {
                Ended::Due => self.renew().await,
                Ended::Lost(failure) => self.lose(failure).await,
            }
        };
        beside(part, work).await.1
    }

    /// Does what takes a core for a while, off the threads that serve connections. A panic in `work` resumes here.
    pub(super) async fn compute<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&KeyPolicy) -> T + Send + 'static,
    ) -> T {
        let shared = self.shared.clone();
        if !matches!(shared.plan.commit_mode, CommitMode::Blocking) {
            return work(&shared.plan.keys);
        }
        let policy = shared.plan.keys.clone();
        let done = self.while_idle(async move {
            let _permit = shared.key_makers.acquire().await.expect("nothing closes the semaphore");
            tokio::task::spawn_blocking(move || work(&policy)).await
        });
        match done.await {
            Ok(value) => value,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    /// Makes a change durable.
    pub(super) async fn commit(&mut self, change: Change) -> Result<Receipt, Halt> {
        let (began, recorder) = (Instant::now(), self.shared.recorder.clone());
        let receipt = self.while_idle(recorder.commit(change)).await;
        self.shared.crew.was_busy(began.elapsed());
        Ok(receipt?)
    }

    pub(super) fn remedy(&mut self, failure: &Failure, attempts: u32) -> Remedy {
        let tried = self.tried(attempts);
        remedy(failure, tried, &self.shared.plan.retry)
    }

    fn tried(&mut self, attempts: u32) -> Tried {
        Tried { attempts, standing: self.shared.health.standing(), jitter: self.jitter.random() }
    }

    /// Says goodbye, and is without a connection.
    pub(super) async fn disconnect(&mut self) {
        if let Some(held) = self.held.take() {
            self.connection_gone();
            held.connection.close().await;
        }
    }

    /// The same, for the connection's age. The next one is dialled when it is needed.
    async fn renew(&mut self) {
        self.disconnect().await;
        self.shared.recorder.note(Note::Counted(Counter::ConnectionsRenewed, 1)).await;
    }

    async fn lose(&mut self, failure: Failure) {
        let Some(held) = self.held.take() else { return };
        self.connection_gone();
        self.set_back(&held.life, failure.clone());
        self.shared.recorder.note(Note::ConnectionLost { failure }).await;
    }

    fn connection_gone(&mut self) {
        self.shared.gauges.connection_gone();
    }
}

/// Waits for `work` until `stop`, which comes first if both are there.
async fn unless<T>(stop: impl Future, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        _ = stop => None,
        value = work => Some(value),
    }
}

#[cfg(test)]
mod tests;
