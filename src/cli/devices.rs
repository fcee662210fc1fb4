//! The devices that a load test or a search uses up, from a CSV or made up, and their ledger.

use std::path::{Path, PathBuf};

use super::args::DeviceArgs;
use super::exit::{Fatal, ledger as ledger_error};
use super::fit;
use super::lot::{LotReading, Rows};
use super::settings::usage;
use super::shard::Part;
use super::target::{Site, Target};
use crate::emulator::scenario::BUILT_IN_TEMPLATE;
use crate::identity::{GeneratedLot, Identity, KEY_COLUMNS, MADE_UP, ParameterPlan, Pattern, parse_constant};
use crate::ledger::{Binding, Counts, Ledger};
use crate::shard::Shard;

/// Stands for the template if none is needed. Not a valid template name.
pub(super) const NO_TEMPLATE: &str = "(none)";

/// Which devices to use up.
pub(super) struct DeviceSettings {
    source: Source,
    template: Option<String>,
    ledger: PathBuf,
    reading: LotReading,
    shard: Option<Shard>,
}

enum Source {
    Lot(PathBuf),
    MadeUp(MadeUp),
}

/// Devices that are in no file.
struct MadeUp {
    devices: u64,
    key_pattern: Pattern,
    /// Columns besides the key's.
    columns: Vec<(String, Pattern)>,
    seed: u64,
}

/// Devices in their ledger, and what their rows become.
pub(super) struct Devices {
    pub(super) ledger: Ledger,
    pub(super) path: PathBuf,
    pub(super) template: String,
    pub(super) parameters: ParameterPlan,
    /// Parameters of every device, as given.
    pub(super) constants: Vec<(String, String)>,
    /// The devices by state.
    pub(super) counts: Counts,
    /// Whether some devices have keys that were made here.
    pub(super) has_keys: bool,
    /// The shard with the fewest rows, and how many it has, if a lot is divided by its keys.
    pub(super) fewest: Option<(Shard, u64)>,
}

impl DeviceSettings {
    /// The devices that the arguments request. `seed` determines the random values of made-up devices.
    pub(super) fn new(args: DeviceArgs, seed: u64, part: Part) -> Result<Self, Fatal> {
        let beside = args.lot.as_ref().map(|lot| lot.with_extension("load.ledger"));
        let own = || part.own_file(beside.unwrap_or_else(|| PathBuf::from("load.ledger")));
        let ledger = args.ledger.unwrap_or_else(own);
        let source = match args.lot {
            Some(lot) => Source::Lot(lot),
            None => Source::MadeUp(MadeUp {
                devices: args.devices.expect("clap requires it where there is no lot"),
                columns: columns(&args.columns)?,
                key_pattern: args.key_pattern,
                seed,
            }),
        };
        if let Source::MadeUp(made_up) = &source
            && !made_up.key_pattern.is_unique()
        {
            return Err(usage("--key-pattern", "wanted {n} or {n:06} in it, so that all keys are different"));
        }
        let reading = LotReading::new(args.reading, None)?;
        Ok(Self { source, template: args.template, ledger, reading, shard: part.shard })
    }

