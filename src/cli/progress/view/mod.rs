//! The content of the progress display, from recent figures to lines that fit a terminal.
//!
//! Measures nothing, and knows only a terminal's size.

use std::time::Duration;

use super::canvas::{Size, width};
use super::recent::{self, Recent};
use crate::engine::find::{Doing, FindSnapshot};
use crate::engine::load::{LoadSnapshot, Phase};
use crate::engine::{Rates, Snapshot};
use crate::event::Operation;
use crate::metrics::{LatencyFigures, Metrics};
use crate::rate::RateLimit;
use crate::report::{human_latency, per_second};
use crate::usage::{Bound, Found, Usage};
use crate::wording::number;

/// Whether lines may have colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Colours {
    None,
    Ansi,
}

/// The progress of a run, as displayed.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::cli) struct View {
    /// The unit of the counts: devices.
    pub(super) unit: &'static str,
    /// How many are done.
    pub(super) done: u64,
    /// How many there are in total.
    pub(super) total: u64,
    /// How long the rest will take at the present pace.
    pub(super) eta: Option<Duration>,
    /// The speed and its limits.
    pub(super) pace: Vec<Phrase>,
    /// Latencies of the last seconds.
    pub(super) latencies: Vec<Phrase>,
    /// The present state, such as open connections.
    pub(super) now: Vec<Phrase>,
    /// Throttles and errors.
    pub(super) troubles: Vec<Phrase>,
    /// Whether it is also logged.
    pub(super) is_for_logs: bool,
}

/// A few words that stay together, and their style.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Phrase {
    words: String,
    look: Look,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    Plain,
    Warning,
    Error,
}

/// Lines for a terminal; the first is behind the bar.
#[derive(Debug, PartialEq)]
pub(super) struct Rows {
    /// The bar's width in columns; 0 if there is none.
    pub(super) bar_width: usize,
    /// The lines.
    pub(super) text: String,
}

/// How many kinds of errors are named, the most frequent first.
const NAMED_ERRORS: usize = 3;
/// The most lines, in a terminal that is high enough.
const MOST_ROWS: usize = 16;
/// The order in which the groups (pace, latencies, now, troubles) lose lines if there is no room for all.
const LEAST_MISSED: [usize; 4] = [1, 2, 0, 3];
const NARROWEST_BAR: usize = 6;

impl View {
    /// The progress of a provisioning run.
    pub(in crate::cli) fn of_provision(snapshot: &Snapshot, recent: &Recent, rates: &Rates) -> Self {
        let per_second = recent.done_per_second();
        let open = snapshot.devices.open();
        let seconds = (per_second > 0.0 && open > 0).then(|| (open as f64 / per_second).ceil());
        Self {
            unit: "devices",
            done: recent::done(snapshot),
            total: snapshot.devices.total(),
            eta: seconds.map(|seconds| Duration::from_secs(seconds as u64)),
            pace: pace(recent, rates, &snapshot.usage),
            latencies: latencies(recent),
            now: [
                number(snapshot.connections.into(), "connection", "connections"),
                format!("{} in flight", snapshot.in_flight),
            ]
            .into_iter()
            .chain(bound(&snapshot.usage))
            .map(Phrase::plain)
            .collect(),
            troubles: troubles(snapshot),
            is_for_logs: true,
        }
    }

