//! Which endpoint the account's devices use in a region.
//!
//! Owns DescribeEndpoint. Dials nothing.

use super::asking::ControlPlane;
use super::client::AskError;
use crate::service::ENDPOINT_TYPE;

impl ControlPlane {
    /// The account's `iot:Data-ATS` endpoint, as the service writes it: a host, or host and port. Needs
    /// `iot:DescribeEndpoint`.
    ///
    /// # Errors
    /// [`AskError`], with what the service said.
    pub async fn data_endpoint(&self) -> Result<String, AskError> {
        let operation = "DescribeEndpoint";
        let described = self
            .ask(operation, |client| client.describe_endpoint().endpoint_type(ENDPOINT_TYPE).send())
            .await?;
        described.endpoint_address.ok_or_else(|| AskError::empty(operation, "endpointAddress"))
    }
}
