//! Makes a ledger anew from its lot and its keys sink, after the disk that it was on is lost.
//!
//! What the sink says is registered, is. Whether another certificate was registered is not known, and settled by the
//! next run: it has no ownership token any more.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::time::SystemTime;

use rusqlite::{Connection, OptionalExtension, params};

use super::binding::{Binding, said};
use super::commit::{Stamp, Written, find_holder, insert_credential, register};
use super::error::{ImportError, LedgerError, Problem};
use super::ids::{KeptId, KnownIds};
use super::import::{self, LotRows, Refusal};
use super::lock::LedgerLock;
use super::opening;
use super::place::Place;
use super::retry::insert_deed;
use super::rows::read_state;
use super::sink::{self, SINK_OUTCOME, SinkFiles};
use super::sink_line::{IssuedLine, Line, LotLine};
use super::{Ledger, instant};
use crate::certificate::{IssuedCertificate, RegisteredThing, SealedKey, Secret, StoredKey};
use crate::event::{DeviceId, DeviceState};
use crate::identity::{Identity, RowError};
use crate::shard::Shard;

/// The keys sink of a ledger, read through once: every line of it is sound.
#[derive(Debug)]
pub struct LostLedger {
    files: SinkFiles,
    /// What the ledger was bound to.
    pub binding: Binding,
    /// The column that identified a device in its lot.
    pub key_column: String,
    /// The lot's file name, for people.
    pub source: String,
    /// How many lines a crash cut off. The ledger had nothing of them.
    pub cut_off: u64,
    /// The number of the last commit that the sink has.
    commits: u64,
}

/// The result of a restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Restored {
    /// Devices that are registered.
    pub registered: u64,
    /// Devices with a certificate of which it is not known whether it was registered.
    pub unsettled: u64,
    /// All certificates, with those that were replaced.
    pub certificates: u64,
    /// Devices of the sink that the lot lacks. The sink has none of them as registered.
    pub left_out: u64,
}

impl LostLedger {
    /// Reads the sink of the ledger at `ledger` in `directory`.
    ///
    /// # Errors
    /// [`Problem::SinkMissing`] or [`Problem::SinkDamaged`], of the ledger.
    pub fn read(ledger: &Path, directory: &Path) -> Result<Self, LedgerError> {
        let files = SinkFiles::of(ledger, directory);
        let mut last = None;
        let mut commits = 0;
        let cut_off = for_each_line(&files, |line, place| {
            commits = place.commit;
            if let Line::Lot(lot) = line {
                last = Some(lot);
            }
            Ok(())
        });
        let cut_off = cut_off.map_err(|problem| problem.at(ledger))?;
        let no_lot = || damaged(&files, 1, "it has no line about its lot").at(ledger);
        let LotLine { source, key_column, template, region, account, shard, content } =
            last.ok_or_else(no_lot)?;
        let shard = shard.and_then(|(index, of)| Shard::new(index, of));
        let binding = Binding { template, region, account: account.as_str().into(), content, shard };
        Ok(Self { files, binding, key_column, source, cut_off, commits })
    }
}

impl Ledger {
    /// Makes the ledger at `path` anew from its lot and its sink: completely, or not at all. It owns the sink from then
    /// on; a run that still uses the lost one is stopped by that before it registers anything more.
    ///
    /// # Errors
    /// As [`import`](Self::import); or the sink is damaged, still being written, or has a device that the lot lacks.
    pub fn restore<I>(
        path: &Path,
        lost: &LostLedger,
        lot: LotRows<'_, I>,
        check: impl FnMut(&Identity) -> Result<(), Vec<RowError>>,
        now: SystemTime,
    ) -> Result<Restored, ImportError>
    where
        I: Iterator<Item = Result<Identity, Vec<RowError>>>,
    {
        let place = Place::of(path)?;
        let mut lock = LedgerLock::acquire(&place.lock).map_err(|problem| problem.at(path))?;
        let mut restored = Restored::default();
        opening::build(&place, &mut lock, |connection| {
            import::fill(connection, &lost.binding, lot, check, now)?;
            let mut rebuild = Rebuild {
                connection,
                lost,
                known: KnownIds::default(),
                left_out: BTreeMap::new(),
                at: instant::to_text(now),
            };
            let read = rebuild.fill()?;
            // Before it is claimed too: the claim would stop the run that writes it.
            lost.files.refuse_longer(read)?;
            rebuild.claim(path, now)?;
            lost.files.refuse_longer(read)?;
            restored = rebuild.count()?;
            Ok(())
        })
        .map_err(|refusal| refusal.at(path))?;
        Ok(restored)
    }
}

