//! How many files the process may have open: a connection is one.
//!
//! Owns the process's limit, raised where that is possible, and what is said where it is not.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::exit::{Exit, Fatal};
use super::target::Service;

/// What is open beside connections: the ledger with its log and its lock, the runtime's own, questions to the control plane and
/// to the resolver, and a dial that tries several addresses at once.
const RESERVE: u64 = 64;

/// What is asked for where as many as possible are wanted: Linux's default for the most that any process may have.
const PLENTY: u64 = 1 << 20;

/// What systems refuse no process whose own limit allows it (macOS names it OPEN_MAX).
const MODEST: u64 = 10_240;

/// Lets the process hold `connections` to `service`, as `option` asks for: a run that finds out half-way that it cannot is
/// worse than none.
pub(super) fn allow(connections: usize, service: &Service, option: &str) -> Result<(), Fatal> {
    let fits = allow_up_to(connections, service);
    if fits >= connections {
        return Ok(());
    }
    let (needed, allowed) = (files(connections, service), raise_to(0));
    let or_fewer = match fits {
        0 => String::new(),
        fewer => format!(", or use {option} {fewer}"),
    };
    let message = format!(
        "{connections} connections need {needed} open files, and this process may have {allowed}: raise the limit with \
         `ulimit -n {needed}` (beyond `ulimit -Hn` that takes root, limits.conf, or LimitNOFILE= of a systemd unit){or_fewer}"
    );
    Err(Fatal::new(Exit::Unavailable, message))
}

/// Lets the process hold `most` connections to `service`, or as many as the system lets it; how many that is.
pub(super) fn allow_up_to(most: usize, service: &Service) -> usize {
    let allowed = raise_to(files(most, service));
    let fits = allowed.saturating_sub(RESERVE) / files_each(service);
    most.min(usize::try_from(fits).unwrap_or(usize::MAX))
}

fn files(connections: usize, service: &Service) -> u64 {
    let connections = u64::try_from(connections).unwrap_or(u64::MAX);
    connections.saturating_mul(files_each(service)).saturating_add(RESERVE)
}

/// With the built-in emulator, both ends of each connection are ours.
fn files_each(service: &Service) -> u64 {
    if matches!(service, Service::Emulator(_)) { 2 } else { 1 }
}

/// Lets the process hold as many connections as the system lets it; how many that is, of one open file each.
pub(super) fn allow_plenty() -> u64 {
    let raised = raise_to(PLENTY);
    // A system may refuse a limit that the hard one would allow.
    raised.max(raise_to(MODEST)).saturating_sub(RESERVE)
}

/// Raises the soft limit to `wanted`, or as far as the hard one lets it; never lowers it. What it is then.
fn raise_to(wanted: u64) -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let Some(target) = target(&limit, wanted) else { return limit.current.unwrap_or(u64::MAX) };
    match setrlimit(Resource::Nofile, Rlimit { current: Some(target), ..limit }) {
        Ok(()) => target,
        Err(_) => limit.current.unwrap_or(u64::MAX),
    }
}

/// What to raise a soft limit to; none if it is high enough already, or as high as it gets.
fn target(limit: &Rlimit, wanted: u64) -> Option<u64> {
    let current = limit.current?;
    let target = wanted.min(limit.maximum.unwrap_or(u64::MAX));
    (target > current).then_some(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_only_ever_raised_and_not_beyond_the_hard_one() {
        let limit = |current, maximum| Rlimit { current, maximum };
        assert_eq!(target(&limit(Some(256), Some(4_096)), 1_000), Some(1_000));
        assert_eq!(target(&limit(Some(256), Some(4_096)), 10_000), Some(4_096));
        assert_eq!(target(&limit(Some(256), None), 10_000), Some(10_000));
        assert_eq!(target(&limit(Some(4_096), Some(4_096)), 10_000), None);
        assert_eq!(target(&limit(Some(4_096), Some(8_192)), 1_000), None);
        assert_eq!(target(&limit(None, None), 1_000), None);
    }
}
