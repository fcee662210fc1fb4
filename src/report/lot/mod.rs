//! The lot report: what a verification found out about every device, for the records.
//!
//! Owns its contents; `draft` makes it and the CSV, and [`html`](super::html) owns the page.

mod draft;
mod text;

use std::collections::BTreeMap;

use serde::Serialize;

use super::wording::count;

pub use draft::LotReportDraft;
pub use text::render_lot_report;

/// The version of the lot report's schema: raised when a field changes its meaning or is removed, not when one is
/// added.
pub const LOT_REPORT_SCHEMA: u32 = 1;
/// The most exceptions that the page and the JSON list; the CSV has all of them.
pub const MOST_EXCEPTIONS: usize = 1_000;
/// The most devices that the page lists one by one, with their hashes; the CSV has all of them.
pub const MOST_LISTED: usize = 5_000;

/// The origin of a lot report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LotReportHead {
    /// The tool and its version.
    pub tool: String,
    /// The ledger's file, as given.
    pub ledger: String,
    /// The caller's identity according to STS; `None` if STS was not asked.
    pub verified_by: Option<String>,
    /// The machine that ran the verification.
    pub host: Option<String>,
    /// When the report was made, RFC 3339.
    pub made_at: String,
    /// How the verification ended: `complete`, or why it stopped.
    pub end: String,
    /// Whether the template has a pre-provisioning hook.
    pub has_hook: bool,
    /// What could not be queried or compared at all; empty if everything could.
    pub remarks: Vec<String>,
    /// Which of the ledger's devices the report is about.
    pub scope: LotScope,
}

/// Which of a ledger's devices a report is about.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct LotScope {
    /// How many devices were chosen by their keys; `None` for any key.
    pub keys: Option<u64>,
    /// The part of the lot, such as `0/4`; `None` for all of it.
    pub shard: Option<String>,
}

impl LotScope {
    /// The scope in words; `None` if it is the whole lot.
    pub fn said(&self) -> Option<String> {
        let shard = self.shard.as_ref().map(|shard| format!("shard {shard}"));
        let keys = self.keys.map(|keys| match keys {
            1 => String::from("1 device, chosen by its key"),
            _ => format!("{} devices, chosen by their keys", count(keys)),
        });
        let said: Vec<_> = [keys, shard].into_iter().flatten().collect();
        (!said.is_empty()).then(|| said.join(", of "))
    }
}

/// The lot that a report is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LotFacts {
    /// The name of its file.
    pub source: String,
    /// SHA-256 of its content, hexadecimal.
    pub digest: String,
    /// The provisioning template.
    pub template: String,
    /// The region.
    pub region: String,
    /// What identifies the account: the endpoint's host, or `localhost`.
    pub account: String,
    /// When it was imported, RFC 3339.
    pub imported_at: String,
}

/// Devices by outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct LotCounts {
    /// All devices of the ledger.
    pub devices: u64,
    /// Registered devices of the ledger.
    pub registered: u64,
    /// Registered devices that the report is about: the sum of the next four.
    pub chosen: u64,
    /// Registered devices that were checked and found as they should be.
    pub sound: u64,
    /// Registered devices that were checked and found to differ.
    pub differ: u64,
    /// Registered devices in which nothing seems wrong, and of which no value was there to compare with.
    pub not_compared: u64,
    /// Registered devices that were not checked.
    pub not_looked_at: u64,
    /// Registered devices that were checked, except for something that cannot be checked.
    pub partly_checked: u64,
    /// Certificates that were tried by connecting, whatever came of it.
    pub connected: u64,
    /// Devices that the service refused.
    pub rejected: u64,
    /// Devices that may be registered.
    pub unknown: u64,
    /// Devices that are not provisioned yet.
    pub open: u64,
    /// Devices that were removed from the account again.
    pub removed: u64,
}

/// A registered device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LotDevice {
    /// Its key.
    pub key: String,
    /// Its thing; `None` if the template has no thing.
    pub thing_name: Option<String>,
    /// Its certificate's id.
    pub certificate_id: String,
    /// SHA-256 of the DER of the certificate in the ledger, hexadecimal.
    pub certificate_sha256: String,
    /// When the ledger recorded its registration, RFC 3339.
    pub registered_at: String,
    /// When it was last checked, RFC 3339; `None` if never.
    pub verified_at: Option<String>,
    /// What came of it.
    pub result: LotResult,
    /// How it differs from what it should be.
    pub reasons: Vec<String>,
    /// What cannot be checked.
    pub not_checkable: Vec<String>,
    /// The result of connecting with its certificate; `None` if that was not tried.
    pub connected: Option<String>,
}

/// What the verification of a device came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LotResult {
    /// It was not checked.
    NotLookedAt,
    /// It is as it should be.
    Sound,
    /// Nothing seems wrong, and no value was there to compare with.
    NotCompared,
    /// It is not as it should be.
    Differs,
}

impl LotResult {
    fn name(self) -> &'static str {
        match self {
            Self::NotLookedAt => "not looked at",
            Self::Sound => "sound",
            Self::NotCompared => "not compared",
            Self::Differs => "differs",
        }
    }
}

/// A lot report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LotReport {
    /// [`LOT_REPORT_SCHEMA`].
    pub schema: u32,
    /// Its origin.
    pub head: LotReportHead,
    /// The lot.
    pub lot: LotFacts,
    /// The counts.
    pub counts: LotCounts,
    /// When the first and the last device were checked, RFC 3339.
    pub verified_between: Option<[String; 2]>,
    /// How often each kind of difference was found.
    pub differences: BTreeMap<String, u64>,
    /// How often each property could not be checked.
    pub not_checkable: BTreeMap<String, u64>,
    /// Devices that differ: the first [`MOST_EXCEPTIONS`].
    pub exceptions: Vec<LotDevice>,
    /// SHA-256 of the CSV of all devices, hexadecimal; `None` if no CSV was written.
    pub csv_sha256: Option<String>,
    /// The registered devices, if there are at most [`MOST_LISTED`].
    #[serde(skip)]
    pub devices: Vec<LotDevice>,
}

#[cfg(test)]
mod tests;
