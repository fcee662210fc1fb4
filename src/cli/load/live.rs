//! What people see while a load test goes on: a line every few seconds, on stderr.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::cli::speech::say;
use crate::engine::load::{LoadSnapshot, Phase};
use crate::event::Operation;
use crate::report::human_latency;

/// How often there is a line.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Says every few seconds how the test goes. Never ends by itself.
pub(super) async fn follow(snapshots: watch::Receiver<LoadSnapshot>) {
    let mut ticks = interval_at(Instant::now() + LINE_EVERY, LINE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let line = line(&snapshots.borrow());
        say(line);
    }
}

fn line(snapshot: &LoadSnapshot) -> String {
    let phase = match snapshot.phase {
        Phase::Opening => return format!("opening connections: {} open", snapshot.connections),
        Phase::WarmingUp => "warming up",
        Phase::Measuring => "measuring",
        Phase::Ending => "ending",
    };
    let mut parts = vec![
        format!("{phase}, {} s of {} s", snapshot.at.as_secs(), snapshot.of.as_secs()),
        format!("offered {:.1}/s", snapshot.offered),
    ];
    let shown = Operation::ALL.into_iter().filter(|operation| {
        snapshot.recent_seconds > 0 && snapshot.recent.operation(*operation).counts.attempts > 0
    });
    for operation in shown {
        let recent = snapshot.recent.operation(operation);
        parts.push(format!(
            "{} {:.1}/s, p99 {}",
            operation.name().replace('_', " "),
            recent.counts.accepted as f64 / f64::from(snapshot.recent_seconds),
            human_latency(recent.response.quantile(0.99)),
        ));
    }
    parts.push(format!("{} connections", snapshot.connections));
    let arrivals = snapshot.metrics.arrivals;
    let failures: u64 = snapshot.metrics.failures.values().map(|failures| failures.count).sum();
    for (count, name) in
        [(snapshot.waiting as u64, "waiting"), (arrivals.missed, "missed"), (failures, "failures")]
    {
        if count > 0 {
            parts.push(format!("{count} {name}"));
        }
    }
    parts.join("; ")
}
