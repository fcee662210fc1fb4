//! What durability costs a device: certificates committed one by one, and in groups as the recorder does, each commit
//! waiting for the disk.

use std::time::{Duration, Instant, SystemTime};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fleetmint::certificate::{IssuedCertificate, Secret};
use fleetmint::event::{Change, DeviceId};
use fleetmint::identity::{Identity, LotShape};
use fleetmint::ledger::{Binding, Ledger, LotRows};

fn commits(c: &mut Criterion) {
    let mut group = c.benchmark_group("commit one issued certificate");
    group.throughput(Throughput::Elements(1)).sample_size(10);
    for batch in [1, 8, 64, 512] {
        group.bench_function(format!("in groups of {batch}"), |bencher| {
            bencher.iter_custom(|devices| time_commits(devices, batch));
        });
    }
    group.finish();
}

/// How long it takes to commit a certificate for each of `devices`, in groups of `batch`.
fn time_commits(devices: u64, batch: usize) -> Duration {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let mut ledger = new_ledger(&directory.path().join("bench.ledger"), devices);
    let mut changes: Vec<Change> = (1..=devices).map(issued).collect();
    let start = Instant::now();
    while !changes.is_empty() {
        let group = changes.split_off(changes.len().saturating_sub(batch));
        ledger.commit(group, SystemTime::now()).expect("the disk takes it");
    }
    start.elapsed()
}

fn new_ledger(path: &std::path::Path, devices: u64) -> Ledger {
    let shape = LotShape { columns: vec![String::from("SerialNumber")], key_column: 0 };
    let identity = |n: u64| Identity { line: n + 1, key: format!("SN{n}"), values: vec![format!("SN{n}")] };
    let rows = LotRows { source: "bench.csv", shape, rows: (1..=devices).map(|n| Ok(identity(n))) };
    let text = String::from;
    let binding =
        Binding { template: text("T"), region: text("r"), account: "a".into(), ..Binding::default() };
    Ledger::import(path, &binding, rows, |_| Ok(()), SystemTime::now()).expect("the lot is valid")
}

fn issued(device: u64) -> Change {
    let certificate = IssuedCertificate {
        certificate_id: format!("{device:064x}").try_into().expect("64 hexadecimal digits"),
        certificate_pem: "c".repeat(1_220),
        private_key: Secret::new("k".repeat(1_675)).into(),
        ownership_token: Secret::new("t".repeat(464)),
    };
    Change::Issued { device: DeviceId(device as i64), certificate }
}

criterion_group!(benches, commits);
criterion_main!(benches);
