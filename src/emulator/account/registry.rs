//! What the control plane does to the account: statuses, detaching, deleting.
//!
//! Owns the rules of it. Looking needs no rules: [`Account::state`] has it all. Source: AWS IoT API Reference; where a
//! message was seen in a report of a user it is repeated, the others are ours. Detaching takes effect at once here, while the
//! service may take seconds.

use super::Account;
use super::change::Key;
use super::state::CertificateStatus;

/// Why the control plane refuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// There is no such resource: its kind and its name.
    #[error("{0} {1} was not found.")]
    NotFound(&'static str, String),
    /// A certificate is to be deleted that is in use.
    #[error("Certificate must be deactivated (not ACTIVE) before deletion. Id: {0}")]
    CertificateActive(String),
    /// A certificate is to be deleted that has policies.
    #[error("Certificate policies must be detached before deletion (id: {0})")]
    PoliciesAttached(String),
    /// A certificate is to be deleted that is attached to things.
    #[error("Certificate must be detached from its things before deletion (id: {0})")]
    ThingsAttached(String),
    /// A thing is to be deleted that has certificates.
    #[error("Cannot delete. Thing {0} is still attached to one or more principals")]
    PrincipalsAttached(String),
    /// A thing is not at the version that the caller expects.
    #[error("Thing {name} is at version {found}, not {expected}.")]
    Version {
        /// Which.
        name: String,
        /// Its version.
        found: u64,
        /// The caller's.
        expected: u64,
    },
}

/// Which certificates may be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    /// Those to which nothing is attached.
    Plain,
    /// Those with policies too.
    Forced,
}

impl Account {
    /// UpdateCertificate. The same status again is fine.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`].
    pub fn update_certificate(&mut self, id: &str, status: CertificateStatus) -> Result<(), RegistryError> {
        let certificate = self.state.certificates.get_mut(id).ok_or_else(|| no_certificate(id))?;
        certificate.status = status;
        self.touched.add(Key::Certificate, id);
        Ok(())
    }

    /// DeleteCertificate. Its ownership token is worth nothing from then on.
    ///
    /// # Errors
    /// [`RegistryError`] if it is not there, is active, or has something attached.
    pub fn delete_certificate(&mut self, id: &str, deletion: Deletion) -> Result<(), RegistryError> {
        let certificate = self.state.certificates.get(id).ok_or_else(|| no_certificate(id))?;
        if certificate.status == CertificateStatus::Active {
            return Err(RegistryError::CertificateActive(id.to_owned()));
        }
        if !certificate.things.is_empty() {
            return Err(RegistryError::ThingsAttached(id.to_owned()));
        }
        if !certificate.policies.is_empty() && deletion == Deletion::Plain {
            return Err(RegistryError::PoliciesAttached(id.to_owned()));
        }
        self.state.certificates.remove(id);
        self.touched.add(Key::Certificate, id);
        Ok(())
    }

    /// DeleteThing. A thing that is not there is deleted already.
    ///
    /// # Errors
    /// [`RegistryError`] if it has certificates, or not the version that is expected.
    pub fn delete_thing(&mut self, name: &str, expected_version: Option<u64>) -> Result<(), RegistryError> {
        let Some(thing) = self.state.things.get(name) else { return Ok(()) };
        let found = thing.version;
        if let Some(expected) = expected_version.filter(|expected| *expected != found) {
            return Err(RegistryError::Version { name: name.to_owned(), found, expected });
        }
        if !thing.principals.is_empty() {
            return Err(RegistryError::PrincipalsAttached(name.to_owned()));
        }
        self.state.things.remove(name);
        self.touched.add(Key::Thing, name);
        Ok(())
    }

    /// DetachThingPrincipal. What is not attached is detached already.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`] for the thing or the certificate.
    pub fn detach_thing_principal(
        &mut self,
        thing_name: &str,
        certificate_id: &str,
    ) -> Result<(), RegistryError> {
        let thing = self.state.things.get_mut(thing_name).ok_or_else(|| no_thing(thing_name))?;
        let certificate = self.state.certificates.get_mut(certificate_id);
        let certificate = certificate.ok_or_else(|| no_certificate(certificate_id))?;
        thing.principals.remove(certificate_id);
        certificate.things.remove(thing_name);
        self.touched.add(Key::Thing, thing_name);
        self.touched.add(Key::Certificate, certificate_id);
        Ok(())
    }

    /// DetachPolicy. What is not attached is detached already; the policy stays.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`] for the certificate.
    pub fn detach_policy(&mut self, policy: &str, certificate_id: &str) -> Result<(), RegistryError> {
        let certificate = self.state.certificates.get_mut(certificate_id);
        let certificate = certificate.ok_or_else(|| no_certificate(certificate_id))?;
        certificate.policies.remove(policy);
        self.touched.add(Key::Certificate, certificate_id);
        Ok(())
    }
}

/// There is no such certificate.
pub(in super::super) fn no_certificate(id: &str) -> RegistryError {
    RegistryError::NotFound("Certificate", id.to_owned())
}

/// There is no such thing.
pub(in super::super) fn no_thing(name: &str) -> RegistryError {
    RegistryError::NotFound("Thing", name.to_owned())
}
