//! Exports a ledger to files for the factory floor: certificates, private keys, and a manifest.
//!
//! Owns the formats and the names of the folders, and makes an export appear completely or not at all. Reads the
//! ledger through a view and changes nothing in it; a run may be writing it. Works in batches, so memory does not
//! grow with the lot.
//!
//! ```text
//! pem        <out>/<name>/{certificate.pem,private.key}
//! der        <out>/<name>/{certificate.der,private.der}
//! pkcs12     <out>/<name>/device.p12
//! nvs        the same as pem, and <out>/<name>/nvs.csv
//! mass-mfg   the same as pem, and <out>/{config.csv,values.csv}
//!            each of these with configuration.json where the template configures devices, and <out>/manifest.csv,
//!            which says whose <name> is whose
//! jsonl, csv the file <out>, and <out>.manifest.csv
//! ```
//!
//! Files are mode 0600 and folders 0700, and all of it is on the disk before `<out>` has its name.

mod error;
mod files;
mod folders;
mod lines;
mod manifest;
mod names;
mod nvs;
mod pkcs12;
mod place;

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::Path;
use std::thread;

pub use error::ExportError;
pub use nvs::{
    DEFAULT_NAMESPACE, Entry, LONGEST_NAME as LONGEST_NVS_NAME, LONGEST_TEXT as LONGEST_NVS_TEXT, NotAnEntry,
    Partition, Source,
};

use crate::certificate::{Evidence, Flaw, Secret};
use crate::event::{DeviceId, DeviceState};
use crate::ledger::{CertifiedDevice, Selection, View};
use crate::sealing::{KeyForm, KeyOpener, OpenError, OpenedKey};
use folders::{Folder, Folders};
use lines::{Layout, Lines};
use names::Spelling;
use place::{UnfinishedFile, UnfinishedFolder};

/// The format of an export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Format {
    /// A folder per device, with its certificate and private key as PEM.
    Pem,
    /// A folder per device, with its certificate and private key as DER: PKCS #1, SEC 1 or PKCS #8, as in the key's
    /// PEM.
    Der,
    /// A folder per device, with its certificate and private key in one PKCS #12 file.
    Pkcs12 {
        /// The password of the files.
        password: Secret<String>,
    },
    /// One JSON object per device and line.
    Jsonl,
    /// A CSV table with one row per device.
    Csv,
    /// Like [`Format::Pem`], each folder with the CSV for Espressif's NVS partition generator.
    Nvs(Partition),
    /// Like [`Format::Pem`], with the two files from which ESP-IDF's manufacturing utility makes the images of all
    /// devices.
    MassMfg(Partition),
}

/// What to export, and how.
pub struct ExportPlan<'a> {
    /// Which devices.
    pub selection: Selection,
    /// In which format.
    pub format: Format,
    /// Where to: a new or empty directory, or a new file for [`Format::Jsonl`] and [`Format::Csv`].
    pub out: &'a Path,
    /// Opens the private keys.
    pub opener: &'a KeyOpener,
    /// Called with the progress from time to time; ends the export by returning [`ControlFlow::Break`].
    pub watch: &'a dyn Fn(Progress) -> ControlFlow<()>,
}

/// The progress of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// How many devices are done.
    pub done: u64,
    /// How many devices were chosen.
    pub chosen: u64,
}

/// The result of an export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportSummary {
    /// Devices written: the chosen ones whose keys were not purged.
    pub exported: u64,
    /// Devices not written.
    pub left_out: u64,
    /// Chosen devices that were not written because their keys were purged.
    pub purged: u64,
    /// The registered devices that were written, for the ledger to record.
    pub devices: Vec<DeviceId>,
}

/// A device as the formats write it.
struct Exported {
    device: CertifiedDevice,
    /// Its private key, PEM in plain text; or still sealed, if it is passed on sealed.
    private_key: OpenedKey,
    spelling: Spelling,
}

/// Writes the certificates and keys that `plan` asks for.
///
/// # Errors
/// If no device is chosen, or a named one does not exist; if a key cannot be opened, or all were purged; if a
/// certificate, its id and its key do not belong together; if `out` is taken; if a value does not fit the format; if
/// the ledger cannot be read or `out` cannot be written; if `plan.watch` ended the export. In each case `out` is left
/// as it was.
pub fn export(view: &View, plan: &ExportPlan<'_>) -> Result<ExportSummary, ExportError> {
    let devices = view.lot().devices;
    let chosen = view.count_certified(&plan.selection)?;
    if chosen == 0 {
        let ledger = view.path().to_path_buf();
        return Err(ExportError::NothingChosen { ledger, devices, selection: plan.selection.clone() });
    }
    // For a few devices of a large ledger, only what is read is checked, not the whole file.
    if plan.selection.keys.is_empty() {
        view.check_integrity()?;
    }
    let batches = Batches { view, plan, chosen, later: view.later_spellings(&plan.selection.keys)? };
    let summary = match &plan.format {
        Format::Jsonl => batches.to_file(Layout::Json),
        Format::Csv => batches.to_file(Layout::Table),
        _ => batches.to_folders(),
    }?;
    Ok(ExportSummary { left_out: devices.saturating_sub(summary.exported), ..summary })
}

/// The chosen devices, in batches large enough to keep all processors busy.
struct Batches<'a> {
    view: &'a View,
    plan: &'a ExportPlan<'a>,
    chosen: u64,
    /// Devices whose key equals that of an earlier row except for case.
    later: BTreeSet<DeviceId>,
}

