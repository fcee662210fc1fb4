//! From a ledger to folders for the factory floor: one per registered device, and a manifest.
//!
//! Owns the layout, the names of the folders, and that an export is there whole or not at all. Reads the ledger through a
//! view and changes nothing in it.
//!
//! ```text
//! <out>/manifest.csv                 what is here, with the SHA-256 of every file
//! <out>/<key>/certificate.pem
//! <out>/<key>/private.key            or private.key.age, a sealed key passed on as it is
//! ```
//!
//! Files are mode 0600 and folders 0700, and all of it is on the disk before `<out>` has its name.

use std::fmt::Write as _;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};

use crate::event::DeviceId;
use crate::ledger::{LedgerError, RegisteredDevice, View};
use crate::sealing::{KeyForm, KeyOpener, OpenError, OpenedKey};

/// What an export did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportSummary {
    /// Devices written: all that are registered and whose keys were not purged.
    pub exported: u64,
    /// Devices left out: all others.
    pub left_out: u64,
    /// Of those, the registered ones whose keys were purged.
    pub purged: u64,
    /// Which were written, for the ledger to remember.
    pub devices: Vec<DeviceId>,
}

/// Why there is no export. Nothing is left of it.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// No device is registered.
    #[error(
        "nothing to export: none of the {devices} devices of {} is registered yet; provision them first",
        .ledger.display()
    )]
    NothingRegistered {
        /// The ledger.
        ledger: PathBuf,
        /// How many devices it has.
        devices: u64,
    },
    /// There is something under that name.
    #[error("{} is there already, and is left as it is; choose another --out, or an empty directory", .out.display())]
    Occupied {
        /// The directory.
        out: PathBuf,
    },
    /// Another export has begun to write there.
    #[error("another export to {} is running; wait until it has ended, or choose another --out", .out.display())]
    InUse {
        /// The directory.
        out: PathBuf,
    },
    /// The operating system failed us.
    #[error("{doing} {}: {source}", .path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// What was said.
        source: io::Error,
    },
    /// A private key cannot be opened.
    #[error("device {key:?}: {error}")]
    Key {
        /// The device's key.
        key: String,
        /// Why.
        error: OpenError,
    },
    /// All registered devices' keys were purged.
    #[error(
        "nothing to export: the private keys of all {devices} registered devices were purged from {}, after they had been exported; \
         only those exports have them",
        .ledger.display()
    )]
    AllPurged {
        /// The ledger.
        ledger: PathBuf,
        /// How many.
        devices: u64,
    },
    /// The ledger cannot be read.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

const CERTIFICATE_FILE: &str = "certificate.pem";
const PRIVATE_KEY_FILE: &str = "private.key";
const SEALED_KEY_FILE: &str = "private.key.age";
const MANIFEST_FILE: &str = "manifest.csv";

const MANIFEST_COLUMNS: [&str; 8] = [
    "key",
    "thing_name",
    "certificate_id",
    "certificate_file",
    "certificate_sha256",
    "private_key_file",
    "private_key_sha256",
    "registered_at",
];

/// Writes every registered device of the ledger, its key as `opener` gives it, into the new directory `out`, which may also
/// be there and empty. One device at a time is in memory. Those whose keys were purged are left out.
///
/// # Errors
/// If no device is registered, `out` is taken, a key cannot be opened, or the ledger cannot be read or the directory not be
/// written. Then `out` is as it was.
pub fn export(view: &View, out: &Path, opener: &KeyOpener) -> Result<ExportSummary, ExportError> {
    let total = view.lot().devices;
    let registered = view.counts()?.registered;
    if registered == 0 {
        return Err(ExportError::NothingRegistered { ledger: view.path().to_path_buf(), devices: total });
    }
    view.check_integrity()?;
    let folder = Unfinished::begin(out)?;
    let devices = write_devices(view, &folder.path, opener)?;
    if devices.is_empty() {
        return Err(ExportError::AllPurged { ledger: view.path().to_path_buf(), devices: registered });
    }
    folder.install()?;
    let exported = devices.len() as u64;
    let (left_out, purged) = (total.saturating_sub(exported), registered.saturating_sub(exported));
    Ok(ExportSummary { exported, left_out, purged, devices })
}

