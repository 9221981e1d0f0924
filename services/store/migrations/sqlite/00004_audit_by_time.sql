-- +goose NO TRANSACTION
-- +goose Up

-- What is older than AUDIT_RETENTION is found without a look at the rest.
CREATE INDEX audit_by_time ON audit (at);
