//! Exports of ledgers in memory and on disk.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::LazyLock;
use std::time::{Duration, UNIX_EPOCH};

use super::files::sha256;
use super::*;
use crate::call::Call;
use crate::certificate::{IssuedCertificate, PemBlock, RegisteredThing, Secret, StoredKey, samples};
use crate::event::{Change, DeviceId, DeviceState};
use crate::failure::{Cause, Failure, Stage};
use crate::identity::{Identity, LotShape};
use crate::ledger::{Binding, Ledger, LotRows, RunId};

/// Opens what is in plain text.
static PLAIN_ONLY: LazyLock<KeyOpener> = LazyLock::new(KeyOpener::plain_only);

fn plan(format: Format, out: &Path) -> ExportPlan<'_> {
    let watch = &|_| ControlFlow::Continue(());
    ExportPlan { selection: Selection::default(), format, out, opener: &PLAIN_ONLY, watch }
}

fn export(view: &View, out: &Path) -> Result<ExportSummary, ExportError> {
    super::export(view, &plan(Format::Pem, out))
}

fn nvs() -> Format {
    Format::Nvs(Partition::new(DEFAULT_NAMESPACE, Vec::new()).unwrap())
}

fn mass_mfg() -> Format {
    Format::MassMfg(Partition::new(DEFAULT_NAMESPACE, Vec::new()).unwrap())
}

/// A ledger with a device for every key, of which the first `registered` are registered.
fn ledger(keys: &[&str], registered: usize) -> Ledger {
    let identity = |(at, key): (usize, &&str)| Identity {
        line: at as u64 + 2,
        key: key.to_string(),
        values: vec![key.to_string()],
    };
    let shape = LotShape { columns: vec![String::from("Key")], key_column: 0 };
    let rows: Vec<_> = keys.iter().enumerate().map(identity).map(Ok).collect();
    let binding =
        Binding { template: "t".into(), region: "r".into(), account: "a".into(), ..Binding::default() };
    let now = UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
    let lot = LotRows { source: "lot.csv", shape, rows: rows.into_iter() };
    let mut ledger = Ledger::in_memory(&binding, lot, |_| Ok(()), now).unwrap();
    for device in 1..=registered {
        ledger.commit(provision(device as i64).into(), now).unwrap();
    }
    ledger
}

fn provision(device: i64) -> [Change; 2] {
    let certificate = samples::issued(device as u64).map_key(StoredKey::from);
    let thing = RegisteredThing {
        thing_name: format!("thing-{device}"),
        device_configuration: [(String::from("url"), serde_json::json!("mqtt://x"))].into(),
    };
    let device = DeviceId(device);
    [Change::Issued { device, certificate }, Change::Registered { device, thing }]
}

fn certificate(device: u64) -> String {
    samples::issued(device).certificate_pem
}

fn certificate_id(device: u64) -> String {
    samples::issued(device).certificate_id.to_string()
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
    let summary = export(ledger(&["AA:01", "AA:02", "AA:03"], 2).view(), &out).unwrap();
    let devices = vec![DeviceId(1), DeviceId(2)];
    assert_eq!(summary, ExportSummary { exported: 2, left_out: 1, purged: 0, devices });
    assert_eq!(names(&out), ["AA%3A01", "AA%3A02", "manifest.csv"].map(String::from).into());
    assert_eq!(fs::read_to_string(out.join("AA%3A02/certificate.pem")).unwrap(), certificate(2));
    assert_eq!(fs::read_to_string(out.join("AA%3A02/private.key")).unwrap(), samples::PRIVATE_KEY);
    assert_eq!(fs::read(out.join("AA%3A02/configuration.json")).unwrap(), b"{\"url\":\"mqtt://x\"}\n");
    let files = ["certificate.pem", "configuration.json", "private.key"];
    assert_eq!(names(&out.join("AA%3A01")), files.map(String::from).into());
    assert_eq!(names(directory.path()), [String::from("out")].into(), "nothing else is left");
}

