-- +goose NO TRANSACTION
-- +goose Up

-- A random number for each write to the log. A database restored to an earlier
-- point gives the numbers of its log out again, but with other marks.
ALTER TABLE revocation_head ADD COLUMN mark INTEGER NOT NULL DEFAULT 0;
ALTER TABLE revocations ADD COLUMN mark INTEGER NOT NULL DEFAULT 0;
