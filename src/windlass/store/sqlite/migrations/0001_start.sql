-- Times are whole microseconds since the epoch. See docs/design/claim.md.
CREATE TABLE windlass_schema (
    version INTEGER PRIMARY KEY NOT NULL    -- of each step taken
) STRICT;

CREATE TABLE jobs (
    id          TEXT PRIMARY KEY NOT NULL,
    line        TEXT NOT NULL,              -- queue/task, with a ! behind it for a suspect
    queue       TEXT NOT NULL,
    task        TEXT NOT NULL,
    priority    INTEGER NOT NULL,
    rank        INTEGER NOT NULL,
    state       TEXT NOT NULL,              -- not checked here: that costs a third of a bulk insert; see claim.md
    run_at      INTEGER NOT NULL,
    expires_at  INTEGER,
    args        TEXT NOT NULL,
    options     TEXT,
    unique_key  TEXT,
    brief       INTEGER NOT NULL DEFAULT 0, -- whether its first claim frees the key
    attempt     INTEGER NOT NULL DEFAULT 0,
    lost        INTEGER NOT NULL DEFAULT 0,
    fence       INTEGER NOT NULL DEFAULT 0,
    runner      TEXT,                       -- who holds it, or held it last unless it was handed back
    seq         INTEGER,
    ending      TEXT,                       -- how its last attempt ended that was settled
    cancelling  INTEGER NOT NULL DEFAULT 0,
    reason      TEXT,
    result      TEXT,
    progress    TEXT,
    enqueued_at INTEGER NOT NULL,
    started_at  INTEGER,
    finished_at INTEGER,
    follow      TEXT,                       -- the jobs that its end makes; see windlass/follow.py
    gates       TEXT,                       -- what it takes of which gates: [[gate, weight, keep], …], sorted
    ahead       INTEGER NOT NULL DEFAULT 0,
    fair        TEXT,                       -- whose turn it takes: [key, weight]
    fair_key    TEXT,
    turn        INTEGER NOT NULL DEFAULT 0  -- how far apart the turns of its key are
) STRICT;

CREATE INDEX ready ON jobs (line, priority DESC, rank, id) WHERE state = 'ready';
CREATE INDEX due ON jobs (run_at, line) WHERE state = 'scheduled';
CREATE INDEX held ON jobs (runner) WHERE state = 'running';
CREATE INDEX cancelling ON jobs (runner) WHERE state = 'running' AND cancelling = 1;
CREATE INDEX expiring ON jobs (expires_at)
    WHERE expires_at IS NOT NULL AND started_at IS NULL AND state IN ('waiting', 'scheduled', 'ready');
CREATE INDEX over ON jobs (state, finished_at) WHERE finished_at IS NOT NULL;

CREATE INDEX turns ON jobs (queue, priority, fair_key, rank) WHERE fair_key IS NOT NULL AND state IN ('waiting', 'ready');
CREATE INDEX first_turn ON jobs (queue, priority, rank) WHERE fair_key IS NOT NULL AND state IN ('waiting', 'ready');
CREATE INDEX gated ON jobs (gates, line, priority DESC, rank, id)
    WHERE gates IS NOT NULL AND state IN ('waiting', 'ready');

-- Who takes how much of a gate: jobs that run, and those that keep it until their end.
CREATE TABLE holds (
    gate   TEXT NOT NULL,
    job    TEXT NOT NULL,
    weight INTEGER NOT NULL,
    keep   INTEGER NOT NULL,
    PRIMARY KEY (gate, job)
) STRICT, WITHOUT ROWID;
CREATE INDEX holds_of ON holds (job);

-- Jobs of one line behind the same gates wait together: at one gate that has no room, with the place of their best.
CREATE TABLE blocked (
    line     TEXT NOT NULL,
    gates    TEXT NOT NULL,
    gate     TEXT NOT NULL,
    weight   INTEGER NOT NULL,              -- of that gate
    priority INTEGER NOT NULL,
    rank     INTEGER NOT NULL,
    id       TEXT NOT NULL,
    PRIMARY KEY (gates, line)
) STRICT, WITHOUT ROWID;
CREATE INDEX blocked_at ON blocked (gate, line, priority DESC, rank, id);
CREATE INDEX heavy ON blocked (gate) WHERE weight > 1;

-- What the next exchange looks at: lines to which something came, and gates which may have room from a moment on.
CREATE TABLE stirred (
    line  TEXT NOT NULL,
    gates TEXT NOT NULL,
    PRIMARY KEY (gates, line)
) STRICT, WITHOUT ROWID;

CREATE TABLE freed (
    gate TEXT PRIMARY KEY NOT NULL,
    at   INTEGER NOT NULL,                  -- 0: now
    since INTEGER NOT NULL                  -- when that was written; what lies ahead of the clock, it was set back
) STRICT, WITHOUT ROWID;
CREATE INDEX freed_at ON freed (at);
CREATE INDEX freed_since ON freed (since);

