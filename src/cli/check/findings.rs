//! The findings of a check: one line each, as text and as JSON.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::cli::exit::{Exit, Fatal};
use crate::cli::speech::{say, warn};

/// What was checked, what was found, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(in crate::cli) struct Finding {
    /// The name of the check: stable, for scripts.
    check: &'static str,
    outcome: Outcome,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
    /// The exit code of a run with this problem, if it cannot succeed.
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<u8>,
    #[serde(skip)]
    exit: Option<Exit>,
    /// Whether the cause is refused credentials or a refused signature.
    #[serde(skip)]
    is_refusal: bool,
    /// The check whose problem causes this one.
    #[serde(skip)]
    follows: Option<&'static str>,
}

/// The outcome of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::cli) enum Outcome {
    /// Everything is as it should be.
    Ok,
    /// A run can succeed, but the user should know.
    Warning,
    /// The check could not be carried out.
    Skipped,
    /// A run cannot succeed.
    Wrong,
}

/// All findings, in the order of the checks.
#[derive(Debug, Default)]
pub(in crate::cli) struct Findings(Vec<Finding>);

impl Finding {
    fn new(check: &'static str, outcome: Outcome, found: impl ToString) -> Self {
        Self {
            check,
            outcome,
            found: found.to_string(),
            remedy: None,
            exit_code: None,
            exit: None,
            is_refusal: false,
            follows: None,
        }
    }

    /// A finding that `check` passed.
    pub(in crate::cli) fn ok(check: &'static str, found: impl ToString) -> Self {
        Self::new(check, Outcome::Ok, found)
    }

    /// A finding that a run can succeed despite it.
    pub(in crate::cli) fn warning(check: &'static str, found: impl ToString) -> Self {
        Self::new(check, Outcome::Warning, found)
    }

    /// A finding that `check` could not be carried out.
    pub(in crate::cli) fn skipped(check: &'static str, found: impl ToString) -> Self {
        Self::new(check, Outcome::Skipped, found)
    }

    /// A finding that a run cannot succeed and would exit with `exit`.
    pub(in crate::cli) fn wrong(check: &'static str, exit: Exit, found: impl ToString) -> Self {
        Self { exit: Some(exit), exit_code: Some(exit.code()), ..Self::new(check, Outcome::Wrong, found) }
    }

    /// Adds what to do about it.
    pub(in crate::cli) fn remedy(self, remedy: impl ToString) -> Self {
        Self { remedy: Some(remedy.to_string()).filter(|remedy| !remedy.is_empty()), ..self }
    }

    /// Marks it as caused by refused credentials or a refused signature, which may cause other findings too.
    pub(in crate::cli) fn because_refused(self) -> Self {
        Self { is_refusal: true, ..self }
    }

    /// Marks it as a consequence of what `check` found, if that found a problem.
    pub(in crate::cli) fn follows(self, check: &'static str) -> Self {
        Self { follows: Some(check), ..self }
    }

    /// A finding for an error that would end a run.
    pub(in crate::cli) fn of_fatal(check: &'static str, fatal: &Fatal) -> Self {
        Self::wrong(check, fatal.exit, &fatal.message)
    }

    fn line(&self) -> String {
        let outcome = match self.outcome {
            Outcome::Ok => "ok",
            Outcome::Warning => "warning",
            Outcome::Skipped => "skipped",
            Outcome::Wrong => "wrong",
        };
        format!("{outcome:<8} {:<11} {}", self.check, self.told())
    }

    fn told(&self) -> String {
        match &self.remedy {
            Some(remedy) => format!("{}; {remedy}", self.found),
            None => self.found.clone(),
        }
    }
}

impl Findings {
    pub(in crate::cli) fn add(&mut self, finding: Finding) {
        self.0.push(finding);
    }

    pub(in crate::cli) fn extend(&mut self, findings: impl IntoIterator<Item = Finding>) {
        self.0.extend(findings);
    }

