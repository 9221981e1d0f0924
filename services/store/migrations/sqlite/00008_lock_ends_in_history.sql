-- +goose NO TRANSACTION
-- +goose Up

-- How the lock of an editing session ended, in the row that begins the session: lock_ends forgets it
-- after a day, the history does not.
ALTER TABLE process_versions ADD COLUMN ended_how TEXT;
ALTER TABLE process_versions ADD COLUMN ended_at INTEGER;
ALTER TABLE process_versions ADD COLUMN ended_by_id INTEGER;
ALTER TABLE process_versions ADD COLUMN ended_by_email TEXT;
ALTER TABLE process_versions ADD COLUMN ended_reason TEXT;
CREATE INDEX process_versions_by_grant ON process_versions (grant_id) WHERE entry IS NULL;

-- +goose StatementBegin
CREATE TRIGGER lock_ends_added AFTER INSERT ON lock_ends
BEGIN
    UPDATE process_versions
       SET ended_how = NEW.how, ended_at = NEW.at, ended_by_id = NEW.by_id, ended_by_email = NEW.by_email, ended_reason = NEW.reason
     WHERE grant_id = NEW.grant_id AND entry IS NULL;
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER lock_ends_changed AFTER UPDATE ON lock_ends
BEGIN
    UPDATE process_versions
       SET ended_how = NEW.how, ended_at = NEW.at, ended_by_id = NEW.by_id, ended_by_email = NEW.by_email, ended_reason = NEW.reason
     WHERE grant_id = NEW.grant_id AND entry IS NULL;
END;
-- +goose StatementEnd
