-- Workers and runners: who is registered, whose lease is over, and what comes back from those that are gone.

CREATE FUNCTION refuse_known(candidate text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT 1 FROM departed WHERE id = candidate) OR EXISTS (SELECT 1 FROM workers WHERE id = candidate)
        OR EXISTS (SELECT 1 FROM runners WHERE id = candidate) THEN
        RAISE EXCEPTION USING ERRCODE = 'WL001',
            MESSAGE = format('%s was registered before; start under a new id', candidate);
    END IF;
END $$;

CREATE FUNCTION enlist(
    worker text, host text, pid integer, version text, lease double precision, queues text, concurrency integer
) RETURNS void LANGUAGE plpgsql SET search_path = {schema}, pg_temp SET lock_timeout = '1s' AS $$
BEGIN
    PERFORM refuse_known(worker);
    INSERT INTO workers VALUES (worker, host, pid, version, lease, queues, concurrency, now_micros(), steady_micros());
EXCEPTION WHEN unique_violation THEN
    PERFORM refuse_known(worker);
END $$;

CREATE FUNCTION join_worker(runner text, owner text, pid integer, tasks text[]) RETURNS void LANGUAGE plpgsql
SET search_path = {schema}, pg_temp SET lock_timeout = '1s' AS $$
BEGIN
    -- The worker's row is locked, so that no reap takes it meanwhile and leaves this runner behind.
    PERFORM 1 FROM workers WHERE id = owner FOR KEY SHARE;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'WL001', MESSAGE = format('worker %s is not registered any more', owner);
    END IF;
    PERFORM refuse_known(runner);
    INSERT INTO runners VALUES (runner, owner, pid, tasks, now_micros());
EXCEPTION WHEN unique_violation THEN
    PERFORM refuse_known(runner);
END $$;

-- Make ready what these runners hold, and end it where it shall be cancelled; how many came back. With `kept`, only
-- claims up to `upto` that are not among (kept, kept_fences).
CREATE FUNCTION hand_back(
    holders text[], ending_ text, moment bigint, upto bigint, kept text[], kept_fences bigint[]
) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    back text[];
    over_ text[];
    suspect integer := CASE WHEN ending_ = 'lost' THEN 1 ELSE 0 END;
BEGIN
    WITH held AS (
        SELECT id FROM live WHERE runner = ANY (holders) AND state = 'running'
            AND (upto IS NULL OR seq <= upto AND NOT EXISTS (
                SELECT 1 FROM unnest(kept, kept_fences) AS k (id, fence) WHERE k.id = live.id AND k.fence = live.fence))
        ORDER BY id FOR UPDATE
    ), moved AS (
        UPDATE live SET
            state = CASE WHEN cancelling THEN 'cancelled' ELSE 'ready' END,
            finished_at = CASE WHEN cancelling THEN moment END,
            reason = CASE WHEN cancelling THEN reason END,
            cancelling = false, lost = greatest(lost, suspect), runner = NULL,
            line = queue || '/' || task || CASE WHEN greatest(lost, suspect) > 0 THEN '!' ELSE '' END,
            attempts = attempts || as_attempt(fence, attempt, ending_, runner, started_at, moment, NULL)
        FROM held WHERE live.id = held.id
        RETURNING live.id, live.state
    )
    SELECT array_agg(id), array_agg(id) FILTER (WHERE state = 'cancelled') INTO back, over_ FROM moved;
    IF back IS NULL THEN
        RETURN 0;
    END IF;
    PERFORM note_lines(array_agg(line), array_agg(priority), array_agg(rank))
    FROM (SELECT line, priority, min(rank) AS rank FROM live WHERE id = ANY (back) AND state = 'ready'
        GROUP BY line, priority) l;
    IF over_ IS NOT NULL THEN
        PERFORM archive(over_);
    END IF;
    RETURN cardinality(back);
END $$;

