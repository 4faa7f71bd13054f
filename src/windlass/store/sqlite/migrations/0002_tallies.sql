-- What happened by queue and task, each in its minute and in its hour: see windlass/store/tallies.py.
CREATE TABLE tallies (
    span  INTEGER NOT NULL,                 -- seconds of which the row tells: 60 or 3600
    at    INTEGER NOT NULL,                 -- the minute of the epoch with which they begin
    queue TEXT NOT NULL,
    task  TEXT NOT NULL,
    started INTEGER NOT NULL, succeeded INTEGER NOT NULL, failed INTEGER NOT NULL,
    cancelled INTEGER NOT NULL, retried INTEGER NOT NULL, lost INTEGER NOT NULL,
    waited REAL NOT NULL, ran REAL NOT NULL,    -- seconds, summed up
    -- The same by bucket (windlass.model.BUCKETS).
    w0 INTEGER NOT NULL, w1 INTEGER NOT NULL, w2 INTEGER NOT NULL, w3 INTEGER NOT NULL, w4 INTEGER NOT NULL,
    w5 INTEGER NOT NULL, w6 INTEGER NOT NULL, w7 INTEGER NOT NULL, w8 INTEGER NOT NULL, w9 INTEGER NOT NULL,
    w10 INTEGER NOT NULL, w11 INTEGER NOT NULL, w12 INTEGER NOT NULL, w13 INTEGER NOT NULL,
    r0 INTEGER NOT NULL, r1 INTEGER NOT NULL, r2 INTEGER NOT NULL, r3 INTEGER NOT NULL, r4 INTEGER NOT NULL,
    r5 INTEGER NOT NULL, r6 INTEGER NOT NULL, r7 INTEGER NOT NULL, r8 INTEGER NOT NULL, r9 INTEGER NOT NULL,
    r10 INTEGER NOT NULL, r11 INTEGER NOT NULL, r12 INTEGER NOT NULL, r13 INTEGER NOT NULL,
    PRIMARY KEY (span, at, queue, task)
) STRICT, WITHOUT ROWID;

-- How deep queues were, at most.
CREATE TABLE depths (
    span      INTEGER NOT NULL,
    at        INTEGER NOT NULL,
    queue     TEXT NOT NULL,
    ready     INTEGER NOT NULL,
    waiting   INTEGER NOT NULL,
    scheduled INTEGER NOT NULL,
    running   INTEGER NOT NULL,
    oldest    REAL NOT NULL,                -- seconds
    PRIMARY KEY (span, at, queue)
) STRICT, WITHOUT ROWID;
