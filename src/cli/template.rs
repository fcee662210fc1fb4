//! `fleetmint template`: drafts a provisioning template from a lot, checks one, and creates one in the account.

use std::fs::OpenOptions;
use std::io::{BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::{Value, json};

use super::args::TargetArgs;
use super::exit::{Exit, Fatal};
use super::lot::{LotReading, OpenLot, ledger_of};
use super::lot_args::LotArgs;
use super::settings::{check_template, usage};
use super::shard::Part;
use super::speech::{print, say, warn};
use super::target::asked;
use crate::control_plane::{AskError, ControlPlane, NewTemplate, caller};
use crate::preflight::role_account;
use crate::template::{
    AccountPlace, Columns, Draft, DraftSettings, LeftOut, Lint, TemplateError, body_of, lint, role_trust,
    run_policy,
};
use crate::wording::{Excerpt, shell_word};

const AFTER: &str = "\
Examples:
  fleetmint template init lot.csv --thing-type Kettle --template KETTLE
  fleetmint template lint lot.template.json
  fleetmint template create lot.template.json --template KETTLE --role arn:aws:iam::123456789012:role/Minting";

/// Make a provisioning template for a lot, find what is wrong with one, put one into the account.
#[derive(Debug, Args)]
#[command(after_help = AFTER)]
pub(super) struct TemplateArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Write a provisioning template for a lot's columns, the IAM policy of a run, and the trust of the provisioning role.
    Init(Box<InitArgs>),
    /// Say what the service would refuse of a provisioning template, and what is probably not meant, with paths.
    Lint(LintArgs),
    /// Put a provisioning template into the account. Asks first.
    Create(Box<CreateArgs>),
}

#[derive(Debug, Args)]
struct InitArgs {
    /// The lot: a CSV with a header; each column becomes a template parameter.
    #[arg(value_name = "LOT.csv")]
    lot: PathBuf,

    /// Where to write: new files LOT.template.json, LOT.run-policy.json and LOT.role-trust.json [default: beside the lot].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// What the template is going to be called, for the IAM policy [default: the lot's name].
    #[arg(long, value_name = "NAME")]
    template: Option<String>,

    /// The thing type that things are to have, which must exist: with one they have up to 50 attributes, without at most 3.
    #[arg(long, value_name = "NAME")]
    thing_type: Option<String>,

    /// The policy that devices are to have, which must exist [default: a document in the template, by which a device connects as
    /// its thing, and publishes and subscribes below its name].
    #[arg(long, value_name = "NAME")]
    policy: Option<String>,

    /// The region in ARNs [default: any].
    #[arg(long)]
    region: Option<String>,

    /// The account's number in ARNs [default: any].
    #[arg(long, value_name = "NUMBER", value_parser = account_number)]
    account: Option<String>,

    /// What MQTT client ids are going to begin with.
    #[arg(long, value_name = "PREFIX", default_value = "fleetmint")]
    client_id_prefix: String,

    /// The IAM policy is for keys that are not made by AWS: --keys local or csr.
    #[arg(long)]
    from_csr: bool,

    /// Say it as JSON.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    reading: LotArgs,
}

#[derive(Debug, Args)]
struct LintArgs {
    /// The template's body, or what `aws iot describe-provisioning-template` prints; `-` for standard input.
    file: PathBuf,

    /// Say it as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct CreateArgs {
    /// The template's body; `-` for standard input, with --yes.
    file: PathBuf,

    /// What the template is to be called.
    #[arg(long, value_name = "NAME", required = true)]
    template: String,

    /// The role that the service takes on to register devices: it trusts iot.amazonaws.com and has the managed policy
    /// AWSIoTThingsRegistration.
    #[arg(long, value_name = "ARN", required = true)]
    role: String,

    /// A Lambda function that is asked before each registration.
    #[arg(long, value_name = "ARN")]
    hook: Option<String>,

    /// Do not ask.
    #[arg(long)]
    yes: bool,

    /// Say it as JSON.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    target: TargetArgs,
}

