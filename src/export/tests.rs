//! Exports of ledgers in memory and on disk.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, UNIX_EPOCH};

use proptest::prelude::*;

use super::*;
use crate::certificate::{IssuedCertificate, RegisteredThing, Secret};
use crate::event::Change;
use crate::identity::{Identity, LotShape};
use crate::ledger::{Binding, Ledger, LotRows};

/// A ledger with a device for every key, of which the first `registered` are registered.
fn ledger(keys: &[&str], registered: usize) -> Ledger {
    let identity = |(at, key): (usize, &&str)| Identity {
        line: at as u64 + 2,
        key: key.to_string(),
        values: vec![key.to_string()],
    };
    let shape = LotShape { columns: vec![String::from("Key")], key_column: 0 };
    let rows: Vec<_> = keys.iter().enumerate().map(identity).map(Ok).collect();
    let binding = Binding { template: "t".into(), region: "r".into(), account: "a".into() };
    let now = UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
    let lot = LotRows { source: "lot.csv", shape, rows: rows.into_iter() };
    let mut ledger = Ledger::in_memory(&binding, lot, |_| Ok(()), now).unwrap();
    for device in 1..=registered {
        ledger.commit(provision(device as i64).into(), now).unwrap();
    }
    ledger
}

fn provision(device: i64) -> [Change; 2] {
    let certificate = IssuedCertificate {
        certificate_id: format!("{device:064x}").try_into().unwrap(),
        certificate_pem: format!("certificate {device}\n"),
        private_key: Secret::new(format!("private key {device}\n")).into(),
        ownership_token: Secret::new(String::from("token")),
    };
    let thing =
        RegisteredThing { thing_name: format!("thing-{device}"), device_configuration: Default::default() };
    let device = DeviceId(device);
    [Change::Issued { device, certificate }, Change::Registered { device, thing }]
}

fn export_plain(view: &View, out: &Path) -> Result<ExportSummary, ExportError> {
    export(view, out, &KeyOpener::plain_only())
}

fn names(directory: &Path) -> BTreeSet<String> {
    fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn registered_devices_are_written_and_the_others_counted() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out");
    let summary = export_plain(ledger(&["AA:01", "AA:02", "AA:03"], 2).view(), &out).unwrap();
    let devices = vec![DeviceId(1), DeviceId(2)];
    assert_eq!(summary, ExportSummary { exported: 2, left_out: 1, purged: 0, devices });
    assert_eq!(names(&out), ["AA:01", "AA:02", "manifest.csv"].map(String::from).into());
    assert_eq!(fs::read_to_string(out.join("AA:02/certificate.pem")).unwrap(), "certificate 2\n");
    assert_eq!(fs::read_to_string(out.join("AA:02/private.key")).unwrap(), "private key 2\n");
    assert_eq!(names(&out.join("AA:01")), ["certificate.pem", "private.key"].map(String::from).into());
    assert_eq!(names(directory.path()), [String::from("out")].into(), "nothing else is left");
}

#[test]
fn the_manifest_says_what_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out");
    export_plain(ledger(&["a,b"], 1).view(), &out).unwrap();
    // As sha256sum computes them.
    let certificate = "e79f7e976462238331fd3e33ad0ceb98f690f751372ac721c9af96ae837ce019";
    let key = "0074be6e3c8ce1be3350fd73721ff247229f40c2f27d8824a21f409c70264aa4";
    let expected = format!(
        "key,thing_name,certificate_id,certificate_file,certificate_sha256,private_key_file,private_key_sha256,registered_at\n\
         \"a,b\",thing-1,{:064x},a%2Cb/certificate.pem,{certificate},a%2Cb/private.key,{key},2023-11-14T22:13:20.123Z\n",
        1
    );
    assert_eq!(fs::read_to_string(out.join("manifest.csv")).unwrap(), expected);
}

#[test]
fn nobody_else_may_read_any_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out");
    export_plain(ledger(&["a"], 1).view(), &out).unwrap();
    for path in ["", "a"] {
        assert_eq!(mode(&out.join(path)), 0o700, "{path}");
    }
    for path in ["manifest.csv", "a/certificate.pem", "a/private.key"] {
        assert_eq!(mode(&out.join(path)), 0o600, "{path}");
    }
}

#[test]
fn an_empty_directory_is_filled_and_any_other_refused() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = ledger(&["a"], 1);
    let out = directory.path().join("out");
    fs::create_dir(&out).unwrap();
    export_plain(ledger.view(), &out).unwrap();
    assert_eq!(mode(&out), 0o700);
    let file = directory.path().join("file");
    fs::write(&file, "precious").unwrap();
    let link = directory.path().join("link");
    std::os::unix::fs::symlink("nowhere", &link).unwrap();
    for taken in [&out, &file, &link] {
        let error = export_plain(ledger.view(), taken).unwrap_err();
        assert!(matches!(error, ExportError::Occupied { .. }), "{error}");
    }
    assert_eq!(fs::read(&file).unwrap(), b"precious");
    assert_eq!(names(directory.path()), ["file", "link", "out"].map(String::from).into());
}

