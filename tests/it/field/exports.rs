//! What leaves the ledger, as those who get it need it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::harness::{Said, Scratch, column, fleetmint, run, signal};

/// Provisions a lot of one column on the built-in emulator, and returns its ledger.
fn provisioned(scratch: &Scratch, keys: &[&str]) -> PathBuf {
    let rows: String = keys.iter().map(|key| format!("\"{key}\",\"{key}\",AA\n")).collect();
    let lot = scratch.write("lot.csv", format!("SerialNumber,DeviceId,MacAddress\n{rows}"));
    let template = r#"{"Parameters":{"SerialNumber":{"Type":"String"},"DeviceId":{"Type":"String"}},
        "Resources":{"thing":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":{"Fn::Join":["",["t-",{"Ref":"AWS::IoT::Certificate::Id"}]]}}},
        "certificate":{"Type":"AWS::IoT::Certificate","Properties":{"CertificateId":{"Ref":"AWS::IoT::Certificate::Id"},"Status":"ACTIVE"}}},
        "DeviceConfiguration":{"url":"mqtt://example"}}"#;
    scratch.write("t.json", template);
    let scenario =
        scratch.write("s.toml", "keys = \"p256\"\n[[templates]]\nname = \"T\"\nfile = \"t.json\"\n");
    let mut command = fleetmint();
    command
        .arg("provision")
        .arg(&lot)
        .args(["--template", "T"])
        .arg(format!("--emulator={}", scenario.display()));
    run(&mut command).expect_code(0);
    scratch.path("lot.ledger")
}

fn export(ledger: &Path, out: &Path, args: &[&str]) -> Said {
    run(fleetmint().arg("export").arg(ledger).arg("--out").arg(out).args(args))
}

/// Each device's key and its folder, as the manifest maps them.
fn folders(out: &Path) -> Vec<(String, String)> {
    let mut reader = csv::Reader::from_path(out.join("manifest.csv")).unwrap();
    let row = |row: csv::StringRecord| (row[0].to_owned(), row[3].split('/').next().unwrap().to_owned());
    reader.records().map(|record| row(record.unwrap())).collect()
}

/// The factory whose PCs run Windows and whose programmer reads exFAT sticks.
#[test]
fn names_survive_on_every_file_system() {
    let scratch = Scratch::new();
    let keys = [
        "AA:BB:CC:00:00:01",
        "aa:bb:cc:00:00:01",
        "CON",
        "nul.txt",
        "unit.",
        "-rf",
        "a/b\\c",
        "x|y?z*",
        "LPT1.log",
        "manifest.csv",
    ];
    let ledger = provisioned(&scratch, &keys);
    for format in ["pem", "der", "nvs", "mass-mfg"] {
        let out = scratch.path(format);
        export(&ledger, &out, &["--format", format]).expect_code(0);
        let mut seen = BTreeSet::new();
        for entry in std::fs::read_dir(&out).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(!name.contains(['/', ':', '<', '>', '"', '|', '?', '*', '\\']), "{name}");
            assert!(!name.starts_with('-') && !name.ends_with(['.', ' ']), "{name}");
            let stem = name.split('.').next().unwrap().to_ascii_uppercase();
            assert!(!["CON", "NUL", "LPT1"].contains(&&*stem), "{name}");
            assert!(seen.insert(name.to_lowercase()), "{name} is there twice where case is the same");
        }
    }
    let mapped = folders(&scratch.path("pem"));
    assert_eq!(mapped.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), keys);
    assert_eq!(mapped[0].1, "AA%3ABB%3ACC%3A00%3A00%3A01");
    let (twin, hash) = mapped[1].1.split_once('~').unwrap();
    assert!(twin == "aa%3Abb%3Acc%3A00%3A00%3A01" && hash.len() == 8, "{twin}~{hash}");
    // Whatever else is exported, and in which order.
    let out = scratch.path("one");
    export(&ledger, &out, &["--key", keys[1]]).expect_code(0);
    assert_eq!(folders(&out)[0].1, mapped[1].1);
}

