//! A line to the service: one connection after another, one exchange at a time.
//!
//! Owns a connection's life (dial, keep alive, renew, drop, redial) and the exchange of a request once its limit
//! admits it. [`super::journey`] decides what is requested in which order, and [`redial`] how often to redial.

mod life;

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::field::Empty;
use tracing::{Instrument, Span, debug, debug_span, instrument};

use self::life::{Ended, Held, Life, beside};
use super::audience::Gauges;
use super::context::{Halt, Limits};
use super::crew::Crew;
use super::health::Health;
use super::rate::{Limit, Permit, Sign};
use super::recorder::RecorderHandle;
use crate::call::Call;
use crate::event::{Counter, Note, Timing};
use crate::failure::{Cause, Failure, Remedy, RetryPolicy, Stage, Tried, redial, remedy};
use crate::provisioning::{self, Request};
use crate::rate::Rate;
use crate::transport::{Connection, Connector, Dial, Reply, Verdict};

/// What all lines of a run share.
pub(super) struct Trunk<C> {
    pub(super) connector: C,
    pub(super) settings: LineSettings,
    /// The limits. A line waits itself only at the one for dials; callers name the limit for an exchange.
    pub(super) limits: Arc<Limits>,
    pub(super) crew: Arc<Crew>,
    pub(super) recorder: RecorderHandle,
    pub(super) gauges: Arc<Gauges>,
    pub(super) health: Health,
    /// Cancelled when nothing new may begin.
    pub(super) drain: CancellationToken,
    /// The run's span in the log: the parent of all connections' spans, which outlive the devices that they were
    /// dialled for.
    pub(super) span: Span,
}

impl<C: Connector> Trunk<C> {
    /// Dials once for something that was due at `due`. The returned span is for [`Line::hold`].
    pub(super) async fn dial(&self, due: Instant) -> (Timing, Dial<C::Connection>, Span) {
        let span = debug_span!(parent: &self.span, "connection", client_id = Empty);
        let started = Instant::now();
        let dial = self.connector.dial().instrument(span.clone()).await;
        let timing = Timing { wait: started - due, service: started.elapsed() };
        let (wait_us, service_us) = timing.micros();
        match &dial.outcome {
            Ok(connection) => {
                let client_id = connection.client_id();
                span.record("client_id", client_id);
                debug!(client_id, wait_us, service_us, "connected");
            }
            Err(failure) => debug!(wait_us, service_us, %failure, "could not connect"),
        }
        (timing, dial, span)
    }
}

/// How connections are used.
pub(super) struct LineSettings {
    /// How long an exchange waits for its reply.
    pub(super) exchange_timeout: Duration,
    /// The rate of messages on one connection, requests and replies together; `None` is unlimited.
    pub(super) publishes_per_connection: Option<Rate>,
    /// How old a connection may get before it is replaced.
    pub(super) connection_lifetime: Duration,
    pub(super) retry: RetryPolicy,
    /// The seed of the jitter.
    pub(super) seed: u64,
}

/// One connection at a time, replaced as needed.
pub(super) struct Line<C: Connector> {
    trunk: Arc<Trunk<C>>,
    held: Option<Held<C::Connection>>,
    /// How long requests have waited at limits since [`Line::take_waited`] was last called.
    waited: Duration,
    /// When the connection may carry its next request; `None` before its first.
    rested_at: Option<Instant>,
    /// Failed dials, and connections that ended before they had proven themselves, in a row.
    setbacks: u32,
    /// The last setback, until its wait is over.
    setback: Option<Setback>,
    jitter: SmallRng,
}

/// A dial that failed, or a connection that ended.
struct Setback {
    at: Instant,
    failure: Failure,
}

/// A live connection that may carry a request now.
struct Permitted<C> {
    held: Held<C>,
    permit: Permit,
    /// How long it took to get.
    wait: Duration,
}

/// The result of one attempt.
pub(super) struct Attempt<T> {
    pub(super) timing: Timing,
    pub(super) answer: Result<T, Failure>,
}

