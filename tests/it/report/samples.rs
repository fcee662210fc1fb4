//! Results files of runs that never were, from a seed: what reports are tested with.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fleetmint::call::Call;
use fleetmint::event::{Counter, DialPhases, Note, Operation, Timing};
use fleetmint::failure::{Cause, Failure, Stage};
use fleetmint::metrics::threshold::Threshold;
use fleetmint::metrics::{Interval, Metrics, OperationCounts, Slow, Slowest};
use fleetmint::results::{Bound, Devices, Footer, Header, ResultsWriter, Site};
use fleetmint::schedule::Profile;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;

/// A run to be made up.
pub struct Sample {
    pub verb: &'static str,
    pub operation: Operation,
    pub seed: u64,
    pub seconds: u64,
    /// Arrivals per second at the start and at the end.
    pub rate: (f64, f64),
    /// The second in which the service stands still for two.
    pub stall: Option<u64>,
    /// The rate from which on the service throttles.
    pub quota: f64,
    /// What a device is called.
    pub key: fn(u64) -> String,
    /// When it began, in seconds after some instant.
    pub begins_s: f64,
    pub thresholds: &'static [&'static str],
    pub has_schedule: bool,
    pub is_emulator: bool,
    /// How many times as long as usual an answer takes.
    pub slowness: f64,
    /// The load profile as it was typed, in place of `rate`.
    pub profile: Option<&'static str>,
    pub shard: Option<&'static str>,
    pub lot: Option<&'static str>,
    /// How often all that was measured is doubled: more samples than anyone makes one by one.
    pub doublings: u32,
    /// The service's limit that the run found.
    pub found: Option<f64>,
}

impl Default for Sample {
    fn default() -> Self {
        Self {
            verb: "load provision",
            operation: Operation::RegisterThing,
            seed: 1,
            seconds: 60,
            rate: (40.0, 40.0),
            stall: None,
            quota: f64::INFINITY,
            key: |n| format!("LOAD-{n:06}"),
            begins_s: 0.0,
            thresholds: &["register_thing.p99<500ms", "missed=0"],
            has_schedule: true,
            is_emulator: false,
            slowness: 1.0,
            profile: None,
            shard: None,
            lot: None,
            doublings: 0,
            found: None,
        }
    }
}

/// The instant that samples begin at.
pub fn epoch() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_790_000_000)
}

impl Sample {
    /// Writes it to `folder/name`; returns the path and everything that was measured, in one.
    pub fn write(&self, folder: &Path, name: &str) -> (PathBuf, Metrics) {
        let path = folder.join(name);
        let mut writer = ResultsWriter::create(&path, &self.header()).unwrap();
        let mut run = Run::new(self);
        let mut total = Metrics::default();
        for second in 0..self.seconds {
            let mut interval = run.second(self, second);
            (0..self.doublings).for_each(|_| interval.metrics.merge(&interval.metrics.clone()));
            total.merge(&interval.metrics);
            writer.interval(&interval).unwrap();
        }
        let elapsed = Duration::from_secs(self.seconds);
        let judge = |text: &&str| text.parse::<Threshold>().unwrap().judge(&total, elapsed);
        let footer = Footer {
            end: String::from("complete"),
            detail: String::new(),
            elapsed_s: self.seconds as f64,
            devices: Some(run.devices(self, &total.operation(self.operation).counts)),
            thresholds: self.thresholds.iter().map(judge).collect(),
            slowest: run.slowest,
            bound: self.found.map(|found| Bound {
                by: String::from("quota"),
                detail: format!("the service throttles register_thing at {found}/s, which held requests back for 97 % of the time"),
                hint: String::from("ask AWS for a higher quota"),
            }),
            found_per_s: self.found.iter().map(|found| (self.operation.name().to_owned(), *found)).collect(),
        };
        writer.finish(&footer).unwrap();
        (path, total)
    }

