//! Parsers for option values; their errors include a valid example.

use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use crate::engine::CONNECTION_LIFETIME;
use crate::schedule::MAX_TIME;

/// Less would be little else than dialling.
const MIN_LIFETIME: Duration = Duration::from_secs(1);
const MIN_TIMEOUT: Duration = Duration::from_millis(10);
const MAX_TIMEOUT: Duration = Duration::from_secs(3600);

/// An address to serve on: `ADDRESS:PORT`, or a port, which is one of this machine alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) struct ScrapeAddress(pub(in crate::cli) SocketAddr);

impl FromStr for ScrapeAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let port = text.strip_prefix(':').unwrap_or(text).parse::<u16>();
        match port {
            Ok(port) => Ok(Self((Ipv4Addr::LOCALHOST, port).into())),
            Err(_) => text.parse().map(Self).map_err(|_| {
                String::from("wanted a port of this machine, such as 9464, or an address and port, such as 0.0.0.0:9464")
            }),
        }
    }
}

/// A number of connections.
pub(in crate::cli) fn connections(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n @ 1..=100_000) => Ok(n),
        _ => Err(String::from("wanted a whole number from 1 to 100000")),
    }
}

/// How long something may take.
pub(in crate::cli) fn timeout(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(time) if (MIN_TIMEOUT..=MAX_TIMEOUT).contains(&time) => Ok(time),
        _ => Err(String::from("wanted a time from 10ms to 1h, such as 20s")),
    }
}

/// How old a connection may get.
pub(in crate::cli) fn lifetime(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(time) if (MIN_LIFETIME..=CONNECTION_LIFETIME).contains(&time) => Ok(time),
        _ => Err(String::from("wanted a time from 1s to 23h, such as 12h")),
    }
}

/// A time in a load test.
pub(in crate::cli) fn time(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(time) if time <= MAX_TIME => Ok(time),
        _ => Err(String::from("wanted a time of at most 366 days, such as 90s, 5m or 1h30m")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_alone_is_this_machines() {
        for (text, address) in [
            ("9464", "127.0.0.1:9464"),
            (":9464", "127.0.0.1:9464"),
            ("0.0.0.0:9464", "0.0.0.0:9464"),
            ("[::1]:0", "[::1]:0"),
        ] {
            assert_eq!(text.parse(), Ok(ScrapeAddress(address.parse().unwrap())), "{text}");
        }
        for text in ["", "localhost", "70000", "1.2.3.4"] {
            assert!(text.parse::<ScrapeAddress>().unwrap_err().contains("9464"), "{text}");
        }
    }
}
