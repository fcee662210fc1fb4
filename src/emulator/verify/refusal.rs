//! Why a signature is refused, and what the client is told.
//!
//! Owns the words. Decides nothing.

/// Why a request is refused. `Display` is the diagnosis, for people who run the emulator; [`Refusal::message`] is what the
/// client is told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no signature at all.
    #[error("the request has no Authorization header")]
    NotSigned,
    /// The Authorization header is not one of SigV4.
    #[error(
        "the Authorization header is not AWS4-HMAC-SHA256 with one Credential, SignedHeaders and Signature each"
    )]
    MalformedAuthorization,
    /// A header that a signature needs is not there.
    #[error("the header {0} is missing")]
    MissingHeader(&'static str),
    /// A header that is acted on is not among the signed ones.
    #[error("the header {0} is not signed")]
    UnsignedHeader(String),
    /// A `%` in the query that no two hexadecimal digits follow.
    #[error("the query holds a % without two hexadecimal digits behind it")]
    MalformedQuery,
    /// A parameter stands in the query more than once.
    #[error("the query parameter {0} stands in the query twice")]
    DuplicateParameter(String),
    /// A parameter that a signature needs is not there.
    #[error("the query parameter {0} is missing")]
    MissingParameter(&'static str),
    /// `X-Amz-Algorithm` is not the one that exists.
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
        /// The moment of signing.
        date: String,
    },
    /// Signed for a region that is not this one.
    #[error("signed for the region {found}, but this is {wanted}")]
    WrongRegion {
        /// The region in the scope.
        found: String,
        /// Our region.
        wanted: String,
    },
    /// Signed for a service that is not this one.
    #[error("signed for the service {found}, but this is {wanted}")]
    WrongService {
        /// The service in the scope.
        found: String,
        /// Our service.
        wanted: String,
    },
    /// An access key that the account does not have.
    #[error("the access key {0} does not exist here")]
    UnknownAccessKey(String),
    /// Signed more than five minutes before now.
    #[error("signed at {signed}, more than five minutes before {now}")]
    Expired {
        /// The moment of signing.
        signed: String,
        /// The earliest moment that would have done.
        earliest: String,
        /// Our clock.
        now: String,
    },
    /// Signed more than five minutes after now.
    #[error("signed at {signed}, more than five minutes after {now}")]
    NotYetCurrent {
        /// The moment of signing.
        signed: String,
        /// The latest moment that would have done.
        latest: String,
        /// Our clock.
        now: String,
    },
    /// `X-Amz-SignedHeaders` lists nothing, or an empty name.
    #[error("X-Amz-SignedHeaders is not a list of header names")]
    MalformedSignedHeaders,
    /// `X-Amz-SignedHeaders` does not list the host.
    #[error("X-Amz-SignedHeaders does not list host")]
    HostNotSigned,
    /// `X-Amz-SignedHeaders` lists a header that did not come.
    #[error("X-Amz-SignedHeaders lists {0}, and the request has no such header")]
    SignedHeaderAbsent(String),
    /// The credentials are temporary, and no session token came.
    #[error("X-Amz-Security-Token is missing, and these credentials have a session token")]
    MissingSessionToken,
    /// A session token that is not the one of these credentials.
    #[error("X-Amz-Security-Token is not the session token of these credentials")]
    WrongSessionToken,
    /// The credentials are temporary, and their time has passed.
    #[error("the session token has expired")]
    ExpiredToken,
    /// The signature is not the one we compute.
    #[error("the signature does not match{0}")]
    SignatureMismatch(Suspicion),
}

/// What would explain a signature that does not match: a request that differs in this one point would have matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suspicion {
    /// Nothing that we know: most often a wrong secret.
    Nothing,
    /// The client signed the host without the port that its Host header has.
    HostSignedWithoutPort,
    /// The client added `X-Amz-Expires` after it had signed.
    ExpiresNotSigned,
    /// The client signed `X-Amz-Security-Token`, which this service wants outside the signature.
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
    /// The texts for a mismatch, for an expired and for a future signature reproduce the lengths of captured answers. The
    /// others are what AWS services say in general; they were not captured from this one.
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
