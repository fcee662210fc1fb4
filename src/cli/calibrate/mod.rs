//! `fleetmint calibrate`: finds out what no documentation says of an account, and makes a scenario of it.

mod lot;

use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::Args;
use serde_json::json;

use super::args::{TargetArgs, timeout};
use super::cleanup;
use super::exit::{Exit, Fatal, ledger as ledger_error};
use super::outputs::Place;
use super::settings::usage;
use super::signals;
use super::speech::{print, say, warn};
use super::target::{Site, Target, asked};
use super::tended;
use crate::calibration::{
    self, About, Findings, MESSAGES, MOST_CERTIFICATES, MOST_THINGS, Probe, Settings, Stopped, Subject,
    topic_of_messages,
};
use crate::control_plane::AskError;
use crate::ledger::{Binding, Ledger, RunId};
use crate::provisioning::Topics;
use crate::template::body_of;
use crate::wording::number;
use crate::wording::plain;
use lot::Devices;

const AFTER: &str = "\
Examples:
  fleetmint calibrate --template LINE_A --profile lab --dry-run
  fleetmint calibrate --template LINE_A --profile lab
  fleetmint emulate --scenario account.toml

Much of what the service does is documented nowhere. This verb asks your account: how it answers requests that are wrong, whether a \
token may be used twice, whether an answer needs a subscription, how long each operation takes. It makes at most 25 certificates, which \
the service deletes after an hour unless they are registered, and at most 5 things, with what your template adds to each; it lists them \
and asks first. All of it is in the ledger, and is removed at the end; if the run was killed, the same command removes it first, and so \
does `fleetmint cleanup LEDGER --orphans --yes`. It takes one to three minutes. docs/CALIBRATE.md says what is asked, and how.";

/// Find out what an account does where no documentation says it, and make a scenario for the emulator of it.
#[derive(Debug, Args)]
#[command(after_help = AFTER)]
pub(super) struct CalibrateArgs {
    /// The provisioning template to register with [default with --emulator: its first].
    #[arg(long, value_name = "NAME")]
    pub(super) template: Option<String>,

    /// Where to keep what is made.
    #[arg(long, value_name = "FILE", default_value = "calibrate.ledger")]
    pub(super) ledger: PathBuf,

    /// Do not ask for confirmation.
    #[arg(long)]
    pub(super) yes: bool,

    /// Only say what would be made and asked. Reads the template, and sends nothing else.
    #[arg(long, conflicts_with = "yes")]
    pub(super) dry_run: bool,

    /// How to make up a parameter's values, as in `load`, such as C-{n:06}. Repeatable.
    #[arg(long = "column", value_name = "NAME=PATTERN")]
    pub(super) columns: Vec<String>,

    /// A parameter that is the same for every device. Repeatable.
    #[arg(long = "param", value_name = "NAME=VALUE")]
    pub(super) params: Vec<String>,

    /// The template's body is in this file: the account need not be asked for it.
    #[arg(long, value_name = "FILE")]
    pub(super) template_file: Option<PathBuf>,

    /// A topic that a policy denies to these credentials: also find out how a denial looks.
    #[arg(long, value_name = "TOPIC")]
    pub(super) denied_topic: Option<String>,

    /// Also find the throttles: each kind of request is flooded twice, for 5 s, with 60 wrong ones a second. Other clients of the
    /// account are throttled meanwhile.
    #[arg(long)]
    pub(super) limits: bool,

    /// Also wait until a token is this old, such as 65m, and find out how an expired one is answered.
    #[arg(long, value_name = "TIME", value_parser = age)]
    pub(super) expired_after: Option<Duration>,

