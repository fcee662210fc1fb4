//! A worker of a load test: one connection, one arrival at a time.
//!
//! Owns what an arrival does in each scenario, once, and when its parts were due. A failure is a result: it is
//! counted, and the next arrival starts when it is due.

use std::pin::pin;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::instrument;

use super::desk::{Due, Hand, Turn};
use super::devices::Devices;
use super::{LEAST_MESSAGE, Scenario, Scene};
use crate::call::Call;
use crate::engine::context::{Context, Halt};
use crate::engine::end::End;
use crate::engine::journey::step::{self, Holder, Issued, Origin, Outcome};
use crate::engine::line::Line;
use crate::event::{Change, DeviceId, Note, Operation, Registration, Timing};
use crate::failure::{Cause, Failure, Stage};
use crate::identity::Identity;
use crate::ledger::{OpenDevice, Work};
use crate::metrics::Slow;
use crate::transport::Connector;

pub(super) struct LoadWorker<C: Connector> {
    run: Arc<Context<C>>,
    line: Line<C>,
    books: Books<C>,
    scenario: Scenario,
    devices: Devices,
    hand: Hand,
    number: u64,
}

/// Where arrivals are counted.
struct Books<C> {
    run: Arc<Context<C>>,
    scene: Arc<Scene>,
}

impl<C: Connector> LoadWorker<C> {
    /// The run's worker with this number, from 0.
    pub(super) fn new(
        run: Arc<Context<C>>,
        scene: Arc<Scene>,
        scenario: Scenario,
        devices: Devices,
        number: u64,
    ) -> Self {
        let line = Line::new(run.trunk.clone(), number);
        let hand = Hand::new(scene.desk.clone());
        let books = Books { run: run.clone(), scene };
        Self { run, line, books, scenario, devices, hand, number }
    }

    /// Takes arrivals until there are no more.
    pub(super) async fn run(mut self) -> Result<(), End> {
        let ended = match self.scenario {
            Scenario::Connect { hold } => self.take_turns_at_dialling(hold).await,
            Scenario::Create | Scenario::Register | Scenario::Provision | Scenario::Publish { .. } => {
                self.take_turns().await
            }
        };
        self.line.disconnect().await;
        ended
    }

    /// Takes arrivals on a connection that is held open.
    async fn take_turns(&mut self) -> Result<(), End> {
        loop {
            if let Err(halt) = self.line.connect().await {
                return ended_by(halt);
            }
            self.hand.ready();
            let mut seat = self.books.scene.desk.sit();
            // If the connection is lost, the worker leaves its seat, and any arrival in it goes to another worker.
            let Some(turn) = self.line.until_gone(pin!(seat.next())).await else { continue };
            let Some(turn) = turn else { return Ok(()) };
            drop(seat);
            if let Scenario::Publish { size } = self.scenario {
                if let Err(halt) = self.publish(turn, size).await {
                    return ended_by(halt);
                }
                continue;
            }
            // Keep the connection alive while waiting: keys may be made more slowly than they are used.
            let Some(device) = self.line.while_idle(self.devices.clone().next()).await else {
                return Err(End::OutOfDevices);
            };
            self.books.note(turn.due, Note::Started).await;
            let served = match self.scenario {
                Scenario::Create => self.create_only(turn, device).await,
                Scenario::Register => self.register_only(turn, device).await,
                _ => self.provision(turn, device).await,
            };
            if let Err(halt) = served {
                return ended_by(halt);
            }
        }
    }

    /// Takes arrivals that are dials themselves.
    async fn take_turns_at_dialling(&mut self, hold: Duration) -> Result<(), End> {
        if self.number == 0 {
            // One dial that is not an arrival: a wrong setting should end the run, not fill it with failures.
            if let Err(halt) = self.line.connect().await {
                return ended_by(halt);
            }
            self.line.disconnect().await;
        }
        loop {
            self.hand.ready();
            let mut seat = self.books.scene.desk.sit();
            let Some(turn) = seat.next().await else { return Ok(()) };
            drop(seat);
            self.books.note(turn.due, Note::Started).await;
            let due = turn.due;
            let (timing, dial, span) = self.run.trunk.dial(due.at).await;
            let outcome = dial.outcome.as_ref().map(|_| ()).map_err(Failure::clone);
            self.books.remember(due, Operation::Connect, timing, outcome.is_ok(), None);
            self.books.note(due, Note::Dialled { timing, phases: dial.phases, outcome }).await;
            let Ok(connection) = dial.outcome else { continue };
            self.line.hold(connection, span);
            // The arrival has ended; the connection may be held beyond the end of the profile.
            drop(turn);
            let cut = self.books.scene.cut.clone();
            let held = tokio::time::timeout(hold, cut.cancelled());
            self.line.until_gone(pin!(held)).await;
            self.line.disconnect().await;
        }
    }

