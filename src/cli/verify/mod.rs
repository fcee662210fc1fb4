//! `fleetmint verify`: whether every registered device in the account is what it should be.

mod trials;

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::Args;
use serde_json::{Value, json};

use super::args::{TargetArgs, TypedShard, timeout};
use super::conduct::{Shown, print_summary};
use super::exit::{Exit, Fatal, ledger as ledger_error};
use super::outputs::Place;
use super::recording;
use super::run_settings;
use super::settings::usage;
use super::speech::{print, say, warn};
use super::target::Site;
use super::tended::{self, Opened, Tended};
use crate::aftercare::connect::Door;
use crate::aftercare::verify::{self as verification, Begin, Plan, VERB};
use crate::aftercare::{Ended, Setting};
use crate::control_plane::caller;
use crate::instant;
use crate::ledger::{Ledger, RunId};
use crate::report::{LotReport, LotReportDraft, LotReportHead, LotScope, render_lot_html, render_lot_report};
use crate::sealing::KeyOpener;
use crate::wording::number;
use trials::Trials;

const AFTER: &str = "\
Examples:
  fleetmint verify lot.ledger --profile factory --report lot.html --csv lot.csv
  fleetmint verify lot.ledger --profile factory --connect 5

It only looks: nothing in the account is changed. What was found about each device is kept in the ledger; a run that was stopped \
goes on where it stopped, and one that came to its end begins anew. Needs iot:DescribeThing, iot:ListThingPrincipals, \
iot:DescribeCertificate, iot:ListPrincipalThings, iot:ListAttachedPolicies, iot:DescribeProvisioningTemplate and iot:DescribeEndpoint; \
iot:ListThingGroupsForThing where the template names groups, iot:GetPolicy where it carries policies, and with --connect.";

/// Look at every registered device in the account: whether its thing, certificate and policies are what template and row say.
#[derive(Debug, Args)]
#[command(after_help = AFTER)]
pub(super) struct VerifyArgs {
    /// The ledger of a provisioning run.
    pub(super) ledger: PathBuf,

    #[command(flatten)]
    pub(super) target: TargetArgs,

    /// Look only at the device with this key. Repeatable.
    #[arg(long, value_name = "KEY")]
    pub(super) only: Vec<String>,

    /// Look only at the devices of part I of N, from 0; `auto/N` takes I from the scheduler. Where there is no file LEDGER, the
    /// shard's own ledger is taken, which `provision --shard` has named after it.
    #[arg(long, value_name = "I/N")]
    pub(super) shard: Option<TypedShard>,

    /// Look at every device, also at those that a run before this one, which was stopped, has looked at. One with --anew that was
    /// stopped goes on.
    #[arg(long)]
    pub(super) anew: bool,

    /// Compare with the template body in this file, in place of what the account has.
    #[arg(long, value_name = "FILE")]
    pub(super) template_file: Option<PathBuf>,

    /// Also open a connection with the certificates of N devices whose keys are here, as the devices will, and publish where their
    /// policies allow it.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(super) connect: usize,

    /// Open sealed keys with the identities in this age identity file, for --connect. Repeatable.
    #[arg(long, value_name = "FILE")]
    pub(super) identity: Vec<PathBuf>,

    /// Write the lot report as a page to this file.
    #[arg(long, value_name = "FILE", help_heading = "Results")]
    pub(super) report: Option<PathBuf>,

    /// Write every registered device, with what was found and its certificate's hash, as a table to this file.
    #[arg(long, value_name = "FILE", help_heading = "Results")]
    pub(super) csv: Option<PathBuf>,

    /// Say the result as JSON.
    #[arg(long, help_heading = "Results")]
    pub(super) json: bool,

    /// How long a connection of --connect, and its message, may take.
    #[arg(long, value_name = "TIME", default_value = "20s", value_parser = timeout)]
    pub(super) timeout: Duration,

