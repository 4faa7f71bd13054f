"""Workers at run time, `app.workers`: who works and what that takes, and asking one to end."""

from collections.abc import Iterable
from functools import partial

from msgspec import Struct
from msgspec.structs import replace

from windlass import pause, usage
from windlass.access import Access
from windlass.blocking import twin
from windlass.errors import WorkerNotFound, WorkerTooOld
from windlass.model import Doc, WorkerInfo
from windlass.pause import WORKER, Pause
from windlass.store.contract import PAUSE, REPORT, Store
from windlass.store.documents import Load, Save, Work, all_docs, now_of
from windlass.usage import Report, Usage
from windlass.values import visible

ASKED_FOR = 86_400.0
"""Seconds after which an ask that no worker has taken along is dropped."""

SPEAKS_WITHIN = 30.0
"""Seconds from its start within which a worker that can be drained has told what it takes; it does so at once."""

Found = list[WorkerInfo]


class Told(Struct, frozen=True):
    """What workers tell of themselves, and which are asked to end, by id."""

    reports: dict[str, Report]
    asked: frozenset[str]


class Workers:
    """The workers on an app's store. Each call has a twin with an `a` in front for asynchronous code."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def alist(self) -> Found:
        """The registered workers with their runners, oldest first; what they take is at most some ten seconds old."""
        return await workers_in(await self._access.connect())

    async def adrain(self, id: str) -> None:
        """Ask a worker to end, as SIGTERM does: it takes no more jobs within a second or two, what it runs may end
        within its grace, and then its process ends.

        Nothing here starts another one. Raises `WorkerNotFound`, `WorkerTooOld`.
        """
        store = await self._access.connect()
        told = await told_in(store)  # before who is there: a worker that ends takes its report along
        found = [one for one in await store.workers() if one.id == id]
        if not found:
            raise missing(id)
        if found[0].alive and id not in told.reports and await now_of(store) - found[0].started_at > SPEAKS_WITHIN:
            raise too_old(found[0])
        await self._access.ado(partial(ask, id))

    drain = twin(adrain)
    list = twin(alist)


def missing(id: str) -> WorkerNotFound:
    """The error for an id that no worker has."""
    return WorkerNotFound(f"there is no worker {id}: it has ended, or it never was. windlass workers lists them")


def too_old(worker: WorkerInfo) -> WorkerTooOld:
    """The error for a worker that never told what it takes, so that it does not look whether it shall end either."""
    return WorkerTooOld(
        f"worker {worker.id[:8]} does not hear this: it is of an older version. "
        f"Send SIGTERM to its process, {worker.pid} on {visible(worker.host)}"
    )


def ask(id: str) -> Work[None]:
    """Ask that worker to end."""
    shelf = yield Load(PAUSE, [WORKER + id])
    if not shelf.docs:
        body, due = pause.write(Pause(since=shelf.now)), shelf.now + ASKED_FOR
        yield Save([Doc(kind=PAUSE, name=WORKER + id, version=0, body=body, due=due)])


async def workers_in(store: Store) -> Found:
    """The workers of a store, with what is told of them."""
    return with_told(await store.workers(), await told_in(store))


async def told_in(store: Store) -> Told:
    """What stands in a store about workers."""
    reports = {doc.name: usage.read(doc.body) async for doc in all_docs(store, REPORT)}
    asks = (await store.load(PAUSE, after=WORKER)).docs
    return Told(reports, frozenset(doc.name.removeprefix(WORKER) for doc in asks if doc.name.startswith(WORKER)))


def with_told(workers: Iterable[WorkerInfo], told: Told) -> Found:
    """The same workers with what is told of them."""
    return [one_with(one, told.reports.get(one.id, Report()), one.id in told.asked) for one in workers]


def one_with(worker: WorkerInfo, report: Report, asked: bool) -> WorkerInfo:
    """A worker with its report."""
    runners = tuple(replace(runner, usage=report.runners.get(runner.id, Usage())) for runner in worker.runners)
    return replace(worker, runners=runners, usage=report.total, draining=asked or report.stopping)
