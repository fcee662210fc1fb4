//! `--prometheus`: where live metrics are served, and what of a run they show.

use std::sync::Arc;

use tokio::sync::watch;

use super::args::ScrapeAddress;
use super::exit::{Exit, Fatal};
use super::speech::say;
use crate::engine::load::LoadSnapshot;
use crate::engine::{Rates, Snapshot};
use crate::event::Operation;
use crate::exposition::{Exposition, Reading};

/// Who may scrape a run: nobody, or who comes to the address that was asked for.
#[derive(Debug)]
pub(super) struct Scrapes(Option<Exposition>);

impl Scrapes {
    /// Listens where it was asked for. Done before a run sends anything: an address that is in use ends it here.
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

    /// Shows where a run stands to whoever asks. Never ends.
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

/// What is shown of a load test.
pub(super) fn reading_of_load(snapshot: &LoadSnapshot) -> Reading {
    Reading {
        metrics: snapshot.metrics.clone(),
        connections: snapshot.connections,
        in_flight: snapshot.in_flight,
        offered: Some(snapshot.offered),
        ..Reading::default()
    }
}

/// What is shown of a provisioning run under these limits.
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
