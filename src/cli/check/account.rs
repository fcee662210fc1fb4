//! Checks of the account: the caller, the endpoint, the template, and whether what the template needs exists.

use std::time::Duration;

use futures::stream::{self, StreamExt as _};
use tokio::time::timeout;

use super::Things;
use super::findings::Finding;
use crate::call::Call;
use crate::cli::advice;
use crate::cli::exit::Exit;
use crate::cli::question::{self, answer, waiting_for, within};
use crate::cli::target::Site;
use crate::control_plane::{
    AskError, Caller, ControlPlane, DescribedTemplate, QuotaSource, account_quotas, caller,
};
use crate::failure::Cause;
use crate::preflight::{
    EndpointMatch, Expected, Names, SKEW_LIMIT, compare_endpoints, role_account, time_left,
};
use crate::provisioning::Topics;
use crate::service::Quota;
use crate::template::Template;
use crate::transport::{Connection as _, Connector as _};
use crate::wording::{Excerpt, number};

/// How long querying a sample of things may take; `--deep` has no such limit.
const SAMPLE_WITHIN: Duration = Duration::from_secs(10);
/// How many things are queried at once.
const AT_ONCE: usize = 32;

/// An account that can be queried.
pub(super) struct Account<'a> {
    site: &'a Site,
    plane: ControlPlane,
    template: &'a str,
    caller: Option<Caller>,
}

impl<'a> Account<'a> {
    pub(super) fn new(site: &'a Site, template: &'a str) -> Self {
        Self { site, plane: site.control_plane(), template, caller: None }
    }

    /// Checks whose credentials these are.
    pub(super) async fn learn_caller(&mut self) -> Finding {
        match answer("GetCallerIdentity", caller(&self.site.sts())).await {
            Ok(caller) => {
                let finding = Finding::ok("credentials", &caller);
                self.caller = Some(caller);
                finding
            }
            Err(error) => unanswered("credentials", &error),
        }
    }

    /// Checks whether the dialled endpoint is this account's.
    pub(super) async fn endpoint(&self) -> Finding {
        let given = self.site.endpoint.host_header();
        let described = match answer("DescribeEndpoint", self.plane.data_endpoint()).await {
            Ok(described) => described,
            Err(error) => return unanswered("endpoint", &error),
        };
        let found = || {
            format!(
                "{given} is not the endpoint of the account of these credentials in {}, which is {described}",
                self.site.region()
            )
        };
        let remedy = "leave --endpoint out, or use the credentials of the endpoint's account";
        match compare_endpoints(&given, &described) {
            EndpointMatch::Same => Finding::ok(
                "endpoint",
                format!("{given} in {}, as DescribeEndpoint says", self.site.region()),
            ),
            EndpointMatch::Other => Finding::wrong("endpoint", Exit::Unavailable, found()).remedy(remedy),
            EndpointMatch::Unclear => Finding::warning("endpoint", found()).remedy(remedy),
        }
    }

    /// Checks this machine's clock; `None` if no reply has shown the time yet.
    pub(super) fn clock(&self) -> Option<Finding> {
        let skew = self.plane.skew_s()?;
        let off = Duration::from_secs(skew.unsigned_abs());
        let way = if skew > 0 { "ahead of" } else { "behind" };
        let found =
            format!("this machine's clock is {} {way} the service's", humantime::format_duration(off));
        Some(if off >= SKEW_LIMIT {
            Finding::wrong("clock", Exit::Unavailable, found).remedy("set it: signatures are refused")
        } else if off * 2 >= SKEW_LIMIT {
            Finding::warning("clock", found).remedy("set it: at 5 minutes signatures are refused")
        } else {
            Finding::ok("clock", format!("{}s from the service's", off.as_secs()))
        })
    }

    /// Queries the template.
    pub(super) async fn described(&self) -> Result<DescribedTemplate, AskError> {
        answer("DescribeProvisioningTemplate", self.plane.template(self.template)).await
    }

    /// Checks the template.
    pub(super) async fn template(&self) -> (Vec<Finding>, Option<DescribedTemplate>) {
        let name = self.template;
        let described = match self.described().await {
            Ok(described) => described,
            Err(AskError::NotFound { .. }) => {
                let found = format!("there is no template {name} in {}", self.site.region());
                let finding = Finding::wrong("template", Exit::Unavailable, found)
                    .remedy("check --template and --region; `fleetmint template create` makes one");
                return (vec![finding], None);
            }
            Err(error) => return (vec![unanswered("template", &error)], None),
        };
        let mut findings = vec![self.state(&described)];
        findings.extend(role(&described, self.caller.as_ref()));
        if let Some(hook) = &described.hook {
            let found = format!(
                "{hook} is asked before each registration, and can refuse it or change its parameters"
            );
            findings.push(Finding::ok("hook", found));
        }
        (findings, Some(described))
    }

