-- Named statements of the SQLite store about making room in queues, and about jobs that are put elsewhere.

-- name: depth
-- A line is queue/task, and the character after the slash is 0.
SELECT (SELECT count(*) FROM jobs INDEXED BY ready
        WHERE state = 'ready' AND line >= :queue || '/' AND line < :queue || '0')
    + (SELECT count(*) FROM jobs INDEXED BY gated
        WHERE gates IS NOT NULL AND state IN ('waiting', 'ready') AND line >= :queue || '/' AND line < :queue || '0'
            AND state = 'waiting')
    + (SELECT count(*) FROM jobs INDEXED BY due
        WHERE state = 'scheduled' AND line >= :queue || '/' AND line < :queue || '0');

-- name: first_due
-- By rank, which is when they were due; but for those that stand behind. Who is among the first of all is so among those of
-- his kind, with those that stand behind as of their rank.
SELECT id FROM (
    SELECT id, rank AS due FROM (
        SELECT id, rank FROM jobs INDEXED BY ready
            WHERE state = 'ready' AND line >= :queue || '/' AND line < :queue || '0'
        UNION ALL SELECT id, rank FROM jobs INDEXED BY gated
            WHERE gates IS NOT NULL AND state IN ('waiting', 'ready') AND line >= :queue || '/' AND line < :queue || '0'
                AND state = 'waiting'
        ORDER BY rank, id LIMIT :count)
    UNION ALL SELECT id, due FROM (
        SELECT id, rank + ahead AS due FROM jobs INDEXED BY behind_in
            WHERE ahead < 0 AND state IN ('waiting', 'ready') AND queue = :queue ORDER BY rank + ahead, id LIMIT :count)
) GROUP BY id ORDER BY min(due), id LIMIT :count;

-- name: lowest
SELECT id FROM (
    SELECT id, priority, rank FROM jobs INDEXED BY ready
        WHERE state = 'ready' AND line >= :queue || '/' AND line < :queue || '0' AND priority < :below
    UNION ALL SELECT id, priority, rank FROM jobs INDEXED BY gated
        WHERE gates IS NOT NULL AND state IN ('waiting', 'ready') AND line >= :queue || '/' AND line < :queue || '0'
            AND state = 'waiting' AND priority < :below
) ORDER BY priority, rank DESC, id DESC LIMIT :count;

-- name: standing_of
SELECT state, rank, queue, priority, gates, ahead, options FROM jobs WHERE id = ? AND state IN ('waiting', 'scheduled', 'ready');

-- name: lags
-- Whether there is a job to lift.
SELECT EXISTS (
    SELECT 1 FROM jobs INDEXED BY behind WHERE ahead < 0 AND state IN ('waiting', 'ready') AND rank <= ?);

-- name: stir_behind
-- Before they are lifted: the next claim looks at those behind gates anew.
INSERT OR IGNORE INTO stirred (line, gates) SELECT line, gates FROM jobs WHERE gates IS NOT NULL AND rowid IN (
    SELECT rowid FROM jobs INDEXED BY behind
    WHERE ahead < 0 AND state IN ('waiting', 'ready') AND rank <= :upto ORDER BY rank, rowid LIMIT :most
);

-- name: lift
UPDATE jobs SET priority = :priority, rank = rank + ahead, ahead = 0 WHERE rowid IN (
    SELECT rowid FROM jobs INDEXED BY behind
    WHERE ahead < 0 AND state IN ('waiting', 'ready') AND rank <= :upto ORDER BY rank, rowid LIMIT :most
);

-- name: put_off
-- Whoever stands behind it may move up: see the trigger job_left.
UPDATE jobs SET state = 'scheduled' WHERE id = :id;

-- name: amend
UPDATE jobs SET
    queue = :queue, priority = :priority, ahead = :ahead, rank = :rank, gates = :gates,
    line = :queue || '/' || task || CASE WHEN lost > 0 THEN '!' ELSE '' END,
    options = CASE WHEN :kept THEN options ELSE :options END
WHERE id = :id;

-- name: bring_back
-- If it has gates, the trigger job_waits has it wait.
UPDATE jobs SET state = 'ready' WHERE id = :id;

-- name: give_rank
-- It has taken no turn anew.
UPDATE jobs SET rank = :rank WHERE id = :id;