#[test]
fn nothing_registered_is_an_error_and_writes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let error = export_plain(ledger(&["a", "b"], 0).view(), &directory.path().join("out")).unwrap_err();
    assert!(error.to_string().contains("none of the 2 devices"), "{error}");
    assert!(names(directory.path()).is_empty());
}

#[test]
fn a_failed_export_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out");
    let folder = Unfinished::begin(&out).unwrap();
    write_devices(ledger(&["a"], 1).view(), &folder.path, &KeyOpener::plain_only()).unwrap();
    // Something takes the name at the last moment.
    fs::create_dir(&out).unwrap();
    fs::write(out.join("precious"), "").unwrap();
    assert!(matches!(folder.install(), Err(ExportError::Io { .. })));
    assert_eq!(names(directory.path()), [String::from("out")].into());
    assert_eq!(names(&out), [String::from("precious")].into());
}

#[test]
fn what_a_killed_export_left_is_written_over() {
    let directory = tempfile::tempdir().unwrap();
    let left = directory.path().join(".out.exporting/old");
    fs::create_dir_all(&left).unwrap();
    export_plain(ledger(&["a"], 1).view(), &directory.path().join("out")).unwrap();
    assert_eq!(names(directory.path()), [String::from("out")].into());
    assert_eq!(names(&directory.path().join("out")), ["a", "manifest.csv"].map(String::from).into());
}

#[test]
fn two_exports_to_one_place_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out");
    let _first = Unfinished::begin(&out).unwrap();
    let error = export_plain(ledger(&["a"], 1).view(), &out).unwrap_err();
    assert!(matches!(error, ExportError::InUse { .. }), "{error}");
}

#[test]
fn a_directory_that_is_not_there_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let error = export_plain(ledger(&["a"], 1).view(), &directory.path().join("no/out")).unwrap_err();
    assert!(matches!(error, ExportError::Io { .. }) && error.to_string().contains("no/out"), "{error}");
}

#[test]
fn hostile_keys_stay_inside() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("deep/out");
    fs::create_dir(directory.path().join("deep")).unwrap();
    let long = "x".repeat(4096);
    let keys = [
        "../x",
        ".",
        "..",
        "a/b",
        "/etc",
        "con",
        "ключ",
        "manifest.csv",
        "a b",
        "%2E",
        ".hidden",
        "~",
        "\u{0}",
        "\n",
        "a\\b",
        &long,
    ];
    let summary = export_plain(ledger(&keys, keys.len()).view(), &out).unwrap();
    assert_eq!(summary.exported, keys.len() as u64);
    let found = names(&out);
    assert_eq!(found.len(), keys.len() + 1);
    for name in ["%2E.%2Fx", "%2E", "%2E.", "a%2Fb", "%252E", "con", "%D0%BA%D0%BB%D1%8E%D1%87", "%2Ehidden"]
    {
        assert!(found.contains(name), "{name} is not in {found:?}");
    }
    assert!(found.iter().any(|name| name.starts_with("manifest.csv~")));
    assert_eq!(names(&directory.path().join("deep")).len(), 1);
    let manifest = fs::read_to_string(out.join("manifest.csv")).unwrap();
    let mut reader = csv::Reader::from_reader(manifest.as_bytes());
    let listed: Vec<_> = reader.records().map(Result::unwrap).collect();
    for (record, key) in listed.iter().zip(keys) {
        assert_eq!(&record[0], key);
        assert_eq!(sha256(&fs::read(out.join(&record[5])).unwrap()), &record[6]);
    }
}

#[test]
fn a_name_that_is_taken_is_hashed() {
    let directory = tempfile::tempdir().unwrap();
    // As on a file system that takes upper and lower case for the same.
    fs::create_dir(directory.path().join("AB")).unwrap();
    let name = create_device_directory(directory.path(), "AB").unwrap();
    assert_eq!(name, "AB~38164fbd17603d73f696b8b4d72664d7");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn names_are_safe_and_never_shared(one in "\\PC{1,80}", other in "[.%~a-bA-B/]{1,4}") {
        for key in [&one, &other] {
            let name = directory_name(key);
            let is_safe = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-%~".contains(&byte);
            prop_assert!(name.bytes().all(is_safe) && !name.starts_with('.') && (1..=LONGEST_NAME).contains(&name.len()));
        }
        prop_assert_eq!(directory_name(&one) == directory_name(&other), one == other);
    }
}
