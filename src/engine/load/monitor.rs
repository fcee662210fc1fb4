//! What a load test has measured so far.
//!
//! Owns the sum of the seconds, whether a threshold is lost already, and what is reported of it meanwhile. Its memory
//! does not grow with the run.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::{LoadPlan, OnLoss, Scene};
use crate::engine::audience::{Audience, Gauges};
use crate::metrics::threshold::{Judgement, Threshold};
use crate::metrics::{Interval, Metrics};
use crate::schedule::Profile;

/// How many seconds the recent figures cover.
const RECENT_SECONDS: usize = 5;
/// How often progress is reported.
const TELL_EVERY: Duration = Duration::from_millis(500);

/// The state of a load test.
#[derive(Debug, Clone, Default)]
pub struct LoadSnapshot {
    /// What it is doing.
    pub phase: Phase,
    /// How far into the profile it is, the warm-up included; zero while connections are opened.
    pub at: Duration,
    /// The length of the profile.
    pub of: Duration,
    /// The offered rate at this instant, per second.
    pub offered: f64,
    /// The end of the warm-up; `None` until connections are open.
    pub measuring_since: Option<Instant>,
    /// What was measured since the end of the warm-up.
    pub metrics: Metrics,
    /// What was measured in the last few whole seconds.
    pub recent: Metrics,
    /// How many seconds `recent` covers; zero before the first is over.
    pub recent_seconds: u32,
    /// Open connections.
    pub connections: u32,
    /// Exchanges under way.
    pub in_flight: u32,
    /// Arrivals that wait for a connection.
    pub waiting: usize,
    /// The thresholds' results as of now; empty before anything is measured.
    pub judgements: Vec<Judgement>,
}

/// What a load test is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Phase {
    /// Opening connections ahead.
    #[default]
    Opening,
    /// Offering arrivals that are not measured.
    WarmingUp,
    /// Offering arrivals that are measured.
    Measuring,
    /// Waiting for the arrivals under way.
    Ending,
}

pub(super) struct Monitor {
    profile: Profile,
    /// How many processes share the profile's load equally.
    parts: f64,
    thresholds: Vec<Threshold>,
    on_loss: OnLoss,
    scene: Arc<Scene>,
    gauges: Arc<Gauges>,
    audience: Audience<LoadSnapshot>,
    lost: CancellationToken,
    metrics: Metrics,
    /// The last seconds, for the progress display.
    recent: VecDeque<Interval>,
}

impl Monitor {
    pub(super) fn new(
        plan: &LoadPlan,
        scene: Arc<Scene>,
        gauges: Arc<Gauges>,
        audience: Audience<LoadSnapshot>,
        lost: CancellationToken,
    ) -> Self {
        Self {
            profile: plan.profile.clone(),
            parts: plan.shard.map_or(1.0, |shard| f64::from(shard.of)),
            thresholds: plan.thresholds.clone(),
            on_loss: plan.on_loss,
            scene,
            gauges,
            audience,
            lost,
            metrics: Metrics::default(),
            recent: VecDeque::with_capacity(RECENT_SECONDS),
        }
    }

    /// Adds up the seconds until there are no more, and returns the sum.
    pub(super) async fn run(mut self, mut intervals: mpsc::Receiver<Interval>) -> Metrics {
        let mut ticks = interval(TELL_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                received = intervals.recv() => match received {
                    Some(second) => self.add(second).await,
                    None => break,
                },
                _ = ticks.tick() => self.tell(),
            }
        }
        self.tell();
        self.metrics
    }

    async fn add(&mut self, second: Interval) {
        self.metrics.merge(&second.metrics);
        let measured = Duration::from_secs(second.second + 1);
        let is_lost = |threshold: &Threshold| threshold.is_lost(&self.metrics, measured);
        if self.on_loss == OnLoss::Stop && self.thresholds.iter().any(is_lost) {
            self.lost.cancel();
        }
        if self.recent.len() == RECENT_SECONDS {
            self.recent.pop_front();
        }
        if let Some(reader) = &self.audience.intervals {
            // A reader that is gone wants no more.
            let _ = reader.send(second.clone()).await;
        }
        self.recent.push_back(second);
    }

    fn tell(&self) {
        if self.audience.progress.receiver_count() > 0 {
            self.audience.progress.send_replace(self.snapshot(Instant::now()));
        }
    }

    fn snapshot(&self, now: Instant) -> LoadSnapshot {
        let mut recent = Metrics::default();
        self.recent.iter().for_each(|second| recent.merge(&second.metrics));
        let started = self.scene.desk.started_at();
        let at = started.map_or(Duration::ZERO, |started| now.saturating_duration_since(started));
        let measured =
            self.scene.epoch.get().map_or(Duration::ZERO, |epoch| now.saturating_duration_since(*epoch));
        let judge = |threshold: &Threshold| threshold.judge(&self.metrics, measured);
        LoadSnapshot {
            phase: match started {
                None => Phase::Opening,
                Some(_) if self.scene.desk.closed().is_cancelled() || at > self.profile.time() => {
                    Phase::Ending
                }
                Some(_) if measured.is_zero() => Phase::WarmingUp,
                Some(_) => Phase::Measuring,
            },
            at: at.min(self.profile.time()),
            of: self.profile.time(),
            offered: started.map_or(0.0, |_| self.profile.rate_at(at) / self.parts),
            measuring_since: self.scene.epoch.get().copied(),
            metrics: self.metrics.clone(),
            recent,
            recent_seconds: self.recent.len() as u32,
            connections: self.gauges.connections(),
            in_flight: self.gauges.in_flight(),
            waiting: self.scene.desk.waiting(),
            judgements: if self.recent.is_empty() {
                Vec::new()
            } else {
                self.thresholds.iter().map(judge).collect()
            },
        }
    }
}
