-- Steps whose plan, made while few jobs were there, read all of them when there were many.

-- Jobs by their ids.
CREATE FUNCTION live_of(ids text[]) RETURNS SETOF live LANGUAGE sql STABLE
SET search_path = {schema}, pg_temp SET enable_seqscan = off SET jit = off AS $$
SELECT * FROM live WHERE id = ANY (ids)
$$;

-- The waiting jobs of a line behind these gates that have kept one, and what they find there.
CREATE FUNCTION keepers(line_ text, gates_ text, moment bigint) RETURNS TABLE (job text, room integer, gate text, weight integer)
LANGUAGE plpgsql AS $$
DECLARE
    kept text;
BEGIN
    FOR kept IN SELECT h.job FROM needs_of(gates_) n JOIN holds h ON h.gate = n.gate AND h.keep WHERE n.keep LOOP
        IF EXISTS (SELECT 1 FROM live l WHERE l.id = kept AND l.state = 'waiting' AND l.gates = gates_ AND l.line = line_) THEN
            RETURN QUERY SELECT kept, o.room, o.gate, o.weight FROM room_of(gates_, kept, moment, 1) o;
        END IF;
    END LOOP;
END $$;

-- As before, but for `keepers`: one plan of that was to ask the gates for each job that stands in the line.
CREATE OR REPLACE FUNCTION look(line_ text, gates_ text, moment bigint) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    most integer := 1000;
    r record;
    first text;
    ready_ text[];
    best record;
    kept record;
BEGIN
    FOR r IN SELECT n.gate FROM needs_of(gates_) n LOOP
        IF NOT lock_gate(r.gate) THEN
            INSERT INTO stirred VALUES (moment, line_, gates_, moment);
            RETURN -1;
        END IF;
    END LOOP;
    -- Those that have kept a gate: nobody else can pass it.
    SELECT array_agg(k.job) INTO ready_ FROM keepers(line_, gates_, moment) k WHERE k.room > 0;
    PERFORM let_in(ready_, line_, gates_, moment);
    SELECT l.id INTO first FROM live l WHERE l.gates = gates_ AND l.line = line_ AND l.state IN ('waiting', 'ready')
    ORDER BY l.priority DESC, l.rank, l.id LIMIT 1;
    SELECT * INTO r FROM room_of(gates_, coalesce(first, ''), moment, most);
    -- One that has kept a gate and waits for another: what it waits for lets others on.
    SELECT k.gate, k.weight INTO kept FROM keepers(line_, gates_, moment) k WHERE k.room = 0 LIMIT 1;
    IF kept.gate IS NOT NULL THEN
        r.gate := kept.gate;
        r.weight := kept.weight;
    END IF;
    SELECT array_agg(t.id) INTO ready_ FROM (
        SELECT l.id, l.state FROM live l WHERE l.gates = gates_ AND l.line = line_ AND l.state IN ('waiting', 'ready')
        ORDER BY l.priority DESC, l.rank, l.id LIMIT r.room) t WHERE t.state = 'waiting';
    PERFORM let_in(ready_, line_, gates_, moment);
    SELECT l.priority, l.rank, l.id INTO best FROM live l
    WHERE l.gates = gates_ AND l.line = line_ AND l.state IN ('waiting', 'ready')
    ORDER BY l.priority DESC, l.rank, l.id OFFSET r.room LIMIT 1;
    IF best.id IS NOT NULL AND r.gate IS NOT NULL THEN
        PERFORM block(line_, gates_, r.gate, r.weight, best.priority, best.rank, best.id, moment);
    ELSE
        DELETE FROM blocked b WHERE b.gates = gates_ AND b.line = line_;
    END IF;
    RETURN r.room;
END $$;

-- Jobs of which a step has the ids are searched one by one. Joined by equality, a plan may read the whole index instead:
-- where few jobs were there when statistics came in, or all but few were dead and could not be vacuumed.
DO $$
DECLARE
    f record;
    given text;
BEGIN
    FOR f IN SELECT * FROM (VALUES
        ('sift', 'l.id = j.id', 'j.id'), ('succeed', 'live.id = b.id', 'b.id'), ('promote', 'live.id = due.id', 'due.id'),
        ('hand_back', 'live.id = held.id', 'held.id'), ('let_in', 'l.id = free.id', 'free.id'), ('turn_away', 'l.id = r.id', 'r.id')
    ) AS v (name, joined, id) LOOP
        given := pg_get_functiondef(f.name::regproc);
        IF strpos(given, f.joined) = 0 THEN
            RAISE 'expected % in the function %; it is another', f.joined, f.name;
        END IF;
        EXECUTE replace(given, f.joined, replace(f.joined, '= ' || f.id, format('= ANY (ARRAY[%s])', f.id)));
    END LOOP;
END $$;
