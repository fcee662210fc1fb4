//! Service Quotas: what the account may do per second, in AWS's JSON 1.1.
//!
//! Owns GetServiceQuota and GetAWSDefaultServiceQuota for the quotas of AWS IoT Core that the scenario has. Source: Service
//! Quotas API Reference, as of botocore's service model `service-quotas` 2019-06-24; names and defaults as of 2024.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::Owner;
use super::reply::ApiError;
use crate::emulator::scenario::{Quota, Quotas};

/// AWS IoT Core's name in Service Quotas.
const SERVICE: &str = "iotcore";
/// What stands before an operation's name in `x-amz-target`.
const TARGET: &str = "ServiceQuotasV20190624.";

/// An operation of Service Quotas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::emulator) enum QuotaOperation {
    /// What the account has been given.
    GetServiceQuota,
    /// What every account has.
    GetAwsDefaultServiceQuota,
}

/// A quota that Service Quotas lists.
struct Listed {
    code: &'static str,
    name: &'static str,
    default: f64,
    applied: fn(&Quotas) -> Option<&Quota>,
}

const LISTED: [Listed; 4] = [
    Listed {
        code: "L-AEA1E176",
        name: "Connect requests per second per account",
        default: 500.0,
        applied: |quotas| quotas.connect.as_ref(),
    },
    Listed {
        code: "L-CAFFCA46",
        name: "Fleet Provisioning CreateKeysAndCertificate MQTT API TPS",
        default: 10.0,
        applied: |quotas| quotas.create_keys_and_certificate.as_ref(),
    },
    Listed {
        code: "L-83161BB8",
        name: "Fleet Provisioning CreateCertificateFromCsr MQTT API TPS",
        default: 20.0,
        applied: |quotas| quotas.create_certificate_from_csr.as_ref(),
    },
    Listed {
        code: "L-B2BBBD8C",
        name: "Fleet Provisioning RegisterThing MQTT API TPS",
        default: 10.0,
        applied: |quotas| quotas.register_thing.as_ref(),
    },
];

impl QuotaOperation {
    /// What the header `x-amz-target` asks for.
    pub(in crate::emulator) fn of(target: &str) -> Option<Self> {
        match target.strip_prefix(TARGET)? {
            "GetServiceQuota" => Some(Self::GetServiceQuota),
            "GetAWSDefaultServiceQuota" => Some(Self::GetAwsDefaultServiceQuota),
            _ => None,
        }
    }

    /// The permission that it needs.
    pub(super) fn action(self) -> &'static str {
        match self {
            Self::GetServiceQuota => "servicequotas:GetServiceQuota",
            Self::GetAwsDefaultServiceQuota => "servicequotas:GetAWSDefaultServiceQuota",
        }
    }

    /// Performs it on an emulator of this age; JSON to answer with.
    pub(in crate::emulator) fn perform(
        self,
        owner: &Owner<'_>,
        age: Duration,
        body: &[u8],
    ) -> Result<Value, ApiError> {
        owner.check_permission(self.action())?;
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Body {
            service_code: String,
            quota_code: String,
        }
        let body: Body = serde_json::from_slice(body).map_err(|_| {
            ApiError::illegal_argument("The body must be a JSON object with a ServiceCode and a QuotaCode.")
        })?;
        let absent =
            || ApiError::no_such_resource("The request failed because the specified quota does not exist.");
        let listed =
            LISTED.iter().find(|listed| body.service_code == SERVICE && listed.code == body.quota_code);
        let listed = listed.ok_or_else(absent)?;
        let value = match self {
            Self::GetAwsDefaultServiceQuota => listed.default,
            Self::GetServiceQuota => {
                let rate = (listed.applied)(&owner.scenario.quotas).and_then(|quota| quota.at(age));
                rate.ok_or_else(absent)?.as_per_second()
            }
        };
        let (region, account) = (&owner.scenario.region, &owner.scenario.account_id);
        Ok(json!({"Quota": {
            "ServiceCode": SERVICE,
            "ServiceName": "AWS IoT Core",
            "QuotaArn": format!("arn:aws:servicequotas:{region}:{account}:{SERVICE}/{}", listed.code),
            "QuotaCode": listed.code,
            "QuotaName": listed.name,
            "Value": value,
            "Unit": "None",
            "Adjustable": true,
            "GlobalQuota": false,
        }}))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emulator::scenario::Scenario;

    fn ask(operation: QuotaOperation, scenario: &Scenario, age_s: u64, code: &str) -> Result<f64, String> {
        let owner = Owner { scenario, port: 0, host: "localhost" };
        let body = json!({"ServiceCode": "iotcore", "QuotaCode": code}).to_string();
        let reply = operation.perform(&owner, Duration::from_secs(age_s), body.as_bytes());
        reply.map(|reply| reply["Quota"]["Value"].as_f64().unwrap()).map_err(|error| format!("{error:?}"))
    }

    #[test]
    fn a_quota_is_what_the_scenario_has_at_that_age_and_the_default_what_aws_has() {
        use QuotaOperation::{GetAwsDefaultServiceQuota as Default, GetServiceQuota as Applied};
        let scenario = Scenario::from_toml(
            "[quotas]\ncreate_keys_and_certificate = \"7/s until 60s, then 30/min\"\nregister_thing = \"unlimited\"",
        )
        .unwrap();
        let (create, register) = ("L-CAFFCA46", "L-B2BBBD8C");
        assert_eq!(ask(Applied, &scenario, 0, create), Ok(7.0));
        assert_eq!(ask(Applied, &scenario, 61, create), Ok(0.5));
        assert_eq!(ask(Default, &scenario, 0, create), Ok(10.0));
        assert_eq!(ask(Default, &scenario, 0, "L-83161BB8"), Ok(20.0));
        assert_eq!(ask(Default, &scenario, 0, "L-AEA1E176"), Ok(500.0));
        for (operation, code) in [(Applied, register), (Applied, "L-AEA1E176"), (Default, "L-00000000")] {
            let error = ask(operation, &scenario, 0, code).unwrap_err();
            assert!(error.contains("NoSuchResourceException"), "{error}");
        }
        let garbage =
            Applied.perform(&Owner { scenario: &scenario, port: 0, host: "localhost" }, Duration::ZERO, b"{");
        assert!(format!("{garbage:?}").contains("IllegalArgumentException"));
    }

    #[test]
    fn operations_are_told_by_the_target() {
        let of = |name: &str| QuotaOperation::of(name);
        assert_eq!(of("ServiceQuotasV20190624.GetServiceQuota"), Some(QuotaOperation::GetServiceQuota));
        for other in ["GetServiceQuota", "ServiceQuotasV20190624.ListServices", ""] {
            assert_eq!(of(other), None, "{other}");
        }
    }
}
