-- Jobs that stand behind until they have waited for long enough: see Store.lift.
CREATE INDEX behind ON live (rank) WHERE ahead < 0 AND state IN ('waiting', 'ready');

-- Whether there is a job to lift, at the latest in so many microseconds.
CREATE FUNCTION lags(early bigint) RETURNS boolean LANGUAGE plpgsql
SET search_path = {schema}, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
DECLARE
    upto bigint := now_micros() + early;
BEGIN
    RETURN EXISTS (SELECT 1 FROM live l WHERE l.ahead < 0 AND l.state IN ('waiting', 'ready') AND l.rank <= upto);
END $$;

-- Lift jobs; how many. The next claim looks at those behind gates anew. What somebody has locked is being started, or the
-- next call's.
CREATE FUNCTION lift(early bigint, priority_ smallint, batch integer) RETURNS integer LANGUAGE plpgsql
SET search_path = {schema}, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off
SET lock_timeout = '5s' SET jit = off AS $$
DECLARE
    moment bigint := now_micros();
    upto bigint := moment + early;
    ids text[];
BEGIN
    SELECT array_agg(b.id) INTO ids FROM (
        SELECT l.id FROM live l WHERE l.ahead < 0 AND l.state IN ('waiting', 'ready') AND l.rank <= upto
        ORDER BY l.rank LIMIT batch FOR UPDATE SKIP LOCKED) b;
    IF ids IS NULL THEN
        RETURN 0;
    END IF;
    UPDATE live SET priority = priority_, rank = rank + ahead, ahead = 0 WHERE id = ANY (ids);
    INSERT INTO stirred SELECT DISTINCT moment, l.line, l.gates, moment FROM live l
    WHERE l.id = ANY (ids) AND l.gates IS NOT NULL;
    PERFORM note_lines(array_agg(l.line), array_agg(priority_), array_agg(l.rank))
    FROM (SELECT line, min(rank) AS rank FROM live WHERE id = ANY (ids) AND state = 'ready' GROUP BY line) l;
    RETURN cardinality(ids);
END $$;

-- As before; whether somebody is to hear of a job does not hang on how far it stands ahead, or behind.
CREATE OR REPLACE FUNCTION note_line(moment bigint, k shape, asked boolean) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    bound bigint;
    place bigint := moment - k.ahead;       -- the rank of what is due now
BEGIN
    IF k.gates IS NOT NULL THEN     -- the claim that lets one through notes the line
        RETURN k.rank <= place + 2000000;
    END IF;
    SELECT l.low INTO bound FROM lines l WHERE l.line = k.line AND l.priority = k.priority;
    IF bound IS NULL OR bound > k.rank THEN
        PERFORM note_lines(ARRAY[k.line], ARRAY[k.priority], ARRAY[k.rank]);
    END IF;
    IF NOT asked THEN
        RETURN true;
    ELSIF k.rank > place + 2000000 THEN
        RETURN false;
    END IF;
    RETURN bound IS NULL OR bound >= place - 50000 OR NOT EXISTS (
        SELECT 1 FROM live r WHERE r.state = 'ready' AND r.line = k.line AND r.priority = k.priority
            AND r.rank >= bound AND r.rank < place - 50000);
END $$;

-- As before; jobs that follow others may stand behind, too.
CREATE OR REPLACE FUNCTION follow() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    letter text := left(NEW.state, 1);
    f record;
    name text;
    rank bigint;
    line text;
BEGIN
    FOR f IN
        SELECT e.n, e.value ->> 'queue' AS queue, e.value ->> 'task' AS task,
            coalesce((e.value ->> 'priority')::smallint, 0::smallint) AS priority,
            coalesce((e.value ->> 'ahead')::bigint, 0) AS ahead,
            coalesce((e.value ->> 'delay')::bigint, 0) AS delay, (e.value ->> 'expires')::bigint AS expires,
            e.value ->> 'args' AS args, e.value ->> 'options' AS options, e.value ->> 'follow' AS follow,
            e.value ->> 'gates' AS gates,
            CASE WHEN e.value -> 'tags' IS NOT NULL THEN ARRAY(SELECT json_array_elements_text(e.value -> 'tags')) END
                AS tags
        FROM json_array_elements(NEW.follow::json) WITH ORDINALITY AS e (value, n)
        WHERE strpos(e.value ->> 'on', letter) > 0
    LOOP
        name := NEW.id || '.' || NEW.fence || letter || '.' || (f.n - 1);
        line := f.queue || '/' || f.task;
        rank := NEW.finished_at + f.delay - f.ahead;
        -- Successes and failures are of an attempt, which has but one end. A job that waits may be retried and cancelled
        -- any number of times under the same fence.
        CONTINUE WHEN letter = 'c' AND EXISTS (SELECT 1 FROM over(ARRAY[name], NEW.enqueued_at));
        INSERT INTO live (id, line, queue, task, priority, rank, state, run_at, expires_at, args, options, tags, follow,
            enqueued_at, gates, ahead)
        VALUES (name, line, f.queue, f.task, f.priority, rank, CASE WHEN f.delay > 0 THEN 'scheduled'
            WHEN f.gates IS NOT NULL THEN 'waiting' ELSE 'ready' END,
            NEW.finished_at + f.delay, NEW.finished_at + f.expires, f.args, f.options, f.tags, f.follow, NEW.finished_at,
            f.gates, f.ahead)
        ON CONFLICT (id) DO NOTHING;
        IF f.gates IS NOT NULL THEN
            INSERT INTO stirred VALUES (now_micros(), line, f.gates, now_micros());
        END IF;
        PERFORM note_lines(ARRAY[line], ARRAY[f.priority], ARRAY[rank]);
    END LOOP;
    RETURN NULL;
EXCEPTION WHEN data_exception OR not_null_violation THEN
    RETURN NULL;
END $$;