CREATE FUNCTION depart_runners(gone text[], moment bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM runners WHERE id = ANY (gone) ORDER BY id FOR UPDATE;   -- waits for an exchange that is under way
    DELETE FROM runners WHERE id = ANY (gone);
    INSERT INTO departed SELECT unnest(gone), moment ON CONFLICT DO NOTHING;
    DELETE FROM exchanges WHERE runner = ANY (gone);
END $$;

CREATE FUNCTION release(gone text[], ending text, outcomes json) RETURNS integer LANGUAGE plpgsql
SET search_path = {schema}, pg_temp SET lock_timeout = '5s' AS $$
DECLARE
    moment bigint := now_micros();
    holder text;
BEGIN
    PERFORM depart_runners(gone, moment);
    IF outcomes IS NOT NULL THEN
        FOREACH holder IN ARRAY gone LOOP
            PERFORM settle_each(holder, moment, outcomes);
        END LOOP;
    END IF;
    RETURN hand_back(gone, ending, moment, NULL, NULL, NULL);
END $$;

CREATE FUNCTION depart_worker(worker_ text, ending text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    moment bigint := now_micros();
    gone text[];
BEGIN
    DELETE FROM workers WHERE id = worker_;
    INSERT INTO departed VALUES (worker_, moment) ON CONFLICT DO NOTHING;
    SELECT array_agg(id) INTO gone FROM runners WHERE worker = worker_;
    IF gone IS NOT NULL THEN
        PERFORM depart_runners(gone, moment);
        PERFORM hand_back(gone, ending, moment, NULL, NULL, NULL);
    END IF;
END $$;

CREATE FUNCTION retire(worker text) RETURNS void LANGUAGE plpgsql
SET search_path = {schema}, pg_temp SET lock_timeout = '5s' AS $$
BEGIN
    PERFORM depart_worker(worker, 'interrupted');
END $$;

CREATE FUNCTION reap(spare text) RETURNS SETOF text LANGUAGE plpgsql
SET search_path = {schema}, pg_temp SET lock_timeout = '1s' AS $$
DECLARE
    dead text;
    steady bigint := steady_micros();
BEGIN
    UPDATE workers SET beat_at = steady WHERE beat_at > steady_micros();  -- the clock was set back: their lease begins now
    FOR dead IN
        SELECT id FROM workers WHERE beat_at + lease * 1000000 < steady AND id IS DISTINCT FROM spare
        ORDER BY id FOR UPDATE SKIP LOCKED
    LOOP
        BEGIN
            PERFORM depart_worker(dead, 'lost');
        EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
            CONTINUE;  -- somebody still holds a row of it: next time, and the others now
        END;
        RETURN NEXT dead;
    END LOOP;
END $$;

-- Whether a runner has claims up to an exchange that are not among those it says it holds. Claims up to `since` are only
-- looked for among `remaining`: an old snapshot keeps all that were ever claimed in the index. That is enough, because a
-- copy of an exchange up to `upto` that is still under way claims nothing when it arrives: its turn is marked as had.
CREATE FUNCTION phantoms(
    holder text, upto bigint, kept text[], kept_fences bigint[], since bigint, remaining text[]
) RETURNS boolean LANGUAGE plpgsql
SET search_path = {schema}, pg_temp SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan SET jit = off SET lock_timeout = '1s' AS $$
BEGIN
    IF coalesce((SELECT e.seq FROM exchanges e WHERE e.runner = holder ORDER BY e.seq DESC LIMIT 1), -1) < upto THEN
        PERFORM 1 FROM runners WHERE id = holder FOR NO KEY UPDATE;     -- waits for an exchange that is under way
        IF FOUND THEN
            DELETE FROM exchanges WHERE runner = holder AND seq < upto;     -- else an idle runner leaves one each look
            INSERT INTO exchanges VALUES (holder, upto) ON CONFLICT DO NOTHING;
        END IF;
    END IF;
    RETURN EXISTS (
        SELECT 1 FROM (
            SELECT id, fence FROM live WHERE runner = holder AND state = 'running' AND seq > since AND seq <= upto
            UNION ALL
            SELECT id, fence FROM live WHERE id = ANY (remaining) AND runner = holder AND state = 'running' AND seq <= upto
        ) h WHERE NOT EXISTS (
            SELECT 1 FROM unnest(kept, kept_fences) AS k (id, fence) WHERE k.id = h.id AND k.fence = h.fence));
END $$;

CREATE FUNCTION reconcile(runner text, upto bigint, kept text[], kept_fences bigint[]) RETURNS integer LANGUAGE plpgsql
SET search_path = {schema}, pg_temp SET lock_timeout = '1s' AS $$
BEGIN
    RETURN hand_back(ARRAY[runner], 'interrupted', now_micros(), upto, kept, kept_fences);
END $$;

-- Whether there is a ready job, looking no further back than the bounds.
CREATE FUNCTION any_ready() RETURNS boolean LANGUAGE sql AS $$
    SELECT EXISTS (SELECT 1 FROM lines l CROSS JOIN LATERAL (
        SELECT 1 FROM live r WHERE r.state = 'ready' AND r.line = l.line AND r.priority = l.priority AND r.rank >= l.low
        ORDER BY r.rank LIMIT 1) x)
$$;

CREATE TYPE orders AS (evicted boolean, cancel text[], due bigint, fire bigint, dead boolean, survey boolean);

CREATE FUNCTION beat(worker_ text) RETURNS orders LANGUAGE plpgsql
SET search_path = {schema}, pg_temp SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan SET jit = off SET lock_timeout = '1s' AS $$
DECLARE
    answer orders;
    moment bigint := now_micros();
    low bounds;
BEGIN
    UPDATE workers SET beat_at = steady_micros() WHERE id = worker_;
    answer.evicted := NOT FOUND;
    IF answer.evicted THEN
        RETURN answer;
    END IF;
    SELECT array_agg(json_build_array(l.runner, l.id, l.fence)::text) INTO answer.cancel
    FROM runners r JOIN live l ON l.runner = r.id AND l.cancelling WHERE r.worker = worker_;
    SELECT * INTO low FROM bounds;
    IF any_ready() THEN
        answer.due := 0;
    ELSE
        SELECT greatest(0, run_at - moment) INTO answer.due FROM live
        WHERE state = 'scheduled' AND run_at >= low.due_low ORDER BY run_at LIMIT 1;
        answer.due := least(answer.due, next_look(moment, low.call_low) - moment);
        IF answer.due < 0 THEN
            answer.due := 0;
        END IF;
    END IF;
    answer.fire := least(
        (SELECT due FROM docs WHERE kind = 'schedule' AND due IS NOT NULL ORDER BY due LIMIT 1),
        (SELECT due FROM docs WHERE kind = 'pending' AND due IS NOT NULL ORDER BY due LIMIT 1)
    ) - moment;
    IF answer.fire < 0 THEN
        answer.fire := 0;
    END IF;
    answer.dead := EXISTS (
        SELECT 1 FROM workers WHERE beat_at + lease * 1000000 < steady_micros() OR beat_at > steady_micros());
    answer.survey := moment >= low.surveyed_at + 1000000 OR moment < low.surveyed_at;
    RETURN answer;
END $$;

-- Whether a line has ready jobs from one rank on and before another.
CREATE FUNCTION ready_between(line_ text, priority_ smallint, from_ bigint, before_ bigint) RETURNS boolean
LANGUAGE sql AS $$
    SELECT EXISTS (SELECT 1 FROM live WHERE state = 'ready' AND line = line_ AND priority = priority_ AND rank >= from_
        AND rank < before_)
$$;

-- Set the bounds to what is there now, less half a second. From the old bounds on where that is enough; at times from the
-- bottom, which also finds what landed below them and lines that nobody noted (jobs put within somebody else's
-- transaction), but walks along all that an old snapshot keeps: each second, or so rarely that it takes a twentieth of the
-- time. One at a time in the whole store.
CREATE FUNCTION survey() RETURNS void LANGUAGE plpgsql
SET search_path = {schema}, pg_temp SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET enable_bitmapscan = off SET jit = off SET lock_timeout = '1s' SET statement_timeout = '60s' AS $$
DECLARE
    lag bigint := 500000;
    minute bigint := 60000000;
    began timestamptz := clock_timestamp();
    moment bigint;
    low bounds;
    deep boolean;
    present lines[];
    next_due bigint;
    next_expiry bigint;
    next_call bigint;
BEGIN
    SELECT * INTO low FROM bounds FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    moment := now_micros();
    deep := moment >= low.deep_at + greatest(1000000, 20 * low.survey_took) OR moment < low.deep_at
        OR low.surveyed_at = 0;
    IF deep THEN
        low.due_low := 0;
        low.expiry_low := 0;
        low.call_low := 0;
        WITH RECURSIVE found AS (
            (SELECT line, priority, rank FROM live WHERE state = 'ready' ORDER BY line, priority DESC, rank LIMIT 1)
            UNION ALL
            SELECT n.line, n.priority, n.rank FROM found f CROSS JOIN LATERAL (
                (SELECT line, priority, rank FROM live
                WHERE state = 'ready' AND line = f.line AND priority < f.priority
                ORDER BY line, priority DESC, rank LIMIT 1)
                UNION ALL
                (SELECT line, priority, rank FROM live WHERE state = 'ready' AND line > f.line
                ORDER BY line, priority DESC, rank LIMIT 1)
                LIMIT 1) n
        )
        SELECT array_agg(ROW(line, priority, least(rank, moment) - lag, moment)::lines) INTO present FROM found;
    ELSE
        SELECT array_agg(ROW(l.line, l.priority, least(n.rank, moment) - lag, moment)::lines) INTO present
        FROM lines l CROSS JOIN LATERAL (
            SELECT rank FROM live
            WHERE state = 'ready' AND line = l.line AND priority = l.priority AND rank >= l.low
            ORDER BY rank LIMIT 1) n;
    END IF;
    -- Rows are touched only when it matters: an idle store shall not write. A bound is raised only where, by now, still
    -- nothing stands before the new one: a job may have been handed back since the walk.
    INSERT INTO lines SELECT p.line, p.priority, p.low, p.seen_at FROM unnest(present) p
    ON CONFLICT (line, priority) DO UPDATE SET seen_at = excluded.seen_at, low = CASE WHEN excluded.low > lines.low
        AND ready_between(lines.line, lines.priority, lines.low, excluded.low) THEN lines.low ELSE excluded.low END
    WHERE lines.low > excluded.low OR lines.low < excluded.low - 100000 OR lines.seen_at < moment - minute / 6;
    UPDATE lines SET low = moment - lag WHERE lines.low < moment - minute / 6 AND NOT EXISTS (
        SELECT 1 FROM unnest(present) p WHERE p.line = lines.line AND p.priority = lines.priority)
        AND NOT ready_between(line, priority, lines.low, moment - lag);
    DELETE FROM lines WHERE deep AND seen_at < moment - minute AND NOT EXISTS (
        SELECT 1 FROM unnest(present) p WHERE p.line = lines.line AND p.priority = lines.priority);
    SELECT run_at INTO next_due FROM live WHERE state = 'scheduled' AND run_at >= low.due_low ORDER BY run_at LIMIT 1;
    SELECT expires_at INTO next_expiry FROM live
    WHERE expires_at IS NOT NULL AND started_at IS NULL AND expires_at >= low.expiry_low ORDER BY expires_at LIMIT 1;
    SELECT least((SELECT at FROM stirred WHERE at >= low.call_low ORDER BY at LIMIT 1),
        (SELECT at FROM freed WHERE at >= low.call_low ORDER BY at LIMIT 1)) INTO next_call;
    UPDATE bounds SET surveyed_at = moment,
        call_low = least(coalesce(next_call, moment), moment) - lag,
        due_low = least(coalesce(next_due, moment), moment) - lag,
        expiry_low = least(coalesce(next_expiry, moment), moment) - lag,
        deep_at = CASE WHEN deep THEN moment ELSE deep_at END,
        survey_took = CASE WHEN deep THEN (extract(epoch FROM clock_timestamp() - began) * 1000000)::bigint
            ELSE survey_took END;
END $$;
