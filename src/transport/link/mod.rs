//! A WebSocket with an MQTT session on it.
//!
//! Joins the pure [`Session`] and a byte stream: binary frames, one write for all pending output, time limits, and a
//! cause for every way in which a connection ends. Works over any stream; [`super::wss`] adds TLS.

mod wire;

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::{FutureExt, SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tokio_rustls::rustls;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{CapacityError, Error, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role, WebSocketConfig};

pub(super) use self::wire::Wire;
use super::packet::{MAX_REMAINING, garbled};
use super::session::{Event, Session};
use super::{Connection, Lost, Patience, Reply, Wait};
use crate::call::Call;
use crate::failure::{Cause, Failure, Stage};
use crate::wording::clean;

/// The read buffer in bytes, which every connection holds for its whole life; a reply of the service has about 3.6
/// KB.
const READ_BUFFER: usize = 4 * 1024;

/// The write buffer in bytes: larger than any packet, so that the WebSocket writes only when told to, as one TLS
/// record.
const WRITE_BUFFER: usize = 256 * 1024;

/// The largest frame or message accepted, in bytes: several packets may share one.
const MAX_MESSAGE: usize = 3 * MAX_REMAINING;

/// If pending acknowledgements exceed this many bytes, they are sent before more is read.
const OUTPUT_HIGH: usize = 4 * 1024;

/// How many messages are read before other tasks get their turn.
const BATCH: usize = 64;

/// The time limit of a goodbye: the server need not answer it.
const GOODBYE: Duration = Duration::from_secs(1);

/// An open MQTT connection over a WebSocket. Boxed, because the engine moves it around by value.
pub struct WsConnection<S>(Box<Link<S>>);

impl<S> std::fmt::Debug for WsConnection<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WsConnection").finish_non_exhaustive()
    }
}

struct Link<S> {
    ws: Wire<S>,
    session: Session,
    /// Whether the WebSocket has bytes that it has not written yet.
    is_unflushed: bool,
    /// One timer for the connection's life, reset only when something is due before it fires: most exchanges touch no
    /// timer wheel at all.
    alarm: Pin<Box<Sleep>>,
}

/// Why waiting for an event ended without one.
enum Ended {
    /// The caller's time limit is reached.
    TimeUp,
    /// The connection can no longer be used.
    Because(Cause),
}

