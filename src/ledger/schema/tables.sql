-- The tables of a ledger of schema 5, and the views that people look at.
--
-- Each row of weight has a digest of itself. Triggers keep it up to date, so that no statement can forget to; one that gives
-- the digest itself saves writing a row twice.

-- The lot, and what the ledger is bound to. `content` is what decides the content of an identity beside its row: JSON. NULL
-- where an older version did not write it down. `shard` of `shards`, where the ledger has only some of the lot's rows.
CREATE TABLE lot (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    source TEXT NOT NULL,
    digest TEXT NOT NULL,
    columns TEXT NOT NULL CHECK (json_valid(columns)),
    key_column TEXT NOT NULL,
    devices INTEGER NOT NULL CHECK (devices >= 0),
    template TEXT NOT NULL,
    region TEXT NOT NULL,
    account TEXT NOT NULL,
    created_at TEXT NOT NULL,
    content TEXT CHECK (content IS NULL OR json_valid(content)),
    shard INTEGER CHECK (shard >= 0 AND shard < shards),
    shards INTEGER CHECK (shards > 0),
    row_digest INTEGER,
    CHECK ((shard IS NULL) = (shards IS NULL))
) STRICT;
CREATE TRIGGER lot_added AFTER INSERT ON lot BEGIN
    UPDATE lot SET row_digest = row_digest(
        source, digest, columns, key_column, devices, template, region, account, created_at, content, shard, shards);
END;
CREATE TRIGGER lot_changed AFTER UPDATE OF
    source, digest, columns, key_column, devices, template, region, account, created_at, content, shard, shards ON lot
BEGIN
    UPDATE lot SET row_digest = row_digest(
        source, digest, columns, key_column, devices, template, region, account, created_at, content, shard, shards);
END;

CREATE TABLE run (
    id INTEGER PRIMARY KEY,
    started_at TEXT NOT NULL,
    ended_at TEXT,
    pid INTEGER NOT NULL,
    settings TEXT NOT NULL CHECK (json_valid(settings)),
    outcome TEXT,
    summary TEXT CHECK (summary IS NULL OR json_valid(summary))
) STRICT;

-- How many commits there were after the import.
CREATE TABLE progress (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    commits INTEGER NOT NULL
) STRICT;
INSERT INTO progress (id, commits) VALUES (1, 0);

-- `withdrawn`: its row is no longer in the lot. `removed`: what was made for it was taken out of the account again.
-- `request_digest` is the SHA-256 of the certification request that came with the row.
CREATE TABLE device (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    line INTEGER NOT NULL,
    parameter_values TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'pending'
        CHECK (state IN ('pending', 'issued', 'registered', 'rejected', 'unknown', 'withdrawn', 'removed')),
    registration TEXT CHECK (registration IN ('not_sent', 'may_sent')),
    thing_name TEXT UNIQUE,
    device_configuration TEXT,
    failure_stage TEXT,
    failure_cause TEXT,
    failure TEXT,
    updated_at TEXT,
    run INTEGER REFERENCES run (id),
    digest INTEGER,
    request_digest BLOB,
    CHECK ((state = 'issued') = (registration IS NOT NULL))
) STRICT;
CREATE INDEX device_open ON device (id) WHERE state IN ('pending', 'issued');
CREATE TRIGGER device_added AFTER INSERT ON device WHEN NEW.digest IS NULL BEGIN
    UPDATE device SET digest = row_digest(
        id, key, parameter_values, state, registration, thing_name, device_configuration,
        failure_stage, failure_cause, failure, updated_at, request_digest)
    WHERE id = NEW.id;
END;
CREATE TRIGGER device_changed AFTER UPDATE OF
    id, key, parameter_values, state, registration, thing_name, device_configuration,
    failure_stage, failure_cause, failure, updated_at, request_digest
    ON device WHEN NEW.digest IS OLD.digest
