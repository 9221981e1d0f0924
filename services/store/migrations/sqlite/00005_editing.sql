-- +goose NO TRANSACTION
-- +goose Up

-- What a user has typed and not saved: one for each user and process. Long texts stand last in
-- their rows, so that what comes before them is read without them.
CREATE TABLE drafts (
    process_id   INTEGER NOT NULL REFERENCES processes (id) ON DELETE CASCADE,
    user_id      INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    status       TEXT    NOT NULL,
    base_version INTEGER NOT NULL,                -- the version that the text began from
    saved_at     INTEGER NOT NULL,
    title        TEXT    NOT NULL,
    description  TEXT    NOT NULL,
    PRIMARY KEY (process_id, user_id)
);
CREATE INDEX drafts_by_user ON drafts (user_id);

-- How the last write came about; its lock is last_grant.
ALTER TABLE processes ADD COLUMN last_how TEXT NOT NULL DEFAULT 'edited';
ALTER TABLE processes ADD COLUMN last_fence INTEGER;
ALTER TABLE processes ADD COLUMN last_request TEXT NOT NULL DEFAULT '';

-- Every version of every process, and rows without a version: deletions, and saves that were
-- refused. It has no foreign keys: what was done outlives the process and the user.
CREATE TABLE process_versions (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    process_id  INTEGER NOT NULL,
    version     INTEGER,
    entry       INTEGER,                          -- the row that begins the editing session, NULL in that row
    at          INTEGER NOT NULL,
    created_at  INTEGER NOT NULL,                 -- of the process
    actor_id    INTEGER,
    actor_email TEXT    NOT NULL,
    how         TEXT    NOT NULL,
    grant_id    TEXT,
    fence       INTEGER,
    request_id  TEXT    NOT NULL,
    status      TEXT    NOT NULL,
    title       TEXT    NOT NULL,
    description TEXT    NOT NULL
);
CREATE UNIQUE INDEX process_versions_by_version ON process_versions (process_id, version);
CREATE INDEX process_versions_by_entry ON process_versions (process_id, entry, id);
CREATE INDEX process_versions_refused ON process_versions (at) WHERE how = 'refused';

-- Triggers keep the versions: a write stays one statement, and none can forget them.
-- +goose StatementBegin
CREATE TRIGGER processes_created AFTER INSERT ON processes
BEGIN
    INSERT INTO process_versions (process_id, version, at, created_at, actor_id, actor_email, how, grant_id, fence, request_id, status, title, description)
    VALUES (NEW.id, NEW.version, NEW.updated_at, NEW.created_at, NEW.updated_by, NEW.updated_by_email, 'created', NEW.last_grant, NEW.last_fence,
            NEW.last_request, NEW.status, NEW.title, NEW.description);
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER processes_changed AFTER UPDATE ON processes WHEN NEW.version <> OLD.version
BEGIN
    INSERT INTO process_versions (process_id, version, entry, at, created_at, actor_id, actor_email, how, grant_id, fence, request_id, status, title, description)
    VALUES (NEW.id, NEW.version,
            (SELECT COALESCE(last.entry, last.id) FROM process_versions AS last
              WHERE last.process_id = NEW.id AND last.version = OLD.version AND last.grant_id = NEW.last_grant AND last.how = NEW.last_how),
            NEW.updated_at, NEW.created_at, NEW.updated_by, NEW.updated_by_email, NEW.last_how, NEW.last_grant, NEW.last_fence,
            NEW.last_request, NEW.status, NEW.title, NEW.description);
END;
-- +goose StatementEnd

INSERT INTO process_versions (process_id, version, at, created_at, actor_id, actor_email, how, grant_id, request_id, status, title, description)
SELECT id, version, updated_at, created_at, updated_by, updated_by_email, CASE version WHEN 1 THEN 'created' ELSE 'edited' END, last_grant,
       '', status, title, description
  FROM processes ORDER BY id;

-- Why a write or a lock was refused, for a day. version is the one that the process had then.
CREATE TABLE refusals (
    request_id TEXT    NOT NULL,
    user_id    INTEGER NOT NULL,
    at         INTEGER NOT NULL,
    status     INTEGER NOT NULL,
    type       TEXT    NOT NULL,
    resource   TEXT    NOT NULL,
    version    INTEGER,
    body       TEXT    NOT NULL,                  -- JSON: detail, holder, endedBy as they were answered
    PRIMARY KEY (request_id, user_id)
);
CREATE INDEX refusals_by_time ON refusals (at);
