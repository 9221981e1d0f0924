-- +goose NO TRANSACTION
-- +goose Up

-- What addresses are compared by, see package email; NULL until a start has computed
-- it. Addresses were in lower case: the key of one in ASCII is itself.
ALTER TABLE users ADD COLUMN email_key TEXT;
-- The user's own id where an older user has the same key, from before there were keys.
ALTER TABLE users ADD COLUMN email_twin INTEGER NOT NULL DEFAULT 0;
UPDATE users SET email_key = email WHERE email NOT GLOB '*[^ -~]*';
CREATE UNIQUE INDEX users_by_key ON users (email_key, email_twin);
