//! Figures against the truth: of the latency law, of the wire as an observer saw it, and of a queue computed by hand.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use fleetmint::emulator::scenario::LatencyLaw;
use fleetmint::engine::End;
use fleetmint::engine::load::Scenario;
use fleetmint::event::Operation;
use fleetmint::metrics::Latency;
use fleetmint::schedule::Spacing;

use super::lab::{Lab, Results, ms};

const QUANTILES: [f64; 5] = [0.5, 0.9, 0.99, 0.999, 1.0];

/// Half a microsecond to round, and the width of a bucket: three digits.
fn is_to_precision(reported_us: u64, truth: Duration) -> bool {
    let (reported, truth) = (reported_us as f64, truth.as_secs_f64() * 1e6);
    (truth - 1.0..=truth * 1.001 + 1.0).contains(&reported)
}

/// The value that the share `q` of all does not exceed.
fn quantile(sorted: &[Duration], q: f64) -> Duration {
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

fn assert_same(what: &str, reported: &Latency, mut truth: Vec<Duration>) {
    truth.sort();
    assert_eq!(reported.count(), truth.len() as u64, "{what}");
    for q in QUANTILES {
        let (reported, truth) = (reported.quantile(q), quantile(&truth, q));
        assert!(is_to_precision(reported, truth), "{what}, {q}: {reported} us, in truth {truth:?}");
    }
}

fn create_law(law: &str) -> String {
    format!("[latency]\ncreate_keys_and_certificate = {law}\n")
}

fn service(results: &Results) -> &Latency {
    &results.outcome.metrics.operation(Operation::CreateCertificate).service
}

fn response(results: &Results) -> &Latency {
    &results.outcome.metrics.operation(Operation::CreateCertificate).response
}

#[test]
fn reported_latencies_are_those_of_the_law_and_of_the_wire() {
    let laws = [
        ("\"5ms\"", LatencyLaw::constant(ms(5))),
        ("\"5ms 98%, 100ms 2%\"", LatencyLaw::points(&[(ms(5), 0.98), (ms(100), 0.02)]).unwrap()),
        ("{ median = \"200ms\", sigma = 0.5 }", LatencyLaw::log_normal(ms(200), 0.5).unwrap()),
    ];
    for (text, law) in laws {
        let mut lab = Lab::new(Scenario::Create, "hold 100/s 20s").emulating(&create_law(text));
        // Enough that nothing waits: the response time is the service time then.
        lab.plan.connections = 300;
        let results = lab.run();
        assert!(matches!(results.outcome.end, End::Complete), "{:?}", results.outcome.end);
        let wire = results.exchanges.clone();
        assert_eq!(wire.len(), 2_000);
        assert_same(text, service(&results), wire.clone());
        assert_same(text, response(&results), wire);
        for q in QUANTILES {
            if q == 1.0 && law.quantile(1.0) > ms(1_000) {
                // The largest of some draws says nothing about a law without bounds.
                continue;
            }
            // Four standard deviations of a quantile's rank; tokio's timer rounds up to a millisecond.
            let spread = 4.0 * (q * (1.0 - q) / 2_000.0).sqrt();
            let reported = service(&results).quantile(q) as f64 / 1e6;
            let least = law.quantile(q - spread).as_secs_f64();
            assert!(reported >= least * 0.999, "{text}, {q}: {reported} s, at least {least} s");
            let most = law.quantile(q + spread).as_secs_f64();
            assert!(reported <= (most + 0.001) * 1.001, "{text}, {q}: {reported} s, at most {most} s");
        }
    }
}

/// What stalls for two seconds in the middle.
const STALL: &str = "[latency]\ncreate_keys_and_certificate = \"5ms\"\n\
    [[latency.stalls]]\nfrom = \"8s\"\nlasts = \"2s\"\n";

/// The truth about a stall: arrivals that are due every 10 ms, `connections` that take them in their order, 5 ms each, and
/// nothing taken up between 8 s and 10 s. Service and response times.
fn queue_with_stall(connections: usize, arrivals: u64) -> (Vec<Duration>, Vec<Duration>) {
    let mut free: BinaryHeap<_> = (0..connections).map(|_| Reverse(Duration::ZERO)).collect();
    let times = (0..arrivals).map(|number| {
        let due = ms(10 * number);
        let Reverse(freed) = free.pop().unwrap();
        let sent = due.max(freed);
        let taken_up = if (ms(8_000)..ms(10_000)).contains(&sent) { ms(10_000) } else { sent };
        let replied = taken_up + ms(5);
        free.push(Reverse(replied));
        (replied - sent, replied - due)
    });
    times.unzip()
}

fn stalled(connections: usize) -> Results {
    let mut lab = Lab::new(Scenario::Create, "hold 100/s 20s").emulating(STALL);
    lab.plan.connections = connections;
    lab.plan.max_connections = connections;
    lab.run()
}

#[test]
fn a_stall_is_seen_by_every_arrival_that_was_due_in_it() {
    for connections in [4, 300] {
        let results = stalled(connections);
        let (in_service, in_response) = queue_with_stall(connections, 2_000);
        assert_same(&format!("service, {connections}"), service(&results), in_service);
        assert_same(&format!("response, {connections}"), response(&results), in_response);
        assert_eq!(results.outcome.metrics.arrivals.missed, 0);
    }
}

/// Why there is a response time. Four clients that wait for each answer before they send the next request, as many tools
/// do, send four requests into the stall, of 2,000: 99.8 % of what they time is fast. Users, who do not wait for each other,
/// would have met it with one request in ten.
#[test]
fn timing_from_the_send_hides_a_stall_and_timing_from_the_due_instant_does_not() {
    let results = stalled(4);
    assert!(is_to_precision(service(&results).quantile(0.99), ms(5)), "the stall is not there");
    let slow = 2_000 - response(&results).count_at_most(ms(100));
    assert!(
        (200..=240).contains(&slow),
        "{slow} arrivals waited for more than 100 ms, for they gather in the stall"
    );
    assert!(response(&results).quantile(0.99) > 1_500_000);
    let stall = &results.intervals[9].metrics;
    assert_eq!(stall.operation(Operation::CreateCertificate).counts.attempts, 0, "nothing ended in it");
}

#[test]
fn the_generator_says_how_late_it_is_itself() {
    let even = Lab::new(Scenario::Create, "hold 100/s 5s").run();
    assert_eq!(even.outcome.metrics.lateness.count(), 500);
    assert!(even.outcome.metrics.lateness.quantile(1.0) <= 1, "instants that the clock can meet are met");
    let mut lab = Lab::new(Scenario::Create, "hold 100/s 5s");
    lab.plan.spacing = Spacing::Poisson;
    let uneven = lab.run().outcome.metrics.lateness;
    // The timer has milliseconds: the truth is half of one on the average.
    assert!(uneven.quantile(1.0) <= 1_001 && uneven.quantile(0.5) > 100, "{:?}", uneven.figures());
}