    /// How long to wait for an answer.
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = timeout)]
    pub(super) timeout: Duration,

    /// How long the removal may take to stop after the first Ctrl-C or SIGTERM.
    #[arg(long, value_name = "TIME", default_value = "25s", value_parser = timeout)]
    pub(super) drain_timeout: Duration,

    #[command(flatten)]
    pub(super) target: TargetArgs,

    /// Where to write the scenario.
    #[arg(long, value_name = "FILE", default_value = "account.toml", help_heading = "Results")]
    pub(super) scenario_out: PathBuf,

    /// Say the report as JSON.
    #[arg(long, help_heading = "Results")]
    pub(super) json: bool,
}

fn age(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(time) if time <= Duration::from_secs(24 * 3600) => Ok(time),
        _ => Err(String::from("wanted a time of at most 24h, such as 65m")),
    }
}

pub(super) async fn run(args: CalibrateArgs) -> Result<Exit, Fatal> {
    let CalibrateArgs { target, scenario_out, .. } = args;
    let scenario = Place::check("--scenario-out", scenario_out)?;
    let target = target.resolve().await?;
    let template = target.template(args.template.as_deref())?;
    let mode = if args.dry_run {
        Mode::Rehearsal
    } else if args.yes {
        Mode::Agreed
    } else {
        Mode::Asking
    };
    let settings = Settings {
        timeout: args.timeout,
        denied_topic: args.denied_topic,
        limits: args.limits,
        expired_after: args.expired_after,
    };
    let site = target.open().await?;
    let order = Order {
        template,
        template_file: args.template_file,
        ledger: args.ledger,
        columns: args.columns,
        params: args.params,
        mode,
        settings,
        drain_timeout: args.drain_timeout,
    };
    let done = order.carry_out(&target, &site).await;
    let region = site.region().to_owned();
    site.close().await;
    let Some(Done { findings, cut_short, exit }) = done? else { return Ok(Exit::Complete) };
    let about = About { region: &region, cut_short };
    scenario.write(&calibration::scenario(&findings, about))?;
    print(&if args.json {
        serde_json::to_string_pretty(&calibration::json(&findings, about)).expect("it is plain data") + "\n"
    } else {
        calibration::text(&findings, about)
    });
    Ok(exit)
}

/// Whether to go ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Rehearsal,
    Asking,
    Agreed,
}

/// What was asked for.
struct Order {
    template: String,
    template_file: Option<PathBuf>,
    ledger: PathBuf,
    columns: Vec<String>,
    params: Vec<String>,
    mode: Mode,
    settings: Settings,
    drain_timeout: Duration,
}

/// What came of it.
struct Done {
    findings: Findings,
    cut_short: Option<&'static str>,
    exit: Exit,
}

impl Order {
    /// Calibrates, and removes what was made; `None` if nothing was to be done.
    async fn carry_out(&self, target: &Target, site: &Site) -> Result<Option<Done>, Fatal> {
        if !site.can_ask() {
            let message = "needs AWS credentials beside it, to remove what is made: it may only provision";
            return Err(usage("--claim-cert", message));
        }
        if self.ledger.exists() {
            self.check_ledger(target)?;
        }
        let body = self.body(site).await?;
        let devices = Devices::new(&self.ledger, &body, &self.columns, &self.params)?;
        let subject = devices.subject(&self.template, body);
        say(plan(&subject, site, self));
        if self.mode == Mode::Rehearsal {
            return Ok(None);
        }
        if self.mode == Mode::Asking && !is_confirmed()? {
            say("nothing was made");
            return Ok(None);
        }
        if self.ledger.exists() {
            let left = self.clean(None, site).await?;
            if left != Exit::Complete {
                return Err(Fatal::new(
                    left,
                    "what an earlier calibration made is not all removed: see above",
                ));
            }
        }
        check_new(site, &subject).await?;
        let binding = Binding {
            template: self.template.clone(),
            region: target.region().to_owned(),
            account: target.account(),
            ..Binding::default()
        };
        let (ledger, run) = devices.begin(&binding)?;
        self.probe(site, &subject, ledger, run).await.map(Some)
    }

