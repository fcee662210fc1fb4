//! fleetmint's engine on the same exchanges: real connector, real ledger.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use fleetmint::certificate::Secret;
use fleetmint::engine::{self, CommitMode, Connections, Disk, End, Plan, Rates, Snapshot, Stop};
use fleetmint::identity::{Identity, LotShape, ParameterPlan, RowError};
use fleetmint::ledger::{Binding, Ledger, LedgerError, LotRows};
use fleetmint::sigv4::Credentials;
use fleetmint::transport::wss::{
    Authentication, CONNECT_TIMEOUT, KEEP_ALIVE, TlsResumption, WssConnector, WssSettings,
};
use futures::future::{BoxFuture, ready};
use rustix::time::ClockId;

use crate::{Load, cpu_time, packets};

/// A ledger of a new lot; on the disk in a directory of its own.
pub(crate) struct Lot {
    ledger: Ledger,
    directory: Option<tempfile::TempDir>,
}

impl Lot {
    pub(crate) fn on_disk(devices: u64) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let path = directory.path().join("bench.ledger");
        let ledger = Ledger::import(&path, &binding(), rows(devices), |_| Ok(()), SystemTime::now());
        Self { ledger: ledger.expect("the lot is valid"), directory: Some(directory) }
    }

    pub(crate) fn in_memory(devices: u64) -> Self {
        let ledger = Ledger::in_memory(&binding(), rows(devices), |_| Ok(()), SystemTime::now());
        Self { ledger: ledger.expect("the lot is valid"), directory: None }
    }
}

fn binding() -> Binding {
    let text = String::from;
    Binding {
        template: text(packets::TEMPLATE),
        region: text("r"),
        account: "a".into(),
        ..Binding::default()
    }
}

fn rows(devices: u64) -> LotRows<'static, impl Iterator<Item = Result<Identity, Vec<RowError>>>> {
    let identity = |number: u64| {
        let values = packets::row(number);
        Identity { line: number + 1, key: values[5].clone(), values }
    };
    LotRows {
        source: "bench.csv",
        shape: shape(),
        rows: (1..=devices).map(move |number| Ok(identity(number))),
    }
}

fn shape() -> LotShape {
    LotShape { columns: packets::COLUMNS.map(String::from).to_vec(), key_column: 5 }
}

/// Takes the CPU time that passes inside of commits: they are made in place, between these two calls, on one thread.
#[derive(Debug, Default)]
pub(crate) struct Commits {
    began_ns: AtomicU64,
    total_ns: AtomicU64,
}

impl Commits {
    pub(crate) fn cpu(&self) -> Duration {
        Duration::from_nanos(self.total_ns.load(Ordering::Relaxed))
    }
}

impl Disk for Commits {
    fn before_commit(&self) -> BoxFuture<'_, Result<(), LedgerError>> {
        self.began_ns.store(thread_ns(), Ordering::Relaxed);
        Box::pin(ready(Ok(())))
    }

    fn after_commit(&self) -> BoxFuture<'_, Result<(), LedgerError>> {
        let passed = thread_ns() - self.began_ns.load(Ordering::Relaxed);
        self.total_ns.fetch_add(passed, Ordering::Relaxed);
        Box::pin(ready(Ok(())))
    }
}

fn thread_ns() -> u64 {
    u64::try_from(cpu_time(ClockId::ThreadCPUTime).as_nanos()).expect("less than centuries")
}

/// Takes all devices of `lot` through both exchanges and into the ledger.
pub(crate) async fn run(address: SocketAddr, ca: &[u8], load: Load, lot: Lot, mode: CommitMode) {
    let connector = connector(address, ca);
    let counts = lot.ledger.view().counts().expect("a new ledger can be read");
    let (progress, _seen) = tokio::sync::watch::channel(Snapshot { devices: counts, ..Snapshot::default() });
    let plan = plan(load, mode);
    let outcome = engine::run(plan, connector, lot.ledger, Stop::never(), progress).await;
    assert!(matches!(outcome.end, End::Complete), "{:?}", outcome.end);
    let counts = outcome.ledger.view().counts().expect("the ledger can be read");
    assert_eq!(counts.registered, load.devices);
    drop(outcome);
    drop(lot.directory);
}

fn plan(load: Load, commit_mode: CommitMode) -> Plan {
    Plan {
        connections: Connections::Fixed(load.connections),
        rates: Rates::UNLIMITED,
        publishes_per_connection: None,
        parameters: ParameterPlan::new(&shape(), &[]).expect("the columns have names"),
        token_lifetime: Duration::from_secs(3000),
        certificate_lifetime: Duration::from_secs(4000),
        failure_budget: 1,
        commit_mode,
        seed: 1,
        ..Plan::default()
    }
}

fn connector(address: SocketAddr, ca: &[u8]) -> WssConnector {
    let credentials = Credentials {
        access_key_id: String::from("AKIAIOSFODNN7EXAMPLE"),
        secret_access_key: Secret::new(String::from("secret")),
        session_token: None,
    };
    let settings = WssSettings {
        endpoint: format!("wss://{address}/mqtt").parse().expect("an address is an endpoint"),
        region: String::from("eu-west-1"),
        topics: packets::topics(),
        client_id_prefix: String::from("bench"),
        authentication: Authentication::Signature(Arc::new(credentials)),
        extra_roots: ca.to_vec(),
        proxies: Default::default(),
        connect_timeout: CONNECT_TIMEOUT,
        keep_alive: KEEP_ALIVE,
        tls_resumption: TlsResumption::Shared,
    };
    WssConnector::new(settings).expect("the settings work")
}