    /// The progress of a load test. Its figures are those of the last whole seconds.
    pub(in crate::cli) fn of_load(snapshot: &LoadSnapshot) -> Self {
        let phase = match snapshot.phase {
            Phase::Opening => "opening connections",
            Phase::WarmingUp => "warming up",
            Phase::Measuring => "measuring",
            Phase::Ending => "waiting for the last",
        };
        let (at, of) = (snapshot.at.as_secs(), snapshot.of.as_secs().max(1));
        let mut pace = vec![Phrase::plain(String::from(phase))];
        pace.push(Phrase::plain(format!("offered {:.1}/s", snapshot.offered)));
        let (mut latencies, seconds) = (Vec::new(), f64::from(snapshot.recent_seconds.max(1)));
        for operation in Operation::ALL {
            let recent = snapshot.recent.operation(operation);
            if recent.counts.attempts == 0 {
                continue;
            }
            let name = operation.name().replace('_', " ");
            pace.push(Phrase::plain(format!("{name} {:.1}/s", recent.counts.accepted as f64 / seconds)));
            if recent.response.count() > 0 {
                let which = if latencies.is_empty() { "response: " } else { "" };
                latencies.push(latency(&format!("{which}{name}"), recent.response.figures()));
            }
        }
        let mut now = vec![
            Phrase::plain(number(snapshot.connections.into(), "connection", "connections")),
            Phrase::plain(format!("{} in flight", snapshot.in_flight)),
        ];
        if snapshot.waiting > 0 {
            now.push(Phrase { words: format!("{} waiting", snapshot.waiting), look: Look::Warning });
        }
        let missed = snapshot.metrics.arrivals.missed;
        let missed = (missed > 0).then(|| Phrase { words: format!("{missed} missed"), look: Look::Error });
        let lost = snapshot.judgements.iter().filter(|judgement| !judgement.passed);
        let lost = lost.map(|judgement| Phrase {
            words: format!("{} is {}", judgement.threshold, judgement.shown),
            look: Look::Error,
        });
        Self {
            unit: "s",
            done: at.min(of),
            total: of,
            eta: (at < of).then(|| Duration::from_secs(of - at)),
            pace,
            latencies,
            now,
            troubles: missed.into_iter().chain(lost).chain(troubles_of(&snapshot.metrics)).collect(),
            is_for_logs: true,
        }
    }

    /// The progress of a search for a limit: of the current step.
    pub(in crate::cli) fn of_search(snapshot: &FindSnapshot) -> Self {
        let doing = match &snapshot.doing {
            Doing::Nothing => String::from("beginning"),
            Doing::Trying(probe) => format!("step {}: {}", snapshot.steps.len() + 1, per_second(probe.rate)),
            Doing::Issuing(missing) => format!("having {missing} certificates issued for the next step"),
        };
        // A log has the steps; their progress is not worth a line.
        let mut view = Self { is_for_logs: false, ..Self::of_load(&snapshot.load) };
        view.pace.insert(0, Phrase::plain(doing));
        view
    }

    /// The progress of a run through a ledger's devices, some of which deserve attention: how many, and how they are
    /// called.
    pub(in crate::cli) fn of_devices(
        done: u64,
        total: u64,
        per_second: f64,
        under_way: u64,
        (wanting, words): (u64, &str),
    ) -> Self {
        let open = total.saturating_sub(done);
        let seconds = (per_second > 0.0 && open > 0).then(|| (open as f64 / per_second).ceil());
        Self {
            unit: "devices",
            done,
            total,
            eta: seconds.map(|seconds| Duration::from_secs(seconds as u64)),
            pace: vec![Phrase::plain(format!("{per_second:.1}/s"))],
            latencies: Vec::new(),
            now: vec![Phrase::plain(format!("{under_way} under way"))],
            troubles: (wanting > 0)
                .then(|| Phrase { words: format!("{wanting} {words}"), look: Look::Warning })
                .into_iter()
                .collect(),
            is_for_logs: true,
        }
    }

    /// The lines for a terminal of this size.
    pub(super) fn rows(&self, size: Size, colours: Colours) -> Rows {
        // The last column stays free: terminals differ in whether a character there ends the line.
        let columns = size.columns.saturating_sub(1).max(1);
        let most = size.rows.saturating_sub(1).clamp(1, MOST_ROWS);
        let (bar_width, headline) = self.headline(columns);
        let lines_of = |phrases| pack(phrases, columns, colours);
        let mut groups =
            [&self.pace, &self.latencies, &self.now, &self.troubles].map(|group| lines_of(group));
        let mut excess = (1 + groups.iter().map(Vec::len).sum::<usize>()).saturating_sub(most);
        for least in LEAST_MISSED {
            let group = &mut groups[least];
            let dropped = excess.min(group.len());
            group.truncate(group.len() - dropped);
            excess -= dropped;
        }
        let lines: Vec<_> = [headline].into_iter().chain(groups.into_iter().flatten()).collect();
        Rows { bar_width, text: lines.join("\n") }
    }

