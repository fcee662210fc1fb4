//! Results files and what `fleetmint report` makes of them.

mod command;
mod compare;
mod samples;
mod schema;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fleetmint::event::{Counter, Operation};
use fleetmint::limit_search::{Breach, Finding, Observation, Probe, Step, Verdict};
use fleetmint::metrics::{Latency, Metrics};
use fleetmint::report::{
    self, LimitContext, LimitReport, MAX_POINTS, Outcome, QuotaReport, Report, render_html, render_report,
};
use fleetmint::results::Site;
use serde_json::Value;
use tempfile::TempDir;

use samples::{Sample, eventful, rare};

use crate::harness::expect_text;

const REGISTER: Operation = Operation::RegisterThing;

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn shards(folder: &Path) -> (Vec<PathBuf>, Metrics) {
    let mut total = Metrics::default();
    let write = |shard: u64| {
        let sample = Sample { seed: shard, begins_s: shard as f64 * 1.3, seconds: 20, ..eventful() };
        let (path, metrics) = sample.write(folder, &format!("shard-{shard}.jsonl"));
        total.merge(&metrics);
        path
    };
    ((0..3).map(write).collect(), total)
}

fn compiled(path: &Path) -> Report {
    report::compile(&[path.to_owned()]).unwrap()
}

fn operation(report: &Report) -> &report::OperationReport {
    report.operations.iter().find(|operation| operation.operation == REGISTER.name()).unwrap()
}

#[test]
fn shards_merge_to_what_one_run_would_have_measured() {
    let folder = folder();
    let (files, total) = shards(folder.path());
    let report = report::compile(&files).unwrap();
    let wanted = total.operation(REGISTER);
    let merged = operation(&report);
    assert_eq!(merged.summary.counts, wanted.counts);
    assert_eq!(merged.summary.service_us, wanted.service.figures());
    assert_eq!(merged.summary.response_us, wanted.response.figures());
    assert_eq!(report.arrivals.as_ref().unwrap().counts, total.arrivals);
    assert_eq!(report.counters, total.counters);
    // Rates are over the time in which any ran: the last began 2.6 s after the first and took 20 s.
    assert!((report.elapsed_s - 22.6).abs() < 1e-6, "{}", report.elapsed_s);
    let offered = report.headline.offered_per_s.unwrap();
    assert!((offered - total.arrivals.scheduled as f64 / 22.6).abs() < 1e-6);
    assert_eq!(report.runs.iter().map(|run| run.begins_at_s).collect::<Vec<_>>(), [0, 1, 3]);
    // The order of the files does not matter.
    let mut turned = files;
    turned.reverse();
    assert_eq!(report::compile(&turned).unwrap(), report);
}

#[test]
fn the_time_line_adds_up_to_the_totals_however_long() {
    let folder = folder();
    for seconds in [7, 900] {
        let sample = Sample { seconds, rate: (2.0, 6.0), quota: 4.0, stall: Some(3), ..Sample::default() };
        let (path, total) = sample.write(folder.path(), &format!("{seconds}.jsonl"));
        let report = compiled(&path);
        let points = &report.timeline.points;
        assert!(points.len() as u64 <= MAX_POINTS, "{}", points.len());
        let sum = |of: fn(&report::Point) -> u64| points.iter().map(of).sum::<u64>();
        let counts = total.operation(REGISTER).counts;
        assert_eq!(sum(|point| point.operations["register_thing"].attempts), counts.attempts);
        assert_eq!(sum(|point| point.operations["register_thing"].throttled), counts.throttled);
        assert_eq!(sum(|point| point.failures.values().sum()), counts.attempts - counts.accepted);
        assert_eq!(sum(|point| point.scheduled), total.arrivals.scheduled);
        assert_eq!(sum(|point| point.missed), total.arrivals.missed);
        let longest =
            points.iter().map(|point| point.operations["register_thing"].response_us.max).max().unwrap();
        assert_eq!(longest, total.operation(REGISTER).response.figures().max, "no maximum is lost");
        let covered: f64 = points.iter().map(|point| point.seconds).sum();
        assert!((covered - seconds as f64).abs() < 1e-9);
    }
}

