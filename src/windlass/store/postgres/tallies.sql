-- Statistics. {columns}, {given}, {added} and {sums} are filled in by windlass/store/tallies.py. What a crash of the server
-- loses of the last seconds is no harm, so nobody waits for the disk.

-- name: add
-- Rows as JSON: [span, at, queue, task, …]. Those that are one too many are added up under another name. In the order of
-- the key, so that two workers never wait for each other in a circle.
WITH given AS (
    SELECT (given ->> 0)::integer AS span, (given ->> 1)::bigint AS at, given ->> 2 AS queue, given ->> 3 AS task, given, n
    FROM json_array_elements(%s::json) WITH ORDINALITY AS g (given, n)
), known AS (
    SELECT *, EXISTS (SELECT 1 FROM {schema}.tallies t
            WHERE t.span = g.span AND t.at = g.at AND t.queue = g.queue AND t.task = g.task) AS old,
        (SELECT count(*) FROM {schema}.tallies t WHERE t.span = g.span AND t.at = g.at) AS lines
    FROM given g
), named AS (
    SELECT *, old OR lines + count(*) FILTER (WHERE NOT old) OVER (PARTITION BY span, at ORDER BY n) <= %s AS fits
    FROM known
), done AS (
INSERT INTO {schema}.tallies AS tallies (span, at, queue, task, {columns})
SELECT span, at, CASE WHEN fits THEN queue ELSE '(other)' END, CASE WHEN fits THEN task ELSE '(other)' END, {given}
FROM named, set_config('synchronous_commit', 'off', true) GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4
ON CONFLICT (span, at, queue, task) DO UPDATE SET {added} RETURNING 1
) SELECT count(*) FROM done;

-- name: series
SELECT at * 60 / %s::bigint * %s::bigint / 60, queue, task, {sums} FROM {schema}.tallies
WHERE span = %s AND at >= %s AND at < %s AND (%s::text IS NULL OR queue = %s::text) GROUP BY 1, 2, 3;

-- name: deepen
-- The same of depths: [span, at, queue, …].
WITH given AS (
    SELECT (given ->> 0)::integer AS span, (given ->> 1)::bigint AS at, given ->> 2 AS queue, given, n
    FROM json_array_elements(%s::json) WITH ORDINALITY AS g (given, n)
), known AS (
    SELECT *, EXISTS (SELECT 1 FROM {schema}.depths d WHERE d.span = g.span AND d.at = g.at AND d.queue = g.queue) AS old,
        (SELECT count(*) FROM {schema}.depths d WHERE d.span = g.span AND d.at = g.at) AS lines
    FROM given g
), named AS (
    SELECT *, old OR lines + count(*) FILTER (WHERE NOT old) OVER (PARTITION BY span, at ORDER BY n) <= %s AS fits
    FROM known
), done AS (
INSERT INTO {schema}.depths AS d (span, at, queue, ready, waiting, scheduled, running, oldest)
SELECT span, at, CASE WHEN fits THEN queue ELSE '(other)' END, max((given ->> 3)::bigint), max((given ->> 4)::bigint),
    max((given ->> 5)::bigint), max((given ->> 6)::bigint), max((given ->> 7)::double precision)
FROM named, set_config('synchronous_commit', 'off', true) GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
ON CONFLICT (span, at, queue) DO UPDATE SET
    ready = greatest(d.ready, excluded.ready), waiting = greatest(d.waiting, excluded.waiting),
    scheduled = greatest(d.scheduled, excluded.scheduled), running = greatest(d.running, excluded.running),
    oldest = greatest(d.oldest, excluded.oldest) RETURNING 1
) SELECT count(*) FROM done;

-- name: depths
SELECT at * 60 / %s::bigint * %s::bigint / 60, queue, max(ready), max(waiting), max(scheduled), max(running), max(oldest)
FROM {schema}.depths WHERE span = %s AND at >= %s AND at < %s AND (%s::text IS NULL OR queue = %s::text) GROUP BY 1, 2;

-- name: prune
WITH tallied AS (
    DELETE FROM {schema}.tallies WHERE ctid IN (
        SELECT ctid FROM {schema}.tallies WHERE span = %s AND at < %s LIMIT %s)
), deep AS (
    DELETE FROM {schema}.depths WHERE ctid IN (
        SELECT ctid FROM {schema}.depths WHERE span = %s AND at < %s LIMIT %s)
) SELECT 1;
