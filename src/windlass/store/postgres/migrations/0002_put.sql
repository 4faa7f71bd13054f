-- Jobs, marks and documents in. `shapes` points into `kinds`: what the jobs of one put have in common is sent once.

CREATE FUNCTION save_docs(given json, dropped json) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    doc record;
    stored bigint;
BEGIN
    FOR doc IN SELECT * FROM json_to_recordset(given) AS d (kind text, name text, version bigint, body text, due bigint)
        ORDER BY 1, 2
    LOOP
        IF doc.version = 0 THEN
            INSERT INTO docs VALUES (doc.kind, doc.name, 1, decode(doc.body, 'base64'), doc.due)
            ON CONFLICT DO NOTHING;
        ELSE
            UPDATE docs SET version = version + 1, body = decode(doc.body, 'base64'), due = doc.due
            WHERE kind = doc.kind AND name = doc.name AND version = doc.version;
        END IF;
        IF NOT FOUND THEN
            SELECT version INTO stored FROM docs WHERE kind = doc.kind AND name = doc.name;
            RAISE EXCEPTION USING ERRCODE = 'WL002', MESSAGE = format(
                '%s %L is at version %s, not %s: it was changed meanwhile. Read it again and repeat the change',
                doc.kind, doc.name, coalesce(stored, 0), doc.version);
        END IF;
    END LOOP;
    DELETE FROM docs USING json_to_recordset(dropped) AS d (kind text, name text)
    WHERE docs.kind = d.kind AND docs.name = d.name;
END $$;

-- The states of those of `ids` that are over. `since`: none of them ended before; a literal, so that planning leaves
-- out all older partitions.
CREATE FUNCTION over(ids text[], since bigint) RETURNS TABLE (job text, job_state text) LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY EXECUTE format(
        'SELECT h.id, h.state FROM history h WHERE h.id = ANY ($1) AND h.finished_at >= %s', since) USING ids;
END $$;

-- The state of a job that stands for another; NULL when only its mark is left.
CREATE FUNCTION state_of(job text) RETURNS text LANGUAGE sql AS $$
    SELECT coalesce((SELECT state FROM live WHERE id = job), (SELECT job_state FROM over(ARRAY[job], 0)));
$$;

CREATE FUNCTION note_lines(names text[], priorities smallint[], ranks bigint[]) RETURNS void LANGUAGE sql AS $$
    INSERT INTO lines
    SELECT DISTINCT ON (n.line, n.priority) n.line, n.priority, n.rank, now_micros()
    FROM unnest(names, priorities, ranks) AS n (line, priority, rank)
    WHERE NOT EXISTS (
        SELECT 1 FROM lines l WHERE l.line = n.line AND l.priority = n.priority AND l.low <= n.rank)
    ORDER BY n.line, n.priority, n.rank
    ON CONFLICT (line, priority) DO UPDATE SET low = least(lines.low, excluded.low);
$$;

CREATE TYPE placed AS (
    moment bigint,
    states text[],          -- of new jobs, by shape
    at     integer[],       -- positions of the jobs that are not new,
    holders text[],         -- who stands for each,
    held   text[],          -- and that one's state
    pending boolean,        -- an open transaction has one of the keys: nothing was written
    ring   boolean          -- an idle worker should hear of this
);

-- Leave out jobs that exist, whose mark was taken before or whose key is held. Takes the keys of the others, sorted.
CREATE FUNCTION sift(INOUT answer placed, ids text[], keys text[], fresh boolean, since bigint, marks_given json)
LANGUAGE plpgsql AS $$
DECLARE
    mark record;
    holder text;
    dropped text[] := '{}';
    instead text[] := '{}';
    one record;
