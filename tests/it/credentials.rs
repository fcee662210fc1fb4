//! Where credentials come from, how they are renewed, and what is found out with them: the real binary, the real `emulate`,
//! and everything else of AWS that would be asked as a small server on loopback.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use aws_lc_rs::digest;
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::emulator::hex;
use crate::harness::{Emulate, Said, Scratch, Transcript, column, expect_text, fleetmint, run, summary};

/// Two more access keys: one for good, and one whose time is over at once.
const KEYS: &str = r#"
keys = "p256"
[[credentials]]
access_key_id = "ASIAROLE"
secret_access_key = "role secret"
session_token = "role/token+=="
[[credentials]]
access_key_id = "ASIAOVER"
secret_access_key = "over secret"
session_token = "over/token+=="
valid_for = "0"
"#;

fn emulate(scratch: &Scratch, scenario: &str) -> Emulate {
    let scenario = scratch.write("s.toml", scenario);
    Emulate::start(&["--scenario", scenario.to_str().unwrap()])
}

/// `fleetmint provision LOT` against the emulator, which it has to find itself, without credentials or region.
fn provision(emulate: &Emulate, lot: &Path) -> Command {
    let control = emulate.text("endpoint").replace("wss://", "https://").replace("/mqtt", "");
    let mut command = fleetmint();
    command.arg("provision").arg(lot).args(["--template", emulate.text("template")]);
    command.args(["--ca-file", emulate.text("ca_file"), "--control-endpoint", &control]);
    command
}

fn in_seconds(seconds: u64) -> String {
    OffsetDateTime::from(SystemTime::now() + Duration::from_secs(seconds)).format(&Rfc3339).unwrap()
}

fn emulators_keys(emulate: &Emulate, profile: &str) -> String {
    let (id, secret) = (emulate.text("access_key_id"), emulate.text("secret_access_key"));
    format!("[{profile}]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\n")
}

#[test]
fn the_environment_gives_credentials_and_region_and_the_account_its_endpoint() {
    let scratch = Scratch::new();
    let (emulate, lot) = (emulate(&scratch, KEYS), scratch.lot("lot.csv", 2));
    // Nobody asks a metadata service where there are credentials.
    let metadata = Fake::start(|_| String::new());
    let mut command = provision(&emulate, &lot);
    command.env("AWS_ACCESS_KEY_ID", "ASIAROLE").env("AWS_SECRET_ACCESS_KEY", "role secret");
    command.env("AWS_SESSION_TOKEN", "role/token+==").env("AWS_REGION", "us-east-1");
    command.env_remove("AWS_EC2_METADATA_DISABLED");
    command.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", &metadata.url);
    run(&mut command).expect_code(0).expect_err(&[emulate.text("endpoint"), "DescribeEndpoint", "us-east-1"]);
    assert_eq!(metadata.requests(), [""; 0]);
    // What was found is what would have been given: the ledger is the same.
    run(&mut emulate.provision(&lot)).expect_code(0).expect_out(&["nothing was sent"]);
}

#[test]
fn a_profile_gives_credentials_and_region_and_goes_before_the_environment() {
    let scratch = Scratch::new();
    let (emulate, lot) = (emulate(&scratch, KEYS), scratch.lot("lot.csv", 2));
    let credentials = scratch.write("credentials", emulators_keys(&emulate, "factory"));
    let config = scratch
        .write("config", "[profile factory]\nregion = us-east-1\n[profile empty]\nregion = us-east-1\n");
    let with_files = |args: &[&str]| {
        let mut command = provision(&emulate, &lot);
        command.args(args).env("AWS_CONFIG_FILE", &config).env("AWS_SHARED_CREDENTIALS_FILE", &credentials);
        command
    };
    let mut wrong_environment = with_files(&["--profile", "factory"]);
    wrong_environment.env("AWS_ACCESS_KEY_ID", "AKIAWRONG").env("AWS_SECRET_ACCESS_KEY", "wrong");
    run(&mut wrong_environment).expect_code(0);
    let again = scratch.lot("again.csv", 1);
    let mut by_name = with_files(&[]);
    by_name.args(["--ledger", scratch.path("other.ledger").to_str().unwrap()]);
    run(by_name.env("AWS_PROFILE", "factory")).expect_code(0);
    let mut refused = Transcript::default();
    for profile in ["empty", "absent"] {
        refused.add(profile, &run(with_files(&["--profile", profile]).arg("--ledger").arg(&again)));
    }
    expect_text("credentials-of-profiles", &scratch, &refused, &[]);
}