    /// Reads or makes up the devices into a new ledger, or checks that the existing ledger is theirs. The template is
    /// required, and compared with what is sent, only if devices are registered.
    pub(super) async fn open(
        self,
        target: &Target,
        site: &Site,
        is_template_needed: bool,
    ) -> Result<Devices, Fatal> {
        let template = match &self.template {
            None if !is_template_needed && target.is_aws() => String::from(NO_TEMPLATE),
            typed => target.template(typed.as_deref())?,
        };
        let binding = Binding {
            template: template.clone(),
            region: target.region().to_owned(),
            account: target.account(),
            shard: self.shard,
            ..Binding::default()
        };
        let path = self.ledger.clone();
        let mut fewest = None;
        let (ledger, parameters) = match &self.source {
            Source::Lot(file) => {
                let lot = self.reading.read(file, &path)?;
                fewest = self.fewest_rows(file, &path)?;
                if is_template_needed && let Err(fatal) = fit::check(site, &template, &lot.parameters).await {
                    return Err(lot.or_wrong_rows(fatal));
                }
                lot.into_ledger(&path, &binding)?
            }
            Source::MadeUp(made_up) => {
                let is_built_in = !target.is_aws() && template == BUILT_IN_TEMPLATE;
                let lot = made_up.lot(self.reading.format.key_column.as_deref(), is_built_in)?;
                let rows = Rows { source: MADE_UP, shape: lot.shape(), rows: lot.rows().map(Ok) };
                if is_template_needed {
                    fit::check(site, &template, &self.reading.parameters(&rows.shape)?).await?;
                }
                self.reading.open(rows, &path, &binding)?
            }
        };
        let has_keys = ledger.view().open_prepared_keys().map_err(ledger_error)? > 0;
        let counts = ledger.view().counts().map_err(ledger_error)?;
        Ok(Devices {
            ledger,
            path,
            template,
            parameters,
            constants: self.reading.constants,
            counts,
            has_keys,
            fewest,
        })
    }

    /// The shard with the fewest rows of a lot. What is wrong with the lot is for others to say.
    fn fewest_rows(&self, lot: &Path, ledger: &Path) -> Result<Option<(Shard, u64)>, Fatal> {
        let (Some(Shard { of, .. }), Some(lot)) = (self.shard, self.reading.read_again(lot, ledger)?) else {
            return Ok(None);
        };
        let mut rows: Vec<_> = (0..of).map(|index| (Shard { index, of }, 0)).collect();
        let count = |identity: &Identity| rows[Shard::of_key(&identity.key, of).index as usize].1 += 1;
        let is_good = lot.look_through(count).is_ok();
        Ok(rows.into_iter().min_by_key(|(_, rows)| *rows).filter(|_| is_good))
    }
}

impl MadeUp {
    /// For the emulator's built-in template, the made-up devices have the columns that it needs.
    fn lot(&self, key_column: Option<&str>, is_built_in: bool) -> Result<GeneratedLot, Fatal> {
        let key_column = key_column.unwrap_or(if is_built_in { "DeviceId" } else { KEY_COLUMNS[0] });
        let mut columns = vec![(key_column.to_owned(), self.key_pattern.clone())];
        columns.extend(self.columns.iter().cloned());
        if is_built_in {
            let mac =
                "02:{hex:2}:{hex:2}:{hex:2}:{hex:2}:{hex:2}".parse().expect("a constant that is a pattern");
            for (name, pattern) in [("SerialNumber", self.key_pattern.clone()), ("MacAddress", mac)] {
                if !columns.iter().any(|(there, _)| there == name) {
                    columns.push((name.to_owned(), pattern));
                }
            }
        }
        let names = columns.iter().map(|(name, _)| name);
        if let Some(twice) =
            names.clone().enumerate().find(|(at, name)| names.clone().take(*at).any(|n| n == *name))
        {
            let name = twice.1;
            return Err(usage(
                "--column",
                if name == key_column {
                    format!("{name} is the key column, whose values --key-pattern makes")
                } else {
                    format!("{name} is given twice")
                },
            ));
        }
        let lot = GeneratedLot { columns, devices: self.devices, seed: self.seed };
        if lot.is_short() {
            Ok(lot)
        } else {
            Err(usage("--column", "a pattern makes a value that is longer than the service takes"))
        }
    }
}

fn columns(typed: &[String]) -> Result<Vec<(String, Pattern)>, Fatal> {
    let column = |typed: &String| {
        let (name, pattern) = parse_constant(typed).map_err(|error| usage("--column", error))?;
        let pattern = pattern.parse().map_err(|error| usage("--column", format!("{name}: {error}")))?;
        Ok((name, pattern))
    };
    typed.iter().map(column).collect()
}
