//! What the account says of a provisioning template, by DescribeProvisioningTemplate.

use super::client::{AskError, AwsSettings, iot};

const OPERATION: &str = "DescribeProvisioningTemplate";

/// A provisioning template as the account has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribedTemplate {
    /// The body of its default version: JSON.
    pub body: String,
    /// Whether devices can be registered with it.
    pub is_enabled: bool,
    /// Whether a function is asked before each registration, which may give parameters other values.
    pub has_hook: bool,
}

/// The template of this name. `iot:DescribeProvisioningTemplate` is needed.
///
/// # Errors
/// [`AskError`], with what the service said.
pub async fn describe_template(settings: &AwsSettings, name: &str) -> Result<DescribedTemplate, AskError> {
    let failed = |detail| AskError::Failed { operation: OPERATION, detail };
    let client = iot(settings).map_err(failed)?;
    let described = client.describe_provisioning_template().template_name(name).send().await;
    let described = described.map_err(|error| AskError::of(OPERATION, &error))?;
    Ok(DescribedTemplate {
        body: described.template_body.ok_or_else(|| AskError::empty(OPERATION, "templateBody"))?,
        is_enabled: described.enabled.unwrap_or_default(),
        has_hook: described.pre_provisioning_hook.is_some(),
    })
}
