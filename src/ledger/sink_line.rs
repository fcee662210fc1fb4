//! The lines of a keys sink: JSON, each with a sum of itself.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Content;
use super::error::Problem;
use super::values::LotInfo;
use crate::certificate::{CertificateId, IssuedCertificate, StoredKey};

/// A line of a sink.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub(super) enum Line {
    /// The lot that the ledger is for, and what it is bound to; the last one counts.
    Lot(LotLine),
    Issued(IssuedLine),
    Registered {
        device: String,
        thing_name: Option<String>,
        device_configuration: BTreeMap<String, Value>,
    },
    /// What was made for the device was taken out of the account.
    Removed {
        device: String,
    },
    /// The line before is incomplete: a crash cut it off, and the ledger has nothing of it.
    CutOff,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LotLine {
    pub(super) source: String,
    pub(super) key_column: String,
    pub(super) template: String,
    pub(super) region: String,
    pub(super) account: String,
    /// Its number and how many there are; `None` for the whole lot.
    pub(super) shard: Option<(u32, u32)>,
    pub(super) content: Option<Content>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct IssuedLine {
    pub(super) device: String,
    pub(super) certificate_id: CertificateId,
    pub(super) certificate: String,
    /// An age file; `None` if the key is elsewhere, or was purged.
    pub(super) private_key: Option<String>,
    pub(super) recipients: Vec<String>,
    pub(super) purged_at: Option<String>,
    pub(super) issued_at: String,
}

impl LotLine {
    pub(super) fn of(lot: &LotInfo) -> Result<Self, Problem> {
        let binding = &lot.binding;
        Ok(Self {
            source: lot.source.clone(),
            key_column: super::import::key_column_name(&lot.shape)?.to_owned(),
            template: binding.template.clone(),
            region: binding.region.clone(),
            account: binding.account.to_string(),
            shard: binding.shard.map(|shard| (shard.index, shard.of)),
            content: binding.content.clone(),
        })
    }
}

impl Line {
    /// The line for a certificate that was issued to the device with this key.
    ///
    /// # Errors
    /// [`Problem::SinkPlainKey`].
    pub(super) fn issued(
        device: String,
        certificate: &IssuedCertificate,
        issued_at: &str,
    ) -> Result<Self, Problem> {
        let (private_key, recipients, purged_at) = match &certificate.private_key {
            StoredKey::Plain(_) => return Err(Problem::SinkPlainKey),
            StoredKey::Sealed(sealed) => (Some(sealed.age.clone()), sealed.recipients.to_vec(), None),
            StoredKey::Elsewhere => (None, Vec::new(), None),
            StoredKey::Purged { at } => (None, Vec::new(), Some(at.clone())),
        };
        Ok(Self::Issued(IssuedLine {
            device,
            certificate_id: certificate.certificate_id.clone(),
            certificate: certificate.certificate_pem.clone(),
            private_key,
            recipients,
            purged_at,
            issued_at: issued_at.to_owned(),
        }))
    }

    /// The line with its line break, for the ledger's commit of this number.
    pub(super) fn text(&self, commit: u64) -> String {
        let line = serde_json::to_string(self).expect("texts are always valid JSON");
        let rest = format!("{commit}{LINE}{line}");
        format!("{SUM}{}{COMMIT}{rest}}}\n", sum(&rest))
    }

    /// Reads a line without its line break, and the number of its commit; `None` if it is damaged or incomplete.
    pub(super) fn read(text: &str) -> Option<(Self, u64)> {
        let (found, rest) = text.strip_prefix(SUM)?.strip_suffix('}')?.split_once(COMMIT)?;
        if found != sum(rest) {
            return None;
        }
        let (commit, line) = rest.split_once(LINE)?;
        Some((serde_json::from_str(line).ok()?, commit.parse().ok()?))
    }
}

const SUM: &str = r#"{"sum":""#;
const COMMIT: &str = r#"","commit":"#;
const LINE: &str = r#","line":"#;

fn sum(line: &str) -> String {
    hex::encode(&digest(&SHA256, line.as_bytes()).as_ref()[..8])
}
