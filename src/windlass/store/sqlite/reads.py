"""What is only read: jobs for people, counts, workers. Runs on connections of its own, never behind a writer."""

import json
import sqlite3
import sys
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from windlass.model import (
    Attempt,
    Doc,
    Filter,
    JobRecord,
    Order,
    Orders,
    Page,
    RunnerInfo,
    Shelf,
    State,
    Verb,
    WorkerInfo,
)
from windlass.store.contract import BATCH, PENDING, SCHEDULE
from windlass.store.rows import MICRO, is_over, is_sparse, micros, of_lines, read_cursor, seconds, state_of
from windlass.store.sqlite.control import lags
from windlass.store.sqlite.gates import next_look
from windlass.store.sqlite.moves import SQL
from windlass.store.sqlite.rows import COLUMNS, bound, exact, fetch, one, read_attempt, read_job, sound

Connection = sqlite3.Connection

ORDERS = {
    State.WAITING: ("-rowid",),
    State.SCHEDULED: ("run_at", "id"),
    State.RUNNING: ("-started_at", "id"),
    State.SUCCEEDED: ("-finished_at", "id"),
    State.FAILED: ("-finished_at", "id"),
    State.CANCELLED: ("-finished_at", "id"),
}
"""How jobs of a state are listed: by an index that has them in that order anyway."""

SORTED = {"-finished_at": "finished_at DESC", "-started_at": "started_at DESC", "-rowid": "rowid DESC"}


def orders(db: Connection, now: int, worker: str, *, dead: bool) -> Orders:
    """What a beat answers to a worker that is registered; `dead`: another's lease is over."""
    rows = [row for row in fetch(db, SQL.orders, (worker,)) if sound(row[1])]
    due, plan = 0 if one(db, SQL.any_ready) else next_due(db, now), one(db, SQL.next_doc, (SCHEDULE, PENDING))
    return Orders(
        cancel=tuple(Order(runner=runner, id=id, fence=fence) for runner, id, fence in rows),
        due=None if due is None else max(0.0, (due - now) / MICRO),
        fire=None if plan is None else max(0.0, (plan - now) / MICRO),
        dead=dead,
        lift=lags(db, now),
    )


def next_due(db: Connection, now: int) -> int | None:
    """When there may be something to claim, where nothing is ready."""
    return min((at for at in (one(db, SQL.next_run), next_look(db, now)) if at is not None), default=None)


def get(db: Connection, ids: Sequence[str]) -> list[JobRecord]:
    """`Store.get`."""
    wanted = json.dumps(list(ids))
    rows = {row[0]: row for row in fetch(db, SQL.jobs_by_id.replace("{columns}", COLUMNS), (wanted,))}
    return complete(db, [rows[id] for id in ids if id in rows])


def holders(db: Connection, now: int, keys: Sequence[str]) -> dict[str, str]:
    """`Store.holders`."""
    return dict(fetch(db, SQL.holders, (json.dumps(list(keys)), now)))


def complete(db: Connection, rows: Sequence[Sequence[Any]]) -> list[JobRecord]:
    """Rows of COLUMNS as jobs, with their tags and attempts."""
    ids = json.dumps([row[0] for row in rows])
    tags: defaultdict[str, list[str]] = defaultdict(list)
    attempts: defaultdict[str, list[Attempt]] = defaultdict(list)
    for job, tag in fetch(db, SQL.tags_of, (ids,)):
        tags[job].append(tag)
    for row in fetch(db, SQL.attempts_of, (ids,)):
        attempts[row[0]].append(read_attempt(row))
    return [read_job(row, tuple(tags[row[0]]), tuple(attempts[row[0]])) for row in rows]


def where(filter: Filter) -> tuple[str, list[Any]]:
    """The condition of a filter, and its parameters."""
    terms = ["1"]
    parameters: list[Any] = []
    if filter.state is not None:
        terms.append(f"state = '{State(filter.state)}'")
        if filter.state.final:
            terms.append("finished_at IS NOT NULL")
    for column in ("task", "queue"):
        if (value := getattr(filter, column)) is not None:
            terms.append(f"{column} = ?")
            parameters.append(value)
    if filter.tag is not None:
        terms.append("id IN (SELECT job FROM tags WHERE tag = ?)")
        parameters.append(filter.tag)
    if filter.error is not None:
        terms.append("state = 'failed' AND finished_at IS NOT NULL AND error = ?")
        parameters.append(filter.error)
    if filter.ended_by is not None:
        terms.append("finished_at <= ?" if is_over(filter) else "(finished_at IS NULL OR finished_at <= ?)")
        parameters.append(micros(filter.ended_by))
    return " AND ".join(terms), parameters


