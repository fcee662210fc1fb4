//! The queue between the ledger and the workers, bounded.
//!
//! Owns the order in which devices are taken up: the lot's. Memory stays flat however long the lot is.

use std::sync::Arc;

use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;

use super::scope::Scope;
use super::store::Store;
use crate::ledger::{LedgerError, OpenDevice};

/// How many devices are read from the ledger at once.
const PAGE: usize = 256;

/// The workers' end of the queue: many take from one queue.
#[derive(Clone)]
pub(super) struct Queue(Arc<Mutex<mpsc::Receiver<OpenDevice>>>);

impl Queue {
    /// The next device; `None` when none is left. Cancel safe: a device is either taken or still there.
    pub(super) async fn next(&self) -> Option<OpenDevice> {
        self.0.lock().await.recv().await
    }
}

pub(super) fn queue(workers: usize) -> (mpsc::Sender<OpenDevice>, Queue) {
    let (feed, receiver) = mpsc::channel(workers.max(1));
    (feed, Queue(Arc::new(Mutex::new(receiver))))
}

/// Feeds every device in scope that is open now into the queue, once. Ends early if the run drains or all workers are
/// gone.
pub(super) async fn feed(
    store: Store,
    feed: mpsc::Sender<OpenDevice>,
    drain: CancellationToken,
    scope: Scope,
) -> Result<(), LedgerError> {
    let (mut after, mut taken) = (None, 0);
    while !scope.is_full(taken) {
        let page = store.with(move |ledger| ledger.view().open_devices(after, PAGE)).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some(last.id);
        for device in page {
            if !scope.takes(&device, taken) {
                continue;
            }
            taken += 1;
            tokio::select! {
                biased;
                () = drain.cancelled() => return Ok(()),
                sent = feed.send(device) => if sent.is_err() { return Ok(()) },
            }
        }
    }
    Ok(())
}
