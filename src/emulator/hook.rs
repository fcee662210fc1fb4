//! Pre-provisioning hooks: a program stands in for the Lambda function that decides on each registration.
//!
//! The program gets the function's input on standard input and writes the function's output to standard output. Source:
//! Developer Guide, "Pre-provisioning hooks": it has five seconds, and nothing is registered unless `allowProvisioning`
//! is true.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::account::ParameterOverrides;

/// The longest time that a hook may take.
const WITHIN: Duration = Duration::from_secs(5);
/// The longest output of a hook, bytes.
const MAX_OUTPUT: u64 = 256 * 1024;
/// How many hooks run at once. The others wait, which does not count towards their time.
static PLACES: Semaphore = Semaphore::const_new(16);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    #[serde(default)]
    allow_provisioning: bool,
    #[serde(default)]
    parameter_overrides: ParameterOverrides,
}

/// Runs the program `command` with this `input`.
///
/// # Errors
/// Why the registration is denied, worded to follow "the hook".
pub(super) async fn ask(command: &[String], input: String) -> Result<ParameterOverrides, &'static str> {
    let _place = PLACES.acquire().await.expect("nobody closes the semaphore");
    let output = match timeout(WITHIN, run(command, input)).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => {
            tracing::warn!(%error, command = command.first(), "a pre-provisioning hook failed");
            return Err("failed");
        }
        Err(_) => return Err("took longer than five seconds"),
    };
    match serde_json::from_slice::<Output>(&output) {
        Ok(Output { allow_provisioning: true, parameter_overrides }) => Ok(parameter_overrides),
        Ok(_) => Err("denied the request"),
        Err(error) => {
            tracing::warn!(%error, command = command.first(), "a pre-provisioning hook wrote something else than its answer");
            Err("failed")
        }
    }
}

/// A hook's process group: the program and what it has started. Killed when this is dropped.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // An error means that all of them have ended.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// Runs the program and returns its output. If this future is dropped, the program ends, with all that it has started.
async fn run(command: &[String], input: String) -> std::io::Result<Vec<u8>> {
    let (program, arguments) = command.split_first().ok_or(std::io::ErrorKind::InvalidInput)?;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    let id = child.id().and_then(|id| i32::try_from(id).ok());
    let mut group = Group(id.and_then(Pid::from_raw));
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let mut output = Vec::new();
    let write = async {
        // The hook may exit without reading its input, so a failed write is not an error.
        if let Some(mut stdin) = stdin {
            let _ = stdin.write_all(input.as_bytes()).await;
        }
    };
    let read = async {
        match stdout {
            Some(stdout) => stdout.take(MAX_OUTPUT).read_to_end(&mut output).await.map(drop),
            None => Ok(()),
        }
    };
    tokio::join!(write, read).1?;
    let status = child.wait().await?;
    // Its number may be another's from here on.
    group.0 = None;
    if !status.success() {
        return Err(std::io::Error::other(status.to_string()));
    }
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn said(script: &str) -> Result<ParameterOverrides, &'static str> {
        ask(&["sh", "-c", script].map(str::to_owned), String::from(r#"{"parameters": {}}"#)).await
    }

    #[tokio::test]
    async fn a_hook_allows_denies_or_fails() {
        let allow =
            r#"cat > /dev/null; echo '{"allowProvisioning": true, "parameterOverrides": {"Site": "B"}}'"#;
        assert_eq!(said(allow).await.unwrap()["Site"], "B");
        for (script, expected) in [
            (r#"echo '{"allowProvisioning": false}'"#, "denied the request"),
            ("echo '{}'", "denied the request"),
            ("echo nonsense", "failed"),
            ("exit 1", "failed"),
            (r#"echo '{"allowProvisioning": true}'; exit 1"#, "failed"),
        ] {
            assert_eq!(said(script).await, Err(expected), "{script}");
        }
        let none: [String; 0] = [];
        assert_eq!(ask(&none, String::new()).await, Err("failed"));
        assert_eq!(ask(&[String::from("/no/such/program")], String::new()).await, Err("failed"));
    }

    #[tokio::test]
    async fn a_hook_that_reads_its_input_gets_it_whole() {
        let long = format!(r#"{{"allowProvisioning": true, "pad": "{}"}}"#, "x".repeat(200_000));
        assert!(ask(&[String::from("cat")], long).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_hook_ends_with_all_that_it_has_started() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("pid");
        let script = format!("sleep 600 & echo $! > {0}.new; mv {0}.new {0}; wait", file.display());
        let command = ["sh", "-c", &script].map(str::to_owned);
        let running = run(&command, String::new());
        let started = async {
            loop {
                match std::fs::read_to_string(&file) {
                    Ok(id) => return id,
                    Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        };
        let id = tokio::select! {
            ended = running => panic!("{ended:?}"),
            id = started => id,
        };
        let id = Pid::from_raw(id.trim().parse().unwrap()).unwrap();
        // A zombie has ended too: its new parent has yet to wait for it.
        let state = || std::fs::read_to_string(format!("/proc/{}/stat", id.as_raw_nonzero()));
        let ended = async {
            while state().is_ok_and(|state| !state.contains(") Z ")) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), ended).await.expect("it ends long before its 600 s");
    }

    #[tokio::test(start_paused = true)]
    async fn a_hook_has_five_seconds() {
        assert_eq!(said("sleep 600").await, Err("took longer than five seconds"));
    }
}
