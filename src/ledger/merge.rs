//! Merges the ledgers of all shards of a lot into one of the whole lot: exactly, or not at all.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rusqlite::{Connection, OptionalExtension, params};
use serde_json::json;

use super::error::{LedgerError, Problem};
use super::ids::{self, KnownIds};
use super::import::{Refusal, is_own, key_column_name, values_to_text};
use super::lock::LedgerLock;
use super::opening::{self, Look};
use super::place::Place;
use super::refusal::Unmergeable;
use super::retry::insert_deed;
use super::sql::{read_count, read_json};
use super::values::LotInfo;
use super::{Ledger, binding, instant};
use crate::identity::LotDigest;
use crate::shard::Shard;

/// The outcome of a part's history entry, not of a real run: a merge has begun that replaces the ledger by another.
pub const MERGING_OUTCOME: &str = "merging";
/// The outcome of a part's history entry, not of a real run: the ledger was merged into another, which replaces it.
pub const MERGED_OUTCOME: &str = "merged";
/// The outcome of a merged ledger's history entry, not of a real run: it was made from those of all shards.
pub const MERGE_OUTCOME: &str = "merge";

/// The result of a merge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Merged {
    /// How many ledgers were merged.
    pub shards: u32,
    /// How many devices they have together: each device of the lot once.
    pub devices: u64,
}

/// The ledger that replaces a part.
pub(super) struct Whole {
    /// Where it was made. It may have been moved since.
    pub(super) into: String,
    /// The name of the merge, which the ledger has wherever it is.
    merge: String,
    /// Whether it is certain to be there.
    is_made: bool,
}