/// An export that does not have its name yet; dropped, it is removed.
struct Unfinished {
    /// Where it is written.
    path: PathBuf,
    /// Where it goes.
    out: PathBuf,
    parent: PathBuf,
    /// Tells other exports that this one is alive: a lock ends with its process.
    _lock: File,
}

impl Unfinished {
    /// Begins one beside `out`, over what an export that was killed left there.
    fn begin(out: &Path) -> Result<Self, ExportError> {
        refuse_occupied(out)?;
        let resolved = resolve(out).map_err(failed("opening", out))?;
        let (Some(parent), Some(name)) = (resolved.parent(), resolved.file_name()) else {
            return Err(ExportError::Occupied { out: out.to_path_buf() });
        };
        let mut unfinished_name = std::ffi::OsString::from(".");
        unfinished_name.push(name);
        unfinished_name.push(".exporting");
        let path = parent.join(unfinished_name);
        if path.exists() {
            let _abandoned = lock(&path, out)?;
            fs::remove_dir_all(&path).map_err(failed("removing what an earlier export left in", &path))?;
        }
        create_directory(&path).map_err(failed("creating", &path))?;
        let lock = lock(&path, out)?;
        Ok(Self { parent: parent.to_path_buf(), out: resolved, path, _lock: lock })
    }

    /// Makes it durable and gives it its name. A rename replaces no directory but an empty one.
    fn install(self) -> Result<(), ExportError> {
        sync_directory(&self.path)?;
        fs::rename(&self.path, &self.out).map_err(failed("giving the export its name,", &self.out))?;
        sync_directory(&self.parent)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Gone already if it was installed. Keys must not stay behind in a directory that nobody looks for.
        let _ = fs::remove_dir_all(&self.path);
    }
}

fn refuse_occupied(out: &Path) -> Result<(), ExportError> {
    let is_free = match fs::read_dir(out) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == io::ErrorKind::NotFound && fs::symlink_metadata(out).is_err(),
    };
    if is_free { Ok(()) } else { Err(ExportError::Occupied { out: out.to_path_buf() }) }
}

fn resolve(out: &Path) -> io::Result<PathBuf> {
    match (out.canonicalize(), out.file_name()) {
        (Err(error), Some(name)) if error.kind() == io::ErrorKind::NotFound => {
            let parent = out.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
            Ok(parent.canonicalize()?.join(name))
        }
        (outcome, _) => outcome,
    }
}

fn lock(path: &Path, out: &Path) -> Result<File, ExportError> {
    let directory = File::open(path).map_err(failed("opening", path))?;
    match directory.try_lock() {
        Ok(()) => Ok(directory),
        Err(TryLockError::WouldBlock) => Err(ExportError::InUse { out: out.to_path_buf() }),
        Err(TryLockError::Error(error)) => Err(failed("locking", path)(error)),
    }
}

/// Writes all devices and the manifest, and returns which they are.
fn write_devices(view: &View, folder: &Path, opener: &KeyOpener) -> Result<Vec<DeviceId>, ExportError> {
    let path = folder.join(MANIFEST_FILE);
    // First, so that no device's folder can take its name.
    let file = create_file(&path).map_err(failed("creating", &path))?;
    let mut manifest = csv::Writer::from_writer(BufWriter::new(file));
    let failed_manifest = |error: csv::Error| failed("writing", &path)(error.into());
    manifest.write_record(MANIFEST_COLUMNS).map_err(failed_manifest)?;
    let mut exported = Vec::new();
    view.for_each_registered(|device| {
        let private_key = match opener.open(&device.private_key) {
            Err(OpenError::Purged { .. }) => return Ok(()),
            opened => opened.map_err(|error| ExportError::Key { key: device.key.clone(), error })?,
        };
        let entry = write_device(folder, &device, &private_key)?;
        manifest.write_record(entry).map_err(failed_manifest)?;
        exported.push(device.id);
        Ok::<(), ExportError>(())
    })?;
    let file = manifest.into_inner().map_err(|error| failed("writing", &path)(error.into_error()))?;
    file.into_inner()
        .map_err(io::IntoInnerError::into_error)
        .and_then(|file| file.sync_all())
        .map_err(failed("writing", &path))?;
    Ok(exported)
}

