//! The single-file formats: a JSON object per line, and a table.
//!
//! Private keys pass through one buffer that is zeroed; hence the table is written here and not by a library.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;
use zeroize::Zeroizing;

use super::error::failed;
use super::files::{HashedFile, Written};
use super::nvs::configuration_text;
use super::{ExportError, Exported};

/// The format of a line.
#[derive(Debug, Clone, Copy)]
pub(super) enum Layout {
    Json,
    Table,
}

/// The table's first columns. The lot's columns follow, prefixed with `parameters.`.
const COLUMNS: [&str; 8] = [
    "key",
    "state",
    "thing_name",
    "certificate_id",
    "certificate_pem",
    "private_key",
    "device_configuration",
    "registered_at",
];

/// One device, as JSON.
#[derive(Serialize)]
struct Line<'a> {
    key: &'a str,
    state: &'static str,
    thing_name: Option<&'a str>,
    certificate_id: &'a str,
    certificate_pem: &'a str,
    private_key: &'a str,
    device_configuration: Option<&'a BTreeMap<String, serde_json::Value>>,
    parameters: BTreeMap<&'a str, &'a str>,
    registered_at: Option<&'a str>,
}

/// A file of lines under construction.
pub(super) struct Lines<'a> {
    path: PathBuf,
    file: HashedFile,
    columns: &'a [String],
    layout: Layout,
    line: Zeroizing<Vec<u8>>,
}

impl<'a> Lines<'a> {
    pub(super) fn begin(path: &Path, columns: &'a [String], layout: Layout) -> Result<Self, ExportError> {
        let file = HashedFile::create(path).map_err(failed("creating", path))?;
        let line = Zeroizing::new(Vec::new());
        let mut lines = Self { path: path.to_path_buf(), file, columns, layout, line };
        if matches!(layout, Layout::Table) {
            let of_lot: Vec<_> = columns.iter().map(|column| format!("parameters.{column}")).collect();
            lines.line_of_fields(COLUMNS.into_iter().chain(of_lot.iter().map(String::as_str)));
            lines.put()?;
        }
        Ok(lines)
    }

    pub(super) fn write(&mut self, exported: &Exported) -> Result<(), ExportError> {
        self.make_room(exported);
        match self.layout {
            Layout::Json => self.line_of_json(exported),
            Layout::Table => {
                let device = &exported.device;
                let thing = device.thing.as_ref();
                let configuration = configuration_text(thing);
                let fields = [
                    device.key.as_str(),
                    device.state.name(),
                    thing.map_or("", |thing| &thing.thing_name),
                    device.certificate_id.as_str(),
                    &device.certificate_pem,
                    exported.private_key.text.expose(),
                    &configuration,
                    device.registered_at.as_deref().unwrap_or_default(),
                ];
                self.line_of_fields(fields.into_iter().chain(device.values.iter().map(String::as_str)));
            }
        }
        self.put()
    }

    /// Finishes the file.
    pub(super) fn finish(self) -> Written {
        self.file.finish()
    }

    /// Grows the buffer before a key is in it: memory that it leaves behind later would not be zeroed.
    fn make_room(&mut self, exported: &Exported) {
        /// A byte becomes at most six in JSON.
        const WORST: usize = 6;
        let device = &exported.device;
        let values: usize = device.values.iter().chain(self.columns).map(|text| text.len() + 20).sum();
        let thing = device.thing.as_ref();
        let of_thing = thing.map_or(0, |thing| thing.thing_name.len()) + configuration_text(thing).len();
        let texts =
            device.key.len() + device.certificate_pem.len() + exported.private_key.text.expose().len();
        let room = (values + of_thing + texts) * WORST + 1024;
        if self.line.capacity() < room {
            self.line = Zeroizing::new(Vec::with_capacity(room));
        }
        self.line.clear();
    }

    fn line_of_json(&mut self, exported: &Exported) {
        let device = &exported.device;
        let columns = self.columns.iter().map(String::as_str);
        let line = Line {
            key: &device.key,
            state: device.state.name(),
            thing_name: device.thing.as_ref().map(|thing| thing.thing_name.as_str()),
            certificate_id: device.certificate_id.as_str(),
            certificate_pem: &device.certificate_pem,
            private_key: exported.private_key.text.expose(),
            device_configuration: device.thing.as_ref().map(|thing| &thing.device_configuration),
            parameters: columns.zip(device.values.iter().map(String::as_str)).collect(),
            registered_at: device.registered_at.as_deref(),
        };
        serde_json::to_writer(&mut *self.line, &line).expect("texts and JSON that was read can be written");
        self.line.push(b'\n');
    }

    /// Writes an RFC 4180 row that ends in LF alone; only fields that need it are quoted.
    fn line_of_fields<'f>(&mut self, fields: impl Iterator<Item = &'f str>) {
        for (at, field) in fields.enumerate() {
            if at > 0 {
                self.line.push(b',');
            }
            push_field(&mut self.line, field);
        }
        self.line.push(b'\n');
    }

    fn put(&mut self) -> Result<(), ExportError> {
        self.file.write_all(&self.line).map_err(failed("writing", &self.path))?;
        self.line.clear();
        Ok(())
    }
}

fn push_field(line: &mut Vec<u8>, field: &str) {
    if !field.contains(['"', ',', '\n', '\r']) {
        line.extend_from_slice(field.as_bytes());
        return;
    }
    line.push(b'"');
    for byte in field.bytes() {
        if byte == b'"' {
            line.push(b'"');
        }
        line.push(byte);
    }
    line.push(b'"');
}
