//! The devices that a calibration makes up, and the ledger that keeps what is made for them.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::{Value, json};

use crate::calibration::{MOST_CERTIFICATES, Subject, roles};
use crate::cli::exit::{Exit, Fatal, ledger as ledger_error};
use crate::cli::run_settings;
use crate::cli::settings::usage;
use crate::identity::{
    GeneratedLot, Identity, LotShape, MADE_UP_TO_CALIBRATE, ParameterPlan, Pattern, parse_constant,
};
use crate::ledger::{Binding, ImportError, Ledger, LotRows, RunId};
use crate::template::declared_parameters;

/// The devices of a calibration, with those of earlier ones on the same ledger.
pub(super) struct Devices {
    path: PathBuf,
    /// What tells the devices of this ledger from those of others: kept there as the name of its lot.
    stem: String,
    lot: GeneratedLot,
    /// How many devices earlier calibrations had.
    before: u64,
    /// The column of the parameter that the last device of each calibration has no value for; 0, the key's, for none.
    blank: usize,
    parameters: ParameterPlan,
    constants: Vec<(String, String)>,
}

impl Devices {
    /// The devices for a template with this body. Reads the ledger if there is one, and changes nothing.
    pub(super) fn new(path: &Path, body: &str, columns: &[String], params: &[String]) -> Result<Self, Fatal> {
        let constants: Vec<_> = params
            .iter()
            .map(|param| parse_constant(param))
            .collect::<Result<_, _>>()
            .map_err(|error| usage("--param", error))?;
        let required = required(body, &constants)?;
        let (stem, before) = known(path)?;
        let Some((naming, left_out)) = roles(body, &required) else {
            let message =
                "every parameter has a default or is given by --param: nothing would tell things apart";
            return Err(usage("--template", message));
        };
        let columns = patterns(&required, naming, columns, &stem)?;
        let blank = columns.iter().position(|(name, _)| name == left_out).unwrap_or_default();
        let seed = u64::from_str_radix(&stem, 16).unwrap_or_default();
        let lot = GeneratedLot { columns, devices: before + MOST_CERTIFICATES as u64, seed };
        if !lot.is_short() {
            return Err(usage("--column", "a pattern makes a value that is longer than the service takes"));
        }
        let parameters =
            ParameterPlan::new(&lot.shape(), &constants).map_err(|error| usage("--param", error))?;
        Ok(Self { path: path.to_owned(), stem, lot, before, blank, parameters, constants })
    }

    /// What this calibration works with.
    pub(super) fn subject(&self, template: &str, body: String) -> Subject {
        let devices: Vec<_> =
            self.rows().zip(1..).skip(self.before as usize).map(|(row, id)| (id, row)).collect();
        let left_out = (self.lot.columns[self.blank].0.clone(), devices.len() - 1);
        let parameters = self.parameters.clone();
        Subject { template: template.to_owned(), body, devices, parameters, left_out }
    }

    /// Opens the ledger, and begins a run.
    pub(super) fn begin(&self, binding: &Binding) -> Result<(Ledger, RunId), Fatal> {
        let source = format!("{MADE_UP_TO_CALIBRATE}{}", self.stem);
        let rows = LotRows { source: &source, shape: self.shape(), rows: self.rows().map(Ok) };
        let (check, now) = (|row: &Identity| self.parameters.check(row), SystemTime::now());
        let opened = Ledger::open_or_import(&self.path, binding, rows, check, now);
        let mut ledger = opened.map_err(|error| match error {
            ImportError::Ledger(error) => ledger_error(error),
            ImportError::Rows(errors) => Fatal::new(Exit::BadIdentities, errors),
        })?;
        let own = json!({ "verb": "calibrate", "parameters": self.constants });
        let own = Value::Object(run_settings::kept(None, own));
        let run = ledger.begin_run(&own, now).map_err(ledger_error)?;
        Ok((ledger, run))
    }

    fn shape(&self) -> LotShape {
        self.lot.shape()
    }

    fn rows(&self) -> impl Iterator<Item = Identity> {
        let blank = self.blank;
        self.lot.clone().rows().zip(1..).map(move |(mut row, number)| {
            if blank > 0 && number % MOST_CERTIFICATES == 0 {
                row.values[blank].clear();
            }
            row
        })
    }
}

