//! What an answer says about the rate of its request.
//!
//! Owns which failures are a throttle. Does nothing about them: that is [`super::pace`]'s.

use crate::failure::{Cause, Failure, Stage};

/// What became of a request, as far as its rate is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) enum Sign {
    /// The service took it, whatever it thought of it.
    Accepted,
    /// Refused for the rate, or dropped in silence, as the broker does.
    Throttled,
    /// Ended with the connection. The broker throttles like that too, but most hang-ups have another cause: only who looks
    /// for an unknown rate takes it for a throttle.
    HungUp,
    /// It says nothing about rates.
    Unclear,
}

impl Sign {
    pub(in crate::engine) fn of<T>(outcome: &Result<T, Failure>) -> Self {
        let Err(failure) = outcome else { return Sign::Accepted };
        if failure.is_throttle() {
            return Sign::Throttled;
        }
        match &failure.cause {
            // The broker's own throttle: it drops the publish, or the connection, without a word.
            Cause::NoPuback { .. } => Sign::Throttled,
            Cause::Closed { .. } if !failure.stage.is_dialling() && failure.stage != Stage::Idle => {
                Sign::HungUp
            }
            // What answers a throttled CONNECT is not documented: any of these could.
            Cause::ConnectRefused { code: SERVER_UNAVAILABLE } => Sign::Throttled,
            Cause::UpgradeRefused { status: 503, .. } => Sign::Throttled,
            Cause::Closed { .. } | Cause::TimedOut { .. } if failure.stage == Stage::Connack => {
                Sign::Throttled
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
    fn a_throttle_is_a_429_or_silence_and_a_puback_without_a_reply_is_neither() {
        let after = Duration::from_secs(20);
        let closed = || Cause::Closed { detail: String::new() };
        let rejected = |status_code| Cause::Rejected {
            status_code,
            error_code: String::new(),
            error_message: String::new(),
        };
        for (stage, cause, sign) in [
            (Stage::Call(Call::CreateKeysAndCertificate), rejected(429), Sign::Throttled),
            (Stage::Call(Call::RegisterThing), Cause::NoPuback { after }, Sign::Throttled),
            (Stage::Call(Call::RegisterThing), closed(), Sign::HungUp),
            (Stage::Call(Call::RegisterThing), Cause::NoReply { after }, Sign::Unclear),
            (Stage::Call(Call::RegisterThing), rejected(400), Sign::Accepted),
            (Stage::Call(Call::RegisterThing), rejected(500), Sign::Unclear),
            (Stage::Idle, closed(), Sign::Unclear),
            (Stage::Tls, closed(), Sign::Unclear),
            (Stage::Connack, closed(), Sign::Throttled),
            (Stage::Connack, Cause::ConnectRefused { code: 3 }, Sign::Throttled),
            (Stage::Connack, Cause::ConnectRefused { code: 5 }, Sign::Unclear),
        ] {
            let failure = Failure::new(stage, cause);
            assert_eq!(Sign::of::<()>(&Err(failure.clone())), sign, "{failure}");
        }
        assert_eq!(Sign::of(&Ok(())), Sign::Accepted);
    }
}