#[test]
fn without_credentials_nothing_is_guessed() {
    let scratch = Scratch::new();
    let (emulate, lot) = (emulate(&scratch, KEYS), scratch.lot("lot.csv", 1));
    let ready = || {
        let mut command = provision(&emulate, &lot);
        command.args(["--region", "us-east-1"]);
        command
    };
    let mut refused = Transcript::default();
    refused.add("none", &run(&mut ready()));
    refused.add("half of them", &run(ready().env("AWS_ACCESS_KEY_ID", "A")));
    let wrong = run(ready().env("AWS_ACCESS_KEY_ID", "AKIAWRONG").env("AWS_SECRET_ACCESS_KEY", "hunter2"));
    assert!(!wrong.err.contains("hunter2"));
    refused.add("wrong ones", &wrong);
    let config = scratch
        .write("config", "[profile p]\nregion = us-east-1\ncredential_process = echo no luck >&2; exit 3\n");
    let process = run(ready().env("AWS_CONFIG_FILE", config).args(["--profile", "p"]));
    refused.add("a process that fails", &process);
    expect_text("credentials-missing", &scratch, &refused, &[]);
    assert_eq!(scratch.files(), ["config", "lot.csv", "s.toml"]);
}

#[test]
fn who_may_not_look_for_the_endpoint_is_told_which_permission_is_missing() {
    let scratch = Scratch::new();
    let emulate = emulate(&scratch, "deny = [\"iot:DescribeEndpoint\"]\n");
    let mut command = provision(&emulate, &scratch.lot("lot.csv", 1));
    command.args(["--region", "us-east-1"]).env("AWS_ACCESS_KEY_ID", emulate.text("access_key_id"));
    let said = run(command.env("AWS_SECRET_ACCESS_KEY", emulate.text("secret_access_key")));
    expect_text("credentials-without-describe-endpoint", &scratch, &said, &[]);
}

#[test]
fn an_expired_token_is_named_and_loses_nothing() {
    let scratch = Scratch::new();
    let (emulate, lot) = (emulate(&scratch, KEYS), scratch.lot("lot.csv", 3));
    let mut expired = emulate.provision(&lot);
    expired.env("AWS_ACCESS_KEY_ID", "ASIAOVER").env("AWS_SECRET_ACCESS_KEY", "over secret");
    let said = run(expired.env("AWS_SESSION_TOKEN", "over/token+==")).expect_code(77);
    expect_text("credentials-expired", &scratch, &said.err, &[]);
    run(&mut emulate.provision(&lot)).expect_code(0).expect_out(&["3 of 3 devices registered"]);
}