BEGIN
    FOR mark IN SELECT * FROM json_to_recordset(marks_given) AS m (key text, job text, ttl bigint) ORDER BY 1 LOOP
        INSERT INTO marks VALUES (mark.key, mark.job, answer.moment + mark.ttl) ON CONFLICT (key) DO UPDATE
        SET job = excluded.job, until = excluded.until WHERE marks.until <= answer.moment;
        IF NOT FOUND THEN
            SELECT m.job INTO holder FROM marks m WHERE m.key = mark.key;
            dropped := dropped || mark.job;
            instead := instead || holder;
        END IF;
    END LOOP;
    FOR one IN
        SELECT j.n, j.id AS holder, l.state FROM unnest(ids) WITH ORDINALITY AS j (id, n) JOIN live l ON l.id = j.id
        UNION ALL
        SELECT j.n, j.id, o.job_state FROM unnest(ids) WITH ORDINALITY AS j (id, n)
            JOIN over(CASE WHEN fresh THEN '{}' ELSE ids END, since) o ON o.job = j.id
    LOOP
        answer.at := answer.at || one.n::integer;
        answer.holders := answer.holders || one.holder;
        answer.held := answer.held || one.state;
    END LOOP;
    IF dropped <> '{}' THEN
        FOR one IN
            SELECT j.n, d.holder, state_of(d.holder) AS state FROM unnest(dropped, instead) AS d (id, holder)
            JOIN unnest(ids) WITH ORDINALITY AS j (id, n) ON d.id = j.id
            WHERE NOT j.n = ANY (answer.at)
        LOOP
            answer.at := answer.at || one.n::integer;
            answer.holders := answer.holders || one.holder;
            answer.held := answer.held || one.state;
        END LOOP;
    END IF;
    IF keys IS NULL THEN
        RETURN;
    END IF;
    INSERT INTO marks SELECT DISTINCT ON (j.key) j.key, j.id, NULL::bigint
    FROM (SELECT id, key, n, row_number() OVER (PARTITION BY id ORDER BY n) AS time
        FROM unnest(ids, keys) WITH ORDINALITY AS u (id, key, n)) j
    WHERE j.key IS NOT NULL AND j.time = 1 AND NOT j.n = ANY (answer.at)
    ORDER BY j.key, j.n
    ON CONFLICT (key) DO NOTHING;
    FOR one IN
        SELECT j.n, m.job AS holder, state_of(m.job) AS state
        FROM unnest(ids, keys) WITH ORDINALITY AS j (id, key, n) JOIN marks m ON m.key = j.key
        WHERE m.job <> j.id AND NOT j.n = ANY (answer.at)
    LOOP
        answer.at := answer.at || one.n::integer;
        answer.holders := answer.holders || one.holder;
        answer.held := answer.held || one.state;
    END LOOP;
END $$;

-- Put in jobs whose keys, if they have any, are taken already; the ids of those that are new.
CREATE FUNCTION place(
    answer placed, ids text[], arguments text[], shapes integer[], keys text[], kinds json, names text[], ranks bigint[]
) RETURNS text[] LANGUAGE sql AS $$
    WITH fit AS (
        INSERT INTO live (id, line, queue, task, priority, rank, state, run_at, expires_at, args, options,
            unique_key, tags, attempt, lost, fence, attempts, enqueued_at, started_at)
        SELECT j.id, names[j.shape], k.queue, k.task, k.priority, ranks[j.shape], answer.states[j.shape],
            coalesce(k.run_at, answer.moment + k.delay, answer.moment), answer.moment + k.expires_in, j.args,
            k.options, j.key, k.tags, coalesce(k.attempt, 0), coalesce(k.lost, 0), coalesce(k.fence, 0), k.attempts,
            coalesce(k.enqueued_at, answer.moment), CASE WHEN k.fence > 0 THEN answer.moment END
        FROM unnest(ids, arguments, shapes, keys) WITH ORDINALITY AS j (id, args, shape, key, n)
        JOIN ROWS FROM (json_to_recordset(kinds) AS (queue text, task text, priority smallint, delay bigint,
            run_at bigint, expires_in bigint, options text, tags text[], attempt integer, lost integer,
            fence bigint, attempts text[], enqueued_at bigint)) WITH ORDINALITY AS k (queue, task, priority,
            delay, run_at, expires_in, options, tags, attempt, lost, fence, attempts, enqueued_at, n)
        ON k.n = j.shape
        WHERE NOT j.n = ANY (answer.at)
        ORDER BY j.n
        ON CONFLICT (id) DO NOTHING
        RETURNING id
    )
    SELECT coalesce(array_agg(id), '{}') FROM fit
