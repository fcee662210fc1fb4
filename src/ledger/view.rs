//! Reading a ledger: what is open, how many stand where, what was registered.
//!
//! Owns every query that changes nothing, and the checks that what is read can have come from legal changes. Takes no
//! lock: any number of views may look at a ledger while a run writes it.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rusqlite::{Connection, OpenFlags, Row, named_params};

use super::error::{LedgerError, Problem};
use super::place::Place;
use super::{Binding, Recorded, instant, lock, schema};
use crate::certificate::{CertificateId, IssuedCertificate, RegisteredThing, Secret};
use crate::event::{DeviceId, DeviceState, Registration};
use crate::identity::{Identity, LotShape};

/// A ledger to look at.
#[derive(Debug)]
pub struct View {
    pub(super) connection: Connection,
    pub(super) path: PathBuf,
    lot: LotInfo,
}

/// The lot that a ledger was made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LotInfo {
    /// The name of its file.
    pub source: String,
    /// SHA-256 of its content, hexadecimal.
    pub digest: String,
    /// Its columns.
    pub shape: LotShape,
    /// How many devices it has.
    pub devices: u64,
    /// What it is bound to.
    pub binding: Binding,
    /// When it was imported, RFC 3339.
    pub created_at: String,
}

/// A device that there is something to do for.
#[derive(Debug)]
pub struct OpenDevice {
    /// Its number.
    pub id: DeviceId,
    /// Its row.
    pub identity: Identity,
    /// What to do.
    pub work: Work,
}

/// What there is to do for an open device.
#[derive(Debug)]
pub enum Work {
    /// It is Pending: get it a certificate.
    Create,
    /// It is Issued: register its certificate.
    Register {
        /// The certificate, with its key and token.
        certificate: Recorded<IssuedCertificate>,
        /// When the ledger got it: at the earliest when it was issued, which the token's age counts from.
        issued_at: SystemTime,
        /// Whether a registration may have happened already.
        registration: Registration,
    },
}

/// How many devices are in which state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Pending.
    pub pending: u64,
    /// Issued, and surely not registered.
    pub issued_not_sent: u64,
    /// Issued, and possibly registered.
    pub issued_may_sent: u64,
    /// Registered.
    pub registered: u64,
    /// Rejected.
    pub rejected: u64,
    /// Unknown.
    pub unknown: u64,
}

impl Counts {
    /// Issued, registered or not.
    pub fn issued(&self) -> u64 {
        self.issued_not_sent + self.issued_may_sent
    }

    /// Devices that there is something to do for.
    pub fn open(&self) -> u64 {
        self.pending + self.issued()
    }

    /// All devices.
    pub fn total(&self) -> u64 {
        self.open() + self.registered + self.rejected + self.unknown
    }
}

/// Devices that share a state and the last failure's stage and cause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// Their state.
    pub state: DeviceState,
    /// [`Stage::name`](crate::failure::Stage::name) of their failure.
    pub stage: String,
    /// [`Cause::name`](crate::failure::Cause::name) of their failure.
    pub cause: String,
    /// How many they are.
    pub devices: u64,
    /// The key of the first of them.
    pub example_key: String,
    /// The failure of the first of them, in full.
    pub example: String,
}

/// A run, as the ledger remembers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunInfo {
    /// Its number, from 1.
    pub id: i64,
    /// When it began, RFC 3339.
    pub started_at: String,
    /// When it ended, RFC 3339; none if it is running, or crashed.
    pub ended_at: Option<String>,
    /// Its process.
    pub pid: u32,
    /// Its settings, JSON.
    pub settings: String,
    /// How it ended.
    pub outcome: Option<String>,
    /// Its results, JSON.
    pub summary: Option<String>,
}

/// A registered device, with all that the factory floor needs.
#[derive(Debug)]
pub struct RegisteredDevice {
    /// Its number.
    pub id: DeviceId,
    /// Its key.
    pub key: String,
    /// What the service made of it.
    pub thing: RegisteredThing,
    /// Its certificate's id.
    pub certificate_id: CertificateId,
    /// Its certificate, PEM.
    pub certificate_pem: String,
    /// Its private key, PEM.
    pub private_key: Secret<String>,
    /// When the ledger got its registration, RFC 3339.
    pub registered_at: String,
}

