//! Searches against services of many kinds, in virtual time: a service is asked at each request's instant.

use super::*;

/// What a service does with a request.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Answer {
    /// Done, after so many seconds.
    Done(f64),
    Failed(Sign),
}

/// A service: told the instant of each request, in seconds, in order.
trait Service {
    fn ask(&mut self, at: f64) -> Answer;
}

impl<F: FnMut(f64) -> Answer> Service for F {
    fn ask(&mut self, at: f64) -> Answer {
        self(at)
    }
}

const LATENCY: f64 = 0.02;

fn judged(is_sustained: bool, sign: Sign) -> Answer {
    if is_sustained { Answer::Done(LATENCY) } else { Answer::Failed(sign) }
}

/// A bucket that holds `burst` seconds' worth and is full at first.
fn bucket(limit: f64, burst: f64, sign: Sign) -> impl Service {
    let capacity = (limit * burst).max(1.0);
    let (mut tokens, mut last) = (capacity, 0.0);
    move |at: f64| {
        tokens = (tokens + (at - last) * limit).min(capacity);
        last = at;
        let is_sustained = tokens >= 1.0;
        tokens -= if is_sustained { 1.0 } else { 0.0 };
        judged(is_sustained, sign)
    }
}

/// So many in each whole second, which does not begin when we do.
fn fixed_window(limit: f64, sign: Sign) -> impl Service {
    let (mut window, mut count) = (0.0, 0.0);
    move |at: f64| {
        let now = (at + 0.37).floor();
        if now != window {
            (window, count) = (now, 0.0);
        }
        let is_sustained = count < limit;
        count += if is_sustained { 1.0 } else { 0.0 };
        judged(is_sustained, sign)
    }
}

/// So many in any second.
fn sliding_window(limit: f64, sign: Sign) -> impl Service {
    let mut sustained = std::collections::VecDeque::new();
    move |at: f64| {
        while sustained.front().is_some_and(|first| at - first >= 1.0) {
            sustained.pop_front();
        }
        let is_sustained = (sustained.len() as f64) < limit;
        if is_sustained {
            sustained.push_back(at);
        }
        judged(is_sustained, sign)
    }
}

/// One after the other, however many wait.
fn queue(limit: f64) -> impl Service {
    let mut free_at = 0.0_f64;
    move |at: f64| {
        free_at = free_at.max(at) + 1.0 / limit;
        Answer::Done(free_at - at + LATENCY)
    }
}

/// A search against a service, with everything that it cost.
struct Run {
    search: Search,
    requests: u64,
    seconds: f64,
    most: f64,
}

/// How long a request waits for its answer.
const TIMEOUT: f64 = 5.0;

fn try_probe(service: &mut dyn Service, probe: &Probe, began: f64) -> Observation {
    let drain = probe.drain.map_or(0.0, |(_, time)| time.as_secs_f64());
    let counts_from = began + drain + probe.settle.as_secs_f64();
    let until = counts_from + probe.measure.as_secs_f64();
    let mut seen = Observation::default();
    let (mut at, mut ended, mut latencies) = (began, counts_from, Vec::new());
    while at < until {
        let answer = service.ask(at);
        if at >= counts_from {
            seen.due += 1;
            let took = match answer {
                Answer::Done(took) => took,
                Answer::Failed(Sign::Silent) => TIMEOUT,
                Answer::Failed(_) => LATENCY,
            };
            ended = f64::max(ended, at + took);
            match answer {
                Answer::Done(took) => {
                    seen.accepted += 1;
                    latencies.push(took);
                }
                Answer::Failed(Sign::Throttled) => seen.throttled += 1,
                Answer::Failed(Sign::Refused) => seen.refused += 1,
                Answer::Failed(Sign::Silent) => seen.silent += 1,
                Answer::Failed(Sign::HungUp) => seen.hung_up += 1,
            }
        }
        let rate = probe.drain.filter(|_| at < began + drain).map_or(probe.rate, |(rate, _)| rate);
        at += 1.0 / rate;
    }
    latencies.sort_by(f64::total_cmp);
    let quantile = |q: f64| match latencies.len() {
        0 => Duration::ZERO,
        n => Duration::from_secs_f64(latencies[((n as f64 * q) as usize).min(n - 1)]),
    };
    seen.p50 = quantile(0.5);
    seen.p99 = quantile(0.99);
    seen.took = Duration::from_secs_f64(ended - counts_from);
    seen
}

