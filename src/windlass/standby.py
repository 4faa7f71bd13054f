"""Looks at alerts and tells people where no worker does: from the dashboard, and from `windlass alerts check`."""

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable

from msgspec import MsgspecError, Struct, json
from msgspec.structs import replace

from windlass.alert import QUEUE, TASK, Message, Target, Waiting
from windlass.app import App
from windlass.clock import boot_time
from windlass.errors import Conflict, StoreError
from windlass.model import Doc, Filter, JobRecord, State, Verb
from windlass.notice import send
from windlass.store.contract import ALERT, STANDBY, Store
from windlass.store.documents import named, now_of
from windlass.view import living, nobody
from windlass.worker.alarms import LOOK_EVERY, Alarms, declared

logger = logging.getLogger("windlass.standby")

GRACE = 30.0
"""Seconds without a worker, as while one is replaced, before somebody else does what workers do."""

ENOUGH = 60.0
"""Seconds that one of those who are told may take."""

TURN = 1.5 * ENOUGH
"""Seconds for which one process tells, and others wait."""

MOST = 20
"""Messages that are told at a time."""

LONGEST = 600.0
"""Seconds, at most, between two tries to tell one."""

WAITING = (State.READY, State.SCHEDULED)

NOBODYS = ""
"""The origin of alerts that no worker has brought into the store yet."""


class Tried(Struct, frozen=True):
    """One message that was tried to be told to `who`, and why that is not done with; empty: it is."""

    job: str
    who: str
    error: str


class Standby:
    """Does for the alerts of an app what workers do, as long as there is none; and sends what none would send."""

    def __init__(self, host: App) -> None:
        self._host = host
        self._alone = 0.0
        self._again: dict[str, tuple[float, float]] = {}

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            pause = LOOK_EVERY * random.uniform(0.5, 1.5)  # noqa: S311 - spreads load
            await asyncio.sleep(pause)
            try:
                await self._watch(await self._host.connect(), pause)
            except StoreError as error:
                logger.warning("alerts could not be looked at this time: %s", error)
            except Exception:
                logger.exception("alerts could not be looked at this time")

    async def _watch(self, store: Store, pause: float) -> None:
        self._alone = 0.0 if living(await store.workers()) else self._alone + pause
        alone = self._alone >= GRACE
        if alone:
            await bring(store, self._host, NOBODYS)
            await Alarms(store).look((await store.load(ALERT, due=0)).docs)
        old = await now_of(store) - GRACE

        def fits(job: JobRecord) -> bool:
            return (alone or job.enqueued_at < old) and boot_time() >= self._again.get(job.id, (0.0, 0.0))[0]

        for one in await hand_over(store, self._host, fits):
            if one.error:
                logger.warning("alert %s: %s", one.who, one.error)
                pause = min(LONGEST, 2 * self._again.get(one.job, (0.0, LOOK_EVERY))[1])
                self._again[one.job] = boot_time() + pause, pause
            else:
                self._again.pop(one.job, None)


async def bring(store: Store, host: App, origin: str) -> None:
    """Bring those alerts of an app into the store that are not there; a worker that comes later decides."""
    there = await named(store, ALERT, host.alerts)
    new = {name: alert for name, alert in host.alerts.items() if name not in there}
    with contextlib.suppress(Conflict):  # a worker starts just now
        if new:
            await store.save(declared(new, {}, origin, await now_of(store)))


async def stranded(store: Store, host: App) -> list[JobRecord]:
    """The messages of an app's alerts that wait and that no running worker would send."""
    lines = [line for line in await store.stats() if line.queue == QUEUE and line.state in WAITING]
    workers = await store.workers() if lines else []
    return [
        job
        for line in lines
        if line.task.removeprefix(TASK) in host.alerts and nobody(line, workers)
        for job in (await store.find(Filter(queue=QUEUE, task=line.task, state=line.state), MOST)).jobs
    ]


async def hand_over(store: Store, host: App, fits: Callable[[JobRecord], bool] = bool) -> list[Tried]:
    """Send stranded messages that fit from here, and drop their jobs. Nothing while another process does so."""
    if not any(map(fits, await stranded(store, host))):
        return []
    turn = await take_turn(store)
    if turn is None:
        return []
    try:
        jobs = [job for job in await stranded(store, host) if fits(job)]  # another may have told of some
        return await asyncio.gather(*[tell(store, host, job) for job in jobs[:MOST]])
    finally:
        with contextlib.suppress(StoreError):
            await store.save([replace(turn, gone=True)])


async def take_turn(store: Store) -> Doc | None:
    """The document that says that it is our turn, for TURN seconds; None if it is another's."""
    shelf = await store.load(STANDBY, names=[QUEUE])
    old = next(iter(shelf.docs), None)
    if old is not None and (old.due or 0.0) > shelf.now:
        return None
    version = old.version if old else 0
    try:
        await store.save([Doc(kind=STANDBY, name=QUEUE, version=version, body=b"{}", due=shelf.now + TURN)])
    except Conflict:
        return None
    return next(iter((await store.load(STANDBY, names=[QUEUE])).docs), None)


async def tell(store: Store, host: App, job: JobRecord) -> Tried:
    """Send a message from here, and drop its job."""
    alert = host.alerts[job.task.removeprefix(TASK)]
    try:
        args = json.decode(job.args, type=Waiting)
    except MsgspecError:
        return Tried(job.id, alert.name, "its job cannot be read")
    if not 0 <= args.at < len(alert.targets):
        return Tried(job.id, alert.name, f"it tells {len(alert.targets)} by now, and this was for number {args.at + 1}")
    target = alert.targets[args.at]
    message = Message(kind=args.kind, name=alert.name, text=args.text, since=args.since)
    error = await tried(host, target, message, job.id)
    if not error:
        try:
            await store.act([job.id], Verb.DELETE)
        except StoreError as failed:
            error = f"told, but its job could not be dropped: {failed}"
    return Tried(job.id, f"{alert.name}: {target!r}", error)


async def tried(host: App, target: Target, message: Message, id: str) -> str:
    """Tell it once; why it did not arrive, or an empty text."""
    try:
        await asyncio.wait_for(send(target, message, host, id), ENOUGH)
    except Exception as error:
        return str(error) or type(error).__name__
    return ""
