"""Jobs as users hold them: a handle to one, and the way to all."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from windlass.blocking import run
from windlass.codec import show
from windlass.errors import JobCancelled, JobFailed, JobNotFound, ResultTimeout
from windlass.model import Attempt, Failure, Filter, JobRecord, Placed, Progress, State, Verb
from windlass.store.contract import Store

R = TypeVar("R")

FIRST_LOOK, LONGEST_LOOK = 0.02, 1.0
"""Seconds between two looks at a job that is waited for, should no hint come; doubled each time."""


class Results(Protocol):
    """How a task's results are read."""

    def decode_result(self, data: bytes | None) -> Any:
        """A stored result as the task's annotation says."""


class Job(Generic[R]):
    """One job. What it tells is as of the last look: `refresh` looks again."""

    def __init__(self, jobs: "Jobs", id: str, record: JobRecord | None, state: State | None, new: bool = False) -> None:
        self.id = id
        self.new = new
        self._jobs = jobs
        self._record = record
        self._state = state

    def __repr__(self) -> str:
        return f"<Job {self.id} {self.state}>"

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
        if self._record is not None:
            return str(self._record.state)
        return str(self.record.state if self._state is None else self._state)

    @property
    def task(self) -> str:
        """The name of its task."""
        return self.record.task

    @property
    def queue(self) -> str:
        """The queue that it was put into."""
        return self.record.queue

    @property
    def priority(self) -> int:
        """-100 to 100, higher first."""
        return self.record.priority

    @property
    def attempt(self) -> int:
        """How many tries were charged so far."""
        return self.record.attempt

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """The tries that did not succeed, each with its error."""
        return self.record.attempts

    @property
    def error(self) -> Failure | None:
        """The last error."""
        return next((one.failure for one in reversed(self.record.attempts) if one.failure), None)

    @property
    def progress(self) -> Progress | None:
        """What the running code said last of how far it is."""
        return self.record.progress

    @property
    def reason(self) -> str | None:
        """Why it was cancelled or snoozed."""
        return self.record.reason

    @property
    def args(self) -> dict[str, Any]:
        """The arguments by name, as plain JSON."""
        return show(self.record.args)

    @property
    def tags(self) -> tuple[str, ...]:
        """Its tags, sorted."""
        return self.record.tags

    @property
    def meta(self) -> Mapping[str, Any]:
        """The data that `using(meta=…)` gave it."""
        found = msgspec.json.decode(self.record.options or b"{}").get("meta", {})
        return dict(found)

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
        return at(self.record.started_at)

    @property
    def finished_at(self) -> datetime | None:
        """When it ended for good."""
        return at(self.record.finished_at)

    def refresh(self) -> "Job[R]":
        """Look again. Raises `JobNotFound`."""
        return run(self.arefresh())

    async def arefresh(self) -> "Job[R]":
        """`refresh` for async code."""
        self._record = await self._jobs.record(self.id)
        return self

    def result(self, timeout: float | None = None) -> R:
        """Wait, at most `timeout` seconds, until the job is over; what its task returned.

        Raises `JobFailed`, `JobCancelled`, `ResultTimeout`, `JobNotFound`.
        """
        return run(self.aresult(timeout))

    async def aresult(self, timeout: float | None = None) -> R:
        """`result` for async code."""
        try:
            async with asyncio.timeout(timeout):
                record = await self._over()
        except TimeoutError:
            raise ResultTimeout(
                f"job {self.id} was {self.state} when the {timeout:g} s for its result were over; it goes on"
            ) from None
        if record.state is State.SUCCEEDED:
            result: R = self._jobs.decode(record)
            return result
        if record.state is State.CANCELLED:
            raise JobCancelled(f"job {self.id} ({record.task}) was cancelled: {record.reason or 'no reason was given'}")
        failure = self.error or Failure(type="", message="no error was kept")
        raise JobFailed(
            f"job {self.id} ({record.task}) failed at attempt {record.attempt}: {failure.type}: {failure.message}",
            failure.type,
            failure.traceback,
        )

    async def _over(self) -> JobRecord:
        look = FIRST_LOOK
        while True:
            await self.arefresh()
            record = self.record
            if record.state.final:
                return record
            await self._jobs.hint(look)
            look = min(LONGEST_LOOK, look * 2)

    def cancel(self) -> bool:
        """End the job: at once if it does not run, else its runner is told. False if it was over."""
        return run(self.acancel())

    async def acancel(self) -> bool:
        """`cancel` for async code."""
        return await self._act(Verb.CANCEL)

    def retry(self) -> bool:
        """Run the job again (or now, if it waits for its time), its attempts counted anew. False if it cannot be."""
        return run(self.aretry())

    async def aretry(self) -> bool:
        """`retry` for async code."""
        return await self._act(Verb.RETRY)

    def delete(self) -> bool:
        """Forget the job and its history. False while it runs."""
        return run(self.adelete())

    async def adelete(self) -> bool:
        """`delete` for async code."""
        return await self._act(Verb.DELETE)

    async def _act(self, verb: Verb) -> bool:
        done = bool(await self._jobs.act([self.id], verb))
        if done and verb is not Verb.DELETE:
            await self.arefresh()
        return done