#[test]
fn a_long_pause_between_runs_is_cut_out_and_said() {
    let folder = folder();
    let first = Sample { seconds: 10, ..Sample::default() }.write(folder.path(), "1.jsonl").0;
    let later = Sample { seconds: 10, seed: 2, begins_s: 3_610.0, ..Sample::default() }
        .write(folder.path(), "2.jsonl")
        .0;
    let report = report::compile(&[first, later]).unwrap();
    assert_eq!((report.elapsed_s, report.cut_out_s, report.runs[1].begins_at_s), (20.0, 3_600.0, 10));
    assert_eq!(report.timeline.points.len(), 20);
    assert!(report.hints.iter().any(|hint| hint.finding.contains("3600 s between runs are cut out")));
}

#[test]
fn a_file_without_an_end_is_shown_as_far_as_it_goes() {
    let folder = folder();
    let (path, _) = Sample { seconds: 10, ..Sample::default() }.write(folder.path(), "r.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    let cut: Vec<&str> = text.lines().take(5).collect();
    fs::write(&path, cut.join("\n") + "\n{\"interval\":{\"sec").unwrap();
    let report = compiled(&path);
    assert_eq!((report.elapsed_s, report.timeline.points.len()), (4.0, 4));
    assert_eq!(report.runs[0].end, "no end");
    assert!(report.hints[0].finding.starts_with("No end in "), "{:?}", report.hints);
}

#[test]
fn the_same_run_named_twice_is_refused() {
    let folder = folder();
    let (path, _) = Sample { seconds: 3, ..Sample::default() }.write(folder.path(), "r.jsonl");
    let copy = folder.path().join("copy.jsonl");
    fs::copy(&path, &copy).unwrap();
    let error = report::compile(&[path, copy]).unwrap_err().to_string();
    expect_text("report-same-run-twice", &folder, &error, &[]);
}

#[test]
fn thresholds_are_judged_of_all_runs_together() {
    let folder = folder();
    let (files, total) = shards(folder.path());
    let report = report::compile(&files).unwrap();
    assert_eq!(report.thresholds.len(), 2, "each once: {:?}", report.thresholds);
    assert_eq!(report.thresholds[0].measured, Some(total.operation(REGISTER).response.figures().p99 as f64));
}

#[test]
fn the_json_is_as_its_schema_says() {
    let folder = folder();
    let schema: Value = serde_json::from_str(include_str!("../../../docs/schema/report-v1.json")).unwrap();
    let (files, _) = shards(folder.path());
    let calm =
        Sample { seconds: 3, has_schedule: false, ..Sample::default() }.write(folder.path(), "calm.jsonl").0;
    for files in [files, vec![calm]] {
        let json = serde_json::to_value(report::compile(&files).unwrap()).unwrap();
        assert_eq!(schema::errors(&schema, &json), Vec::<String>::new());
        for (place, wrong) in [
            ("/schema", Value::from("1")),
            ("/headline/failed_share", Value::from(2)),
            ("/extra", Value::Null),
        ] {
            let mut json = json.clone();
            match json.pointer_mut(place) {
                Some(value) => *value = wrong,
                None => json["extra"] = wrong,
            }
            assert!(!schema::errors(&schema, &json).is_empty(), "the check can fail: {place}");
        }
    }
}

/// The numbers of a page, each with its place in the JSON.
fn numbers(page: &str) -> Vec<(Value, &str)> {
    let number = |rest| {
        let (value, rest) = str::split_once(rest, "\" data-json=\"").unwrap();
        // serde_json does not read every digit of a float.
        let value = value.parse::<u64>().map_or_else(|_| value.parse::<f64>().unwrap().into(), Value::from);
        (value, rest.split_once('"').unwrap().0)
    };
    page.split("<data value=\"").skip(1).map(number).collect()
}

#[test]
fn the_numbers_on_the_page_are_those_of_the_json() {
    let folder = folder();
    let (path, _) = Sample { seconds: 90, ..eventful() }.write(folder.path(), "r.jsonl");
    let report = compiled(&path);
    let json = serde_json::to_value(&report).unwrap();
    let page = render_html(&report);
    let numbers = numbers(&page);
    assert!(numbers.len() > 80, "{}", numbers.len());
    for (value, place) in numbers {
        assert_eq!(json.pointer(place), Some(&value), "{place}");
    }
}

/// Hardly any sample, 3 million, nothing but failures, a shard that died: of a load test and of a lot.
#[test]
fn rare_pages_say_what_is_so_and_no_more() {
    let folder = folder();
    let schema: Value = serde_json::from_str(include_str!("../../../docs/schema/report-v1.json")).unwrap();
    let mut sentences = String::new();
    for (name, files) in ["load provision", "provision"].iter().flat_map(|verb| rare(folder.path(), verb)) {
        let report = report::compile(&files).unwrap();
        let (json, page) = (serde_json::to_value(&report).unwrap(), render_html(&report));
        assert_eq!(schema::errors(&schema, &json), Vec::<String>::new(), "{name}");
        for (value, place) in numbers(&page) {
            assert_eq!(json.pointer(place), Some(&value), "{name}: {place}");
        }
        assert!(!page.contains("NaN") && !page.contains(">inf"), "{name}");
        let accepted = operation(&report).summary.counts.accepted;
        let (outcome, wanted) = match name.as_str() {
            "load-three" | "provision-three" => (Outcome::Pass, 1..10),
            "load-million" | "provision-million" => (Outcome::Pass, 3_000_000..4_000_000),
            "load-failed" | "provision-failed" => (Outcome::Fail, 0..1),
            // What became of the other's devices is not known.
            _ => (Outcome::Incomplete, 3_000..4_000),
        };
        assert_eq!(report.verdict.outcome, outcome, "{name}: {:?}", report.verdict);
        assert!(wanted.contains(&accepted), "{name}: {accepted}");
        sentences += &format!("{name}: {}\n", report.verdict.sentence);
    }
    expect_text("report-rare-verdicts", &folder, &sentences, &[]);
}

/// However many samples, a page is as large.
#[test]
fn a_page_does_not_grow_with_its_samples() {
    let folder = folder();
    let page = |doublings| {
        let sample = Sample { seconds: 20, rate: (100.0, 100.0), doublings, ..Sample::default() };
        render_html(&compiled(&sample.write(folder.path(), &format!("{doublings}.jsonl")).0)).len()
    };
    let (thousands, millions) = (page(0), page(10));
    assert!(millions < thousands * 5 / 4, "{thousands} and {millions}");
}

#[test]
fn a_report_shows_every_counter() {
    let folder = folder();
    let (path, _) = Sample { seconds: 5, ..eventful() }.write(folder.path(), "r.jsonl");
    let report = compiled(&path);
    let (text, page) = (render_report(&report), render_html(&report));
    for counter in Counter::ALL {
        assert!(report.counters.of(counter) > 0, "{counter:?}");
        let words = counter.meaning().trim_end_matches('.');
        assert!(text.contains(&format!("{words}: {}", report.counters.of(counter))), "{text}");
        assert!(page.contains(words), "{words}");
    }
}

#[test]
fn the_page_takes_no_markup_from_the_results_and_needs_nothing_else() {
    let folder = folder();
    let (path, _) = Sample { seconds: 75, ..eventful() }.write(folder.path(), "r.jsonl");
    let page = render_html(&compiled(&path));
    assert!(page.contains("&lt;img src=x onerror=alert(1)&gt;"), "the hostile key is shown");
    assert!(!page.contains("<img") && !page.contains("<script>alert"));
    assert_eq!(page.matches("<script").count(), 1);
    assert!(!page.contains('\u{202e}') && !page.contains('\u{7}'));
    for loader in
        ["http://", "https://", " src=\"", "url(", "@import", "<link", "<iframe", " style=\"", " onclick=\""]
    {
        assert!(!page.contains(loader), "{loader}");
    }
    let policy = "default-src 'none'; style-src 'sha256-";
    assert!(page.contains(policy));
    assert!(page.len() < 1_000_000, "{}", page.len());
}

#[test]
fn missed_arrivals_are_said_wherever_percentiles_are() {
    let folder = folder();
    let (path, total) = Sample { seconds: 90, ..eventful() }.write(folder.path(), "r.jsonl");
    assert!(total.arrivals.missed > 0);
    let report = compiled(&path);
    expect_text("report-missed-arrivals", &folder, &render_report(&report), &[]);
    assert!(render_html(&report).contains("are in none of these percentiles"));
    let (calm, _) = Sample { seconds: 5, ..Sample::default() }.write(folder.path(), "calm.jsonl");
    let calm = compiled(&calm);
    assert!(!render_report(&calm).contains("missed arrivals are in no"));
    assert!(!render_html(&calm).contains("are in none of these percentiles"));
}

#[test]
fn a_terminal_gets_no_control_character_from_the_results() {
    let folder = folder();
    let key = |_| String::from("\u{1b}[31m\u{202e}key\u{7}");
    let (path, _) = Sample { seconds: 3, key, ..Sample::default() }.write(folder.path(), "r.jsonl");
    let text = render_report(&compiled(&path));
    assert!(text.contains("key"), "{text}");
    assert!(!text.chars().any(|c| c.is_control() && c != '\n') && !text.contains('\u{202e}'));
}

#[test]
fn the_logs_of_hdrhistogram_hold_all_that_was_measured() {
    let folder = folder();
    let (files, total) = shards(folder.path());
    let logs = folder.path().join("logs");
    assert_eq!(report::write_hlogs(&files, &logs).unwrap(), 2);
    let log = fs::read_to_string(logs.join("register_thing.hlog")).unwrap();
    assert!(log.lines().nth(1).unwrap() == "#[Histogram log format version 1.3]", "{log}");
    let mut response = Latency::default();
    for line in log.lines().filter(|line| line.starts_with("Tag=response,")) {
        response.merge(&Latency::decode(line.rsplit(',').next().unwrap()).unwrap());
    }
    assert_eq!(response.figures(), total.operation(REGISTER).response.figures());
}

/// Not a test: the files that `scripts/check-report` looks at in a browser.
#[test]
#[ignore = "writes samples for scripts/check-report"]
fn samples() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("report-samples");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    eventful().write(&folder, "eventful.jsonl");
    Sample::default().write(&folder, "calm.jsonl");
    let short =
        Sample { verb: "provision", seconds: 1, has_schedule: false, thresholds: &[], ..Sample::default() };
    short.write(&folder, "short.jsonl");
    Sample { seconds: 3_000, rate: (5.0, 30.0), quota: 25.0, seed: 3, ..eventful() }
        .write(&folder, "long.jsonl");
    for shard in 0..3 {
        let seed = 10 + shard;
        let begins_s = shard as f64 * 1.3;
        Sample { seed, begins_s, seconds: 60, ..eventful() }.write(&folder, &format!("shard-{shard}.jsonl"));
    }
    more_samples(&folder);
    pages(&folder);
}

