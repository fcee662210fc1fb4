//! Answers of the control plane as HTTP has them.
//!
//! Owns error names, statuses and headers of rest-json: the error's type in `x-amzn-ErrorType`, its words in the body. JSON 1.1
//! has the type in the body, where it does no harm to the other.

use std::time::SystemTime;

use serde_json::{Value, json};

use crate::emulator::account::RegistryError;
use crate::emulator::http::{Response, http_date};
use crate::emulator::uuid::random_uuid;
use crate::emulator::verify::Refusal;

/// An error of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::emulator) struct ApiError {
    status: &'static str,
    kind: &'static str,
    message: String,
}

impl ApiError {
    /// The request is to blame.
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self { status: "400 Bad Request", kind: "InvalidRequestException", message: message.into() }
    }

    /// The same, as Service Quotas says it.
    pub(super) fn illegal_argument(message: impl Into<String>) -> Self {
        Self { status: "400 Bad Request", kind: "IllegalArgumentException", message: message.into() }
    }

    /// What Service Quotas does not have.
    pub(super) fn no_such_resource(message: impl Into<String>) -> Self {
        Self { status: "400 Bad Request", kind: "NoSuchResourceException", message: message.into() }
    }

    /// An IAM policy is in the way: in the words that AWS services use in general.
    pub(super) fn access_denied(account_id: &str, action: &str) -> Self {
        let message = format!(
            "User: arn:aws:iam::{account_id}:user/emulated is not authorized to perform: {action} because no \
             identity-based policy allows the {action} action"
        );
        Self { status: "403 Forbidden", kind: "AccessDeniedException", message }
    }
}

impl From<RegistryError> for ApiError {
    fn from(error: RegistryError) -> Self {
        let (status, kind) = match &error {
            RegistryError::NotFound(..) => ("404 Not Found", "ResourceNotFoundException"),
            RegistryError::CertificateActive(_) => ("406 Not Acceptable", "CertificateStateException"),
            RegistryError::PoliciesAttached(_) | RegistryError::ThingsAttached(_) => {
                ("409 Conflict", "DeleteConflictException")
            }
            // Seen so: a thing with principals is an invalid request, not a conflict.
            RegistryError::PrincipalsAttached(_) => ("400 Bad Request", "InvalidRequestException"),
            RegistryError::Version { .. } => ("409 Conflict", "VersionConflictException"),
        };
        Self { status, kind, message: error.to_string() }
    }
}

/// An operation was performed.
pub(in crate::emulator) fn success(reply: &Value, now: SystemTime) -> Response {
    response("200 OK", None, reply, now)
}

/// An operation was not performed.
pub(in crate::emulator) fn refused(error: &ApiError, now: SystemTime) -> Response {
    let body = json!({ "__type": error.kind, "message": error.message });
    response(error.status, Some(error.kind), &body, now)
}

/// A signature was refused. The types are those that AWS services use in general.
pub(in crate::emulator) fn forbidden(refusal: &Refusal, now: SystemTime) -> Response {
    let kind = match refusal {
        Refusal::NotSigned => "MissingAuthenticationTokenException",
        Refusal::UnknownAccessKey(_) | Refusal::MissingSessionToken | Refusal::WrongSessionToken => {
            "UnrecognizedClientException"
        }
        Refusal::ExpiredToken => "ExpiredTokenException",
        Refusal::SignatureMismatch(_)
        | Refusal::SignedHeaderAbsent(_)
        | Refusal::Expired { .. }
        | Refusal::NotYetCurrent { .. }
        | Refusal::ScopeOfAnotherDay { .. }
        | Refusal::WrongRegion { .. }
        | Refusal::WrongService { .. } => "InvalidSignatureException",
        _ => "IncompleteSignatureException",
    };
    response("403 Forbidden", Some(kind), &json!({ "__type": kind, "message": refusal.message() }), now)
}

fn response(status: &'static str, kind: Option<&'static str>, body: &Value, now: SystemTime) -> Response {
    let body = body.to_string();
    let mut headers = vec![
        ("content-type", String::from("application/json")),
        ("content-length", body.len().to_string()),
        ("date", http_date(now)),
        ("x-amzn-RequestId", random_uuid()),
    ];
    headers.extend(kind.map(|kind| ("x-amzn-ErrorType", kind.to_owned())));
    Response { status, headers, body }
}
