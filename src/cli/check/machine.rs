//! Checks of this machine: room and a safe place for the ledger, and open files.

use std::path::{Path, PathBuf};

use super::findings::Finding;
use crate::cli::exit::Exit;
use crate::cli::open_files;
use crate::cli::target::Service;
use crate::preflight::needed_room;
use crate::wording::number;

/// Checks that there is room for the ledger of this many more devices, and that its file system is durable.
pub(super) fn ledger(ledger: &Path, devices: u64) -> Vec<Finding> {
    let folder = match ledger.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    };
    vec![room(&folder, devices), durability(&folder, ledger)]
}

fn room(folder: &Path, devices: u64) -> Finding {
    let disk = match rustix::fs::statvfs(folder) {
        Ok(disk) => disk,
        Err(error) => {
            let found = format!("{}: {}", folder.display(), std::io::Error::from(error));
            return Finding::wrong("disk", Exit::LedgerUnusable, found)
                .remedy("--ledger chooses another place");
        }
    };
    let (free, needed) = (disk.f_bavail.saturating_mul(disk.f_frsize), needed_room(devices));
    let mib = |bytes: u64| format!("{} MiB", bytes.div_ceil(1 << 20));
    let found = format!(
        "{} free in {}; the ledger of {} takes {} at most",
        mib(free),
        folder.display(),
        number(devices, "device", "devices"),
        mib(needed)
    );
    if free < needed {
        Finding::wrong("disk", Exit::LedgerUnusable, found)
            .remedy("free some, or --ledger chooses another place")
    } else {
        Finding::ok("disk", found)
    }
}

/// Checks durability: a device whose key is lost in a power cut has no identity.
fn durability(folder: &Path, ledger: &Path) -> Finding {
    if let Err(error) = probe(folder) {
        let found = format!("nothing can be written in {}: {error}", folder.display());
        return Finding::wrong("durability", Exit::LedgerUnusable, found)
            .follows("disk")
            .remedy("--ledger chooses another place");
    }
    let at = ledger.display();
    match unsafe_file_system(folder) {
        Some(FileSystem::Memory) => Finding::warning(
            "durability",
            format!("{at} is in memory: keys are gone when this machine stops"),
        )
        .remedy("--ledger chooses a place on a disk"),
        Some(FileSystem::Network) => Finding::warning(
            "durability",
            format!("{at} is on a network file system, whose locks and writes may not be what SQLite needs"),
        )
        .remedy("--ledger chooses a place on a local disk"),
        None => Finding::ok("durability", format!("{} takes writes and syncs them", folder.display())),
    }
}

/// Writes a file and flushes it to the disk, as every commit does; leaves nothing behind.
fn probe(folder: &Path) -> std::io::Result<()> {
    use std::io::Write as _;
    let path = folder.join(format!(".fleetmint-check-{}", std::process::id()));
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(&path)?;
    let written = file.write_all(&[0; 4096]).and_then(|()| file.sync_data());
    drop(file);
    std::fs::remove_file(&path)?;
    written
}

enum FileSystem {
    Memory,
    Network,
}

/// Source: statfs(2), "file system types".
#[cfg(target_os = "linux")]
fn unsafe_file_system(folder: &Path) -> Option<FileSystem> {
    const MEMORY: [u64; 2] = [0x0102_1994, 0x8584_58f6];
    const NETWORK: [u64; 6] = [0x6969, 0x517b, 0xff53_4d42, 0xfe53_4d42, 0x0102_1997, 0x5346_414f];
    // The kernel's number has 32 bits, whatever the type's sign.
    let kind = u64::try_from(rustix::fs::statfs(folder).ok()?.f_type).ok()? & 0xffff_ffff;
    if MEMORY.contains(&kind) {
        Some(FileSystem::Memory)
    } else {
        NETWORK.contains(&kind).then_some(FileSystem::Network)
    }
}

#[cfg(not(target_os = "linux"))]
fn unsafe_file_system(_: &Path) -> Option<FileSystem> {
    None
}

/// How many connections this process may have.
pub(super) fn open_files(most: usize, service: &Service) -> Finding {
    match open_files::allow_up_to(most.max(1), service) {
        0 => Finding::wrong("open files", Exit::Unavailable, "this process may not open one connection more")
            .remedy("raise the limit: ulimit -n 4096"),
        fits => Finding::ok("open files", format!("room for {fits} connections")),
    }
}
