-- Jobs that are over are looked for in the days in which they most likely ended, and retried together: looking through all
-- partitions, one job after the other, takes a millisecond a job, and acting on 100,000 of them took minutes.

-- When a job was made, as its UUIDv7 tells; NULL for any other id.
CREATE FUNCTION born_at(id text) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN id ~ '^[0-9a-f]{8}-[0-9a-f]{4}-7'
        THEN ('x' || substr(id, 1, 8) || substr(id, 10, 4))::bit(48)::bigint * 1000 END
$$;

-- A job that is over, locked; NULLs where there is none. With `only_in`, only in that state. What is executed is planned for
-- its values, so partitions of other days are not even opened.
CREATE FUNCTION past_of(wanted text, only_in text) RETURNS history LANGUAGE plpgsql AS $$
DECLARE
    day bigint := 86400000000;
    born bigint := born_at(wanted);
    past history;
BEGIN
    IF born IS NOT NULL THEN
        EXECUTE 'SELECT * FROM history WHERE id = $1 AND ($2 IS NULL OR state = $2) AND finished_at >= $3 AND finished_at < $4
            FOR UPDATE' INTO past USING wanted, only_in, born - day / 24, born + day;
    END IF;
    IF past.id IS NULL THEN
        EXECUTE 'SELECT * FROM history WHERE id = $1 AND ($2 IS NULL OR state = $2) FOR UPDATE' INTO past
            USING wanted, only_in;
    END IF;
    RETURN past;
END $$;

-- Drop a job that is over, and was found; whether it was still there.
CREATE FUNCTION forget_past(past history) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    n integer;
BEGIN
    EXECUTE 'DELETE FROM history WHERE id = $1 AND state = $2 AND finished_at = $3'
        USING past.id, past.state, past.finished_at;
    GET DIAGNOSTICS n = ROW_COUNT;
    RETURN n > 0;
END $$;

CREATE OR REPLACE FUNCTION retry_over(wanted text, only_in text, moment bigint) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    past history := past_of(wanted, only_in);
BEGIN
    IF past.id IS NULL THEN
        RETURN false;
    END IF;
    IF past.unique_key IS NOT NULL THEN
        INSERT INTO marks VALUES (past.unique_key, past.id, NULL) ON CONFLICT DO NOTHING;
        IF NOT EXISTS (SELECT 1 FROM marks WHERE key = past.unique_key AND job = past.id) THEN
            RETURN false;
        END IF;
    END IF;
    PERFORM forget_past(past);
    INSERT INTO live (id, line, queue, task, priority, rank, state, run_at, args, options, unique_key, tags, follow,
        fence, seq, ending, attempts, enqueued_at, started_at, brief, gates, ahead, fair, fair_key, spacing)
    VALUES (past.id, past.queue || '/' || past.task, past.queue, past.task, past.priority, moment - past.ahead,
        CASE WHEN past.gates IS NULL THEN 'ready' ELSE 'waiting' END, moment,
        past.args, past.options, past.unique_key, past.tags, past.follow, past.fence, past.seq, past.ending, past.attempts,
        past.enqueued_at, past.started_at, past.brief, past.gates, past.ahead, past.fair, past.fair_key, past.spacing);
    IF past.gates IS NULL THEN
        PERFORM note_lines(ARRAY[line], ARRAY[priority], ARRAY[rank]) FROM live WHERE id = past.id;
    ELSE
        INSERT INTO stirred VALUES (moment, past.queue || '/' || past.task, past.gates, moment);
    END IF;
    RETURN true;
END $$;

-- Retry those of these jobs that are over by a day after they were made, and have neither unique keys nor gates, at once.
CREATE FUNCTION retry_plain(ids text[], only_in text, moment bigint) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    day bigint := 86400000000;
    done text[];
    lines_ text[];
    priorities smallint[];
    ranks bigint[];
BEGIN
    EXECUTE 'WITH gone AS (
            DELETE FROM history h WHERE h.id = ANY ($1) AND ($2 IS NULL OR h.state = $2)
                AND h.finished_at >= $4 AND h.finished_at < $5 AND h.unique_key IS NULL AND h.gates IS NULL
            RETURNING h.*
        ), come AS (
            INSERT INTO live (id, line, queue, task, priority, rank, state, run_at, args, options, tags, follow,
                fence, seq, ending, attempts, enqueued_at, started_at, brief, ahead, fair, fair_key, spacing)
            SELECT id, queue || ''/'' || task, queue, task, priority, $3 - ahead, ''ready'', $3, args, options, tags, follow,
                fence, seq, ending, attempts, enqueued_at, started_at, brief, ahead, fair, fair_key, spacing
            FROM gone RETURNING id, line, priority, rank
        ), by_line AS (SELECT line, priority, min(rank) AS rank FROM come GROUP BY 1, 2)
        SELECT array_agg(line), array_agg(priority), array_agg(rank), (SELECT array_agg(id) FROM come) FROM by_line'
        INTO lines_, priorities, ranks, done
        USING ids, only_in, moment, (SELECT min(born_at(i)) - day / 24 FROM unnest(ids) i),
            (SELECT max(born_at(i)) + day FROM unnest(ids) i);
    IF lines_ IS NOT NULL THEN
        PERFORM note_lines(lines_, priorities, ranks);
        RETURN QUERY SELECT unnest(done);
    END IF;
END $$;

CREATE OR REPLACE FUNCTION act(ids text[], verb text, only_in text) RETURNS SETOF text LANGUAGE plpgsql
SET search_path = {schema}, pg_temp SET lock_timeout = '5s' SET jit = off AS $$
DECLARE
    moment bigint := now_micros();
    done text[] := '{}';
    wanted text;
BEGIN
    IF verb = 'retry' THEN
        done := ARRAY(SELECT retry_plain(ids, only_in, moment));
        RETURN QUERY SELECT unnest(done);
    END IF;
    FOR wanted IN SELECT DISTINCT i FROM unnest(ids) i WHERE i <> ALL (done) ORDER BY 1 LOOP
        IF verb = 'cancel' THEN
            CONTINUE WHEN NOT cancel_one(wanted, 'cancelled by an operator', moment, only_in);
        ELSIF verb = 'delete' THEN
            UPDATE live SET state = 'cancelled', finished_at = moment, follow = NULL
            WHERE id = wanted AND state <> 'running' AND (only_in IS NULL OR state = only_in);
            IF FOUND THEN
                PERFORM archive(ARRAY[wanted]);
                CONTINUE WHEN NOT forget_past(past_of(wanted, 'cancelled'));
            ELSE
                CONTINUE WHEN NOT forget_past(past_of(wanted, only_in));
            END IF;
        ELSE
            UPDATE live SET state = 'ready', run_at = moment, rank = moment - ahead WHERE id = wanted AND state = 'scheduled'
                AND (only_in IS NULL OR state = only_in);
            IF FOUND THEN
                PERFORM note_lines(ARRAY[line], ARRAY[priority], ARRAY[rank]) FROM live WHERE id = wanted AND state = 'ready';
            ELSE
                CONTINUE WHEN NOT retry_over(wanted, only_in, moment);
            END IF;
        END IF;
        RETURN NEXT wanted;
    END LOOP;
END $$;
