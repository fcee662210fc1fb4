//! A lot into its ledger: how it is read, what its rows become, and what is said of rows that are wrong.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::time::SystemTime;

use super::exit::{Exit, Fatal, ledger as ledger_error};
use super::lot_args::LotArgs;
use super::settings::usage;
use crate::identity::{Identity, LotReader, LotShape, ParameterPlan, RowError, parse_constant};
use crate::ledger::{Binding, ImportError, Ledger, LotRows};

/// How lots are read, and what their rows become.
pub(super) struct LotReading {
    pub(super) key_column: Option<String>,
    /// Parameters of every device, by name.
    pub(super) constants: Vec<(String, String)>,
}

/// Rows of a lot, and where they come from.
pub(super) struct Rows<'a, I> {
    pub(super) source: &'a str,
    pub(super) shape: LotShape,
    pub(super) rows: I,
}

impl LotReading {
    /// What was typed.
    pub(super) fn new(args: LotArgs) -> Result<Self, Fatal> {
        let constants = args.params.iter().map(|param| parse_constant(param)).collect::<Result<_, _>>();
        let constants = constants.map_err(|error| usage("--param", error))?;
        Ok(Self { key_column: args.key_column, constants })
    }

    /// Reads a lot into the ledger at `path`, or checks that the ledger that is there is this lot's.
    pub(super) fn open_lot(
        &self,
        lot: &Path,
        path: &Path,
        binding: &Binding,
    ) -> Result<(Ledger, ParameterPlan), Fatal> {
        let source = lot.display().to_string();
        let file = File::open(lot)
            .map_err(|error| Fatal::new(Exit::BadIdentities, format!("{source}: cannot be read: {error}")))?;
        let rows = LotReader::new(BufReader::with_capacity(1 << 16, file), self.key_column.as_deref())
            .map_err(|errors| wrong_rows(&source, &errors, 0))?;
        self.open(Rows { source: &source, shape: rows.shape().clone(), rows }, path, binding)
    }

    /// Takes rows into the ledger at `path`, or checks that the ledger that is there has these.
    pub(super) fn open<I>(
        &self,
        rows: Rows<'_, I>,
        path: &Path,
        binding: &Binding,
    ) -> Result<(Ledger, ParameterPlan), Fatal>
    where
        I: Iterator<Item = Result<Identity, Vec<RowError>>>,
    {
        let Rows { source, shape, rows } = rows;
        let parameters =
            ParameterPlan::new(&shape, &self.constants).map_err(|error| usage("--param", error))?;
        let check = |identity: &Identity| parameters.check(identity);
        let rows = LotRows { source, shape, rows };
        let ledger = Ledger::open_or_import(path, binding, rows, check, SystemTime::now());
        let ledger = ledger.map_err(|error| match error {
            ImportError::Rows { errors, more } => wrong_rows(source, &errors, more),
            ImportError::Ledger(error) => ledger_error(error),
        })?;
        Ok((ledger, parameters))
    }
}

/// All that is wrong with a lot, one line each, and that nothing was done.
fn wrong_rows(lot: &str, errors: &[RowError], more: u64) -> Fatal {
    let mut message: String = errors.iter().map(|error| format!("{lot}: {error}\n       ")).collect();
    if more > 0 {
        message += &format!("… and {more} more\n       ");
    }
    let count = errors.len() as u64 + more;
    message += &format!(
        "{count} errors in the lot; nothing was sent and no ledger was made. Mend the file and run again."
    );
    Fatal::new(Exit::BadIdentities, message)
}