def table(filter: Filter) -> str:
    """The table, by the index that has the jobs of one class of errors."""
    return "jobs" if filter.error is None else "jobs INDEXED BY errors"


def find(db: Connection, filter: Filter, limit: int, after: str | None, far: int | None) -> Page:
    """`Store.find`: one page by key, never by offset."""
    if filter.state is State.READY and filter.error is None:
        return find_ready(db, filter, limit, after)
    keys = keys_of(filter)
    edge = edge_of(db, filter, after, far) if far is not None and is_sparse(filter) else None
    condition, parameters = since(filter, after)
    if edge is not None:
        condition, parameters = f"{condition} AND {beside(keys[0], '<=')}", [*parameters, value_of(keys[0], edge)]
    order = ", ".join(SORTED.get(key, key) for key in keys)
    sql = f"SELECT {COLUMNS}, {', '.join(keys)} FROM {table(filter)} WHERE {condition} ORDER BY {order} LIMIT ?"  # noqa: S608
    rows = fetch(db, sql, [*parameters, limit + 1])
    more = len(rows) > limit
    rows = rows[:limit]
    width = len(keys)
    jobs = tuple(complete(db, [row[:-width] for row in rows]))
    if more or edge is None:
        return Page(jobs=jobs, after=json.dumps(rows[-1][-width:]) if more else None)
    if width == 1:
        return Page(jobs=jobs, after=json.dumps([edge]), back_to=seconds(one(db, SQL.moment, (-edge,))))
    return Page(jobs=jobs, after=json.dumps([edge + 1, ""]), back_to=-edge / MICRO if is_over(filter) else None)


def keys_of(filter: Filter) -> tuple[str, ...]:
    """What jobs that match are listed by."""
    return ORDERS.get(state_of(filter) or State.WAITING, ("-rowid",))


def since(filter: Filter, after: str | None) -> tuple[str, list[Any]]:
    """The condition of a filter for what comes after a cursor, and its parameters. Indexes find a place by the first
    key alone."""
    keys = keys_of(filter)
    condition, parameters = where(filter)
    if after is not None:
        cursor = read_cursor(after, *(str if key == "id" else int for key in keys))
        places = ", ".join("CAST(? AS TEXT)" if key == "id" else "?" for key in keys)
        condition += f" AND ({', '.join(keys)}) > ({places})"
        parameters += map(bound, cursor)
        if cursor[0] is not None:
            condition += f" AND {beside(keys[0], '>=')}"
            parameters.append(value_of(keys[0], cursor[0]))
    return condition, parameters


def beside(key: str, sign: str) -> str:
    """The condition that a key is on one side of a value, as an index sees it: it knows the columns."""
    return f"{key[1:]} {'>=' if sign == '<=' else '<='} ?" if key.startswith("-") else f"{key} {sign} ?"


def value_of(key: str, value: int) -> int:
    """The value of the column of a key."""
    return min(-value, sys.maxsize) if key.startswith("-") else value


def edge_of(db: Connection, filter: Filter, after: str | None, far: int) -> int | None:
    """Where looking for jobs ends if it ends after so many, by the first key of their order: of jobs of any queue, task
    and tag, so that an index has it. None where there are not so many."""
    condition, parameters = since(replace(filter, queue=None, task=None, tag=None), after)
    key = keys_of(filter)[0]
    sql = f"SELECT {key} FROM {table(filter)} WHERE {condition} ORDER BY {SORTED.get(key, key)} LIMIT 1 OFFSET ?"  # noqa: S608
    rows = fetch(db, sql, [*parameters, far])
    return rows[0][0] if rows else None


