//! Service Quotas: the account's limits per second, in AWS's JSON 1.1.
//!
//! Source: Service Quotas API Reference, as of botocore's service model `service-quotas` 2019-06-24; names and defaults
//! as of 2024.

use serde::Deserialize;
use serde_json::{Value, json};

use super::Answer;
use super::reply::ApiError;
use super::request::{Call, Owner};
use crate::emulator::scenario::{Quota, Quotas};

/// AWS IoT Core's name in Service Quotas.
const SERVICE: &str = "iotcore";
const SERVICE_NAME: &str = "AWS IoT Core";

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

/// Which of a quota's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    /// The account's own value. It may be unlimited in the scenario; Service Quotas cannot express that.
    Applied,
    /// The default value for all accounts.
    Default,
}

pub(super) fn applied(call: &mut Call<'_>) -> Answer {
    one(call, Which::Applied)
}

pub(super) fn default(call: &mut Call<'_>) -> Answer {
    one(call, Which::Default)
}

pub(super) fn list_applied(call: &mut Call<'_>) -> Answer {
    list(call, Which::Applied)
}

pub(super) fn list_default(call: &mut Call<'_>) -> Answer {
    list(call, Which::Default)
}

pub(super) fn services(_: &mut Call<'_>) -> Answer {
    Ok(json!({"Services": [{"ServiceCode": SERVICE, "ServiceName": SERVICE_NAME}]}))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Input {
    service_code: String,
    quota_code: Option<String>,
}

impl Input {
    fn of(call: &Call<'_>) -> Result<Self, ApiError> {
        let wrong = "The body must be a JSON object with a ServiceCode and, to get one quota, a QuotaCode.";
        serde_json::from_slice(call.body).map_err(|_| ApiError::illegal_argument(wrong))
    }
}

fn one(call: &Call<'_>, which: Which) -> Answer {
    let Input { service_code, quota_code } = Input::of(call)?;
    let code = quota_code.ok_or_else(|| ApiError::illegal_argument("QuotaCode is missing."))?;
    let listed = LISTED.iter().find(|listed| service_code == SERVICE && listed.code == code);
    let quota = listed.and_then(|listed| listed.shown(call.owner, which)).ok_or_else(absent)?;
    Ok(json!({ "Quota": quota }))
}

fn list(call: &Call<'_>, which: Which) -> Answer {
    if Input::of(call)?.service_code != SERVICE {
        return Err(absent());
    }
    let quotas: Vec<Value> = LISTED.iter().filter_map(|listed| listed.shown(call.owner, which)).collect();
    Ok(json!({ "Quotas": quotas }))
}

fn absent() -> ApiError {
    ApiError::no_such_resource("The request failed because the specified service or quota does not exist.")
}

impl Listed {
    /// The quota as answers show it; `None` if the account has no limit.
    fn shown(&self, owner: &Owner<'_>, which: Which) -> Option<Value> {
        let value = match which {
            Which::Default => self.default,
            Which::Applied => (self.applied)(&owner.scenario.quotas)?.at(owner.age)?.as_per_second(),
        };
        let (region, account) = (&owner.scenario.region, &owner.scenario.account_id);
        Some(json!({
            "ServiceCode": SERVICE,
            "ServiceName": SERVICE_NAME,
            "QuotaArn": format!("arn:aws:servicequotas:{region}:{account}:{SERVICE}/{}", self.code),
            "QuotaCode": self.code,
            "QuotaName": self.name,
            "Value": value,
            "Unit": "None",
            "Adjustable": true,
            "GlobalQuota": false,
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::emulator::scenario::Scenario;

    #[test]
    fn a_quota_is_what_the_scenario_has_at_that_age_and_the_default_what_aws_has() {
        let scenario = Scenario::from_toml(
            "[quotas]\ncreate_keys_and_certificate = \"7/s until 60s, then 30/min\"\nregister_thing = \"unlimited\"",
        )
        .unwrap();
        let value = |which, age, code| {
            let owner =
                Owner { scenario: &scenario, port: 0, host: "localhost", age: Duration::from_secs(age) };
            let listed = LISTED.iter().find(|listed| listed.code == code).unwrap();
            listed.shown(&owner, which).map(|quota| quota["Value"].as_f64().unwrap())
        };
        let (create, register) = ("L-CAFFCA46", "L-B2BBBD8C");
        assert_eq!(value(Which::Applied, 0, create), Some(7.0));
        assert_eq!(value(Which::Applied, 61, create), Some(0.5));
        assert_eq!(value(Which::Default, 0, create), Some(10.0));
        assert_eq!(value(Which::Default, 0, "L-83161BB8"), Some(20.0));
        assert_eq!(value(Which::Default, 0, "L-AEA1E176"), Some(500.0));
        for code in [register, "L-AEA1E176"] {
            assert_eq!(value(Which::Applied, 0, code), None);
        }
    }
}
