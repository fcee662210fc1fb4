use std::collections::BTreeMap;
use std::fs;
use std::io::Cursor;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use proptest::prelude::*;

use super::*;
use crate::call::Call;
use crate::event::{Counter, DialPhases, Note, Operation, Timing};
use crate::failure::{Cause, Failure, Stage};
use crate::metrics::{Interval, Metrics, Slow};

fn header() -> Header {
    Header {
        tool: String::from("fleetmint 0.1.0"),
        verb: String::from("load provision"),
        command: String::from("fleetmint load provision --rate 50/s"),
        settings: BTreeMap::from([(String::from("connections"), 50.into())]),
        started_at: UNIX_EPOCH + Duration::from_millis(1_700_000_000_123),
        offered: Some(String::from("50/s for 2m")),
        limits: BTreeMap::from([(String::from("register_thing"), 10.0)]),
        warm_up_s: 2.5,
        site: Some(Site { endpoint: String::from("h:8883"), is_emulator: true, ..Site::default() }),
        lot: Some(String::from("c861e005840d19a4")),
    }
}

fn footer() -> Footer {
    let mut slowest = Slowest::default();
    slowest.offer(Slow {
        operation: Operation::RegisterThing,
        device: String::from("D-\"1\"\n"),
        second: 3,
        service: Duration::from_micros(1_234),
        response: Duration::from_micros(5_678),
    });
    Footer {
        end: String::from("complete"),
        detail: String::new(),
        elapsed_s: 4.25,
        devices: Some(Devices { total: 5, registered: 5, ..Devices::default() }),
        thresholds: vec![Judgement {
            threshold: String::from("missed=0"),
            passed: true,
            measured: Some(0.0),
            shown: String::from("0"),
        }],
        slowest,
        bound: Some(Bound { by: String::from("quota"), detail: String::from("d"), hint: String::new() }),
        found_per_s: BTreeMap::from([(String::from("register_thing"), 9.75)]),
    }
}

/// One attempt, from numbers that say everything about it.
fn note(kind: u8, us: u64) -> Note {
    let timing = Timing { wait: Duration::from_micros(us / 3), service: Duration::from_micros(us) };
    let failure = |cause| Err(Failure::new(Stage::Call(Call::RegisterThing), cause));
    let rejected = |status_code| Cause::Rejected {
        status_code,
        error_code: String::from("X"),
        error_message: String::from("a \"message\""),
    };
    let exchanged = |outcome| Note::Exchanged { operation: Operation::RegisterThing, timing, outcome };
    match kind % 9 {
        0 => exchanged(failure(rejected(429))),
        1 => exchanged(failure(rejected(400))),
        2 => exchanged(failure(Cause::NoReply { after: Duration::from_millis(1500) })),
        3 => Note::Dialled {
            timing,
            phases: DialPhases { tcp: Some(timing.service), tls: Some(timing.wait), ..DialPhases::default() },
            outcome: Ok(()),
        },
        4 => Note::Scheduled { lateness: timing.wait },
        5 => Note::Missed,
        6 => Note::ConnectionLost {
            failure: Failure::new(Stage::Idle, Cause::Closed { detail: String::from("reset") }),
        },
        7 => exchanged(Ok(())),
        _ => Note::Counted(Counter::ALL[us as usize % Counter::ALL.len()], us),
    }
}

fn interval(second: u64, notes: &[(u8, u64)]) -> Interval {
    let mut metrics = Metrics::default();
    notes.iter().for_each(|(kind, us)| metrics.record(&note(*kind, *us)));
    Interval { second, metrics, connections: 7, in_flight: 3 }
}

/// All that an interval has, as text: metrics have no equality of their own.
fn shown(interval: &Interval) -> String {
    let mut all = line::Shown::new();
    let line = line::IntervalLine::new(interval, &mut all);
    serde_json::to_string(&line).unwrap()
}