#[test]
fn credentials_of_a_process_are_renewed_while_a_run_redials() {
    let scratch = Scratch::new();
    let lot = scratch.lot("lot.csv", 40);
    // The first ones last for 3 s, which the emulator allows for 4 s; and connections break all the time.
    let scenario = format!(
        "{}[faults.register_thing]\ndrop_after = 0.3\n",
        KEYS.replace("valid_for = \"0\"", "valid_for = \"4s\"")
    );
    let emulate = emulate(&scratch, &scenario);
    let answer = |id: &str, name: &str, seconds| {
        json!({"Version": 1, "AccessKeyId": id, "SecretAccessKey": format!("{name} secret"),
               "SessionToken": format!("{name}/token+=="), "Expiration": in_seconds(seconds)})
    };
    scratch.write("second.json", answer("ASIAROLE", "role", 600).to_string());
    scratch.write("first.json", answer("ASIAOVER", "over", 3).to_string());
    // Each run of the process leaves a line behind; the first gives the first credentials.
    let process = scratch.write(
        "process.sh",
        "cd \"$(dirname \"$0\")\"; echo run >> runs; if mv first.json given.json 2>/dev/null; \
         then cat given.json; else cat second.json; fi\n",
    );
    let config =
        scratch.write("config", format!("[profile p]\ncredential_process = sh {}\n", process.display()));
    let mut command = provision(&emulate, &lot);
    command.args(["--profile", "p", "--region", "us-east-1", "--create-rate", "6/s", "--connections", "4"]);
    command.arg("--summary-json").arg(scratch.path("s.json")).env("AWS_CONFIG_FILE", config);
    run(&mut command).expect_code(0).expect_out(&["40 of 40 devices registered"]);
    let runs = std::fs::read_to_string(scratch.path("runs")).unwrap().lines().count();
    assert!((2..=8).contains(&runs), "the process ran {runs} times");
    let connects = summary(&scratch.path("s.json"))["operations"]["connect"]["attempts"].as_u64().unwrap();
    assert!(connects > 8, "{connects} dials");
}

#[test]
fn roles_containers_metadata_and_sso_give_credentials() {
    let scratch = Scratch::new();
    let emulate = emulate(&scratch, KEYS);
    let fake = Fake::start(answer_as_aws);
    let token_file = scratch.write("token", "header.payload.signature");
    let config = scratch.write(
        "config",
        emulators_keys(&emulate, "profile keys")
            + "[profile role]\nsource_profile = keys\nrole_arn = arn:aws:iam::123456789012:role/line\nregion = us-east-1\n\
               [profile sso]\nsso_start_url = https://sso.example.com/start\nsso_region = us-east-1\n\
               sso_account_id = 123456789012\nsso_role_name = line\nregion = us-east-1\n",
    );
    let cache = scratch.path("home/.aws/sso/cache");
    std::fs::create_dir_all(&cache).unwrap();
    let start_url = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, b"https://sso.example.com/start");
    let token = json!({"accessToken": "sso-access-token", "expiresAt": in_seconds(3600), "region": "us-east-1",
                       "startUrl": "https://sso.example.com/start"});
    std::fs::write(cache.join(format!("{}.json", hex(start_url.as_ref()))), token.to_string()).unwrap();

    let path = |path: &PathBuf| path.to_str().unwrap().to_owned();
    let url = |suffix: &str| format!("{}{suffix}", fake.url);
    let cases: [Case<'_>; 5] = [
        ("Action=AssumeRole&", &["--profile", "role"], vec![("AWS_ENDPOINT_URL_STS", url(""))]),
        (
            "Action=AssumeRoleWithWebIdentity&",
            &["--region", "us-east-1"],
            vec![
                ("AWS_ENDPOINT_URL_STS", url("")),
                ("AWS_WEB_IDENTITY_TOKEN_FILE", path(&token_file)),
                ("AWS_ROLE_ARN", String::from("arn:aws:iam::123456789012:role/line")),
            ],
        ),
        (
            "GET /container",
            &["--region", "us-east-1"],
            vec![("AWS_CONTAINER_CREDENTIALS_FULL_URI", url("/container"))],
        ),
        (
            "GET /latest/meta-data/iam/security-credentials/line",
            &["--region", "us-east-1"],
            vec![
                ("AWS_EC2_METADATA_DISABLED", String::from("false")),
                ("AWS_EC2_METADATA_SERVICE_ENDPOINT", url("")),
            ],
        ),
        (
            "GET /federation/credentials",
            &["--profile", "sso"],
            vec![("AWS_ENDPOINT_URL_SSO", url("")), ("HOME", path(&scratch.path("home")))],
        ),
    ];
    for (at, (asked, args, environment)) in cases.into_iter().enumerate() {
        let lot = scratch.lot(&format!("lot-{at}.csv"), 1);
        let mut command = provision(&emulate, &lot);
        command.args(args).env("AWS_CONFIG_FILE", &config).envs(environment);
        let Said { code, err, .. } = run(&mut command);
        let requests = fake.take_requests();
        assert_eq!(code, Some(0), "{asked}: {err}\n{requests:#?}");
        assert!(requests.iter().any(|request| request.contains(asked)), "{asked}: {requests:#?}");
        assert!(!err.contains("role secret") && !err.contains("role/token"), "{err}");
    }
}

