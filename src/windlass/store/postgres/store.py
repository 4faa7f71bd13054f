"""The PostgreSQL store: the contract, one statement a call."""

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

import psycopg

from windlass.clock import Clock
from windlass.errors import EnqueueUnknown, StoreUnavailable
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
from windlass.store.census import FRONT, Census
from windlass.store.census import Rows as CensusRows
from windlass.store.contract import BATCH, Topic
from windlass.store.documents import changes_gates
from windlass.store.postgres import reads, statements, tallies
from windlass.store.postgres.bell import Bell
from windlass.store.postgres.link import PATIENCE, AsyncLink, BlockingLink, Rows, Unanswered, Ways
from windlass.store.postgres.probe import probe
from windlass.store.postgres.rows import read_job
from windlass.store.postgres.schema import bring_up
from windlass.store.postgres.statements import SQL, Call, filled, to_json
from windlass.store.postgres.target import parse
from windlass.store.rows import MICRO, micros, write_news
from windlass.store.tallies import read_depths, read_series, stretches

logger = logging.getLogger("windlass.store")

KEEPING_HOUSE = 60.0
"""Seconds that prune, survey and what operators do may take."""

LOOKS, LOOK_EVERY = 10, 0.005
"""How often, and after how many seconds each time, a gate is asked again at which somebody else is."""


