-- Named statements of the SQLite store. {rows} is filled with as many value rows as a batch has.

-- name: put_jobs
INSERT INTO jobs (id, line, queue, task, priority, rank, state, run_at, expires_at, args, options, unique_key, enqueued_at,
    gates, ahead, fair, fair_key, turn)
VALUES {rows};

-- name: seize
-- Changes nothing and takes the write lock, for which SQLite waits only as long as a transaction has read nothing yet.
DELETE FROM jobs WHERE 0;

-- name: put_tags
INSERT OR IGNORE INTO tags (tag, job) VALUES (?, ?);

-- name: put_past
-- What a job brings along from another store; apart from put_jobs, because hardly any job does.
UPDATE jobs SET attempt = ?, lost = ?, fence = ?, started_at = ? WHERE id = ?;

-- name: put_follow
UPDATE jobs SET follow = ? WHERE id = ?;

-- name: put_attempts
INSERT OR IGNORE INTO attempts (job, fence, attempt, ending, runner, started_at, ended_at, failure)
VALUES (?, ?, ?, ?, ?, ?, ?, ?);

-- name: state_of
SELECT state FROM jobs WHERE id = ?;

-- name: take_mark
-- A mark past its time is free.
INSERT INTO marks (key, job, until) VALUES (?1, ?2, ?3)
ON CONFLICT (key) DO UPDATE SET job = excluded.job, until = excluded.until WHERE until <= ?4;

-- name: give_mark
INSERT OR REPLACE INTO marks (key, job, until) VALUES (?, ?, ?);

-- name: put_brief
UPDATE jobs SET brief = 1 WHERE id = ?;

-- name: replace
UPDATE jobs SET args = ?, options = ?, follow = ? WHERE id = ? AND state IN ('waiting', 'scheduled', 'ready');

-- name: move
-- To another time.
UPDATE jobs SET
    run_at = min(:due, coalesce(enqueued_at + :most, :due)),
    rank = max(:now, min(:due, coalesce(enqueued_at + :most, :due))) - ahead,
    state = CASE WHEN min(:due, coalesce(enqueued_at + :most, :due)) > :now THEN 'scheduled'
        WHEN gates IS NOT NULL AND state <> 'scheduled' THEN state ELSE 'ready' END
WHERE id = :id;

-- name: stir
-- It may stand behind others now, of whom one comes first.
INSERT OR IGNORE INTO stirred (line, gates) SELECT line, gates FROM jobs WHERE id = ? AND gates IS NOT NULL;

-- name: mark_holder
SELECT job FROM marks WHERE key = ?;

-- name: held_by_another
-- Within a statement about jobs: whether the unique key of that job is another's.
SELECT 1 FROM marks WHERE marks.key = jobs.unique_key AND marks.job <> jobs.id AND marks.until IS NULL;

-- name: runner_seq
SELECT seq FROM runners WHERE id = ?;

-- name: set_seq
UPDATE runners SET seq = ? WHERE id = ?;

-- name: succeed
-- The plain case of settling, alone in a statement because it is nearly all of the traffic.
WITH batch (id, fence, seq, attempt, result) AS (VALUES {rows})
UPDATE jobs SET
    state = 'succeeded', ending = 'succeeded', finished_at = ?, attempt = batch.attempt, lost = 0, cancelling = 0,
    reason = NULL, result = batch.result
FROM batch
WHERE jobs.id = batch.id AND jobs.fence = batch.fence AND jobs.seq = batch.seq AND jobs.runner = ?
    AND jobs.state = 'running';

-- name: settle
-- One outcome of any other kind. A job marked for cancelling does not come back.
UPDATE jobs SET
    state = CASE WHEN cancelling AND NOT :final THEN 'cancelled' ELSE :state END,
    ending = :ending, finished_at = CASE WHEN cancelling OR :final THEN :now END,
    attempt = :attempt, lost = :lost, cancelling = 0, reason = :reason, error = :error,
    line = queue || '/' || task || CASE WHEN :lost > 0 THEN '!' ELSE '' END,
    run_at = CASE WHEN :state = 'scheduled' THEN :run_at ELSE run_at END,
    rank = CASE WHEN :state = 'scheduled' AND NOT EXISTS (SELECT 1 FROM holds WHERE job = :id AND keep)
        THEN :run_at - ahead ELSE rank END
WHERE id = :id AND fence = :fence AND seq = :seq AND runner = :runner AND state = 'running';

