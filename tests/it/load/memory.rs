//! Memory does not grow with the length of a run.

use std::process::Command;
use std::time::Duration;

use fleetmint::engine::load::Scenario;
use fleetmint::event::Operation;

use super::lab::Lab;

/// Tells the child how long its run is, in minutes of virtual time.
const MINUTES: &str = "FLEETMINT_TEST_MINUTES";

/// A load test in a process of its own, whose memory is then nobody else's. Does nothing unless it is told how long.
#[test]
#[ignore = "a part of the test below"]
fn child() {
    let Ok(minutes) = std::env::var(MINUTES) else { return };
    let mut lab = Lab::new(Scenario::Connect { hold: Duration::ZERO }, &format!("hold 50/s {minutes}m"));
    lab.keeps = 3;
    let results = lab.run();
    let accepted = results.outcome.metrics.operation(Operation::Connect).counts.accepted;
    assert_eq!(accepted, 3_000 * minutes.parse::<u64>().unwrap());
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    println!("peak {}", peak.trim().trim_end_matches(" kB"));
}

fn peak_kb(minutes: u32) -> u64 {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "load::memory::child", "--ignored", "--nocapture"]);
    let output = child.env(MINUTES, minutes.to_string()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let peak = text.lines().find_map(|line| line.split_once("peak ")).map(|(_, peak)| peak.parse().unwrap());
    peak.unwrap_or_else(|| panic!("no peak: {text} {}", String::from_utf8_lossy(&output.stderr)))
}

#[test]
#[cfg(target_os = "linux")]
fn twenty_minutes_take_the_memory_of_one() {
    let (one, twenty) = (peak_kb(1), peak_kb(20));
    // 57,000 more arrivals: twenty bytes kept of each would be more than this.
    assert!(twenty < one + 1_024, "{one} KB for one minute, {twenty} KB for twenty");
}
