//! Where a run's time went, and so what limited it.
//!
//! Owns the judgement, from measured times. Measures nothing itself, and gives no answer if the times do not show
//! one.

use std::fmt;
use std::time::Duration;

use crate::event::Operation;
use crate::rate::RateLimit;

/// Limits that held requests back for less than this share of the time in which the service answered did not limit the run.
const BINDING: f64 = 0.8;
/// Workers that are busy for this share of their time are too few.
const BUSY: f64 = 0.8;
/// A run that spends this share of its time on an outage, or its workers on waiting after failures, is held up by the
/// service.
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
    /// How long at least one limit held requests back.
    pub held: Duration,
    /// How long requests waited because the service answered none.
    pub outage: Duration,
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
    /// How long it held requests back while the service answered.
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
#[derive(Debug, Clone, PartialEq)]
pub enum Bound {
    /// Rate limits. Several may take turns; the first held requests back for longest.
    Limits(Vec<Binding>),
    /// The number of connections: all were busy.
    Connections {
        /// How many connections.
        count: usize,
        /// The share of their time in which they were busy.
        share: f64,
    },
    /// The service, or the way to it.
    Service {
        /// How it held the run up.
        by: Delay,
        /// For which share of the time; of the workers' time, unless it was out.
        share: f64,
    },
    /// The times do not show it.
    Unclear,
}

/// A rate limit that limited a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Binding {
    /// The operation that it limits.
    pub operation: Operation,
    /// Requests per second.
    pub rate: f64,
    /// The evidence that it is the service's own limit; `None` if it is the configured one.
    pub found: Option<Evidence>,
    /// The share of the time in which it held requests back.
    pub share: f64,
}

/// How a service holds a run up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delay {
    /// It answered no request.
    Outage,
    /// It kept refusing: workers waited after failures.
    Failures,
    /// It was slow with any number of connections.
    Latency,
}

impl Usage {
    /// What limited the run.
    pub fn bound(&self) -> Bound {
        if self.elapsed < TOO_SHORT || self.workers.is_zero() {
            return Bound::Unclear;
        }
        let of_time = |part: Duration| (part.as_secs_f64() / self.elapsed.as_secs_f64()).min(1.0);
        let answering = self.elapsed.saturating_sub(self.outage);
        if self.held >= self.outage && self.held >= answering.mul_f64(BINDING) {
            return self.binding(answering).map_or(Bound::Unclear, Bound::Limits);
        }
        if of_time(self.outage) >= HELD_UP {
            return Bound::Service { by: Delay::Outage, share: of_time(self.outage) };
        }
        let share = |part: Duration| (part.as_secs_f64() / self.workers.as_secs_f64()).min(1.0);
        if share(self.pausing) >= HELD_UP {
            return Bound::Service { by: Delay::Failures, share: share(self.pausing) };
        }
        match (share(self.busy), self.connections) {
            (busy, ConnectionUsage::Fixed(count) | ConnectionUsage::AtMost(count)) if busy >= BUSY => {
                Bound::Connections { count, share: busy }
            }
            (busy, ConnectionUsage::Enough) if busy >= BUSY => {
                Bound::Service { by: Delay::Latency, share: busy }
            }
            _ => Bound::Unclear,
        }
    }

