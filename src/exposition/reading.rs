//! What a scrape shows: names, units and labels.
//!
//! The names are public interface. They follow Prometheus' conventions: base units, `_total` on counters.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use crate::event::{Counter, Operation};
use crate::metrics::{Latency, Metrics};

/// The prefix of every name.
const PREFIX: &str = "fleetmint";

/// The histograms' buckets end at powers of two, from 2^8 us (256 us) to 2^26 us (67 s). Latencies are counted in whole
/// microseconds and in classes of an HDR histogram, which end at powers of two: at these the counts are exact.
const FIRST_BUCKET: u32 = 8;
const LAST_BUCKET: u32 = 26;

/// Where a run stands.
#[derive(Debug, Clone, Default)]
pub struct Reading {
    /// What was measured since the run began.
    pub metrics: Metrics,
    /// Devices by state.
    pub devices: Vec<(&'static str, u64)>,
    /// Open connections.
    pub connections: u32,
    /// Requests that were sent and not answered.
    pub in_flight: u32,
    /// What a load test offers at this instant, per second.
    pub offered: Option<f64>,
    /// The limits that are set, per second.
    pub limits: Vec<(Operation, f64)>,
    /// The rates that the service was found to sustain, per second, for operations that it has throttled.
    pub found: Vec<(Operation, f64)>,
}

/// The reading in the text format of OpenMetrics 1.0.
pub fn encode(reading: &Reading) -> String {
    let mut registry = Registry::with_prefix(PREFIX);
    registry.register_collector(Box::new(reading.clone()));
    let mut out = String::new();
    text::encode(&mut out, &registry).expect("a String takes any text");
    out
}

impl Collector for Reading {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Families(encoder);
        out.about()?;
        self.encode_state(&mut out)?;
        self.encode_operations(&mut out)?;
        self.encode_troubles(&mut out)?;
        self.encode_arrivals(&mut out)
    }
}

impl Reading {
    fn encode_state(&self, out: &mut Families<'_>) -> fmt::Result {
        let mut devices = out.gauges("devices", "Devices of the lot by state.")?;
        for (state, count) in &self.devices {
            devices.gauge([("state", state)], *count as f64)?;
        }
        out.gauges("connections", "Open connections.")?.gauge([], self.connections.into())?;
        out.gauges("requests_in_flight", "Requests that were sent and not answered yet.")?
            .gauge([], self.in_flight.into())?;
        let mut offered = out.gauges("offered_rate", "Arrivals that a load test offers, per second.")?;
        if let Some(rate) = self.offered {
            offered.gauge([], rate)?;
        }
        let mut limits = out.gauges("rate_limit", "Limits that are set, in requests per second.")?;
        for (operation, limit) in &self.limits {
            limits.gauge([("operation", operation.name())], *limit)?;
        }
        let mut found = out.gauges(
            "rate_found",
            "Rates that the service was found to sustain, in requests per second; only for operations that it has throttled.",
        )?;
        for (operation, rate) in &self.found {
            found.gauge([("operation", operation.name())], *rate)?;
        }
        Ok(())
    }

    fn encode_operations(&self, out: &mut Families<'_>) -> fmt::Result {
        let mut attempts = out.counters("operations", "Attempts by operation and how they ended.")?;
        for operation in Operation::ALL {
            let counts = &self.metrics.operation(operation).counts;
            let ends = [
                ("accepted", counts.accepted),
                ("rejected", counts.rejected),
                ("throttled", counts.throttled),
                ("timed_out", counts.timed_out),
                ("dropped", counts.dropped),
            ];
            for (outcome, count) in ends {
                attempts.counter([("operation", operation.name()), ("outcome", outcome)], count)?;
            }
        }
        let mut service = out.durations(
            "operation_duration",
            "Service time of accepted attempts: from sending the request to its reply.",
        )?;
        for operation in Operation::ALL {
            service
                .histogram([("operation", operation.name())], &self.metrics.operation(operation).service)?;
        }
        let mut response = out.durations(
            "operation_response",
            "Response time of accepted attempts: from the instant at which each was due to its reply.",
        )?;
        for operation in Operation::ALL {
            response
                .histogram([("operation", operation.name())], &self.metrics.operation(operation).response)?;
        }
        let mut phases = out
            .durations("dial_phase", "Steps of opening a connection, each from the end of the one before.")?;
        for (phase, latency) in self.metrics.dial_phases.each() {
            phases.histogram([("phase", phase)], latency)?;
        }
        Ok(())
    }

