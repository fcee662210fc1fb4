//! Why an export failed, in words that say what to do about it. None shows any part of a key.

use std::io;
use std::path::{Path, PathBuf};

use crate::event::DeviceState;
use crate::ledger::{LedgerError, Selection};
use crate::sealing::OpenError;
use crate::wording::number;

/// Why an export failed. It leaves nothing behind.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// No device was chosen.
    #[error("nothing to export: {}", nothing_chosen(.ledger, *.devices, .selection))]
    NothingChosen {
        /// The ledger.
        ledger: PathBuf,
        /// How many devices it has.
        devices: u64,
        /// The selection that was requested.
        selection: Selection,
    },
    /// The output name is taken.
    #[error("{} is there already, and is left as it is", .out.display())]
    Occupied {
        /// The directory or file.
        out: PathBuf,
    },
    /// Another export is writing there.
    #[error("another export to {} is running; wait until it has ended", .out.display())]
    InUse {
        /// The directory or file.
        out: PathBuf,
    },
    /// A value that does not fit the format.
    #[error("{what} of the device with key {key:?} cannot be exported in this format: {why}")]
    Unfit {
        /// The device's key.
        key: String,
        /// Which value.
        what: String,
        /// Why it does not fit, without the value.
        why: String,
    },
    /// A name that NVS does not allow.
    #[error("an NVS {what} has 1 to {longest} bytes, printable ASCII without comma and quotes, unlike {found:?}", longest = super::LONGEST_NVS_NAME)]
    NvsName {
        /// What the name is for.
        what: &'static str,
        /// The name.
        found: String,
    },
    /// The name of an NVS entry that is already used.
    #[error("an NVS entry {found:?} is there already; choose another name")]
    NvsNameTaken {
        /// The name.
        found: String,
    },
    /// A column that the lot does not have.
    #[error("the lot has no column {found:?}; it has {}", .columns.join(", "))]
    NoColumn {
        /// The column asked for.
        found: String,
        /// The columns that it has.
        columns: Vec<String>,
    },
    /// A certificate or key that is not what it should be.
    #[error(
        "the {what} of the device with key {key:?} {flaw}: the ledger was altered or is damaged, and nothing of it was exported"
    )]
    Unsound {
        /// The device's key.
        key: String,
        /// The certificate, its id or the key.
        what: &'static str,
        /// What is wrong, without its content.
        flaw: String,
    },
    /// A certificate or key that cannot be converted.
    #[error("the {what} of the device with key {key:?} cannot be read, to be written in this format")]
    NotPem {
        /// The device's key.
        key: String,
        /// The certificate or the key.
        what: &'static str,
    },
    /// The cryptographic library failed.
    #[error("the cryptographic library failed")]
    Cryptography,
    /// The export was stopped before it was complete.
    #[error("stopped: nothing was exported, and what had been written was removed")]
    Stopped,
    /// A private key cannot be opened.
    #[error("device {key:?}: {error}")]
    Key {
        /// The device's key.
        key: String,
        /// Why.
        error: OpenError,
    },
    /// Sealed keys cannot be passed on in a format whose tools must read them.
    #[error("pkcs12, nvs and mass-mfg are made of private keys in the clear, and these are sealed")]
    Sealed,
    /// The keys of all chosen devices were purged.
    #[error(
        "nothing to export: the private keys of all {devices} chosen devices were purged from {}, after they had been exported; \
         only those exports have them",
        .ledger.display()
    )]
    AllPurged {
        /// The ledger.
        ledger: PathBuf,
        /// How many devices were chosen.
        devices: u64,
    },
    /// The operating system reported an error.
    #[error("{doing} {}: {source}", .path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The file or directory concerned.
        path: PathBuf,
        /// The error.
        source: io::Error,
    },
    /// The ledger cannot be read.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// Wraps an operating system error with what was being done, and to which path.
pub(super) fn failed(doing: &'static str, path: &Path) -> impl Fn(io::Error) -> ExportError {
    let path = path.to_path_buf();
    move |source| ExportError::Io { doing, path: path.clone(), source }
}

fn nothing_chosen(ledger: &Path, devices: u64, selection: &Selection) -> String {
    let ledger = ledger.display();
    let devices = number(devices, "device", "devices");
    if *selection == Selection::default() {
        return format!("none of the {devices} of {ledger} is registered yet; provision them first");
    }
    let states: Vec<_> = selection.states.iter().copied().map(DeviceState::name).collect();
    let since = selection.since_run.map_or(String::new(), |run| format!(" since run {}", run.0));
    let which = if selection.keys.is_empty() { "" } else { " that were named" };
    format!(
        "none of the {devices} of {ledger}{which} is {}{since} and has a certificate",
        states.join(" or ")
    )
}
