//! What can go wrong, where, and what to do about it.
//!
//! Owns the vocabulary of failures and [`remedy`], the only retry policy there is: pure and total. Does not sleep,
//! retry or count; the engine acts on what `remedy` says.

use std::fmt;
use std::time::Duration;

/// The step of a device's way at which something happened, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// Getting credentials and signing the URL.
    Sign,
    /// Looking up the endpoint's address.
    Resolve,
    /// TCP connection.
    Tcp,
    /// TLS handshake.
    Tls,
    /// HTTP upgrade to WebSocket, where the service checks the signature.
    Upgrade,
    /// MQTT CONNECT to CONNACK.
    Connack,
    /// SUBSCRIBE to SUBACK on the response topics.
    Suback,
    /// Between exchanges, on a connection that waits.
    Idle,
    /// CreateKeysAndCertificate.
    CreateCertificate,
    /// CreateCertificateFromCsr.
    CertificateFromCsr,
    /// RegisterThing.
    RegisterThing,
}

impl Stage {
    /// The stage's name for reports: stable, lower case.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Sign => "sign",
            Stage::Resolve => "resolve",
            Stage::Tcp => "tcp",
            Stage::Tls => "tls",
            Stage::Upgrade => "upgrade",
            Stage::Connack => "connack",
            Stage::Suback => "suback",
            Stage::Idle => "idle",
            Stage::CreateCertificate => "create_certificate",
            Stage::CertificateFromCsr => "create_certificate_from_csr",
            Stage::RegisterThing => "register_thing",
        }
    }

    /// Whether the stage belongs to opening a connection.
    pub fn is_dialling(self) -> bool {
        self <= Stage::Suback
    }

    fn doing(self) -> &'static str {
        match self {
            Stage::Sign => "signing the WebSocket URL",
            Stage::Resolve => "looking up the endpoint",
            Stage::Tcp => "opening the TCP connection",
            Stage::Tls => "the TLS handshake",
            Stage::Upgrade => "the WebSocket upgrade",
            Stage::Connack => "MQTT CONNECT",
            Stage::Suback => "SUBSCRIBE to the response topics",
            Stage::Idle => "keeping the connection",
            Stage::CreateCertificate => "CreateKeysAndCertificate",
            Stage::CertificateFromCsr => "CreateCertificateFromCsr",
            Stage::RegisterThing => "RegisterThing",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why it went wrong. Texts in here come from the other side or from the operating system; none ever holds a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// No usable credentials.
    Credentials {
        /// What is missing or wrong.
        detail: String,
    },
    /// The endpoint's name has no address.
    Unresolvable {
        /// What the resolver said.
        detail: String,
    },
    /// The connection could not be opened.
    Unreachable {
        /// What the operating system said.
        detail: String,
    },
    /// TLS failed: an untrusted or wrong certificate, or no common parameters.
    Tls {
        /// What the TLS library said.
        detail: String,
    },
    /// The upgrade was answered with anything but 101.
    UpgradeRefused {
        /// HTTP status.
        status: u16,
        /// The service's words: error type and message, shortened and cleaned.
        message: String,
        /// Our clock minus the server's `date` header, in seconds, where the header was there.
        skew_s: Option<i64>,
    },
    /// CONNACK with a return code other than 0 (MQTT 3.1.1 section 3.2.2.3; AWS uses 7 for "not authorized").
    ConnectRefused {
        /// The return code.
        code: u8,
    },
    /// SUBACK with 0x80 for a filter (MQTT 3.1.1 section 3.9.3).
    SubscriptionRefused {
        /// The filter.
        filter: String,
    },
    /// The connection ended: closed, reset, or cut off.
    Closed {
        /// How it ended.
        detail: String,
    },
    /// A dial step was not finished in time.
    TimedOut {
        /// After how long.
        after: Duration,
    },
    /// Neither PUBACK nor reply: the broker's own throttle, or a dead peer. The service most likely never saw the request.
    NoPuback {
        /// After how long.
        after: Duration,
    },
    /// PUBACK but no reply: the service may have acted.
    NoReply {
        /// After how long.
        after: Duration,
    },
    /// The other side broke the protocol: malformed packet, unknown topic, or a reply that is not what the API describes.
    Garbled {
        /// What was wrong, without the content.
        detail: String,
    },
    /// The service answered on the `rejected` topic.
    Rejected {
        /// `statusCode`, what we act on.
        status_code: u16,
        /// `errorCode`, for people.
        error_code: String,
        /// `errorMessage`, for people.
        error_message: String,
    },
    /// A well-formed reply that cannot be this device's.
    Anomaly {
        /// Why it cannot be.
        detail: String,
    },
    /// The certificate's ownership token is too old to be used.
    TokenExpired,
}