fn written(intervals: &[Interval]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("r.jsonl");
    let mut writer = ResultsWriter::create(&path, &header()).unwrap();
    intervals.iter().for_each(|interval| writer.interval(interval).unwrap());
    writer.finish(&footer()).unwrap();
    fs::read_to_string(path).unwrap()
}

/// What can be read of a text, and how that ends.
fn read(text: &str) -> Result<(Vec<Interval>, Ending), String> {
    let name = Path::new("r.jsonl");
    let mut results = Results::read(name, Cursor::new(text)).map_err(|error| error.to_string())?;
    let intervals: Result<Vec<_>, _> = results.by_ref().collect();
    let intervals = intervals.map_err(|error| error.to_string())?;
    Ok((intervals, results.ending().unwrap().clone()))
}

#[test]
fn what_is_written_is_read() {
    let intervals =
        [interval(0, &[(0, 10), (7, 20), (3, 30)]), interval(1, &[]), interval(4, &[(0, 5), (6, 1), (8, 1)])];
    let text = written(&intervals);
    let (again, ending) = read(&text).unwrap();
    assert_eq!(again.iter().map(shown).collect::<Vec<_>>(), intervals.iter().map(shown).collect::<Vec<_>>());
    assert_eq!(ending, Ending::Footer(Box::new(footer())));
    assert_eq!(Results::read(Path::new("r"), Cursor::new(&text)).unwrap().header(), &header());
    let counters = again[2].metrics.counters;
    assert_eq!((counters.of(Counter::ConnectionsLost), counters.of(Counter::ConnectionsRenewed)), (1, 1));
    assert_eq!(text.lines().nth(2).unwrap(), r#"{"interval":{"second":1,"connections":7,"in_flight":3}}"#);
}

#[test]
fn an_example_is_written_once_and_known_ever_after() {
    let text = written(&[interval(0, &[(0, 10)]), interval(1, &[(0, 10)])]);
    assert_eq!(text.matches("error_message").count(), 1, "{text}");
    let (again, _) = read(&text).unwrap();
    let kind = ("register_thing", "throttled");
    assert_eq!(again[1].metrics.failures[&kind].example, again[0].metrics.failures[&kind].example);
}

#[test]
fn a_file_cut_off_anywhere_is_good_up_to_there() {
    let text = written(&[interval(0, &[(0, 10), (7, 20)]), interval(1, &[(7, 30)])]);
    let lines: Vec<usize> = text.match_indices('\n').map(|(at, _)| at + 1).collect();
    for cut in lines[0]..text.len() {
        let (intervals, ending) = read(&text[..cut]).unwrap();
        let whole = lines.iter().filter(|end| **end <= cut).count();
        assert_eq!(intervals.len(), (whole - 1).min(2), "cut at {cut}");
        assert_eq!(ending, Ending::CutOff);
    }
    assert!(read(&text[..lines[0] - 1]).unwrap_err().contains("no whole line"));
}

#[test]
fn a_damaged_line_is_named_with_its_field() {
    let text = written(&[interval(0, &[(7, 20)]), interval(1, &[(0, 30), (7, 1)])]);
    let cases = [
        ("\"second\":1", "\"second\":0", "line 3: second: 0 comes after second 0"),
        ("\"second\":1", "\"second\":true", "line 3, column 26: invalid type: boolean `true`, expected u64"),
        (
            "\"attempts\":2",
            "\"attempts\":3",
            "line 3: operations.register_thing.attempts: 3 attempts have another",
        ),
        (
            "\"service\":\"HIST",
            "\"service\":\"HISS",
            "line 2: operations.register_thing.service: not an HdrHistogram",
        ),
        (
            "\"register_thing\":{",
            "\"create_thing\":{",
            "line 2: there is no operation \"create_thing\"; there are connect,",
        ),
        (
            "\"stage\":\"register_thing\",\"cause\":\"throttled\"",
            "\"stage\":\"tls\",\"cause\":\"throttled\"",
            "an example of another kind",
        ),
        ("\"elapsed_s\":4.25", "\"elapsed_s\":-1", "line 4: elapsed_s: -1 is no length of a run"),
        ("{\"footer\"", "{\"futter\"", "line 4, column 9: unknown variant `futter`"),
    ];
    for (from, to, wanted) in cases {
        assert!(text.contains(from), "{from} in {text}");
        let error = read(&text.replacen(from, to, 1)).unwrap_err();
        assert!(error.contains(wanted), "{wanted:?} in {error:?}");
        assert!(error.starts_with("results file r.jsonl: line "), "{error}");
    }
    let twice = format!("{text}{text}");
    assert!(read(&twice).unwrap_err().contains("line 5: there is something after the footer"));
}

#[test]
fn other_files_and_other_versions_are_refused() {
    let text = written(&[]);
    let newer = text.replacen("\"version\":1", "\"version\":2,\"new\":{}", 1);
    let others = ["MacAddress,DeviceId\n1,2\n", "", "{\"interval\":{\"second\":1}}\n", &newer];
    assert_eq!(
        others.map(|text| read(text).unwrap_err()),
        [
            "results file r.jsonl: not a results file of fleetmint: its first line is no header",
            "results file r.jsonl: not a results file of fleetmint: it has no whole line; did its run end before \
             it began?",
            "results file r.jsonl: not a results file of fleetmint: its first line is no header",
            "results file r.jsonl: its format is version 2, and this fleetmint reads version 1; use the \
             fleetmint that wrote it, or a newer one"
        ]
    );
}

#[test]
fn a_file_that_is_there_is_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("r.jsonl");
    fs::write(&path, "precious").unwrap();
    let error = ResultsWriter::create(&path, &header()).unwrap_err();
    assert!(error.to_string().contains("the file exists, and is left as it is"), "{error}");
    assert_eq!(fs::read_to_string(path).unwrap(), "precious");
}

