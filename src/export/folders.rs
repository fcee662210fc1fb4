//! The formats with a folder a device: PEM, and for Espressif's tools PEM with what points at it.

use std::io;
use std::path::{Path, PathBuf};

use super::error::failed;
use super::files::{Written, create_directory, sync_directory, write_durably};
use super::manifest::Table;
use super::names::{directory_name, hashed_name};
use super::{ExportError, Exported, nvs};
use crate::sealing::KeyForm;

const CERTIFICATE_FILE: &str = "certificate.pem";
const PRIVATE_KEY_FILE: &str = "private.key";
const SEALED_KEY_FILE: &str = "private.key.age";
const NVS_FILE: &str = "nvs.csv";
const MANIFEST_FILE: &str = "manifest.csv";
const CONFIG_FILE: &str = "config.csv";
const VALUES_FILE: &str = "values.csv";

/// The manifest of a PEM export has a row a device.
const DEVICE_COLUMNS: [&str; 8] = [
    "key",
    "thing_name",
    "certificate_id",
    "certificate_file",
    "certificate_sha256",
    "private_key_file",
    "private_key_sha256",
    "registered_at",
];

/// That of any other has a row a file; the device's columns are empty for a file that is of all devices.
const FILE_COLUMNS: [&str; 7] =
    ["file", "sha256", "bytes", "key", "thing_name", "certificate_id", "registered_at"];

/// What a format has besides the PEM files.
pub(super) enum Extra {
    /// Nothing.
    None,
    /// The CSV of the NVS partition generator in each folder.
    Nvs { namespace: String },
    /// The pair of the manufacturing utility.
    MassMfg { namespace: String },
}

impl Extra {
    pub(super) fn nvs(namespace: &str) -> Result<Self, ExportError> {
        nvs::check_namespace(namespace)?;
        Ok(Self::Nvs { namespace: namespace.to_owned() })
    }

    pub(super) fn mass_mfg(namespace: &str) -> Result<Self, ExportError> {
        nvs::check_namespace(namespace)?;
        Ok(Self::MassMfg { namespace: namespace.to_owned() })
    }
}

/// An export of folders in the making.
pub(super) struct Folders {
    root: PathBuf,
    manifest: Table,
    extra: Writing,
}

enum Writing {
    None,
    Nvs { namespace: String },
    MassMfg { values: Box<Table> },
}

/// A device's two PEM files.
struct PemFiles {
    directory: String,
    certificate: Written,
    private_key: Written,
    /// The name of the key's file, which says whether it is sealed.
    key_file: &'static str,
}

impl PemFiles {
    fn path(&self, file: &str) -> String {
        format!("{}/{file}", self.directory)
    }
}

impl Folders {
    /// Begins an export in the empty directory `root`. Its own files come first, so that no device's folder can take
    /// their names.
    pub(super) fn begin(root: &Path, extra: Extra) -> Result<Self, ExportError> {
        let manifest = root.join(MANIFEST_FILE);
        let columns: &[&str] = if matches!(extra, Extra::None) { &DEVICE_COLUMNS } else { &FILE_COLUMNS };
        let mut manifest = Table::create(&manifest, columns)?;
        let extra = match extra {
            Extra::None => Writing::None,
            Extra::Nvs { namespace } => Writing::Nvs { namespace },
            Extra::MassMfg { namespace } => {
                let config = write_config(&root.join(CONFIG_FILE), &namespace)?;
                add_file(&mut manifest, CONFIG_FILE, &config, None)?;
                let columns: Vec<_> =
                    [nvs::FILE_ID].into_iter().chain(nvs::ENTRIES.map(|(name, _)| name)).collect();
                let values = Table::create(&root.join(VALUES_FILE), &columns)?;
                Writing::MassMfg { values: Box::new(values) }
            }
        };
        Ok(Self { root: root.to_path_buf(), manifest, extra })
    }

    pub(super) fn write(&mut self, exported: &Exported<'_>) -> Result<(), ExportError> {
        if !matches!(self.extra, Writing::None) {
            if exported.private_key.form != KeyForm::Pem {
                return Err(ExportError::Sealed);
            }
            nvs::check_file(&exported.device.key, "the certificate", &exported.device.certificate_pem)?;
            nvs::check_file(&exported.device.key, "the private key", exported.private_key.text.expose())?;
        }
        let pem = self.write_pem(exported)?;
        let values =
            || nvs::values(exported.device, &pem.path(CERTIFICATE_FILE), &pem.path(PRIVATE_KEY_FILE));
        let nvs_file = match &mut self.extra {
            Writing::None => {
                sync_directory(&self.root.join(&pem.directory))?;
                return self.add_device(exported, &pem);
            }
            Writing::Nvs { namespace } => {
                let path = self.root.join(pem.path(NVS_FILE));
                Some(write_nvs(&path, namespace, &values()?)?)
            }
            Writing::MassMfg { values: table } => {
                let values = values()?;
                let row: Vec<_> = [&pem.directory].into_iter().chain(&values).collect();
                table.add(&row)?;
                None
            }
        };
        sync_directory(&self.root.join(&pem.directory))?;
        self.add_files(exported, &pem, nvs_file)
    }