impl Cause {
    /// The cause's name for counting: stable, lower case.
    pub fn name(&self) -> &'static str {
        match self {
            Cause::Credentials { .. } => "credentials",
            Cause::Unresolvable { .. } => "unresolvable",
            Cause::Unreachable { .. } => "unreachable",
            Cause::Tls { .. } => "tls",
            Cause::UpgradeRefused { .. } => "upgrade_refused",
            Cause::ConnectRefused { .. } => "connect_refused",
            Cause::SubscriptionRefused { .. } => "subscription_refused",
            Cause::Closed { .. } => "closed",
            Cause::TimedOut { .. } => "timed_out",
            Cause::NoPuback { .. } => "no_puback",
            Cause::NoReply { .. } => "no_reply",
            Cause::Garbled { .. } => "garbled",
            Cause::Rejected { status_code: 429, .. } => "throttled",
            Cause::Rejected { .. } => "rejected",
            Cause::Anomaly { .. } => "anomaly",
            Cause::TokenExpired => "token_expired",
        }
    }
}

/// Something went wrong: where and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Where.
    pub stage: Stage,
    /// Why.
    pub cause: Cause,
}

impl Failure {
    /// A failure at `stage` because of `cause`.
    pub fn new(stage: Stage, cause: Cause) -> Self {
        Self { stage, cause }
    }

    /// Whether the service refused us, rather than something breaking: no retry by itself will change its mind.
    pub fn is_refusal(&self) -> bool {
        match &self.cause {
            Cause::Credentials { .. } | Cause::SubscriptionRefused { .. } => true,
            Cause::UpgradeRefused { status, .. } => {
                (400..500).contains(status) && !matches!(status, 408 | 425 | 429)
            }
            Cause::ConnectRefused { code } => *code != CONNACK_SERVER_UNAVAILABLE,
            _ => false,
        }
    }

    /// Whether the service asked for less speed.
    pub fn is_throttle(&self) -> bool {
        matches!(
            self.cause,
            Cause::Rejected { status_code: 429, .. } | Cause::UpgradeRefused { status: 429, .. }
        )
    }

    /// Whether the service may have carried out the request that this failure ended.
    ///
    /// Only a rejection says that it did not. Silence without a PUBACK most likely means so, but is no proof: the PUBACK
    /// itself may have been lost.
    pub fn may_have_acted(&self) -> bool {
        match &self.cause {
            // A 5xx says that something broke inside, not how far it had got.
            Cause::Rejected { status_code, .. } => *status_code >= 500,
            Cause::TokenExpired => false,
            _ => !self.stage.is_dialling() && self.stage != Stage::Idle,
        }
    }

