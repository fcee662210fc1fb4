//! `--prometheus`: where live metrics are served, and what of a run they show.

use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use tokio::sync::watch;

use super::exit::{Exit, Fatal};
use super::speech::say;
use crate::engine::find::FindSnapshot;
use crate::engine::load::LoadSnapshot;
use crate::engine::{Rates, Snapshot};
use crate::event::Operation;
use crate::exposition::{Exposition, Reading};

/// An address to serve on, as it was typed: `ADDRESS:PORT`, or a port, which is one of this machine alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ScrapeAddress(SocketAddr);

impl FromStr for ScrapeAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let port = text.strip_prefix(':').unwrap_or(text).parse::<u16>();
        match port {
            Ok(port) => Ok(Self((Ipv4Addr::LOCALHOST, port).into())),
            Err(_) => text.parse().map(Self).map_err(|_| {
                String::from("wanted a port of this machine, such as 9464, or an address and port, such as 0.0.0.0:9464")
            }),
        }
    }
}

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

    /// Shows where a provisioning run stands to whoever asks. Never ends.
    pub(super) async fn serve(self, snapshots: watch::Receiver<Snapshot>, rates: Rates) {
        self.serve_with(snapshots, move |snapshot| reading(snapshot, &rates)).await;
    }

    /// Shows where a load test stands to whoever asks. Never ends.
    pub(super) async fn serve_load(self, snapshots: watch::Receiver<LoadSnapshot>) {
        self.serve_with(snapshots, reading_of_load).await;
    }

    /// Shows where the step of a search stands that is being tried. Never ends.
    pub(super) async fn serve_search(self, snapshots: watch::Receiver<FindSnapshot>) {
        self.serve_with(snapshots, |snapshot| reading_of_load(&snapshot.load)).await;
    }

    async fn serve_with<S: Send + Sync + 'static>(
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

fn reading_of_load(snapshot: &LoadSnapshot) -> Reading {
    Reading {
        metrics: snapshot.metrics.clone(),
        connections: snapshot.connections,
        in_flight: snapshot.in_flight,
        offered: Some(snapshot.offered),
        ..Reading::default()
    }
}

fn reading(snapshot: &Snapshot, rates: &Rates) -> Reading {
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
            .filter_map(|limit| Some((limit.operation, limit.found?)))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_alone_is_this_machines() {
        for (text, address) in [
            ("9464", "127.0.0.1:9464"),
            (":9464", "127.0.0.1:9464"),
            ("0.0.0.0:9464", "0.0.0.0:9464"),
            ("[::1]:0", "[::1]:0"),
        ] {
            assert_eq!(text.parse(), Ok(ScrapeAddress(address.parse().unwrap())), "{text}");
        }
        for text in ["", "localhost", "70000", "1.2.3.4"] {
            assert!(text.parse::<ScrapeAddress>().unwrap_err().contains("9464"), "{text}");
        }
    }
}
