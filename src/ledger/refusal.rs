//! What a ledger refuses, and why: names that do not exist, rows that must not change, incomplete sets of shards.

use std::fmt::{self, Write as _};
use std::path::PathBuf;

use super::RunId;
use crate::event::DeviceState;
use crate::shard::Shard;

/// A part of a [`Binding`](super::Binding) that a run must have in common with its ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BoundTo {
    /// The provisioning template.
    Template,
    /// The AWS region.
    Region,
    /// The account.
    Account,
    /// The part of the lot.
    Shard,
}

impl fmt::Display for BoundTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BoundTo::Template => "template",
            BoundTo::Region => "region",
            BoundTo::Account => "account",
            BoundTo::Shard => "shard",
        })
    }
}

/// Something that was asked for by name does not exist. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotThere {
    /// No device has these keys.
    #[error("has no device with key {}", List(.keys))]
    Keys {
        /// The keys; never empty.
        keys: Vec<String>,
    },
    /// A device is not in one of the chosen states.
    #[error("the device with key {} is {}, not {}", Shown(.key), .found.name(), States(.wanted))]
    State {
        /// The device's key.
        key: String,
        /// Its state.
        found: DeviceState,
        /// The chosen states.
        wanted: Vec<DeviceState>,
    },
    /// A device has another certificate than the given one.
    #[error("the device with key {} has another certificate by now; look at it again", Shown(.key))]
    Certificate {
        /// The device's key.
        key: String,
    },
    /// There is no such run yet.
    #[error("has {last} runs so far, none with number {}", .wanted.0)]
    Run {
        /// The requested run.
        wanted: RunId,
        /// The last run; 0 if there was none.
        last: i64,
    },
    /// None of the chosen devices in this state has the cause.
    #[error("no {} device that was chosen has cause {}; the causes of such devices are: {}", .state.name(), Shown(.wanted), .found.join(", "))]
    Cause {
        /// The devices' state.
        state: DeviceState,
        /// The requested cause.
        wanted: String,
        /// The causes that such devices have.
        found: Vec<String>,
    },
}

struct States<'a>(&'a [DeviceState]);

impl fmt::Display for States<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.0.iter().map(|state| state.name()).collect();
        f.write_str(&names.join(" or "))
    }
}

/// Displays the first of a possibly long list of texts.
struct List<'a>(&'a [String]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MOST: usize = 10;
        for (at, text) in self.0.iter().take(MOST).enumerate() {
            write!(f, "{}{}", if at == 0 { "" } else { ", " }, Shown(text))?;
        }
        match self.0.len() {
            ..=MOST => Ok(()),
            more => write!(f, " and {} more", more - MOST),
        }
    }
}

/// Why a row must not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Its device is registered.
    Registered,
    /// Its device may be registered.
    Perhaps,
}

/// A row that must not change, but did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedRow {
    /// The reason.
    pub because: Standing,
    /// Its line, or its previous line if the row is missing.
    pub line: u64,
    /// Its key.
    pub key: String,
    /// The columns that differ, without values, which may be secrets. Empty if the row is missing.
    pub columns: Vec<String>,
}

impl fmt::Display for RefusedRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.columns.is_empty() {
            return write!(f, "the row of key {}, once on line {}, is missing", Shown(&self.key), self.line);
        }
        write!(f, "line {} (key {}) differs in {}", self.line, Shown(&self.key), self.columns.join(", "))
    }
}

/// A lot was refused because its changes affect rows that must not change any more. Nothing was taken over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LotRefusal {
    /// The name of the file that the ledger was made from.
    pub lot: String,
    /// The first of the refused rows.
    pub first: Vec<RefusedRow>,
    /// How many refused rows belong to registered devices.
    pub registered: u64,
    /// How many refused rows belong to devices that may be registered.
    pub perhaps: u64,
}

impl LotRefusal {
    /// How many rows are listed; the others are only counted.
    const NAMED: usize = 20;

    pub(super) fn new(lot: &str) -> Self {
        Self { lot: lot.to_owned(), first: Vec::new(), registered: 0, perhaps: 0 }
    }

    pub(super) fn add(&mut self, row: RefusedRow) {
        match row.because {
            Standing::Registered => self.registered += 1,
            Standing::Perhaps => self.perhaps += 1,
        }
        if self.first.len() < Self::NAMED {
            self.first.push(row);
        }
    }