pub(super) async fn run(args: TemplateArgs) -> Result<Exit, Fatal> {
    match args.what {
        What::Init(args) => init(*args),
        What::Lint(args) => run_lint(&args),
        What::Create(args) => create(*args).await,
    }
}

fn account_number(text: &str) -> Result<String, String> {
    if text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit()) {
        Ok(text.to_owned())
    } else {
        Err(String::from("wanted 12 digits"))
    }
}

fn init(args: InitArgs) -> Result<Exit, Fatal> {
    if args.lot == Path::new("-") {
        return Err(usage("LOT.csv", "wanted a file"));
    }
    let stem =
        args.lot.file_stem().map_or_else(|| String::from("lot"), |stem| stem.to_string_lossy().into_owned());
    let template = args.template.unwrap_or_else(|| template_name(&stem));
    check_template(&template)?;
    let place = AccountPlace { region: args.region, account: args.account };
    let settings = DraftSettings { thing_type: args.thing_type, policy: args.policy, place: place.clone() };
    let reading = LotReading::new(args.reading, None)?;
    // A ledger beside the lot may have its columns.
    let ledger = ledger_of(&args.lot, None, Part::default()).unwrap_or_default();
    let columns = columns(reading.read(&args.lot, &ledger)?)?;
    let draft = columns.draft(&settings);
    let folder = args.out.or_else(|| args.lot.parent().map(Path::to_owned)).unwrap_or_default();
    let file = |kind: &str| folder.join(format!("{stem}.{kind}.json"));
    let files = [
        (file("template"), draft.body.clone()),
        (file("run-policy"), run_policy(&place, &template, &args.client_id_prefix, args.from_csr)),
        (file("role-trust"), role_trust(&place)),
    ];
    if let Some((there, _)) = files.iter().find(|(file, _)| file.exists()) {
        return Err(Fatal::new(
            Exit::LedgerUnusable,
            format!("{} is there already, and is left as it is", there.display()),
        ));
    }
    for (file, text) in &files {
        write_new(file, text)?;
    }
    let files = files.map(|(file, _)| file);
    print(&if args.json {
        drafted_json(&draft, &files)
    } else {
        drafted(&draft, &files, &args.lot, &template)
    });
    Ok(Exit::Complete)
}

/// The columns that are sent, and what their values look like.
fn columns(lot: OpenLot) -> Result<Columns, Fatal> {
    let sent: Vec<String> = lot.parameters.names().map(str::to_owned).collect();
    let places: Vec<usize> =
        (0..lot.shape.columns.len()).filter(|at| sent.contains(&lot.shape.columns[*at])).collect();
    let key = &lot.shape.columns[lot.shape.key_column];
    let Some(key) = sent.iter().position(|name| name == key) else {
        return Err(usage("--columns", format!("leaves out {}, which is to name the things", Excerpt(key))));
    };
    let names = places.iter().map(|at| lot.shape.columns[*at].clone()).collect();
    let mut columns = Columns::new(names, key);
    lot.look_through(|identity| {
        let values: Vec<String> =
            places.iter().map(|at| identity.values.get(*at).cloned().unwrap_or_default()).collect();
        columns.look(identity.line, &values);
    })?;
    Ok(columns)
}

/// A valid template name, derived from a file's name.
fn template_name(stem: &str) -> String {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let name: String = stem.chars().take(36).map(|c| if is_allowed(c) { c } else { '_' }).collect();
    if name.is_empty() { String::from("lot") } else { name }
}

fn write_new(file: &Path, text: &str) -> Result<(), Fatal> {
    let made = OpenOptions::new().write(true).create_new(true).open(file);
    made.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|error| {
        Fatal::new(Exit::LedgerUnusable, format!("{} cannot be written: {error}", file.display()))
    })
}