#[test]
fn the_manifest_says_what_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out");
    export(ledger(&["a,b"], 1).view(), &out).unwrap();
    let (id, certificate, key) =
        (certificate_id(1), sha256(certificate(1).as_bytes()), sha256(samples::PRIVATE_KEY.as_bytes()));
    // As sha256sum computes it.
    let configuration = "8f478f77c788241cc4947ca66b5d84975b4643e851dd5a3181ed1e3de1185b5c";
    let expected = format!(
        "key,thing_name,certificate_id,certificate_file,certificate_sha256,private_key_file,private_key_sha256,registered_at,\
         configuration_file,configuration_sha256\n\
         \"a,b\",thing-1,{id},a%2Cb/certificate.pem,{certificate},a%2Cb/private.key,{key},2023-11-14T22:13:20.123Z,\
         a%2Cb/configuration.json,{configuration}\n"
    );
    assert_eq!(fs::read_to_string(out.join("manifest.csv")).unwrap(), expected);
}

#[test]
fn nobody_else_may_read_any_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out");
    export(ledger(&["a"], 1).view(), &out).unwrap();
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
    export(ledger.view(), &out).unwrap();
    assert_eq!(mode(&out), 0o700);
    let file = directory.path().join("file");
    fs::write(&file, "precious").unwrap();
    let link = directory.path().join("link");
    std::os::unix::fs::symlink("nowhere", &link).unwrap();
    for taken in [&out, &file, &link] {
        let error = export(ledger.view(), taken).unwrap_err();
        assert!(matches!(error, ExportError::Occupied { .. }), "{error}");
    }
    assert_eq!(fs::read(&file).unwrap(), b"precious");
    assert_eq!(names(directory.path()), ["file", "link", "out"].map(String::from).into());
}

#[test]
fn nothing_registered_is_an_error_and_writes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let error = export(ledger(&["a", "b"], 0).view(), &directory.path().join("out")).unwrap_err();
    assert!(error.to_string().contains("none of the 2 devices"), "{error}");
    assert!(names(directory.path()).is_empty());
}

#[test]
fn a_failed_export_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out");
    let folder = UnfinishedFolder::begin(&out).unwrap();
    Folders::begin(folder.path(), &Format::Pem).unwrap().finish().unwrap();
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
    export(ledger(&["a"], 1).view(), &directory.path().join("out")).unwrap();
    assert_eq!(names(directory.path()), [String::from("out")].into());
    assert_eq!(names(&directory.path().join("out")), ["a", "manifest.csv"].map(String::from).into());
}

#[test]
fn two_exports_to_one_place_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out");
    let _first = UnfinishedFolder::begin(&out).unwrap();
    let error = export(ledger(&["a"], 1).view(), &out).unwrap_err();
    assert!(matches!(error, ExportError::InUse { .. }), "{error}");
}

#[test]
fn a_directory_that_is_not_there_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let error = export(ledger(&["a"], 1).view(), &directory.path().join("no/out")).unwrap_err();
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
        "a\\b",
        &long,
    ];
    let summary = export(ledger(&keys, keys.len()).view(), &out).unwrap();
    assert_eq!(summary.exported, keys.len() as u64);
    let found = names(&out);
    assert_eq!(found.len(), keys.len() + 1);
    for name in
        ["%2E.%2Fx", "%2E", "%2E%2E", "a%2Fb", "%252E", "%63on", "%D0%BA%D0%BB%D1%8E%D1%87", "%2Ehidden"]
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
fn spellings_that_differ_in_case_alone_are_told_apart_over_the_whole_ledger() {
    let directory = tempfile::tempdir().unwrap();
    let keys = ["ab:cd", "AB:CD", "Ab:Cd", "x"];
    let folders = |registered: usize, only: &[&str], out: &str| {
        let out = directory.path().join(out);
        let keys_chosen = only.iter().map(|key| key.to_string()).collect();
        let selection = Selection { keys: keys_chosen, ..Selection::default() };
        let plan = ExportPlan { selection, ..plan(Format::Pem, &out) };
        super::export(ledger(&keys, registered).view(), &plan).unwrap();
        let mut reader = csv::Reader::from_path(out.join("manifest.csv")).unwrap();
        let folder = |row: csv::StringRecord| row[3].split('/').next().unwrap().to_owned();
        reader.records().map(|row| folder(row.unwrap())).collect::<Vec<_>>()
    };
    let hash = |key: &str| sha256(key.as_bytes())[..8].to_owned();
    let named = [
        String::from("ab%3Acd"),
        format!("AB%3ACD~{}", hash("AB:CD")),
        format!("Ab%3ACd~{}", hash("Ab:Cd")),
        String::from("x"),
    ];
    assert_eq!(folders(4, &[], "all"), named);
    assert_eq!(folders(2, &[], "some"), named[..2]);
    assert_eq!(folders(4, &["Ab:Cd", "x"], "chosen"), named[2..], "whatever else is exported");
}

