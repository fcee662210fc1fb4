//! How it went, in one sentence that a reader understands who knows nothing else.

use serde::{Deserialize, Serialize};

use super::model::{OperationReport, Point, Report};
use super::wording::{count, latency, length, percent, rate};
use crate::event::Operation;
use crate::metrics::OperationCounts;
use crate::results::Devices;
use crate::schedule::Stage;

/// The verdict on the runs of a report.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Verdict {
    /// What became of the thresholds.
    pub outcome: Outcome,
    /// How it went.
    pub sentence: String,
}

/// What became of the thresholds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// All were held.
    Pass,
    /// At least one was missed.
    Fail,
    /// None was missed, but a part of the job is missing or has no end.
    Incomplete,
    /// There were none.
    #[default]
    NotJudged,
}

impl Outcome {
    /// The word for it, which stands at the top.
    pub fn word(self) -> &'static str {
        match self {
            Outcome::Pass => "PASS",
            Outcome::Fail => "FAIL",
            Outcome::Incomplete => "INCOMPLETE",
            Outcome::NotJudged => "NO THRESHOLDS",
        }
    }
}

/// A stage with a larger share of throttles than this is above what the service holds.
const HELD: f64 = 0.01;

/// The verdict on `report`.
pub(super) fn of(report: &Report) -> Verdict {
    Verdict { outcome: outcome(report), sentence: sentence(report) }
}

fn outcome(report: &Report) -> Outcome {
    let is_cut = report.runs.iter().any(|run| run.end == "no end");
    let is_whole = report.shards.as_ref().is_none_or(|shards| shards.is_whole()) && !is_cut;
    let mut judged = report.judgements().peekable();
    let is_judged = judged.peek().is_some();
    match (judged.all(|judgement| judgement.passed), is_whole) {
        (false, _) => Outcome::Fail,
        (true, false) => Outcome::Incomplete,
        (true, true) if is_judged => Outcome::Pass,
        (true, true) => Outcome::NotJudged,
    }
}

fn sentence(report: &Report) -> String {
    let Some(subject) = report.headline.operation.as_deref().and_then(|name| report.operation(name)) else {
        return String::from("Nothing was measured.");
    };
    if report.runs.first().is_some_and(|run| run.verb == "provision")
        && let Some(devices) = report.devices()
    {
        return provisioned(report, &devices);
    }
    match breaking(report) {
        Some(words) => words,
        None => load(report, subject),
    }
}

fn provisioned(report: &Report, devices: &Devices) -> String {
    let Devices { total, registered, rejected, unknown, unsettled, pending } = *devices;
    let how_many = if registered == total {
        format!("All {} devices are registered", count(total))
    } else {
        format!("{} of {} devices are registered", count(registered), count(total))
    };
    let time = length(report.elapsed_s);
    // Not the headline's operation: a run that did not get that far only made certificates.
    let registrations = report.operation(Operation::RegisterThing.name());
    let pace = match registrations.filter(|registrations| registrations.summary.counts.accepted > 0) {
        None => format!("; nothing was registered in {time}"),
        // A part of a second is no time for a rate.
        Some(_) if report.elapsed_s < 1.0 => format!(", in {time}"),
        Some(registrations) => format!(", {} a second for {time}", bare(registrations.accepted_per_s)),
    };
    let rest =
        [(rejected, "rejected"), (unknown, "unknown"), (unsettled, "unsettled"), (pending, "still to do")];
    let rest = rest.into_iter().filter(|(number, _)| *number > 0);
    let rest: Vec<_> = rest.map(|(number, state)| format!("{} {state}", count(number))).collect();
    let rest = if rest.is_empty() { String::new() } else { format!("; {}", rest.join(", ")) };
    format!("{how_many}{pace}{rest}.")
}

fn load(report: &Report, subject: &OperationReport) -> String {
    let counts = subject.summary.counts;
    let (what, time) = (things(&subject.operation), length(report.elapsed_s));
    let missed = report.arrivals.as_ref().map_or(0, |arrivals| arrivals.counts.missed);
    let missed = match missed {
        0 => String::new(),
        missed => format!("; {} more found no free connection and were not sent", count(missed)),
    };
    if counts.accepted == 0 {
        let how = most(&counts);
        return format!(
            "None of {} {what} was accepted in {time}; most were {how}{missed}.",
            count(counts.attempts)
        );
    }
    let pace = match report.elapsed_s {
        ..1.0 => format!("{} {what} in {time}", count(counts.accepted)),
        _ => format!("{} {what} a second for {time}", bare(subject.accepted_per_s)),
    };
    let within = format!("99 % within {}", latency(subject.summary.response_us.p99).replace(" us", " µs"));
    if counts.accepted == counts.attempts {
        return format!("{pace}, every one accepted, {within}{missed}.");
    }
    let failed = percent(report.headline.failed_share);
    format!(
        "{pace} were accepted, {within}; {failed} of the attempts failed, most of them {}{missed}.",
        most(&counts)
    )
}

/// How most of the failed attempts ended.
fn most(counts: &OperationCounts) -> &'static str {
    let ends = [
        (counts.throttled, "throttled"),
        (counts.rejected, "rejected"),
        (counts.timed_out, "not answered in time"),
        (counts.dropped, "dropped with their connection"),
    ];
    ends.into_iter().max_by_key(|(number, _)| *number).map_or("", |(_, words)| words)
}

/// What the service held, and what it did above: of a profile with several rates.
fn breaking(report: &Report) -> Option<String> {
    let stages = report.stages();
    let name = report.headline.operation.as_deref()?;
    let share = |stage: &Stage| {
        // A point that reaches into another stage has that one's throttles too.
        let is_inside = |point: &&Point| {
            let begins_s = point.second as f64;
            begins_s >= stage.begins_s && begins_s + point.seconds <= stage.ends_s
        };
        let points = report.timeline.points.iter().filter(is_inside);
        let counts = points.filter_map(|point| point.operations.get(name));
        let (throttled, attempts) = counts.fold((0, 0), |(throttled, attempts), counts| {
            (throttled + counts.throttled, attempts + counts.attempts)
        });
        (attempts > 0).then(|| throttled as f64 / attempts as f64)
    };
    let mut levels: Vec<(f64, f64)> =
        stages.iter().filter_map(|stage| Some((stage.rate?, share(stage)?))).collect();
    levels.sort_by(|one, other| one.0.total_cmp(&other.0));
    let (broke, throttled) = *levels.iter().find(|(_, share)| *share > HELD)?;
    let (held, _) = *levels.iter().rev().find(|(rate, share)| *rate < broke && *share <= HELD)?;
    let what = things(name);
    Some(format!(
        "Holds {} {what} a second; above that the service throttles: {} at {}.",
        bare(held),
        percent(throttled),
        rate(broke)
    ))
}

/// A rate without its unit.
fn bare(per_s: f64) -> String {
    rate(per_s).trim_end_matches("/s").to_owned()
}

/// What an operation makes, in the plural.
fn things(operation: &str) -> &'static str {
    match Operation::ALL.into_iter().find(|one| one.name() == operation) {
        Some(Operation::Connect) => "connections",
        Some(Operation::CreateCertificate) => "certificates",
        Some(Operation::RegisterThing) => "registrations",
        Some(Operation::Publish) => "messages",
        Some(Operation::Provision) => "devices",
        None => "attempts",
    }
}
