"""The store's calls as data: one SQL statement each with its parameters, and a reader of its rows.

Whoever has a connection can run them: the store's own, or the user's, inside his transaction.
"""

import base64
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec
from msgspec import UNSET, Struct

from windlass.clock import made_at
from windlass.errors import UniquePending
from windlass.gate import write_needs
from windlass.model import (
    TURN,
    Attempt,
    Claim,
    Clash,
    Demand,
    Doc,
    Ending,
    Exchanged,
    Fair,
    Mark,
    Need,
    NewJob,
    Outcome,
    Past,
    Placed,
    Rest,
    Shelf,
    State,
)
from windlass.place import Change, Place
from windlass.store.contract import BATCH, Topic
from windlass.store.postgres.literals import numbers, optional_texts, row, texts
from windlass.store.queries import load_queries
from windlass.store.rows import MICRO, claimed_at, micros, seconds, write_end

SQL = load_queries("windlass.store.postgres", "queries.sql")
DAY = 86_400 * MICRO
COMMIT_WITHIN = 15.0
"""Seconds that the server waits for the commit of a transaction that settled its job; then it rolls back. As long as a
lease: whoever takes longer is taken for dead."""

STATES: Mapping[str | None, State | None] = {str(state): state for state in State} | {None: None}


class Call(Struct, frozen=True):
    """One statement with positional `%s` parameters."""

    sql: str
    params: tuple[Any, ...]


class PutCall(Call, frozen=True):
    """A put. `shapes`: which of the jobs' shapes each has, from 1; None if they all have one."""

    shapes: list[int] | None
    fresh: bool


class PutAnswer(Struct, frozen=True):
    """What a put did, and whether an idle worker should hear of it."""

    placed: list[Placed]
    ring: bool


@lru_cache(maxsize=256)
def filled(sql: str, schema: str) -> str:
    """A statement for the tables of `schema` (quoted)."""
    return sql.replace("{schema}", schema)


