//! A ledger that is cut, damaged, without its log, or something else altogether: refused as it is, or right.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use rusqlite::Connection;

use super::account::Service;
use super::evidence::every_device_once;
use super::{beside, devices, said, seed, setting, spawn, wait_for};
use crate::harness::{Said, Scratch, column, run, signal};

const SCENARIO: &str = "keys = \"p256\"\ntoken_reuse = \"accept\"\n";
const DEVICES: usize = 60;

/// The files of a ledger.
#[derive(Clone, PartialEq, Eq)]
struct Files(BTreeMap<&'static str, Vec<u8>>);

impl Files {
    fn read(ledger: &Path) -> Self {
        let read = |suffix| {
            let mut content = std::fs::read(beside(ledger, suffix)).ok()?;
            if suffix == ".lock" {
                // The pid of whoever was there last; the number of commits comes after it.
                content[..10].fill(b'0');
            }
            Some((suffix, content))
        };
        Self(["", "-wal", ".lock"].into_iter().filter_map(read).collect())
    }

    /// Puts exactly these in place; what SQLite makes by itself goes.
    fn write(&self, ledger: &Path) {
        let _ = std::fs::remove_file(beside(ledger, "-shm"));
        for suffix in ["", "-wal", ".lock"] {
            let file = beside(ledger, suffix);
            match self.0.get(suffix) {
                Some(content) => std::fs::write(file, content).unwrap(),
                None => drop(std::fs::remove_file(file)),
            }
        }
    }

    fn with(&self, suffix: &'static str, change: impl FnOnce(&mut Vec<u8>)) -> Self {
        let mut files = self.clone();
        change(files.0.get_mut(suffix).unwrap());
        files
    }

    fn without(&self, suffix: &str) -> Self {
        let mut files = self.clone();
        files.0.remove(suffix);
        files
    }
}

/// Whether a run took a damaged ledger up.
enum Taken {
    Yes,
    No,
}

/// A ledger as a kill left it, log and all, and the service it was for.
struct Killed {
    scratch: Scratch,
    service: Service,
    lot: PathBuf,
    ledger: PathBuf,
    files: Files,
}

impl Killed {
    /// Killed at a moment at which all its commits were acknowledged: one that was on its way to the disk may be lost, for
    /// nothing rests on it yet.
    fn new() -> Self {
        for _ in 0..50 {
            let killed = Self::at_any_moment();
            let noted = String::from_utf8(killed.files.0[".lock"].clone()).unwrap();
            let commits = column(&killed.ledger, "SELECT CAST(commits AS TEXT) FROM progress");
            if noted.split_ascii_whitespace().next_back() == Some(&commits[0]) {
                return killed;
            }
        }
        panic!("fifty kills, each in the middle of a commit")
    }

    fn at_any_moment() -> Self {
        let scratch = Scratch::new();
        let (lot, ledger) = (scratch.lot("lot.csv", DEVICES), scratch.path("lot.ledger"));
        let service = Service::start(&scratch, SCENARIO);
        let child = spawn(service.provision(&lot).args(["--create-rate", "40/s", "--register-rate", "25/s"]));
        wait_for(|| devices(&ledger, "registered") > 20);
        signal(&child, "KILL");
        said(child);
        wait_for(|| service.connected() == 0);
        let files = Files::read(&ledger);
        Self { scratch, service, lot, ledger, files }
    }

    /// The same, as a run leaves it that was asked to stop: one file.
    fn at_rest() -> Self {
        let mut killed = Self::new();
        // One that finds nobody to dial writes down that it ran, and closes the ledger.
        let mut command = killed.service.provision(&killed.lot);
        command.env("AWS_SECRET_ACCESS_KEY", "wrong");
        run(&mut command).expect_code(77);
        killed.files = Files::read(&killed.ledger);
        assert_eq!(killed.files.0.keys().copied().collect::<Vec<_>>(), [""]);
        killed
    }

    fn provision(&self) -> Said {
        run(&mut self.service.provision(&self.lot))
    }

    /// Asserts that `files` are refused, in words that name the ledger, without a packet sent or a byte changed.
    #[track_caller]
    fn refuses(&self, what: &str, files: &Files) -> Said {
        files.write(&self.ledger);
        let before = self.service.connections();
        let said = self.provision();
        self.was_refused(what, files, before, &said);
        said
    }

    #[track_caller]
    fn was_refused(&self, what: &str, files: &Files, connections: u64, said: &Said) {
        assert_eq!(said.code, Some(74), "{what}: {}{}", said.out, said.err);
        assert!(
            said.err.starts_with("error: ledger ") && said.err.contains("lot.ledger: "),
            "{what}: {}",
            said.err
        );
        assert_eq!(said.err.lines().count(), 1, "{what}: {}", said.err);
        assert_eq!(self.service.connections(), connections, "{what}: something was sent");
        assert!(Files::read(&self.ledger) == *files, "{what}: a file was changed");
    }

    /// Asserts that `files` are refused, or that nothing in them is other than in the undamaged ledger, whose content is
    /// `whole`.
    #[track_caller]
    fn refuses_or_changes_nothing(&self, what: &str, files: &Files, whole: &[String]) -> Taken {
        files.write(&self.ledger);
        let before = self.service.connections();
        // Nothing is sent by a run that may not connect, and the ledger is open by the time that it tries.
        let said = run(self.service.provision(&self.lot).env("AWS_SECRET_ACCESS_KEY", "wrong"));
        if said.code == Some(77) {
            assert!(content(&self.ledger) == whole, "{what} was taken, and is a change");
            return Taken::Yes;
        }
        self.was_refused(what, files, before, &said);
        Taken::No
    }

    /// The ledger, with `files` in place.
    fn ledger_with(&self, files: &Files) -> PathBuf {
        files.write(&self.ledger);
        self.ledger.clone()
    }

    /// Asserts that the undamaged ledger is still taken up and leads to the right end.
    #[track_caller]
    fn completes(self) {
        self.files.write(&self.ledger);
        self.provision().expect_code(0);
        every_device_once(&self.ledger, &self.service.account(), DEVICES);
        self.service.stop();
        drop(self.scratch);
    }
}

#[test]
fn a_ledger_cut_anywhere_is_refused() {
    let killed = Killed::at_rest();
    let length = killed.files.0[""].len();
    let mut random = SmallRng::seed_from_u64(seed("cuts"));
    let mut lengths = vec![
        0,
        1,
        15,
        16,
        50,
        99,
        100,
        101,
        511,
        512,
        4095,
        4096,
        4097,
        length / 2,
        length - 4096,
        length - 1,
    ];
    lengths.extend((0..setting("FLEETMINT_CRASH_CUTS", 20)).map(|_| random.random_range(0..length)));
    for cut in lengths {
        killed
            .refuses(&format!("cut to {cut} of {length}"), &killed.files.with("", |file| file.truncate(cut)));
    }
    killed.completes();
}

#[test]
fn a_log_that_is_cut_damaged_or_gone_is_refused() {
    let killed = Killed::new();
    let log = killed.files.0["-wal"].len();
    assert!(log > 0 && killed.files.0.contains_key(".lock"));
    let mut random = SmallRng::seed_from_u64(seed("logs"));
    let words = ["commits", "write-ahead log", "put the newest log"];
    killed.refuses("no log", &killed.files.without("-wal")).expect_err(&words);
    let cut_to =
        |cut| (format!("log cut to {cut} of {log}"), killed.files.with("-wal", |file| file.truncate(cut)));
    for cut in [0, 31, 32, 33, log / 2] {
        let (what, files) = cut_to(cut);
        killed.refuses(&what, &files).expect_err(&words);
    }
    // The end of a log may be a commit that was still being written, and is none.
    let whole = content(&killed.ledger_with(&killed.files));
    for _ in 0..setting("FLEETMINT_CRASH_CUTS", 10) {
        let (what, files) = cut_to(random.random_range(0..log));
        killed.refuses_or_changes_nothing(&what, &files, &whole);
    }
    killed.completes();
}

#[test]
fn something_else_in_the_ledgers_place_is_refused() {
    let killed = Killed::at_rest();
    let other = |content: &[u8]| Files(BTreeMap::from([("", content.to_vec())]));
    let words = ["not a fleetmint ledger"];
    killed.refuses("an empty file", &other(b"")).expect_err(&words);
    killed.refuses("a CSV", &other(b"DeviceId,SerialNumber\na,1\n")).expect_err(&words);
    killed.refuses("noise", &other(&[0x5a; 9000])).expect_err(&words);
    let foreign = killed.scratch.path("foreign.db");
    Connection::open(&foreign)
        .unwrap()
        .execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (1)")
        .unwrap();
    let foreign = std::fs::read(foreign).unwrap();
    killed.refuses("another program's database", &other(&foreign)).expect_err(&["another program"]);
    // A log beside an empty file may be all that is left.
    let mut orphan = other(b"");
    orphan.0.insert("-wal", vec![7; 9000]);
    killed.refuses("an empty file with a log", &orphan).expect_err(&words);
    std::fs::remove_file(&killed.ledger).unwrap();
    let before = killed.service.account().certificates.len();
    killed.provision().expect_code(74).expect_err(&["the file is missing", "may hold private keys"]);
    assert_eq!(killed.service.account().certificates.len(), before);
    killed.completes();
}

#[test]
fn a_foreign_file_keeps_its_mode_and_a_directory_too() {
    let killed = Killed::at_rest();
    for make in [|path: &Path| std::fs::create_dir(path), |path: &Path| std::fs::write(path, "mine")] {
        let path = killed.scratch.path("mine");
        make(&path).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        let before = killed.service.connections();
        run(killed.service.provision(&killed.lot).arg("--ledger").arg(&path))
            .expect_code(74)
            .expect_err(&["mine"]);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o755);
        assert_eq!(killed.service.connections(), before);
        assert!(!beside(&path, ".lock").exists());
        let _ = std::fs::remove_dir(&path).or_else(|_| std::fs::remove_file(&path));
    }
    killed.completes();
}