/// A page of open devices: the partial index `device_open` makes it cost its length, wherever it begins.
pub(super) const OPEN_DEVICES: &str = "
    SELECT device.id, device.line, device.key, device.parameter_values AS parameters, device.state, device.registration,
           certificate.certificate_id, certificate.certificate_pem, certificate.private_key,
           certificate.ownership_token, certificate.issued_at
    FROM device
    LEFT JOIN certificate ON certificate.device = device.id AND certificate.retired_at IS NULL
    WHERE device.state IN ('pending', 'issued') AND device.id > ?1
    ORDER BY device.id LIMIT ?2";

const REGISTERED_DEVICES: &str = "
    SELECT device.id, device.key, device.state, device.thing_name, device.device_configuration, device.updated_at,
           certificate.certificate_id, certificate.certificate_pem, certificate.private_key
    FROM device
    LEFT JOIN certificate ON certificate.device = device.id AND certificate.retired_at IS NULL
    WHERE device.state = 'registered'
    ORDER BY device.id";

const TROUBLES: &str = "
    SELECT device.state, device.failure_stage, device.failure_cause, grouped.devices, device.key, device.failure
    FROM (SELECT min(id) AS first, count(*) AS devices FROM device WHERE failure IS NOT NULL
          GROUP BY state, failure_stage, failure_cause) AS grouped
    JOIN device ON device.id = grouped.first
    ORDER BY grouped.devices DESC, device.id";

