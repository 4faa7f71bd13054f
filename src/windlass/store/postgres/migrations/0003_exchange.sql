-- Settle and claim: what happens to a job while workers have it.

-- Move jobs that have come to their end into the history, and free their keys.
CREATE FUNCTION archive(ids text[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    keys text[];
BEGIN
    WITH gone AS (DELETE FROM live WHERE id = ANY (ids) RETURNING *),
    kept AS (INSERT INTO history SELECT * FROM gone)
    SELECT array_agg(unique_key) INTO keys FROM gone WHERE unique_key IS NOT NULL;
    IF keys IS NOT NULL THEN
        DELETE FROM marks WHERE key = ANY (keys) AND job = ANY (ids) AND until IS NULL;
    END IF;
END $$;

-- Make the jobs that follow one that has come to its end, whoever ended it. What nobody of ours wrote there makes none.
CREATE FUNCTION follow() RETURNS trigger LANGUAGE plpgsql AS $$
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
        rank := NEW.finished_at + f.delay;
        -- Successes and failures are of an attempt, which has but one end. A job that waits may be retried and cancelled
        -- any number of times under the same fence.
        CONTINUE WHEN letter = 'c' AND EXISTS (SELECT 1 FROM over(ARRAY[name], NEW.enqueued_at));
        INSERT INTO live (id, line, queue, task, priority, rank, state, run_at, expires_at, args, options, tags, follow,
            enqueued_at, gates)
        VALUES (name, line, f.queue, f.task, f.priority, rank, CASE WHEN f.delay > 0 THEN 'scheduled'
            WHEN f.gates IS NOT NULL THEN 'waiting' ELSE 'ready' END,
            rank, NEW.finished_at + f.expires, f.args, f.options, f.tags, f.follow, NEW.finished_at, f.gates)
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

CREATE TRIGGER followed AFTER INSERT ON history FOR EACH ROW WHEN (NEW.follow IS NOT NULL) EXECUTE FUNCTION follow();

-- One attempt that did not succeed, as `live.attempts` keeps it; the failure is JSON already.
CREATE FUNCTION as_attempt(fence bigint, attempt integer, ending text, runner text, began bigint, ended bigint, failure text)
RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT json_build_array(fence, attempt, ending, runner, began, ended, failure::json)::text
$$;

-- Whether this very outcome of this fence was applied before.
CREATE FUNCTION stands(job text, job_fence bigint, job_seq bigint, holder text, how text) RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
    RETURN EXISTS (SELECT 1 FROM live WHERE id = job AND fence = job_fence AND seq = job_seq AND runner = holder
        AND ending = how AND state <> 'running')
    OR EXISTS (SELECT 1 FROM history WHERE id = job AND fence = job_fence AND seq = job_seq AND runner = holder
        AND ending = how);
END $$;

-- Outcomes of any kind, one after another; the ids of those that do not stand. A job marked for cancelling does not
-- come back.
CREATE FUNCTION settle_each(holder text, moment bigint, outcomes json) RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
    o record;
    after text;
    refused text[] := '{}';
BEGIN
    FOR o IN
        SELECT * FROM json_to_recordset(outcomes) AS r (id text, fence bigint, seq bigint, ending text, state text,
            attempt integer, lost integer, delay bigint, result text, failure text, reason text)
    LOOP
        UPDATE live SET
            state = CASE WHEN cancelling AND o.state IN ('ready', 'scheduled') THEN 'cancelled' ELSE o.state END,
            cancelling = false, ending = o.ending, attempt = o.attempt, lost = o.lost, reason = o.reason,
            result = o.result,
            finished_at = CASE WHEN cancelling OR o.state NOT IN ('ready', 'scheduled') THEN moment END,
            line = queue || '/' || task || CASE WHEN o.lost > 0 THEN '!' ELSE '' END,
            run_at = CASE WHEN o.state = 'scheduled' THEN moment + o.delay ELSE run_at END,
            rank = CASE WHEN o.state = 'scheduled' AND NOT (gates IS NOT NULL
                AND EXISTS (SELECT 1 FROM holds h WHERE h.job = o.id AND h.keep)) THEN moment + o.delay - ahead ELSE rank END,
            attempts = CASE WHEN o.ending = 'succeeded' THEN attempts ELSE attempts
                || as_attempt(fence, o.attempt, o.ending, runner, started_at, moment, o.failure) END
        WHERE id = o.id AND fence = o.fence AND seq = o.seq AND runner = holder AND state = 'running'
        RETURNING state INTO after;
        IF NOT FOUND THEN
            IF NOT stands(o.id, o.fence, o.seq, holder, o.ending) THEN
                refused := refused || o.id;
            END IF;
        ELSIF after = 'ready' THEN
            PERFORM note_lines(ARRAY[line], ARRAY[priority], ARRAY[rank]) FROM live WHERE id = o.id;
        ELSIF after NOT IN ('scheduled', 'waiting') THEN
            PERFORM archive(ARRAY[o.id]);
        END IF;
    END LOOP;
    RETURN refused;
END $$;

-- Plain successes, nearly all of the traffic, at once.
CREATE FUNCTION succeed(
    holder text, moment bigint, ids text[], fences bigint[], seqs bigint[], counts integer[], results text[]
) RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
    done text[];
    keys text[];
BEGIN
    -- The conditions on runner and state are such that no index fits them: each job is found by its id.
    WITH gone AS (
        DELETE FROM live USING unnest(ids, fences, seqs, counts, results) AS b (id, fence, seq, attempt, result)
        WHERE live.id = b.id AND live.fence = b.fence AND coalesce(live.seq, 0) = b.seq
            AND coalesce(live.runner, '') = holder AND coalesce(live.state, '') = 'running'
        RETURNING live.id, line, queue, task, priority, rank, run_at, expires_at, args, options, unique_key, tags,
            follow, b.attempt, live.fence, live.seq, b.result, progress, attempts, enqueued_at, started_at, brief, gates,
            ahead, fair, fair_key, spacing
    ), kept AS (
        INSERT INTO history (id, line, queue, task, priority, rank, state, run_at, expires_at, args, options, unique_key,
            tags, follow, attempt, fence, runner, seq, ending, result, progress, attempts, enqueued_at, started_at, finished_at,
            brief, gates, ahead, fair, fair_key, spacing)
        SELECT id, line, queue, task, priority, rank, 'succeeded', run_at, expires_at, args, options, unique_key,
            tags, follow, attempt, fence, holder, seq, 'succeeded', result, progress, attempts, enqueued_at, started_at, moment,
            brief, gates, ahead, fair, fair_key, spacing
        FROM gone
        RETURNING id, unique_key
    )
    SELECT array_agg(id), array_agg(unique_key) FILTER (WHERE unique_key IS NOT NULL) INTO done, keys FROM kept;
    IF keys IS NOT NULL THEN
        DELETE FROM marks WHERE key = ANY (keys) AND job = ANY (done) AND until IS NULL;
    END IF;
    IF cardinality(done) = cardinality(ids) THEN
        RETURN '{}';
    END IF;
    RETURN (SELECT coalesce(array_agg(b.id), '{}') FROM unnest(ids, fences, seqs) AS b (id, fence, seq)
        WHERE NOT b.id = ANY (coalesce(done, '{}')) AND NOT stands(b.id, b.fence, b.seq, holder, 'succeeded'));
END $$;

CREATE FUNCTION settle(holder text, outcomes json) RETURNS text[] LANGUAGE sql
SET search_path = {schema}, pg_temp SET enable_seqscan = off SET lock_timeout = '1s' AS $$
    SELECT settle_each(holder, now_micros(), outcomes)
$$;

-- Cancel what is past its time to start, at most a batch; how many.
CREATE FUNCTION expire(moment bigint, low bigint) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    late text[];
BEGIN
    SELECT array_agg(id) INTO late FROM (
        SELECT id FROM live WHERE expires_at IS NOT NULL AND started_at IS NULL AND expires_at >= low
            AND expires_at <= moment
        ORDER BY expires_at LIMIT 1000 FOR UPDATE SKIP LOCKED) l;
    IF late IS NULL THEN
        RETURN 0;
    END IF;
    PERFORM cancel_late(late, moment);
    RETURN cardinality(late);
END $$;

CREATE FUNCTION cancel_late(late text[], moment bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE live SET state = 'cancelled', reason = 'expired', finished_at = moment WHERE id = ANY (late);
    PERFORM archive(late);
END $$;

-- Make due jobs ready, at most a batch; when the next one is due.
CREATE FUNCTION promote(moment bigint, low bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    first bigint;
    names text[];
    priorities smallint[];
    ranks bigint[];
BEGIN
    SELECT run_at INTO first FROM live WHERE state = 'scheduled' AND run_at >= low ORDER BY run_at LIMIT 1;
    IF first IS NULL OR first > moment THEN
        RETURN first;
    END IF;
    WITH due AS (
        SELECT id FROM live WHERE state = 'scheduled' AND run_at >= low AND run_at <= moment
        ORDER BY run_at, id LIMIT 1000 FOR UPDATE SKIP LOCKED
    ), moved AS (
        UPDATE live SET state = 'ready' FROM due WHERE live.id = due.id RETURNING line, priority, rank
    ), firsts AS (
        SELECT line, priority, min(rank) AS rank FROM moved GROUP BY line, priority
    )
    SELECT array_agg(line), array_agg(priority), array_agg(rank) INTO names, priorities, ranks FROM firsts;
    PERFORM note_lines(names, priorities, ranks, 0);   -- what is late comes in masses, and shall not stand in line here
    SELECT run_at INTO first FROM live WHERE state = 'scheduled' AND run_at >= low ORDER BY run_at LIMIT 1;
    RETURN first;
END $$;

CREATE TYPE exchanged AS (
    refused text[], finished boolean, next_run bigint, more boolean, opened boolean,  -- the first row
    id text, fence bigint, seq bigint, task text, queue text, args text, options text, priority smallint,
    attempt integer, lost integer, enqueued_at bigint, run_at bigint  -- the other rows: claims
);

-- How many jobs the merge of several lines takes from each, reading at most `depth` heads of each. `passed`: how many
-- expired ones stand among those. `cut`: it ended early, because what comes next in a line was not read.
CREATE FUNCTION merge_heads(
    moment bigint, slots integer, depth integer, group_lines text[], group_priorities smallint[], group_lows bigint[],
    group_lanes integer[], group_ranks integer[], free integer[], shares integer[],
    OUT plan integer[], OUT passed integer[], OUT cut boolean
) LANGUAGE plpgsql AS $$
DECLARE
    total integer := 0;
    heads integer[];
    is_last boolean[];
    is_late boolean[];
    taken boolean[];
    g integer;
BEGIN
    plan := array_fill(0, ARRAY[cardinality(group_lines)]);
    passed := plan;
    cut := false;
    SELECT array_agg(h.g ORDER BY h.place, h.priority DESC, h.rank, h.id),
        array_agg(h.n = depth ORDER BY h.place, h.priority DESC, h.rank, h.id),
        array_agg(h.is_late ORDER BY h.place, h.priority DESC, h.rank, h.id)
    INTO heads, is_last, is_late
    FROM (
        SELECT s.g::integer AS g, group_ranks[s.g] AS place, s.priority, r.rank, r.id, r.is_late,
            row_number() OVER (PARTITION BY s.g ORDER BY r.rank, r.id) AS n
        FROM unnest(group_lines, group_priorities, group_lows) WITH ORDINALITY AS s (line, priority, low, g)
        CROSS JOIN LATERAL (
            SELECT rank, id, coalesce(expires_at <= moment AND started_at IS NULL, false) AS is_late FROM live
            WHERE state = 'ready' AND line = s.line AND priority = s.priority AND rank >= s.low
            ORDER BY rank, id LIMIT depth) r
    ) h;
    taken := array_fill(false, ARRAY[coalesce(cardinality(heads), 0)]);
    -- With quotas, each queue's share first, then what is left, both in order.
    FOR round IN CASE WHEN shares IS NULL THEN 2 ELSE 1 END..2 LOOP
        FOR i IN 1..cardinality(taken) LOOP
            EXIT WHEN total >= slots;
            g := heads[i];
            CONTINUE WHEN taken[i] OR free[group_lanes[g]] <= 0;
            CONTINUE WHEN round = 1 AND shares[group_ranks[g]] <= 0;
            taken[i] := true;
            IF is_late[i] THEN
                passed[g] := passed[g] + 1;
            ELSE
                plan[g] := plan[g] + 1;
                total := total + 1;
                free[group_lanes[g]] := free[group_lanes[g]] - 1;
                IF round = 1 THEN
                    shares[group_ranks[g]] := shares[group_ranks[g]] - 1;
                END IF;
            END IF;
            IF is_last[i] AND total < slots AND free[group_lanes[g]] > 0 THEN
                cut := true;
                RETURN;
            END IF;
        END LOOP;
    END LOOP;
END $$;

-- The best ready jobs for a demand, locked. `names` are the tasks (with ! for suspects) that `serves` gives a lane to,
-- `free` the slots of the lanes, `queues` and `shares` the quotas. `cut`: there may be more that could be taken.
--
-- First it looks, without locks, how many jobs the merge of all lines takes from each; then it takes so many from
-- each, leaving out those that another claim has locked.
CREATE FUNCTION choose(
    moment bigint, slots integer, names text[], serves integer[], free integer[], queues text[], shares integer[],
    OUT chosen tid[], OUT late text[], OUT cut boolean, OUT gated boolean
) LANGUAGE plpgsql AS $$
DECLARE
    group_lines text[];
    group_priorities smallint[];
    group_lows bigint[];
    group_lanes integer[];
    group_ranks integer[];      -- the place of a group's queue among the quotas
    groups integer;
    plan integer[];             -- how many to take of each group
    passed integer[];           -- how many expired ones stand before those
    depth integer;
    most integer;
    good tid[];
    bad text[];
    any_gated boolean;
BEGIN
    chosen := '{}';
    late := '{}';
    cut := false;
    gated := false;
    SELECT array_agg(l.line), array_agg(l.priority), array_agg(l.low), array_agg(s.lane),
        array_agg(coalesce(q.n, 1)), count(*)
    INTO group_lines, group_priorities, group_lows, group_lanes, group_ranks, groups
    FROM lines l
    JOIN unnest(names, serves) AS s (name, lane) ON s.name = split_part(l.line, '/', 2)
    LEFT JOIN unnest(queues) WITH ORDINALITY AS q (name, n) ON q.name = split_part(l.line, '/', 1)
    WHERE queues IS NULL OR q.n IS NOT NULL;
    IF groups = 0 THEN
        RETURN;
    END IF;
    IF groups = 1 THEN
        plan := ARRAY[least(slots, free[group_lanes[1]])];
        passed := ARRAY[0];
    ELSE
        depth := greatest(8, slots * 2 / groups);
        SELECT m.plan, m.passed, m.cut INTO plan, passed, cut FROM merge_heads(
            moment, slots, depth, group_lines, group_priorities, group_lows, group_lanes, group_ranks, free, shares) m;
        IF cut AND depth < slots THEN
            SELECT m.plan, m.passed, m.cut INTO plan, passed, cut FROM merge_heads(
                moment, slots, slots, group_lines, group_priorities, group_lows, group_lanes, group_ranks, free, shares) m;
        END IF;
    END IF;
    FOR g IN 1..groups LOOP
        most := plan[g] + passed[g];
        CONTINUE WHEN most <= 0;
        SELECT array_agg(r.place) FILTER (WHERE NOT r.is_late), array_agg(r.id) FILTER (WHERE r.is_late),
            bool_or(r.is_gated)
        INTO good, bad, any_gated
        FROM (
            SELECT ctid AS place, id, gates IS NOT NULL AS is_gated, coalesce(expires_at <= moment AND started_at IS NULL, false) AS is_late FROM live
            WHERE state = 'ready' AND line = group_lines[g] AND priority = group_priorities[g]
                AND rank >= group_lows[g]
            ORDER BY rank, id LIMIT most FOR UPDATE SKIP LOCKED) r;
        chosen := chosen || good[1:plan[g]];
        late := late || bad;
        gated := gated OR coalesce(any_gated, false);
        cut := cut OR bad IS NOT NULL OR (groups > 1 AND coalesce(cardinality(good), 0) < plan[g]);
    END LOOP;
END $$;

CREATE FUNCTION exchange(
    holder text, turn bigint,
    ids text[], fences bigint[], seqs bigint[], counts integer[], results text[], outcomes json,
    slots integer, names text[], serves integer[], free integer[], queues text[], shares integer[]
) RETURNS SETOF exchanged LANGUAGE plpgsql
SET search_path = {schema}, pg_temp SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET enable_bitmapscan = off SET plan_cache_mode = force_generic_plan SET jit = off SET lock_timeout = '1s' AS $$
DECLARE
    moment bigint;
    low bounds;
    head exchanged;
    last bigint;
    taken tid[];                -- where the rows are: they are locked, so they stay there
    expired integer;
BEGIN
    PERFORM 1 FROM runners WHERE id = holder FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'WL001',
            MESSAGE = format('runner %s is not registered any more: its jobs were handed to others', holder);
    END IF;
    moment := now_micros();
    SELECT e.seq INTO last FROM exchanges e WHERE e.runner = holder ORDER BY e.seq DESC LIMIT 1;
    head.refused := '{}';
    IF ids IS NOT NULL THEN
        head.refused := succeed(holder, moment, ids, fences, seqs, counts, results);
    END IF;
    IF outcomes IS NOT NULL THEN
        head.refused := head.refused || settle_each(holder, moment, outcomes);
    END IF;
    head.finished := coalesce(cardinality(ids), 0) + coalesce(json_array_length(outcomes), 0) > cardinality(head.refused);
    head.more := false;
    IF turn <= last THEN
        head.more := true;
        RETURN NEXT head;
        RETURN QUERY SELECT NULL::text[], NULL::boolean, NULL::bigint, NULL::boolean, NULL::boolean, l.id, l.fence, l.seq, l.task,
            l.queue, l.args, l.options, l.priority, l.attempt, l.lost, l.enqueued_at, l.run_at
            FROM live l WHERE l.runner = holder AND l.seq = turn AND l.state = 'running'
            ORDER BY l.priority DESC, l.rank, l.id;
        RETURN;
    END IF;
    SELECT * INTO low FROM bounds;
    IF moment < low.surveyed_at AND now_micros() < low.surveyed_at THEN    -- somebody set the clock back: what the bounds tell is of another time
        UPDATE lines SET low = 0;
        UPDATE bounds SET due_low = 0, expiry_low = 0, call_low = 0, surveyed_at = moment RETURNING * INTO low;
    END IF;
    expired := expire(moment, low.expiry_low);
    head.finished := head.finished OR expired > 0;
    head.next_run := promote(moment, low.due_low);
    IF slots > 0 AND cardinality(names) > 0 THEN
        SELECT c.chosen, c.opened, c.cut INTO taken, head.opened, head.more
        FROM claim(moment, low.call_low, slots, names, serves, free, queues, shares) c;
        head.more := head.more OR cardinality(taken) >= slots;
        head.next_run := least(head.next_run, next_look(moment, low.call_low));
    END IF;
    IF head.next_run IS NOT NULL THEN
        head.next_run := greatest(0, head.next_run - moment);
    END IF;
    RETURN NEXT head;
    IF cardinality(taken) > 0 THEN
        RETURN QUERY WITH mine AS (
            UPDATE live l SET state = 'running', fence = l.fence + 1, runner = holder, seq = turn, started_at = moment,
                progress = NULL, ending = NULL
            WHERE l.ctid = ANY (taken)
            RETURNING l.id, l.fence, l.seq, l.task, l.queue, l.args, l.options, l.priority, l.attempt, l.lost, l.enqueued_at,
                l.run_at, l.rank
        ) SELECT NULL::text[], NULL::boolean, NULL::bigint, NULL::boolean, NULL::boolean, m.id, m.fence, m.seq, m.task, m.queue,
            m.args, m.options, m.priority, m.attempt, m.lost, m.enqueued_at, m.run_at
        FROM mine m ORDER BY m.priority DESC, m.rank, m.id;
    END IF;
    IF ids IS NOT NULL OR outcomes IS NOT NULL OR cardinality(taken) > 0 THEN
        INSERT INTO exchanges VALUES (holder, turn);
        IF turn % 1024 = 0 THEN
            DELETE FROM exchanges e WHERE e.runner = holder AND e.seq < turn - 1;
        END IF;
    END IF;
END $$;
