//! Where the service listens: host, port and path.
//!
//! Owns parsing an endpoint as users write it, and the handshake's `Host` header. Resolves and dials nothing.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::service::MQTT_PATH;

/// The port of HTTPS and WSS, which a `Host` header omits.
const HTTPS_PORT: u16 = 443;

/// An endpoint of the service. Written `HOST`, `HOST:PORT` or `wss://HOST[:PORT][/mqtt]`; IPv6 addresses in brackets.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    host: String,
    port: u16,
    path: String,
}

impl Endpoint {
    /// The name or address, lower case, IPv6 without its brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The TCP port; 443 unless another was written.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The path of the WebSocket; `/mqtt` unless another was written.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// `HOST:PORT`, with the port whichever it is, and IPv6 in brackets.
    pub fn authority(&self) -> String {
        match self.port {
            HTTPS_PORT => format!("{}:{HTTPS_PORT}", self.host_header()),
            _ => self.host_header(),
        }
    }

    /// The `Host` header as the handshake sends and signs it: IPv6 in brackets, port 443 omitted.
    pub fn host_header(&self) -> String {
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        match self.port {
            HTTPS_PORT => format!("{open}{}{close}", self.host),
            port => format!("{open}{}{close}:{port}", self.host),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "wss://{}{}", self.host_header(), self.path)
    }
}

/// Text that is not an endpoint: what was found and what was wanted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Empty, or without a host.
    #[error("the endpoint has no host; wanted HOST, HOST:PORT or wss://HOST[:PORT]/mqtt")]
    NoHost,
    /// A scheme other than `wss`.
    #[error(
        "the endpoint's scheme is {found}://; wanted wss:// (or just the host): the service takes signed WebSockets over TLS only"
    )]
    Scheme {
        /// The scheme.
        found: String,
    },
    /// A user name or password in the URL.
    #[error(
        "the endpoint holds a user name (something before @); wanted HOST, HOST:PORT or wss://HOST[:PORT]/mqtt"
    )]
    UserInfo,
    /// A query or a fragment.
    #[error(
        "the endpoint holds a query or fragment (something from ? or # on); wanted a plain address: each connection gets its own signature"
    )]
    Query,
    /// The port is not a number from 1 to 65535.
    #[error("the endpoint's port is {found:?}; wanted a number from 1 to 65535")]
    Port {
        /// The text after the colon.
        found: String,
    },
    /// The host is neither a name nor an address.
    #[error(
        "the endpoint's host is {found:?}; wanted a name such as PREFIX-ats.iot.REGION.amazonaws.com, or an address (IPv6 in brackets)"
    )]
    Host {
        /// The host.
        found: String,
    },
    /// A path that the signature does not cover.
    #[error("the endpoint's path is {found:?}; wanted /mqtt")]
    Path {
        /// The path.
        found: String,
    },
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let address = without_scheme(text.trim())?;
        if address.contains(['?', '#']) {
            return Err(EndpointError::Query);
        }
        let (authority, path) = address.split_at(address.find('/').unwrap_or(address.len()));
        if authority.contains('@') {
            return Err(EndpointError::UserInfo);
        }
        let (host, port) = split_port(authority)?;
        Ok(Self { host: parse_host(host)?, port: parse_port(port)?, path: parse_path(path)? })
    }
}

fn without_scheme(text: &str) -> Result<&str, EndpointError> {
    match text.split_once("://") {
        None => Ok(text),
        Some((scheme, address)) if scheme.eq_ignore_ascii_case("wss") => Ok(address),
        Some((scheme, _)) => Err(EndpointError::Scheme { found: scheme.chars().take(20).collect() }),
    }
}

/// Splits off the port: the host, still in its brackets, and the text after the port's colon.
fn split_port(authority: &str) -> Result<(&str, Option<&str>), EndpointError> {
    let bracket = authority.find(']').map_or(0, |at| at + 1);
    match authority[bracket..].find(':') {
        None => Ok((authority, None)),
        Some(colon) => {
            let (host, port) = authority.split_at(bracket + colon);
            if port[1..].contains(':') {
                // Several colons outside brackets: most likely a bare IPv6 address.
                Err(EndpointError::Host { found: authority.to_owned() })
            } else {
                Ok((host, Some(&port[1..])))
            }
        }
    }
}

