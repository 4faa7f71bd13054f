-- Times are whole microseconds since the epoch. See docs/design/claim.md and docs/design/postgres.md.
CREATE TABLE schema_version (
    version integer NOT NULL,
    oldest  integer NOT NULL                -- the oldest code that may still use this schema, by its newest migration
);

-- The one place where time is read: moments, and what leases are measured by. Tests replace these two.
CREATE FUNCTION now_micros() RETURNS bigint LANGUAGE sql VOLATILE AS
$$ SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint $$;

CREATE FUNCTION steady_micros() RETURNS bigint LANGUAGE sql VOLATILE AS
$$ SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint $$;

-- Jobs that are not over. Rows come and go, so this table stays small whatever the history holds.
CREATE TABLE live (
    id          text COLLATE "C" NOT NULL,
    line        text COLLATE "C" NOT NULL,  -- queue/task, with a ! behind it for a suspect
    queue       text COLLATE "C" NOT NULL,
    task        text COLLATE "C" NOT NULL,
    priority    smallint NOT NULL,
    rank        bigint NOT NULL,
    state       text COLLATE "C" NOT NULL,
    run_at      bigint NOT NULL,
    expires_at  bigint,
    args        text NOT NULL,
    options     text,
    unique_key  text COLLATE "C",
    tags        text[] COLLATE "C",
    follow      text,                       -- the jobs that its end makes; see windlass/follow.py
    attempt     integer NOT NULL DEFAULT 0,
    lost        integer NOT NULL DEFAULT 0,
    fence       bigint NOT NULL DEFAULT 0,
    runner      text COLLATE "C",           -- who holds it, or held it last unless it was handed back
    seq         bigint,
    ending      text COLLATE "C",           -- how its last attempt ended that was settled
    cancelling  boolean NOT NULL DEFAULT false,
    reason      text,
    result      text,
    progress    text,
    attempts    text[],                     -- those that did not succeed: [fence, attempt, ending, runner, start, end, failure]
    enqueued_at bigint NOT NULL,
    started_at  bigint,
    finished_at bigint,
    brief       boolean NOT NULL DEFAULT false, -- whether its first claim frees the unique key
    gates       text COLLATE "C",           -- what it takes of which gates: [[gate, weight, keep], …], sorted
    ahead       bigint NOT NULL DEFAULT 0,
    fair        text,                       -- whose turn it takes: [key, weight]
    fair_key    text COLLATE "C",
    spacing     integer NOT NULL DEFAULT 0  -- how far apart the turns of its key are
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000,
    autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_scale_factor = 0.2);
ALTER TABLE live ADD PRIMARY KEY (id);
CREATE INDEX ready ON live (line, priority DESC, rank, id) WHERE state = 'ready';
CREATE INDEX due ON live (run_at, id) WHERE state = 'scheduled';
CREATE INDEX held ON live (runner, seq) WHERE state = 'running';
CREATE INDEX cancelling ON live (runner) WHERE cancelling;
CREATE INDEX expiring ON live (expires_at) WHERE expires_at IS NOT NULL AND started_at IS NULL;
CREATE INDEX turns ON live (queue, priority, fair_key, rank) WHERE fair_key IS NOT NULL AND state IN ('waiting', 'ready');
CREATE INDEX first_turn ON live (queue, priority, rank) WHERE fair_key IS NOT NULL AND state IN ('waiting', 'ready');
CREATE INDEX gated ON live (gates, line, priority DESC, rank, id) WHERE gates IS NOT NULL AND state IN ('waiting', 'ready');
CREATE INDEX live_tags ON live USING gin (tags) WHERE tags IS NOT NULL;

-- Jobs that are over, by outcome and by day: retention drops whole days.
CREATE TABLE history (LIKE live INCLUDING DEFAULTS) PARTITION BY LIST (state);
CREATE TABLE history_succeeded PARTITION OF history FOR VALUES IN ('succeeded') PARTITION BY RANGE (finished_at);
CREATE TABLE history_failed PARTITION OF history FOR VALUES IN ('failed') PARTITION BY RANGE (finished_at);
CREATE TABLE history_cancelled PARTITION OF history FOR VALUES IN ('cancelled') PARTITION BY RANGE (finished_at);
CREATE TABLE history_succeeded_rest PARTITION OF history_succeeded DEFAULT;
CREATE TABLE history_failed_rest PARTITION OF history_failed DEFAULT;
CREATE TABLE history_cancelled_rest PARTITION OF history_cancelled DEFAULT;
CREATE INDEX history_id ON history (id);
CREATE INDEX history_finished ON history (finished_at DESC, id);
CREATE INDEX history_tags ON history USING gin (tags) WHERE tags IS NOT NULL;

-- Where the walk along the ready jobs of a line begins. A hint: whatever stands before it is found by the next survey.
CREATE TABLE lines (
    line     text COLLATE "C" NOT NULL,
    priority smallint NOT NULL,
    low      bigint NOT NULL,
    seen_at  bigint NOT NULL,               -- when it was last known to have jobs, to ten seconds
    PRIMARY KEY (line, priority)
) WITH (fillfactor = 50);

