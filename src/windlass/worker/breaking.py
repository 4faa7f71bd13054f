"""The circuit breakers of a runner's tasks: counts what fails, and tries one job where a breaker is open."""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from windlass import breaker, pause
from windlass.breaker import HOLD, Breaker
from windlass.errors import Conflict, StoreError
from windlass.model import Claim, Doc, Outcome
from windlass.pause import TASK, Pause, View
from windlass.store.contract import BREAKER, PAUSE, Store
from windlass.task import Task

logger = logging.getLogger("windlass.worker")

PACE = 0.5
"""Seconds between two words to the store, however much fails."""

WANT_EVERY = 1.0
"""Seconds between two looks whether this runner could try a job."""

UNUSED = 5.0
"""Seconds after which the right to try a job goes to others if there was none for this runner."""

Turn = Callable[[Pause, float], Pause | None]
"""What becomes of a pause at a moment by the store; None: it ends."""


@dataclass(slots=True)
class Right:
    """The right to try one job of a task: since when, when it was renewed, and which attempt uses it."""

    since: float = field(default_factory=time.monotonic)
    renewed: float = field(default_factory=time.monotonic)
    attempt: tuple[str, int] | None = None


class Breaking:
    """Speaks with the store about breakers, at most once in PACE seconds, and only if something failed or is tried."""

    def __init__(
        self,
        store: Store,
        runner: str,
        tasks: Mapping[str, Task[..., Any]],
        *,
        free: Callable[[], int],
        tell: Callable[[], object],
    ) -> None:
        self._store = store
        self._runner = runner
        self._breakers = {name: (task.name, task.breaker) for name, task in tasks.items() if task.breaker}
        self._rules = dict(self._breakers.values())
        self._free = free
        self._tell = tell
        self._view = View()
        self._failed: dict[str, tuple[int, str]] = {}
        self._ended: dict[str, tuple[bool | None, str]] = {}
        self._rights: dict[str, Right] = {}
        self._not_before: dict[str, float] = {}
        self._turn = asyncio.Event()

    @property
    def tries(self) -> Collection[str]:
        """The tasks of which one job may be claimed now although they are paused."""
        return [task for task, right in self._rights.items() if right.attempt is None and task in self._view.tasks]

    def hear(self, view: View) -> None:
        """What is paused now."""
        self._view = view
        if view.probes & self._rules.keys():
            self._turn.set()

    def claimed(self, claim: Claim) -> None:
        """A job begins; if its task is paused, it is the one that is tried."""
        found = self._breakers.get(claim.task)
        right = self._rights.get(found[0]) if found else None
        if right is not None and right.attempt is None:
            right.attempt = (claim.id, claim.fence)

    def ended(self, claim: Claim, outcome: Outcome) -> None:
        """An attempt is over."""
        found = self._breakers.get(claim.task)
        if found is None:
            return
        task, rule = found
        fine = breaker.verdict(rule, outcome)
        kind = outcome.failure.type if outcome.failure else ""
        right = self._rights.get(task)
        if right is not None and right.attempt == (claim.id, claim.fence):
            self._ended[task] = fine, kind
        elif fine is False:
            self._failed[task] = self._failed.get(task, (0, ""))[0] + 1, kind
        else:
            return
        self._turn.set()

    async def run(self) -> None:
        """Count and try until cancelled."""
        while self._rules:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._turn.wait(), self._next())
            self._turn.clear()
            for work in (self._count, self._judge, self._renew, self._ask):
                await self._do(work)
            await asyncio.sleep(PACE * random.uniform(0.8, 1.2))  # noqa: S311 - runners that fail together speak apart

    def _next(self) -> float | None:
        """Seconds until there may be something to do of itself."""
        if self._wanted():
            return WANT_EVERY
        return HOLD / 3 if self._rights else None

    async def _do(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except Conflict:  # somebody else was faster: look again
            self._turn.set()
        except (StoreError, TimeoutError) as error:
            logger.warning("a circuit breaker could not be seen to this time: %s", error)
            self._turn.set()
        except Exception:
            logger.exception("a circuit breaker could not be seen to this time")

    # Closed

    async def _count(self) -> None:
        for task, (more, kind) in tuple(self._failed.items()):
            rule = self._rules[task]
            if not (await self._store.load(PAUSE, names=[TASK + task])).docs:
                shelf = await self._store.load(BREAKER, names=[task])
                old = shelf.docs[0] if shelf.docs else Doc(kind=BREAKER, name=task, version=0, body=b"")
                at = breaker.added(rule, breaker.read(old.body), more, shelf.now)
                if breaker.trips(rule, at):
                    await self._open(task, breaker.opened(rule, kind, shelf.now))
                else:
                    await self._store.save([replace(old, body=breaker.write(at))])
            seen, kind = self._failed.pop(task)
            if seen > more:  # meanwhile
                self._failed[task] = seen - more, kind
                self._turn.set()

    async def _open(self, task: str, opened: Pause) -> None:
        doc = Doc(kind=PAUSE, name=TASK + task, version=0, body=pause.write(opened))
        await self._store.save([doc], drop=[(BREAKER, task)])
        logger.error("task %s is paused everywhere: %s. One job is tried from time to time", task, opened.reason)
        self._view = replace(self._view, tasks=self._view.tasks | {task})
        self._tell()

    # Open

    def _wanted(self) -> list[str]:
        """The tasks that somebody may try, if it can be this runner."""
        now = time.monotonic()
        return [
            task
            for task in self._view.probes & self._rules.keys() - self._rights.keys()
            if self._free() > 0 and self._not_before.get(task, 0.0) <= now
        ]

    async def _ask(self) -> None:
        """Take the right to try one job where nobody has it."""
        for task in self._wanted():
            with contextlib.suppress(Conflict):  # another runner was faster
                if await self._turn_to(task, self._take):
                    self._rights[task] = Right()
                    self._tell()

    def _take(self, found: Pause, now: float) -> Pause:
        return breaker.taken(found, self._runner, now) if pause.may_try(found, now) else found

    async def _renew(self) -> None:
        now = time.monotonic()
        for task, right in tuple(self._rights.items()):
            if right.attempt is None and now - right.since > UNUSED:
                del self._rights[task]
                self._not_before[task] = now + UNUSED * random.uniform(1, 3)  # noqa: S311 - lets others try
                self._tell()
                await self._turn_to(task, lambda found, _: breaker.released(found), mine=True)
            elif now - right.renewed > HOLD / 3:
                right.renewed = now
                if not await self._turn_to(task, self._keep, mine=True):
                    del self._rights[task]

    def _keep(self, found: Pause, now: float) -> Pause:
        return breaker.taken(found, self._runner, now)

    async def _judge(self) -> None:
        """Close a breaker, or leave it open, as the job that was tried tells."""
        for task, (fine, kind) in tuple(self._ended.items()):
            if await self._turn_to(task, judge(self._rules[task], fine, kind), mine=True) and fine:
                logger.warning("task %s goes on: a job that was tried succeeded", task)
                self._view = replace(self._view, tasks=self._view.tasks - {task})
            del self._ended[task]
            self._rights.pop(task, None)
            self._tell()

    async def _turn_to(self, task: str, turn: Turn, *, mine: bool = False) -> bool:
        """Change a breaker's pause, if it is one, and if it is still this runner's where it has to be; whether it was
        changed. Raises `Conflict`."""
        shelf = await self._store.load(PAUSE, names=[TASK + task])
        for doc in shelf.docs:
            found = pause.read(doc.body)
            if found.until is None or (mine and found.prober != self._runner):
                return False
            new = turn(found, shelf.now)
            if new == found:
                return False
            await self._store.save([replace(doc, gone=True) if new is None else replace(doc, body=pause.write(new))])
            return True
        return False

    @property
    def view(self) -> View:
        """What is paused, as far as this runner knows better than it was told."""
        return self._view


def judge(rule: Breaker, fine: bool | None, kind: str) -> Turn:
    """What becomes of a pause when the job that was tried ended so."""
    if fine:
        return lambda found, now: None
    if fine is None:
        return lambda found, now: breaker.released(found)
    return lambda found, now: breaker.reopened(rule, found, kind, now)
