//! The first half of a device's way: a certificate whose key cannot be lost.
//!
//! Owns making or asking for keys, and the checkpoint behind which a certificate is durable.

use std::time::SystemTime;

use super::{Issued, Next, Origin, Step};
use crate::call::Call;
use crate::certificate::{IssuedCertificate, SigningRequest, StoredKey};
use crate::engine::KeySource;
use crate::engine::worker::{Attempt, Halt, Worker};
use crate::event::{Change, DeviceId, Registration, Timing};
use crate::failure::{Cause, Failure};
use crate::keys::{self, KeyType};
use crate::ledger::{Receipt, Recorded};
use crate::provisioning::{self, Request};
use crate::transport::Connector;

impl<C: Connector> Worker<C> {
    /// A certificate for a device without a key.
    pub(super) async fn create(&mut self, device: DeviceId) -> Result<Step, Halt> {
        match self.shared.plan.keys.source {
            KeySource::Service => self.obtain(device, None).await,
            KeySource::Local(key_type) => self.prepare(device, key_type).await,
        }
    }

    /// Makes a key pair. From here on the device has that one and no other.
    async fn prepare(&mut self, device: DeviceId, key_type: KeyType) -> Result<Step, Halt> {
        if self.shared.stop.drain.is_cancelled() {
            return Err(Halt::Drain);
        }
        let key = self.compute(move |policy| policy.prepare(key_type)).await;
        match self.commit(Change::KeyPrepared { device, key }).await? {
            Receipt::KeyPrepared(request) => Ok(Step::Certify(request)),
            other => unreachable!("the ledger answers KeyPrepared with the request, not {other:?}"),
        }
    }

    /// CreateCertificateFromCsr if there is a request, else CreateKeysAndCertificate, until a certificate is durable or
    /// the device has to be left.
    pub(super) async fn obtain(
        &mut self,
        device: DeviceId,
        request: Option<Recorded<SigningRequest>>,
    ) -> Result<Step, Halt> {
        let call =
            if request.is_some() { Call::CreateCertificateFromCsr } else { Call::CreateKeysAndCertificate };
        let mut attempts = 0;
        loop {
            if self.shared.stop.drain.is_cancelled() {
                return Err(Halt::Drain);
            }
            attempts += 1;
            let (timing, recorded) = match &request {
                Some(request) => self.try_certifying(device, request).await?,
                None => self.try_creating(device).await?,
            };
            let outcome = recorded.as_ref().map(|_| ()).map_err(Failure::clone);
            self.conclude(call, timing, outcome).await;
            let failure = match recorded {
                Ok(issued) => return Ok(Step::Register(issued)),
                Err(failure) => failure,
            };
            match self.recover(&failure, attempts).await? {
                Next::TryAgain => {}
                Next::GiveUp => return self.give_up_creating(device, failure).await,
            }
        }
    }

    /// One CreateKeysAndCertificate. The key is sealed before anything else gets it.
    pub(super) async fn try_creating(
        &mut self,
        device: DeviceId,
    ) -> Result<(Timing, Result<Issued, Failure>), Halt> {
        let permitted = self.permit_creation().await?;
        let Attempt { timing, answer } = self.attempt(permitted, &provisioning::create_request()).await;
        let issued_at = (self.shared.clock)();
        let recorded = match answer {
            Ok(certificate) => {
                let certificate = match self.shared.plan.keys.seal_to {
                    None => certificate.map_key(StoredKey::Plain),
                    Some(_) => self.compute(move |policy| certificate.map_key(|key| policy.keep(key))).await,
                };
                self.record_issued(
                    Call::CreateKeysAndCertificate,
                    Change::Issued { device, certificate },
                    issued_at,
                )
                .await?
            }
            Err(failure) => Err(failure),
        };
        Ok((timing, recorded))
    }

    /// One CreateCertificateFromCsr. A certificate for another key is not this device's.
    pub(super) async fn try_certifying(
        &mut self,
        device: DeviceId,
        request: &Recorded<SigningRequest>,
    ) -> Result<(Timing, Result<Issued, Failure>), Halt> {
        let call = Call::CreateCertificateFromCsr;
        let permitted = self.permit_creation().await?;
        let Attempt { timing, answer } = self.attempt(permitted, &csr_request(request)).await;
        let issued_at = (self.shared.clock)();
        let recorded = match answer {
            Ok(certificate) => match keys::check_certificate(request, &certificate.certificate_pem) {
                Ok(()) => {
                    self.record_issued(call, Change::Certified { device, certificate }, issued_at).await?
                }
                Err(mismatch) => Err(self.anomaly(call, mismatch.to_string()).await),
            },
            Err(failure) => Err(failure),
        };
        Ok((timing, recorded))
    }

    /// The checkpoint: from here on the key cannot be lost.
    async fn record_issued(
        &mut self,
        call: Call,
        change: Change,
        issued_at: SystemTime,
    ) -> Result<Result<Issued, Failure>, Halt> {
        match self.commit(change).await? {
            Receipt::Issued(certificate) => {
                let (registration, origin) = (Registration::NotSent, Origin::ThisRun);
                Ok(Ok(Issued { certificate, issued_at, registration, origin }))
            }
            Receipt::Conflict(conflict) => Ok(Err(self.anomaly(call, conflict.to_string()).await)),
            Receipt::Done | Receipt::KeyPrepared(_) => {
                unreachable!("the ledger answers a certificate with itself or a conflict")
            }
        }
    }

    pub(super) async fn give_up_creating(
        &mut self,
        device: DeviceId,
        failure: Failure,
    ) -> Result<Step, Halt> {
        let change = match failure.cause {
            Cause::Rejected { .. } if !failure.may_have_acted() && !failure.is_throttle() => {
                Change::Rejected { device, failure: failure.clone() }
            }
            _ => Change::Left { device, registration: Registration::NotSent, failure: Some(failure.clone()) },
        };
        self.commit(change).await?;
        self.charge_budget(failure)
    }
}

/// The CreateCertificateFromCsr request. Takes the proof that the key is durable: asking for a certificate for a key that
/// could be lost does not compile.
fn csr_request(request: &Recorded<SigningRequest>) -> Request<IssuedCertificate<()>> {
    provisioning::csr_request(request)
}
