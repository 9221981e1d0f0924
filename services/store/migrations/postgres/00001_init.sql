-- Times are Unix microseconds, UTC. This file and its twin in ../sqlite must
-- describe the same tables.

-- +goose Up

CREATE TABLE users (
    id            BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    email         TEXT    NOT NULL UNIQUE,
    password_hash TEXT    NOT NULL,
    roles         TEXT    NOT NULL,               -- comma-separated
    admin         BOOLEAN NOT NULL,               -- roles include admin
    disabled      BOOLEAN NOT NULL DEFAULT FALSE,
    epoch         BIGINT  NOT NULL DEFAULT 1,     -- + 1 ends every session of the user
    created_at    BIGINT  NOT NULL
);

-- One row, written first by whoever may remove an administrator, so that two
-- of them take turns.
CREATE TABLE admin_guard (
    one   SMALLINT PRIMARY KEY CHECK (one = 1),
    turns BIGINT  NOT NULL
);
INSERT INTO admin_guard (one, turns) VALUES (1, 0);

-- updated_by is no foreign key and the address is a copy: a process outlives
-- the user who wrote it.
CREATE TABLE processes (
    id               BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    title            TEXT    NOT NULL,
    title_folded     TEXT    NOT NULL,            -- for search in any case
    status           TEXT    NOT NULL,
    description      TEXT    NOT NULL,
    version          BIGINT  NOT NULL,
    last_grant       TEXT,                        -- lock grant of the last write, NULL without a lock
    created_at       BIGINT  NOT NULL,
    updated_at       BIGINT  NOT NULL,
    updated_by       BIGINT,
    updated_by_email TEXT    NOT NULL
);
CREATE INDEX processes_by_change ON processes (updated_at DESC, id DESC);

-- The head of the revocation log. seq is the last number given; era is the one
-- that a session must have to be valid, + 1 ends everybody's.
CREATE TABLE revocation_head (
    one SMALLINT PRIMARY KEY CHECK (one = 1),
    seq BIGINT  NOT NULL,
    era BIGINT  NOT NULL
);
INSERT INTO revocation_head (one, seq, era) VALUES (1, 0, 1);

-- An entry with neither session_hash nor user_id is about everybody.
CREATE TABLE revocations (
    seq          BIGINT PRIMARY KEY,
    at           BIGINT  NOT NULL,
    session_hash TEXT,
    user_id      BIGINT
);

CREATE TABLE sessions (
    hash       TEXT    PRIMARY KEY,               -- SHA-256 of the token
    id         TEXT    NOT NULL,                  -- public name
    user_id    BIGINT REFERENCES users (id) ON DELETE CASCADE, -- NULL: nobody signed in
    epoch      BIGINT  NOT NULL,
    era        BIGINT  NOT NULL,
    data       BYTEA,
    version    BIGINT  NOT NULL,
    created_at BIGINT  NOT NULL,
    last_seen  BIGINT  NOT NULL,
    idle_at    BIGINT  NOT NULL,
    expires_at BIGINT  NOT NULL,
    user_agent TEXT    NOT NULL,
    ip         TEXT    NOT NULL
);
CREATE INDEX sessions_by_user ON sessions (user_id);

CREATE TABLE audit (
    id         BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at         BIGINT  NOT NULL,
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
    user_id BIGINT  NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    network TEXT    NOT NULL,
    at      BIGINT  NOT NULL,
    PRIMARY KEY (user_id, network)
);

CREATE TABLE settings (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
);
