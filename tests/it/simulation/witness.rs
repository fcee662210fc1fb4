//! The witness: sees every packet and every commit at its instant, remembers what the service really did, and cuts the
//! process off where it is told to.
//!
//! What it knows comes from the network and the ledger's tables alone, never from the engine.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use fleetmint::call::Call;
use fleetmint::emulator::account::{Answer, Verdict};
use fleetmint::emulator::memory::{Observer, Power, Request, Sighting};
use fleetmint::emulator::scenario::Fault;
use rusqlite::{Connection, OptionalExtension};
use serde_json::Value;
use tokio::sync::Notify;

use super::checker::{self, OWNED, Owned};

pub struct Witness {
    notes: Mutex<Notes>,
    /// Told when the process dies.
    pub cut: Notify,
}

/// What it has seen.
pub struct Notes {
    ledger: Connection,
    power: Power,
    trace: DefaultHasher,
    pub sightings: u64,
    boundaries: u64,
    crash_at: Option<u64>,
    /// By ownership token, the certificate it came with.
    certificates: HashMap<String, String>,
    /// By certificate, what became of its registrations.
    pub registrations: BTreeMap<String, Registrations>,
    /// By connection, the request that nothing has come back for yet.
    awaited: BTreeMap<u64, Call>,
    /// Final rejections of creations, which name no device.
    pub creations_refused: u64,
    pub violations: Vec<String>,
    /// When requests were published and dials begun in this run.
    pub instants: [Vec<Duration>; 3],
    /// By connection, when it last carried a request; and how close two on one have come in this run.
    carried: BTreeMap<u64, Duration>,
    pub tightest: Option<Duration>,
    pub story: Option<Vec<String>>,
}

#[derive(Debug, Default)]
pub struct Registrations {
    pub published: u64,
    /// Accepted by the account, whatever the client was told.
    pub accepted: u64,
    /// Answered with a 4xx other than 429, by whomever.
    pub refused: u64,
}

/// The limits in [`Notes::instants`].
pub const CONNECT: usize = 0;
pub const CREATE: usize = 1;
pub const REGISTER: usize = 2;

impl Witness {
    pub fn new(ledger: Connection, tells: bool) -> Self {
        let notes = Notes {
            ledger,
            power: Power::default(),
            trace: DefaultHasher::new(),
            sightings: 0,
            boundaries: 0,
            crash_at: None,
            certificates: HashMap::new(),
            registrations: BTreeMap::new(),
            awaited: BTreeMap::new(),
            creations_refused: 0,
            violations: Vec::new(),
            instants: Default::default(),
            carried: BTreeMap::new(),
            tightest: None,
            story: tells.then(Vec::new),
        };
        Self { notes: Mutex::new(notes), cut: Notify::new() }
    }

    pub fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap()
    }

    /// A new process starts, and dies at its n-th boundary if there is one.
    pub fn begin(&self, power: Power, crash_at: Option<u64>) {
        let mut notes = self.notes();
        notes.power = power;
        notes.boundaries = 0;
        notes.crash_at = crash_at;
        notes.instants = Default::default();
        notes.carried.clear();
        notes.tightest = None;
    }

    /// Something happens at which the process may die.
    pub fn boundary(&self, at: Duration, what: &str) {
        let mut notes = self.notes();
        notes.record(at, what);
        notes.boundaries += 1;
        if notes.crash_at == Some(notes.boundaries) {
            notes.power.off();
            notes.record(at, "the process dies");
            self.cut.notify_one();
        }
    }

    pub fn trace(&self) -> u64 {
        self.notes().trace.finish()
    }
}

impl Observer for Witness {
    fn see(&self, at: Duration, sighting: &Sighting<'_>) {
        let what = describe(sighting);
        match sighting {
            Sighting::Dialling => self.notes().instants[CONNECT].push(at),
            Sighting::Publishing(request) => self.notes().publishing(at, request),
            Sighting::Answered { request, fault, account } => {
                self.notes().answered(request, *fault, *account);
            }
            Sighting::Delivered { connection, topic, .. } => self.notes().delivered(*connection, topic),
            Sighting::Dialled { .. } | Sighting::Published(_) | Sighting::Closed { .. } => {}
        }
        match sighting {
            Sighting::Answered { .. } | Sighting::Closed { .. } => self.notes().record(at, &what),
            _ => self.boundary(at, &what),
        }
    }
}

impl Notes {
    /// Puts a line into the trace.
    pub fn record(&mut self, at: Duration, what: &str) {
        (at, what).hash(&mut self.trace);
        self.sightings += 1;
        if let Some(story) = &mut self.story {
            story.push(format!("{:>14.6} {what}", at.as_secs_f64()));
        }
    }

    pub fn violate(&mut self, at: Duration, what: String) {
        self.record(at, &format!("VIOLATION: {what}"));
        self.violations.push(what);
    }

    fn publishing(&mut self, at: Duration, request: &Request) {
        if let Some(before) = self.carried.insert(request.connection, at) {
            let apart = at - before;
            self.tightest = Some(self.tightest.map_or(apart, |tightest| tightest.min(apart)));
        }
        if let Some(call) = self.awaited.insert(request.connection, request.call) {
            let number = request.connection;
            self.violate(at, format!("connection {number} is used again, and has lost a {call:?} reply"));
        }
        match request.call {
            Call::CreateKeysAndCertificate | Call::CreateCertificateFromCsr => self.instants[CREATE].push(at),
            Call::RegisterThing => {
                self.instants[REGISTER].push(at);
                if let Err(what) = self.check_registration(request) {
                    self.violate(at, what);
                }
            }
            Call::Publish => self.violate(at, String::from("a message that is no request of the API")),
        }
    }

