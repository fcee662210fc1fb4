//! Probes of connections: signatures, topics, messages. They make nothing.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::super::facts::Fact;
use super::super::findings::Timed;
use super::super::prober::{Prober, Raw};
use super::super::{MESSAGES, Stopped, topic_of_messages};
use super::REPEATS;
use crate::failure::Cause;
use crate::transport::{RawEvent, Signing};

/// Four and a half minutes, and five and a half: either side of the window that users report.
const WITHIN_S: i64 = 270;
const BEYOND_S: i64 = 330;

impl Prober<'_> {
    /// Signatures dated by the service's clock, between good ones: only beside a good one that is taken does a refusal say
    /// something of the date.
    pub(super) async fn probe_signatures(&mut self) -> Result<(), Stopped> {
        if !self.connector.is_signed() {
            return Ok(());
        }
        self.open(&[]).await?.close().await;
        let Some(skew_s) = self.skew_s().await else { return Ok(()) };
        for _ in 0..REPEATS {
            let mut taken = Vec::new();
            for (offset_s, expires_s) in [
                (-WITHIN_S, None),
                (WITHIN_S, None),
                (-BEYOND_S, None),
                (BEYOND_S, None),
                (-120, Some(60)),
                (-BEYOND_S, Some(86_400)),
            ] {
                let expires = expires_s.map(Duration::from_secs);
                taken.push(self.is_taken(Signing { offset_s: offset_s - skew_s, expires }).await);
            }
            self.open(&[]).await?.close().await;
            if let [Some(early), Some(late), Some(too_early), Some(too_late), ..] = taken[..] {
                self.findings.note(Fact::ClockWindow, window(early && late, too_early, too_late));
            }
            if let [.., Some(short), Some(long)] = taken[..] {
                self.findings.note(Fact::Expires, expiry(short, long));
            }
        }
        Ok(())
    }

    /// This machine's clock minus the service's, in seconds, by the answer to a signature that is a day old; `None` if it
    /// does not tell.
    async fn skew_s(&self) -> Option<i64> {
        let old = Signing { offset_s: -24 * 3600, expires: None };
        for _ in 0..REPEATS {
            match self.connector.dial_raw(old).await.outcome {
                Err(failure) => {
                    if let Cause::UpgradeRefused { skew_s: Some(skew_s), .. } = failure.cause {
                        return Some(skew_s);
                    }
                }
                Ok(raw) => raw.close().await,
            }
        }
        None
    }

    /// Whether a signature is taken; `None` if something else went wrong.
    async fn is_taken(&self, signing: Signing) -> Option<bool> {
        for _ in 0..REPEATS {
            match self.connector.dial_raw(signing).await.outcome {
                Ok(raw) => {
                    raw.close().await;
                    return Some(true);
                }
                Err(failure) if matches!(failure.cause, Cause::UpgradeRefused { status: 400..=428 | 431..=499, .. }) =>
                {
                    return Some(false);
                }
                Err(_) => {}
            }
        }
        None
    }

    pub(super) async fn probe_messages(&mut self) -> Result<(), Stopped> {
        let topic = topic_of_messages(self.subject);
        for _ in 0..MESSAGES {
            // Without the permission there is no latency to be found.
            let Ok(mut raw) = self.open(&[&topic]).await else { return Ok(()) };
            let sent = Instant::now();
            if raw.publish(&topic, Bytes::from_static(b"{}")).await.is_err() {
                continue;
            }
            while let Some((came, event)) = raw.next(sent + self.settings.timeout).await {
                match event {
                    RawEvent::Message { .. } => self.findings.time(Timed::Publish, came - sent),
                    RawEvent::Acknowledged(_) | RawEvent::Subscribed(_) => continue,
                    RawEvent::Ended(_) => {}
                }
                break;
            }
            raw.close().await;
        }
        Ok(())
    }

    pub(super) async fn probe_topics(&mut self) -> Result<(), Stopped> {
        let reserved = self.topics.create.request.clone();
        for _ in 0..REPEATS {
            let said = self.subscribing(&reserved).await?;
            self.findings.note(Fact::ReservedTopic, said);
        }
        let Some(denied) = self.settings.denied_topic.clone() else { return Ok(()) };
        for _ in 0..REPEATS {
            let said = self.subscribing(&denied).await?;
            self.findings.note(Fact::DeniedSubscribe, said);
            let said = self.publishing(&denied).await?;
            self.findings.note(Fact::DeniedPublish, said);
        }
        Ok(())
    }

    /// What a SUBSCRIBE to this topic meets.
    async fn subscribing(&mut self, topic: &str) -> Result<&'static str, Stopped> {
        let mut raw = self.open(&[]).await?;
        if raw.subscribe(&[topic]).await.is_err() {
            return Ok(ENDS);
        }
        let said = self.first(&mut raw, |event| match event {
            RawEvent::Subscribed(granted) if granted.contains(&false) => Some("SUBACK with 0x80"),
            RawEvent::Subscribed(_) => Some("granted"),
            _ => None,
        });
        let said = said.await;
        raw.close().await;
        Ok(said)
    }

    /// What a PUBLISH to this topic meets.
    async fn publishing(&mut self, topic: &str) -> Result<&'static str, Stopped> {
        let mut raw = self.open(&[]).await?;
        if raw.publish(topic, Bytes::from_static(b"{}")).await.is_err() {
            return Ok(ENDS);
        }
        let said = self.first(&mut raw, |event| match event {
            RawEvent::Acknowledged(_) => Some("PUBACK"),
            _ => None,
        });
        let said = said.await;
        raw.close().await;
        Ok(said)
    }

    /// The first event that says something.
    async fn first(&self, raw: &mut Raw, says: impl Fn(&RawEvent) -> Option<&'static str>) -> &'static str {
        let until = Instant::now() + self.settings.timeout;
        while let Some((_, event)) = raw.next(until).await {
            if let RawEvent::Ended(_) = event {
                return ENDS;
            }
            if let Some(said) = says(&event) {
                return said;
            }
        }
        "no answer"
    }
}

const ENDS: &str = "the connection ends";

fn expiry(short: bool, long: bool) -> &'static str {
    match (short, long) {
        (true, false) => "ignored",
        (false, true) => "heeded",
        (false, false) => "it can only shorten the window",
        (true, true) => "neither heeded nor ignored: both were taken",
    }
}

fn window(within: bool, too_early: bool, too_late: bool) -> &'static str {
    match (within, too_early, too_late) {
        (true, false, false) => "within 5 minutes",
        (true, true, true) => "5½ minutes are taken too",
        (true, true, false) => "5½ minutes are taken in the past, and not ahead",
        (true, false, true) => "5½ minutes are taken ahead, and not in the past",
        (false, ..) => "4½ minutes are refused",
    }
}