impl SinkFiles {
    fn length(&self) -> Result<u64, Problem> {
        fs::metadata(&self.sink).map(|file| file.len()).map_err(|error| self.failed(&error))
    }

    /// Refuses a sink that is no longer as long as it was.
    fn refuse_longer(&self, was: u64) -> Result<(), Problem> {
        if self.length()? == was { Ok(()) } else { Err(Problem::SinkGrows { sink: self.sink.clone() }) }
    }
}

fn damaged(files: &SinkFiles, line: u64, detail: &str) -> Problem {
    Problem::SinkDamaged { sink: files.sink.clone(), line, detail: detail.to_owned() }
}

/// Where a line is, and before which commit it was written.
#[derive(Debug, Clone, Copy)]
struct LineNumber {
    number: u64,
    commit: u64,
}

/// Passes each line with its numbers to `show`. Returns how many were cut off by a crash.
fn for_each_line(
    files: &SinkFiles,
    mut show: impl FnMut(Line, LineNumber) -> Result<(), Problem>,
) -> Result<u64, Problem> {
    let file = File::open(&files.sink).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Problem::SinkMissing { sink: files.sink.clone() },
        _ => files.failed(&error),
    })?;
    let mut lines = BufReader::with_capacity(1 << 16, file).split(b'\n').zip(1..).peekable();
    let mut cut_off = 0;
    while let Some((text, number)) = lines.next() {
        let text = text.map_err(|error| files.failed(&error))?;
        let read = |text: &[u8]| std::str::from_utf8(text).ok().and_then(Line::read);
        match read(&text) {
            Some((line, commit)) => show(line, LineNumber { number, commit })?,
            None => {
                let is_last = match lines.peek() {
                    None => true,
                    Some((Ok(next), _)) => read(next).is_some_and(|(line, _)| line == Line::CutOff),
                    Some((Err(error), _)) => return Err(files.failed(error)),
                };
                if !is_last {
                    return Err(damaged(files, number, "it is not what was written"));
                }
                cut_off += 1;
            }
        }
    }
    Ok(cut_off)
}

/// A ledger being made from a sink.
struct Rebuild<'a> {
    connection: &'a Connection,
    lost: &'a LostLedger,
    known: KnownIds,
    /// Devices that the lot lacks, and whether they are registered.
    left_out: BTreeMap<String, bool>,
    at: String,
}

