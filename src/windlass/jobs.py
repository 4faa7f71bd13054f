"""Jobs as users hold them: a handle to one, and the way to all."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, Protocol, TypeVar
from weakref import WeakKeyDictionary

from msgspec import Struct

from windlass import options
from windlass.blocking import Stream, twin
from windlass.bulk import in_batches
from windlass.codec import show
from windlass.context import current, waiting
from windlass.ends import CALM_PAUSE, LONGEST_LOOK, SHORTEST_PAUSE, Ends
from windlass.errors import JobCancelled, JobFailed, JobNotFound, ResultTimeout
from windlass.model import Attempt, Failure, Filter, JobRecord, NewJob, Placed, Progress, State, Verb
from windlass.options import Options, read_options, seconds
from windlass.picking import Named, some, which
from windlass.secret import RESULT, hide
from windlass.standing import NO_RULES, Rules, Standing
from windlass.store.contract import Store
from windlass.values import plain_value
from windlass.vault import Vault

R_co = TypeVar("R_co", covariant=True)


class Results(Protocol):
    """How a task's results are read."""

    def decode_result(self, data: bytes | None) -> Any:
        """A stored result as the task's annotation says."""


Wrap = Callable[[Sequence[NewJob]], AbstractContextManager[Sequence[NewJob]]]
"""Around the writing of jobs: gives those to write."""


class Step(Struct, frozen=True):
    """Where a job stands: its state, its try (from 1; 0 before the first), and what its code said last of how far it
    is: `done` of `total` (None: unknown), and a word."""

    state: State
    attempt: int
    done: float
    total: float | None
    note: str


class Pace:
    """When to look at a job again: woken by hints, now and then in case they are lost."""

    def __init__(self, jobs: "Jobs") -> None:
        self._jobs = jobs
        self._pause = SHORTEST_PAUSE

    async def rest(self) -> None:
        """Wait until it is time."""
        if await (await self._jobs.store()).wait("done", LONGEST_LOOK):
            await asyncio.sleep(self._pause)
            self._pause = min(CALM_PAUSE, self._pause * 2)