    /// Makes everything durable but the name of the root.
    pub(super) fn finish(mut self) -> Result<(), ExportError> {
        if let Writing::MassMfg { values } = self.extra {
            let written = values.finish()?;
            add_file(&mut self.manifest, VALUES_FILE, &written, None)?;
        }
        self.manifest.finish().map(drop)
    }

    fn write_pem(&self, exported: &Exported<'_>) -> Result<PemFiles, ExportError> {
        let directory = create_device_directory(&self.root, &exported.device.key)?;
        let path = self.root.join(&directory);
        let certificate =
            write_durably(&path.join(CERTIFICATE_FILE), exported.device.certificate_pem.as_bytes())?;
        let key_file = match exported.private_key.form {
            KeyForm::Pem => PRIVATE_KEY_FILE,
            KeyForm::Age => SEALED_KEY_FILE,
        };
        let private_key = write_durably(&path.join(key_file), exported.private_key.text.expose().as_bytes())?;
        Ok(PemFiles { directory, certificate, private_key, key_file })
    }

    fn add_device(&mut self, exported: &Exported<'_>, pem: &PemFiles) -> Result<(), ExportError> {
        self.manifest.add(&[
            &exported.device.key,
            thing_name(exported),
            exported.device.certificate_id.as_str(),
            &pem.path(CERTIFICATE_FILE),
            &pem.certificate.sha256,
            &pem.path(pem.key_file),
            &pem.private_key.sha256,
            registered_at(exported),
        ])
    }

    fn add_files(
        &mut self,
        exported: &Exported<'_>,
        pem: &PemFiles,
        nvs_file: Option<Written>,
    ) -> Result<(), ExportError> {
        let manifest = &mut self.manifest;
        add_file(manifest, &pem.path(CERTIFICATE_FILE), &pem.certificate, Some(exported))?;
        add_file(manifest, &pem.path(pem.key_file), &pem.private_key, Some(exported))?;
        match nvs_file {
            Some(written) => add_file(manifest, &pem.path(NVS_FILE), &written, Some(exported)),
            None => Ok(()),
        }
    }
}

fn add_file(
    manifest: &mut Table,
    file: &str,
    written: &Written,
    exported: Option<&Exported<'_>>,
) -> Result<(), ExportError> {
    let [key, thing, certificate, registered] = exported.map_or([""; 4], |exported| {
        let device = exported.device;
        [&*device.key, thing_name(exported), device.certificate_id.as_str(), registered_at(exported)]
    });
    let bytes = written.length.to_string();
    manifest.add(&[file, &written.sha256, &bytes, key, thing, certificate, registered])
}

fn thing_name<'a>(exported: &Exported<'a>) -> &'a str {
    exported.device.thing.as_ref().map_or("", |thing| &thing.thing_name)
}

fn registered_at<'a>(exported: &Exported<'a>) -> &'a str {
    exported.device.registered_at.as_deref().unwrap_or_default()
}

/// The generator's CSV: a header, the namespace, and an entry a row.
fn write_nvs(path: &Path, namespace: &str, values: &[String; 6]) -> Result<Written, ExportError> {
    let mut table = Table::create(path, &nvs::COLUMNS)?;
    table.add(&[namespace, "namespace", "", ""])?;
    for ((name, kind), value) in nvs::ENTRIES.into_iter().zip(values) {
        table.add(&[name, kind, "string", value])?;
    }
    table.finish()
}

/// The manufacturing utility's configuration: the namespace and the entries, without a header.
fn write_config(path: &Path, namespace: &str) -> Result<Written, ExportError> {
    let mut table = Table::create_bare(path)?;
    table.add(&[namespace, "namespace", ""])?;
    for (name, kind) in nvs::ENTRIES {
        table.add(&[name, kind, "string"])?;
    }
    table.finish()
}

/// Makes the device's directory, and returns its name.
pub(super) fn create_device_directory(folder: &Path, key: &str) -> Result<String, ExportError> {
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
