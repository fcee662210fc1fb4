//! What the control plane does to the account's records, and why it may not.
//!
//! Source: AWS IoT API Reference; where a message was seen in a report of a user it is repeated, the others are ours.

use std::time::SystemTime;

use super::Account;
use super::change::{Key, Kind};
use super::fingerprint::Fingerprint;
use super::state::{Certificate, CertificateStatus, Detached, Detachment, State, Thing};

/// Why the control plane refuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// There is not such a resource: its kind and its name.
    #[error("{0} {1} was not found.")]
    NotFound(&'static str, String),
    /// There is one already, and it is another: its kind and its name.
    #[error("{0} {1} already exists in account.")]
    AlreadyExists(&'static str, String),
    /// A certificate is to be deleted that is in use.
    #[error("Certificate must be deactivated (not ACTIVE) before deletion. Id: {0}")]
    CertificateActive(Fingerprint),
    /// A certificate is to be deleted that has policies.
    #[error("Certificate policies must be detached before deletion (id: {0})")]
    PoliciesAttached(Fingerprint),
    /// A certificate is to be deleted that is attached to things.
    #[error("Certificate must be detached from its things before deletion (id: {0})")]
    ThingsAttached(Fingerprint),
    /// A thing is to be deleted that has certificates.
    #[error("Cannot delete. Thing {0} is still attached to one or more principals")]
    PrincipalsAttached(String),
    /// Something is to be deleted that something else needs: what is in the way.
    #[error("{0}")]
    InUse(String),
    /// Something has as many versions as it may have.
    #[error("{0} {1} already has the maximum number of versions ({2}); delete one first.")]
    TooManyVersions(&'static str, String, usize),
    /// More than an account or a resource may have: what.
    #[error("{0}")]
    LimitExceeded(String),
    /// A resource is not at the version that the caller expects.
    #[error("{name} is at version {found}, not {expected}.")]
    Version {
        /// Which.
        name: String,
        /// Its version.
        found: u64,
        /// The caller's.
        expected: u64,
    },
    /// A policy document that is not one.
    #[error("{0}")]
    MalformedPolicy(String),
    /// The request cannot be right: why.
    #[error("{0}")]
    Invalid(String),
}

/// Which certificates may be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    /// Those to which nothing is attached.
    Plain,
    /// Those with policies too.
    Forced,
}

type Done = Result<(), RegistryError>;

impl State {
    /// A record by its name.
    pub(in crate::emulator) fn find<K: Kind>(&self, name: &K::Name) -> Result<&K, RegistryError>
    where
        K::Name: ToString,
    {
        K::map(self).get(name).ok_or_else(|| not_found::<K>(name.to_string()))
    }
}

impl Account {
    /// A record to be changed.
    pub(in crate::emulator) fn edit<K: Kind>(&mut self, name: &K::Name) -> Result<&mut K, RegistryError>
    where
        K::Name: ToString,
    {
        let record = K::map_mut(&mut self.state).get_mut(name);
        let record = record.ok_or_else(|| not_found::<K>(name.to_string()))?;
        self.touched.add(K::key(name.clone()));
        Ok(record)
    }

    /// Puts a record into the account, in the place of one that has its name.
    pub(in crate::emulator) fn put<K: Kind>(&mut self, name: K::Name, record: K) {
        self.touched.add(K::key(name.clone()));
        K::map_mut(&mut self.state).insert(name, record);
    }

    /// Takes a record out of the account; one that is not there is gone already.
    pub(in crate::emulator) fn remove<K: Kind>(&mut self, name: &K::Name) -> Option<K> {
        self.touched.add(K::key(name.clone()));
        K::map_mut(&mut self.state).remove(name)
    }

    /// UpdateCertificate. The same status again is fine.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`].
    pub(in crate::emulator) fn update_certificate(
        &mut self,
        now: SystemTime,
        id: Fingerprint,
        status: CertificateStatus,
    ) -> Done {
        let certificate = self.edit::<Certificate>(&id)?;
        if certificate.status != status {
            certificate.status = status;
            certificate.modified = now;
        }
        Ok(())
    }

    /// DeleteCertificate. Its ownership token is worth nothing from then on.
    ///
    /// # Errors
    /// [`RegistryError`] if it is not there, is active, or has something attached.
    pub(in crate::emulator) fn delete_certificate(&mut self, id: Fingerprint, deletion: Deletion) -> Done {
        let certificate = self.state.find::<Certificate>(&id)?;
        if certificate.status == CertificateStatus::Active {
            return Err(RegistryError::CertificateActive(id));
        }
        if !certificate.things.is_empty() {
            return Err(RegistryError::ThingsAttached(id));
        }
        if !certificate.policies.is_empty() && deletion == Deletion::Plain {
            return Err(RegistryError::PoliciesAttached(id));
        }
        self.remove::<Certificate>(&id);
        Ok(())
    }

    /// DeleteThing. A thing that is not there is deleted already.
    ///
    /// # Errors
    /// [`RegistryError`] if it has certificates, or not the version that is expected.
    pub(in crate::emulator) fn delete_thing(&mut self, name: &str, expected: Option<u64>) -> Done {
        let name = name.to_owned();
        let Some(thing) = self.state.things.get(&name) else { return Ok(()) };
        check_version(&name, thing.version, expected)?;
        if !thing.principals.is_empty() {
            return Err(RegistryError::PrincipalsAttached(name));
        }
        self.remove::<Thing>(&name);
        Ok(())
    }

    /// Detaches, at once or after the scenario's `detach_lag`. What is not attached is detached already.
    pub(in crate::emulator) fn detach(&mut self, now: SystemTime, what: Detached) {
        let lag = self.rules.detach_lag;
        if lag.is_zero() {
            return self.state.detach(&what, &mut self.touched);
        }
        let number = self.state.detaching.last_key_value().map_or(0, |(last, _)| last + 1);
        self.put(number, Detachment { due: now.checked_add(lag).unwrap_or(now), what });
    }

    /// What is attached anew is no longer on its way out.
    pub(in crate::emulator) fn keep_attached(&mut self, what: &Detached) {
        let leaving = self.state.detaching.extract_if(.., |_, detachment| detachment.what == *what);
        leaving.for_each(|(number, _)| self.touched.add(Key::Detachment(number)));
    }
}

/// That a resource is at the version that a caller expects, if it says one.
pub(in crate::emulator) fn check_version(name: &str, found: u64, expected: Option<u64>) -> Done {
    match expected.filter(|expected| *expected != found) {
        Some(expected) => Err(RegistryError::Version { name: name.to_owned(), found, expected }),
        None => Ok(()),
    }
}

fn not_found<K: Kind>(name: String) -> RegistryError {
    RegistryError::NotFound(K::NOUN, name)
}
