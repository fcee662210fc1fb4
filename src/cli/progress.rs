//! Progress: a bar on a terminal, a line every few seconds elsewhere. On stderr, always.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::speech::say;
use crate::engine::{Rates, Snapshot};
use crate::event::Operation;
use crate::ledger::Counts;
use crate::report::human_latency;

/// How often a log gets a line.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// How often the bar is looked at.
const BAR_EVERY: Duration = Duration::from_millis(200);
/// The rate shown is that of the last this long.
const RATE_WINDOW: usize = 25;

/// What people see while a run goes on.
#[derive(Clone)]
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    rates: Rates,
}

impl Progress {
    pub(super) fn start(devices: Counts, rates: Rates) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| bar(devices));
        Self { bar, rates }
    }

    /// Shows every snapshot until the run is over.
    pub(super) async fn follow(self, mut snapshots: watch::Receiver<Snapshot>) {
        let every = if self.bar.is_some() { BAR_EVERY } else { LINE_EVERY };
        let mut ticks = interval_at(Instant::now() + every, every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut done =
            std::collections::VecDeque::from([(Instant::now(), done(&snapshots.borrow().devices))]);
        loop {
            ticks.tick().await;
            let snapshot = snapshots.borrow_and_update().clone();
            done.push_back((Instant::now(), self::done(&snapshot.devices)));
            if done.len() > RATE_WINDOW {
                done.pop_front();
            }
            self.show(&snapshot, rate(&done));
        }
    }

    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn show(&self, snapshot: &Snapshot, per_second: f64) {
        let detail = detail(snapshot, per_second, &self.rates);
        let done = done(&snapshot.devices);
        match &self.bar {
            Some(bar) => {
                bar.set_position(done);
                bar.set_message(detail);
            }
            None => say(format_args!("{done} of {} devices, {detail}", snapshot.devices.total())),
        }
    }
}

fn bar(devices: Counts) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(devices.total()), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} devices, {wide_msg}");
    bar.set_style(style.expect("the template is a constant that a test has parsed"));
    bar.set_position(done(&devices));
    bar
}

fn done(devices: &Counts) -> u64 {
    devices.total() - devices.open()
}

fn rate(done: &std::collections::VecDeque<(Instant, u64)>) -> f64 {
    match (done.front(), done.back()) {
        (Some((from, first)), Some((to, last))) if to > from => {
            (last - first) as f64 / (*to - *from).as_secs_f64()
        }
        _ => 0.0,
    }
}

fn detail(snapshot: &Snapshot, per_second: f64, rates: &Rates) -> String {
    let register = snapshot.metrics.operation(Operation::RegisterThing);
    let open = snapshot.devices.open();
    let mut parts = vec![match rates.register.fixed() {
        Some(limit) => format!("{per_second:.1}/s of {limit}"),
        None => format!("{per_second:.1}/s"),
    }];
    if per_second > 0.0 && open > 0 {
        let left = Duration::from_secs((open as f64 / per_second).ceil() as u64);
        parts.push(format!("ETA {}", humantime::format_duration(left)));
    }
    if register.service.count() > 0 {
        parts.push(format!("register p99 {}", human_latency(register.service.figures().p99)));
    }
    let troubles: u64 = snapshot.metrics.failures.values().map(|failures| failures.count).sum();
    parts.push(format!("{} connections", snapshot.connections));
    if snapshot.devices.rejected > 0 {
        parts.push(format!("{} rejected", snapshot.devices.rejected));
    }
    if troubles > 0 {
        parts.push(format!("{troubles} failures"));
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_has_a_valid_template() {
        let devices = Counts { pending: 3, registered: 1, ..Counts::default() };
        assert_eq!(bar(devices).position(), 1);
    }
}
