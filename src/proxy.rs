//! Which hosts are reached through an HTTP proxy, and how to address it.
//!
//! The rules are those of curl and of AWS's own clients. One matcher decides for both the WebSocket to the endpoint
//! and HTTPS to the control plane. Connects to nothing.

use std::fmt;
use std::sync::Arc;

use http::Uri;
use hyper_util::client::proxy::matcher::Matcher;

use crate::certificate::Secret;

/// Hosts that are never reached through a proxy: this machine, and the link-local addresses of instance and container
/// metadata.
const NEVER: &str = "localhost,127.0.0.0/8,::1,169.254.0.0/16,fd00:ec2::/32";

/// The port of a proxy whose URL has none.
const DEFAULT_PORT: u16 = 80;

/// The network's proxy, and the hosts that are reached without it.
#[derive(Clone, Default)]
pub struct Proxies(Option<Arc<Inner>>);

struct Inner {
    /// Includes user and password.
    url: Secret<String>,
    exceptions: String,
    matcher: Matcher,
}

/// A proxy on the way to a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    /// Its name or address, IPv6 without brackets.
    pub host: String,
    /// Its TCP port.
    pub port: u16,
    /// The value of `Proxy-Authorization`, if that header is needed.
    pub authorization: Option<Secret<String>>,
}

/// Why a proxy cannot be used. Never shows user or password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAProxy {
    /// A SOCKS proxy.
    #[error("found a {scheme} proxy; wanted an HTTP proxy: http://[USER:PASSWORD@]HOST:PORT")]
    Socks {
        /// Its scheme.
        scheme: String,
    },
    /// Another unsupported scheme, such as TLS to the proxy itself.
    #[error("found a proxy with the scheme {scheme}; wanted http://[USER:PASSWORD@]HOST:PORT")]
    Scheme {
        /// The scheme.
        scheme: String,
    },
    /// Not a URL with only a host, or one without a host.
    #[error(
        "found no proxy's URL; wanted http://[USER:PASSWORD@]HOST:PORT, with %40 for an @ in user or password"
    )]
    Url,
}

impl Proxies {
    /// The proxy at `url` for all hosts except `exceptions`, a list in the form of `NO_PROXY`: names, which include
    /// their subdomains, addresses, networks such as `10.0.0.0/8`, or `*`. A URL without a scheme is taken as
    /// `http://`.
    ///
    /// # Errors
    /// [`NotAProxy`] if it is not an HTTP proxy.
    pub fn new(url: &str, exceptions: &str) -> Result<Self, NotAProxy> {
        let url = Secret::new(match url.trim().split_once("://") {
            None => format!("http://{}", url.trim()),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => format!("http://{rest}"),
            Some((scheme, _)) if scheme.to_ascii_lowercase().starts_with("socks") => {
                return Err(NotAProxy::Socks { scheme: scheme.to_ascii_lowercase() });
            }
            Some((scheme, _)) => return Err(NotAProxy::Scheme { scheme: crate::wording::clean(scheme) }),
        });
        let parsed: Uri = url.expose().parse().map_err(|_| NotAProxy::Url)?;
        if parsed.host().is_none_or(str::is_empty)
            || !matches!(parsed.path(), "" | "/")
            || parsed.query().is_some()
        {
            return Err(NotAProxy::Url);
        }
        // Entries may be separated by commas or blanks, and names may begin with a star.
        let exceptions: Vec<&str> = exceptions
            .split([',', ' ', '\t'])
            .map(|entry| entry.strip_prefix("*.").unwrap_or(entry))
            .filter(|entry| !entry.is_empty())
            .chain(NEVER.split(','))
            .collect();
        if exceptions.contains(&"*") {
            // The matcher would take the star for names only.
            return Ok(Self(None));
        }
        let exceptions = exceptions.join(",");
        let matcher = Matcher::builder().https(url.expose().clone()).no(exceptions.clone()).build();
        Ok(Self(Some(Arc::new(Inner { url, exceptions, matcher }))))
    }

