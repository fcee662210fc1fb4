//! The schemas of older versions, oldest first. Never edit them: ledgers of each still exist.

/// Each entry upgrades a ledger by one version; the first one creates version 1.
pub(super) const HISTORY: [&str; 4] = [SCHEMA_1, SCHEMA_KEYS, SCHEMA_DIGESTS, SCHEMA_GIVEN_DIGESTS];

/// `progress.commits` counts the commits after the import; [`lock`](crate::ledger::lock) explains its use.
///
/// A device's current certificate is its one row in `certificate` that is not retired. The partial indexes guarantee
/// that there is only one, and that reading a page of open devices costs no more than the page's length.
const SCHEMA_1: &str = "
CREATE TABLE lot (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    source TEXT NOT NULL,
    digest TEXT NOT NULL,
    columns TEXT NOT NULL CHECK (json_valid(columns)),
    key_column TEXT NOT NULL,
    devices INTEGER NOT NULL CHECK (devices > 0),
    template TEXT NOT NULL,
    region TEXT NOT NULL,
    account TEXT NOT NULL,
    created_at TEXT NOT NULL
) STRICT;

CREATE TABLE run (
    id INTEGER PRIMARY KEY,
    started_at TEXT NOT NULL,
    ended_at TEXT,
    pid INTEGER NOT NULL,
    settings TEXT NOT NULL CHECK (json_valid(settings)),
    outcome TEXT,
    summary TEXT CHECK (summary IS NULL OR json_valid(summary))
) STRICT;

CREATE TABLE progress (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    commits INTEGER NOT NULL
) STRICT;
INSERT INTO progress (id, commits) VALUES (1, 0);

CREATE TABLE device (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    line INTEGER NOT NULL,
    parameter_values TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'pending'
        CHECK (state IN ('pending', 'issued', 'registered', 'rejected', 'unknown')),
    registration TEXT CHECK (registration IN ('not_sent', 'may_sent')),
    thing_name TEXT UNIQUE,
    device_configuration TEXT,
    failure_stage TEXT,
    failure_cause TEXT,
    failure TEXT,
    updated_at TEXT,
    run INTEGER REFERENCES run (id),
    CHECK ((state = 'issued') = (registration IS NOT NULL))
) STRICT;
CREATE INDEX device_open ON device (id) WHERE state IN ('pending', 'issued');

CREATE TABLE certificate (
    certificate_id TEXT NOT NULL PRIMARY KEY,
    device INTEGER NOT NULL REFERENCES device (id),
    certificate_pem TEXT NOT NULL,
    private_key TEXT NOT NULL,
    ownership_token TEXT,
    issued_at TEXT NOT NULL,
    run INTEGER REFERENCES run (id),
    retired_at TEXT
) STRICT;
CREATE UNIQUE INDEX certificate_in_use ON certificate (device) WHERE retired_at IS NULL;

CREATE VIEW devices AS
    SELECT device.id, device.key, device.line, device.state, device.thing_name, certificate.certificate_id,
           certificate.issued_at, device.registration, device.failure_stage, device.failure_cause, device.failure,
           device.updated_at, device.run
    FROM device
    LEFT JOIN certificate ON certificate.device = device.id AND certificate.retired_at IS NULL;

CREATE VIEW lot_status AS
    SELECT lot.source, lot.template, lot.region, lot.account, lot.devices,
           count(*) FILTER (WHERE device.state = 'pending') AS pending,
           count(*) FILTER (WHERE device.state = 'issued') AS issued,
           count(*) FILTER (WHERE device.state = 'registered') AS registered,
           count(*) FILTER (WHERE device.state = 'rejected') AS rejected,
           count(*) FILTER (WHERE device.state = 'unknown') AS unknown,
           max(device.updated_at) AS updated_at
    FROM lot, device;
";

/// Keys that are made here, sealed, exported and purged.
///
/// `prepared_key` has the keys made here for devices that are not registered yet; the certificate gets a copy.
/// `sealing` has the lists of recipients; a key without one is in plain text. `certificate.export` is the last export
/// that includes the key.
const SCHEMA_KEYS: &str = "
CREATE TABLE sealing (
    id INTEGER PRIMARY KEY,
    recipients TEXT NOT NULL UNIQUE CHECK (json_valid(recipients))
) STRICT;

CREATE TABLE prepared_key (
    device INTEGER PRIMARY KEY REFERENCES device (id),
    private_key TEXT NOT NULL,
    sealing INTEGER REFERENCES sealing (id),
    signing_request TEXT NOT NULL,
    prepared_at TEXT NOT NULL,
    run INTEGER REFERENCES run (id)
) STRICT;

