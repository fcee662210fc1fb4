//! A connection on which the caller decides about every packet: for finding out how a service behaves.
//!
//! Owns the packets' way out and in, and the instant at which each came. Decides nothing, and sends nothing again.

use bytes::{Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use rumqttc::mqttbytes::v4::{
    Connect, Disconnect, PubAck, Publish, Subscribe, SubscribeFilter, SubscribeReasonCode,
};
use rumqttc::mqttbytes::{Protocol, QoS};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_tungstenite::tungstenite::protocol::Message;

use super::link::{Wire, closed, cut_off, ended};
use super::packet::{self, Incoming, garbled};
use crate::failure::Cause;
use crate::service::KEEP_ALIVE_S;

/// The time limit of a goodbye.
const GOODBYE: Duration = Duration::from_secs(1);

/// How a connection is signed, apart from the credentials.
#[derive(Debug, Clone, Copy, Default)]
pub struct Signing {
    /// How far the signature's date is from now, in seconds; negative for the past.
    pub offset_s: i64,
    /// `X-Amz-Expires`; `None` leaves it out.
    pub expires: Option<Duration>,
}

/// A packet that came, or the end of the connection. Has no `Debug`: a message may hold a private key.
pub enum RawEvent {
    /// SUBACK: whether each filter was granted.
    Subscribed(Vec<bool>),
    /// PUBACK of the packet with this id.
    Acknowledged(u16),
    /// PUBLISH; it has been acknowledged.
    Message {
        /// Its topic.
        topic: String,
        /// Its payload.
        payload: Bytes,
    },
    /// The connection has ended.
    Ended(Cause),
}

/// An open MQTT connection.
pub struct RawConnection<S> {
    wire: Wire<S>,
    input: BytesMut,
    last_id: u16,
}

impl<S> std::fmt::Debug for RawConnection<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RawConnection").finish_non_exhaustive()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> RawConnection<S> {
    /// Sends CONNECT, and waits for CONNACK.
    pub(super) async fn open(wire: Wire<S>, client_id: String) -> Result<Self, Cause> {
        let mut raw = Self { wire, input: BytesMut::new(), last_id: 0 };
        let connect = Connect {
            protocol: Protocol::V4,
            keep_alive: *KEEP_ALIVE_S.end() as u16,
            client_id,
            clean_session: true,
            last_will: None,
            login: None,
        };
        raw.send(|out| connect.write(out)).await?;
        match raw.packet().await? {
            Incoming::ConnAck(0) => Ok(raw),
            Incoming::ConnAck(code) => Err(Cause::ConnectRefused { code }),
            _ => Err(garbled("a packet before CONNACK")),
        }
    }

    /// Sends a SUBSCRIBE for these filters at QoS 1.
    ///
    /// # Errors
    /// The cause for which the connection has ended.
    pub async fn subscribe(&mut self, filters: &[&str]) -> Result<(), Cause> {
        let filter = |path: &&str| SubscribeFilter { path: (*path).to_owned(), qos: QoS::AtLeastOnce };
        let subscribe = Subscribe { pkid: self.next_id(), filters: filters.iter().map(filter).collect() };
        self.send(|out| subscribe.write(out)).await
    }

    /// Sends a PUBLISH at QoS 1. Returns its packet id.
    ///
    /// # Errors
    /// The cause for which the connection has ended.
    pub async fn publish(&mut self, topic: &str, payload: Bytes) -> Result<u16, Cause> {
        let (topic, pkid) = (topic.to_owned(), self.next_id());
        let publish = Publish { dup: false, qos: QoS::AtLeastOnce, retain: false, topic, pkid, payload };
        self.send(|out| publish.write(out)).await?;
        Ok(pkid)
    }

    /// The next event, and when it came; `None` if there is none by `until`.
    pub async fn next(&mut self, until: Instant) -> Option<(Instant, RawEvent)> {
        loop {
            let packet = timeout_at(until, self.packet()).await.ok()?;
            let came = Instant::now();
            let event = match packet {
                Err(cause) => RawEvent::Ended(cause),
                Ok(Incoming::SubAck { codes, .. }) => {
                    let granted = |code: &SubscribeReasonCode| *code != SubscribeReasonCode::Failure;
                    RawEvent::Subscribed(codes.iter().map(granted).collect())
                }
                Ok(Incoming::PubAck(id)) => RawEvent::Acknowledged(id),
                Ok(Incoming::Publish(publish)) => {
                    if publish.qos == QoS::AtLeastOnce {
                        // If it cannot be sent, the next packet says why.
                        let _ = self.send(|out| PubAck { pkid: publish.pkid }.write(out)).await;
                    }
                    RawEvent::Message { topic: publish.topic, payload: publish.payload }
                }
                Ok(Incoming::PingResp) => continue,
                Ok(Incoming::ConnAck(_)) => RawEvent::Ended(garbled("a second CONNACK")),
            };
            return Some((came, event));
        }
    }

    /// Closes the connection politely. Errors do not matter.
    pub async fn close(mut self) {
        let _ = timeout(GOODBYE, async {
            self.send(|out| Disconnect.write(out)).await?;
            self.wire.close().await.map_err(|error| ended(&error))?;
            self.wire.shutdown().await.map_err(|error| ended(&error))
        })
        .await;
    }

    /// The next packet id, never zero (MQTT 3.1.1 section 2.3.1).
    fn next_id(&mut self) -> u16 {
        self.last_id = self.last_id.checked_add(1).unwrap_or(1);
        self.last_id
    }

    async fn send<E>(&mut self, write: impl FnOnce(&mut BytesMut) -> Result<usize, E>) -> Result<(), Cause> {
        let mut out = BytesMut::new();
        write(&mut out).map_err(|_| garbled("a packet that cannot be written"))?;
        self.wire.send(Message::Binary(out.freeze())).await.map_err(|error| ended(&error))
    }

    /// The next packet. Cancel safe: what was read stays in the input.
    async fn packet(&mut self) -> Result<Incoming, Cause> {
        loop {
            if let Some(header) = packet::frame(&self.input)? {
                return packet::read(header, self.input.split_to(header.frame_length()).freeze());
            }
            match self.wire.next().await {
                None => return Err(cut_off()),
                Some(Err(error)) => return Err(ended(&error)),
                Some(Ok(Message::Binary(bytes))) => self.input.extend_from_slice(&bytes),
                Some(Ok(Message::Close(frame))) => return Err(closed(frame.as_ref())),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Text(_) | Message::Frame(_))) => {
                    return Err(garbled("a text frame, where MQTT uses binary ones"));
                }
            }
        }
    }
}