impl Whole {
    /// What replaces the ledger of `part`; `None` if nothing does.
    pub(super) fn of_part(part: &Connection) -> Result<Option<Self>, Problem> {
        let sql = "SELECT settings, outcome FROM run WHERE outcome IN (?1, ?2) ORDER BY id DESC LIMIT 1";
        let values = [MERGED_OUTCOME, MERGING_OUTCOME];
        let found: Option<(String, String)> =
            part.query_row(sql, values, |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        let Some((settings, outcome)) = found else { return Ok(None) };
        let settings: serde_json::Value = serde_json::from_str(&settings).unwrap_or_default();
        let text = |name: &str| settings[name].as_str().unwrap_or_default().to_owned();
        let is_made = outcome == MERGED_OUTCOME;
        Ok(Some(Self { into: text("merged_into"), merge: text("merge"), is_made }))
    }

    /// Whether `ledger` is it.
    pub(super) fn is(&self, ledger: &Connection) -> Result<bool, Problem> {
        let sql = "SELECT EXISTS (SELECT 1 FROM run WHERE outcome = ?1 AND settings ->> 'merge' = ?2)";
        Ok(ledger.query_row(sql, [MERGE_OUTCOME, &self.merge], |row| row.get(0))?)
    }

    /// Whether it is there: a merge that was interrupted may have made it, and not noted that.
    fn was_made(&self) -> bool {
        let is_there = || opening::as_it_is(Path::new(&self.into)).and_then(|ledger| self.is(&ledger));
        self.is_made || is_there().unwrap_or(false)
    }
}

/// Refuses a ledger that was merged into another.
pub(super) fn refuse_merged(connection: &Connection) -> Result<(), Problem> {
    match Whole::of_part(connection)? {
        None => Ok(()),
        Some(whole) if whole.was_made() => Err(Problem::MergedAway { into: whole.into }),
        Some(whole) => Err(Problem::MergeUnfinished { into: whole.into }),
    }
}

impl Ledger {
    /// Creates a ledger at `path` from those of all shards of a lot, with everything in them: completely, or not at
    /// all. The parts are locked meanwhile, and no run accepts them afterwards, because the new ledger replaces them. A
    /// merge that was interrupted can be repeated; one that was completed cannot, because two ledgers of the same
    /// devices would be in use. Memory does not grow with the lot, except for one word per certificate.
    ///
    /// # Errors
    /// [`Problem::Unmergeable`], naming the ledger concerned; or a ledger is in use, damaged or cannot be written.
    pub fn merge(parts: &[PathBuf], path: &Path, now: SystemTime) -> Result<Merged, LedgerError> {
        let place = Place::of(path)?;
        let mut lock = LedgerLock::acquire(&place.lock).map_err(|problem| problem.at(path))?;
        let mut ledgers = parts
            .iter()
            .map(|part| {
                let ledger = Self::reopen_after(part, Look::Through)?;
                // Having been read through, each would keep its whole cache.
                let slim = "PRAGMA cache_size = -256; PRAGMA shrink_memory";
                ledger.view.named(ledger.view.connection.execute_batch(slim).map_err(Problem::from))?;
                Ok(ledger)
            })
            .collect::<Result<Vec<_>, _>>()?;
        check_whole(&ledgers, path)?;
        let record = Record::new(parts, path);
        let devices = ledgers.iter().map(|part| part.view.lot.devices).sum();
        let merged = Merged { shards: u32::try_from(ledgers.len()).unwrap_or(u32::MAX), devices };
        // The part being copied, so that an error names it.
        let mut at = path.to_path_buf();
        opening::build(&place, &mut lock, |connection| {
            fill(connection, &mut ledgers, &mut at, now)?;
            at = path.to_path_buf();
            check_certificates(connection)?;
            check_rows(connection, devices)?;
            insert_deed(connection, &record.of_whole(), MERGE_OUTCOME, &instant::to_text(now))?;
            // Before the new ledger has its name: whenever a crash comes, no device is in two usable ledgers.
            mark(&mut ledgers, &record, MERGING_OUTCOME, &mut at, now)?;
            at = path.to_path_buf();
            Ok(())
        })
        .map_err(|refusal| match refusal {
            Refusal::Problem(problem) => problem.at(&at),
            Refusal::Rows(_) => Problem::from(Unmergeable::OtherRows).at(&at),
        })?;
        mark(&mut ledgers, &record, MERGED_OUTCOME, &mut at, now).map_err(|problem| problem.at(&at))?;
        ledgers.into_iter().try_for_each(Self::close)?;
        Ok(merged)
    }
}

/// Checks that the ledgers are those of all shards of one job, each exactly once.
fn check_whole(ledgers: &[Ledger], path: &Path) -> Result<(), LedgerError> {
    let Some(first) = ledgers.first() else {
        return Err(Problem::from(Unmergeable::Missing { shards: Vec::new() }).at(path));
    };
    let mut seen: Vec<(Shard, &Path)> = Vec::new();
    for ledger in ledgers {
        let named = |problem: Unmergeable| Problem::from(problem).at(ledger.view.path());
        let shard = ledger.view.lot.binding.shard.ok_or_else(|| named(Unmergeable::NotAShard))?;
        let whole = ledger.view.named(Whole::of_part(&ledger.view.connection))?;
        if let Some(whole) = whole.filter(Whole::was_made) {
            return Err(named(Unmergeable::MergedBefore { into: whole.into }));
        }
        for (what, of) in ASPECTS {
            let (found, wanted) = (of(&ledger.view.lot), of(&first.view.lot));
            if found != wanted {
                let first = first.view.path().to_path_buf();
                return Err(named(Unmergeable::OtherJob { what, found, wanted, first }));
            }
        }
        if let Some((_, first)) = seen.iter().find(|(other, _)| *other == shard) {
            return Err(named(Unmergeable::Twice { shard, first: first.to_path_buf() }));
        }
        seen.push((shard, ledger.view.path()));
    }
    let of = first.view.lot.binding.shard.map_or(0, |shard| shard.of);
    let all = (0..of).map(|index| Shard { index, of });
    let missing: Vec<_> = all.filter(|shard| !seen.iter().any(|(there, _)| there == shard)).collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(Problem::from(Unmergeable::Missing { shards: missing }).at(path))
    }
}

