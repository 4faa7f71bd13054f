-- Jobs that stand behind until they have waited for long enough: see Store.lift.
CREATE INDEX behind ON live (rank) WHERE ahead < 0 AND state IN ('waiting', 'ready');
-- Of one queue, by when they were due: see Store.shed.
CREATE INDEX behind_in ON live (queue, (rank + ahead), id) WHERE ahead < 0 AND state IN ('waiting', 'ready');

-- Whether there is a job to lift, at the latest in so many microseconds. The order leaves one index to go by: another has the
-- same jobs, and knows no ranks.
CREATE FUNCTION lags(early bigint) RETURNS boolean LANGUAGE plpgsql
SET search_path = {schema}, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off AS $$
DECLARE
    upto bigint := now_micros() + early;
BEGIN
    RETURN coalesce((SELECT true FROM live l WHERE l.ahead < 0 AND l.state IN ('waiting', 'ready') AND l.rank <= upto
        ORDER BY l.rank LIMIT 1), false);
END $$;

-- Lift jobs; how many. The next claim looks at those behind gates anew. What somebody has locked is being started, or the
-- next call's.
CREATE FUNCTION lift(early bigint, priority_ smallint, batch integer) RETURNS integer LANGUAGE plpgsql
SET search_path = {schema}, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off
SET enable_sort = off SET lock_timeout = '5s' SET jit = off AS $$
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

-- Cancel ready and waiting jobs of a queue until `most` of its jobs do not run yet, at most `batch`; none, where that is not
-- enough. Who comes second waits for the first, and counts what he has left. A line is queue/task, and the character after
-- the slash is 0. Those that were due first: by rank, but for those that stand behind. Who is among the first of all is so
-- among those of his kind, with those that stand behind as of their rank.
CREATE OR REPLACE FUNCTION shed(queue_ text, most bigint, below integer, why text, batch integer, OUT ids text[], OUT rest bigint)
LANGUAGE plpgsql SET search_path = {schema}, pg_temp SET lock_timeout = '5s' SET enable_seqscan = off SET jit = off AS $$
DECLARE
    moment bigint;
    wanted bigint;
    chosen text[];
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext(current_schema()) & 1073741823, -1000 - (hashtext(queue_) & 255));
    moment := now_micros();
    ids := '{}';
    rest := (SELECT count(*) FROM live l WHERE l.state = 'ready' AND l.line >= queue_ || '/' AND l.line < queue_ || '0')
        + (SELECT count(*) FROM live l WHERE l.gates IS NOT NULL AND l.state IN ('waiting', 'ready') AND l.state = 'waiting'
            AND l.line >= queue_ || '/' AND l.line < queue_ || '0')
        + (SELECT count(*) FROM live l WHERE l.state = 'scheduled' AND l.queue = queue_);
    wanted := least(rest - most, batch);
    IF wanted <= 0 THEN
        RETURN;
    END IF;
    chosen := ARRAY(
        SELECT c.id FROM (
            SELECT l.id, l.priority, l.rank FROM live l
            WHERE l.state = 'ready' AND l.line >= queue_ || '/' AND l.line < queue_ || '0'
            UNION ALL SELECT l.id, l.priority, l.rank FROM live l
            WHERE l.gates IS NOT NULL AND l.state IN ('waiting', 'ready') AND l.state = 'waiting'
                AND l.line >= queue_ || '/' AND l.line < queue_ || '0'
        ) c
        WHERE below IS NULL OR c.priority < below
        ORDER BY CASE WHEN below IS NOT NULL THEN c.priority END, CASE WHEN below IS NULL THEN c.rank ELSE -c.rank END,
            CASE WHEN below IS NULL THEN c.id END, c.id DESC
        LIMIT wanted);
    IF below IS NULL THEN
        chosen := ARRAY(
            SELECT c.id FROM (
                SELECT l.id, l.rank AS due FROM live l WHERE l.id = ANY (chosen)
                UNION ALL (SELECT l.id, l.rank + l.ahead FROM live l
                WHERE l.ahead < 0 AND l.state IN ('waiting', 'ready') AND l.queue = queue_
                ORDER BY l.rank + l.ahead, l.id LIMIT wanted)
            ) c
            GROUP BY c.id ORDER BY min(c.due), c.id LIMIT wanted);
    END IF;
    SELECT coalesce(array_agg(o.id), '{}') INTO ids FROM (
        SELECT l.id FROM live l WHERE l.state IN ('ready', 'waiting') AND l.id = ANY (chosen) FOR UPDATE SKIP LOCKED) o;
    IF cardinality(ids) < wanted THEN  -- there are not enough, or some are being started: then there is room for whoever asks anew
        ids := '{}';
        RETURN;
    END IF;
    UPDATE live SET state = 'cancelled', finished_at = moment, reason = why WHERE id = ANY (ids);
    PERFORM archive(ids);
    rest := rest - wanted;
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
