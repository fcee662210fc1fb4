//! Live metrics over HTTP, for Prometheus and whatever else reads OpenMetrics.
//!
//! Owns a listener, and what is served on it: `/metrics` and nothing else. What a scrape shows is [`Reading`]'s. No
//! client can hold up a run, or another client: there are few connections at a time, each is short, none sends much, and the
//! oldest makes room for a new one.

mod reading;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

pub use reading::{Reading, encode};

/// Source: the OpenMetrics specification, 1.0, "Overall Structure".
const OPENMETRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
const PLAIN: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
/// Connections at a time. A scrape takes milliseconds: what is older than this many others only keeps a place.
const CONNECTIONS: usize = 16;
/// How long a connection may last. It carries one request.
const CONNECTION_TIME: Duration = Duration::from_secs(3);
/// Bytes of a request at most; hyper takes no less.
const REQUEST_BYTES: usize = 8192;
/// How long to wait where a connection could not be accepted, for want of file descriptors, say.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Says what there is to be read, at each scrape.
pub type Source = Arc<dyn Fn() -> Reading + Send + Sync>;

/// An address that is listened on, and not yet served.
#[derive(Debug)]
pub struct Exposition {
    listener: TcpListener,
}

impl Exposition {
    /// Listens. From here on the address is ours, and scrapes wait until they are served.
    ///
    /// # Errors
    ///
    /// Those of the operating system: that the address is in use, say.
    pub async fn listen(address: SocketAddr) -> io::Result<Self> {
        Ok(Self { listener: TcpListener::bind(address).await? })
    }

    /// Where it listens: the port that was chosen, if 0 was asked for.
    ///
    /// # Errors
    ///
    /// Those of the operating system.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves scrapes until it is dropped.
    pub async fn serve(self, source: Source) -> Infallible {
        let mut connections = JoinSet::new();
        let mut oldest_first: VecDeque<AbortHandle> = VecDeque::with_capacity(CONNECTIONS);
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    while connections.try_join_next().is_some() {}
                    oldest_first.retain(|connection| !connection.is_finished());
                    if oldest_first.len() == CONNECTIONS
                        && let Some(oldest) = oldest_first.pop_front()
                    {
                        oldest.abort();
                    }
                    oldest_first.push_back(connections.spawn(serve_one(stream, source.clone())));
                }
                Err(_) => tokio::time::sleep(ACCEPT_AGAIN).await,
            }
        }
    }
}

/// Serves a connection. How it ends matters to its client alone.
async fn serve_one(stream: TcpStream, source: Source) {
    let service = service_fn(move |request| {
        let response = respond(&request, &source);
        async { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .max_buf_size(REQUEST_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let _ = tokio::time::timeout(CONNECTION_TIME, connection).await;
}

fn respond(request: &Request<Incoming>, source: &Source) -> Response<Full<Bytes>> {
    if request.uri().path() != "/metrics" {
        return response(StatusCode::NOT_FOUND, PLAIN, String::from("the metrics are at /metrics\n"));
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refusal = response(StatusCode::METHOD_NOT_ALLOWED, PLAIN, String::from("GET it\n"));
        refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refusal;
    }
    response(StatusCode::OK, OPENMETRICS, encode(&source()))
}

fn response(status: StatusCode, kind: HeaderValue, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests;
