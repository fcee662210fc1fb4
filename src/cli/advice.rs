//! Advice for users. The library's errors say what is wrong; this module says which option of which verb helps.

use std::path::Path;

use crate::call::Call;
use crate::engine::End;
use crate::event::Operation;
use crate::failure::{Cause, Failure, Stage};
use crate::ledger::{Account, BoundTo, Counts, NotThere, Problem};
use crate::limit_search::{Finding, Stopped};
use crate::provisioning::Topics;
use crate::usage::{Bound, Usage};
use crate::wording::number;

/// Why a run of `verb` ended, if unexpectedly, and what to do. A provisioning run passes its `topics`.
pub(super) fn ended(verb: &str, end: &End, topics: Option<&Topics>) -> Vec<String> {
    match end {
        End::Complete | End::OutOfDevices | End::Drained | End::Aborted => Vec::new(),
        End::ThresholdLost => vec![String::from("stopped: a threshold is surely missed")],
        End::Stopped(failure) => stopped(verb, failure),
        End::Refused { failure, times } => refused(verb, failure, *times, topics),
        End::Ledger(error) => vec![format!("error: {error}")],
        End::Bug(detail) => vec![bug(detail)],
    }
}

fn stopped(verb: &str, failure: &Failure) -> Vec<String> {
    let remedy = remedy(verb, failure).map(|remedy| format!("  -> {remedy}"));
    [format!("error: stopped: {failure}")].into_iter().chain(remedy).collect()
}

/// What to do about a failure, and with which options.
pub(super) fn remedy(verb: &str, failure: &Failure) -> Option<String> {
    match (failure.hint(), options(verb, failure)) {
        ("", None) => None,
        (hint, None) => Some(hint.to_owned()),
        ("", Some(options)) => Some(options.to_owned()),
        (hint, Some(options)) => Some(format!("{hint}: {options}")),
    }
}

/// Why a run was refused, with what was seen: how often, where, and that nothing else was.
fn refused(verb: &str, failure: &Failure, times: u32, topics: Option<&Topics>) -> Vec<String> {
    let mut words = stopped(verb, failure);
    let Some(call) = failure.stage.call() else { return words };
    let topic = topics.map_or(String::new(), |topics| format!(" (topic {})", topics.call(call).request));
    let seen = match failure.cause {
        Cause::Closed { .. } => format!("{times} times the connection ended in the place of an answer"),
        Cause::Garbled { .. } | Cause::Anomaly { .. } => format!("{times} times the answer made no sense"),
        _ => format!("{} refused so", number(times.into(), "device was", "devices were")),
    };
    words.insert(1, format!("  {seen}, and in this run no {}{topic} was accepted", call.spelled()));
    words
}

/// The options that concern a failure.
fn options(verb: &str, failure: &Failure) -> Option<&'static str> {
    let speed = Speed::of(verb);
    match &failure.cause {
        Cause::Credentials { .. } => Some(
            "`aws sso login`, say; AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN for temporary ones); \
             or --profile",
        ),
        Cause::Unresolvable { .. } => {
            Some("--endpoint; `aws iot describe-endpoint --endpoint-type iot:Data-ATS` prints it")
        }
        Cause::Tls { detail } if detail.contains("trusted authority") => Some("--ca-file"),
        Cause::Unreachable { .. } | Cause::Tls { .. } | Cause::UpgradeRefused { status: 404, .. } => {
            Some("--endpoint")
        }
        Cause::UpgradeRefused { status: 429, .. } => Some(speed.connects),
        Cause::UpgradeRefused { status: 401 | 403, .. } => Some(speed.identity),
        Cause::ConnectRefused { code: 2 | 4 | 5 | 7 } => Some("--client-id-prefix"),
        Cause::Closed { .. } if failure.stage == Stage::Suback => Some("--template"),
        Cause::NoPuback { .. } | Cause::Rejected { status_code: 429, .. } => Some(speed.requests),
        Cause::Rejected { status_code: 404, .. } => Some("--template, --region"),
        Cause::Rejected { status_code: 400..=499, .. }
            if failure.stage == Stage::Call(Call::CreateCertificateFromCsr) =>
        {
            Some("--key-type, --keys")
        }
        _ => None,
    }
}