    fn header(&self) -> Header {
        let Self { verb, rate: (from, to), seconds, .. } = self;
        let offered = format!("ramp {from}..{to}/s {seconds}s, poisson");
        Header {
            tool: String::from("fleetmint 0.1.0"),
            verb: (*verb).to_owned(),
            command: format!(
                "fleetmint {verb} --profile 'ramp {from}..{to}/s {seconds}s' --seed {}",
                self.seed
            ),
            settings: self.settings(),
            started_at: epoch() + Duration::from_secs_f64(self.begins_s),
            offered: self.has_schedule.then_some(offered),
            limits: if self.has_schedule {
                BTreeMap::new()
            } else {
                BTreeMap::from([(
                    self.operation.name().to_owned(),
                    to * 1.05 * f64::from(1 << self.doublings),
                )])
            },
            warm_up_s: if self.has_schedule { 10.0 } else { 0.0 },
            site: Some(Site {
                endpoint: String::from("a1b2c3d4e5f6g7-ats.iot.eu-central-1.amazonaws.com"),
                region: String::from("eu-central-1"),
                host: Some(String::from("runner-<7>")),
                is_emulator: self.is_emulator,
            }),
            lot: self.lot.map(String::from),
        }
    }
}

impl Sample {
    fn settings(&self) -> BTreeMap<String, Value> {
        let all = [
            ("connections", Some(50.into())),
            ("endpoint", Some("a1b2c3d4e5f6g7-ats.iot.eu-central-1.amazonaws.com".into())),
            // Shards of one test have one seed.
            ("seed", Some(self.shard.map_or(self.seed, |_| 1).into())),
            ("profile", self.profile.map(Value::from)),
            ("shard", self.shard.map(Value::from)),
        ];
        all.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
    }

    /// Arrivals per second, `second` seconds after the beginning.
    fn rate_at(&self, second: u64) -> f64 {
        if let Some(profile) = self.profile {
            // The first ten seconds are the warm-up, and shards divide the arrivals.
            let rate = profile.parse::<Profile>().unwrap().rate_at(Duration::from_secs(second + 10));
            let of =
                self.shard.and_then(|shard| shard.split_once('/')).map_or(1.0, |(_, of)| of.parse().unwrap());
            return rate / of;
        }
        let share = second as f64 / self.seconds.max(2) as f64;
        self.rate.0 + (self.rate.1 - self.rate.0) * share
    }
}

struct Run {
    random: StdRng,
    device: u64,
    slowest: Slowest,
}

impl Run {
    fn new(sample: &Sample) -> Self {
        Self { random: StdRng::seed_from_u64(sample.seed), device: 0, slowest: Slowest::default() }
    }

    /// All that were tried; those that were refused are rejected, and what failed otherwise is still to do.
    fn devices(&self, sample: &Sample, counts: &OperationCounts) -> Devices {
        let OperationCounts { accepted: registered, rejected, .. } = *counts;
        let total = self.device << sample.doublings;
        Devices { total, registered, rejected, pending: total - registered - rejected, ..Devices::default() }
    }

    fn second(&mut self, sample: &Sample, second: u64) -> Interval {
        let mut metrics = Metrics::default();
        if second < 3 {
            (0..17).for_each(|_| metrics.record(&self.dial()));
        }
        if second == 1 && sample.quota.is_finite() {
            Counter::ALL
                .into_iter()
                .zip(1..)
                .for_each(|(counter, n)| metrics.record(&Note::Counted(counter, n)));
        }
        let rate = sample.rate_at(second);
        let count = (rate + self.random.random_range(-0.5..0.5) * rate.sqrt() * 2.0).round().max(0.0) as u64;
        for n in 0..count {
            self.arrival(sample, second, n as f64 / rate, n, &mut metrics);
        }
        Interval { second, metrics, connections: 50, in_flight: (rate / 8.0) as u32 }
    }

    fn arrival(&mut self, sample: &Sample, second: u64, at: f64, rank: u64, metrics: &mut Metrics) {
        if sample.has_schedule {
            let lateness = Duration::from_micros(self.random.random_range(20..900));
            metrics.record(&Note::Scheduled { lateness });
        }
        let stalled = sample.stall.filter(|stall| (*stall..stall + 2).contains(&second));
        let wait = stalled.map_or(0.0, |stall| 2.0 - (second - stall) as f64 - at.min(1.0)).max(0.0);
        if wait > 1.7 && sample.has_schedule {
            return metrics.record(&Note::Missed);
        }
        if sample.has_schedule {
            metrics.record(&Note::Started);
        }
        self.device += 1;
        let spread: f64 = (0..6).map(|_| self.random.random_range(-1.0..1.0)).sum();
        let timing = Timing {
            wait: Duration::from_secs_f64(wait + self.random.random_range(0.000_1..0.002)),
            service: Duration::from_secs_f64(0.042 * sample.slowness * (spread * 0.35).exp()),
        };
        let outcome = self.outcome(sample, rank);
        if outcome.is_ok() {
            self.slowest.offer(Slow {
                operation: sample.operation,
                device: (sample.key)(self.device),
                second,
                service: timing.service,
                response: timing.response(),
            });
        }
        metrics.record(&Note::Exchanged { operation: sample.operation, timing, outcome });
    }

