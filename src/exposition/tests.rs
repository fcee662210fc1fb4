use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::call::Call;
use crate::event::{Note, Operation, Timing};
use crate::failure::{Cause, Failure, Stage};

fn reading() -> Reading {
    let mut reading = Reading {
        devices: vec![("pending", 7), ("registered", 3)],
        connections: 10,
        in_flight: 4,
        limits: vec![(Operation::RegisterThing, 10.0)],
        ..Reading::default()
    };
    // Just below a bucket's end, at it, and beyond the last.
    for us in [1_023, 1_024, 200_000_000] {
        let timing = Timing { wait: Duration::ZERO, service: Duration::from_micros(us) };
        let operation = Operation::RegisterThing;
        reading.metrics.record(&Note::Exchanged { operation, timing, outcome: Ok(()) });
    }
    let failure =
        Failure::new(Stage::Call(Call::CreateKeysAndCertificate), Cause::NoPuback { after: Duration::ZERO });
    reading.metrics.record(&Note::Exchanged {
        operation: Operation::CreateCertificate,
        timing: Timing::default(),
        outcome: Err(failure),
    });
    reading
}

#[test]
fn a_reading_is_encoded_with_help_types_and_units() {
    let text = encode(&reading());
    for line in [
        "# HELP fleetmint_devices Devices of the lot by state.",
        "# TYPE fleetmint_devices gauge",
        "fleetmint_devices{state=\"pending\"} 7.0",
        "fleetmint_connections 10.0",
        "fleetmint_rate_limit{operation=\"register_thing\"} 10.0",
        "# TYPE fleetmint_operations counter",
        "fleetmint_operations_total{operation=\"register_thing\",outcome=\"accepted\"} 3",
        "fleetmint_operations_total{operation=\"create_certificate\",outcome=\"timed_out\"} 1",
        "fleetmint_failures_total{stage=\"create_certificate\",cause=\"no_puback\"} 1",
        "# UNIT fleetmint_operation_duration_seconds seconds",
        "# TYPE fleetmint_operation_duration_seconds histogram",
        "fleetmint_arrivals_total{state=\"missed\"} 0",
    ] {
        assert!(text.lines().any(|each| each == line), "no {line:?} in\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn buckets_count_exactly_and_cumulatively() {
    let text = encode(&reading());
    let bucket = |le: &str| {
        let series = format!(
            "fleetmint_operation_duration_seconds_bucket{{le=\"{le}\",operation=\"register_thing\"}} "
        );
        let found = text.lines().find_map(|line| line.strip_prefix(&series));
        found.unwrap_or_else(|| panic!("no {series} in\n{text}")).parse::<u64>().unwrap()
    };
    let counts = ["0.000512", "0.001024", "0.002048", "67.108864", "+Inf"].map(bucket);
    assert_eq!(counts, [0, 1, 2, 2, 3]);
}

async fn serve() -> (SocketAddr, JoinSet<Infallible>) {
    let exposition = Exposition::listen(([127, 0, 0, 1], 0).into()).await.unwrap();
    let address = exposition.address().unwrap();
    (address, JoinSet::from_iter([exposition.serve(Arc::new(reading))]))
}

/// Sends `request` and reads until the other side closes.
async fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // A request that is refused may be cut off.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn metrics_are_served_and_nothing_else() {
    let (address, _server) = serve().await;
    let answer = ask(address, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n"));
    assert!(answer.ends_with("# EOF\n"));
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", "404"),
        ("GET /metrics/x HTTP/1.1\r\nHost: x\r\n\r\n", "404"),
        ("POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", "405"),
        ("rubbish\r\n\r\n", "400"),
    ] {
        let answer = ask(address, request).await;
        assert_eq!(answer.split(' ').nth(1), Some(status), "{request:?}: {answer}");
    }
    let endless = format!("GET /metrics HTTP/1.1\r\nX: {}\r\n", "x".repeat(100_000));
    assert!(!ask(address, &endless).await.contains("200 OK"));
}

#[tokio::test]
async fn an_address_in_use_is_an_error() {
    let (address, _server) = serve().await;
    let error = Exposition::listen(address).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
}

#[tokio::test]
async fn clients_that_say_nothing_do_not_keep_others_out() {
    let (address, _server) = serve().await;
    let mut slow = Vec::new();
    // One after the other they would take longer than this test waits.
    for number in 0..12 * CONNECTIONS {
        let mut client = TcpStream::connect(address).await.unwrap();
        if number % 2 == 0 {
            client.write_all(b"GET /metrics HTTP/1.1\r\nHost: ").await.unwrap();
        }
        slow.push(client);
    }
    let scrape = ask(address, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    let answer =
        tokio::time::timeout(8 * CONNECTION_TIME, scrape).await.expect("it need not wait for the slow");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
}
