use proptest::prelude::*;

use super::*;
use crate::shard::Shard;

fn profile(text: &str) -> Profile {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn dues(text: &str) -> Vec<Duration> {
    Schedule::new(profile(text), Spacing::Uniform, 0).map(|arrival| arrival.due).collect()
}

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

#[test]
fn a_constant_rate_is_due_at_equal_distances_and_never_drifts() {
    let day = Profile::constant(Rate::per_second(50.0).unwrap(), Duration::from_secs(86_400)).unwrap();
    assert_eq!(day.arrivals(), 4_320_000.0);
    let last = Schedule::new(day, Spacing::Uniform, 0).last().unwrap();
    assert_eq!(last.number, 4_319_999);
    let ideal = Duration::from_secs(86_400) - Duration::from_millis(20);
    assert!(last.due.abs_diff(ideal) < Duration::from_nanos(100), "{:?}", last.due);
}

#[test]
fn every_phase_has_the_arrivals_of_its_rate() {
    // (profile, seconds, arrivals)
    let cases = [
        ("hold 200/s 5m", 300.0, 60_000.0),
        ("ramp 1..200/s 60s", 60.0, 6_030.0),
        ("ramp 200..0/s 60s", 60.0, 6_000.0),
        ("step 200..500/s by 50 every 30s", 210.0, 73_500.0),
        ("step 5..1/s by 2 every 1s", 3.0, 9.0),
        ("step 0.1..0.3/s by 0.1 every 10s", 30.0, 6.0),
        ("step 60..120/min by 30 every 1m", 180.0, 270.0),
        ("pause 5s; hold 10/s 1s; pause 3s; hold 10/s 1s;", 10.0, 20.0),
        (" ramp  1..200/s   60s;hold 200/s 5m; step 200..500/s by 50 every 30s ", 570.0, 139_530.0),
    ];
    for (text, time, arrivals) in cases {
        let profile = profile(text);
        assert_eq!(profile.time(), seconds(time), "{text}");
        assert!((profile.arrivals() - arrivals).abs() < 1e-6, "{text}: {}", profile.arrivals());
        let dues = dues(text);
        assert!((dues.len() as f64 - arrivals).abs() <= 1.0, "{text}: {} arrivals", dues.len());
        assert!(dues.is_sorted(), "{text}");
    }
}

#[test]
fn instants_are_those_of_the_integral() {
    // The rate is t: the n-th arrival is due where t² / 2 = n.
    for (n, due) in dues("ramp 0..100/s 100s").into_iter().enumerate() {
        let ideal = (2.0 * n as f64).sqrt();
        assert!((due.as_secs_f64() - ideal).abs() < 1e-8, "arrival {n}: {due:?}, not {ideal}");
    }
    let paused: Vec<_> = dues("hold 2/s 1s; pause 10s; hold 1/s 2s");
    assert_eq!(paused, [0.0, 0.5, 11.0, 12.0].map(seconds));
}

#[test]
fn the_rate_at_an_instant_is_that_of_its_piece() {
    let profile = profile("ramp 0..100/s 10s; hold 50/s 10s; pause 5s");
    for (at, rate) in
        [(0.0, 0.0), (5.0, 50.0), (9.0, 90.0), (10.0, 50.0), (19.9, 50.0), (21.0, 0.0), (99.0, 0.0)]
    {
        assert!((profile.rate_at(seconds(at)) - rate).abs() < 1e-9, "at {at}");
    }
    assert_eq!(profile.peak(), 100.0);
}

#[test]
fn poisson_arrivals_have_the_profiles_mean_and_the_variance_of_chance() {
    let profile = profile("ramp 0..200/s 100s; hold 100/s 100s");
    let arrivals: Vec<_> = Schedule::new(profile.clone(), Spacing::Poisson, 7).collect();
    assert!(arrivals.is_sorted_by_key(|arrival| arrival.due));
    assert_eq!(arrivals, Schedule::new(profile.clone(), Spacing::Poisson, 7).collect::<Vec<_>>(), "seeded");
    // 20,000 expected, with a standard deviation of 141.
    assert!((19_400..20_600).contains(&arrivals.len()), "{}", arrivals.len());
    // In slots with the same expectation, mean and variance of the counts are the same.
    let slots = 200;
    let mut counts = vec![0.0_f64; slots];
    for arrival in &arrivals {
        let share = profile.due_before(arrival.due) / profile.arrivals();
        counts[((share * slots as f64) as usize).min(slots - 1)] += 1.0;
    }
    let mean = counts.iter().sum::<f64>() / slots as f64;
    let variance = counts.iter().map(|count| (count - mean).powi(2)).sum::<f64>() / slots as f64;
    assert!((0.7..1.4).contains(&(variance / mean)), "variance {variance}, mean {mean}");
}

#[test]
fn what_is_no_profile_is_refused_with_its_column() {
    let cases = [
        ("", 1, "ramp FROM"),
        ("hold", 5, "a rate"),
        ("hold 200 5m", 6, "a rate"),
        ("hold 200/s", 11, "a time"),
        ("hold 200/s 0s", 12, "a time"),
        ("hold 200/s 5m extra", 15, "a semicolon"),
        ("hold 1/s 1s; climb 1..2/s 3s", 14, "ramp FROM"),
        ("hold 1/s 1s;; hold 1/s 1s", 13, "ramp FROM"),
        ("ramp 1-200/s 60s", 6, "two rates"),
        ("ramp 1..2000000/s 60s", 6, "two rates"),
        ("ramp 0..0/s 60s", 6, "two rates"),
        ("ramp -1..5/s 60s", 6, "two rates"),
        ("ramp 1..5/d 60s", 6, "two rates"),
        ("step 1..5/s 60s", 13, "`by`"),
        ("step 1..5/s by 0 every 1s", 16, "a number above 0"),
        ("step 1..5/s by 1 each 1s", 18, "`every`"),
        ("step 1..1000000/s by 1 every 1s", 22, "fewer and larger"),
        ("pause 5s", 1, "a rate above 0"),
        ("hold 1/s 366d; hold 1/s 366d", 1, "at most 366 days"),
        ("höld 1/s 1s", 1, "ramp FROM"),
        ("hold 1/s 1s; ramp 1..ä/s 1s", 19, "two rates"),
    ];
    for (text, column, wanted) in cases {
        let error = text.parse::<Profile>().expect_err(text);
        assert_eq!(error.column, column, "{text}: {error}");
        assert!(error.wanted.contains(wanted), "{text}: {error}");
    }
}

#[test]
fn a_profile_says_itself_as_it_would_be_typed() {
    let text = "ramp 1..200/s 60s; hold 200/s 5m";
    assert_eq!(profile(&format!("  {text} ")).to_string(), text);
    let constant = Profile::constant(Rate::per_second(50.0).unwrap(), Duration::from_secs(120)).unwrap();
    assert_eq!(profile(&constant.to_string()), constant);
}

#[test]
fn the_arrivals_of_all_shards_are_those_of_the_profile() {
    for spacing in [Spacing::Uniform, Spacing::Poisson] {
        let all = || Schedule::new(profile("ramp 1..50/s 10s; pause 2s; hold 30/s 5s"), spacing, 7);
        let whole: Vec<Arrival> = all().collect();
        let mut parts: Vec<Arrival> = (0..7).flat_map(|index| all().of_shard(Shard::new(index, 7))).collect();
        parts.sort_by_key(|arrival| arrival.number);
        assert_eq!(parts, whole);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn the_instant_of_what_is_due_before_an_instant_is_that_instant(
        pieces in proptest::collection::vec((0.0..500.0_f64, 0.1..500.0_f64, 1..200_u64), 1..6),
        share in 0.001..0.999_f64,
    ) {
        let pieces = pieces.into_iter().map(|(from, to, time)| (from, to, Duration::from_secs(time)));
        let profile = Profile::of(pieces, String::new());
        let arrivals = share * profile.arrivals();
        let at = profile.instant_of(arrivals).unwrap();
        prop_assert!((profile.due_before(at) - arrivals).abs() < 1e-6 * profile.arrivals().max(1.0));
    }

    #[test]
    fn any_text_is_a_profile_or_refused(text in "(ramp|hold|step|pause|by|every|;| |[0-9]{1,3}|\\.\\.|/s|/min|s|m|ä){0,24}") {
        if let Err(error) = text.parse::<Profile>() {
            prop_assert!(error.column >= 1 && error.column <= text.chars().count() + 1);
        }
    }
}
