//! Which connection has which client id, and which connections want which plain messages.
//!
//! Owns takeover and the simple publish/subscribe between connections. Knows no packets. Requests to the account and
//! their answers do not come through here: answers go to the requester alone.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::mqtt::{self, Filter, QoS};
use super::session::{Ending, Message};

/// How many messages may wait for a connection to take them; one more ends the connection.
pub(super) const MAILBOX: usize = 128;

/// Ends one connection from outside, with a reason.
#[derive(Debug)]
pub(super) struct Hangup {
    token: CancellationToken,
    ending: OnceLock<Ending>,
}

impl Hangup {
    /// A hangup that is also triggered by `stop`.
    pub(super) fn new(stop: &CancellationToken) -> Self {
        Self { token: stop.child_token(), ending: OnceLock::new() }
    }

    /// Ends the connection. Only the first reason counts.
    pub(super) fn trigger(&self, ending: Ending) {
        let _ = self.ending.set(ending);
        self.token.cancel();
    }

    /// Waits until the connection must end.
    pub(super) async fn triggered(&self) -> Ending {
        self.token.cancelled().await;
        self.ending.get().cloned().unwrap_or(Ending::Stopped)
    }
}

/// A connection, as [`Clients`] knows it.
#[derive(Debug, Clone)]
pub(super) struct Client {
    /// Distinguishes it from all other connections.
    pub(super) number: u64,
    /// Ends the connection.
    pub(super) hangup: std::sync::Arc<Hangup>,
    /// Receives messages for the connection.
    pub(super) mailbox: mpsc::Sender<Message>,
    /// The id of its certificate, for connections over mutual TLS.
    pub(super) certificate: Option<String>,
}

/// All connections.
#[derive(Debug, Default)]
pub(super) struct Clients {
    state: Mutex<State>,
    next: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    by_client_id: HashMap<String, Client>,
    /// The connections of each certificate, for mutual TLS.
    by_certificate: HashMap<String, HashMap<u64, Client>>,
    watchers: HashMap<u64, Watcher>,
    /// The connections that subscribed to a topic by its exact name. With thousands of connections that have a topic
    /// each, a message must not be matched against every filter.
    exact: HashMap<String, HashSet<u64>>,
    /// The connections that have a filter with a wildcard.
    wild: HashSet<u64>,
}

#[derive(Debug)]
struct Watcher {
    client: Client,
    filters: HashMap<String, Watch>,
}

/// How a client receives what a filter selects.
#[derive(Debug, Clone, Copy)]
struct Watch {
    /// The highest QoS to deliver at.
    qos: QoS,
    /// Whether the client's own messages are left out.
    is_no_local: bool,
}

/// Whether a client id was free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entrance {
    /// The client id was free.
    Fresh,
    /// Another connection had the client id, and is ended.
    TookOver,
}

impl Clients {
    /// A number that no other connection has.
    pub(super) fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Gives `client_id` to `client`, ending the connection that had it.
    pub(super) fn enter(&self, client_id: &str, client: Client) -> Entrance {
        let mut state = self.state();
        if let Some(certificate) = &client.certificate {
            let clients = state.by_certificate.entry(certificate.clone()).or_default();
            clients.insert(client.number, client.clone());
        }
        match state.by_client_id.insert(client_id.to_owned(), client) {
            Some(previous) => {
                previous.hangup.trigger(Ending::TakenOver);
                Entrance::TookOver
            }
            None => Entrance::Fresh,
        }
    }

    /// Forgets a connection, and its client id unless another connection has taken it.
    pub(super) fn leave(&self, client_id: &str, client: &Client) {
        let mut state = self.state();
        state.forget(client);
        if state.by_client_id.get(client_id).is_some_and(|holder| holder.number == client.number) {
            state.by_client_id.remove(client_id);
        }
        state.give_back();
    }

    /// Ends all connections of a certificate.
    pub(super) fn hang_up_certificate(&self, certificate: &str, ending: &Ending) {
        for client in self.state().by_certificate.get(certificate).into_iter().flat_map(HashMap::values) {
            client.hangup.trigger(ending.clone());
        }
    }

    /// Ends all connections.
    pub(super) fn hang_up_all(&self, ending: &Ending) {
        for client in self.state().by_client_id.values() {
            client.hangup.trigger(ending.clone());
        }
    }

    /// How many connections have a client id.
    pub(super) fn connected(&self) -> usize {
        self.state().by_client_id.len()
    }