type Aspect = (&'static str, fn(&LotInfo) -> String);

/// What the shards of one job have in common.
const ASPECTS: [Aspect; 8] = [
    ("number of shards", |lot| lot.binding.shard.map_or(0, |shard| shard.of).to_string()),
    ("template", |lot| lot.binding.template.clone()),
    ("region", |lot| lot.binding.region.clone()),
    ("account", |lot| lot.binding.account.to_string()),
    ("key column", |lot| key_column_name(&lot.shape).unwrap_or_default().to_owned()),
    ("list of columns", |lot| lot.shape.columns.join(", ")),
    ("lot (by its digest)", |lot| lot.digest.clone()),
    ("content of identities", |lot| match &lot.binding.content {
        // Only a digest: values may be secrets.
        Some(content) => format!("digest {:016x}", fingerprint(&binding::to_json(content))),
        None => String::from("not known"),
    }),
];

fn fingerprint(text: &str) -> u64 {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    digest.as_ref().iter().take(8).fold(0, |word, byte| word << 8 | u64::from(*byte))
}

/// What is added to the numbers of a part's rows, so that they follow those of the parts before.
#[derive(Default)]
struct Offsets {
    run: i64,
    export: i64,
    credential: i64,
    rework: i64,
    /// Added to the numbers of withdrawn devices, which come last. Any other device's number is its line in the lot.
    withdrawn: i64,
}

fn fill(
    connection: &mut Connection,
    ledgers: &mut [Ledger],
    at: &mut PathBuf,
    now: SystemTime,
) -> Result<(), Problem> {
    let mut offsets = Offsets::default();
    for ledger in ledgers.iter() {
        let last: i64 =
            ledger
                .view
                .connection
                .query_row("SELECT coalesce(max(line), 0) FROM device", [], |row| row.get(0))?;
        offsets.withdrawn = offsets.withdrawn.max(last);
    }
    for ledger in ledgers.iter() {
        *at = ledger.view.path().to_path_buf();
        check_shard(ledger)?;
        let name = ledger
            .view
            .path()
            .to_str()
            .ok_or_else(|| Problem::Denied { detail: String::from("its name is not UTF-8") })?;
        connection.execute("ATTACH ?1 AS part", [name])?;
        copy(connection, &mut offsets)?;
        connection.execute_batch("DETACH part")?;
    }
    if let Some(first) = ledgers.first() {
        let devices = ledgers.iter().map(|ledger| ledger.view.lot.devices).sum::<u64>();
        insert_lot(connection, &first.view.lot, i64::try_from(devices).unwrap_or(i64::MAX), now)?;
    }
    Ok(())
}

/// Checks that each row of a shard belongs to it.
fn check_shard(ledger: &Ledger) -> Result<(), Problem> {
    let Some(shard) = ledger.view.lot.binding.shard else { return Err(Unmergeable::NotAShard.into()) };
    let mut statement = ledger.view.connection.prepare("SELECT key, line FROM device")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let key: String = row.get("key")?;
        if !is_own(Some(shard), &ledger.view.lot.source, &key, read_count(row, "line")?) {
            return Err(Unmergeable::ForeignRow { key, shard }.into());
        }
    }
    Ok(())
}

/// A device's number in the merged ledger, from its row in the part. `?1` is [`Offsets::withdrawn`].
const DEVICE: &str = "iif(device.state = 'withdrawn', ?1 + device.id, device.line)";

/// The number of a list of recipients in the merged ledger, from its number in the part.
const SEALING: &str = "(SELECT ours.id FROM main.sealing AS ours JOIN part.sealing AS theirs
     ON theirs.recipients = ours.recipients WHERE theirs.id = entry.sealing)";

