"""The supervisor: starts runners, renews their lease, and sees to it that no job runs twice or is forgotten.

It never imports user code, so nothing that a task does can keep it from beating.
"""

import asyncio
import contextlib
import logging
import math
import signal
from collections.abc import Callable, Collection, Coroutine
from functools import partial
from typing import Any

from windlass.clock import SystemClock
from windlass.errors import ConfigError, StoreError
from windlass.machine import megabytes, oom_kills, resident
from windlass.metrics import Found
from windlass.model import Ending, Held, Orders, State
from windlass.pause import View
from windlass.store.contract import Store
from windlass.store.dispatch import make_store
from windlass.vault import Vault
from windlass.worker.board import Deadline
from windlass.worker.duties import Duties
from windlass.worker.exporter import Exporter
from windlass.worker.fires import Fires
from windlass.worker.health import Health, Vitals
from windlass.worker.hosting import adopt_orphans, reap_strays
from windlass.worker.http import Answer
from windlass.worker.limits import Limits
from windlass.worker.losses import losses
from windlass.worker.messages import (
    Broken,
    Cancel,
    Counted,
    Hello,
    Left,
    Pause,
    Paused,
    Slots,
    Spent,
    Stop,
    Wake,
    Welcome,
)
from windlass.worker.pauses import Pauses
from windlass.worker.pulse import Pulse
from windlass.worker.readings import processes, readings
from windlass.worker.reports import Reports
from windlass.worker.seat import Seat, Spec
from windlass.worker.timed import Calls, timed

logger = logging.getLogger("windlass.worker")

TICK = 0.25
"""Seconds between two looks at the runners' boards."""

OVERTIME = 1.0
"""Seconds that an attempt may run over its deadline before its runner is ended."""

LAST_CALL = 5.0
"""Seconds that the neighbours of an overdue attempt get to finish."""

KILL_AT = 5 / 6
"""The part of the lease without a good beat after which runners are killed; see also `runner.py`."""

QUICK_DEATH = 5.0
"""Seconds of life below which a runner counts as one that cannot start."""

HELD_FOR = 2.0
"""Seconds that a runner's word of what it holds is passed on."""

FLUSH = 1.5
"""Seconds beyond the grace that runners get to end what runs and to hand in what they have."""

HAND_BACK = 13.0
"""Seconds that a stopping worker tries to hand back what killed runners had, should the store not answer."""


