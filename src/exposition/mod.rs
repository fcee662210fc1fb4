//! Live metrics over HTTP, for Prometheus and everything else that reads OpenMetrics.
//!
//! Serves `/metrics` and nothing else. What a scrape shows is [`Reading`]'s. No client can hold up a run, or another client:
//! connections are few and short, requests are small, and the oldest connection makes room for a new one.

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
/// How many connections are open at a time. A scrape takes milliseconds: a connection older than this many others is idle.
const CONNECTIONS: usize = 16;
/// How long a connection may last. It carries one request.
const CONNECTION_TIME: Duration = Duration::from_secs(3);
/// The largest request, in bytes; hyper accepts no lower limit.
const REQUEST_BYTES: usize = 8192;
/// How long to wait after a connection could not be accepted, for lack of file descriptors, say.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Called at each scrape for what to show.
pub type Source = Arc<dyn Fn() -> Reading + Send + Sync>;

/// A listener that is bound, and not yet served.
#[derive(Debug)]
pub struct Exposition {
    listener: TcpListener,
}

impl Exposition {
    /// Listens. From here on the address is taken, and scrapes wait until they are served.
    ///
    /// # Errors
    ///
    /// Those of the operating system, such as that the address is in use.
    pub async fn listen(address: SocketAddr) -> io::Result<Self> {
        Ok(Self { listener: TcpListener::bind(address).await? })
    }

    /// The address that it listens on, with the port that was chosen if 0 was asked for.
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

/// Serves a connection. How it ends matters only to its client.
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
