//! Whether what a lot sends is what its template takes, said before anything is sent.

use super::exit::{Exit, Fatal};
use super::speech::say;
use super::target::Site;
use crate::control_plane::AskError;
use crate::identity::ParameterPlan;
use crate::template::{Fit, Missing, declared_parameters, fit};
use crate::wording::Excerpt;

/// Asks the account for the template and compares its parameters with those that are sent.
///
/// # Errors
/// If a parameter without a default is not sent, or one would take its default although something with nearly its name is
/// sent; not where a function of the account's may give them.
pub(super) async fn check(site: &Site, template: &str, parameters: &ParameterPlan) -> Result<(), Fatal> {
    let described = match site.template(template).await {
        Ok(described) => described,
        // The emulator's own template has no body that could be asked for.
        Err(AskError::NotFound { .. }) if site.is_emulated() => return Ok(()),
        Err(error) => {
            say(format_args!(
                "note: the lot's columns could not be compared with template {template}: {error}"
            ));
            return Ok(());
        }
    };
    let Some(declared) = declared_parameters(&described.body) else {
        say(format_args!(
            "note: the lot's columns could not be compared with template {template}: its body is not JSON"
        ));
        return Ok(());
    };
    let found = fit(&declared, parameters.names());
    let mut wrong = wrong(&found, template);
    if described.has_hook {
        for line in std::mem::take(&mut wrong) {
            say(format_args!("warning: {line} (unless the template's pre-provisioning hook gives it)"));
        }
    }
    if !wrong.is_empty() {
        wrong.push(String::from("Nothing was sent."));
        return Err(Fatal::new(Exit::BadIdentities, wrong.join("\n       ")));
    }
    if !found.unused.is_empty() {
        let names: Vec<_> = found.unused.iter().map(|name| Excerpt(name).to_string()).collect();
        say(format_args!(
            "warning: template {template} has no parameter {}; it is sent all the same (--columns chooses what is sent)",
            names.join(", ")
        ));
    }
    Ok(())
}

/// What is not sent and should be, each with what to type.
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
