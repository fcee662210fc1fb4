//! The result of a search for a limit, with its evidence: as text and as JSON.
//!
//! Computes nothing: the numbers are the search's.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use super::human_latency;
use crate::event::Operation;
use crate::limit_search::{Breach, Finding, Step, Stopped, Verdict};
use crate::results::Site;
use crate::wording::number;

/// The result of a search for a limit, with its evidence.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LimitReport {
    /// The schema's version: 1.
    pub schema: u32,
    /// The operation that was tried.
    pub operation: &'static str,
    /// The finding.
    pub finding: FindingReport,
    /// The account's quota, if known.
    pub quota: Option<QuotaReport>,
    /// The steps and their outcomes, in order.
    pub steps: Vec<StepReport>,
    /// Certificates that were issued in advance for registrations, and how many requests for one were throttled.
    pub issued_ahead: Option<IssuedAhead>,
    /// How long the search took, in seconds.
    pub elapsed_s: f64,
    /// Where and with what it was searched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<LimitContext>,
}

/// Where and with what a limit was searched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LimitContext {
    /// The program and its version.
    pub tool: String,
    /// The command line.
    pub command: String,
    /// When the search began, RFC 3339.
    pub started_at: String,
    /// Where.
    pub site: Site,
}

/// What a search found.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum FindingReport {
    /// The limit lies between two rates.
    Limit {
        /// The highest rate that was sustained, per second.
        sustainable_per_s: f64,
        /// The lowest rate that was not sustained, per second.
        breaks_at_per_s: f64,
        /// What happened at that lowest rate.
        breach: Breach,
        /// Whether the rate was confirmed: held in a longer step that followed an overload.
        confirmed: bool,
    },
    /// Nothing broke at any rate that was tried.
    NoLimit {
        /// The highest rate that was sustained, per second.
        held_per_s: f64,
        /// Why the search did not go further.
        because: Stopped,
    },
    /// There is no finding.
    Nothing {
        /// The lowest rate that was tried and not sustained, per second.
        broke_at_per_s: Option<f64>,
        /// What happened at that rate.
        breach: Option<Breach>,
        /// Why the search ended.
        because: Option<Stopped>,
    },
}

/// The account's quota.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct QuotaReport {
    /// The quota, per second.
    pub per_s: f64,
    /// Where the figure comes from.
    pub source: String,
}

/// Certificates that were issued in advance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct IssuedAhead {
    /// How many.
    pub accepted: u64,
    /// Requests for a certificate that were throttled.
    pub throttled: u64,
}

/// A step and its outcome.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepReport {
    /// The rate that was offered, per second.
    pub rate_per_s: f64,
    /// How long it was measured, in seconds.
    pub measured_s: f64,
    /// How long it ran before that to settle, in seconds.
    pub settled_s: f64,
    /// The rate at which a burst allowance was used up before the step, per second.
    pub drain_per_s: Option<f64>,
    /// How long the burst allowance was being used up, in seconds.
    pub drain_s: Option<f64>,
    /// Requests that were due while it was measured.
    pub due: u64,
    /// Requests that found no free connection in time.
    pub missed: u64,
    /// Requests that were accepted.
    pub accepted: u64,
    /// Requests accepted per second.
    pub accepted_per_s: f64,
    /// Requests that were refused for their rate (429).
    pub throttled: u64,
    /// Requests that were refused for another reason.
    pub refused: u64,
    /// Requests that were not answered.
    pub silent: u64,
    /// Requests that ended with their connection.
    pub hung_up: u64,
    /// Median time from sending to reply of the accepted requests, in microseconds.
    pub p50_us: u64,
    /// 99th percentile of the time from sending to reply of the accepted requests, in microseconds.
    pub p99_us: u64,
    /// Median delay of the accepted requests between due and sent, in microseconds.
    pub waited_us: u64,
    /// `held`, `not_offered` if this side failed to offer the rate, or how it broke.
    pub verdict: &'static str,
    /// Whether it was repeated before it counted.
    pub looked_twice: bool,
}

impl LimitReport {
    /// Reports the result of a search of `operation`.
    pub fn new(
        operation: Operation,
        finding: Finding,
        steps: &[Step],
        quota: Option<QuotaReport>,
        issued_ahead: Option<IssuedAhead>,
        elapsed: Duration,
    ) -> Self {
        Self {
            schema: 1,
            operation: operation.name(),
            finding: finding.into(),
            quota,
            steps: steps.iter().map(StepReport::from).collect(),
            issued_ahead,
            elapsed_s: elapsed.as_secs_f64(),
            context: None,
        }
    }

    /// The finding in one sentence.
    pub fn sentence(&self) -> String {
        super::hints::sentence(self.finding.words(&self.operation.replace('_', " ")).trim_end())
    }

