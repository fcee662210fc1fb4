//! `fleetmint cleanup`: removes from the account what was made for a ledger's devices, and nothing else.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};

use super::args::{TargetArgs, TypedShard, timeout};
use super::devices::NO_TEMPLATE;
use super::exit::{Exit, Fatal, ledger as ledger_error};
use super::run_settings;
use super::settings::usage;
use super::speech::{print, say, warn};
use super::target::Site;
use super::tended::{self, Opened, Tended};
use crate::aftercare::cleanup::{self as undoing, Left, Outcome, Plan, Tally, VERB};
use crate::aftercare::{Ended, Expectation, Setting};
use crate::ledger::{Ledger, RunId};
use crate::wording::number;
use crate::wording::plain;

const AFTER: &str = "\
Examples:
  fleetmint cleanup lot.ledger --profile lab
  fleetmint cleanup lot.ledger --profile lab --yes

Without --yes it only looks, and says what it would do. For each device: policies and things are detached from its certificate, the \
certificate is made inactive and deleted, then its thing, and in the end the policies whose document the template carries. A thing is \
deleted only if nothing but this ledger's certificates is attached to it, and its version is that of a new thing; a policy only if \
the template carries its document, and nothing is attached to it any more. Everything else is detached, listed and kept. A device \
whose certificate another client has changed since it was registered is left alone. A run that was stopped, or killed, is finished by \
the same command.";

/// Take a ledger's things, certificates and policies out of the account again; without --yes, say what would be done.
#[derive(Debug, Args)]
#[command(after_help = AFTER)]
pub(super) struct CleanupArgs {
    /// The ledger of a provisioning run or a load test.
    pub(super) ledger: PathBuf,

    #[command(flatten)]
    pub(super) target: TargetArgs,

    /// Do it.
    #[arg(long)]
    pub(super) yes: bool,

    /// Only look, and say what would be done; the default.
    #[arg(long, conflicts_with = "yes")]
    pub(super) dry_run: bool,

    /// Also delete certificates that were issued and never registered. The service deletes those by itself after an hour, unless a
    /// registration has happened that nobody heard of.
    #[arg(long)]
    pub(super) orphans: bool,

    /// Also undo what was made for devices whose certificate another client has changed since.
    #[arg(long)]
    pub(super) changed: bool,

    /// Only the device with this key. Repeatable.
    #[arg(long, value_name = "KEY")]
    pub(super) only: Vec<String>,

    /// Only the devices of part I of N, from 0; `auto/N` takes I from the scheduler. Where there is no file LEDGER, the
    /// shard's own ledger is taken, which `provision --shard` has named after it.
    #[arg(long, value_name = "I/N")]
    pub(super) shard: Option<TypedShard>,

    /// Tell policies by the template body in this file, in place of what the account has.
    #[arg(long, value_name = "FILE")]
    pub(super) template_file: Option<PathBuf>,

    /// Say the result as JSON.
    #[arg(long, help_heading = "Results")]
    pub(super) json: bool,

    /// How long the devices under way may take after the first Ctrl-C or SIGTERM; then the run stops at once.
    #[arg(long, value_name = "TIME", default_value = "25s", value_parser = timeout)]
    pub(super) drain_timeout: Duration,
}

/// The most remaining things that the text lists.
const MOST_SHOWN: usize = 20;

/// The result of a cleanup as JSON.
#[derive(Serialize)]
struct Told<'a> {
    schema: u32,
    ledger: String,
    dry_run: bool,
    end: &'static str,
    tally: &'a Tally,
    left: &'a [Left],
}

pub(super) async fn run(args: CleanupArgs) -> Result<Exit, Fatal> {
    let Opened { path, shard, tended } =
        tended::open(&args.ledger, args.shard, args.target, args.template_file.as_deref()).await?;
    let Tended { ledger, site, setting, .. } = tended;
    let plan = Plan {
        keys: tended::named(&args.only, &ledger)?,
        shard,
        since_run: None,
        orphans: args.orphans,
        changed: args.changed,
        is_rehearsal: !args.yes,
    };
    let devices = ledger.view().count_made(&plan.scope()).map_err(ledger_error)?;
    let doing = if args.yes { "cleaning up after" } else { "looking at what cleanup would do for" };
    say(format_args!(
        "{doing} {} of {} in {} on {site}",
        number(devices, "device", "devices"),
        path.display(),
        site.region()
    ));
    let telling = if args.json { Telling::Json } else { Telling::Text };
    let cleaned = clean(ledger, &setting, &plan, &path, devices, args.drain_timeout, telling).await;
    site.close().await;
    cleaned
}

/// A cleanup after a load test.
pub(super) struct Afterwards {
    path: PathBuf,
    since_run: RunId,
    drain_timeout: Duration,
}

impl Afterwards {
    /// Prepares the cleanup, before the test that uses this ledger.
    ///
    /// # Errors
    /// If the account cannot be queried.
    pub(super) fn new(
        path: &Path,
        ledger: &Ledger,
        site: &Site,
        drain_timeout: Duration,
    ) -> Result<Self, Fatal> {
        if !site.can_ask() {
            let message = "needs AWS credentials: a claim certificate may only provision";
            return Err(usage("--cleanup", message));
        }
        let last = ledger.view().runs().map_err(ledger_error)?.last().map_or(0, |run| run.id);
        Ok(Self { path: path.to_owned(), since_run: RunId(last + 1), drain_timeout })
    }