/// What must have been asked for, and the arguments and variables that lead there.
type Case<'a> = (&'a str, &'a [&'a str], Vec<(&'a str, String)>);

/// What STS, a container's agent, instance metadata and SSO answer, each with the key of the role.
fn answer_as_aws(request: &str) -> String {
    let credentials = json!({
        "Code": "Success", "Type": "AWS-HMAC", "AccessKeyId": "ASIAROLE", "SecretAccessKey": "role secret",
        "Token": "role/token+==", "Expiration": in_seconds(3600), "LastUpdated": in_seconds(0),
    });
    let sts = |action: &str| {
        format!(
            "<{action}Response xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><{action}Result><Credentials>\
             <AccessKeyId>ASIAROLE</AccessKeyId><SecretAccessKey>role secret</SecretAccessKey>\
             <SessionToken>role/token+==</SessionToken><Expiration>{}</Expiration></Credentials>\
             <AssumedRoleUser><AssumedRoleId>AROA:x</AssumedRoleId>\
             <Arn>arn:aws:sts::123456789012:assumed-role/line/x</Arn></AssumedRoleUser></{action}Result></{action}Response>",
            in_seconds(3600)
        )
    };
    if request.contains("Action=AssumeRoleWithWebIdentity&") {
        sts("AssumeRoleWithWebIdentity")
    } else if request.contains("Action=AssumeRole&") {
        sts("AssumeRole")
    } else if request.starts_with("PUT /latest/api/token") {
        String::from("metadata-token")
    } else if request.starts_with("GET /latest/meta-data/iam/security-credentials/ ") {
        String::from("line")
    } else if request.starts_with("GET /federation/credentials") {
        json!({"roleCredentials": {"accessKeyId": "ASIAROLE", "secretAccessKey": "role secret",
               "sessionToken": "role/token+==", "expiration": 4_102_444_800_000_u64}})
        .to_string()
    } else {
        credentials.to_string()
    }
}

/// A small HTTP server on loopback that remembers what it was asked.
struct Fake {
    url: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Fake {
    fn start(answer: fn(&str) -> String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests: Arc<Mutex<Vec<String>>> = Arc::default();
        let seen = Arc::clone(&requests);
        // Ends with the process: a test has no use for a server that could be asked to stop.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if let Some(request) = read_request(&stream) {
                    let body = answer(&request);
                    seen.lock().unwrap().push(request);
                    let _ = (&stream).write_all(
                        format!(
                            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
                             x-aws-ec2-metadata-token-ttl-seconds: 21600\r\nConnection: close\r\n\r\n{body}",
                            body.len()
                        )
                        .as_bytes(),
                    );
                }
            }
        });
        Self { url, requests }
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    fn take_requests(&self) -> Vec<String> {
        std::mem::take(&mut self.requests.lock().unwrap())
    }
}

/// The request line and the body.
fn read_request(stream: &TcpStream) -> Option<String> {
    let mut reader = BufReader::new(stream);
    let (mut first, mut length) = (String::new(), 0);
    reader.read_line(&mut first).ok().filter(|read| *read > 0)?;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(format!("{}\n{}", first.trim_end(), String::from_utf8(body).ok()?))
}