    /// Subscribes `client` to what `filter` selects.
    pub(super) fn watch(&self, client: &Client, filter: Filter) {
        let Filter { path: filter, qos, is_no_local } = filter;
        let mut state = self.state();
        if is_wild(&filter) {
            state.wild.insert(client.number)
        } else {
            state.exact.entry(filter.clone()).or_default().insert(client.number)
        };
        let watcher = state.watchers.entry(client.number);
        let watcher = watcher.or_insert_with(|| Watcher { client: client.clone(), filters: HashMap::new() });
        watcher.filters.insert(filter, Watch { qos, is_no_local });
    }

    /// Ends a connection's subscription to `filter`.
    pub(super) fn unwatch(&self, number: u64, filter: &str) {
        let mut state = self.state();
        let Some(watcher) = state.watchers.get_mut(&number) else { return };
        watcher.filters.remove(filter);
        let is_last = watcher.filters.is_empty();
        let is_tame = !watcher.filters.keys().any(|filter| is_wild(filter));
        if is_tame {
            state.wild.remove(&number);
        }
        state.forget_exact(number, filter);
        if is_last {
            state.watchers.remove(&number);
        }
    }

    /// Delivers `message`, sent by connection number `from`, once to each connection that wants it, possibly the sender
    /// itself. A connection with too many messages waiting is ended.
    pub(super) fn relay(&self, from: u64, message: &Message) {
        let state = self.state();
        let exact = state.exact.get(&message.topic);
        let wild = state.wild.iter().filter(|number| !exact.is_some_and(|exact| exact.contains(number)));
        for number in exact.into_iter().flatten().chain(wild) {
            let Some(watcher) = state.watchers.get(number) else { continue };
            let selects = |filter: &str| mqtt::matches(filter, &message.topic);
            let wanted = watcher
                .filters
                .iter()
                .filter(|(filter, watch)| selects(filter) && !(watch.is_no_local && *number == from));
            let granted = wanted.map(|(_, watch)| watch.qos).max();
            let Some(granted) = granted else { continue };
            let qos = granted.min(message.qos);
            if watcher.client.mailbox.try_send(Message { qos, ..message.clone() }).is_err() {
                watcher.client.hangup.trigger(Ending::SlowConsumer);
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics; if it did, some filter might be missed, which is no reason to end everything.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Forgets a connection's filters and its link to a certificate.
    fn forget(&mut self, client: &Client) {
        let number = client.number;
        if let Some(certificate) = &client.certificate
            && let Some(clients) = self.by_certificate.get_mut(certificate)
        {
            clients.remove(&number);
            if clients.is_empty() {
                self.by_certificate.remove(certificate);
            }
        }
        self.wild.remove(&number);
        let Some(watcher) = self.watchers.remove(&number) else { return };
        for filter in watcher.filters.keys() {
            self.forget_exact(number, filter);
        }
    }

    /// Releases memory once most of the connections that used it have gone.
    fn give_back(&mut self) {
        const KEPT: usize = 1_024;
        if self.by_client_id.capacity() > KEPT.max(8 * self.by_client_id.len()) {
            self.by_client_id.shrink_to_fit();
            self.by_certificate.shrink_to_fit();
            self.watchers.shrink_to_fit();
            self.exact.shrink_to_fit();
            self.wild.shrink_to_fit();
        }
    }

    fn forget_exact(&mut self, number: u64, filter: &str) {
        if let Some(watching) = self.exact.get_mut(filter) {
            watching.remove(&number);
            if watching.is_empty() {
                self.exact.remove(filter);
            }
        }
    }
}

fn is_wild(filter: &str) -> bool {
    filter.contains(['+', '#'])
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;

    fn connect(clients: &Clients) -> (Client, mpsc::Receiver<Message>) {
        let (mailbox, messages) = mpsc::channel(2);
        let hangup = Arc::new(Hangup::new(&CancellationToken::new()));
        (Client { number: clients.number(), hangup, mailbox, certificate: None }, messages)
    }

    fn message(topic: &str, qos: QoS) -> Message {
        Message { topic: topic.to_owned(), payload: Bytes::from_static(b"x"), qos, properties: Bytes::new() }
    }

    fn filter(path: &str, qos: QoS) -> Filter {
        Filter { path: path.to_owned(), qos, is_no_local: false }
    }

    #[test]
    fn a_client_can_leave_its_own_messages_out() {
        let clients = Clients::default();
        let (client, mut messages) = connect(&clients);
        clients.watch(&client, Filter { is_no_local: true, ..filter("a", QoS::AtMostOnce) });
        clients.relay(client.number, &message("a", QoS::AtMostOnce));
        assert!(messages.try_recv().is_err());
        clients.relay(client.number + 1, &message("a", QoS::AtMostOnce));
        assert!(messages.try_recv().is_ok());
    }

    #[test]
    fn a_certificates_connections_end_together_and_no_others() {
        let clients = Clients::default();
        let (one, _keep_one) = connect(&clients);
        let (other, _keep_other) = connect(&clients);
        let one = Client { certificate: Some(String::from("c")), ..one };
        clients.enter("one", one.clone());
        clients.enter("other", other.clone());
        clients.hang_up_certificate("c", &Ending::Deactivated);
        assert_eq!(one.hangup.ending.get(), Some(&Ending::Deactivated));
        assert!(!other.hangup.token.is_cancelled());
        clients.leave("one", &one);
        assert!(clients.state().by_certificate.is_empty());
    }

    #[test]
    fn the_second_of_two_with_one_client_id_ends_the_first_and_only_it() {
        let clients = Clients::default();
        let (first, _keep_first) = connect(&clients);
        let (second, _keep_second) = connect(&clients);
        assert_eq!(clients.enter("id", first.clone()), Entrance::Fresh);
        assert_eq!(clients.enter("id", second.clone()), Entrance::TookOver);
        assert_eq!(first.hangup.ending.get(), Some(&Ending::TakenOver));

        // The first leaves late, which must not remove the second.
        clients.leave("id", &first);
        assert_eq!(clients.connected(), 1);
        clients.leave("id", &second);
        assert_eq!(clients.connected(), 0);
        assert!(!second.hangup.token.is_cancelled());
    }

    #[test]
    fn a_message_comes_once_at_the_better_of_the_granted_qos() {
        let clients = Clients::default();
        let (client, mut messages) = connect(&clients);
        clients.watch(&client, filter("a/+", QoS::AtMostOnce));
        clients.watch(&client, filter("#", QoS::AtLeastOnce));
        clients.relay(0, &message("a/b", QoS::AtLeastOnce));
        assert_eq!(messages.try_recv().unwrap().qos, QoS::AtLeastOnce);
        assert!(messages.try_recv().is_err());

        clients.unwatch(client.number, "#");
        clients.relay(0, &message("a/b", QoS::AtLeastOnce));
        assert_eq!(messages.try_recv().unwrap().qos, QoS::AtMostOnce);
        clients.relay(0, &message("b", QoS::AtLeastOnce));
        assert!(messages.try_recv().is_err());
    }

    #[test]
    fn a_full_mailbox_ends_its_connection_and_no_other() {
        let clients = Clients::default();
        let (slow, _unread) = connect(&clients);
        let (quick, mut messages) = connect(&clients);
        for client in [&slow, &quick] {
            clients.watch(client, filter("a", QoS::AtMostOnce));
        }
        for _ in 0..3 {
            clients.relay(0, &message("a", QoS::AtMostOnce));
            messages.try_recv().unwrap();
        }
        assert_eq!(slow.hangup.ending.get(), Some(&Ending::SlowConsumer));
        assert!(!quick.hangup.token.is_cancelled());
    }

    #[test]
    fn nothing_is_left_of_what_nobody_watches() {
        let clients = Clients::default();
        let (one, mut messages) = connect(&clients);
        let (other, mut others) = connect(&clients);
        for path in ["a", "b/+", "c/#"] {
            clients.watch(&one, filter(path, QoS::AtMostOnce));
            clients.watch(&other, filter(path, QoS::AtMostOnce));
        }
        clients.unwatch(one.number, "b/+");
        clients.relay(0, &message("b/1", QoS::AtMostOnce));
        assert!(messages.try_recv().is_err() && others.try_recv().is_ok());
        clients.relay(0, &message("c/1", QoS::AtMostOnce));
        assert!(messages.try_recv().is_ok() && others.try_recv().is_ok(), "the other wildcard still counts");
        clients.unwatch(one.number, "c/#");
        clients.unwatch(one.number, "never watched");
        clients.unwatch(one.number, "a");
        clients.leave("unknown", &other);
        let state = clients.state();
        assert!(state.watchers.is_empty() && state.exact.is_empty() && state.wild.is_empty(), "{state:?}");
    }
}