#[test]
fn the_extent_is_that_of_the_seconds() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("r.jsonl");
    fs::write(&path, written(&[interval(0, &[(7, 20)]), interval(9, &[])])).unwrap();
    let extent = extent(&path).unwrap();
    assert_eq!((extent.seconds, extent.header), (10, header()));
    assert_eq!(extent.ending, Ending::Footer(Box::new(footer())));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(15))]

    /// However a run's samples are spread over files and seconds, reading and merging gives what one run has.
    #[test]
    fn merged_files_equal_one_run_with_all_samples(
        notes in prop::collection::vec((any::<u8>(), 1..5_000_000_u64, 0..3_usize, 0..4_u64), 0..120),
    ) {
        let mut whole = Metrics::default();
        let mut files: [Vec<Interval>; 3] = Default::default();
        for (file, intervals) in files.iter_mut().enumerate() {
            for second in 0..4 {
                let of = |n: &&(u8, u64, usize, u64)| n.2 == file && n.3 == second;
                let notes: Vec<_> = notes.iter().filter(of).map(|n| (n.0, n.1)).collect();
                intervals.push(interval(second, &notes));
            }
        }
        for (kind, us, file, second) in &notes {
            let _ = (file, second);
            whole.record(&note(*kind, *us));
        }
        let mut merged = Metrics::default();
        for intervals in &files {
            let (again, _) = read(&written(intervals)).unwrap();
            again.iter().for_each(|interval| merged.merge(&interval.metrics));
        }
        let as_one = |metrics: Metrics| shown(&Interval { metrics, ..Interval::default() });
        prop_assert_eq!(as_one(merged), as_one(whole));
    }

    #[test]
    fn no_text_breaks_the_reader(at in 0..5_000_usize, byte in 0x20..0x7f_u8) {
        let mut text = written(&[interval(0, &[(0, 10), (7, 20), (3, 5)]), interval(1, &[(7, 30)])]).into_bytes();
        let at = at % text.len();
        text[at] = byte;
        let _ = read(std::str::from_utf8(&text).unwrap());
    }
}
