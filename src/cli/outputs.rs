//! Files that a command writes for its user: checked before anything is sent, written at the end.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::args::OutputArgs;
use super::exit::{Exit, Fatal};
use super::prometheus::Scrapes;
use super::recording::unwritable;
use super::shard::{Part, with_mark};
use super::speech::{print, say};
use crate::results::{Problem, ResultsError};

/// What a run writes besides its ledger, and its scrapes.
pub(super) struct Outputs {
    pub(super) scrapes: Scrapes,
    pub(super) summary: Option<Place>,
    pub(super) results: Option<PathBuf>,
    pub(super) junit: Option<Place>,
    /// The summary as a page.
    pub(super) page: Option<Place>,
    /// How long the run may take to end after it is asked to.
    pub(super) drain_timeout: Duration,
}

/// What happens if there are results already where a shard's are to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// They are refused.
    Refused,
    /// They are an earlier run's of the shard, which this one resumes: the next free number is taken.
    Numbered,
}

impl Outputs {
    /// The outputs that the arguments request, each shard's in files of its own, after checking that all of them can
    /// be written.
    pub(super) async fn open(args: OutputArgs, part: Part, taken: Taken) -> Result<Self, Fatal> {
        let summary = args.summary_json.map(|file| Place::check("--summary-json", part.own_output(file)));
        let summary = summary.transpose()?;
        let results = args.results.map(|typed| {
            let own = part.own_output(typed.clone());
            let own = if part.shard.is_some() && taken == Taken::Numbered { free(own) } else { own };
            if own != typed {
                say(format_args!("results in {}", own.display()));
            }
            own
        });
        if let Some(file) = &results {
            check_results(file)?;
        }
        Ok(Self {
            scrapes: Scrapes::listen(args.prometheus).await?,
            summary,
            results,
            junit: None,
            page: None,
            drain_timeout: args.drain_timeout,
        })
    }
}

/// The file, or with the first number from 2 on that no other has.
fn free(file: PathBuf) -> PathBuf {
    if !file.exists() {
        return file;
    }
    let mut numbers = 2_u32..;
    numbers
        .find_map(|number| Some(with_mark(&file, &number.to_string())).filter(|file| !file.exists()))
        .expect("no directory has so many files")
}

/// Refuses a path where no new results file can be created.
fn check_results(file: &Path) -> Result<(), Fatal> {
    let wrong = |problem| unwritable(ResultsError { file: file.to_owned(), problem });
    if file.exists() {
        return Err(wrong(Problem::Exists));
    }
    probe_new(file).map_err(|error| wrong(Problem::Io(error)))
}

/// Where an option's text is written.
#[derive(Debug)]
pub(super) struct Place {
    option: &'static str,
    /// `-` is stdout.
    file: PathBuf,
}

impl Place {
    /// Checks, without changing anything, that the place can probably be written.
    pub(super) fn check(option: &'static str, file: PathBuf) -> Result<Self, Fatal> {
        let place = Self { option, file };
        let probed = if place.is_stdout() { probe_stdout() } else { probe(&place.file) };
        probed.map_err(|error| place.unwritable(&error))?;
        Ok(place)
    }

    pub(super) fn is_stdout(&self) -> bool {
        self.file == Path::new("-")
    }

    /// Writes the text.
    pub(super) fn write(&self, text: &str) -> Result<(), Fatal> {
        if self.is_stdout() {
            print(text);
            return Ok(());
        }
        refuse_link(&self.file)
            .and_then(|()| fs::write(&self.file, text))
            .map_err(|error| self.unwritable(&error))
    }

    fn unwritable(&self, error: &io::Error) -> Fatal {
        let message = format!("{}: {} cannot be written: {error}", self.option, self.file.display());
        Fatal::new(Exit::LedgerUnusable, message)
    }
}

/// Refuses a symbolic link: it may lead to a file that nobody named. Links in /dev are the system's own and are
/// allowed.
fn refuse_link(file: &Path) -> io::Result<()> {
    let is_link = fs::symlink_metadata(file).is_ok_and(|found| found.is_symlink());
    if is_link && !file.starts_with("/dev") {
        return Err(io::Error::other("it is a symbolic link, which is not followed; name the file itself"));
    }
    Ok(())
}

/// Checks that a file can be written, without changing an existing one.
fn probe(file: &Path) -> io::Result<()> {
    refuse_link(file)?;
    match fs::metadata(file) {
        // Opening a pipe would wait for its reader.
        Ok(there) if there.file_type().is_fifo() => Ok(()),
        // Some devices refuse every write, such as /dev/full; an empty write shows it.
        Ok(there) if there.file_type().is_char_device() => {
            OpenOptions::new().write(true).open(file)?.write(b"").map(drop)
        }
        Ok(_) => OpenOptions::new().write(true).open(file).map(drop),
        Err(error) if error.kind() == io::ErrorKind::NotFound => probe_new(file),
        Err(error) => Err(error),
    }
}

/// Checks that stdout accepts output. Pipes and terminals are not touched before there is something to write, and
/// need not be: they are never full.
fn probe_stdout() -> io::Result<()> {
    let there = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    if there.metadata()?.file_type().is_char_device() && !io::stdout().is_terminal() {
        return (&there).write(b"").map(drop);
    }
    Ok(())
}

/// Checks that a new file can be created, with room for a page.
fn probe_new(file: &Path) -> io::Result<()> {
    let mut made = OpenOptions::new().write(true).create_new(true).open(file)?;
    let written = made.write_all(&[b'\n'; 4096]).and_then(|()| made.sync_data());
    drop(made);
    fs::remove_file(file)?;
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_written_is_known_before_and_nothing_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let there = folder.path().join("there");
        fs::write(&there, "old").unwrap();
        let check = |file: &Path| Place::check("--x", file.to_owned()).map(drop);
        check(&there).unwrap();
        check(&folder.path().join("new")).unwrap();
        check(Path::new("-")).unwrap();
        assert_eq!(fs::read(&there).unwrap(), b"old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&there, &link).unwrap();
        for wrong in
            [link, folder.path().to_owned(), folder.path().join("no/such"), PathBuf::from("/dev/full")]
        {
            let refused = check(&wrong).unwrap_err();
            assert_eq!(refused.exit, Exit::LedgerUnusable, "{}", wrong.display());
            assert!(refused.message.starts_with("--x: "), "{}", refused.message);
        }
    }
}
