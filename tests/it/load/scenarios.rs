//! What each scenario does, what is counted of it, and how a run ends.

use std::time::Duration;

use fleetmint::emulator::scenario::{Acts, Fault, Faults};
use fleetmint::engine::load::{OnLoss, Scenario};
use fleetmint::engine::{End, Stop};
use fleetmint::event::Operation;
use fleetmint::metrics::Arrivals;
use fleetmint::schedule::Spacing;

use super::lab::{Lab, Results, ms};

fn accepted(results: &Results, operation: Operation) -> u64 {
    results.outcome.metrics.operation(operation).counts.accepted
}

fn arrivals(scheduled: u64, missed: u64) -> Arrivals {
    Arrivals { scheduled, started: scheduled - missed, missed }
}

#[test]
fn create_leaves_certificates_that_nothing_was_sent_for() {
    let results = Lab::new(Scenario::Create, "hold 50/s 4s").run();
    assert!(matches!(results.outcome.end, End::Complete), "{:?}", results.outcome.end);
    assert_eq!(results.outcome.metrics.arrivals, arrivals(200, 0));
    assert_eq!(accepted(&results, Operation::CreateCertificate), 200);
    let counts = results.outcome.ledger.as_ref().unwrap().view().counts().unwrap();
    assert_eq!((counts.issued_not_sent, counts.issued_may_sent, counts.pending), (200, 0, 100));
    results.network.with_account(|account| assert_eq!(account.state().certificates.len(), 200));
}

#[test]
fn provision_registers_each_arrivals_device() {
    let results = Lab::new(Scenario::Provision, "hold 50/s 4s")
        .emulating("[latency]\ncreate_keys_and_certificate = \"30ms\"\nregister_thing = \"70ms\"")
        .run();
    assert_eq!(results.outcome.metrics.arrivals, arrivals(200, 0));
    for (operation, took) in
        [(Operation::CreateCertificate, 30), (Operation::RegisterThing, 70), (Operation::Provision, 100)]
    {
        assert_eq!(accepted(&results, operation), 200, "{operation:?}");
        let response = results.outcome.metrics.operation(operation).response.figures();
        // A histogram shows the upper end of its bucket.
        assert!((took * 1_000..=took * 1_001).contains(&response.max), "{operation:?}: {response:?}");
    }
    let counts = results.outcome.ledger.as_ref().unwrap().view().counts().unwrap();
    assert_eq!((counts.registered, counts.pending), (200, 100));
    let slowest = results.outcome.slowest.iter().next().unwrap();
    assert_eq!((slowest.operation, slowest.device.as_str()), (Operation::Provision, "D0000001"));
}

#[test]
fn a_service_that_throttles_is_offered_the_same_rate_all_the_same() {
    let mut lab = Lab::new(Scenario::Create, "hold 40/s 20s").emulating(
        "[latency]\ncreate_keys_and_certificate = \"30ms\"\n[quotas]\ncreate_keys_and_certificate = \"10/s\"",
    );
    lab.plan.connections = 10;
    let results = lab.run();
    let create = results.outcome.metrics.operation(Operation::CreateCertificate);
    // A second's worth at once, and then 10 a second.
    assert!((205..=212).contains(&create.counts.accepted), "{:?}", create.counts);
    assert_eq!((create.counts.attempts, create.counts.throttled), (800, 800 - create.counts.accepted));
    assert!(create.response.figures().p99 < 50_000, "{:?}", create.response.figures());
}

#[test]
fn connect_opens_holds_and_closes() {
    let mut lab = Lab::new(Scenario::Connect { hold: ms(2_000) }, "hold 10/s 5s")
        .emulating("[latency]\nconnect = \"30ms\"\nsubscribe = \"10ms\"");
    lab.plan.max_connections = 100;
    let results = lab.run();
    assert_eq!(results.outcome.metrics.arrivals, arrivals(50, 0));
    let connect = results.outcome.metrics.operation(Operation::Connect);
    assert_eq!((connect.counts.attempts, connect.counts.accepted), (50, 50), "the trial is no arrival");
    assert!((40_000..40_050).contains(&connect.response.figures().max), "{:?}", connect.response.figures());
    // Ten a second, held for two seconds and a bit.
    let held: Vec<_> = results.intervals.iter().map(|interval| interval.connections).collect();
    assert!(held[2..5].iter().all(|held| (19..=22).contains(held)), "{held:?}");
    assert_eq!(held.len(), 7, "the last are held as long as the first: {held:?}");
}