    /// Takes an arrival of [`Scenario::Publish`].
    async fn publish(&mut self, turn: Turn, size: usize) -> Result<(), Halt> {
        let due = turn.due;
        self.books.note(due, Note::Started).await;
        // The number comes first, so that each message differs from those before it.
        let mut message = due.number.to_be_bytes().to_vec();
        message.resize(size.max(LEAST_MESSAGE), b'x');
        let waited = due.at.elapsed();
        let (timing, outcome) = step::publish(&self.run, &mut self.line, message.into()).await?;
        let timing = Timing { wait: waited + timing.wait, ..timing };
        let operation = Operation::Publish;
        self.books.remember(due, operation, timing, outcome.is_ok(), None);
        self.books.note(due, Note::Exchanged { operation, timing, outcome }).await;
        Ok(())
    }

    /// Takes an arrival of [`Scenario::Create`].
    #[instrument(name = "device", level = "debug", skip_all, fields(row = device.id.0, key = device.identity.key.as_str()))]
    async fn create_only(&mut self, turn: Turn, device: OpenDevice) -> Result<(), Halt> {
        let (_, issued) = self.create(turn.due, &device).await?;
        // What follows is bookkeeping; the arrival has ended.
        drop(turn);
        match issued {
            Ok(_) => self.leave_issued(device.id, Registration::NotSent, None).await,
            Err(failure) => self.tell(step::not_issued(device.id, failure)).await,
        }
    }

    /// Takes an arrival of [`Scenario::Register`].
    #[instrument(name = "device", level = "debug", skip_all, fields(row = device.id.0, key = device.identity.key.as_str()))]
    async fn register_only(&mut self, turn: Turn, device: OpenDevice) -> Result<(), Halt> {
        let OpenDevice { id, identity, work } = device;
        let Work::Register { certificate, issued_at, .. } = work else {
            unreachable!("only devices with a certificate are fed to this scenario")
        };
        let due = turn.due;
        // The ledger must know that something may have been sent before anything is.
        self.leave_issued(id, Registration::MaySent, None).await?;
        let (registration, origin) = (Registration::NotSent, Origin::ThisRun);
        let issued = Issued { certificate, issued_at, registration, origin };
        let waited = due.at.elapsed();
        let (timing, registered) = self.register_once(id, &identity, issued).await?;
        let timing = Timing { wait: waited + timing.wait, ..timing };
        self.books.exchanged(due, Operation::RegisterThing, timing, registered, &identity.key).await;
        Ok(())
    }

    /// Takes an arrival of [`Scenario::Provision`].
    #[instrument(name = "device", level = "debug", skip_all, fields(row = device.id.0, key = device.identity.key.as_str()))]
    async fn provision(&mut self, turn: Turn, device: OpenDevice) -> Result<(), Halt> {
        let due = turn.due;
        let (created, issued) = self.create(due, &device).await?;
        let registered = match issued {
            Ok(issued) => self.register(due, &device, issued).await?,
            Err(failure) => {
                self.tell(step::not_issued(device.id, failure.clone())).await?;
                Err(failure)
            }
        };
        // The wait is the arrival's own; the service time includes the ledger's.
        let timing = Timing { wait: created.wait, service: due.at.elapsed().saturating_sub(created.wait) };
        let (operation, key) = (Operation::Provision, Some(device.identity.key.as_str()));
        self.books.remember(due, operation, timing, registered.is_ok(), key);
        self.books.note(due, Note::Finished { operation, timing, outcome: registered }).await;
        Ok(())
    }

    /// Sends one request for a certificate, due when the arrival was.
    async fn create(&mut self, due: Due, device: &OpenDevice) -> Result<Outcome<Issued>, Halt> {
        let waited = due.at.elapsed();
        let request = match &device.work {
            Work::Certify { request } => Some((request, Holder::Ledger)),
            Work::Create | Work::Register { .. } => None,
        };
        let (timing, issued) = step::obtain(&self.run, &mut self.line, device.id, request).await?;
        let timing = Timing { wait: waited + timing.wait, ..timing };
        let outcome = issued.as_ref().map(|_| ()).map_err(Failure::clone);
        self.books.exchanged(due, Operation::CreateCertificate, timing, outcome, &device.identity.key).await;
        Ok((timing, issued))
    }

