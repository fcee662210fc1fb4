//! A disk with no room left: the run stops before anything happens that it could not write down.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::account::Service;
use super::evidence::{every_certificate_is_explained, every_device_once};
use super::{beside, devices};
use crate::harness::{Said, Scratch, run};

const DEVICES: usize = 400;
const CONNECTIONS: usize = 10;
const SCENARIO: &str = "keys = \"p256\"\ntoken_reuse = \"accept\"\n";

#[test]
fn a_limit_of_file_sizes_stops_a_run_and_the_next_one_completes_it() {
    let scratch = Scratch::new();
    let (lot, ledger) = (scratch.lot("lot.csv", DEVICES), scratch.path("lot.ledger"));
    let service = Service::start(&scratch, SCENARIO);
    // Counted in KiB or half that: enough for the import, and less than a run's write-ahead log. A process that does not
    // ignore the signal dies of it, as it would of any other.
    let mut limited = Command::new("sh");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 1000; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_fleetmint")]);
    let said = run(&mut service.aim(limited, &lot));
    stopped_half_way(said.expect_err(&["ulimit"]), &service, &ledger);
    run(&mut service.provision(&lot)).expect_code(0);
    every_device_once(&ledger, &service.account(), DEVICES);
    service.stop();
}

#[test]
fn a_process_that_dies_of_its_limit_leaves_a_resumable_ledger() {
    let scratch = Scratch::new();
    let (lot, ledger) = (scratch.lot("lot.csv", DEVICES), scratch.path("lot.ledger"));
    let service = Service::start(&scratch, SCENARIO);
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -c 0; ulimit -f 1000; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_fleetmint")]);
    let said = run(&mut service.aim(limited, &lot));
    assert_ne!(said.code, Some(0), "the limit was not met: {}", said.out);
    assert_ne!(devices(&ledger, "registered"), DEVICES);
    run(&mut service.provision(&lot)).expect_code(0);
    every_device_once(&ledger, &service.account(), DEVICES);
    service.stop();
}

#[test]
fn a_full_file_system_stops_a_run_and_the_next_one_completes_it() {
    let scratch = Scratch::new();
    let Some(disk) = SmallDisk::mount(&scratch, "2m") else { return };
    let (lot, ledger) = (scratch.lot("lot.csv", DEVICES), disk.path("lot.ledger"));
    let service = Service::start(&scratch, SCENARIO);
    let provision = || {
        let mut command = service.provision(&lot);
        command.arg("--ledger").arg(&ledger).arg("--summary-json").arg(disk.path("summary.json"));
        command
    };
    for _ in 0..2 {
        let said = run(&mut provision());
        stopped_half_way(said.expect_err(&["no space left"]), &service, &ledger);
    }
    disk.grow("64m");
    run(&mut provision()).expect_code(0);
    every_device_once(&ledger, &service.account(), DEVICES);
    service.stop();
}

#[test]
fn an_import_without_room_leaves_nothing() {
    let scratch = Scratch::new();
    let Some(disk) = SmallDisk::mount(&scratch, "512k") else { return };
    let (lot, ledger) = (scratch.lot("lot.csv", 4000), disk.path("lot.ledger"));
    let service = Service::start(&scratch, SCENARIO);
    let import = || run(service.provision(&lot).arg("--ledger").arg(&ledger));
    import().expect_code(74).expect_err(&["no space left", "lot.ledger"]);
    assert_eq!(disk.files(), [""; 0]);
    disk.fill();
    import().expect_code(74).expect_err(&["no space left", "lot.ledger"]);
    assert_eq!(disk.files(), ["filler"]);
    assert!(service.account().certificates.is_empty());
    service.stop();
}

/// A run stopped for want of room: it says so and what to do, and sent nothing after the commit that failed, so that the
/// account is ahead of the ledger by no more than what was on its way.
#[track_caller]
fn stopped_half_way(said: Said, service: &Service, ledger: &Path) {
    let said = said.expect_code(74).expect_err(&["lot.ledger", "run the same command again"]);
    assert!(!said.err.contains("panicked"), "{}", said.err);
    let registered = devices(ledger, "registered");
    assert!(registered < DEVICES, "the disk was large enough");
    let account = service.account();
    let ahead = account.things.len() - registered;
    assert!(ahead <= 2 * CONNECTIONS, "{ahead} registrations that the ledger does not know");
    every_certificate_is_explained(ledger, &account);
    assert!(!beside(ledger, ".lock").exists(), "the lock is let go");
}

/// A file system of its own, unmounted when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// None, said aloud, where mounting is not permitted.
    fn mount(scratch: &Scratch, size: &str) -> Option<Self> {
        let path = scratch.path("disk");
        std::fs::create_dir(&path).unwrap();
        let options = format!("size={size}");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&path).output();
        match mount {
            Ok(output) if output.status.success() => Some(Self(path)),
            refused => {
                eprintln!("skipped, for no small file system can be mounted here: {refused:?}");
                None
            }
        }
    }

    fn grow(&self, size: &str) {
        let options = format!("remount,size={size}");
        assert!(Command::new("mount").args(["-o", &options]).arg(&self.0).status().unwrap().success());
    }

    /// Takes all the room that is left.
    fn fill(&self) {
        let _ = std::fs::write(self.path("filler"), vec![0; 1 << 20]);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.0).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}
