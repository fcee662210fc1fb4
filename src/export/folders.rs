//! The formats with a folder per device: PEM, DER, PKCS #12, and PEM with the tables for Espressif's tools.

use std::io;
use std::path::{Path, PathBuf};

use super::error::failed;
use super::files::{Written, create_directory, write_file};
use super::manifest::Table;
use super::names::{CONFIG_FILE, MANIFEST_FILE, VALUES_FILE, folder_name, full_name};
use super::nvs::{self, Partition};
use super::{ExportError, Exported, Format, pkcs12};
use crate::certificate::PemBlock;
use crate::ledger::CertifiedDevice;
use crate::sealing::KeyForm;

const CERTIFICATE_FILE: &str = "certificate.pem";
const PRIVATE_KEY_FILE: &str = "private.key";
const CERTIFICATE_DER: &str = "certificate.der";
const PRIVATE_KEY_DER: &str = "private.der";
const SEALED_KEY_FILE: &str = "private.key.age";
const KEYSTORE_FILE: &str = "device.p12";
const CONFIGURATION_FILE: &str = "configuration.json";
const NVS_FILE: &str = "nvs.csv";

/// The manifest of a PEM or DER export, with a row per device.
const DEVICE_COLUMNS: [&str; 10] = [
    "key",
    "thing_name",
    "certificate_id",
    "certificate_file",
    "certificate_sha256",
    "private_key_file",
    "private_key_sha256",
    "registered_at",
    "configuration_file",
    "configuration_sha256",
];

/// The manifest of any other format, with a row per file; the device's columns are empty for a file shared by all
/// devices.
const FILE_COLUMNS: [&str; 7] =
    ["file", "sha256", "bytes", "key", "thing_name", "certificate_id", "registered_at"];

/// An export of folders under construction.
pub(super) struct Folders {
    manifest: Table,
    rows: Rows,
    /// The manufacturing utility's values, if requested.
    values: Option<Table>,
}

/// What a row of the manifest stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rows {
    Devices,
    Files,
}

/// A device's folder after it was written.
pub(super) struct Folder {
    name: String,
    files: Vec<NamedFile>,
    key: String,
    thing_name: String,
    certificate_id: String,
    registered_at: String,
    /// Its row in the manufacturing utility's table.
    values: Option<Vec<String>>,
}

struct NamedFile {
    name: &'static str,
    role: Role,
    written: Written,
}

/// What a file holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Certificate,
    PrivateKey,
    Configuration,
    /// A file for a tool.
    Other,
}

impl Folders {
    /// Begins an export in the empty directory `root`.
    pub(super) fn begin(root: &Path, format: &Format) -> Result<Self, ExportError> {
        let rows = if matches!(format, Format::Pem | Format::Der) { Rows::Devices } else { Rows::Files };
        let columns: &[&str] = if rows == Rows::Devices { &DEVICE_COLUMNS } else { &FILE_COLUMNS };
        let mut folders =
            Self { manifest: Table::create(&root.join(MANIFEST_FILE), columns)?, rows, values: None };
        if let Format::MassMfg(partition) = format {
            let config = write_config(&root.join(CONFIG_FILE), partition)?;
            folders.add_file(CONFIG_FILE, &config, None)?;
            let names = partition.entries.iter().map(|entry| entry.name.as_str());
            let columns: Vec<_> = [nvs::FILE_ID].into_iter().chain(names).collect();
            folders.values = Some(Table::create(&root.join(VALUES_FILE), &columns)?);
        }
        Ok(folders)
    }

    /// Adds a written folder to the manifest.
    pub(super) fn add(&mut self, folder: &Folder) -> Result<(), ExportError> {
        if let (Some(table), Some(values)) = (&mut self.values, &folder.values) {
            table.add(values)?;
        }
        match self.rows {
            Rows::Devices => self.add_device(folder),
            Rows::Files => folder
                .files
                .iter()
                .try_for_each(|file| self.add_file(&folder.path_of(file.name), &file.written, Some(folder))),
        }
    }

    /// Finishes the tables.
    pub(super) fn finish(mut self) -> Result<(), ExportError> {
        if let Some(values) = self.values.take() {
            let written = values.finish()?;
            self.add_file(VALUES_FILE, &written, None)?;
        }
        self.manifest.finish().map(drop)
    }

    fn add_device(&mut self, folder: &Folder) -> Result<(), ExportError> {
        let [certificate, key, configuration] = [Role::Certificate, Role::PrivateKey, Role::Configuration]
            .map(|role| folder.path_and_digest(role));
        self.manifest.add(&[
            &folder.key,
            &folder.thing_name,
            &folder.certificate_id,
            &certificate.0,
            &certificate.1,
            &key.0,
            &key.1,
            &folder.registered_at,
            &configuration.0,
            &configuration.1,
        ])
    }

    fn add_file(
        &mut self,
        file: &str,
        written: &Written,
        folder: Option<&Folder>,
    ) -> Result<(), ExportError> {
        let [key, thing, certificate, registered] = folder.map_or([""; 4], |folder| {
            [&*folder.key, &folder.thing_name, &folder.certificate_id, &folder.registered_at]
        });
        let bytes = written.length.to_string();
        self.manifest.add(&[file, &written.sha256, &bytes, key, thing, certificate, registered])
    }
}