/// The options that set a verb's speed, and whose credentials it uses.
struct Speed {
    connects: &'static str,
    requests: &'static str,
    identity: &'static str,
}

impl Speed {
    fn of(verb: &str) -> Self {
        match verb.split(' ').next() {
            Some("provision" | "check") => Self {
                connects: "--connect-rate",
                requests: "--create-rate, --register-rate",
                identity: "--profile, --region",
            },
            Some("load") => Self {
                connects: "--connect-rate, --rate or --profile",
                requests: "--rate or --profile",
                identity: "--aws-profile, --region",
            },
            _ => Self { connects: "--max-rate", requests: "--max-rate", identity: "--profile, --region" },
        }
    }
}

/// The option that makes a run faster, if one may help.
pub(super) fn faster(usage: &Usage) -> Option<String> {
    let options: Vec<_> = match usage.bound() {
        Bound::Limits(limits) => {
            let configured = limits.iter().filter(|limit| limit.found.is_none());
            configured.filter_map(|limit| rate_option(limit.operation)).collect()
        }
        Bound::Connections { .. } => vec!["--connections"],
        _ => Vec::new(),
    };
    (!options.is_empty()).then(|| format!("what bound the run is set with {}", options.join(" and ")))
}

fn rate_option(operation: Operation) -> Option<&'static str> {
    match operation {
        Operation::Connect => Some("--connect-rate"),
        Operation::CreateCertificate => Some("--create-rate"),
        Operation::RegisterThing => Some("--register-rate"),
        _ => None,
    }
}

/// What to do about a refused ledger.
pub(super) fn of_ledger(problem: &Problem) -> Option<&'static str> {
    match problem {
        Problem::OtherContent { .. } => Some(
            "--change-settings takes the new ones for the devices that are still to come; registered ones stay as they are",
        ),
        Problem::NotThere(NotThere::Keys { .. }) => Some("check --key against the lot's key column"),
        Problem::NotThere(NotThere::State { .. }) => Some("choose another --state, or leave this --key out"),
        Problem::NotThere(NotThere::Run { .. }) => Some("`fleetmint status` lists them"),
        Problem::OtherLot(refusal) if refusal.registered > 0 => Some(
            "a registered device whose values or board are others now: fleetmint retry --state registered --reissue returns it first",
        ),
        Problem::Unsealing => Some("--seal-to names recipients"),
        Problem::SinkPlainKey => Some("--seal-to, from a ledger's first run on, seals them"),
        Problem::SinkFailed { .. } => {
            Some("nothing was registered without it; --keys-sink says where it is now")
        }
        Problem::SinkTaken { .. } => Some(
            "if that run goes on, leave the lot to it; if its ledger is lost, `fleetmint restore LOT.csv --from-sink DIR` makes it anew",
        ),
        Problem::SinkAhead { .. } => Some(
            "go on with that one; if it is lost, move this copy away, and `fleetmint restore LOT.csv --from-sink DIR` makes it anew",
        ),
        Problem::SinkMissing { .. } => Some("it is named after the ledger: see --ledger and --shard"),
        Problem::SinkOtherLot { .. } => Some("restore with the lot that it was made from"),
        Problem::OtherBinding { what: BoundTo::Account, found, .. }
            if Account::from(found.as_str()) == Account::Emulator =>
        {
            Some(
                "it is of a trial on the emulator: give the real run another ledger (--ledger), or move that one away",
            )
        }
        _ => None,
    }
}

/// The option that makes a search go further, if one may help.
pub(super) fn further(finding: &Finding) -> Option<&'static str> {
    let because = match finding {
        Finding::Limit { .. } => return None,
        Finding::NoLimit { because, .. } => *because,
        Finding::Nothing { because, .. } => (*because)?,
    };
    match because {
        Stopped::MaxRate => Some("--max-rate says how far to search"),
        Stopped::Generator => {
            Some("--max-connections allows more connections; or this machine's cores are too few")
        }
        Stopped::Devices => Some("--devices gives the search more devices"),
        Stopped::Certificates | Stopped::Asked | Stopped::Unsteady => None,
    }
}