    /// The report as text, ending in a newline.
    pub fn render(&self) -> String {
        let mut text = self.finding.words(&self.operation.replace('_', " "));
        if let Some(quota) = &self.quota {
            line(
                &mut text,
                format_args!("the account's quota is {}: {}", per_second(quota.per_s), quota.source),
            );
        }
        if let Some(IssuedAhead { accepted, throttled }) = self.issued_ahead {
            let words = format_args!(
                "{} issued ahead, {throttled} of their requests throttled",
                number(accepted, "certificate was", "certificates were")
            );
            line(&mut text, words);
        }
        line(
            &mut text,
            format_args!(
                "\n{:>10}{:>7}{:>13}{:>8}{:>10}{:>10}{:>8}{:>9}{:>9}  result",
                "rate", "for", "burst spent", "due", "accepted", "throttled", "failed", "p50", "p99"
            ),
        );
        for step in &self.steps {
            line(&mut text, step.row());
        }
        line(&mut text, "p50 and p99 are service times: from sending a request to its reply.");
        text
    }
}

fn line(text: &mut String, words: impl std::fmt::Display) {
    writeln!(text, "{words}").expect("a String takes any text");
}

impl FindingReport {
    fn words(&self, operation: &str) -> String {
        match self {
            FindingReport::Limit { sustainable_per_s, breaks_at_per_s, breach, confirmed } => {
                let sure = if *confirmed {
                    "confirmed: held again after an overload"
                } else {
                    "not confirmed: the search ended first"
                };
                format!(
                    "{operation}: {} is sustainable; at {} the service {}; {sure}\n",
                    per_second(*sustainable_per_s),
                    per_second(*breaks_at_per_s),
                    breach_words(*breach),
                )
            }
            FindingReport::NoLimit { held_per_s, because } => format!(
                "{operation}: no limit up to {}; the search ended there: {}\n",
                per_second(*held_per_s),
                because_words(*because)
            ),
            FindingReport::Nothing { broke_at_per_s: Some(rate), breach: Some(breach), .. } => format!(
                "{operation}: no rate was sustainable; even at {} the service {}\n",
                per_second(*rate),
                breach_words(*breach)
            ),
            FindingReport::Nothing { because, .. } => {
                let because = because.unwrap_or(Stopped::Unsteady);
                format!("{operation}: nothing was found: {}\n", because_words(because))
            }
        }
    }
}

fn breach_words(breach: Breach) -> &'static str {
    match breach {
        Breach::Throttled => "throttles (429)",
        Breach::Refused => "refuses requests, without saying that it is for their rate",
        Breach::Silent => "goes silent: no answer, and no word why",
        Breach::HungUp => "ends connections",
        Breach::Slow => "answers more and more slowly",
    }
}

fn because_words(because: Stopped) -> &'static str {
    match because {
        Stopped::MaxRate => "it was to try no higher rate",
        Stopped::Generator => "this machine offered no more: requests found no free connection in time",
        Stopped::Devices => "no devices were left to try with",
        Stopped::Certificates => "certificates were not issued fast enough, so their limit binds first",
        Stopped::Asked => "it was asked to",
        Stopped::Unsteady => "the service did something else at each look",
    }
}

impl From<Finding> for FindingReport {
    fn from(finding: Finding) -> Self {
        match finding {
            Finding::Limit { sustainable, breaks_at, breach, confirmed } => FindingReport::Limit {
                sustainable_per_s: sustainable,
                breaks_at_per_s: breaks_at,
                breach,
                confirmed,
            },
            Finding::NoLimit { held, because } => FindingReport::NoLimit { held_per_s: held, because },
            Finding::Nothing { broke, because } => FindingReport::Nothing {
                broke_at_per_s: broke.map(|(rate, _)| rate),
                breach: broke.map(|(_, breach)| breach),
                because,
            },
        }
    }
}

impl From<&Step> for StepReport {
    fn from(step: &Step) -> Self {
        let (probe, seen) = (&step.probe, &step.observation);
        let us = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        Self {
            rate_per_s: probe.rate,
            measured_s: probe.measure.as_secs_f64(),
            settled_s: probe.settle.as_secs_f64(),
            drain_per_s: probe.drain.map(|(rate, _)| rate),
            drain_s: probe.drain.map(|(_, time)| time.as_secs_f64()),
            due: seen.due,
            missed: seen.missed,
            accepted: seen.accepted,
            accepted_per_s: seen.accepted as f64 / probe.measure.as_secs_f64(),
            throttled: seen.throttled,
            refused: seen.refused,
            silent: seen.silent,
            hung_up: seen.hung_up,
            p50_us: us(seen.p50),
            p99_us: us(seen.p99),
            waited_us: us(seen.waited),
            verdict: match step.verdict {
                Verdict::Held => "held",
                Verdict::Short => "not_offered",
                Verdict::Broke(breach) => breach.name(),
            },
            looked_twice: step.is_doubtful,
        }
    }
}