impl Folder {
    /// Writes a device's folder below `root`.
    pub(super) fn write(
        root: &Path,
        format: &Format,
        columns: &[String],
        exported: &Exported,
    ) -> Result<Self, ExportError> {
        let device = &exported.device;
        let (name, path) = create_device_directory(root, exported)?;
        let mut folder = Self {
            name,
            files: Vec::with_capacity(3),
            key: device.key.clone(),
            thing_name: device.thing.as_ref().map_or_else(String::new, |thing| thing.thing_name.clone()),
            certificate_id: device.certificate_id.to_string(),
            registered_at: device.registered_at.clone().unwrap_or_default(),
            values: None,
        };
        match format {
            Format::Der => folder.put_der(&path, exported)?,
            Format::Pkcs12 { password } => {
                let keystore = pkcs12::keystore(exported, password)?;
                folder.put(&path, KEYSTORE_FILE, Role::Other, &keystore)?;
            }
            _ => folder.put_pem(&path, exported)?,
        }
        let configuration = nvs::configuration_text(device.thing.as_ref());
        if !configuration.is_empty() {
            folder.put(&path, CONFIGURATION_FILE, Role::Configuration, (configuration + "\n").as_bytes())?;
        }
        match format {
            Format::Nvs(partition) => folder.put_nvs(&path, partition, columns, device)?,
            Format::MassMfg(partition) => {
                let values = folder.values_of(partition, columns, device)?;
                folder.values = Some([folder.name.clone()].into_iter().chain(values).collect());
            }
            _ => {}
        }
        Ok(folder)
    }

    fn put_pem(&mut self, path: &Path, exported: &Exported) -> Result<(), ExportError> {
        let certificate = exported.device.certificate_pem.as_bytes();
        self.put(path, CERTIFICATE_FILE, Role::Certificate, certificate)?;
        let file = match exported.private_key.form {
            KeyForm::Pem => PRIVATE_KEY_FILE,
            KeyForm::Age => SEALED_KEY_FILE,
            KeyForm::Absent => return Ok(()),
        };
        self.put(path, file, Role::PrivateKey, exported.private_key.text.expose().as_bytes())
    }

    fn put_der(&mut self, path: &Path, exported: &Exported) -> Result<(), ExportError> {
        let device = &exported.device;
        let der = |pem, what| {
            PemBlock::read(pem)
                .map(|block| block.der)
                .map_err(|_| ExportError::NotPem { key: device.key.clone(), what })
        };
        self.put(path, CERTIFICATE_DER, Role::Certificate, &der(&device.certificate_pem, "certificate")?)?;
        let text = exported.private_key.text.expose();
        match exported.private_key.form {
            KeyForm::Pem => self.put(path, PRIVATE_KEY_DER, Role::PrivateKey, &der(text, "private key")?),
            KeyForm::Age => self.put(path, SEALED_KEY_FILE, Role::PrivateKey, text.as_bytes()),
            KeyForm::Absent => Ok(()),
        }
    }

    /// Writes the generator's CSV: a header, the namespace, and a row per entry.
    fn put_nvs(
        &mut self,
        path: &Path,
        partition: &Partition,
        columns: &[String],
        device: &CertifiedDevice,
    ) -> Result<(), ExportError> {
        let values = self.values_of(partition, columns, device)?;
        let path = path.join(NVS_FILE);
        let mut table = Table::create(&path, &nvs::COLUMNS)?;
        table.add(&[&*partition.namespace, "namespace", "", ""])?;
        for (entry, value) in partition.entries.iter().zip(&values) {
            // A key that only the device has is not a file here.
            if !(entry.source.kind() == "file" && value.is_empty()) {
                table.add(&[&*entry.name, entry.source.kind(), "string", value])?;
            }
        }
        let written = table.finish()?;
        self.files.push(NamedFile { name: NVS_FILE, role: Role::Other, written });
        Ok(())
    }

    fn values_of(
        &self,
        partition: &Partition,
        columns: &[String],
        device: &CertifiedDevice,
    ) -> Result<Vec<String>, ExportError> {
        let files = [Role::Certificate, Role::PrivateKey].map(|role| self.path_and_digest(role).0);
        partition.values(device, columns, &files)
    }

    fn put(
        &mut self,
        path: &Path,
        name: &'static str,
        role: Role,
        content: &[u8],
    ) -> Result<(), ExportError> {
        let written = write_file(&path.join(name), content)?;
        self.files.push(NamedFile { name, role, written });
        Ok(())
    }

    fn path_of(&self, file: &str) -> String {
        format!("{}/{file}", self.name)
    }

    /// The path of the file with `role` and its digest; both empty if there is none.
    fn path_and_digest(&self, role: Role) -> (String, String) {
        let file = self.files.iter().find(|file| file.role == role);
        file.map_or_else(Default::default, |file| (self.path_of(file.name), file.written.sha256.clone()))
    }
}

/// The manufacturing utility's configuration: the namespace and the entries, without a header.
fn write_config(path: &Path, partition: &Partition) -> Result<Written, ExportError> {
    let mut table = Table::create_bare(path)?;
    table.add(&[&*partition.namespace, "namespace", ""])?;
    for entry in &partition.entries {
        table.add(&[&*entry.name, entry.source.kind(), "string"])?;
    }
    table.finish()
}

/// Creates the device's directory; returns its name and path.
fn create_device_directory(root: &Path, exported: &Exported) -> Result<(String, PathBuf), ExportError> {
    let key = &exported.device.key;
    let name = folder_name(key, exported.spelling);
    let path = root.join(&name);
    match create_directory(&path) {
        Ok(()) => Ok((name, path)),
        // Two of four billion keys share these digits of their hashes.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let name = full_name(&name, key);
            let path = root.join(&name);
            create_directory(&path).map_err(failed("creating", &path))?;
            Ok((name, path))
        }
        Err(error) => Err(failed("creating", &path)(error)),
    }
}
