-- Times are Unix microseconds, UTC. This file and its twin in ../postgres must
-- describe the same tables. All pending migrations of SQLite run inside one
-- transaction that the caller opens, hence NO TRANSACTION.

-- +goose NO TRANSACTION
-- +goose Up

CREATE TABLE users (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    email         TEXT    NOT NULL UNIQUE,
    password_hash TEXT    NOT NULL,
    roles         TEXT    NOT NULL,               -- comma-separated
    admin         BOOLEAN NOT NULL,               -- roles include admin
    disabled      BOOLEAN NOT NULL DEFAULT FALSE,
    epoch         INTEGER NOT NULL DEFAULT 1,     -- + 1 ends every session of the user
    created_at    INTEGER NOT NULL
);

-- One row, written first by whoever may remove an administrator, so that two
-- of them take turns.
CREATE TABLE admin_guard (
    one   INTEGER PRIMARY KEY CHECK (one = 1),
    turns INTEGER NOT NULL
);
INSERT INTO admin_guard (one, turns) VALUES (1, 0);

-- updated_by is no foreign key and the address is a copy: a process outlives
-- the user who wrote it.
CREATE TABLE processes (
    id               INTEGER PRIMARY KEY AUTOINCREMENT,
    title            TEXT    NOT NULL,
    title_folded     TEXT    NOT NULL,            -- for search in any case
    status           TEXT    NOT NULL,
    description      TEXT    NOT NULL,
    version          INTEGER NOT NULL,
    last_grant       TEXT,                        -- lock grant of the last write, NULL without a lock
    created_at       INTEGER NOT NULL,
    updated_at       INTEGER NOT NULL,
    updated_by       INTEGER,
    updated_by_email TEXT    NOT NULL
);
CREATE INDEX processes_by_change ON processes (updated_at DESC, id DESC);

-- The head of the revocation log. seq is the last number given; era is the one
-- that a session must have to be valid, + 1 ends everybody's.
CREATE TABLE revocation_head (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    seq INTEGER NOT NULL,
    era INTEGER NOT NULL
);
INSERT INTO revocation_head (one, seq, era) VALUES (1, 0, 1);

-- An entry with neither session_hash nor user_id is about everybody.
CREATE TABLE revocations (
    seq          INTEGER PRIMARY KEY,
    at           INTEGER NOT NULL,
    session_hash TEXT,
    user_id      INTEGER
);

CREATE TABLE sessions (
    hash       TEXT    PRIMARY KEY,               -- SHA-256 of the token
    id         TEXT    NOT NULL,                  -- public name
    user_id    INTEGER REFERENCES users (id) ON DELETE CASCADE, -- NULL: nobody signed in
    epoch      INTEGER NOT NULL,
    era        INTEGER NOT NULL,
    data       BLOB,
    version    INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    last_seen  INTEGER NOT NULL,
    idle_at    INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    user_agent TEXT    NOT NULL,
    ip         TEXT    NOT NULL
);
CREATE INDEX sessions_by_user ON sessions (user_id);

CREATE TABLE audit (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    at         INTEGER NOT NULL,
    action     TEXT    NOT NULL,
    actor      TEXT    NOT NULL,
    target     TEXT    NOT NULL,
    ip         TEXT    NOT NULL,
    request_id TEXT    NOT NULL,
    detail     TEXT    NOT NULL
);
CREATE INDEX audit_by_action ON audit (action, id);

-- Where a user signed in from, and when last.
CREATE TABLE networks (
    user_id INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    network TEXT    NOT NULL,
    at      INTEGER NOT NULL,
    PRIMARY KEY (user_id, network)
);

CREATE TABLE settings (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
);
