"""What is only read, for people and programs: pages, counts, workers."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from windlass.clock import made_at
from windlass.model import Filter, JobRecord, Page, RunnerInfo, State, Verb, WorkerInfo
from windlass.store.postgres.rows import COLUMNS, WIDTH, read_job
from windlass.store.postgres.statements import SQL, Call, earliest, filled
from windlass.store.rows import MICRO, is_over, is_sparse, micros, of_lines, read_cursor, state_of

NEWEST = (("id", "DESC"),)
ORDERS = {
    State.SCHEDULED: (("run_at", ""), ("id", "")),
    State.RUNNING: (("started_at", "DESC"), ("id", "DESC")),
    State.SUCCEEDED: (("finished_at", "DESC"), ("id", "")),
    State.FAILED: (("finished_at", "DESC"), ("id", "")),
    State.CANCELLED: (("finished_at", "DESC"), ("id", "")),
}
"""How jobs of a state are listed: as an index, or few rows, have them."""


IDLE = "AND state IN ('waiting', 'scheduled') ORDER BY state, line, rank"
IN_LINE: Mapping[State | None, str] = {
    State.READY: "ORDER BY line, priority DESC, rank, id",
    State.WAITING: IDLE,
    State.SCHEDULED: IDLE,
}
"""How the indexes by line have the jobs of a state."""


def fill(sql: str, schema: str, **parts: str) -> str:
    """A statement with its parts."""
    for name, part in {**parts, "schema": schema, "columns": COLUMNS}.items():
        sql = sql.replace(f"{{{name}}}", part)
    return sql


def get_live(schema: str, ids: Sequence[str]) -> Call:
    """The live ones of these jobs."""
    return Call(fill(SQL.live_by_id, schema), (list(ids),))


def get_over(schema: str, ids: Sequence[str]) -> Call:
    """Those of these jobs that are over."""
    return Call(fill(SQL.over_by_id, schema, since=str(earliest(ids))), (list(ids),))


def where(filter: Filter) -> tuple[str, list[Any]]:
    """The condition of a filter, and its parameters."""
    terms, parameters = ["true"], list[Any]()
    if filter.state is not None:
        terms.append(f"state = '{State(filter.state)}'")
    for column in ("task", "queue"):
        if (value := getattr(filter, column)) is not None:
            terms.append(f"{column} = %s")
            parameters.append(value)
    if filter.tag is not None:
        terms.append("tags @> ARRAY[%s]")
        parameters.append(filter.tag)
    if filter.error is not None:
        terms.append("""state = 'failed' AND {schema}.error_of(attempts) COLLATE "C" = %s""")
        parameters.append(filter.error)
    if filter.ended_by is not None:
        terms.append("finished_at <= %s" if is_over(filter) else "(finished_at IS NULL OR finished_at <= %s)")
        parameters.append(micros(filter.ended_by))
    return " AND ".join(terms), parameters


def tables(filter: Filter) -> tuple[str, ...]:
    """Where jobs that match can be."""
    if is_over(filter):
        return ("history",)
    return ("live", "history") if filter.state is None else ("live",)


def order_of(filter: Filter) -> tuple[tuple[str, str], ...]:
    """The keys by which jobs that match are listed, and which way."""
    return ORDERS.get(state_of(filter) or State.WAITING, NEWEST)


def listed(schema: str, filter: Filter, limit: int, after: str | None, edge: Any = None) -> list[Call]:
    """The statements whose rows, merged, are a page and one row more: down to `edge`, if there is one."""
    if filter.state is State.READY and filter.error is None:
        return [listed_ready(schema, filter, limit, after)]
    order = order_of(filter)
    condition, parameters = since(filter, after)
    if edge is not None:
        condition = f"{condition} AND {order[0][0]} {'>=' if order[0][1] else '<='} %s"
        parameters = [*parameters, edge]
    parts = {
        "keys": ", ".join(name for name, _ in order),
        "order": ", ".join(f"{name} {way}" for name, way in order),
        "condition": condition,
    }
    return [Call(fill(SQL.listed, schema, table=table, **parts), (*parameters, limit + 1)) for table in tables(filter)]


def since(filter: Filter, after: str | None) -> tuple[str, list[Any]]:
    """The condition of a filter for what comes after a cursor, and its parameters."""
    order = order_of(filter)
    condition, parameters = where(filter)
    if after is None:
        return condition, parameters
    more, cursor = beyond(order, cursor_of(after, *(str if name == "id" else int for name, _ in order)))
    return f"{condition} AND {more}", [*parameters, *cursor]


def edges(schema: str, filter: Filter, after: str | None, far: int | None) -> list[Call]:
    """The statements that tell where looking for jobs ends if it ends after so many, by the first key of their order:
    of those of any queue, task and tag, so that an index has it."""
    if far is None or not is_sparse(filter):
        return []
    condition, parameters = since(replace(filter, queue=None, task=None, tag=None), after)
    key, way = order_of(filter)[0]
    parts = {"key": key, "order": f"{key} {way}", "condition": condition}
    return [Call(fill(SQL.edge, schema, table=table, **parts), (*parameters, far)) for table in tables(filter)]


def first_of(filter: Filter, ends: Sequence[Any]) -> Any:
    """The end that is reached first; None for none."""
    return (max if order_of(filter)[0][1] else min)(ends, default=None)


def cursor_of(after: str, *kinds: type) -> list[Any]:
    """The values of a cursor, in texts that the database takes. Raises `ConfigError`."""
    values = read_cursor(after, *kinds)
    return [value.encode("utf-8", "replace").decode() if isinstance(value, str) else value for value in values]


def beyond(order: Sequence[tuple[str, str]], cursor: Sequence[Any]) -> tuple[str, list[Any]]:
    """The condition for rows after `cursor` in an order of one or two keys."""
    signs = [">" if not way else "<" for _, way in order]
    if len(order) == 1:
        return f"{order[0][0]} {signs[0]} %s", list(cursor)
    (first, _), (second, _) = order
    inner = f"({first} {signs[0]}= %s AND ({first} {signs[0]} %s OR {second} {signs[1]} %s))"
    return inner, [cursor[0], cursor[0], cursor[1]]


def listed_ready(schema: str, filter: Filter, limit: int, after: str | None) -> Call:
    """Ready jobs in the order of claiming."""
    condition, parameters = where(filter)
    if after is not None:
        condition += " AND (-priority, rank, id) > (%s, %s, %s)"
        parameters += cursor_of(after, int, int, str)
    return Call(fill(SQL.listed_ready, schema, condition=condition), (*parameters, limit + 1, limit + 1))


def read_page(filter: Filter, limit: int, rows: list[Sequence[Any]], edge: Any = None) -> Page:
    """A page out of the rows of `listed`, which end at `edge`."""
    if len(tables(filter)) > 1:
        rows.sort(key=lambda row: str(row[0]), reverse=True)
    more = len(rows) > limit
    rows = rows[:limit]
    jobs = tuple(read_job(row) for row in rows)
    if more or edge is None:
        return Page(jobs=jobs, after=json.dumps(list(rows[-1][WIDTH:])) if more else None)
    order = order_of(filter)
    if len(order) == 1:
        return Page(jobs=jobs, after=json.dumps([edge]), back_to=made_at(edge) or None)
    beyond_all = [edge - 1 if order[0][1] else edge + 1, ""]  # all of that microsecond were looked at
    return Page(jobs=jobs, after=json.dumps(beyond_all), back_to=edge / MICRO if is_over(filter) else None)


def counted(schema: str, filter: Filter, most: int | None) -> list[Call]:
    """The statements that count jobs that match, each up to a bound. In an order that an index has: else the planner,
    who takes them to be everywhere in the table, walks it from its beginning."""
    condition, parameters = where(filter)
    if (lines := of_lines(filter)) is not None:  # an index has the line, and not what it is made of
        condition, parameters = where(replace(filter, queue=None, task=None))
        condition = f"{condition} AND {lines[0].replace('{text}', '%s')}"
        parameters = [*parameters, *lines[1]]
    if filter.state in IN_LINE and filter.tag is None and most is not None:
        condition = f"{condition} {IN_LINE[filter.state]}"
    bound = None if most is None else most + 1
    return [
        Call(fill(SQL.counted, schema, table=table, condition=condition), (*parameters, bound))
        for table in tables(filter)
    ]


def targets(schema: str, filter: Filter, verb: Verb, limit: int) -> list[Call]:
    """The statements that find jobs that match and that `verb` fits."""
    fits = {
        Verb.CANCEL: {"live": "NOT cancelling"},
        Verb.RETRY: {
            "live": "state = 'scheduled'",
            "history": f"NOT EXISTS ({filled(SQL.held_by_another, schema)})",
        },
        Verb.DELETE: {"live": "state <> 'running'", "history": "true"},
    }[verb]
    condition, parameters = where(filter)
    return [
        Call(fill(SQL.targets, schema, table=table, condition=f"{condition} AND {fits[table]}"), (*parameters, limit))
        for table in tables(filter)
        if table in fits
    ]


def read_workers(workers: Sequence[Sequence[Any]], runners: Sequence[Sequence[Any]]) -> list[WorkerInfo]:
    """Rows of `workers` and `runners`."""
    of: defaultdict[str, list[RunnerInfo]] = defaultdict(list)
    for id, worker, pid, tasks, joined_at, running in runners:
        info = RunnerInfo(
            id=id, worker=worker, pid=pid, tasks=tuple(tasks), joined_at=joined_at / MICRO, running=running
        )
        of[worker].append(info)
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
            beat_age=age / MICRO,
            runners=tuple(of[id]),
        )
        for id, host, pid, version, lease, queues, concurrency, started_at, age in workers
    ]


def in_order(ids: Sequence[str], found: Sequence[JobRecord]) -> list[JobRecord]:
    """Jobs in the order asked for."""
    by_id = {job.id: job for job in found}
    return [by_id[id] for id in ids if id in by_id]
