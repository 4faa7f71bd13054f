-- Jobs that stand behind until they have waited for long enough: see Store.lift.
CREATE INDEX behind ON jobs (rank) WHERE ahead < 0 AND state IN ('waiting', 'ready');
-- Of one queue, by when they were due: see Store.shed.
CREATE INDEX behind_in ON jobs (queue, rank + ahead, id) WHERE ahead < 0 AND state IN ('waiting', 'ready');

-- As before; jobs that follow others may stand behind, too.
DROP TRIGGER job_over;
CREATE TRIGGER job_over AFTER UPDATE OF state ON jobs
    WHEN new.finished_at IS NOT NULL AND (new.unique_key IS NOT NULL OR new.follow IS NOT NULL)
BEGIN
    DELETE FROM marks WHERE key = new.unique_key AND job = new.id AND until IS NULL;
    INSERT OR IGNORE INTO jobs
        (id, line, queue, task, priority, rank, state, run_at, expires_at, args, options, enqueued_at, follow, gates,
        ahead)
    SELECT new.id || '.' || new.fence || substr(new.state, 1, 1) || '.' || place, queue || '/' || task, queue, task,
        coalesce(priority, 0), new.finished_at + delay - ahead,
        CASE WHEN delay > 0 THEN 'scheduled' WHEN gates IS NOT NULL THEN 'waiting' ELSE 'ready' END,
        new.finished_at + delay, new.finished_at + expires, args, options, new.finished_at, follow, gates,
        ahead
    FROM (
        SELECT key AS place,
            CAST(json_extract(whole, fullkey || '.on') AS TEXT) AS causes,
            CAST(json_extract(whole, fullkey || '.queue') AS TEXT) AS queue,
            CAST(json_extract(whole, fullkey || '.task') AS TEXT) AS task,
            CAST(json_extract(whole, fullkey || '.priority') AS INTEGER) AS priority,
            coalesce(CAST(json_extract(whole, fullkey || '.ahead') AS INTEGER), 0) AS ahead,
            coalesce(CAST(json_extract(whole, fullkey || '.delay') AS INTEGER), 0) AS delay,
            CAST(json_extract(whole, fullkey || '.expires') AS INTEGER) AS expires,
            CAST(json_extract(whole, fullkey || '.args') AS TEXT) AS args,
            CAST(json_extract(whole, fullkey || '.options') AS TEXT) AS options,
            CAST(json_extract(whole, fullkey || '.follow') AS TEXT) AS follow,
            CAST(json_extract(whole, fullkey || '.gates') AS TEXT) AS gates
        FROM (SELECT CASE WHEN json_valid(new.follow) THEN new.follow ELSE '[]' END AS whole), json_each(whole)
    )
    WHERE instr(causes, substr(new.state, 1, 1)) > 0;
    INSERT OR IGNORE INTO tags (tag, job)
    SELECT CAST(tag.value AS TEXT), jobs.id
    FROM json_each(CASE WHEN json_valid(new.follow) THEN new.follow ELSE '[]' END) AS one,
        json_each(new.follow, one.fullkey || '.tags') AS tag,
        jobs ON jobs.id = new.id || '.' || new.fence || substr(new.state, 1, 1) || '.' || one.key;
END;
