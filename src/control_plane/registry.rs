//! What the account's registry holds: things, and what templates refer to.

use std::collections::BTreeMap;

use super::asking::ControlPlane;
use super::client::AskError;

/// A thing in the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribedThing {
    /// Its name.
    pub name: String,
    /// Its thing type; `None` if it has none.
    pub type_name: Option<String>,
    /// Its attributes.
    pub attributes: BTreeMap<String, String>,
    /// Its billing group; `None` if it is in none.
    pub billing_group: Option<String>,
    /// Its version: 1 when created, and one more with each change.
    pub version: i64,
}

impl ControlPlane {
    /// The thing with this name. Needs `iot:DescribeThing`.
    ///
    /// # Errors
    /// [`AskError`]; [`AskError::NotFound`] if there is none.
    pub async fn thing(&self, name: &str) -> Result<DescribedThing, AskError> {
        let thing =
            self.ask("DescribeThing", |client| client.describe_thing().thing_name(name).send()).await?;
        Ok(DescribedThing {
            name: thing.thing_name.unwrap_or_else(|| name.to_owned()),
            type_name: thing.thing_type_name,
            attributes: thing.attributes.unwrap_or_default().into_iter().collect(),
            billing_group: thing.billing_group_name,
            version: thing.version,
        })
    }

    /// Whether new things may have this thing type: they may not if it is deprecated. Needs `iot:DescribeThingType`.
    ///
    /// # Errors
    /// [`AskError`]; [`AskError::NotFound`] if there is none.
    pub async fn is_thing_type_usable(&self, name: &str) -> Result<bool, AskError> {
        let described = self
            .ask("DescribeThingType", |client| client.describe_thing_type().thing_type_name(name).send())
            .await?;
        Ok(!described.thing_type_metadata.is_some_and(|metadata| metadata.deprecated))
    }

    /// Whether this thing group is static: things cannot be added to a dynamic one. Needs `iot:DescribeThingGroup`.
    ///
    /// # Errors
    /// [`AskError`]; [`AskError::NotFound`] if there is none.
    pub async fn is_thing_group_static(&self, name: &str) -> Result<bool, AskError> {
        let described = self
            .ask("DescribeThingGroup", |client| client.describe_thing_group().thing_group_name(name).send())
            .await?;
        Ok(described.query_string.is_none())
    }

    /// Checks that this billing group exists. Needs `iot:DescribeBillingGroup`.
    ///
    /// # Errors
    /// [`AskError`]; [`AskError::NotFound`] if there is none.
    pub async fn billing_group(&self, name: &str) -> Result<(), AskError> {
        let described = self.ask("DescribeBillingGroup", |client| {
            client.describe_billing_group().billing_group_name(name).send()
        });
        described.await.map(drop)
    }

    /// The document of the policy's default version, as JSON. Needs `iot:GetPolicy`.
    ///
    /// # Errors
    /// [`AskError`]; [`AskError::NotFound`] if there is no such policy.
    pub async fn policy(&self, name: &str) -> Result<String, AskError> {
        let operation = "GetPolicy";
        let policy = self.ask(operation, |client| client.get_policy().policy_name(name).send()).await?;
        policy.policy_document.ok_or_else(|| AskError::empty(operation, "policyDocument"))
    }
}