impl Rebuild<'_> {
    /// Takes in every line; returns the length of what was read.
    fn fill(&mut self) -> Result<u64, Refusal> {
        let before = self.lost.files.length()?;
        let transaction = self.connection.unchecked_transaction()?;
        transaction.execute_batch("CREATE INDEX restoring ON credential (certificate_id)")?;
        for_each_line(&self.lost.files, |line, place| match line {
            Line::Issued(issued) => self.issue(issued, place.number),
            Line::Registered { device, thing_name, device_configuration } => {
                let thing =
                    RegisteredThing { thing_name: thing_name.unwrap_or_default(), device_configuration };
                self.register(device, thing, place.number)
            }
            Line::Removed { device } => self.remove(device),
            Line::Lot(_) | Line::CutOff => Ok(()),
        })?;
        transaction.execute_batch("DROP INDEX restoring")?;
        // The next commit's number is above all that the sink has.
        let commits = i64::try_from(self.lost.commits).unwrap_or(i64::MAX);
        transaction.execute("UPDATE progress SET commits = ?1", [commits])?;
        transaction.commit()?;
        match self.left_out.iter().find(|(_, is_registered)| **is_registered) {
            None => Ok(before),
            Some((key, _)) => {
                let (sink, part) = (self.lost.files.sink.clone(), said(self.lost.binding.shard));
                Err(Problem::SinkOtherLot { sink, key: key.clone(), part }.into())
            }
        }
    }

    /// The device with this key; `None` if the lot lacks it.
    fn device(&self, key: &str) -> Result<Option<(DeviceId, DeviceState)>, Problem> {
        let sql = "SELECT id, state FROM device WHERE key = ?1";
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query([key])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        Ok(Some((DeviceId(row.get("id")?), read_state(row, "state")?)))
    }

    fn issue(&mut self, line: IssuedLine, number: u64) -> Result<(), Problem> {
        // A ledger that takes a sink again may repeat what that has.
        let id = KeptId::of(&line.certificate_id);
        if !self.known.insert(&id) && find_holder(self.connection, &id)?.is_some() {
            return Ok(());
        }
        let Some((device, state)) = self.device(&line.device)? else {
            self.left_out.insert(line.device, false);
            return Ok(());
        };
        if matches!(state, DeviceState::Registered | DeviceState::Removed) {
            self.keep_registration(device)?;
        }
        let sql = "UPDATE credential SET retired_at = ?2 WHERE device = ?1 AND retired_at IS NULL";
        self.connection.prepare_cached(sql)?.execute(params![device.0, self.at])?;
        self.connection.prepare_cached("DELETE FROM token WHERE device = ?1")?.execute([device.0])?;
        let private_key = match (line.private_key, line.purged_at) {
            (Some(age), _) => StoredKey::Sealed(SealedKey { age, recipients: line.recipients.into() }),
            (None, Some(at)) => StoredKey::Purged { at },
            (None, None) => StoredKey::Elsewhere,
        };
        if instant::from_text(&line.issued_at).is_none() {
            return Err(damaged(&self.lost.files, number, "when it was issued is no time"));
        }
        let certificate = IssuedCertificate {
            certificate_id: line.certificate_id,
            certificate_pem: line.certificate,
            private_key,
            // Whoever reads it takes the certificate for too old to be registered.
            ownership_token: Secret::new(String::new()),
        };
        insert_credential(self.connection, device, &certificate, &Stamp { at: line.issued_at, run: None })
    }

    /// Keeps what a device was registered as before it gets another certificate.
    fn keep_registration(&self, device: DeviceId) -> Result<(), Problem> {
        let sql = "INSERT INTO rework (device, credential, thing_name, registered_at, begun_at)
                   SELECT device.id, credential.id, device.thing_name, device.updated_at, ?2
                   FROM device JOIN credential ON credential.device = device.id AND credential.retired_at IS NULL
                   WHERE device.id = ?1";
        self.connection.prepare_cached(sql)?.execute(params![device.0, self.at])?;
        let sql = "UPDATE device SET thing_name = NULL, device_configuration = NULL WHERE id = ?1";
        self.connection.prepare_cached(sql)?.execute([device.0])?;
        Ok(())
    }

    fn register(&mut self, key: String, thing: RegisteredThing, number: u64) -> Result<(), Problem> {
        let Some((device, state)) = self.device(&key)? else {
            self.left_out.insert(key, true);
            return Ok(());
        };
        if state == DeviceState::Pending {
            return Err(damaged(&self.lost.files, number, "a device is registered that was issued nothing"));
        }
        let stamp = Stamp { at: self.at.clone(), run: None };
        match register(self.connection, device, thing, &stamp)? {
            Written::Conflict(conflict) => Err(damaged(&self.lost.files, number, &conflict.to_string())),
            _ => Ok(()),
        }
    }

    fn remove(&mut self, key: String) -> Result<(), Problem> {
        let Some((device, _)) = self.device(&key)? else {
            self.left_out.insert(key, false);
            return Ok(());
        };
        let sql = "UPDATE credential SET retired_at = coalesce(retired_at, ?2), deleted_at = coalesce(deleted_at, ?2)
                   WHERE device = ?1";
        self.connection.prepare_cached(sql)?.execute(params![device.0, self.at])?;
        self.connection.prepare_cached("DELETE FROM token WHERE device = ?1")?.execute([device.0])?;
        let sql = "UPDATE device SET state = 'removed', registration = NULL, updated_at = ?2 WHERE id = ?1";
        self.connection.prepare_cached(sql)?.execute(params![device.0, self.at])?;
        Ok(())
    }

    /// Makes the new ledger the sink's owner, before it has its name: if a crash comes in between, it is restored
    /// again.
    fn claim(&self, path: &Path, now: SystemTime) -> Result<(), Problem> {
        let claim = sink::new_claim();
        let directory = self.lost.files.sink.parent().unwrap_or(Path::new("."));
        let directory = std::path::absolute(directory).unwrap_or_else(|_| directory.to_path_buf());
        insert_deed(self.connection, &sink::deed(&claim, &directory), SINK_OUTCOME, &self.at)?;
        self.lost.files.claim(&claim, path, now).map(|_| ())
    }

    fn count(&self) -> Result<Restored, Problem> {
        let count = |sql: &str| -> Result<u64, Problem> {
            let found: Option<i64> = self.connection.query_row(sql, [], |row| row.get(0)).optional()?;
            Ok(found.and_then(|found| u64::try_from(found).ok()).unwrap_or_default())
        };
        Ok(Restored {
            registered: count("SELECT count(*) FROM device WHERE state = 'registered'")?,
            unsettled: count("SELECT count(*) FROM device WHERE state = 'issued'")?,
            certificates: count("SELECT count(*) FROM credential")?,
            left_out: self.left_out.len() as u64,
        })
    }
}