fn parse_host(host: &str) -> Result<String, EndpointError> {
    let wrong = || EndpointError::Host { found: host.to_owned() };
    if host.is_empty() {
        return Err(EndpointError::NoHost);
    }
    if let Some(inner) = host.strip_prefix('[') {
        let address: Ipv6Addr =
            inner.strip_suffix(']').and_then(|inner| inner.parse().ok()).ok_or_else(wrong)?;
        return Ok(address.to_string());
    }
    let looks_numeric = host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let is_right = if looks_numeric {
        host.parse::<Ipv4Addr>().is_ok()
    } else {
        host.len() <= 253 && host.split('.').all(is_label)
    };
    if is_right { Ok(host.to_ascii_lowercase()) } else { Err(wrong()) }
}

fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

fn parse_port(port: Option<&str>) -> Result<u16, EndpointError> {
    let Some(text) = port else { return Ok(HTTPS_PORT) };
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    let wrong = || EndpointError::Port { found: text.to_owned() };
    text.parse().ok().filter(|port| is_number && *port != 0).ok_or_else(wrong)
}

/// Checks that the path has only characters that a signature's canonical path leaves unchanged.
fn parse_path(path: &str) -> Result<String, EndpointError> {
    let is_plain = |segment: &str| {
        !matches!(segment, "" | "." | "..")
            && segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
    };
    match path {
        "" | "/" => Ok(MQTT_PATH.to_owned()),
        path if path[1..].split('/').all(is_plain) => Ok(path.to_owned()),
        path => Err(EndpointError::Path { found: path.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn endpoint(text: &str) -> Endpoint {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn the_forms_that_people_write() {
        for (text, host, port, header) in [
            (
                "a-ats.iot.eu-west-1.amazonaws.com",
                "a-ats.iot.eu-west-1.amazonaws.com",
                443,
                "a-ats.iot.eu-west-1.amazonaws.com",
            ),
            ("localhost:8443", "localhost", 8443, "localhost:8443"),
            ("localhost:443", "localhost", 443, "localhost"),
            ("wss://LocalHost:8443/mqtt", "localhost", 8443, "localhost:8443"),
            ("WSS://localhost/", "localhost", 443, "localhost"),
            (" 127.0.0.1:1/mqtt ", "127.0.0.1", 1, "127.0.0.1:1"),
            ("[::1]", "::1", 443, "[::1]"),
            ("wss://[0:0:0:0:0:0:0:1]:8443", "::1", 8443, "[::1]:8443"),
        ] {
            let endpoint = endpoint(text);
            assert_eq!((endpoint.host(), endpoint.port(), endpoint.path()), (host, port, "/mqtt"), "{text}");
            assert_eq!(endpoint.host_header(), header, "{text}");
        }
        assert_eq!(endpoint("wss://h:1/gateway/mqtt").path(), "/gateway/mqtt");
        assert_eq!(endpoint("h:1").to_string(), "wss://h:1/mqtt");
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, wanted) in [
            ("", "no host"),
            ("wss://", "no host"),
            (":8443", "no host"),
            ("ws://localhost", "scheme is ws://"),
            ("https://localhost", "scheme is https://"),
            ("mqtts://localhost", "scheme is mqtts://"),
            ("wss://me:secret@localhost", "user name"),
            ("localhost?x=1", "query"),
            ("localhost/mqtt#x", "query"),
            ("localhost:", "port is \"\""),
            ("localhost:0", "port is \"0\""),
            ("localhost:65536", "port is \"65536\""),
            ("localhost:+1", "port is \"+1\""),
            ("::1", "host is \"::1\""),
            ("[::1", "host is"),
            ("[::1]x:1", "host is"),
            ("a b", "host is \"a b\""),
            ("a..b", "host is"),
            ("호스트", "host is"),
            ("1.2.3", "host is \"1.2.3\""),
            ("localhost/a%20b", "path is"),
            ("localhost/../mqtt", "path is"),
        ] {
            let error = text.parse::<Endpoint>().expect_err(text).to_string();
            assert!(error.contains(wanted), "{text}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn any_text_is_read_or_refused(text in "(wss://)?[\\PCa-z0-9.:/\\[\\]@?-]{0,30}") {
            if let Ok(endpoint) = text.parse::<Endpoint>() {
                prop_assert_eq!(endpoint.to_string().parse::<Endpoint>(), Ok(endpoint));
            }
        }
    }
}
