//! A worker: one connection, one device at a time.
//!
//! Owns the connection's life (dial, keep alive, drop, redial) and single attempts under the limits. What a device
//! needs in which order is [`super::flow`]'s.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::time::Instant;

use super::queue::Queue;
use super::recorder::{RecorderGone, RecorderHandle};
use super::{CommitMode, KeyPolicy, Shared};
use crate::event::{Change, Note, Operation, Timing};
use crate::failure::{Cause, Failure, Remedy, Stage, Tried, remedy};
use crate::ledger::{OpenDevice, Receipt};
use crate::provisioning::{self, Lane};
use crate::transport::{Connection, Connector, Reply, Verdict};

pub(super) struct Worker<C: Connector> {
    pub(super) shared: Arc<Shared<C>>,
    queue: Queue,
    connection: Option<C::Connection>,
    failed_dials: u32,
    jitter: SmallRng,
}

/// A connection, alive, that may carry a request now.
pub(super) struct Permitted<C> {
    connection: C,
    /// How long it took to get.
    wait: Duration,
}

/// What came of one attempt.
pub(super) struct Attempt<T> {
    pub(super) timing: Timing,
    pub(super) answer: Result<T, Failure>,
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
        Self { shared, queue, connection: None, failed_dials: 0, jitter }
    }

    /// Works until no device is left or the run stops; an error stops the run.
    pub(super) async fn run(mut self) -> Result<(), Failure> {
        let ended = loop {
            let Some(device) = self.next_device().await else { break Ok(()) };
            match self.provision(device).await {
                Ok(()) => {}
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
        lane: Lane,
        payload: Bytes,
        parse: fn(&[u8]) -> Result<T, Cause>,
    ) -> Attempt<T> {
        let Permitted { connection, wait } = permitted;
        let gauges = self.shared.gauges.clone();
        let in_flight = gauges.exchange();
        let (service, redelivered, answer) =
            match connection.exchange(lane, payload, self.shared.plan.exchange_timeout).await {
                Ok((reply, connection)) => {
                    let (service, redelivered) = (reply.service, reply.redelivered);
                    (service, redelivered, self.judge(lane, reply, connection, parse).await)
                }
                Err(lost) => {
                    self.connection_gone();
                    (lost.service, lost.redelivered, Err(lost.failure))
                }
            };
        drop(in_flight);
        if redelivered > 0 {
            self.shared.recorder.note(Note::Redelivered { count: redelivered }).await;
        }
        Attempt { timing: Timing { wait, service }, answer }
    }

    /// Counts an attempt, once.
    pub(super) async fn conclude(&mut self, lane: Lane, timing: Timing, outcome: Result<(), Failure>) {
        self.shared.recorder.note(Note::Exchanged { operation: operation(lane), timing, outcome }).await;
    }

    /// What a reply means, and whether the connection may carry another exchange after it.
    async fn judge<T>(
        &mut self,
        lane: Lane,
        reply: Reply,
        connection: C::Connection,
        parse: fn(&[u8]) -> Result<T, Cause>,
    ) -> Result<T, Failure> {
        let answer = match reply.verdict {
            Verdict::Accepted => parse(&reply.payload),
            Verdict::Rejected => Err(provisioning::parse_rejected(&reply.payload)),
        };
        match &answer {
            Ok(_) => self.connection = Some(connection),
            // Certificates are interchangeable, or show whose key they are for, so a throttled create leaves no doubt. Any
            // other rejection names no device: delivered again, it would be credited to the next one. Such a connection
            // is not used again.
            Err(Cause::Rejected { status_code: 429 | 500.., .. }) if lane != Lane::Register => {
                self.connection = Some(connection);
            }
            Err(_) => {
                self.connection_gone();
                connection.close().await;
            }
        }
        answer.map_err(|cause| Failure::new(stage(lane), cause))
    }

    /// Takes the connection out, opened if need be, with a permit to create a certificate in hand.
    pub(super) async fn permit_creation(&mut self) -> Result<Permitted<C::Connection>, Halt> {
        let due = Instant::now();
        let shared = self.shared.clone();
        loop {
            self.connect().await?;
            self.unless_draining(shared.limits.create.permit()).await?;
            // The connection may have ended while it waited; the permit is then too old by a dial, and let go.
            if let Some(connection) = self.connection.take() {
                return Ok(Permitted { connection, wait: due.elapsed() });
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
        let due = Instant::now();
        let stale_at = due + fresh_for;
        let shared = self.shared.clone();
        while Instant::now() < stale_at {
            self.connect().await?;
            // A certificate in hand is registered even while the run drains: it would go stale otherwise.
            let permit = tokio::time::timeout_at(stale_at, shared.limits.register.permit());
            if self.while_idle(unless_gone(&shared.recorder, permit)).await?.is_err() {
                break;
            }
            match self.connection.take() {
                Some(connection) if Instant::now() < stale_at => {
                    return Ok(Some(Permitted { connection, wait: due.elapsed() }));
                }
                // As above, or the dial took the rest of the token's life.
                connection => self.connection = connection,
            }
        }
        Ok(None)
    }

    /// Opens the connection if there is none, as often as the policy allows.
    async fn connect(&mut self) -> Result<(), Halt> {
        while self.connection.is_none() {
            let due = Instant::now();
            let shared = self.shared.clone();
            tokio::select! {
                biased;
                () = shared.stop.drain.cancelled() => return Err(Halt::Drain),
                () = shared.limits.connect.permit() => {}
            }
            let Err(failure) = self.dial(due).await else { return Ok(()) };
            self.failed_dials += 1;
            match self.remedy(&failure, self.failed_dials) {
                Remedy::Redial { after } | Remedy::Again { after } => self.pause(after).await?,
                Remedy::Slower { after } => {
                    shared.limits.connect.slow_down();
                    self.pause(after).await?;
                }
                Remedy::StopRun | Remedy::GiveUp | Remedy::Reissue => return Err(Halt::Stop(failure)),
            }
        }
        Ok(())
    }

    async fn dial(&mut self, due: Instant) -> Result<(), Failure> {
        let started = Instant::now();
        let dial = self.shared.connector.dial().await;
        let timing = Timing { wait: started - due, service: started.elapsed() };
        let outcome = dial.outcome.as_ref().map(|_| ()).map_err(Failure::clone);
        self.shared.recorder.note(Note::Dialled { timing, phases: dial.phases, outcome }).await;
        self.connection = Some(dial.outcome?);
        self.failed_dials = 0;
        self.shared.health.has_connected.store(true, Ordering::Relaxed);
        self.shared.gauges.connection_opened();
        Ok(())
    }

    /// Waits before a retry. A run that drains does not wait for retries.
    pub(super) async fn pause(&mut self, time: Duration) -> Result<(), Halt> {
        self.unless_draining(tokio::time::sleep(time)).await
    }

    /// Waits for `work` on an idle connection; a run that drains does not.
    async fn unless_draining<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Halt> {
        let drain = self.shared.stop.drain.clone();
        self.while_idle(async move {
            tokio::select! {
                biased;
                () = drain.cancelled() => Err(Halt::Drain),
                value = work => Ok(value),
            }
        })
        .await
    }

    /// Waits for `work` while the connection, if there is one, is kept alive. If it ends, `work` goes on without it.
    pub(super) async fn while_idle<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        let Some(connection) = &mut self.connection else { return work.await };
        let failure = tokio::select! {
            biased;
            value = &mut work => return value,
            failure = connection.idle() => failure,
        };
        self.drop_connection(failure).await;
        work.await
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
        let recorder = self.shared.recorder.clone();
        Ok(self.while_idle(recorder.commit(change)).await?)
    }

    pub(super) fn remedy(&mut self, failure: &Failure, attempts: u32) -> Remedy {
        let has_connected = self.shared.health.has_connected.load(Ordering::Relaxed);
        let tried = Tried { attempts, has_connected, jitter: self.jitter.random() };
        remedy(failure, tried, &self.shared.plan.retry)
    }

    /// Says goodbye, and is without a connection.
    pub(super) async fn disconnect(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.connection_gone();
            connection.close().await;
        }
    }

    async fn drop_connection(&mut self, failure: Failure) {
        self.connection = None;
        self.connection_gone();
        self.shared.recorder.note(Note::ConnectionLost { failure }).await;
    }

    fn connection_gone(&mut self) {
        self.shared.gauges.connection_gone();
    }
}

/// Waits for `work` while there is a recorder to take what comes of it.
async fn unless_gone<T>(recorder: &RecorderHandle, work: impl Future<Output = T>) -> Result<T, Halt> {
    tokio::select! {
        biased;
        gone = recorder.gone() => Err(gone.into()),
        value = work => Ok(value),
    }
}

pub(super) fn stage(lane: Lane) -> Stage {
    match lane {
        Lane::Create => Stage::CreateCertificate,
        Lane::CreateFromCsr => Stage::CertificateFromCsr,
        Lane::Register => Stage::RegisterThing,
    }
}

fn operation(lane: Lane) -> Operation {
    match lane {
        Lane::Create | Lane::CreateFromCsr => Operation::CreateCertificate,
        Lane::Register => Operation::RegisterThing,
    }
}
