"""Looks at alerts and tells people where no worker does: from the dashboard, and from `windlass alerts check`."""

import asyncio
import contextlib
import logging
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from operator import itemgetter

from msgspec import MsgspecError, Struct, json
from msgspec.structs import replace

from windlass.alert import QUEUE, TASK, Message, Target, Waiting, read
from windlass.app import App
from windlass.clock import boot_time
from windlass.errors import Conflict, Fail, StoreError
from windlass.model import Doc, Filter, JobRecord, State, Verb
from windlass.notice import STALE, send
from windlass.store.contract import ALERT, STANDBY, Store
from windlass.store.documents import all_docs, now_of
from windlass.view import living, nobody
from windlass.worker.alarms import LOOK_EVERY, Alarms, declared, given_up

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


class Tried(Struct, frozen=True):
    """One message that was tried to be told to `who`, and what went wrong (empty: nothing). `left`: its job is there
    still, to be tried again."""

    job: str
    who: str
    error: str
    left: bool


class Standby:
    """Does for the alerts of an app what workers do, as long as there is none; and sends what none would send."""

    def __init__(self, host: App, origin: str) -> None:
        self._host = host
        self._origin = origin
        self._alone = 0.0
        self._brought = False
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
            if not self._brought:  # once: who began last decides
                self._brought = await bring(store, self._host, self._origin)
            await Alarms(store).look((await store.load(ALERT, due=0)).docs)
        old = await now_of(store) - GRACE

        def fits(job: JobRecord) -> bool:
            return (alone or job.enqueued_at < old) and boot_time() >= self._again.get(job.id, (0.0, 0.0))[0]

        for one in await hand_over(store, self._host, fits) or ():
            if one.error:
                logger.warning("alert %s: %s", one.who, one.error)
            if one.left:
                pause = min(LONGEST, 2 * self._again.get(one.job, (0.0, LOOK_EVERY))[1])
                self._again[one.job] = boot_time() + pause, pause
            else:
                self._again.pop(one.job, None)


async def bring(store: Store, host: App, origin: str) -> bool:
    """Bring an app's alerts into the store as its code says them now, but for those that workers have declared, or
    another app: they decide. Whether that is done; else somebody else does the same just now."""
    stored = {doc.name: doc async for doc in all_docs(store, ALERT)}
    ours = {name: doc for name, doc in stored.items() if is_brought(doc, origin)}
    said = {name: alert for name, alert in host.alerts.items() if name in ours or name not in stored}
    docs = declared(said, ours, origin, await now_of(store), brought=True) + given_up(said, ours, origin)
    try:
        if docs:
            await store.save(docs)
    except Conflict:
        return False
    return True


def is_brought(doc: Doc, origin: str) -> bool:
    """Whether an alert is this app's, and no worker has declared it."""
    found = read(doc.body)
    return found is not None and found.brought and found.origin == origin


async def stranded(store: Store, host: App, fits: Callable[[JobRecord], bool]) -> list[JobRecord]:
    """Messages of an app's alerts that wait, fit, and that no running worker would send: MOST at most, of each who is
    told in turn, so that one who does not answer hides no other."""
    lines = [line for line in await store.stats() if line.queue == QUEUE and line.state in WAITING]
    workers = await store.workers() if lines else []
    found: dict[str, JobRecord] = {}
    for line in lines:
        if line.task.removeprefix(TASK) in host.alerts and nobody(line, workers):
            which = Filter(queue=QUEUE, task=line.task, state=line.state)
            found |= {job.id: job async for job in all_jobs(store, which) if fits(job)}
    return in_turn(found.values())[:MOST]


def in_turn(jobs: Iterable[JobRecord]) -> list[JobRecord]:
    """First the first of each who is told, then the second of each, and so on."""
    before: Counter[tuple[str, int | None]] = Counter()
    places: list[tuple[int, JobRecord]] = []
    for job in jobs:
        args = waiting(job)
        who = job.task, args.at if args else None
        places.append((before[who], job))
        before[who] += 1
    return [job for _, job in sorted(places, key=itemgetter(0))]


async def all_jobs(store: Store, which: Filter) -> AsyncIterator[JobRecord]:
    """The jobs that match, read in pieces."""
    page = await store.find(which)
    for job in page.jobs:
        yield job
    while page.after is not None:
        page = await store.find(which, after=page.after)
        for job in page.jobs:
            yield job


def waiting(job: JobRecord) -> Waiting | None:
    """What a job tells; None for one that cannot be read."""
    try:
        return json.decode(job.args, type=Waiting)
    except MsgspecError:
        return None


async def hand_over(store: Store, host: App, fits: Callable[[JobRecord], bool] = bool) -> list[Tried] | None:
    """Send stranded messages that fit from here, and drop their jobs. None: another process does so just now."""
    if not await stranded(store, host, fits):
        return []
    turn = await take_turn(store)
    if turn is None:
        return None
    try:
        jobs = await stranded(store, host, fits)  # another may have told of some
        old = await now_of(store) - STALE
        return await asyncio.gather(*[tell(store, host, job, last=job.enqueued_at < old) for job in jobs])
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


async def tell(store: Store, host: App, job: JobRecord, *, last: bool) -> Tried:
    """Send a message from here, and drop its job: if it was told, if it never can be, or if this was the last try."""
    alert = host.alerts[job.task.removeprefix(TASK)]
    who, over = alert.name, True
    args = waiting(job)
    if args is None:
        error = "its job cannot be read"
    elif not 0 <= args.at < len(alert.targets):
        error = f"it tells {len(alert.targets)} by now, and this was for number {args.at + 1}"
    else:
        target = alert.targets[args.at]
        who = f"{alert.name}: {target!r}"
        message = Message(kind=args.kind, name=alert.name, text=args.text, since=args.since)
        error, final = await tried(host, target, message, job.id)
        over = not error or final or last
    if not over:
        return Tried(job.id, who, error, left=True)
    try:
        await store.act([job.id], Verb.DELETE)
    except StoreError as failed:
        return Tried(job.id, who, f"{error or 'told'}, but its job could not be dropped: {failed}", left=True)
    return Tried(job.id, who, error and f"{error}; this message is not tried again", left=False)


async def tried(host: App, target: Target, message: Message, id: str) -> tuple[str, bool]:
    """Tell it once; why it did not arrive, or an empty text, and whether it never will."""
    try:
        await asyncio.wait_for(send(target, message, host, id), ENOUGH)
    except Exception as error:
        return str(error) or type(error).__name__, isinstance(error, Fail)
    return "", False
