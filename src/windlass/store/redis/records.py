"""Jobs as the scripts keep them, as values, and values as arguments of scripts. See lua/keys.lua for the layout."""

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct, msgpack

from windlass.gate import read_needs, write_needs
from windlass.model import (
    TURN,
    Attempt,
    Claim,
    Clash,
    Demand,
    Doc,
    Ending,
    Fair,
    Filter,
    Held,
    JobRecord,
    NewJob,
    Outcome,
    Past,
    Patch,
    Rest,
    RunnerInfo,
    Shelf,
    State,
    WorkerInfo,
)
from windlass.store.rows import MICRO, claimed_at, micros, read_end, read_news, seconds, write_end, write_news

LETTERS = {
    State.WAITING: "w",
    State.SCHEDULED: "d",
    State.READY: "q",
    State.RUNNING: "r",
    State.SUCCEEDED: "s",
    State.FAILED: "f",
    State.CANCELLED: "c",
}
STATES = {letter: state for state, letter in LETTERS.items()}

_encode = msgpack.Encoder().encode


def text(data: bytes) -> str:
    """A name; what is no UTF-8 in it, as somebody else wrote it, comes as halves of surrogate pairs."""
    return data.decode("utf-8", "surrogateescape")


def raw(name: str) -> bytes:
    """The way back."""
    return name.encode("utf-8", "surrogateescape")


def encode(value: Any) -> bytes:
    """A value as the scripts read it; texts are what `text` gave."""
    try:
        return _encode(value)
    except UnicodeEncodeError:
        return _encode(_as_raw(value))


def _as_raw(value: Any) -> Any:
    if isinstance(value, str):
        data = raw(value)
        return msgspec.Raw(b"\xdb" + len(data).to_bytes(4, "big") + data)
    return [_as_raw(one) for one in value] if isinstance(value, list | tuple) else value


class Cold(Struct, array_like=True, gc=False):
    """What was put."""

    flags: int
    enqueued: int
    run_at: int
    rank: int
    expires: int | None
    priority: int
    line: str
    unique: str | None
    tags: tuple[str, ...] | None
    args: bytes
    options: bytes | None


class Hot(Struct, array_like=True, gc=False):
    """What became of it; these are the values of a job to which nothing happened yet."""

    state: str = "i"
    fence: int = 0
    seq: int | None = None
    runner: str | None = None
    flags: int = 0
    attempt: int = 0
    lost: int = 0
    started: int | None = None
    finished: int | None = None
    ending: str | None = None
    cancelling: int | None = None
    due: int | None = None
    reason: str | None = None
    result: str | None = None
    progress: str | None = None
    renewed: int | None = None
    rank: int | None = None


class Turns(Struct, array_like=True):
    """By how much a job stands ahead, whose turn it takes, how far apart those are, and the weight that makes it so."""

    ahead: int = 0
    key: str | None = None
    turn: int = 0
    weight: float = 1.0


class Ended(Struct, array_like=True):
    """One attempt that did not succeed."""

    fence: int
    attempt: int
    ending: Ending
    runner: str | None
    started: int | None
    ended: int
    failure: str | None


def array(count: int) -> bytes:
    """The head that makes one array of `count` values that follow one another."""
    return b"\xdc" + count.to_bytes(2, "big")


COLD, HOT, TURNS, ENDED = (array(len(kind.__struct_fields__)) for kind in (Cold, Hot, Turns, Ended))
NEW = Hot()
_cold = msgpack.Decoder(Cold).decode
_hot = msgpack.Decoder(Hot).decode
_turns = msgpack.Decoder(Turns).decode
_ended = msgpack.Decoder(Ended).decode


FOREIGN = Cold(0, 0, 0, 0, None, 0, "/", None, None, b"", None)
"""In the place of a record that nobody of ours wrote."""


def read_cold(data: bytes) -> Cold:
    """What `jobs` has of a job."""
    try:
        return _cold(COLD + data)
    except (msgspec.MsgspecError, UnicodeError):
        return FOREIGN


