"""Enqueueing what tasks call: inside of a running job as its children, which it finds when it runs again."""

from collections.abc import Coroutine, Generator, Sequence
from typing import Any, Protocol

from windlass import blocking
from windlass.context import current
from windlass.jobs import Job, Jobs
from windlass.lineage import Lineage
from windlass.model import NewJob, Verb
from windlass.store.tx import adrive, drive
from windlass.vault import Vault

TRIES = 5
"""How often calls are named anew, because others had their ids: a run of this job that was thought to be dead, or one
of another job of its id, which was deleted."""


Stored = tuple[Sequence[NewJob], list[Job[Any]]]
Steps = Generator[list[NewJob] | Coroutine[Any, Any, None], Any, Stored]
"""Jobs to store, whose handles it wants, and what else is to be done."""


class Places(Protocol):
    """Where jobs are stored."""

    @property
    def jobs(self) -> Jobs:
        """All that there are."""

    @property
    def vault(self) -> Vault:
        """What seals them."""

    def place(self, jobs: Sequence[NewJob], tx: Any = None) -> list[Job[Any]]:
        """Store jobs, on this thread; inside `tx` if one is given."""

    async def aplace(self, jobs: Sequence[NewJob], tx: Any = None) -> list[Job[Any]]:
        """Store jobs without blocking the event loop."""


class Kin:
    """The way of calls into the store of an app. `often`: the same calls may come again."""

    def __init__(self, app: Places) -> None:
        self._app = app

    def enqueue(self, jobs: Sequence[NewJob], tx: Any, *, often: bool) -> Stored:
        """Store calls on this thread; as what they were stored, and the handles."""
        run = current().lineage
        if run is None or not any(job.fresh for job in jobs):
            return jobs, self._app.place(jobs, tx)
        blocking.refuse_in_loop("aenqueue" if len(jobs) == 1 else "aenqueue_many")
        return drive(
            self._steps(run, jobs, outside=tx is None, often=often),
            lambda step: self._app.place(step, tx) if isinstance(step, list) else blocking.run(step),
        )

    async def aenqueue(self, jobs: Sequence[NewJob], tx: Any, *, often: bool) -> Stored:
        """`enqueue`, without blocking the event loop."""
        run = current().lineage
        if run is None or not any(job.fresh for job in jobs):
            return jobs, await self._app.aplace(jobs, tx)
        return await adrive(
            self._steps(run, jobs, outside=tx is None, often=often),
            lambda step: self._app.aplace(step, tx) if isinstance(step, list) else step,
        )

    def _steps(self, run: Lineage, jobs: Sequence[NewJob], *, outside: bool, often: bool) -> Steps:
        """Store calls as children: those whose ids others have are named anew. `outside`: of any transaction."""
        if not run.ready:
            yield self._load(run)
        named = run.name(jobs, self._app.vault)
        handles = list((yield named))
        for _ in range(TRIES):
            if not (places := strange(run, jobs, named, handles)):
                break
            again = [jobs[at] for at in places]
            run.again(again)
            yield self._load(run)
            anew = run.name(again, self._app.vault)
            for at, own, handle in zip(places, anew, (yield anew), strict=True):
                named[at], handles[at] = own, handle
        if outside and (failed := run.failed([job.id for job in handles if not job.new])):
            yield self._repeat(handles, failed)
        if not often:
            run.placed(jobs)
        return named, handles

    async def _load(self, run: Lineage) -> None:
        await run.load((await self._app.jobs.store()).get, self._app.vault)

    async def _repeat(self, handles: Sequence[Job[Any]], failed: Sequence[str]) -> None:
        """Run children again that failed in a run before this one."""
        await self._app.jobs.act(failed, Verb.RETRY)
        for job in handles:
            if job.id in failed:
                await job.arefresh()


def strange(run: Lineage, jobs: Sequence[NewJob], named: Sequence[NewJob], handles: Sequence[Job[Any]]) -> list[int]:
    """The places of calls that were not stored because there was a job already of an id that was thought to be new."""
    calls = zip(jobs, named, handles, strict=True)
    return [
        at
        for at, (job, own, handle) in enumerate(calls)
        if own is not job and not handle.new and handle.id == own.id and run.strange(own.id)
    ]
