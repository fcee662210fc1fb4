//! Answers of the control plane as HTTP has them.
//!
//! rest-json has an error's type in `x-amzn-ErrorType` and its words in the body. JSON 1.1 has the type in the body, where it
//! does no harm to the other. The query protocol has XML.

use std::time::SystemTime;

use serde_json::{Value, json};

use super::{Answer, Api};
use crate::emulator::account::{Refused, RegistryError};
use crate::emulator::http::{Response, http_date};
use crate::emulator::scenario;
use crate::emulator::uuid::random_uuid;
use crate::emulator::verify::Refusal;

/// An error of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::emulator) struct ApiError {
    kind: Kind,
    message: String,
}

/// The type of an error.
type Kind = (u16, &'static str);

const INVALID_REQUEST: Kind = (400, "InvalidRequestException");
const NOT_FOUND: Kind = (404, "ResourceNotFoundException");
const REGISTRATION_FAILED: Kind = (400, "ResourceRegistrationFailureException");
const MALFORMED_POLICY: Kind = (400, "MalformedPolicyException");

impl ApiError {
    fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// The request is to blame.
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(INVALID_REQUEST, message)
    }

    /// Too many requests for an operation.
    pub(super) fn throttled() -> Self {
        Self::new((400, "ThrottlingException"), "Rate exceeded")
    }

    /// What is asked for is not there.
    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(NOT_FOUND, message)
    }

    /// A certificate that is not one.
    pub(super) fn certificate(message: impl Into<String>) -> Self {
        Self::new((400, "CertificateValidationException"), message)
    }

    /// A certificate is in a state that does not allow it.
    pub(super) fn certificate_state(message: impl Into<String>) -> Self {
        Self::new((406, "CertificateStateException"), message)
    }

    /// RegisterThing cannot make what its template asks for.
    pub(super) fn registration_failed(message: impl Into<String>) -> Self {
        Self::new(REGISTRATION_FAILED, message)
    }

    /// The request is to blame, as Service Quotas says it.
    pub(super) fn illegal_argument(message: impl Into<String>) -> Self {
        Self::new((400, "IllegalArgumentException"), message)
    }

    /// What Service Quotas does not have.
    pub(super) fn no_such_resource(message: impl Into<String>) -> Self {
        Self::new((400, "NoSuchResourceException"), message)
    }

    /// The emulator is to blame.
    pub(super) fn internal(message: impl Into<String>) -> Self {
        Self::new((500, "InternalFailureException"), message)
    }

    /// An operation that the service has, and the emulator does not.
    pub(super) fn missing(name: &str) -> Self {
        Self::new((501, "UnsupportedOperationException"), format!("The emulator does not offer {name}."))
    }

    /// There is nothing here.
    pub(super) fn unknown_path(method: &str, path: &str) -> Self {
        let message = format!("There is no operation at {method} {path}; MQTT over WebSockets is at /mqtt.");
        Self::new((404, "UnknownOperationException"), message)
    }

    /// An IAM policy is in the way: in the words that AWS services use in general.
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
            // Seen so: a thing with principals is an invalid request, not a conflict.
            RegistryError::PrincipalsAttached(_) | RegistryError::Invalid(_) => INVALID_REQUEST,
            RegistryError::TooManyVersions(..) => (409, "VersionsLimitExceededException"),
            RegistryError::LimitExceeded(_) => (410, "LimitExceededException"),
            RegistryError::Version { .. } => (409, "VersionConflictException"),
            RegistryError::MalformedPolicy(_) => MALFORMED_POLICY,
        };
        Self::new(kind, error.to_string())
    }
}

/// What RegisterThing over MQTT rejects, in the words of REST.
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

/// The answer to a well-signed request.
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

/// A signature was refused. The types are those that AWS services use in general.
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
