//! The first half of a device's way: a certificate whose key cannot be lost.
//!
//! Owns making keys or requesting them, and how often to try.

use super::step::{self, Holder};
use super::{Journey, Step};
use crate::call::Call;
use crate::certificate::SigningRequest;
use crate::csr::RequestFault;
use crate::engine::context::Halt;
use crate::engine::keys::KeySource;
use crate::engine::line::{Line, Next};
use crate::event::{Change, DeviceId};
use crate::failure::{Cause, Failure, Stage};
use crate::keys::KeyType;
use crate::ledger::{Receipt, Recorded};
use crate::transport::Connector;

impl<C: Connector> Journey<C> {
    /// Requests a certificate for a device without a key.
    pub(super) async fn create(
        &self,
        line: &mut Line<C>,
        device: DeviceId,
        own: Option<&Result<Recorded<SigningRequest>, RequestFault>>,
    ) -> Result<Step, Halt> {
        match (own, self.run.device.keys.source) {
            (Some(Ok(request)), _) => Ok(Step::Certify(request.clone(), Holder::Device)),
            (Some(Err(fault)), _) => {
                let detail = format!("the device's row has {fault}, which is not its certification request");
                let stage = Stage::Call(Call::CreateCertificateFromCsr);
                let failure = Failure::new(stage, Cause::Anomaly { detail });
                self.run.commit(line, step::not_issued(device, failure.clone())).await?;
                self.charge_budget(failure)
            }
            (None, KeySource::Local(key_type)) => self.prepare(line, device, key_type).await,
            (None, KeySource::Service | KeySource::Device) => self.obtain(line, device, None).await,
        }
    }

    /// Makes a key pair, which the device keeps from here on.
    async fn prepare(&self, line: &mut Line<C>, device: DeviceId, key_type: KeyType) -> Result<Step, Halt> {
        if self.run.trunk.drain.is_cancelled() {
            return Err(Halt::Drain);
        }
        let key = self.run.compute(line, move |policy| policy.prepare(key_type)).await;
        match self.run.commit(line, Change::KeyPrepared { device, key }).await? {
            Receipt::KeyPrepared(request) => Ok(Step::Certify(request, Holder::Ledger)),
            other => unreachable!("the ledger answers KeyPrepared with the request, not {other:?}"),
        }
    }

    /// Requests a certificate until one is durable or the device has to be left.
    pub(super) async fn obtain(
        &self,
        line: &mut Line<C>,
        device: DeviceId,
        request: Option<(Recorded<SigningRequest>, Holder)>,
    ) -> Result<Step, Halt> {
        let call =
            request.as_ref().map_or(Call::CreateKeysAndCertificate, |_| Call::CreateCertificateFromCsr);
        let mut attempts = 0;
        loop {
            if self.run.trunk.drain.is_cancelled() {
                return Err(Halt::Drain);
            }
            attempts += 1;
            let (timing, issued) = step::obtain(
                &self.run,
                line,
                device,
                request.as_ref().map(|(request, holder)| (request, *holder)),
            )
            .await?;
            let outcome = issued.as_ref().map(|_| ()).map_err(Failure::clone);
            self.conclude(call, timing, outcome).await;
            let failure = match issued {
                Ok(issued) => return Ok(Step::Register(issued)),
                Err(failure) => failure,
            };
            match self.recover(line, &failure, attempts).await? {
                Next::TryAgain => {}
                Next::GiveUp => {
                    self.run.commit(line, step::not_issued(device, failure.clone())).await?;
                    return self.charge_budget(failure);
                }
            }
        }
    }
}
