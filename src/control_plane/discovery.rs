//! Which endpoint the account's devices use in a region.
//!
//! Owns DescribeEndpoint and its type `iot:Data-ATS` (AWS IoT API Reference). Dials nothing.

use super::client::{AskError, AwsSettings, iot};

const OPERATION: &str = "DescribeEndpoint";

/// The account's `iot:Data-ATS` endpoint, as the service writes it: a host, or host and port.
///
/// # Errors
/// [`AskError`], with what the service said. `iot:DescribeEndpoint` is needed.
pub async fn data_endpoint(settings: &AwsSettings) -> Result<String, AskError> {
    let failed = |detail| AskError::Failed { operation: OPERATION, detail };
    let described =
        iot(settings).map_err(failed)?.describe_endpoint().endpoint_type("iot:Data-ATS").send().await;
    let described = described.map_err(|error| AskError::of(OPERATION, &error))?;
    described.endpoint_address.ok_or_else(|| AskError::empty(OPERATION, "endpointAddress"))
}
