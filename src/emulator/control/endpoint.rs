//! The data endpoint, and the caller's identity.

use serde_json::{Value, json};

use super::Answer;
use super::reply::ApiError;
use super::request::Call;
use crate::emulator::uuid::random_uuid;

pub(super) fn describe(call: &mut Call<'_>) -> Answer {
    match call.query.text("endpointType") {
        None | Some("iot:Data-ATS" | "iot:Data") => {
            Ok(json!({ "endpointAddress": format!("{}:{}", call.owner.host, call.owner.port) }))
        }
        Some(_) => Err(ApiError::invalid("Of endpoints the emulator has iot:Data-ATS and iot:Data only.")),
    }
}

/// Answers in XML, as STS does.
pub(super) fn caller_identity(call: &mut Call<'_>) -> Answer {
    let account = &call.owner.scenario.account_id;
    let request_id = random_uuid();
    Ok(Value::String(format!(
        "<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><GetCallerIdentityResult>\
         <Arn>arn:aws:iam::{account}:user/emulated</Arn><UserId>AIDACKCEVSQ6C2EXAMPLE</UserId>\
         <Account>{account}</Account></GetCallerIdentityResult><ResponseMetadata><RequestId>{request_id}</RequestId>\
         </ResponseMetadata></GetCallerIdentityResponse>"
    )))
}