def find_ready(db: Connection, filter: Filter, limit: int, after: str | None) -> Page:
    """A page of ready jobs in the order of claiming: the lines that match, merged."""
    lines = [row[0] for row in fetch(db, SQL.lines)]
    cursor = [-sys.maxsize, -sys.maxsize, ""] if after is None else read_cursor(after, int, int, str)
    heads: list[tuple[int, int, str, int]] = []
    for line in lines:
        queue, _, task = line.partition("/")
        if filter.queue in (None, queue) and filter.task in (None, task.removesuffix("!")):
            place = map(bound, (line, *cursor))
            heads += fetch(db, SQL.heads_after, (*place, filter.tag, filter.tag, limit + 1))
    heads.sort()
    page = heads[:limit]
    wanted = json.dumps([head[3] for head in page])
    rows = {row[-1]: row[:-1] for row in fetch(db, SQL.jobs_by_rowid.replace("{columns}", COLUMNS), (wanted,))}
    jobs = complete(db, [rows[head[3]] for head in page])
    return Page(jobs=tuple(jobs), after=json.dumps(page[-1][:3]) if len(heads) > limit else None)


def count(db: Connection, filter: Filter, most: int | None) -> int:
    """`Store.count`."""
    condition, parameters = where(filter)
    if (lines := of_lines(filter)) is not None:  # an index has the line, and not what it is made of
        condition, parameters = where(replace(filter, queue=None, task=None))
        states = "" if filter.state is State.READY else "state IN ('waiting', 'scheduled') AND "
        condition = f"{states}{condition} AND {lines[0].replace('{text}', '?')}"
        parameters = [*parameters, *lines[1]]
    sql = f"SELECT count(*) FROM (SELECT 1 FROM {table(filter)} WHERE {condition} LIMIT ?)"  # noqa: S608 - no user text
    return int(one(db, sql, [*parameters, -1 if most is None else most + 1]))


def targets(db: Connection, filter: Filter, verb: Verb, limit: int) -> list[str]:
    """Ids of jobs that match and that `verb` fits."""
    fits = {
        Verb.CANCEL: "finished_at IS NULL AND NOT cancelling",
        Verb.RETRY: f"(finished_at IS NOT NULL OR state = 'scheduled') AND NOT EXISTS ({SQL.held_by_another})",
        Verb.DELETE: "state <> 'running'",
    }[verb]
    condition, parameters = where(filter)
    sql = f"SELECT id FROM {table(filter)} WHERE {condition} AND {fits} LIMIT ?"  # noqa: S608 - no user text
    return [row[0] for row in exact(db, sql, [*parameters, limit])]


def workers(db: Connection, ages_of: Callable[[Sequence[str]], Mapping[str, float]]) -> list[WorkerInfo]:
    """`Store.workers`; `ages_of` tells since when workers have not renewed their leases."""
    ages = ages_of([row[0] for row in fetch(db, SQL.leases)])
    runners: defaultdict[str, list[RunnerInfo]] = defaultdict(list)
    for id, worker, pid, tasks, joined_at, running in fetch(db, SQL.runners):
        runners[worker].append(
            RunnerInfo(
                id=id,
                worker=worker,
                pid=pid,
                tasks=tuple(json.loads(tasks)),
                joined_at=joined_at / MICRO,
                running=running,
            )
        )
    return [
        WorkerInfo(
            id=id,
            host=host,
            pid=pid,
            version=version,
            lease=lease,
            queues=queues,
            concurrency=concurrency,
            started_at=started_at / MICRO,
            beat_age=ages.get(id, 0.0),
            runners=tuple(runners[id]),
        )
        for id, host, pid, version, lease, queues, concurrency, started_at in fetch(db, SQL.workers)
    ]


def load(db: Connection, now: int, kind: str, names: Collection[str] | None, due: float | None, after: str) -> Shelf:
    """`Store.load`."""
    if due is not None:
        rows = fetch(db, SQL.docs_due, (kind, now + micros(due), BATCH))
    elif names is not None:
        rows = fetch(db, SQL.docs_named, (kind, json.dumps(list(names)), BATCH))
    else:
        rows = fetch(db, SQL.docs, (kind, after, BATCH))
    docs = (
        Doc(kind=kind, name=name, version=version, body=body, due=seconds(at)) for kind, name, version, body, at in rows
    )
    return Shelf(now=now / MICRO, docs=tuple(docs))
