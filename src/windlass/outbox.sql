-- Statements of an outbox, in the user's own database. {table} is its table.

-- name: create_sqlite
CREATE TABLE IF NOT EXISTS {table} (
    number   INTEGER PRIMARY KEY AUTOINCREMENT,
    job      TEXT NOT NULL,
    added_at REAL NOT NULL DEFAULT (julianday('now')),
    error    TEXT
);

-- name: create_postgresql
CREATE TABLE IF NOT EXISTS {table} (
    number   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    job      text NOT NULL,
    added_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    error    text
);

-- name: exists_sqlite
SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = ?;

-- name: exists_postgresql
SELECT to_regclass(%s::text) IS NOT NULL;

-- name: seize_sqlite
-- As `seize` of the SQLite store.
DELETE FROM {table} WHERE 0;

-- name: add_sqlite
INSERT INTO {table} (job) SELECT value FROM json_each(?);

-- name: add_postgresql
INSERT INTO {table} (job) SELECT job FROM unnest(%s::text[]) WITH ORDINALITY AS given (job, n) ORDER BY n;

-- name: take_sqlite
SELECT number, job, (julianday('now') - added_at) * 86400 FROM {table} WHERE error IS NULL ORDER BY number LIMIT ?;

-- name: take_postgresql
-- Rows that another relay is moving are left to it.
SELECT number, job, extract(epoch FROM clock_timestamp() - added_at)::float8
FROM {table} WHERE error IS NULL ORDER BY number LIMIT %s FOR UPDATE SKIP LOCKED;

-- name: remove_sqlite
DELETE FROM {table} WHERE number IN (SELECT value FROM json_each(?));

-- name: remove_postgresql
DELETE FROM {table} WHERE number = ANY (%s::bigint[]);

-- name: spoil_sqlite
UPDATE {table} SET error = ? WHERE number = ?;

-- name: spoil_postgresql
UPDATE {table} SET error = %s WHERE number = %s;
