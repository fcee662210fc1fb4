//! The retry policy: pure and total.
//!
//! Decides what is retried, how often, and after how long. Does none of it.

use std::time::Duration;

use super::{Cause, Failure, Stage};

/// What to do about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// Send the same request again after a wait, on a new connection if this one is gone.
    Again {
        /// How long to wait.
        after: Duration,
    },
    /// Send the same request again after a wait, and slow down all workers.
    Slower {
        /// How long to wait.
        after: Duration,
    },
    /// Open a new connection after a wait.
    Redial {
        /// How long to wait.
        after: Duration,
    },
    /// The certificate can no longer be registered; start the device over with a new one.
    Reissue,
    /// Leave this device: another try cannot help, or there were enough.
    GiveUp,
    /// Stop the whole run: no other device would fare better.
    StopRun,
}

/// The limits of retrying.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The first wait is drawn from zero to this; the upper end doubles with each further one (full jitter).
    pub base: Duration,
    /// The highest upper end that a wait is drawn from.
    pub cap: Duration,
    /// How many times one request of one device is sent.
    pub attempts: u32,
    /// How many times it is sent if the service throttles it: a service that throttles is healthy.
    pub throttled_attempts: u32,
    /// How many times it is sent if the replies cannot be for this device: the lot or the template may cause some of
    /// those.
    pub anomalies: u32,
    /// How many setbacks in a row a worker tolerates once a dial has succeeded: failed dials, and connections that
    /// end before they have carried an answer.
    pub dials: u32,
    /// How many dials in a row may fail before any has succeeded: a wrong setting should show soon.
    pub first_dials: u32,
    /// How long a service that has answered before may fail every worker before the run stops: longer than a restart
    /// or an outage of five minutes.
    pub patience: Duration,
    /// A connection that lasted this long counts as a success, even if nothing was requested on it.
    pub proven_after: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            base: Duration::from_millis(200),
            cap: Duration::from_secs(20),
            attempts: 8,
            throttled_attempts: 100,
            anomalies: 3,
            dials: 12,
            first_dials: 4,
            patience: Duration::from_secs(600),
            proven_after: Duration::from_secs(60),
        }
    }
}

/// What is known of the service in this run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// No dial has succeeded yet.
    Unreached,
    /// Connections were opened, but none has carried an answer or lasted.
    Reached,
    /// It has answered, or kept a connection for [`RetryPolicy::proven_after`].
    Served {
        /// How long ago it last did.
        ago: Duration,
    },
}

/// What was tried before a failure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tried {
    /// How many times this request was sent, or how many setbacks in a row this worker had, including this failure:
    /// at least 1.
    pub attempts: u32,
    /// What is known of the service.
    pub standing: Standing,
    /// A random number from 0 to 1, for the jitter. Passed in so that the policy stays pure.
    pub jitter: f64,
}

/// What to do about `failure`, which ended a request or a dial. Pure and total; with [`redial`] the only retry
/// policy.
///
/// Acts on `statusCode` alone, never on `errorCode` or a message: their texts are not documented.
pub fn remedy(failure: &Failure, tried: Tried, policy: &RetryPolicy) -> Remedy {
    if failure.stage.is_dialling() {
        return redial(failure, tried, policy);
    }
    let after = backoff(tried, policy);
    match &failure.cause {
        Cause::TokenExpired => Remedy::Reissue,
        Cause::Rejected { status_code: 429, .. } if tried.attempts < policy.throttled_attempts => {
            Remedy::Slower { after }
        }
        Cause::Rejected { status_code: 500.., .. } if tried.attempts < policy.attempts => {
            Remedy::Again { after }
        }
        Cause::Rejected { .. } => Remedy::GiveUp,
        // Nothing was published, and one lost connection says nothing about the next; several in a row do.
        _ if failure.stage == Stage::Idle && tried.attempts == 1 => Remedy::Redial { after: Duration::ZERO },
        // The broker throttles by withholding PUBACK: slow down, on a new connection, because the reply may still
        // come.
        Cause::NoPuback { .. } if tried.attempts < policy.attempts => Remedy::Slower { after },
        Cause::Anomaly { .. } if tried.attempts >= policy.anomalies => Remedy::GiveUp,
        _ if tried.attempts < policy.attempts => Remedy::Redial { after },
        _ => Remedy::GiveUp,
    }
}

/// What to do about a setback: a failed dial, or a connection that ended before it had carried an answer, for any
/// reason and at any stage. Redials with growing waits, or stops the run.
pub fn redial(failure: &Failure, tried: Tried, policy: &RetryPolicy) -> Remedy {
    let is_refusal = failure.stage.is_dialling() && failure.is_refusal();
    let allowed = match (is_refusal, tried.standing) {
        // Before the first success a refusal speaks for all dials; later it may be a fault of one node.
        (true, Standing::Unreached) => 1,
        (false, Standing::Unreached) => policy.first_dials,
        // A service that works for other workers is worth waiting for, and a restarting one comes back.
        (false, Standing::Served { ago }) if ago < policy.patience => u32::MAX,
        _ => policy.dials,
    };
    let after = backoff(tried, policy);
    if tried.attempts >= allowed {
        Remedy::StopRun
    } else if failure.stage.is_dialling() && failure.is_throttle() {
        Remedy::Slower { after }
    } else {
        Remedy::Redial { after }
    }
}

/// Exponential backoff with full jitter: uniform from zero to base · 2^(attempts − 1), at most the cap.
fn backoff(tried: Tried, policy: &RetryPolicy) -> Duration {
    let doublings = tried.attempts.saturating_sub(1).min(20);
    let ceiling = policy.base.saturating_mul(1 << doublings).min(policy.cap);
    ceiling.mul_f64(tried.jitter.clamp(0.0, 1.0))
}