BEGIN
    UPDATE device SET digest = row_digest(
        id, key, parameter_values, state, registration, thing_name, device_configuration,
        failure_stage, failure_cause, failure, updated_at, request_digest)
    WHERE id = NEW.id;
END;

-- The lists of recipients that keys are sealed to; a key without one is in plain text.
CREATE TABLE sealing (
    id INTEGER PRIMARY KEY,
    recipients TEXT NOT NULL UNIQUE CHECK (json_valid(recipients))
) STRICT;

CREATE TABLE export (
    id INTEGER PRIMARY KEY,
    exported_at TEXT NOT NULL,
    destination TEXT NOT NULL,
    devices INTEGER NOT NULL
) STRICT;

-- The keys that are made here, or whose requests came with the lot, for devices that are not registered yet; a credential has
-- a copy. No private key where it never leaves the device.
CREATE TABLE prepared_key (
    device INTEGER PRIMARY KEY REFERENCES device (id),
    private_key TEXT,
    sealing INTEGER REFERENCES sealing (id),
    signing_request TEXT NOT NULL,
    prepared_at TEXT NOT NULL,
    run INTEGER REFERENCES run (id),
    digest INTEGER
) STRICT;
CREATE TRIGGER prepared_key_added AFTER INSERT ON prepared_key WHEN NEW.digest IS NULL BEGIN
    UPDATE prepared_key SET digest = row_digest(device, private_key, sealing, signing_request)
    WHERE device = NEW.device;
END;
CREATE TRIGGER prepared_key_changed AFTER UPDATE OF device, private_key, sealing, signing_request ON prepared_key BEGIN
    UPDATE prepared_key SET digest = row_digest(device, private_key, sealing, signing_request)
    WHERE device = NEW.device;
END;

-- The certificates with their keys. BLOBs are DER (and the bytes of an id), where that gives the same text back; what is TEXT
-- is as it came. `private_key_label` is the label of a key's PEM. The one that a device has in use is not retired. Rows come in
-- the order of their ids and are not changed by a registration: each page is written once.
-- `deleted_at`: the account has it no more. `export` is the last export that has the key.
CREATE TABLE credential (
    id INTEGER PRIMARY KEY,
    device INTEGER NOT NULL REFERENCES device (id),
    certificate_id ANY NOT NULL,
    certificate ANY NOT NULL,
    private_key ANY,
    private_key_label TEXT,
    issued_at TEXT NOT NULL,
    run INTEGER REFERENCES run (id),
    retired_at TEXT,
    sealing INTEGER REFERENCES sealing (id),
    purged_at TEXT,
    deleted_at TEXT,
    digest INTEGER,
    export INTEGER REFERENCES export (id)
) STRICT;
CREATE UNIQUE INDEX credential_in_use ON credential (device) WHERE retired_at IS NULL;
CREATE TRIGGER credential_added AFTER INSERT ON credential WHEN NEW.digest IS NULL BEGIN
    UPDATE credential SET digest = row_digest(
        id, device, certificate_id, certificate, private_key, private_key_label, issued_at, retired_at, sealing,
        purged_at, deleted_at)
    WHERE id = NEW.id;
END;
CREATE TRIGGER credential_changed AFTER UPDATE OF
    id, device, certificate_id, certificate, private_key, private_key_label, issued_at, retired_at, sealing,
    purged_at, deleted_at
    ON credential WHEN NEW.digest IS OLD.digest
BEGIN
    UPDATE credential SET digest = row_digest(
        id, device, certificate_id, certificate, private_key, private_key_label, issued_at, retired_at, sealing,
        purged_at, deleted_at)
    WHERE id = NEW.id;
END;

-- The ownership tokens of credentials in use, until they are used up: narrow and short-lived.
CREATE TABLE token (
    device INTEGER PRIMARY KEY REFERENCES device (id),
    ownership_token TEXT NOT NULL,
    digest INTEGER
) STRICT;
CREATE TRIGGER token_added AFTER INSERT ON token WHEN NEW.digest IS NULL BEGIN
    UPDATE token SET digest = row_digest(device, ownership_token) WHERE device = NEW.device;