-- name: add_attempt
INSERT OR IGNORE INTO attempts (job, fence, attempt, ending, runner, started_at, ended_at, failure)
SELECT id, fence, :attempt, :ending, runner, started_at, :now, :failure FROM jobs WHERE id = :id;

-- name: stands
-- Whether this very outcome of this fence was applied before.
SELECT 1 FROM jobs WHERE id = ? AND fence = ? AND seq = ? AND runner = ? AND ending = ? AND state <> 'running';

-- name: next_run
SELECT min(run_at) FROM jobs WHERE state = 'scheduled';

-- name: promote
UPDATE jobs SET state = 'ready' WHERE rowid IN (
    SELECT rowid FROM jobs INDEXED BY due WHERE state = 'scheduled' AND run_at <= ? ORDER BY run_at LIMIT ?
);

-- name: next_expiry
SELECT min(expires_at) FROM jobs INDEXED BY expiring
WHERE expires_at IS NOT NULL AND started_at IS NULL AND state IN ('waiting', 'scheduled', 'ready');

-- name: expire
UPDATE jobs SET state = 'cancelled', finished_at = ?1, reason = 'expired' WHERE rowid IN (
    SELECT rowid FROM jobs INDEXED BY expiring
    WHERE expires_at <= ?1 AND started_at IS NULL AND state IN ('waiting', 'scheduled', 'ready')
    ORDER BY expires_at LIMIT ?2
);

-- name: expire_one
UPDATE jobs SET state = 'cancelled', finished_at = ?, reason = 'expired' WHERE id = ? AND state = 'ready';

-- name: lines
-- The distinct lines with ready jobs: one index search per line, however long each is.
WITH RECURSIVE present (line) AS (
    SELECT min(line) FROM jobs WHERE state = 'ready'
    UNION ALL
    SELECT (SELECT min(line) FROM jobs WHERE state = 'ready' AND line > present.line)
    FROM present WHERE present.line IS NOT NULL
)
SELECT line FROM present WHERE line IS NOT NULL;

-- name: heads
SELECT -priority, rank, id, CASE WHEN started_at IS NULL THEN expires_at END, gates FROM jobs INDEXED BY ready
WHERE state = 'ready' AND line = ? ORDER BY priority DESC, rank, id LIMIT ?;

-- name: moment
SELECT coalesce(finished_at, enqueued_at) FROM jobs WHERE rowid = ?;

-- name: heads_after
SELECT -priority, rank, id, rowid FROM jobs INDEXED BY ready
WHERE state = 'ready' AND line = CAST(? AS TEXT) AND (-priority, rank, id) > (?, ?, CAST(? AS TEXT))
    AND (? IS NULL OR id IN (SELECT job FROM tags WHERE tag = ?))
ORDER BY priority DESC, rank, id LIMIT ?;

-- name: claim
UPDATE jobs SET state = 'running', fence = fence + 1, runner = ?, seq = ?, started_at = ?, progress = NULL
WHERE id IN (SELECT value FROM json_each(?));

-- name: claimed
SELECT id, fence, seq, task, queue, args, options, priority, attempt, lost, enqueued_at, run_at
FROM jobs INDEXED BY held WHERE runner = ? AND state = 'running' AND seq = ?
ORDER BY priority DESC, rank, id;

-- name: held_by
SELECT id, fence, seq, attempt FROM jobs INDEXED BY held WHERE runner = ? AND state = 'running';

-- name: hand_back
UPDATE jobs SET
    state = CASE WHEN cancelling THEN 'cancelled' ELSE 'ready' END,
    finished_at = CASE WHEN cancelling THEN :now END,
    reason = CASE WHEN cancelling THEN reason END,
    cancelling = 0, lost = max(lost, :lost), runner = NULL,
    line = queue || '/' || task || CASE WHEN max(lost, :lost) > 0 THEN '!' ELSE '' END
WHERE id = :id AND state = 'running';

-- name: drop_runner
DELETE FROM runners WHERE id = ?;

-- name: drop_worker
DELETE FROM workers WHERE id = ?;

-- name: depart
INSERT OR IGNORE INTO departed (id, left_at) VALUES (?, ?);

-- name: known
SELECT id FROM departed WHERE id = :id
UNION ALL SELECT id FROM workers WHERE id = :id
UNION ALL SELECT id FROM runners WHERE id = :id;

-- name: enlist
INSERT INTO workers (id, host, pid, version, lease, queues, concurrency, started_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?);

-- name: worker
SELECT lease FROM workers WHERE id = ?;

