//! What becomes of a CONNECT or SUBSCRIBE before the session sees it: faults, latency and the account's quotas.

use std::time::{Duration, Instant};

use tokio::time::{sleep_until, timeout};

use super::super::account::Operation;
use super::super::mqtt::{ConnAck, Packet, Reason};
use super::super::scenario::{ConnectExcess, Fault, FaultTarget};
use super::super::session::Ending;
use super::super::socket::Socket;
use super::Connection;

/// The longest that a CONNECT above its quota waits, if the scenario makes it wait.
const CONNECT_DELAY: Duration = Duration::from_secs(60);

impl<S: Socket> Connection<S> {
    /// Applies the scenario's fault and latency to a CONNECT. Nothing may overtake its CONNACK.
    pub(super) async fn hesitate(&mut self, client_id: &str) -> Result<(), Ending> {
        let fate = self.service.fate(FaultTarget::Connect);
        match fate.fault {
            Some(Fault::HangUp(_)) => return Err(Ending::Lost),
            Some(Fault::Reset) => return Err(Ending::Reset),
            Some(Fault::Silence) => {
                let ended = timeout(CONNECT_DELAY, self.client.hangup.triggered()).await;
                return Err(ended.unwrap_or(Ending::Lost));
            }
            Some(Fault::Connack(code)) => {
                self.outbox.push(Packet::ConnAck(ConnAck { reason: Reason(code), terms: None }));
                return Err(Ending::Lost);
            }
            Some(Fault::Framing(framing)) => self.framing = framing,
            _ => {}
        }
        self.admit_connect(client_id).await?;
        let latency = self.service.draw_latency(Operation::Connect) + fate.delay;
        if latency.is_zero() {
            return Ok(());
        }
        tokio::select! {
            () = self.service.timer.wait_until(Instant::now() + latency) => Ok(()),
            ending = self.client.hangup.triggered() => Err(ending),
        }
    }

    /// Waits for the quotas to admit the CONNECT if the scenario says so, or else refuses it.
    async fn admit_connect(&mut self, client_id: &str) -> Result<(), Ending> {
        let give_up = tokio::time::Instant::now() + CONNECT_DELAY;
        let mut is_counted = false;
        while let Err(retry_at) = self.service.admit_connect(client_id) {
            if !is_counted {
                self.service.counts.connects_throttled.add();
                is_counted = true;
            }
            let excess = self.service.scenario.quotas.connect_excess;
            if excess == ConnectExcess::Refuse {
                let refused = ConnAck { reason: Reason::SERVER_UNAVAILABLE, terms: None };
                self.outbox.push(Packet::ConnAck(refused));
            }
            if excess != ConnectExcess::Delay || retry_at > give_up {
                return Err(Ending::ConnectThrottled);
            }
            tokio::select! {
                () = sleep_until(retry_at) => {}
                ending = self.client.hangup.triggered() => return Err(ending),
            }
        }
        Ok(())
    }

    /// Whether a SUBSCRIBE is lost because of a fault of the scenario.
    pub(super) fn loses_subscribe(&mut self, id: u16, filters: usize) -> Result<bool, Ending> {
        let fate = self.service.fate(FaultTarget::Subscribe);
        match fate.fault {
            Some(Fault::SubackFailure) => {
                let reasons = vec![Reason::UNSPECIFIED; filters];
                self.outbox.push(Packet::SubAck { id, reasons });
                Ok(true)
            }
            Some(Fault::Silence) => Ok(true),
            Some(Fault::HangUp(_)) => Err(Ending::Lost),
            Some(Fault::Reset) => Err(Ending::Reset),
            _ => {
                if !fate.delay.is_zero() {
                    self.held = Some(Instant::now() + fate.delay);
                }
                Ok(false)
            }
        }
    }
}