END;
CREATE TRIGGER token_changed AFTER UPDATE OF device, ownership_token ON token BEGIN
    UPDATE token SET digest = row_digest(device, ownership_token) WHERE device = NEW.device;
END;

-- Registered devices that get, or got, another certificate: what each had before.
CREATE TABLE rework (
    id INTEGER PRIMARY KEY,
    device INTEGER NOT NULL REFERENCES device (id),
    credential INTEGER NOT NULL REFERENCES credential (id),
    thing_name TEXT,
    registered_at TEXT,
    begun_at TEXT NOT NULL,
    deactivated_at TEXT,
    run INTEGER REFERENCES run (id)
) STRICT;

-- What was last found out about a device by a verb that looks at the account, or takes something out of it.
CREATE TABLE finding (
    device INTEGER NOT NULL REFERENCES device (id),
    verb TEXT NOT NULL,
    found_at TEXT NOT NULL,
    outcome TEXT NOT NULL,
    details TEXT NOT NULL CHECK (json_valid(details)),
    run INTEGER REFERENCES run (id),
    PRIMARY KEY (device, verb)
) STRICT, WITHOUT ROWID;

CREATE VIEW devices AS
    SELECT device.id, device.key, device.line, device.state, device.thing_name,
           iif(typeof(credential.certificate_id) = 'blob', lower(hex(credential.certificate_id)),
               credential.certificate_id) AS certificate_id,
           credential.issued_at, device.registration, device.failure_stage, device.failure_cause, device.failure,
           device.updated_at, device.run,
           CASE WHEN credential.purged_at IS NOT NULL THEN 'purged'
                WHEN coalesce(credential.sealing, prepared_key.sealing) IS NOT NULL THEN 'sealed'
                WHEN coalesce(credential.private_key, prepared_key.private_key) IS NOT NULL THEN 'plain' END AS private_key,
           export.exported_at, export.destination AS exported_to
    FROM device
    LEFT JOIN credential ON credential.device = device.id AND credential.retired_at IS NULL
    LEFT JOIN prepared_key ON prepared_key.device = device.id
    LEFT JOIN export ON export.id = credential.export;

CREATE VIEW lot_status AS
    SELECT lot.source, lot.template, lot.region, lot.account, lot.devices,
           count(*) FILTER (WHERE device.state = 'pending') AS pending,
           count(*) FILTER (WHERE device.state = 'issued') AS issued,
           count(*) FILTER (WHERE device.state = 'registered') AS registered,
           count(*) FILTER (WHERE device.state = 'rejected') AS rejected,
           count(*) FILTER (WHERE device.state = 'unknown') AS unknown,
           max(device.updated_at) AS updated_at
    FROM lot, device;

-- The certificates as the table of that name showed them before schema 5: PEM. Base 64 is worked out in SQL, three bytes at a
-- time, for any sqlite3 to read; it takes milliseconds a text.
CREATE VIEW certificate AS
    SELECT iif(typeof(certificate_id) = 'blob', lower(hex(certificate_id)), certificate_id) AS certificate_id,
           device,
           iif(typeof(certificate) = 'blob',
               '-----BEGIN CERTIFICATE-----' || char(10) || {base64 certificate} || char(10)
               || '-----END CERTIFICATE-----' || char(10),
               certificate) AS certificate_pem,
           iif(typeof(private_key) = 'blob',
               '-----BEGIN ' || private_key_label || '-----' || char(10) || {base64 private_key} || char(10)
               || '-----END ' || private_key_label || '-----' || char(10),
               private_key) AS private_key,
           (SELECT ownership_token FROM token
            WHERE token.device = credential.device AND credential.retired_at IS NULL) AS ownership_token,
           issued_at, run, retired_at, sealing, export, purged_at, digest
    FROM credential;
