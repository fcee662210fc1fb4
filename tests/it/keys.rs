//! Private keys as users meet them: made here, sealed, exported, purged; and that nobody else ever sees them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use age::secrecy::ExposeSecret;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use x509_parser::prelude::*;

use crate::harness::{
    Emulate, Said, Scratch, Transcript, column, expect_text, fleetmint, run, signal, summary,
};

/// An identity that opens nothing anywhere else, and its recipient.
const IDENTITY: &str = "AGE-SECRET-KEY-1GQ9778VQXMMJVE8SK7J6VT8UJ4HDQAJUVSFCWCM02D8GEWQ72PVQ2Y5J33";
const RECIPIENT: &str = "age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa";
const P256: &str = "keys = \"p256\"\n";

fn provision(lot: &Path, args: &[&str]) -> Said {
    run(fleetmint().arg("provision").arg(lot).args(args))
}

fn export(ledger: &Path, out: &Path, args: &[&str]) -> Said {
    run(fleetmint().arg("export").arg(ledger).arg("--out").arg(out).args(args))
}

fn purge(ledger: &Path) -> Command {
    let mut command = fleetmint();
    command.arg("purge-keys").arg(ledger).stdin(Stdio::null());
    command
}

/// The emulator, in a scenario that makes keys fast.
fn fast(scratch: &Scratch, more: &str) -> String {
    format!("--emulator={}", scratch.write("s.toml", format!("{P256}{more}")).display())
}

fn der(pem: &str) -> Vec<u8> {
    parse_x509_pem(pem.as_bytes()).unwrap().1.contents
}

fn public_key_of_certificate(pem: &str) -> Vec<u8> {
    let der = der(pem);
    let (_, certificate) = X509Certificate::from_der(&der).unwrap();
    certificate.public_key().subject_public_key.data.to_vec()
}

fn public_key_of(pem: &str) -> Vec<u8> {
    let der = der(pem);
    match RsaKeyPair::from_pkcs8(&der) {
        Ok(rsa) => rsa.public_key().as_ref().to_vec(),
        Err(_) => {
            let key = EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_ASN1_SIGNING, &der).unwrap();
            key.public_key().as_ref().to_vec()
        }
    }
}

/// The exported private keys, each checked against its certificate.
pub fn exported_keys(out: &Path) -> Vec<String> {
    let mut manifest = csv::Reader::from_path(out.join("manifest.csv")).unwrap();
    let read = |file: &str| std::fs::read_to_string(out.join(file)).unwrap();
    let keys = manifest.records().map(|record| {
        let record = record.unwrap();
        let key = read(&record[5]);
        assert_eq!(public_key_of(&key), public_key_of_certificate(&read(&record[3])), "{}", &record[0]);
        key
    });
    keys.collect()
}

#[test]
fn keys_made_here_match_the_certificates_of_their_devices() {
    for (args, devices) in
        [(&["--keys", "local"][..], 30), (&["--keys", "local", "--key-type", "rsa2048"], 4)]
    {
        let scratch = Scratch::new();
        let lot = scratch.lot("lot.csv", devices);
        let json = scratch.path("s.json");
        let emulator = fast(&scratch, "");
        let args = [args, &[&emulator, "--summary-json", json.to_str().unwrap()]].concat();
        let said = provision(&lot, &args).expect_code(0);
        assert!(said.err.contains("keys made here"), "{}", said.err);
        let ledger = scratch.path("lot.ledger");
        export(&ledger, &scratch.path("out"), &[]).expect_code(0);
        let mut keys = exported_keys(&scratch.path("out"));
        assert!(keys.iter().all(|key| key.starts_with("-----BEGIN PRIVATE KEY-----")), "PKCS #8");
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), devices, "keys are unique");
        assert_eq!(column(&ledger, "SELECT device FROM prepared_key"), Vec::<String>::new());
        let summary = summary(&json);
        assert_eq!(summary["operations"]["create_certificate"]["accepted"], devices);
    }
}

