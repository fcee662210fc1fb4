//! A worker of a load test: one connection, one arrival at a time.
//!
//! Owns what an arrival does in each scenario, once, and when its parts were due. A failure is a result: it is counted, and
//! the next arrival comes when it is due.

use std::pin::pin;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::desk::{Due, Hand, Turn};
use super::devices::Devices;
use super::{Halted, LEAST_MESSAGE, Load, Scenario};
use crate::engine::flow::Issued;
use crate::engine::worker::{Halt, Worker};
use crate::event::{Note, Operation, Timing};
use crate::failure::Failure;
use crate::ledger::{OpenDevice, Work};
use crate::metrics::Slow;
use crate::transport::Connector;

pub(super) struct LoadWorker<C: Connector> {
    load: Arc<Load<C>>,
    worker: Worker<C>,
    scenario: Scenario,
    devices: Devices,
    hand: Hand,
}

impl<C: Connector> LoadWorker<C> {
    pub(super) fn new(load: Arc<Load<C>>, worker: Worker<C>, scenario: Scenario, devices: Devices) -> Self {
        let hand = Hand::new(load.desk.clone());
        Self { load, worker, scenario, devices, hand }
    }

    /// Takes arrivals until there are no more.
    pub(super) async fn run(mut self) -> Result<(), Halted> {
        let ended = match self.scenario {
            Scenario::Connect { hold } => self.take_turns_at_dialling(hold).await,
            Scenario::Create | Scenario::Register | Scenario::Provision | Scenario::Publish { .. } => {
                self.take_turns().await
            }
        };
        self.worker.disconnect().await;
        ended
    }

    /// Takes arrivals on a connection that is held open.
    async fn take_turns(&mut self) -> Result<(), Halted> {
        loop {
            if let Err(halt) = self.worker.connect().await {
                return Halted::from_halt(halt);
            }
            self.hand.ready();
            let mut seat = self.load.desk.sit();
            // Without a connection the seat is given up, and whatever was in it goes to another.
            let Some(turn) = self.worker.until_gone(pin!(seat.next())).await else { continue };
            let Some(turn) = turn else { return Ok(()) };
            drop(seat);
            if let Scenario::Publish { size } = self.scenario {
                if let Err(halt) = self.publish(turn, size).await {
                    return Halted::from_halt(halt);
                }
                continue;
            }
            // While the connection is kept alive, be it that keys are made more slowly than they are used.
            let Some(device) = self.worker.while_idle(self.devices.clone().next()).await else {
                return Err(Halted::OutOfDevices);
            };
            self.load.note(turn.due, Note::Started).await;
            let served = match self.scenario {
                Scenario::Create => self.create_only(turn, device).await,
                Scenario::Register => self.register_only(turn, device).await,
                _ => self.provision(turn, device).await,
            };
            if let Err(halt) = served {
                return Halted::from_halt(halt);
            }
        }
    }

    /// Takes arrivals that are dials themselves.
    async fn take_turns_at_dialling(&mut self, hold: Duration) -> Result<(), Halted> {
        if self.worker.number() == 0 {
            // One dial that is no arrival: a wrong setting should end the run, not fill it with failures.
            if let Err(halt) = self.worker.connect().await {
                return Halted::from_halt(halt);
            }
            self.worker.disconnect().await;
        }
        loop {
            self.hand.ready();
            let mut seat = self.load.desk.sit();
            let Some(turn) = seat.next().await else { return Ok(()) };
            drop(seat);
            self.load.note(turn.due, Note::Started).await;
            let due = turn.due;
            let started = Instant::now();
            let dial = self.load.shared.connector.dial().await;
            let timing = Timing { wait: started - due.at, service: started.elapsed() };
            let outcome = dial.outcome.as_ref().map(|_| ()).map_err(Failure::clone);
            self.load.remember(due, Operation::Connect, timing, outcome.is_ok(), None);
            self.load.note(due, Note::Dialled { timing, phases: dial.phases, outcome }).await;
            let Ok(connection) = dial.outcome else { continue };
            self.worker.hold(connection);
            // The arrival has ended; the connection is held beyond the end of the profile, if need be.
            drop(turn);
            let cut = self.load.cut.clone();
            let held = tokio::time::timeout(hold, cut.cancelled());
            self.worker.until_gone(pin!(held)).await;
            self.worker.disconnect().await;
        }
    }

