//! Entry points for fuzzing the transport's parsers.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::FutureExt;
use tokio::time::Instant;

use super::session::{Event, Session};
use super::upgrade;
use crate::call::Call;
use crate::failure::Cause;
use crate::provisioning::Topics;

/// Feeds a server's bytes to an MQTT connection that has subscribed and waits for a reply: however they are cut into
/// pieces, the same events and the same end must result.
pub(crate) fn mqtt(data: &[u8]) {
    let (Some((&size, data)), now) = (data.split_first(), Instant::now()) else { return };
    let whole = events(&[data], now);
    let pieces: Vec<_> = data.chunks(usize::from(size).max(1)).collect();
    assert_eq!(whole, events(&pieces, now), "the pieces do not matter");
}

fn events(pieces: &[&[u8]], now: Instant) -> (Vec<Event>, Option<Cause>) {
    let keep_alive = Duration::from_secs(30);
    let mut session = Session::new(String::from("me-1"), Arc::new(Topics::new("T")), keep_alive, now);
    let mut events = Vec::new();
    for piece in pieces {
        session.feed(Bytes::copy_from_slice(piece));
        loop {
            match session.next_event(now) {
                Ok(None) => break,
                Ok(Some(event)) => {
                    match event {
                        Event::Connected => assert!(session.subscribe(), "there are topics"),
                        Event::Subscribed | Event::Replied { .. } => {
                            session.publish(Call::CreateKeysAndCertificate, Bytes::new());
                        }
                    }
                    events.push(event);
                }
                Err(cause) => return (events, Some(cause)),
            }
        }
    }
    (events, None)
}

/// Feeds a server's or proxy's answer to an upgrade.
pub(crate) fn http_answer(data: &[u8]) {
    let mut bytes = Vec::new();
    let mut stream = data;
    let read = upgrade::read_head(&mut stream, &mut bytes).now_or_never().expect("a slice never waits");
    let Ok(head) = read else { return };
    bytes.extend_from_slice(stream);
    upgrade::fuzz(&head, &bytes, SystemTime::now());
}