#[test]
fn a_killed_run_leaves_keys_that_the_next_one_uses() {
    let scratch = Scratch::new();
    let lot = scratch.lot("lot.csv", 40);
    let scenario =
        scratch.write("s.toml", format!("{P256}[latency]\ncreate_certificate_from_csr = \"300ms\"\n"));
    let emulate = Emulate::start(&["--scenario", scenario.to_str().unwrap()]);
    let ledger = scratch.path("lot.ledger");
    let mut child = emulate
        .provision(&lot)
        .args(["--keys", "local", "--connections", "8"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for(|| ledger.exists() && !column(&ledger, "SELECT signing_request FROM prepared_key").is_empty());
    child.kill().unwrap();
    child.wait().unwrap();
    let with_key = "SELECT device || private_key FROM prepared_key ORDER BY device";
    let prepared = column(&ledger, with_key);
    // The other kind of run: what has a key keeps it.
    run(emulate.provision(&lot).args(["--keys", "aws", "--change-settings"])).expect_code(0);
    let made_here = "SELECT device || private_key FROM certificate WHERE private_key LIKE '-----BEGIN PRIVATE KEY%' ORDER BY device";
    let kept = column(&ledger, made_here);
    assert!(!prepared.is_empty() && prepared.iter().all(|key| kept.contains(key)), "a key was orphaned");
    assert_eq!(column(&ledger, "SELECT key FROM device WHERE state = 'registered'").len(), 40);
}

#[test]
fn sealed_keys_come_out_with_the_identity_only() {
    let scratch = Scratch::new();
    let lot = scratch.lot("lot.csv", 6);
    let emulator = fast(&scratch, "");
    provision(&lot, &[&emulator, "--seal-to", RECIPIENT, "--keys", "local"]).expect_code(0);
    let ledger = scratch.path("lot.ledger");
    let (out, identity) = (scratch.path("out"), scratch.write("id.txt", format!("# mine\n{IDENTITY}\n")));
    let stranger = age::x25519::Identity::generate().to_string();
    let other = scratch.write("other.txt", stranger.expose_secret());
    let protected = scratch.write("protected.txt", "age-encryption.org/v1\n-> scrypt AAAA 18\n");
    let mut refused = Transcript::default();
    refused.add("a file that is not there", &export(&ledger, &out, &["--identity", "no/such/file"]));
    refused.add("no identity", &export(&ledger, &out, &[]));
    for (what, file) in [("a stranger's", &other), ("one with a passphrase", &protected), ("a lot", &lot)] {
        refused.add(what, &export(&ledger, &out, &["--identity", file.to_str().unwrap()]));
    }
    expect_text("keys-sealed-to-another", &scratch, &refused, &[]);
    assert!(!out.exists());
    export(&ledger, &out, &["--identity", identity.to_str().unwrap()]).expect_code(0);
    assert_eq!(exported_keys(&out).len(), 6);
    let sealed = scratch.path("sealed");
    export(&ledger, &sealed, &["--sealed"]).expect_code(0);
    let key = std::fs::read_to_string(sealed.join("SN000001/private.key.age")).unwrap();
    assert!(key.starts_with("-----BEGIN AGE ENCRYPTED FILE-----\n"), "{key}");
    assert_eq!(vec![key], column(&ledger, "SELECT private_key FROM certificate WHERE device = 1"));
}

#[test]
fn a_ledger_may_be_sealed_from_some_device_on_and_never_takes_a_plain_key_again() {
    let scratch = Scratch::new();
    let lot = scratch.lot("lot.csv", 40);
    let scenario = scratch.write("s.toml", P256);
    let emulate = Emulate::start(&["--scenario", scenario.to_str().unwrap()]);
    let ledger = scratch.path("lot.ledger");
    let said = interrupted(&emulate, &lot, &[], || registered(&ledger) >= 3);
    assert!(said.contains("plain text") && said.contains("--seal-to"), "{said}");
    let plain = registered(&ledger);
    let seal = ["--seal-to", RECIPIENT];
    let mut refused = Transcript::default();
    refused.add("sealing from now on", &run(emulate.provision(&lot).args(seal)));
    let change = [seal[0], seal[1], "--change-settings"];
    let said = interrupted(&emulate, &lot, &change, || registered(&ledger) >= plain + 3);
    assert!(!said.contains("plain text") && said.contains(RECIPIENT), "{said}");
    for unsealed in [&[][..], &["--change-settings"]] {
        let before = registered(&ledger);
        refused.add(&format!("sealing no more {unsealed:?}"), &run(emulate.provision(&lot).args(unsealed)));
        assert_eq!(registered(&ledger), before, "{unsealed:?}");
    }
    expect_text("keys-sealing-changed", &scratch, &refused, &[]);
    run(emulate.provision(&lot).args(seal)).expect_code(0);
    let identity = scratch.write("id.txt", IDENTITY);
    export(&ledger, &scratch.path("out"), &["--identity", identity.to_str().unwrap()]).expect_code(0);
    assert_eq!(exported_keys(&scratch.path("out")).len(), 40);
    export(&ledger, &scratch.path("as-is"), &["--sealed"]).expect_code(0);
    let is_sealed = |n: usize| scratch.path(&format!("as-is/SN{n:06}/private.key.age")).exists();
    assert_eq!((1..=40).filter(|n| is_sealed(*n)).count(), 40 - plain);
}

/// A run that is stopped once `condition` holds; what it said.
fn interrupted(emulate: &Emulate, lot: &Path, args: &[&str], condition: impl FnMut() -> bool) -> String {
    let child = emulate
        .provision(lot)
        .args(["--connections", "2", "--create-rate", "20/s"])
        .args(args)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for(condition);
    signal(&child, "TERM");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(5));
    String::from_utf8(output.stderr).unwrap()
}

fn registered(ledger: &Path) -> usize {
    if ledger.exists() {
        column(ledger, "SELECT key FROM device WHERE state = 'registered'").len()
    } else {
        0
    }
}

/// Waits for a condition that another process brings about; gives up after a minute.
fn wait_for(mut condition: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !condition() {
        assert!(start.elapsed().as_secs() < 60, "waited a minute in vain");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

#[test]
fn wrong_arguments_are_told_before_anything_else() {
    let scratch = Scratch::new();
    let lot = scratch.lot("lot.csv", 1);
    let cases = [
        ("a recipient of nonsense", ["--seal-to", "age1nonsense"]),
        ("an SSH key", ["--seal-to", "ssh-ed25519 AAAA me"]),
        ("an identity, which is secret", ["--seal-to", IDENTITY]),
        ("a type for keys that AWS makes", ["--key-type", "rsa2048"]),
        ("keys from nowhere", ["--keys", "here"]),
    ];
    let mut refused = Transcript::default();
    for (what, args) in cases {
        let said = provision(&lot, &[&["--emulator"], &args[..]].concat()).expect_code(64);
        assert!(!said.err.contains("AGE-SECRET-KEY-1GQ"), "{}", said.err);
        assert_eq!(scratch.files(), ["lot.csv"]);
        refused.add(what, &said);
    }
    expect_text("keys-wrong-arguments", &scratch, &refused, &[]);
}

#[test]
fn only_exported_keys_are_purged_and_the_ledger_stays_usable() {
    let scratch = Scratch::new();
    let lot = scratch.write("lot.csv", "DeviceId,SerialNumber,MacAddress\nA,1,x\nB,2,y\nno spaces,3,z\n");
    let emulator = fast(&scratch, "");
    provision(&lot, &[&emulator, "--keys", "local"]).expect_code(3);
    let ledger = scratch.path("lot.ledger");
    let mut told = Transcript::default();
    told.add("before the export", &run(purge(&ledger).arg("--yes")));
    let out = scratch.path("out");
    export(&ledger, &out, &[]).expect_code(0);
    let keys = exported_keys(&out);
    told.add("without consent", &run(&mut purge(&ledger)));
    assert!(needles(&keys[0]).iter().any(|needle| contains(&bytes_of(&ledger), needle)));
    told.add("after the export", &run(purge(&ledger).arg("--yes")));
    for file in scratch.files().iter().filter(|name| name.starts_with("lot.ledger")) {
        let bytes = std::fs::read(scratch.path(file)).unwrap();
        for needle in keys.iter().flat_map(|key| needles(key)) {
            assert!(!contains(&bytes, &needle), "{file} has a purged key");
        }
    }
    assert_eq!(column(&ledger, "SELECT private_key FROM devices ORDER BY id"), ["purged", "purged", "plain"]);
    told.add("another export", &export(&ledger, &scratch.path("again"), &[]));
    let said = provision(&lot, &[&emulator, "--keys", "local"]).expect_code(3);
    assert!(said.out.contains("nothing was sent"), "{}", said.out);
    told.add("once more", &run(purge(&ledger).arg("--yes")));
    told.add("no ledger", &run(purge(&scratch.path("none.ledger")).arg("--yes")));
    expect_text("keys-purged", &scratch, &told, &[]);
}

#[test]
fn a_run_keeps_purge_away_and_lets_an_export_read() {
    let scratch = Scratch::new();
    let lot = scratch.lot("lot.csv", 40);
    let scenario = scratch.write("s.toml", P256);
    let emulate = Emulate::start(&["--scenario", scenario.to_str().unwrap()]);
    let ledger = scratch.path("lot.ledger");
    let child = |stderr: Stdio| {
        let mut command = emulate.provision(&lot);
        command.args(["--connections", "1", "--create-rate", "5/s"]).stdout(Stdio::null()).stderr(stderr);
        command.spawn().unwrap()
    };
    let mut child = child(Stdio::null());
    wait_for(|| registered(&ledger) >= 1);
    let pid = format!("pid {}", child.id());
    export(&ledger, &scratch.path("out"), &[]).expect_code(0).expect_out(&["exported"]);
    let said = run(purge(&ledger).arg("--yes"));
    expect_text("keys-purge-during-a-run", &scratch, &said, &[(&pid, "pid OF-THE-RUN")]);
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Everything that runs with known secrets say and leave behind is searched for them, in any guise.
#[test]
fn nobody_sees_a_secret() {
    for keys in ["aws", "local"] {
        look_for_secrets(keys);
    }
}

/// Provisions with the wrong secret access key and with the right one, exports, and searches all that came of it.
fn look_for_secrets(keys: &str) {
    let scratch = Scratch::new();
    // The row that is rejected keeps its token, so that it is known.
    let lot = scratch.write(
        "lot.csv",
        "DeviceId,SerialNumber,MacAddress\nA,1,x\nB,2,y\nC,3,z\nno spaces,4,z\nD,5,z\nE,6,z\nF,7,z\nG,8,z\n",
    );
    let session_token = format!("session//{}", "t0ken".repeat(30));
    let scenario = scratch.write(
        "s.toml",
        format!(
            "{P256}session_token = \"{session_token}\"\n{FAULTS}\
             [errors.unavailable]\nstatus = 503\ncode = \"X\"\nmessage = '''{LEAK}'''\n"
        ),
    );
    let emulate = Emulate::start(&["--scenario", scenario.to_str().unwrap()]);
    let ledger = scratch.path("lot.ledger");
    let mut seen = Seen::default();
    for secret_key in ["wrong", emulate.text("secret_access_key")] {
        let json = scratch.path("summary.json");
        let mut command = emulate.provision(&lot);
        command
            .args(["--keys", keys, "--seal-to", RECIPIENT, "--timeout", "1s", "--connections", "2"])
            .arg("--summary-json")
            .arg(&json)
            .env("AWS_SECRET_ACCESS_KEY", secret_key)
            .env("AWS_SESSION_TOKEN", &session_token)
            .env("FLEETMINT_LOG", "trace");
        let said = run(&mut command);
        assert_eq!(said.code, Some(if secret_key == "wrong" { 77 } else { 3 }), "{}", said.err);
        seen.add("stdout", said.out);
        seen.add("stderr", said.err);
        seen.add("summary", std::fs::read(&json).unwrap());
    }
    assert!(seen.has(b"503"), "the faults were met");
    let tokens = column(
        &ledger,
        "SELECT ownership_token FROM certificate WHERE ownership_token IS NOT NULL AND retired_at IS NULL",
    );
    assert_eq!(tokens.len(), 1, "the token of the rejected device");
    let private_keys = export_keys(&ledger, &scratch, &mut seen);
    // The token stands in the ledger, which is for the next run to use; the others must not stand there either.
    tokens.iter().for_each(|token| seen.expect_none(&needles_of_text(token), "an ownership token"));
    for suffix in ["", "-wal", "-shm", ".lock"] {
        let file = PathBuf::from(format!("{}{suffix}", ledger.display()));
        seen.add("ledger", std::fs::read(file).unwrap_or_default());
    }
    for key in &private_keys {
        seen.expect_none(&needles(key), "a private key");
    }
    for text in [emulate.text("secret_access_key"), &session_token, IDENTITY] {
        seen.expect_none(&needles_of_text(text), "a credential");
    }
    let marks = ["PRIVATE KEY-----", "hunter2", "X-Amz-Signature=", "x-amz-signature="];
    seen.expect_none(&marks.map(|mark| mark.as_bytes().to_vec()), "a secret's mark");
}

/// The seven private keys of the registered devices, from an export.
fn export_keys(ledger: &Path, scratch: &Scratch, seen: &mut Seen) -> Vec<String> {
    let identity = scratch.write("id.txt", IDENTITY);
    let exported = run(fleetmint()
        .args(["export", ledger.to_str().unwrap(), "--out", scratch.path("out").to_str().unwrap()])
        .args(["--identity", identity.to_str().unwrap()])
        .env("FLEETMINT_LOG", "trace"))
    .expect_code(0);
    seen.add("stdout of export", exported.out);
    seen.add("stderr of export", exported.err);
    let private_keys = exported_keys(&scratch.path("out"));
    assert_eq!(private_keys.len(), 7);
    private_keys
}

/// So that errors of many kinds are said.
const FAULTS: &str = "[faults]\nseed = 3\n\
    [faults.create_keys_and_certificate]\ndrop_after = 0.1\nno_reply = 0.1\nreject_5xx = 0.2\n\
    [faults.create_certificate_from_csr]\ndrop_after = 0.1\nno_reply = 0.1\nreject_5xx = 0.2\n\
    [faults.register_thing]\nreject_5xx = 0.3\nduplicate = 0.2\n";

/// What a careless service might say.
const LEAK: &str = "cannot keep -----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----";

/// All that was said and written, by name.
#[derive(Default)]
pub struct Seen(Vec<(&'static str, Vec<u8>)>);

impl Seen {
    pub fn add(&mut self, name: &'static str, bytes: impl Into<Vec<u8>>) {
        self.0.push((name, bytes.into()));
    }

    fn has(&self, needle: &[u8]) -> bool {
        self.0.iter().any(|(_, bytes)| contains(bytes, needle))
    }

    #[track_caller]
    pub fn expect_none(&self, needles: &[Vec<u8>], what: &str) {
        for (name, bytes) in &self.0 {
            let found = needles.iter().position(|needle| contains(bytes, needle));
            assert_eq!(found, None, "{what} in {name}, as guise number {}", found.unwrap_or_default());
        }
    }
}

/// A private key's guises: lines of its PEM, base64 in one, hexadecimal, escaped as in JSON, as Debug shows bytes, raw.
pub fn needles(pem: &str) -> Vec<Vec<u8>> {
    let der = der(pem);
    // The first bytes say what kind of key it is, and are the same in all.
    let secret = &der[der.len() / 3..der.len() / 3 + 24];
    let hex: String = der.iter().map(|byte| format!("{byte:02x}")).collect();
    let hex_secret = &hex[der.len() / 3 * 2..][..48];
    let lines = pem.lines().filter(|line| !line.starts_with("-----")).skip(1).map(str::to_owned);
    let base64 = STANDARD.encode(&der);
    let body = &base64[base64.len() / 3..][..32];
    let debug = format!("{secret:?}");
    let texts = lines.chain([
        body.to_owned(),
        hex_secret.to_owned(),
        hex_secret.to_uppercase(),
        serde_json::to_string(pem).unwrap()[60..140].to_owned(),
        debug.trim_matches(['[', ']']).to_owned(),
    ]);
    texts.map(String::into_bytes).chain([secret.to_vec()]).collect()
}

/// A text's guises: as it is, escaped for a URL, base64, hexadecimal.
pub fn needles_of_text(text: &str) -> Vec<Vec<u8>> {
    let hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
    let url = text.replace('/', "%2F").replace('+', "%2B").replace('=', "%3D");
    let base64 = STANDARD.encode(text).trim_end_matches('=').to_owned();
    [text.to_owned(), url, hex, base64].map(String::into_bytes).to_vec()
}

fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    assert!(needle.len() >= 3, "a needle that is everywhere");
    bytes.windows(needle.len()).any(|window| window == needle)
}

fn bytes_of(file: &Path) -> Vec<u8> {
    std::fs::read(file).unwrap()
}

/// The search finds what it is to find: an unsealed ledger has the keys.
#[test]
fn the_search_for_secrets_finds_them_where_they_are() {
    let scratch = Scratch::new();
    let lot = scratch.lot("lot.csv", 2);
    provision(&lot, &[&fast(&scratch, ""), "--keys", "local"]).expect_code(0);
    let ledger = scratch.path("lot.ledger");
    export(&ledger, &scratch.path("out"), &[]).expect_code(0);
    let bytes = bytes_of(&ledger);
    for key in exported_keys(&scratch.path("out")) {
        let found = needles(&key).iter().filter(|needle| contains(&bytes, needle)).count();
        assert!(found >= 1, "the ledger has it as it is");
    }
}
