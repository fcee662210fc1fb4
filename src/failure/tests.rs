use super::*;
use crate::call::Call;

fn rejected(stage: Stage, status_code: u16) -> Failure {
    let cause = Cause::Rejected { status_code, error_code: String::new(), error_message: String::new() };
    Failure::new(stage, cause)
}

fn upgrade_refused(status: u16, skew_s: Option<i64>) -> Failure {
    Failure::new(Stage::Upgrade, Cause::UpgradeRefused { status, message: String::from("no"), skew_s })
}

fn tried(attempts: u32) -> Tried {
    Tried { attempts, standing: Standing::Reached, jitter: 1.0 }
}

fn after(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn the_status_code_alone_decides_about_a_rejection() {
    let policy = RetryPolicy::default();
    let register = |status| remedy(&rejected(Stage::Call(Call::RegisterThing), status), tried(1), &policy);
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
        &rejected(Stage::Call(Call::RegisterThing), 500),
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
        rejected(Stage::Call(Call::RegisterThing), 500).cause,
        rejected(Stage::Call(Call::RegisterThing), 429).cause,
    ];
    for cause in causes {
        let failure = Failure::new(Stage::Call(Call::RegisterThing), cause);
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
        let first = Tried { standing: Standing::Unreached, ..tried(1) };
        assert_eq!(remedy(&failure, first, &policy), Remedy::StopRun, "{failure}");
        assert!(matches!(remedy(&failure, tried(1), &policy), Remedy::Redial { .. }), "{failure}");
        assert_eq!(remedy(&failure, tried(policy.dials), &policy), Remedy::StopRun, "{failure}");
    }
    let busy = Failure::new(Stage::Connack, Cause::ConnectRefused { code: 3 });
    assert!(matches!(
        remedy(&busy, Tried { standing: Standing::Unreached, ..tried(1) }, &policy),
        Remedy::Redial { .. }
    ));
}

#[test]
fn the_service_may_have_acted_unless_it_said_that_it_did_not() {
    let second = Duration::from_secs(1);
    assert!(
        Failure::new(Stage::Call(Call::RegisterThing), Cause::NoReply { after: second }).may_have_acted()
    );
    assert!(
        Failure::new(Stage::Call(Call::RegisterThing), Cause::NoPuback { after: second }).may_have_acted()
    );
    assert!(rejected(Stage::Call(Call::RegisterThing), 500).may_have_acted());
    assert!(!rejected(Stage::Call(Call::RegisterThing), 429).may_have_acted());
    assert!(!rejected(Stage::Call(Call::RegisterThing), 400).may_have_acted());
    assert!(!upgrade_refused(403, None).may_have_acted());
}

#[test]
fn a_skewed_clock_is_named() {
    let said = [3_600, -3_600, 1].map(|skew| upgrade_refused(403, Some(skew)).to_string());
    let hint = upgrade_refused(403, Some(3_600)).hint().to_owned();
    assert_eq!(
        [&said[..], &[hint]].concat(),
        [
            "the WebSocket upgrade: the service answered HTTP 403: no; clock skew: this machine's clock is 3600 \
             s ahead of the service's",
            "the WebSocket upgrade: the service answered HTTP 403: no; clock skew: this machine's clock is 3600 \
             s behind the service's",
            "the WebSocket upgrade: the service answered HTTP 403: no",
            "set this machine's clock: signatures are valid for 5 minutes around the service's time"
        ]
    );
}

#[test]
fn a_message_names_the_step_and_the_hint_what_to_do() {
    let refused = Failure::new(Stage::Connack, Cause::ConnectRefused { code: 7 });
    let closed = Failure::new(Stage::Suback, Cause::Closed { detail: String::from("EOF") });
    let said = [&refused, &closed].map(|failure| format!("{failure}; {}", failure.hint()));
    assert_eq!(
        said,
        [
            "MQTT CONNECT: refused with CONNACK return code 7 (not authorized); allow iot:Connect on \
             client/<client id prefix>* to these credentials, or choose a prefix that is allowed",
            "SUBSCRIBE to the response topics: the connection ended: EOF; the service closes the connection \
             where iot:Subscribe is not allowed: check the policy's topicfilter/ resources and the template's \
             name"
        ]
    );
}

fn served(ago_s: u64) -> Standing {
    Standing::Served { ago: Duration::from_secs(ago_s) }
}

#[test]
fn a_worker_with_setbacks_in_a_row_goes_on_only_while_the_service_works_for_someone() {
    let policy = RetryPolicy::default();
    let lost = Failure::new(Stage::Idle, Cause::Closed { detail: String::new() });
    let unreachable = Failure::new(Stage::Tcp, Cause::Unreachable { detail: String::new() });
    for failure in [&lost, &unreachable] {
        let redials =
            |attempts, standing| match redial(failure, Tried { standing, ..tried(attempts) }, &policy) {
                Remedy::Redial { .. } => true,
                Remedy::StopRun => false,
                other => panic!("{other:?}"),
            };
        assert!(redials(1_000_000, served(0)), "others are served");
        assert!(redials(20, served(policy.patience.as_secs() - 1)), "it may be restarting");
        assert!(redials(policy.dials - 1, served(100_000)), "nobody has dialled for long");
        assert!(!redials(policy.dials, served(policy.patience.as_secs())));
        assert!(redials(policy.dials - 1, Standing::Reached) && !redials(policy.dials, Standing::Reached));
        assert!(!redials(policy.first_dials, Standing::Unreached), "a wrong setting shows soon");
    }
    let refused = Tried { standing: served(0), ..tried(policy.dials) };
    assert_eq!(
        redial(&upgrade_refused(403, None), refused, &policy),
        Remedy::StopRun,
        "it will not change its mind"
    );
}

#[test]
fn redials_come_later_each_time() {
    let policy = RetryPolicy::default();
    let lost = Failure::new(Stage::Idle, Cause::Closed { detail: String::new() });
    let wait = |attempts| match redial(&lost, Tried { standing: served(0), ..tried(attempts) }, &policy) {
        Remedy::Redial { after } => after,
        other => panic!("{other:?}"),
    };
    assert_eq!([wait(1), wait(2), wait(50)], [after(200), after(400), policy.cap]);
    let throttled = redial(&upgrade_refused(429, None), tried(1), &policy);
    assert_eq!(throttled, Remedy::Slower { after: after(200) });
}