    /// Checks that the ledger is of this account, region and template, before anything is removed by it.
    fn check_ledger(&self, target: &Target) -> Result<(), Fatal> {
        let view = Ledger::open_read_only(&self.ledger).map_err(ledger_error)?;
        let binding = &view.lot().binding;
        tended::check_binding(&self.ledger, binding, target)?;
        if binding.template == self.template {
            return Ok(());
        }
        let (found, wanted) = (&self.template, &binding.template);
        let message = format!("found {found}; the ledger {} was made for {wanted}", self.ledger.display());
        Err(usage("--template", message))
    }

    /// Makes all probes, and removes what they made, whatever came of them.
    async fn probe(
        &self,
        site: &Site,
        subject: &Subject,
        mut ledger: Ledger,
        run: RunId,
    ) -> Result<Done, Fatal> {
        let connector = site.connector(Topics::of(&self.template, &[]), self.settings.timeout)?;
        let work = calibration::run(&connector, subject, &self.settings, &mut ledger, tell);
        let (findings, stopped) = tokio::select! {
            done = work => done,
            () = signals::interrupted() => {
                say("stopping; what was made is removed");
                drop(ledger);
                let cleaned = self.clean(Some(run), site).await.unwrap_or_else(Fatal::report);
                return Err(Fatal::new(Exit::Interrupted, interrupted(cleaned, &self.ledger)));
            }
        };
        let end = if stopped.is_some() { "stopped" } else { "complete" };
        if !matches!(stopped, Some(Stopped::Ledger(_))) {
            ledger.end_run(run, end, &json!({}), SystemTime::now()).map_err(ledger_error)?;
        }
        ledger.close().map_err(ledger_error)?;
        let (cut_short, stopped) = (stopped.as_ref().map(cut_short), stopped.map(told));
        let cleaned = self.clean(Some(run), site).await;
        let cleaned = cleaned.unwrap_or_else(Fatal::report);
        if cleaned != Exit::Complete {
            warn(not_all_removed(&self.ledger));
        }
        Ok(Done { findings, cut_short, exit: stopped.map_or(cleaned, Fatal::report) })
    }

    /// Removes what was made since `run`, or ever.
    async fn clean(&self, run: Option<RunId>, site: &Site) -> Result<Exit, Fatal> {
        let template_file = self.template_file.as_deref();
        cleanup::after(&self.ledger, run, site, template_file, self.drain_timeout).await
    }

    /// The template's body.
    async fn body(&self, site: &Site) -> Result<String, Fatal> {
        if let Some(file) = &self.template_file {
            let text = std::fs::read_to_string(file)
                .map_err(|error| usage("--template-file", format!("{}: {error}", file.display())))?;
            return Ok(body_of(&text).into_owned());
        }
        let described = site.template(&self.template).await.map_err(|error| {
            let allow =
                "allow iot:DescribeProvisioningTemplate to these credentials, or give --template-file";
            asked(&error, allow, "check --template and --region, or give --template-file")
        })?;
        Ok(described.body)
    }
}

/// Checks that there is no thing yet with a name that the template makes of these devices, so that what has it afterwards
/// was made.
async fn check_new(site: &Site, subject: &Subject) -> Result<(), Fatal> {
    let plane = site.control_plane();
    for name in subject.things() {
        match plane.thing(&name).await {
            Err(AskError::NotFound { .. }) => {}
            Ok(_) => {
                let message = format!("thing {} is there already: wanted names that are new", plain(&name));
                return Err(usage("--column", message));
            }
            Err(error) => {
                let allow = "allow iot:DescribeThing to these credentials";
                return Err(asked(&error, allow, "nothing was made; try again later"));
            }
        }
    }
    Ok(())
}