/// The parameters that the template has no default for and that are not given as constants.
fn required(body: &str, constants: &[(String, String)]) -> Result<Vec<String>, Fatal> {
    let Some(declared) = declared_parameters(body) else {
        return Err(usage("--template", "its body is not JSON"));
    };
    let is_given = |name: &str| constants.iter().any(|(given, _)| given == name);
    let own = declared.into_iter().filter(|declared| !declared.is_optional && !is_given(&declared.name));
    Ok(own.map(|declared| declared.name).collect())
}

/// The stem of a ledger, and how many devices it has; a new one if there is none.
fn known(path: &Path) -> Result<(String, u64), Fatal> {
    if !path.exists() {
        return Ok((format!("{:08x}", rand::random::<u32>()), 0));
    }
    let view = Ledger::open_read_only(path).map_err(ledger_error)?;
    let lot = view.lot();
    match lot.source.strip_prefix(MADE_UP_TO_CALIBRATE) {
        Some(stem) => Ok((stem.to_owned(), lot.devices)),
        None => Err(usage("--ledger", format!("{} is not the ledger of a calibration", path.display()))),
    }
}

/// A pattern for each parameter, the one that things are named by first.
fn patterns(
    required: &[String],
    naming: &String,
    typed: &[String],
    stem: &str,
) -> Result<Vec<(String, Pattern)>, Fatal> {
    let typed = typed.iter().map(|text| parse_constant(text)).collect::<Result<Vec<_>, _>>();
    let typed = typed.map_err(|error| usage("--column", error))?;
    if let Some((name, _)) = typed.iter().find(|(name, _)| !required.contains(name)) {
        return Err(usage("--column", format!("the template wants no value for {name}")));
    }
    let names = std::iter::once(naming).chain(required.iter().filter(|name| *name != naming));
    let pattern = |name: &String| {
        let usual = if name == naming {
            format!("fleetmint-cal-{stem}-{{n:03}}")
        } else {
            String::from("cal{hex:12}")
        };
        let text = typed.iter().find(|(typed, _)| typed == name).map_or(&usual, |(_, pattern)| pattern);
        let pattern = text.parse().map_err(|error| usage("--column", format!("{name}: {error}")))?;
        Ok((name.clone(), pattern))
    };
    let columns: Vec<(String, Pattern)> = names.map(pattern).collect::<Result<_, _>>()?;
    if columns[0].1.is_unique() {
        Ok(columns)
    } else {
        Err(usage("--column", format!("wanted {{n}} or {{n:06}} in {naming}, which names the things")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = include_str!("../../../fixtures/templates/temp-device.json");

    #[test]
    fn the_last_device_lacks_a_value_that_names_no_thing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("l");
        let devices = Devices::new(&path, BODY, &[], &[]).unwrap();
        let subject = devices.subject("T", BODY.to_owned());
        // Which of the others is left out depends on the order of the body's parameters, which JSON does not keep.
        let (name, place) = &subject.left_out;
        assert!(["MacAddress", "SerialNumber"].contains(&name.as_str()), "{name}");
        assert_eq!((subject.devices.len(), *place), (25, 24));
        assert_eq!(subject.devices[24].1.values[1], "");
        assert!(subject.devices[23].1.values.iter().all(|value| !value.is_empty()));
        assert_eq!(subject.devices[0].0, 1);
    }

    #[test]
    fn a_second_calibration_has_devices_of_its_own_in_the_same_ledger() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("l");
        let first = Devices::new(&path, BODY, &[], &[]).unwrap();
        let binding = Binding { template: String::from("T"), ..Binding::default() };
        drop(first.begin(&binding).unwrap());
        let second = Devices::new(&path, BODY, &[], &[]).unwrap();
        assert_eq!((&second.stem, second.before), (&first.stem, 25));
        let subject = second.subject("T", BODY.to_owned());
        assert_eq!((subject.devices[0].0, subject.devices.len()), (26, 25));
        drop(second.begin(&binding).unwrap());
    }
}