    /// Cleans up, whatever the outcome of the test.
    pub(super) async fn carry_out(self, site: Site, tested: Result<Exit, Fatal>) -> Result<Exit, Fatal> {
        let exit = match tested {
            Ok(exit) => exit,
            Err(fatal) => {
                site.close().await;
                return Err(fatal);
            }
        };
        let again = by_itself(&self.path);
        let cleaned = self.clean(site).await.map_err(|Fatal { exit, message }| {
            Fatal::new(exit, format!("nothing was cleaned up: {message}; {again} to do so"))
        })?;
        Ok(if exit == Exit::Complete { cleaned } else { exit })
    }

    async fn clean(self, site: Site) -> Result<Exit, Fatal> {
        let cleaned = after(&self.path, Some(self.since_run), &site, None, self.drain_timeout).await;
        site.close().await;
        cleaned
    }
}

/// Removes what the runs of a ledger made, from `since_run` on, certificates that were not registered included.
///
/// # Errors
/// If the ledger or the account cannot be used.
pub(super) async fn after(
    path: &Path,
    since_run: Option<RunId>,
    site: &Site,
    template_file: Option<&Path>,
    drain_timeout: Duration,
) -> Result<Exit, Fatal> {
    let ledger = Ledger::reopen(path).map_err(ledger_error)?;
    tended::check_account(site, &ledger).await?;
    let plan = Plan { orphans: true, since_run, ..Plan::default() };
    let devices = ledger.view().count_made(&plan.scope()).map_err(ledger_error)?;
    let runs = ledger.view().runs().map_err(ledger_error)?;
    let lot = ledger.view().lot();
    let expectation = match lot.binding.template.as_str() {
        NO_TEMPLATE => Expectation::none(),
        _ => tended::expect(site, lot, &runs, template_file).await?.0,
    };
    say(format_args!("cleaning up after {}", number(devices, "device", "devices")));
    let setting = tended::setting(site, expectation);
    clean(ledger, &setting, &plan, path, devices, drain_timeout, Telling::Beside).await
}

/// Where and how the result is reported.
#[derive(Clone, Copy)]
enum Telling {
    Text,
    Json,
    /// On stderr: stdout belongs to the load test.
    Beside,
}

async fn clean(
    mut ledger: Ledger,
    setting: &Setting,
    plan: &Plan,
    path: &Path,
    devices: u64,
    drain_timeout: Duration,
    telling: Telling,
) -> Result<Exit, Fatal> {
    let mut run = None;
    if !plan.is_rehearsal {
        let own = json!({
            "verb": VERB,
            "orphans": plan.orphans,
            "changed": plan.changed,
            "only": plan.keys.len(),
            "shard": plan.shard.map(|shard| shard.to_string()),
        });
        let settings = Value::Object(run_settings::kept(None, own));
        run = Some(ledger.begin_run(&settings, SystemTime::now()).map_err(ledger_error)?);
    }
    let work = undoing::run(plan, ledger, setting);
    let outcome = tended::attend(work, setting, devices, "not all of which goes", drain_timeout).await;
    let Outcome { ended, tally, left, mut ledger } = outcome;
    let end = ended.name();
    if !matches!(ended, Ended::Ledger(_)) {
        if let Some(run) = run {
            ledger.end_run(run, end, &json!({ "tally": tally }), SystemTime::now()).map_err(ledger_error)?;
        }
        ledger.close().map_err(ledger_error)?;
    }
    match telling {
        Telling::Json => {
            let (ledger, dry_run) = (path.display().to_string(), plan.is_rehearsal);
            let told = Told { schema: 1, ledger, dry_run, end, tally: &tally, left: &left };
            print(&(serde_json::to_string_pretty(&told).expect("it is plain data") + "\n"));
        }
        Telling::Text => print(&text(plan, &tally, &left)),
        Telling::Beside => say(text(plan, &tally, &left).trim_end()),
    }
    let again = match telling {
        Telling::Beside => &by_itself(path),
        Telling::Text | Telling::Json => tended::AGAIN,
    };
    let (exit, words) = tended::ended(ended, VERB, again).unwrap_or_else(|| finished(plan, &tally, path));
    words.iter().for_each(warn);
    Ok(exit)
}

/// How to clean up after a load test, which the same command would run again.
fn by_itself(path: &Path) -> String {
    format!("run fleetmint cleanup {} --orphans --yes", path.display())
}

/// What was done, or would be done.
fn text(plan: &Plan, tally: &Tally, left: &[Left]) -> String {
    let Tally { removed, kept, left_alone, certificates, things, policies } = *tally;
    let mut text = format!(
        "{}: {}, {}, {} {}\n",
        number(removed + kept, "device", "devices"),
        number(certificates, "certificate", "certificates"),
        number(things, "thing", "things"),
        number(policies, "policy", "policies"),
        if plan.is_rehearsal { "would be deleted; nothing was" } else { "deleted" },
    );
    if left_alone > 0 {
        text += &format!("{} left alone\n", number(left_alone, "device is", "devices are"));
    }
    for Left { key, what } in left.iter().take(MOST_SHOWN) {
        text += &format!("{}: {what}\n", plain(key));
    }
    if left.len() > MOST_SHOWN {
        text += &format!("… and {} more; --json has them\n", left.len() - MOST_SHOWN);
    }
    text
}

fn finished(plan: &Plan, tally: &Tally, path: &Path) -> (Exit, Vec<String>) {
    let is_all_gone = tally.kept + tally.left_alone == 0;
    let exit = if is_all_gone { Exit::Complete } else { Exit::NotAllRegistered };
    let words = match (plan.is_rehearsal, is_all_gone) {
        (true, _) => vec![format!(
            "this was a rehearsal: the same command with --yes does it (ledger {})",
            path.display()
        )],
        (false, true) => Vec::new(),
        (false, false) => {
            vec![String::from(
                "what was kept may not be this ledger's: look at it in the account, and delete it there if it is",
            )]
        }
    };
    (exit, words)
}
