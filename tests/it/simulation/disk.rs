//! A disk that is slow, full, or the place where the process dies.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use fleetmint::emulator::memory::{Network, Power};
use fleetmint::engine::Disk;
use fleetmint::ledger::{LedgerError, Problem};
use futures::FutureExt;
use futures::future::BoxFuture;

use super::dice::Dice;
use super::setup::DiskFaults;
use super::witness::Witness;

pub struct SimulatedDisk {
    pub faults: DiskFaults,
    pub dice: Mutex<Dice>,
    pub network: Network,
    pub power: Power,
    pub witness: Arc<Witness>,
}

impl fmt::Debug for SimulatedDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimulatedDisk")
    }
}

impl Disk for SimulatedDisk {
    fn before_commit(&self) -> BoxFuture<'_, Result<(), LedgerError>> {
        async move {
            self.boundary("commit begins").await;
            let (is_slow, time, is_refused) = {
                let mut dice = self.dice.lock().unwrap();
                (
                    dice.chance(self.faults.slow),
                    dice.up_to(self.faults.slowest),
                    dice.chance(self.faults.refused),
                )
            };
            if is_slow {
                tokio::time::sleep(time).await;
                self.power.go_on().await;
            }
            if is_refused { Err(self.full()) } else { Ok(()) }
        }
        .boxed()
    }

    fn after_commit(&self) -> BoxFuture<'_, Result<(), LedgerError>> {
        async move {
            self.boundary("committed").await;
            let is_forgotten = self.dice.lock().unwrap().chance(self.faults.forgotten);
            if is_forgotten { Err(self.full()) } else { Ok(()) }
        }
        .boxed()
    }
}

impl SimulatedDisk {
    async fn boundary(&self, what: &str) {
        self.power.go_on().await;
        self.witness.boundary(self.network.age(), what);
        self.power.go_on().await;
    }

    fn full(&self) -> LedgerError {
        self.witness.notes().record(self.network.age(), "the disk is full");
        LedgerError { ledger: PathBuf::from(":memory:"), problem: Problem::Full }
    }
}
