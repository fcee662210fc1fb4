//! Ctrl-C and SIGTERM: the first drains, the second aborts.

use tokio::signal::unix::{SignalKind, signal};

use crate::engine::Stop;

/// Waits for one of the two signals. Never ends if the operating system refuses a handler.
pub(super) async fn interrupted() {
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

/// Turns signals into `stop`, and says what each does. Never ends by itself.
pub(super) async fn steer(stop: Stop) {
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    for (token, words) in [
        (&stop.drain, "stopping: finishing the devices in flight; once more to stop at once"),
        (&stop.abort, "stopping at once"),
    ] {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        eprintln!("{words}");
        token.cancel();
    }
    std::future::pending().await
}
