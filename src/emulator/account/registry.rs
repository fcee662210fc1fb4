//! What the control plane does to the account's records, and why it may refuse to.
//!
//! Source: AWS IoT API Reference. Messages that users have reported are repeated here; the others are ours.

use std::time::SystemTime;

use super::Account;
use super::change::{Key, Kind};
use super::fingerprint::Fingerprint;
use super::state::{Certificate, CertificateStatus, Detached, Detachment, State, Thing};

/// Why the control plane refuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// No such resource: its kind and its name.
    #[error("{0} {1} was not found.")]
    NotFound(&'static str, String),
    /// A different resource of that name exists: its kind and its name.
    #[error("{0} {1} already exists in account.")]
    AlreadyExists(&'static str, String),
    /// The certificate to delete is active.
    #[error("Certificate must be deactivated (not ACTIVE) before deletion. Id: {0}")]
    CertificateActive(Fingerprint),
    /// The certificate to delete has policies attached.
    #[error("Certificate policies must be detached before deletion (id: {0})")]
    PoliciesAttached(Fingerprint),
    /// The certificate to delete is attached to things.
    #[error("Certificate must be detached from its things before deletion (id: {0})")]
    ThingsAttached(Fingerprint),
    /// The thing to delete has certificates attached.
    #[error("Cannot delete. Thing {0} is still attached to one or more principals")]
    PrincipalsAttached(String),
    /// The resource to delete is in use: what uses it.
    #[error("{0}")]
    InUse(String),
    /// The resource already has the most versions it may have.
    #[error("{0} {1} already has the maximum number of versions ({2}); delete one first.")]
    TooManyVersions(&'static str, String, usize),
    /// An account's or a resource's limit is exceeded: which one.
    #[error("{0}")]
    LimitExceeded(String),
    /// A resource is not at the version that the caller expects.
    #[error("{name} is at version {found}, not {expected}.")]
    Version {
        /// The resource's name.
        name: String,
        /// Its present version.
        found: u64,
        /// The version that the caller expects.
        expected: u64,
    },
    /// The policy document is malformed.
    #[error("{0}")]
    MalformedPolicy(String),
    /// The request is invalid: why.
    #[error("{0}")]
    Invalid(String),
}

/// Which certificates may be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    /// Those with nothing attached.
    Plain,
    /// Those with policies attached, too.
    Forced,
}

type Done = Result<(), RegistryError>;

impl State {
    /// Finds a record by its name.
    pub(in crate::emulator) fn find<K: Kind>(&self, name: &K::Name) -> Result<&K, RegistryError>
    where
        K::Name: ToString,
    {
        K::map(self).get(name).ok_or_else(|| not_found::<K>(name.to_string()))
    }
}

impl Account {
    /// A record to be changed, which counts as touched.
    pub(in crate::emulator) fn edit<K: Kind>(&mut self, name: &K::Name) -> Result<&mut K, RegistryError>
    where
        K::Name: ToString,
    {
        let record = K::map_mut(&mut self.state).get_mut(name);
        let record = record.ok_or_else(|| not_found::<K>(name.to_string()))?;
        self.touched.add(K::key(name.clone()));
        Ok(record)
    }

    /// Adds a record, replacing any of the same name.
    pub(in crate::emulator) fn put<K: Kind>(&mut self, name: K::Name, record: K) {
        self.touched.add(K::key(name.clone()));
        K::map_mut(&mut self.state).insert(name, record);
    }

    /// Removes a record; `None` if it does not exist.
    pub(in crate::emulator) fn remove<K: Kind>(&mut self, name: &K::Name) -> Option<K> {
        self.touched.add(K::key(name.clone()));
        K::map_mut(&mut self.state).remove(name)
    }

    /// UpdateCertificate. Setting the present status again succeeds.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`] if there is no such certificate.
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

    /// DeleteCertificate. The certificate's ownership token becomes invalid.
    ///
    /// # Errors
    /// [`RegistryError`] if the certificate does not exist, is active, or has something attached.
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

    /// DeleteThing. Deleting a thing that does not exist succeeds.
    ///
    /// # Errors
    /// [`RegistryError`] if the thing has certificates attached, or is not at the expected version.
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

    /// Detaches, at once or after the scenario's `detach_lag`. Detaching what is not attached succeeds.
    pub(in crate::emulator) fn detach(&mut self, now: SystemTime, what: Detached) {
        let lag = self.rules.detach_lag;
        if lag.is_zero() {
            return self.state.detach(&what, &mut self.touched);
        }
        let number = self.state.detaching.last_key_value().map_or(0, |(last, _)| last + 1);
        self.put(number, Detachment { due: now.checked_add(lag).unwrap_or(now), what });
    }

    /// Cancels a pending detachment of something that was attached again.
    pub(in crate::emulator) fn keep_attached(&mut self, what: &Detached) {
        let leaving = self.state.detaching.extract_if(.., |_, detachment| detachment.what == *what);
        leaving.for_each(|(number, _)| self.touched.add(Key::Detachment(number)));
    }
}

/// Checks that a resource is at the version that the caller expects, if it states one.
pub(in crate::emulator) fn check_version(name: &str, found: u64, expected: Option<u64>) -> Done {
    match expected.filter(|expected| *expected != found) {
        Some(expected) => Err(RegistryError::Version { name: name.to_owned(), found, expected }),
        None => Ok(()),
    }
}

fn not_found<K: Kind>(name: String) -> RegistryError {
    RegistryError::NotFound(K::NOUN, name)
}