def read_hot(data: bytes | None) -> Hot:
    """What `news` has of it, if anything."""
    try:
        return NEW if data is None else _hot(HOT + data)
    except (msgspec.MsgspecError, UnicodeError):
        return NEW


def read_turns(data: bytes | None) -> Turns:
    """What `turns` has of it, if anything."""
    try:
        return Turns() if data is None else _turns(TURNS + data)
    except (msgspec.MsgspecError, UnicodeError):
        return Turns()


# Arguments


def put_arguments(jobs: Sequence[NewJob]) -> tuple[list[bytes], list[bytes]]:
    """The ids of jobs, runs of one kind (count, line, priority) and what single ones have beyond (number, more), flat;
    and the text of each that no script reads."""
    runs: list[Any] = []
    extras: list[Any] = []
    texts: list[bytes] = []
    kind: tuple[str, str, int] | None = None
    for number, job in enumerate(jobs, 1):
        if kind != (job.queue, job.task, job.priority):
            kind = (job.queue, job.task, job.priority)
            runs += (0, f"{job.queue}/{job.task}", job.priority)
        runs[-3] += 1
        if more := more_of(job):
            extras += (number, more)
        texts.append(encode(job.args) + encode(job.options))
    return [encode([job.id for job in jobs]), encode(runs), encode(extras)], texts


def more_of(job: NewJob) -> Any:
    """What a job has beyond the plain: delay, moment, time to live, key, tags, past, followers, gates, turns, for how
    long the key is held, what becomes of another that has it, how long that is put off at most; or None."""
    plain = job.run_at is None and job.delay <= 0 and job.expires_in is None and job.past is None
    if plain and not (job.unique or job.tags or job.follow or job.gates or job.ahead or job.fair):
        return None
    return (
        micros(max(0.0, job.delay)),
        False if job.run_at is None else micros(job.run_at),
        False if job.expires_in is None else micros(job.expires_in),
        job.unique or False,
        sorted(set(job.tags)) or False,
        past_of(job.past) if job.past else False,
        job.follow.decode() if job.follow else False,
        write_needs(job.gates) or False,
        turns_of(job),
        False if job.unique_for is None else micros(job.unique_for),
        False if job.clash is Clash.KEEP else job.clash,
        False if job.max_wait is None else micros(job.max_wait),
    )


def turns_of(job: NewJob) -> Any:
    """By how much a job stands ahead, and whose turns it takes, as `Turns`; False for one that does neither."""
    if job.fair is None:
        return (micros(job.ahead), False, 0, 0) if job.ahead else False
    return micros(job.ahead), job.fair.key, max(1, round(TURN / job.fair.weight)), job.fair.weight


def past_of(past: Past) -> list[Any]:
    """What a job brings along."""
    ended = [
        (
            *(entry.fence, entry.attempt, entry.ending, entry.runner or False),
            False if entry.started_at is None else micros(entry.started_at),
            micros(entry.ended_at),
            write_end(entry) or False,
        )
        for entry in past.attempts
    ]
    return [micros(past.enqueued_at), past.attempt, past.lost, past.fence, claimed_at(past) or False, *ended]


def outcome_arguments(outcomes: Iterable[Outcome]) -> bytes:
    """Outcomes as (id, fence, seq, ending, attempt, lost, delay, result, failure, reason), flat."""
    rows: list[Any] = []
    for one in outcomes:
        rows += (
            one.id,
            one.fence,
            one.seq,
            one.ending,
            one.attempt,
            one.lost,
            micros(one.delay),
            False if one.result is None else one.result.decode(),
            write_end(one) or False,
            False if one.reason is None else one.reason,
        )
    return encode(rows)


def patch_arguments(patches: Iterable[Patch]) -> bytes:
    """Patches as (id, fence, seq, news), flat."""
    return encode([word for one in patches for word in (one.id, one.fence, one.seq, write_news(one))])


def rest_arguments(rests: Iterable[Rest]) -> bytes:
    """Jobs that wait, or wait no more, as (id, fence, seq, gates), flat."""
    return encode([word for one in rests for word in (one.id, one.fence, one.seq, list(one.gates))])


