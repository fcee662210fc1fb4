//! `--prometheus`: where live metrics are served, and what they show of a run.

use std::sync::Arc;

use tokio::sync::watch;

use super::args::ScrapeAddress;
use super::exit::{Exit, Fatal};
use super::speech::say;
use crate::engine::load::LoadSnapshot;
use crate::engine::{Rates, Snapshot};
use crate::event::Operation;
use crate::exposition::{Exposition, Reading};

/// Where a run can be scraped: nowhere, or at the requested address.
#[derive(Debug)]
pub(super) struct Scrapes(Option<Exposition>);

impl Scrapes {
    /// Listens at the requested address. Done before a run sends anything, so that an address in use fails early.
    pub(super) async fn listen(address: Option<ScrapeAddress>) -> Result<Self, Fatal> {
        let Some(ScrapeAddress(address)) = address else { return Ok(Self(None)) };
        let failed = |error| {
            let message = format!("--prometheus: {address} cannot be listened on: {error}; nothing was sent");
            Fatal::new(Exit::Unavailable, message)
        };
        let exposition = Exposition::listen(address).await.map_err(failed)?;
        say(format_args!("metrics at http://{}/metrics", exposition.address().map_err(failed)?));
        Ok(Self(Some(exposition)))
    }

    /// Serves the metrics of a run. Never ends.
    pub(super) async fn serve<S: Send + Sync + 'static>(
        self,
        snapshots: watch::Receiver<S>,
        reading: impl Fn(&S) -> Reading + Send + Sync + 'static,
    ) {
        match self.0 {
            Some(exposition) => {
                match exposition.serve(Arc::new(move || reading(&snapshots.borrow()))).await {}
            }
            None => std::future::pending().await,
        }
    }
}

/// The metrics of a load test.
pub(super) fn reading_of_load(snapshot: &LoadSnapshot) -> Reading {
    Reading {
        metrics: snapshot.metrics.clone(),
        connections: snapshot.connections,
        in_flight: snapshot.in_flight,
        offered: Some(snapshot.offered),
        ..Reading::default()
    }
}

/// The metrics of a provisioning run with these limits.
pub(super) fn reading(snapshot: &Snapshot, rates: &Rates) -> Reading {
    let devices = &snapshot.devices;
    let limits = [
        (Operation::Connect, rates.connect),
        (Operation::CreateCertificate, rates.create),
        (Operation::RegisterThing, rates.register),
    ];
    Reading {
        metrics: snapshot.metrics.clone(),
        devices: vec![
            ("pending", devices.pending),
            ("issued", devices.issued_not_sent + devices.issued_may_sent),
            ("registered", devices.registered),
            ("rejected", devices.rejected),
            ("unknown", devices.unknown),
        ],
        connections: snapshot.connections,
        in_flight: snapshot.in_flight,
        offered: None,
        limits: limits
            .into_iter()
            .filter_map(|(operation, limit)| Some((operation, limit.fixed()?.as_per_second())))
            .collect(),
        found: snapshot
            .usage
            .limits
            .iter()
            .filter_map(|limit| Some((limit.operation, limit.found?.rate)))
            .collect(),
    }
}
