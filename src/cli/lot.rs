//! From a lot to its ledger: how it is read, what its rows become, and how wrong rows are reported.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::exit::{Exit, Fatal, ledger as ledger_error};
use super::lot_args::{Empty, LotArgs};
use super::requests::{RequestCheck, RequestSource};
use super::settings::usage;
use super::shard::Part;
use super::speech::{say, warn};
use crate::identity::{
    Delimiter, Doubtful, EmptyCells, Encoding, Identity, LotErrors, LotFault, LotFormat, LotReader, LotShape,
    ParameterPlan, RowError, SentColumns, new_key_fault, parse_constant,
};
use crate::ledger::{Binding, ImportError, Ledger, LostLedger, LotRows, Restored, View};
use crate::wording::number;

/// How lots are read, and what their rows become.
pub(super) struct LotReading {
    pub(super) format: LotFormat,
    sent: SentColumns,
    requests: Option<RequestSource>,
    /// Parameters of every device, by name.
    pub(super) constants: Vec<(String, String)>,
}

/// A lot after its header was read.
pub(super) struct OpenLot {
    pub(super) source: String,
    rows: LotReader<Box<dyn Read + Send>>,
    pub(super) shape: LotShape,
    /// Where its devices' own certification requests are, and their checker.
    requests: Option<(RequestSource, RequestCheck)>,
    /// What its rows become.
    pub(super) parameters: ParameterPlan,
}

/// Rows of a lot, and their source.
pub(super) struct Rows<'a, I> {
    pub(super) source: &'a str,
    pub(super) shape: LotShape,
    pub(super) rows: I,
}

/// The name for the lot on standard input.
const STDIN: &str = "-";

impl LotReading {
    /// The reading that the arguments request.
    pub(super) fn new(args: LotArgs, requests: Option<RequestSource>) -> Result<Self, Fatal> {
        let constants = args.params.iter().map(|param| parse_constant(param)).collect::<Result<_, _>>();
        let format = LotFormat {
            delimiter: args.delimiter.0,
            key_column: args.key_column,
            doubtful: if args.strict { Doubtful::Refused } else { Doubtful::Taken },
            known_columns: Vec::new(),
        };
        let sent = SentColumns {
            only: (!args.sent_columns.is_empty()).then_some(args.sent_columns),
            requests: requests.as_ref().map(|requests| requests.column().to_owned()),
            empty_cells: match args.empty {
                Empty::Send => EmptyCells::Sent,
                Empty::Omit => EmptyCells::LeftOut,
            },
        };
        Ok(Self { format, sent, requests, constants: constants.map_err(|error| usage("--param", error))? })
    }

    /// What determines the content sent for a row, besides parameters.
    pub(super) fn others(&self) -> BTreeMap<String, String> {
        let only = self.sent.only.as_ref().map(|names| (String::from("columns"), names.join(",")));
        let empty = (self.sent.empty_cells == EmptyCells::LeftOut)
            .then(|| (String::from("empty"), String::from("omit")));
        only.into_iter().chain(empty).collect()
    }

    /// Opens a lot and reads its header. Column names of an existing ledger stay valid.
    pub(super) fn read(&self, lot: &Path, ledger: &Path) -> Result<OpenLot, Fatal> {
        let open = self.read_quietly(lot, ledger)?;
        if let Some(recognised) = recognised(&open.rows) {
            say(format_args!("{}: {recognised}", open.source));
        }
        Ok(open)
    }

    /// Opens a lot a second time while it is being read; `None` if it is not a file and so can be read only once.
    pub(super) fn read_again(&self, lot: &Path, ledger: &Path) -> Result<Option<OpenLot>, Fatal> {
        if lot.is_file() { self.read_quietly(lot, ledger).map(Some) } else { Ok(None) }
    }

    fn read_quietly(&self, lot: &Path, ledger: &Path) -> Result<OpenLot, Fatal> {
        let (source, rows) = if lot == Path::new(STDIN) {
            let format = LotFormat { known_columns: columns_of(ledger), ..self.format.clone() };
            let stdin: Box<dyn Read + Send> = Box::new(std::io::stdin());
            (String::from("standard input"), LotReader::with_format(stdin, &format))
        } else {
            let source = lot.display().to_string();
            let open = |format: &LotFormat| {
                let file = File::open(lot).map_err(|error| {
                    Fatal::new(Exit::BadIdentities, format!("{source}: cannot be read: {error}"))
                })?;
                let file: Box<dyn Read + Send> = Box::new(BufReader::with_capacity(1 << 16, file));
                Ok(LotReader::with_format(file, format))
            };
            let rows = match open(&self.format)? {
                Err(errors) if errors.iter().all(|error| error.fault == LotFault::ColumnName) => {
                    open(&LotFormat { known_columns: columns_of(ledger), ..self.format.clone() })?
                }
                rows => rows,
            };
            (source, rows)
        };
        let rows = rows.map_err(|errors| wrong_rows(&source, &errors.into()))?;
        let mut shape = rows.shape().clone();
        let mut requests = None;
        if let Some(source) = &self.requests {
            let place;
            (shape, place) = source.extend(shape)?;
            requests = Some((source.clone(), RequestCheck::new(source.column().to_owned(), place)));
        }
        let parameters = self.parameters(&shape)?;
        Ok(OpenLot { source, rows, shape, requests, parameters })
    }

