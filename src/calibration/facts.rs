//! The facts that a calibration settles: each with what is documented of it, how it is asked, and which key of a scenario
//! it becomes.
//!
//! The tags say how reliable a statement is: `V` read in AWS's documentation, API model or SDK source; `V-old` the same, but
//! dated; `R` reported by users; `U` unknown.

/// A fact about an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fact {
    /// A capitalised `Parameters`.
    CapitalisedParameters,
    /// An answer without a subscription.
    WithoutSubscription,
    /// The connections that receive an answer.
    AnswerConnection,
    /// PUBACK and answer.
    PubackOrder,
    /// A token that has registered.
    UsedToken,
    /// No token.
    EmptyToken,
    /// A token that the service did not issue.
    ForeignToken,
    /// A token after its hour.
    ExpiredToken,
    /// A template that does not exist.
    UnknownTemplate,
    /// A parameter without a value.
    MissingParameter,
    /// A request that is not an object.
    InvalidPayload,
    /// A certification request that is none.
    InvalidCsr,
    /// A second certificate for a thing.
    SecondCertificate,
    /// The keys that the service makes.
    Keys,
    /// The age of a signature.
    ClockWindow,
    /// `X-Amz-Expires`.
    Expires,
    /// A SUBSCRIBE to a request topic.
    ReservedTopic,
    /// A request above its quota.
    Throttled,
    /// A SUBSCRIBE that is not permitted.
    DeniedSubscribe,
    /// A PUBLISH that is not permitted.
    DeniedPublish,
}

/// How a fact is asked. One probe may settle several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// Signatures with other dates.
    Signatures,
    /// Messages on a topic of our own.
    Messages,
    /// Topics that are reserved or denied.
    Topics,
    /// Requests that are wrong, and make nothing.
    Refusals,
    /// Certificates with keys of the service, with and without a subscription.
    Certificates,
    /// Certificates for keys made here.
    SigningRequests,
    /// Things, each registered twice.
    Registrations,
    /// A registration with `Parameters`.
    Capitals,
    /// A registration with a parameter left out.
    Omission,
    /// Floods that meet a throttle.
    Limits,
    /// A token that was kept until it had expired.
    Expiry,
}

impl Probe {
    /// All probes, in the order in which they are made.
    pub const ALL: [Probe; 11] = [
        Probe::Signatures,
        Probe::Messages,
        Probe::Topics,
        Probe::Refusals,
        Probe::Certificates,
        Probe::SigningRequests,
        Probe::Registrations,
        Probe::Capitals,
        Probe::Omission,
        Probe::Limits,
        Probe::Expiry,
    ];
}

/// What an answer becomes in a scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Maps {
    /// Nothing: scenarios have no key for it.
    Nothing,
    /// The value of a key, by how the answer begins.
    Key(&'static str, &'static [(&'static str, &'static str)]),
    /// The texts of a refusal, by its name.
    Error(&'static str),
    /// Both: the key, its values, and the refusal's name.
    KeyAndError(&'static str, &'static [(&'static str, &'static str)], &'static str),
}

/// A row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// The fact.
    pub fact: Fact,
    /// Its name in reports: stable.
    pub name: &'static str,
    /// What is asked.
    pub question: &'static str,
    /// What is documented; empty if nothing is.
    pub documented: &'static str,
    /// How reliable that is.
    pub tag: &'static str,
    /// How an answer begins that agrees with it; `None` if no answer can disagree.
    pub expected: Option<&'static str>,
    /// How it is asked.
    pub probe: Probe,
    /// What it becomes.
    pub maps: Maps,
}

/// How an answer begins that accepted a request.
pub const TAKEN: &str = "taken";
/// How an answer begins that refused a request.
pub const REFUSED: &str = "refused";

