//! Provisioning templates of the account.

use aws_sdk_iot::types::{ProvisioningHook, TemplateType};

use super::asking::ControlPlane;
use super::client::AskError;

/// A provisioning template in the account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribedTemplate {
    /// The body of its default version: JSON.
    pub body: String,
    /// Whether devices can be registered with it.
    pub is_enabled: bool,
    /// The ARN of the function that is called before each registration, and may override parameters; `None` without
    /// one.
    pub hook: Option<String>,
    /// The ARN of the role that the service assumes to register devices.
    pub role: Option<String>,
    /// Whether devices register with it over MQTT. Templates for just-in-time provisioning have another type.
    pub is_for_fleets: bool,
}

/// A provisioning template to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTemplate<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its body: JSON.
    pub body: &'a str,
    /// The ARN of the role that the service assumes to register devices.
    pub role: &'a str,
    /// The ARN of the function to call before each registration; `None` for none.
    pub hook: Option<&'a str>,
}

impl ControlPlane {
    /// The provisioning template with this name. Needs `iot:DescribeProvisioningTemplate`.
    ///
    /// # Errors
    /// [`AskError`]; [`AskError::NotFound`] if there is none.
    pub async fn template(&self, name: &str) -> Result<DescribedTemplate, AskError> {
        let operation = "DescribeProvisioningTemplate";
        let described = self
            .ask(operation, |client| client.describe_provisioning_template().template_name(name).send())
            .await?;
        Ok(DescribedTemplate {
            body: described.template_body.ok_or_else(|| AskError::empty(operation, "templateBody"))?,
            is_enabled: described.enabled.unwrap_or_default(),
            hook: described.pre_provisioning_hook.map(|hook| hook.target_arn),
            role: described.provisioning_role_arn.filter(|arn| !arn.is_empty()),
            is_for_fleets: described.r#type.is_none_or(|kind| kind == TemplateType::FleetProvisioning),
        })
    }

    /// Creates a provisioning template that is enabled at once, and returns its ARN. Needs
    /// `iot:CreateProvisioningTemplate`, and `iam:PassRole` for the role.
    ///
    /// # Errors
    /// [`AskError`]; [`AskError::Rejected`] with `ResourceAlreadyExistsException` if one with this name exists.
    pub async fn create_template(&self, template: &NewTemplate<'_>) -> Result<String, AskError> {
        let operation = "CreateProvisioningTemplate";
        let hook = template.hook.map(|arn| {
            let hook = ProvisioningHook::builder().target_arn(arn).build();
            hook.map_err(|error| AskError::Failed { operation, detail: error.to_string() })
        });
        let hook = hook.transpose()?;
        let made = self
            .ask(operation, |client| {
                client
                    .create_provisioning_template()
                    .template_name(template.name)
                    .template_body(template.body)
                    .provisioning_role_arn(template.role)
                    .set_pre_provisioning_hook(hook.clone())
                    .enabled(true)
                    .send()
            })
            .await?;
        made.template_arn.ok_or_else(|| AskError::empty(operation, "templateArn"))
    }
}