#[test]
fn publish_times_the_way_of_a_message_there_and_back() {
    let results = Lab::new(Scenario::Publish { size: 64 }, "hold 50/s 4s")
        .emulating("[latency]\npublish = \"25ms\"")
        .run();
    assert!(matches!(results.outcome.end, End::Complete), "{:?}", results.outcome.end);
    assert_eq!(results.outcome.metrics.arrivals, arrivals(200, 0));
    let publish = results.outcome.metrics.operation(Operation::Publish);
    assert_eq!((publish.counts.attempts, publish.counts.accepted), (200, 200));
    assert!((25_000..25_030).contains(&publish.response.figures().max), "{:?}", publish.response.figures());
}

#[test]
fn arrivals_that_find_no_connection_in_time_are_missed_and_shown() {
    let mut lab = Lab::new(Scenario::Create, "hold 100/s 10s")
        .emulating("[latency]\ncreate_keys_and_certificate = \"100ms\"");
    lab.plan.connections = 2;
    lab.plan.max_connections = 5;
    lab.plan.max_wait = ms(1_000);
    let results = lab.run();
    // Five connections of 100 ms each bear 50/s; the others wait for a second, in vain.
    let Arrivals { scheduled, started, missed } = results.outcome.metrics.arrivals;
    assert_eq!((scheduled, started + missed), (1_000, 1_000));
    assert!((540..=560).contains(&started), "{started} started");
    let create = results.outcome.metrics.operation(Operation::CreateCertificate);
    assert_eq!(create.counts.accepted, started);
    let (service, response) = (create.service.figures(), create.response.figures());
    assert!((100_000..=100_100).contains(&service.max), "{service:?}");
    assert!((1_090_000..=1_101_100).contains(&response.max), "{response:?}");
    let most = results.intervals.iter().map(|interval| interval.connections).max();
    assert_eq!(most, Some(5));
}

#[test]
fn what_was_due_in_the_warm_up_is_in_no_figure() {
    let mut lab = Lab::new(Scenario::Create, "hold 10/s 3s; hold 100/s 2s");
    lab.emulated = Lab::new(Scenario::Create, "hold 1/s 1s")
        .emulating("[latency]\ncreate_keys_and_certificate = \"500ms\"")
        .emulated;
    lab.plan.warm_up = ms(3_000);
    let results = lab.run();
    assert_eq!(results.outcome.metrics.arrivals, arrivals(200, 0));
    assert_eq!(accepted(&results, Operation::CreateCertificate), 200);
    let seconds: Vec<_> = results
        .intervals
        .iter()
        .map(|interval| (interval.second, interval.metrics.arrivals.scheduled))
        .collect();
    assert_eq!(seconds, [(0, 100), (1, 100), (2, 0)], "second 0 begins when the warm-up ends");
    let counts = results.outcome.ledger.as_ref().unwrap().view().counts().unwrap();
    assert_eq!(counts.issued_not_sent, 230, "the ledger has all of it");
}

#[test]
fn arrivals_of_the_warm_up_that_are_missed_after_it_are_in_no_figure_either() {
    let mut lab = Lab::new(Scenario::Create, "hold 50/s 3s; hold 5/s 2s")
        .emulating("[latency]\ncreate_keys_and_certificate = \"100ms\"");
    (lab.plan.connections, lab.plan.max_connections, lab.plan.max_wait) = (1, 1, ms(1_000));
    lab.plan.warm_up = ms(3_000);
    let Arrivals { scheduled, started, missed } = lab.run().outcome.metrics.arrivals;
    assert_eq!((scheduled, started + missed), (10, 10), "{started} started, {missed} missed");
}

