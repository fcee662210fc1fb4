//! Keys that are born on the device and never leave it: secure elements, TPMs, ESP32 with a protected key.

use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, KeyPair};

use crate::harness::{Said, Scratch, Transcript, column, expect_text, fleetmint, run};

fn request(pair: &KeyPair) -> String {
    CertificateParams::default().serialize_request(pair).unwrap().pem().unwrap()
}

fn provision(lot: &Path, args: &[&str]) -> Said {
    run(fleetmint().arg("provision").arg(lot).arg("--emulator").args(args))
}

/// A lot of two devices with their requests in a column.
fn lot_with_column(scratch: &Scratch, requests: [&str; 2]) -> PathBuf {
    let quoted = requests.map(|request| format!("\"{request}\""));
    scratch.write(
        "lot.csv",
        format!("DeviceId,SerialNumber,MacAddress,Csr\nA,1,m,{}\nB,2,m,{}\n", quoted[0], quoted[1]),
    )
}

/// That a certificate is for a key pair.
#[track_caller]
fn assert_is_for(certificate_pem: &str, pair: &KeyPair) {
    let (_, pem) = x509_parser::pem::parse_x509_pem(certificate_pem.as_bytes()).unwrap();
    let certificate = pem.parse_x509().unwrap();
    assert_eq!(certificate.public_key().subject_public_key.data.as_ref(), pair.public_key_raw());
}

/// Whoever has requests in the lot: nothing could take them.
#[test]
fn requests_in_a_column_are_certified_and_no_private_key_is_anywhere() {
    let scratch = Scratch::new();
    let pairs = [KeyPair::generate().unwrap(), KeyPair::generate().unwrap()];
    let requests = pairs.each_ref().map(request);
    // One as a tool writes it, one on a single line.
    let lot = lot_with_column(&scratch, [&requests[0], &requests[1].replace('\n', "\\n")]);
    provision(&lot, &["--csr-column", "Csr"]).expect_code(0).expect_err(&["keys of the devices' own"]);
    let ledger = scratch.path("lot.ledger");
    let certificates = column(&ledger, "SELECT certificate_pem FROM certificate ORDER BY device");
    for (certificate, pair) in certificates.iter().zip(&pairs) {
        assert_is_for(certificate, pair);
    }
    let bytes = std::fs::read(&ledger).unwrap();
    assert!(!bytes.windows(11).any(|window| window == b"PRIVATE KEY"));
    // The column is no parameter, the same command has nothing to do, and nothing is left to be purged.
    provision(&lot, &["--keys", "csr", "--csr-column", "Csr"]).expect_code(0).expect_out(&["nothing to do"]);
    let out = scratch.path("out");
    run(fleetmint().arg("export").arg(&ledger).arg("--out").arg(&out)).expect_code(0);
    let mut files: Vec<_> =
        std::fs::read_dir(out.join("1")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    files.sort();
    assert_eq!(files, ["certificate.pem"]);
}

/// Whoever has them as files, as provisioning tools of secure elements write them.
#[test]
fn requests_in_a_folder_are_certified_by_their_devices_keys() {
    let scratch = Scratch::new();
    let pair = KeyPair::generate().unwrap();
    let lot = scratch.write("lot.csv", "DeviceId,SerialNumber,MacAddress\nA,1,m\n");
    let folder = scratch.path("requests");
    std::fs::create_dir(&folder).unwrap();
    // DER, as a secure element's tool may write it.
    let params = CertificateParams::default().serialize_request(&pair).unwrap();
    std::fs::write(folder.join("1.csr"), params.der()).unwrap();
    let folder = folder.display().to_string();
    provision(&lot, &["--csr-dir", &folder]).expect_code(0);
    let certificates = column(&scratch.path("lot.ledger"), "SELECT certificate_pem FROM certificate");
    assert_is_for(&certificates[0], &pair);
}

/// Whoever mixes up files: each is named with its line before anything is sent.
#[test]
fn requests_that_cannot_be_certified_are_named_before_anything_is_sent() {
    let scratch = Scratch::new();
    let good = request(&KeyPair::generate().unwrap());
    let csr = |name: &str| {
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/csr").join(name))
            .unwrap()
    };
    let private = "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----";
    let tampered = {
        let flip = |c: char| if c == 'A' { 'B' } else { 'A' };
        let end = good.find("\n-----END").unwrap() - 8;
        let mut text = good.clone();
        let c = text[end..].chars().next().unwrap();
        text.replace_range(end..=end, &flip(c).to_string());
        text
    };
    let mut refused = Transcript::default();
    for (what, bad) in [
        ("nothing", ""),
        ("neither PEM nor base64", "hunter2!"),
        ("a private key", private),
        ("a short RSA key", &csr("rsa1024.csr")),
        ("an old signature", &csr("rsa2048-sha1.csr")),
        ("another curve", &csr("secp256k1.csr")),
        ("a changed signature", &tampered),
        ("the request of line 2", &good),
    ] {
        let lot = lot_with_column(&scratch, [&good, bad]);
        let said = provision(&lot, &["--csr-column", "Csr"]).expect_code(65);
        assert!(!said.err.contains("hunter2"), "{}", said.err);
        assert_eq!(scratch.files(), ["lot.csv"]);
        refused.add(what, &said);
    }
    let folder = scratch.path("requests");
    std::fs::create_dir(&folder).unwrap();
    let lot = scratch.write("lot.csv", "DeviceId,SerialNumber,MacAddress\nA,1,m\nB,../x,m\n");
    refused.add("files", &provision(&lot, &["--csr-dir", &folder.display().to_string()]));
    // A signature has a byte more or less, and so a request a line.
    let after_a_request = (r"line \d+, column Csr", "line LINE, column Csr");
    expect_text("requests-refused", &scratch, &refused, &[after_a_request]);
}

/// Whoever gives both, or says who makes keys and then otherwise.
#[test]
fn where_keys_come_from_is_said_once() {
    let scratch = Scratch::new();
    let lot = lot_with_column(&scratch, ["", ""]);
    let mut refused = Transcript::default();
    for args in [
        &["--keys", "csr"][..],
        &["--keys", "local", "--csr-column", "Csr"],
        &["--csr-column", "Csr", "--csr-dir", "."],
        &["--csr-column", "csr"],
        &["--csr-column", "Csr", "--key-type", "p256"],
        &["--csr-dir", "not-there"],
    ] {
        refused.add(&args.join(" "), &provision(&lot, args).expect_code(64));
    }
    expect_text("requests-wrong-arguments", &scratch, &refused, &[]);
}

/// Whoever keeps recipients in a file: they had to be typed one by one.
#[test]
fn recipients_are_taken_from_a_file() {
    let scratch = Scratch::new();
    let lot = scratch.lot("lot.csv", 1);
    let recipient = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";
    let file = scratch.write("recipients.txt", format!("# the factory\r\n\r\n{recipient}\r\n"));
    provision(&lot, &["--seal-to-file", &file.display().to_string()])
        .expect_code(0)
        .expect_err(&[&format!("sealed to {recipient}")]);
    let mut refused = Transcript::default();
    for content in ["# nobody\n", "age1nonsense\n"] {
        let file = scratch.write("recipients.txt", content);
        refused.add(content.trim(), &provision(&lot, &["--seal-to-file", &file.display().to_string()]));
    }
    expect_text("recipients-refused", &scratch, &refused, &[]);
}
