//! The same steps, each once: for load tests, where a refusal is a result and nothing is tried again.
//!
//! Owns what the ledger is told of a device that a load test leaves on the way.

use tokio::time::Instant;

use super::Issued;
use super::register::register_payload;
use crate::engine::worker::{Halt, Worker};
use crate::event::{Change, DeviceId, Registration, Timing};
use crate::failure::{Cause, Failure, Stage};
use crate::ledger::{OpenDevice, Work};
use crate::transport::Connector;

impl<C: Connector> Worker<C> {
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
        device: &OpenDevice,
        mut issued: Issued,
    ) -> Result<(Timing, Result<(), Failure>), Halt> {
        let payload = register_payload(&self.shared.plan.parameters, &device.identity, &issued.certificate);
        let due = Instant::now();
        match self.try_registering(device.id, &mut issued, &payload).await {
            Ok(Some((timing, registered))) => {
                if let Err(failure) = &registered {
                    self.give_up_registering(device.id, &issued, failure.clone(), None).await?;
                }
                Ok((timing, registered))
            }
            Ok(None) => {
                let lapsed = Failure::new(Stage::RegisterThing, Cause::TokenExpired);
                self.leave_issued(device.id, Some(lapsed.clone())).await?;
                Ok((Timing { wait: due.elapsed(), ..Timing::default() }, Err(lapsed)))
            }
            Err(halt) => {
                self.leave(device.id, issued.registration, halt).await?;
                unreachable!("who leaves for a halt halts")
            }
        }
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