#[test]
fn what_may_not_be_written_is_refused() {
    let killed = Killed::at_rest();
    let directory = killed.ledger.parent().unwrap().to_path_buf();
    let is_root = std::fs::metadata(&directory).unwrap().uid() == 0;
    // Nothing is forbidden to root, which so runs it as somebody else.
    let (user, group) = (65_534, 65_534);
    let provision = || {
        let mut command = killed.service.provision(&killed.lot);
        if is_root {
            command.uid(user).gid(group);
        }
        run(&mut command)
    };
    if is_root {
        for entry in std::fs::read_dir(&directory).unwrap() {
            chown(entry.unwrap().path(), Some(user), Some(group)).unwrap();
        }
        chown(&directory, Some(user), Some(group)).unwrap();
    }
    for (path, mode, back) in
        [(&killed.ledger, 0o400, 0o600), (&directory, 0o500, 0o700), (&killed.ledger, 0o000, 0o600)]
    {
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        let before = killed.service.connections();
        let said = provision();
        std::fs::set_permissions(path, PermissionsExt::from_mode(back)).unwrap();
        killed.was_refused(&format!("{} with mode {mode:o}", path.display()), &killed.files, before, &said);
    }
    provision().expect_code(0);
    killed.service.stop();
}

#[test]
fn a_flipped_bit_is_refused_or_changes_nothing() {
    let killed = Killed::at_rest();
    let length = killed.files.0[""].len();
    let whole = content(&killed.ledger);
    let mut random = SmallRng::seed_from_u64(seed("flips"));
    let mut flips: Vec<(usize, u8)> = (0..100).map(|at| (at, 1 << random.random_range(0..8))).collect();
    let more = setting("FLEETMINT_CRASH_FLIPS", 100);
    flips.extend((0..more).map(|_| (random.random_range(100..length), 1 << random.random_range(0..8))));
    // Aimed at what no structure of SQLite protects.
    flips.extend(values_of_weight(&killed.files.0[""], &killed.ledger).into_iter().map(|at| (at, 1)));
    let (mut refused, mut harmless) = (0, 0);
    for (at, bit) in flips {
        let what = format!("bit {bit:#04x} of byte {at} of {length}");
        let files = killed.files.with("", |file| file[at] ^= bit);
        match killed.refuses_or_changes_nothing(&what, &files, &whole) {
            Taken::No => refused += 1,
            Taken::Yes => harmless += 1,
        }
    }
    eprintln!("flips: {refused} refused, {harmless} harmless");
    killed.completes();
}