CREATE TABLE attempts (
    job        TEXT NOT NULL,
    fence      INTEGER NOT NULL,
    attempt    INTEGER NOT NULL,
    ending     TEXT NOT NULL,
    runner     TEXT,
    started_at INTEGER,
    ended_at   INTEGER NOT NULL,
    failure    TEXT,
    PRIMARY KEY (job, fence)
) STRICT, WITHOUT ROWID;

CREATE TABLE tags (
    tag TEXT NOT NULL,
    job TEXT NOT NULL,
    PRIMARY KEY (tag, job)
) STRICT, WITHOUT ROWID;
CREATE INDEX tagged ON tags (job);

CREATE TABLE marks (
    key   TEXT PRIMARY KEY NOT NULL,
    job   TEXT NOT NULL,
    until INTEGER                           -- NULL: a unique key, held while its job lives
) STRICT, WITHOUT ROWID;
CREATE INDEX fading ON marks (until) WHERE until IS NOT NULL;

CREATE TABLE docs (
    kind    TEXT NOT NULL,
    name    TEXT NOT NULL,
    version INTEGER NOT NULL,
    body    BLOB NOT NULL,
    due     INTEGER,
    PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX docs_due ON docs (kind, due) WHERE due IS NOT NULL;

CREATE TABLE workers (
    id         TEXT PRIMARY KEY NOT NULL,
    host       TEXT NOT NULL,
    pid        INTEGER NOT NULL,
    version    TEXT NOT NULL,
    lease      REAL NOT NULL,
    queues     TEXT NOT NULL,
    concurrency INTEGER NOT NULL,
    started_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE runners (
    id        TEXT PRIMARY KEY NOT NULL,
    worker    TEXT NOT NULL,
    pid       INTEGER NOT NULL,
    tasks     TEXT NOT NULL,
    joined_at INTEGER NOT NULL,
    seq       INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE INDEX runners_of ON runners (worker);

-- Ids of workers and runners that are gone: none is ever used twice.
CREATE TABLE departed (
    id   TEXT PRIMARY KEY NOT NULL,
    left_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Whoever ends a job frees its key and makes the jobs that follow it. What nobody of ours wrote there makes none.
CREATE TRIGGER job_over AFTER UPDATE OF state ON jobs
    WHEN new.finished_at IS NOT NULL AND (new.unique_key IS NOT NULL OR new.follow IS NOT NULL)
BEGIN
    DELETE FROM marks WHERE key = new.unique_key AND job = new.id AND until IS NULL;
    INSERT OR IGNORE INTO jobs
        (id, line, queue, task, priority, rank, state, run_at, expires_at, args, options, enqueued_at, follow, gates)
    SELECT new.id || '.' || new.fence || substr(new.state, 1, 1) || '.' || place, queue || '/' || task, queue, task,
        coalesce(priority, 0), new.finished_at + delay,
        CASE WHEN delay > 0 THEN 'scheduled' WHEN gates IS NOT NULL THEN 'waiting' ELSE 'ready' END,
        new.finished_at + delay, new.finished_at + expires, args, options, new.finished_at, follow, gates
    FROM (
        SELECT key AS place,
            CAST(json_extract(whole, fullkey || '.on') AS TEXT) AS causes,
            CAST(json_extract(whole, fullkey || '.queue') AS TEXT) AS queue,
            CAST(json_extract(whole, fullkey || '.task') AS TEXT) AS task,
            CAST(json_extract(whole, fullkey || '.priority') AS INTEGER) AS priority,
            coalesce(CAST(json_extract(whole, fullkey || '.delay') AS INTEGER), 0) AS delay,
            CAST(json_extract(whole, fullkey || '.expires') AS INTEGER) AS expires,
            CAST(json_extract(whole, fullkey || '.args') AS TEXT) AS args,
            CAST(json_extract(whole, fullkey || '.options') AS TEXT) AS options,
            CAST(json_extract(whole, fullkey || '.follow') AS TEXT) AS follow,
            CAST(json_extract(whole, fullkey || '.gates') AS TEXT) AS gates
        FROM (SELECT CASE WHEN json_valid(new.follow) THEN new.follow ELSE '[]' END AS whole), json_each(whole)
    )
    WHERE instr(causes, substr(new.state, 1, 1)) > 0;
    INSERT OR IGNORE INTO tags (tag, job)
    SELECT CAST(tag.value AS TEXT), jobs.id
    FROM json_each(CASE WHEN json_valid(new.follow) THEN new.follow ELSE '[]' END) AS one,
        json_each(new.follow, one.fullkey || '.tags') AS tag,
        jobs ON jobs.id = new.id || '.' || new.fence || substr(new.state, 1, 1) || '.' || one.key;
END;

CREATE TRIGGER job_started AFTER UPDATE OF state ON jobs WHEN new.brief AND new.state = 'running'
BEGIN
    DELETE FROM marks WHERE key = new.unique_key AND job = new.id AND until IS NULL;
END;

-- A fair job takes its turn when it comes to stand in line.
CREATE TRIGGER job_takes_turn AFTER INSERT ON jobs WHEN new.fair_key IS NOT NULL AND new.state IN ('waiting', 'ready')
BEGIN
    UPDATE jobs SET rank = max(
        coalesce((SELECT min(rank) FROM jobs AS other INDEXED BY first_turn
            WHERE other.fair_key IS NOT NULL AND other.state IN ('waiting', 'ready') AND other.queue = new.queue
                AND other.priority = new.priority AND other.id <> new.id), new.rank),
        coalesce((SELECT max(rank) + new.turn FROM jobs AS other INDEXED BY turns
            WHERE other.fair_key = new.fair_key AND other.state IN ('waiting', 'ready') AND other.queue = new.queue
                AND other.priority = new.priority AND other.id <> new.id), new.rank - abs(new.rank)))
    WHERE id = new.id;
END;

CREATE TRIGGER job_takes_turn_later AFTER UPDATE OF state ON jobs
    WHEN new.fair_key IS NOT NULL AND new.state = 'ready' AND old.state NOT IN ('waiting', 'ready', 'running')
BEGIN
    UPDATE jobs SET rank = max(
        coalesce((SELECT min(rank) FROM jobs AS other INDEXED BY first_turn
            WHERE other.fair_key IS NOT NULL AND other.state IN ('waiting', 'ready') AND other.queue = new.queue
                AND other.priority = new.priority AND other.id <> new.id), new.rank),
        coalesce((SELECT max(rank) + new.turn FROM jobs AS other INDEXED BY turns
            WHERE other.fair_key = new.fair_key AND other.state IN ('waiting', 'ready') AND other.queue = new.queue
                AND other.priority = new.priority AND other.id <> new.id), new.rank - abs(new.rank)))
    WHERE id = new.id;
END;

-- A job behind gates that would become ready waits instead.
CREATE TRIGGER job_waits AFTER UPDATE OF state ON jobs
    WHEN new.gates IS NOT NULL AND new.state = 'ready' AND old.state <> 'waiting'
BEGIN
    UPDATE jobs SET state = 'waiting' WHERE id = new.id;
    INSERT OR IGNORE INTO stirred (line, gates) VALUES (new.line, new.gates);
END;

CREATE TRIGGER job_came AFTER INSERT ON jobs WHEN new.gates IS NOT NULL AND new.state = 'waiting'
BEGIN
    INSERT OR IGNORE INTO stirred (line, gates) VALUES (new.line, new.gates);
END;

-- Whoever stops to run, or ends, leaves room at its gates, and maybe its place to the next of its line.
CREATE TRIGGER job_left AFTER UPDATE OF state ON jobs
    WHEN old.gates IS NOT NULL
        AND (old.state = 'running' AND new.state <> 'running' OR old.finished_at IS NULL AND new.finished_at IS NOT NULL
            OR old.state IN ('waiting', 'ready') AND new.state = 'scheduled')
BEGIN
    DELETE FROM holds WHERE job = new.id AND (NOT keep OR new.finished_at IS NOT NULL);
    INSERT INTO freed (gate, at, since)
    SELECT json_extract(whole, fullkey || '[0]'), 0, 0
    FROM (SELECT CASE WHEN json_valid(old.gates) THEN old.gates ELSE '[]' END AS whole), json_each(whole)
    WHERE json_type(whole, fullkey || '[0]') = 'text'
    ON CONFLICT (gate) DO UPDATE SET at = 0;
    INSERT OR IGNORE INTO stirred (line, gates) VALUES (old.line, old.gates);
END;

CREATE TRIGGER job_taken_away AFTER DELETE ON jobs WHEN old.gates IS NOT NULL AND old.finished_at IS NULL
BEGIN
    DELETE FROM holds WHERE job = old.id;
    INSERT INTO freed (gate, at, since)
    SELECT json_extract(whole, fullkey || '[0]'), 0, 0
    FROM (SELECT CASE WHEN json_valid(old.gates) THEN old.gates ELSE '[]' END AS whole), json_each(whole)
    WHERE json_type(whole, fullkey || '[0]') = 'text'
    ON CONFLICT (gate) DO UPDATE SET at = 0;
    INSERT OR IGNORE INTO stirred (line, gates) VALUES (old.line, old.gates);
END;

CREATE TRIGGER job_gone AFTER DELETE ON jobs
BEGIN
    DELETE FROM marks WHERE key = old.unique_key AND job = old.id AND until IS NULL;
    DELETE FROM attempts WHERE job = old.id;
    DELETE FROM tags WHERE job = old.id;
END;
