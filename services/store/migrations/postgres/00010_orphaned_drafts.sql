-- +goose Up

-- Drafts whose process was deleted, with another text than that had in the end. Their users make new
-- processes from them, or discard them. They go with their user, without a foreign key: a check of
-- that would let a deletion of the process wait for one of the user, and that one for the process.
CREATE TABLE orphaned_drafts (
    process_id   BIGINT  NOT NULL,                -- that is not there any more
    user_id      BIGINT  NOT NULL,
    status       TEXT    NOT NULL,
    base_version BIGINT  NOT NULL,
    saved_at     BIGINT  NOT NULL,
    title        TEXT    NOT NULL,
    description  TEXT    NOT NULL,
    PRIMARY KEY (user_id, process_id)
);

-- +goose StatementBegin
CREATE FUNCTION keep_drafts() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM drafts WHERE process_id = OLD.id FOR UPDATE; -- one that is being stored is kept as it becomes
    INSERT INTO orphaned_drafts (process_id, user_id, status, base_version, saved_at, title, description)
    SELECT process_id, user_id, status, base_version, saved_at, title, description
      FROM drafts
     WHERE process_id = OLD.id AND NOT (title = OLD.title AND status = OLD.status AND description = OLD.description);
    RETURN OLD;
END $$;
-- +goose StatementEnd
CREATE TRIGGER processes_deleted BEFORE DELETE ON processes FOR EACH ROW EXECUTE FUNCTION keep_drafts();
