-- Gates: what a job takes of them, who may pass, and who looks when. See docs/design/postgres.md.

-- A stored list of needs; none, where nobody of ours wrote it.
CREATE FUNCTION needs_of(gates text) RETURNS TABLE (gate text, weight integer, keep boolean) LANGUAGE plpgsql AS $$
DECLARE
    given jsonb := gates::jsonb;
BEGIN
    IF EXISTS (SELECT 1 FROM jsonb_array_elements(given) e WHERE jsonb_typeof(e) <> 'array'
        OR jsonb_typeof(e -> 0) IS DISTINCT FROM 'string' OR coalesce(jsonb_typeof(e -> 1), 'number') <> 'number'
        OR coalesce(jsonb_typeof(e -> 2), 'boolean') <> 'boolean' OR (e ->> 1)::integer < 1) THEN
        RETURN;
    END IF;
    RETURN QUERY SELECT e ->> 0, coalesce((e ->> 1)::integer, 1), coalesce((e ->> 2)::boolean, false)
    FROM jsonb_array_elements(given) e ORDER BY 1;
EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
    RETURN;
END $$;

-- Lines to which jobs of these shapes came are looked at.
CREATE FUNCTION stir(known shape[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO stirred SELECT DISTINCT now_micros(), k.line, k.gates, now_micros() FROM unnest(known) k
    WHERE k.gates IS NOT NULL AND k.state = 'waiting';
END $$;

-- Jobs that bring a start from another store have what they keep.
CREATE FUNCTION keep_turns(ids text[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO holds SELECT n.gate, l.id, n.weight, true FROM live l CROSS JOIN LATERAL needs_of(l.gates) n
    WHERE l.id = ANY (ids) AND l.fence > 0 AND n.keep ON CONFLICT DO NOTHING;
END $$;

-- Look again at the gates of which a document tells that was written.
CREATE FUNCTION call_for(kind text, name text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO freed VALUES (now_micros(), name, kind = 'gate', now_micros());
END $$;

-- When something is to be looked at next; not after now if it is at once.
CREATE FUNCTION next_look(moment bigint, low bigint) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    RETURN least((SELECT s.at FROM stirred s WHERE s.at >= low ORDER BY s.at LIMIT 1),
        (SELECT f.at FROM freed f WHERE f.at >= low ORDER BY f.at LIMIT 1));
END $$;

-- Jobs come to stand in line: fair ones take their turn, those behind gates wait.
CREATE FUNCTION stand() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.fair_key IS NOT NULL AND NEW.state IN ('ready', 'waiting')
        AND (TG_OP = 'INSERT' OR OLD.state NOT IN ('ready', 'waiting', 'running')) THEN
        NEW.rank := greatest(
            coalesce((SELECT l.rank FROM live l WHERE l.fair_key IS NOT NULL AND l.state IN ('waiting', 'ready')
                AND l.queue = NEW.queue AND l.priority = NEW.priority AND l.id <> NEW.id ORDER BY l.rank LIMIT 1), NEW.rank),
            (SELECT l.rank + NEW.spacing FROM live l WHERE l.fair_key = NEW.fair_key AND l.state IN ('waiting', 'ready')
                AND l.queue = NEW.queue AND l.priority = NEW.priority AND l.id <> NEW.id ORDER BY l.rank DESC LIMIT 1));
    END IF;
    IF TG_OP = 'UPDATE' AND NEW.gates IS NOT NULL AND NEW.state = 'ready' AND OLD.state <> 'waiting' THEN
        NEW.state := 'waiting';
        INSERT INTO stirred VALUES (now_micros(), NEW.line, NEW.gates, now_micros());
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER job_comes BEFORE INSERT ON live FOR EACH ROW WHEN (NEW.fair_key IS NOT NULL) EXECUTE FUNCTION stand();
CREATE TRIGGER job_stands BEFORE UPDATE OF state ON live FOR EACH ROW
    WHEN (NEW.state = 'ready' AND (NEW.gates IS NOT NULL OR NEW.fair_key IS NOT NULL)) EXECUTE FUNCTION stand();

-- Whoever stops to run, or ends, leaves room at its gates, and maybe its place to the next of its line.
CREATE FUNCTION leave_gates() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    moment bigint := now_micros();
BEGIN
    IF TG_OP = 'DELETE' THEN
        DELETE FROM holds WHERE job = OLD.id;
    ELSE
        DELETE FROM holds WHERE job = OLD.id AND (NOT keep OR NEW.finished_at IS NOT NULL);
    END IF;
    INSERT INTO freed SELECT moment, n.gate, false, moment FROM needs_of(OLD.gates) n;
    INSERT INTO stirred VALUES (moment, OLD.line, OLD.gates, moment);
    RETURN NULL;
END $$;
CREATE TRIGGER job_left AFTER UPDATE OF state ON live FOR EACH ROW
    WHEN (OLD.gates IS NOT NULL AND (OLD.state = 'running' AND NEW.state <> 'running'
        OR OLD.finished_at IS NULL AND NEW.finished_at IS NOT NULL
        OR OLD.state IN ('waiting', 'ready') AND NEW.state = 'scheduled')) EXECUTE FUNCTION leave_gates();
CREATE TRIGGER job_taken_away AFTER DELETE ON live FOR EACH ROW
    WHEN (OLD.gates IS NOT NULL AND OLD.finished_at IS NULL) EXECUTE FUNCTION leave_gates();

CREATE FUNCTION free_key() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM marks WHERE key = NEW.unique_key AND job = NEW.id AND until IS NULL;
    RETURN NULL;
END $$;
CREATE TRIGGER job_started AFTER UPDATE OF state ON live FOR EACH ROW
    WHEN (NEW.brief AND NEW.state = 'running' AND OLD.state <> 'running') EXECUTE FUNCTION free_key();

-- Locks, never waited for. Whoever decides that a gate has no room, or looks at who waits there, holds its lock until his
-- commit; so nobody is parked behind the back of who looks. Few numbers stand for many gates: locks are scarce.
CREATE FUNCTION lock_gate(gate text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    place integer := hashtext(current_schema()) & 1073741823;
BEGIN
    RETURN pg_try_advisory_xact_lock_shared(place, -1 - (hashtext(split_part(gate, '/', 1)) & 255))
        AND pg_try_advisory_xact_lock(place, hashtext(gate) & 511);
END $$;

-- A family of gates as one: nobody decides anything at any of them meanwhile.
CREATE FUNCTION lock_family(family text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    RETURN pg_try_advisory_xact_lock(hashtext(current_schema()) & 1073741823, -1 - (hashtext(family) & 255));
END $$;

CREATE FUNCTION document(kind_ text, name_ text) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    RETURN (SELECT convert_from(d.body, 'UTF8')::jsonb FROM docs d WHERE d.kind = kind_ AND d.name = name_);
EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
    RETURN NULL;
END $$;

-- A gate as it is now: its settings (windlass/gate.py), what is used of it, until when its starts are paid for.
CREATE TYPE gate AS (units integer, step bigint, burst integer, used bigint, paid bigint);

CREATE FUNCTION gate_now(name text, moment bigint) RETURNS gate LANGUAGE plpgsql AS $$
DECLARE
    g gate;
    said jsonb := document('gate', split_part(name, '/', 1));
    pace jsonb;
BEGIN
    g.units := CASE WHEN jsonb_typeof(said) IS DISTINCT FROM 'object' THEN 0 ELSE (said ->> 'limit')::integer END;
    g.step := CASE WHEN jsonb_typeof(said) = 'object' THEN (said ->> 'interval')::bigint END;
    g.burst := coalesce(CASE WHEN jsonb_typeof(said) = 'object' THEN (said ->> 'burst')::integer END, 1);
    g.used := (SELECT coalesce(sum(h.weight), 0) FROM holds h WHERE h.gate = name);
    g.paid := 0;
    IF g.step IS NOT NULL THEN
        pace := document('pace', name);
        IF (pace ->> 'at')::bigint <= moment THEN   -- else somebody has set the clock back
            g.paid := (pace ->> 'paid')::bigint;
        END IF;
    END IF;
    RETURN g;
EXCEPTION WHEN data_exception THEN
    RETURN ROW(0, NULL, 1, 0, 0)::gate;
END $$;

-- What a job of a weight takes: one that is heavier than its gate takes all of it.
CREATE FUNCTION units_of(g gate, weight integer) RETURNS integer LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN CASE WHEN g.units IS NULL THEN weight ELSE greatest(1, least(weight, g.units)) END;
END $$;

-- How many jobs of a weight fit now, at most `most`, if the first of them has `own` units already.
CREATE FUNCTION fit(g gate, weight integer, own bigint, moment bigint, most integer) RETURNS integer
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    room bigint := most;
BEGIN
    IF g.units IS NOT NULL THEN
        room := least(room, floor((g.units - (g.used - own))::numeric / units_of(g, weight)));
    END IF;
    IF g.step > 0 THEN
        room := least(room, floor((greatest(g.burst, weight) * g.step - (greatest(g.paid, moment) - moment))::numeric
            / (weight * g.step)));
    END IF;
    RETURN greatest(0, room);
END $$;

-- Have a gate that has a rate looked at when that lets so many units start.
CREATE FUNCTION call_gate(name text, g gate, weight integer, moment bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    due bigint := g.paid - (greatest(g.burst, weight) - weight) * g.step;
BEGIN
    IF due > moment AND NOT EXISTS (SELECT 1 FROM freed f WHERE f.gate = name AND f.at > moment AND f.at <= due) THEN
        INSERT INTO freed VALUES (due, name, false, moment);
    END IF;
END $$;

CREATE FUNCTION room_of(gates_ text, first text, moment bigint, most integer,
    OUT room integer, OUT gate text, OUT weight integer) LANGUAGE plpgsql AS $$
DECLARE
    n record;
    fits integer;
BEGIN
    room := most;
    FOR n IN SELECT * FROM needs_of(gates_) LOOP
        fits := fit(gate_now(n.gate, moment), n.weight,
            CASE WHEN n.keep THEN coalesce((SELECT h.weight FROM holds h WHERE h.gate = n.gate AND h.job = first), 0)
                ELSE 0 END, moment, room);
        IF fits < room OR gate IS NULL THEN
            room := fits;
            gate := n.gate;
            weight := n.weight;
        END IF;
    END LOOP;
END $$;

-- Make the best jobs of one line behind these gates ready, as many as fit; how many that are, -1 if somebody else is at
-- one of the gates: then it is left for the next.
CREATE FUNCTION look(line_ text, gates_ text, moment bigint) RETURNS integer LANGUAGE plpgsql AS $$
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
    SELECT array_agg(l.id) INTO ready_ FROM needs_of(gates_) n JOIN holds h ON h.gate = n.gate AND h.keep
        JOIN live l ON l.id = h.job
    WHERE n.keep AND l.state = 'waiting' AND l.gates = gates_ AND l.line = line_
        AND (SELECT o.room FROM room_of(gates_, l.id, moment, 1) o) > 0;
    PERFORM let_in(ready_, line_, gates_, moment);
    SELECT l.id INTO first FROM live l WHERE l.gates = gates_ AND l.line = line_ AND l.state IN ('waiting', 'ready')
    ORDER BY l.priority DESC, l.rank, l.id LIMIT 1;
    SELECT * INTO r FROM room_of(gates_, coalesce(first, ''), moment, most);
    -- One that has kept a gate and waits for another: what it waits for lets others on.
    SELECT o.gate, o.weight INTO kept FROM needs_of(gates_) n JOIN holds h ON h.gate = n.gate AND h.keep
        JOIN live l ON l.id = h.job CROSS JOIN LATERAL room_of(gates_, l.id, moment, 1) o
    WHERE n.keep AND l.state = 'waiting' AND l.gates = gates_ AND l.line = line_ AND o.room = 0 LIMIT 1;
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

CREATE FUNCTION let_in(ids text[], line_ text, gates_ text, moment bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    n integer;
BEGIN
    IF ids IS NULL THEN
        RETURN;
    END IF;
    WITH free AS (
        SELECT l.id FROM live l WHERE l.id = ANY (ids) AND l.state = 'waiting' FOR UPDATE SKIP LOCKED
    ), moved AS (
        UPDATE live l SET state = 'ready' FROM free WHERE l.id = free.id RETURNING l.line, l.priority, l.rank
    ), noted AS (
        SELECT note_lines(array_agg(m.line), array_agg(m.priority), array_agg(m.rank))
        FROM (SELECT line, priority, min(rank) AS rank, count(*) AS n FROM moved GROUP BY 1, 2) m
    )
    SELECT (SELECT count(*) FROM moved) + 0 * (SELECT count(*) FROM noted) INTO n;
    IF n < cardinality(ids) THEN    -- somebody changes one of them just now
        INSERT INTO stirred VALUES (moment + 1000000, line_, gates_, moment);
    END IF;
END $$;

CREATE FUNCTION block(line_ text, gates_ text, gate_ text, weight_ integer, priority_ smallint, rank_ bigint, id_ text,
    moment bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO blocked VALUES (line_, gates_, gate_, weight_, priority_, rank_, id_)
    ON CONFLICT (gates, line) DO UPDATE SET gate = excluded.gate, weight = excluded.weight, priority = excluded.priority,
        rank = excluded.rank, id = excluded.id;
    PERFORM call_gate(gate_, gate_now(gate_, moment), weight_, moment);
END $$;

-- Look at the best lines that are blocked at a gate, of each task and queue as many as it has room for.
CREATE FUNCTION open_gate(name text, moment bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    g gate;
    room integer;
    found integer;
    at_line text;
    b record;
BEGIN
    IF NOT lock_gate(name) THEN
        INSERT INTO freed VALUES (moment, name, false, moment);
        RETURN;
    END IF;
    g := gate_now(name, moment);
    SELECT min(x.line) INTO at_line FROM blocked x WHERE x.gate = name;
    WHILE at_line IS NOT NULL LOOP
        room := fit(g, 1, 0, moment, 1000);
        FOR b IN SELECT x.gates, x.weight FROM blocked x WHERE x.gate = name AND x.line = at_line
            ORDER BY x.priority DESC, x.rank, x.id LIMIT 1000
        LOOP
            IF room <= 0 THEN
                PERFORM call_gate(name, g, b.weight, moment);
                EXIT;
            END IF;
            found := look(at_line, b.gates, moment);
            room := room - b.weight * greatest(0, found);
        END LOOP;
        SELECT min(x.line) INTO at_line FROM blocked x WHERE x.gate = name AND x.line > at_line;
    END LOOP;
END $$;

-- Whether somebody has set the clock back; what was to be looked at since is looked at now.
CREATE FUNCTION set_back(moment bigint) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT 1 FROM freed WHERE at > moment AND since > moment)
        AND NOT EXISTS (SELECT 1 FROM stirred WHERE at > moment AND since > moment) THEN
        RETURN false;
    END IF;
    UPDATE freed SET at = moment, since = moment WHERE at > moment;
    UPDATE stirred SET at = moment, since = moment WHERE at > moment;
    RETURN true;
END $$;

-- Look at what was stirred and at what was called, from `low` on; whether there was anything, and whether more of it is
-- left.
CREATE FUNCTION admit(moment bigint, low bigint, OUT found boolean, OUT more boolean) LANGUAGE plpgsql AS $$
DECLARE
    s record;
    most integer := 500;
    next bigint;
    n integer := 0;
    seen integer;
BEGIN
    found := false;
    more := false;
    next := next_look(moment, low);
    IF next IS NULL THEN
        RETURN;
    ELSIF set_back(moment) THEN
        low := 0;
    ELSIF next > moment THEN
        RETURN;
    END IF;
    FOR s IN
        WITH taken AS (
            DELETE FROM stirred WHERE ctid = ANY (ARRAY(SELECT t.ctid FROM stirred t WHERE t.at >= low AND t.at <= moment
                ORDER BY t.at LIMIT most FOR UPDATE SKIP LOCKED)) RETURNING line, gates
        ) SELECT t.line, t.gates, count(*) AS n FROM taken t GROUP BY 1, 2
    LOOP
        found := true;
        n := n + s.n;
        seen := look(s.line, s.gates, moment);
        more := more OR seen < 0;
    END LOOP;
    more := more OR n >= most;
    n := 0;
    FOR s IN
        WITH taken AS (
            DELETE FROM freed WHERE ctid = ANY (ARRAY(SELECT t.ctid FROM freed t WHERE t.at >= low AND t.at <= moment
                ORDER BY t.at LIMIT most FOR UPDATE SKIP LOCKED)) RETURNING gate, whole
        ) SELECT t.gate, t.whole, count(*) AS n FROM taken t GROUP BY 1, 2
    LOOP
        found := true;
        n := n + s.n;
        IF NOT s.whole THEN
            PERFORM open_gate(s.gate, moment);
        ELSIF lock_family(s.gate) THEN
            PERFORM open_gate(b.gate, moment) FROM (SELECT DISTINCT x.gate FROM blocked x
                WHERE x.gate = s.gate OR x.gate >= s.gate || '/' AND x.gate < s.gate || '0') b;
        ELSE
            INSERT INTO freed VALUES (moment, s.gate, true, moment);
            more := true;
        END IF;
    END LOOP;
    more := more OR n >= most;
END $$;

-- The best ready jobs for a demand that fit through their gates, locked and written to have passed.
CREATE FUNCTION claim(
    moment bigint, low bigint, slots integer, names text[], serves integer[], free integer[], queues text[],
    shares integer[], OUT chosen tid[], OUT opened boolean, OUT cut boolean
) LANGUAGE plpgsql AS $$
DECLARE
    a record;
    c record;
    p record;
    late boolean := false;
BEGIN
    opened := false;
    FOR look_ IN 1..16 LOOP
        SELECT * INTO a FROM admit(moment, low);
        opened := opened OR a.found;
        SELECT * INTO c FROM choose(moment, slots, names, serves, free, queues, shares);
        IF cardinality(c.late) > 0 THEN
            late := true;
            PERFORM cancel_late(c.late, moment);
        END IF;
        chosen := c.chosen;
        cut := c.cut OR a.more OR late;
        IF NOT coalesce(c.gated, false) THEN
            RETURN;
        END IF;
        SELECT * INTO p FROM pass(chosen, moment, names, queues, shares, look_ = 16);
        chosen := p.passed;
        cut := cut OR p.busy OR p.refused;
        EXIT WHEN NOT p.refused;
    END LOOP;
END $$;

-- Which of the jobs that were chosen fit through their gates. If all do, or if this is the `final` look, what those in front
-- of the first that does not have passed is written; else those that do not are turned away. `busy`: somebody else is at
-- a gate, and jobs are left for him.
CREATE FUNCTION pass(
    chosen tid[], moment bigint, names text[], queues text[], shares integer[], final boolean,
    OUT passed tid[], OUT busy boolean, OUT refused boolean
) LANGUAGE plpgsql AS $$
DECLARE
    met text[] := '{}';         -- gates, and
    now_ gate[] := '{}';        -- as they are with what has passed
    shut text[] := '{}';
    barred text;
    barred_weight integer;
    own bigint;
    at_gate integer;
    j record;
    n record;
    g gate;
    away_lines text[] := '{}';
    away_gates text[] := '{}';
    first_refused record;
BEGIN
    passed := chosen;
    busy := false;
    refused := false;
    FOR j IN
        WITH placed AS (    -- each queue's share in order, then what is left, in order
            SELECT l.ctid, l.id, l.line, l.gates, l.priority, l.rank, coalesce(array_position(queues, l.queue), 0) AS q,
                row_number() OVER (PARTITION BY l.queue ORDER BY l.priority DESC, l.rank, l.id) AS n
            FROM live l WHERE l.ctid = ANY (chosen)
        )
        SELECT * FROM placed p WHERE p.gates IS NOT NULL
        ORDER BY queues IS NOT NULL AND p.n > shares[p.q], CASE WHEN queues IS NULL THEN 0 ELSE p.q END, p.priority DESC,
            p.rank, p.id
    LOOP
        IF (SELECT bool_or(NOT lock_gate(x.gate)) FROM needs_of(j.gates) x) THEN
            busy := true;
            passed := array_remove(passed, j.ctid);
            CONTINUE;
        END IF;
        barred := NULL;
        FOR n IN SELECT * FROM needs_of(j.gates) LOOP
            at_gate := array_position(met, n.gate);
            IF at_gate IS NULL THEN
                met := met || n.gate;
                now_ := now_ || gate_now(n.gate, moment);
                at_gate := cardinality(met);
            END IF;
            own := CASE WHEN n.keep THEN coalesce((SELECT h.weight FROM holds h WHERE h.gate = n.gate AND h.job = j.id), 0)
                ELSE 0 END;
            IF fit(now_[at_gate], n.weight, own, moment, 1) = 0 OR own = 0 AND (n.gate = ANY (shut) OR EXISTS (
                SELECT 1 FROM blocked b WHERE b.gate = n.gate AND b.weight > 1 AND b.weight > n.weight
                    AND (-b.priority, b.rank, b.id) < (-j.priority, j.rank, j.id)
                    AND split_part(b.line, '/', 2) = ANY (names)
                    AND (queues IS NULL OR split_part(b.line, '/', 1) = ANY (queues)))) THEN
                barred := n.gate;
                barred_weight := n.weight;
                EXIT;
            END IF;
        END LOOP;
        IF barred IS NULL THEN
            CONTINUE WHEN refused AND final;
            FOR n IN SELECT * FROM needs_of(j.gates) LOOP
                at_gate := array_position(met, n.gate);
                g := now_[at_gate];
                g.used := g.used + units_of(g, n.weight) - CASE WHEN n.keep THEN coalesce(
                    (SELECT h.weight FROM holds h WHERE h.gate = n.gate AND h.job = j.id), 0) ELSE 0 END;
                g.paid := CASE WHEN g.step IS NULL THEN g.paid ELSE greatest(g.paid, moment) + n.weight * g.step END;
                now_[at_gate] := g;
            END LOOP;
        ELSE
            shut := shut || barred;
            IF NOT refused THEN
                refused := true;
                first_refused := j;
            END IF;
            IF NOT EXISTS (SELECT 1 FROM unnest(away_lines, away_gates) w (line, gates)
                WHERE w.line = j.line AND w.gates = j.gates) THEN
                away_lines := away_lines || j.line;
                away_gates := away_gates || j.gates;
                PERFORM turn_away(j.line, j.gates, barred, barred_weight, j.priority, j.rank, j.id, moment);
            END IF;
        END IF;
    END LOOP;
    IF refused AND NOT final THEN
        RETURN;
    ELSIF refused THEN
        SELECT coalesce(array_agg(l.ctid), '{}') INTO passed FROM live l
        WHERE l.ctid = ANY (passed) AND l.state = 'ready'
            AND (-l.priority, l.rank, l.id) < (-first_refused.priority, first_refused.rank, first_refused.id);
    END IF;
    INSERT INTO holds SELECT x.gate, l.id, units_of(now_[array_position(met, x.gate)], x.weight), x.keep
    FROM live l CROSS JOIN LATERAL needs_of(l.gates) x WHERE l.ctid = ANY (passed) AND l.gates IS NOT NULL
    ON CONFLICT (gate, job) DO UPDATE SET weight = excluded.weight, keep = excluded.keep;
    FOR i IN 1..cardinality(met) LOOP
        IF (now_[i]).step IS NOT NULL AND EXISTS (SELECT 1 FROM live l CROSS JOIN LATERAL needs_of(l.gates) x
            WHERE l.ctid = ANY (passed) AND l.gates IS NOT NULL AND x.gate = met[i]) THEN
            INSERT INTO docs VALUES ('pace', met[i], moment,
                convert_to(json_build_object('paid', (now_[i]).paid, 'at', moment)::text, 'UTF8'), (now_[i]).paid)
            ON CONFLICT (kind, name) DO UPDATE SET version = docs.version + 1, body = excluded.body, due = excluded.due;
            PERFORM call_gate(met[i], now_[i], 1, moment); -- others may wait, or stand ready to be refused
        END IF;
    END LOOP;
END $$;

-- The ready jobs of one line behind these gates go back, from a place on.
CREATE FUNCTION turn_away(line_ text, gates_ text, barred text, barred_weight integer, priority_ smallint, rank_ bigint,
    id_ text, moment bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE live l SET state = 'waiting' FROM (
        SELECT x.id FROM live x WHERE x.gates = gates_ AND x.line = line_ AND x.state = 'ready'
            AND (-x.priority, x.rank, x.id) >= (-priority_, rank_, id_) FOR UPDATE SKIP LOCKED) r
    WHERE l.id = r.id;
    PERFORM block(line_, gates_, barred, barred_weight, priority_, rank_, id_, moment);
    INSERT INTO freed SELECT moment, n.gate, false, moment FROM needs_of(gates_) n WHERE n.gate <> barred; -- others may wait there
END $$;
