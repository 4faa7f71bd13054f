-- Statistics. {columns}, {marks}, {added} and {sums} are filled in by windlass/store/tallies.py.

-- name: lines
SELECT queue, task FROM tallies WHERE span = ? AND at = ?;

-- name: add
INSERT INTO tallies (span, at, queue, task, {columns}) VALUES (?, ?, ?, ?, {marks})
ON CONFLICT (span, at, queue, task) DO UPDATE SET {added};

-- name: series
SELECT at * 60 / ?1 * ?1 / 60, queue, task, {sums} FROM tallies
WHERE span = ?2 AND at >= ?3 AND at < ?4 AND (?5 IS NULL OR queue = ?5) GROUP BY 1, 2, 3 ORDER BY 1, 2, 3;

-- name: queues
SELECT queue FROM depths WHERE span = ? AND at = ?;

-- name: deepen
INSERT INTO depths (span, at, queue, ready, waiting, scheduled, running, oldest) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (span, at, queue) DO UPDATE SET
    ready = max(ready, excluded.ready), waiting = max(waiting, excluded.waiting),
    scheduled = max(scheduled, excluded.scheduled), running = max(running, excluded.running),
    oldest = max(oldest, excluded.oldest);

-- name: depths
SELECT at * 60 / ?1 * ?1 / 60, queue, max(ready), max(waiting), max(scheduled), max(running), max(oldest) FROM depths
WHERE span = ?2 AND at >= ?3 AND at < ?4 AND (?5 IS NULL OR queue = ?5) GROUP BY 1, 2 ORDER BY 1, 2;

-- name: prune_tallies
DELETE FROM tallies WHERE (span, at, queue, task) IN (
    SELECT span, at, queue, task FROM tallies WHERE span = ?1 AND at < ?2 ORDER BY at LIMIT ?3
);

-- name: prune_depths
DELETE FROM depths WHERE (span, at, queue) IN (
    SELECT span, at, queue FROM depths WHERE span = ?1 AND at < ?2 ORDER BY at LIMIT ?3
);
