//! What a check found: one line each, for people and as JSON.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::cli::exit::{Exit, Fatal};
use crate::cli::speech::{say, warn};

/// What was checked, what was found, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(in crate::cli) struct Finding {
    /// What was checked: stable, for scripts.
    check: &'static str,
    outcome: Outcome,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
    /// The exit code of a run that meets it, where that cannot succeed.
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<u8>,
    #[serde(skip)]
    exit: Option<Exit>,
    /// Whether it comes of credentials or of a signature that were refused.
    #[serde(skip)]
    is_refusal: bool,
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::cli) enum Outcome {
    /// It is as it should be.
    Ok,
    /// A run can succeed; somebody should know.
    Warning,
    /// It could not be looked at.
    Skipped,
    /// A run cannot succeed.
    Wrong,
}

/// Everything that a check found, in the order in which it looked.
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
        }
    }

    /// All is well with `check`.
    pub(in crate::cli) fn ok(check: &'static str, found: impl ToString) -> Self {
        Self::new(check, Outcome::Ok, found)
    }

    /// A run can succeed all the same.
    pub(in crate::cli) fn warning(check: &'static str, found: impl ToString) -> Self {
        Self::new(check, Outcome::Warning, found)
    }

    /// It could not be looked at.
    pub(in crate::cli) fn skipped(check: &'static str, found: impl ToString) -> Self {
        Self::new(check, Outcome::Skipped, found)
    }

    /// A run cannot succeed, and would leave the process with `exit`.
    pub(in crate::cli) fn wrong(check: &'static str, exit: Exit, found: impl ToString) -> Self {
        Self { exit: Some(exit), exit_code: Some(exit.code()), ..Self::new(check, Outcome::Wrong, found) }
    }

    /// What to do about it.
    pub(in crate::cli) fn remedy(self, remedy: impl ToString) -> Self {
        Self { remedy: Some(remedy.to_string()).filter(|remedy| !remedy.is_empty()), ..self }
    }

    /// It comes of credentials, or of a signature, that were refused; so may others.
    pub(in crate::cli) fn because_refused(self) -> Self {
        Self { is_refusal: true, ..self }
    }

    /// An error that would end a run, as a finding.
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

    /// Leaves one line of each cause: refused signatures come of a wrong clock, if that is wrong, and otherwise of the credentials.
    pub(in crate::cli) fn settle(&mut self) {
        let is_wrong =
            |check: &str, finding: &Finding| finding.check == check && finding.outcome == Outcome::Wrong;
        let is_of_clock = self.0.iter().any(|finding| is_wrong("clock", finding));
        let refusals = || self.0.iter().filter(|finding| finding.is_refusal);
        let Some(first) = refusals().find(|finding| finding.check != "connection").cloned() else {
            // A connection alone may be refused for reasons of its own.
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

    /// How the process is left: what is refused goes before what is missing, and that before what is wrong with the lot.
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

    /// All of it for people, a line each, and what it comes to.
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

    /// All of it for scripts.
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

    /// Says before a run what is wrong, and no more; an error if it cannot succeed.
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