    /// Everything in one line, for a log, always in the same order.
    pub(super) fn line(&self) -> String {
        let eta = self.eta.map_or(String::from("-"), duration);
        let first = format!("{} of {} {}", self.done, self.total, self.unit);
        let phrases = [&self.latencies, &self.now, &self.troubles].into_iter().flatten();
        let pace = self.pace.iter().map(|phrase| phrase.words.clone());
        let rest = phrases.map(|phrase| phrase.words.clone());
        let parts: Vec<_> =
            [first].into_iter().chain(pace).chain([format!("ETA {eta}")]).chain(rest).collect();
        parts.join(", ")
    }

    /// The width of the bar, and the counts behind it in as many words as there is room for.
    fn headline(&self, columns: usize) -> (usize, String) {
        let percent = (self.done * 100).checked_div(self.total).unwrap_or(100);
        let counts = format!("{}/{}", self.done, self.total);
        let eta = self.eta.map_or(String::new(), |eta| format!("  ETA {}", duration(eta)));
        let forms = [
            format!("{counts} {}  {percent} %{eta}", self.unit),
            format!("{counts} {percent} %{eta}"),
            format!("{counts} {percent} %"),
            counts,
        ];
        // "[bar] " comes before it.
        let room = |form: &String| columns.saturating_sub(width(form) + 1);
        let fitting = forms.iter().find(|form| room(form) >= NARROWEST_BAR);
        match fitting {
            Some(form) => (room(form), form.clone()),
            None => (0, cut(&forms[forms.len() - 1], columns)),
        }
    }
}

impl Phrase {
    fn plain(words: String) -> Self {
        Self { words, look: Look::Plain }
    }

    fn in_colours(&self, words: &str, colours: Colours) -> String {
        match (colours, self.look) {
            (Colours::None, _) | (_, Look::Plain) => words.to_owned(),
            (Colours::Ansi, Look::Warning) => format!("\x1b[33m{words}\x1b[0m"),
            (Colours::Ansi, Look::Error) => format!("\x1b[31m{words}\x1b[0m"),
        }
    }
}

/// Puts phrases on lines, as many on each as fit. One that is wider than a line goes on in the next.
fn pack(phrases: &[Phrase], columns: usize, colours: Colours) -> Vec<String> {
    let parts = phrases.iter().flat_map(|phrase| {
        broken(&phrase.words, columns).into_iter().map(|words| phrase.in_colours(&words, colours))
    });
    joined(parts, ", ", columns)
}

/// Breaks a text at blanks where it is wider than a line; a number stays with its unit.
fn broken(text: &str, columns: usize) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match words.last_mut() {
            Some(number) if number.ends_with(|c: char| c.is_ascii_digit()) => {
                *number += " ";
                *number += word;
            }
            _ => words.push(word.to_owned()),
        }
    }
    joined(words.into_iter(), " ", columns).iter().map(|line| cut(line, columns)).collect()
}

/// Puts parts on lines, as many on each as fit.
fn joined(parts: impl Iterator<Item = String>, between: &str, columns: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for part in parts {
        match lines.last_mut() {
            Some(line) if width(line) + between.len() + width(&part) <= columns => {
                *line += between;
                *line += &part;
            }
            _ => lines.push(part),
        }
    }
    lines
}

fn cut(words: &str, columns: usize) -> String {
    words.chars().take(columns).collect()
}

