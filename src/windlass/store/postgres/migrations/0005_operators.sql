-- What people do to jobs, and what retention drops.

CREATE FUNCTION retry_over(wanted text, only_in text, moment bigint) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    past history;
BEGIN
    EXECUTE 'SELECT * FROM history WHERE id = $1 AND ($2 IS NULL OR state = $2) FOR UPDATE' INTO past
        USING wanted, only_in;
    IF past.id IS NULL THEN
        RETURN false;
    END IF;
    IF past.unique_key IS NOT NULL THEN
        INSERT INTO marks VALUES (past.unique_key, past.id, NULL) ON CONFLICT DO NOTHING;
        IF NOT EXISTS (SELECT 1 FROM marks WHERE key = past.unique_key AND job = past.id) THEN
            RETURN false;
        END IF;
    END IF;
    EXECUTE 'DELETE FROM history WHERE id = $1' USING wanted;
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

-- Cancel a job that is not over; whether there was one. With `only_in`, only in that state.
CREATE FUNCTION cancel_one(wanted text, why text, moment bigint, only_in text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    after text;
BEGIN
    UPDATE live SET cancelling = (state = 'running'), reason = why,
        finished_at = CASE WHEN state <> 'running' THEN moment END,
        state = CASE WHEN state = 'running' THEN state ELSE 'cancelled' END
    WHERE id = wanted AND NOT cancelling AND (only_in IS NULL OR state = only_in) RETURNING state INTO after;
    IF after = 'cancelled' THEN
        PERFORM archive(ARRAY[wanted]);
    END IF;
    RETURN after IS NOT NULL;
END $$;

-- With `only_in`, a job that is in another state by now is left alone.
CREATE FUNCTION act(ids text[], verb text, only_in text) RETURNS SETOF text LANGUAGE plpgsql
SET search_path = {schema}, pg_temp SET lock_timeout = '5s' SET jit = off AS $$
DECLARE
    moment bigint := now_micros();
    wanted text;
    after text;
BEGIN
    FOR wanted IN SELECT DISTINCT unnest(ids) ORDER BY 1 LOOP
        IF verb = 'cancel' THEN
            CONTINUE WHEN NOT cancel_one(wanted, 'cancelled by an operator', moment, only_in);
        ELSIF verb = 'delete' THEN
            UPDATE live SET state = 'cancelled', finished_at = moment, follow = NULL
            WHERE id = wanted AND state <> 'running' AND (only_in IS NULL OR state = only_in);
            IF FOUND THEN
                PERFORM archive(ARRAY[wanted]);
                EXECUTE 'DELETE FROM history WHERE id = $1' USING wanted;
            ELSE
                EXECUTE 'DELETE FROM history WHERE id = $1 AND ($2 IS NULL OR state = $2)' USING wanted, only_in;
            END IF;
            GET DIAGNOSTICS after = ROW_COUNT;
            CONTINUE WHEN after = '0';
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

-- Drop what is older than `keep` says (microseconds by state), at most `most` rows; how many. Whole days go as
-- partitions, so what is kept for a day or longer may stay up to a day more.
CREATE FUNCTION prune(keep json, most integer) RETURNS integer LANGUAGE plpgsql
SET search_path = {schema}, pg_temp SET lock_timeout = '200ms' SET jit = off AS $$
DECLARE
    moment bigint := now_micros();
    day bigint := 86400000000;
    left_ integer := most;
    kept record;
    old record;
    n integer;
BEGIN
    PERFORM add_days(2);
    FOR kept IN SELECT key AS state, value::bigint AS age FROM json_each_text(keep)
        WHERE key IN ('succeeded', 'failed', 'cancelled')
    LOOP
        FOR old IN
            SELECT c.relname, c.reltuples FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
            WHERE i.inhparent = to_regclass('history_' || kept.state) AND c.relname ~ '_[0-9]+$'
                AND (substring(c.relname FROM '_([0-9]+)$')::bigint + 1) * day <= moment - kept.age
        LOOP
            BEGIN
                EXECUTE format('DROP TABLE %I', old.relname);
                left_ := left_ - greatest(0, least(old.reltuples::integer, left_));
            EXCEPTION WHEN lock_not_available OR deadlock_detected THEN NULL;  -- somebody reads it: next time
            END;
        END LOOP;
        EXECUTE format('DELETE FROM %1$I WHERE id IN (SELECT id FROM %1$I WHERE finished_at <= $1
            ORDER BY finished_at LIMIT $2)', CASE WHEN kept.age < day THEN 'history_' || kept.state
            ELSE 'history_' || kept.state || '_rest' END) USING moment - kept.age, left_;
        GET DIAGNOSTICS n = ROW_COUNT;
        left_ := left_ - n;
    END LOOP;
    DELETE FROM marks WHERE key IN (SELECT key FROM marks WHERE until <= moment ORDER BY until LIMIT left_);
    GET DIAGNOSTICS n = ROW_COUNT;
    DELETE FROM docs WHERE kind = 'pace' AND name IN (
        SELECT name FROM docs WHERE kind = 'pace' AND due <= moment ORDER BY due LIMIT most);
    DELETE FROM departed WHERE left_at <= moment - 7 * day;
    DELETE FROM exchanges e WHERE NOT EXISTS (SELECT 1 FROM runners r WHERE r.id = e.runner);
    RETURN most - left_ + n;
END $$;

CREATE FUNCTION save(given json, dropped json, in_tx boolean) RETURNS void LANGUAGE plpgsql
SET search_path = {schema}, pg_temp SET lock_timeout = '1s' AS $$
BEGIN
    PERFORM save_docs(given, dropped, in_tx);
END $$;