/// What will be made and asked.
fn plan(subject: &Subject, site: &Site, order: &Order) -> String {
    let things: Vec<&str> = subject.devices.iter().map(|(_, device)| device.key.as_str()).collect();
    let (first, last) = (things.first().unwrap_or(&""), things.last().unwrap_or(&""));
    let signatures = if site.has_claim() { "" } else { "about 20 signatures with another date; " };
    let mut plan = format!(
        "calibrating template {} in {} on {site}\n\
         made: at most {MOST_CERTIFICATES} certificates, and at most {MOST_THINGS} things, named by {first} to {last}, with what \
         the template adds to each; all are removed in the end\n\
         sent: about 60 requests, half of them wrong on purpose, each on a connection of its own; {signatures}{} to {}",
        subject.template,
        site.region(),
        number(MESSAGES as u64, "message", "messages"),
        topic_of_messages(subject)
    );
    if let Some(topic) = &order.settings.denied_topic {
        plan += &format!("; 3 times a SUBSCRIBE and a PUBLISH to {topic}");
    }
    if order.settings.limits {
        plan += "; floods that use up the quotas of RegisterThing, CreateKeysAndCertificate and CreateCertificateFromCsr for some \
                 seconds: other clients are throttled meanwhile";
    }
    plan + &format!("\nkept: in {}, until it is removed", order.ledger.display())
}

/// Asks on the terminal. Anything other than yes means no.
fn is_confirmed() -> Result<bool, Fatal> {
    if !(std::io::stdin().is_terminal() && std::io::stderr().is_terminal()) {
        return Err(Fatal::new(Exit::Usage, "there is no terminal to ask on; pass --yes if you mean it"));
    }
    let _ = write!(std::io::stderr(), "Go ahead? [y/N] ");
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    let _ = std::io::stdin().lock().read_line(&mut answer);
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

fn tell(probe: Probe) {
    say(match probe {
        Probe::Signatures => "signatures with other dates",
        Probe::Messages => "messages",
        Probe::Topics => "topics",
        Probe::Refusals => "requests that are wrong",
        Probe::Certificates => "answers without a subscription",
        Probe::SigningRequests => "certificates",
        Probe::Registrations => "things",
        Probe::Capitals => "Parameters",
        Probe::Omission => "a parameter that is left out",
        Probe::Limits => "throttles, with --limits",
        Probe::Expiry => "a token that has expired, with --expired-after",
    });
}

/// What is said of an interruption after which the removal ended like this.
fn interrupted(cleaned: Exit, ledger: &Path) -> String {
    match cleaned {
        Exit::Complete => String::from("interrupted, and everything removed; the same command begins anew"),
        _ => format!("interrupted; {}", not_all_removed(ledger)),
    }
}

fn not_all_removed(ledger: &Path) -> String {
    format!("not all was removed: `fleetmint cleanup {} --orphans --yes` goes on", ledger.display())
}

/// Why it stopped, for the report, which must not name the endpoint.
fn cut_short(stopped: &Stopped) -> &'static str {
    match stopped {
        Stopped::Unreachable(_) => "the service could not be reached any more",
        Stopped::NoSubscription => "the topics of answers could not be subscribed to",
        Stopped::Ledger(_) => "the ledger could not be written",
    }
}

/// Why it stopped, with its exit code.
fn told(stopped: Stopped) -> Fatal {
    match stopped {
        Stopped::Unreachable(failure) => Fatal::new(Exit::of_failure(&failure), failure),
        Stopped::NoSubscription => Fatal::new(
            Exit::NotPermitted,
            "the topics of answers could not be subscribed to: allow iot:Subscribe on their topicfilter",
        ),
        Stopped::Ledger(error) => ledger_error(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interruption_says_removed_only_of_what_was_removed() {
        let ledger = Path::new("c.ledger");
        assert!(interrupted(Exit::Complete, ledger).contains("everything removed"));
        assert_eq!(
            interrupted(Exit::Interrupted, ledger),
            "interrupted; not all was removed: `fleetmint cleanup c.ledger --orphans --yes` goes on"
        );
    }

    #[test]
    fn an_age_may_be_more_than_an_hour() {
        assert_eq!(age("65m"), Ok(Duration::from_secs(3900)));
        assert!(age("2d").is_err() && age("x").is_err());
    }
}