    /// How long the devices under way may take after the first Ctrl-C or SIGTERM; then the run stops at once.
    #[arg(long, value_name = "TIME", default_value = "25s", value_parser = timeout)]
    pub(super) drain_timeout: Duration,
}

pub(super) async fn run(args: VerifyArgs) -> Result<Exit, Fatal> {
    let page = args.report.clone().map(|file| Place::check("--report", file)).transpose()?;
    let table = args.csv.clone().map(|file| Place::check("--csv", file)).transpose()?;
    let opener = opener(&args.identity)?;
    let Opened { path, shard, tended } =
        tended::open(&args.ledger, args.shard, args.target, args.template_file.as_deref()).await?;
    let Tended { mut ledger, site, setting, remarks } = tended;
    let mut plan = Plan { keys: tended::named(&args.only, &ledger)?, shard, since: None };
    check_identities(&args.identity, args.connect, &ledger)?;
    let begin = if args.anew { Begin::Anew } else { Begin::WhereStopped };
    plan.since = going_on(&plan, begin, &ledger)?;
    let devices = ledger.view().count_made(&plan.scope()).map_err(ledger_error)?;
    let who = who(&site).await;
    say(format_args!(
        "looking at {} of {} in {} on {site}",
        number(devices, "device", "devices"),
        path.display(),
        site.region()
    ));
    let own = json!({
        "verb": VERB,
        "only": (!plan.keys.is_empty()).then_some(plan.keys.len()),
        "shard": scope(&plan),
        "anew": args.anew && plan.since.is_none(),
        "connect": args.connect,
        "by": who,
    });
    let settings = Value::Object(run_settings::kept(None, own));
    let run = ledger.begin_run(&settings, SystemTime::now()).map_err(ledger_error)?;
    let doing = Doing { plan: &plan, connect: args.connect, door: site.door(args.timeout), opener: &opener };
    let work = doing.run(ledger, &setting);
    let Done { ended, mut ledger, trouble } =
        tended::attend(work, &setting, devices, "that are not sound", args.drain_timeout).await;
    let head = LotReportHead {
        tool: recording::tool(),
        ledger: path.display().to_string(),
        verified_by: who,
        host: recording::host(),
        made_at: instant::to_text(SystemTime::now()),
        end: ended.name().to_owned(),
        has_hook: setting.expectation.has_hook(),
        remarks,
        scope: of_report(&plan, &ledger),
    };
    site.close().await;
    let (report, csv) = report(&ledger, head, &plan)?;
    if !matches!(ended, Ended::Ledger(_)) {
        let kept = json!({ "counts": report.counts, "differences": report.differences });
        ledger.end_run(run, ended.name(), &kept, SystemTime::now()).map_err(ledger_error)?;
        ledger.close().map_err(ledger_error)?;
    }
    tell(&report, args.json)?;
    if let Some(page) = page {
        page.write(&render_lot_html(&report))?;
    }
    if let Some(table) = table {
        table.write(&csv)?;
    }
    trouble.map_or(Ok(left_so(ended, &report)), Err)
}

/// The first of the runs that this one goes on with; a verification of some devices by name always begins anew.
fn going_on(plan: &Plan, begin: Begin, ledger: &Ledger) -> Result<Option<RunId>, Fatal> {
    let runs = ledger.view().runs().map_err(ledger_error)?;
    Ok(plan.keys.is_empty().then(|| verification::unfinished(&runs, begin, &scope(plan))).flatten())
}

/// The part of the ledger that is verified, as runs record it.
fn scope(plan: &Plan) -> Value {
    plan.shard.map_or(Value::Null, |shard| shard.to_string().into())
}

/// What part of the lot a report is about.
fn of_report(plan: &Plan, ledger: &Ledger) -> LotScope {
    let shard = plan.shard.or(ledger.view().lot().binding.shard);
    LotScope {
        keys: (!plan.keys.is_empty()).then_some(plan.keys.len() as u64),
        shard: shard.map(|shard| shard.to_string()),
    }
}