    /// An arrival of [`Scenario::Publish`].
    async fn publish(&mut self, turn: Turn, size: usize) -> Result<(), Halt> {
        let due = turn.due;
        self.load.note(due, Note::Started).await;
        // The number first, so that no message is like one of those before it.
        let mut message = due.number.to_be_bytes().to_vec();
        message.resize(size.max(LEAST_MESSAGE), b'x');
        let waited = due.at.elapsed();
        let (timing, outcome) = self.worker.publish_once(message.into()).await?;
        let timing = Timing { wait: waited + timing.wait, ..timing };
        let operation = Operation::Publish;
        self.load.remember(due, operation, timing, outcome.is_ok(), None);
        self.load.note(due, Note::Exchanged { operation, timing, outcome }).await;
        Ok(())
    }

    /// An arrival of [`Scenario::Create`].
    async fn create_only(&mut self, turn: Turn, device: OpenDevice) -> Result<(), Halt> {
        let (_, issued) = self.create(turn.due, &device).await?;
        // What follows is bookkeeping; the arrival has ended.
        drop(turn);
        match issued {
            Ok(_) => self.worker.leave_issued(device.id, None).await,
            Err(failure) => self.worker.leave_pending(device.id, failure).await,
        }
    }

    /// An arrival of [`Scenario::Register`].
    async fn register_only(&mut self, turn: Turn, device: OpenDevice) -> Result<(), Halt> {
        let OpenDevice { id, identity, work } = device;
        let Work::Register { certificate, issued_at, .. } = work else {
            unreachable!("only devices with a certificate are fed to this scenario")
        };
        let (due, waited) = (turn.due, turn.due.at.elapsed());
        let (timing, registered) = self.worker.register_held(id, &identity, certificate, issued_at).await?;
        let timing = Timing { wait: waited + timing.wait, ..timing };
        self.load.exchanged(due, Operation::RegisterThing, timing, registered, &identity.key).await;
        Ok(())
    }

    /// An arrival of [`Scenario::Provision`].
    async fn provision(&mut self, turn: Turn, device: OpenDevice) -> Result<(), Halt> {
        let due = turn.due;
        let (created, issued) = self.create(due, &device).await?;
        let registered = match issued {
            Ok(issued) => self.register(due, &device, issued).await?,
            Err(failure) => {
                self.worker.leave_pending(device.id, failure.clone()).await?;
                Err(failure)
            }
        };
        // Waiting for its turn is the wait; all the rest is the service's and the ledger's.
        let timing = Timing { wait: created.wait, service: due.at.elapsed().saturating_sub(created.wait) };
        let (operation, key) = (Operation::Provision, Some(device.identity.key.as_str()));
        self.load.remember(due, operation, timing, registered.is_ok(), key);
        self.load.note(due, Note::Finished { operation, timing, outcome: registered }).await;
        Ok(())
    }

    /// One request for a certificate, due when the arrival was.
    async fn create(
        &mut self,
        due: Due,
        device: &OpenDevice,
    ) -> Result<(Timing, Result<Issued, Failure>), Halt> {
        let waited = due.at.elapsed();
        let (timing, issued) = self.worker.create_once(device).await?;
        let timing = Timing { wait: waited + timing.wait, ..timing };
        let outcome = issued.as_ref().map(|_| ()).map_err(Failure::clone);
        self.load.exchanged(due, Operation::CreateCertificate, timing, outcome, &device.identity.key).await;
        Ok((timing, issued))
    }

    /// One registration, due when its certificate was durable.
    async fn register(
        &mut self,
        due: Due,
        device: &OpenDevice,
        issued: Issued,
    ) -> Result<Result<(), Failure>, Halt> {
        let (timing, registered) = self.worker.register_once(device.id, &device.identity, issued).await?;
        self.load
            .exchanged(due, Operation::RegisterThing, timing, registered.clone(), &device.identity.key)
            .await;
        Ok(registered)
    }
}

impl<C: Connector> Load<C> {
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

    /// Tells of what belongs to an arrival: in the second in which it happens, unless the arrival was due in the warm-up.
    async fn note(&self, due: Due, note: Note) {
        let at = if self.counts(due) { Instant::now() } else { due.at };
        self.shared.recorder.note_at(at, note).await;
    }

    fn counts(&self, due: Due) -> bool {
        self.epoch.get().is_some_and(|epoch| due.at >= *epoch)
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
        let (true, true, Some(epoch)) = (is_accepted, self.counts(due), self.epoch.get()) else { return };
        let mut slowest = self.slowest.lock().unwrap_or_else(PoisonError::into_inner);
        if slowest.takes(timing.response()) {
            let device = device.map_or_else(|| format!("arrival {}", due.number), str::to_owned);
            let second = epoch.elapsed().as_secs();
            let (service, response) = (timing.service, timing.response());
            slowest.offer(Slow { operation, device, second, service, response });
        }
    }
}