/// The operator who saw that it is the wrong directory: 1,483 folders of private keys stayed in a hidden one.
#[test]
fn an_interrupted_export_removes_the_keys_it_wrote_and_says_so() {
    let scratch = Scratch::new();
    let keys: Vec<_> = (0..1_500).map(|n| format!("SN{n}")).collect();
    let keys: Vec<_> = keys.iter().map(String::as_str).collect();
    let ledger = provisioned(&scratch, &keys);
    let out = scratch.path("out");
    for format in ["pem", "jsonl"] {
        let mut command = fleetmint();
        command.arg("export").arg(&ledger).arg("--out").arg(&out).args(["--format", format]);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // Once it has begun to write; it may be done before the signal comes, and is whole then.
        while !scratch.files().iter().any(|name| name.ends_with(".exporting") || name == "out") {
            std::thread::sleep(Duration::from_millis(1));
        }
        signal(&child, "INT");
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        match output.status.code() {
            Some(5) => assert!(said.contains("nothing was exported") && !out.exists(), "{said}"),
            Some(0) => {
                assert!(out.exists());
                let _ = std::fs::remove_dir_all(&out);
                let _ = std::fs::remove_file(&out);
                let _ = std::fs::remove_file(scratch.path("out.manifest.csv"));
            }
            code => panic!("{code:?}: {said}"),
        }
        assert!(!scratch.files().iter().any(|name| name.contains("exporting")), "{:?}", scratch.files());
    }
}

/// The factory line that wants the first thousand devices while the rest are being made.
#[test]
fn a_ledger_that_a_run_is_writing_is_exported() {
    let scratch = Scratch::new();
    let ledger = provisioned(&scratch, &["SN1", "SN2"]);
    // As a run does.
    let running = fleetmint::ledger::Ledger::reopen(&ledger).unwrap();
    let out = scratch.path("out");
    export(&ledger, &out, &[]).expect_code(0).expect_err(&["does not know of this export"]);
    assert_eq!(folders(&out).len(), 2);
    drop(running);
    assert_eq!(column(&ledger, "SELECT CAST(count(*) AS TEXT) FROM export"), ["0"]);
    export(&ledger, &scratch.path("again"), &[]).expect_code(0);
    assert_eq!(column(&ledger, "SELECT CAST(count(*) AS TEXT) FROM export"), ["1"]);
}

