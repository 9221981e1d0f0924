-- +goose Up

-- Who had the lock that ended, since when and under which fence; NULL if that is not known.
ALTER TABLE lock_ends ADD COLUMN holder_id BIGINT;
ALTER TABLE lock_ends ADD COLUMN holder_email TEXT;
ALTER TABLE lock_ends ADD COLUMN granted_at BIGINT;
ALTER TABLE lock_ends ADD COLUMN fence BIGINT;
CREATE INDEX lock_ends_by_resource ON lock_ends (resource, at);