    /// How many rows were refused.
    pub fn rows(&self) -> u64 {
        self.registered + self.perhaps
    }
}

impl fmt::Display for LotRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |devices: u64, what: &str| {
            let noun = if devices == 1 { "device that is" } else { "devices that are" };
            (devices > 0).then(|| format!("{devices} {noun} {what}"))
        };
        let kinds = [of(self.registered, "registered"), of(self.perhaps, "perhaps registered")];
        let kinds: Vec<_> = kinds.into_iter().flatten().collect();
        write!(f, "the lot differs in the rows of {}, and nothing was taken: ", kinds.join(" and "))?;
        for (at, row) in self.first.iter().enumerate() {
            write!(f, "{}{row}", if at == 0 { "" } else { "; " })?;
        }
        match self.rows() - self.first.len() as u64 {
            0 => {}
            more => write!(f, "; and {more} more")?,
        }
        f.write_str(". Put these rows back as they were")?;
        if self.perhaps > 0 {
            f.write_str(
                "; a run then settles what is perhaps registered, and what is not may change after it",
            )?;
        }
        Ok(())
    }
}

/// Why ledgers cannot be merged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unmergeable {
    /// The ledger is not a shard's.
    #[error("it has the whole lot, and is no shard's; only the ledgers of shards are merged")]
    NotAShard,
    /// The ledger was merged before: a second merged ledger would have the same devices.
    #[error(
        "it was merged into {into}, which goes on in its place; if that one is lost, go on with a backup of it"
    )]
    MergedBefore {
        /// The other ledger.
        into: String,
    },
    /// The ledger is not of the same job as the first one.
    #[error("its {what} is {found}, and that of {} is {wanted}: these are not the shards of one job", .first.display())]
    OtherJob {
        /// What differs.
        what: &'static str,
        /// This ledger's value.
        found: String,
        /// The first ledger's value.
        wanted: String,
        /// The first ledger.
        first: PathBuf,
    },
    /// Two ledgers are of the same shard.
    #[error("it is of shard {shard}, and so is {}: which of the two is right is not guessed", .first.display())]
    Twice {
        /// The shard.
        shard: Shard,
        /// The other ledger.
        first: PathBuf,
    },
    /// Some shards' ledgers were not given.
    #[error("the ledger of {} is missing; name the ledgers of all {} shards", list(.shards), .shards.first().map_or(0, |shard| shard.of))]
    Missing {
        /// The missing shards.
        shards: Vec<Shard>,
    },
    /// A row does not belong to the ledger's shard.
    #[error("its device {} does not belong to shard {shard}", Shown(.key))]
    ForeignRow {
        /// The device's key.
        key: String,
        /// The ledger's shard.
        shard: Shard,
    },
    /// Two devices of different shards have the same thing.
    #[error("its device {} has the thing {}, and so has the device {} of another shard", Shown(.key), Shown(.thing), Shown(.other))]
    SharedThing {
        /// One device's key.
        key: String,
        /// The thing's name.
        thing: String,
        /// The other device's key.
        other: String,
    },
    /// Two devices have the same certificate.
    #[error("the devices {} and {} have one certificate", Shown(.key), Shown(.other))]
    SharedCertificate {
        /// One device's key.
        key: String,
        /// The other device's key.
        other: String,
    },
    /// The rows of all shards together are not those of the lot.
    #[error(
        "the rows of the shards are together not those of the lot that they say they are of; run each shard once more on the same \
         file, then merge"
    )]
    OtherRows,
}

fn list(shards: &[Shard]) -> String {
    const NAMED: usize = 10;
    let mut text = if shards.len() == 1 { String::from("shard ") } else { String::from("shards ") };
    for (at, shard) in shards.iter().take(NAMED).enumerate() {
        let _ = write!(text, "{}{}", if at == 0 { "" } else { ", " }, shard);
    }
    if shards.len() > NAMED {
        let _ = write!(text, " and {} more", shards.len() - NAMED);
    }
    text
}

/// Displays a text from the lot on one line and with limited length.
pub(super) struct Shown<'a>(pub(super) &'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LONGEST: usize = 40;
        write!(f, "\"{}", self.0.chars().take(LONGEST).collect::<String>().escape_debug())?;
        f.write_str(if self.0.chars().nth(LONGEST).is_some() { "…\"" } else { "\"" })
    }
}