/// A search that begins well below a limit.
fn below(limit: f64) -> SearchSettings {
    SearchSettings { start: f64::min(limit / 4.0, 2.0), ..settings() }
}

fn settings() -> SearchSettings {
    SearchSettings { start: 2.0, max: 10_000.0, precision: 0.05, max_p99: None }
}

fn run(settings: SearchSettings, mut service: impl Service) -> (Finding, Run) {
    let mut run = Run { search: Search::new(settings), requests: 0, seconds: 0.0, most: 0.0 };
    loop {
        let probe = match run.search.next() {
            Next::Done(finding) => return (finding, run),
            Next::Try(probe) => probe,
        };
        let seen = try_probe(&mut service, &probe, run.seconds);
        run.requests += probe.requests();
        run.most = run.most.max(probe.rate).max(probe.drain.map_or(0.0, |(rate, _)| rate));
        // All have ended, and connections are opened anew.
        run.seconds +=
            probe.time().as_secs_f64() + seen.took.saturating_sub(probe.measure).as_secs_f64() + 0.7;
        run.search.observe(seen);
    }
}

/// Asserts that the limit is found within 5 %, by that sign, from both sides.
#[track_caller]
fn expect_limit(name: &str, limit: f64, wanted: Breach, (finding, run): (Finding, Run)) {
    let told = format!(
        "{name} at {limit}/s: {finding:?} after {} steps, {} requests, {:.0} s:\n{}",
        run.search.steps().len(),
        run.requests,
        run.seconds,
        run.search
            .steps()
            .iter()
            .map(|Step { probe, verdict, observation: seen, .. }| {
                format!(
                    "  {:>7.2}/s for {:?} after {:?}: {verdict:?}, {} due, {} accepted, {} throttled, p50 {:?}\n",
                    probe.rate, probe.measure, probe.drain, seen.due, seen.accepted, seen.throttled, seen.p50
                )
            })
            .collect::<String>()
    );
    let Finding::Limit { sustainable, breaks_at, breach, confirmed } = finding else { panic!("{told}") };
    assert!((0.95..=1.05).contains(&(sustainable / limit)), "{told}");
    assert!(breaks_at > limit * 0.99 && breaks_at <= sustainable * 1.051, "{told}");
    assert!(confirmed && breach == wanted, "{told}");
    // Nothing is hammered, though a long burst may hide the limit from another doubling or two.
    assert!(run.most <= limit * 6.0 && run.search.steps().len() <= 20, "{told}");
}

#[test]
fn a_limit_is_found_whatever_its_shape() {
    for limit in [1.0, 10.0, 47.0, 400.0, 2_000.0] {
        let throttled = Sign::Throttled;
        for burst in [0.0, 0.1, 1.0, 3.0, 10.0] {
            let name = format!("a bucket of {burst} s");
            expect_limit(&name, limit, Breach::Throttled, run(below(limit), bucket(limit, burst, throttled)));
        }
        expect_limit(
            "a fixed window",
            limit,
            Breach::Throttled,
            run(below(limit), fixed_window(limit, throttled)),
        );
        expect_limit(
            "a sliding window",
            limit,
            Breach::Throttled,
            run(below(limit), sliding_window(limit, throttled)),
        );
        expect_limit("a queue", limit, Breach::Slow, run(below(limit), queue(limit)));
    }
}

#[test]
fn how_it_breaks_is_told_apart() {
    for limit in [10.0, 47.0, 400.0] {
        for (sign, breach) in
            [(Sign::Silent, Breach::Silent), (Sign::HungUp, Breach::HungUp), (Sign::Refused, Breach::Refused)]
        {
            for burst in [0.0, 1.0, 5.0] {
                let name = format!("{sign:?} bucket of {burst} s");
                expect_limit(&name, limit, breach, run(below(limit), bucket(limit, burst, sign)));
            }
            expect_limit(
                &format!("{sign:?} window"),
                limit,
                breach,
                run(below(limit), fixed_window(limit, sign)),
            );
        }
    }
}

