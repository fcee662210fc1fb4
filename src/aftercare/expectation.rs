//! What the ledger's devices should be like, by the template's current version and the parameters that were sent.

use std::collections::HashMap;

use serde_json::Value;

use super::inspection::{Wanted, Wanting, wanted};
use crate::certificate::CertificateId;
use crate::identity::{EmptyCells, ParameterPlan, SentColumns};
use crate::ledger::{Content, LotInfo, MadeDevice, RunId, RunInfo};
use crate::template::{CertificateFacts, Parameters, Template};

/// What a ledger's devices should be like.
#[derive(Debug, Default)]
pub struct Expectation {
    template: Option<Template>,
    /// Why the template, which there is, cannot be evaluated for any row.
    not_read: Option<String>,
    has_hook: bool,
    /// How rows became parameters, by the run that registered them.
    plans: HashMap<RunId, ParameterPlan>,
    /// How rows became parameters in runs that did not record it.
    plan: ParameterPlan,
}

/// Why the expected state of devices cannot be determined.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotRead {
    /// The template's body cannot be parsed.
    #[error("the template cannot be read: {0}")]
    Template(String),
    /// The recorded parameters do not match the ledger's columns.
    #[error("the parameters that the ledger was made with do not go with its columns: {0}")]
    Parameters(String),
}

impl Expectation {
    /// What the template `body` makes of the rows of `lot`, with the parameters sent as `runs` recorded them.
    ///
    /// # Errors
    /// [`NotRead`] if the template or the ledger's own parameters cannot be understood.
    pub fn new(body: &str, has_hook: bool, lot: &LotInfo, runs: &[RunInfo]) -> Result<Self, NotRead> {
        let template = Template::parse(body).map_err(|error| NotRead::Template(error.to_string()))?;
        let default = Content::default();
        let content = lot.binding.content.as_ref().unwrap_or(&default);
        let sent = SentColumns {
            only: content.others.get("columns").map(|names| names.split(',').map(str::to_owned).collect()),
            requests: None,
            empty_cells: match content.others.get("empty").map(String::as_str) {
                Some("omit") => EmptyCells::LeftOut,
                _ => EmptyCells::Sent,
            },
        };
        let plan = |constants: &[(String, String)]| {
            ParameterPlan::sending(&lot.shape, &sent, constants)
                .map_err(|error| NotRead::Parameters(error.to_string()))
        };
        let recorded: Vec<_> = content.parameters.clone().into_iter().collect();
        let mut plans = HashMap::new();
        for run in runs {
            let settings: Value = serde_json::from_str(&run.settings).unwrap_or_default();
            let constants: Option<Vec<(String, String)>> =
                serde_json::from_value(settings["parameters"].clone()).ok();
            if let Some(constants) = constants {
                plans.insert(RunId(run.id), plan(&constants)?);
            }
        }
        Ok(Self { template: Some(template), not_read: None, has_hook, plans, plan: plan(&recorded)? })
    }

    /// An expectation from a template that exists and cannot be evaluated, for this reason.
    pub fn not_read(why: String) -> Self {
        Self { not_read: Some(why), ..Self::default() }
    }

    /// An expectation without a template: nothing is known.
    pub fn none() -> Self {
        Self::default()
    }

    /// What `device` should be like with the certificate `id`: `None` if that is unknown, together with the reason if
    /// there is a template that cannot be evaluated for its row.
    pub fn of(&self, device: &MadeDevice, id: Option<&CertificateId>) -> (Option<Wanted>, Option<String>) {
        let Some(template) = &self.template else { return (None, self.not_read.clone()) };
        let plan = device.run.and_then(|run| self.plans.get(&run)).unwrap_or(&self.plan);
        let id = id.map(CertificateId::as_str);
        let parameters: Parameters<'_> = plan
            .expand(&device.identity, id.unwrap_or_default())
            .map(|(name, value)| (name.into(), value))
            .collect();
        let certificate = CertificateFacts { id, subject: None };
        let wanting = Wanting { certificate, parameters: &parameters, has_hook: self.has_hook };
        match wanted(template, &wanting) {
            Ok(wanted) => (Some(wanted), None),
            Err(error) => (None, Some(error.to_string())),
        }
    }

    /// Whether the template has a hook.
    pub fn has_hook(&self) -> bool {
        self.has_hook
    }

    /// Whether the template is known.
    pub fn has_template(&self) -> bool {
        self.template.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{DeviceId, DeviceState};
    use crate::identity::Identity;

    #[test]
    fn a_template_that_cannot_be_read_is_not_one_that_is_missing() {
        let device = MadeDevice {
            id: DeviceId(1),
            identity: Identity { line: 2, key: "a".into(), values: vec!["a".into()] },
            state: DeviceState::Registered,
            thing_name: None,
            updated_at: None,
            run: None,
            certificates: vec![],
            finding: None,
        };
        let why = Some(String::from("of a later kind"));
        assert_eq!(Expectation::not_read("of a later kind".into()).of(&device, None), (None, why));
        assert_eq!(Expectation::none().of(&device, None), (None, None));
    }
}