class Job(Struct, Generic[R_co], eq=False):
    """One job. What it tells is as of the last look; `refresh` looks again.

    `new` is false for the live job that holds the unique key, or that has the id already. What is not known yet is
    read when asked for; inside an event loop that raises: `await job.arefresh()` first.
    """

    _jobs: "Jobs"
    id: str
    new: bool = False
    _record: JobRecord | None = None
    _state: State | None = None
    _made: NewJob | None = None

    def __repr__(self) -> str:
        state = self._record.state if self._record else self._state
        return f"<Job {self.id} {state}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Job) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    @property
    def record(self) -> JobRecord:
        """All that the store has of the job; read once if it was not yet. Raises `JobNotFound`."""
        if self._record is None:
            self.refresh()
        assert self._record
        return self._record

    @property
    def state(self) -> str:
        """waiting, scheduled, ready, running, succeeded, failed or cancelled."""
        return str(self._state if self._record is None and self._state else self.record.state)

    @property
    def task(self) -> str:
        """The name of its task."""
        return self._known.task

    @property
    def queue(self) -> str:
        """The queue that it was put into."""
        return self._known.queue

    @property
    def priority(self) -> int:
        """-100 to 100, higher first."""
        return self._options.asked(self._known.priority)

    @property
    def args(self) -> dict[str, Any]:
        """The arguments by name, as plain JSON; secret ones are ***. Raises `DecodeError` for what cannot be read."""
        return hide(show(self._stored("args") or b""), self._options.secret)

    @property
    def tags(self) -> tuple[str, ...]:
        """Its tags."""
        return self._known.tags

    @property
    def meta(self) -> dict[str, Any]:
        """The data that `using(meta=…)` gave it."""
        return self._options.meta

    @property
    def schedule(self) -> str:
        """The name of the schedule that made it; empty if none did."""
        return self._options.schedule

    @property
    def tick(self) -> datetime | None:
        """The moment of its schedule that it is for, in UTC."""
        return self._options.due_tick

    @property
    def _options(self) -> Options:
        return read_options(self._stored("options"))

    @property
    def hides_result(self) -> bool:
        """Whether its result is marked as secret."""
        return RESULT in self._options.secret

    @property
    def _known(self) -> JobRecord | NewJob:
        """What was seen of it last, else what was made."""
        return self._record or self._made or self.record

    def _stored(self, field: str) -> bytes | None:
        """One field as it was before it was sealed."""
        return self._jobs.open(self._known, field)

    @property
    def attempt(self) -> int:
        """The number of its running or last try, from 1; 0 before the first. Only charged tries count."""
        return self.record.attempt + (self.record.state is State.RUNNING)

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """The tries that did not succeed, each with its error, oldest first."""
        return self.record.attempts

    @property
    def error(self) -> Failure | None:
        """The last error, unless the job succeeded after it."""
        if self.record.state is State.SUCCEEDED:
            return None
        return next((one.failure for one in reversed(self.record.attempts) if one.failure), None)

    @property
    def progress(self) -> Progress | None:
        """What the running code said last of how far it is."""
        return self.record.progress

    @property
    def lines(self) -> str:
        """The newest of what its running or last attempt logged; `attempts` have those of attempts before."""
        ended = self.record.attempts[-1:]
        return ended[0].lines if ended and ended[0].fence == self.record.fence else self.record.lines

    @property
    def reason(self) -> str | None:
        """Why it was cancelled or snoozed."""
        return self.record.reason

    @property
    def enqueued_at(self) -> datetime:
        """When it was stored, in UTC as all times here."""
        return datetime.fromtimestamp(self.record.enqueued_at, UTC)

    @property
    def run_at(self) -> datetime:
        """When it is, or was, due."""
        return datetime.fromtimestamp(self.record.run_at, UTC)

    @property
    def started_at(self) -> datetime | None:
        """When its last attempt started."""
        return moment(self.record.started_at)

    @property
    def finished_at(self) -> datetime | None:
        """When it ended for good."""
        return moment(self.record.finished_at)

    async def arefresh(self) -> "Job[R_co]":
        """Look again. Raises `JobNotFound`."""
        self._record = await self._jobs.record(self.id)
        return self

    async def aresult(self, timeout: float | timedelta | None = None) -> R_co:
        """Wait, at most `timeout` seconds, until the job is over; what its task returned.

        Raises `JobFailed`, `JobCancelled`, `ResultTimeout`, `JobNotFound`; `DecodeError` for a stored result that the
        task's return annotation does not fit. A task that is not known here gives JSON's own types.
        """
        record = await self._over(None if timeout is None else seconds("timeout", timeout))
        if record.state is State.SUCCEEDED:
            result: R_co = self._jobs.decode(record)
            return result
        if record.state is State.CANCELLED:
            raise JobCancelled(f"job {self.id} ({record.task}) was cancelled: {record.reason or 'no reason was given'}")
        failure = self.error or Failure(type="", message="no error was kept")
        raise JobFailed(
            f"job {self.id} ({record.task}) failed at attempt {record.attempt}: {failure.type}: {failure.message}",
            failure.type,
            failure.traceback,
        )

    async def _over(self, timeout: float | None) -> JobRecord:
        """Wait for the end; a running job that waits lets another have its slot meanwhile."""
        end = None if timeout is None else time.monotonic() + timeout
        await self.arefresh()
        if self.record.state.final:
            return self.record
        async with waiting(self.record.task):
            left = None if end is None else max(0.0, end - time.monotonic())
            record = await self._jobs.ends.of(self.id, left, patient=current().slot is not None)
        if record is not None:
            self._record = self._jobs.reveal(record)
            return self.record
        await self.arefresh()
        if self.record.state.final:
            return self.record
        raise ResultTimeout(
            f"job {self.id} was {self.record.state} when the {timeout:g} s for its result were over; it goes on"
        )

    def watch(self) -> Stream[Step]:
        """How the job goes until it is over: what there is now, and then each change of state or progress.

        `async for step in job.watch()`, or `for step in job.watch()` in blocking code. Its end is told at once, what it
        does meanwhile within a second. Raises `JobNotFound` if it is deleted, `StoreUnavailable`.
        """
        return Stream(self._steps)

    async def _steps(self) -> AsyncIterator[Step]:
        pace = Pace(self._jobs)
        told: Step | None = None
        while told is None or not told.state.final:
            if told is not None:
                await pace.rest()
            await self.arefresh()
            progress = self.progress or Progress(done=0)
            step = Step(self.record.state, self.attempt, progress.done, progress.total, progress.note)
            if step != told:
                told = step
                yield step

    async def acancel(self) -> bool:
        """End the job: at once if it does not run, else its runner is told. False if it was over."""
        return await self._act(Verb.CANCEL)

    async def aretry(self) -> bool:
        """Run the job again (or now, if it waits for its time), its attempts counted anew. False if it cannot be."""
        return await self._act(Verb.RETRY)

    async def adelete(self) -> bool:
        """Forget the job and its history. False while it runs. Raises `JobNotFound`."""
        return await self._act(Verb.DELETE)

    async def _act(self, verb: Verb) -> bool:
        done = bool(await self._jobs.act([self.id], verb))
        if not (done and verb is Verb.DELETE):
            await self.arefresh()
        return done

    refresh = twin(arefresh)
    result = twin(aresult)
    cancel = twin(acancel)
    retry = twin(aretry)
    delete = twin(adelete)