/// The parts of a verification that run while progress is shown.
struct Doing<'a> {
    plan: &'a Plan,
    connect: usize,
    door: Door,
    opener: &'a KeyOpener,
}

/// How a verification came to its end.
struct Done {
    ended: Ended,
    ledger: Ledger,
    /// What kept it from trying certificates, besides what `ended` says.
    trouble: Option<Fatal>,
}

impl Doing<'_> {
    async fn run(self, ledger: Ledger, setting: &Setting) -> Done {
        let Self { plan, connect, door, opener } = self;
        let (ended, mut ledger) = verification::run(plan, ledger, setting).await;
        if !matches!(ended, Ended::Complete) {
            return Done { ended, ledger, trouble: None };
        }
        let trials = Trials { plan, setting, door: &door, opener };
        match trials.run(connect, &mut ledger).await {
            Ok(ended) => Done { ended, ledger, trouble: None },
            Err(fatal) => Done { ended: Ended::Stopped, ledger, trouble: Some(fatal) },
        }
    }
}

fn tell(report: &LotReport, as_json: bool) -> Result<(), Fatal> {
    let shown = Shown::new(render_lot_report(report), report);
    if as_json {
        print(&shown.json);
        return Ok(());
    }
    print_summary(None, &shown)
}

/// The exit code; reports why the run ended early, if it did.
fn left_so(ended: Ended, report: &LotReport) -> Exit {
    let (exit, words) = tended::ended(ended, VERB, tended::AGAIN).unwrap_or_else(|| {
        let is_sound = report.counts.differ + report.counts.not_compared == 0;
        let exit = if is_sound { Exit::Complete } else { Exit::NotAllRegistered };
        (exit, Vec::new())
    });
    words.iter().for_each(warn);
    exit
}

/// Checks that the sealed keys to be tried can be opened, before an hour is spent on the rest.
fn check_identities(identities: &[PathBuf], connect: usize, ledger: &Ledger) -> Result<(), Fatal> {
    let content = ledger.view().lot().binding.content.as_ref();
    let is_sealed = content.is_some_and(|content| !content.recipients.is_empty());
    if connect > 0 && is_sealed && identities.is_empty() {
        return Err(usage("--connect", "needs the keys, which are sealed; open them with --identity FILE"));
    }
    Ok(())
}

/// The caller's identity, if STS returns it.
pub(super) async fn who(site: &Site) -> Option<String> {
    match caller(&site.sts()).await {
        Ok(caller) => Some(caller.arn),
        Err(error) => {
            tracing::info!(%error, "STS does not say who asks");
            None
        }
    }
}

/// A lot report from the present ledger.
fn report(ledger: &Ledger, head: LotReportHead, plan: &Plan) -> Result<(LotReport, String), Fatal> {
    const PAGE: usize = 500;
    let view = ledger.view();
    let counts = view.counts().map_err(ledger_error)?;
    let mut draft = LotReportDraft::new(head, view.lot(), &counts);
    let scope = Plan { since: None, ..plan.clone() }.scope();
    let mut devices = view.made_devices(scope).map_err(ledger_error)?;
    loop {
        let page = view.next_made(&mut devices, PAGE).map_err(ledger_error)?;
        if page.is_empty() {
            return Ok(draft.finish());
        }
        page.iter().for_each(|device| draft.add(device));
    }
}

fn opener(identities: &[PathBuf]) -> Result<KeyOpener, Fatal> {
    let mut opener = KeyOpener::plain_only();
    for file in identities {
        let content = std::fs::read(file)
            .map(zeroize::Zeroizing::new)
            .map_err(|error| usage("--identity", format!("{}: {error}", file.display())))?;
        opener
            .add_identities(&content)
            .map_err(|error| usage("--identity", format!("{}: {error}", file.display())))?;
    }
    Ok(opener)
}
