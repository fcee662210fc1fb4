//! The keys sink: a directory, on another disk than the ledger, that has each credential before the ledger has it.
//!
//! Owns two files there, which only grow. NAME.sink has a line for what is issued, registered and removed; NAME.claim a
//! line for each ledger that has written it, of which the last one owns it. Private keys are sealed; ownership tokens
//! are not there at all.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rusqlite::{Connection, OptionalExtension};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::error::{LedgerError, Problem};
use super::place::NO_LINKS;
use super::retry::insert_deed;
use super::rows::{read_certificate_id, read_certificate_pem, read_state};
use super::sink_line::{Line, LotLine};
use super::status::HOLDS_PLAIN_KEYS;
use super::{Content, Ledger, View, instant, keys, schema};
use crate::certificate::IssuedCertificate;
use crate::event::DeviceState;

/// The outcome of a history entry, not of a real run: the ledger took a keys sink.
pub const SINK_OUTCOME: &str = "keys_sink";

/// The maker of keys that are not here: [`Content::key_source`].
const ELSEWHERE: &str = "csr";

/// How much of a sink's end is searched for what the ledger has.
const TAIL: u64 = 1 << 20;

/// The sink that an open ledger writes.
#[derive(Debug)]
pub(super) struct Sink {
    files: SinkFiles,
    file: File,
    /// The length of the claims when this ledger's was the last.
    claimed: u64,
}

/// The files of a sink.
#[derive(Debug, Clone)]
pub(super) struct SinkFiles {
    pub(super) sink: PathBuf,
    claim: PathBuf,
}

/// A line of the claims.
#[derive(Debug, Serialize, Deserialize)]
struct Claim {
    claim: String,
    ledger: String,
    host: String,
    pid: u32,
    at: String,
}

impl SinkFiles {
    /// Those for the ledger at `ledger`, in `directory`.
    pub(super) fn of(ledger: &Path, directory: &Path) -> Self {
        let named = |extension: &str| {
            let mut name = ledger.file_name().unwrap_or_default().to_owned();
            name.push(extension);
            directory.join(name)
        };
        Self { sink: named(".sink"), claim: named(".claim") }
    }

    pub(super) fn failed(&self, error: &std::io::Error) -> Problem {
        Problem::SinkFailed { file: self.sink.clone(), detail: error.to_string() }
    }

    /// The last claim; `None` if nobody has claimed the sink.
    fn last_claim(&self) -> Result<Option<Claim>, Problem> {
        match fs::read_to_string(&self.claim) {
            // A claim that a crash cut off was not made.
            Ok(text) => Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).next_back()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.failed(&error)),
        }
    }

    /// Claims the sink for the ledger at `ledger`; returns the claims' new length.
    pub(super) fn claim(&self, claim: &str, ledger: &Path, now: SystemTime) -> Result<u64, Problem> {
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned();
        let line = Claim {
            claim: claim.to_owned(),
            ledger: std::path::absolute(ledger)
                .unwrap_or_else(|_| ledger.to_path_buf())
                .display()
                .to_string(),
            host,
            pid: std::process::id(),
            at: instant::to_text(now),
        };
        let line = serde_json::to_string(&line).expect("texts are always valid JSON");
        let append = || -> std::io::Result<u64> {
            let mut file = open(&self.claim)?;
            // A line break first ends what a crash may have cut off.
            file.write_all(format!("\n{line}\n").as_bytes())?;
            file.sync_all()?;
            sync_directory(&self.claim)?;
            Ok(file.metadata()?.len())
        };
        append().map_err(|error| self.failed(&error))
    }
}

/// Opens a file to append to it, and never one behind a link.
fn open(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).append(true).create(true).mode(0o600).custom_flags(NO_LINKS).open(path)
}

fn sync_directory(file: &Path) -> std::io::Result<()> {
    File::open(file.parent().unwrap_or(Path::new(".")))?.sync_all()
}