/// What is copied from a part, table by table: all but the entries of earlier merges that were interrupted. `{device}` and
/// `{sealing}` stand for [`DEVICE`] and [`SEALING`]. The parameters are the offsets of devices, runs, exports, credentials and
/// reworks.
const TABLES: [&str; 9] = [
    "INSERT INTO run SELECT id + ?2, started_at, ended_at, pid, settings, outcome, summary FROM part.run
     WHERE outcome IS NOT 'merging' ORDER BY id",
    "INSERT OR IGNORE INTO sealing (recipients) SELECT recipients FROM part.sealing ORDER BY id",
    "INSERT INTO export SELECT id + ?3, exported_at, destination, devices FROM part.export ORDER BY id",
    "INSERT INTO device (id, key, line, parameter_values, state, registration, thing_name, device_configuration, failure_stage,
                         failure_cause, failure, updated_at, run, request_digest, digest)
     SELECT id, key, line, parameter_values, state, registration, thing_name, device_configuration, failure_stage,
            failure_cause, failure, updated_at, run + ?2, request_digest,
            row_digest(id, key, parameter_values, state, registration, thing_name, device_configuration, failure_stage,
                       failure_cause, failure, updated_at, request_digest)
     FROM (SELECT {device} AS id, key, line, parameter_values, state, registration, thing_name, device_configuration,
                  failure_stage, failure_cause, failure, updated_at, run, request_digest
           FROM part.device ORDER BY device.id LIMIT -1)",
    "INSERT INTO prepared_key (device, private_key, sealing, signing_request, prepared_at, run, digest)
     SELECT device, private_key, sealing, signing_request, prepared_at, run + ?2,
            row_digest(device, private_key, sealing, signing_request)
     FROM (SELECT {device} AS device, private_key, {sealing} AS sealing, signing_request, prepared_at, entry.run
           FROM part.prepared_key AS entry JOIN part.device AS device ON device.id = entry.device LIMIT -1)",
    "INSERT INTO credential (id, device, certificate_id, certificate, private_key, private_key_label, issued_at, run, retired_at,
                             sealing, purged_at, deleted_at, export, digest)
     SELECT id, device, certificate_id, certificate, private_key, private_key_label, issued_at, run + ?2, retired_at, sealing,
            purged_at, deleted_at, export + ?3,
            row_digest(id, device, certificate_id, certificate, private_key, private_key_label, issued_at, retired_at,
                       sealing, purged_at, deleted_at)
     FROM (SELECT entry.id + ?4 AS id, {device} AS device, certificate_id, certificate, private_key, private_key_label,
                  issued_at, entry.run, retired_at, {sealing} AS sealing, purged_at, deleted_at, export
           FROM part.credential AS entry JOIN part.device AS device ON device.id = entry.device ORDER BY entry.id LIMIT -1)",
    "INSERT INTO token (device, ownership_token, digest)
     SELECT device, ownership_token, row_digest(device, ownership_token)
     FROM (SELECT {device} AS device, ownership_token
           FROM part.token AS entry JOIN part.device AS device ON device.id = entry.device LIMIT -1)",
    "INSERT INTO rework (id, device, credential, thing_name, registered_at, begun_at, deactivated_at, run)
     SELECT entry.id + ?5, {device}, entry.credential + ?4, entry.thing_name, registered_at, begun_at, deactivated_at, entry.run + ?2
     FROM part.rework AS entry JOIN part.device AS device ON device.id = entry.device",
    "INSERT INTO finding (device, verb, found_at, outcome, details, run)
     SELECT {device}, verb, found_at, outcome, details, entry.run + ?2
     FROM part.finding AS entry JOIN part.device AS device ON device.id = entry.device",
];

fn copy(connection: &mut Connection, offsets: &mut Offsets) -> Result<(), Problem> {
    refuse_shared_things(connection)?;
    let transaction = connection.transaction()?;
    for table in TABLES {
        let sql = table.replace("{device}", DEVICE).replace("{sealing}", SEALING);
        let mut statement = transaction.prepare(&sql)?;
        let values = [offsets.withdrawn, offsets.run, offsets.export, offsets.credential, offsets.rework];
        let wanted = statement.parameter_count();
        for (at, value) in values.iter().enumerate().take(wanted) {
            statement.raw_bind_parameter(at + 1, value)?;
        }
        statement.raw_execute().map_err(|error| match error.sqlite_error_code() {
            // Two rows on one line: the shards have read different files.
            Some(rusqlite::ErrorCode::ConstraintViolation) => Problem::from(Unmergeable::OtherRows),
            _ => error.into(),
        })?;
    }
    transaction.commit()?;
    let last = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
    *offsets = Offsets {
        run: last("SELECT coalesce(max(id), 0) FROM run")?,
        export: last("SELECT coalesce(max(id), 0) FROM export")?,
        credential: last("SELECT coalesce(max(id), 0) FROM credential")?,
        rework: last("SELECT coalesce(max(id), 0) FROM rework")?,
        withdrawn: offsets.withdrawn.max(last("SELECT coalesce(max(id), 0) FROM device")?),
    };
    Ok(())
}