impl View {
    /// Opens the ledger at `path` to look at it; a run may be writing it.
    ///
    /// # Errors
    /// If there is none, or it is not a ledger, of another schema, or damaged where this looks.
    /// [`check_integrity`](Self::check_integrity) looks everywhere.
    pub fn open(path: &Path) -> Result<Self, LedgerError> {
        let place = Place::of(path)?;
        let view =
            Self::connect(&place, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(|problem| problem.at(path))?;
        Ok(Self { path: path.to_path_buf(), ..view })
    }

    /// Opens the ledger at `place`, to write it too if `access` says so: then an old schema is brought up to date.
    pub(super) fn connect(place: &Place, access: OpenFlags) -> Result<Self, Problem> {
        if !place.is_taken() {
            place.refuse_orphaned_log()?;
            return Err(Problem::Missing);
        }
        // Before the ledger is read: a run that writes it at this moment notes its commits after making them.
        let noted = lock::noted_commits(&place.lock);
        let mut connection =
            Connection::open_with_flags(&place.ledger, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        schema::set_up(&connection)?;
        let version = schema::identify(&connection)?;
        place.refuse_cut_page(schema::page_size(&connection)?)?;
        if access.contains(OpenFlags::SQLITE_OPEN_READ_WRITE) {
            schema::check_integrity(&connection)?;
            schema::set_up_writing(&connection)?;
            schema::migrate(&mut connection)?;
        } else if version < schema::NEWEST {
            return Err(Problem::Older { found: version, known: schema::NEWEST });
        }
        place.refuse_lost_commits(schema::read_commits(&connection)?, noted)?;
        Self::over(connection, &place.ledger)
    }

    /// A view over an open ledger.
    pub(super) fn over(connection: Connection, path: &Path) -> Result<Self, Problem> {
        let lot = read_lot(&connection)?;
        Ok(Self { connection, path: path.to_path_buf(), lot })
    }

    /// The ledger's file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The lot that it was made from.
    pub fn lot(&self) -> &LotInfo {
        &self.lot
    }

    /// Reads the whole file and refuses one that is damaged.
    pub fn check_integrity(&self) -> Result<(), LedgerError> {
        self.named(schema::check_integrity(&self.connection))
    }

    /// The open devices after `after`, Pending and Issued, in the order of their numbers: `limit` at most.
    ///
    /// # Errors
    /// If the ledger cannot be read, or a device in it is in a state that no legal changes lead to.
    pub fn open_devices(
        &self,
        after: Option<DeviceId>,
        limit: usize,
    ) -> Result<Vec<OpenDevice>, LedgerError> {
        self.named(self.read_open_devices(after, limit))
    }

    fn read_open_devices(&self, after: Option<DeviceId>, limit: usize) -> Result<Vec<OpenDevice>, Problem> {
        let after = after.map_or(0, |DeviceId(id)| id);
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut statement = self.connection.prepare_cached(OPEN_DEVICES)?;
        let mut rows = statement.query([after, limit])?;
        let mut devices = Vec::new();
        while let Some(row) = rows.next()? {
            devices.push(read_open_device(row, self.lot.shape.columns.len())?);
        }
        Ok(devices)
    }

    /// How many devices are in which state. Looks at every device.
    pub fn counts(&self) -> Result<Counts, LedgerError> {
        self.named(read_counts(&self.connection))
    }

    /// The failures that devices were left, rejected or given up for, grouped, the most frequent first.
    pub fn troubles(&self) -> Result<Vec<Trouble>, LedgerError> {
        self.named(read_all(&self.connection, TROUBLES, |row| {
            Ok(Trouble {
                state: read_state(row, "state")?,
                stage: row.get("failure_stage")?,
                cause: row.get("failure_cause")?,
                devices: read_count(row, "devices")?,
                example_key: row.get("key")?,
                example: row.get("failure")?,
            })
        }))
    }

    /// All runs, the first one first.
    pub fn runs(&self) -> Result<Vec<RunInfo>, LedgerError> {
        self.named(read_all(&self.connection, "SELECT * FROM run ORDER BY id", |row| {
            Ok(RunInfo {
                id: row.get("id")?,
                started_at: row.get("started_at")?,
                ended_at: row.get("ended_at")?,
                pid: row.get("pid")?,
                settings: row.get("settings")?,
                outcome: row.get("outcome")?,
                summary: row.get("summary")?,
            })
        }))
    }

    /// Shows every registered device to `show`, in the order of their numbers, one at a time in memory, all of one instant.
    ///
    /// # Errors
    /// If the ledger cannot be read; or the first error of `show`.
    pub fn for_each_registered<E: From<LedgerError>>(
        &self,
        mut show: impl FnMut(RegisteredDevice) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut statement = self.named(self.connection.prepare_cached(REGISTERED_DEVICES))?;
        let mut rows = self.named(statement.query([]))?;
        while let Some(row) = self.named(rows.next())? {
            show(self.named(read_registered_device(row))?)?;
        }
        Ok(())
    }

    /// Names the ledger in an error.
    pub(super) fn named<T, P: Into<Problem>>(&self, outcome: Result<T, P>) -> Result<T, LedgerError> {
        outcome.map_err(|problem| problem.into().at(&self.path))
    }
}

fn read_all<T>(
    connection: &Connection,
    sql: &str,
    read: impl Fn(&Row<'_>) -> Result<T, Problem>,
) -> Result<Vec<T>, Problem> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([])?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        all.push(read(row)?);
    }
    Ok(all)
}

fn read_lot(connection: &Connection) -> Result<LotInfo, Problem> {
    let mut lots = read_all(connection, "SELECT * FROM lot", |row| {
        let columns: Vec<String> = read_json(row, "columns")?;
        let key_column: String = row.get("key_column")?;
        let at = columns.iter().position(|column| *column == key_column);
        let key_column = at.ok_or_else(|| Problem::damaged("its lot has no key column"))?;
        Ok(LotInfo {
            source: row.get("source")?,
            digest: row.get("digest")?,
            shape: LotShape { columns, key_column },
            devices: read_count(row, "devices")?,
            binding: Binding {
                template: row.get("template")?,
                region: row.get("region")?,
                account: row.get("account")?,
            },
            created_at: row.get("created_at")?,
        })
    })?;
    lots.pop().ok_or_else(|| Problem::damaged("it has no lot"))
}

fn read_counts(connection: &Connection) -> Result<Counts, Problem> {
    let mut counts = Counts::default();
    let sql = "SELECT state, registration, count(*) AS devices FROM device GROUP BY state, registration";
    let groups = read_all(connection, sql, |row| {
        Ok((read_state(row, "state")?, read_registration(row)?, read_count(row, "devices")?))
    })?;
    for (state, registration, devices) in groups {
        let counted = match (state, registration) {
            (DeviceState::Pending, _) => &mut counts.pending,
            (DeviceState::Issued, Some(Registration::NotSent)) => &mut counts.issued_not_sent,
            (DeviceState::Issued, _) => &mut counts.issued_may_sent,
            (DeviceState::Registered, _) => &mut counts.registered,
            (DeviceState::Rejected, _) => &mut counts.rejected,
            (DeviceState::Unknown, _) => &mut counts.unknown,
        };
        *counted += devices;
    }
    Ok(counts)
}

fn read_open_device(row: &Row<'_>, columns: usize) -> Result<OpenDevice, Problem> {
    let id = DeviceId(row.get("id")?);
    let values: Vec<String> = read_json(row, "parameters")?;
    if values.len() != columns {
        return Err(impossible(id, &format!("has {} values for {columns} columns", values.len())));
    }
    let identity = Identity { line: read_count(row, "line")?, key: row.get("key")?, values };
    let is_certified = row.get::<_, Option<String>>("certificate_id")?.is_some();
    let work = match (read_state(row, "state")?, read_registration(row)?) {
        (DeviceState::Pending, None) if !is_certified => Work::Create,
        (DeviceState::Issued, Some(registration)) if is_certified => Work::Register {
            certificate: Recorded::new(read_certificate(row)?),
            issued_at: read_instant(row, "issued_at")?,
            registration,
        },
        (DeviceState::Issued, _) => return Err(impossible(id, "is issued, and lacks its certificate")),
        _ => return Err(impossible(id, "is pending, and holds a certificate")),
    };
    Ok(OpenDevice { id, identity, work })
}

fn read_certificate(row: &Row<'_>) -> Result<IssuedCertificate, Problem> {
    let token: Option<String> = row.get("ownership_token")?;
    let token = token.ok_or_else(|| Problem::damaged("an open certificate has no ownership token"))?;
    Ok(IssuedCertificate {
        certificate_id: read_certificate_id(row)?,
        certificate_pem: row.get("certificate_pem")?,
        private_key: Secret::new(row.get("private_key")?),
        ownership_token: Secret::new(token),
    })
}

fn read_registered_device(row: &Row<'_>) -> Result<RegisteredDevice, Problem> {
    let id = DeviceId(row.get("id")?);
    if row.get::<_, Option<String>>("certificate_id")?.is_none() {
        return Err(impossible(id, "is registered, and lacks its certificate"));
    }
    Ok(RegisteredDevice {
        id,
        key: row.get("key")?,
        thing: RegisteredThing {
            // Kept as nothing where the service named no thing, so that nameless devices are not taken for one another.
            thing_name: row.get::<_, Option<String>>("thing_name")?.unwrap_or_default(),
            device_configuration: read_json(row, "device_configuration")?,
        },
        certificate_id: read_certificate_id(row)?,
        certificate_pem: row.get("certificate_pem")?,
        private_key: Secret::new(row.get("private_key")?),
        registered_at: row.get("updated_at")?,
    })
}

/// The state and key of one device, for whoever is about to change it.
pub(super) fn find_standing(
    connection: &Connection,
    device: DeviceId,
) -> Result<(DeviceState, String), Problem> {
    let mut statement = connection.prepare_cached("SELECT state, key FROM device WHERE id = :id")?;
    let mut rows = statement.query(named_params! { ":id": device.0 })?;
    match rows.next()? {
        Some(row) => Ok((read_state(row, "state")?, row.get("key")?)),
        None => Err(Problem::NoSuchDevice { device }),
    }
}

fn read_state(row: &Row<'_>, column: &str) -> Result<DeviceState, Problem> {
    let name: String = row.get(column)?;
    DeviceState::from_name(&name).ok_or_else(|| Problem::damaged("a device is in a state that is none"))
}

/// The ledger's name of a [`Registration`].
pub(super) fn registration_name(registration: Registration) -> &'static str {
    match registration {
        Registration::NotSent => "not_sent",
        Registration::MaySent => "may_sent",
    }
}

