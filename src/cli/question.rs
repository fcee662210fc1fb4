//! Questions before a run: how long an answer may take, and what is said meanwhile.

use std::fmt::Display;
use std::pin::pin;
use std::time::Duration;

use tokio::time::timeout;

use super::speech::say;
use crate::control_plane::AskError;

/// How long the answer to one question may take.
const WITHIN: Duration = Duration::from_secs(5);
/// How long a wait may be silent.
const SILENT: Duration = Duration::from_secs(2);

/// The answer to a question, within [`WITHIN`]; a wait is announced.
pub(super) async fn answer<T>(
    operation: &'static str,
    answer: impl Future<Output = Result<T, AskError>>,
) -> Result<T, AskError> {
    waiting_for(format_args!("an answer to {operation}"), within(operation, answer)).await
}

/// The answer to one of many questions, within [`WITHIN`]; nothing is said.
pub(super) async fn within<T>(
    operation: &'static str,
    answer: impl Future<Output = Result<T, AskError>>,
) -> Result<T, AskError> {
    timeout(WITHIN, answer).await.unwrap_or_else(|_| Err(unanswered(operation, WITHIN)))
}

/// The error for a question without an answer.
pub(super) fn unanswered(operation: &'static str, within: Duration) -> AskError {
    let detail = format!("no answer within {}", humantime::format_duration(within));
    AskError::Failed { operation, detail }
}

/// Does `work`, and says what is waited for if it takes long.
pub(super) async fn waiting_for<T>(what: impl Display, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    if let Ok(done) = timeout(SILENT, &mut work).await {
        return done;
    }
    say(format_args!("waiting for {what}"));
    work.await
}
