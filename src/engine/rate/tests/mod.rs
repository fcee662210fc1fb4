mod losses;
mod search;
mod services;

use super::*;

fn limit(per_second: f64) -> Limit {
    Limit::new(RateLimit::per_second(per_second))
}

#[tokio::test(start_paused = true)]
async fn a_limit_delivers_its_rate() {
    for per_second in [0.5, 10.0, 47.0, 400.0, 2_000.0] {
        let limit = limit(per_second);
        let start = Instant::now();
        let permits = (per_second * 20.0) as u32;
        for _ in 0..permits {
            drop(limit.permit().await);
        }
        let burst = (per_second / 100.0).max(2.0).floor();
        let ideal = (f64::from(permits) - burst) / per_second;
        let ratio = start.elapsed().as_secs_f64() / ideal;
        assert!((0.999..=1.01).contains(&ratio), "{per_second}/s took {ratio} of the ideal time");
    }
}

#[tokio::test(start_paused = true)]
async fn unused_time_is_not_made_up_for() {
    let limit = limit(10.0);
    tokio::time::sleep(Duration::from_secs(100)).await;
    let start = Instant::now();
    for _ in 0..12 {
        drop(limit.permit().await);
    }
    assert!(start.elapsed() >= Duration::from_millis(990), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn permits_go_out_in_the_order_of_asking() {
    let limit = Arc::new(limit(100.0));
    let (sender, mut receiver) = tokio::sync::mpsc::channel(100);
    for n in 0..50 {
        let (limit, sender) = (limit.clone(), sender.clone());
        tokio::spawn(async move {
            drop(limit.permit().await);
            sender.send(n).await.unwrap();
        });
        tokio::task::yield_now().await;
    }
    drop(sender);
    let mut order = Vec::new();
    while let Some(n) = receiver.recv().await {
        order.push(n);
    }
    assert_eq!(order, (0..50).collect::<Vec<_>>());
}

/// Tests the wiring, with tasks in virtual time; [`search`] tests the quality of the search.
#[tokio::test(start_paused = true)]
async fn the_rate_that_the_service_bears_is_found() {
    let quota = 50.0;
    let limit = Arc::new(Limit::new(RateLimit::Auto));
    let bucket = Arc::new(Mutex::new((quota, Instant::now())));
    let counts = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (limit, bucket, counts) = (limit.clone(), bucket.clone(), counts.clone());
        workers.spawn(async move {
            loop {
                let permit = limit.permit().await;
                tokio::time::sleep(Duration::from_millis(20)).await;
                let is_there = {
                    let (tokens, filled) = &mut *bucket.lock().unwrap();
                    let now = Instant::now();
                    *tokens = (*tokens + (now - *filled).as_secs_f64() * quota).min(quota);
                    *filled = now;
                    let is_there = *tokens >= 1.0;
                    *tokens -= f64::from(u8::from(is_there));
                    is_there
                };
                counts[usize::from(!is_there)].fetch_add(1, Ordering::Relaxed);
                permit.heard(if is_there { Sign::Accepted } else { Sign::Throttled });
            }
        });
    }
    tokio::time::sleep(Duration::from_secs(30)).await;
    let count = |n: usize| counts[n].swap(0, Ordering::Relaxed) as f64;
    let _ = (count(0), count(1));
    tokio::time::sleep(Duration::from_secs(100)).await;
    let (accepted, throttled) = (count(0), count(1));
    let used = accepted / 100.0 / quota;
    assert!(used >= 0.95, "{used} of the quota was used");
    assert!(throttled / (accepted + throttled) <= 0.02, "{throttled} were throttled");
}

#[tokio::test(start_paused = true)]
async fn a_limit_recovers_once_nothing_is_throttled_any_more() {
    let limit = limit(100.0);
    for _ in 0..40 {
        limit.permit().await.heard(Sign::Throttled);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let start = Instant::now();
    for _ in 0..20 {
        limit.permit().await.heard(Sign::Accepted);
    }
    assert!(start.elapsed() > Duration::from_secs(5), "it slowed down: {:?}", start.elapsed());
    while start.elapsed() < Duration::from_secs(600) {
        limit.permit().await.heard(Sign::Accepted);
    }
    let start = Instant::now();
    for _ in 0..1_000 {
        limit.permit().await.heard(Sign::Accepted);
    }
    assert!(start.elapsed() < Duration::from_secs(11), "{:?}", start.elapsed());
}

/// A restart, or a node that goes away: losses unrelated to the rate.
#[tokio::test(start_paused = true)]
async fn losses_at_any_rate_do_not_slow_a_set_rate_down() {
    let limit = limit(100.0);
    let start = Instant::now();
    for n in 0..6_000 {
        let sign = if n % 20 == 19 { Sign::Lost } else { Sign::Accepted };
        limit.permit().await.heard(sign);
    }
    let took = start.elapsed().as_secs_f64();
    assert!(took < 60.0 / 0.96, "{took} s");
    let used = limit.used();
    assert_eq!(used.found, None);
    let share = used.unanswered.expect("a test has shown that");
    assert!((0.03..=0.08).contains(&share), "{share}");
}

#[tokio::test(start_paused = true)]
async fn a_limit_below_the_least_pace_is_kept_while_it_is_throttled() {
    let limit = limit(0.002);
    let start = Instant::now();
    for _ in 0..5 {
        limit.permit().await.heard(Sign::Throttled);
    }
    assert!(start.elapsed() >= Duration::from_secs(1_490), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn giving_up_waiting_spends_nothing() {
    let limit = limit(1.0);
    drop(limit.permit().await);
    drop(limit.permit().await);
    let start = Instant::now();
    for _ in 0..5 {
        let waited = tokio::time::timeout(Duration::from_millis(10), limit.permit()).await;
        assert!(waited.is_err());
    }
    drop(limit.permit().await);
    assert!(start.elapsed() < Duration::from_millis(1_100), "{:?}", start.elapsed());
}