    /// The limits that together held requests back for most of the time `answering`: as few as possible. `None` if
    /// that is no limit yet, but a search for one.
    fn binding(&self, answering: Duration) -> Option<Vec<Binding>> {
        let mut limits: Vec<_> = self.limits.iter().collect();
        limits.retain(|limit| !limit.held.is_zero());
        limits.sort_by_key(|limit| std::cmp::Reverse(limit.held));
        let mut held = Duration::ZERO;
        let mut bindings = Vec::new();
        for limit in limits {
            let rate = limit.found.map(|found| found.rate);
            bindings.push(Binding {
                operation: limit.operation,
                rate: rate.or_else(|| Some(limit.asked.fixed()?.as_per_second()))?,
                found: limit.found.map(|found| found.by),
                share: (limit.held.as_secs_f64() / self.elapsed.as_secs_f64()).min(1.0),
            });
            held += limit.held;
            if held >= answering.mul_f64(BINDING) {
                break;
            }
        }
        Some(bindings)
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
            held: self.held.saturating_sub(earlier.held),
            outage: self.outage.saturating_sub(earlier.outage),
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
            Bound::Limits(_) => "quota",
            Bound::Connections { .. } => "connections",
            Bound::Service { .. } => "service",
            Bound::Unclear => "nothing",
        }
    }

    /// In a few words, without the evidence for a limit of the service.
    pub fn brief(&self) -> String {
        let share = |share: f64| format!("{} % of the time", (share * 100.0).round());
        match self {
            Bound::Limits(limits) => {
                let one = |limit: &Binding| format!("{limit} {}", share(limit.share));
                limits.iter().map(one).collect::<Vec<_>>().join(", ")
            }
            Bound::Connections { count, share: busy } => {
                format!("all {count} connections busy {}", share(*busy))
            }
            Bound::Service { by, share: held_up } => format!("{by} {}", share(*held_up)),
            Bound::Unclear => String::from("nothing in particular"),
        }
    }

    /// What the user can do about it; empty if nothing.
    pub fn hint(&self) -> String {
        match self {
            Bound::Limits(limits) => {
                let are_found = limits.iter().all(|limit| limit.found.is_some());
                let quotas: Vec<_> = limits.iter().map(|limit| quota(limit.operation)).collect();
                let quotas = quotas.join(" and ");
                match (are_found, limits.len()) {
                    (true, 1) => format!("that is the service's limit: ask AWS for a higher quota, {quotas}"),
                    (true, _) => {
                        format!("those are the service's limits: ask AWS for higher quotas, {quotas}")
                    }
                    (false, 1) => format!(
                        "if the account's quota is higher, raise the limit; otherwise ask AWS for more: {quotas}"
                    ),
                    (false, _) => format!(
                        "if the account's quotas are higher, raise the limits; otherwise ask AWS for more: {quotas}"
                    ),
                }
            }
            Bound::Connections { .. } => {
                String::from("allow more connections, or let the run find how many it needs")
            }
            Bound::Service { by: Delay::Outage, .. } => {
                String::from("the run went on by itself once the service, or the way to it, was back")
            }
            Bound::Service { by: Delay::Failures, .. } => {
                String::from("look at what went wrong on the way: retries wait longer each time")
            }
            Bound::Service { by: Delay::Latency, .. } => String::from(
                "more connections did not help: the rest is the service's latency, or this machine",
            ),
            Bound::Unclear => String::new(),
        }
    }

    /// The evidence for the limits of the service among those that bound it; `None` if there are none.
    fn evidence(&self) -> Option<String> {
        let Bound::Limits(limits) = self else { return None };
        let mut evidence: Vec<_> = limits.iter().filter_map(|limit| limit.found).collect();
        evidence.dedup();
        let evidence: Vec<_> = evidence.iter().map(Evidence::to_string).collect();
        (!evidence.is_empty()).then(|| evidence.join("; "))
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

impl fmt::Display for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (doing, rate) = (doing(self.operation), self.rate);
        match self.found {
            Some(_) => write!(f, "{doing} at {rate:.1}/s"),
            None => write!(f, "{doing} at its limit of {rate}/s"),
        }
    }
}

