//! Makes certificates ahead, in the background.
//!
//! Owns the threads that make them, and the stock that takers draw from. An RSA key takes tens of milliseconds of a
//! core, too much for the runtime's threads. The pool makes no stock that was never needed: its size grows by one each
//! time a taker had to wait, to at most [`MAX_STOCK`].

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::io;
use std::num::NonZero;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use tokio::sync::oneshot;

use super::super::account::Minted;
use super::super::scenario::Keys;
use super::{Authority, MintError};

/// The most certificates that are kept ready.
pub const MAX_STOCK: usize = 256;

/// How long a thread waits after a failure before it tries again.
const PAUSE: Duration = Duration::from_millis(100);

/// Makes certificates ahead; stops and joins its threads when it is dropped.
pub struct Mint {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// Makes one certificate.
type Press = Box<dyn Fn() -> Result<Minted, MintError> + Send + Sync>;

struct Shared {
    stock: Mutex<Stock>,
    changed: Condvar,
    press: Press,
}

/// The certificates that are ready, the takers that wait, and the certificates being made.
#[derive(Default)]
struct Stock {
    ready: VecDeque<Minted>,
    /// Waiting takers by number. Each has exactly one turn.
    waiting: HashMap<u64, Taker>,
    /// The takers in order of their turns. Those that wait for only one certificate come first.
    turns: BTreeMap<Turn, u64>,
    /// The number of turns assigned so far.
    last: u64,
    under_way: usize,
    /// How many certificates to keep ready.
    target: usize,
    closed: bool,
}

/// Whether the taker waits for more than one certificate, and a number that rises with each turn.
type Turn = (bool, u64);

/// A taker that waits.
struct Taker {
    places: VecDeque<oneshot::Sender<Minted>>,
    turn: Turn,
}

/// The immediate result of taking.
enum Taken {
    Ready(Minted),
    Later(oneshot::Receiver<Minted>),
}

impl Mint {
    /// A pool of certificates signed by `authority`, with keys as `keys` says, made on one thread fewer than the
    /// machine has cores. The threads idle until a certificate is taken.
    ///
    /// # Errors
    /// The operating system's error if it cannot start a thread.
    pub fn new(authority: Arc<Authority>, keys: Keys) -> io::Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let press = move || authority.mint(keys, SystemTime::now());
        Self::with_press(Box::new(press), cores.saturating_sub(1).max(1))
    }

    fn with_press(press: Press, threads: usize) -> io::Result<Self> {
        let shared = Arc::new(Shared { stock: Mutex::default(), changed: Condvar::new(), press });
        // Created first, so that threads already started are stopped if a later one cannot be.
        let mut mint = Self { shared, threads: Vec::new() };
        for number in 0..threads {
            let shared = Arc::clone(&mint.shared);
            let thread = std::thread::Builder::new().name(format!("mint-{number}"));
            mint.threads.push(thread.spawn(move || shared.work())?);
        }
        Ok(mint)
    }

    /// A certificate for `taker`: at once if one is ready, otherwise when its turn comes. Takers that wait for only one
    /// come first, so that a taker that asks for many delays nobody else. Dropping the future gives up its place and
    /// loses no certificate.
    ///
    /// # Panics
    /// Never: every taker is answered while the pool exists, and the future borrows the pool.
    pub async fn take(&self, taker: u64) -> Minted {
        let taken = self.shared.stock().take(taker);
        self.shared.changed.notify_one();
        match taken {
            Taken::Ready(minted) => minted,
            Taken::Later(receiver) => {
                receiver.await.expect("a sender is dropped only with the stock, which outlives this borrow")
            }
        }
    }
}

impl Drop for Mint {
    fn drop(&mut self) {
        self.shared.stock().closed = true;
        self.shared.changed.notify_all();
        for thread in self.threads.drain(..) {
            // A thread that panicked has already reported it.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Mint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mint").field("threads", &self.threads.len()).finish_non_exhaustive()
    }
}

impl Shared {
    /// The stock is consistent between any two statements, so a panic elsewhere does not spoil it.
    fn stock(&self) -> MutexGuard<'_, Stock> {
        self.stock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The loop of each thread, until the pool is dropped.
    fn work(&self) {
        let mut stock = self.stock();
        loop {
            stock = self
                .changed
                .wait_while(stock, |stock| !stock.closed && !stock.is_short())
                .unwrap_or_else(PoisonError::into_inner);
            if stock.closed {
                return;
            }
            stock.under_way += 1;
            drop(stock);
            let made = (self.press)();
            stock = self.stock();
            stock.under_way -= 1;
            match made {
                Ok(minted) => stock.put(minted),
                Err(error) => stock = self.pause(stock, &error),
            }
        }
    }