def demand_arguments(demand: Demand) -> bytes:
    """A demand as (slots, lanes, quotas)."""
    lanes = [(lane.slots, list(lane.tasks), list(lane.suspects)) for lane in demand.lanes]
    quotas = False if demand.quotas is None else [(quota.queue, quota.share) for quota in demand.quotas]
    return encode((demand.slots, lanes, quotas))


def held_arguments(held: Mapping[str, Held]) -> bytes:
    """What runners hold, as (runner, seq, "id fence"…) each."""
    return encode(
        [(runner, word.seq, *(f"{id} {fence}" for id, fence in word.claims)) for runner, word in held.items()]
    )


def filter_arguments(filter: Filter) -> bytes:
    """A filter as (state, queue, task, tag, error, ended_by); False for any."""
    names = (filter.state and LETTERS[State(filter.state)], filter.queue, filter.task, filter.tag, filter.error)
    return encode((*(name or False for name in names), False if filter.ended_by is None else micros(filter.ended_by)))


def doc_arguments(docs: Sequence[Doc]) -> bytes:
    """Documents as (kind, name, version, due; for one to drop True), flat, without their bodies."""
    rows: list[Any] = []
    for doc in docs:
        rows += (doc.kind, doc.name, doc.version, doc.gone or (False if doc.due is None else micros(doc.due)))
    return encode(rows)


# Values


def read_claims(flat: Sequence[Any]) -> list[Claim]:
    """Claims of (id, and both texts), in the order that they came."""
    return [read_claim(text(flat[at]), flat[at + 1], flat[at + 2]) for at in range(0, len(flat), 3)]


def read_claim(id: str, cold: bytes, hot: bytes) -> Claim:
    """One claim."""
    job, now = read_cold(cold), read_hot(hot)
    queue, _, task = job.line.partition("/")
    return Claim(
        id=id,
        fence=now.fence,
        seq=now.seq or 0,
        task=task,
        queue=queue,
        args=job.args,
        options=job.options,
        priority=job.priority,
        attempt=now.attempt,
        lost=now.lost,
        enqueued_at=job.enqueued / MICRO,
        run_at=(job.run_at if now.due is None else now.due) / MICRO,
    )


def in_order(flat: Sequence[Any]) -> list[Any]:
    """The same, in the order of claiming."""
    rows = [tuple(flat[at : at + 3]) for at in range(0, len(flat), 3)]
    return [value for row in sorted(rows, key=place) for value in row]


def place(row: tuple[bytes, bytes, bytes]) -> tuple[int, int, bytes]:
    """Where a job stands among others that are ready."""
    cold, hot = read_cold(row[1]), read_hot(row[2])
    moments = (hot.rank, hot.due, cold.rank)
    return -cold.priority, next(at for at in moments if at is not None), row[0]


def read_jobs(flat: Sequence[Any]) -> dict[str, JobRecord]:
    """The answer of get.lua."""
    rows = (flat[at : at + 8] for at in range(0, len(flat), 8))
    return {text(row[0]): read_job(*row) for row in rows}


def read_job(
    id: bytes,
    cold: bytes,
    hot: bytes | None,
    letter: bytes,
    ended: Sequence[bytes],
    follow: bytes | None,
    gates: bytes | None,
    turns: bytes | None,
) -> JobRecord:
    """One job, attempts included."""
    job, now, turn = read_cold(cold), read_hot(hot), read_turns(turns)
    progress, lines = read_news(now.progress)
    queue, _, task = job.line.partition("/")
    return JobRecord(
        id=text(id),
        task=task,
        queue=queue,
        priority=job.priority,
        state=STATES.get(text(letter), State.FAILED),
        args=job.args,
        options=job.options,
        attempt=now.attempt,
        lost=now.lost,
        fence=now.fence,
        runner=now.runner,
        enqueued_at=job.enqueued / MICRO,
        run_at=(job.run_at if now.due is None else now.due) / MICRO,
        started_at=seconds(now.started),
        finished_at=seconds(now.finished),
        expires_at=None if now.renewed else seconds(job.expires),
        cancelling=bool(now.cancelling),
        reason=now.reason,
        result=None if now.result is None else now.result.encode(),
        progress=progress,
        lines=lines,
        unique=job.unique,
        tags=job.tags or (),
        attempts=tuple(read_attempt(data) for data in ended),
        follow=follow,
        gates=read_needs(gates),
        ahead=turn.ahead / MICRO,
        fair=None if turn.key is None else Fair(turn.key, turn.weight),
    )