    fn delivered(&mut self, connection: u64, topic: &str) {
        let call = match topic {
            _ if topic.starts_with("$aws/certificates/create/") => Call::CreateKeysAndCertificate,
            _ if topic.starts_with("$aws/certificates/create-from-csr/") => Call::CreateCertificateFromCsr,
            _ => Call::RegisterThing,
        };
        if self.awaited.get(&connection) == Some(&call) {
            self.awaited.remove(&connection);
        }
    }

    /// Whether the ledger could explain this RegisterThing if the process died here and now.
    fn check_registration(&mut self, request: &Request) -> Result<(), String> {
        let request: Value = serde_json::from_slice(&request.payload).map_err(|error| error.to_string())?;
        let token = request["certificateOwnershipToken"].as_str().unwrap_or_default();
        let device = request["parameters"]["DeviceId"].as_str().unwrap_or_default();
        let certificate = self.certificates.get(token).cloned();
        let certificate =
            certificate.ok_or_else(|| format!("{device} registers with a token nobody issued"))?;
        let sql = format!(
            "SELECT {OWNED}, key, state, coalesce(registration, '') AS registration
             FROM credential JOIN device ON device.id = credential.device WHERE lower(hex(certificate_id)) = ?1"
        );
        let row = self.ledger.prepare_cached(&sql).unwrap().query_row([&certificate], |row| {
            let text = |column| row.get::<_, String>(column);
            Ok((Owned::read(row)?, text("key")?, text("state")?, text("registration")?))
        });
        let row = row.optional().map_err(|error| error.to_string())?;
        let (owned, key, state, registration) =
            row.ok_or_else(|| format!("{device} registers {certificate}, which is not in the ledger"))?;
        let wrong = |what: &str| Err(format!("{device} registers {certificate}: {what}"));
        if key != device {
            return wrong(&format!("the ledger has it for {key}"));
        }
        if (state.as_str(), registration.as_str()) != ("issued", "may_sent") {
            return wrong(&format!("the ledger says that it is {state} {registration}"));
        }
        if owned.token.as_deref() != Some(token) || owned.is_retired {
            return wrong("its token is not the one that the ledger has, or is retired");
        }
        checker::check_pair(&certificate, &owned.pem, &owned.private_key)?;
        self.registrations.entry(certificate).or_default().published += 1;
        Ok(())
    }

    fn answered(&mut self, request: &Request, fault: Option<&Fault>, account: Option<&Answer>) {
        let reply: Value =
            account.map_or(Value::Null, |answer| serde_json::from_slice(&answer.payload).unwrap());
        let refused = matches!(fault, Some(Fault::Reject { status: 403, .. }))
            || reply["statusCode"].as_u64().is_some_and(|status| status < 500 && status != 429);
        let accepted = account.is_some_and(|answer| answer.verdict == Verdict::Accepted);
        match request.call {
            Call::CreateKeysAndCertificate | Call::CreateCertificateFromCsr if accepted => {
                let text = |name: &str| reply[name].as_str().unwrap().to_owned();
                self.certificates.insert(text("certificateOwnershipToken"), text("certificateId"));
            }
            Call::CreateKeysAndCertificate | Call::CreateCertificateFromCsr => {
                self.creations_refused += u64::from(refused)
            }
            Call::RegisterThing => {
                let certificate = self.certificate_of(request);
                let registrations = self.registrations.entry(certificate).or_default();
                registrations.accepted += u64::from(accepted);
                registrations.refused += u64::from(refused);
            }
            Call::Publish => {}
        }
    }

    fn certificate_of(&self, request: &Request) -> String {
        let request: Value = serde_json::from_slice(&request.payload).unwrap();
        let token = request["certificateOwnershipToken"].as_str().unwrap_or_default();
        self.certificates.get(token).cloned().unwrap_or_default()
    }
}

fn describe(sighting: &Sighting<'_>) -> String {
    let print = |bytes: &[u8]| {
        let mut hasher = DefaultHasher::new();
        bytes.hash(&mut hasher);
        hasher.finish()
    };
    let request = |request: &Request| {
        format!("{:?} on {} ({:016x})", request.call, request.connection, print(&request.payload))
    };
    match sighting {
        Sighting::Dialling => String::from("dialling"),
        Sighting::Dialled { connection, is_open } => format!("dialled {connection}: {is_open}"),
        Sighting::Publishing(asked) => format!("publishing {}", request(asked)),
        Sighting::Published(asked) => format!("published {}", request(asked)),
        Sighting::Answered { request: asked, fault, account } => {
            let said = account.map(|answer| (answer.verdict.name(), print(&answer.payload)));
            format!("answered {}: {fault:?}, {said:?}", request(asked))
        }
        Sighting::Delivered { connection, topic, payload } => {
            format!("delivered {topic} on {connection} ({:016x})", print(payload))
        }
        Sighting::Closed { connection } => format!("closed {connection}"),
    }
}
