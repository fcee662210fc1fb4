//! The account's journal: a line of JSON for the account as it was at the start, then a line for each batch of changes.
//!
//! Owns when a change is durable. Changes that arrive while the disk is busy are written and synced together as one
//! line, so that many answers share one sync. A line is a batch, all or nothing: a crash can only tear the last line,
//! and nothing in that one was answered yet.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, ErrorKind, Write};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::super::account::{Changes, State};
use super::{ACCOUNT, StateDir, StoreError};

/// The version of the journal's format.
const VERSION: u32 = 2;

/// The first line, for writing.
#[derive(Serialize)]
struct Start<'a> {
    fleetmint_emulator_account: u32,
    state: &'a State,
}

/// The first line, for reading.
#[derive(Deserialize)]
struct Started {
    fleetmint_emulator_account: u32,
    state: State,
}

/// Changes can no longer be made durable: nothing may be answered any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the emulator's state can no longer be written: {0}")]
pub struct NotKept(Arc<str>);

/// Makes changes durable in the background, in order. When it is dropped, it writes the remaining ones first.
#[derive(Debug)]
pub(in super::super) struct Journal {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
    /// How many batches of changes are durable.
    durable: watch::Sender<Result<u64, NotKept>>,
}

#[derive(Debug, Default)]
struct Queue {
    /// Changes that are not being written yet.
    pending: Option<Changes>,
    /// The number of appends so far.
    appended: u64,
    closed: bool,
}

impl StateDir {
    /// Opens the stored account, or else stores `new`, and starts a journal of its changes. The existing journal is
    /// rewritten as one line.
    pub(in super::super) fn open_account(&self, new: State) -> Result<(State, Journal), StoreError> {
        let path = self.file(ACCOUNT);
        let state = match File::open(&path) {
            Ok(file) => read(&path, file)?,
            Err(error) if error.kind() == ErrorKind::NotFound => new,
            Err(error) => return Err(StoreError::io("reading", &path)(error)),
        };
        let file = self.replace(ACCOUNT, |file| {
            let mut out = BufWriter::new(file);
            serde_json::to_writer(&mut out, &Start { fleetmint_emulator_account: VERSION, state: &state })?;
            out.write_all(b"\n")?;
            out.flush()
        })?;
        let journal = Journal::start(file).map_err(StoreError::io("starting the writer of", &path))?;
        Ok((state, journal))
    }

    /// Whether an account is stored.
    pub(in super::super) fn has_account(&self) -> bool {
        self.file(ACCOUNT).exists()
    }
}

/// Reads the account as of the end of the journal.
fn read(path: &Path, file: File) -> Result<State, StoreError> {
    let mut lines = Lines { reader: BufReader::new(file), number: 0, line: Vec::new() };
    let damaged = |line: &Lines, error: &dyn std::fmt::Display| {
        StoreError::damaged(path, format!("line {}: {error}", line.number))
    };
    let reading = StoreError::io("reading", path);
    if lines.next().map_err(&reading)?.is_none() {
        return Err(StoreError::damaged(path, "it is empty"));
    }
    let started: Started = serde_json::from_slice(&lines.line).map_err(|error| damaged(&lines, &error))?;
    if started.fleetmint_emulator_account != VERSION {
        return Err(damaged(&lines, &"written by another version of fleetmint"));
    }
    let mut state = started.state;
    state.index();
    while let Some(whole) = lines.next().map_err(&reading)? {
        match serde_json::from_slice(&lines.line) {
            Ok(changes) if whole == Whole::Yes => state.apply(changes),
            Err(error) if whole == Whole::Yes => return Err(damaged(&lines, &error)),
            _ => {
                tracing::info!(line = lines.number, "the last line of the journal was torn by a crash");
                break;
            }
        }
    }
    Ok(state)
}

/// A file's lines, with their numbers.
struct Lines {
    reader: BufReader<File>,
    number: u64,
    line: Vec<u8>,
}

/// Whether a line was completely written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whole {
    Yes,
    Torn,
}

