"""The Redis store: the contract as one script a step, on one server, a cluster's node or a sentinel's master."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from windlass.clock import Clock
from windlass.errors import Conflict, EnqueueUnknown, Evicted, StoreUnavailable
from windlass.model import (
    Demand,
    Depth,
    Doc,
    Ending,
    Exchanged,
    Filter,
    Held,
    JobRecord,
    Line,
    Mark,
    NewJob,
    Order,
    Orders,
    Outcome,
    Page,
    Patch,
    Placed,
    Rest,
    RunnerInfo,
    Shed,
    Shelf,
    State,
    Tally,
    Verb,
    WorkerInfo,
)
from windlass.place import EARLY, LIFTED, Change
from windlass.store.contract import BATCH, Topic
from windlass.store.redis import records, tallies
from windlass.store.redis.direct import Direct
from windlass.store.redis.health import admit, prepare, probe
from windlass.store.redis.link import Link
from windlass.store.redis.listener import Listener
from windlass.store.redis.places import change_row
from windlass.store.redis.reads import Reads
from windlass.store.redis.records import LETTERS, STATES, encode, text
from windlass.store.redis.scripts import CLOCK, make_scripts
from windlass.store.redis.url import parse
from windlass.store.redis.wire import PATIENCE, Argument, Request
from windlass.store.rows import MICRO, micros
from windlass.store.tallies import read_depths, read_series, stretches

BULK_PER_SECOND = 10_000
"""Jobs that even a busy server takes in a second: a bulk is given that much longer than PATIENCE."""

DEPARTED_FOR = 7 * 86_400.0
"""Seconds that the ids of gone workers and runners are remembered; they are random, so this is belt and braces."""

PUT_REPEAT, SAVE_REPEAT = 5, 2
"""Which argument of put.lua and save.lua says that the call is a repeat."""


class RedisStore:
    """Jobs on Redis or Valkey. `_clock` is the Lua that reads the time: tests have their own."""

    def __init__(self, url: str, clock: Clock, *, _clock: str = CLOCK) -> None:
        self.target = parse(url)
        self._scripts = make_scripts(self.target.history, _clock)
        self._link: Link | None = None
        self._direct: Direct | None = None
        self._listener: Listener | None = None
        self._reads = Reads(self._run)

    # Lifecycle

    async def open(self) -> None:
        if self._link:
            return
        link = Link(self.target)
        try:
            await admit(link)
        except BaseException:
            await link.close()
            raise
        self._link, self._direct, self._listener = link, Direct(self.target), Listener(link)

    async def close(self) -> None:
        link, direct, listener = self._link, self._direct, self._listener
        self._link = self._direct = self._listener = None
        if listener:
            await listener.close()
        if direct:
            direct.close()
        if link:
            await link.close()

    async def migrate(self) -> Sequence[str]:
        if self._link:
            return await prepare(self._link)
        link = Link(self.target)
        try:
            return await prepare(link)
        finally:
            await link.close()

    # Ways in

    def _request(self, script: str, *arguments: Argument, **more: Any) -> Request:
        return Request(self._scripts[script], self.target.tag, list(arguments), **more)

    async def _run(self, script: str, *arguments: Argument) -> Any:
        return await self._send(self._request(script, *arguments))

    async def _send(self, request: Request, timeout: float = PATIENCE) -> Any:
        if not self._link:
            raise StoreUnavailable("the store is not open")
        return await self._link.run(request, timeout)

    # Jobs in

    async def put(self, jobs: Sequence[NewJob], marks: Sequence[Mark] = (), docs: Sequence[Doc] = ()) -> list[Placed]:
        request = self._put_request(jobs, marks, docs)
        try:
            answer = await self._send(request, PATIENCE + len(jobs) / BULK_PER_SECOND)
        except StoreUnavailable as error:
            raise self._unknown(request, jobs, error) from error
        return placed(answer, jobs, request.sent)

    def put_now(self, jobs: Sequence[NewJob], timeout: float) -> list[Placed]:
        if not self._direct:
            raise StoreUnavailable("the store is not open")
        request = self._put_request(jobs, (), ())
        try:
            answer = self._direct.run(request, timeout)
        except StoreUnavailable as error:
            raise self._unknown(request, jobs, error) from error
        return placed(answer, jobs, request.sent)

    def _put_request(self, jobs: Sequence[NewJob], marks: Sequence[Mark], docs: Sequence[Doc]) -> Request:
        rows, texts = records.put_arguments(jobs)
        taken = encode([value for mark in marks for value in (mark.key, mark.job, micros(mark.ttl))])
        bodies = [doc.body for doc in docs]
        return self._request("put", *rows, taken, records.doc_arguments(docs), "0", *texts, *bodies, mark=PUT_REPEAT)

    def _unknown(self, request: Request, jobs: Sequence[NewJob], error: StoreUnavailable) -> Exception:
        """What a caller is told whose jobs may be stored, or are surely not."""
        if not (request.sent and jobs):
            return error
        return EnqueueUnknown(
            f"{self.target.shown} gave no answer: the job may exist. Repeating with using(id=…) is safe", jobs[0].id
        )

    # Workers

    async def enlist(self, worker: WorkerInfo) -> None:
        text = records.worker_text(worker)
        answer = await self._send(self._request("enlist", worker.id, micros(worker.lease), text, repeatable=False))
        refuse(answer, worker.id, "")

    async def join(self, runner: RunnerInfo) -> None:
        text = records.runner_text(runner)
        answer = await self._send(self._request("enlist", runner.id, 0, text, runner.worker, repeatable=False))
        refuse(answer, runner.id, runner.worker)

    async def exchange(self, runner: str, seq: int, outcomes: Sequence[Outcome], demand: Demand) -> Exchanged:
        answer = await self._run(
            "exchange", runner, seq, records.outcome_arguments(outcomes), records.demand_arguments(demand)
        )
        if answer == b"evicted":
            raise Evicted(f"runner {runner} is not registered any more: its jobs were handed to others")
        due, refused, claims, repeated = answer
        if repeated or demand.quotas is not None:
            claims = records.in_order(claims)
        return Exchanged(
            refused=tuple(map(text, refused)),
            claimed=tuple(records.read_claims(claims)),
            next_due=None if due < 0 else due / MICRO,
        )

    async def settle(self, runner: str, outcome: Outcome) -> bool:
        return not await self._run("settle", runner, records.outcome_arguments([outcome]))

    async def release(self, runners: Sequence[str], ending: Ending, outcomes: Sequence[Outcome] = ()) -> int:
        return int(await self._run("release", str(ending), records.outcome_arguments(outcomes), *runners))

    async def retire(self, worker: str) -> None:
        await self._run("retire", worker)

    async def beat(self, worker: str, held: Mapping[str, Held] | None = None) -> Orders:
        answer = await self._run("beat", worker, records.held_arguments(held or {}), micros(EARLY))
        if answer == b"evicted":
            return Orders(evicted=True)
        flat, due, fire, dead, lift = answer
        orders = [
            Order(runner=flat[at].decode(), id=flat[at + 1].decode(), fence=flat[at + 2])
            for at in range(0, len(flat), 3)
            if flat[at + 1].isascii()  # else it is none of ours, and fails by itself
        ]
        return Orders(
            cancel=tuple(orders),
            due=None if due < 0 else due / MICRO,
            fire=None if fire < 0 else fire / MICRO,
            dead=bool(dead),
            lift=bool(lift),
        )

    async def reap(self, spare: str | None = None) -> list[str]:
        return [text(worker) for worker in await self._run("reap", spare or "")]

    async def wait(self, topic: Topic, timeout: float) -> bool:
        if not self._listener:
            raise StoreUnavailable("the store is not open")
        return await self._listener.wait(topic, timeout)

    async def note(self, runner: str, patches: Sequence[Patch]) -> Sequence[str]:
        return [text(id) for id in await self._run("note", runner, records.patch_arguments(patches))]

    async def rest(self, runner: str, leaving: Sequence[Rest], entering: Sequence[Rest]) -> Sequence[str]:
        back = await self._run("rest", runner, records.rest_arguments(leaving), records.rest_arguments(entering))
        return [text(id) for id in back]

    # Operators

    async def act(self, target: Filter | Sequence[str], verb: Verb, most: int = BATCH) -> list[str]:
        most = min(most, BATCH)
        if not isinstance(target, Filter):
            return await self._act(target[:most], verb, Filter())
        done: list[str] = []
        async for ids in self._reads.targets(target, verb):
            done += await self._act(ids[: most - len(done)], verb, target)
            if len(done) >= most:
                break
        return done

    async def _act(self, ids: Sequence[str], verb: Verb, filter: Filter) -> list[str]:
        if not ids:
            return []
        wanted = records.filter_arguments(filter)
        return [text(id) for id in await self._run("act", str(verb), wanted, encode(list(ids)))]

    async def shed(self, queue: str, most: int, *, below: int | None = None, reason: str = "") -> Shed:
        left, *ids = await self._run("shed", queue, most, "" if below is None else below, reason)
        return Shed(ids=tuple(map(text, ids)), left=int(left))

    async def amend(self, changes: Sequence[Change]) -> list[str]:
        rows = encode([change_row(one) for one in changes[:BATCH]])
        return [text(id) for id in await self._run("amend", rows)] if changes else []

    async def lift(self) -> int:
        lifted, more = 0, True
        while more and lifted < BATCH:
            most = BATCH - lifted
            found, looked = await self._run("lift", micros(EARLY), LIFTED, most)
            lifted, more = lifted + found, looked == most
        return lifted

    async def prune(self, keep: Mapping[State, float]) -> int:
        ages = [(LETTERS[State(state)], micros(age)) for state, age in keep.items() if State(state).final]
        return int(await self._run("prune", micros(DEPARTED_FOR), *(word for pair in ages for word in pair)))

    async def save(self, docs: Sequence[Doc], drop: Collection[tuple[str, str]] = ()) -> None:
        drops = encode([word for pair in drop for word in pair])
        bodies = [doc.body for doc in docs]
        answer = await self._send(
            self._request("save", records.doc_arguments(docs), drops, "0", *bodies, mark=SAVE_REPEAT)
        )
        refuse_conflict(answer)

    async def load(
        self, kind: str, *, names: Collection[str] | None = None, due: float | None = None, after: str = ""
    ) -> Shelf:
        if due is not None:
            how: tuple[Any, ...] = ("due", micros(due))
        elif names is not None:
            how = ("named", encode(sorted(set(names))[:BATCH]))
        else:
            how = ("after", after)
        return records.read_shelf(kind, await self._run("load", kind, BATCH, *how))

    # Reading

    async def get(self, ids: Sequence[str]) -> list[JobRecord]:
        return await self._reads.get(ids)

    async def holders(self, keys: Sequence[str]) -> Mapping[str, str]:
        return await self._reads.holders(keys)

    async def find(self, filter: Filter, limit: int = 100, after: str | None = None, far: int | None = None) -> Page:
        return await self._reads.find(filter, limit, after, far)

    async def count(self, filter: Filter, most: int | None = None) -> int:
        return await self._reads.count(filter, most)

    async def stats(self) -> list[Line]:
        return await self._reads.stats()

    async def _now(self) -> float:
        return (await self.load("", names=())).now

    async def tally(self, rows: Sequence[Tally], depths: Sequence[Depth] = ()) -> None:
        await tallies.tally(self._run, await self._now(), rows, depths)

    async def series(self, since: float, until: float, step: int, queue: str | None = None) -> Sequence[Tally]:
        parts = stretches(since, until, step, await self._now())
        return read_series(await tallies.read(self._run, tallies.SUMS, parts, step, queue))

    async def depths(self, since: float, until: float, step: int, queue: str | None = None) -> Sequence[Depth]:
        parts = stretches(since, until, step, await self._now())
        return read_depths(await tallies.read(self._run, tallies.MOST, parts, step, queue))

    async def workers(self) -> list[WorkerInfo]:
        return records.read_workers(*await self._run("workers"))

    async def probe(self) -> Mapping[str, str]:
        if not self._link:
            raise StoreUnavailable("the store is not open")
        sizes = [await self._run("size", f"over:{letter}") for letter in "sfc"]
        return await probe(self._link, sum(sizes))


def placed(answer: Any, jobs: Sequence[NewJob], repeated: bool) -> list[Placed]:
    """The answer of put.lua. A job whose id was made for this put is new, although a try before stored it."""
    refuse_conflict(answer)
    letters, others = answer
    ids = iter(others)
    found = []
    for job, letter in zip(jobs, letters.decode(), strict=True):
        new = letter.isupper()
        id = job.id if new else text(next(ids))
        again = repeated and job.fresh and id == job.id
        found.append(Placed(id=id, state=STATES.get(letter.lower()), new=new or again))
    return found


def refuse(answer: bytes, id: str, worker: str) -> None:
    """Raise `Evicted` where enlist.lua did not let somebody in."""
    if answer == b"known":
        raise Evicted(f"{id} was registered before; start under a new id")
    if answer == b"gone":
        raise Evicted(f"worker {worker} is not registered any more")


def refuse_conflict(answer: Any) -> None:
    """Raise `Conflict` where a document was changed meanwhile."""
    if isinstance(answer, list) and answer[0] == b"conflict":
        _, kind, name, stored, given = answer
        raise Conflict(
            f"{kind.decode()} {name.decode()!r} is at version {stored}, not {given}: it was changed meanwhile. "
            "Read it again and repeat the change"
        )