-- name: leases
SELECT id, lease FROM workers;

-- name: join
INSERT INTO runners (id, worker, pid, tasks, joined_at) VALUES (?, ?, ?, ?, ?);

-- name: runners_of
SELECT id FROM runners WHERE worker = ?;

-- name: orders
SELECT jobs.runner, jobs.id, jobs.fence FROM runners JOIN jobs INDEXED BY cancelling ON jobs.runner = runners.id
WHERE runners.worker = ? AND jobs.state = 'running' AND jobs.cancelling = 1;

-- name: any_ready
SELECT EXISTS (SELECT 1 FROM jobs WHERE state = 'ready');

-- name: note
UPDATE jobs SET progress = ? WHERE id = ? AND fence = ? AND seq = ? AND runner = ? AND state = 'running';

-- name: cancel
UPDATE jobs SET
    state = CASE WHEN state = 'running' THEN state ELSE 'cancelled' END,
    finished_at = CASE WHEN state = 'running' THEN NULL ELSE :now END,
    cancelling = state = 'running', reason = :reason
WHERE id = :id AND state IN ('waiting', 'scheduled', 'ready', 'running') AND NOT cancelling;

-- name: retry_finished
UPDATE jobs SET
    state = 'ready', attempt = 0, lost = 0, runner = NULL, cancelling = 0, reason = NULL, result = NULL, error = NULL,
    progress = NULL, finished_at = NULL, expires_at = NULL, run_at = :now, rank = :now - ahead, line = queue || '/' || task
WHERE id = :id AND finished_at IS NOT NULL;

-- name: retry_scheduled
UPDATE jobs SET state = 'ready', run_at = :now, rank = :now - ahead WHERE id = :id AND state = 'scheduled';

-- name: delete
DELETE FROM jobs WHERE id = :id AND state <> 'running';

-- name: unique_key_of
SELECT unique_key FROM jobs WHERE id = ?;

-- name: prune_jobs
DELETE FROM jobs WHERE rowid IN (
    SELECT rowid FROM jobs INDEXED BY over WHERE state = ? AND finished_at IS NOT NULL AND finished_at <= ?
    ORDER BY finished_at LIMIT ?
);

-- name: prune_marks
DELETE FROM marks WHERE key IN (SELECT key FROM marks WHERE until <= ? ORDER BY until LIMIT ?);

-- name: prune_departed
DELETE FROM departed WHERE left_at <= ?;

-- name: doc_version
SELECT version FROM docs WHERE kind = ? AND name = ?;

-- name: save_doc
INSERT INTO docs (kind, name, version, body, due) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (kind, name) DO UPDATE SET version = excluded.version, body = excluded.body, due = excluded.due;

-- name: drop_doc
DELETE FROM docs WHERE kind = ? AND name = ?;

-- name: docs
SELECT kind, name, version, body, due FROM docs WHERE kind = ? AND name > ? ORDER BY name LIMIT ?;

-- name: docs_named
SELECT kind, name, version, body, due FROM docs WHERE kind = ? AND name IN (SELECT value FROM json_each(?)) ORDER BY name
LIMIT ?;

-- name: docs_due
SELECT kind, name, version, body, due FROM docs WHERE kind = ? AND due <= ? ORDER BY due, name LIMIT ?;

-- name: next_doc
SELECT min(due) FROM (
    SELECT min(due) AS due FROM docs WHERE kind = ? AND due IS NOT NULL
    UNION ALL SELECT min(due) FROM docs WHERE kind = ? AND due IS NOT NULL
);

-- name: prune_paces
DELETE FROM docs WHERE kind = ?1 AND name IN (SELECT name FROM docs WHERE kind = ?1 AND due <= ?2 ORDER BY due LIMIT ?3);

-- name: jobs_by_id
SELECT {columns} FROM jobs WHERE id IN (SELECT value FROM json_each(?));

-- name: holders
SELECT key, job FROM marks WHERE key IN (SELECT value FROM json_each(?)) AND (until IS NULL OR until > ?);

-- name: jobs_by_rowid
SELECT {columns}, rowid FROM jobs WHERE rowid IN (SELECT value FROM json_each(?));

-- name: attempts_of
SELECT job, fence, attempt, ending, runner, started_at, ended_at, failure FROM attempts
WHERE job IN (SELECT value FROM json_each(?)) ORDER BY job, fence;

-- name: tags_of
SELECT job, tag FROM tags WHERE job IN (SELECT value FROM json_each(?)) ORDER BY job, tag;