/// Describes what was written and decided, and what to do next.
fn drafted(draft: &Draft, files: &[PathBuf; 3], lot: &Path, template: &str) -> String {
    let [body, policy, trust] = files.each_ref().map(|file| file.display().to_string());
    let mut lines = vec![
        format!("{body}: the template, with the parameters {}", draft.taken.join(", ")),
        format!("{policy}: the IAM policy of whoever runs fleetmint"),
        format!("{trust}: the trust of the provisioning role, which needs AWSIoTThingsRegistration besides"),
    ];
    for (column, why) in &draft.left_out {
        lines.push(format!("left out: the column {}, {}", Excerpt(column), left_out(why)));
    }
    for (column, name) in &draft.renamed {
        lines.push(format!("renamed: the column {} is the attribute {name}", Excerpt(column)));
    }
    if let Some((line, error)) = &draft.unfit_key {
        lines.push(format!("warning: a key that no thing can be called, on line {line}: {error}"));
    }
    let sent = if draft.left_out.is_empty() {
        String::new()
    } else {
        format!(" --columns {}", shell_word(&draft.taken.join(",")))
    };
    lines.push(format!(
        "next: fleetmint template create {} --template {template} --role ARN\n      fleetmint check {} --template {template}{sent}",
        shell_word(&body),
        shell_word(&lot.display().to_string()),
    ));
    lines.join("\n") + "\n"
}

fn left_out(why: &LeftOut) -> String {
    match why {
        LeftOut::Secret => {
            String::from("which looks like a secret: whoever may describe things reads their attributes")
        }
        LeftOut::Unfit(line, error) => {
            format!("because no attribute can have its value on line {line}: found {}", error.found)
        }
        LeftOut::TooMany(3) => {
            String::from("because things without a thing type have at most 3 attributes (--thing-type)")
        }
        LeftOut::TooMany(most) => format!("because things have at most {most} attributes"),
        LeftOut::Reserved => String::from("because the service keeps names that begin with AWS:: for itself"),
        LeftOut::TooLong => String::from("because the template would be longer than 10240 characters"),
    }
}

fn drafted_json(draft: &Draft, files: &[PathBuf; 3]) -> String {
    let [body, policy, trust] = files.each_ref().map(|file| file.display().to_string());
    let left_out: Vec<Value> =
        draft.left_out.iter().map(|(column, why)| json!({"column": column, "why": left_out(why)})).collect();
    let renamed: Vec<Value> =
        draft.renamed.iter().map(|(column, name)| json!({"column": column, "attribute": name})).collect();
    let unfit_key =
        draft.unfit_key.as_ref().map(|(line, error)| json!({"line": line, "error": error.to_string()}));
    pretty(&json!({
        "template": body,
        "run_policy": policy,
        "role_trust": trust,
        "parameters": draft.taken,
        "left_out": left_out,
        "renamed": renamed,
        "unfit_key": unfit_key,
    }))
}

fn run_lint(args: &LintArgs) -> Result<Exit, Fatal> {
    let text = read(&args.file)?;
    let found = lint(&body_of(&text));
    print(&if args.json { linted_json(&found) } else { linted(&args.file, &found) });
    Ok(if found.errors.is_empty() { Exit::Complete } else { Exit::Unavailable })
}

fn linted(file: &Path, found: &Lint) -> String {
    let line = |kind: &str, error: &TemplateError| format!("{}: {kind}: {error}\n", file.display());
    let errors = found.errors.iter().map(|error| line("error", error));
    let warnings = found.warnings.iter().map(|error| line("warning", error));
    let text: String = errors.chain(warnings).collect();
    if text.is_empty() { format!("{}: nothing is wrong\n", file.display()) } else { text }
}

fn linted_json(found: &Lint) -> String {
    #[derive(Serialize)]
    struct Told<'a> {
        path: &'a str,
        found: &'a str,
        wanted: &'a str,
    }
    let told = |errors: &[TemplateError]| -> Value {
        let told = errors
            .iter()
            .map(|error| json!(Told { path: &error.at, found: &error.found, wanted: &error.wanted }));
        told.collect()
    };
    pretty(&json!({"errors": told(&found.errors), "warnings": told(&found.warnings)}))
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).expect("JSON can be written") + "\n"
}

/// More than any template's size, in bytes; anything longer is something else.
const MAX_FILE: u64 = 1 << 20;