/// The gateway whose software reads PKCS #12 and nothing else; OpenSSL is what most of them use.
#[test]
fn a_pkcs12_file_opens_with_openssl_and_its_password_alone() {
    let scratch = Scratch::new();
    let ledger = provisioned(&scratch, &["SN1"]);
    let password = scratch.write("password", "s3cret ключ\r\nnot this\n");
    let out = scratch.path("out");
    let args = ["--format", "pkcs12", "--password-file", password.to_str().unwrap()];
    export(&ledger, &out, &args).expect_code(0);
    let openssl = |password: &str| {
        let file = out.join("SN1/device.p12");
        let arguments =
            ["pkcs12", "-nodes", "-passin", &format!("pass:{password}"), "-in"].map(str::to_owned);
        Command::new("openssl").args(arguments).arg(&file).output().unwrap()
    };
    let opened = openssl("s3cret ключ");
    let text = String::from_utf8(opened.stdout).unwrap();
    assert!(opened.status.success(), "{}", String::from_utf8_lossy(&opened.stderr));
    assert!(text.contains("friendlyName: SN1"), "{text}");
    let body = |text: &str, label: &str| {
        let (_, rest) = text.split_once(&format!("-----BEGIN {label}-----")).unwrap();
        let body = rest.split_once("-----END").unwrap().0;
        body.split_whitespace().collect::<String>()
    };
    let certificate = &column(&ledger, "SELECT certificate_pem FROM certificate")[0];
    assert_eq!(body(&text, "CERTIFICATE"), body(certificate, "CERTIFICATE"));
    // The same key, whatever form it is in: its public half.
    let public = |pem: &str| {
        let file = scratch.write("key.pem", pem);
        let output = Command::new("openssl").args(["pkey", "-pubout", "-in"]).arg(file).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let exported = format!(
        "-----BEGIN PRIVATE KEY-----\n{}",
        text.split_once("-----BEGIN PRIVATE KEY-----\n").unwrap().1
    );
    assert_eq!(public(&exported), public(&column(&ledger, "SELECT private_key FROM certificate")[0]));
    assert!(!openssl("s3cret").status.success(), "no other password");
    // Siblings: no password, an empty one, a file that is not there.
    let empty = scratch.write("empty", "\n");
    let none = scratch.path("none");
    export(&ledger, &none, &["--format", "pkcs12"]).expect_code(64).expect_err(&["--password-file"]);
    export(&ledger, &none, &["--format", "pkcs12", "--password-file", empty.to_str().unwrap()])
        .expect_code(64);
    export(&ledger, &none, &["--format", "pkcs12", "--password-file", "/nowhere/x"]).expect_code(74);
    assert!(!none.exists());
}

/// The firmware that asks NVS for names of its own, and for the hardware revision in the lot.
#[test]
fn an_image_holds_what_the_firmware_asks_for() {
    let scratch = Scratch::new();
    let ledger = provisioned(&scratch, &["SN1"]);
    let out = scratch.path("out");
    let entries =
        ["--nvs-entry", "mac=column:MacAddress", "--nvs-entry", "crt=certificate", "--nvs-namespace", "sec"];
    export(&ledger, &out, &[&["--format", "nvs"][..], &entries].concat()).expect_code(0);
    assert_eq!(
        std::fs::read_to_string(out.join("SN1/nvs.csv")).unwrap(),
        "key,type,encoding,value\nsec,namespace,,\nmac,data,string,AA\ncrt,file,string,SN1/certificate.pem\n"
    );
    let none = scratch.path("none");
    for (entry, said) in
        [("mac=column:Mac", "has SerialNumber"), ("mac", "NAME=SOURCE"), ("a name=key", "1 to 15 bytes")]
    {
        export(&ledger, &none, &["--format", "nvs", "--nvs-entry", entry])
            .expect_code(64)
            .expect_err(&[said]);
    }
    export(&ledger, &none, &["--nvs-entry", "a=key"])
        .expect_code(64)
        .expect_err(&["--nvs-entry", "nvs and mass-mfg"]);
}

/// The technician who flashes what the template configured, and does not parse a table for it.
#[test]
fn the_devices_configuration_is_beside_its_key() {
    let scratch = Scratch::new();
    let ledger = provisioned(&scratch, &["SN1"]);
    for format in ["pem", "der"] {
        let out = scratch.path(format);
        export(&ledger, &out, &["--format", format]).expect_code(0);
        assert_eq!(
            std::fs::read_to_string(out.join("SN1/configuration.json")).unwrap(),
            "{\"url\":\"mqtt://example\"}\n"
        );
        let mut reader = csv::Reader::from_path(out.join("manifest.csv")).unwrap();
        assert_eq!(&reader.records().next().unwrap().unwrap()[8], "SN1/configuration.json");
    }
}

/// Whoever gets a ledger from somewhere: keys of other devices in it would be delivered.
#[test]
fn a_ledger_whose_keys_were_exchanged_is_not_exported() {
    let scratch = Scratch::new();
    let ledger = provisioned(&scratch, &["SN1", "SN2"]);
    let before = std::fs::read(&ledger).unwrap();
    let keys = column(&ledger, "SELECT private_key FROM certificate ORDER BY device");
    // A forger can compute the digests of the rows too; here the bytes are exchanged in the file, which SQLite does not notice.
    let der = |key: &String| pem::parse(key).unwrap().into_contents();
    let exchanged = exchange(&before, &der(&keys[0]), &der(&keys[1]));
    assert_ne!(before, exchanged);
    std::fs::write(&ledger, exchanged).unwrap();
    for args in [&[][..], &["--key", "SN1"]] {
        export(&ledger, &scratch.path("out"), args).expect_code(74);
        assert!(!scratch.path("out").exists());
    }
}

fn exchange(bytes: &[u8], one: &[u8], other: &[u8]) -> Vec<u8> {
    let find = |wanted: &[u8]| bytes.windows(wanted.len()).position(|window| window == wanted);
    let (Some(first), Some(second)) = (find(one), find(other)) else { return bytes.to_vec() };
    let mut exchanged = bytes.to_vec();
    exchanged[first..first + other.len()].copy_from_slice(other);
    exchanged[second..second + one.len()].copy_from_slice(one);
    exchanged
}