    fn state(&self, described: &DescribedTemplate) -> Finding {
        let name = self.template;
        if !described.is_for_fleets {
            let found = format!(
                "{name} is for just-in-time provisioning, and no device can register with it over MQTT"
            );
            return Finding::wrong("template", Exit::Unavailable, found)
                .remedy("give --template one of the type FLEET_PROVISIONING");
        }
        if !described.is_enabled {
            let remedy =
                format!("enable it: aws iot update-provisioning-template --template-name {name} --enabled");
            let found = format!("{name} is disabled");
            return Finding::wrong("template", Exit::Unavailable, found).remedy(remedy);
        }
        match Template::parse(&described.body) {
            Ok(_) => Finding::ok("template", format!("{name} is there and enabled")),
            Err(error) => Finding::warning(
                "template",
                format!("{name} has something in it that fleetmint does not know: {error}"),
            )
            .remedy("what its rows become cannot be told before the run"),
        }
    }

    /// Checks the account's rates, and how long `devices` take at these.
    pub(super) async fn quotas(&self, create: Call, devices: u64) -> Finding {
        let create = match create {
            Call::CreateCertificateFromCsr => Quota::CreateCertificateFromCsr,
            _ => Quota::CreateKeysAndCertificate,
        };
        let wanted = [create, Quota::RegisterThing];
        let settings = self.site.service_quotas();
        let asked = account_quotas(&settings, &wanted);
        match answer("GetServiceQuota", asked).await {
            Ok(quotas) => {
                let told = quotas.iter().map(|quota| {
                    let source = match quota.source {
                        QuotaSource::Applied => "applied",
                        QuotaSource::Default => "AWS's default",
                    };
                    format!("{:?} {} ({source})", quota.quota, quota.rate)
                });
                let told = told.collect::<Vec<_>>().join(", ");
                let left = time_left(devices, quotas[0].rate, quotas[1].rate);
                let left = humantime::format_duration(left);
                Finding::ok(
                    "quotas",
                    format!("{told}: {} at least {left}", number(devices, "device takes", "devices take")),
                )
            }
            Err(error) => unanswered("quotas", &error),
        }
    }

    /// Checks whether what registrations refer to exists: thing types, groups, billing groups and policies.
    pub(super) async fn resources(&self, expected: &Expected) -> Vec<Finding> {
        let plane = &self.plane;
        let asked = async {
            tokio::join!(
                each("DescribeThingType", &expected.types, |name| plane.is_thing_type_usable(name)),
                each("DescribeThingGroup", &expected.groups, |name| plane.is_thing_group_static(name)),
                each("DescribeBillingGroup", &expected.billing_groups, |name| plane.billing_group(name)),
                each("GetPolicy", &expected.policies, |name| plane.policy(name)),
            )
        };
        let what = "answers about thing types, groups and policies";
        let (types, groups, billing_groups, policies) = waiting_for(what, asked).await;
        let mut findings = Vec::new();
        findings.extend(judge("thing type", types, "create-thing-type --thing-type-name", |usable| {
            (!usable).then_some("is deprecated: no thing can have it")
        }));
        findings.extend(judge("group", groups, "create-thing-group --thing-group-name", |is_static| {
            (!is_static).then_some("is a dynamic group: no thing can be put into it")
        }));
        let create_billing = "create-billing-group --billing-group-name";
        findings.extend(judge("billing group", billing_groups, create_billing, |()| None));
        let create_policy = "create-policy --policy-document file://POLICY.json --policy-name";
        findings.extend(judge("policy", policies, create_policy, |_| None));
        findings
    }

    /// Of devices and their things, those whose thing exists. Fails if querying a sample takes longer than
    /// [`SAMPLE_WITHIN`].
    pub(super) async fn existing<'t>(
        &self,
        things: &'t [(String, String)],
        which: Things,
    ) -> Result<Vec<&'t (String, String)>, AskError> {
        let ask = stream::iter(things).map(|thing| async move {
            match self.plane.thing(&thing.1).await {
                Ok(_) => Ok(Some(thing)),
                Err(AskError::NotFound { .. }) => Ok(None),
                Err(error) => Err(error),
            }
        });
        let answers = async {
            let mut existing = Vec::new();
            let mut answers = std::pin::pin!(ask.buffered(AT_ONCE));
            while let Some(answer) = answers.next().await {
                existing.extend(answer?);
            }
            Ok(existing)
        };
        let answers = waiting_for("answers to DescribeThing", answers);
        match which {
            Things::All => answers.await,
            Things::Sample(_) => timeout(SAMPLE_WITHIN, answers)
                .await
                .unwrap_or_else(|_| Err(question::unanswered("DescribeThing", SAMPLE_WITHIN))),
        }
    }
}

