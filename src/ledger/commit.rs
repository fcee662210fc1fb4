//! Making changes durable.
//!
//! Owns the legal transitions, the search for conflicts, and the receipts, which are only given out after COMMIT.

use std::time::SystemTime;

use rusqlite::{Connection, OptionalExtension, Params, Transaction, TransactionBehavior, params};

use super::error::{LedgerError, Problem};
use super::ids::{KeptId, KnownIds};
use super::keys::{self, KeyColumns};
use super::pem::{CERTIFICATE, Kept};
use super::refusal::Shown;
use super::rows::{Found, find_device, find_key, registration_name};
use super::schema::Digests;
use super::sink_line::Line;
use super::sql::write_one;
use super::values::LotInfo;
use super::{Ledger, Recorded, RunId, instant, schema};
use crate::certificate::{
    CertificateId, IssuedCertificate, PreparedKey, RegisteredThing, SigningRequest, StoredKey,
};
use crate::event::{Change, DeviceId, DeviceState, Registration};
use crate::failure::Failure;

/// The outcome of a change.
#[derive(Debug)]
pub enum Receipt {
    /// The device's own key is durable, and its request may be sent from here on. The receipt for
    /// [`Change::KeyPrepared`], and for [`Change::TokenLapsed`] if the device has such a key.
    KeyPrepared(Recorded<SigningRequest>),
    /// The certificate is durable, and may be registered from here on.
    Issued(Recorded<IssuedCertificate>),
    /// Any other change is durable.
    Done,
    /// Nothing was written, because what the service returned belongs to another device or to an earlier certificate.
    Conflict(Conflict),
}

/// The service gave out the same thing twice.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{contested}, given to device number {}, is already that of the device with key {}", .device.0, Shown(.holder))]
pub struct Conflict {
    /// The device that received it now.
    pub device: DeviceId,
    /// What it received.
    pub contested: Contested,
    /// The key of the device that already has it: the same device, if the service repeated one of its own certificates.
    pub holder: String,
}

/// What can be given out twice.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Contested {
    /// A certificate.
    #[error("certificate {0}")]
    Certificate(CertificateId),
    /// A thing name.
    #[error("thing {0}")]
    Thing(String),
}

/// The outcome of a change before COMMIT, which turns into a receipt.
pub(super) enum Written {
    KeyPrepared(SigningRequest),
    Issued(IssuedCertificate),
    Done,
    Conflict(Conflict),
}

/// The time and the run of a change.
pub(super) struct Stamp {
    pub(super) at: String,
    pub(super) run: Option<i64>,
}

impl Ledger {
    /// Makes `changes` durable together. Returns their receipts in the same order, as proof.
    ///
    /// A change in conflict is left out, and the others are written; see [`Receipt::Conflict`]. An Issued device is
    /// recorded as possibly registered, so that a crash right after this is read that way; [`Change::Left`] may correct
    /// that. `now` becomes the time of each change.
    ///
    /// # Errors
    /// If a device's state does not permit its change, or a change has a plain key for a ledger whose keys are sealed:
    /// nothing is written, and the ledger remains usable. If writing fails, it is not known what is durable, and every
    /// further write is refused until the ledger is reopened.
    pub fn commit(&mut self, changes: Vec<Change>, now: SystemTime) -> Result<Vec<Receipt>, LedgerError> {
        let stamp = Stamp { at: instant::to_text(now), run: self.run.map(|RunId(id)| id) };
        self.view.named(changes.iter().try_for_each(|change| refuse_plain_key(self.view.lot(), change)))?;
        if changes.iter().any(|change| matches!(change, Change::Issued { .. } | Change::Certified { .. })) {
            if self.known.is_none() {
                self.open_sink(now)?;
            }
            self.load_known_ids()?;
        }
        let mut known = self.known.take();
        let written = self.write_to_sink_first(Digests::ByStatement, |transaction, lines| {
            let mut batch = Batch { connection: transaction, stamp: &stamp, known: &mut known, lines };
            changes.into_iter().map(|change| batch.apply(change)).collect::<Result<Vec<_>, _>>()
        });
        // After an error the ids are read again: some may be of certificates that were not written.
        let written = written?;
        self.known = known;
        Ok(written.into_iter().map(Receipt::from).collect())
    }

