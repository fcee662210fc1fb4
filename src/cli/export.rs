//! `fleetmint export`: keys and certificates as files.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use zeroize::Zeroizing;

use super::exit::{self, Exit, Fatal};
use super::signals;
use super::speech::{self, print, say};
use crate::certificate::Secret;
use crate::event::DeviceState;
use crate::export::{
    self, DEFAULT_NAMESPACE, Entry, ExportError, ExportPlan, ExportSummary, Format, Partition, Progress,
};
use crate::ledger::{Ledger, LedgerError, Problem, RunId, Selection, View};
use crate::sealing::{IdentityError, KeyOpener, OpenError};
use crate::wording::number;

const FORMATS: &str = "\
Examples:
  fleetmint export lot.ledger --out identities
  fleetmint export lot.ledger --format csv --out identities.csv --since-run 2

Formats:
  pem       a folder per device with certificate.pem and private.key; manifest.csv lists them
  der       the same in DER
  pkcs12    a folder per device with device.p12, encrypted with the password in --password-file
  jsonl     one file with a line per device, and FILE.manifest.csv
  csv       the same as CSV
  nvs       as pem, with an nvs.csv in each folder for Espressif's nvs_partition_gen
  mass-mfg  as pem, with config.csv and values.csv for ESP-IDF's mfg_gen.py (--fileid file_id)

A folder has configuration.json too, if the template configures devices. Start Espressif's tools in the exported directory, \
which the paths are relative to.";

/// Write the certificates and keys of a ledger's registered devices to files; a run may be writing the ledger.
#[derive(Debug, clap::Args)]
#[command(after_help = FORMATS)]
pub(super) struct ExportArgs {
    /// The ledger of a provisioning run.
    pub(super) ledger: PathBuf,

    /// Where to write: a new or empty directory; for jsonl and csv, a new file.
    #[arg(long, value_name = "DIR|FILE")]
    pub(super) out: PathBuf,

    /// Open sealed keys with the identities in this age identity file. Repeatable.
    #[arg(long, value_name = "FILE")]
    pub(super) identity: Vec<PathBuf>,

    /// Write sealed keys as they are, as age files.
    #[arg(long, conflicts_with = "identity")]
    pub(super) sealed: bool,

    /// The format to write.
    #[arg(long, value_enum, default_value_t = FormatName::Pem)]
    pub(super) format: FormatName,

    /// Only devices in this state. Repeatable.
    #[arg(long = "state", value_enum, value_name = "STATE", default_values_t = [CertifiedState::Registered])]
    pub(super) states: Vec<CertifiedState>,

    /// Only devices that reached their state in run N or later; `status` lists the runs.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    pub(super) since_run: Option<i64>,

    /// Only the device with this key. Repeatable.
    #[arg(long = "key", value_name = "KEY")]
    pub(super) keys: Vec<String>,

    /// A file whose first line is the password of the files that --format pkcs12 writes.
    #[arg(long, value_name = "FILE", required_if_eq("format", "pkcs12"))]
    pub(super) password_file: Option<PathBuf>,

    /// The NVS namespace of the entries, for nvs and mass-mfg.
    #[arg(long, value_name = "NAME", default_value = DEFAULT_NAMESPACE)]
    pub(super) nvs_namespace: String,

    /// An entry of the image, for nvs and mass-mfg, SOURCE being key, thing_name, certificate_id, device_config, certificate,
    /// private_key or column:COLUMN. Repeatable; by default, each of the first six is written under its own name.
    #[arg(long = "nvs-entry", value_name = "NAME=SOURCE")]
    pub(super) nvs_entries: Vec<Entry>,
}

/// The name of an export's format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum FormatName {
    Pem,
    Der,
    Pkcs12,
    Jsonl,
    Csv,
    Nvs,
    MassMfg,
}

/// A state whose devices may have a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum CertifiedState {
    Registered,
    Issued,
    Unknown,
    Rejected,
}

