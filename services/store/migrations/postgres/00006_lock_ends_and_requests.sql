-- +goose Up

-- How grants of locks ended, for a day. The database refuses to write under one that was ended by
-- its holder or by another user.
CREATE TABLE lock_ends (
    grant_id TEXT    PRIMARY KEY,
    resource TEXT    NOT NULL,
    how      TEXT    NOT NULL,
    by_id    BIGINT,                             -- NULL if no user did, or that is not known
    by_email TEXT    NOT NULL,
    reason   TEXT    NOT NULL,
    at       BIGINT  NOT NULL
);
CREATE INDEX lock_ends_by_time ON lock_ends (at);

-- Who asked the holder of a lock for it, and what came of it. A request is pending while its state
-- is open or later.
CREATE TABLE lock_requests (
    id           TEXT    PRIMARY KEY,
    process_id   BIGINT  NOT NULL REFERENCES processes (id) ON DELETE CASCADE,
    user_id      BIGINT  NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    state        TEXT    NOT NULL,
    pending      BOOLEAN NOT NULL,
    message      TEXT    NOT NULL,                -- the asker's
    reply        TEXT    NOT NULL DEFAULT '',     -- the holder's
    asked_at     BIGINT  NOT NULL,
    seen_at      BIGINT  NOT NULL,                -- when the asker looked last, to within seconds
    answer_by    BIGINT  NOT NULL,
    answered_at  BIGINT,
    holder_grant TEXT    NOT NULL,                -- that had the lock when it was asked for
    grant_id     TEXT,                            -- the asker's, once given
    fetch_by     BIGINT,                         -- until when the asker has to fetch it
    fetched      BOOLEAN NOT NULL DEFAULT FALSE
);
CREATE UNIQUE INDEX lock_requests_pending ON lock_requests (process_id, user_id) WHERE pending;
CREATE INDEX lock_requests_to_settle ON lock_requests (process_id, asked_at) WHERE pending OR (state = 'given' AND NOT fetched);
CREATE INDEX lock_requests_by_user ON lock_requests (user_id);
CREATE INDEX lock_requests_over ON lock_requests (answered_at) WHERE NOT pending;
