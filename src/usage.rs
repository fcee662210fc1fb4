//! Where a run's time went, and so what limited it.
//!
//! Owns the judgement, from measured times. Measures nothing itself, and gives no answer if the times do not show
//! one.

use std::fmt;
use std::time::Duration;

use crate::event::Operation;
use crate::rate::RateLimit;

/// A limit that held requests back for less than this share of the time did not limit the run.
const BINDING: f64 = 0.8;
/// Workers that are busy for this share of their time are too few.
const BUSY: f64 = 0.8;
/// Workers that wait after failures for this share of their time are held up by the service.
const HELD_UP: f64 = 0.3;
/// Shorter runs give no answer.
const TOO_SHORT: Duration = Duration::from_secs(1);

/// Where the time of a run, or of part of it, went.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Usage {
    /// How long it took.
    pub elapsed: Duration,
    /// How the rate limits were used.
    pub limits: Vec<LimitUsage>,
    /// The time of all workers together: more than `elapsed` if there are several.
    pub workers: Duration,
    /// The workers' time in exchanges, dials and commits.
    pub busy: Duration,
    /// The workers' time waiting after failures, including throttles.
    pub pausing: Duration,
    /// How many connections the run had, and why not more.
    pub connections: ConnectionUsage,
}

/// How a rate limit was used.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LimitUsage {
    /// The operation that it limits.
    pub operation: Operation,
    /// The limit as requested.
    pub asked: RateLimit,
    /// The service's own limit; `None` until one below `asked` is established.
    pub found: Option<Found>,
    /// The share of requests, 0 to 1, that are never answered at any rate; `None` unless a test has shown it.
    pub unanswered: Option<f64>,
    /// How long it held requests back.
    pub held: Duration,
}

/// An established limit of the service.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Found {
    /// Requests per second.
    pub rate: f64,
    /// The evidence for it.
    pub by: Evidence,
}

/// How it is known that a rate is too high.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// The service throttles.
    Throttles,
    /// Requests went unanswered, fewer at a lower rate, and more again at a higher one.
    Silence,
}

/// Why the run had this number of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ConnectionUsage {
    /// It was set.
    Fixed(usize),
    /// It was the most that is allowed.
    AtMost(usize),
    /// More would not have helped, or were not tried yet.
    #[default]
    Enough,
}

/// What limited a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bound {
    /// A configured rate limit.
    Limit {
        /// The operation that it limits.
        operation: Operation,
        /// Requests per second.
        rate: f64,
        /// The share of the time in which it held requests back.
        share: f64,
    },
    /// The service's own limit, once established.
    Throttle {
        /// The operation that it limits.
        operation: Operation,
        /// The limit and the evidence for it.
        found: Found,
        /// The share of the time in which it held requests back.
        share: f64,
    },
    /// The number of connections: all were busy.
    Connections {
        /// How many connections.
        count: usize,
        /// The share of their time in which they were busy.
        share: f64,
    },
    /// The service: it kept refusing, or was slow with any number of connections.
    Service {
        /// The share of the workers' time spent on it.
        share: f64,
        /// Whether that time was waiting after failures, rather than for replies.
        is_failing: bool,
    },
    /// The times do not show it.
    Unclear,
}

impl Usage {
    /// What limited the run.
    pub fn bound(&self) -> Bound {
        if self.elapsed < TOO_SHORT || self.workers.is_zero() {
            return Bound::Unclear;
        }
        let held = |limit: &LimitUsage| limit.held.as_secs_f64() / self.elapsed.as_secs_f64();
        let most = self.limits.iter().max_by(|one, other| one.held.cmp(&other.held));
        if let Some(limit) = most.filter(|limit| held(limit) >= BINDING) {
            let (operation, share) = (limit.operation, held(limit).min(1.0));
            return match (limit.found, limit.asked.fixed()) {
                (Some(found), _) => Bound::Throttle { operation, found, share },
                (None, Some(rate)) => Bound::Limit { operation, rate: rate.as_per_second(), share },
                (None, None) => Bound::Unclear,
            };
        }
        let share = |part: Duration| (part.as_secs_f64() / self.workers.as_secs_f64()).min(1.0);
        if share(self.pausing) >= HELD_UP {
            return Bound::Service { share: share(self.pausing), is_failing: true };
        }
        match (share(self.busy), self.connections) {
            (busy, ConnectionUsage::Fixed(count) | ConnectionUsage::AtMost(count)) if busy >= BUSY => {
                Bound::Connections { count, share: busy }
            }
            (busy, ConnectionUsage::Enough) if busy >= BUSY => {
                Bound::Service { share: busy, is_failing: false }
            }
            _ => Bound::Unclear,
        }
    }

    /// The usage since `earlier`.
    pub fn since(&self, earlier: &Usage) -> Usage {
        let held_before = |operation| {
            let limit = earlier.limits.iter().find(|limit| limit.operation == operation);
            limit.map_or(Duration::ZERO, |limit| limit.held)
        };
        let limits = self.limits.iter().map(|limit| LimitUsage {
            held: limit.held.saturating_sub(held_before(limit.operation)),
            ..*limit
        });
        Usage {
            elapsed: self.elapsed.saturating_sub(earlier.elapsed),
            limits: limits.collect(),
            workers: self.workers.saturating_sub(earlier.workers),
            busy: self.busy.saturating_sub(earlier.busy),
            pausing: self.pausing.saturating_sub(earlier.pausing),
            connections: self.connections,
        }
    }
}