impl Sink {
    /// Appends lines durably, before the ledger's commit of this number.
    ///
    /// # Errors
    /// If that fails; or another ledger has claimed the sink meanwhile: nothing may be built on these lines then.
    pub(super) fn append(&mut self, lines: &[Line], commit: u64) -> Result<(), Problem> {
        if lines.is_empty() {
            return Ok(());
        }
        let text: String = lines.iter().map(|line| line.text(commit)).collect();
        let written = self.file.write_all(text.as_bytes()).and_then(|()| self.file.sync_data());
        written.map_err(|error| self.files.failed(&error))?;
        // After writing: whoever claims it looks at the length of the sink afterwards.
        let claims = fs::metadata(&self.files.claim).map_err(|error| self.files.failed(&error))?;
        if claims.len() == self.claimed { Ok(()) } else { Err(self.files.taken()) }
    }
}

impl SinkFiles {
    /// Refuses a new ledger whose sink another one owns.
    fn refuse_claimed(&self) -> Result<(), Problem> {
        if self.last_claim()?.is_some() { Err(self.taken()) } else { Ok(()) }
    }

    fn taken(&self) -> Problem {
        let by = self.last_claim().ok().flatten().map_or_else(
            || String::from("another ledger"),
            |last| format!("{} on {} since {} (pid {})", last.ledger, last.host, last.at, last.pid),
        );
        Problem::SinkTaken { sink: self.sink.clone(), by }
    }
}

impl Ledger {
    /// Refuses a place for a new ledger whose sink in `directory` another one owns: that one has been lost, or is in use.
    ///
    /// # Errors
    /// [`Problem::SinkTaken`]; or the sink cannot be read.
    pub fn refuse_claimed_sink(path: &Path, directory: &Path) -> Result<(), LedgerError> {
        SinkFiles::of(path, directory).refuse_claimed().map_err(|problem| problem.at(path))
    }

    /// Has each credential from here on written to `directory` too, durably and before the ledger has it, in a file of
    /// the ledger's name. A ledger that has a sink keeps it: later runs use the same directory without being told.
    /// What the ledger already has is written at once.
    ///
    /// # Errors
    /// [`Problem::SinkPlainKey`] if the ledger's keys are not sealed; [`Problem::SinkTaken`] if another ledger owns the
    /// sink; or writing fails.
    pub fn keep_in_sink(&mut self, directory: &Path, now: SystemTime) -> Result<(), LedgerError> {
        let is_sealed = |content: &Content| !content.recipients.is_empty() || content.key_source == ELSEWHERE;
        let is_sealed = self.view.lot.binding.content.as_ref().is_some_and(is_sealed);
        let holds_plain = self.view.connection.query_row(HOLDS_PLAIN_KEYS, [], |row| row.get::<_, bool>(0));
        let holds_plain = self.view.named(holds_plain.map_err(Problem::from))?;
        if !is_sealed || holds_plain {
            return self.view.named(Err(Problem::SinkPlainKey));
        }
        let directory = std::path::absolute(directory).unwrap_or_else(|_| directory.to_path_buf());
        let files = SinkFiles::of(&self.view.path, &directory);
        let recorded = self.view.named(recorded(&self.view.connection))?;
        let last = self.view.named(files.last_claim())?;
        let claim = match (&recorded, &last) {
            (Some(own), Some(last)) if own.claim == last.claim => own.claim.clone(),
            (_, Some(_)) => return self.view.named(Err(files.taken())),
            (Some(own), None) if own.is_in_use && own.directory == directory => {
                let detail = String::from("it is not there any more; is its disk mounted?");
                return self.view.named(Err(Problem::SinkFailed { file: files.claim, detail }));
            }
            (Some(own), None) => own.claim.clone(),
            (None, None) => new_claim(),
        };
        let is_elsewhere = recorded.as_ref().is_none_or(|own| own.directory != directory);
        if is_elsewhere {
            self.note_sink(&claim, &directory, now)?;
        }
        let claimed = match last {
            Some(_) => {
                fs::metadata(&files.claim).map(|file| file.len()).map_err(|error| files.failed(&error))
            }
            None => files.claim(&claim, &self.view.path, now),
        };
        // What became of devices while the ledger had another sink is written again too.
        let known = if is_elsewhere { Known::Nothing } else { Known::AtItsEnd };
        let sink = claimed.and_then(|claimed| Sink::open(files, claimed, &self.view, known));
        self.sink = Some(self.view.named(sink)?);
        Ok(())
    }

