//! How MQTT packets travel: in WebSocket messages, or on a TLS stream by themselves.
//!
//! Owns the difference between the two. Knows bytes, and nothing of what they say.

use std::io;

use bytes::{Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as Frame;

use super::scenario::Framing;
use super::socket::Socket;

/// How much is read at once from a plain stream, and how much of its buffer is kept while it idles.
const READ_BUFFER: usize = 4096;

/// What MQTT travels on.
#[expect(clippy::large_enum_variant, reason = "there is one for each connection, and most are WebSockets")]
pub(super) enum MqttStream<S> {
    /// In binary messages; a packet may span some, and one may hold many (MQTT 3.1.1 section 6).
    WebSocket(WebSocketStream<S>),
    /// By themselves, as on mutual TLS.
    Plain(S),
}

/// What has come.
#[derive(Debug)]
pub(super) enum Received {
    Bytes(Bytes),
    /// Something that is not MQTT: a ping or pong of the WebSocket, which keeps no session alive.
    Nothing,
    /// A WebSocket message of text, which MQTT does not use.
    NotBinary,
    /// The other side is gone.
    Gone,
}

impl<S: Socket> MqttStream<S> {
    /// The next bytes. Dropping the future loses none.
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

    /// Sends packets, flushed once: each in a WebSocket message of its own, unless `framing` says otherwise.
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

    /// Has the connection reset when it is dropped.
    pub(super) fn reset(&self) {
        match self {
            MqttStream::WebSocket(socket) => socket.get_ref().reset_when_dropped(),
            MqttStream::Plain(stream) => stream.reset_when_dropped(),
        }
    }

    /// Says goodbye, and waits for the other side to do the same.
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
    /// The packets as WebSocket messages.
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