fn read(file: &Path) -> Result<String, Fatal> {
    let wrong = |error: std::io::Error| usage("FILE", format!("{} cannot be read: {error}", file.display()));
    let mut text = String::new();
    if file == Path::new("-") {
        std::io::stdin().take(MAX_FILE).read_to_string(&mut text).map_err(wrong)?;
    } else {
        std::fs::File::open(file).map_err(wrong)?.take(MAX_FILE).read_to_string(&mut text).map_err(wrong)?;
    }
    Ok(text)
}

async fn create(args: CreateArgs) -> Result<Exit, Fatal> {
    check_template(&args.template)?;
    if args.target.emulator.is_some() {
        return Err(usage(
            "--emulator",
            "a built-in emulator ends with the command; give the --endpoint of one that stays",
        ));
    }
    let Some(account) = role_account(&args.role) else {
        return Err(usage(
            "--role",
            "wanted the ARN of a role, such as arn:aws:iam::123456789012:role/Minting",
        ));
    };
    let may_ask = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    if !args.yes && !may_ask {
        return Err(Fatal::new(Exit::Usage, "there is no terminal to ask on; pass --yes if you mean it"));
    }
    let text = read(&args.file)?;
    let body = body_of(&text);
    let found = lint(&body);
    for warning in &found.warnings {
        warn(format_args!("warning: {warning}"));
    }
    if !found.errors.is_empty() {
        let errors: Vec<_> = found.errors.iter().map(ToString::to_string).collect();
        let message =
            format!("{}: {}\n       Nothing was made.", args.file.display(), errors.join("\n       "));
        return Err(Fatal::new(Exit::Unavailable, message));
    }
    let (control_plane, sts) = args.target.account_settings().await?;
    let region = control_plane.region.clone();
    let whose = match caller(&sts).await {
        Ok(caller) if caller.account != account => {
            let message = format!("--role is of account {account}, and the credentials are {caller}");
            return Err(Fatal::new(Exit::Unavailable, message));
        }
        Ok(caller) => caller.to_string(),
        Err(AskError::Refused { .. }) => return Err(refused()),
        Err(_) => String::from("whoever the credentials are"),
    };
    say(format_args!("template {} in {region}, as {whose}, with the role {}", args.template, args.role));
    if !args.yes && !is_confirmed(&args.template) {
        say("nothing was made");
        return Ok(Exit::Complete);
    }
    let new = NewTemplate { name: &args.template, body: &body, role: &args.role, hook: args.hook.as_deref() };
    let arn =
        ControlPlane::new(control_plane).create_template(&new).await.map_err(|error| not_made(&error))?;
    print(&if args.json {
        pretty(&json!({"template_arn": arn, "template_name": args.template}))
    } else {
        format!("{arn}\n")
    });
    Ok(Exit::Complete)
}

fn refused() -> Fatal {
    let message = "the credentials were refused: get new ones (temporary ones expire), and check --region";
    Fatal::new(Exit::NotPermitted, message)
}

fn not_made(error: &AskError) -> Fatal {
    match error {
        AskError::Rejected { code, .. } if code == "ResourceAlreadyExistsException" => Fatal::new(
            Exit::Unavailable,
            format!(
                "{error}; give another --template, or add a version to that one: aws iot create-provisioning-template-version"
            ),
        ),
        error => asked(
            error,
            "allow iot:CreateProvisioningTemplate to these credentials, and iam:PassRole for the role",
            "nothing was made",
        ),
    }
}

/// Asks on the terminal. Anything other than yes means no.
fn is_confirmed(template: &str) -> bool {
    // On stderr, because stdout is for results.
    let _ = write!(std::io::stderr(), "Make the template {template} there? [y/N] ");
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    let _ = std::io::stdin().lock().read_line(&mut answer);
    matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_named_after_its_lot() {
        for (stem, name) in
            [("lot", "lot"), ("März 2026", "M_rz_2026"), ("", "lot"), (&"x".repeat(99), &"x".repeat(36))]
        {
            assert_eq!(template_name(stem), name);
            assert!(check_template(name).is_ok());
        }
    }
}