    /// Sends one registration, due when its certificate was durable.
    async fn register(
        &mut self,
        due: Due,
        device: &OpenDevice,
        issued: Issued,
    ) -> Result<Result<(), Failure>, Halt> {
        let (timing, registered) = self.register_once(device.id, &device.identity, issued).await?;
        self.books
            .exchanged(due, Operation::RegisterThing, timing, registered.clone(), &device.identity.key)
            .await;
        Ok(registered)
    }

    /// Sends one registration. If it is accepted, it is durable on return; if not, the ledger has the reason.
    async fn register_once(
        &mut self,
        device: DeviceId,
        identity: &Identity,
        mut issued: Issued,
    ) -> Result<Outcome<()>, Halt> {
        let request = step::register_request(&self.run.device.parameters, identity, &issued.certificate);
        let due = Instant::now();
        match step::register(&self.run, &mut self.line, device, &mut issued, &request).await {
            Ok(Some((timing, Ok(())))) => Ok((timing, Ok(()))),
            Ok(Some((timing, Err(failure)))) => {
                let change = step::not_registered(device, issued.registration, failure.clone());
                self.tell(change).await?;
                Ok((timing, Err(failure)))
            }
            Ok(None) => {
                let lapsed = Failure::new(Stage::Call(Call::RegisterThing), Cause::TokenExpired);
                self.leave_issued(device, Registration::NotSent, Some(lapsed.clone())).await?;
                Ok((Timing { wait: due.elapsed(), ..Timing::default() }, Err(lapsed)))
            }
            Err(Halt::Recorder) => Err(Halt::Recorder),
            Err(halt) => {
                self.leave_issued(device, issued.registration, halt.failure()).await?;
                Err(halt)
            }
        }
    }

    /// Records that a device is left with a certificate.
    async fn leave_issued(
        &mut self,
        device: DeviceId,
        registration: Registration,
        failure: Option<Failure>,
    ) -> Result<(), Halt> {
        self.tell(Change::Left { device, registration, failure }).await
    }

    async fn tell(&mut self, change: Change) -> Result<(), Halt> {
        self.run.commit(&mut self.line, change).await.map(|_| ())
    }
}

/// What a worker's halt means for the run. Any other cause of the run's end is reported elsewhere.
fn ended_by(halt: Halt) -> Result<(), End> {
    match halt {
        Halt::Drain | Halt::Recorder => Ok(()),
        Halt::Stop(failure) => Err(End::Stopped(failure)),
    }
}

impl<C: Connector> Books<C> {
    async fn exchanged(
        &self,
        due: Due,
        operation: Operation,
        timing: Timing,
        outcome: Result<(), Failure>,
        device: &str,
    ) {
        self.remember(due, operation, timing, outcome.is_ok(), Some(device));
        self.note(due, Note::Exchanged { operation, timing, outcome }).await;
    }

    /// Records a note of an arrival in the second in which it happens, unless the arrival was due in the warm-up.
    async fn note(&self, due: Due, note: Note) {
        let at = if self.counts(due) { Instant::now() } else { due.at };
        self.run.recorder.note_at(at, note).await;
    }

    fn counts(&self, due: Due) -> bool {
        self.scene.epoch.get().is_some_and(|epoch| due.at >= *epoch)
    }

    /// Keeps an accepted attempt if it is among the slowest.
    fn remember(
        &self,
        due: Due,
        operation: Operation,
        timing: Timing,
        is_accepted: bool,
        device: Option<&str>,
    ) {
        let (true, true, Some(epoch)) = (is_accepted, self.counts(due), self.scene.epoch.get()) else {
            return;
        };
        let mut slowest = self.scene.slowest.lock().unwrap_or_else(PoisonError::into_inner);
        if slowest.takes(timing.response()) {
            let device = device.map_or_else(|| format!("arrival {}", due.number), str::to_owned);
            let second = epoch.elapsed().as_secs();
            let (service, response) = (timing.service, timing.response());
            slowest.offer(Slow { operation, device, second, service, response });
        }
    }
}