#[test]
fn a_flipped_bit_in_the_log_is_refused_or_changes_nothing() {
    let killed = Killed::new();
    let log = killed.files.0["-wal"].len();
    let whole = content(&killed.ledger);
    let mut random = SmallRng::seed_from_u64(seed("log flips"));
    for _ in 0..setting("FLEETMINT_CRASH_FLIPS", 100) / 2 {
        let (at, bit) = (random.random_range(0..log), 1 << random.random_range(0..8));
        let what = format!("bit {bit:#04x} of byte {at} of a log of {log}");
        let files = killed.files.with("-wal", |file| file[at] ^= bit);
        killed.refuses_or_changes_nothing(&what, &files, &whole);
    }
    killed.completes();
}

/// Everything in a ledger that a device's fate depends on.
fn content(ledger: &Path) -> Vec<String> {
    // Not the view `certificate`: working out its texts takes milliseconds each.
    let certificates =
        "SELECT json_array(hex(certificate_id), credential.device, hex(certificate), hex(private_key), private_key_label,
                           ownership_token, issued_at, retired_at)
         FROM credential LEFT JOIN token ON token.device = credential.device ORDER BY credential.id";
    let devices =
        "SELECT json_array(id, key, parameter_values, state, registration, thing_name, device_configuration)
                   FROM device ORDER BY id";
    let lot = "SELECT json_array(digest, columns, key_column, devices, template, region, account) FROM lot";
    [certificates, devices, lot].iter().flat_map(|sql| column(ledger, sql)).collect()
}

/// A byte in each of some keys, certificates, tokens and thing names, as they stand in the file.
fn values_of_weight(file: &[u8], ledger: &Path) -> Vec<usize> {
    let values = "SELECT hex(substr(private_key, 60, 20)) FROM credential UNION ALL
                  SELECT hex(substr(certificate, 80, 20)) FROM credential UNION ALL
                  SELECT hex(substr(ownership_token, 30, 20)) FROM token UNION ALL
                  SELECT hex(thing_name || '{}') FROM device WHERE thing_name IS NOT NULL UNION ALL
                  SELECT hex(updated_at) FROM device WHERE state = 'registered' UNION ALL
                  SELECT hex(issued_at) FROM credential";
    let bytes_of = |digits: &str| -> Vec<u8> {
        let pairs = digits.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
        pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
    };
    let values: Vec<Vec<u8>> = column(ledger, values).iter().map(|digits| bytes_of(digits)).collect();
    let found = values.iter().step_by(7).filter_map(|value| {
        file.windows(value.len()).position(|window| window == value).map(|at| at + value.len() / 2)
    });
    found.collect()
}
