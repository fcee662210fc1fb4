//! The devices of a load test: a CSV's, or made up; and their ledger.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::args::DeviceArgs;
use crate::cli::exit::{Exit, Fatal};
use crate::cli::provision::row_errors;
use crate::cli::settings::usage;
use crate::identity::{
    GeneratedLot, Identity, KEY_COLUMNS, LotReader, LotShape, MADE_UP, ParameterPlan, Pattern, RowError,
    parse_constant,
};
use crate::ledger::{Binding, Counts, ImportError, Ledger, LotRows};

/// Devices in their ledger, and what their rows become.
pub(in crate::cli) struct Devices {
    pub(in crate::cli) ledger: Ledger,
    pub(in crate::cli) path: PathBuf,
    pub(in crate::cli) binding: Binding,
    pub(in crate::cli) parameters: ParameterPlan,
    /// Whether some have keys that were made here.
    pub(in crate::cli) has_keys: bool,
}

impl Devices {
    /// Reads or makes up the devices into their ledger, or checks that the ledger that is there is theirs. `built_in` says
    /// that their template is the emulator's own.
    pub(in crate::cli) fn open(
        args: &DeviceArgs,
        seed: u64,
        binding: Binding,
        built_in: bool,
    ) -> Result<Self, Fatal> {
        let constants: Result<Vec<_>, _> = args.params.iter().map(|param| parse_constant(param)).collect();
        let constants = constants.map_err(|error| usage("--param", error))?;
        let (source, path) = match &args.lot {
            Some(lot) => (lot.display().to_string(), lot.with_extension("load.ledger")),
            None => (String::from(MADE_UP), PathBuf::from("load.ledger")),
        };
        let path = args.ledger.clone().unwrap_or(path);
        let opened = match &args.lot {
            Some(lot) => {
                let reader = read(lot, args.key_column.as_deref())?;
                let shape = reader.shape().clone();
                open(&path, &binding, &source, shape, reader, &constants)?
            }
            None => {
                let lot = made_up(args, seed, built_in)?;
                let shape = lot.shape();
                open(&path, &binding, &source, shape, lot.rows().map(Ok), &constants)?
            }
        };
        let (ledger, parameters) = opened;
        let has_keys = ledger.view().open_prepared_keys().map_err(super::ledger_error)? > 0;
        Ok(Self { ledger, path, binding, parameters, has_keys })
    }

    /// The devices by state.
    pub(in crate::cli) fn counts(&self) -> Result<Counts, Fatal> {
        self.ledger.view().counts().map_err(super::ledger_error)
    }
}

fn read(lot: &Path, key_column: Option<&str>) -> Result<LotReader<BufReader<File>>, Fatal> {
    let name = lot.display().to_string();
    let file = File::open(lot)
        .map_err(|error| Fatal::new(Exit::BadIdentities, format!("{name}: cannot be read: {error}")))?;
    LotReader::new(BufReader::with_capacity(1 << 16, file), key_column)
        .map_err(|errors| Fatal::new(Exit::BadIdentities, row_errors(&name, &errors, 0)))
}

fn open<I>(
    path: &Path,
    binding: &Binding,
    source: &str,
    shape: LotShape,
    rows: I,
    constants: &[(String, String)],
) -> Result<(Ledger, ParameterPlan), Fatal>
where
    I: Iterator<Item = Result<Identity, Vec<RowError>>>,
{
    let parameters = ParameterPlan::new(&shape, constants).map_err(|error| usage("--param", error))?;
    let check = |identity: &Identity| parameters.check(identity);
    let rows = LotRows { source, shape, rows };
    let ledger = Ledger::open_or_import(path, binding, rows, check, SystemTime::now());
    let ledger = ledger.map_err(|error| match error {
        ImportError::Rows { errors, more } => {
            Fatal::new(Exit::BadIdentities, row_errors(source, &errors, more))
        }
        ImportError::Ledger(error) => super::ledger_error(error),
    })?;
    Ok((ledger, parameters))
}

/// Devices that stand in no file. For the emulator's own template they have the columns that it asks for.
fn made_up(args: &DeviceArgs, seed: u64, built_in: bool) -> Result<GeneratedLot, Fatal> {
    if !args.key_pattern.is_unique() {
        return Err(usage("--key-pattern", "wanted {n} or {n:06} in it, so that all keys are different"));
    }
    let default_key = if built_in { "DeviceId" } else { KEY_COLUMNS[0] };
    let key_column = args.key_column.clone().unwrap_or_else(|| default_key.to_owned());
    let mut columns = vec![(key_column, args.key_pattern.clone())];
    for column in &args.columns {
        let (name, pattern) = parse_constant(column).map_err(|error| usage("--column", error))?;
        let pattern: Pattern =
            pattern.parse().map_err(|error| usage("--column", format!("{name}: {error}")))?;
        if columns.iter().any(|(there, _)| *there == name) {
            return Err(usage("--column", format!("{name} is given twice")));
        }
        columns.push((name, pattern));
    }
    if built_in {
        let mac = "02:{hex:2}:{hex:2}:{hex:2}:{hex:2}:{hex:2}".parse().expect("a constant that is a pattern");
        for (name, pattern) in [("SerialNumber", args.key_pattern.clone()), ("MacAddress", mac)] {
            if !columns.iter().any(|(there, _)| there == name) {
                columns.push((name.to_owned(), pattern));
            }
        }
    }
    let devices = args.devices.expect("clap requires it where there is no lot");
    let lot = GeneratedLot { columns, devices, seed };
    match lot.is_short() {
        true => Ok(lot),
        false => Err(usage("--column", "a pattern makes a value that is longer than the service takes")),
    }
}