    /// Loads the ids of all certificates, once, to detect an id that is given out twice.
    pub(super) fn load_known_ids(&mut self) -> Result<(), LedgerError> {
        if self.known.is_none() {
            self.known = Some(self.view.named(KnownIds::load(&self.view.connection))?);
        }
        Ok(())
    }
}

/// Refuses a plain key for a ledger whose keys are sealed.
fn refuse_plain_key(lot: &LotInfo, change: &Change) -> Result<(), Problem> {
    let key = match change {
        Change::KeyPrepared { key, .. } => &key.private_key,
        Change::Issued { certificate, .. } => &certificate.private_key,
        _ => return Ok(()),
    };
    let is_sealed = lot.binding.content.as_ref().is_some_and(|content| !content.recipients.is_empty());
    if is_sealed && matches!(key, StoredKey::Plain(_)) {
        return Err(Problem::PlainKey { device: change.device() });
    }
    Ok(())
}

/// Runs `statements` in one transaction that also counts the commit. Returns the new count too.
pub(super) fn commit_counted<T>(
    connection: &mut Connection,
    statements: impl FnOnce(&Transaction<'_>) -> Result<T, Problem>,
) -> Result<(T, u64), Problem> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let written = match statements(&transaction) {
        Ok(written) => written,
        // Only a successful rollback is known to leave the ledger as it was. After any other problem it does not
        // matter: SQLite may have rolled back by itself, and nothing more is written.
        Err(problem) if problem.is_callers() => {
            return transaction.rollback().map_err(Problem::from).and(Err(problem));
        }
        Err(problem) => return Err(problem),
    };
    let commits = schema::count_commit(&transaction)?;
    transaction.commit()?;
    Ok((written, commits))
}

impl From<Written> for Receipt {
    fn from(written: Written) -> Self {
        match written {
            Written::KeyPrepared(request) => Self::KeyPrepared(Recorded::new(request)),
            Written::Issued(certificate) => Self::Issued(Recorded::new(certificate)),
            Written::Done => Self::Done,
            Written::Conflict(conflict) => Self::Conflict(conflict),
        }
    }
}

/// Whether a device in `state`, with or without a prepared key, can go through `change`; if not, what it cannot become.
/// A prepared key is never replaced by another: nothing else would record it.
fn judge(state: DeviceState, prepared: Option<&PreparedKey>, change: &Change) -> Result<(), &'static str> {
    use DeviceState::{Issued, Pending};
    let (is_legal, becomes) = match change {
        Change::KeyPrepared { .. } => {
            (state == Pending && prepared.is_none(), "the holder of a new key made here")
        }
        Change::Issued { .. } => (state == Pending && prepared.is_none(), "issued with a key of the service"),
        Change::Certified { .. } => (state == Pending && prepared.is_some(), "issued for a key made here"),
        Change::Registered { .. } => (state == Issued, "registered"),
        Change::Rejected { .. } => (matches!(state, Pending | Issued), "rejected"),
        Change::Unknown { .. } => (state == Issued, "unknown"),
        Change::TokenLapsed { .. } => (state == Issued, "pending, its token lapsed"),
        Change::Left { .. } => (matches!(state, Pending | Issued), "open, left for another run"),
    };
    if is_legal { Ok(()) } else { Err(becomes) }
}

/// Changes that are written together; each statement gives the digest of its row, as [`Digests::ByStatement`] requires.
struct Batch<'a> {
    connection: &'a Connection,
    stamp: &'a Stamp,
    /// Already loaded if any change issues a certificate.
    known: &'a mut Option<KnownIds>,
    /// What the keys sink must have first; `None` if there is none.
    lines: &'a mut Option<Vec<Line>>,
}