def earliest(ids: Sequence[str]) -> int:
    """A day (in microseconds) before which no job of these ids can have ended, as far as their UUIDv7 tell."""
    first = micros(min((made_at(id) for id in ids), default=0.0))
    return max(0, (first - DAY) // DAY * DAY)


# Put


def put_call(
    schema: str,
    jobs: Sequence[NewJob],
    marks: Sequence[Mark] = (),
    docs: Sequence[Doc] = (),
    *,
    in_tx: bool = False,
    again: bool = False,
) -> PutCall:
    """`Store.put`. `in_tx`: inside somebody else's transaction; `again`: it may have been done before."""
    known, shapes = shapes_of(jobs)
    ids = [job.id for job in jobs]
    fresh = not again and all(job.fresh for job in jobs)
    keys = [job.unique for job in jobs]
    if len(jobs) == 1 and fresh and not (in_tx or keys[0] or marks or docs or jobs[0].past):
        return PutCall(filled(SQL.put_one, schema), (ids[0], jobs[0].args.decode(), as_row(*known[0])), None, fresh)
    params = (
        texts(ids),
        texts([job.args.decode() for job in jobs]),
        None if shapes is None else numbers(shapes),
        optional_texts(keys) if any(keys) else None,
        fresh,
        0 if fresh else earliest(ids),
        texts([as_row(*shape) for shape in known]),
        to_json([{"key": mark.key, "job": mark.job, "ttl": micros(mark.ttl)} for mark in marks]) if marks else None,
        docs_json(docs) if docs else None,
        in_tx,
    )
    return PutCall(filled(SQL.put, schema), params, shapes, fresh)


def shapes_of(jobs: Sequence[NewJob]) -> tuple[list[tuple[Any, ...]], list[int] | None]:
    """What jobs have in common, and which of those each has, from 1: None if there are not two."""
    known: dict[tuple[Any, ...], int] = {}
    found: list[int] = []
    last: tuple[Any, ...] | None = None
    number = 0
    for job in jobs:
        shape = (
            job.queue,
            job.task,
            job.priority,
            job.delay,
            job.run_at,
            job.expires_in,
            job.options,
            job.tags,
            job.follow,
            job.past,
            job.gates,
            job.ahead,
            job.fair,
            None if job.unique is None else (job.unique_for, job.clash, job.max_wait),
        )
        if shape != last:
            number, last = known.setdefault(shape, len(known) + 1), shape
        found.append(number)
    return list(known), found if len(known) > 1 else None


@lru_cache(maxsize=256)
def as_row(
    queue: str,
    task: str,
    priority: int,
    delay: float,
    run_at: float | None,
    expires_in: float | None,
    options: bytes | None,
    tags: tuple[str, ...],
    follow: bytes | None,
    past: Past | None,
    gates: tuple[Need, ...],
    ahead: float,
    fair: Fair | None,
    held: tuple[float | None, Clash, float | None] | None,
) -> str:
    """A shape as the database's type of that name; it fills in the last three fields."""
    return row(
        (
            queue,
            task,
            priority,
            None if run_at is not None or delay <= 0 else micros(delay),
            None if run_at is None else micros(run_at),
            None if expires_in is None else micros(expires_in),
            None if options is None else options.decode(),
            texts(sorted(set(tags))) if tags else None,
            None if follow is None else follow.decode(),
            *((None,) * 6 if past is None else as_fields(past)),
            write_needs(gates),
            micros(ahead),
            *((None, None, 0) if fair is None else (to_json(fair), fair.key, max(1, round(TURN / fair.weight)))),
            *((None,) * 3 if held is None else as_held(*held)),
            None,
            None,
            None,
        )
    )


def as_held(unique_for: float | None, clash: Clash, max_wait: float | None) -> tuple[str | int | None, ...]:
    """For how long a job holds its unique key, and what becomes of another holder, as fields of its shape."""
    return (
        None if unique_for is None else micros(unique_for),
        None if clash is Clash.KEEP else clash,
        None if max_wait is None else micros(max_wait),
    )


def as_fields(past: Past) -> tuple[str | int | None, ...]:
    """What a job brings along, as fields of its shape."""
    attempts = texts([as_attempt(one) for one in past.attempts])
    return past.attempt, past.lost, past.fence, attempts, micros(past.enqueued_at), claimed_at(past)


def as_attempt(attempt: Attempt) -> str:
    """An attempt as `live.attempts` keeps it."""
    began = None if attempt.started_at is None else micros(attempt.started_at)
    fields = (attempt.fence, attempt.attempt, attempt.ending, attempt.runner, began, micros(attempt.ended_at))
    end = write_end(attempt)
    return to_json([*fields, None if end is None else msgspec.Raw(end.encode())])


def load_call(schema: str, kind: str, names: Collection[str] | None, due: float | None, after: str) -> Call:
    """`Store.load`."""
    if due is not None:
        return Call(filled(SQL.docs_due, schema), (kind, micros(due), BATCH))
    if names is not None:
        return Call(filled(SQL.docs_named, schema), (kind, list(names), BATCH))
    return Call(filled(SQL.docs, schema), (kind, after, BATCH))


def read_load(kind: str, rows: Sequence[Sequence[Any]]) -> Shelf:
    """The answer to `load_call`: the time, and a document if there is one, in each row."""
    docs = (
        Doc(kind=kind, name=name, version=version, body=bytes(body), due=seconds(due))
        for _, name, version, body, due in rows
        if name is not None
    )
    return Shelf(now=rows[0][0] / MICRO, docs=tuple(docs))


def save_call(schema: str, docs: Sequence[Doc], drop: Collection[tuple[str, str]], *, in_tx: bool = False) -> Call:
    """`Store.save`."""
    dropped = to_json([{"kind": kind, "name": name} for kind, name in drop])
    return Call(filled(SQL.save, schema), (docs_json(docs), dropped, in_tx))


def docs_json(docs: Sequence[Doc]) -> str:
    """Documents as `save_docs` takes them."""
    return to_json(
        [
            {
                "kind": doc.kind,
                "name": doc.name,
                "version": doc.version,
                "body": base64.b64encode(doc.body).decode(),
                "due": None if doc.due is None else micros(doc.due),
                "gone": doc.gone,
            }
            for doc in docs
        ]
    )


def read_put(rows: Sequence[Sequence[Any]], jobs: Sequence[NewJob], call: PutCall) -> PutAnswer:
    """The row of a put. Raises `UniquePending`."""
    states, at, holders, held, pending, ring = rows[0]
    if pending:
        raise UniquePending(
            "another open transaction has one of the unique keys, and whether it stays is not known yet; nothing was "
            "written. Try again when that transaction is over"
        )
    of_shape = [STATES[state] for state in states]
    if call.shapes is None:
        state = of_shape[0] if jobs else None
        placed = [Placed(id=job.id, state=state, new=True) for job in jobs]
    else:
        pairs = zip(jobs, call.shapes, strict=True)
        placed = [Placed(id=job.id, state=of_shape[number - 1], new=True) for job, number in pairs]
    for position, holder, instead in zip(at, holders, held, strict=True):
        placed[position - 1] = Placed(id=holder, state=STATES[instead], new=False)
    return PutAnswer(placed, ring)


# Exchange and settle


def exchange_call(schema: str, runner: str, seq: int, outcomes: Sequence[Outcome], demand: Demand) -> Call:
    """`Store.exchange`."""
    plain, others = split(outcomes)
    names, serves = served(tuple((lane.slots > 0, lane.tasks, lane.suspects) for lane in demand.lanes))
    quotas = demand.quotas
    return Call(
        filled(SQL.exchange, schema),
        (
            runner,
            seq,
            *(successes(plain) if plain else (None,) * 5),
            outcomes_json(others) if others else None,
            min(demand.slots, 1000),
            names,
            serves,
            numbers([lane.slots for lane in demand.lanes]),
            None if quotas is None else texts([quota.queue for quota in quotas]),
            None if quotas is None else numbers([quota.share for quota in quotas]),
        ),
    )


def split(outcomes: Sequence[Outcome]) -> tuple[list[Outcome], list[Outcome]]:
    """Plain successes, and the rest; all in the rest where two are of one job, because then their order counts."""
    if len({outcome.id for outcome in outcomes}) < len(outcomes):
        return [], list(outcomes)
    plain = [outcome for outcome in outcomes if outcome.ending is Ending.SUCCEEDED]
    return plain, [outcome for outcome in outcomes if outcome.ending is not Ending.SUCCEEDED]


def successes(plain: Sequence[Outcome]) -> tuple[str, ...]:
    """Plain successes as the arrays of `succeed`."""
    return (
        texts([outcome.id for outcome in plain]),
        numbers([outcome.fence for outcome in plain]),
        numbers([outcome.seq for outcome in plain]),
        numbers([outcome.attempt for outcome in plain]),
        optional_texts([None if outcome.result is None else outcome.result.decode() for outcome in plain]),
    )


@lru_cache(maxsize=64)
def served(lanes: tuple[tuple[bool, frozenset[str], frozenset[str]], ...]) -> tuple[str, str]:
    """The names of tasks (with ! for suspects) and the number of the first lane with free slots that takes each."""
    found: dict[str, int] = {}
    for number, (free, tasks, suspects) in enumerate(lanes, 1):
        for name in (*tasks, *(f"{task}!" for task in suspects)) if free else ():
            found.setdefault(name, number)
    return texts(list(found)), numbers(found.values())


def outcomes_json(outcomes: Sequence[Outcome]) -> str:
    """Outcomes as `settle_each` takes them."""
    return to_json(
        [
            {
                "id": outcome.id,
                "fence": outcome.fence,
                "seq": outcome.seq,
                "ending": outcome.ending,
                "state": outcome.ending.state,
                "attempt": outcome.attempt,
                "lost": outcome.lost,
                "delay": micros(outcome.delay),
                "result": None if outcome.result is None else outcome.result.decode(),
                "failure": write_end(outcome),
                "reason": outcome.reason,
            }
            for outcome in outcomes
        ]
    )


def read_exchange(rows: Sequence[Sequence[Any]]) -> tuple[Exchanged, list[Topic]]:
    """The rows of an exchange, and what others may wait for: that a job came to its end, or became ready."""
    refused, finished, next_run, more, opened, *_ = rows[0]
    rings: list[Topic] = ["done"] if finished else []
    if opened:
        rings.append("work")
    next_due = None if next_run is None else next_run / MICRO
    claims = tuple([read_claim(row) for row in rows[1:]])
    return Exchanged(refused=tuple(refused), claimed=claims, next_due=0.0 if more else next_due), rings


def rest_columns(rests: Sequence[Rest]) -> tuple[list[str], list[int], list[int], list[str]]:
    """Jobs that wait, or wait no more: ids, fences, numbers of exchanges, gates."""
    return (
        [one.id for one in rests],
        [one.fence for one in rests],
        [one.seq for one in rests],
        [",".join(one.gates) for one in rests],
    )


def read_claim(row: Sequence[Any]) -> Claim:
    """A claim in the rows of an exchange."""
    return Claim(
        id=row[5],
        fence=row[6],
        seq=row[7],
        task=row[8],
        queue=row[9],
        args=row[10].encode(),
        options=None if row[11] is None else row[11].encode(),
        priority=row[12],
        attempt=row[13],
        lost=row[14],
        enqueued_at=row[15] / MICRO,
        run_at=row[16] / MICRO,
    )


def channel(schema: str, topic: str) -> str:
    """The name under which hints of a topic are sent; `schema` unquoted."""
    return f"windlass {schema} {topic}"


def settle_call(schema: str, runner: str, outcome: Outcome) -> Call:
    """`Store.settle`."""
    return Call(filled(SQL.settle, schema), (runner, outcomes_json([outcome])))


def settle_first_call(schema: str, runner: str, outcome: Outcome) -> Call:
    """The same for an outcome that was not applied before."""
    held = (outcome.id, outcome.fence, outcome.seq, runner)
    return Call(
        filled(SQL.settle_first, schema), (*held, runner, outcomes_json([outcome]), f"{COMMIT_WITHIN * 1000:g}")
    )


def read_settle(rows: Sequence[Sequence[Any]]) -> bool:
    """Whether the outcome stands."""
    return bool(rows) and not rows[0][0]


def to_json(value: Any) -> str:
    """A value as JSON text."""
    return msgspec.json.encode(value).decode()


def changed(changes: Sequence[Change]) -> str:
    """Changes of jobs, for `amend`."""
    return to_json([{"id": one.id, "was": standing(one.was), "now": standing(one.now)} for one in changes])


def standing(place: Place) -> dict[str, Any]:
    """Where a job stands, as columns."""
    return {
        "queue": place.queue,
        "priority": place.priority,
        "ahead": micros(place.ahead),
        "gates": write_needs(place.gates),
        "kept": place.options is UNSET,
        "options": place.options.decode() if isinstance(place.options, bytes) else None,
    }
