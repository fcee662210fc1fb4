//! How many files the process may have open: a connection is one.
//!
//! Owns the process's limit, which is raised if possible, and the message if it is not.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::exit::{Exit, Fatal};
use super::target::Service;

/// Files open besides connections: the ledger with its log and lock, the runtime's own, connections to the control
/// plane and the resolver, and a dial that tries several addresses at once.
const RESERVE: u64 = 64;

/// The limit requested when as many files as possible are needed: Linux's default maximum for any process.
const PLENTY: u64 = 1 << 20;

/// A limit that systems always grant within the hard limit (macOS calls it OPEN_MAX).
const MODEST: u64 = 10_240;

/// Lets the process hold `connections` to `service`, as `option` requests. Fails early: running out half-way would be
/// worse.
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

/// Lets the process hold up to `most` connections to `service`, and returns how many the system allows.
pub(super) fn allow_up_to(most: usize, service: &Service) -> usize {
    let allowed = raise_to(files(most, service));
    let fits = allowed.saturating_sub(RESERVE) / files_each(service);
    most.min(usize::try_from(fits).unwrap_or(usize::MAX))
}

fn files(connections: usize, service: &Service) -> u64 {
    let connections = u64::try_from(connections).unwrap_or(u64::MAX);
    connections.saturating_mul(files_each(service)).saturating_add(RESERVE)
}

/// Open files per connection: with the built-in emulator, both ends are ours.
fn files_each(service: &Service) -> u64 {
    if matches!(service, Service::Emulator(_)) { 2 } else { 1 }
}

/// Lets the process hold as many connections of one file each as the system allows, and returns how many.
pub(super) fn allow_plenty() -> u64 {
    let raised = raise_to(PLENTY);
    // A system may refuse a limit that is below the hard one.
    raised.max(raise_to(MODEST)).saturating_sub(RESERVE)
}

/// Raises the soft limit to `wanted` or to the hard limit; never lowers it. Returns the resulting limit.
fn raise_to(wanted: u64) -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let Some(target) = target(&limit, wanted) else { return limit.current.unwrap_or(u64::MAX) };
    match setrlimit(Resource::Nofile, Rlimit { current: Some(target), ..limit }) {
        Ok(()) => target,
        Err(_) => limit.current.unwrap_or(u64::MAX),
    }
}

/// The new soft limit; `None` if it is high enough or cannot be raised.
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