-- The same for what is due and what expires, and when the last survey was.
CREATE TABLE bounds (
    due_low     bigint NOT NULL DEFAULT 0,
    expiry_low  bigint NOT NULL DEFAULT 0,
    call_low    bigint NOT NULL DEFAULT 0,  -- of what is stirred and freed
    surveyed_at bigint NOT NULL DEFAULT 0,
    deep_at     bigint NOT NULL DEFAULT 0,  -- when one last went from the bottom, and how long that took
    survey_took bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);
INSERT INTO bounds DEFAULT VALUES;

CREATE TABLE marks (
    key    text COLLATE "C" PRIMARY KEY,
    job    text COLLATE "C" NOT NULL,
    until  bigint                           -- NULL: a unique key, held while its job lives
);
CREATE INDEX fading ON marks (until) WHERE until IS NOT NULL;

-- Who takes how much of a gate: jobs that run, and those that keep it until their end.
CREATE TABLE holds (
    gate   text COLLATE "C" NOT NULL,
    job    text COLLATE "C" NOT NULL,
    weight integer NOT NULL,
    keep   boolean NOT NULL,
    PRIMARY KEY (gate, job)
);
CREATE INDEX holds_of ON holds (job);

-- Jobs of one line behind the same gates wait together: at one gate that has no room, with the place of their best.
CREATE TABLE blocked (
    line     text COLLATE "C" NOT NULL,
    gates    text COLLATE "C" NOT NULL,
    gate     text COLLATE "C" NOT NULL,
    weight   integer NOT NULL,              -- of that gate
    priority smallint NOT NULL,
    rank     bigint NOT NULL,
    id       text COLLATE "C" NOT NULL,
    PRIMARY KEY (gates, line)
);
CREATE INDEX blocked_at ON blocked (gate, line, priority DESC, rank, id);
CREATE INDEX heavy ON blocked (gate) WHERE weight > 1;

-- What a claim looks at, from a moment on: lines to which something came, and gates that may have room. Rows are only
-- added, so that nobody waits for anybody's transaction; claims take them away. `whole`: all gates of that family.
CREATE TABLE stirred (
    at    bigint NOT NULL,
    line  text COLLATE "C" NOT NULL,
    gates text COLLATE "C" NOT NULL,
    since bigint NOT NULL                   -- when it was written; a clock that is behind that was set back
);
CREATE INDEX stirred_at ON stirred (at);
CREATE TABLE freed (
    at    bigint NOT NULL,
    gate  text COLLATE "C" NOT NULL,
    whole boolean NOT NULL,
    since bigint NOT NULL                   -- the same
);
CREATE INDEX freed_at ON freed (at);
CREATE INDEX freed_gate ON freed (gate, at);

CREATE TABLE docs (
    kind    text COLLATE "C" NOT NULL,
    name    text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    body    bytea NOT NULL,
    due     bigint,
    PRIMARY KEY (kind, name)
);
CREATE INDEX docs_due ON docs (kind, due) WHERE due IS NOT NULL;

CREATE TABLE workers (
    id          text COLLATE "C" PRIMARY KEY,
    host        text NOT NULL,
    pid         integer NOT NULL,
    version     text NOT NULL,
    lease       double precision NOT NULL,
    queues      text NOT NULL,
    concurrency integer NOT NULL,
    started_at  bigint NOT NULL,
    beat_at     bigint NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE runners (
    id        text COLLATE "C" PRIMARY KEY,
    worker    text COLLATE "C" NOT NULL,
    pid       integer NOT NULL,
    tasks     text[] NOT NULL,
    joined_at bigint NOT NULL
);
CREATE INDEX runners_of ON runners (worker);

-- The exchanges that wrote something. Rows are added, never changed: the newest is found at the end of the index at
-- once, however many dead versions an old snapshot elsewhere keeps.
CREATE TABLE exchanges (
    runner text COLLATE "C" NOT NULL,
    seq    bigint NOT NULL,
    PRIMARY KEY (runner, seq)
);

-- Ids of workers and runners that are gone: none is ever used twice.
CREATE TABLE departed (
    id      text COLLATE "C" PRIMARY KEY,
    left_at bigint NOT NULL
);
CREATE INDEX departed_at ON departed (left_at);

-- Make the partitions of the coming days. Rows of a day without one stand in the …_rest partitions.
CREATE FUNCTION add_days(days integer) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    day bigint := 86400000000;
    today bigint := now_micros() / day;
    name text;
BEGIN
    FOR ahead IN 0..days LOOP
        FOR name IN SELECT unnest(ARRAY['history_succeeded', 'history_failed', 'history_cancelled']) LOOP
            CONTINUE WHEN to_regclass(format('%I.%I', current_schema(), name || '_' || today + ahead)) IS NOT NULL;
            BEGIN
                EXECUTE format('CREATE TABLE %I PARTITION OF %I FOR VALUES FROM (%s) TO (%s)',
                    name || '_' || today + ahead, name, (today + ahead) * day, (today + ahead + 1) * day);
            EXCEPTION
                -- Rows of that day stand in …_rest, another process makes it, or somebody reads for long.
                WHEN check_violation OR duplicate_table OR lock_not_available OR deadlock_detected THEN NULL;
            END;
        END LOOP;
    END LOOP;
END $$;
SELECT add_days(2);