#[test]
fn the_seconds_add_up_to_the_figures() {
    let mut lab = Lab::new(Scenario::Provision, "ramp 0..200/s 5s; hold 50/s 2s");
    lab.plan.spacing = Spacing::Poisson;
    lab.faults.latency = (ms(1), ms(300));
    lab.faults.requests = Faults::of_requests([(reject(429), 0.05), (reject(403), 0.05)]);
    let results = lab.run();
    let mut sum = fleetmint::metrics::Metrics::default();
    results.intervals.iter().for_each(|interval| sum.merge(&interval.metrics));
    let whole = &results.outcome.metrics;
    assert_eq!(sum.arrivals, whole.arrivals);
    assert_eq!(whole.arrivals.scheduled, whole.arrivals.started);
    for operation in Operation::ALL {
        let (sum, whole) = (sum.operation(operation), whole.operation(operation));
        assert_eq!(sum.counts, whole.counts);
        assert_eq!(sum.response.figures(), whole.response.figures());
    }
    let create = whole.operation(Operation::CreateCertificate).counts;
    assert_eq!(create.attempts, whole.arrivals.started, "nothing is tried again");
    assert!(create.throttled > 0 && create.rejected > 0, "{create:?}");
    let provision = whole.operation(Operation::Provision).counts;
    assert_eq!(provision.attempts, whole.arrivals.started);
    let counts = results.outcome.ledger.as_ref().unwrap().view().counts().unwrap();
    assert_eq!(counts.registered, provision.accepted);
    assert!(results.intervals.is_sorted_by_key(|interval| interval.second));
}

#[test]
fn a_run_ends_when_the_devices_do() {
    let mut lab = Lab::new(Scenario::Create, "hold 50/s 10s");
    lab.devices = 120;
    let results = lab.run();
    assert!(matches!(results.outcome.end, End::OutOfDevices), "{:?}", results.outcome.end);
    assert_eq!(accepted(&results, Operation::CreateCertificate), 120);
    assert!(results.outcome.elapsed < Duration::from_secs(4), "{:?}", results.outcome.elapsed);
}

#[test]
fn a_lost_threshold_ends_the_run_if_it_is_to() {
    for (on_loss, attempts) in [(OnLoss::GoOn, 500), (OnLoss::Stop, 60)] {
        let mut lab = Lab::new(Scenario::Create, "hold 50/s 10s");
        lab.faults.requests = Faults::of_requests([(reject(403), 0.5)]);
        lab.plan.thresholds = vec!["rejected<1%".parse().unwrap(), "missed=0".parse().unwrap()];
        lab.plan.on_loss = on_loss;
        let results = lab.run();
        let judged: Vec<_> = results.outcome.judgements.iter().map(|judgement| judgement.passed).collect();
        assert_eq!(judged, [false, true]);
        let made = results.outcome.metrics.operation(Operation::CreateCertificate).counts.attempts;
        assert!(made.abs_diff(attempts) <= 60, "{on_loss:?}: {made} attempts");
        assert_eq!(matches!(results.outcome.end, End::ThresholdLost), on_loss == OnLoss::Stop);
    }
}

#[test]
fn a_service_that_cannot_be_reached_ends_the_run_before_it_begins() {
    for scenario in [Scenario::Create, Scenario::Connect { hold: ms(0) }] {
        let mut lab = Lab::new(scenario, "hold 50/s 10s");
        lab.faults.dials = 1.0;
        let results = lab.run();
        assert!(matches!(results.outcome.end, End::Stopped(_)), "{:?}", results.outcome.end);
        assert_eq!(results.outcome.metrics.arrivals.scheduled, 0);
    }
}

#[test]
fn a_drained_run_finishes_what_is_under_way() {
    let lab = Lab::new(Scenario::Create, "hold 50/s 1h").emulating(
        "[latency]\ncreate_keys_and_certificate = \"700ms\"\n[[latency.stalls]]\nfrom = \"2s\"\nlasts = \"500ms\"",
    );
    let stop = Stop::when(async { tokio::time::sleep(ms(2_200)).await });
    let results = Lab { devices: 400, stop, ..lab }.run();
    assert!(matches!(results.outcome.end, End::Drained), "{:?}", results.outcome.end);
    let create = results.outcome.metrics.operation(Operation::CreateCertificate).counts;
    assert_eq!(
        (create.accepted, create.attempts),
        (create.attempts, results.outcome.metrics.arrivals.started)
    );
    assert!((105..=112).contains(&create.attempts), "{create:?}");
    let counts = results.outcome.ledger.as_ref().unwrap().view().counts().unwrap();
    assert_eq!(counts.issued_not_sent, create.accepted);
}

fn reject(status: u16) -> Fault {
    Fault::Reject { status, code: None, acts: Acts::Undone }
}