class JobList(list[Job[Any]]):
    """Some jobs, and `after`: what to give to `find` for those that follow (None: there are none)."""

    after: str | None = None


class Jobs:
    """The jobs of an app's store."""

    def __init__(self, connect: Callable[[], Awaitable[Store]], results: Callable[[str], Results | None]) -> None:
        self._connect = connect
        self._results = results

    def get(self, id: str) -> Job[Any]:
        """The job of that id. Raises `JobNotFound`."""
        return run(self.aget(id))

    async def aget(self, id: str) -> Job[Any]:
        """`get` for async code."""
        return self._handle(await self.record(id))

    def get_many(self, ids: Sequence[str]) -> list[Job[Any]]:
        """The jobs that exist of these, in their order, in one look."""
        return run(self.aget_many(ids))

    async def aget_many(self, ids: Sequence[str]) -> list[Job[Any]]:
        """`get_many` for async code."""
        return [self._handle(record) for record in await (await self._connect()).get(ids)]

    def find(
        self,
        *,
        state: str | None = None,
        task: str | None = None,
        queue: str | None = None,
        tag: str | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> JobList:
        """At most `limit` jobs that match: what is to come next first, what is over newest first."""
        return run(self.afind(state=state, task=task, queue=queue, tag=tag, limit=limit, after=after))

    async def afind(
        self,
        *,
        state: str | None = None,
        task: str | None = None,
        queue: str | None = None,
        tag: str | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> JobList:
        """`find` for async code."""
        store = await self._connect()
        page = await store.find(which(state, task, queue, tag), limit, after)
        found = JobList(self._handle(record) for record in page.jobs)
        found.after = page.after
        return found

    def count(
        self, *, state: str | None = None, task: str | None = None, queue: str | None = None, tag: str | None = None
    ) -> int:
        """How many jobs match."""
        return run(self.acount(state=state, task=task, queue=queue, tag=tag))

    async def acount(
        self, *, state: str | None = None, task: str | None = None, queue: str | None = None, tag: str | None = None
    ) -> int:
        """`count` for async code."""
        return await (await self._connect()).count(which(state, task, queue, tag))

    async def act(self, target: Filter | Sequence[str], verb: Verb) -> list[str]:
        """Do an operator's verb; the ids that it was done to."""
        return await (await self._connect()).act(target, verb)

    async def record(self, id: str) -> JobRecord:
        """What the store has of one job. Raises `JobNotFound`."""
        found = await (await self._connect()).get([id])
        if not found:
            raise JobNotFound(f"there is no job {id}: it never was, was deleted, or retention dropped it")
        return found[0]

    async def hint(self, timeout: float) -> None:
        """Wait until a job may have finished, at most `timeout` seconds."""
        await (await self._connect()).wait("done", timeout)

    def decode(self, record: JobRecord) -> Any:
        """A job's result, by its task's annotation where the task is known here."""
        results = self._results(record.task)
        if results is not None:
            return results.decode_result(record.result)
        return None if record.result is None else msgspec.json.decode(record.result)

    def placed(self, placed: Placed) -> Job[Any]:
        """The handle of a job that was just put."""
        return Job(self, placed.id, None, placed.state, placed.new)

    def _handle(self, record: JobRecord) -> Job[Any]:
        return Job(self, record.id, record, record.state)


def which(state: str | None, task: str | None, queue: str | None, tag: str | None) -> Filter:
    """A filter. Raises `ValueError` for a state that there is none of."""
    if state is not None and state not in list(State):
        raise ValueError(f"expected state= as one of {', '.join(State)}; {state!r} came")
    return Filter(state=None if state is None else State(state), task=task, queue=queue, tag=tag)


def at(seconds: float | None) -> datetime | None:
    """A stored moment in UTC."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
