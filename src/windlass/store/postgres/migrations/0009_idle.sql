-- Who waits or is scheduled, by line, so that they are counted without a walk over those of other lines.
CREATE INDEX idle ON live (state, line, rank) WHERE state IN ('waiting', 'scheduled');

-- Live jobs by line, and by priority where they are ready: how many, counted up to `most`, and when the first became due
-- of those that stand in front (`front` of them). One search of an index for each, then as many entries as are counted.
CREATE FUNCTION census(most bigint, front bigint) RETURNS TABLE (state text, line text, number bigint, first bigint)
LANGUAGE sql SET search_path = {schema}, pg_temp SET jit = off SET enable_seqscan = off AS $$
WITH RECURSIVE present (line) AS (
    (SELECT line FROM live WHERE state = 'ready' ORDER BY line LIMIT 1)
    UNION ALL
    SELECT n.line FROM present p CROSS JOIN LATERAL (
        SELECT line FROM live WHERE state = 'ready' AND line > p.line ORDER BY line LIMIT 1) n
), places (line, priority) AS (
    SELECT p.line, n.priority FROM present p CROSS JOIN LATERAL (
        SELECT priority FROM live l WHERE state = 'ready' AND l.line = p.line ORDER BY priority DESC LIMIT 1) n
    UNION ALL
    SELECT p.line, n.priority FROM places p CROSS JOIN LATERAL (
        SELECT priority FROM live l WHERE state = 'ready' AND l.line = p.line AND l.priority < p.priority
        ORDER BY priority DESC LIMIT 1) n
), away (state, line) AS (
    SELECT s.state, n.line FROM unnest(ARRAY['scheduled', 'waiting']) AS s (state) CROSS JOIN LATERAL (
        SELECT line FROM live l WHERE l.state IN ('waiting', 'scheduled') AND l.state = s.state
        ORDER BY line LIMIT 1) n
    UNION ALL
    SELECT a.state, n.line FROM away a CROSS JOIN LATERAL (
        SELECT line FROM live l WHERE l.state IN ('waiting', 'scheduled') AND l.state = a.state AND l.line > a.line
        ORDER BY line LIMIT 1) n
)
SELECT 'ready', p.line, (SELECT count(*) FROM (SELECT 1 FROM live l
        WHERE state = 'ready' AND l.line = p.line AND l.priority = p.priority LIMIT most) c),
    (SELECT min(due) FROM (SELECT rank + ahead AS due FROM live l
        WHERE state = 'ready' AND l.line = p.line AND l.priority = p.priority
        ORDER BY line, priority DESC, rank, id LIMIT front) f)
FROM places p
UNION ALL
SELECT a.state, a.line, (SELECT count(*) FROM (SELECT 1 FROM live l
        WHERE l.state IN ('waiting', 'scheduled') AND l.state = a.state AND l.line = a.line
        LIMIT most) c),
    (SELECT min(due) FROM (SELECT rank + ahead AS due FROM live l
        WHERE l.state IN ('waiting', 'scheduled') AND l.state = a.state AND l.line = a.line
        ORDER BY state, line, rank LIMIT front) f)
FROM away a
UNION ALL
SELECT 'running', line, count(*), min(rank + ahead)
FROM live WHERE state = 'running' GROUP BY line;
$$;
