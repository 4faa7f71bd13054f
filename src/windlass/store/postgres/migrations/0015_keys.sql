-- Settings of one key of a gate go before those of all its keys. See docs/design/postgres.md.

CREATE OR REPLACE FUNCTION gate_now(name text, moment bigint) RETURNS gate LANGUAGE plpgsql AS $$
DECLARE
    g gate;
    own boolean := strpos(name, '/') > 0 AND EXISTS (SELECT 1 FROM docs d WHERE d.kind = 'gate' AND d.name = gate_now.name);
    said jsonb := document('gate', CASE WHEN own THEN name ELSE split_part(name, '/', 1) END);
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

-- Look again at the gates of which a document tells that was written: at one, or at all of a family.
CREATE OR REPLACE FUNCTION call_for(kind text, name text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO freed VALUES (now_micros(), name, kind = 'gate' AND strpos(name, '/') = 0, now_micros());
END $$;