/// Writes one device, and returns its line of the manifest.
fn write_device(
    folder: &Path,
    device: &RegisteredDevice,
    private_key: &OpenedKey,
) -> Result<[String; 8], ExportError> {
    let key_file = match private_key.form {
        KeyForm::Pem => PRIVATE_KEY_FILE,
        KeyForm::Age => SEALED_KEY_FILE,
    };
    let name = create_device_directory(folder, &device.key)?;
    let directory = folder.join(&name);
    let write = |file: &str, content: &str| {
        let path = directory.join(file);
        write_durably(&path, content.as_bytes()).map_err(failed("writing", &path))?;
        Ok::<_, ExportError>((format!("{name}/{file}"), sha256(content.as_bytes())))
    };
    let (certificate_file, certificate_sha256) = write(CERTIFICATE_FILE, &device.certificate_pem)?;
    let (private_key_file, private_key_sha256) = write(key_file, private_key.text.expose())?;
    sync_directory(&directory)?;
    Ok([
        device.key.clone(),
        device.thing.thing_name.clone(),
        device.certificate_id.to_string(),
        certificate_file,
        certificate_sha256,
        private_key_file,
        private_key_sha256,
        device.registered_at.clone(),
    ])
}

/// Makes the device's directory, and returns its name.
fn create_device_directory(folder: &Path, key: &str) -> Result<String, ExportError> {
    let name = directory_name(key);
    match create_directory(&folder.join(&name)) {
        Ok(()) => Ok(name),
        // Another key has that name where the file system takes upper and lower case for the same, or it is the manifest.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let name = hashed_name(&name, key);
            let path = folder.join(&name);
            create_directory(&path).map_err(failed("creating", &path))?;
            Ok(name)
        }
        Err(error) => Err(failed("creating", &folder.join(name))(error)),
    }
}

/// Names longer than this are shortened; file systems allow 255 bytes.
const LONGEST_NAME: usize = 200;

/// The part of a long name that is kept before its hash.
const KEPT_OF_LONG_NAME: usize = 160;

/// A directory's name for `key`: safe everywhere, and different for different keys.
///
/// All but `A-Z a-z 0-9 . _ : -` is percent-encoded, and so is a dot in the beginning. `~` is in no encoded key, so a
/// hashed name is never that of another key.
fn directory_name(key: &str) -> String {
    let mut name = String::with_capacity(key.len());
    for (at, byte) in key.bytes().enumerate() {
        match byte {
            b'.' if at == 0 => name.push_str("%2E"),
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b':' | b'-' => {
                name.push(char::from(byte))
            }
            _ => write!(name, "%{byte:02X}").expect("a String takes all that is written to it"),
        }
    }
    match name.len() {
        1..=LONGEST_NAME => name,
        _ => hashed_name(&name, key),
    }
}

fn hashed_name(name: &str, key: &str) -> String {
    let kept = &name[..name.len().min(KEPT_OF_LONG_NAME)];
    format!("{kept}~{}", &sha256(key.as_bytes())[..32])
}

fn sha256(content: &[u8]) -> String {
    digest(&SHA256, content).as_ref().iter().fold(String::with_capacity(64), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes all that is written to it");
        text
    })
}

fn create_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)
}

fn create_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

fn write_durably(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = create_file(path)?;
    file.write_all(content)?;
    file.sync_all()
}

fn sync_directory(path: &Path) -> Result<(), ExportError> {
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .map_err(failed("flushing to the disk the directory", path))
}

fn failed(doing: &'static str, path: &Path) -> impl Fn(io::Error) -> ExportError {
    let path = path.to_path_buf();
    move |source| ExportError::Io { doing, path: path.clone(), source }
}

#[cfg(test)]
mod tests;
