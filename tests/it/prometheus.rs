//! `--prometheus`: metrics of a run while it goes on, and the dashboard that shows them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Stdio;

use fleetmint::exposition::{Reading, encode};

use super::harness::{Emulate, Scratch, fleetmint, run};

#[test]
fn a_run_can_be_scraped_while_it_goes_on() {
    let scratch = Scratch::new();
    // Slow enough to be met in the middle.
    let scenario = scratch.write("slow.toml", "keys = \"recycled\"\n[latency]\nregister_thing = \"100ms\"\n");
    let emulator = Emulate::start(&["--scenario", scenario.to_str().unwrap()]);
    let lot = scratch.lot("lot.csv", 40);
    let mut provision = emulator
        .provision(&lot)
        .args(["--prometheus", "127.0.0.1:0", "--connections", "2", "--register-rate", "50/s"])
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(provision.stderr.take().unwrap()).lines().map(Result::unwrap);
    let address = said.find_map(|line| {
        let address = line.strip_prefix("metrics at http://")?.strip_suffix("/metrics")?;
        Some(address.to_owned())
    });
    let address = address.expect("the address is said");
    let registered = |text: &str| {
        let line =
            text.lines().find_map(|line| line.strip_prefix("fleetmint_devices{state=\"registered\"} "));
        line.unwrap().parse::<f64>().unwrap()
    };
    let middle = loop {
        let text = scrape(&address).expect("the run is far from over");
        if registered(&text) > 0.0 {
            break text;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    };
    assert!(registered(&middle) < 40.0, "{middle}");
    assert!(middle.contains("fleetmint_rate_limit{operation=\"register_thing\"} 50.0"), "{middle}");
    assert!(middle.contains("fleetmint_connections 2.0"), "{middle}");
    assert!(provision.wait().unwrap().success());
    said.for_each(drop);
    assert!(scrape(&address).is_none(), "it ends with the run");
}

#[test]
fn an_address_in_use_ends_the_run_before_it_begins() {
    let scratch = Scratch::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let lot = scratch.lot("lot.csv", 3);
    run(fleetmint().arg("provision").arg(lot).args(["--emulator", "--prometheus", &address]))
        .expect_code(69)
        .expect_err(&["--prometheus", &address, "in use", "nothing was sent"]);
    assert_eq!(scratch.files(), ["lot.csv"]);
}

#[test]
fn every_metric_of_the_dashboard_exists() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/grafana/fleetmint.json");
    let text = std::fs::read_to_string(file).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&text).unwrap();
    let targets =
        dashboard["panels"].as_array().unwrap().iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    let mut queries: Vec<_> = targets.map(|target| target["expr"].as_str().unwrap()).collect();
    queries.push(dashboard["templating"]["list"][1]["query"]["query"].as_str().unwrap());
    let exposed = encode(&Reading::default());
    // Families say their names even where they have no series yet; a counter's and a histogram's have suffixes.
    let exists = |name: &str| {
        let family = ["_total", "_bucket", "_info"]
            .iter()
            .find_map(|suffix| name.strip_suffix(suffix))
            .unwrap_or(name);
        exposed.lines().any(|line| {
            line.strip_prefix("# TYPE ").is_some_and(|rest| rest.split(' ').next() == Some(family))
        })
    };
    assert!(queries.len() > 10);
    for query in queries {
        let names: Vec<_> = query
            .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
            .filter(|word| word.starts_with("fleetmint_"))
            .collect();
        assert!(!names.is_empty(), "{query}");
        for name in names {
            assert!(exists(name), "{name} of {query}");
        }
    }
}

/// The metrics; none if nobody listens.
fn scrape(address: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.starts_with("HTTP/1.1 200 OK\r\n").then_some(answer)
}