#[test]
fn an_export_that_is_stopped_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    for (format, out) in [(Format::Pem, "out"), (Format::Jsonl, "out.jsonl")] {
        let out = directory.path().join(out);
        let plan = ExportPlan { watch: &|_| ControlFlow::Break(()), ..plan(format, &out) };
        let error = super::export(ledger(&["a", "b"], 2).view(), &plan).unwrap_err();
        assert!(matches!(error, ExportError::Stopped), "{error}");
        assert!(names(directory.path()).is_empty());
    }
}

#[test]
fn progress_is_told_of_all_that_was_chosen() {
    let directory = tempfile::tempdir().unwrap();
    let (keys, out) = ((0..1_100).map(|n| n.to_string()).collect::<Vec<_>>(), directory.path().join("out"));
    let keys: Vec<_> = keys.iter().map(String::as_str).collect();
    let seen = std::cell::RefCell::new(Vec::new());
    let watch = |progress: Progress| {
        seen.borrow_mut().push(progress.done);
        assert_eq!(progress.chosen, 1_050);
        ControlFlow::Continue(())
    };
    let plan = ExportPlan { watch: &watch, ..plan(Format::Csv, &out) };
    super::export(ledger(&keys, 1_050).view(), &plan).unwrap();
    assert_eq!(*seen.borrow(), [512, 1_024, 1_050]);
    let mut reader = csv::Reader::from_path(&out).unwrap();
    let found: Vec<_> = reader.records().map(|row| row.unwrap()[0].to_owned()).collect();
    assert_eq!(found, keys[..1_050], "in the order of the lot");
}

#[test]
fn der_is_what_the_pem_holds() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out");
    super::export(ledger(&["a"], 1).view(), &plan(Format::Der, &out)).unwrap();
    for (file, pem) in [("certificate.der", &*certificate(1)), ("private.der", samples::PRIVATE_KEY)] {
        assert_eq!(fs::read(out.join("a").join(file)).unwrap(), **PemBlock::read(pem).unwrap().der);
        assert_eq!(mode(&out.join("a").join(file)), 0o600);
    }
    let manifest = fs::read_to_string(out.join("manifest.csv")).unwrap();
    assert!(manifest.contains(",a/certificate.der,") && manifest.contains(",a/private.der,"), "{manifest}");
}

