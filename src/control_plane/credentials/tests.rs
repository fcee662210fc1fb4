//! Loads under virtual time: how many, when, and who waits for them.

use std::sync::atomic::{AtomicU32, Ordering};

use futures::future::join_all;
use tokio::time::{Instant, sleep};

use super::*;
use crate::certificate::Secret;

/// A source of credentials named after the load, from 1, that take `takes` to load and last for `lasts`.
#[derive(Clone)]
struct Place {
    loads: Arc<AtomicU32>,
    takes: Duration,
    lasts: Duration,
    /// The loads from this one on fail.
    fails_from: u32,
}

impl Place {
    fn new(takes: u64, lasts: u64) -> Self {
        let (takes, lasts) = (Duration::from_secs(takes), Duration::from_secs(lasts));
        Self { loads: Arc::default(), takes, lasts, fails_from: u32::MAX }
    }

    fn refreshed(&self) -> RefreshedCredentials {
        let begin = Instant::now();
        let clock = move || SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000) + begin.elapsed();
        let place = self.clone();
        let load = move || -> BoxFuture<'static, _> {
            let place = place.clone();
            Box::pin(async move {
                let number = place.loads.fetch_add(1, Ordering::SeqCst) + 1;
                sleep(place.takes).await;
                assert_ne!(place.fails_from, 0, "asked to panic");
                if number >= place.fails_from {
                    return Err(NoCredentials::because(format!("load {number} failed")));
                }
                Ok(Loaded { credentials: named(number), expires: Some(clock() + place.lasts) })
            })
        };
        RefreshedCredentials::new(Arc::new(load), Arc::new(clock))
    }

    fn loads(&self) -> u32 {
        self.loads.load(Ordering::SeqCst)
    }
}

fn named(number: u32) -> Credentials {
    let secret_access_key = Secret::new(String::from("secret"));
    Credentials { access_key_id: format!("KEY{number}"), secret_access_key, session_token: None }
}

async fn seconds(n: u64) {
    sleep(Duration::from_secs(n)).await;
}

#[tokio::test(start_paused = true)]
async fn a_thousand_who_ask_at_once_share_one_load() {
    let place = Place::new(5, 3600);
    let source = place.refreshed();
    let begin = Instant::now();
    let given = join_all((0..1000).map(|_| source.credentials())).await;
    assert!(given.iter().all(|given| *given == Ok(named(1))));
    assert_eq!((place.loads(), begin.elapsed()), (1, Duration::from_secs(5)));
}

#[tokio::test(start_paused = true)]
async fn a_slow_renewal_keeps_nobody_waiting() {
    let place = Place::new(20, 100);
    let source = place.refreshed();
    assert_eq!(source.credentials().await, Ok(named(1)));
    seconds(75).await;
    let begin = Instant::now();
    for _ in 0..10 {
        assert_eq!(source.credentials().await, Ok(named(1)));
    }
    assert_eq!(begin.elapsed(), Duration::ZERO);
    seconds(21).await;
    assert_eq!(source.credentials().await, Ok(named(2)));
    assert_eq!(place.loads(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_place_that_is_down_is_survived_until_the_expiry_and_not_longer() {
    let place = Place { fails_from: 2, ..Place::new(0, 100) };
    let source = place.refreshed();
    for _ in 0..100 {
        assert_eq!(source.credentials().await, Ok(named(1)));
        seconds(1).await;
    }
    let loads = place.loads();
    assert!((3..=20).contains(&loads), "{loads}");
    let refused = join_all((0..100).map(|_| source.credentials())).await;
    for refused in refused {
        let why = refused.unwrap_err().to_string();
        assert!(why.contains("expired at 1970-01-12T13:48:20Z") && why.contains("failed"), "{why}");
    }
    assert!(place.loads() <= loads + 1, "{} loads for 100 who asked", place.loads());
}

#[tokio::test(start_paused = true)]
async fn a_load_without_end_is_ended() {
    let place = Place::new(1_000_000, 100);
    let source = place.refreshed();
    let begin = Instant::now();
    let why = source.credentials().await.unwrap_err().to_string();
    assert!(why.contains("no answer within 30s"), "{why}");
    assert_eq!(begin.elapsed(), LOAD_WITHIN);
}

#[tokio::test(start_paused = true)]
async fn a_load_that_panics_is_an_error_and_not_the_last() {
    let source = Place { fails_from: 0, ..Place::new(1, 100) }.refreshed();
    for _ in 0..2 {
        let why = source.credentials().await.unwrap_err().to_string();
        assert!(why.contains("unforeseen"), "{why}");
        seconds(2).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_service_refused_is_renewed_before_the_next_dial() {
    let place = Place::new(3, 3600);
    let source = place.refreshed();
    assert_eq!(source.credentials().await, Ok(named(1)));
    seconds(5).await;
    source.refused(&named(1));
    let given = join_all((0..10).map(|_| source.credentials())).await;
    assert!(given.iter().all(|given| *given == Ok(named(2))));
    source.refused(&named(1));
    source.refused(&named(2));
    assert_eq!(source.credentials().await, Ok(named(2)), "new ones are not doubted at once");
    assert_eq!(place.loads(), 2);
}

#[tokio::test(start_paused = true)]
async fn dropped_it_stops_loading() {
    let place = Place::new(10, 100);
    let source = place.refreshed();
    assert!(source.credentials().now_or_never().is_none());
    tokio::task::yield_now().await;
    assert_eq!((place.loads(), Arc::strong_count(&place.loads) > 2), (1, true));
    drop(source);
    tokio::task::yield_now().await;
    assert_eq!(Arc::strong_count(&place.loads), 1);
}
