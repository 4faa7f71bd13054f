-- Statements of the PostgreSQL store. {schema} is the quoted name of its schema; each is one round trip. An array that is
-- cast twice is sent as text.

-- name: put
SELECT (p).states, (p).at, (p).holders, (p).held, (p).pending, (p).ring
FROM {schema}.put(%s::text::text[], %s::text::text[], %s::text::integer[], %s::text::text[], %s::boolean, %s::bigint,
    %s::text::{schema}.shape[], %s::json, %s::json, %s::boolean) AS p;

-- name: put_one
SELECT (p).states, (p).at, (p).holders, (p).held, (p).pending, (p).ring
FROM {schema}.put_one(%s::text, %s::text, %s::text::{schema}.shape) AS p;

-- name: exchange
SELECT * FROM {schema}.exchange(%s::text, %s::bigint, %s::text::text[], %s::text::bigint[], %s::text::bigint[],
    %s::text::integer[], %s::text::text[], %s::json, %s::integer, %s::text::text[], %s::text::integer[],
    %s::text::integer[], %s::text::text[], %s::text::integer[]);

-- name: settle
SELECT {schema}.settle(%s::text, %s::json);

-- name: settle_first
-- Inside a transaction in which a task has written: only for a job that still runs, so that no outcome stands twice. Now
-- that nothing but the commit is to come, the server waits for it only as long as we say.
WITH held AS (
    SELECT id FROM {schema}.live
    WHERE id = %s::text AND fence = %s::bigint AND seq = %s::bigint AND runner = %s::text AND state = 'running'
    FOR UPDATE
)
SELECT {schema}.settle(%s::text, %s::json), set_config('idle_in_transaction_session_timeout', %s, true) FROM held;

-- name: enlist
SELECT {schema}.enlist(%s::text, %s::text, %s::integer, %s::text, %s::double precision, %s::text, %s::integer);

-- name: join_worker
SELECT {schema}.join_worker(%s::text, %s::text, %s::integer, %s::text[]);

-- name: release
SELECT {schema}.release(%s::text[], %s::text, %s::json);

-- name: retire
SELECT {schema}.retire(%s::text);

-- name: beat
SELECT b.*, {schema}.lags(%s::bigint) FROM {schema}.beat(%s::text) AS b;

-- name: survey
SELECT {schema}.survey();

-- name: phantoms
SELECT {schema}.phantoms(%s::text, %s::bigint, %s::text[], %s::bigint[], %s::bigint, %s::text[]);

-- name: reconcile
SELECT {schema}.reconcile(%s::text, %s::bigint, %s::text[], %s::bigint[]);

-- name: reap
SELECT {schema}.reap(%s::text);

-- name: note
WITH given AS (
    SELECT * FROM unnest(%s::text[], %s::bigint[], %s::bigint[], %s::text[])
        WITH ORDINALITY AS g (id, fence, seq, progress, n)
), noted AS (
    UPDATE {schema}.live l SET progress = g.progress FROM given g
    WHERE l.id = g.id AND l.fence = g.fence AND l.seq = g.seq AND l.runner = %s::text AND l.state = 'running'
    RETURNING g.n
)
SELECT id FROM given WHERE n NOT IN (SELECT n FROM noted) ORDER BY n;

-- name: leave_for_now
SELECT {schema}.leave_for_now(g.id, g.fence, g.seq, %s::text, string_to_array(g.gates, ','))
FROM unnest(%s::text[], %s::bigint[], %s::bigint[], %s::text[]) AS g (id, fence, seq, gates);

-- name: come_back
-- In order. NULL: somebody else is at one of the gates.
SELECT g.id, {schema}.come_back(g.id, g.fence, g.seq, %s::text, string_to_array(g.gates, ','))
FROM unnest(%s::text[], %s::bigint[], %s::bigint[], %s::text[]) AS g (id, fence, seq, gates);

-- name: act
SELECT {schema}.act(%s::text[], %s::text, %s::text);

-- name: shed
SELECT ids, rest FROM {schema}.shed(%s::text, %s::bigint, %s::integer, %s::text, %s::integer);

-- name: amend
SELECT {schema}.amend(%s::json);

-- name: lift
SELECT {schema}.lift(%s::bigint, %s::smallint, %s::integer);

-- name: prune
SELECT {schema}.prune(%s::json, %s::integer);

-- name: save
SELECT {schema}.save(%s::json, %s::json, %s::boolean);

-- name: docs
SELECT n.now, d.* FROM {schema}.now_micros() AS n (now) LEFT JOIN LATERAL (
    SELECT name, version, body, due FROM {schema}.docs WHERE kind = %s::text AND name > %s::text ORDER BY name LIMIT %s
) d ON true;

-- name: docs_named
SELECT n.now, d.* FROM {schema}.now_micros() AS n (now) LEFT JOIN LATERAL (
    SELECT name, version, body, due FROM {schema}.docs WHERE kind = %s::text AND name = ANY (%s::text[]) ORDER BY name
    LIMIT %s
) d ON true;

