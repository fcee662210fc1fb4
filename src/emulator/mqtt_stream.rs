//! How MQTT packets are transported: in WebSocket messages, or directly on a TLS stream.
//!
//! Owns the difference between the two. Handles bytes, whatever their content.

use std::io;

use bytes::{Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as Frame;

use super::scenario::Framing;
use super::socket::Socket;

/// How many bytes are read at once from a plain stream, and how many of its buffer are kept while it is idle.
const READ_BUFFER: usize = 4096;

/// The transport of MQTT packets.
#[expect(clippy::large_enum_variant, reason = "there is one for each connection, and most are WebSockets")]
pub(super) enum MqttStream<S> {
    /// In binary WebSocket messages; a packet may span several, and one may hold several packets (MQTT 3.1.1 section
    /// 6).
    WebSocket(WebSocketStream<S>),
    /// Directly on the stream, as with mutual TLS.
    Plain(S),
}

/// The result of receiving.
#[derive(Debug)]
pub(super) enum Received {
    Bytes(Bytes),
    /// Something other than MQTT: a WebSocket ping or pong, which does not keep a session alive.
    Nothing,
    /// A WebSocket text message, which MQTT does not use.
    NotBinary,
    /// The other side has gone.
    Gone,
}

impl<S: Socket> MqttStream<S> {
    /// Receives the next bytes. Dropping the future loses none.
    pub(super) async fn receive(&mut self) -> Received {
        match self {
            MqttStream::WebSocket(socket) => match socket.next().await {
                Some(Ok(Frame::Binary(bytes))) => Received::Bytes(bytes),
                // The WebSocket library answers pings by itself.
                Some(Ok(Frame::Ping(_) | Frame::Pong(_))) => Received::Nothing,
                Some(Ok(Frame::Text(_))) => Received::NotBinary,
                Some(Ok(Frame::Close(_) | Frame::Frame(_)) | Err(_)) | None => Received::Gone,
            },
            MqttStream::Plain(stream) => {
                let mut buffer = BytesMut::with_capacity(READ_BUFFER);
                match stream.read_buf(&mut buffer).await {
                    Ok(0) | Err(_) => Received::Gone,
                    Ok(_) => Received::Bytes(buffer.freeze()),
                }
            }
        }
    }

    /// Sends packets and flushes once: each in its own WebSocket message, unless `framing` says otherwise.
    pub(super) async fn send(&mut self, packets: &[Bytes], framing: Framing) -> io::Result<()> {
        match self {
            MqttStream::WebSocket(socket) => {
                for message in framing.messages(packets) {
                    socket.feed(Frame::Binary(message)).await.map_err(io::Error::other)?;
                }
                socket.flush().await.map_err(io::Error::other)
            }
            MqttStream::Plain(stream) => {
                stream.write_all(&packets.concat()).await?;
                stream.flush().await
            }
        }
    }

    /// Makes the connection be reset when it is dropped.
    pub(super) fn reset(&self) {
        match self {
            MqttStream::WebSocket(socket) => socket.get_ref().reset_when_dropped(),
            MqttStream::Plain(stream) => stream.reset_when_dropped(),
        }
    }

    /// Closes the connection, and waits for the other side to do the same.
    pub(super) async fn close(&mut self) {
        match self {
            MqttStream::WebSocket(socket) => {
                let _ = socket.close(None).await;
                while let Some(Ok(_)) = socket.next().await {}
                let _ = socket.get_mut().shutdown().await;
            }
            MqttStream::Plain(stream) => {
                let _ = stream.shutdown().await;
            }
        }
    }
}

impl Framing {
    /// Packs the packets into WebSocket messages.
    fn messages(self, packets: &[Bytes]) -> Vec<Bytes> {
        match self {
            Framing::Whole => packets.to_vec(),
            Framing::Split => packets
                .iter()
                .flat_map(|packet| {
                    let middle = packet.len() / 2;
                    [packet.slice(..middle), packet.slice(middle..)]
                })
                .filter(|half| !half.is_empty())
                .collect(),
            Framing::Joined => vec![packets.concat().into()],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_split_and_joined_without_a_byte_lost() {
        let packets = [Bytes::from_static(b"abcd"), Bytes::from_static(b"e")];
        assert_eq!(Framing::Whole.messages(&packets), packets);
        assert_eq!(Framing::Split.messages(&packets), [&b"ab"[..], b"cd", b"e"]);
        assert_eq!(Framing::Joined.messages(&packets), [&b"abcde"[..]]);
    }
}