CREATE TABLE export (
    id INTEGER PRIMARY KEY,
    exported_at TEXT NOT NULL,
    destination TEXT NOT NULL,
    devices INTEGER NOT NULL
) STRICT;

ALTER TABLE certificate ADD COLUMN sealing INTEGER REFERENCES sealing (id);
ALTER TABLE certificate ADD COLUMN export INTEGER REFERENCES export (id);
ALTER TABLE certificate ADD COLUMN purged_at TEXT;

DROP VIEW devices;
CREATE VIEW devices AS
    SELECT device.id, device.key, device.line, device.state, device.thing_name, certificate.certificate_id,
           certificate.issued_at, device.registration, device.failure_stage, device.failure_cause, device.failure,
           device.updated_at, device.run,
           CASE WHEN certificate.purged_at IS NOT NULL THEN 'purged'
                WHEN coalesce(certificate.sealing, prepared_key.sealing) IS NOT NULL THEN 'sealed'
                WHEN coalesce(certificate.device, prepared_key.device) IS NOT NULL THEN 'plain' END AS private_key,
           export.exported_at, export.destination AS exported_to
    FROM device
    LEFT JOIN certificate ON certificate.device = device.id AND certificate.retired_at IS NULL
    LEFT JOIN prepared_key ON prepared_key.device = device.id
    LEFT JOIN export ON export.id = certificate.export;
";

/// Each important row has a digest; see [`integrity`](crate::ledger::integrity). Triggers keep it up to date, so that
/// no statement can forget to. A statement that provides the digest itself saves writing the row twice.
const SCHEMA_DIGESTS: &str = "
ALTER TABLE certificate ADD COLUMN digest INTEGER;
CREATE TRIGGER certificate_added AFTER INSERT ON certificate WHEN NEW.digest IS NULL BEGIN
    UPDATE certificate SET digest = row_digest(
        certificate_id, device, certificate_pem, private_key, ownership_token, issued_at, retired_at, sealing, purged_at)
    WHERE certificate_id = NEW.certificate_id;
END;
CREATE TRIGGER certificate_changed AFTER UPDATE OF
    certificate_id, device, certificate_pem, private_key, ownership_token, issued_at, retired_at, sealing, purged_at
    ON certificate WHEN NEW.digest IS OLD.digest
BEGIN
    UPDATE certificate SET digest = row_digest(
        certificate_id, device, certificate_pem, private_key, ownership_token, issued_at, retired_at, sealing, purged_at)
    WHERE certificate_id = NEW.certificate_id;
END;

ALTER TABLE device ADD COLUMN digest INTEGER;
CREATE TRIGGER device_changed AFTER UPDATE OF
    id, key, parameter_values, state, registration, thing_name, device_configuration ON device
BEGIN
    UPDATE device SET digest = row_digest(
        id, key, parameter_values, state, registration, thing_name, device_configuration)
    WHERE id = NEW.id;
END;

ALTER TABLE prepared_key ADD COLUMN digest INTEGER;
CREATE TRIGGER prepared_key_added AFTER INSERT ON prepared_key BEGIN
    UPDATE prepared_key SET digest = row_digest(device, private_key, sealing, signing_request)
    WHERE device = NEW.device;
END;
CREATE TRIGGER prepared_key_changed AFTER UPDATE OF device, private_key, sealing, signing_request ON prepared_key BEGIN
    UPDATE prepared_key SET digest = row_digest(device, private_key, sealing, signing_request)
    WHERE device = NEW.device;
END;

UPDATE certificate SET device = device;
UPDATE prepared_key SET device = device;
UPDATE device SET state = state WHERE state <> 'pending';
";

/// A statement can provide a device's or a prepared key's digest itself, which saves writing the row twice, as it does
/// for certificates.
const SCHEMA_GIVEN_DIGESTS: &str = "
DROP TRIGGER device_changed;
CREATE TRIGGER device_changed AFTER UPDATE OF
    id, key, parameter_values, state, registration, thing_name, device_configuration
    ON device WHEN NEW.digest IS OLD.digest
BEGIN
    UPDATE device SET digest = row_digest(
        id, key, parameter_values, state, registration, thing_name, device_configuration)
    WHERE id = NEW.id;
END;

DROP TRIGGER prepared_key_added;
CREATE TRIGGER prepared_key_added AFTER INSERT ON prepared_key WHEN NEW.digest IS NULL BEGIN
    UPDATE prepared_key SET digest = row_digest(device, private_key, sealing, signing_request)
    WHERE device = NEW.device;
END;
";
