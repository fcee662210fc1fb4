//! What an answer says about the rate of its request.
//!
//! Owns which failures are a throttle. [`super::pace`] acts on them.

use crate::failure::{Cause, Failure, Stage};

/// What the outcome of a request says about its rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) enum Sign {
    /// The service took the request, whatever its answer.
    Accepted,
    /// The service refused the request explicitly because of the rate.
    Throttled,
    /// The request was not answered: silence, with or without a PUBACK, or the end of the connection. The broker
    /// throttles like that too, but most losses have another cause. A test decides ([`super::inquiry`]).
    Lost,
    /// The outcome says nothing about rates.
    Unclear,
}

impl Sign {
    pub(in crate::engine) fn of<T>(outcome: &Result<T, Failure>) -> Self {
        let Err(failure) = outcome else { return Sign::Accepted };
        if failure.is_throttle() {
            return Sign::Throttled;
        }
        match &failure.cause {
            // AWS does not document its answer to a throttled CONNECT: it could be any of these.
            Cause::ConnectRefused { code: SERVER_UNAVAILABLE } => Sign::Throttled,
            Cause::UpgradeRefused { status: 503, .. } => Sign::Throttled,
            Cause::NoPuback { .. } | Cause::NoReply { .. } | Cause::TimedOut { .. } => Sign::Lost,
            Cause::Closed { .. } if failure.stage >= Stage::Connack && failure.stage != Stage::Idle => {
                Sign::Lost
            }
            Cause::Rejected { status_code: ..500, .. } => Sign::Accepted,
            _ => Sign::Unclear,
        }
    }
}

/// CONNACK return code 3 (MQTT 3.1.1 section 3.2.2.3).
const SERVER_UNAVAILABLE: u8 = 3;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::call::Call;

    #[test]
    fn a_throttle_says_so_and_whatever_is_not_answered_is_lost() {
        let after = Duration::from_secs(20);
        let closed = || Cause::Closed { detail: String::new() };
        let rejected = |status_code| Cause::Rejected {
            status_code,
            error_code: String::new(),
            error_message: String::new(),
        };
        for (stage, cause, sign) in [
            (Stage::Call(Call::CreateKeysAndCertificate), rejected(429), Sign::Throttled),
            (Stage::Call(Call::RegisterThing), Cause::NoPuback { after }, Sign::Lost),
            (Stage::Call(Call::RegisterThing), closed(), Sign::Lost),
            (Stage::Call(Call::RegisterThing), Cause::NoReply { after }, Sign::Lost),
            (Stage::Call(Call::RegisterThing), rejected(400), Sign::Accepted),
            (Stage::Call(Call::RegisterThing), rejected(500), Sign::Unclear),
            (Stage::Idle, closed(), Sign::Unclear),
            (Stage::Tls, closed(), Sign::Unclear),
            (Stage::Connack, closed(), Sign::Lost),
            (Stage::Tcp, Cause::TimedOut { after }, Sign::Lost),
            (Stage::Connack, Cause::ConnectRefused { code: 3 }, Sign::Throttled),
            (Stage::Connack, Cause::ConnectRefused { code: 5 }, Sign::Unclear),
        ] {
            let failure = Failure::new(stage, cause);
            assert_eq!(Sign::of::<()>(&Err(failure.clone())), sign, "{failure}");
        }
        assert_eq!(Sign::of(&Ok(())), Sign::Accepted);
    }
}