    /// The proxy for a host and port, if there is one.
    pub fn on_the_way_to(&self, host: &str, port: u16) -> Option<Proxy> {
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let target: Uri = format!("https://{host}:{port}/").parse().ok()?;
        let found = self.0.as_ref()?.matcher.intercept(&target)?;
        let host = found.uri().host()?.trim_matches(['[', ']']).to_owned();
        let authorization = found.basic_auth().and_then(|value| value.to_str().ok());
        Some(Proxy {
            host,
            port: found.uri().port_u16().unwrap_or(DEFAULT_PORT),
            authorization: authorization.map(|value| Secret::new(value.to_owned())),
        })
    }

    /// The proxy's URL, which may hold a password, and the hosts that are reached without it, for clients with their
    /// own proxy support.
    pub fn settings(&self) -> Option<(&Secret<String>, &str)> {
        self.0.as_ref().map(|inner| (&inner.url, inner.exceptions.as_str()))
    }
}

impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exceptions = self.0.as_ref().map(|inner| inner.exceptions.as_str());
        f.debug_struct("Proxies").field("exceptions", &exceptions).finish_non_exhaustive()
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "http://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "http://{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(proxies: &Proxies, host: &str) -> Option<String> {
        proxies.on_the_way_to(host, 8443).map(|proxy| proxy.to_string())
    }

    #[test]
    fn a_proxy_is_read_as_people_write_it() {
        for (url, shown, authorization) in [
            ("http://proxy:3128", "http://proxy:3128", None),
            ("proxy.corp:8080/", "http://proxy.corp:8080", None),
            ("HTTP://proxy", "http://proxy:80", None),
            ("http://[fd00::1]:3128", "http://[fd00::1]:3128", None),
            // RFC 7617 section 2; the password is written p%40ss in a URL.
            (
                "http://Aladdin:open%20sesame@proxy:1",
                "http://proxy:1",
                Some("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
            ),
        ] {
            let proxy = Proxies::new(url, "").unwrap().on_the_way_to("iot.example", 443).unwrap();
            assert_eq!(proxy.to_string(), shown);
            assert_eq!(
                proxy.authorization.as_ref().map(|value| value.expose().as_str()),
                authorization,
                "{url}"
            );
            assert!(!format!("{proxy:?}").contains("QWxh"));
        }
    }

    #[test]
    fn what_is_not_an_http_proxy_is_named_without_its_password() {
        for (url, said) in [
            ("socks5h://u:hunter2@proxy:1080", "found a socks5h proxy"),
            ("SOCKS4://proxy", "found a socks4 proxy"),
            ("https://u:hunter2@proxy:1", "the scheme https"),
            ("http://", "found no proxy's URL"),
            ("http://proxy/path", "found no proxy's URL"),
            ("http://u:hunter2@@ proxy", "found no proxy's URL"),
        ] {
            let error = Proxies::new(url, "").unwrap_err().to_string();
            assert!(
                error.contains(said) && error.contains("http://[USER:PASSWORD@]HOST:PORT"),
                "{url}: {error}"
            );
            assert!(!error.contains("hunter2"));
        }
    }

    #[test]
    fn exceptions_this_machine_and_metadata_are_reached_without_it() {
        let proxies = Proxies::new("proxy:1", ".corp, 10.0.0.0/8 *.internal").unwrap();
        for host in [
            "a.corp",
            "corp",
            "10.1.2.3",
            "x.internal",
            "localhost",
            "a.localhost",
            "127.0.0.9",
            "::1",
            "169.254.169.254",
            "fd00:ec2::254",
        ] {
            assert_eq!(way(&proxies, host), None, "{host}");
        }
        for host in ["iot.eu-west-1.amazonaws.com", "notcorp", "11.0.0.1", "2001:db8::1"] {
            assert_eq!(way(&proxies, host).as_deref(), Some("http://proxy:1"), "{host}");
        }
        for host in ["iot.example", "11.0.0.1"] {
            assert_eq!(way(&Proxies::new("proxy:1", "a.corp, *").unwrap(), host), None);
        }
        assert_eq!(way(&Proxies::default(), "iot.example"), None);
    }
}