#[test]
fn quotas_become_rates_and_what_was_typed_stays() {
    let scratch = Scratch::new();
    let emulate = emulate(
        &scratch,
        "keys = \"p256\"\n[quotas]\nconnect = \"300/s\"\ncreate_keys_and_certificate = \"40/s\"\n\
         create_certificate_from_csr = \"600/min\"\n",
    );
    let provision = |lot: &str, args: &[&str]| {
        let lot = scratch.lot(lot, 2);
        run(emulate.provision(&lot).args(["--rates", "quotas"]).args(args))
    };
    provision("a.csv", &[]).expect_code(0).expect_err(&[
        "connect 300/s (applied quota L-AEA1E176)",
        "create 40/s (applied quota L-CAFFCA46)",
        "register 10/s (AWS's default of quota L-B2BBBD8C; the account has no value of its own)",
    ]);
    let said = provision("b.csv", &["--keys", "local", "--register-rate", "7/s"]).expect_code(0);
    said.expect_err(&["create 10/s (applied quota L-83161BB8)", "register 7/s;"]);
    // The ledger knows what the rates were.
    let settings = column(&scratch.path("b.ledger"), "SELECT settings FROM run");
    assert!(settings[0].contains("\"create_per_s\":10.0"), "{settings:?}");
    // Where nothing is to be asked, nothing is.
    let typed = ["--connect-rate", "9/s", "--create-rate", "9/s", "--register-rate", "9/s"];
    let nowhere = ["--service-quotas-endpoint", "http://127.0.0.1:1"];
    provision("c.csv", &[typed.as_slice(), &nowhere].concat()).expect_code(0);
    let said = provision("d.csv", &nowhere).expect_code(75);
    expect_text("credentials-no-quotas", &scratch, &said.err.lines().last().unwrap(), &[]);
}

#[test]
fn who_may_not_read_quotas_is_told_which_permission_is_missing() {
    let scratch = Scratch::new();
    let emulate = emulate(&scratch, "deny = [\"servicequotas:GetServiceQuota\"]\n");
    let said = run(emulate.provision(&scratch.lot("lot.csv", 1)).args(["--rates", "quotas"]));
    expect_text("credentials-without-get-service-quota", &scratch, &said, &[]);
}

#[test]
fn what_is_renewed_in_the_files_during_a_run_is_found() {
    let scratch = Scratch::new();
    let lot = scratch.lot("lot.csv", 40);
    let scenario = format!(
        "{}[faults.register_thing]\ndrop_after = 0.3\n",
        KEYS.replace("valid_for = \"0\"", "valid_for = \"3s\"")
    );
    let emulate = emulate(&scratch, &scenario);
    // Files do not say when keys expire: the service does.
    let profile = |id: &str, name: &str| {
        format!(
            "[p]\naws_access_key_id = {id}\naws_secret_access_key = {name} secret\n\
             aws_session_token = {name}/token+==\n"
        )
    };
    let file = scratch.write("credentials", profile("ASIAOVER", "over"));
    let mut command = provision(&emulate, &lot);
    command.args(["--profile", "p", "--region", "us-east-1", "--create-rate", "8/s", "--connections", "4"]);
    command.env("AWS_SHARED_CREDENTIALS_FILE", &file);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let ledger = scratch.path("lot.ledger");
    let registered = || column(&ledger, "SELECT key FROM device WHERE state = 'registered'").len();
    let begin = Instant::now();
    while !ledger.exists() || registered() < 5 {
        assert!(begin.elapsed().as_secs() < 60, "no device after a minute");
        std::thread::sleep(Duration::from_millis(20));
    }
    // As tools do it: whoever reads meanwhile finds the old ones or the new ones.
    let renewed = scratch.write("renewed", profile("ASIAROLE", "role"));
    std::fs::rename(renewed, &file).unwrap();
    let output = child.wait_with_output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{err}");
    assert!(String::from_utf8(output.stdout).unwrap().contains("token included in the request is expired"));
}