#[test]
fn entries_of_an_image_are_of_ones_choice() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out");
    let entries = ["cert=certificate", "key=private_key", "serial=column:Key"];
    let entries: Vec<Entry> = entries.iter().map(|entry| entry.parse().unwrap()).collect();
    let partition = Partition::new("secrets", entries.clone()).unwrap();
    super::export(ledger(&["a,b"], 1).view(), &plan(Format::Nvs(partition.clone()), &out)).unwrap();
    let expected = "key,type,encoding,value\nsecrets,namespace,,\ncert,file,string,a%2Cb/certificate.pem\n\
                    key,file,string,a%2Cb/private.key\nserial,data,string,\"a,b\"\n";
    assert_eq!(fs::read_to_string(out.join("a%2Cb/nvs.csv")).unwrap(), expected);
    let out = directory.path().join("mass");
    super::export(ledger(&["a,b"], 1).view(), &plan(Format::MassMfg(partition), &out)).unwrap();
    let values = fs::read_to_string(out.join("values.csv")).unwrap();
    assert_eq!(values, "file_id,cert,key,serial\na%2Cb,a%2Cb/certificate.pem,a%2Cb/private.key,\"a,b\"\n");
    let unknown = Partition::new("secrets", vec!["x=column:key".parse().unwrap()]).unwrap();
    let out = directory.path().join("none");
    let error = super::export(ledger(&["a"], 1).view(), &plan(Format::Nvs(unknown), &out)).unwrap_err();
    assert!(error.to_string().contains("no column \"key\"; it has Key") && !out.exists(), "{error}");
}

#[test]
fn a_certificate_that_is_not_its_keys_is_not_exported() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out");
    let now = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let good = samples::issued(1);
    let other_key = Secret::new(include_str!("../../fixtures/issued/p256-other.key").to_owned());
    let cases = [
        (IssuedCertificate { private_key: other_key, ..good.clone() }, "is not the private key"),
        (
            IssuedCertificate { certificate_id: samples::issued(2).certificate_id, ..good.clone() },
            "has another SHA-256 than its id",
        ),
        (
            IssuedCertificate { certificate_pem: good.certificate_pem.repeat(2), ..good },
            "has a second PEM block",
        ),
    ];
    for (certificate, said) in cases {
        let mut ledger = ledger(&["a"], 0);
        let [_, registered] = provision(1);
        let issued =
            Change::Issued { device: DeviceId(1), certificate: certificate.map_key(StoredKey::from) };
        ledger.commit(vec![issued, registered], now).unwrap();
        for format in [Format::Pem, Format::Jsonl] {
            let error = super::export(ledger.view(), &plan(format, &out)).unwrap_err().to_string();
            assert!(error.contains(said) && error.contains("\"a\""), "{error}");
            assert!(names(directory.path()).is_empty());
        }
    }
}

#[test]
fn a_line_of_json_has_everything() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("lot.jsonl");
    let summary = super::export(ledger(&["a,\"b", "c", "d"], 2).view(), &plan(Format::Jsonl, &out)).unwrap();
    assert_eq!((summary.exported, summary.left_out, summary.purged), (2, 1, 0));
    assert_eq!(summary.devices, [DeviceId(1), DeviceId(2)]);
    let text = fs::read_to_string(&out).unwrap();
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let expected = serde_json::json!({
        "key": "a,\"b",
        "state": "registered",
        "thing_name": "thing-1",
        "certificate_id": certificate_id(1),
        "certificate_pem": certificate(1),
        "private_key": samples::PRIVATE_KEY,
        "device_configuration": {"url": "mqtt://x"},
        "parameters": {"Key": "a,\"b"},
        "registered_at": "2023-11-14T22:13:20.123Z",
    });
    assert_eq!((lines.len(), &lines[0]), (2, &expected));
    assert_eq!(mode(&out), 0o600);
    let manifest = directory.path().join("lot.jsonl.manifest.csv");
    let expected =
        format!("file,sha256,bytes,devices\nlot.jsonl,{},{},2\n", sha256(text.as_bytes()), text.len());
    assert_eq!((fs::read_to_string(&manifest).unwrap(), mode(&manifest)), (expected, 0o600));
    assert_eq!(names(directory.path()), ["lot.jsonl", "lot.jsonl.manifest.csv"].map(String::from).into());
}

