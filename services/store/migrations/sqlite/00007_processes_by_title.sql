-- +goose NO TRANSACTION
-- +goose Up

-- A page of the list that is ordered by title is found without a look at the rest.
CREATE INDEX processes_by_title ON processes (title_folded, id);
