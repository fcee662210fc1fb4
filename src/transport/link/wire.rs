//! The carrier of MQTT: the binary messages of a WebSocket, or a plain TLS stream, as with mutual TLS. Both have the
//! same interface.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::{Sink, SinkExt, Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::Error;
use tokio_tungstenite::tungstenite::protocol::Message;
use tokio_util::codec::{BytesCodec, Framed};

/// The carrier of MQTT.
pub(in crate::transport) enum Wire<S> {
    WebSocket(WebSocketStream<S>),
    /// A plain stream. Each read is a binary message, wherever it was cut.
    Plain(Framed<S, BytesCodec>),
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// Wraps a stream that carries MQTT directly.
    pub(in crate::transport) fn plain(stream: S) -> Self {
        Self::Plain(Framed::new(stream, BytesCodec::new()))
    }

    /// Signals that nothing more will be sent.
    pub(in crate::transport) async fn close(&mut self) -> Result<(), Error> {
        match self {
            Wire::WebSocket(socket) => socket.close(None).await,
            Wire::Plain(framed) => {
                SinkExt::<Bytes>::flush(framed).await?;
                Ok(framed.get_mut().shutdown().await?)
            }
        }
    }

    /// Shuts down the underlying stream.
    pub(in crate::transport) async fn shutdown(&mut self) -> Result<(), Error> {
        let stream = match self {
            Wire::WebSocket(socket) => socket.get_mut(),
            Wire::Plain(framed) => framed.get_mut(),
        };
        Ok(stream.shutdown().await?)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream for Wire<S> {
    type Item = Result<Message, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.get_mut() {
            Wire::WebSocket(socket) => socket.poll_next_unpin(cx),
            Wire::Plain(framed) => framed.poll_next_unpin(cx).map(|next| {
                next.map(|bytes| bytes.map(|bytes| Message::Binary(bytes.freeze())).map_err(Error::Io))
            }),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Sink<Message> for Wire<S> {
    type Error = Error;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        match self.get_mut() {
            Wire::WebSocket(socket) => socket.poll_ready_unpin(cx),
            Wire::Plain(framed) => SinkExt::<Bytes>::poll_ready_unpin(framed, cx).map_err(Error::Io),
        }
    }

    fn start_send(self: Pin<&mut Self>, message: Message) -> Result<(), Error> {
        match self.get_mut() {
            Wire::WebSocket(socket) => socket.start_send_unpin(message),
            Wire::Plain(framed) => {
                SinkExt::<Bytes>::start_send_unpin(framed, message.into_data()).map_err(Error::Io)
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        match self.get_mut() {
            Wire::WebSocket(socket) => socket.poll_flush_unpin(cx),
            Wire::Plain(framed) => SinkExt::<Bytes>::poll_flush_unpin(framed, cx).map_err(Error::Io),
        }
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        match self.get_mut() {
            Wire::WebSocket(socket) => socket.poll_close_unpin(cx),
            Wire::Plain(framed) => SinkExt::<Bytes>::poll_close_unpin(framed, cx).map_err(Error::Io),
        }
    }
}
