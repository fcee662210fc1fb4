//! Keys that are born on the device and never leave it: secure elements, TPMs, ESP32 with a protected key.

use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, KeyPair};

use crate::harness::{Said, Scratch, column, fleetmint, run};

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
    for (bad, said) in [
        ("", "no request"),
        ("hunter2!", "neither PEM nor base64"),
        (private, "a private key"),
        (&csr("rsa1024.csr"), "RSA key of 1024 bits"),
        (&csr("rsa2048-sha1.csr"), "signed with another algorithm"),
        (&csr("secp256k1.csr"), "neither RSA nor on a NIST curve"),
        (&tampered, "signature is not by its own key"),
        (&good, "the key that line 2 asks a certificate for"),
    ] {
        let lot = lot_with_column(&scratch, [&good, bad]);
        let said =
            provision(&lot, &["--csr-column", "Csr"]).expect_code(65).expect_err(&[said, "column Csr"]);
        assert!(!said.err.contains("hunter2"), "{}", said.err);
        assert_eq!(scratch.files(), ["lot.csv"]);
    }
    let folder = scratch.path("requests");
    std::fs::create_dir(&folder).unwrap();
    let lot = scratch.write("lot.csv", "DeviceId,SerialNumber,MacAddress\nA,1,m\nB,../x,m\n");
    provision(&lot, &["--csr-dir", &folder.display().to_string()]).expect_code(65).expect_err(&[
        "line 2",
        "1.csr",
        "line 3",
        "cannot be the name of a file",
    ]);
}

/// Whoever gives both, or says who makes keys and then otherwise.
#[test]
fn where_keys_come_from_is_said_once() {
    let scratch = Scratch::new();
    let lot = lot_with_column(&scratch, ["", ""]);
    provision(&lot, &["--keys", "csr"]).expect_code(64).expect_err(&["--csr-column or --csr-dir"]);
    provision(&lot, &["--keys", "local", "--csr-column", "Csr"]).expect_code(64).expect_err(&["--keys"]);
    provision(&lot, &["--csr-column", "Csr", "--csr-dir", "."]).expect_code(64);
    provision(&lot, &["--csr-column", "csr"]).expect_code(64).expect_err(&["--csr-column", "csr"]);
    provision(&lot, &["--csr-column", "Csr", "--key-type", "p256"])
        .expect_code(64)
        .expect_err(&["--key-type"]);
    provision(&lot, &["--csr-dir", "not-there"]).expect_code(64).expect_err(&["--csr-dir", "not-there"]);
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
    for (content, said) in [("# nobody\n", "found no recipient"), ("age1nonsense\n", "--seal-to-file")] {
        let file = scratch.write("recipients.txt", content);
        provision(&lot, &["--seal-to-file", &file.display().to_string()]).expect_code(64).expect_err(&[said]);
    }
}
