-- What full queues and operators do to jobs that do not run: make room, put them elsewhere.

-- Cancel ready and waiting jobs of a queue until `most` of its jobs do not run yet, at most `batch`; none, where that is not
-- enough. Who comes second waits for the first, and counts what he has left. A line is queue/task, and the character after
-- the slash is 0.
CREATE FUNCTION shed(queue_ text, most bigint, below integer, why text, batch integer, OUT ids text[], OUT rest bigint)
LANGUAGE plpgsql SET search_path = {schema}, pg_temp SET lock_timeout = '5s' SET enable_seqscan = off SET jit = off AS $$
DECLARE
    moment bigint;
    wanted bigint;
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
    SELECT coalesce(array_agg(o.id), '{}') INTO ids FROM (
        SELECT l.id FROM live l WHERE l.state IN ('ready', 'waiting') AND l.id = ANY (ARRAY(
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
            LIMIT wanted))
        FOR UPDATE SKIP LOCKED) o;
    IF cardinality(ids) < wanted THEN  -- there are not enough, or some are being started: then there is room for whoever asks anew
        ids := '{}';
        RETURN;
    END IF;
    UPDATE live SET state = 'cancelled', finished_at = moment, reason = why WHERE id = ANY (ids);
    PERFORM archive(ids);
    rest := rest - wanted;
END $$;

-- Have jobs that do not run stand elsewhere. One behind gates leaves its place, then comes anew; its rank it keeps.
CREATE FUNCTION amend(changes json) RETURNS SETOF text LANGUAGE plpgsql
SET search_path = {schema}, pg_temp SET lock_timeout = '5s' SET jit = off AS $$
DECLARE
    moment bigint := now_micros();
    c record;
    old live;
    line_ text;
    rank_ bigint;
    lines_ text[] := '{}';
    priorities smallint[] := '{}';
    ranks bigint[] := '{}';
BEGIN
    FOR c IN SELECT DISTINCT ON (g.id) g.* FROM json_to_recordset(changes) AS g (id text, queue text, priority smallint,
        ahead bigint, gates text, kept boolean, options text) ORDER BY g.id
    LOOP
        SELECT * INTO old FROM live l WHERE l.id = c.id AND l.state IN ('ready', 'waiting', 'scheduled') FOR UPDATE;
        CONTINUE WHEN NOT FOUND;
        IF old.gates IS NOT NULL AND old.state <> 'scheduled' THEN
            UPDATE live SET state = 'scheduled' WHERE id = c.id;
        END IF;
        line_ := c.queue || '/' || old.task || CASE WHEN old.lost > 0 THEN '!' ELSE '' END;
        rank_ := old.rank + old.ahead - c.ahead;
        UPDATE live SET queue = c.queue, line = line_, priority = c.priority, ahead = c.ahead, gates = c.gates,
            options = CASE WHEN c.kept THEN old.options ELSE c.options END,
            state = CASE WHEN old.state = 'scheduled' THEN 'scheduled' WHEN c.gates IS NULL THEN 'ready' ELSE 'waiting' END
        WHERE id = c.id;
        UPDATE live SET rank = rank_ WHERE id = c.id AND rank <> rank_;    -- it has taken no turn anew
        IF old.state <> 'scheduled' AND c.gates IS NULL THEN
            lines_ := lines_ || line_;
            priorities := priorities || c.priority;
            ranks := ranks || rank_;
        ELSIF old.state <> 'scheduled' THEN
            INSERT INTO stirred VALUES (moment, line_, c.gates, moment);
        END IF;
        RETURN NEXT c.id;
    END LOOP;
    IF lines_ <> '{}' THEN
        PERFORM note_lines(lines_, priorities, ranks);
    END IF;
END $$;
