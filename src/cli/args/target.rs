//! The options for the target and the identity.

use std::path::PathBuf;

use clap::Args;

use crate::transport::wss::MAX_CLIENT_ID_PREFIX;

/// Where to work and as whom: the options of every verb that connects.
#[derive(Debug, Args)]
#[command(next_help_heading = "Service")]
pub(in crate::cli) struct TargetArgs {
    /// Use a built-in emulator instead of AWS; optionally with a scenario, by name or file.
    #[arg(long, value_name = "SCENARIO", num_args = 0..=1, require_equals = true,
          conflicts_with_all = ["endpoint", "ca_file", "profile", "control_endpoint", "service_quotas_endpoint"])]
    pub(in crate::cli) emulator: Option<Option<PathBuf>>,

    /// The account's iot:Data-ATS endpoint: a host, or wss://HOST[:PORT]/mqtt; with --claim-cert,
    /// mqtts://HOST:PORT [default: what DescribeEndpoint says].
    #[arg(long, value_name = "HOST|URL")]
    pub(in crate::cli) endpoint: Option<String>,

    /// The region to sign for [default: the endpoint's name, AWS_REGION, AWS_DEFAULT_REGION, or the profile's].
    #[arg(long)]
    pub(in crate::cli) region: Option<String>,

    /// Use the credentials of this profile in AWS's configuration files, and no others.
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) profile: Option<String>,

    /// Trust the certificates in this PEM file, besides the public authorities.
    #[arg(long, value_name = "PEM")]
    pub(in crate::cli) ca_file: Option<PathBuf>,

    /// Where to ask AWS IoT's control plane [default: AWS_ENDPOINT_URL_IOT, AWS_ENDPOINT_URL or the profile's; else the region's
    /// https://iot.REGION.amazonaws.com, on loopback the endpoint itself].
    #[arg(long, value_name = "URL", value_parser = http_url)]
    pub(in crate::cli) control_endpoint: Option<String>,

    /// Where to ask for the account's quotas [default: AWS_ENDPOINT_URL_SERVICE_QUOTAS, AWS_ENDPOINT_URL or the profile's; else
    /// the region's Service Quotas, on loopback the endpoint itself].
    #[arg(long, value_name = "URL", value_parser = http_url)]
    pub(in crate::cli) service_quotas_endpoint: Option<String>,

    /// Connect like a device with this claim certificate, over mutual TLS, instead of with credentials; the endpoint's port is
    /// 443 or 8883.
    #[arg(long, value_name = "PEM", requires = "claim_key", conflicts_with = "emulator")]
    pub(in crate::cli) claim_cert: Option<PathBuf>,

    /// The private key of the claim certificate.
    #[arg(long, value_name = "PEM", requires = "claim_cert")]
    pub(in crate::cli) claim_key: Option<PathBuf>,

    /// The prefix of MQTT client ids; the rest is unique for each connection attempt.
    #[arg(long, value_name = "PREFIX", default_value = "fleetmint", value_parser = client_id_prefix)]
    pub(in crate::cli) client_id_prefix: String,
}

fn http_url(text: &str) -> Result<String, String> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let is_url = rest.is_some_and(|rest| {
        rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[')
            && !rest.contains(char::is_whitespace)
    });
    if is_url {
        Ok(text.trim_end_matches('/').to_owned())
    } else {
        Err(String::from("wanted a URL such as https://localhost:8443"))
    }
}

fn client_id_prefix(text: &str) -> Result<String, String> {
    if text.len() <= MAX_CLIENT_ID_PREFIX && !text.starts_with('$') && !text.chars().any(char::is_control) {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "wanted at most {MAX_CLIENT_ID_PREFIX} bytes, without control characters, not starting with $"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_url_is_refused() {
        assert_eq!(http_url("https://localhost:8443/"), Ok(String::from("https://localhost:8443")));
        for text in ["", "localhost:8443", "https://", "wss://localhost", "https:// x", "https://a b"] {
            assert!(http_url(text).unwrap_err().contains("https://localhost:8443"), "{text}");
        }
    }
}
