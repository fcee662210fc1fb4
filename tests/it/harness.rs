//! What the tests of the binary share: a scratch directory with a lot, the command, and `emulate` as a process.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use rusqlite::Connection;
use serde_json::Value;

/// The command, with no credentials or settings of the machine in its environment, and no way to find any: the metadata
/// service of a machine in the cloud would answer too.
pub fn fleetmint() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fleetmint"));
    for (name, _) in std::env::vars_os() {
        if ["AWS_", "FLEETMINT_"].iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    command.env("AWS_EC2_METADATA_DISABLED", "true");
    command.env("AWS_CONFIG_FILE", "/dev/null").env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null");
    command
}

/// A directory of one test, gone with it.
pub struct Scratch(tempfile::TempDir);

impl AsRef<Path> for Scratch {
    fn as_ref(&self) -> &Path {
        self.0.path()
    }
}

impl Scratch {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// A lot of `devices` rows with the default template's parameters.
    pub fn lot(&self, name: &str, devices: usize) -> PathBuf {
        let mut csv = String::from("DeviceId,SerialNumber,MacAddress\n");
        for n in 1..=devices {
            csv += &format!(
                "DEVICE_{n:06},SN{n:06},AA:BB:CC:{:02X}:{:02X}:{:02X}\n",
                n >> 16,
                n >> 8 & 255,
                n & 255
            );
        }
        self.write(name, csv)
    }

    pub fn seed_flow(&self) -> PathBuf {
        let lot = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/lots/seed-flow.csv");
        self.write("seed-flow.csv", std::fs::read(lot).unwrap())
    }

    pub fn files(&self) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(self.0.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

/// `fleetmint emulate` as a process of its own, killed when dropped.
pub struct Emulate {
    pub child: Child,
    pub ready: Value,
}

impl Emulate {
    pub fn start(args: &[&str]) -> Self {
        Self::start_on("127.0.0.1:0", args)
    }

    pub fn start_on(address: &str, args: &[&str]) -> Self {
        let mut child = fleetmint()
            .args(["emulate", "--listen", address])
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { child, ready: serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}")) }
    }

    pub fn text(&self, key: &str) -> &str {
        self.ready[key].as_str().unwrap_or_else(|| panic!("no {key} in {}", self.ready))
    }

    /// `fleetmint provision LOT` against this emulator.
    pub fn provision(&self, lot: &Path) -> Command {
        let mut command = fleetmint();
        command.arg("provision").arg(lot).args(["--template", self.text("template")]);
        self.reached_by(&mut command);
        command
    }

    /// A command with this emulator's address and credentials.
    pub fn reached_by<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command
            .args(["--endpoint", self.text("endpoint"), "--region", self.text("region")])
            .args(["--ca-file", self.text("ca_file")])
            .env("AWS_ACCESS_KEY_ID", self.text("access_key_id"))
            .env("AWS_SECRET_ACCESS_KEY", self.text("secret_access_key"))
    }
}

impl Drop for Emulate {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a command said and how it ended.
pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

pub fn run(command: &mut Command) -> Said {
    let Output { status, stdout, stderr } = command.output().unwrap();
    Said {
        code: status.code(),
        out: String::from_utf8(stdout).unwrap(),
        err: String::from_utf8(stderr).unwrap(),
    }
}

impl Said {
    #[track_caller]
    pub fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.out, self.err);
        self
    }

    #[track_caller]
    pub fn expect_out(self, words: &[&str]) -> Self {
        for words in words {
            assert!(self.out.contains(words), "no {words:?} in:\n{}", self.out);
        }
        self
    }

    #[track_caller]
    pub fn expect_err(self, words: &[&str]) -> Self {
        for words in words {
            assert!(self.err.contains(words), "no {words:?} in:\n{}", self.err);
        }
        self
    }
}

/// As snapshots show it.
impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { code, out, err } = self;
        write!(f, "exit code {}\n-- stdout\n{out}-- stderr\n{err}", code.unwrap_or(-1))
    }
}

/// What several commands said, below each other: one snapshot for all of them.
#[derive(Default)]
pub struct Transcript(String);

impl Transcript {
    /// Adds what a command said, below a line that says which command it was.
    pub fn add(&mut self, command: &str, said: &Said) {
        self.0 += &format!("== {command}\n{said}\n");
    }
}

impl std::fmt::Display for Transcript {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text is word for word as the snapshot `name` has it, once the test's folder, times, ports, and what matches `more` are
/// replaced.
#[track_caller]
pub fn expect_text(
    name: &str,
    folder: &impl AsRef<Path>,
    text: &dyn std::fmt::Display,
    more: &[(&str, &str)],
) {
    let folder = regex_of(folder.as_ref().to_str().unwrap());
    let filters = [
        (folder.as_str(), "DIR"),
        (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "TIME"),
        (r"(localhost|127\.0\.0\.1|\[::1\]):\d{4,5}", "localhost:PORT"),
        // Only a slow machine says this, and has time for a line of progress.
        (r"(?m)^waiting for an answer to .*\n", ""),
        (r"(?m)^.*\d+ of \d+ \w+, .*\bETA .*\n", ""),
    ];
    let filters: Vec<_> = filters.iter().chain(more).copied().collect();
    insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true, filters => filters }, {
        insta::assert_snapshot!(name, text.to_string());
    });
}

/// A pattern that matches `text` and nothing else.
fn regex_of(text: &str) -> String {
    let escaped = |character: char| {
        if character.is_ascii_alphanumeric() { character.to_string() } else { format!("\\{character}") }
    };
    text.chars().map(escaped).collect()
}

pub fn signal(child: &Child, signal: &str) {
    let pid = child.id().to_string();
    assert!(Command::new("kill").args([&format!("-{signal}"), &pid]).status().unwrap().success());
}

pub fn summary(file: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
}

/// One column of a query on a ledger, as text. A ledger that is just being opened or closed is asked again.
pub fn column(ledger: &Path, sql: &str) -> Vec<String> {
    let mut attempts = 0;
    loop {
        match try_column(ledger, sql) {
            Ok(column) => return column,
            Err(error) if attempts == 50 => panic!("{sql}: {error}"),
            Err(_) => attempts += 1,
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

fn try_column(ledger: &Path, sql: &str) -> rusqlite::Result<Vec<String>> {
    let db = Connection::open_with_flags(ledger, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let mut query = db.prepare(sql)?;
    let rows = query.query_map([], |row| {
        Ok(match row.get(0)? {
            rusqlite::types::Value::Null => String::new(),
            rusqlite::types::Value::Integer(number) => number.to_string(),
            rusqlite::types::Value::Text(text) => text,
            other => panic!("{sql}: {other:?} is not text"),
        })
    })?;
    rows.collect()
}
