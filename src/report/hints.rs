//! What a report's figures show, and what to do next.
//!
//! Every finding names its figure. Without a clear finding there is no hint.

use super::model::{Hint, OperationReport, Report, Weight};
use super::wording::{count, latency, percent, rate};
use crate::event::Operation;

/// A generator whose 99th percentile of lateness reaches this, in microseconds, tells little about latencies of that
/// order.
const LATE_US: u64 = 10_000;
/// From this ratio of response to service time on, waiting dominates, if it also reaches [`WAITING_US`].
const WAITING_RATIO: u64 = 2;
/// The shortest waiting that is worth a hint, in microseconds.
const WAITING_US: u64 = 10_000;
/// How many kinds of failure get a hint of their own.
const FAILURES: usize = 3;

/// The findings of `report`, the most serious first.
pub(super) fn of(report: &Report) -> Vec<Hint> {
    let mut hints = Vec::new();
    hints.extend(lost_shards(report));
    hints.extend(missed_thresholds(report));
    hints.extend(missed_arrivals(report));
    hints.extend(late_generator(report));
    hints.extend(runs_without_end(report));
    hints.extend(throttles(report));
    hints.extend(failures(report));
    hints.extend(waiting(report));
    hints.extend(cut_out(report));
    if report.headline.operation.is_none() {
        let advice = "The files hold no attempt of any operation.";
        hints.push(hint(Weight::Serious, String::from("Nothing was measured"), advice));
    }
    if hints.is_empty() {
        let finding = String::from("Nothing went wrong");
        hints.push(hint(Weight::Fine, finding, "Every attempt was accepted, and none had to wait for long."));
    }
    hints.sort_by_key(|hint| hint.weight);
    hints
}

/// Shards that are missing or ended early: their part of the job was not done.
fn lost_shards(report: &Report) -> Option<Hint> {
    let shards = report.shards.as_ref().filter(|shards| !shards.is_whole())?;
    let advice =
        "The figures are not of the whole job. Name the results of every shard, or run the test again.";
    Some(hint(Weight::Serious, shards.sentences().join("; "), advice))
}

fn hint(weight: Weight, finding: String, advice: impl Into<String>) -> Hint {
    Hint { weight, finding, advice: advice.into() }
}

fn missed_thresholds(report: &Report) -> Option<Hint> {
    let all: Vec<_> = report.judgements().collect();
    let missed: Vec<_> = all.iter().filter(|threshold| !threshold.passed).collect();
    let first = missed.first()?;
    let finding = format!("{} of {} thresholds missed", missed.len(), all.len());
    let advice = format!("The first: {}, measured {}.", first.threshold, first.shown);
    Some(hint(Weight::Serious, finding, advice))
}

fn missed_arrivals(report: &Report) -> Option<Hint> {
    let arrivals = report.arrivals.as_ref().filter(|arrivals| arrivals.counts.missed > 0)?;
    let finding = format!(
        "{} of {} arrivals ({}) were missed",
        count(arrivals.counts.missed),
        count(arrivals.counts.scheduled),
        percent(arrivals.missed_share)
    );
    let advice = "No connection became free for them in time, so nothing was sent. They are in no percentile: \
                  the response times of what was offered are worse than those shown. \
                  Allow more connections with --max-connections, or offer less.";
    Some(hint(Weight::Serious, finding, advice))
}

fn late_generator(report: &Report) -> Option<Hint> {
    let late = report.arrivals.as_ref()?.lateness_us.p99;
    if late < LATE_US {
        return None;
    }
    let finding =
        format!("The load generator itself was up to {} late for 99 % of the arrivals", latency(late));
    let advice = "This machine was too busy to keep its schedule. Run less beside it, or share the load among machines.";
    Some(hint(Weight::Serious, finding, advice))
}

fn runs_without_end(report: &Report) -> Option<Hint> {
    let open: Vec<_> = report.runs.iter().filter(|run| run.end == "no end").map(|run| &*run.file).collect();
    if open.is_empty() {
        return None;
    }
    let advice = "What it measured until then is shown; its slowest attempts and thresholds are not known.";
    Some(hint(Weight::Serious, format!("No end in {}", open.join(", ")), advice))
}