    /// Waits after a failure. Only a machine without memory or entropy gets here, and it may recover.
    fn pause<'a>(&self, stock: MutexGuard<'a, Stock>, error: &MintError) -> MutexGuard<'a, Stock> {
        tracing::error!(%error, "no certificate could be made; trying again");
        let closed = self.changed.wait_timeout_while(stock, PAUSE, |stock| !stock.closed);
        closed.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Stock {
    fn take(&mut self, taker: u64) -> Taken {
        if let Some(minted) = self.ready.pop_front() {
            return Taken::Ready(minted);
        }
        self.target = MAX_STOCK.min(self.target + 1);
        let (sender, receiver) = oneshot::channel();
        let mut places = self.leave(taker);
        // Drop the places whose takers gave up, so that a taker never has more places than it waits for.
        places.retain(|sender| !sender.is_closed());
        places.push_back(sender);
        self.queue(taker, places);
        Taken::Later(receiver)
    }

    /// Removes a taker from the queue. Returns its places.
    fn leave(&mut self, taker: u64) -> VecDeque<oneshot::Sender<Minted>> {
        let Some(Taker { places, turn }) = self.waiting.remove(&taker) else { return VecDeque::new() };
        self.turns.remove(&turn);
        places
    }

    /// Gives a taker its next turn, if it still waits for a certificate.
    fn queue(&mut self, taker: u64, places: VecDeque<oneshot::Sender<Minted>>) {
        if places.is_empty() {
            return;
        }
        self.last += 1;
        let turn = (places.len() > 1, self.last);
        self.turns.insert(turn, taker);
        self.waiting.insert(taker, Taker { places, turn });
    }

    /// Whether to make another certificate besides those being made. None is made for takers that have gone.
    fn is_short(&mut self) -> bool {
        if self.ready.len() + self.under_way < self.target {
            return true;
        }
        for taker in self.waiting.values_mut() {
            taker.places.retain(|sender| !sender.is_closed());
        }
        let waiting: usize = self.waiting.values().map(|taker| taker.places.len()).sum();
        waiting + self.target > self.ready.len() + self.under_way
    }

    /// Gives a new certificate to the taker whose turn it is, or keeps it in stock.
    fn put(&mut self, mut minted: Minted) {
        while let Some(taker) = self.turns.first_key_value().map(|(_, taker)| *taker) {
            let mut places = self.leave(taker);
            let next = places.pop_front();
            self.queue(taker, places);
            let Some(sender) = next else { continue };
            match sender.send(minted) {
                Ok(()) => return,
                Err(unwanted) => minted = unwanted,
            }
        }
        self.ready.push_back(minted);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;
    use crate::certificate::Secret;

    fn minted(n: usize) -> Minted {
        Minted {
            certificate_pem: String::new(),
            certificate_id: n.to_string(),
            private_key_pem: Secret::new(String::new()),
        }
    }

    fn counting() -> Press {
        let made = AtomicUsize::new(0);
        Box::new(move || Ok(minted(made.fetch_add(1, Ordering::SeqCst))))
    }

    #[test]
    fn nothing_is_made_until_somebody_takes() {
        assert!(!Stock::default().is_short());
    }

    #[test]
    fn the_stock_grows_by_one_for_each_wait_to_its_limit() {
        let mut stock = Stock::default();
        let receivers: Vec<_> = (0..3).map(|_| stock.take(1)).collect();
        let mut made = 0;
        while stock.is_short() {
            stock.put(minted(made));
            made += 1;
        }
        assert_eq!((made, stock.ready.len()), (6, 3), "one each, and as many again");
        for (n, taken) in receivers.into_iter().enumerate() {
            let Taken::Later(mut receiver) = taken else { panic!("there was nothing ready") };
            assert_eq!(receiver.try_recv().unwrap(), minted(n), "first come, first served");
        }
        assert!(matches!(stock.take(1), Taken::Ready(_)));
        assert_eq!(stock.target, 3, "who did not wait raises nothing");
        assert!(stock.is_short());

        let _waiting: Vec<_> = (0..1000).map(|_| stock.take(1)).collect();
        assert_eq!(stock.target, MAX_STOCK);
    }

    #[test]
    fn takers_of_many_keep_a_taker_of_one_waiting_for_none() {
        let mut stock = Stock::default();
        let greedy: Vec<_> = (0..1000).map(|n| stock.take(n % 10)).collect();
        let Taken::Later(mut modest) = stock.take(10) else { panic!("there was nothing ready") };
        stock.put(minted(0));
        assert_eq!(modest.try_recv().unwrap(), minted(0));
        (1..=10).for_each(|n| stock.put(minted(n)));
        let is_served = |taken: Taken| match taken {
            Taken::Later(mut receiver) => receiver.try_recv().is_ok(),
            Taken::Ready(_) => false,
        };
        let served: Vec<_> = greedy.into_iter().map(is_served).collect();
        assert_eq!(served.iter().filter(|is_served| **is_served).count(), 10);
        assert!(served[..10].iter().all(|is_served| *is_served), "those that wait for many take turns");
        stock.put(minted(11));
        assert_eq!(stock.ready, [minted(11)], "nobody waits any more");
        assert!(stock.waiting.is_empty() && stock.turns.is_empty());
    }

    #[test]
    fn what_is_under_way_counts() {
        let mut stock = Stock::default();
        let _waiting = stock.take(1);
        stock.under_way = 1;
        assert!(stock.is_short());
        stock.under_way = 2;
        assert!(!stock.is_short());
    }

    #[test]
    fn who_gave_up_gets_nothing_and_nothing_is_lost() {
        let mut stock = Stock::default();
        drop(stock.take(1));
        let Taken::Later(mut patient) = stock.take(1) else { panic!("there was nothing ready") };
        assert_eq!(stock.waiting[&1].places.len(), 1, "the place of the first was cleared");
        drop(stock.take(1));
        stock.put(minted(0));
        assert_eq!(patient.try_recv().unwrap(), minted(0));
        stock.put(minted(1));
        assert_eq!(stock.ready, [minted(1)]);
    }

    #[tokio::test]
    async fn many_takers_get_one_each() {
        let mint = Arc::new(Mint::with_press(counting(), 3).unwrap());
        let mut takers = tokio::task::JoinSet::new();
        for _ in 0..200 {
            let mint = Arc::clone(&mint);
            takers.spawn(async move { mint.take(1).await.certificate_id });
        }
        let ids: BTreeSet<_> = takers.join_all().await.into_iter().collect();
        assert_eq!(ids.len(), 200);
    }

    #[tokio::test]
    async fn a_failure_is_tried_again() {
        let tries = AtomicUsize::new(0);
        let press = move || match tries.fetch_add(1, Ordering::SeqCst) {
            0 => Err(MintError { step: "testing", detail: "once".into() }),
            n => Ok(minted(n)),
        };
        let mint = Mint::with_press(Box::new(press), 1).unwrap();
        assert_eq!(mint.take(1).await, minted(1));
    }

    #[tokio::test]
    async fn dropping_the_pool_ends_its_threads() {
        let (alive, ended) = mpsc::channel::<()>();
        let alive = Mutex::new(alive);
        let press = move || {
            let _alive = alive.lock();
            Ok(minted(0))
        };
        let mint = Mint::with_press(Box::new(press), 2).unwrap();
        mint.take(1).await;
        drop(mint);
        // The threads held the press, and the press its end of the channel.
        assert_eq!(ended.try_recv(), Err(mpsc::TryRecvError::Disconnected));
    }

    #[tokio::test]
    async fn the_real_mint_makes_real_certificates() {
        let authority = Arc::new(Authority::generate().unwrap());
        let mint = Mint::new(authority, Keys::P256).unwrap();
        let (first, second) = (mint.take(1).await, mint.take(1).await);
        assert_ne!(first.certificate_id, second.certificate_id);
        assert!(first.private_key_pem.expose().starts_with("-----BEGIN EC PRIVATE KEY-----\n"));
    }
}