pub(super) async fn run(args: ExportArgs) -> Result<Exit, Fatal> {
    let stopped = Arc::new(AtomicBool::new(false));
    let told = stopped.clone();
    let mut work = tokio::task::spawn_blocking(move || write(&args, &told));
    let done = tokio::select! {
        done = &mut work => done,
        () = signals::interrupted() => {
            stopped.store(true, Ordering::Relaxed);
            say("stopping: removing what was written");
            work.await
        }
    };
    done.unwrap_or_else(|ended| std::panic::resume_unwind(ended.into_panic()))
}

fn write(args: &ExportArgs, stopped: &AtomicBool) -> Result<Exit, Fatal> {
    if args.out == Path::new("-") {
        return Err(Fatal::new(Exit::Usage, "--out: private keys are never written to stdout; name a file"));
    }
    let (opener, format) = (opener(args)?, format(args)?);
    let view = Ledger::open_read_only(&args.ledger).map_err(exit::ledger)?;
    let bar = progress_bar();
    let watch = |Progress { done, chosen }| {
        bar.set_length(chosen);
        bar.set_position(done);
        if stopped.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let plan =
        ExportPlan { selection: selection(args), format, out: &args.out, opener: &opener, watch: &watch };
    let outcome = export::export(&view, &plan);
    bar.finish_and_clear();
    speech::speak_plainly();
    let summary = outcome.map_err(refused)?;
    record(&view, args, &summary)?;
    print(&format!("{} exported to {}\n", number(summary.exported, "device", "devices"), args.out.display()));
    say_left_out(&plan, &summary);
    Ok(Exit::Complete)
}

/// A progress bar on a terminal, and nothing elsewhere.
fn progress_bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{wide_bar} {pos} of {len} devices, {eta} left");
    let bar = ProgressBar::new(0).with_style(style.expect("the template is valid"));
    bar.enable_steady_tick(Duration::from_millis(200));
    speech::speak_above(&bar);
    bar
}

fn say_left_out(plan: &ExportPlan<'_>, summary: &ExportSummary) {
    let others = summary.left_out - summary.purged;
    if others > 0 && plan.selection == Selection::default() {
        let left = if others == 1 { "was" } else { "were" };
        say(format_args!(
            "{} not registered, and {left} left out",
            number(others, "device is", "devices are")
        ));
    } else if others > 0 {
        let chosen = number(others, "device was", "devices were");
        say(format_args!("{chosen} left out: not chosen, or without a certificate"));
    }
    if summary.purged > 0 {
        let purged = number(summary.purged, "device was", "devices were");
        say(format_args!("{purged} left out, for the private key was purged from the ledger"));
    }
    if plan.selection.states.iter().any(|state| *state != DeviceState::Registered) {
        say("note: only certificates of registered devices are surely good for anything");
    }
}

/// Records the export in the ledger, so that it knows which keys it need not keep. If it cannot be written, it keeps
/// them.
fn record(view: &View, args: &ExportArgs, summary: &ExportSummary) -> Result<(), Fatal> {
    let destination = args.out.canonicalize().unwrap_or_else(|_| args.out.clone());
    let noted = Ledger::reopen_unread(view.path()).and_then(|mut ledger| {
        ledger.record_export(&destination.display().to_string(), &summary.devices, SystemTime::now())?;
        ledger.close()
    });
    match noted {
        Ok(()) => Ok(()),
        Err(LedgerError { problem: Problem::InUse { .. } | Problem::Denied { .. }, .. }) => {
            say(
                "note: the ledger cannot be written now, so it does not know of this export, and purge-keys will keep its keys",
            );
            Ok(())
        }
        Err(error) => {
            let message = format!(
                "the export {} is whole, but the ledger could not write it down, and will not purge its keys: {error}",
                args.out.display()
            );
            Err(Fatal::new(Exit::LedgerUnusable, message))
        }
    }
}

fn opener(args: &ExportArgs) -> Result<KeyOpener, Fatal> {
    if args.sealed {
        return Ok(KeyOpener::pass_sealed_on());
    }
    let mut openers = KeyOpener::plain_only();
    for file in &args.identity {
        let content = read_secret("--identity", file)?;
        openers.add_identities(&content).map_err(|error: IdentityError| {
            Fatal::new(Exit::Usage, format!("--identity: {}: {error}", file.display()))
        })?;
    }
    Ok(openers)
}

