//! `--limit` and `--only`: which of the open devices a run provisions.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use super::exit::{Exit, Fatal, ledger as ledger_error};
use super::settings::usage;
use crate::engine::Scope;
use crate::event::DeviceState;
use crate::ledger::{Counts, Problem, Selection, View};

/// How many open devices are read from the ledger at once.
const PAGE: usize = 1_000;

/// Which devices to take up.
#[derive(Debug, Args)]
#[command(next_help_heading = "Lot")]
pub(super) struct ScopeArgs {
    /// Take up at most N devices that are not registered yet, in the lot's order. The same command without it goes on with
    /// the rest.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,

    /// Take up only the device with this key. Repeatable.
    #[arg(long, value_name = "KEY")]
    only: Vec<String>,

    /// Take up only the devices whose keys are in this file, one per line.
    #[arg(long, value_name = "FILE")]
    only_file: Option<PathBuf>,
}

/// The devices that a run provisions.
pub(super) struct Chosen {
    pub(super) scope: Scope,
    /// How many open devices are in the scope.
    pub(super) devices: u64,
    /// Whether all requested devices are already registered.
    is_done: bool,
}

impl ScopeArgs {
    /// The scope that the arguments request.
    pub(super) fn scope(self) -> Result<Scope, Fatal> {
        let mut keys: HashSet<String> = self.only.into_iter().collect();
        let has_keys = !keys.is_empty() || self.only_file.is_some();
        if let Some(file) = self.only_file {
            let text = std::fs::read_to_string(&file)
                .map_err(|error| usage("--only-file", format!("{}: {error}", file.display())))?;
            let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
            keys.extend(text.lines().filter(|line| !line.is_empty()).map(str::to_owned));
            if keys.is_empty() {
                return Err(usage("--only-file", format!("{} has no key in it", file.display())));
            }
        }
        Ok(Scope { keys: has_keys.then(|| Arc::new(keys)), most: self.limit, ..Scope::default() })
    }
}

impl Chosen {
    /// Resolves a scope in a ledger.
    ///
    /// # Errors
    /// If a requested key is not in the lot.
    pub(super) fn of(scope: Scope, view: &View, counts: &Counts) -> Result<Self, Fatal> {
        if scope.keys.is_none() && scope.except.is_empty() {
            let devices = scope.most.map_or(counts.open(), |most| counts.open().min(most));
            return Ok(Self { scope, devices, is_done: false });
        }
        let is_done = match &scope.keys {
            None => false,
            Some(keys) => are_done(keys, view)?,
        };
        let (mut devices, mut after) = (0, None);
        loop {
            let page = view.open_devices(after, PAGE).map_err(ledger_error)?;
            let Some(last) = page.last() else { break };
            after = Some(last.id);
            devices +=
                page.iter().fold(0, |taken, device| taken + u64::from(scope.takes(device, devices + taken)));
        }
        Ok(Self { scope, devices, is_done })
    }

    /// The exit code of a run that took all devices in the scope as far as possible.
    pub(super) fn exit(&self, before: &Counts, after: &Counts) -> Exit {
        if self.scope.is_all() {
            return Exit::of_devices(after);
        }
        let gained = after.registered.saturating_sub(before.registered);
        let has_all = self.is_done || (gained >= self.devices && self.devices > 0);
        // The devices that were left out are not registered.
        if has_all && self.scope.except.is_empty() { Exit::Complete } else { Exit::NotAllRegistered }
    }
}

/// Whether the devices with these keys are all registered already.
fn are_done(keys: &HashSet<String>, view: &View) -> Result<bool, Fatal> {
    let named = |states: &[DeviceState]| Selection {
        states: states.to_vec(),
        since_run: None,
        keys: keys.iter().cloned().collect(),
    };
    match view.count_certified(&named(&[DeviceState::Registered])) {
        Ok(_) => Ok(true),
        Err(error) => match &error.problem {
            Problem::NotThere(crate::ledger::NotThere::Keys { keys }) => {
                let listed: Vec<_> = keys.iter().take(5).map(|key| format!("{key:?}")).collect();
                let more = if keys.len() > listed.len() { ", …" } else { "" };
                let message = format!("the lot has no device with key {}{more}", listed.join(", "));
                Err(usage("--only", message))
            }
            Problem::NotThere(_) => Ok(false),
            _ => Err(ledger_error(error)),
        },
    }
}