-- name: docs_due
SELECT n.now, d.* FROM {schema}.now_micros() AS n (now) LEFT JOIN LATERAL (
    SELECT name, version, body, due FROM {schema}.docs WHERE kind = %s::text AND due <= n.now + %s::bigint
    ORDER BY due, name LIMIT %s
) d ON true;

-- name: live_by_id
SELECT {columns} FROM {schema}.live_of(%s::text[]);

-- name: holders
SELECT m.key, m.job FROM {schema}.marks m
WHERE m.key = ANY (%s::text[]) AND (m.until IS NULL OR m.until > {schema}.now_micros());

-- name: over_by_id
-- {since} is a literal, so that planning leaves out the partitions of all days before.
SELECT {columns} FROM {schema}.history WHERE id = ANY (%s::text[]) AND finished_at >= {since};

-- name: listed
SELECT {columns}, {keys} FROM {schema}.{table} WHERE {condition} ORDER BY {order} LIMIT %s;

-- name: edge
SELECT {key} FROM {schema}.{table} WHERE {condition} ORDER BY {order} OFFSET %s LIMIT 1;

-- name: listed_ready
-- The heads of every line, merged: one index search per line, however long each is.
WITH RECURSIVE present (line) AS (
    (SELECT line FROM {schema}.live WHERE state = 'ready' ORDER BY line LIMIT 1)
    UNION ALL
    SELECT n.line FROM present p CROSS JOIN LATERAL (
        SELECT line FROM {schema}.live WHERE state = 'ready' AND line > p.line ORDER BY line LIMIT 1) n
)
SELECT {columns}, -priority, rank, id FROM present p CROSS JOIN LATERAL (
    SELECT * FROM {schema}.live WHERE state = 'ready' AND live.line = p.line AND {condition}
    ORDER BY priority DESC, rank, id LIMIT %s) l
ORDER BY priority DESC, rank, id LIMIT %s;

-- name: counted
SELECT count(*) FROM (SELECT 1 FROM {schema}.{table} WHERE {condition} LIMIT %s) c;

-- name: targets
SELECT id FROM {schema}.{table} WHERE {condition} LIMIT %s;

-- name: held_by_another
-- Within a statement about jobs: whether the unique key of that job is another's.
SELECT 1 FROM {schema}.marks m WHERE m.key = unique_key AND m.job <> id

-- name: stats
SELECT c.*, {schema}.now_micros() FROM {schema}.census(%s::bigint, %s::bigint) AS c;

-- name: workers
SELECT id, host, pid, version, lease, queues, concurrency, started_at, {schema}.steady_micros() - beat_at
FROM {schema}.workers ORDER BY started_at, id;

-- name: runners
SELECT id, worker, pid, tasks, joined_at,
    (SELECT count(*) FROM {schema}.live l WHERE l.runner = runners.id AND l.state = 'running')
FROM {schema}.runners ORDER BY joined_at, id;

-- name: watch_client
-- Within a transaction: the server notices when the other end of its connection is gone, and rolls back.
SELECT set_config('tcp_keepalives_idle', '10', true), set_config('tcp_keepalives_interval', '5', true),
    set_config('tcp_keepalives_count', '3', true), set_config('tcp_user_timeout', '10000', true);

-- name: ring
-- A hint need not be on the disk before it is heard.
SELECT pg_notify(%s, '') FROM set_config('synchronous_commit', 'off', true);

-- name: version
SELECT CASE WHEN to_regclass(%s) IS NULL THEN NULL ELSE 1 END;

-- name: schema_version
SELECT version, oldest FROM {schema}.schema_version;

-- name: set_version
WITH old AS (DELETE FROM {schema}.schema_version) INSERT INTO {schema}.schema_version VALUES (%s, %s);

-- name: health
SELECT current_setting('server_version'), current_setting('synchronous_commit'), current_setting('fsync'),
    pg_is_in_recovery(), extract(epoch FROM clock_timestamp()),
    current_setting('max_connections')::integer, (SELECT count(*) FROM pg_stat_activity),
    pg_total_relation_size('{schema}.live'),
    (SELECT coalesce(sum(pg_total_relation_size(relid)), 0) FROM pg_partition_tree('{schema}.history') WHERE isleaf),
    (SELECT n_dead_tup FROM pg_stat_all_tables WHERE relid = '{schema}.live'::regclass),
    (SELECT n_live_tup FROM pg_stat_all_tables WHERE relid = '{schema}.live'::regclass);

-- name: old_snapshot
SELECT pid, coalesce(application_name, ''), extract(epoch FROM clock_timestamp() - xact_start) FROM pg_stat_activity
WHERE backend_xmin IS NOT NULL AND pid <> pg_backend_pid() ORDER BY age(backend_xmin) DESC LIMIT 1;
