//! `fleetmint verify`: whether every registered device in the account is what it should be.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::Args;
use serde_json::{Value, json};

use super::advice::number;
use super::args::{TargetArgs, timeout};
use super::conduct::{Shown, print_summary};
use super::exit::{Exit, Fatal, ledger as ledger_error};
use super::outputs::Place;
use super::recording;
use super::run_settings;
use super::settings::usage;
use super::speech::{print, say, warn};
use super::target::Site;
use super::tended::{self, Tended};
use crate::aftercare::connect::{Connected, Door, Trial, connect};
use crate::aftercare::verify::{self as verification, DIFFERS, Plan, VERB};
use crate::aftercare::{Ended, Setting};
use crate::certificate::StoredKey;
use crate::control_plane::caller;
use crate::instant;
use crate::ledger::{CertifiedDevice, Finding, Ledger, LedgerError, MadeDevice, Selection, Undone};
use crate::report::{LotReport, LotReportDraft, LotReportHead, render_lot_html, render_lot_report};
use crate::sealing::KeyOpener;

const AFTER: &str = "\
Examples:
  fleetmint verify lot.ledger --profile factory --report lot.html --csv lot.csv
  fleetmint verify lot.ledger --profile factory --connect 5

It only looks: nothing in the account is changed. What was found about each device is kept in the ledger; a run that was stopped
goes on where it stopped, and one that came to its end begins anew. Needs iot:DescribeThing, iot:ListThingPrincipals,
iot:DescribeCertificate, iot:ListPrincipalThings, iot:ListAttachedPolicies and iot:DescribeProvisioningTemplate;
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

    /// Look at every device, also at those that a run before this one, which was stopped, has looked at.
    #[arg(long)]
    pub(super) anew: bool,

    /// Compare with the template body in this file, in place of what the account has.
    #[arg(long, value_name = "FILE")]
    pub(super) template_file: Option<PathBuf>,

    /// Also open a connection with the certificates of N devices, as the devices will, and publish where their policies allow it.
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
    let Tended { mut ledger, site, setting, remarks } =
        tended::open(&args.ledger, args.target, args.template_file.as_deref()).await?;
    let keys = tended::named(&args.only, &ledger)?;
    check_identities(&args.identity, args.connect, &ledger)?;
    let runs = ledger.view().runs().map_err(ledger_error)?;
    let is_whole = keys.is_empty();
    let since = (is_whole && !args.anew).then(|| verification::unfinished(&runs)).flatten();
    let plan = Plan { keys: keys.clone(), since };
    let devices = ledger.view().count_made(&plan.scope()).map_err(ledger_error)?;
    let who = who(&site).await;
    say(format_args!(
        "looking at {} of {} in {} on {site}",
        number(devices, "device", "devices"),
        args.ledger.display(),
        site.region
    ));
    let own = json!({
        "verb": VERB,
        "only": (!is_whole).then_some(keys.len()),
        "connect": args.connect,
        "by": who,
    });
    let settings = Value::Object(run_settings::kept(None, own));
    let run = ledger.begin_run(&settings, SystemTime::now()).map_err(ledger_error)?;
    let doing = Doing { plan: &plan, connect: args.connect, door: site.door(args.timeout), opener: &opener };
    let work = doing.run(ledger, &setting);
    let (ended, mut ledger, tried) =
        tended::attend(work, &setting, devices, "that differ", args.drain_timeout).await;
    let head = head(&args.ledger, &ended, setting.expectation.has_hook(), who, remarks);
    site.close().await;
    tried?;
    let (report, csv) = report(&ledger, head, &keys)?;
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
    Ok(left_so(ended, &report))
}

fn head(
    ledger: &Path,
    ended: &Ended,
    has_hook: bool,
    verified_by: Option<String>,
    remarks: Vec<String>,
) -> LotReportHead {
    LotReportHead {
        tool: recording::tool(),
        ledger: ledger.display().to_string(),
        verified_by,
        host: recording::host(),
        made_at: instant::to_text(SystemTime::now()),
        end: ended.name().to_owned(),
        has_hook,
        remarks,
    }
}

/// The parts of a verification that run while progress is shown.
struct Doing<'a> {
    plan: &'a Plan,
    connect: usize,
    door: Door,
    opener: &'a KeyOpener,
}

