//! What `verify` and `cleanup` do where they cannot know what a device should be like.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;

use serde_json::{Value, json};

use super::lab::{Lab, TEMPLATE, arn, ids, json_of};
use crate::cleanup::{left, states};
use crate::harness::{Emulate, Said, Scratch, column, fleetmint, run};

/// A control plane that answers every request with an error of its own; it ends with the process.
fn broken() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut client in listener.incoming().map_while(Result::ok) {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if client.read_exact(&mut byte).is_err() {
                    break;
                }
                head.push(byte[0]);
            }
            let answer =
                "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            let _ = client.write_all(answer.as_bytes());
        }
    });
    format!("http://{address}")
}

/// Gives the account's template another body.
async fn change_template(lab: &Lab, body: &str) {
    let body = json!({ "templateBody": body });
    lab.ask("POST", "/provisioning-templates/LOT/versions?setAsDefault=true", None, &body).await;
}

#[tokio::test]
async fn an_account_that_does_not_tell_the_template_is_not_one_without_it() {
    let denying = Lab::new("deny = [\"iot:DescribeProvisioningTemplate\"]").await;
    let lab = Lab::new("").await;
    let control = broken();
    let away = ["--control-endpoint", &control];
    for (lab, more, code, words) in [
        (&denying, &[][..], 77, "DescribeProvisioningTemplate is not permitted"),
        (&lab, &away[..], 75, "DescribeProvisioningTemplate"),
    ] {
        let ledger = lab.provision(2).await;
        // A certificate that another client has changed, which only the template tells.
        let inactive = format!("/certificates/{}?newStatus=INACTIVE", ids(&ledger)[0]);
        lab.ask("PUT", &inactive, None, &Value::Null).await;
        let full = lab.holdings();
        for (verb, yes) in [("verify", &[][..]), ("cleanup", &["--yes"][..])] {
            let args = [more, yes].concat();
            lab.run(verb, &ledger, &args).await.expect_code(code).expect_err(&[words]);
        }
        assert_eq!((lab.holdings(), states(&ledger)), (full, vec![String::from("registered 2")]));
        assert_eq!(column(&ledger, "SELECT count(*) FROM finding"), ["0"]);
    }
    denying.close().await;
    lab.close().await;
}

#[tokio::test]
async fn where_there_is_no_template_nothing_is_sound_and_a_changed_certificate_is_left_alone() {
    let lab = Lab::new("").await;
    let ledger = lab.provision(3).await;
    lab.ask("DELETE", "/provisioning-templates/LOT", None, &Value::Null).await;
    let page = lab.scratch.path("lot.html");
    let said =
        lab.run("verify", &ledger, &["--json", "--report", page.to_str().unwrap()]).await.expect_code(3);
    let report = json_of(&said);
    let counts = &report["counts"];
    assert_eq!(
        (&counts["not_compared"], &counts["sound"], &counts["differ"]),
        (&json!(3), &json!(0), &json!(0))
    );
    assert!(report["head"]["remarks"][0].as_str().unwrap().contains("--template-file"), "{report}");
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.contains("of 3 registered devices there was nothing to compare with"));

    let ids = ids(&ledger);
    lab.ask("PUT", &format!("/certificates/{}?newStatus=INACTIVE", ids[0]), None, &Value::Null).await;
    lab.ask("DELETE", "/things/DEVICE_000002/principals", Some(&arn(&ids[1])), &Value::Null).await;
    let said = json_of(&lab.run("cleanup", &ledger, &["--yes", "--json"]).await.expect_code(3));
    assert_eq!(said["tally"]["left_alone"], 2, "{said}");
    assert_eq!(states(&ledger), ["registered 2", "removed 1"]);
    lab.close().await;
}

#[tokio::test]
async fn rows_that_the_template_cannot_be_evaluated_for_are_left_alone_and_listed() {
    let lab = Lab::new("").await;
    let ledger = lab.provision(2).await;
    let full = lab.holdings();
    let more = TEMPLATE
        .replace("\"Parameters\": {", "\"Parameters\": {\"Plant\": {\"Type\": \"String\"},")
        .replace("\"ThingName\": {\"Ref\": \"DeviceId\"}", "\"ThingName\": {\"Ref\": \"Plant\"}");
    change_template(&lab, &more).await;
    let report = json_of(&lab.run("verify", &ledger, &["--json"]).await.expect_code(3));
    assert_eq!((&report["counts"]["not_compared"], &report["counts"]["sound"]), (&json!(2), &json!(0)));
    for args in [&["--json"][..], &["--json", "--yes"], &["--json", "--yes", "--changed"]] {
        let said = json_of(&lab.run("cleanup", &ledger, args).await.expect_code(3));
        assert_eq!(said["tally"]["left_alone"], 2, "{said}");
        let (key, what) = &left(&said)[0];
        assert_eq!(key, "SN000001");
        assert!(what.starts_with("left alone: what its template makes of its row is not known"), "{what}");
    }
    assert_eq!((lab.holdings(), states(&ledger)), (full, vec![String::from("registered 2")]));
    change_template(&lab, TEMPLATE).await;
    lab.run("cleanup", &ledger, &["--yes"]).await.expect_code(0);
    lab.close().await;
}

