-- Have jobs that do not run, and stand as they were, stand elsewhere. One behind gates leaves its place, then comes anew; its
-- rank it keeps.
CREATE OR REPLACE FUNCTION amend(changes json) RETURNS SETOF text LANGUAGE plpgsql
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
    FOR c IN SELECT DISTINCT ON (g.id) g.id, n.*, w.queue AS was_queue, w.priority AS was_priority, w.ahead AS was_ahead,
            w.gates AS was_gates, w.options AS was_options
        FROM json_to_recordset(changes) AS g (id text, was json, now json),
            json_to_record(g.now) AS n (queue text, priority smallint, ahead bigint, gates text, kept boolean, options text),
            json_to_record(g.was) AS w (queue text, priority smallint, ahead bigint, gates text, options text)
        ORDER BY g.id
    LOOP
        SELECT * INTO old FROM live l WHERE l.id = c.id AND l.state IN ('ready', 'waiting', 'scheduled') FOR UPDATE;
        CONTINUE WHEN NOT FOUND OR (old.queue, old.priority, old.ahead) <> (c.was_queue, c.was_priority, c.was_ahead)
            OR old.gates IS DISTINCT FROM c.was_gates OR (NOT c.kept AND old.options IS DISTINCT FROM c.was_options);
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