    fn outcome(&mut self, sample: &Sample, rank: u64) -> Result<(), Failure> {
        let stage = Stage::Call(Call::RegisterThing);
        let rejected = |status_code, code: &str, message: &str| Cause::Rejected {
            status_code,
            error_code: code.to_owned(),
            error_message: message.to_owned(),
        };
        if rank as f64 >= sample.quota {
            return Err(Failure::new(stage, rejected(429, "Throttled", "Rate exceeded")));
        }
        if sample.quota.is_infinite() {
            return Ok(());
        }
        match self.random.random_range(0..400) {
            0 => Err(Failure::new(
                stage,
                rejected(400, "InvalidParameters", "<script>alert(1)</script> & \"more\""),
            )),
            1 => Err(Failure::new(stage, Cause::NoReply { after: Duration::from_secs(5) })),
            2 => Err(Failure::new(stage, Cause::Closed { detail: String::from("connection reset by peer") })),
            _ => Ok(()),
        }
    }

    fn dial(&mut self) -> Note {
        let mut ms = |from: f64, to: f64| Duration::from_secs_f64(self.random.random_range(from..to) / 1e3);
        let phases = DialPhases {
            tcp: Some(ms(8.0, 19.0)),
            tls: Some(ms(21.0, 70.0)),
            upgrade: Some(ms(11.0, 30.0)),
            connack: Some(ms(9.0, 140.0)),
            suback: Some(ms(7.0, 16.0)),
        };
        let all = [phases.tcp, phases.tls, phases.upgrade, phases.connack, phases.suback];
        let timing = Timing { wait: Duration::ZERO, service: all.into_iter().flatten().sum() };
        Note::Dialled { timing, phases, outcome: Ok(()) }
    }
}

/// The pages that are rarely looked at, of runs of `verb`: hardly any sample, 3 million, nothing but failures, and one of two
/// shards died. A name for each, and its files.
pub fn rare(folder: &Path, verb: &'static str) -> Vec<(String, Vec<PathBuf>)> {
    let kind = verb.split(' ').next().unwrap();
    let sample = || {
        let sample =
            Sample { verb, has_schedule: verb != "provision", is_emulator: true, ..Sample::default() };
        Sample { thresholds: &["register_thing.p99<1s"], ..sample }
    };
    let write = |sample: Sample, name: &str| sample.write(folder, &format!("{kind}-{name}.jsonl")).0;
    let shard = |index: u64, shard| {
        let shard = Some(shard);
        let sample = Sample { seed: 20 + index, shard, begins_s: 0.4 * index as f64, ..sample() };
        write(sample, &format!("died-{index}"))
    };
    let shards = vec![shard(0, "0/2"), shard(1, "1/2")];
    let text = fs::read_to_string(&shards[1]).unwrap();
    let half: Vec<&str> = text.lines().take(31).collect();
    fs::write(&shards[1], half.join("\n") + "\n").unwrap();
    let files = [
        ("three", vec![write(Sample { seconds: 3, rate: (1.0, 1.0), ..sample() }, "three")]),
        (
            "million",
            vec![write(Sample { seconds: 30, rate: (100.0, 100.0), doublings: 10, ..sample() }, "million")],
        ),
        ("failed", vec![write(Sample { seconds: 30, quota: 0.0, ..sample() }, "failed")]),
        ("died", shards),
    ];
    files.map(|(name, files)| (format!("{kind}-{name}"), files)).into()
}

/// A load test with everything that can go wrong in one.
pub fn eventful() -> Sample {
    Sample {
        seconds: 180,
        rate: (20.0, 120.0),
        stall: Some(70),
        quota: 100.0,
        key: |n| match n % 5 {
            0 => String::from("<img src=x onerror=alert(1)>\"'&\u{202e}\u{7}"),
            1 => "A-very-long-key-without-a-place-to-break-it-0123456789-0123456789-0123456789".to_owned(),
            _ => format!("LOAD-{n:06}"),
        },
        ..Sample::default()
    }
}
