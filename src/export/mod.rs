//! From a ledger to files for the factory floor: certificates, private keys, and a manifest of them.
//!
//! Owns the formats, the names of the folders, and that an export is there whole or not at all. Reads the ledger through
//! a view and changes nothing in it. Memory does not grow with the lot: one device at a time is in it.
//!
//! ```text
//! pem        <out>/<key>/{certificate.pem,private.key}
//! nvs        the same, and <out>/<key>/nvs.csv
//! mass-mfg   the same as pem, and <out>/{config.csv,values.csv}
//!            each of these three with <out>/manifest.csv
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
mod place;

use std::path::Path;

pub use error::ExportError;
pub use nvs::{DEFAULT_NAMESPACE, LONGEST_NAME as LONGEST_NVS_NAME, LONGEST_TEXT as LONGEST_NVS_TEXT};

use crate::event::{DeviceId, DeviceState};
use crate::ledger::{CertifiedDevice, Selection, View};
use crate::sealing::{KeyOpener, OpenError, OpenedKey};
use folders::{Extra, Folders};
use lines::{Layout, Lines};
use place::{UnfinishedFile, UnfinishedFolder};

/// What an export looks like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Format {
    /// A folder a device, with its certificate and private key as PEM.
    Pem,
    /// One JSON object a device, a line each.
    Jsonl,
    /// The same as a table.
    Csv,
    /// As [`Format::Pem`], each folder with the CSV that Espressif's NVS partition generator makes an image from.
    Nvs {
        /// The NVS namespace of the entries: 1 to [`LONGEST_NVS_NAME`] bytes.
        namespace: String,
    },
    /// As [`Format::Pem`], with the two files that ESP-IDF's manufacturing utility makes the images of all devices from.
    MassMfg {
        /// The NVS namespace of the entries: 1 to [`LONGEST_NVS_NAME`] bytes.
        namespace: String,
    },
}

/// What to export, and how.
#[derive(Debug, Clone)]
pub struct ExportPlan<'a> {
    /// Which devices.
    pub selection: Selection,
    /// How.
    pub format: Format,
    /// Where to: a new or empty directory, or for [`Format::Jsonl`] and [`Format::Csv`] a new file.
    pub out: &'a Path,
    /// What opens its private keys.
    pub opener: &'a KeyOpener,
}

/// What an export did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportSummary {
    /// Devices written: all that were chosen, and whose keys were not purged.
    pub exported: u64,
    /// Devices left out: all others.
    pub left_out: u64,
    /// Of those, the chosen ones whose keys were purged.
    pub purged: u64,
    /// Which registered ones were written, for the ledger to remember.
    pub devices: Vec<DeviceId>,
}

/// What became of the chosen devices.
#[derive(Default)]
struct Shown {
    exported: u64,
    purged: u64,
    registered: Vec<DeviceId>,
}

/// A device as the formats write it.
struct Exported<'a> {
    device: &'a CertifiedDevice,
    /// Its private key in the clear, PEM; or as it is sealed, where it is passed on so.
    private_key: &'a OpenedKey,
}

/// Writes the certificates and keys that `plan` asks for.
///
/// # Errors
/// If no device is chosen, or one that was named is not there; if a key cannot be opened, or all were purged; if `out` is taken; if a value does not fit the format; if
/// the ledger cannot be read or `out` not be written. Then `out` is as it was.
pub fn export(view: &View, plan: &ExportPlan<'_>) -> Result<ExportSummary, ExportError> {
    let devices = view.lot().devices;
    if view.count_certified(&plan.selection)? == 0 {
        let ledger = view.path().to_path_buf();
        return Err(ExportError::NothingChosen { ledger, devices, selection: plan.selection.clone() });
    }
    view.check_integrity()?;
    let shown = match &plan.format {
        Format::Pem => export_folders(view, plan, Extra::None),
        Format::Nvs { namespace } => export_folders(view, plan, Extra::nvs(namespace)?),
        Format::MassMfg { namespace } => export_folders(view, plan, Extra::mass_mfg(namespace)?),
        Format::Jsonl => export_file(view, plan, Layout::Json),
        Format::Csv => export_file(view, plan, Layout::Table),
    }?;
    let left_out = devices.saturating_sub(shown.exported);
    Ok(ExportSummary { exported: shown.exported, left_out, purged: shown.purged, devices: shown.registered })
}

fn export_folders(view: &View, plan: &ExportPlan<'_>, extra: Extra) -> Result<Shown, ExportError> {
    let folder = UnfinishedFolder::begin(plan.out)?;
    let mut folders = Folders::begin(folder.path(), extra)?;
    let shown = for_each(view, plan, |device| folders.write(device))?;
    folders.finish()?;
    folder.install()?;
    Ok(shown)
}

fn export_file(view: &View, plan: &ExportPlan<'_>, layout: Layout) -> Result<Shown, ExportError> {
    let file = UnfinishedFile::begin(plan.out)?;
    let columns = &view.lot().shape.columns;
    let mut lines = Lines::begin(file.content(), columns, layout)?;
    let shown = for_each(view, plan, |device| lines.write(device))?;
    let written = lines.finish()?;
    manifest::write_of_file(file.manifest(), file.name(), &written, shown.exported)?;
    file.install()?;
    Ok(shown)
}

/// Shows every chosen device to `write`, with its key as the plan's opener gives it.
fn for_each(
    view: &View,
    plan: &ExportPlan<'_>,
    mut write: impl FnMut(&Exported<'_>) -> Result<(), ExportError>,
) -> Result<Shown, ExportError> {
    let mut shown = Shown::default();
    view.for_each_certified(&plan.selection, |device| {
        let private_key = match plan.opener.open(&device.private_key) {
            Err(OpenError::Purged { .. }) => {
                shown.purged += 1;
                return Ok(());
            }
            opened => opened.map_err(|error| ExportError::Key { key: device.key.clone(), error })?,
        };
        write(&Exported { device: &device, private_key: &private_key })?;
        shown.exported += 1;
        if device.state == DeviceState::Registered {
            shown.registered.push(device.id);
        }
        Ok::<(), ExportError>(())
    })?;
    match (shown.exported, shown.purged) {
        (0, devices) => Err(ExportError::AllPurged { ledger: view.path().to_path_buf(), devices }),
        _ => Ok(shown),
    }
}

#[cfg(test)]
mod tests;