    /// Opens the sink that the ledger has, if it has one and that is not open.
    pub(super) fn open_sink(&mut self, now: SystemTime) -> Result<(), LedgerError> {
        if self.sink.is_some() {
            return Ok(());
        }
        match self.view.named(recorded(&self.view.connection))? {
            Some(own) => self.keep_in_sink(&own.directory, now),
            None => Ok(()),
        }
    }

    fn note_sink(&mut self, claim: &str, directory: &Path, now: SystemTime) -> Result<(), LedgerError> {
        let settings = deed(claim, directory);
        self.write(|transaction| {
            insert_deed(transaction, &settings, SINK_OUTCOME, &instant::to_text(now)).map(|_| ())
        })
    }
}

impl View {
    /// The directory of the ledger's keys sink; `None` if it has none.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub fn keys_sink(&self) -> Result<Option<PathBuf>, LedgerError> {
        self.named(recorded(&self.connection)).map(|own| own.map(|own| own.directory))
    }
}

/// The history entry of a ledger that takes a sink.
pub(super) fn deed(claim: &str, directory: &Path) -> Value {
    let directory = directory.display().to_string();
    json!({ "version": env!("CARGO_PKG_VERSION"), "sink_claim": claim, "keys_sink": directory })
}

pub(super) fn new_claim() -> String {
    format!("{:032x}", rand::random::<u128>())
}

/// The sink that a ledger has, as it recorded it.
struct Recorded {
    claim: String,
    directory: PathBuf,
    /// The ledger has been written to since: its claim was made.
    is_in_use: bool,
}

fn recorded(connection: &Connection) -> Result<Option<Recorded>, Problem> {
    let sql = "SELECT settings ->> 'sink_claim', settings ->> 'keys_sink', id < (SELECT max(id) FROM run)
               FROM run WHERE outcome = ?1 ORDER BY id DESC LIMIT 1";
    let read = |row: &rusqlite::Row<'_>| {
        Ok(Recorded {
            claim: row.get(0)?,
            directory: PathBuf::from(row.get::<_, String>(1)?),
            is_in_use: row.get(2)?,
        })
    };
    Ok(connection.query_row(sql, [SINK_OUTCOME], read).optional()?)
}

/// Where a sink says what of the ledger it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// Its last lines do.
    AtItsEnd,
    /// All of the ledger may have changed since.
    Nothing,
}

impl Sink {
    fn open(files: SinkFiles, claimed: u64, view: &View, known: Known) -> Result<Self, Problem> {
        let file = open(&files.sink).map_err(|error| files.failed(&error))?;
        let mut sink = Self { files, file, claimed };
        sink.bring_up_to_date(view, known)?;
        Ok(sink)
    }