    /// Takes rows into a new ledger at `path`, or checks that the existing ledger has these rows.
    pub(super) fn open<I>(
        &self,
        rows: Rows<'_, I>,
        path: &Path,
        binding: &Binding,
    ) -> Result<(Ledger, ParameterPlan), Fatal>
    where
        I: Iterator<Item = Result<Identity, Vec<RowError>>>,
    {
        let parameters = self.parameters(&rows.shape)?;
        let ledger = into_ledger(rows, |identity| parameters.check(identity), path, binding)?;
        Ok((ledger, parameters))
    }

    /// The parameters for rows of this shape.
    pub(super) fn parameters(&self, shape: &LotShape) -> Result<ParameterPlan, Fatal> {
        use crate::identity::ParameterError::NotAColumn;
        ParameterPlan::sending(shape, &self.sent, &self.constants).map_err(|error| match error {
            NotAColumn { .. } => usage("--columns", error),
            error => usage("--param", error),
        })
    }
}

impl OpenLot {
    /// Why the lot cannot be provisioned: what is wrong with its rows, followed by `fatal`, which was found first.
    /// The user can then correct all of it at once.
    pub(super) fn or_wrong_rows(self, fatal: Fatal) -> Fatal {
        match self.look_through(|_| {}) {
            Ok(()) => fatal,
            Err(wrong) => Fatal::new(wrong.exit, format!("{}\n       {}", wrong.message, fatal.message)),
        }
    }