-- name: stats
-- Live jobs by line, and by priority where they are ready: how many, counted up to ?1, and when the first became due of
-- those that stand in front (?2 of them). One search of an index for each, then as many entries as are counted.
WITH RECURSIVE present (line) AS (
    SELECT min(line) FROM jobs WHERE state = 'ready'
    UNION ALL
    SELECT (SELECT min(line) FROM jobs WHERE state = 'ready' AND line > present.line)
    FROM present WHERE present.line IS NOT NULL
), places (line, priority) AS (
    SELECT line, (SELECT max(priority) FROM jobs INDEXED BY ready WHERE state = 'ready' AND jobs.line = present.line)
    FROM present WHERE line IS NOT NULL
    UNION ALL
    SELECT line, (SELECT max(priority) FROM jobs INDEXED BY ready
        WHERE state = 'ready' AND jobs.line = places.line AND priority < places.priority)
    FROM places WHERE priority IS NOT NULL
), away (state, line) AS (
    SELECT value, (SELECT min(line) FROM jobs INDEXED BY idle WHERE state IN ('waiting', 'scheduled') AND state = value)
    FROM json_each('["scheduled", "waiting"]')
    UNION ALL
    SELECT state, (SELECT min(line) FROM jobs INDEXED BY idle
        WHERE jobs.state IN ('waiting', 'scheduled') AND jobs.state = away.state AND jobs.line > away.line)
    FROM away WHERE line IS NOT NULL
)
SELECT 'ready', line, (SELECT count(*) FROM (SELECT 1 FROM jobs INDEXED BY ready
        WHERE state = 'ready' AND jobs.line = places.line AND jobs.priority = places.priority LIMIT ?1)),
    (SELECT min(due) FROM (SELECT rank + ahead AS due FROM jobs INDEXED BY ready
        WHERE state = 'ready' AND jobs.line = places.line AND jobs.priority = places.priority ORDER BY rank, id LIMIT ?2))
FROM places WHERE priority IS NOT NULL
UNION ALL
SELECT state, line, (SELECT count(*) FROM (SELECT 1 FROM jobs INDEXED BY idle
        WHERE jobs.state IN ('waiting', 'scheduled') AND jobs.state = away.state AND jobs.line = away.line LIMIT ?1)),
    (SELECT min(due) FROM (SELECT rank + ahead AS due FROM jobs INDEXED BY idle
        WHERE jobs.state IN ('waiting', 'scheduled') AND jobs.state = away.state AND jobs.line = away.line
        ORDER BY rank LIMIT ?2))
FROM away WHERE line IS NOT NULL
UNION ALL
SELECT 'running', line, count(*), min(rank + ahead) FROM jobs INDEXED BY held WHERE state = 'running' GROUP BY line;

-- name: workers
SELECT id, host, pid, version, lease, queues, concurrency, started_at FROM workers ORDER BY started_at, id;

-- name: runners
SELECT id, worker, pid, tasks, joined_at,
    (SELECT count(*) FROM jobs INDEXED BY held WHERE jobs.runner = runners.id AND jobs.state = 'running')
FROM runners ORDER BY joined_at, id;

-- name: unusual
-- Whatever is no UTF-8, and more; found without giving it to Python.
SELECT DISTINCT {column} FROM {table}
WHERE {column} GLOB '*[^ -~]*' OR length({column}) <> length(CAST({column} AS BLOB));

-- name: ready_in
SELECT id FROM jobs INDEXED BY ready WHERE state = 'ready' AND line = CAST(? AS TEXT);

-- name: behind_gates
SELECT id FROM jobs WHERE gates = CAST(? AS TEXT) AND finished_at IS NULL;

-- name: fail_broken
-- The fence is new, so that the reason finds room among the attempts.
UPDATE jobs SET state = 'failed', ending = 'failed', error = 'windlass.errors.DecodeError', finished_at = ?,
    fence = fence + 1, cancelling = 0
WHERE id = CAST(? AS TEXT) AND finished_at IS NULL;

-- name: rename
UPDATE {table} SET {column} = ? WHERE {column} = CAST(? AS TEXT);

-- name: drop_broken
DELETE FROM {table} WHERE {column} = CAST(? AS TEXT);

-- name: orphans
SELECT id FROM runners WHERE worker NOT IN (SELECT id FROM workers);

-- name: schema_version
SELECT max(version) FROM windlass_schema;

-- name: add_version
INSERT INTO windlass_schema (version) VALUES (?);
