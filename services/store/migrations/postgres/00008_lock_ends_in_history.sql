-- +goose Up

-- How the lock of an editing session ended, in the row that begins the session: lock_ends forgets it
-- after a day, the history does not.
ALTER TABLE process_versions ADD COLUMN ended_how TEXT;
ALTER TABLE process_versions ADD COLUMN ended_at BIGINT;
ALTER TABLE process_versions ADD COLUMN ended_by_id BIGINT;
ALTER TABLE process_versions ADD COLUMN ended_by_email TEXT;
ALTER TABLE process_versions ADD COLUMN ended_reason TEXT;
CREATE INDEX process_versions_by_grant ON process_versions (grant_id) WHERE entry IS NULL;

-- +goose StatementBegin
CREATE FUNCTION keep_lock_end() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE process_versions
       SET ended_how = NEW.how, ended_at = NEW.at, ended_by_id = NEW.by_id, ended_by_email = NEW.by_email, ended_reason = NEW.reason
     WHERE grant_id = NEW.grant_id AND entry IS NULL;
    RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER lock_ends_kept AFTER INSERT OR UPDATE ON lock_ends FOR EACH ROW EXECUTE FUNCTION keep_lock_end();