impl fmt::Display for Delay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Delay::Outage => "no answers",
            Delay::Failures => "waiting after failures",
            Delay::Latency => "waiting for replies and commits",
        })
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.brief())?;
        match self.evidence() {
            Some(evidence) => write!(f, ": {evidence}"),
            None => Ok(()),
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
            held: Duration::from_secs(held.into_iter().sum::<u64>().min(100)),
            outage: Duration::ZERO,
            connections: ConnectionUsage::Fixed(10),
        }
    }

    #[test]
    fn the_limit_that_held_requests_back_the_longest_binds() {
        let bound = usage([20, 98], 900, 0).bound();
        assert_eq!(bound.name(), "quota");
        assert_eq!(bound.to_string(), "register at its limit of 10/s 98 % of the time");
        assert!(bound.hint().contains("raise the limit;"), "{}", bound.hint());
        assert!(bound.hint().ends_with("L-B2BBBD8C (RegisterThing)"), "{}", bound.hint());

        let mut throttled = usage([0, 98], 900, 0);
        throttled.limits[1].found = Some(Found { rate: 7.25, by: Evidence::Throttles });
        assert_eq!(
            throttled.bound().to_string(),
            "register at 7.2/s 98 % of the time: the service throttles more"
        );
        assert_eq!(throttled.bound().brief(), "register at 7.2/s 98 % of the time");
    }

    #[test]
    fn limits_that_take_turns_bind_together() {
        let mut usage = usage([40, 55], 900, 0);
        let both =
            "register at its limit of 10/s 55 % of the time, create at its limit of 10/s 40 % of the time";
        assert_eq!(usage.bound().to_string(), both);
        assert!(usage.bound().hint().contains("raise the limits;"), "{}", usage.bound().hint());
        usage.limits[0].found = Some(Found { rate: 7.25, by: Evidence::Throttles });
        let both = "register at its limit of 10/s 55 % of the time, create at 7.2/s 40 % of the time: \
                    the service throttles more";
        assert_eq!(usage.bound().to_string(), both);
        usage.limits[1].found = Some(Found { rate: 8.0, by: Evidence::Throttles });
        let both = "register at 8.0/s 55 % of the time, create at 7.2/s 40 % of the time: the service throttles more";
        assert_eq!(usage.bound().to_string(), both);
        assert!(
            usage.bound().hint().starts_with("those are the service's limits"),
            "{}",
            usage.bound().hint()
        );

        usage.held = Duration::from_secs(60);
        assert_eq!(usage.bound().name(), "connections", "most of the time they held requests back at once");
    }

    #[test]
    fn an_outage_is_no_quota() {
        let outage =
            |held, out| Usage { outage: Duration::from_secs(out), ..usage([0, held], 100, 0) }.bound();
        assert_eq!(outage(2, 95).to_string(), "no answers 95 % of the time");
        assert_eq!(outage(40, 60).name(), "service");
        assert_eq!(outage(58, 40).to_string(), "register at its limit of 10/s 58 % of the time");
        assert_eq!(outage(30, 40).to_string(), "no answers 40 % of the time");
        assert_eq!(outage(30, 20), Bound::Unclear);
    }

    #[test]
    fn without_a_limit_it_is_the_connections_or_the_service_or_unclear() {
        assert_eq!(usage([30, 40], 900, 0).bound(), Bound::Connections { count: 10, share: 0.9 });
        let enough = Usage { connections: ConnectionUsage::Enough, ..usage([0, 0], 900, 0) };
        assert_eq!(enough.bound(), Bound::Service { by: Delay::Latency, share: 0.9 });
        assert_eq!(usage([0, 0], 500, 400).bound(), Bound::Service { by: Delay::Failures, share: 0.4 });
        assert_eq!(usage([30, 40], 500, 100).bound(), Bound::Unclear);
        let short = Usage { elapsed: Duration::from_millis(900), ..usage([0, 98], 900, 0) };
        assert_eq!(short.bound(), Bound::Unclear);
    }

    #[test]
    fn a_part_is_judged_by_what_happened_in_it() {
        let (earlier, mut later) = (usage([0, 98], 900, 0), usage([0, 100], 1_800, 0));
        later.elapsed = Duration::from_secs(200);
        later.held = Duration::from_secs(100);
        later.workers = Duration::from_secs(2_000);
        assert_eq!(later.since(&earlier).bound(), Bound::Connections { count: 10, share: 0.9 });
    }
}