fn refuse_shared_things(connection: &Connection) -> Result<(), Problem> {
    let sql = "SELECT theirs.key, theirs.thing_name, ours.key FROM part.device AS theirs
               JOIN main.device AS ours ON ours.thing_name = theirs.thing_name LIMIT 1";
    let shared =
        connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).optional()?;
    match shared {
        None => Ok(()),
        Some((key, thing, other)) => Err(Unmergeable::SharedThing { key, thing, other }.into()),
    }
}

fn insert_lot(connection: &Connection, lot: &LotInfo, devices: i64, now: SystemTime) -> Result<(), Problem> {
    let sql = "INSERT INTO lot (id, source, digest, columns, key_column, devices, template, region, account, created_at, content)
               VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
    let values = params![
        lot.source,
        lot.digest,
        values_to_text(&lot.shape.columns),
        key_column_name(&lot.shape)?,
        devices,
        lot.binding.template,
        lot.binding.region,
        lot.binding.account.to_string(),
        instant::to_text(now),
        lot.binding.content.as_ref().map(binding::to_json),
    ];
    connection.execute(sql, values)?;
    Ok(())
}

/// Checks that no certificate occurs twice.
fn check_certificates(connection: &Connection) -> Result<(), Problem> {
    let mut known = KnownIds::default();
    let mut statement = connection.prepare("SELECT certificate_id FROM credential")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let id = ids::restore(row.get_ref(0)?)?;
        let kept = ids::KeptId::of(&id);
        if known.insert(&kept) {
            continue;
        }
        let sql = "SELECT device.key FROM credential JOIN device ON device.id = credential.device
                   WHERE credential.certificate_id = ?1 LIMIT 2";
        let mut holders = connection.prepare(sql)?;
        let holders = holders.query_map([kept], |row| row.get(0))?.collect::<Result<Vec<String>, _>>()?;
        if let [key, other] = &holders[..] {
            let (key, other) = (key.clone(), other.clone());
            return Err(Unmergeable::SharedCertificate { key, other }.into());
        }
    }
    Ok(())
}

/// Checks by the lot's digest that the rows are all of the lot's, in its order.
fn check_rows(connection: &Connection, devices: u64) -> Result<(), Problem> {
    let lot = super::rows::read_lot(connection)?;
    let mut digest = LotDigest::new(&lot.shape);
    let sql = "SELECT parameter_values FROM device WHERE state <> 'withdrawn' ORDER BY id";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    let mut found = 0;
    while let Some(row) = rows.next()? {
        found += 1;
        digest.values(&read_json::<Vec<String>>(row, "parameter_values")?);
    }
    if found == devices && digest.finish() == lot.digest {
        Ok(())
    } else {
        Err(Unmergeable::OtherRows.into())
    }
}

/// What the ledgers of a merge record about it.
struct Record<'a> {
    parts: &'a [PathBuf],
    /// Where the merged ledger is made.
    into: PathBuf,
    /// A name for the merge that no other has.
    merge: String,
}

impl<'a> Record<'a> {
    fn new(parts: &'a [PathBuf], path: &Path) -> Self {
        let into = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
        Self { parts, into, merge: format!("{:032x}", rand::random::<u128>()) }
    }

    fn of_whole(&self) -> serde_json::Value {
        let parts: Vec<_> = self.parts.iter().map(|part| part.display().to_string()).collect();
        json!({ "version": env!("CARGO_PKG_VERSION"), "merge": self.merge, "merged_from": parts })
    }

    fn of_part(&self) -> serde_json::Value {
        let into = self.into.display().to_string();
        json!({ "version": env!("CARGO_PKG_VERSION"), "merge": self.merge, "merged_into": into })
    }
}

/// Adds an entry about the merge to the history of each part.
fn mark(
    ledgers: &mut [Ledger],
    record: &Record<'_>,
    outcome: &str,
    at: &mut PathBuf,
    now: SystemTime,
) -> Result<(), Problem> {
    for ledger in ledgers {
        *at = ledger.view.path().to_path_buf();
        let noted = ledger.write(|transaction| {
            insert_deed(transaction, &record.of_part(), outcome, &instant::to_text(now)).map(|_| ())
        });
        noted.map_err(|error| error.problem)?;
    }
    Ok(())
}
