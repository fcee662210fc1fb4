//! The server's side of a TCP connection, and TLS on it.
//!
//! Owns the emulator's special uses of a socket: immediate acknowledgements, and resets.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// A connection that the emulator can serve.
pub(super) trait Socket: AsyncRead + AsyncWrite + Unpin + Send {
    /// Makes the connection be reset rather than closed when it is dropped.
    fn reset_when_dropped(&self);
}

/// A TCP connection that acknowledges what it has read before it waits for more. A client without TCP_NODELAY holds a
/// small packet back until the previous one is acknowledged, and the system would delay that acknowledgement by 40 ms.
#[derive(Debug)]
pub(super) struct Tcp {
    stream: TcpStream,
    /// Whether something was read since the last write, which carries the acknowledgement.
    is_unacknowledged: bool,
}

impl Tcp {
    pub(super) fn new(stream: TcpStream) -> Self {
        // Without it, Nagle's algorithm would delay answers as well.
        let _ = stream.set_nodelay(true);
        Self { stream, is_unacknowledged: false }
    }

    /// Acknowledges at once. The system returns to delayed acknowledgements by itself, so this is called each time.
    fn acknowledge(&mut self) {
        if std::mem::take(&mut self.is_unacknowledged) {
            #[cfg(target_os = "linux")]
            let _ = SockRef::from(&self.stream).set_tcp_quickack(true);
        }
    }

    pub(super) fn reset_when_dropped(&self) {
        let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }
}

impl AsyncRead for Tcp {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.is_unacknowledged = true;
        } else if read.is_pending() {
            self.acknowledge();
        }
        read
    }
}

impl AsyncWrite for Tcp {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.is_unacknowledged &= written.is_pending();
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.is_unacknowledged &= written.is_pending();
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl Socket for TlsStream<Tcp> {
    fn reset_when_dropped(&self) {
        self.get_ref().0.reset_when_dropped();
    }
}