class PostgresStore:
    """Jobs in one schema of a PostgreSQL database. Serves one event loop, and any thread by `put_now`."""

    def __init__(self, url: str, clock: Clock) -> None:
        self.target = parse(url)
        self.schema = self.target.quoted
        self._ways = Ways(self.target)
        self._link: AsyncLink | None = None
        self._beats: AsyncLink | None = None
        self._blocking = BlockingLink(self._ways)
        self._bell: Bell | None = None
        self._census = Census(self._lines)
        self._surveying: asyncio.Task[None] | None = None
        self._checked: dict[str, Held] = {}  # what each runner said to hold, and was found to

    # Lifecycle

    async def open(self) -> None:
        if self._link:
            return
        link = AsyncLink(self._ways)
        await self._bring_up(link, allowed=self.target.migrate)
        self._link, self._beats = link, AsyncLink(self._ways)
        self._blocking = BlockingLink(self._ways)
        listens = self.target.listen is not None
        self._bell = Bell(self.target.schema, self._ways.listener if listens else None, self._link.rows)

    async def close(self) -> None:
        self._census.stop()
        if self._surveying:
            self._surveying.cancel()
        if self._bell:
            await self._bell.close()
        for link in (self._link, self._beats):
            if link:
                await link.close()
        self._blocking.close()
        self._link = self._beats = self._bell = self._surveying = None

    async def migrate(self) -> Sequence[str]:
        link = AsyncLink(self._ways)
        try:
            return await self._bring_up(link, allowed=True)
        finally:
            await link.close()

    async def _bring_up(self, link: AsyncLink, *, allowed: bool) -> Sequence[str]:
        try:
            connection = await link.connect(time.monotonic() + PATIENCE)
        except psycopg.Error as error:
            text = " ".join(str(error).split())
            raise StoreUnavailable(f"PostgreSQL at {self.target.place} cannot be reached: {text}") from error
        try:
            connection.until = time.monotonic() + (KEEPING_HOUSE if allowed else PATIENCE)
            return await bring_up(connection, self.target, allowed=allowed)
        except psycopg.Error as error:
            text = " ".join(str(error).split())
            raise StoreUnavailable(f"PostgreSQL at {self.target.place} cannot be used: {text}") from error
        finally:
            await connection.close()

    async def _rows(self, sql: str, *params: Any, patience: float = PATIENCE, repeatable: bool = True) -> Rows:
        return await self._call(Call(filled(sql, self.schema), params), patience=patience, repeatable=repeatable)

    async def _call(
        self, call: Call, *, patience: float = PATIENCE, repeatable: bool = True, only_reads: bool = False
    ) -> Rows:
        if not self._link:
            raise StoreUnavailable("the store is not open")
        try:
            return await self._link.rows(call, patience=patience, repeatable=repeatable, only_reads=only_reads)
        except Unanswered as error:
            raise StoreUnavailable(f"PostgreSQL at {self.target.place} did not answer in time: {error}") from error

    # Jobs in

    async def put(self, jobs: Sequence[NewJob], marks: Sequence[Mark] = (), docs: Sequence[Doc] = ()) -> list[Placed]:
        if not self._link or not self._bell:
            raise StoreUnavailable("the store is not open")
        first = statements.put_call(self.schema, jobs, marks, docs)
        then = partial(statements.put_call, self.schema, jobs, marks, docs, again=True) if first.fresh else None
        try:
            rows = await self._link.rows(first, then, patience=patience_for(jobs))
        except Unanswered as error:
            raise self._unknown(jobs, error) from error
        answer = statements.read_put(rows, jobs, first)
        if answer.ring:
            self._bell.ring("work")
        return answer.placed

    def put_now(self, jobs: Sequence[NewJob], timeout: float) -> list[Placed]:
        if not self._bell:
            raise StoreUnavailable("the store is not open")
        first = statements.put_call(self.schema, jobs)
        then = partial(statements.put_call, self.schema, jobs, again=True) if first.fresh else None
        end = time.monotonic() + timeout
        try:
            rows = self._blocking.rows(first, then, timeout)
        except Unanswered as error:
            raise self._unknown(jobs, error) from error
        answer = statements.read_put(rows, jobs, first)
        if answer.ring:
            with contextlib.suppress(StoreUnavailable, Unanswered):  # a hint less
                self._blocking.rows(self._bell.ring_call("work"), None, max(0.0, end - time.monotonic()))
        return answer.placed

    def _unknown(self, jobs: Sequence[NewJob], error: Exception) -> Exception:
        if not jobs:
            return StoreUnavailable(str(error))
        return EnqueueUnknown(
            f"PostgreSQL at {self.target.place} did not answer in time: the job may exist. Repeating with using(id=…) "
            f"is safe ({error})",
            jobs[0].id,
        )

    # Workers

    async def enlist(self, worker: WorkerInfo) -> None:
        await self._rows(
            SQL.enlist,
            worker.id,
            worker.host,
            worker.pid,
            worker.version,
            worker.lease,
            worker.queues,
            worker.concurrency,
            repeatable=False,
        )

    async def join(self, runner: RunnerInfo) -> None:
        await self._rows(SQL.join_worker, runner.id, runner.worker, runner.pid, list(runner.tasks), repeatable=False)

    async def exchange(self, runner: str, seq: int, outcomes: Sequence[Outcome], demand: Demand) -> Exchanged:
        rows = await self._call(statements.exchange_call(self.schema, runner, seq, outcomes, demand))
        answer, rings = statements.read_exchange(rows)
        for topic in rings:
            self._ring(topic)
        return answer

    async def settle(self, runner: str, outcome: Outcome) -> bool:
        rows = await self._call(statements.settle_call(self.schema, runner, outcome))
        self._ring("done")
        return statements.read_settle(rows)

    async def release(self, runners: Sequence[str], ending: Ending, outcomes: Sequence[Outcome] = ()) -> int:
        given = statements.outcomes_json(outcomes) if outcomes else None
        rows = await self._rows(SQL.release, list(runners), ending, given)
        self._ring("work")
        self._ring("done")
        return int(rows[0][0])

    async def retire(self, worker: str) -> None:
        await self._rows(SQL.retire, worker)
        self._ring("work")

    async def beat(self, worker: str, held: Mapping[str, Held] | None = None) -> Orders:
        if not self._beats:
            raise StoreUnavailable("the store is not open")
        try:
            rows = await self._beats.rows(Call(filled(SQL.beat, self.schema), (micros(EARLY), worker)))
        except Unanswered as error:
            raise StoreUnavailable(str(error)) from error
        evicted, cancel, due, fire, dead, survey, lift = rows[0]
        if evicted:
            return Orders(evicted=True)
        if survey and (self._surveying is None or self._surveying.done()):
            self._surveying = asyncio.create_task(self._survey())
        for runner, keep in (held or {}).items():
            await self._reconcile(runner, keep)
        if held is not None:
            self._checked = {runner: last for runner, last in self._checked.items() if runner in held}
        orders = [Order(runner=runner, id=id, fence=fence) for runner, id, fence in map(json.loads, cancel or ())]
        return Orders(
            cancel=tuple(orders),
            due=None if due is None else due / MICRO,
            fire=None if fire is None else fire / MICRO,
            dead=dead,
            lift=lift,
        )

    async def _survey(self) -> None:
        """Walk from the bottom, apart from the beat: it may take long while an old snapshot is held."""
        try:
            await self._rows(SQL.survey, patience=KEEPING_HOUSE)
        except Exception as error:
            logger.debug("the bounds were not surveyed this time: %s", error)

    async def _reconcile(self, runner: str, keep: Held) -> None:
        """Hand back claims that nobody holds; looks first, because there is nearly always nothing to do.

        What was found in order by the last look is not walked again: of the claims of that time, only those that are
        not held any more are looked at.
        """
        last = self._checked.get(runner)
        if keep == last:
            return
        since = last.seq if last and last.seq <= keep.seq else -1
        left = [id for id, _ in last.claims - keep.claims] if last and since >= 0 else []
        said = (runner, keep.seq, [id for id, _ in keep.claims], [fence for _, fence in keep.claims])
        if (await self._rows(SQL.phantoms, *said, since, left))[0][0]:
            await self._rows(SQL.reconcile, *said)
            self._ring("work")
        self._checked[runner] = keep

    async def reap(self, spare: str | None = None) -> list[str]:
        dead = [row[0] for row in await self._rows(SQL.reap, spare)]
        if dead:
            self._ring("work")
        return dead

    async def wait(self, topic: Topic, timeout: float) -> bool:
        if not self._bell:
            raise StoreUnavailable("the store is not open")
        return await self._bell.wait(topic, timeout)

    def _ring(self, topic: Topic) -> None:
        if self._bell:
            self._bell.ring(topic)

    async def note(self, runner: str, patches: Sequence[Patch]) -> Sequence[str]:
        rows = await self._rows(
            SQL.note,
            [patch.id for patch in patches],
            [patch.fence for patch in patches],
            [patch.seq for patch in patches],
            [write_news(patch) for patch in patches],
            runner,
        )
        return [row[0] for row in rows]

    async def rest(self, runner: str, leaving: Sequence[Rest], entering: Sequence[Rest]) -> Sequence[str]:
        if leaving:
            await self._rows(SQL.leave_for_now, runner, *statements.rest_columns(leaving))
            self._ring("work")
        back: list[str] = []
        for _ in range(LOOKS):
            rows = await self._rows(SQL.come_back, runner, *statements.rest_columns(entering)) if entering else []
            back += [id for id, has in rows if has]
            busy = {id for id, has in rows if has is None}
            entering = [one for one in entering if one.id in busy]
            if not entering:
                break
            await asyncio.sleep(LOOK_EVERY)
        return back

    # Operators

    async def act(self, target: Filter | Sequence[str], verb: Verb, most: int = BATCH) -> list[str]:
        most = min(most, BATCH)
        ids = await self._targets(target, verb, most) if isinstance(target, Filter) else list(target[:most])
        only_in = target.state if isinstance(target, Filter) else None
        if not ids:
            return []
        rows = await self._rows(SQL.act, ids, verb, only_in, patience=KEEPING_HOUSE)
        if rows:
            self._ring("work" if verb is Verb.RETRY else "done")
        found = {row[0] for row in rows}
        return [id for id in dict.fromkeys(ids) if id in found]

    async def _targets(self, filter: Filter, verb: Verb, most: int) -> list[str]:
        found: list[str] = []
        for call in reads.targets(self.schema, filter, verb, most):
            if len(found) < most:
                found += [row[0] for row in await self._call(call, patience=KEEPING_HOUSE)]
        return found[:most]

    async def shed(self, queue: str, most: int, *, below: int | None = None, reason: str = "") -> Shed:
        rows = await self._rows(SQL.shed, queue, most, below, reason, BATCH, patience=KEEPING_HOUSE)
        shed = Shed(ids=tuple(rows[0][0]), left=rows[0][1])
        if shed.ids:
            self._ring("done")
        return shed

    async def amend(self, changes: Sequence[Change]) -> list[str]:
        rows = await self._rows(SQL.amend, statements.changed(changes[:BATCH]), patience=KEEPING_HOUSE)
        if rows:
            self._ring("work")
        found = {row[0] for row in rows}
        return list(dict.fromkeys(change.id for change in changes if change.id in found))

    async def lift(self) -> int:
        lifted = int((await self._rows(SQL.lift, micros(EARLY), LIFTED, BATCH))[0][0])
        if lifted:
            self._ring("work")
        return lifted

    async def prune(self, keep: Mapping[State, float]) -> int:
        ages = to_json({str(state): micros(age) for state, age in keep.items()})
        dropped = int((await self._rows(SQL.prune, ages, BATCH, patience=KEEPING_HOUSE))[0][0])
        for call in tallies.prune(self.schema, await self._now()):
            await self._call(call, patience=KEEPING_HOUSE)
        return dropped

    async def save(self, docs: Sequence[Doc], drop: Collection[tuple[str, str]] = ()) -> None:
        await self._call(statements.save_call(self.schema, docs, drop))
        if changes_gates(docs, drop):
            self._ring("work")

    async def load(
        self, kind: str, *, names: Collection[str] | None = None, due: float | None = None, after: str = ""
    ) -> Shelf:
        call = statements.load_call(self.schema, kind, names, due, after)
        return statements.read_load(kind, await self._call(call))

    # Reading

    async def get(self, ids: Sequence[str]) -> list[JobRecord]:
        """First among the live ones, then in the history, then again: a retry may have brought one back meanwhile."""
        found: dict[str, JobRecord] = {}
        for call in (reads.get_live, reads.get_over, reads.get_live):
            if missing := [id for id in ids if id not in found]:
                found |= {row[0]: read_job(row) for row in await self._call(call(self.schema, missing))}
        return reads.in_order(ids, list(found.values()))

    async def holders(self, keys: Sequence[str]) -> Mapping[str, str]:
        return dict(await self._rows(SQL.holders, list(keys)))

    async def find(self, filter: Filter, limit: int = 100, after: str | None = None, far: int | None = None) -> Page:
        rows: list[Sequence[Any]] = []
        ends: list[Any] = []
        for call in reads.edges(self.schema, filter, after, far):
            ends += [row[0] for row in await self._call(call, patience=KEEPING_HOUSE, only_reads=True)]
        edge = reads.first_of(filter, ends)
        for call in reads.listed(self.schema, filter, limit, after, edge):
            rows += await self._call(call, patience=KEEPING_HOUSE, only_reads=True)
        return reads.read_page(filter, limit, rows, edge)

    async def count(self, filter: Filter, most: int | None = None) -> int:
        found = 0
        for call in reads.counted(self.schema, filter, most):
            if most is None or found <= most:
                found += (await self._call(call, patience=KEEPING_HOUSE, only_reads=True))[0][0]
        return found if most is None else min(found, most + 1)

    async def stats(self) -> list[Line]:
        return await self._census.take()

    async def _lines(self, most: int) -> tuple[int, CensusRows]:
        rows = await self._rows(SQL.stats, most, FRONT, patience=KEEPING_HOUSE)
        return (rows[0][4] if rows else 0), [row[:4] for row in rows]

    async def _now(self) -> float:
        return (await self.load("", names=())).now

    async def tally(self, rows: Sequence[Tally], depths: Sequence[Depth] = ()) -> None:
        for call in tallies.tally(self.schema, await self._now(), rows, depths):
            await self._call(call)

    async def series(self, since: float, until: float, step: int, queue: str | None = None) -> Sequence[Tally]:
        return read_series(await self._statistics(tallies.SQL.series, since, until, step, queue))

    async def depths(self, since: float, until: float, step: int, queue: str | None = None) -> Sequence[Depth]:
        return read_depths(await self._statistics(tallies.SQL.depths, since, until, step, queue))

    async def _statistics(self, sql: str, since: float, until: float, step: int, queue: str | None) -> Rows:
        parts = stretches(since, until, step, await self._now())
        calls = tallies.read(sql, self.schema, parts, step, queue)
        return [row for call in calls for row in await self._call(call, patience=KEEPING_HOUSE)]

    async def workers(self) -> list[WorkerInfo]:
        return reads.read_workers(await self._rows(SQL.workers), await self._rows(SQL.runners))

    async def probe(self) -> Mapping[str, str]:
        return await probe(self.target, self._rows, pooled=self._ways.pooled)


def patience_for(jobs: Sequence[NewJob]) -> float:
    """Seconds that storing these may take."""
    return PATIENCE + len(jobs) / 10_000