impl Lines {
    /// Reads the next line into `line`, without its line ending.
    fn next(&mut self) -> std::io::Result<Option<Whole>> {
        self.line.clear();
        self.number += 1;
        if self.reader.read_until(b'\n', &mut self.line)? == 0 {
            return Ok(None);
        }
        let ended = self.line.pop_if(|last| *last == b'\n').is_some();
        let is_last = self.reader.fill_buf()?.is_empty();
        // After a power failure a file may have its new length but holes in place of data; JSON has no zero bytes.
        let torn = !ended || (is_last && self.line.contains(&0));
        Ok(Some(if torn { Whole::Torn } else { Whole::Yes }))
    }
}

impl Journal {
    /// Starts a journal that appends to `file`.
    pub(in super::super) fn start(file: File) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            changed: Condvar::new(),
            durable: watch::Sender::new(Ok(0)),
        });
        let writer = Arc::clone(&shared);
        let thread =
            std::thread::Builder::new().name(String::from("journal")).spawn(move || writer.work(file))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Appends changes that were just made. They are durable once [`Journal::settled`] says so.
    pub(in super::super) fn append(&self, changes: Changes) {
        let mut queue = self.shared.queue();
        if queue.closed {
            return;
        }
        queue.appended += 1;
        match &mut queue.pending {
            Some(pending) => pending.append(changes),
            none => *none = Some(changes),
        }
        drop(queue);
        self.shared.changed.notify_one();
    }

    /// Waits until everything that was appended before this call is durable.
    pub(in super::super) async fn settled(&self) -> Result<(), NotKept> {
        let wanted = self.shared.queue().appended;
        let mut durable = self.shared.durable.subscribe();
        let reached =
            |durable: &Result<u64, NotKept>| durable.as_ref().map_or(true, |count| *count >= wanted);
        match durable.wait_for(reached).await {
            Ok(durable) => durable.clone().map(drop),
            Err(_) => Err(NotKept("its writer is gone".into())),
        }
    }

    /// Waits until changes can no longer be made durable.
    pub(in super::super) async fn failure(&self) -> NotKept {
        let mut durable = self.shared.durable.subscribe();
        match durable.wait_for(Result::is_err).await.map(|durable| durable.clone()) {
            Ok(Err(failure)) => failure,
            _ => NotKept("its writer is gone".into()),
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.shared.queue().closed = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has already reported it.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        // The queue is consistent between any two statements, so a panic elsewhere does not spoil it.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The loop of the thread, until the journal is dropped or the disk fails.
    fn work(&self, mut file: File) {
        while let Some((changes, appended)) = self.next() {
            let written = write(&mut file, &changes);
            if let Err(error) = written {
                tracing::error!(%error, "the journal cannot be written");
                self.queue().closed = true;
                let _ = self.durable.send_replace(Err(NotKept(error.to_string().into())));
                return;
            }
            let _ = self.durable.send_replace(Ok(appended));
        }
    }

    fn next(&self) -> Option<(Changes, u64)> {
        let queue = self.changed.wait_while(self.queue(), |queue| !queue.closed && queue.pending.is_none());
        let mut queue = queue.unwrap_or_else(PoisonError::into_inner);
        let changes = queue.pending.take()?;
        Some((changes, queue.appended))
    }
}

fn write(file: &mut File, changes: &Changes) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(changes)?;
    line.push(b'\n');
    file.write_all(&line)?;
    file.sync_data()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::{Duration, SystemTime};

    use super::super::super::account::{Account, Certified};
    use super::super::super::scenario::Scenario;
    use super::*;

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_766_000_000)
    }

    fn create(account: &mut Account, journal: &Journal, n: u64) {
        let certified =
            Certified { certificate_pem: format!("pem {n}\n"), certificate_id: format!("{n:064x}") };
        account.create_from_csr(now(), certified);
        journal.append(account.take_changes().unwrap());
    }

    fn open(folder: &Path) -> Result<(Account, Journal), StoreError> {
        let scenario = Scenario::default();
        let (state, journal) = StateDir::open(folder)?.open_account(State::new(scenario.seed))?;
        let mut account = Account::resume(&scenario, state).unwrap();
        account.watch_changes();
        Ok((account, journal))
    }

    #[tokio::test]
    async fn what_is_settled_is_there_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut kept = 0;
        for round in 0..3 {
            let (mut account, journal) = open(folder.path()).unwrap();
            assert_eq!(account.state().certificates.len(), kept, "round {round}");
            for _ in 0..10 {
                create(&mut account, &journal, kept as u64);
                kept += 1;
                journal.settled().await.unwrap();
                let file = File::open(folder.path().join(ACCOUNT)).unwrap();
                // What the scenario declares is not in the journal: it is declared again at each start.
                let kept = read(Path::new(ACCOUNT), file).unwrap();
                assert_eq!(*Account::resume(&Scenario::default(), kept).unwrap().state(), *account.state());
            }
        }
        let text = fs::read_to_string(folder.path().join(ACCOUNT)).unwrap();
        assert_eq!(text.lines().count(), 11, "written anew at each start");
    }

    #[tokio::test]
    async fn what_is_appended_together_is_synced_together_and_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let (mut account, journal) = open(folder.path()).unwrap();
        for n in 0..500 {
            create(&mut account, &journal, n);
        }
        journal.settled().await.unwrap();
        drop(journal);
        let lines = fs::read_to_string(folder.path().join(ACCOUNT)).unwrap().lines().count();
        assert!(lines < 400, "{lines} lines for 500 changes");
        assert_eq!(open(folder.path()).unwrap().0.state(), account.state());
    }

    #[tokio::test]
    async fn dropping_the_journal_writes_what_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let (mut account, journal) = open(folder.path()).unwrap();
        create(&mut account, &journal, 1);
        drop(journal);
        assert_eq!(open(folder.path()).unwrap().0.state(), account.state());
    }

    #[tokio::test]
    async fn a_journal_that_was_torn_anywhere_has_all_batches_before() {
        let folder = tempfile::tempdir().unwrap();
        let (mut account, journal) = open(folder.path()).unwrap();
        let mut states = vec![account.state().clone()];
        for n in 0..3 {
            create(&mut account, &journal, n);
            journal.settled().await.unwrap();
            states.push(account.state().clone());
        }
        drop(journal);
        let path = folder.path().join(ACCOUNT);
        let whole = fs::read(&path).unwrap();
        let first = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        for length in (first..whole.len()).step_by(7).chain([whole.len() - 1, whole.len()]) {
            for hole in [0, 5] {
                let mut torn = whole[..length].to_vec();
                torn.extend(vec![0; hole]);
                fs::write(&path, &torn).unwrap();
                let batches = whole[first..length].iter().filter(|byte| **byte == b'\n').count();
                assert_eq!(*open(folder.path()).unwrap().0.state(), states[batches], "{length}");
            }
        }
    }

    #[tokio::test]
    async fn damage_before_the_last_line_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (mut account, journal) = open(folder.path()).unwrap();
        for n in 0..2 {
            create(&mut account, &journal, n);
            journal.settled().await.unwrap();
        }
        drop(journal);
        let path = folder.path().join(ACCOUNT);
        let whole = fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = whole.lines().collect();
        let complaint = |text: String| {
            fs::write(&path, text).unwrap();
            open(folder.path()).unwrap_err().to_string()
        };
        let half = &lines[1][..lines[1].len() / 2];
        assert!(complaint(format!("{}\n{half}\n{}\n", lines[0], lines[2])).contains("damaged: line 2: "));
        assert!(complaint(format!("{}\n{}\n{half}\n", lines[0], lines[1])).contains("damaged: line 3: "));
        assert!(complaint(lines[0][..50].to_owned()).contains("damaged: line 1: "));
        assert!(complaint(String::new()).contains("damaged: it is empty"));
        let other = lines[0].replacen(&format!(":{VERSION},"), ":1000,", 1);
        assert!(complaint(format!("{other}\n")).contains("another version"));
    }

    #[tokio::test]
    async fn nothing_is_settled_that_the_disk_did_not_take() {
        // A file that is open for reading only takes no write, as a full disk does.
        let unwritable = tempfile::NamedTempFile::new().unwrap();
        let journal = Journal::start(File::open(unwritable.path()).unwrap()).unwrap();
        let mut account = Account::new(&Scenario::default()).unwrap();
        account.watch_changes();
        journal.settled().await.unwrap();
        create(&mut account, &journal, 1);
        let failure = journal.settled().await.unwrap_err();
        assert!(failure.to_string().contains("can no longer be written: "), "{failure}");
        create(&mut account, &journal, 2);
        assert_eq!(journal.settled().await, Err(failure.clone()));
        assert_eq!(journal.failure().await, failure);
    }
}