impl Batch<'_> {
    fn apply(&mut self, change: Change) -> Result<Written, Problem> {
        let (connection, stamp) = (self.connection, self.stamp);
        let Found { state, prepared } = find_device(connection, change.device())?;
        if let Err(becomes) = judge(state, prepared.as_ref(), &change) {
            let device = find_key(connection, change.device())?;
            return Err(Problem::IllegalTransition { device, state, change: becomes });
        }
        let moved = |device, to| move_device(connection, device, &to, stamp);
        match change {
            Change::KeyPrepared { device, key } => {
                keys::insert_prepared(connection, device, &key, &stamp.at, stamp.run)?;
                Ok(Written::KeyPrepared(key.request))
            }
            Change::Issued { device, certificate } => self.issue(device, certificate),
            Change::Certified { device, certificate } => {
                let key = prepared.ok_or_else(|| Problem::damaged("a prepared key went away"))?;
                self.issue(device, certificate.map_key(|()| key.private_key))
            }
            Change::Registered { device, thing } => {
                let line =
                    self.lines.as_ref().map(|_| registered_line(connection, device, &thing)).transpose()?;
                let written = register(connection, device, thing, stamp)?;
                if let (Written::Done, Some(lines)) = (&written, &mut self.lines) {
                    lines.extend(line);
                }
                if let (Written::Done, Some(_)) = (&written, prepared) {
                    keys::forget_prepared(connection, device)?;
                }
                Ok(written)
            }
            Change::Rejected { device, failure } => {
                moved(device, Standing::given_up(DeviceState::Rejected, failure))
            }
            Change::Unknown { device, failure } => {
                moved(device, Standing::given_up(DeviceState::Unknown, failure))
            }
            Change::TokenLapsed { device } => {
                let retired = retire(connection, device, stamp)?;
                Ok(prepared.map_or(retired, |key| Written::KeyPrepared(key.request)))
            }
            Change::Left { device, registration, failure } => {
                let registration = (state == DeviceState::Issued).then_some(registration);
                moved(device, Standing { state, registration, failure })
            }
        }
    }

    fn issue(&mut self, device: DeviceId, certificate: IssuedCertificate) -> Result<Written, Problem> {
        let (connection, stamp) = (self.connection, self.stamp);
        let id = KeptId::of(&certificate.certificate_id);
        let known = self.known.as_mut().expect("ids are read before a certificate is written");
        if !known.insert(&id)
            && let Some(holder) = find_holder(connection, &id)?
        {
            let contested = Contested::Certificate(certificate.certificate_id);
            return Ok(Written::Conflict(Conflict { device, contested, holder }));
        }
        if let Some(lines) = &mut self.lines {
            lines.push(Line::issued(find_key(connection, device)?, &certificate, &stamp.at)?);
        }
        insert_credential(connection, device, &certificate, stamp)?;
        Ok(Written::Issued(certificate))
    }
}

/// Gives a device a certificate, which may be registered from here on.
pub(super) fn insert_credential(
    connection: &Connection,
    device: DeviceId,
    certificate: &IssuedCertificate,
    stamp: &Stamp,
) -> Result<(), Problem> {
    let id = KeptId::of(&certificate.certificate_id);
    let key = KeyColumns::of(connection, &certificate.private_key)?;
    let kept = Kept::labelled(&certificate.certificate_pem, CERTIFICATE);
    // A query of its own: INSERT with a SELECT from the same table would copy the rows into a temporary table first.
    let sql = "SELECT coalesce(max(id), 0) + 1 FROM credential";
    let number: i64 = connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?;
    let sql = "INSERT INTO credential
               (id, device, certificate_id, certificate, private_key, private_key_label, issued_at, run, sealing,
                purged_at, digest)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10,
                       row_digest(?1, ?2, ?3, ?4, ?5, ?6, ?7, NULL, ?9, ?10, NULL))";
    let (text, label) = (&key.text, key.text.as_ref().and_then(Kept::label));
    let values =
        params![number, device.0, id, kept, text, label, stamp.at, stamp.run, key.sealing, key.purged_at];
    write_one(connection, sql, values)?;
    let sql = "INSERT INTO token (device, ownership_token, digest) VALUES (?1, ?2, row_digest(?1, ?2))";
    write_one(connection, sql, params![device.0, certificate.ownership_token.expose()])?;
    let to =
        Standing { state: DeviceState::Issued, registration: Some(Registration::MaySent), failure: None };
    move_device(connection, device, &to, stamp).map(|_| ())
}

fn registered_line(
    connection: &Connection,
    device: DeviceId,
    thing: &RegisteredThing,
) -> Result<Line, Problem> {
    Ok(Line::Registered {
        device: find_key(connection, device)?,
        thing_name: Some(thing.thing_name.clone()).filter(|name| !name.is_empty()),
        device_configuration: thing.device_configuration.clone(),
    })
}

/// The key of the device with the certificate `id`. Scans every certificate: call it only if there nearly always is
/// one.
pub(super) fn find_holder(connection: &Connection, id: &KeptId<'_>) -> Result<Option<String>, Problem> {
    let sql = "SELECT device.key FROM credential JOIN device ON device.id = credential.device
               WHERE credential.certificate_id = ?1";
    find_text(connection, sql, [id])
}