class JobList(list[Job[Any]]):
    """Some jobs, and `after`: what to give to `find` for those that follow (None: there are none)."""

    after: str | None = None


class Jobs:
    """The jobs of an app's store. A filter names a state, a task, a queue, a tag, or several of them."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[Store]],
        results: Callable[[str], Results | None],
        vault: Vault,
        enqueued: "Callable[[Job[Any]], None] | None" = None,
        sending: Wrap = contextlib.nullcontext,
        rules: Rules = NO_RULES,
    ) -> None:
        self.sending = sending
        self._rules = rules
        self._connect = connect
        self._results = results
        self._vault = vault
        self._enqueued = enqueued
        self._ends: WeakKeyDictionary[asyncio.AbstractEventLoop, Ends] = WeakKeyDictionary()

    async def aget(self, id: str) -> Job[Any]:
        """The job of that id. Raises `JobNotFound`."""
        return Job(self, id, False, await self.record(id))

    async def aget_many(self, ids: Sequence[str]) -> list[Job[Any]]:
        """The jobs that exist of these, in their order, in one look."""
        return [self.handle(record) for record in await (await self._connect()).get(ids)]

    async def afind(
        self,
        *,
        state: str | None = None,
        task: str | Named | None = None,
        queue: str | None = None,
        tag: str | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> JobList:
        """At most `limit` jobs that match: what is to come next first, what is over newest first."""
        page = await (await self._connect()).find(which(state, task, queue, tag), limit, after)
        found = JobList(self.handle(record) for record in page.jobs)
        found.after = page.after
        return found

    async def acount(
        self,
        *,
        state: str | None = None,
        task: str | Named | None = None,
        queue: str | None = None,
        tag: str | None = None,
    ) -> int:
        """How many jobs match."""
        return await (await self._connect()).count(which(state, task, queue, tag))

    async def acancel(
        self,
        *,
        state: str | None = None,
        task: str | Named | None = None,
        queue: str | None = None,
        tag: str | None = None,
    ) -> int:
        """Cancel the jobs that match and are not over; how many."""
        return await self._act_on_all(which(state, task, queue, tag), Verb.CANCEL)

    async def aretry(
        self,
        *,
        state: str | None = "failed",
        task: str | Named | None = None,
        queue: str | None = None,
        tag: str | None = None,
    ) -> int:
        """Run the jobs that match again, by default the failed ones; how many."""
        return await self._act_on_all(which(state, task, queue, tag), Verb.RETRY)

    async def adelete(
        self,
        *,
        state: str | None = None,
        task: str | Named | None = None,
        queue: str | None = None,
        tag: str | None = None,
    ) -> int:
        """Forget the jobs that match and do not run; how many."""
        return await self._act_on_all(which(state, task, queue, tag), Verb.DELETE)

    async def amove(
        self,
        to: str,
        *,
        state: str | None = None,
        task: str | Named | None = None,
        queue: str | None = None,
        tag: str | None = None,
    ) -> int:
        """Put the jobs that match and do not run into another queue, with the limits and the aging that this app
        declares for it; how many. Raises `ConfigError`."""
        moving = Standing(self._rules, self._vault, options.name("a queue", to), None)
        return await moving.put_all(await self._connect(), some("move", which(state, task, queue, tag)))

    async def areprioritise(
        self,
        priority: int,
        *,
        state: str | None = None,
        task: str | Named | None = None,
        queue: str | None = None,
        tag: str | None = None,
    ) -> int:
        """Give the jobs that match and do not run another priority, but for those in strict order (`ordered_by`); how
        many. Raises `ConfigError`."""
        moving = Standing(self._rules, self._vault, None, options.priority(priority))
        return await moving.put_all(await self._connect(), some("reprioritise", which(state, task, queue, tag)))

    async def _act_on_all(self, filter: Filter, verb: Verb) -> int:
        wanted = [some(verb, filter)]
        return sum([len(ids) async for ids in in_batches(await self._connect(), wanted, verb)])

    get = twin(aget)
    get_many = twin(aget_many)
    find = twin(afind)
    count = twin(acount)
    cancel = twin(acancel)
    retry = twin(aretry)
    delete = twin(adelete)
    move = twin(amove)
    reprioritise = twin(areprioritise)

    # For handles

    async def act(self, target: Filter | Sequence[str], verb: Verb) -> list[str]:
        """Do an operator's verb; the ids that it was done to."""
        return await (await self._connect()).act(target, verb)

    async def record(self, id: str) -> JobRecord:
        """What the store has of one job. Raises `JobNotFound`."""
        found = await (await self._connect()).get([id])
        if not found:
            raise JobNotFound(f"there is no job {id}: it never was, was deleted, or retention dropped it")
        return self.reveal(found[0])

    async def store(self) -> Store:
        """Where they are."""
        return await self._connect()

    @property
    def ends(self) -> Ends:
        """Who waits for the end of jobs in this event loop."""
        loop = asyncio.get_running_loop()
        if loop not in self._ends:
            self._ends[loop] = Ends(self._connect)
        return self._ends[loop]

    def reveal(self, record: JobRecord) -> JobRecord:
        """A job as far as it can be opened here."""
        return self._vault.reveal(record)

    def decode(self, record: JobRecord) -> Any:
        """A job's result, by its task's annotation where the task is known here."""
        results, data = self._results(record.task), self.open(record, "result")
        if results is not None:
            return results.decode_result(data)
        return None if data is None else plain_value(data)

    def open(self, job: JobRecord | NewJob, field: str) -> bytes | None:
        """One stored field of a job, decrypted. Raises `DecodeError` where that cannot be done."""
        return self._vault.field(job, field)

    def placed(self, placed: Placed, job: NewJob) -> Job[Any]:
        """The handle of a job that was just put, or of the one that stands for it."""
        handle: Job[Any] = Job(self, placed.id, placed.new, None, placed.state, job if placed.new else None)
        if placed.new and self._enqueued:
            self._enqueued(handle)
        return handle

    def handle(self, record: JobRecord) -> Job[Any]:
        return Job(self, record.id, False, self.reveal(record))


def moment(seconds: float | None) -> datetime | None:
    """A stored time in UTC."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