impl Bound {
    /// One word for reports: `quota`, `connections`, `service` or `nothing`. Stable.
    pub fn name(&self) -> &'static str {
        match self {
            Bound::Limit { .. } | Bound::Throttle { .. } => "quota",
            Bound::Connections { .. } => "connections",
            Bound::Service { .. } => "service",
            Bound::Unclear => "nothing",
        }
    }

    /// In a few words, without the evidence for a limit of the service.
    pub fn brief(&self) -> String {
        let percent = |share: f64| (share * 100.0).round();
        match *self {
            Bound::Limit { operation, rate, share } => {
                format!("{} at its limit of {rate}/s {} % of the time", doing(operation), percent(share))
            }
            Bound::Throttle { operation, found, share } => {
                format!("{} at {:.1}/s {} % of the time", doing(operation), found.rate, percent(share))
            }
            Bound::Connections { count, share } => {
                format!("all {count} connections busy {} % of the time", percent(share))
            }
            Bound::Service { share, is_failing: true } => {
                format!("waiting after failures {} % of the time", percent(share))
            }
            Bound::Service { share, is_failing: false } => {
                format!("waiting for replies and commits {} % of the time", percent(share))
            }
            Bound::Unclear => String::from("nothing in particular"),
        }
    }

    /// What the user can do about it; empty if nothing.
    pub fn hint(&self) -> String {
        match self {
            Bound::Limit { operation, .. } => {
                let quota = quota(*operation);
                format!(
                    "if the account's quota is higher, raise the limit; otherwise ask AWS for more: {quota}"
                )
            }
            Bound::Throttle { operation, .. } => {
                format!("that is the service's limit: ask AWS for a higher quota, {}", quota(*operation))
            }
            Bound::Connections { .. } => {
                String::from("allow more connections, or let the run find how many it needs")
            }
            Bound::Service { is_failing: true, .. } => {
                String::from("look at what went wrong on the way: retries wait longer each time")
            }
            Bound::Service { is_failing: false, .. } => String::from(
                "more connections did not help: the rest is the service's latency, or this machine",
            ),
            Bound::Unclear => String::new(),
        }
    }
}

/// What a run does when it asks for the operation.
fn doing(operation: Operation) -> &'static str {
    match operation {
        Operation::Connect => "connect",
        Operation::CreateCertificate => "create",
        Operation::RegisterThing => "register",
        other => other.name(),
    }
}

/// AWS's code and name for the quota (Service Quotas, AWS IoT Core).
fn quota(operation: Operation) -> &'static str {
    match operation {
        Operation::Connect => "L-AEA1E176 (connect requests per second per account)",
        Operation::CreateCertificate => {
            "L-CAFFCA46 (CreateKeysAndCertificate), or for keys made here L-83161BB8 (CreateCertificateFromCsr)"
        }
        Operation::RegisterThing => "L-B2BBBD8C (RegisterThing)",
        _ => "see Service Quotas",
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Evidence::Throttles => "the service throttles more",
            Evidence::Silence => "at more than that the service stops answering (tried lower and higher)",
        })
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.brief())?;
        match self {
            Bound::Throttle { found, .. } => write!(f, ": {}", found.by),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(held: [u64; 2], busy: u64, pausing: u64) -> Usage {
        let limit = |operation, held| LimitUsage {
            operation,
            asked: RateLimit::per_second(10.0),
            found: None,
            unanswered: None,
            held: Duration::from_secs(held),
        };
        Usage {
            elapsed: Duration::from_secs(100),
            limits: vec![
                limit(Operation::CreateCertificate, held[0]),
                limit(Operation::RegisterThing, held[1]),
            ],
            workers: Duration::from_secs(1_000),
            busy: Duration::from_secs(busy),
            pausing: Duration::from_secs(pausing),
            connections: ConnectionUsage::Fixed(10),
        }
    }

    #[test]
    fn the_limit_that_held_requests_back_the_longest_binds() {
        let bound = usage([20, 98], 900, 0).bound();
        let wanted = Bound::Limit { operation: Operation::RegisterThing, rate: 10.0, share: 0.98 };
        assert_eq!((bound, bound.name()), (wanted, "quota"));
        assert_eq!(bound.to_string(), "register at its limit of 10/s 98 % of the time");
        assert!(bound.hint().contains("L-B2BBBD8C"), "{}", bound.hint());

        let mut throttled = usage([0, 98], 900, 0);
        throttled.limits[1].found = Some(Found { rate: 7.25, by: Evidence::Throttles });
        assert_eq!(
            throttled.bound().to_string(),
            "register at 7.2/s 98 % of the time: the service throttles more"
        );
        assert_eq!(throttled.bound().brief(), "register at 7.2/s 98 % of the time");
    }

    #[test]
    fn without_a_limit_it_is_the_connections_or_the_service_or_unclear() {
        assert_eq!(usage([30, 40], 900, 0).bound(), Bound::Connections { count: 10, share: 0.9 });
        let enough = Usage { connections: ConnectionUsage::Enough, ..usage([0, 0], 900, 0) };
        assert_eq!(enough.bound(), Bound::Service { share: 0.9, is_failing: false });
        assert_eq!(usage([0, 0], 500, 400).bound(), Bound::Service { share: 0.4, is_failing: true });
        assert_eq!(usage([30, 40], 500, 100).bound(), Bound::Unclear);
        let short = Usage { elapsed: Duration::from_millis(900), ..usage([0, 98], 900, 0) };
        assert_eq!(short.bound(), Bound::Unclear);
    }

    #[test]
    fn a_part_is_judged_by_what_happened_in_it() {
        let (earlier, mut later) = (usage([0, 98], 900, 0), usage([0, 100], 1_800, 0));
        later.elapsed = Duration::from_secs(200);
        later.workers = Duration::from_secs(2_000);
        assert_eq!(later.since(&earlier).bound(), Bound::Connections { count: 10, share: 0.9 });
    }
}