pub(super) fn register(
    connection: &Connection,
    device: DeviceId,
    thing: RegisteredThing,
    stamp: &Stamp,
) -> Result<Written, Problem> {
    // A template without a thing returns an empty name. Store NULL: two devices must not collide on ''.
    let thing_name = Some(thing.thing_name).filter(|name| !name.is_empty());
    if let Some(name) = &thing_name
        && let Some(holder) = find_name_holder(connection, device, name)?
    {
        return Ok(Written::Conflict(Conflict { device, contested: Contested::Thing(name.clone()), holder }));
    }
    let configuration = serde_json::Value::from_iter(thing.device_configuration).to_string();
    let sql = "UPDATE device SET state = ?4, registration = NULL, thing_name = ?2, device_configuration = ?3,
               failure_stage = NULL, failure_cause = NULL, failure = NULL, updated_at = ?5, run = ?6,
               digest = row_digest(id, key, parameter_values, ?4, NULL, ?2, ?3, NULL, NULL, NULL, ?5, request_digest)
               WHERE id = ?1";
    let state = DeviceState::Registered.name();
    write_one(connection, sql, params![device.0, thing_name, configuration, state, stamp.at, stamp.run])?;
    // The token is used up; do not keep the secret.
    drop_token(connection, device)?;
    Ok(Written::Done)
}

/// The key of another device that has the thing `name`, or is about to have it: `name` is that device's key, and no
/// value of this device's own row accounts for it.
fn find_name_holder(
    connection: &Connection,
    device: DeviceId,
    name: &str,
) -> Result<Option<String>, Problem> {
    let sql = "SELECT key FROM device WHERE thing_name = ?1 AND id <> ?2
               UNION ALL
               SELECT key FROM device WHERE key = ?1 AND id <> ?2 AND NOT EXISTS (
                   SELECT 1 FROM device AS own, json_each(own.parameter_values) WHERE own.id = ?2 AND value = ?1)
               LIMIT 1";
    find_text(connection, sql, params![name, device.0])
}

fn drop_token(connection: &Connection, device: DeviceId) -> Result<(), Problem> {
    connection.prepare_cached("DELETE FROM token WHERE device = ?1")?.execute([device.0])?;
    Ok(())
}

/// Gives up a device's certificate, whose token has expired, and starts the device over.
fn retire(connection: &Connection, device: DeviceId, stamp: &Stamp) -> Result<Written, Problem> {
    let sql = "UPDATE credential SET retired_at = ?2,
               digest = row_digest(id, device, certificate_id, certificate, private_key, private_key_label, issued_at,
                                   ?2, sealing, purged_at, deleted_at)
               WHERE device = ?1 AND retired_at IS NULL";
    write_one(connection, sql, params![device.0, stamp.at])?;
    drop_token(connection, device)?;
    let to = Standing { state: DeviceState::Pending, registration: None, failure: None };
    move_device(connection, device, &to, stamp)
}

/// A device's state, as written to its row.
struct Standing {
    state: DeviceState,
    registration: Option<Registration>,
    failure: Option<Failure>,
}

impl Standing {
    fn given_up(state: DeviceState, failure: Failure) -> Self {
        Self { state, registration: None, failure: Some(failure) }
    }
}

fn move_device(
    connection: &Connection,
    device: DeviceId,
    to: &Standing,
    stamp: &Stamp,
) -> Result<Written, Problem> {
    let sql = "UPDATE device SET state = ?2, registration = ?3, failure_stage = ?4, failure_cause = ?5, failure = ?6,
               updated_at = ?7, run = ?8,
               digest = row_digest(id, key, parameter_values, ?2, ?3, thing_name, device_configuration,
                                   ?4, ?5, ?6, ?7, request_digest)
               WHERE id = ?1";
    let failure = to.failure.as_ref();
    let values = params![
        device.0,
        to.state.name(),
        to.registration.map(registration_name),
        failure.map(|failure| failure.stage.name()),
        failure.map(|failure| failure.cause.name()),
        failure.map(ToString::to_string),
        stamp.at,
        stamp.run,
    ];
    write_one(connection, sql, values)?;
    Ok(Written::Done)
}

fn find_text(connection: &Connection, sql: &str, values: impl Params) -> Result<Option<String>, Problem> {
    Ok(connection.prepare_cached(sql)?.query_row(values, |row| row.get(0)).optional()?)
}
