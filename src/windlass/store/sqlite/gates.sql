-- Named statements of the SQLite store about gates.

-- name: doc_body
SELECT body FROM docs WHERE kind = ? AND name = ?;

-- name: stirred
DELETE FROM stirred WHERE (gates, line) IN (SELECT gates, line FROM stirred LIMIT ?) RETURNING line, gates;

-- name: call
INSERT INTO freed (gate, at, since) VALUES (?, ?, ?)
ON CONFLICT (gate) DO UPDATE SET at = min(at, excluded.at), since = max(since, excluded.since);

-- name: call_family
INSERT INTO freed (gate, at, since) SELECT DISTINCT gate, 0, 0 FROM blocked
WHERE gate = ?1 OR gate >= ?1 || '/' AND gate < ?1 || '0'
ON CONFLICT (gate) DO UPDATE SET at = 0;

-- name: freed
-- Those whose moment has come, and those that were written before somebody set the clock back.
DELETE FROM freed WHERE gate IN (SELECT gate FROM freed WHERE at <= ? OR since > ? LIMIT ?) RETURNING gate;

-- name: used
SELECT coalesce(sum(weight), 0) FROM holds WHERE gate = ?;

-- name: held_of
SELECT weight FROM holds WHERE gate = ? AND job = ?;

-- name: gates_of
-- The gates of an attempt that runs.
SELECT gates FROM jobs WHERE id = ? AND fence = ? AND seq = ? AND runner = ? AND state = 'running';

-- name: let_go
DELETE FROM holds WHERE gate = ?1 AND (job = ?2 AND NOT keep OR job = '~' || ?2);

-- name: used_by_others
-- What is taken of a gate, places that are kept left out.
SELECT coalesce(sum(weight), 0) FROM holds WHERE gate = ? AND job NOT LIKE '~%';

-- name: keep_place
INSERT OR IGNORE INTO holds (gate, job, weight, keep) VALUES (?, '~' || ?, ?, 0);

-- name: leave_place
DELETE FROM holds WHERE gate = ? AND job = '~' || ?;

-- name: hold
INSERT OR REPLACE INTO holds (gate, job, weight, keep) VALUES (?, ?, ?, ?);

-- name: kept_by
SELECT gate FROM holds WHERE job = ?;

-- name: give_up
DELETE FROM holds WHERE gate = ? AND job = ?;

-- name: standing
-- The jobs of one line behind the same gates, ready or not, best first.
SELECT id, state, priority, rank FROM jobs INDEXED BY gated
WHERE gates = ? AND line = ? AND state IN ('waiting', 'ready') ORDER BY priority DESC, rank, id LIMIT ?;

-- name: kept
-- Those of one line that wait and have kept a gate: nobody else can pass it.
SELECT jobs.id FROM holds JOIN jobs ON jobs.id = holds.job
WHERE holds.gate = ? AND holds.keep AND jobs.state = 'waiting' AND jobs.gates = ? AND jobs.line = ?;

-- name: admit
UPDATE jobs SET state = 'ready' WHERE state = 'waiting' AND id IN (SELECT value FROM json_each(?));

-- name: turn_away
UPDATE jobs SET state = 'waiting' WHERE state = 'ready' AND id IN (SELECT value FROM json_each(?));

-- name: block
INSERT OR REPLACE INTO blocked (line, gates, gate, weight, priority, rank, id) VALUES (?, ?, ?, ?, ?, ?, ?);

-- name: unblock
DELETE FROM blocked WHERE gates = ? AND line = ?;

-- name: lines_blocked
WITH RECURSIVE present (line) AS (
    SELECT min(line) FROM blocked WHERE gate = ?1
    UNION ALL
    SELECT (SELECT min(line) FROM blocked WHERE gate = ?1 AND line > present.line)
    FROM present WHERE present.line IS NOT NULL
)
SELECT line FROM present WHERE line IS NOT NULL;

-- name: blocked_at
SELECT gates, weight FROM blocked WHERE gate = ? AND line = ? ORDER BY priority DESC, rank, id LIMIT ?;

-- name: heavier
SELECT -priority, rank, id, line FROM blocked INDEXED BY heavy WHERE gate = ? AND weight > 1 AND weight > ?;

-- name: save_pace
INSERT INTO docs (kind, name, version, body, due) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (kind, name) DO UPDATE SET version = version + 1, body = excluded.body, due = excluded.due;

-- name: next_look
-- Now, where something was stirred, or called before somebody set the clock back.
SELECT CASE WHEN EXISTS (SELECT 1 FROM stirred) OR EXISTS (SELECT 1 FROM freed WHERE since > ?1) THEN ?1
    ELSE (SELECT min(at) FROM freed) END;
