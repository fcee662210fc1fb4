use std::time::Duration;

use super::*;
use crate::call::Call;
use crate::event::{DialPhases, Note, Timing};
use crate::failure::{Cause, Failure, Stage};

fn threshold(text: &str) -> Threshold {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn exchanged(operation: Operation, service_ms: u64, outcome: Result<(), Failure>) -> Note {
    let timing = Timing { wait: Duration::from_millis(100), service: Duration::from_millis(service_ms) };
    Note::Exchanged { operation, timing, outcome }
}

fn refused(status_code: u16) -> Result<(), Failure> {
    let cause = Cause::Rejected { status_code, error_code: String::new(), error_message: String::new() };
    Err(Failure::new(Stage::Call(Call::RegisterThing), cause))
}

/// 1000 arrivals in 10 s, of which 5 were missed; registrations of 1 to 98 ms ten times each, 10 rejected, 5 throttled.
fn metrics() -> Metrics {
    let mut metrics = Metrics::default();
    for number in 0..1_000 {
        metrics.record(&Note::Scheduled { lateness: Duration::from_micros(number) });
        metrics.record(&if number < 5 { Note::Missed } else { Note::Started });
    }
    for ms in 1..=98 {
        for _ in 0..10 {
            metrics.record(&exchanged(Operation::RegisterThing, ms, Ok(())));
        }
    }
    (0..10).for_each(|_| metrics.record(&exchanged(Operation::RegisterThing, 1, refused(400))));
    (0..5).for_each(|_| metrics.record(&exchanged(Operation::RegisterThing, 1, refused(429))));
    let timing = Timing { wait: Duration::ZERO, service: Duration::from_millis(30) };
    let phases = DialPhases { tls: Some(Duration::from_millis(20)), ..DialPhases::default() };
    metrics.record(&Note::Dialled { timing, phases, outcome: Ok(()) });
    let timing = Timing { wait: Duration::ZERO, service: Duration::from_secs(2) };
    metrics.record(&Note::Finished { operation: Operation::Provision, timing, outcome: refused(400) });
    metrics
}

#[test]
fn every_quantity_is_measured_in_its_unit() {
    let cases = [
        ("register_thing.p50<150ms", true, "149.1 ms"),
        ("register_thing.response.p50 <= 149ms", false, "149.1 ms"),
        ("register_thing.service.p50<49ms", false, "49.02 ms"),
        ("register_thing.service.max<98.1ms", true, "98.05 ms"),
        ("register_thing.service.mean>49ms", true, "49.50 ms"),
        ("register_thing.service.p99.9>=1s", false, "98.05 ms"),
        ("connect.tls.p99<1s", true, "20.02 ms"),
        ("connect.accepted=1", true, "1"),
        ("register_thing.rejected<=1%", false, "1.01 %"),
        ("rejected<1.1%", true, "1.00 %"),
        ("rejected = 10", true, "10"),
        ("throttled==5", true, "5"),
        ("failed!=15", false, "15"),
        ("missed=0", false, "5"),
        ("missed<=0.5%", true, "0.50 %"),
        ("register_thing.accepted>=98/s", true, "98.0/s"),
        ("started>99/s", true, "99.5/s"),
        ("lateness.max<1ms", true, "999 us"),
        ("provision.failed>0", true, "1"),
        ("connections_lost=0", true, "0"),
    ];
    let metrics = metrics();
    for (text, passed, shown) in cases {
        let judgement = threshold(text).judge(&metrics, Duration::from_secs(10));
        assert_eq!((judgement.passed, judgement.shown.as_str()), (passed, shown), "{text}");
        assert_eq!(judgement.threshold, text);
    }
}

#[test]
fn where_nothing_was_measured_nothing_is_passed() {
    for text in ["publish.p99<1h", "publish.rejected<100%", "missed<50%", "accepted>=0/s"] {
        let judgement = threshold(text).judge(&Metrics::default(), Duration::ZERO);
        assert_eq!((judgement.passed, judgement.measured), (false, None), "{text}");
    }
    assert!(threshold("missed=0").judge(&Metrics::default(), Duration::ZERO).passed, "a count is there");
}

#[test]
fn a_run_is_lost_when_it_cannot_recover_or_has_shown_enough() {
    let lost = |text: &str, metrics: &Metrics| threshold(text).is_lost(metrics, Duration::from_secs(1));
    let mut metrics = Metrics::default();
    metrics.record(&Note::Scheduled { lateness: Duration::ZERO });
    assert!(!lost("missed=0", &metrics));
    metrics.record(&Note::Missed);
    assert!(lost("missed=0", &metrics) && lost("missed<1", &metrics) && !lost("missed<=1", &metrics));
    assert!(!lost("missed<1%", &metrics), "one of one is no share yet");
    assert!(!lost("accepted>=100", &metrics) && !lost("accepted>=100/s", &metrics), "it may still come");
    for count in 1..=99 {
        metrics.record(&exchanged(Operation::Publish, 500, Ok(())));
        assert_eq!(lost("publish.p50<10ms", &metrics), count >= 20);
        assert!(!lost("publish.p99<10ms", &metrics));
    }
    metrics.record(&exchanged(Operation::Publish, 500, Ok(())));
    assert!(lost("publish.p99<10ms", &metrics));
}

#[test]
fn what_is_no_threshold_is_refused_with_its_column() {
    let cases = [
        ("", 1, "an operation"),
        ("register.p99<1s", 1, "an operation"),
        ("register_thing<1s", 15, "a latency"),
        ("register_thing.p100<1s", 16, "a latency"),
        ("register_thing.service.q99<1s", 24, "p50"),
        ("register_thing.tls.p99<1s", 16, "a latency"),
        ("lateness<1s", 9, "p50"),
        ("register_thing.p99", 19, "<, <="),
        ("register_thing.p99<", 20, "a time"),
        ("register_thing.p99<500", 20, "a time"),
        ("register_thing.p99 < -1s", 22, "a time"),
        ("rejected<1s", 10, "a number"),
        ("rejected<101%", 10, "a number"),
        ("rejected!0", 9, "<, <="),
        ("missed=nan", 8, "a number"),
        ("größe<1", 1, "an operation"),
        ("missed=ä", 8, "a number"),
    ];
    for (text, column, wanted) in cases {
        let error = text.parse::<Threshold>().expect_err(text);
        assert_eq!(error.column, column, "{text}: {error}");
        assert!(error.wanted.starts_with(wanted), "{text}: {error}");
    }
}