fn throttles(report: &Report) -> Vec<Hint> {
    // A throttled device was throttled in one of its requests, which is reported already.
    let is_request = |operation: &&OperationReport| operation.operation != Operation::Provision.name();
    let throttled = report.operations.iter().filter(|operation| operation.summary.counts.throttled > 0);
    let throttled = throttled.filter(is_request);
    let hint = |operation: &OperationReport| {
        let counts = operation.summary.counts;
        let finding = format!(
            "{} of {} {} requests were throttled",
            count(counts.throttled),
            count(counts.attempts),
            words(&operation.operation)
        );
        let sustained = sustained_per_s(report, &operation.operation);
        let sustained = sustained.map_or(String::new(), |sustained| {
            format!("In the seconds with throttles, {} were accepted, bursts included: the quota is about that, or less. ", rate(sustained))
        });
        hint(Weight::Notable, finding, format!("{sustained}Offer less, or ask AWS for a higher quota."))
    };
    throttled.map(hint).collect()
}

/// The rate accepted in the points with throttles.
fn sustained_per_s(report: &Report, operation: &str) -> Option<f64> {
    let points = report.timeline.points.iter();
    let throttled = points.filter_map(|point| {
        let counts = point.operations.get(operation).filter(|counts| counts.throttled > 0)?;
        Some((counts.accepted, point.seconds))
    });
    let (accepted, seconds) = throttled.fold((0_u64, 0.0), |(sum, time), (accepted, seconds)| {
        (sum.saturating_add(accepted), time + seconds)
    });
    (seconds >= 1.0).then(|| accepted as f64 / seconds)
}

fn failures(report: &Report) -> Vec<Hint> {
    let told =
        report.failures.iter().filter(|failure| failure.cause != "throttled" && !failure.hint.is_empty());
    let hint = |failure: &super::FailureSummary| {
        let finding =
            format!("{} × {} at {}", count(failure.count), words(&failure.cause), words(&failure.stage));
        hint(Weight::Notable, finding, sentence(&failure.hint))
    };
    let mut kinds: Vec<super::FailureSummary> = Vec::new();
    for failure in told {
        let is_same = |kind: &&mut super::FailureSummary| {
            (&kind.stage, &kind.cause, &kind.hint) == (&failure.stage, &failure.cause, &failure.hint)
        };
        match kinds.iter_mut().find(is_same) {
            Some(kind) => kind.count = kind.count.saturating_add(failure.count),
            None => kinds.push(failure.clone()),
        }
    }
    kinds.iter().take(FAILURES).map(hint).collect()
}

fn waiting(report: &Report) -> Option<Hint> {
    let name = report.headline.operation.as_deref()?;
    let operation = report.operation(name)?;
    let (service, response) = (operation.summary.service_us.p99, operation.summary.response_us.p99);
    if response < service.saturating_mul(WAITING_RATIO) || response < service.saturating_add(WAITING_US) {
        return None;
    }
    let finding = format!("Waiting, not the service, makes {} slow", words(name));
    let advice = format!(
        "99 % were answered within {} of being sent, but only within {} of being due: they waited at a rate limit or for a \
         connection.",
        latency(service),
        latency(response)
    );
    Some(hint(Weight::Notable, finding, advice))
}

fn cut_out(report: &Report) -> Option<Hint> {
    if report.cut_out_s <= 0.0 {
        return None;
    }
    let finding = format!("{:.0} s between runs are cut out", report.cut_out_s);
    let advice = "No run was under way in them. Rates are over the time in which one was.";
    Some(hint(Weight::Fine, finding, advice))
}

/// A name as words.
fn words(name: &str) -> String {
    name.replace('_', " ")
}

/// A hint as a sentence.
pub(super) fn sentence(hint: &str) -> String {
    let mut chars = hint.chars();
    let first = chars.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", chars.as_str())
}