fn read_secret(option: &str, file: &Path) -> Result<Zeroizing<Vec<u8>>, Fatal> {
    std::fs::read(file).map(Zeroizing::new).map_err(|error| {
        Fatal::new(Exit::LedgerUnusable, format!("{option}: {} cannot be read: {error}", file.display()))
    })
}

fn selection(args: &ExportArgs) -> Selection {
    let mut states: Vec<DeviceState> = Vec::new();
    for state in args.states.iter().map(|state| state_of(*state)) {
        if !states.contains(&state) {
            states.push(state);
        }
    }
    Selection { states, since_run: args.since_run.map(RunId), keys: args.keys.clone() }
}

fn state_of(state: CertifiedState) -> DeviceState {
    match state {
        CertifiedState::Registered => DeviceState::Registered,
        CertifiedState::Issued => DeviceState::Issued,
        CertifiedState::Unknown => DeviceState::Unknown,
        CertifiedState::Rejected => DeviceState::Rejected,
    }
}

fn format(args: &ExportArgs) -> Result<Format, Fatal> {
    let is_for_image = matches!(args.format, FormatName::Nvs | FormatName::MassMfg);
    if !args.nvs_entries.is_empty() && !is_for_image {
        return Err(Fatal::new(Exit::Usage, "--nvs-entry: is for --format nvs and mass-mfg"));
    }
    let partition = || {
        Partition::new(&args.nvs_namespace, args.nvs_entries.clone()).map_err(|error| {
            let option = if matches!(error, ExportError::NvsName { what: "namespace", .. }) {
                "--nvs-namespace"
            } else {
                "--nvs-entry"
            };
            Fatal::new(Exit::Usage, format!("{option}: {error}"))
        })
    };
    match (args.format, &args.password_file) {
        (FormatName::Pkcs12, Some(file)) => Ok(Format::Pkcs12 { password: password(file)? }),
        (FormatName::Pkcs12, None) => Err(Fatal::new(
            Exit::Usage,
            "--format pkcs12: name the file of the password with --password-file",
        )),
        (_, Some(_)) => Err(Fatal::new(Exit::Usage, "--password-file: is for --format pkcs12")),
        (FormatName::Pem, None) => Ok(Format::Pem),
        (FormatName::Der, None) => Ok(Format::Der),
        (FormatName::Jsonl, None) => Ok(Format::Jsonl),
        (FormatName::Csv, None) => Ok(Format::Csv),
        (FormatName::Nvs, None) => partition().map(Format::Nvs),
        (FormatName::MassMfg, None) => partition().map(Format::MassMfg),
    }
}

/// The first line of the file, without its line end.
fn password(file: &Path) -> Result<Secret<String>, Fatal> {
    let content = read_secret("--password-file", file)?;
    let line = content.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    match std::str::from_utf8(line) {
        Ok(password) if !password.is_empty() => Ok(Secret::new(password.to_owned())),
        _ => {
            let message =
                format!("--password-file: the first line of {} is empty or not UTF-8", file.display());
            Err(Fatal::new(Exit::Usage, message))
        }
    }
}

fn refused(error: ExportError) -> Fatal {
    match error {
        ExportError::Ledger(error) => exit::ledger(error),
        ExportError::NoColumn { .. } => Fatal::new(Exit::Usage, format!("--nvs-entry: {error}")),
        ExportError::NothingChosen { ref ledger, .. } => {
            let message = format!("{error}; `fleetmint status {}` shows where they stand", ledger.display());
            Fatal::new(Exit::LedgerUnusable, message)
        }
        ExportError::Stopped => Fatal::new(Exit::Interrupted, error),
        ExportError::Occupied { .. } => {
            Fatal::new(Exit::LedgerUnusable, format!("{error}; choose another --out"))
        }
        ExportError::Key {
            error: OpenError::NoIdentity { .. } | OpenError::OtherIdentity { .. }, ..
        } => {
            let advice = "--identity FILE opens them; --sealed writes the .age files as they are";
            Fatal::new(Exit::Usage, format!("{error}; {advice}"))
        }
        ExportError::Sealed => {
            Fatal::new(Exit::Usage, format!("{error}; open them with --identity, or choose another --format"))
        }
        error => Fatal::new(Exit::LedgerUnusable, error),
    }
}
