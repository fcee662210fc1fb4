//! The run itself: what its results say of it, and what is told at its end.

use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::super::advice;
use super::super::conduct::{Done, Job, Offer, Reins, Shown};
use super::super::exit::{Exit, Fatal, ledger as ledger_error};
use super::super::manner;
use super::super::progress::{Recent, View};
use super::super::prometheus;
use super::super::run_settings;
use super::super::scope::Chosen;
use super::settings::Settings;
use crate::engine::{self, Audience, End, KeySource, Outcome, Plan, Rates, Snapshot};
use crate::event::Operation;
use crate::exposition::Reading;
use crate::ledger::{Counts, Ledger};
use crate::metrics::Slowest;
use crate::provisioning::Topics;
use crate::rate::{Rate, RateLimit};
use crate::report::{self, Summary};
use crate::results::Footer;
use crate::transport::wss::WssConnector;
use crate::wording::number;

/// A run over a lot's open devices.
pub(super) struct Provision {
    pub(super) settings: Settings,
    pub(super) plan: Plan,
    pub(super) connector: WssConnector,
    /// The devices by state before the run.
    pub(super) counts: Counts,
    /// The devices in the run's scope.
    pub(super) chosen: Chosen,
}

impl Job for Provision {
    type Snapshot = Snapshot;

    fn verb(&self) -> &'static str {
        "provision"
    }

    fn settings(&self) -> Map<String, Value> {
        let rate = |limit: RateLimit| limit.fixed().map(Rate::as_per_second);
        let Rates { connect, create, register } = self.plan.rates;
        let mut own = json!({
            "connections": self.settings.connections,
            "connect_per_s": rate(connect),
            "create_per_s": rate(create),
            "register_per_s": rate(register),
            "keys": match self.plan.keys.source {
                KeySource::Service => "aws",
                KeySource::Local(key_type) => key_type.name(),
                KeySource::Device => "csr",
            },
            "timeout_s": self.plan.exchange_timeout.as_secs_f64(),
            "parameters": self.settings.reading.constants,
        });
        if let Some(shard) = self.settings.part.shard {
            own["shard"] = shard.to_string().into();
        }
        run_settings::kept(self.plan.keys.seal_to.as_ref(), own)
    }

    fn offer(&self) -> Offer {
        let Rates { connect, create, register } = self.plan.rates;
        let limits = [
            (Operation::Connect, connect),
            (Operation::CreateCertificate, create),
            (Operation::RegisterThing, register),
        ];
        let limit = |(operation, limit): (Operation, RateLimit)| {
            Some((operation.name().to_owned(), limit.fixed()?.as_per_second()))
        };
        Offer { limits: limits.into_iter().filter_map(limit).collect(), ..Offer::default() }
    }

    fn before(&self) -> Snapshot {
        Snapshot { devices: self.counts, ..Snapshot::default() }
    }

    fn view(&self) -> impl FnMut(&Snapshot) -> View + Send + 'static {
        let (mut recent, rates) = (Recent::default(), self.plan.rates);
        recent.see(Instant::now(), &self.before());
        move |snapshot| {
            recent.see(Instant::now(), snapshot);
            View::of_provision(snapshot, &recent, &rates)
        }
    }

    fn reading(&self) -> impl Fn(&Snapshot) -> Reading + Send + Sync + 'static {
        let rates = self.plan.rates;
        move |snapshot| prometheus::reading(snapshot, &rates)
    }

    async fn run(self, ledger: Option<Ledger>, reins: Reins<Snapshot>) -> Result<Done, Fatal> {
        let Self { settings, plan, connector, counts: before, chosen } = self;
        let ledger = ledger.expect("a lot has a ledger");
        let audience = Audience { progress: reins.progress, intervals: reins.intervals };
        let outcome = engine::run(plan, connector, ledger, reins.stop, audience).await;
        let counts = outcome.ledger.view().counts().map_err(ledger_error)?;
        let exit = Exit::of_run(&outcome, chosen.exit(&before, &counts));
        let Outcome { end, metrics, usage, elapsed, ledger } = outcome;
        let summary = Summary::new(end.name(), elapsed, counts, &metrics).with_usage(&usage);
        let footer = Footer {
            end: end.name().to_owned(),
            detail: end.detail(),
            elapsed_s: elapsed.as_secs_f64(),
            devices: Some(counts.into()),
            thresholds: Vec::new(),
            slowest: Slowest::default(),
            bound: summary.bound.clone(),
            found_per_s: summary.found_per_s(),
        };
        Ok(Done {
            exit,
            kept: serde_json::to_value(&summary).expect("a summary is plain data"),
            summary: Shown::new(report::render(&summary, manner::detail()), &summary),
            footer,
            elapsed,
            words: words(&end, exit, &counts, &settings)
                .into_iter()
                .chain(advice::faster(&usage).filter(|_| exit == Exit::Complete))
                .collect(),
            ledger: (!matches!(end, End::Ledger(_))).then_some(ledger),
        })
    }
}

/// Why the run ended and what to do next.
fn words(end: &End, exit: Exit, counts: &Counts, settings: &Settings) -> Vec<String> {
    let topics = Topics::new(&settings.binding.template);
    let mut words = advice::ended("provision", end, Some(&topics));
    let ledger = settings.ledger.display();
    match exit {
        Exit::Complete => {
            words.push(format!("keys and certificates: fleetmint export {ledger} --out DIR"));
            if counts.open() > 0 {
                words.push(format!(
                    "{} still open: the same command without --limit and --only goes on with the rest",
                    number(counts.open(), "device is", "devices are")
                ));
            }
        }
        _ if counts.open() > 0 => words.push(format!(
            "{} still open; run the same command again to resume (ledger {ledger})",
            number(counts.open(), "device is", "devices are")
        )),
        Exit::NotAllRegistered => {
            words.push(format!("what to do about the others: fleetmint status {ledger}"));
        }
        _ => {}
    }
    words
}