/// A generator of chance from 0 to 1 (the constants of Knuth's MMIX).
fn dice(seed: u64) -> impl FnMut() -> f64 {
    let mut state = seed;
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[test]
fn failures_that_are_always_there_stalls_and_uneven_latencies_are_no_limit() {
    for limit in [10.0, 47.0, 400.0] {
        for seed in 0..20 {
            let (mut dice, mut inner) = (dice(seed), bucket(limit, 1.0, Sign::Throttled));
            // Every three minutes nothing is answered for two seconds; then all is. 2 % fail, whatever the rate.
            let noisy = move |at: f64| match inner.ask(at) {
                Answer::Done(_) if dice() < 0.02 => Answer::Failed(Sign::Refused),
                Answer::Done(_) => {
                    let stalled = (2.0 - (at + 17.0 * seed as f64) % 180.0).max(0.0);
                    Answer::Done(stalled + LATENCY * (2.0 * dice()).exp())
                }
                failed => failed,
            };
            expect_limit(&format!("noise of seed {seed}"), limit, Breach::Throttled, run(settings(), noisy));
        }
    }
}

#[test]
fn a_service_that_bears_all_that_is_allowed_is_told_so() {
    let settings = SearchSettings { max: 300.0, ..settings() };
    let (finding, run) = run(settings, |_: f64| Answer::Done(LATENCY));
    assert_eq!(finding, Finding::NoLimit { held: 300.0, because: Stopped::MaxRate });
    assert_eq!(run.most, 300.0);
}

#[test]
fn the_highest_rate_allowed_is_held_for_longer_before_it_is_believed() {
    // A burst of 20 s hides the limit, but not for ever.
    let settings = SearchSettings { max: 11.0, ..settings() };
    let (finding, _) = run(settings, bucket(10.0, 3.0, Sign::Throttled));
    let Finding::Limit { sustainable, confirmed: true, .. } = finding else { panic!("{finding:?}") };
    assert!((9.5..10.5).contains(&sustainable), "{sustainable}");
}

#[test]
fn a_service_that_refuses_everything_has_no_limit_to_find() {
    let (finding, run) = run(settings(), |_: f64| Answer::Failed(Sign::Refused));
    let Finding::Nothing { broke: Some((rate, Breach::Refused)), because: None } = finding else {
        panic!("{finding:?}")
    };
    assert!(rate < 0.5 && run.requests < 200, "{rate}/s, {} requests", run.requests);
}

#[test]
fn a_limit_below_the_first_rate_is_found() {
    let settings = SearchSettings { start: 8.0, ..settings() };
    let (finding, run) = run(settings, bucket(0.7, 1.0, Sign::Throttled));
    let Finding::Limit { sustainable, confirmed: true, .. } = finding else { panic!("{finding:?}") };
    assert!((0.665..0.735).contains(&sustainable) && run.most == 8.0, "{sustainable}");
}

#[test]
fn a_latency_that_must_not_be_exceeded_is_a_limit() {
    // 20 ms, and beyond 100/s more with each request a second: 50 ms at 130/s.
    let mut last = 0.0;
    let slower = move |at: f64| {
        let rate = 1.0 / f64::max(at - last, 1e-6);
        last = at;
        Answer::Done(LATENCY + f64::max(rate - 100.0, 0.0).min(1_000.0) * 0.001)
    };
    let settings = SearchSettings { max_p99: Some(Duration::from_millis(50)), ..settings() };
    expect_limit("latency", 130.0, Breach::Slow, run(settings, slower));
}

#[test]
fn a_side_that_cannot_offer_more_says_so() {
    let mut search = Search::new(settings());
    let finding = loop {
        let probe = match search.next() {
            Next::Done(finding) => break finding,
            Next::Try(probe) => probe,
        };
        let mut seen = try_probe(&mut |_: f64| Answer::Done(LATENCY), &probe, 0.0);
        if probe.rate > 100.0 {
            seen.missed = seen.due / 4;
        }
        search.observe(seen);
    };
    assert_eq!(finding, Finding::NoLimit { held: 64.0, because: Stopped::Generator });
}

#[test]
fn a_search_that_is_stopped_says_what_it_knows() {
    let mut search = Search::new(settings());
    search.stop(Stopped::Asked);
    assert_eq!(search.next(), Next::Done(Finding::Nothing { broke: None, because: Some(Stopped::Asked) }));
    let mut service = bucket(10.0, 1.0, Sign::Throttled);
    let (mut search, mut now) = (Search::new(settings()), 0.0);
    for _ in 0..6 {
        let Next::Try(probe) = search.next() else { panic!("{:?}", search.next()) };
        search.observe(try_probe(&mut service, &probe, now));
        now += 100.0;
    }
    search.stop(Stopped::Devices);
    let Next::Done(Finding::Limit { confirmed: false, sustainable, .. }) = search.next() else {
        panic!("{:?}", search.next())
    };
    assert!(sustainable <= 10.0);
}