class Supervisor:
    """One worker: `processes` runners of one app, kept alive until told to stop."""

    def __init__(self, spec: Spec, processes: int, *, on_event: Callable[[str], None] = logger.info) -> None:
        self.exit_code = 0
        self._spec = spec
        self._processes = processes
        self._say = on_event
        self._clock = SystemClock()
        self._seats: set[Seat] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._hello: Hello | None = None
        self._store: Store | None = None
        self._pulse: Pulse | None = None
        self._fires: Fires | None = None
        self._stopping = asyncio.Event()
        self._signalled = False
        self._hurry = asyncio.Event()
        self._enlisted = asyncio.Event()
        self._edited = asyncio.Event()
        self._turned = self._manned = self._clock.boot()
        self._health = Health(self._vitals)
        self._calls = Calls()
        self._deaths = 0
        self._exporter = Exporter(self._readings)
        self._health.routes["/metrics"] = self._metrics

    async def run(self) -> int:
        """Work until stopped; the exit code of the process."""
        adopt_orphans()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN or number == signal.SIGTERM:  # as under nohup
                loop.add_signal_handler(number, self.stop)
        await self._health.open(self._spec.health)
        self._spawn_task(self._health.run())
        self._spawn_task(self._watch_boards())
        seats = [self._spawn_task(self._keep_seat(number)) for number in range(self._processes)]
        try:
            await self._wait_any(self._enlisted, self._stopping)
            if not self._stopping.is_set():
                assert self._store
                assert self._hello
                assert self._pulse
                pulse = self._pulse
                self._spawn_task(pulse.run())
                keep = {State(state): seconds for state, seconds in self._hello.keep.items()}
                self._spawn_task(Duties(self._store, keep).run())
                self._fires = Fires(self._store, Vault(self._hello.keys))
                self._spawn_task(self._fires.run())
                self._spawn_task(self._exporter.run())
                pids = partial(processes, self._seats)
                self._spawn_task(Reports(self._store, lambda: pulse.id, pids, self._stopping).run())
                self._spawn_task(Pauses(self._store, self._hold, every=not self._spec.queues).run())
            await self._stopping.wait()
            self._health.stopping()
            await self._drain(seats)
        finally:
            self._health.close()
            for task in self._tasks:
                task.cancel()
            await self._leave()
        return self.exit_code

    def stop(self) -> None:
        """A signal: begin to stop; the second time, stop waiting. Somebody's drain before it does not count."""
        if self._signalled:
            self._hurry.set()
        self._signalled = True
        self._stopping.set()

    def _vitals(self) -> Vitals:
        now = self._clock.boot()
        pulse = self._pulse
        ready = [seat for seat in self._seats if seat.ready]
        return Vitals(
            worker=pulse.id if pulse else "",
            ready=len(ready),
            slots=sum(seat.used for seat in ready),
            stopping=self._stopping.is_set(),
            lease=self._hello.lease if self._hello else 0.0,
            beat=now - pulse.last if pulse and pulse.id else None,
            turn=now - self._turned,
            manned=now - self._manned,
        )

    def _readings(self) -> Found:
        return readings(self._vitals(), self._seats, self._pulse, self._deaths)

    async def _metrics(self) -> Answer:
        self._exporter.add((), self._calls.take())
        return await self._exporter.answer()

    async def restart_runners(self) -> None:
        """Replace every runner by one with fresh code, letting running jobs end first."""
        self._edited.set()
        for seat in tuple(self._seats):
            seat.expected = True
            seat.send(Stop(grace=2.0))

    # Runners

    async def _keep_seat(self, number: int) -> None:
        """Keep one runner at work: start it, and the next one when it has ended or is spent."""
        pause = 0.0
        line: list[Seat] = []
        lives: set[asyncio.Task[None]] = set()
        while not self._stopping.is_set():
            try:
                seat = await Seat.start(self._spec)
            except OSError as error:
                logger.error("a runner cannot be started, trying again: %s", error)
                await asyncio.sleep(1)
                continue
            seat.line, seat.number = line, number
            line.append(seat)
            self._seats.add(seat)
            if self._stopping.is_set():
                seat.expected = True
                seat.send(Stop(grace=0))
            started = self._clock.boot()
            life = self._spawn_task(self._live(seat))
            lives.add(life)
            spent = asyncio.create_task(seat.spent.wait())
            await asyncio.wait({life, spent}, return_when=asyncio.FIRST_COMPLETED)
            spent.cancel()
            if seat.broken and self._spec.reload and not self._stopping.is_set():
                self._edited.clear()
                await self._wait_any(self._edited, self._stopping)
                continue
            pause = pause_after(seat, self._clock.boot() - started, pause)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)
        await self._all(lives)

    async def _live(self, seat: Seat) -> None:
        """Serve a runner to its end, and clean up behind it."""
        try:
            await self._serve(seat)
            await seat.gone()
        finally:
            await self._bury(seat)
            seat.line.remove(seat)
            self._share(seat.line)

    async def _serve(self, seat: Seat) -> None:
        """Answer what a runner says until its end."""
        async for message in seat.messages():
            if isinstance(message, Hello):
                await self._enlist(message)
                if self._pulse and self._pulse.id:
                    self._seat(seat)
            elif isinstance(message, Broken):
                self._broken(seat, message)
            elif isinstance(message, Spent):
                logger.info("runner %s (pid %d) %s and is replaced", seat.id[:8], seat.pid, message.why)
                seat.spent.set()
            elif isinstance(message, Left):
                seat.slots = message.running
                self._share(seat.line)
            else:
                if isinstance(message, Counted):
                    self._exporter.add(message.rows, message.calls)
                seat.hear(message, self._clock.boot())

    def _seat(self, seat: Seat) -> None:
        """Let a runner begin; the one that it replaces claims nothing more, and its slots pass on as its jobs end."""
        assert self._pulse
        seat.board.beat = self._pulse.last
        seat.ready = True
        older_ones = seat.line[: seat.line.index(seat)]
        seat.send(Welcome(worker=self._pulse.id, learnt=older_ones[-1].learnt if older_ones else None))
        for older in older_ones:
            older.retired = True
            older.send(Pause())
        self._share(seat.line)

    def _share(self, line: list[Seat]) -> None:
        """Give the youngest runner of a line the slots that the older ones do not need any more."""
        heir = next((seat for seat in reversed(line) if seat.ready), None)
        if heir is not None:
            slots = self._spec.concurrency - sum(seat.slots for seat in line if seat is not heir)
            if slots != heir.slots:
                heir.slots = slots
                heir.send(Slots(slots=slots))

    def _broken(self, seat: Seat, message: Broken) -> None:
        logger.error("%s", message.text)
        seat.broken = True
        if self._hello is None and not self._spec.reload:
            self.exit_code = 1
            self._stopping.set()

    async def _enlist(self, hello: Hello) -> None:
        """Register this worker when its first runner has told where jobs live."""
        if self._hello is not None:
            await self._wait_any(self._enlisted, self._stopping)
            return
        self._hello = hello
        self._store = store = timed(make_store(hello.url), self._calls)
        self._pulse = Pulse(
            self._store,
            self._clock,
            hello.lease,
            queues=self._spec.queues,
            concurrency=self._spec.concurrency * self._processes,
            held=self._held,
            on_orders=self._follow,
            on_evicted=self._end_all,
            on_enlisted=self._enlisted.set,
        )
        pulse = self._pulse
        self._exporter.begin(store, self._clock, lambda: pulse.id)
        while not self._stopping.is_set():
            try:
                await self._health.open(hello.health)
                await self._store.open()
                await self._pulse.enlist()
                self._say(hello.url)
                return
            except ConfigError as error:
                logger.error("%s", error)
                self.exit_code = 1
                self._stopping.set()
                return
            except StoreError as error:
                logger.error("the store cannot be used yet, trying again: %s", error)
                await asyncio.sleep(1)

    async def _bury(self, seat: Seat) -> None:
        """Make sure that no code of a runner runs any more, then hand its jobs back."""
        death = await seat.kill()
        self._seats.discard(seat)
        expected = seat.expected or (seat.retired and death.code == 0)
        ending = Ending.INTERRUPTED if expected else Ending.LOST
        if not expected and not seat.broken:
            self._deaths += 1
            logger.error("runner %s (pid %d) died: %s; its jobs go back", seat.id[:8], seat.pid, death)
        store = self._store
        if store is None or not seat.ready:
            seat.close()
            return
        outcomes = seat.overdue_outcomes(self._clock.boot() - OVERTIME)
        back = 0
        while True:
            try:
                back = await asyncio.wait_for(store.release([seat.id], ending, outcomes), 10)
                break
            except (StoreError, TimeoutError) as error:
                logger.error("the jobs of runner %s could not be handed back yet: %s", seat.id[:8], error)
                if self._stopping.is_set():  # the end of the lease gives them back
                    break
                await asyncio.sleep(1)
        if back:
            logger.warning("%d unfinished jobs of runner %s are ready again", back, seat.id[:8])
        seat.close()
        lost = back if ending is Ending.LOST else 0
        if lost or outcomes:
            self._exporter.add(await losses(store, seat.held, outcomes, lost))

    # The lease

    def _held(self) -> dict[str, Held]:
        fresh = self._clock.boot() - HELD_FOR
        return {seat.id: seat.held for seat in self._seats if seat.held and seat.held_at > fresh}

    def _follow(self, orders: Orders) -> None:
        assert self._pulse
        kills = oom_kills()
        for seat in self._seats:
            seat.kills = kills
            seat.board.beat = self._pulse.last
            for order in orders.cancel:
                if order.runner == seat.id:
                    seat.send(Cancel(id=order.id, fence=order.fence))
        if orders.due is not None and orders.due < 1.0:
            asyncio.get_running_loop().call_later(orders.due, self._wake_all)
        if self._fires:
            self._fires.hear(orders.fire)

    def _hold(self, view: View) -> None:
        for seat in self._seats:
            seat.send(Paused(view=view))
        if self._pulse and self._pulse.id in view.workers and not self._stopping.is_set():
            self._say("somebody has asked this worker to end")
            self._stopping.set()

    def _wake_all(self) -> None:
        for seat in self._seats:
            seat.send(Wake())

    async def _end_all(self) -> None:
        """End every runner: their jobs are others' now."""
        self._enlisted.clear()
        for seat in tuple(self._seats):
            seat.ready = False
            seat.expected = True
            await seat.kill()

    def _draw_line(self, now: float) -> None:
        """End runners whose lease is nearly over: soon somebody else may run their jobs."""
        for seat in tuple(self._seats):
            if seat.ready and self._hello and now - seat.board.beat > self._hello.lease * KILL_AT:
                logger.error("no good beat for %.1f s: ending runner %s", now - seat.board.beat, seat.id[:8])
                seat.expected = True
                seat.kill_now()

    # Boards

    async def _watch_boards(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            now = self._turned = self._clock.boot()
            self._manned = now if self._seats else self._manned
            reap_strays({seat.pid for seat in self._seats})
            self._draw_line(now)
            for seat in tuple(self._seats):
                if not seat.ready:
                    continue
                try:
                    self._watch(seat, now)
                except Exception:  # a page that a dying runner has scribbled on
                    logger.exception("the board of runner %s cannot be read", seat.id[:8])

    def _watch(self, seat: Seat, now: float) -> None:
        seat.report_blocked(now)
        self._bound(seat)
        if not seat.is_late:
            first = next(iter(seat.board.deadlines()), None)
            if first and now > first.at + OVERTIME:
                self._call_last(seat, first, now)
        elif now > seat.last_call + LAST_CALL and seat.overdue(now - OVERTIME):
            seat.kill_now()

    def _bound(self, seat: Seat) -> None:
        """End a runner that takes far more memory than it may, before the machine runs out of it."""
        assert self._hello
        ceiling = Limits(max_memory=self._hello.max_memory).ceiling
        if ceiling < math.inf and (size := resident(seat.pid)) > ceiling:
            logger.error(
                "runner %s takes %s of memory, more than twice max_memory; it is killed",
                seat.id[:8],
                megabytes(size),
            )
            seat.kill_now()

    def _call_last(self, seat: Seat, first: Deadline, now: float) -> None:
        seat.is_late = True
        seat.expected = True
        logger.error(
            "job %s runs over its timeout of %g s and cannot be stopped; runner %s will be replaced",
            first.claim.id,
            first.timeout,
            seat.id[:8],
        )
        seat.last_call = now
        seat.send(Pause())

    # The end

    async def _drain(self, seats: list[asyncio.Task[None]]) -> None:
        """Let runners finish within the grace, then end them."""
        grace = self._hello.grace if self._hello else 0.0
        for seat in self._seats:
            seat.expected = True
            seat.send(Stop(grace=grace))
        if self._seats:
            self._say(f"stopping: waiting up to {grace:g} s for running jobs")
        hurry = asyncio.create_task(self._hurry.wait())
        empty = asyncio.create_task(self._all(seats))
        await asyncio.wait({empty, hurry}, timeout=grace + FLUSH, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        for seat in tuple(self._seats):
            seat.kill_now()
        await asyncio.wait({empty}, timeout=HAND_BACK)

    async def _all(self, tasks: Collection[asyncio.Task[None]]) -> None:
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _leave(self) -> None:
        if self._pulse and self._store:
            await self._exporter.end()
            await self._pulse.leave()
            await self._store.close()

    def _spawn_task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            logger.critical("the supervisor failed", exc_info=error)
            self.exit_code = 1
            self._stopping.set()

    async def _wait_any(self, *events: asyncio.Event) -> None:
        waits = [asyncio.create_task(event.wait()) for event in events]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()


def pause_after(seat: Seat, lived: float, pause: float) -> float:
    """Seconds until the successor of a runner starts; longer than the `pause` before if it could not start."""
    fine = seat.expected or seat.spent.is_set() or lived > QUICK_DEATH
    return 0.0 if fine else min(10.0, pause * 2 or 0.2)
