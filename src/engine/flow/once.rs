//! The same steps, each once: for load tests, where a refusal is a result and nothing is tried again.
//!
//! Owns what the ledger is told of a device that a load test leaves on the way.

use std::time::SystemTime;

use bytes::Bytes;
use tokio::time::Instant;

use super::register::register_request;
use super::{Issued, Origin};
use crate::call::Call;
use crate::certificate::IssuedCertificate;
use crate::engine::worker::{Attempt, Halt, Worker};
use crate::event::{Change, DeviceId, Registration, Timing};
use crate::failure::{Cause, Failure, Stage};
use crate::identity::Identity;
use crate::ledger::{OpenDevice, Recorded, Work};
use crate::provisioning;
use crate::transport::Connector;

impl<C: Connector> Worker<C> {
    /// One message to the connection's own topic, until it comes back.
    pub(in crate::engine) async fn publish_once(
        &mut self,
        message: Bytes,
    ) -> Result<(Timing, Result<(), Failure>), Halt> {
        // There is no limit but the profile.
        let permitted = self.permit_creation().await?;
        let request = provisioning::publish_request(message);
        let Attempt { timing, answer } = self.attempt(permitted, &request).await;
        let outcome = match answer {
            Ok(came) if came == request.payload => Ok(()),
            Ok(_) => Err(self.anomaly(Call::Publish, String::from("another message came back")).await),
            Err(failure) => Err(failure),
        };
        Ok((timing, outcome))
    }

    /// One request for a certificate. If it is accepted, the certificate is durable when this returns.
    pub(in crate::engine) async fn create_once(
        &mut self,
        device: &OpenDevice,
    ) -> Result<(Timing, Result<Issued, Failure>), Halt> {
        match &device.work {
            Work::Certify { request } => self.try_certifying(device.id, request).await,
            Work::Create | Work::Register { .. } => self.try_creating(device.id).await,
        }
    }

    /// One registration of a certificate that was just issued. If it is accepted, it is durable when this returns; if not,
    /// the ledger has why.
    pub(in crate::engine) async fn register_once(
        &mut self,
        device: DeviceId,
        identity: &Identity,
        mut issued: Issued,
    ) -> Result<(Timing, Result<(), Failure>), Halt> {
        let request = register_request(&self.shared.plan.parameters, identity, &issued.certificate);
        let due = Instant::now();
        match self.try_registering(device, &mut issued, &request).await {
            Ok(Some((timing, registered))) => {
                if let Err(failure) = &registered {
                    self.give_up_registering(device, &issued, failure.clone(), None).await?;
                }
                Ok((timing, registered))
            }
            Ok(None) => {
                let lapsed = Failure::new(Stage::Call(Call::RegisterThing), Cause::TokenExpired);
                self.leave_issued(device, Some(lapsed.clone())).await?;
                Ok((Timing { wait: due.elapsed(), ..Timing::default() }, Err(lapsed)))
            }
            Err(halt) => {
                self.leave(device, issued.registration, halt).await?;
                unreachable!("who leaves for a halt halts")
            }
        }
    }

    /// The same for a certificate that the ledger has from before, and that nothing was sent for. The ledger knows that
    /// something may have been before anything is.
    pub(in crate::engine) async fn register_held(
        &mut self,
        device: DeviceId,
        identity: &Identity,
        certificate: Recorded<IssuedCertificate>,
        issued_at: SystemTime,
    ) -> Result<(Timing, Result<(), Failure>), Halt> {
        let began = Instant::now();
        let registration = Registration::MaySent;
        self.commit(Change::Left { device, registration, failure: None }).await?;
        let waited = began.elapsed();
        let (registration, origin) = (Registration::NotSent, Origin::ThisRun);
        let issued = Issued { certificate, issued_at, registration, origin };
        let (timing, registered) = self.register_once(device, identity, issued).await?;
        Ok((Timing { wait: waited + timing.wait, ..timing }, registered))
    }

    /// Leaves a device without a certificate.
    pub(in crate::engine) async fn leave_pending(
        &mut self,
        device: DeviceId,
        failure: Failure,
    ) -> Result<(), Halt> {
        self.give_up_creating(device, failure).await.map(|_| ())
    }

    /// Leaves a device with a certificate that nothing was sent for.
    pub(in crate::engine) async fn leave_issued(
        &mut self,
        device: DeviceId,
        failure: Option<Failure>,
    ) -> Result<(), Halt> {
        let registration = Registration::NotSent;
        self.commit(Change::Left { device, registration, failure }).await.map(|_| ())
    }
}