/// What is rare, a profile of steps, a slower service.
fn more_samples(folder: &Path) {
    for verb in ["load provision", "provision"] {
        rare(folder, verb);
    }
    let profile = Some("hold 20/s 30s; hold 40/s 30s; hold 80/s 30s");
    Sample { profile, seconds: 80, quota: 50.0, stall: None, ..eventful() }.write(folder, "stepped.jsonl");
    let found = Some(18.4);
    Sample {
        verb: "provision",
        has_schedule: false,
        rate: (20.0, 18.0),
        quota: 17.0,
        found,
        thresholds: &[],
        ..eventful()
    }
    .write(folder, "provision.jsonl");
    Sample { seed: 30, slowness: 1.2, begins_s: 500.0, ..Sample::default() }.write(folder, "slower.jsonl");
}

/// The pages that are not of results files.
fn pages(folder: &Path) {
    fs::write(folder.join("limit.html"), report::render_limit_html(&limit())).unwrap();
}

/// A search for a limit that never was.
fn limit() -> LimitReport {
    let step = |rate: f64, accepted: u64, throttled: u64, verdict| {
        let due = accepted + throttled;
        let verdict = match verdict {
            "held" => Verdict::Held,
            "short" => Verdict::Short,
            _ => Verdict::Broke(Breach::Throttled),
        };
        let probe = Probe {
            rate,
            drain: Some((rate * 1.4, Duration::from_millis(1_250))),
            settle: Duration::from_millis(1_500),
            measure: Duration::from_secs_f64(due as f64 / rate),
        };
        let (p50, p99) = (Duration::from_millis(23), Duration::from_millis(91));
        let observation = Observation { due, accepted, throttled, p50, p99, ..Observation::default() };
        Step { probe, observation, verdict, is_doubtful: false }
    };
    let steps = [
        step(2.0, 20, 0, "held"),
        step(16.0, 100, 0, "held"),
        step(64.0, 188, 68, "broke"),
        step(46.3, 232, 0, "held"),
        step(48.41, 235, 7, "broke"),
        step(32.0, 90, 0, "short"),
        step(46.3, 463, 0, "held"),
    ];
    let finding =
        Finding::Limit { sustainable: 46.3, breaks_at: 48.41, breach: Breach::Throttled, confirmed: true };
    let quota =
        QuotaReport { per_s: 47.0, source: String::from("applied, as Service Quotas says (L-CAFFCA46)") };
    let context = LimitContext {
        tool: String::from("fleetmint 0.1.0"),
        command: String::from("fleetmint find-limit create --emulator --devices 4000"),
        started_at: String::from("2026-11-27T08:00:00Z"),
        site: Site {
            is_emulator: true,
            endpoint: String::from("localhost:8883"),
            region: String::from("eu-central-1"),
            ..Site::default()
        },
    };
    let report = LimitReport::new(
        Operation::CreateCertificate,
        finding,
        &steps,
        Some(quota),
        None,
        Duration::from_secs(97),
    );
    LimitReport { context: Some(context), ..report }
}

