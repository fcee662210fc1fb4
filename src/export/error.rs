//! Why there is no export, in words that say what to do about it. None shows any of a key's text.

use std::io;
use std::path::{Path, PathBuf};

use crate::event::DeviceState;
use crate::ledger::{LedgerError, Selection};
use crate::sealing::OpenError;

/// Why there is no export. Nothing is left of it.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// No device was chosen.
    #[error("nothing to export: {}", nothing_chosen(.ledger, *.devices, .selection))]
    NothingChosen {
        /// The ledger.
        ledger: PathBuf,
        /// How many devices it has.
        devices: u64,
        /// What was asked for.
        selection: Selection,
    },
    /// There is something under that name.
    #[error("{} is there already, and is left as it is; choose another --out", .out.display())]
    Occupied {
        /// The directory or file.
        out: PathBuf,
    },
    /// Another export has begun to write there.
    #[error("another export to {} is running; wait until it has ended, or choose another --out", .out.display())]
    InUse {
        /// The directory or file.
        out: PathBuf,
    },
    /// A value that the format has no room for.
    #[error("{what} of the device with key {key:?} cannot be exported in this format: {why}")]
    Unfit {
        /// The device's key.
        key: String,
        /// Which value.
        what: &'static str,
        /// What about it, without the value.
        why: String,
    },
    /// A name that NVS does not allow.
    #[error("an NVS namespace has 1 to {longest} bytes, printable ASCII without comma and quotes, unlike {found:?}", longest = super::LONGEST_NVS_NAME)]
    Namespace {
        /// The name.
        found: String,
    },
    /// A private key cannot be opened.
    #[error("device {key:?}: {error}")]
    Key {
        /// The device's key.
        key: String,
        /// Why.
        error: OpenError,
    },
    /// Sealed keys cannot be passed on in a format whose tools read them.
    #[error(
        "nvs and mass-mfg are for tools that read the private keys; open them with --identity, or choose another --format"
    )]
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
        /// How many.
        devices: u64,
    },
    /// The operating system failed us.
    #[error("{doing} {}: {source}", .path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// What was said.
        source: io::Error,
    },
    /// The ledger cannot be read.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// Names what was being done, and to what, in an error of the operating system.
pub(super) fn failed(doing: &'static str, path: &Path) -> impl Fn(io::Error) -> ExportError {
    let path = path.to_path_buf();
    move |source| ExportError::Io { doing, path: path.clone(), source }
}

fn nothing_chosen(ledger: &Path, devices: u64, selection: &Selection) -> String {
    let ledger = ledger.display();
    if *selection == Selection::default() {
        return format!("none of the {devices} devices of {ledger} is registered yet; provision them first");
    }
    let states: Vec<_> = selection.states.iter().copied().map(DeviceState::name).collect();
    let since = selection.since_run.map_or(String::new(), |run| format!(" since run {}", run.0));
    let which = if selection.keys.is_empty() { "" } else { " that were named" };
    format!(
        "none of the {devices} devices of {ledger}{which} is {}{since} and has a certificate; \
         `fleetmint status {ledger}` shows where they stand",
        states.join(" or ")
    )
}
