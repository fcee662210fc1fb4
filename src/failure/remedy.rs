//! The retry policy: pure and total.
//!
//! Owns what is tried again, how often, and how long to wait. Does none of it.

use std::time::Duration;

use super::{Cause, Failure, Stage};

/// What to do about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// Do the same again after a wait, on a fresh connection if this one is gone.
    Again {
        /// How long to wait.
        after: Duration,
    },
    /// The same, and everyone slows down.
    Slower {
        /// How long to wait.
        after: Duration,
    },
    /// Open a new connection after a wait.
    Redial {
        /// How long to wait.
        after: Duration,
    },
    /// The certificate cannot be registered any more; start the device over with a new one.
    Reissue,
    /// Leave this device: trying again cannot help, or has been tried often enough.
    GiveUp,
    /// Stop the whole run: no other device would fare better.
    StopRun,
}

/// How often and how long to try again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The first wait is drawn from zero to this; every further one from twice as much (full jitter).
    pub base: Duration,
    /// No wait is drawn from more than this.
    pub cap: Duration,
    /// How many times one request of one device is sent.
    pub attempts: u32,
    /// How many times it is sent if the service throttles it: throttling says that the service is well.
    pub throttled_attempts: u32,
    /// How many times it is sent if its replies cannot be this device's: some of those come from the lot or the template.
    pub anomalies: u32,
    /// How many setbacks in a row one worker takes once a dial has succeeded: dials that fail, and connections that end
    /// before they have carried an answer.
    pub dials: u32,
    /// How many dials in a row may fail before any has succeeded: a wrong setting should show soon.
    pub first_dials: u32,
    /// For how long a service that has answered before may fail everyone before the run stops: longer than a restart takes, or an
    /// outage of five minutes.
    pub patience: Duration,
    /// A connection that lived as long as this was a good one, even if there was nothing to ask on it.
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

/// What the service has shown of itself in this run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// No dial has succeeded.
    Unreached,
    /// Connections were opened, and none of them has carried an answer or lasted.
    Reached,
    /// It has answered, or kept a connection for [`RetryPolicy::proven_after`]: so long ago, at the last.
    Served {
        /// How long ago.
        ago: Duration,
    },
}

/// What has been tried before a failure, as far as [`remedy`] needs to know.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tried {
    /// How many times this request was sent, or how many setbacks this worker had in a row, this failure included: at
    /// least 1.
    pub attempts: u32,
    /// What else is known of the service.
    pub standing: Standing,
    /// A number drawn evenly from 0 to 1: the jitter. Given, so that this stays a function.
    pub jitter: f64,
}

/// What to do about `failure`, which ended a request or a dial: pure and total. With [`redial`] the only retry policy.
///
/// Acts on `statusCode` alone, never on `errorCode` or a message, whose texts are not documented.
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
        // Nothing was published, and one connection's end says nothing about the next; several in a row do.
        _ if failure.stage == Stage::Idle && tried.attempts == 1 => Remedy::Redial { after: Duration::ZERO },
        // No PUBACK is how the broker throttles: go slower, and on a fresh connection, for the reply may yet come.
        Cause::NoPuback { .. } if tried.attempts < policy.attempts => Remedy::Slower { after },
        Cause::Anomaly { .. } if tried.attempts >= policy.anomalies => Remedy::GiveUp,
        _ if tried.attempts < policy.attempts => Remedy::Redial { after },
        _ => Remedy::GiveUp,
    }
}

/// What to do about a setback: a dial that failed, or a connection that ended before it had carried an answer, for whatever
/// reason and at whatever stage. Opens another one, later each time, or stops the run: never for ever.
pub fn redial(failure: &Failure, tried: Tried, policy: &RetryPolicy) -> Remedy {
    let is_refusal = failure.stage.is_dialling() && failure.is_refusal();
    let allowed = match (is_refusal, tried.standing) {
        // Before the first success a refusal speaks for all dials; later it may be one node's hiccup.
        (true, Standing::Unreached) => 1,
        (false, Standing::Unreached) => policy.first_dials,
        // A service that works for others is worth waiting for, and one that restarts comes back.
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

/// Exponential backoff with full jitter: evenly from zero to base · 2^(attempts − 1), or to the cap.
fn backoff(tried: Tried, policy: &RetryPolicy) -> Duration {
    let doublings = tried.attempts.saturating_sub(1).min(20);
    let ceiling = policy.base.saturating_mul(1 << doublings).min(policy.cap);
    ceiling.mul_f64(tried.jitter.clamp(0.0, 1.0))
}
