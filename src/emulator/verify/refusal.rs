//! Why a signature is refused, and what the client is told.

/// Why a request is refused. `Display` is the diagnosis for people who run the emulator; [`Refusal::message`] is what
/// the client is told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The request is not signed.
    #[error("the request has no Authorization header")]
    NotSigned,
    /// The Authorization header is not in SigV4's format.
    #[error(
        "the Authorization header is not AWS4-HMAC-SHA256 with one Credential, SignedHeaders and Signature each"
    )]
    MalformedAuthorization,
    /// A required header is missing.
    #[error("the header {0} is missing")]
    MissingHeader(&'static str),
    /// A header that is acted on is not signed.
    #[error("the header {0} is not signed")]
    UnsignedHeader(String),
    /// A `%` in the query is not followed by two hexadecimal digits.
    #[error("the query holds a % without two hexadecimal digits behind it")]
    MalformedQuery,
    /// A query parameter occurs more than once.
    #[error("the query parameter {0} stands in the query twice")]
    DuplicateParameter(String),
    /// A required parameter is missing.
    #[error("the query parameter {0} is missing")]
    MissingParameter(&'static str),
    /// `X-Amz-Algorithm` is not the supported one.
    #[error("X-Amz-Algorithm is not AWS4-HMAC-SHA256")]
    UnknownAlgorithm,
    /// `X-Amz-Credential` is not key/date/region/service/aws4_request.
    #[error("X-Amz-Credential is not <key id>/<yyyymmdd>/<region>/<service>/aws4_request")]
    MalformedCredential,
    /// `X-Amz-Date` is not a date in ISO 8601's basic form.
    #[error("X-Amz-Date is not a date like 20251123T234432Z")]
    MalformedDate,
    /// The credential scope names another day than `X-Amz-Date`.
    #[error("the credential scope is for {scope}, but X-Amz-Date is {date}")]
    ScopeOfAnotherDay {
        /// The day in the scope.
        scope: String,
        /// When the request was signed.
        date: String,
    },
    /// The request is signed for another region.
    #[error("signed for the region {found}, but this is {wanted}")]
    WrongRegion {
        /// The region in the scope.
        found: String,
        /// The emulator's region.
        wanted: String,
    },
    /// The request is signed for another service.
    #[error("signed for the service {found}, but this is {wanted}")]
    WrongService {
        /// The service in the scope.
        found: String,
        /// The accepted service.
        wanted: String,
    },
    /// The account does not have this access key.
    #[error("the access key {0} does not exist here")]
    UnknownAccessKey(String),
    /// The request was signed more than five minutes ago.
    #[error("signed at {signed}, more than five minutes before {now}")]
    Expired {
        /// When the request was signed.
        signed: String,
        /// The earliest signing time accepted.
        earliest: String,
        /// The emulator's clock.
        now: String,
    },
    /// The request was signed more than five minutes in the future.
    #[error("signed at {signed}, more than five minutes after {now}")]
    NotYetCurrent {
        /// When the request was signed.
        signed: String,
        /// The latest signing time accepted.
        latest: String,
        /// The emulator's clock.
        now: String,
    },
    /// `X-Amz-SignedHeaders` lists nothing, or an empty name.
    #[error("X-Amz-SignedHeaders is not a list of header names")]
    MalformedSignedHeaders,
    /// `X-Amz-SignedHeaders` does not list the host.
    #[error("X-Amz-SignedHeaders does not list host")]
    HostNotSigned,
    /// `X-Amz-SignedHeaders` lists a header that the request lacks.
    #[error("X-Amz-SignedHeaders lists {0}, and the request has no such header")]
    SignedHeaderAbsent(String),
    /// The credentials are temporary, but the request has no session token.
    #[error("X-Amz-Security-Token is missing, and these credentials have a session token")]
    MissingSessionToken,
    /// The session token does not belong to these credentials.
    #[error("X-Amz-Security-Token is not the session token of these credentials")]
    WrongSessionToken,
    /// The credentials are temporary and have expired.
    #[error("the session token has expired")]
    ExpiredToken,
    /// The signature does not match the one computed.
    #[error("the signature does not match{0}")]
    SignatureMismatch(Suspicion),
}

/// A possible explanation for a signature mismatch: with this one change, the signature would match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suspicion {
    /// No known explanation; most often the secret is wrong.
    Nothing,
    /// The client signed the host without the port that its Host header has.
    HostSignedWithoutPort,
    /// The client added `X-Amz-Expires` after signing.
    ExpiresNotSigned,
    /// The client signed `X-Amz-Security-Token`, which this service requires outside the signature.
    SessionTokenSigned,
}

impl std::fmt::Display for Suspicion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Nothing => "; the secret access key is the usual suspect",
            Self::HostSignedWithoutPort => ": the port in the Host header was not signed",
            Self::ExpiresNotSigned => ": X-Amz-Expires was not signed",
            Self::SessionTokenSigned => {
                ": X-Amz-Security-Token was signed, and must be appended after the signature"
            }
        })
    }
}

impl Refusal {
    /// What the client is told, in the service's words.
    ///
    /// The texts for a mismatch, and for expired and future signatures, have the same lengths as captured answers. The
    /// others are those that AWS services use in general; they were not captured from this service.
    pub fn message(&self) -> String {
        match self {
            Self::Expired { signed, earliest, now } => {
                format!("Signature expired: {signed} is now earlier than {earliest} ({now} - 5 min.)")
            }
            Self::NotYetCurrent { signed, latest, now } => {
                format!("Signature not yet current: {signed} is still later than {latest} ({now} + 5 min.)")
            }
            Self::SignatureMismatch(_) | Self::SignedHeaderAbsent(_) => String::from(
                "The request signature we calculated does not match the signature you provided. Check your AWS \
                 Secret Access Key and signing method. Consult the service documentation for details.",
            ),
            Self::UnknownAccessKey(_) | Self::MissingSessionToken | Self::WrongSessionToken => {
                String::from("The security token included in the request is invalid.")
            }
            Self::ExpiredToken => String::from("The security token included in the request is expired"),
            Self::WrongService { wanted, .. } => {
                format!("Credential should be scoped to correct service: '{wanted}'.")
            }
            Self::WrongRegion { wanted, .. } => {
                format!("Credential should be scoped to a valid region, such as '{wanted}'.")
            }
            Self::HostNotSigned => {
                String::from("'Host' or ':authority' must be a 'SignedHeader' in the AWS Signature.")
            }
            Self::NotSigned | Self::MissingParameter("X-Amz-Algorithm") => {
                String::from("Missing Authentication Token")
            }
            Self::MissingParameter(name) => {
                format!(
                    "AWS query-string parameters must include '{name}'. Re-examine the query-string parameters."
                )
            }
            other => format!("The request is not signed properly: {other}."),
        }
    }
}