const fn row(
    fact: Fact,
    name: &'static str,
    question: &'static str,
    (tag, documented, expected): (&'static str, &'static str, Option<&'static str>),
    probe: Probe,
    maps: Maps,
) -> Row {
    Row { fact, name, question, documented, tag, expected, probe, maps }
}

const UNKNOWN: (&str, &str, Option<&str>) = ("U", "", None);

/// All facts, in the order of reports.
pub const TABLE: [Row; 20] = [
    row(
        Fact::CapitalisedParameters,
        "capitalised_parameters",
        "a RegisterThing with Parameters in place of parameters",
        UNKNOWN,
        Probe::Capitals,
        Maps::Key("strict", &[(TAKEN, "false"), (REFUSED, "true"), ("ignored", "true")]),
    ),
    row(
        Fact::WithoutSubscription,
        "answer_without_subscription",
        "whether an answer comes without a subscription to its topic",
        ("V", "subscribe first, or it might not come", None),
        Probe::Certificates,
        Maps::Key("require_subscription", &[("comes", "false"), ("does not come", "true")]),
    ),
    row(
        Fact::AnswerConnection,
        "answer_connection",
        "which connections get an answer, of those subscribed to its topic",
        ("V", "the one that asked", Some("the one that asked")),
        Probe::Certificates,
        Maps::Nothing,
    ),
    row(
        Fact::PubackOrder,
        "puback_order",
        "which comes first, the PUBACK or the answer",
        ("V", "no order is promised", None),
        Probe::Certificates,
        Maps::Nothing,
    ),
    row(
        Fact::UsedToken,
        "used_token",
        "a token that has registered, once more with the same parameters",
        UNKNOWN,
        Probe::Registrations,
        Maps::KeyAndError("token_reuse", &[(TAKEN, "\"accept\""), (REFUSED, "\"reject\"")], "used_token"),
    ),
    row(
        Fact::EmptyToken,
        "empty_token",
        "a RegisterThing with an empty token",
        (
            "R",
            "400 InvalidCertificateOwnershipToken: Certificate ownership token cannot be empty.",
            Some(
                "refused: 400 InvalidCertificateOwnershipToken: Certificate ownership token cannot be empty.",
            ),
        ),
        Probe::Refusals,
        Maps::Error("empty_token"),
    ),
    row(
        Fact::ForeignToken,
        "foreign_token",
        "a RegisterThing with a token that nobody issued",
        UNKNOWN,
        Probe::Refusals,
        Maps::Error("unknown_token"),
    ),
    row(
        Fact::ExpiredToken,
        "expired_token",
        "a RegisterThing with a token that has expired",
        ("V", "a token is valid for an hour; the words are unknown", Some(REFUSED)),
        Probe::Expiry,
        Maps::Error("expired_token"),
    ),
    row(
        Fact::UnknownTemplate,
        "unknown_template",
        "a RegisterThing for a template that does not exist",
        ("V-old", "404; the words are unknown", Some("refused: 404")),
        Probe::Refusals,
        Maps::Error("unknown_template"),
    ),
    row(
        Fact::MissingParameter,
        "missing_parameter",
        "a RegisterThing without a parameter that has no default",
        UNKNOWN,
        Probe::Omission,
        Maps::KeyAndError(
            "missing_parameter",
            &[(TAKEN, "\"empty\""), (REFUSED, "\"reject\"")],
            "missing_parameter",
        ),
    ),
    row(
        Fact::InvalidPayload,
        "invalid_payload",
        "a CreateKeysAndCertificate that is a JSON list",
        UNKNOWN,
        Probe::Refusals,
        Maps::Error("invalid_payload"),
    ),
    row(
        Fact::InvalidCsr,
        "invalid_csr",
        "a CreateCertificateFromCsr whose request is not PEM",
        ("V-old", "400; the words are unknown", Some("refused: 400")),
        Probe::Refusals,
        Maps::Error("invalid_csr"),
    ),
    row(
        Fact::SecondCertificate,
        "second_certificate",
        "another certificate for a thing that exists, with the same parameters",
        UNKNOWN,
        Probe::Registrations,
        Maps::Error("resource_conflict"),
    ),
    row(
        Fact::Keys,
        "keys",
        "the keys that the service makes",
        ("V", "RSA 2048", Some("RSA 2048")),
        Probe::Certificates,
        Maps::Key(
            "keys",
            &[("RSA 2048", "\"rsa2048\""), ("P-256", "\"p256\""), ("one key for all", "\"recycled\"")],
        ),
    ),
    row(
        Fact::ClockWindow,
        "clock_window",
        "a signature dated 4½ and 5½ minutes off",
        ("R", "within 5 minutes", Some("within 5 minutes")),
        Probe::Signatures,
        Maps::Nothing,
    ),
    row(
        Fact::Expires,
        "x_amz_expires",
        "a signature 2 minutes old with X-Amz-Expires=60, and 5½ minutes old with 86400",
        ("R", "ignored", Some("ignored")),
        Probe::Signatures,
        Maps::Nothing,
    ),
    row(
        Fact::ReservedTopic,
        "request_topic",
        "a SUBSCRIBE to the topic of requests",
        ("V", "may end the connection", None),
        Probe::Topics,
        Maps::Nothing,
    ),
    row(
        Fact::Throttled,
        "throttled",
        "more requests than the quota",
        ("V-old", "429; the words are unknown", Some("refused: 429")),
        Probe::Limits,
        Maps::Error("throttled"),
    ),
    row(
        Fact::DeniedSubscribe,
        "denied_subscribe",
        "a SUBSCRIBE to a topic that a policy denies",
        ("R", "the connection ends; newer documentation speaks of an answer", None),
        Probe::Topics,
        Maps::Key("permissions.subscribe", &[("SUBACK", "\"answer\""), ("the connection ends", "\"close\"")]),
    ),
    row(
        Fact::DeniedPublish,
        "denied_publish",
        "a PUBLISH to a topic that a policy denies",
        ("R", "the connection ends", Some("the connection ends")),
        Probe::Topics,
        Maps::Nothing,
    ),
];

impl Fact {
    /// Its row.
    pub fn row(self) -> &'static Row {
        TABLE.iter().find(|row| row.fact == self).expect("every fact has a row")
    }
}
