-- Gates of running jobs that wait for other jobs: see Store.rest. A job that asks for its gates again has its place there
-- kept, under '~' and its id, while it runs.

CREATE FUNCTION want_no_more() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM holds WHERE job = '~' || OLD.id;
    RETURN NULL;
END $$;
CREATE TRIGGER job_wants_no_more AFTER UPDATE OF state ON live FOR EACH ROW
    WHEN (OLD.gates IS NOT NULL AND OLD.state = 'running' AND NEW.state <> 'running') EXECUTE FUNCTION want_no_more();
CREATE TRIGGER job_wants_nothing AFTER DELETE ON live FOR EACH ROW
    WHEN (OLD.gates IS NOT NULL AND OLD.state = 'running') EXECUTE FUNCTION want_no_more();

-- The gates of an attempt that runs; NULL if it does not, or has none.
CREATE FUNCTION gates_of(job text, job_fence bigint, job_seq bigint, holder text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    RETURN (SELECT l.gates FROM live l WHERE l.id = job AND l.fence = job_fence AND l.seq = job_seq AND l.runner = holder
        AND l.state = 'running' FOR UPDATE);
END $$;

CREATE FUNCTION leave_for_now(job_ text, job_fence bigint, job_seq bigint, holder text, families text[]) RETURNS void
LANGUAGE plpgsql SET search_path = {schema}, pg_temp SET enable_seqscan = off SET lock_timeout = '1s' AS $$
DECLARE
    moment bigint := now_micros();
BEGIN
    IF gates_of(job_, job_fence, job_seq, holder) IS NOT NULL THEN
        WITH gone AS (
            DELETE FROM holds h WHERE h.job IN (job_, '~' || job_) AND NOT h.keep
                AND split_part(h.gate, '/', 1) = ANY (families)
            RETURNING h.gate
        )
        INSERT INTO freed SELECT moment, g.gate, false, moment FROM gone g;
    END IF;
END $$;

-- Whether the job has what it needs of these gates now; NULL if somebody else is at one of them.
CREATE FUNCTION come_back(job_ text, job_fence bigint, job_seq bigint, holder text, families text[]) RETURNS boolean
LANGUAGE plpgsql SET search_path = {schema}, pg_temp SET enable_seqscan = off SET lock_timeout = '1s' AS $$
DECLARE
    moment bigint := now_micros();
    given text := gates_of(job_, job_fence, job_seq, holder);
    n record;
    g gate;
    fits boolean := true;
BEGIN
    IF given IS NULL THEN
        RETURN false;
    END IF;
    FOR n IN SELECT * FROM needs_of(given) x WHERE NOT x.keep AND split_part(x.gate, '/', 1) = ANY (families)
        AND NOT EXISTS (SELECT 1 FROM holds h WHERE h.gate = x.gate AND h.job = job_)
    LOOP
        IF NOT lock_gate(n.gate) THEN
            RETURN NULL;
        END IF;
        g := gate_now(n.gate, moment);
        g.step := NULL;
        g.used := (SELECT coalesce(sum(h.weight), 0) FROM holds h WHERE h.gate = n.gate AND h.job NOT LIKE '~%');
        fits := fits AND fit(g, n.weight, 0, moment, 1) = 1;
    END LOOP;
    INSERT INTO holds SELECT x.gate, CASE WHEN fits THEN job_ ELSE '~' || job_ END,
        units_of(gate_now(x.gate, moment), x.weight), false
    FROM needs_of(given) x WHERE NOT x.keep AND split_part(x.gate, '/', 1) = ANY (families)
        AND NOT EXISTS (SELECT 1 FROM holds h WHERE h.gate = x.gate AND h.job = job_) ON CONFLICT DO NOTHING;
    IF fits THEN
        DELETE FROM holds h WHERE h.job = '~' || job_ AND split_part(h.gate, '/', 1) = ANY (families);
    END IF;
    RETURN fits;
END $$;