impl From<Cause> for Ended {
    fn from(cause: Cause) -> Self {
        Ended::Because(cause)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> WsConnection<S> {
    /// Runs `session` on an upgraded stream whose first bytes, `early`, were read already.
    pub(super) async fn open(stream: S, early: Vec<u8>, session: Session) -> Self {
        Self::on(web_socket(stream, early).await, session)
    }

    /// Runs `session` on a stream that carries MQTT without a WebSocket.
    pub(super) fn open_plain(stream: S, session: Session) -> Self {
        Self::on(Wire::plain(stream), session)
    }

    fn on(ws: Wire<S>, session: Session) -> Self {
        let alarm = Box::pin(sleep_until(session.deadline()));
        Self(Box::new(Link { ws, session, is_unflushed: false, alarm }))
    }

    /// Waits for CONNACK.
    pub(super) async fn connect(&mut self) -> Result<(), Cause> {
        self.0.expect(Event::Connected).await
    }

    /// Subscribes, and waits for SUBACK; `false` if there is nothing to subscribe to.
    pub(super) async fn subscribe(&mut self) -> Result<bool, Cause> {
        if self.0.session.subscribe() {
            self.0.expect(Event::Subscribed).await.map(|()| true)
        } else {
            Ok(false)
        }
    }
}

/// A WebSocket on an upgraded stream whose first bytes, `early`, were read already.
pub(super) async fn web_socket<S: AsyncRead + AsyncWrite + Unpin>(stream: S, early: Vec<u8>) -> Wire<S> {
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER)
        .max_write_buffer_size(4 * WRITE_BUFFER)
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE));
    Wire::WebSocket(WebSocketStream::from_partially_read(stream, early, Role::Client, Some(config)).await)
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Connection for WsConnection<S> {
    async fn exchange(
        mut self,
        call: Call,
        payload: Bytes,
        patience: impl Patience,
    ) -> Result<(Reply, Self), Lost> {
        let link = &mut *self.0;
        // Input from before the publish cannot answer the request, and the request did not cause an end before it.
        if let Err(cause) = link.settle().await {
            return Err(link.lost(Stage::Idle, cause, Duration::ZERO));
        }
        let stage = Stage::Call(call);
        let sent = Instant::now();
        link.session.publish(call, payload);
        let outcome = link.answer(sent, &patience).await;
        let service = sent.elapsed();
        match outcome {
            Ok(Event::Replied { verdict, payload }) => {
                let redelivered = link.session.take_redelivered();
                Ok((Reply { verdict, payload, service, redelivered }, self))
            }
            Ok(Event::Connected | Event::Subscribed) => Err(link.lost(stage, out_of_turn(), service)),
            Err(Ended::TimeUp) => Err(link.lost(stage, link.session.silence(service), service)),
            Err(Ended::Because(cause)) => Err(link.lost(stage, cause, service)),
        }
    }

    fn client_id(&self) -> &str {
        self.0.session.client_id()
    }

    /// Cancel safe: everything that has been read or will be written lives in the connection, never in this future.
    /// Bytes leave the session only in the poll that hands them to the WebSocket's buffer, and the next call of any
    /// method resumes an interrupted flush.
    async fn idle(&mut self) -> Failure {
        let link = &mut *self.0;
        match poll_fn(|cx| link.poll_event(cx, None)).await {
            Err(Ended::Because(cause)) => Failure::new(Stage::Idle, cause),
            Err(Ended::TimeUp) | Ok(_) => Failure::new(Stage::Idle, out_of_turn()),
        }
    }

    async fn close(mut self) {
        // The connection ends here in any case, so an error does not matter.
        let _ = timeout(GOODBYE, self.0.say_goodbye()).await;
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Link<S> {
    async fn expect(&mut self, wanted: Event) -> Result<(), Cause> {
        match poll_fn(|cx| self.poll_event(cx, None)).await {
            Ok(event) if event == wanted => Ok(()),
            Ok(_) | Err(Ended::TimeUp) => Err(out_of_turn()),
            Err(Ended::Because(cause)) => Err(cause),
        }
    }

    /// Reads pending input, without waiting and without writing: a pending PUBACK should go with the next publish.
    async fn settle(&mut self) -> Result<(), Cause> {
        poll_fn(|cx| match self.poll_input(cx) {
            Poll::Ready(Ok(_)) => Poll::Ready(Err(out_of_turn())),
            Poll::Ready(Err(cause)) => Poll::Ready(Err(cause)),
            Poll::Pending => Poll::Ready(Ok(())),
        })
        .await
    }

    /// Waits for the answer to the request that was published at `sent`, for as long as `patience` allows.
    async fn answer(&mut self, sent: Instant, patience: &impl Patience) -> Result<Event, Ended> {
        loop {
            let until = match patience.next(self.session.heard(sent.elapsed())) {
                Wait::Until(age) => age,
                Wait::PingUntil(age) => {
                    self.session.ping(Instant::now());
                    age
                }
                Wait::GiveUp => return Err(Ended::TimeUp),
            };
            match poll_fn(|cx| self.poll_event(cx, Some(sent + until))).await {
                Err(Ended::TimeUp) => {}
                ended => return ended,
            }
        }
    }

    fn lost(&mut self, stage: Stage, cause: Cause, service: Duration) -> Lost {
        Lost { failure: Failure::new(stage, cause), service, redelivered: self.session.take_redelivered() }
    }

    /// Drives output, input and keep-alive. Ready with the next event, or the reason why there is none.
    fn poll_event(&mut self, cx: &mut Context<'_>, limit: Option<Instant>) -> Poll<Result<Event, Ended>> {
        loop {
            let is_blocked = self.poll_output(cx)?.is_pending();
            // While writing is blocked, little is read: a server that does not take our acknowledgements gets no
            // more.
            if !(is_blocked && self.session.pending_output() > OUTPUT_HIGH)
                && let Poll::Ready(event) = self.poll_input(cx)
            {
                return Poll::Ready(event.map_err(Ended::Because));
            }
            if !is_blocked && self.session.wants_output() {
                continue;
            }
            let due = self.session.deadline();
            ready!(self.poll_alarm(cx, limit.map_or(due, |limit| limit.min(due))));
            let now = Instant::now();
            if limit.is_some_and(|limit| now >= limit) {
                return Poll::Ready(Err(Ended::TimeUp));
            }
            self.session.tick(now)?;
        }
    }

    /// Writes all pending output as one frame, once any of it should be sent now.
    fn poll_output(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Cause>> {
        loop {
            if self.is_unflushed {
                ready!(self.ws.poll_flush_unpin(cx)).map_err(|error| ended(&error))?;
                self.is_unflushed = false;
            }
            if !self.session.wants_output() {
                return Poll::Ready(Ok(()));
            }
            ready!(self.ws.poll_ready_unpin(cx)).map_err(|error| ended(&error))?;
            let bytes = self.session.take_output(Instant::now());
            self.is_unflushed = true;
            self.ws.start_send_unpin(Message::Binary(bytes)).map_err(|error| ended(&error))?;
        }
    }

    /// Reads until there is an event, or nothing more to read.
    fn poll_input(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event, Cause>> {
        for _ in 0..BATCH {
            if let Some(event) = self.session.next_event(Instant::now())? {
                return Poll::Ready(Ok(event));
            }
            if self.session.pending_output() > OUTPUT_HIGH {
                return Poll::Pending;
            }
            let message = match ready!(self.ws.poll_next_unpin(cx)) {
                None => return Poll::Ready(Err(cut_off())),
                Some(message) => message.map_err(|error| ended(&error))?,
            };
            match message {
                Message::Binary(bytes) if !bytes.is_empty() => self.session.feed(bytes),
                // The WebSocket sends the pong itself, with its next read or write.
                Message::Binary(_) | Message::Ping(_) | Message::Pong(_) => self.session.came_unasked()?,
                Message::Close(frame) => {
                    // Answers the close if that needs no waiting.
                    let _ = self.ws.poll_flush_unpin(cx);
                    return Poll::Ready(Err(closed(frame.as_ref())));
                }
                Message::Text(_) | Message::Frame(_) => {
                    return Poll::Ready(Err(garbled("a text frame, where MQTT uses binary ones")));
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_alarm(&mut self, cx: &mut Context<'_>, due: Instant) -> Poll<()> {
        loop {
            if Instant::now() >= due {
                return Poll::Ready(());
            }
            if self.alarm.is_elapsed() || self.alarm.deadline() > due {
                self.alarm.as_mut().reset(due);
            }
            // If the alarm fires early, what it was set for has been done since.
            ready!(self.alarm.poll_unpin(cx));
        }
    }

    async fn say_goodbye(&mut self) -> Result<(), Error> {
        self.session.disconnect();
        let bytes = self.session.take_output(Instant::now());
        self.ws.feed(Message::Binary(bytes)).await?;
        self.ws.close().await?;
        // Dropping a socket with unread bytes resets it, and a reset may overtake the goodbye.
        while let Some(message) = self.ws.next().await {
            message?;
        }
        self.ws.shutdown().await
    }
}

fn out_of_turn() -> Cause {
    garbled("a packet out of turn")
}

/// The cause for an end without a close frame.
pub(super) fn cut_off() -> Cause {
    Cause::Closed { detail: String::from("the server hung up without a word") }
}

/// The cause for an error of the operating system or of TLS on an open connection.
pub(super) fn broken(error: &io::Error) -> Cause {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, InvalidData, UnexpectedEof};
    match error.kind() {
        UnexpectedEof => cut_off(),
        ConnectionReset | ConnectionAborted | BrokenPipe => {
            Cause::Closed { detail: String::from("reset by the server") }
        }
        InvalidData if alert(error).is_some() => Cause::Closed { detail: alert(error).unwrap_or_default() },
        // TLS reports input that is not TLS like this.
        InvalidData => garbled(format!("not TLS: {}", clean(&error.to_string()))),
        _ => Cause::Closed { detail: clean(&error.to_string()) },
    }
}

/// The TLS alert by which the server ended the connection, such as for a client certificate that it refuses; `None`
/// if `error` is something else.
fn alert(error: &io::Error) -> Option<String> {
    match error.get_ref()?.downcast_ref::<rustls::Error>()? {
        rustls::Error::AlertReceived(alert) => {
            Some(format!("ended by the server with the TLS alert {alert:?}"))
        }
        _ => None,
    }
}

/// The cause for an error of the WebSocket.
pub(super) fn ended(error: &Error) -> Cause {
    match error {
        Error::Io(error) => broken(error),
        Error::ConnectionClosed
        | Error::AlreadyClosed
        | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => cut_off(),
        Error::Capacity(CapacityError::MessageTooLong { size, max_size }) => garbled(format!(
            "a WebSocket message of {size} bytes, more than the {max_size} that can be right"
        )),
        error => garbled(format!("not WebSocket: {}", clean(&error.to_string()))),
    }
}

/// The cause for a close frame.
pub(super) fn closed(frame: Option<&CloseFrame>) -> Cause {
    let detail = match frame {
        None => String::from("the server closed the WebSocket without a code"),
        Some(CloseFrame { code, reason }) => {
            let code = u16::from(*code);
            let said = format!("the server closed the WebSocket with code {code} ({})", meaning(code));
            match clean(reason) {
                reason if reason.is_empty() => said,
                reason => format!("{said}: {reason}"),
            }
        }
    };
    Cause::Closed { detail }
}

/// The meaning of a close code, from RFC 6455 section 7.4.1 and the IANA registry.
fn meaning(code: u16) -> &'static str {
    match code {
        1000 => "normal",
        1001 => "going away",
        1002 => "protocol error",
        1003 => "unsupported data",
        1007 => "invalid data",
        1008 => "policy violation",
        1009 => "message too big",
        1011 => "internal error",
        1012 => "service restart",
        1013 => "try again later",
        _ => "no registered meaning",
    }
}

#[cfg(test)]
mod tests;
