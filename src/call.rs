//! The calls that are made on a connection, by name.

/// A request and its reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Call {
    /// A certificate and its key, both made by the service.
    #[serde(rename = "create_certificate")]
    CreateKeysAndCertificate,
    /// A certificate for a key that was made here.
    CreateCertificateFromCsr,
    /// A thing for a certificate.
    RegisterThing,
    /// A message to a topic of the connection's own, which comes back on it: not a part of the API, but a load test's.
    Publish,
}

impl Call {
    /// All of them, in a device's order.
    pub const ALL: [Call; 4] =
        [Call::CreateKeysAndCertificate, Call::CreateCertificateFromCsr, Call::RegisterThing, Call::Publish];

    /// The name in reports and results files: stable, lower case.
    pub fn name(self) -> &'static str {
        match self {
            Call::CreateKeysAndCertificate => "create_certificate",
            Call::CreateCertificateFromCsr => "create_certificate_from_csr",
            Call::RegisterThing => "register_thing",
            Call::Publish => "publish",
        }
    }

    /// As AWS spells it.
    pub fn spelled(self) -> &'static str {
        match self {
            Call::CreateKeysAndCertificate => "CreateKeysAndCertificate",
            Call::CreateCertificateFromCsr => "CreateCertificateFromCsr",
            Call::RegisterThing => "RegisterThing",
            Call::Publish => "PUBLISH to a topic of its own",
        }
    }
}