$$;

-- No ring where older jobs of the same line wait already: whoever could run a new one is busy.
CREATE FUNCTION should_ring(moment bigint, names text[], priorities smallint[], ranks bigint[]) RETURNS boolean
LANGUAGE sql AS $$
    SELECT coalesce(bool_or(NOT EXISTS (
        SELECT 1 FROM live r WHERE r.state = 'ready' AND r.line = k.line AND r.priority = k.priority
            AND r.rank >= l.low AND r.rank < moment - 50000)), false)
    FROM unnest(names, priorities, ranks) AS k (line, priority, rank)
    JOIN lines l ON l.line = k.line AND l.priority = k.priority
    WHERE k.rank <= moment + 2000000
$$;

CREATE FUNCTION put(
    ids text[], arguments text[], shapes integer[], keys text[], fresh boolean, since bigint, kinds json,
    marks_given json, docs_given json, in_tx boolean
) RETURNS placed LANGUAGE plpgsql
SET search_path = {schema}, pg_temp SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan SET jit = off SET lock_timeout = '1s' AS $$
DECLARE
    answer placed := ROW(now_micros(), NULL, '{}'::integer[], '{}'::text[], '{}'::text[], false, false)::placed;
    names text[];
    priorities smallint[];
    ranks bigint[];
    inserted text[];
    missed record;
BEGIN
    SELECT coalesce(array_agg(CASE WHEN k.due > answer.moment THEN 'scheduled' ELSE 'ready' END ORDER BY k.n), '{}'),
        array_agg(k.queue || '/' || k.task || CASE WHEN k.lost > 0 THEN '!' ELSE '' END ORDER BY k.n),
        array_agg(k.priority ORDER BY k.n),
        array_agg(CASE WHEN k.enqueued_at IS NULL THEN greatest(k.due, answer.moment) ELSE k.due END ORDER BY k.n)
    INTO answer.states, names, priorities, ranks
    FROM (SELECT n, queue, task, priority, lost, enqueued_at, coalesce(run_at, answer.moment + delay, answer.moment) AS due
        FROM ROWS FROM (json_to_recordset(kinds) AS (queue text, task text, priority smallint, lost integer,
            enqueued_at bigint, run_at bigint, delay bigint)) WITH ORDINALITY AS r (queue, task, priority, lost,
            enqueued_at, run_at, delay, n)) k;
    IF docs_given IS NOT NULL THEN
        PERFORM save_docs(docs_given, NULL);
    END IF;
    IF fresh AND keys IS NULL AND marks_given IS NULL THEN
        inserted := place(answer, ids, arguments, shapes, keys, kinds, names, ranks);
    ELSE
        BEGIN
            answer := sift(answer, ids, keys, fresh, since, marks_given);
            inserted := place(answer, ids, arguments, shapes, keys, kinds, names, ranks);
        EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
            answer.pending := true;
            RETURN answer;
        END;
    END IF;
    IF cardinality(inserted) + cardinality(answer.at) < cardinality(ids) THEN
        -- Ids that came twice in this put, or that another put brought at this very moment.
        FOR missed IN
            SELECT j.n, j.id, state_of(j.id) AS state
            FROM (SELECT id, n, row_number() OVER (PARTITION BY id ORDER BY n) AS time
                FROM unnest(ids) WITH ORDINALITY AS u (id, n)) j
            WHERE NOT j.n = ANY (answer.at) AND (j.time > 1 OR NOT j.id = ANY (inserted))
        LOOP
            answer.at := answer.at || missed.n::integer;
            answer.holders := answer.holders || missed.id;
            answer.held := answer.held || missed.state;
        END LOOP;
    END IF;
    FOR i IN 1..cardinality(answer.at) LOOP
        IF answer.held[i] IS NULL THEN  -- held by a job of this very put, or only a mark is left
            answer.held[i] := state_of(answer.holders[i]);
        END IF;
    END LOOP;
    IF NOT in_tx AND cardinality(inserted) > 0 THEN
        PERFORM note_lines(names, priorities, ranks);
        answer.ring := should_ring(answer.moment, names, priorities, ranks);
    END IF;
    RETURN answer;
END $$;
