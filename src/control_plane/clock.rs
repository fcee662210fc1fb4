//! What the service's answers show about this machine's clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::SystemTime;

use aws_sdk_iot::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_iot::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_iot::error::BoxError;
use aws_sdk_iot::primitives::{DateTime, DateTimeFormat};

/// This machine's clock compared with the service's, by the `date` of the last answer.
///
/// The SDK corrects the clock that it signs control plane requests with, so a wrong clock does not show there; a
/// WebSocket's signature has no such correction.
#[derive(Debug, Clone)]
pub(super) struct ServiceClock(Arc<AtomicI64>);

/// The value until the first answer.
const UNKNOWN: i64 = i64::MIN;

impl Default for ServiceClock {
    fn default() -> Self {
        Self(Arc::new(AtomicI64::new(UNKNOWN)))
    }
}

impl ServiceClock {
    /// This machine's clock minus the service's, in seconds; `None` until the first answer.
    pub(super) fn skew_s(&self) -> Option<i64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|skew| *skew != UNKNOWN)
    }

    fn note(&self, date: &str, now: SystemTime) {
        let Ok(theirs) = DateTime::from_str(date, DateTimeFormat::HttpDate) else { return };
        let Ok(ours) = now.duration_since(SystemTime::UNIX_EPOCH) else { return };
        let skew = i64::try_from(ours.as_secs()).ok().and_then(|ours| ours.checked_sub(theirs.secs()));
        self.0.store(skew.unwrap_or(UNKNOWN), Ordering::Relaxed);
    }
}

impl Intercept for ServiceClock {
    fn name(&self) -> &'static str {
        "ServiceClock"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let Some(date) = context.response().headers().get("date") {
            self.note(date, SystemTime::now());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_skew_is_ours_minus_theirs() {
        let clock = ServiceClock::default();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        assert_eq!(clock.skew_s(), None);
        clock.note("yesterday", now);
        assert_eq!(clock.skew_s(), None);
        clock.note("Sun, 06 Nov 1994 08:49:37 GMT", now + Duration::from_secs(600));
        assert_eq!(clock.skew_s(), Some(600));
        clock.note("Sun, 06 Nov 1994 08:59:37 GMT", now);
        assert_eq!(clock.skew_s(), Some(-600));
    }
}
