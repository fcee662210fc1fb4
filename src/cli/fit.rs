//! Whether a lot sends what its template expects; reported before anything is sent.

use super::exit::{Exit, Fatal};
use super::question::answer;
use super::speech::say;
use super::target::Site;
use crate::control_plane::{AskError, DescribedTemplate};
use crate::identity::ParameterPlan;
use crate::template::{Fit, Missing, declared_parameters, fit};
use crate::wording::Excerpt;

/// How a lot and a template fit together, with advice on options.
pub(super) struct Comparison {
    /// What should be sent but is not.
    pub(super) wrong: Vec<String>,
    /// What an account's pre-provisioning hook may still provide, and what is sent but not used.
    pub(super) warnings: Vec<String>,
    /// Parameters that are not sent but have a default.
    pub(super) defaulted: Vec<String>,
    /// How many declared parameters the lot sends.
    pub(super) sent: usize,
}

/// Compares the parameters that a template declares with those that are sent; `None` if its body is not JSON.
pub(super) fn compare(
    described: &DescribedTemplate,
    template: &str,
    parameters: &ParameterPlan,
) -> Option<Comparison> {
    let declared = declared_parameters(&described.body)?;
    let found = fit(&declared, parameters.names());
    let (mut wrong, mut warnings) = (wrong(&found, template), Vec::new());
    if described.hook.is_some() {
        let by_hook = |line| format!("{line} (unless the template's pre-provisioning hook gives it)");
        warnings.extend(std::mem::take(&mut wrong).into_iter().map(by_hook));
    }
    if !found.unused.is_empty() {
        let names: Vec<_> = found.unused.iter().map(|name| Excerpt(name).to_string()).collect();
        warnings.push(format!(
            "template {template} has no parameter {}; it is sent all the same (--columns chooses what is sent)",
            names.join(", ")
        ));
    }
    let is_sent = |name: &str| parameters.names().any(|sent| sent == name);
    let is_overlooked = |name: &str| found.overlooked.iter().any(|missing| missing.parameter == name);
    let own = || declared.iter().filter(|declared| !declared.name.starts_with("AWS::"));
    let defaulted = own().filter(|declared| {
        declared.is_optional && !is_sent(&declared.name) && !is_overlooked(&declared.name)
    });
    Some(Comparison {
        defaulted: defaulted.map(|declared| declared.name.clone()).collect(),
        sent: own().filter(|declared| is_sent(&declared.name)).count(),
        wrong,
        warnings,
    })
}

/// Queries the template and compares its parameters with those that are sent.
///
/// # Errors
/// If a parameter without a default is not sent, or one would take its default although a parameter with a similar
/// name is sent; unless a pre-provisioning hook may provide them.
pub(super) async fn check(site: &Site, template: &str, parameters: &ParameterPlan) -> Result<(), Fatal> {
    let described = match answer("DescribeProvisioningTemplate", site.template(template)).await {
        Ok(described) => described,
        // The emulator's built-in template has no body to query.
        Err(AskError::NotFound { .. }) if site.is_emulated() => return Ok(()),
        Err(error) => {
            say(format_args!(
                "note: the lot's columns could not be compared with template {template}: {error}"
            ));
            return Ok(());
        }
    };
    let Some(Comparison { mut wrong, warnings, .. }) = compare(&described, template, parameters) else {
        say(format_args!(
            "note: the lot's columns could not be compared with template {template}: its body is not JSON"
        ));
        return Ok(());
    };
    if wrong.is_empty() {
        for line in warnings {
            say(format_args!("warning: {line}"));
        }
        return Ok(());
    }
    wrong.push(String::from("Nothing was sent."));
    Err(Fatal::new(Exit::BadIdentities, wrong.join("\n       ")))
}

/// What should be sent but is not, each with the option that helps.
fn wrong(found: &Fit, template: &str) -> Vec<String> {
    let missing = found.missing.iter().map(|missing| {
        format!(
            "template {template} needs the parameter {}, and {}",
            Excerpt(&missing.parameter),
            remedy(missing)
        )
    });
    let overlooked = found.overlooked.iter().map(|missing| {
        format!(
            "template {template} would take its default for the parameter {}: {}",
            Excerpt(&missing.parameter),
            remedy(missing)
        )
    });
    missing.chain(overlooked).collect()
}

fn remedy(missing: &Missing) -> String {
    let name = Excerpt(&missing.parameter);
    match &missing.nearly {
        Some(nearly) => {
            let nearly = Excerpt(nearly);
            format!(
                "the lot has {nearly}. --param '{name}={{{nearly}}}' sends that column under the parameter's name"
            )
        }
        None => format!(
            "nothing is sent for it. --param '{name}={{COLUMN}}' sends a column of the lot under that name, and \
             --param '{name}=VALUE' the same for every device"
        ),
    }
}