impl Doing<'_> {
    async fn run(self, ledger: Ledger, setting: &Setting) -> (Ended, Ledger, Result<(), Fatal>) {
        let Self { plan, connect, door, opener } = self;
        let (ended, mut ledger) = verification::run(plan, ledger, setting).await;
        let tried = match ended {
            Ended::Complete => {
                try_certificates(connect, &plan.keys, &mut ledger, setting, &door, opener).await
            }
            _ => Ok(()),
        };
        (ended, ledger, tried)
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
    let (exit, words) = tended::ended(ended, VERB).unwrap_or_else(|| {
        let exit = if report.counts.differ > 0 { Exit::NotAllRegistered } else { Exit::Complete };
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
    match caller(&site.sts).await {
        Ok(caller) => Some(caller.arn),
        Err(error) => {
            tracing::info!(%error, "STS does not say who asks");
            None
        }
    }
}

/// A lot report from the present ledger.
fn report(
    ledger: &Ledger,
    head: LotReportHead,
    keys: &HashSet<String>,
) -> Result<(LotReport, String), Fatal> {
    const PAGE: usize = 500;
    let view = ledger.view();
    let counts = view.counts().map_err(ledger_error)?;
    let mut draft = LotReportDraft::new(head, view.lot(), &counts);
    let scope = Plan { keys: keys.clone(), since: None }.scope();
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

/// Tries the certificates of `number` devices that were found as they should be, spread over the ledger, and records
/// the outcome of each connection.
async fn try_certificates(
    number: usize,
    keys: &HashSet<String>,
    ledger: &mut Ledger,
    setting: &Setting,
    door: &Door,
    opener: &KeyOpener,
) -> Result<(), Fatal> {
    for chosen in choose(number, keys, ledger)? {
        let (made, device) = read(&chosen, ledger)?;
        let outcome = try_certificate(&device, setting, door, opener).await?;
        let undone = Undone { finding: noted(&made, &outcome), gone: Vec::new() };
        ledger.record_undone(VERB, &[undone], SystemTime::now()).map_err(ledger_error)?;
    }
    Ok(())
}

/// The keys of the devices to try.
fn choose(number: usize, keys: &HashSet<String>, ledger: &Ledger) -> Result<Vec<String>, Fatal> {
    if number == 0 {
        return Ok(Vec::new());
    }
    let view = ledger.view();
    let plan = Plan { keys: keys.clone(), since: None };
    let total = view.count_made(&plan.scope()).map_err(ledger_error)?;
    let every = total.div_ceil(number as u64).max(1);
    let mut devices = view.made_devices(plan.scope()).map_err(ledger_error)?;
    let (mut chosen, mut at) = (Vec::new(), 0_u64);
    loop {
        let page = view.next_made(&mut devices, 500).map_err(ledger_error)?;
        if page.is_empty() {
            return Ok(chosen);
        }
        for device in page {
            let is_due = at.is_multiple_of(every) && chosen.len() < number;
            at += 1;
            if is_due && device.finding.is_some() {
                chosen.push(device.identity.key);
            }
        }
    }
}

/// A device with its key and its latest finding.
fn read(key: &str, ledger: &Ledger) -> Result<(MadeDevice, CertifiedDevice), Fatal> {
    let view = ledger.view();
    let scope = Plan { keys: [key.to_owned()].into(), since: None }.scope();
    let mut devices = view.made_devices(scope).map_err(ledger_error)?;
    let made = view.next_made(&mut devices, 1).map_err(ledger_error)?.pop();
    let mut certified = None;
    let selection = Selection { keys: vec![key.to_owned()], ..Selection::default() };
    view.for_each_certified(&selection, |device| -> Result<(), LedgerError> {
        certified = Some(device);
        Ok(())
    })
    .map_err(ledger_error)?;
    made.zip(certified).ok_or_else(|| Fatal::new(Exit::Bug, format!("the device with key {key} went away")))
}

async fn try_certificate(
    device: &CertifiedDevice,
    setting: &Setting,
    door: &Door,
    opener: &KeyOpener,
) -> Result<Result<Connected, String>, Fatal> {
    let key = match &device.private_key {
        StoredKey::Elsewhere => return Ok(Err(String::from("not tried: its key never was here"))),
        StoredKey::Purged { .. } => return Ok(Err(String::from("not tried: its key was purged"))),
        key => match opener.open(key) {
            Ok(key) => key.text,
            Err(error) => return Err(Fatal::new(Exit::Usage, format!("{error}; --identity FILE opens it"))),
        },
    };
    let thing = device.thing.as_ref().map(|thing| thing.thing_name.as_str()).filter(|name| !name.is_empty());
    let trial = Trial {
        thing,
        certificate_id: device.certificate_id.as_str(),
        certificate: &device.certificate_pem,
        key: &key,
    };
    connect(door, &setting.control_plane, &trial).await.map_err(|error| {
        super::target::asked(
            &error,
            "--connect reads policies: allow it",
            "check --region and --control-endpoint",
        )
    })
}

/// A device's latest finding, with the outcome of its connection added.
fn noted(made: &MadeDevice, outcome: &Result<Connected, String>) -> Finding {
    let last = made.finding.clone();
    let (mut word, mut details) =
        last.map_or((String::new(), json!({})), |last| (last.outcome, last.details));
    let told = match outcome {
        Ok(Connected { client_id, topic: Some(topic) }) => {
            format!("connected as {client_id}, published to {topic}")
        }
        Ok(Connected { client_id, topic: None }) => {
            format!("connected as {client_id}; its policies allow no topic that could be told")
        }
        Err(why) if why.starts_with("not tried") => why.clone(),
        Err(why) => {
            word = String::from(DIFFERS);
            let difference =
                json!({ "kind": "connection", "what": format!("its certificate could not be used: {why}") });
            match details["differences"].as_array_mut() {
                Some(differences) => differences.push(difference),
                None => details["differences"] = json!([difference]),
            }
            String::from("failed")
        }
    };
    details["connected"] = told.into();
    Finding { device: made.id, outcome: word, details }
}