    /// Passes every good row to `show`.
    ///
    /// # Errors
    /// What is wrong with the rows, after all of them were read. Duplicate keys are not found here.
    pub(super) fn look_through(self, mut show: impl FnMut(&Identity)) -> Result<(), Fatal> {
        let Self { source, rows, shape, requests, parameters } = self;
        let (place, mut requests) = requests.unzip();
        let key_column = &shape.columns[shape.key_column];
        let mut errors = LotErrors::default();
        for row in rows {
            let row = match &place {
                None => row,
                Some(place) => row.and_then(|identity| place.attach(identity)),
            };
            match row {
                Ok(identity) => {
                    errors.add(parameters.check(&identity).err().into_iter().flatten());
                    errors.add(new_key_fault(&identity, key_column));
                    errors.add(requests.as_mut().and_then(|requests| requests.check(&identity)));
                    show(&identity);
                }
                Err(found) => errors.add(found),
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(wrong_rows(&source, &errors)) }
    }

    /// Takes the lot into a new ledger at `path`, or checks that the existing ledger is this lot's. Reports what is
    /// doubtful.
    pub(super) fn into_ledger(
        self,
        path: &Path,
        binding: &Binding,
    ) -> Result<(Ledger, ParameterPlan), Fatal> {
        self.through(|rows, check| Ledger::open_or_import(path, binding, rows, check, SystemTime::now()))
    }

    /// Makes a lost ledger anew at `path`. Reports what is doubtful.
    pub(super) fn restore(self, path: &Path, lost: &LostLedger, now: SystemTime) -> Result<Restored, Fatal> {
        self.through(|rows, check| Ledger::restore(path, lost, rows, check, now))
            .map(|(restored, _)| restored)
    }

    /// Has `take` take in the rows, with their requests, and a check of each. Returns its result with the parameters.
    fn through<T>(
        self,
        take: impl FnOnce(
            LotRows<'_, &mut dyn Iterator<Item = Result<Identity, Vec<RowError>>>>,
            &mut dyn FnMut(&Identity) -> Result<(), Vec<RowError>>,
        ) -> Result<T, ImportError>,
    ) -> Result<(T, ParameterPlan), Fatal> {
        let Self { source, mut rows, shape, requests, parameters } = self;
        let (place, mut requests) = requests.unzip();
        let with_requests = |row: Result<Identity, Vec<RowError>>| match &place {
            None => row,
            Some(place) => row.and_then(|identity| place.attach(identity)),
        };
        let mut check = |identity: &Identity| {
            let mut errors = parameters.check(identity).err().unwrap_or_default();
            errors.extend(requests.as_mut().and_then(|requests| requests.check(identity)));
            if errors.is_empty() { Ok(()) } else { Err(errors) }
        };
        let mut passing = rows.by_ref().map(with_requests);
        let passing = LotRows { source: &source, shape, rows: &mut passing as &mut dyn Iterator<Item = _> };
        let taken = take(passing, &mut check).map_err(|error| refused(&source, error))?;
        say_doubts(&source, rows.doubts());
        Ok((taken, parameters))
    }
}

/// The ledger of a lot or part of a lot: as requested, or beside the lot. A lot on standard input has no place beside
/// it.
pub(super) fn ledger_of(lot: &Path, asked: Option<PathBuf>, part: Part) -> Result<PathBuf, Fatal> {
    match asked {
        Some(ledger) => Ok(ledger),
        None if lot == Path::new(STDIN) => {
            Err(usage("--ledger", "is missing: a lot from standard input has no place to put it beside"))
        }
        None => {
            let mut name = lot.file_stem().map_or_else(|| OsString::from("lot"), OsString::from);
            name.push(".ledger");
            Ok(part.own_file(lot.with_file_name(name)))
        }
    }
}

fn into_ledger<I>(
    rows: Rows<'_, I>,
    check: impl FnMut(&Identity) -> Result<(), Vec<RowError>>,
    path: &Path,
    binding: &Binding,
) -> Result<Ledger, Fatal>
where
    I: Iterator<Item = Result<Identity, Vec<RowError>>>,
{
    let Rows { source, shape, rows } = rows;
    let rows = LotRows { source, shape, rows };
    Ledger::open_or_import(path, binding, rows, check, SystemTime::now())
        .map_err(|error| refused(source, error))
}

fn refused(lot: &str, error: ImportError) -> Fatal {
    match error {
        ImportError::Rows(errors) => wrong_rows(lot, &errors),
        ImportError::Ledger(error) => ledger_error(error),
    }
}

/// The columns of an existing ledger; empty if it does not exist or cannot be read, which is reported when it is
/// opened.
fn columns_of(ledger: &Path) -> Vec<String> {
    View::open(ledger).map_or_else(|_| Vec::new(), |view| view.lot().shape.columns.clone())
}

/// How a lot is encoded and delimited, if that is unusual.
fn recognised<R: Read>(rows: &LotReader<R>) -> Option<String> {
    let columns = format!("columns separated by {}", rows.delimiter().plural());
    match (rows.encoding(), rows.delimiter()) {
        (Encoding::Utf8, Delimiter::Comma) => None,
        (Encoding::Utf8, _) => Some(columns),
        (Encoding::Utf16, _) => Some(format!("UTF-16 text, {columns}")),
    }
}

/// Reports what looks wrong with an accepted lot, once for each kind of doubt.
fn say_doubts(lot: &str, doubts: &LotErrors) {
    for kind in doubts.kinds() {
        let Some(first) = kind.first.first() else { continue };
        let values = number(kind.first.len() as u64 + kind.more, "value", "values");
        let (what, advice) = match kind.fault {
            LotFault::SpreadsheetDamage => {
                ("that a spreadsheet may have changed", "; --strict refuses such values")
            }
            LotFault::ColumnName => {
                ("that no new lot could have as the name of a column, and that the ledger has already", "")
            }
            _ => ("that no new device could have as its key, and that the ledger has already", ""),
        };
        warn(format_args!("warning: {lot}: {values} {what}; the first: {first}{advice}"));
    }
}

/// The error for a lot: what is wrong, kind by kind, and that nothing was done.
pub(super) fn wrong_rows(lot: &str, errors: &LotErrors) -> Fatal {
    let mut lines = Vec::new();
    for kind in errors.kinds() {
        lines.extend(kind.first.iter().map(|error| format!("{lot}: {error}")));
        if kind.more > 0 {
            lines.push(format!("… and {} more of this kind", kind.more));
        }
        lines.extend(advice(kind.fault).map(|advice| format!("  -> {advice}")));
    }
    let errors = number(errors.count(), "error", "errors");
    lines.push(format!(
        "{errors} in the lot; nothing was sent and no ledger was made or changed. Mend the file and run again."
    ));
    Fatal::new(Exit::BadIdentities, lines.join("\n       "))
}

/// Which option may help with errors of this kind.
fn advice(fault: LotFault) -> Option<&'static str> {
    match fault {
        LotFault::Delimiter => Some("--delimiter says which it is: , ; tab or |"),
        LotFault::KeyColumn => Some("--key-column NAME says which of the lot's columns identifies a device"),
        LotFault::Request => {
            Some("a request is made where the key is: on the device, or in its secure element")
        }
        LotFault::SpreadsheetDamage => Some("without --strict such values are taken, with a warning"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ledger_stands_beside_the_lot() {
        for (lot, ledger) in [("a/lot.csv", "a/lot.ledger"), ("lot", "lot.ledger"), ("a.b.csv", "a.b.ledger")]
        {
            assert_eq!(ledger_of(Path::new(lot), None, Part::default()).ok(), Some(PathBuf::from(ledger)));
        }
        assert!(ledger_of(Path::new("-"), None, Part::default()).is_err());
        assert_eq!(
            ledger_of(Path::new("-"), Some("l".into()), Part::default()).ok(),
            Some(PathBuf::from("l"))
        );
    }
}