#[test]
fn a_table_reads_back_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("lot.csv");
    super::export(ledger(&["a,\"b", "c"], 2).view(), &plan(Format::Csv, &out)).unwrap();
    let mut reader = csv::Reader::from_path(&out).unwrap();
    let columns: Vec<_> = reader.headers().unwrap().iter().map(String::from).collect();
    assert_eq!(columns.first().zip(columns.last()), Some((&"key".into(), &"parameters.Key".into())));
    let rows: Vec<_> = reader.records().map(Result::unwrap).collect();
    assert_eq!(rows.len(), 2);
    let (id, pem) = (certificate_id(1), certificate(1));
    let expected = [
        "a,\"b",
        "registered",
        "thing-1",
        &id,
        &pem,
        samples::PRIVATE_KEY,
        r#"{"url":"mqtt://x"}"#,
        "2023-11-14T22:13:20.123Z",
        "a,\"b",
    ];
    assert_eq!(rows[0].iter().collect::<Vec<_>>(), expected);
    assert_eq!(mode(&out), 0o600);
}

#[test]
fn an_nvs_table_points_at_its_files() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out");
    super::export(ledger(&["a,b"], 1).view(), &plan(nvs(), &out)).unwrap();
    let expected = format!(
        "key,type,encoding,value\nfleetmint,namespace,,\ndevice_key,data,string,\"a,b\"\n\
         thing_name,data,string,thing-1\ncertificate_id,data,string,{}\n\
         device_config,data,string,\"{{\"\"url\"\":\"\"mqtt://x\"\"}}\"\n\
         certificate,file,string,a%2Cb/certificate.pem\nprivate_key,file,string,a%2Cb/private.key\n",
        certificate_id(1)
    );
    assert_eq!(fs::read_to_string(out.join("a%2Cb/nvs.csv")).unwrap(), expected);
    assert_manifest_is_true(&out, 4);
}

#[test]
fn mass_manufacturing_gets_its_pair_of_tables() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out");
    super::export(ledger(&["values.csv", "b"], 2).view(), &plan(mass_mfg(), &out)).unwrap();
    let config = "fleetmint,namespace,\ndevice_key,data,string\nthing_name,data,string\n\
                  certificate_id,data,string\ndevice_config,data,string\ncertificate,file,string\n\
                  private_key,file,string\n";
    assert_eq!(fs::read_to_string(out.join("config.csv")).unwrap(), config);
    let values = fs::read_to_string(out.join("values.csv")).unwrap();
    let lines: Vec<_> = values.lines().collect();
    assert_eq!(
        lines[0],
        "file_id,device_key,thing_name,certificate_id,device_config,certificate,private_key"
    );
    assert!(lines[1].starts_with("values.csv~") && lines[1].contains(",values.csv,thing-1,"), "{}", lines[1]);
    assert!(lines[2].starts_with("b,b,thing-2,") && lines[2].ends_with(",b/certificate.pem,b/private.key"));
    assert_eq!(lines.len(), 3);
    assert_manifest_is_true(&out, 8);
}

/// The manifest names all `files` of an export but itself, with their digests.
fn assert_manifest_is_true(out: &Path, files: usize) {
    let mut reader = csv::Reader::from_path(out.join("manifest.csv")).unwrap();
    let listed: Vec<_> = reader.records().map(Result::unwrap).collect();
    assert_eq!(listed.len(), files);
    for record in &listed {
        let content = fs::read(out.join(&record[0])).unwrap();
        assert_eq!((&record[1], &record[2]), (&*sha256(&content), &*content.len().to_string()));
        assert_eq!(mode(&out.join(&record[0])), 0o600);
    }
}

#[test]
fn what_an_image_has_no_room_for_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out");
    let refused = |key: &str, format: Format| {
        let error = super::export(ledger(&[key], 1).view(), &plan(format, &out)).unwrap_err();
        assert!(names(directory.path()).is_empty());
        error.to_string()
    };
    let longest = "x".repeat(LONGEST_NVS_TEXT);
    assert!(refused(&format!("{longest}x"), nvs()).contains("at most 3967 bytes, and it has 3968"));
    for namespace in ["", "sixteen_bytes_ab", "a b", "a,b", "namespace", "ключ"] {
        let error = Partition::new(namespace, Vec::new()).unwrap_err().to_string();
        assert!(error.contains("1 to 15 bytes"), "{error}");
    }
    super::export(ledger(&[&longest], 1).view(), &plan(nvs(), &out)).unwrap();
}