/// Opens one real connection like a run: signed or with the claim, and subscribed to all topics that a run uses.
pub(super) async fn connection(site: &Site, topics: Topics, timeout: Duration) -> Finding {
    let connector = match site.connector(topics, timeout) {
        Ok(connector) => connector,
        Err(fatal) => return Finding::of_fatal("connection", &fatal),
    };
    let dial = waiting_for(format!("a connection to {}", site.endpoint), connector.dial());
    match dial.await.outcome {
        Ok(connection) => {
            connection.close().await;
            let how = if site.has_claim() { "with the claim certificate" } else { "with a signature" };
            Finding::ok("connection", format!("{how}, and all subscriptions granted"))
        }
        Err(failure) => {
            let exit = match Exit::of_failure(&failure) {
                Exit::NotPermitted => Exit::NotPermitted,
                _ => Exit::Unavailable,
            };
            let remedy = advice::remedy("check", &failure).unwrap_or_default();
            let finding = Finding::wrong("connection", exit, &failure).remedy(remedy);
            match failure.cause {
                Cause::UpgradeRefused { status: 401 | 403, .. } => finding.because_refused(),
                _ => finding,
            }
        }
    }
}

/// Checks the role that registers the devices.
fn role(described: &DescribedTemplate, caller: Option<&Caller>) -> Vec<Finding> {
    let Some(role) = &described.role else {
        let found = "the template has no provisioning role, without which the service can register nothing";
        return vec![Finding::warning("role", found)];
    };
    vec![match (role_account(role), caller) {
        (None, _) => Finding::warning("role", format!("{} is not the ARN of a role", Excerpt(role)))
            .remedy("give the template one that trusts iot.amazonaws.com and has AWSIoTThingsRegistration"),
        (Some(account), Some(caller)) if account != caller.account => {
            let found = format!("{role} is a role of another account than {}", caller.account);
            Finding::warning("role", found)
                .remedy("the service can take on roles of the template's account only")
        }
        _ => Finding::ok("role", role),
    }]
}

/// What was asked for by name, and how many further names were not.
struct Answers<'n, T> {
    of: Vec<(&'n String, Result<T, AskError>)>,
    unasked: usize,
}

/// Queries each name that was kept, several at once.
async fn each<'n, T, F>(
    operation: &'static str,
    names: &'n Names,
    ask: impl Fn(&'n str) -> F,
) -> Answers<'n, T>
where
    F: Future<Output = Result<T, AskError>>,
{
    let ask = &ask;
    let asked =
        stream::iter(names.kept()).map(|name| async move { (name, within(operation, ask(name)).await) });
    let mut of: Vec<_> = asked.buffer_unordered(AT_ONCE).collect().await;
    of.sort_by_key(|(name, _)| *name);
    Answers { of, unasked: names.left_out() }
}

/// Findings about resources of a kind: names those that do not exist; if all exist, says how many they are.
fn judge<T>(
    kind: &'static str,
    answers: Answers<'_, T>,
    create: &str,
    unusable: impl Fn(&T) -> Option<&'static str>,
) -> Vec<Finding> {
    let Answers { of: answers, unasked } = answers;
    let (mut findings, mut failed) = (Vec::new(), None);
    let names: Vec<_> = answers.iter().map(|(name, _)| name.as_str()).collect();
    for (name, answer) in &answers {
        match answer {
            Ok(found) => findings.extend(
                unusable(found).map(|why| Finding::wrong(kind, Exit::Unavailable, format!("{name} {why}"))),
            ),
            Err(AskError::NotFound { .. }) => findings.push(
                Finding::wrong(kind, Exit::Unavailable, format!("{name} is not in the account"))
                    .remedy(format!("make it: aws iot {create} {name}")),
            ),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    // The other failures are likely to be the same: one is enough.
    findings.extend(failed.map(|error| unanswered(kind, error)));
    if findings.is_empty() && !names.is_empty() {
        findings.push(Finding::ok(kind, names.join(", ")));
    }
    if unasked > 0 {
        let found = format!("{} of {} were looked for, not the others", names.len(), names.len() + unasked);
        findings.push(Finding::skipped(kind, found).remedy("`fleetmint check --deep` looks for all of them"));
    }
    findings
}

/// The finding for a failed query: without a permission the check is skipped, and without credentials every run
/// fails.
pub(super) fn unanswered(check: &'static str, error: &AskError) -> Finding {
    match error {
        AskError::NotPermitted { operation, detail } => {
            let service = if operation.contains("Quota") { "servicequotas" } else { "iot" };
            Finding::skipped(check, format!("{service}:{operation} is not permitted ({detail})"))
                .remedy("allow it to have this looked at")
        }
        AskError::Refused { .. } => Finding::wrong(check, Exit::NotPermitted, error)
            .remedy("get new credentials (temporary ones expire), and check --region")
            .because_refused(),
        error => Finding::skipped(check, error),
    }
}