#[test]
fn the_page_of_a_search_has_finding_quota_picture_and_every_step() {
    let page = report::render_limit_html(&limit());
    expect_text("report-limit-page", &folder(), &words(&page), &[]);
    assert!(page.contains("dot throttled"));
    assert!(page.contains(r#"<td class="text">not offered</td>"#));
    let json = serde_json::to_value(limit()).unwrap();
    for (value, place) in numbers(&page) {
        assert_eq!(json.pointer(place), Some(&value), "{place}");
    }
}

/// What a reader sees of a page: its text without style and script, a line for each element that has some.
fn words(page: &str) -> String {
    let mut lines = String::new();
    let mut is_hidden = false;
    for part in page.split('<') {
        let (tag, text) = part.split_once('>').unwrap_or(("", part));
        match tag.split(' ').next() {
            Some("style" | "script") => is_hidden = true,
            Some("/style" | "/script") => is_hidden = false,
            _ => {}
        }
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        if !is_hidden && !text.is_empty() {
            lines += &format!("{text}\n");
        }
    }
    lines
}

/// The verdict is what a reader sees first.
#[test]
fn the_verdict_is_a_sentence_that_says_what_was_held() {
    let folder = folder();
    let of = |sample: Sample, name: &str| compiled(&sample.write(folder.path(), name).0).verdict;
    let calm = of(Sample::default(), "calm.jsonl");
    assert_eq!(calm.outcome, Outcome::Pass);
    assert_eq!(
        calm.sentence,
        "39.8 registrations a second for 60.0 s, every one accepted, 99 % within 132 ms."
    );
    let profile = Some("hold 20/s 30s; hold 40/s 30s; hold 80/s 30s");
    let sample = Sample { profile, quota: 50.0, thresholds: &["missed=1"], seconds: 80, ..Sample::default() };
    let stepped = of(sample, "stepped.jsonl");
    assert_eq!(stepped.outcome, Outcome::Fail);
    assert_eq!(
        stepped.sentence,
        "Holds 40.0 registrations a second; above that the service throttles: 37.3 % at 80.0/s."
    );
    let all_fail =
        of(Sample { quota: 0.0, thresholds: &[], seconds: 9, ..Sample::default() }, "failed.jsonl");
    assert_eq!(all_fail.outcome, Outcome::NotJudged);
    assert_eq!(all_fail.sentence, "None of 362 registrations was accepted in 9.0 s; most were throttled.");
    let lot =
        Sample { verb: "provision", has_schedule: false, thresholds: &[], seconds: 9, ..Sample::default() };
    assert_eq!(of(lot, "lot.jsonl").sentence, "All 355 devices are registered, 39.4 a second for 9.0 s.");
}

/// A run that was stopped before its first registration.
#[test]
fn certificates_are_not_called_registrations() {
    let folder = folder();
    let sample = Sample {
        verb: "provision",
        operation: Operation::CreateCertificate,
        has_schedule: false,
        seconds: 9,
        ..Sample::default()
    };
    let report = compiled(&sample.write(folder.path(), "r.jsonl").0);
    assert_eq!(report.verdict.sentence, "All 355 devices are registered; nothing was registered in 9.0 s.");
    let page = render_html(&report);
    assert!(page.contains("Devices registered over time: 0 at the end"), "{page}");
}

/// Two lots in one report: the last one's devices are not those of both.
#[test]
fn runs_of_different_lots_have_no_devices_together() {
    let folder = folder();
    let lot = |seconds, begins_s, name: &str| {
        let sample = Sample { verb: "provision", has_schedule: false, thresholds: &[], ..Sample::default() };
        Sample { seconds, begins_s, ..sample }.write(folder.path(), name).0
    };
    let (first, other) = (lot(9, 0.0, "first.jsonl"), lot(20, 9.0, "other.jsonl"));
    assert!(compiled(&first).devices().is_some());
    let both = report::compile(&[first, other]).unwrap();
    assert_eq!(both.devices(), None);
    assert!(!both.verdict.sentence.contains("devices are registered"), "{}", both.verdict.sentence);
    // Lots may have as many devices as each other.
    let of = |lot, begins_s, name: &str| {
        let sample = Sample { verb: "provision", has_schedule: false, lot: Some(lot), ..Sample::default() };
        Sample { seconds: 9, begins_s, ..sample }.write(folder.path(), name).0
    };
    let devices = |files: &[PathBuf]| report::compile(files).unwrap().devices();
    let (spring, summer) = (of("aaaaaaaaaaaaaaaa", 0.0, "a.jsonl"), of("bbbbbbbbbbbbbbbb", 20.0, "b.jsonl"));
    let again = of("aaaaaaaaaaaaaaaa", 40.0, "c.jsonl");
    assert!(devices(&[spring.clone(), again]).is_some());
    assert_eq!(devices(&[spring, summer]), None);
}

/// Half of one lot and half of another are not a whole.
#[test]
fn shards_of_different_lots_are_refused() {
    let folder = folder();
    let shard = |shard, lot, begins_s, name: &str| {
        let sample = Sample { verb: "provision", has_schedule: false, thresholds: &[], ..Sample::default() };
        let sample = Sample { seconds: 5, shard: Some(shard), lot, begins_s, ..sample };
        sample.write(folder.path(), name).0
    };
    let spring = shard("0/2", Some("aaaaaaaaaaaaaaaa"), 0.0, "spring.jsonl");
    let summer = shard("1/2", Some("bbbbbbbbbbbbbbbb"), 1.0, "summer.jsonl");
    let refused = report::compile(&[spring.clone(), summer.clone()]).unwrap_err().to_string();
    expect_text("report-shards-of-different-lots", &folder, &refused, &[]);
    // A task that goes on with a mended lot is of that one, and an older file says nothing of its lot.
    let mended = shard("0/2", Some("bbbbbbbbbbbbbbbb"), 20.0, "mended.jsonl");
    assert!(report::compile(&[spring.clone(), mended, summer]).unwrap().shards.unwrap().is_whole());
    let older = shard("1/2", None, 1.0, "older.jsonl");
    let both = report::compile(&[spring.clone(), older]).unwrap();
    assert!(both.devices().is_some() && both.shards.unwrap().is_whole());
    assert_eq!(compiled(&spring).devices(), None, "half of the lot is not the lot");
}

/// A run and the one that goes on with it have the same quota, not two.
#[test]
fn limits_of_runs_one_after_the_other_are_not_added_up() {
    let folder = folder();
    let run = |seed, begins_s| {
        let sample = Sample { verb: "provision", has_schedule: false, thresholds: &[], ..Sample::default() };
        let sample = Sample { seconds: 401, found: Some(40.0), rate: (40.0, 40.0), ..sample };
        Sample { seed, begins_s, ..sample }.write(folder.path(), &format!("{seed}.jsonl")).0
    };
    let report = report::compile(&[run(1, 0.0), run(2, 401.2)]).unwrap();
    let page = render_html(&report);
    assert!(page.contains("found: 40.0/s") && !page.contains("80.0/s"), "{page}");
    // A point covers 5 s, of which 1 is the first run's.
    let limits = report.timeline.points.iter().map(|point| point.limit_per_s);
    assert_eq!(limits.collect::<Vec<_>>(), vec![Some(42.0); report.timeline.points.len()]);
}

/// On a long timeline a point covers seconds of two stages.
#[test]
fn a_stage_is_judged_by_its_own_seconds() {
    let folder = folder();
    let profile = Some("hold 4/s 20s; hold 8/s 5s; hold 24/s 400s");
    let sample = Sample { profile, quota: 12.0, seconds: 415, ..Sample::default() };
    assert_eq!(
        compiled(&sample.write(folder.path(), "long.jsonl").0).verdict.sentence,
        "Holds 8.0 registrations a second; above that the service throttles: 50.5 % at 24.0/s."
    );
}

/// Shards offer a profile together, and one of them its part of it.
#[test]
fn the_stages_of_shards_are_put_together() {
    let folder = folder();
    let shard = |index: u64, shard, quota| {
        let profile = Some("hold 20/s 30s; hold 40/s 30s; hold 80/s 30s");
        let sample =
            Sample { profile, shard: Some(shard), thresholds: &[], seconds: 80, ..Sample::default() };
        let sample = Sample { seed: index, begins_s: index as f64 * 1.4, quota, ..sample };
        sample.write(folder.path(), &format!("{index}.jsonl")).0
    };
    let (first, second) = (shard(0, "0/2", 25.0), shard(1, "1/2", 25.0));
    let whole = report::compile(&[first.clone(), second]).unwrap();
    assert_eq!(
        whole.verdict.sentence,
        "Holds 40.0 registrations a second; above that the service throttles: 37.7 % at 80.0/s."
    );
    assert!(render_html(&whole).contains(">80.0/s</text>"));
    assert_eq!(
        compiled(&first).verdict.sentence,
        "Holds 20.0 registrations a second; above that the service throttles: 38.2 % at 40.0/s."
    );
}

/// An emulator's figures are not AWS's, and the page says which they are.
#[test]
fn an_emulator_is_said_wherever_figures_are() {
    let folder = folder();
    let sample = |is_emulator, name: &str| {
        let sample = Sample { seconds: 5, is_emulator, ..Sample::default() };
        compiled(&sample.write(folder.path(), name).0)
    };
    for (report, wanted) in [(sample(true, "emulator.jsonl"), true), (sample(false, "aws.jsonl"), false)] {
        for shown in [render_html(&report), render_report(&report), report::render_markdown(&report)] {
            assert_eq!(shown.contains("EMULATOR"), wanted, "{shown}");
        }
    }
}

/// A plot of one dot or of nothing, a rate of a part of a second, a 99.9th percentile of ten samples: noise that looks like
/// a figure.
#[test]
fn what_there_are_too_few_samples_for_is_left_out() {
    let folder = folder();
    let of = |sample: Sample, name: &str| compiled(&sample.write(folder.path(), name).0);
    let few = of(Sample { seconds: 3, ..Sample::default() }, "few.jsonl");
    assert!(render_report(&few).contains(" -  "), "{}", render_report(&few));
    assert!(!render_html(&few).contains("/p99_9"));
    let many = render_html(&of(Sample { seconds: 40, ..Sample::default() }, "many.jsonl"));
    assert!(many.contains("/p99_9"));
    let failed = render_html(&of(Sample { quota: 0.0, seconds: 9, ..Sample::default() }, "failed.jsonl"));
    for chart in ["heat-title", "latencies-title", "percentiles-register_thing-title"] {
        assert!(many.contains(chart) && !failed.contains(chart), "{chart}");
    }
}

#[test]
fn thresholds_warm_up_and_changes_of_the_rate_are_drawn() {
    let folder = folder();
    let profile = Some("hold 20/s 30s; hold 40/s 30s");
    let sample =
        Sample { profile, seconds: 50, thresholds: &["register_thing.p99<150ms"], ..Sample::default() };
    let page = render_html(&compiled(&sample.write(folder.path(), "r.jsonl").0));
    assert!(
        page.matches("<text class=\"demand\"").count() >= 2 && page.contains("warm-up, 10.0 s"),
        "{page}"
    );
    assert!(page.contains("line class=\"instant\"") && page.contains(">40.0/s</text>"));
}

/// The heat map's fields are response times.
#[test]
fn a_threshold_on_the_service_time_is_not_drawn_over_response_times() {
    let folder = folder();
    let thresholds = &["register_thing.p99<100ms", "register_thing.service.p99<400ms"];
    let sample = Sample { seconds: 50, thresholds, ..Sample::default() };
    let page = render_html(&compiled(&sample.write(folder.path(), "r.jsonl").0));
    let (_, heat) = page.split_once("id=\"heat-title\"").unwrap();
    let (heat, _) = heat.split_once("</figure>").unwrap();
    assert!(heat.contains("p99&lt;100ms") && !heat.contains("p99&lt;400ms"), "{heat}");
    assert_eq!(page.matches("service.p99&lt;400ms</text>").count(), 2, "{page}");
}

/// The whole text of a report whose every figure is given.
#[test]
fn the_text_is_as_it_was() {
    let folder = folder();
    let (files, _) = shards(folder.path());
    let text = render_report(&report::compile(&files).unwrap());
    insta::with_settings!({
        prepend_module_to_snapshot => false,
        omit_expression => true,
        snapshot_path => "../snapshots",
        filters => vec![(folder.path().to_str().unwrap(), "DIR")],
    }, {
        insta::assert_snapshot!("report", text);
    });
}