    fn encode_troubles(&self, out: &mut Families<'_>) -> fmt::Result {
        let mut failures = out.counters("failures", "Failures by where and why they happened.")?;
        for ((stage, cause), kind) in &self.metrics.failures {
            failures.counter([("stage", stage), ("cause", cause)], kind.count)?;
        }
        for counter in Counter::ALL {
            let count = self.metrics.counters.of(counter);
            out.counters(counter.name(), counter.meaning())?.counter([], count)?;
        }
        Ok(())
    }

    fn encode_arrivals(&self, out: &mut Families<'_>) -> fmt::Result {
        let arrivals = &self.metrics.arrivals;
        let mut counts = out.counters(
            "arrivals",
            "Arrivals of a load test's schedule: scheduled, started, missed for want of a free connection.",
        )?;
        for (state, count) in
            [("scheduled", arrivals.scheduled), ("started", arrivals.started), ("missed", arrivals.missed)]
        {
            counts.counter([("state", state)], count)?;
        }
        out.durations("schedule_lateness", "How late the load generator handed arrivals out.")?
            .histogram([], &self.metrics.lateness)
    }
}

/// Metric families, one after the other.
struct Families<'a>(DescriptorEncoder<'a>);

/// The metrics of one family.
struct Family<'a>(MetricEncoder<'a>);

impl Families<'_> {
    fn about(&mut self) -> fmt::Result {
        self.0
            .encode_descriptor("build", "The version of fleetmint.", None, MetricType::Info)?
            .encode_info(&[("version", env!("CARGO_PKG_VERSION"))])
    }

    fn gauges<'s>(&'s mut self, name: &'s str, help: &str) -> Result<Family<'s>, fmt::Error> {
        self.0.encode_descriptor(name, help, None, MetricType::Gauge).map(Family)
    }

    fn counters<'s>(&'s mut self, name: &'s str, help: &str) -> Result<Family<'s>, fmt::Error> {
        self.0.encode_descriptor(name, help, None, MetricType::Counter).map(Family)
    }

    fn durations<'s>(&'s mut self, name: &'s str, help: &str) -> Result<Family<'s>, fmt::Error> {
        self.0.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Histogram).map(Family)
    }
}

impl Family<'_> {
    fn gauge<const N: usize>(&mut self, labels: [(&str, &str); N], value: f64) -> fmt::Result {
        match N {
            0 => self.0.encode_gauge(&value),
            _ => self.0.encode_family(&labels)?.encode_gauge(&value),
        }
    }

    fn counter<const N: usize>(&mut self, labels: [(&str, &str); N], value: u64) -> fmt::Result {
        match N {
            0 => self.0.encode_counter::<NoLabelSet, _, u64>(&value, None),
            _ => self.0.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&value, None),
        }
    }

    fn histogram<const N: usize>(&mut self, labels: [(&str, &str); N], latency: &Latency) -> fmt::Result {
        let (count, buckets) = (latency.count(), buckets(latency));
        // To the histogram's three digits: it has kept nothing more exact.
        let sum = latency.figures().mean * count as f64 / 1e6;
        match N {
            0 => self.0.encode_histogram::<NoLabelSet>(sum, count, &buckets, None),
            _ => self.0.encode_family(&labels)?.encode_histogram::<NoLabelSet>(sum, count, &buckets, None),
        }
    }
}

/// Upper bounds in seconds, and how many latencies are in each bucket.
fn buckets(latency: &Latency) -> Vec<(f64, u64)> {
    let mut below = 0;
    let mut buckets = Vec::new();
    for power in FIRST_BUCKET..=LAST_BUCKET {
        let bound_us = 1_u64 << power;
        let at_most = latency.count_at_most(std::time::Duration::from_micros(bound_us - 1));
        buckets.push((bound_us as f64 / 1e6, at_most - below));
        below = at_most;
    }
    buckets.push((f64::INFINITY, latency.count() - below));
    buckets
}
