-- Jobs, marks and documents in. `shapes` points into `known`: what the jobs of one put have in common is sent once.

-- Write and drop documents. One that another open transaction is changing is waited for within the user's transaction
-- (`in_tx`); else it is a conflict at once: who fires schedules goes on with the others.
CREATE FUNCTION save_docs(given json, dropped json, in_tx boolean) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    doc record;
    stored bigint;
BEGIN
    PERFORM call_for(d.kind, d.name) FROM json_to_recordset(given) AS d (kind text, name text)
    WHERE d.kind IN ('gate', 'pace');
    PERFORM call_for(d.kind, d.name) FROM json_to_recordset(dropped) AS d (kind text, name text)
    WHERE d.kind IN ('gate', 'pace');
    FOR doc IN SELECT * FROM json_to_recordset(given) AS d (kind text, name text, version bigint, body text, due bigint,
        gone boolean) ORDER BY 1, 2
    LOOP
        IF NOT in_tx AND doc.version > 0 THEN
            PERFORM 1 FROM docs WHERE kind = doc.kind AND name = doc.name AND version = doc.version FOR UPDATE SKIP LOCKED;
        END IF;
        IF NOT in_tx AND doc.version > 0 AND NOT FOUND THEN
            NULL;
        ELSIF doc.gone THEN
            DELETE FROM docs WHERE kind = doc.kind AND name = doc.name AND version = doc.version;
        ELSIF doc.version = 0 THEN  -- versions count from the moment that it was made: none comes twice
            INSERT INTO docs VALUES (doc.kind, doc.name, now_micros(), decode(doc.body, 'base64'), doc.due)
            ON CONFLICT DO NOTHING;
        ELSE
            UPDATE docs SET version = version + 1, body = decode(doc.body, 'base64'), due = doc.due
            WHERE kind = doc.kind AND name = doc.name AND version = doc.version;
        END IF;
        IF NOT FOUND THEN
            SELECT version INTO stored FROM docs WHERE kind = doc.kind AND name = doc.name;
            IF stored = doc.version THEN
                RAISE EXCEPTION USING ERRCODE = 'WL002', MESSAGE = format(
                    '%s %L is being changed by a transaction that is still open: try again when it has ended',
                    doc.kind, doc.name);
            END IF;
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