    /// What to do about it, for a person; empty where there is nothing to do but wait for the retry.
    pub fn hint(&self) -> &'static str {
        match &self.cause {
            Cause::Credentials { .. } => {
                "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN for temporary credentials)"
            }
            Cause::Unresolvable { .. } => {
                "check --endpoint: `aws iot describe-endpoint --endpoint-type iot:Data-ATS` prints it"
            }
            Cause::Unreachable { .. } => {
                "check --endpoint, its port, and that a firewall lets this machine reach it"
            }
            Cause::Tls { .. } => {
                "check --endpoint (use the -ats endpoint), the clock, and pass --ca-file if the endpoint has its own CA"
            }
            Cause::UpgradeRefused { skew_s: Some(skew), .. } if skew.abs() >= SKEW_LIMIT_S => {
                "set this machine's clock: signatures are valid for 5 minutes around the service's time"
            }
            Cause::UpgradeRefused { status: 429, .. } => "lower --connect-rate",
            Cause::UpgradeRefused { status: 400..=499, .. } => {
                "check the access key, the secret key, the session token (temporary credentials expire) and --region"
            }
            Cause::ConnectRefused { code: 2 } => {
                "choose another --client-id-prefix: at most 128 bytes, not starting with $"
            }
            Cause::ConnectRefused { code: 4 | 5 | 7 } => {
                "allow iot:Connect on client/<client id prefix>* to these credentials, or set --client-id-prefix to one that is allowed"
            }
            Cause::SubscriptionRefused { .. } => {
                "allow iot:Subscribe on topicfilter/<filter> (topicfilter, not topic) and iot:Receive on topic/<filter>"
            }
            Cause::Closed { .. } if matches!(self.stage, Stage::Suback) => {
                "the service closes the connection where iot:Subscribe is not allowed: check the policy's topicfilter/ resources and --template"
            }
            Cause::Closed { .. }
                if matches!(
                    self.stage,
                    Stage::CreateCertificate | Stage::CertificateFromCsr | Stage::RegisterThing
                ) =>
            {
                "the service closes the connection where iot:Publish or iot:Receive is not allowed: check the policy's topic/ resources"
            }
            Cause::NoPuback { .. } => "the broker drops publishes over its quota in silence: lower the rates",
            Cause::Rejected { status_code: 429, .. } => {
                "lower --create-rate or --register-rate to the account's quota"
            }
            Cause::Rejected { status_code: 403, .. } => {
                "check the template's provisioning role and pre-provisioning hook"
            }
            Cause::Rejected { status_code: 404, .. } => "check --template and --region",
            Cause::Rejected { status_code: 400..=499, .. } if self.stage == Stage::CertificateFromCsr => {
                "the service takes no such CSR: try the other --key-type, or --keys aws"
            }
            Cause::Rejected { status_code: 400..=499, .. } => {
                "check this row's values against the template's parameters"
            }
            _ => "",
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let doing = self.stage.doing();
        match &self.cause {
            Cause::Credentials { detail } => write!(f, "{doing}: no usable credentials: {detail}"),
            Cause::Unresolvable { detail } => write!(f, "{doing}: no address: {detail}"),
            Cause::Unreachable { detail } => write!(f, "{doing}: {detail}"),
            Cause::Tls { detail } => write!(f, "{doing}: {detail}"),
            Cause::UpgradeRefused { status, message, skew_s } => {
                write!(f, "{doing}: the service answered HTTP {status}")?;
                if !message.is_empty() {
                    write!(f, ": {message}")?;
                }
                match skew_s {
                    Some(skew) if *skew >= SKEW_LIMIT_S => {
                        write!(f, "; clock skew: this machine's clock is {skew} s ahead of the service's")
                    }
                    Some(skew) if *skew <= -SKEW_LIMIT_S => {
                        write!(f, "; clock skew: this machine's clock is {} s behind the service's", -skew)
                    }
                    _ => Ok(()),
                }
            }
            Cause::ConnectRefused { code } => {
                write!(f, "{doing}: refused with CONNACK return code {code} ({})", connack_meaning(*code))
            }
            Cause::SubscriptionRefused { filter } => write!(f, "{doing}: SUBACK 0x80 for {filter}"),
            Cause::Closed { detail } => write!(f, "{doing}: the connection ended: {detail}"),
            Cause::TimedOut { after } => write!(f, "{doing}: no answer within {after:?}"),
            Cause::NoPuback { after } => write!(f, "{doing}: neither PUBACK nor reply within {after:?}"),
            Cause::NoReply { after } => write!(f, "{doing}: PUBACK but no reply within {after:?}"),
            Cause::Garbled { detail } => write!(f, "{doing}: garbled: {detail}"),
            Cause::Rejected { status_code, error_code, error_message } => {
                write!(f, "{doing}: rejected with {status_code} {error_code}: {error_message}")
            }
            Cause::Anomaly { detail } => write!(f, "{doing}: anomaly: {detail}"),
            Cause::TokenExpired => {
                write!(f, "{doing}: the certificate's ownership token is older than its hour")
            }
        }
    }
}