#[tokio::test]
async fn a_template_from_a_file_has_the_hook_of_the_accounts() {
    let lab = Lab::with_template(TEMPLATE, "", super::HOOKED).await;
    let ledger = lab.provision(2).await;
    let file = lab.scratch.path("template.json");
    let args = ["--json", "--template-file", file.to_str().unwrap()];
    let report = json_of(&lab.run("verify", &ledger, &args).await.expect_code(0));
    assert_eq!((&report["head"]["has_hook"], &report["counts"]["sound"]), (&json!(true), &json!(2)));
    // Where nobody can say whether there is one, that is said.
    lab.ask("DELETE", "/provisioning-templates/LOT", None, &Value::Null).await;
    let report = json_of(&lab.run("verify", &ledger, &args).await.expect_code(3));
    assert_eq!(report["differences"]["attribute"], 2);
    let remark = report["head"]["remarks"][0].as_str().unwrap();
    assert!(remark.contains("hook is not known"), "{remark}");
    lab.close().await;
}

/// An address that is this machine's and that no rule takes for it: an endpoint of AWS's, as far as the command knows.
const ELSEWHERE: &str = "[::ffff:127.0.0.1]:0";

struct Elsewhere {
    emulate: Emulate,
    door: String,
}

impl Elsewhere {
    fn start(args: &[&str]) -> Self {
        let emulate = Emulate::start_on(ELSEWHERE, args);
        let port = emulate.text("endpoint").trim_end_matches("/mqtt").rsplit(':').next().unwrap();
        let door = format!("[::ffff:127.0.0.1]:{port}");
        Self { door, emulate }
    }

    /// A verb whose endpoint is this one, and whose credentials are of the account `asked`.
    fn run(&self, asked: &Self, ca_file: &Path, words: &[&str]) -> Said {
        let mut command = fleetmint();
        command.args(words).args(["--endpoint", &self.door, "--region", "us-east-1"]);
        command.arg("--ca-file").arg(ca_file);
        command.env("AWS_ENDPOINT_URL", format!("https://{}", asked.door));
        command.env("AWS_ACCESS_KEY_ID", asked.emulate.text("access_key_id"));
        command.env("AWS_SECRET_ACCESS_KEY", asked.emulate.text("secret_access_key"));
        for name in ["http_proxy", "https_proxy", "all_proxy", "no_proxy"] {
            command.env_remove(name).env_remove(name.to_uppercase());
        }
        run(&mut command)
    }
}

/// With the endpoint of one account and the credentials of another, every certificate would seem to be gone.
#[test]
fn certificates_are_not_judged_in_another_account() {
    let scratch = Scratch::new();
    let (ours, theirs) = (Elsewhere::start(&[]), Elsewhere::start(&[]));
    let pem = |it: &Elsewhere| std::fs::read_to_string(it.emulate.text("ca_file")).unwrap();
    let ca_file = scratch.write("both.pem", pem(&ours) + &pem(&theirs));
    let lot = scratch.lot("lot.csv", 3);
    let lot = lot.to_str().unwrap();
    ours.run(&ours, &ca_file, &["provision", lot, "--template", "TEMP_DEVICE", "--no-check"]).expect_code(0);
    let ledger = scratch.path("lot.ledger");
    let path = ledger.to_str().unwrap();
    for words in [&["verify", path][..], &["cleanup", path, "--yes"], &["cleanup", path]] {
        ours.run(&theirs, &ca_file, words).expect_code(69).expect_err(&[
            "of the ledger's account",
            "none of the ledger's first certificates",
            "--profile",
        ]);
    }
    assert_eq!(states(&ledger), ["registered 3"]);
    assert_eq!(column(&ledger, "SELECT count(*) FROM finding"), ["0"]);
    // DescribeEndpoint gives another name here too; but the certificates are there.
    ours.run(&ours, &ca_file, &["verify", path]).expect_code(0);
    ours.run(&ours, &ca_file, &["cleanup", path, "--yes"]).expect_code(0);
}

/// The service deletes a certificate that nothing was registered with: it says nothing about whose account it is.
#[test]
fn certificates_of_rejected_devices_do_not_tell_the_account() {
    let scratch = Scratch::new();
    let rule = "[[faults.rules]]\non = \"register_thing\"\nfault = \"reject\"\nstatus = 400\nfirst = 22\n";
    let scenario = scratch.write("s.toml", format!("token_lifetime = \"3s\"\n{rule}"));
    let ours = Elsewhere::start(&["--scenario", scenario.to_str().unwrap()]);
    let ca_file = ours.emulate.text("ca_file");
    let lot = scratch.lot("lot.csv", 24);
    let args =
        ["provision", lot.to_str().unwrap(), "--template", "TEMP_DEVICE", "--no-check", "--connections", "1"];
    let ledger = scratch.path("lot.ledger");
    // The same rejection again and again stops a run.
    (0..22).find(|_| ours.run(&ours, Path::new(ca_file), &args).code != Some(4));
    assert_eq!(states(&ledger), ["registered 2", "rejected 22"]);
    assert_eq!(column(&ledger, "SELECT min(id) > 20 FROM device WHERE state = 'registered'"), ["1"]);
    std::thread::sleep(std::time::Duration::from_secs(3));
    let path = ledger.to_str().unwrap();
    ours.run(&ours, Path::new(ca_file), &["verify", path]).expect_code(0);
    ours.run(&ours, Path::new(ca_file), &["cleanup", path, "--yes"]).expect_code(0);
}