/// The error for something that cannot happen.
fn bug(detail: &str) -> String {
    format!("error: a bug in fleetmint, please report it: {detail}")
}

/// What a load test's or a search's devices leave in the account, and how to find it.
pub(super) fn left_behind(counts: &Counts, ledger: &Path) -> Vec<String> {
    let ledger = ledger.display();
    let mut words = Vec::new();
    let unregistered = counts.issued_not_sent + counts.issued_may_sent;
    if unregistered > 0 {
        words.push(format!(
            "{} issued and not registered: the service deletes those by itself when their tokens lapse, after an hour",
            number(unregistered, "certificate was", "certificates were")
        ));
    }
    if counts.registered > 0 {
        words.push(format!(
            "{}: `fleetmint cleanup {ledger}` takes them out of the account again; --cleanup does so after the test",
            number(counts.registered, "thing was registered, and stays", "things were registered, and stay")
        ));
    }
    if counts.issued_may_sent + counts.unknown > 0 {
        words.push(format!("what is uncertain: fleetmint status {ledger}"));
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_verb_is_told_of_its_own_options() {
        let throttled = Failure::new(
            Stage::Call(Call::CreateKeysAndCertificate),
            Cause::Rejected { status_code: 429, error_code: String::new(), error_message: String::new() },
        );
        let told = |verb, failure: &Failure| stopped(verb, failure).join("\n");
        let said = ["provision", "load create", "find-limit create"].map(|verb| told(verb, &throttled));
        let forbidden = Failure::new(
            Stage::Upgrade,
            Cause::UpgradeRefused { status: 403, message: String::new(), skew_s: None },
        );
        assert_eq!(
            [&said[..], &[told("load connect", &forbidden)]].concat(),
            [
                "error: stopped: CreateKeysAndCertificate: rejected with 429\n  -> lower the rate to the \
                 account's quota: --create-rate, --register-rate",
                "error: stopped: CreateKeysAndCertificate: rejected with 429\n  -> lower the rate to the \
                 account's quota: --rate or --profile",
                "error: stopped: CreateKeysAndCertificate: rejected with 429\n  -> lower the rate to the \
                 account's quota: --max-rate",
                "error: stopped: the WebSocket upgrade: the service answered HTTP 403\n  -> check the \
                 access key, the secret key, the session token (temporary credentials expire) and the \
                 region: --aws-profile, --region"
            ]
        );
    }

    #[test]
    fn advice_is_about_what_is_wrong() {
        let told = |stage, cause| stopped("provision", &Failure::new(stage, cause)).join("\n");
        let refused = |status| Cause::UpgradeRefused { status, message: String::new(), skew_s: None };
        let absent = told(Stage::Upgrade, refused(404));
        let tls = |detail: &str| told(Stage::Tls, Cause::Tls { detail: detail.to_owned() });
        let name = tls("the server's certificate is for another name (x)");
        let issuer = tls("the server's certificate is not signed by a trusted authority (UnknownIssuer)");
        let expired = tls("the server's certificate has expired (x)");
        assert_eq!(
            [absent, name, issuer, expired],
            [
                "error: stopped: the WebSocket upgrade: the service answered HTTP 404\n  -> check the \
                 endpoint: what answers there does not take MQTT over WebSocket at this path: --endpoint",
                "error: stopped: the TLS handshake: the server's certificate is for another name (x)\n  -> \
                 check the endpoint's name (use the -ats endpoint): --endpoint",
                "error: stopped: the TLS handshake: the server's certificate is not signed by a trusted \
                 authority (UnknownIssuer)\n  -> AWS's -ats endpoints need no CA file; an endpoint with a CA \
                 of its own does: --ca-file",
                "error: stopped: the TLS handshake: the server's certificate has expired (x)\n  -> check \
                 this machine's clock; if it is right, it is the server's certificate that is out of date: \
                 --endpoint"
            ]
        );
    }
}
