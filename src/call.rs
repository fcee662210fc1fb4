//! The calls that are made on a connection.

/// A request and its reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Call {
    /// Gets a certificate and its key, both made by the service.
    #[serde(rename = "create_certificate")]
    CreateKeysAndCertificate,
    /// Gets a certificate for a key that was made here.
    CreateCertificateFromCsr,
    /// Gets a thing for a certificate.
    RegisterThing,
    /// Sends a message to a topic that the same connection subscribes to: not part of the API, for load tests.
    Publish,
}

impl Call {
    /// All calls, in the order in which a device makes them.
    pub const ALL: [Call; 4] =
        [Call::CreateKeysAndCertificate, Call::CreateCertificateFromCsr, Call::RegisterThing, Call::Publish];

    /// The call's name in reports and results files: stable, lower case.
    pub fn name(self) -> &'static str {
        match self {
            Call::CreateKeysAndCertificate => "create_certificate",
            Call::CreateCertificateFromCsr => "create_certificate_from_csr",
            Call::RegisterThing => "register_thing",
            Call::Publish => "publish",
        }
    }

    /// The call's name as AWS spells it.
    pub fn spelled(self) -> &'static str {
        match self {
            Call::CreateKeysAndCertificate => "CreateKeysAndCertificate",
            Call::CreateCertificateFromCsr => "CreateCertificateFromCsr",
            Call::RegisterThing => "RegisterThing",
            Call::Publish => "PUBLISH to a topic of its own",
        }
    }
}