impl std::error::Error for Failure {}

/// From this skew on, in seconds, a refused signature is blamed on the clock: the service's window is ±5 minutes, and
/// the `date` header has whole seconds and a network delay in it.
pub const SKEW_LIMIT_S: i64 = 240;

const CONNACK_SERVER_UNAVAILABLE: u8 = 3;

fn connack_meaning(code: u8) -> &'static str {
    match code {
        1 => "unacceptable protocol version",
        2 => "client identifier rejected",
        3 => "server unavailable",
        4 => "bad user name or password",
        5 | 7 => "not authorized",
        _ => "reserved",
    }
}

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
    /// How many dials in a row may fail, for one worker, after one has succeeded.
    pub dials: u32,
    /// How many dials in a row may fail before any has succeeded: a wrong setting should show soon.
    pub first_dials: u32,
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
        }
    }
}

/// What has been tried before a failure, as far as [`remedy`] needs to know.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tried {
    /// How many times this request was sent, or this worker dialled in a row, this failure included: at least 1.
    pub attempts: u32,
    /// Whether any dial of the run has succeeded.
    pub has_connected: bool,
    /// A number drawn evenly from 0 to 1: the jitter. Given, so that this stays a function.
    pub jitter: f64,
}

/// What to do about `failure`: pure and total, the only retry policy.
///
/// Acts on `statusCode` alone, never on `errorCode` or a message, whose texts are not documented.
pub fn remedy(failure: &Failure, tried: Tried, policy: &RetryPolicy) -> Remedy {
    let after = backoff(tried, policy);
    if failure.stage.is_dialling() {
        let allowed = match (failure.is_refusal(), tried.has_connected) {
            // Before the first success a refusal speaks for all dials; later it may be one node's hiccup.
            (true, false) => 1,
            (false, false) => policy.first_dials,
            (_, true) => policy.dials,
        };
        return match tried.attempts < allowed {
            false => Remedy::StopRun,
            true if failure.is_throttle() => Remedy::Slower { after },
            true => Remedy::Redial { after },
        };
    }
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

/// Exponential backoff with full jitter: evenly from zero to base · 2^(attempts − 1), or to the cap.
fn backoff(tried: Tried, policy: &RetryPolicy) -> Duration {
    let doublings = tried.attempts.saturating_sub(1).min(20);
    let ceiling = policy.base.saturating_mul(1 << doublings).min(policy.cap);
    ceiling.mul_f64(tried.jitter.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rejected(stage: Stage, status_code: u16) -> Failure {
        let cause = Cause::Rejected { status_code, error_code: String::new(), error_message: String::new() };
        Failure::new(stage, cause)
    }

    fn upgrade_refused(status: u16, skew_s: Option<i64>) -> Failure {
        Failure::new(Stage::Upgrade, Cause::UpgradeRefused { status, message: String::from("no"), skew_s })
    }

    fn tried(attempts: u32) -> Tried {
        Tried { attempts, has_connected: true, jitter: 1.0 }
    }

    fn after(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn the_status_code_alone_decides_about_a_rejection() {
        let policy = RetryPolicy::default();
        let register = |status| remedy(&rejected(Stage::RegisterThing, status), tried(1), &policy);
        assert_eq!(register(429), Remedy::Slower { after: after(200) });
        for status in [500, 502, 503, 599] {
            assert_eq!(register(status), Remedy::Again { after: after(200) });
        }
        for status in [400, 401, 403, 404, 409, 422, 499] {
            assert_eq!(register(status), Remedy::GiveUp);
        }
    }

    #[test]
    fn waits_grow_exponentially_to_a_cap_with_full_jitter() {
        let policy = RetryPolicy { attempts: u32::MAX, ..RetryPolicy::default() };
        let wait = |attempts, jitter| match remedy(
            &rejected(Stage::RegisterThing, 500),
            Tried { jitter, ..tried(attempts) },
            &policy,
        ) {
            Remedy::Again { after } => after,
            other => panic!("{other:?}"),
        };
        let full: Vec<_> = (1..=4).map(|attempts| wait(attempts, 1.0)).collect();
        assert_eq!(full, [after(200), after(400), after(800), after(1_600)]);
        assert_eq!(wait(3, 0.0), Duration::ZERO);
        assert_eq!(wait(3, 0.5), after(400));
        assert_eq!(wait(1_000_000, 1.0), policy.cap);
    }

    #[test]
    fn nothing_is_tried_for_ever() {
        let policy = RetryPolicy::default();
        let second = Duration::from_secs(1);
        let causes = [
            Cause::NoPuback { after: second },
            Cause::NoReply { after: second },
            Cause::Closed { detail: String::new() },
            Cause::Garbled { detail: String::new() },
            Cause::Anomaly { detail: String::new() },
            rejected(Stage::RegisterThing, 500).cause,
            rejected(Stage::RegisterThing, 429).cause,
        ];
        for cause in causes {
            let failure = Failure::new(Stage::RegisterThing, cause);
            assert_ne!(remedy(&failure, tried(1), &policy), Remedy::GiveUp, "{failure}");
            assert_eq!(remedy(&failure, tried(1_000), &policy), Remedy::GiveUp, "{failure}");
        }
        let refused = Failure::new(Stage::Tcp, Cause::Unreachable { detail: String::new() });
        assert_eq!(remedy(&refused, tried(1_000), &policy), Remedy::StopRun);
    }

    #[test]
    fn a_refusal_before_the_first_success_stops_the_run_at_once_and_later_only_if_it_lasts() {
        let policy = RetryPolicy::default();
        let refusals = [
            upgrade_refused(403, None),
            Failure::new(Stage::Connack, Cause::ConnectRefused { code: 5 }),
            Failure::new(Stage::Suback, Cause::SubscriptionRefused { filter: String::new() }),
        ];
        for failure in refusals {
            let first = Tried { has_connected: false, ..tried(1) };
            assert_eq!(remedy(&failure, first, &policy), Remedy::StopRun, "{failure}");
            assert!(matches!(remedy(&failure, tried(1), &policy), Remedy::Redial { .. }), "{failure}");
            assert_eq!(remedy(&failure, tried(policy.dials), &policy), Remedy::StopRun, "{failure}");
        }
        let busy = Failure::new(Stage::Connack, Cause::ConnectRefused { code: 3 });
        assert!(matches!(
            remedy(&busy, Tried { has_connected: false, ..tried(1) }, &policy),
            Remedy::Redial { .. }
        ));
    }

    #[test]
    fn the_service_may_have_acted_unless_it_said_that_it_did_not() {
        let second = Duration::from_secs(1);
        assert!(Failure::new(Stage::RegisterThing, Cause::NoReply { after: second }).may_have_acted());
        assert!(Failure::new(Stage::RegisterThing, Cause::NoPuback { after: second }).may_have_acted());
        assert!(rejected(Stage::RegisterThing, 500).may_have_acted());
        assert!(!rejected(Stage::RegisterThing, 429).may_have_acted());
        assert!(!rejected(Stage::RegisterThing, 400).may_have_acted());
        assert!(!upgrade_refused(403, None).may_have_acted());
    }

    #[test]
    fn a_skewed_clock_is_named() {
        let message = upgrade_refused(403, Some(3_600)).to_string();
        assert!(message.contains("clock skew") && message.contains("3600 s ahead"), "{message}");
        assert!(upgrade_refused(403, Some(-3_600)).to_string().contains("3600 s behind"));
        assert!(!upgrade_refused(403, Some(1)).to_string().contains("clock"));
        assert!(upgrade_refused(403, Some(3_600)).hint().contains("clock"));
    }

    #[test]
    fn a_message_names_the_step_and_the_hint_what_to_do() {
        let refused = Failure::new(Stage::Connack, Cause::ConnectRefused { code: 7 });
        assert!(
            refused.to_string().contains("MQTT CONNECT") && refused.to_string().contains("not authorized")
        );
        assert!(refused.hint().contains("iot:Connect"));
        let closed = Failure::new(Stage::Suback, Cause::Closed { detail: String::from("EOF") });
        assert!(closed.hint().contains("iot:Subscribe"));
    }
}
