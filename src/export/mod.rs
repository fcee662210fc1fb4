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
mod key;
mod lines;
mod manifest;
mod names;
mod nvs;
mod place;

use std::path::Path;

pub use error::ExportError;
pub use nvs::{DEFAULT_NAMESPACE, LONGEST_NAME as LONGEST_NVS_NAME, LONGEST_TEXT as LONGEST_NVS_TEXT};

use crate::certificate::Secret;
use crate::ledger::{CertifiedDevice, Selection, View};
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
}

/// What an export did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExportSummary {
    /// Devices written: all that were chosen.
    pub exported: u64,
    /// Devices left out: all others.
    pub left_out: u64,
}

/// A device as the formats write it.
struct Exported<'a> {
    device: &'a CertifiedDevice,
    /// Its private key in the clear, PEM.
    private_key: &'a Secret<String>,
}

/// Writes the certificates and keys that `plan` asks for.
///
/// # Errors
/// If no device is chosen, or one that was named is not there; if `out` is taken; if a value does not fit the format; if
/// the ledger cannot be read or `out` not be written. Then `out` is as it was.
pub fn export(view: &View, plan: &ExportPlan<'_>) -> Result<ExportSummary, ExportError> {
    let devices = view.lot().devices;
    if view.count_certified(&plan.selection)? == 0 {
        let ledger = view.path().to_path_buf();
        return Err(ExportError::NothingChosen { ledger, devices, selection: plan.selection.clone() });
    }
    view.check_integrity()?;
    let exported = match &plan.format {
        Format::Pem => export_folders(view, plan, Extra::None),
        Format::Nvs { namespace } => export_folders(view, plan, Extra::nvs(namespace)?),
        Format::MassMfg { namespace } => export_folders(view, plan, Extra::mass_mfg(namespace)?),
        Format::Jsonl => export_file(view, plan, Layout::Json),
        Format::Csv => export_file(view, plan, Layout::Table),
    }?;
    Ok(ExportSummary { exported, left_out: devices.saturating_sub(exported) })
}

fn export_folders(view: &View, plan: &ExportPlan<'_>, extra: Extra) -> Result<u64, ExportError> {
    let folder = UnfinishedFolder::begin(plan.out)?;
    let mut folders = Folders::begin(folder.path(), extra)?;
    let exported = for_each(view, &plan.selection, |device| folders.write(device))?;
    folders.finish()?;
    folder.install()?;
    Ok(exported)
}

fn export_file(view: &View, plan: &ExportPlan<'_>, layout: Layout) -> Result<u64, ExportError> {
    let file = UnfinishedFile::begin(plan.out)?;
    let columns = &view.lot().shape.columns;
    let mut lines = Lines::begin(file.content(), columns, layout)?;
    let exported = for_each(view, &plan.selection, |device| lines.write(device))?;
    let written = lines.finish()?;
    manifest::write_of_file(file.manifest(), file.name(), &written, exported)?;
    file.install()?;
    Ok(exported)
}

/// Shows every chosen device to `write`, with its key in the clear, and returns how many they were.
fn for_each(
    view: &View,
    selection: &Selection,
    mut write: impl FnMut(&Exported<'_>) -> Result<(), ExportError>,
) -> Result<u64, ExportError> {
    let mut exported = 0;
    view.for_each_certified(selection, |device| {
        let private_key = key::open(&device.private_key)?;
        write(&Exported { device: &device, private_key: &private_key })?;
        exported += 1;
        Ok::<(), ExportError>(())
    })?;
    Ok(exported)
}

#[cfg(test)]
mod tests;