#[test]
fn a_file_that_is_there_is_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = ledger(&["a"], 1);
    for taken in ["lot.jsonl", "lot.jsonl.manifest.csv"] {
        let taken = directory.path().join(taken);
        fs::write(&taken, "precious").unwrap();
        let out = directory.path().join("lot.jsonl");
        let error = super::export(ledger.view(), &plan(Format::Jsonl, &out)).unwrap_err();
        assert!(matches!(&error, ExportError::Occupied { out } if *out == taken), "{error}");
        assert_eq!(fs::read(&taken).unwrap(), b"precious");
        fs::remove_file(&taken).unwrap();
        assert!(names(directory.path()).is_empty());
    }
}

#[test]
fn a_file_that_appears_at_the_last_moment_is_not_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("lot.csv");
    let file = UnfinishedFile::begin(&out).unwrap();
    fs::write(file.content(), "keys").unwrap();
    fs::write(file.manifest(), "manifest").unwrap();
    fs::write(&out, "precious").unwrap();
    assert!(matches!(file.install(), Err(ExportError::Occupied { .. })));
    assert_eq!(fs::read(&out).unwrap(), b"precious");
    assert_eq!(names(directory.path()), [String::from("lot.csv")].into());
}

#[test]
fn states_runs_and_keys_choose() {
    let mut ledger = ledger(&["a", "b", "c", "d"], 1);
    let now = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    ledger.begin_run(&serde_json::json!({}), now).unwrap();
    let [issued, registered] = provision(2);
    let [other_issued, _] = provision(3);
    ledger.commit(vec![issued, registered, other_issued], now).unwrap();
    let failure =
        Failure::new(Stage::Call(Call::CreateKeysAndCertificate), Cause::NoReply { after: Duration::ZERO });
    ledger.commit(vec![Change::Rejected { device: DeviceId(4), failure }], now).unwrap();
    let keys = |selection: Selection| -> Vec<String> {
        let mut keys = Vec::new();
        let show = |device: CertifiedDevice| {
            keys.push(device.key);
            Ok::<_, ExportError>(())
        };
        ledger.view().for_each_certified(&selection, show).unwrap();
        assert_eq!(ledger.view().count_certified(&selection).unwrap(), keys.len() as u64);
        keys
    };
    let of = |states: &[DeviceState]| Selection { states: states.to_vec(), ..Selection::default() };
    assert_eq!(keys(Selection::default()), ["a", "b"]);
    assert_eq!(keys(of(&[DeviceState::Issued])), ["c"]);
    assert_eq!(keys(of(&[DeviceState::Rejected, DeviceState::Issued])), ["c"], "d has no certificate");
    assert_eq!(keys(Selection { since_run: Some(RunId(1)), ..Selection::default() }), ["b"]);
    let named = |keys: &[&str]| Selection {
        keys: keys.iter().map(|key| key.to_string()).collect(),
        ..Selection::default()
    };
    assert_eq!(keys(named(&["b", "b"])), ["b"]);
    let refused = |selection| ledger.view().count_certified(&selection).unwrap_err().to_string();
    let since = Selection { since_run: Some(RunId(2)), ..Selection::default() };
    let said = [named(&["a", "x", "y"]), named(&["c"]), since].map(refused);
    assert_eq!(
        said,
        [
            "ledger :memory:: has no device with key \"x\", \"y\"",
            "ledger :memory:: the device with key \"c\" is issued, not registered",
            "ledger :memory:: has 1 runs so far, none with number 2"
        ]
    );
    let none = Selection { since_run: Some(RunId(1)), ..of(&[DeviceState::Unknown]) };
    let directory = tempfile::tempdir().unwrap();
    let plan = ExportPlan { selection: none, ..plan(Format::Pem, directory.path()) };
    let error = super::export(ledger.view(), &plan).unwrap_err().to_string();
    assert!(error.contains("is unknown since run 1"), "{error}");
}