fn pace(recent: &Recent, rates: &Rates, usage: &Usage) -> Vec<Phrase> {
    let operations = [
        ("last 5 s: register", Operation::RegisterThing, rates.register),
        ("create", Operation::CreateCertificate, rates.create),
    ];
    let found = |operation| usage.limits.iter().find(|limit| limit.operation == operation)?.found;
    let rate = |(name, operation, limit)| {
        rate(name, recent.operation(operation).per_second, limit, found(operation))
    };
    operations.map(rate).into()
}

fn rate(name: &str, rate: f64, limit: RateLimit, found: Option<Found>) -> Phrase {
    Phrase::plain(match (found, limit.fixed()) {
        (Some(Found { rate: limit, by }), _) => format!("{name} {rate:.1}/s of {limit:.1}/s: {by}"),
        (None, Some(limit)) => format!("{name} {rate:.1}/s of {limit}"),
        (None, None) => format!("{name} {rate:.1}/s"),
    })
}

/// What limits the run, if that is clear. How the service's limit is known stands with the rate already.
fn bound(usage: &Usage) -> Option<String> {
    let bound = usage.bound();
    (bound != Bound::Unclear).then(|| format!("bound by {}: {}", bound.name(), bound.brief()))
}

fn latencies(recent: &Recent) -> Vec<Phrase> {
    let operations = [
        ("register", Operation::RegisterThing),
        ("create", Operation::CreateCertificate),
        ("connect", Operation::Connect),
    ];
    let latency = |(name, operation)| Some(latency(name, recent.operation(operation).service?));
    operations.into_iter().filter_map(latency).collect()
}

fn latency(name: &str, figures: LatencyFigures) -> Phrase {
    let [p50, p99] = [figures.p50, figures.p99].map(human_latency);
    Phrase::plain(format!("{name} p50 {p50} p99 {p99}"))
}

fn troubles(snapshot: &Snapshot) -> Vec<Phrase> {
    let mut phrases = troubles_of(&snapshot.metrics);
    let states = [(snapshot.devices.rejected, "rejected"), (snapshot.devices.unknown, "unknown")];
    let states = states.into_iter().filter(|(number, _)| *number > 0);
    let states =
        states.map(|(number, state)| Phrase { words: format!("{number} {state}"), look: Look::Error });
    let after_throttles = phrases.iter().take_while(|phrase| phrase.look == Look::Warning).count();
    phrases.splice(after_throttles..after_throttles, states);
    phrases
}

/// Throttles, and failures by stage and cause.
fn troubles_of(metrics: &Metrics) -> Vec<Phrase> {
    let throttled: u64 =
        Operation::ALL.iter().map(|operation| metrics.operation(*operation).counts.throttled).sum();
    let throttled =
        (throttled > 0).then(|| Phrase { words: format!("{throttled} throttled"), look: Look::Warning });
    let errors = errors(metrics).into_iter().map(|words| Phrase { words, look: Look::Error });
    throttled.into_iter().chain(errors).collect()
}

/// Failures by stage and cause, without throttles, which have their own count.
fn errors(metrics: &Metrics) -> Vec<String> {
    let mut kinds: Vec<_> = metrics.failures.iter().filter(|(_, kind)| !kind.example.is_throttle()).collect();
    kinds.sort_by_key(|(_, kind)| std::cmp::Reverse(kind.count));
    let mut words: Vec<_> = kinds
        .iter()
        .take(NAMED_ERRORS)
        .map(|((stage, cause), kind)| format!("{} x {stage}: {cause}", kind.count).replace('_', " "))
        .collect();
    if let Some(first) = words.first_mut() {
        *first = format!("errors: {first}");
    }
    let others: u64 = kinds.iter().skip(NAMED_ERRORS).map(|(_, kind)| kind.count).sum();
    if others > 0 {
        words.push(number(others, "other", "others"));
    }
    words
}

/// A time in its two largest units: `45s`, `2m 10s`, `3h 12m`, `2d 3h`.
fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h {}m", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

#[cfg(test)]
mod tests;
