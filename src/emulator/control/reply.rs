//! Answers of the control plane as HTTP responses.
//!
//! rest-json has an error's type in `x-amzn-ErrorType` and its message in the body. JSON 1.1 has the type in the body,
//! where rest-json clients ignore it. The query protocol uses XML.

use std::time::SystemTime;

use serde_json::{Value, json};

use super::{Answer, Api};
use crate::emulator::account::{Refused, RegistryError};
use crate::emulator::http::{Response, http_date};
use crate::emulator::scenario;
use crate::emulator::uuid::random_uuid;
use crate::emulator::verify::Refusal;

/// An operation's error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::emulator) struct ApiError {
    kind: Kind,
    message: String,
}

/// An error's HTTP status and type.
type Kind = (u16, &'static str);

const INVALID_REQUEST: Kind = (400, "InvalidRequestException");
const NOT_FOUND: Kind = (404, "ResourceNotFoundException");
const REGISTRATION_FAILED: Kind = (400, "ResourceRegistrationFailureException");
const MALFORMED_POLICY: Kind = (400, "MalformedPolicyException");

impl ApiError {
    fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// The request is invalid.
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(INVALID_REQUEST, message)
    }

    /// There are too many requests for an operation.
    pub(super) fn throttled() -> Self {
        Self::new((400, "ThrottlingException"), "Rate exceeded")
    }

    /// The requested resource does not exist.
    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(NOT_FOUND, message)
    }

    /// The certificate is invalid.
    pub(super) fn certificate(message: impl Into<String>) -> Self {
        Self::new((400, "CertificateValidationException"), message)
    }

    /// The certificate's status does not allow the operation.
    pub(super) fn certificate_state(message: impl Into<String>) -> Self {
        Self::new((406, "CertificateStateException"), message)
    }

    /// RegisterThing cannot create what its template asks for.
    pub(super) fn registration_failed(message: impl Into<String>) -> Self {
        Self::new(REGISTRATION_FAILED, message)
    }

    /// The request is invalid, in the terms of Service Quotas.
    pub(super) fn illegal_argument(message: impl Into<String>) -> Self {
        Self::new((400, "IllegalArgumentException"), message)
    }

    /// Service Quotas has no such resource.
    pub(super) fn no_such_resource(message: impl Into<String>) -> Self {
        Self::new((400, "NoSuchResourceException"), message)
    }

    /// The emulator has failed.
    pub(super) fn internal(message: impl Into<String>) -> Self {
        Self::new((500, "InternalFailureException"), message)
    }

    /// The service has this operation, but the emulator does not.
    pub(super) fn missing(name: &str) -> Self {
        Self::new((501, "UnsupportedOperationException"), format!("The emulator does not offer {name}."))
    }

    /// There is no operation at this path.
    pub(super) fn unknown_path(method: &str, path: &str) -> Self {
        let message = format!("There is no operation at {method} {path}; MQTT over WebSockets is at /mqtt.");
        Self::new((404, "UnknownOperationException"), message)
    }

    /// An IAM policy denies the action. The message is the one that AWS services use in general.
    pub(super) fn access_denied(account_id: &str, action: &str) -> Self {
        let message = format!(
            "User: arn:aws:iam::{account_id}:user/emulated is not authorized to perform: {action} because no \
             identity-based policy allows the {action} action"
        );
        Self::new((403, "AccessDeniedException"), message)
    }
}

impl From<RegistryError> for ApiError {
    fn from(error: RegistryError) -> Self {
        let kind = match &error {
            RegistryError::NotFound(..) => NOT_FOUND,
            RegistryError::AlreadyExists(..) => (409, "ResourceAlreadyExistsException"),
            RegistryError::CertificateActive(_) => (406, "CertificateStateException"),
            RegistryError::PoliciesAttached(_)
            | RegistryError::ThingsAttached(_)
            | RegistryError::InUse(_) => (409, "DeleteConflictException"),
            // Observed: a thing with principals is an invalid request, not a conflict.
            RegistryError::PrincipalsAttached(_) | RegistryError::Invalid(_) => INVALID_REQUEST,
            RegistryError::TooManyVersions(..) => (409, "VersionsLimitExceededException"),
            RegistryError::LimitExceeded(_) => (410, "LimitExceededException"),
            RegistryError::Version { .. } => (409, "VersionConflictException"),
            RegistryError::MalformedPolicy(_) => MALFORMED_POLICY,
        };
        Self::new(kind, error.to_string())
    }
}

/// Converts what RegisterThing over MQTT rejects into an error of the REST API.
impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        let kind = match refused.refusal {
            scenario::Refusal::InvalidName => INVALID_REQUEST,
            scenario::Refusal::MalformedPolicy => MALFORMED_POLICY,
            _ => REGISTRATION_FAILED,
        };
        Self::new(kind, refused.detail)
    }
}

/// The HTTP response to a request with a valid signature.
pub(super) fn response(api: Api, answer: Answer, now: SystemTime) -> Response {
    match (answer, api) {
        (Ok(Value::String(xml)), Api::Sts) => rendered(200, None, "text/xml", xml, now),
        (Ok(reply), _) => rendered(200, None, "application/json", reply.to_string(), now),
        (Err(ApiError { kind: (status, kind), message }), Api::Sts) => {
            let xml = format!(
                "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type>\
                 <Code>{kind}</Code><Message>{message}</Message></Error></ErrorResponse>"
            );
            rendered(status, Some(kind), "text/xml", xml, now)
        }
        (Err(ApiError { kind: (status, kind), message }), _) => {
            let body = json!({ "__type": kind, "message": message }).to_string();
            rendered(status, Some(kind), "application/json", body, now)
        }
    }
}

/// The response to a refused signature. Its error types are those that AWS services use in general.
pub(super) fn forbidden(refusal: &Refusal, now: SystemTime) -> Response {
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
    let body = json!({ "__type": kind, "message": refusal.message() }).to_string();
    rendered(403, Some(kind), "application/json", body, now)
}

fn rendered(
    status: u16,
    kind: Option<&'static str>,
    content_type: &'static str,
    body: String,
    now: SystemTime,
) -> Response {
    let mut headers = vec![
        ("content-type", String::from(content_type)),
        ("content-length", body.len().to_string()),
        ("date", http_date(now)),
        ("x-amzn-RequestId", random_uuid()),
    ];
    headers.extend(kind.map(|kind| ("x-amzn-ErrorType", kind.to_owned())));
    Response { status: status_line(status), headers, body }
}

fn status_line(status: u16) -> &'static str {
    match status {
        200 => "200 OK",
        400 => "400 Bad Request",
        403 => "403 Forbidden",
        404 => "404 Not Found",
        406 => "406 Not Acceptable",
        409 => "409 Conflict",
        410 => "410 Gone",
        501 => "501 Not Implemented",
        _ => "500 Internal Server Error",
    }
}
