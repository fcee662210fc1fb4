//! Ctrl-C, SIGTERM and SIGHUP: the first drains, a second Ctrl-C or SIGTERM aborts.
//!
//! SIGHUP never aborts: a closing terminal sends it more than once, and systemd may send it right after SIGTERM. A
//! process that was started to ignore it, as by `nohup`, keeps ignoring it.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::speech::say;
use crate::engine::Stop;

/// The signals that ask a process to end.
struct Asked {
    interrupt: Signal,
    terminate: Signal,
    hangup: Option<Signal>,
}

impl Asked {
    /// Begins to listen; `None` if the operating system refuses a handler.
    fn listen() -> Option<Self> {
        Some(Self {
            interrupt: signal(SignalKind::interrupt()).ok()?,
            terminate: signal(SignalKind::terminate()).ok()?,
            hangup: heeds_hangup().then(|| signal(SignalKind::hangup()).ok()).flatten(),
        })
    }

    /// Waits for Ctrl-C or SIGTERM.
    async fn stop_asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    /// Waits for any of the signals.
    async fn drain_asked(&mut self) {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = hangup => {}
        }
    }
}

/// Waits for one of the signals, listening from this call on. Never ends if the operating system refuses a handler.
pub(super) fn interrupted() -> impl Future<Output = ()> {
    let asked = Asked::listen();
    async {
        match asked {
            Some(mut asked) => asked.drain_asked().await,
            None => std::future::pending().await,
        }
    }
}

/// What the signals requested.
#[derive(Clone, Default)]
pub(super) struct Wheel {
    pub(super) drain: CancellationToken,
    pub(super) abort: CancellationToken,
}

impl Wheel {
    /// The stop that is passed to a run.
    pub(super) fn stop(&self) -> Stop {
        Stop::when(self.drain.clone().cancelled_owned()).abort_when(self.abort.clone().cancelled_owned())
    }
}

/// Turns signals into a run's stop, and reports what each does. Whatever is unfinished `drain_timeout` after the
/// first signal is aborted. Never ends by itself.
pub(super) async fn steer(wheel: Wheel, drain_timeout: Duration) {
    if let Some(mut asked) = Asked::listen() {
        asked.drain_asked().await;
        wheel.drain.cancel();
        say(format_args!(
            "stopping: finishing the devices in flight, for {} at most; once more to stop at once",
            humantime::format_duration(drain_timeout)
        ));
        tokio::select! {
            () = asked.stop_asked() => say("stopping at once"),
            () = tokio::time::sleep(drain_timeout) => say("stopping at once: --drain-timeout has passed"),
        }
        wheel.abort.cancel();
    }
    std::future::pending().await
}

/// Whether to handle SIGHUP: a handler would override that it is ignored. If the system does not tell, SIGHUP keeps
/// its default and ends the process, which is as safe for the ledger as a crash.
fn heeds_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    ignored_signals(&status).is_some_and(|mask| mask & HANGUP_BIT == 0)
}

/// SIGHUP is signal 1, so the lowest bit. Source: proc_pid_status(5).
const HANGUP_BIT: u64 = 1;

fn ignored_signals(status: &str) -> Option<u64> {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
    u64::from_str_radix(mask.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_of_ignored_signals_is_read() {
        let status =
            "Name:\tx\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\nSigCgt:\t0000000000000002\n";
        assert_eq!(ignored_signals(status), Some(0x1001));
        assert_eq!(ignored_signals("Name:\tx\n"), None);
    }
}
