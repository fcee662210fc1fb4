//! `--connect N`: certificates are tried, each with a connection of its own.

use serde_json::json;
use std::time::SystemTime;

use crate::aftercare::connect::{Connected, Door, Trial, connect};
use crate::aftercare::verify::{DIFFERS, Plan, VERB};
use crate::aftercare::{Ended, Setting};
use crate::certificate::StoredKey;
use crate::cli::exit::{Exit, Fatal, ledger as ledger_error};
use crate::cli::speech::say;
use crate::control_plane::AskError;
use crate::event::DeviceState;
use crate::ledger::{CertifiedDevice, Finding, Ledger, LedgerError, MadeDevice, Selection, Undone};
use crate::sealing::KeyOpener;

/// What trials need.
pub(super) struct Trials<'a> {
    pub(super) plan: &'a Plan,
    pub(super) setting: &'a Setting,
    pub(super) door: &'a Door,
    pub(super) opener: &'a KeyOpener,
}

impl Trials<'_> {
    /// Tries the certificates of `number` devices, spread over those of the plan, and records what came of each.
    ///
    /// # Errors
    /// If the ledger or a key cannot be read.
    pub(super) async fn run(&self, number: usize, ledger: &mut Ledger) -> Result<Ended, Fatal> {
        let chosen = if number == 0 { Vec::new() } else { self.choose(number, ledger)? };
        if chosen.len() < number {
            say(format_args!(
                "--connect: only {} of these devices have their key in the ledger",
                chosen.len()
            ));
        }
        let halt = &self.setting.halt;
        for (at, key) in chosen.iter().enumerate() {
            if halt.drain.is_cancelled() {
                return Ok(Ended::Stopped);
            }
            let (made, device) = self.read(key, ledger)?;
            let tried = tokio::select! {
                biased;
                () = halt.abort.cancelled() => return Ok(Ended::Stopped),
                tried = self.try_certificate(&device) => tried?,
            };
            let outcome = match tried {
                Ok(outcome) => outcome,
                Err(error @ (AskError::NotPermitted { .. } | AskError::Refused { .. })) => {
                    return Ok(Ended::Refused(error));
                }
                Err(error) => {
                    return Ok(Ended::Unanswered { devices: (chosen.len() - at) as u64, error });
                }
            };
            let undone = Undone { finding: noted(&made, &outcome), gone: Vec::new() };
            ledger.record_undone(VERB, &[undone], SystemTime::now()).map_err(ledger_error)?;
        }
        Ok(Ended::Complete)
    }

    /// The keys of the devices to try: `number` of those whose private key can be had, or all of them if there are fewer.
    fn choose(&self, number: usize, ledger: &Ledger) -> Result<Vec<String>, Fatal> {
        let mut total = 0_u64;
        self.for_each_eligible(ledger, |_| total += 1)?;
        let number = (number as u64).min(total);
        let (mut chosen, mut at) = (Vec::new(), 0_u64);
        self.for_each_eligible(ledger, |key| {
            // Evenly spread, the first one among them.
            if at * number % total.max(1) < number {
                chosen.push(key);
            }
            at += 1;
        })?;
        Ok(chosen)
    }

    fn for_each_eligible(&self, ledger: &Ledger, mut show: impl FnMut(String)) -> Result<(), Fatal> {
        let Plan { keys, shard, .. } = self.plan;
        let selection = Selection {
            states: vec![DeviceState::Registered],
            keys: keys.iter().cloned().collect(),
            ..Selection::default()
        };
        let keep = |device: CertifiedDevice| -> Result<(), LedgerError> {
            let has_key = !matches!(device.private_key, StoredKey::Elsewhere | StoredKey::Purged { .. });
            let key = device.key;
            if has_key && shard.is_none_or(|shard| shard.has(&key)) {
                show(key);
            }
            Ok(())
        };
        ledger.view().for_each_certified(&selection, keep).map_err(ledger_error)
    }

    /// A device with its key and its latest finding.
    fn read(&self, key: &str, ledger: &Ledger) -> Result<(MadeDevice, CertifiedDevice), Fatal> {
        let view = ledger.view();
        let scope = Plan { keys: [key.to_owned()].into(), since: None, ..self.plan.clone() }.scope();
        let mut devices = view.made_devices(scope).map_err(ledger_error)?;
        let made = view.next_made(&mut devices, 1).map_err(ledger_error)?.pop();
        let mut certified = None;
        let selection = Selection { keys: vec![key.to_owned()], ..Selection::default() };
        view.for_each_certified(&selection, |device| -> Result<(), LedgerError> {
            certified = Some(device);
            Ok(())
        })
        .map_err(ledger_error)?;
        made.zip(certified)
            .ok_or_else(|| Fatal::new(Exit::Bug, format!("the device with key {key} went away")))
    }

    async fn try_certificate(
        &self,
        device: &CertifiedDevice,
    ) -> Result<Result<Result<Connected, String>, AskError>, Fatal> {
        let key = self
            .opener
            .open(&device.private_key)
            .map_err(|error| Fatal::new(Exit::Usage, format!("{error}; --identity FILE opens it")))?;
        let thing = device.thing.as_ref().map(|thing| thing.thing_name.as_str());
        let trial = Trial {
            thing: thing.filter(|name| !name.is_empty()),
            certificate_id: device.certificate_id.as_str(),
            certificate: &device.certificate_pem,
            key: &key.text,
        };
        Ok(connect(self.door, &self.setting.control_plane, &trial).await)
    }
}

/// A device's latest finding, with the outcome of its connection added.
fn noted(made: &MadeDevice, outcome: &Result<Connected, String>) -> Finding {
    let last = made.finding.clone();
    let (mut word, mut details) =
        last.map_or((String::new(), json!({})), |last| (last.outcome, last.details));
    let told = match outcome {
        Ok(Connected { client_id, topic: Some(topic) }) => {
            format!("connected as {client_id}, published to {topic}")
        }
        Ok(Connected { client_id, topic: None }) => {
            format!("connected as {client_id}; its policies allow no topic that could be told")
        }
        Err(why) => {
            word = String::from(DIFFERS);
            let difference =
                json!({ "kind": "connection", "what": format!("its certificate could not be used: {why}") });
            match details["differences"].as_array_mut() {
                Some(differences) => differences.push(difference),
                None => details["differences"] = json!([difference]),
            }
            String::from("failed")
        }
    };
    details["connected"] = told.into();
    Finding { device: made.id, outcome: word, details }
}
