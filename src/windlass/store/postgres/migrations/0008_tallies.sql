-- What happened by queue and task, each in its minute and in its hour: see windlass/store/tallies.py.
CREATE TABLE tallies (
    span  integer NOT NULL,                 -- seconds of which the row tells: 60 or 3600
    at    bigint NOT NULL,                  -- the minute of the epoch with which they begin
    queue text COLLATE "C" NOT NULL,
    task  text COLLATE "C" NOT NULL,
    started bigint NOT NULL, succeeded bigint NOT NULL, failed bigint NOT NULL,
    cancelled bigint NOT NULL, retried bigint NOT NULL, lost bigint NOT NULL,
    waited double precision NOT NULL, ran double precision NOT NULL, -- seconds, summed up
    -- The same by bucket (windlass.model.BUCKETS).
    w0 bigint NOT NULL, w1 bigint NOT NULL, w2 bigint NOT NULL, w3 bigint NOT NULL, w4 bigint NOT NULL,
    w5 bigint NOT NULL, w6 bigint NOT NULL, w7 bigint NOT NULL, w8 bigint NOT NULL, w9 bigint NOT NULL,
    w10 bigint NOT NULL, w11 bigint NOT NULL, w12 bigint NOT NULL, w13 bigint NOT NULL,
    r0 bigint NOT NULL, r1 bigint NOT NULL, r2 bigint NOT NULL, r3 bigint NOT NULL, r4 bigint NOT NULL,
    r5 bigint NOT NULL, r6 bigint NOT NULL, r7 bigint NOT NULL, r8 bigint NOT NULL, r9 bigint NOT NULL,
    r10 bigint NOT NULL, r11 bigint NOT NULL, r12 bigint NOT NULL, r13 bigint NOT NULL,
    PRIMARY KEY (span, at, queue, task)
) WITH (fillfactor = 50);

-- How deep queues were, at most.
CREATE TABLE depths (
    span      integer NOT NULL,
    at        bigint NOT NULL,
    queue     text COLLATE "C" NOT NULL,
    ready     bigint NOT NULL,
    waiting   bigint NOT NULL,
    scheduled bigint NOT NULL,
    running   bigint NOT NULL,
    oldest    double precision NOT NULL,    -- seconds
    PRIMARY KEY (span, at, queue)
) WITH (fillfactor = 50);
