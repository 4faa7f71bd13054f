-- A job that is put elsewhere, and asks for no turn there that it has kept, frees it.

CREATE FUNCTION give_up() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    moment bigint := now_micros();
BEGIN
    WITH given AS (
        DELETE FROM holds h WHERE h.job = NEW.id
            AND NOT EXISTS (SELECT 1 FROM needs_of(NEW.gates) n WHERE n.gate = h.gate AND n.keep)
        RETURNING h.gate
    )
    INSERT INTO freed SELECT moment, g.gate, false, moment FROM given g;
    RETURN NULL;
END $$;
CREATE TRIGGER job_asks_less AFTER UPDATE OF gates ON live FOR EACH ROW
    WHEN (OLD.gates IS NOT NULL AND OLD.gates IS DISTINCT FROM NEW.gates AND NEW.state <> 'running') EXECUTE FUNCTION give_up();