-- The state of a job that stands for another; NULL when only its mark is left. (Not in SQL, as nothing on this path is:
-- a function in SQL is parsed and planned again by each transaction.)
CREATE FUNCTION state_of(job text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    RETURN coalesce((SELECT l.state FROM live l WHERE l.id = job), (SELECT job_state FROM over(ARRAY[job], 0)));
END $$;

-- See to it that the bounds of lines are not above the ranks of jobs that are ready now. A survey under way, which does
-- not see them yet, may raise a bound past ranks before `aged`, which its lag does not cover: there the bound is written
-- even if it is low enough, so that whoever comes second waits for the other, and sees what he did.
CREATE FUNCTION note_lines(
    names text[], priorities smallint[], ranks bigint[], aged bigint DEFAULT now_micros() - 250000
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO lines
    SELECT DISTINCT ON (n.line, n.priority) n.line, n.priority, n.rank, now_micros()
    FROM unnest(names, priorities, ranks) AS n (line, priority, rank)
    WHERE n.rank < aged OR NOT EXISTS (
        SELECT 1 FROM lines l WHERE l.line = n.line AND l.priority = n.priority AND l.low <= n.rank)
    ORDER BY n.line, n.priority DESC, n.rank
    ON CONFLICT (line, priority) DO UPDATE SET low = least(lines.low, excluded.low), seen_at = excluded.seen_at;
END $$;

CREATE TYPE placed AS (
    moment bigint,
    states text[],          -- of new jobs, by shape
    at     integer[],       -- positions of the jobs that are not new,
    holders text[],         -- who stands for each,
    held   text[],          -- and that one's state
    pending boolean,        -- an open transaction has one of the keys: nothing was written
    ring   boolean          -- an idle worker should hear of this
);

-- An answer with more jobs in it that are not new; NULL for none.
CREATE FUNCTION stand_in(INOUT answer placed, at bigint[], holders text[], held text[]) LANGUAGE plpgsql AS $$
BEGIN
    answer.at := answer.at || coalesce(at, '{}')::integer[];
    answer.holders := answer.holders || coalesce(holders, '{}');
    answer.held := answer.held || coalesce(held, '{}');
END $$;

-- Take keys where an id comes twice in one put: one job after another, as only then it is told which of the two is placed.
CREATE FUNCTION take_each(INOUT answer placed, ids text[], keys text[]) LANGUAGE plpgsql AS $$
DECLARE
    placed_ids text[] := '{}';
    holder text;
BEGIN
    FOR n IN 1..cardinality(ids) LOOP
        CONTINUE WHEN n = ANY (answer.at);
        holder := ids[n];
        IF keys[n] IS NOT NULL AND NOT ids[n] = ANY (placed_ids) THEN
            LOOP
                INSERT INTO marks VALUES (keys[n], ids[n], NULL) ON CONFLICT (key) DO NOTHING;
                SELECT m.job INTO holder FROM marks m WHERE m.key = keys[n];
                EXIT WHEN FOUND;
            END LOOP;
        END IF;
        IF holder <> ids[n] OR ids[n] = ANY (placed_ids) THEN
            answer := stand_in(answer, ARRAY[n], ARRAY[holder], ARRAY[state_of(holder)]);
        ELSE
            placed_ids := placed_ids || holder;
        END IF;
    END LOOP;
END $$;

-- Leave out jobs that exist, whose mark was taken before or whose key is held. Takes the keys of the others, sorted.
CREATE FUNCTION sift(
    INOUT answer placed, ids text[], keys text[], fresh boolean, since bigint, marks_given json, special boolean
)
LANGUAGE plpgsql SET enable_hashjoin = on AS $$
DECLARE
    mark record;
    holder text;
    dropped text[] := '{}';
    instead text[] := '{}';
    at bigint[];
    holders text[];
    held text[];
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
    SELECT array_agg(k.n), array_agg(k.id), array_agg(k.state) INTO at, holders, held FROM (
        SELECT j.n, j.id, l.state FROM unnest(ids) WITH ORDINALITY AS j (id, n) JOIN live l ON l.id = j.id
        UNION ALL
        SELECT j.n, j.id, o.job_state FROM unnest(ids) WITH ORDINALITY AS j (id, n)
            JOIN over(CASE WHEN fresh THEN '{}' ELSE ids END, since) o ON o.job = j.id) k;
    answer := stand_in(answer, at, holders, held);
    IF dropped <> '{}' THEN
        SELECT array_agg(j.n), array_agg(d.holder), array_agg(state_of(d.holder)) INTO at, holders, held
        FROM unnest(dropped, instead) AS d (id, holder) JOIN unnest(ids) WITH ORDINALITY AS j (id, n) ON d.id = j.id
        WHERE NOT j.n = ANY (answer.at);
        answer := stand_in(answer, at, holders, held);
    END IF;
    IF keys IS NULL OR special THEN
        RETURN;
    ELSIF (SELECT count(DISTINCT u.id) FROM unnest(ids) AS u (id)) < cardinality(ids) THEN
        answer := take_each(answer, ids, keys);
        RETURN;
    END IF;
    LOOP
        INSERT INTO marks SELECT DISTINCT ON (j.key) j.key, j.id, NULL::bigint
        FROM unnest(ids, keys) WITH ORDINALITY AS j (id, key, n)
        WHERE j.key IS NOT NULL AND NOT j.n = ANY (answer.at)
        ORDER BY j.key, j.n
        ON CONFLICT (key) DO NOTHING;
        SELECT array_agg(j.n), array_agg(m.job), array_agg(state_of(m.job)) INTO at, holders, held
        FROM unnest(ids, keys) WITH ORDINALITY AS j (id, key, n) JOIN marks m ON m.key = j.key
        WHERE m.job <> j.id AND NOT j.n = ANY (answer.at);
        answer := stand_in(answer, at, holders, held);
        -- A holder that ended between those two took its mark along: its key is tried again.
        EXIT WHEN NOT EXISTS (
            SELECT 1 FROM unnest(ids, keys) WITH ORDINALITY AS j (id, key, n)
            WHERE j.key IS NOT NULL AND NOT j.n = ANY (answer.at)
                AND NOT EXISTS (SELECT 1 FROM marks m WHERE m.key = j.key AND m.job = j.id));
    END LOOP;
END $$;

-- What jobs of one put have in common.
CREATE TYPE shape AS (
    queue text, task text, priority smallint, delay bigint, run_at bigint, expires_in bigint, options text, tags text[],
    follow text,
    attempt integer, lost integer, fence bigint, attempts text[], enqueued_at bigint,   -- NULL, but for jobs with a past
    started_at bigint,                                                                  -- the same
    gates text, ahead bigint, fair text, fair_key text, spacing integer, unique_for bigint, clash text, max_wait bigint,
    line text, rank bigint, state text                                                  -- not sent: what follows from it
);

CREATE FUNCTION completed(k shape, moment bigint) RETURNS shape LANGUAGE plpgsql AS $$
BEGIN
    k.run_at := coalesce(k.run_at, moment + k.delay, moment);
    k.rank := CASE WHEN k.enqueued_at IS NULL THEN greatest(k.run_at, moment) ELSE k.run_at END - k.ahead;
    k.state := CASE WHEN k.run_at > moment THEN 'scheduled' WHEN k.gates IS NOT NULL THEN 'waiting' ELSE 'ready' END;
    k.line := k.queue || '/' || k.task || CASE WHEN k.lost > 0 THEN '!' ELSE '' END;
    RETURN k;
END $$;

-- Put in jobs whose keys, if they have any, are taken already; the ids of those that are new.
CREATE FUNCTION place(answer placed, ids text[], arguments text[], shapes integer[], keys text[], known shape[])
RETURNS text[] LANGUAGE plpgsql SET enable_hashjoin = on SET enable_nestloop = off AS $$
DECLARE
    fresh text[];
BEGIN
    WITH fit AS (
        INSERT INTO live (id, line, queue, task, priority, rank, state, run_at, expires_at, args, options,
            unique_key, tags, follow, attempt, lost, fence, attempts, enqueued_at, started_at, brief, gates, ahead, fair,
            fair_key, spacing)
        SELECT j.id, k.line, k.queue, k.task, k.priority, k.rank, k.state, k.run_at, answer.moment + k.expires_in,
            j.args, k.options, CASE WHEN k.unique_for > 0 THEN NULL ELSE j.key END, k.tags, k.follow,
            coalesce(k.attempt, 0), coalesce(k.lost, 0), coalesce(k.fence, 0), k.attempts,
            coalesce(k.enqueued_at, answer.moment), k.started_at, coalesce(k.unique_for = 0, false), k.gates, k.ahead,
            k.fair, k.fair_key, k.spacing
        FROM unnest(ids, arguments, shapes, keys) WITH ORDINALITY AS j (id, args, shape, key, n)
        JOIN unnest(known) WITH ORDINALITY AS k (queue, task, priority, delay, run_at, expires_in, options, tags,
            follow, attempt, lost, fence, attempts, enqueued_at, started_at, gates, ahead, fair, fair_key, spacing, unique_for,
            clash, max_wait, line, rank, state, n) ON k.n = coalesce(j.shape, 1)
        WHERE NOT j.n = ANY (answer.at)
        ORDER BY j.n
        ON CONFLICT (id) DO NOTHING
        RETURNING id
    )
    SELECT coalesce(array_agg(id), '{}') INTO fresh FROM fit;
    RETURN fresh;
END $$;

-- The same for many new jobs of one shape; NULL if not all were new: then none was put in.
CREATE FUNCTION place_alike(moment bigint, ids text[], arguments text[], k shape) RETURNS text[] LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO live (id, line, queue, task, priority, rank, state, run_at, expires_at, args, options, tags, follow, attempt,
        lost, fence, attempts, enqueued_at, started_at, gates, ahead, fair, fair_key, spacing)
    SELECT j.id, k.line, k.queue, k.task, k.priority, k.rank, k.state, k.run_at, moment + k.expires_in, j.args, k.options,
        k.tags, k.follow, coalesce(k.attempt, 0), coalesce(k.lost, 0), coalesce(k.fence, 0), k.attempts,
        coalesce(k.enqueued_at, moment), k.started_at, k.gates, k.ahead, k.fair, k.fair_key, k.spacing
    FROM unnest(ids, arguments) AS j (id, args);
    RETURN ids;
EXCEPTION WHEN unique_violation THEN
    RETURN NULL;
END $$;

-- See to it that the walk finds a new job, and answer whether an idle worker should hear of it (if `asked`). No ring
-- where older jobs of the same line wait already: whoever could run a new one is busy.
CREATE FUNCTION note_line(moment bigint, k shape, asked boolean) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    bound bigint;
BEGIN
    IF k.gates IS NOT NULL THEN     -- the claim that lets one through notes the line
        RETURN k.rank <= moment + 2000000;
    END IF;
    SELECT l.low INTO bound FROM lines l WHERE l.line = k.line AND l.priority = k.priority;
    IF bound IS NULL OR bound > k.rank THEN
        PERFORM note_lines(ARRAY[k.line], ARRAY[k.priority], ARRAY[k.rank]);
    END IF;
    IF NOT asked THEN
        RETURN true;
    ELSIF k.rank > moment + 2000000 THEN
        RETURN false;
    END IF;
    RETURN bound IS NULL OR bound >= moment - 50000 OR NOT EXISTS (
        SELECT 1 FROM live r WHERE r.state = 'ready' AND r.line = k.line AND r.priority = k.priority
            AND r.rank >= bound AND r.rank < moment - 50000);
END $$;

-- Take the unique key of one job, and do to its holder what the job says.
CREATE FUNCTION take_key(INOUT answer placed, id_ text, key_ text, args_ text, k shape) LANGUAGE plpgsql AS $$
DECLARE
    until_ bigint := CASE WHEN k.unique_for > 0 THEN answer.moment + k.unique_for END;
    holder text;
    due bigint;
    old live;
BEGIN
    LOOP
        INSERT INTO marks VALUES (key_, id_, until_) ON CONFLICT (key) DO UPDATE
        SET job = excluded.job, until = excluded.until WHERE marks.until <= answer.moment;
        SELECT m.job INTO holder FROM marks m WHERE m.key = key_;
        EXIT WHEN FOUND;
    END LOOP;
    IF holder = id_ THEN
        RETURN;
    ELSIF k.clash = 'cancel' THEN
        PERFORM cancel_one(holder, 'another job has taken its unique key', answer.moment, NULL);
        INSERT INTO marks VALUES (key_, id_, until_)
        ON CONFLICT (key) DO UPDATE SET job = excluded.job, until = excluded.until;
        RETURN;
    ELSIF k.clash IS NOT NULL THEN
        UPDATE live SET args = args_, options = k.options, follow = k.follow
        WHERE id = holder AND state IN ('waiting', 'scheduled', 'ready') RETURNING * INTO old;
        IF FOUND AND k.clash = 'move' THEN
            due := least(k.run_at, old.enqueued_at + k.max_wait);
            UPDATE live SET run_at = due, rank = greatest(due, answer.moment) - ahead,
                state = CASE WHEN due > answer.moment THEN 'scheduled'
                    WHEN gates IS NOT NULL AND state <> 'scheduled' THEN state ELSE 'ready' END
            WHERE id = holder RETURNING * INTO old;
            IF old.gates IS NOT NULL THEN   -- it may stand behind others now, of whom one comes first
                INSERT INTO stirred VALUES (answer.moment, old.line, old.gates, answer.moment);
            END IF;
            IF old.state = 'ready' THEN
                PERFORM note_lines(ARRAY[old.line], ARRAY[old.priority], ARRAY[old.rank]);
            END IF;
        END IF;
    END IF;
    answer := stand_in(answer, ARRAY[1], ARRAY[holder], ARRAY[state_of(holder)]);
END $$;

-- A put in which some key is held for a while, or its holder shall be changed: one job after another.
CREATE FUNCTION put_each(
    answer placed, ids text[], arguments text[], shapes integer[], keys text[], fresh boolean, since bigint, known shape[],
    marks_given json, docs_given json, in_tx boolean
) RETURNS placed LANGUAGE plpgsql AS $$
DECLARE
    one placed;
BEGIN
    FOR n IN 1..cardinality(ids) LOOP
        one := put(ARRAY[ids[n]], ARRAY[arguments[n]], NULL, CASE WHEN keys[n] IS NOT NULL THEN ARRAY[keys[n]] END, fresh,
            since, ARRAY[known[coalesce(shapes[n], 1)]],
            (SELECT json_agg(m) FROM json_array_elements(marks_given) m WHERE m ->> 'job' = ids[n]), NULL, in_tx);
        IF one.pending THEN
            RAISE lock_not_available;
        END IF;
        answer.ring := answer.ring OR one.ring;
        IF cardinality(one.at) > 0 THEN
            answer := stand_in(answer, ARRAY[n], one.holders, one.held);
        END IF;
    END LOOP;
    IF docs_given IS NOT NULL THEN
        PERFORM save_docs(docs_given, NULL, in_tx);
    END IF;
    RETURN answer;
EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
    answer.pending := true;
    RETURN answer;
END $$;

CREATE FUNCTION put(
    ids text[], arguments text[], shapes integer[], keys text[], fresh boolean, since bigint, known shape[],
    marks_given json, docs_given json, in_tx boolean
) RETURNS placed LANGUAGE plpgsql
SET search_path = {schema}, pg_temp SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan SET jit = off SET lock_timeout = '1s' AS $$
DECLARE
    answer placed := ROW(now_micros(), '{}'::text[], '{}'::integer[], '{}'::text[], '{}'::text[], false, false)::placed;
    k shape;
    inserted text[];
    at bigint[];
    holders text[];
    held text[];
    simple boolean := fresh AND keys IS NULL AND marks_given IS NULL;
    given shape[] := known;
    special boolean;    -- one job whose key is held for a while, or which does something to the holder
BEGIN
    FOR i IN 1..cardinality(known) LOOP
        known[i] := completed(known[i], answer.moment);
        answer.states[i] := (known[i]).state;
    END LOOP;
    IF keys IS NOT NULL AND cardinality(ids) > 1
        AND EXISTS (SELECT 1 FROM unnest(known) u WHERE u.clash IS NOT NULL OR u.unique_for IS NOT NULL) THEN
        RETURN put_each(answer, ids, arguments, shapes, keys, fresh, since, given, marks_given, docs_given, in_tx);
    END IF;
    IF simple AND shapes IS NULL AND NOT in_tx THEN  -- in somebody else's transaction, subtransactions would add up
        inserted := coalesce(place_alike(answer.moment, ids, arguments, known[1]),
            place(answer, ids, arguments, shapes, keys, known));
    ELSIF simple THEN
        inserted := place(answer, ids, arguments, shapes, keys, known);
    ELSE
        BEGIN
            special := keys IS NOT NULL AND ((known[1]).clash IS NOT NULL OR (known[1]).unique_for IS NOT NULL);
            answer := sift(answer, ids, keys, fresh, since, marks_given, special);
            IF special AND cardinality(answer.at) = 0 THEN
                answer := take_key(answer, ids[1], keys[1], arguments[1], known[1]);
            END IF;
            inserted := place(answer, ids, arguments, shapes, keys, known);
        EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
            answer.pending := true;
            RETURN answer;
        END;
    END IF;
    -- After what may turn out to be pending: then nothing at all is written.
    IF docs_given IS NOT NULL THEN
        PERFORM save_docs(docs_given, NULL, in_tx);
    END IF;
    IF cardinality(inserted) + cardinality(answer.at) < cardinality(ids) THEN
        -- Ids that came twice in this put, or that another put brought at this very moment.
        SELECT array_agg(m.n), array_agg(m.id), array_agg(state_of(m.id)) INTO at, holders, held
        FROM (SELECT id, n, row_number() OVER (PARTITION BY id ORDER BY n) AS time
            FROM unnest(ids) WITH ORDINALITY AS u (id, n)) m
        WHERE NOT m.n = ANY (answer.at) AND (m.time > 1 OR NOT m.id = ANY (inserted));
        answer := stand_in(answer, at, holders, held);
    END IF;
    FOR i IN 1..cardinality(answer.at) LOOP
        IF answer.held[i] IS NULL THEN  -- held by a job of this very put, or only a mark is left
            answer.held[i] := state_of(answer.holders[i]);
        END IF;
    END LOOP;
    IF cardinality(inserted) > 0 THEN
        PERFORM stir(known);
        PERFORM keep_turns(inserted) WHERE EXISTS (SELECT 1 FROM unnest(known) u WHERE u.fence > 0 AND u.gates IS NOT NULL);
    END IF;
    IF NOT in_tx AND cardinality(inserted) > 0 THEN
        IF EXISTS (SELECT 1 FROM unnest(known) u WHERE u.fair_key IS NOT NULL) THEN    -- ranks that shapes do not tell
            PERFORM note_lines(array_agg(l.line), array_agg(l.priority), array_agg(l.rank)) FROM live l
            WHERE l.id = ANY (inserted) AND l.state = 'ready' HAVING count(*) > 0;
        END IF;
        FOREACH k IN ARRAY known LOOP
            answer.ring := note_line(answer.moment, k, NOT answer.ring);
        END LOOP;
    END IF;
    RETURN answer;
END $$;

-- The same for one new job without key, mark or document, with no step that it does not need.
CREATE FUNCTION put_one(id_ text, args_ text, given shape) RETURNS placed LANGUAGE plpgsql
SET search_path = {schema}, pg_temp SET enable_seqscan = off SET plan_cache_mode = force_generic_plan SET jit = off
SET lock_timeout = '1s' AS $$
DECLARE
    answer placed := ROW(now_micros(), NULL, '{}'::integer[], '{}'::text[], '{}'::text[], false, false)::placed;
    k shape := completed(given, answer.moment);
BEGIN
    INSERT INTO live (id, line, queue, task, priority, rank, state, run_at, expires_at, args, options, tags, follow,
        enqueued_at, gates, ahead, fair, fair_key, spacing)
    VALUES (id_, k.line, k.queue, k.task, k.priority, k.rank, k.state, k.run_at, answer.moment + k.expires_in, args_,
        k.options, k.tags, k.follow, answer.moment, k.gates, k.ahead, k.fair, k.fair_key, k.spacing)
    ON CONFLICT (id) DO NOTHING;
    IF NOT FOUND THEN
        RETURN put(ARRAY[id_], ARRAY[args_], NULL, NULL, false, 0, ARRAY[given], NULL, NULL, false);
    END IF;
    IF k.fair_key IS NOT NULL THEN
        k.rank := (SELECT l.rank FROM live l WHERE l.id = id_);
    END IF;
    answer.states := ARRAY[k.state];
    answer.ring := note_line(answer.moment, k, true);
    IF k.gates IS NOT NULL THEN
        PERFORM stir(known := ARRAY[k]);
    END IF;
    RETURN answer;
END $$;