fn read_registration(row: &Row<'_>) -> Result<Option<Registration>, Problem> {
    let name: Option<String> = row.get("registration")?;
    match name.as_deref() {
        None => Ok(None),
        Some("not_sent") => Ok(Some(Registration::NotSent)),
        Some("may_sent") => Ok(Some(Registration::MaySent)),
        Some(_) => Err(Problem::damaged("a device's registration is neither not_sent nor may_sent")),
    }
}

fn read_certificate_id(row: &Row<'_>) -> Result<CertificateId, Problem> {
    let text: String = row.get("certificate_id")?;
    CertificateId::try_from(text).map_err(|error| Problem::damaged(error.to_string()))
}

fn read_count(row: &Row<'_>, column: &str) -> Result<u64, Problem> {
    let number: i64 = row.get(column)?;
    u64::try_from(number).map_err(|_| Problem::damaged(format!("{column} is negative")))
}

fn read_instant(row: &Row<'_>, column: &str) -> Result<SystemTime, Problem> {
    let text: String = row.get(column)?;
    instant::from_text(&text).ok_or_else(|| Problem::damaged(format!("{column} is not an instant")))
}

fn read_json<T: serde::de::DeserializeOwned>(row: &Row<'_>, column: &str) -> Result<T, Problem> {
    let text: String = row.get(column)?;
    // What serde says is left out, for it quotes what it finds.
    serde_json::from_str(&text)
        .map_err(|_| Problem::damaged(format!("{column} is not the JSON that it should be")))
}

fn impossible(device: DeviceId, what: &str) -> Problem {
    Problem::damaged(format!("device number {} {what}", device.0))
}