impl StepReport {
    /// The step's row in the table.
    fn row(&self) -> String {
        let drained = match (self.drain_per_s, self.drain_s) {
            (Some(rate), Some(time)) => format!("{time:.1} s {}", per_second(rate)),
            _ => String::new(),
        };
        let again = if self.looked_twice { "; once more" } else { "" };
        format!(
            "{:>10}{:>7}{drained:>13}{:>8}{:>10}{:>10}{:>8}{:>9}{:>9}  {}{again}",
            per_second(self.rate_per_s),
            format!("{:.0} s", self.measured_s),
            self.due,
            self.accepted,
            self.throttled,
            self.refused + self.silent + self.hung_up,
            human_latency(self.p50_us),
            human_latency(self.p99_us),
            self.verdict.replace('_', " "),
        )
    }
}

/// A step in one line, for progress output.
pub fn step_line(step: &Step) -> String {
    let seen = &step.observation;
    let what = match step.verdict {
        Verdict::Held => String::from("held"),
        Verdict::Short => format!(
            "not offered: {} of {} found no free connection, half waited for up to {}",
            seen.missed,
            seen.due,
            human_latency(seen.waited.as_micros() as u64)
        ),
        Verdict::Broke(Breach::Slow) => format!("slow: p50 {}", human_latency(seen.p50.as_micros() as u64)),
        Verdict::Broke(breach) => {
            let failed = seen.throttled + seen.refused + seen.silent + seen.hung_up;
            format!("{} ({failed} of {})", breach.name().replace('_', " "), seen.due)
        }
    };
    let again = if step.is_doubtful { "; trying it once more" } else { "" };
    format!("{} for {} s: {what}{again}", per_second(step.probe.rate), step.probe.measure.as_secs())
}

/// A rate with four significant digits.
pub fn per_second(rate: f64) -> String {
    let decimals = (3 - rate.max(0.001).log10().floor() as i32).clamp(0, 4) as usize;
    let text = format!("{rate:.decimals$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}/s")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit_search::{Observation, Probe};

    fn report() -> LimitReport {
        let seen = Observation { due: 200, accepted: 160, throttled: 40, ..Observation::default() };
        let probe = Probe {
            rate: 12.5,
            drain: Some((16.0, Duration::from_millis(1_250))),
            settle: Duration::from_millis(1_500),
            measure: Duration::from_secs(16),
        };
        let verdict = Verdict::Broke(Breach::Throttled);
        let step = Step { probe, observation: seen, verdict, is_doubtful: false };
        let finding =
            Finding::Limit { sustainable: 9.85, breaks_at: 10.3, breach: Breach::Throttled, confirmed: true };
        let quota = QuotaReport { per_s: 10.0, source: String::from("applied quota L-B2BBBD8C") };
        let elapsed = Duration::from_secs(100);
        LimitReport::new(Operation::RegisterThing, finding, &[step], Some(quota), None, elapsed)
    }

    #[test]
    fn the_finding_comes_first_then_the_quota_then_the_evidence() {
        assert_eq!(
            report().render(),
            "register thing: 9.85/s is sustainable; at 10.3/s the service throttles (429); confirmed: held again after an overload\n\
             the account's quota is 10/s: applied quota L-B2BBBD8C\n\
             \n\
             \x20     rate    for  burst spent     due  accepted throttled  failed      p50      p99  result\n\
             \x20   12.5/s   16 s   1.2 s 16/s     200       160        40       0     0 us     0 us  throttled\n\
             p50 and p99 are service times: from sending a request to its reply.\n"
        );
    }

    #[test]
    fn the_json_has_what_the_text_has() {
        let json = serde_json::to_value(report()).unwrap();
        assert_eq!(json["finding"]["kind"], "limit");
        assert_eq!(json["finding"]["sustainable_per_s"], 9.85);
        assert_eq!(json["steps"][0]["drain_per_s"], 16.0);
        assert_eq!(json["quota"]["per_s"], 10.0);
    }

    #[test]
    fn each_end_is_put_into_words() {
        let words = |finding: Finding| FindingReport::from(finding).words("connect");
        let no_limit = |because| words(Finding::NoLimit { held: 64.0, because });
        let broke = Some((0.5, Breach::Refused));
        let said = [
            no_limit(Stopped::Generator),
            no_limit(Stopped::Devices),
            words(Finding::Nothing { broke, because: None }),
            words(Finding::Nothing { broke: None, because: Some(Stopped::Asked) }),
        ];
        assert_eq!(
            said,
            [
                "connect: no limit up to 64/s; the search ended there: this machine offered no more: requests found \
                 no free connection in time\n",
                "connect: no limit up to 64/s; the search ended there: no devices were left to try with\n",
                "connect: no rate was sustainable; even at 0.5/s the service refuses requests, without saying that \
                 it is for their rate\n",
                "connect: nothing was found: it was asked to\n"
            ]
        );
    }

    #[test]
    fn rates_have_four_digits() {
        let shown = [0.125, 0.71764, 9.85, 46.295, 394.0, 1_964.8, 10_000.0].map(per_second);
        assert_eq!(shown, ["0.125/s", "0.7176/s", "9.85/s", "46.3/s", "394/s", "1965/s", "10000/s"]);
    }
}