def read_attempt(data: bytes) -> Attempt:
    """One entry of the list of a job."""
    one = _ended(ENDED + data)
    failure, lines = read_end(one.failure)
    return Attempt(
        fence=one.fence,
        attempt=one.attempt,
        ending=one.ending,
        runner=one.runner,
        started_at=seconds(one.started),
        ended_at=one.ended / MICRO,
        failure=failure,
        lines=lines,
    )


def read_shelf(kind: str, answer: Sequence[bytes]) -> Shelf:
    """The answer of load.lua."""
    now, *flat = answer
    docs = (read_doc(kind, flat[at].decode(), flat[at + 1]) for at in range(0, len(flat), 2))
    return Shelf(now=int(now) / MICRO, docs=tuple(docs))


def read_doc(kind: str, name: str, value: bytes) -> Doc:
    """One document."""
    version, due, body = value.split(b" ", 2)
    return Doc(kind=kind, name=name, version=int(version), body=body, due=None if due == b"-" else int(due) / MICRO)


# Workers


class Worker(Struct, array_like=True):
    """A worker as it is kept."""

    lease: int
    started: int
    host: str
    pid: int
    version: str
    queues: str
    concurrency: int


class Runner(Struct, array_like=True):
    """A runner as it is kept."""

    worker: str
    joined: int
    pid: int
    tasks: tuple[str, ...]


WORKER, RUNNER = (array(len(kind.__struct_fields__)) for kind in (Worker, Runner))
_worker = msgpack.Decoder(Worker).decode
_runner = msgpack.Decoder(Runner).decode


def worker_text(info: WorkerInfo) -> bytes:
    """What enlist.lua keeps behind the lease and the time."""
    return b"".join(map(encode, (info.host, info.pid, info.version, info.queues, info.concurrency)))


def runner_text(info: RunnerInfo) -> bytes:
    """What enlist.lua keeps behind the worker and the time."""
    return encode(info.pid) + encode(info.tasks)


def read_workers(steady: int, workers: Sequence[Any], runners: Sequence[Any]) -> list[WorkerInfo]:
    """The answer of workers.lua."""
    crews: dict[str, list[RunnerInfo]] = {}
    for at in range(0, len(runners), 3):
        with contextlib.suppress(msgspec.MsgspecError, UnicodeError):  # its record is damaged
            one = read_runner(text(runners[at]), runners[at + 1], runners[at + 2])
            crews.setdefault(one.worker, []).append(one)
    found = []
    for at in range(0, len(workers), 3):
        with contextlib.suppress(msgspec.MsgspecError, UnicodeError):
            found.append(read_worker(steady, workers[at], workers[at + 1], workers[at + 2], crews))
    return sorted(found, key=lambda worker: (worker.started_at, worker.id))


def read_runner(id: str, data: bytes, running: int) -> RunnerInfo:
    """One runner."""
    kept = _runner(RUNNER + data)
    return RunnerInfo(
        id=id, worker=kept.worker, pid=kept.pid, tasks=kept.tasks, joined_at=kept.joined / MICRO, running=running
    )


def read_worker(steady: int, id: bytes, data: bytes, until: int, crews: dict[str, list[RunnerInfo]]) -> WorkerInfo:
    """One worker."""
    kept = _worker(WORKER + data)
    return WorkerInfo(
        id=text(id),
        host=kept.host,
        pid=kept.pid,
        version=kept.version,
        lease=kept.lease / MICRO,
        queues=kept.queues,
        concurrency=kept.concurrency,
        started_at=kept.started / MICRO,
        beat_age=max(0.0, (steady - until + kept.lease) / MICRO),
        runners=tuple(sorted(crews.get(text(id), ()), key=lambda one: (one.joined_at, one.id))),
    )
