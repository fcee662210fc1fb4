use super::*;
use crate::call::Call;

fn view() -> View {
    let plain = |words: &[&str]| words.iter().map(|words| Phrase::plain((*words).to_owned())).collect();
    View {
        unit: "devices",
        done: 4_123,
        total: 10_000,
        eta: Some(Duration::from_secs(600)),
        pace: plain(&["register 9.8/s of 10/s", "create 9.9/s of 10/s"]),
        latencies: plain(&["register p50 9.12 ms p99 22.0 ms", "create p50 154 ms p99 281 ms"]),
        now: plain(&["10 connections", "7 in flight"]),
        troubles: vec![
            Phrase { words: String::from("3 throttled"), look: Look::Warning },
            Phrase { words: String::from("errors: 2 x register thing: closed"), look: Look::Error },
        ],
        is_for_logs: true,
    }
}

fn rows(columns: usize, rows: usize) -> Vec<String> {
    let Rows { bar_width, text } = view().rows(Size { columns, rows }, Colours::None);
    let bar = if bar_width > 0 { "#".repeat(bar_width) + " " } else { String::new() };
    (bar + &text).lines().map(str::to_owned).collect()
}

#[test]
fn a_wide_terminal_has_a_line_for_each_kind_of_figure() {
    assert_eq!(
        rows(100, 24),
        [
            format!("{} 4123/10000 devices  41 %  ETA 10m 0s", "#".repeat(62)).as_str(),
            "register 9.8/s of 10/s, create 9.9/s of 10/s",
            "register p50 9.12 ms p99 22.0 ms, create p50 154 ms p99 281 ms",
            "10 connections, 7 in flight",
            "3 throttled, errors: 2 x register thing: closed",
        ]
    );
}

#[test]
fn a_narrow_terminal_has_fewer_words_on_a_line() {
    assert_eq!(
        rows(40, 24),
        [
            "############# 4123/10000 41 %  ETA 10m 0s".replacen("##", "", 1).as_str(),
            "register 9.8/s of 10/s",
            "create 9.9/s of 10/s",
            "register p50 9.12 ms p99 22.0 ms",
            "create p50 154 ms p99 281 ms",
            "10 connections, 7 in flight",
            "3 throttled",
            "errors: 2 x register thing: closed",
        ]
    );
}

#[test]
fn a_low_terminal_keeps_the_pace_and_the_troubles() {
    assert_eq!(
        rows(100, 4)[1..],
        ["register 9.8/s of 10/s, create 9.9/s of 10/s", "3 throttled, errors: 2 x register thing: closed",]
    );
    assert_eq!(rows(100, 2).len(), 1);
}

#[test]
fn no_line_is_ever_as_wide_as_the_terminal_and_all_lines_fit() {
    for columns in 1..130 {
        for height in 1..12 {
            let shown = rows(columns, height);
            assert!(shown.len() <= height.saturating_sub(1).max(1), "{columns}x{height}: {shown:?}");
            for row in shown {
                assert!(row.chars().count() < columns.max(2), "{columns}x{height}: {row:?}");
            }
        }
    }
}

#[test]
fn what_is_wider_than_a_line_goes_on_in_the_next_and_a_number_stays_with_its_unit() {
    let latency = "create certificate p50 5.00 s p99 6.22 s";
    assert_eq!(broken(latency, 39), ["create certificate p50 5.00 s", "p99 6.22 s"]);
    assert_eq!(broken(latency, 40), [latency]);
    assert_eq!(broken("bound by something", 5), ["bound", "by", "somet"]);
    let phrases = ["45 in flight", latency, "3 throttled"].map(|words| Phrase::plain(words.to_owned()));
    assert_eq!(
        pack(&phrases, 39, Colours::None),
        ["45 in flight", "create certificate p50 5.00 s", "p99 6.22 s, 3 throttled"],
        "a comma stands only between phrases"
    );
}

#[test]
fn colours_take_no_room() {
    let size = Size { columns: 60, rows: 24 };
    let coloured = view().rows(size, Colours::Ansi).text;
    assert!(coloured.contains("\x1b[33m3 throttled\x1b[0m"), "{coloured:?}");
    let stripped = coloured.replace("\x1b[33m", "").replace("\x1b[31m", "").replace("\x1b[0m", "");
    assert_eq!(stripped, view().rows(size, Colours::None).text);
}

#[test]
fn a_log_line_has_everything_in_a_fixed_order() {
    assert_eq!(
        view().line(),
        "4123 of 10000 devices, register 9.8/s of 10/s, create 9.9/s of 10/s, ETA 10m 0s, \
         register p50 9.12 ms p99 22.0 ms, create p50 154 ms p99 281 ms, 10 connections, 7 in flight, \
         3 throttled, errors: 2 x register thing: closed"
    );
}

#[test]
fn times_have_two_units() {
    let shown = [0, 59, 60, 130, 3_600, 11_550, 183_600].map(|s| duration(Duration::from_secs(s)));
    assert_eq!(shown, ["0s", "59s", "1m 0s", "2m 10s", "1h 0m", "3h 12m", "2d 3h"]);
}

#[test]
fn the_most_frequent_errors_are_named_and_throttles_are_not_among_them() {
    use crate::event::{Note, Timing};
    use crate::failure::{Cause, Failure, Stage};
    let mut snapshot = Snapshot::default();
    let mut fail = |times: usize, stage: Stage, cause: Cause| {
        for _ in 0..times {
            let outcome = Err(Failure::new(stage, cause.clone()));
            let operation = Operation::RegisterThing;
            snapshot.metrics.record(&Note::Exchanged { operation, timing: Timing::default(), outcome });
        }
    };
    let rejected = |status_code| Cause::Rejected {
        status_code,
        error_code: String::new(),
        error_message: String::new(),
    };
    fail(9, Stage::Call(Call::RegisterThing), rejected(429));
    fail(1, Stage::Call(Call::RegisterThing), rejected(400));
    fail(2, Stage::Call(Call::RegisterThing), Cause::Closed { detail: String::new() });
    fail(3, Stage::Call(Call::CreateKeysAndCertificate), Cause::NoPuback { after: Duration::ZERO });
    fail(5, Stage::Call(Call::CreateKeysAndCertificate), Cause::NoReply { after: Duration::ZERO });
    let words: Vec<_> = troubles(&snapshot).into_iter().map(|phrase| phrase.words).collect();
    assert_eq!(
        words,
        [
            "9 throttled",
            "errors: 5 x create certificate: no reply",
            "3 x create certificate: no puback",
            "2 x register thing: closed",
            "1 other",
        ]
    );
}