/// The result of asking for a permit.
enum Asked {
    /// The permit may be used now.
    Granted(Permit),
    /// The permit came while there was no connection to use it on. It was passed on, or is too old.
    GrantedTooEarly,
    /// It is too late to use a permit.
    TooLate,
}

/// What to do after a failed attempt, once the wait that the remedy asks for is over.
pub(super) enum Next {
    TryAgain,
    GiveUp,
}

impl<C: Connector> Line<C> {
    /// Creates the run's line with this number.
    pub(super) fn new(trunk: Arc<Trunk<C>>, number: u64) -> Self {
        let jitter =
            SmallRng::seed_from_u64(trunk.settings.seed ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        Self {
            trunk,
            held: None,
            waited: Duration::ZERO,
            rested_at: None,
            setbacks: 0,
            setback: None,
            jitter,
        }
    }

    /// Sends a request once `limit` admits it, and waits for its answer. Opens a connection if needed. Nothing is
    /// sent if the run drains first.
    pub(super) async fn exchange<T>(
        &mut self,
        request: &Request<T>,
        limit: &Limit,
    ) -> Result<Attempt<T>, Halt> {
        let drain = self.trunk.drain.clone();
        let drain = &drain;
        let ask = || async move {
            let permit = unless(drain.cancelled(), limit.permit()).await;
            permit.map(Asked::Granted).ok_or(Halt::Drain)
        };
        loop {
            // It is never too late to ask for this permit.
            if let Some(permitted) = self.permitted(ask).await? {
                return Ok(self.attempt(permitted, request).await);
            }
        }
    }

    /// Sends a request and waits for its answer; `None` if `limit` does not admit it within `within`. Giving up
    /// spends no permit. Otherwise, with more devices waiting than the limit admits in a token's lifetime, every
    /// permit would go to a stale token. Sent even while the run drains: it is for a certificate in hand, which would
    /// go stale.
    pub(super) async fn exchange_within<T>(
        &mut self,
        request: &Request<T>,
        limit: &Limit,
        within: Duration,
    ) -> Result<Option<Attempt<T>>, Halt> {
        if within.is_zero() {
            return Ok(None);
        }
        let stale_at = Instant::now() + within;
        let recorder = self.trunk.recorder.clone();
        let recorder = &recorder;
        let ask = || async move {
            if Instant::now() >= stale_at {
                return Ok(Asked::TooLate);
            }
            let permit = tokio::time::timeout_at(stale_at, limit.permit());
            let permit = unless(recorder.gone(), permit).await.ok_or(Halt::Recorder)?;
            Ok(permit.map_or(Asked::TooLate, Asked::Granted))
        };
        let Some(permitted) = self.permitted(ask).await? else { return Ok(None) };
        if Instant::now() >= stale_at {
            self.held = Some(permitted.held);
            return Ok(None);
        }
        Ok(Some(self.attempt(permitted, request).await))
    }

    /// Makes one attempt of a request on a connection that has its permit. The connection survives only an answer
    /// that leaves no doubt about what comes next on it.
    #[instrument(
        name = "call",
        level = "debug",
        skip_all,
        fields(call = request.call.name(), client_id = permitted.held.connection.client_id())
    )]
    async fn attempt<T>(&mut self, permitted: Permitted<C::Connection>, request: &Request<T>) -> Attempt<T> {
        let Permitted { held: Held { connection, span, life }, permit, wait } = permitted;
        let gauges = self.trunk.gauges.clone();
        // The request and its reply.
        let rest = self.trunk.settings.publishes_per_connection.map(|rate| 2 * rate.period());
        self.rested_at = rest.map(|rest| Instant::now() + rest);
        let in_flight = gauges.exchange();
        let patience = permit.patience(self.trunk.settings.exchange_timeout);
        let exchange = connection.exchange(request.call, request.payload.clone(), patience);
        let exchanged = exchange.await;
        let (service, redelivered, answer) = match exchanged {
            Ok((reply, connection)) => {
                let (service, redelivered) = (reply.service, reply.redelivered);
                self.trunk.health.served();
                let held = Held { connection, span, life: life.answered() };
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
        self.trunk.crew.was_busy(service);
        if redelivered > 0 {
            self.trunk.recorder.note(Note::Counted(Counter::Redelivered, redelivered.into())).await;
        }
        let timing = Timing { wait, service };
        let (wait_us, service_us) = timing.micros();
        match &answer {
            Ok(_) => debug!(wait_us, service_us, redelivered, "accepted"),
            Err(failure) => debug!(wait_us, service_us, redelivered, %failure, "failed"),
        }
        Attempt { timing, answer }
    }

    /// What a reply means. Keeps the connection only if it may carry another exchange.
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

    /// Takes the connection out once `ask` has granted a permit, opening one if needed; `None` if it is too late.
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
            // The connection may have ended at the same instant.
            if let Some(held) = self.held.take() {
                let wait = due.elapsed();
                self.waited += wait;
                return Ok(Some(Permitted { held, permit, wait }));
            }
        }
    }

    /// Waits for a permit. Replaces the connection if it ends meanwhile, without leaving the queue: if the service
    /// closes connections sooner than the queue moves, no request would ever get to its head.
    async fn queue_up(
        &mut self,
        mut permit: Pin<&mut impl Future<Output = Result<Asked, Halt>>>,
    ) -> Result<Asked, Halt> {
        loop {
            if let Some(asked) = self.until_gone(permit.as_mut()).await {
                return asked;
            }
            let mut connecting = pin!(self.connect());
            let asked = tokio::select! {
                biased;
                connected = &mut connecting => {
                    connected?;
                    continue;
                }
                asked = permit.as_mut() => asked,
            };
            // Others may be connected, and a dial may take longer than a permit is good for.
            let asked = asked.map(|asked| match asked {
                Asked::Granted(permit) => permit.pass_on().map_or(Asked::GrantedTooEarly, Asked::Granted),
                asked => asked,
            });
            connecting.await?;
            return match asked {
                Ok(Asked::Granted(permit)) if !permit.is_good() => Ok(Asked::GrantedTooEarly),
                asked => asked,
            };
        }
    }

    /// Ensures that there is a connection that is not due for renewal. Gives up when the retry policy does.
    pub(super) async fn connect(&mut self) -> Result<(), Halt> {
        if self.held.as_ref().is_some_and(|held| held.life.is_due()) {
            self.renew().await;
        }
        while self.held.is_none() {
            self.wait_out_setback().await?;
            let due = Instant::now();
            let trunk = self.trunk.clone();
            let permit = trunk.limits.connect.permit();
            let permit = unless(trunk.drain.cancelled(), permit).await.ok_or(Halt::Drain)?;
            self.dial(due, permit).await;
        }
        Ok(())
    }

    /// Waits out the last setback, if any, as long as the policy says. Time since the setback counts.
    async fn wait_out_setback(&mut self) -> Result<(), Halt> {
        let Some(Setback { at, failure }) = self.setback.take() else { return Ok(()) };
        let tried = self.tried(self.setbacks);
        let after = match redial(&failure, tried, &self.trunk.settings.retry) {
            Remedy::Redial { after } | Remedy::Again { after } | Remedy::Slower { after } => after,
            Remedy::StopRun | Remedy::GiveUp | Remedy::Reissue => return Err(Halt::Stop(failure)),
        };
        self.pause((at + after).saturating_duration_since(Instant::now())).await
    }

    async fn dial(&mut self, due: Instant, permit: Permit) {
        let (timing, dial, span) = self.trunk.dial(due).await;
        permit.heard(Sign::of(&dial.outcome));
        self.trunk.crew.was_busy(timing.service);
        let outcome = dial.outcome.as_ref().map(|_| ()).map_err(Failure::clone);
        self.trunk.recorder.note(Note::Dialled { timing, phases: dial.phases, outcome }).await;
        match dial.outcome {
            Ok(connection) => self.hold(connection, span),
            Err(failure) => {
                self.setbacks = self.setbacks.saturating_add(1);
                self.setback = Some(Setback { at: Instant::now(), failure });
            }
        }
    }

    /// Makes `connection` the line's connection, with its span.
    pub(super) fn hold(&mut self, connection: C::Connection, span: Span) {
        let life = Life::new(self.trunk.settings.connection_lifetime, self.jitter.random());
        self.held = Some(Held { connection, span, life });
        self.trunk.health.connected();
        self.trunk.gauges.connection_opened();
    }

    /// Notes that a connection has ended. A proven connection resets the count of setbacks.
    fn set_back(&mut self, life: &Life, failure: Failure) {
        if life.is_proven(self.trunk.settings.retry.proven_after) {
            self.trunk.health.served();
            self.setbacks = 0;
        }
        self.setbacks = self.setbacks.saturating_add(1);
        self.setback = Some(Setback { at: Instant::now(), failure });
    }

    /// Waits before a retry. A draining run does not wait.
    pub(super) async fn pause(&mut self, time: Duration) -> Result<(), Halt> {
        let began = Instant::now();
        let paused = self.unless_draining(tokio::time::sleep(time)).await;
        self.trunk.crew.paused(began.elapsed());
        paused
    }

    /// Waits for `work` while keeping the connection alive. A draining run does not wait.
    pub(super) async fn unless_draining<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Halt> {
        let drain = self.trunk.drain.clone();
        self.while_idle(unless(drain.cancelled(), work)).await.ok_or(Halt::Drain)
    }

    /// Waits for `work` while keeping the connection, if any, alive. If the connection ends, `work` goes on without
    /// it.
    pub(super) async fn while_idle<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        match self.until_gone(work.as_mut()).await {
            Some(value) => value,
            None => work.await,
        }
    }

    /// Waits for `work` while keeping the connection alive; `None` once there is no connection.
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

    /// Asks the retry policy what to do about a failed attempt, and does the waiting that it asks for.
    pub(super) async fn recover(&mut self, failure: &Failure, attempts: u32) -> Result<Next, Halt> {
        let tried = self.tried(attempts);
        match remedy(failure, tried, &self.trunk.settings.retry) {
            Remedy::Again { after } | Remedy::Redial { after } | Remedy::Slower { after } => {
                debug!(attempts, ?after, "trying again");
                self.pause(after).await?;
            }
            Remedy::GiveUp | Remedy::Reissue => return Ok(Next::GiveUp),
            Remedy::StopRun => return Err(Halt::Stop(failure.clone())),
        }
        Ok(Next::TryAgain)
    }

    /// The failure for a reply that cannot be this device's. Drops the connection, which must not carry another
    /// exchange.
    pub(super) async fn anomaly(&mut self, call: Call, detail: String) -> Failure {
        self.disconnect().await;
        Failure::new(Stage::Call(call), Cause::Anomaly { detail })
    }

    /// How long requests have waited at limits since this was last called.
    pub(super) fn take_waited(&mut self) -> Duration {
        std::mem::take(&mut self.waited)
    }

    fn tried(&mut self, attempts: u32) -> Tried {
        Tried { attempts, standing: self.trunk.health.standing(), jitter: self.jitter.random() }
    }

    /// Closes the connection politely, if there is one.
    pub(super) async fn disconnect(&mut self) {
        if let Some(held) = self.held.take() {
            self.connection_gone();
            held.connection.close().await;
        }
    }

    /// Has the connection, if any, carry no further request.
    pub(super) fn retire(&mut self) {
        if let Some(held) = &mut self.held {
            held.life.end();
        }
    }

    /// Closes a connection whose life has ended. The next is dialled when it is needed.
    async fn renew(&mut self) {
        if let Some(held) = &self.held {
            debug!(parent: &held.span, "renewed");
        }
        self.disconnect().await;
        self.trunk.recorder.note(Note::Counted(Counter::ConnectionsRenewed, 1)).await;
    }

    async fn lose(&mut self, failure: Failure) {
        let Some(held) = self.held.take() else { return };
        debug!(parent: &held.span, %failure, "lost");
        self.connection_gone();
        self.set_back(&held.life, failure.clone());
        self.trunk.recorder.note(Note::ConnectionLost { failure }).await;
    }

    fn connection_gone(&mut self) {
        self.trunk.gauges.connection_gone();
    }
}

/// Waits for `work`; `None` if `stop` ends first or at the same time.
async fn unless<T>(stop: impl Future, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        _ = stop => None,
        value = work => Some(value),
    }
}