    /// Keeps one line per cause: consequences are dropped, and refused signatures are blamed on the clock if that is wrong, and otherwise on the
    /// credentials.
    pub(in crate::cli) fn settle(&mut self) {
        let is_problem = |finding: &&Finding| matches!(finding.outcome, Outcome::Wrong | Outcome::Warning);
        let problems: Vec<_> = self.0.iter().filter(is_problem).map(|finding| finding.check).collect();
        self.0.retain(|finding| finding.follows.is_none_or(|check| !problems.contains(&check)));
        let is_wrong =
            |check: &str, finding: &Finding| finding.check == check && finding.outcome == Outcome::Wrong;
        let is_of_clock = self.0.iter().any(|finding| is_wrong("clock", finding));
        let refusals = || self.0.iter().filter(|finding| finding.is_refusal);
        let Some(first) = refusals().find(|finding| finding.check != "connection").cloned() else {
            // If only a connection is refused, it may be for its own reasons.
            return self.0.retain(|finding| !(is_of_clock && finding.is_refusal));
        };
        self.0.retain(|finding| !finding.is_refusal && finding.check != "credentials");
        if !is_of_clock {
            self.0.insert(0, Finding { check: "credentials", ..first });
        }
    }

    /// Whether a run could not succeed.
    pub(in crate::cli) fn is_wrong(&self) -> bool {
        self.0.iter().any(|finding| finding.outcome == Outcome::Wrong)
    }

    /// The exit code: refusals take precedence over what is missing, and that over a wrong lot.
    pub(in crate::cli) fn exit(&self) -> Exit {
        let exits: Vec<Exit> = self.0.iter().filter_map(|finding| finding.exit).collect();
        let order = [
            Exit::NotPermitted,
            Exit::Unavailable,
            Exit::LedgerLocked,
            Exit::LedgerUnusable,
            Exit::BadIdentities,
        ];
        let known = order.into_iter().find(|exit| exits.contains(exit));
        known.or(exits.first().copied()).unwrap_or(Exit::Complete)
    }

    /// All findings as text, a line each, and the conclusion.
    pub(in crate::cli) fn text(&self) -> String {
        let mut text: String = self.0.iter().map(|finding| finding.line() + "\n").collect();
        let count = |outcome| self.0.iter().filter(|finding| finding.outcome == outcome).count();
        text += &match (count(Outcome::Wrong), count(Outcome::Warning), count(Outcome::Skipped)) {
            (0, 0, 0) => String::from("nothing is wrong\n"),
            (0, warnings, skipped) => {
                format!("a run can succeed; warnings: {warnings}, not looked at: {skipped}\n")
            }
            (wrong, warnings, skipped) => {
                format!(
                    "a run cannot succeed; wrong: {wrong}, warnings: {warnings}, not looked at: {skipped}\n"
                )
            }
        };
        text
    }

    /// All findings as JSON.
    pub(in crate::cli) fn json(&self) -> String {
        #[derive(Serialize)]
        struct Report<'a> {
            can_succeed: bool,
            exit_code: u8,
            counts: BTreeMap<&'static str, usize>,
            findings: &'a [Finding],
        }
        let count = |outcome| self.0.iter().filter(|finding| finding.outcome == outcome).count();
        let counts = [
            ("ok", count(Outcome::Ok)),
            ("warning", count(Outcome::Warning)),
            ("skipped", count(Outcome::Skipped)),
            ("wrong", count(Outcome::Wrong)),
        ];
        let report = Report {
            can_succeed: !self.is_wrong(),
            exit_code: self.exit().code(),
            counts: counts.into(),
            findings: &self.0,
        };
        serde_json::to_string_pretty(&report).expect("findings are plain data") + "\n"
    }

    /// Reports the problems before a run; an error if the run cannot succeed.
    pub(in crate::cli) fn conclude_before_run(&self) -> Result<(), Fatal> {
        for finding in &self.0 {
            match finding.outcome {
                Outcome::Warning => warn(format_args!("warning: {}: {}", finding.check, finding.told())),
                Outcome::Skipped => {
                    say(format_args!("note: {} was not checked: {}", finding.check, finding.told()))
                }
                Outcome::Ok | Outcome::Wrong => {}
            }
        }
        let wrong = self.0.iter().filter(|finding| finding.outcome == Outcome::Wrong);
        let lines: Vec<_> = wrong.map(|finding| format!("{}: {}", finding.check, finding.told())).collect();
        if lines.is_empty() {
            return Ok(());
        }
        let lines = lines.join("\n       ");
        Err(Fatal::new(
            self.exit(),
            format!("{lines}\n       Nothing was sent. --no-check goes on all the same."),
        ))
    }
}