    /// Marks a last line that a crash cut off, and appends what the ledger has and the sink lacks.
    ///
    /// # Errors
    /// [`Problem::SinkAhead`], besides those of files: a crash leaves the sink one commit ahead, and no more.
    fn bring_up_to_date(&mut self, view: &View, known: Known) -> Result<(), Problem> {
        let commits = schema::read_commits(&view.connection)?;
        let mut from = 0;
        let mut length = TAIL;
        loop {
            let tail = self.read_tail(length).map_err(|error| self.files.failed(&error))?;
            let lines: Vec<_> = tail.lines().filter_map(Line::read).collect();
            if lines.last().is_some_and(|(_, commit)| *commit > commits + 1) {
                return Err(Problem::SinkAhead { sink: self.files.sink.clone() });
            }
            if known == Known::AtItsEnd {
                from = last_there(&view.connection, &lines)?;
            }
            let is_all = (tail.len() as u64) < length;
            if known == Known::Nothing || from > 0 || is_all {
                if !tail.is_empty() && !tail.ends_with('\n') {
                    let mark = format!("\n{}", Line::CutOff.text(commits));
                    self.file.write_all(mark.as_bytes()).map_err(|error| self.files.failed(&error))?;
                }
                break;
            }
            length *= 8;
        }
        let mut lines = vec![Line::Lot(LotLine::of(&view.lot)?)];
        for_each_from(&view.connection, from, |found| {
            lines.extend(found);
            if lines.len() < 1_000 { Ok(()) } else { self.append(&std::mem::take(&mut lines), commits) }
        })?;
        self.append(&lines, commits)?;
        sync_directory(&self.files.sink).map_err(|error| self.files.failed(&error))
    }

    /// Its last `length` bytes.
    fn read_tail(&mut self, length: u64) -> std::io::Result<String> {
        let begin = self.file.metadata()?.len().saturating_sub(length);
        let mut file = &self.file;
        file.seek(SeekFrom::Start(begin))?;
        let mut tail = Vec::new();
        file.take(length).read_to_end(&mut tail)?;
        Ok(String::from_utf8_lossy(&tail).into_owned())
    }
}

/// The number of the newest credential that these lines have; 0 if they have none.
fn last_there(connection: &Connection, lines: &[(Line, u64)]) -> Result<i64, Problem> {
    let there = lines.iter().filter_map(|(line, _)| match line {
        Line::Issued(issued) => Some(&issued.certificate_id),
        _ => None,
    });
    let there: HashSet<_> = there.collect();
    let mut statement =
        connection.prepare("SELECT id, certificate_id FROM credential ORDER BY id DESC LIMIT 10000")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        if there.contains(&read_certificate_id(row)?) {
            return Ok(row.get("id")?);
        }
    }
    Ok(0)
}

/// Passes the lines for each credential from number `from` on to `show`, and for what became of its device.
fn for_each_from(
    connection: &Connection,
    from: i64,
    mut show: impl FnMut(Vec<Line>) -> Result<(), Problem>,
) -> Result<(), Problem> {
    let sql = "SELECT device.key, device.state, device.thing_name, device.device_configuration, certificate_id, certificate,
                      private_key, private_key_label, recipients, purged_at, issued_at, retired_at IS NULL AS is_in_use
               FROM credential JOIN device ON device.id = credential.device
               LEFT JOIN sealing ON sealing.id = credential.sealing
               WHERE credential.id >= ?1 ORDER BY credential.id";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([from])?;
    while let Some(row) = rows.next()? {
        let key: String = row.get("key")?;
        let certificate = IssuedCertificate {
            certificate_id: read_certificate_id(row)?,
            certificate_pem: read_certificate_pem(row)?,
            private_key: keys::read_stored_key(row)?,
            ownership_token: String::new().into(),
        };
        let mut lines = vec![Line::issued(key.clone(), &certificate, &row.get::<_, String>("issued_at")?)?];
        match read_state(row, "state")? {
            DeviceState::Registered if row.get("is_in_use")? => lines.push(Line::Registered {
                device: key,
                thing_name: row.get("thing_name")?,
                device_configuration: row
                    .get::<_, Option<String>>("device_configuration")?
                    .and_then(|text| serde_json::from_str(&text).ok())
                    .unwrap_or_default(),
            }),
            DeviceState::Removed => lines.push(Line::Removed { device: key }),
            _ => {}
        }
        show(lines)?;
    }
    Ok(())
}
