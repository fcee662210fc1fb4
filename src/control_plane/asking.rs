//! AWS IoT's control plane, each operation at the rate that its throttles allow.
//!
//! Owns when a question is asked, and again. What is asked stands in the files beside this one, a method an operation.

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

/// How often a question is asked whose answer is an error of the service's or none at all.
const ATTEMPTS: u32 = 4;
/// The pause before the second attempt; each later one is twice as long.
const PAUSE: Duration = Duration::from_millis(250);
/// How long one question is asked again because of throttles.
const THROTTLED_FOR: Duration = Duration::from_secs(300);
/// How many questions may be under way at once.
const MOST_UNDER_WAY: usize = 128;

/// The control plane. Nothing is set up before the first question: most runs have none.
///
/// Any number of tasks may ask at once: each operation is asked at its own rate, which begins at AWS's default quota and
/// follows the service's throttles. A question that was throttled waits for its turn and is asked again, for five minutes at most; an error
/// of the service or of the network is asked again three times.
#[derive(Debug)]
pub struct ControlPlane {
    settings: AwsSettings,
    client: OnceCell<aws_sdk_iot::Client>,
    /// By the operation's name.
    paces: Mutex<HashMap<&'static str, Pace>>,
    under_way: Semaphore,
    clock: ServiceClock,
}

/// What an answer means for the question.
enum Verdict {
    Final,
    Throttled,
    /// It may go better a moment later.
    Passing,
}

impl ControlPlane {
    /// The control plane of `settings`. Touches no network.
    pub fn new(settings: AwsSettings) -> Self {
        Self {
            settings,
            client: OnceCell::new(),
            paces: Mutex::default(),
            under_way: Semaphore::new(MOST_UNDER_WAY),
            clock: ServiceClock::default(),
        }
    }

    /// This machine's clock minus the service's, in seconds, as its last answer has it; `None` until the first answer.
    pub fn skew_s(&self) -> Option<i64> {
        self.clock.skew_s()
    }

    /// Asks for `operation` as `send` has it, and again where that may help.
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
                    // Not all at the same instant.
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

/// AWS IoT says with a 400 that it throttles, other services with a 429: the type counts, or else the status.
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

/// Whether an error's type means that there were too many requests. `LimitExceededException` does not: AWS IoT says it of things
/// that there are too many of.
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

/// The SDK's own retries wait without regard to other questions.
pub(super) fn no_retries() -> RetryConfig {
    RetryConfig::disabled()
}
