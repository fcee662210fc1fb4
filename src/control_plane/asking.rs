//! AWS IoT's control plane, each operation at the rate that its throttles allow.
//!
//! Owns when a request is sent, and when it is retried. The operations are methods in the files beside this one.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_iot::config::http::HttpResponse;
use aws_sdk_iot::config::retry::RetryConfig;
use aws_sdk_iot::error::{ProvideErrorMetadata, SdkError};
use tokio::sync::{OnceCell, Semaphore};
use tokio::time::{Instant, sleep, sleep_until};

use super::client::{AskError, AwsSettings, iot};
use super::clock::ServiceClock;
use super::operation::per_second;
use super::pace::Pace;

/// How many times a request is sent if the service fails or does not answer.
const ATTEMPTS: u32 = 4;
/// The pause before the second attempt; each later one is twice as long.
const PAUSE: Duration = Duration::from_millis(250);
/// How long one request is retried because of throttles.
const THROTTLED_FOR: Duration = Duration::from_secs(300);
/// How many requests may be under way at once.
const MOST_UNDER_WAY: usize = 128;

/// The control plane. Nothing is set up before the first request: most runs have none.
///
/// Any number of tasks may use it at once. Each operation has its own rate, which begins at AWS's default quota and
/// follows the service's throttles. A throttled request waits for its turn and is retried for at most five minutes;
/// after an error of the service or the network it is retried three times.
#[derive(Debug)]
pub struct ControlPlane {
    settings: AwsSettings,
    client: OnceCell<aws_sdk_iot::Client>,
    /// Paces by the operation's name.
    paces: Mutex<HashMap<&'static str, Pace>>,
    under_way: Semaphore,
    clock: ServiceClock,
}

/// What an answer means for a retry.
enum Verdict {
    Final,
    Throttled,
    /// A retry a moment later may succeed.
    Passing,
}

impl ControlPlane {
    /// The control plane with `settings`. Touches no network.
    pub fn new(settings: AwsSettings) -> Self {
        Self {
            settings,
            client: OnceCell::new(),
            paces: Mutex::default(),
            under_way: Semaphore::new(MOST_UNDER_WAY),
            clock: ServiceClock::default(),
        }
    }

    /// This machine's clock minus the service's, in seconds, by the last answer; `None` until the first answer.
    pub fn skew_s(&self) -> Option<i64> {
        self.clock.skew_s()
    }

    /// Runs `operation` by calling `send`, and retries it if that may help.
    pub(super) async fn ask<T, E, F>(
        &self,
        operation: &'static str,
        send: impl Fn(aws_sdk_iot::Client) -> F,
    ) -> Result<T, AskError>
    where
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let failed = |detail| AskError::Failed { operation, detail };
        let client = self
            .client
            .get_or_try_init(async || iot(&self.settings, self.clock.clone()))
            .await
            .map_err(failed)?;
        let began = Instant::now();
        let mut attempts = 1;
        loop {
            sleep_until(self.pace(operation, |pace| pace.turn(Instant::now()))).await;
            let place = self.under_way.acquire().await.expect("it is never closed");
            let sent = Instant::now();
            let answer = send(client.clone()).await;
            drop(place);
            let error = match answer {
                Ok(answer) => {
                    self.pace(operation, Pace::note_answer);
                    return Ok(answer);
                }
                Err(error) => error,
            };
            match verdict(&error) {
                Verdict::Throttled => {
                    let per_second = self.pace(operation, |pace| {
                        pace.note_throttle(sent, Instant::now());
                        pace.per_second()
                    });
                    tracing::debug!(operation, per_second, "throttled");
                    if began.elapsed() >= THROTTLED_FOR {
                        return Err(AskError::of(operation, &error));
                    }
                }
                Verdict::Passing if attempts < ATTEMPTS => {
                    let pause = PAUSE * 2_u32.pow(attempts - 1);
                    attempts += 1;
                    // Jitter, so that requests do not all retry at the same instant.
                    sleep(pause.mul_f64(rand::random_range(0.5..1.5))).await;
                }
                Verdict::Passing => return Err(AskError::of(operation, &error)),
                Verdict::Final => {
                    self.pace(operation, Pace::note_answer);
                    return Err(AskError::of(operation, &error));
                }
            }
        }
    }

    fn pace<T>(&self, operation: &'static str, act: impl FnOnce(&mut Pace) -> T) -> T {
        let mut paces = self.paces.lock().unwrap_or_else(PoisonError::into_inner);
        act(paces.entry(operation).or_insert_with(|| Pace::new(per_second(operation))))
    }
}

/// The verdict on an error. AWS IoT throttles with a 400, other services with a 429: the type counts, or else the
/// status.
fn verdict<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> Verdict {
    match error {
        SdkError::ServiceError(answer) => {
            let status = answer.raw().status().as_u16();
            match answer.err().code() {
                Some(code) if is_throttle(code) => Verdict::Throttled,
                _ if status == 429 => Verdict::Throttled,
                _ if status >= 500 => Verdict::Passing,
                _ => Verdict::Final,
            }
        }
        SdkError::DispatchFailure(failure) if failure.is_user() => Verdict::Final,
        SdkError::ResponseError(_) | SdkError::DispatchFailure(_) | SdkError::TimeoutError(_) => {
            Verdict::Passing
        }
        _ => Verdict::Final,
    }
}

/// Whether an error's type means that there were too many requests. `LimitExceededException` does not: AWS IoT uses
/// it for too many resources.
pub(super) fn is_throttle(code: &str) -> bool {
    matches!(
        code,
        "ThrottlingException"
            | "Throttling"
            | "ThrottledException"
            | "TooManyRequestsException"
            | "RequestLimitExceeded"
            | "RequestThrottled"
            | "RequestThrottledException"
    )
}

/// Disables the SDK's own retries, which ignore other requests.
pub(super) fn no_retries() -> RetryConfig {
    RetryConfig::disabled()
}
