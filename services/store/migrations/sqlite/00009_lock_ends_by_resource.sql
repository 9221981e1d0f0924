-- +goose NO TRANSACTION
-- +goose Up

-- Who had the lock that ended, since when and under which fence; NULL if that is not known.
ALTER TABLE lock_ends ADD COLUMN holder_id INTEGER;
ALTER TABLE lock_ends ADD COLUMN holder_email TEXT;
ALTER TABLE lock_ends ADD COLUMN granted_at INTEGER;
ALTER TABLE lock_ends ADD COLUMN fence INTEGER;
CREATE INDEX lock_ends_by_resource ON lock_ends (resource, at);