/// How many devices a batch has.
const BATCH: usize = 512;

impl Batches<'_> {
    fn to_folders(&self) -> Result<ExportSummary, ExportError> {
        let (format, columns) = (&self.plan.format, &self.view.lot().shape.columns);
        if let Format::Nvs(partition) | Format::MassMfg(partition) = format {
            partition.check_columns(columns)?;
        }
        let unfinished = UnfinishedFolder::begin(self.plan.out)?;
        let root = unfinished.path();
        let mut folders = Folders::begin(root, format)?;
        let summary = self.for_each(
            |exported| Folder::write(root, format, columns, &exported),
            |folder| folders.add(&folder),
        )?;
        folders.finish()?;
        unfinished.install()?;
        Ok(summary)
    }

    fn to_file(&self, layout: Layout) -> Result<ExportSummary, ExportError> {
        let file = UnfinishedFile::begin(self.plan.out)?;
        let mut lines = Lines::begin(file.content(), &self.view.lot().shape.columns, layout)?;
        let summary = self.for_each(Ok, |exported| lines.write(&exported))?;
        let written = lines.finish();
        manifest::write_of_file(file.manifest(), file.name(), &written, summary.exported)?;
        file.install()?;
        Ok(summary)
    }

    /// Calls `make` for every chosen device, on all processors, and takes the results in the ledger's order.
    fn for_each<T: Send>(
        &self,
        make: impl Fn(Exported) -> Result<T, ExportError> + Sync,
        mut take: impl FnMut(T) -> Result<(), ExportError>,
    ) -> Result<ExportSummary, ExportError> {
        let mut summary = ExportSummary { exported: 0, left_out: 0, purged: 0, devices: Vec::new() };
        let (opener, later) = (self.plan.opener, &self.later);
        let mut see_to = |batch: Vec<CertifiedDevice>| {
            let registered: Vec<_> = batch
                .iter()
                .map(|device| (device.state == DeviceState::Registered).then_some(device.id))
                .collect();
            let made = on_all_processors(batch, |device| open(device, opener, later)?.map(&make).transpose());
            for (made, registered) in made.into_iter().zip(registered) {
                match made? {
                    None => summary.purged += 1,
                    Some(made) => {
                        take(made)?;
                        summary.exported += 1;
                        summary.devices.extend(registered);
                    }
                }
            }
            let progress = Progress { done: summary.exported + summary.purged, chosen: self.chosen };
            match (self.plan.watch)(progress) {
                ControlFlow::Continue(()) => Ok(()),
                ControlFlow::Break(()) => Err(ExportError::Stopped),
            }
        };
        let mut batch = Vec::with_capacity(BATCH);
        self.view.for_each_certified(&self.plan.selection, |device| {
            batch.push(device);
            if batch.len() < BATCH { Ok(()) } else { see_to(std::mem::take(&mut batch)) }
        })?;
        see_to(batch)?;
        if summary.exported == 0 {
            let ledger = self.view.path().to_path_buf();
            return Err(ExportError::AllPurged { ledger, devices: summary.purged });
        }
        Ok(summary)
    }
}

/// A device with its key as `opener` returns it; `None` if the key was purged.
fn open(
    device: CertifiedDevice,
    opener: &KeyOpener,
    later: &BTreeSet<DeviceId>,
) -> Result<Option<Exported>, ExportError> {
    let private_key = match opener.open(&device.private_key) {
        Err(OpenError::Purged { .. }) => return Ok(None),
        opened => opened.map_err(|error| ExportError::Key { key: device.key.clone(), error })?,
    };
    check(&device, &private_key)?;
    let spelling = if later.contains(&device.id) { Spelling::Later } else { Spelling::First };
    Ok(Some(Exported { device, private_key, spelling }))
}

/// Refuses a device whose certificate, id and key do not belong together: it could not connect, whatever the cause.
fn check(device: &CertifiedDevice, private_key: &OpenedKey) -> Result<(), ExportError> {
    let unsound = |what: &'static str| {
        let key = device.key.clone();
        move |flaw: Flaw| ExportError::Unsound { key: key.clone(), what, flaw: flaw.to_string() }
    };
    let evidence = Evidence::of(&device.certificate_pem).map_err(unsound("certificate"))?;
    if !evidence.has_id(&device.certificate_id) {
        let flaw = String::from("has another SHA-256 than its id");
        return Err(ExportError::Unsound { key: device.key.clone(), what: "certificate", flaw });
    }
    match private_key.form {
        KeyForm::Pem => evidence.check_key(&private_key.text).map_err(unsound("private key")),
        // A sealed key cannot be checked here.
        KeyForm::Age => Ok(()),
        // The certificate was checked against its request when it arrived.
        KeyForm::Absent => Ok(()),
    }
}

/// Applies `work` to all `items` in parallel; the results are in the items' order.
fn on_all_processors<I: Send, T: Send>(items: Vec<I>, work: impl Fn(I) -> T + Sync) -> Vec<T> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let share = items.len().div_ceil(threads).max(1);
    let mut items = items.into_iter();
    let shares: Vec<Vec<I>> = (0..threads).map(|_| items.by_ref().take(share).collect()).collect();
    let work = &work;
    thread::scope(|scope| {
        let workers: Vec<_> = shares
            .into_iter()
            .map(|share| scope.spawn(move || share.into_iter().map(work).collect::<Vec<_>>()))
            .collect();
        let done = workers
            .into_iter()
            .map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        done.flatten().collect()
    })
}

#[cfg(test)]
mod tests;
