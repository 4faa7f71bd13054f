"""Enqueueing what tasks call: inside of a running job as its children, which it finds when it runs again."""

from collections.abc import Sequence
from typing import Any, Protocol

from windlass import blocking
from windlass.context import current
from windlass.jobs import Job, Jobs
from windlass.lineage import Lineage
from windlass.model import NewJob, Verb
from windlass.vault import Vault

TRIES = 5
"""How often calls are named anew, because others had their ids: a run of this job that was thought to be dead, or one
of another job of its id, which was deleted."""


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

    def enqueue(self, jobs: Sequence[NewJob], tx: Any, *, often: bool) -> tuple[Sequence[NewJob], list[Job[Any]]]:
        """Store calls on this thread; as what they were stored, and the handles."""
        run = current().lineage
        if run is None or not any(job.fresh for job in jobs):
            return jobs, self._app.place(jobs, tx)
        blocking.refuse_in_loop("aenqueue" if len(jobs) == 1 else "aenqueue_many")
        if not run.ready:
            blocking.run(self._load(run))
        for _ in range(TRIES):
            named = run.name(jobs, self._app.vault)
            handles = self._app.place(named, tx)
            if tx is not None or not is_strange(run, jobs, named, handles):
                break
            run.again(jobs)
            blocking.run(self._load(run))
        if tx is None and (failed := run.failed([job.id for job in handles if not job.new])):
            blocking.run(self._repeat(handles, failed))
        if not often:
            run.placed(jobs)
        return named, handles

    async def aenqueue(
        self, jobs: Sequence[NewJob], tx: Any, *, often: bool
    ) -> tuple[Sequence[NewJob], list[Job[Any]]]:
        """`enqueue`, without blocking the event loop."""
        run = current().lineage
        if run is None or not any(job.fresh for job in jobs):
            return jobs, await self._app.aplace(jobs, tx)
        if not run.ready:
            await self._load(run)
        for _ in range(TRIES):
            named = run.name(jobs, self._app.vault)
            handles = await self._app.aplace(named, tx)
            if tx is not None or not is_strange(run, jobs, named, handles):
                break
            run.again(jobs)
            await self._load(run)
        if tx is None and (failed := run.failed([job.id for job in handles if not job.new])):
            await self._repeat(handles, failed)
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


def is_strange(run: Lineage, jobs: Sequence[NewJob], named: Sequence[NewJob], handles: Sequence[Job[Any]]) -> bool:
    """Whether there was a job already of an id that was thought to be new."""
    return any(
        own is not job and not handle.new and handle.id == own.id and run.strange(own.id)
        for job, own, handle in zip(jobs, named, handles, strict=True)
    )
