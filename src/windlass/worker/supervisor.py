"""The supervisor: starts runners, renews their lease, and sees to it that no job runs twice or is forgotten.

It never imports user code, so nothing that a task does can keep it from beating.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version

from windlass.clock import SystemClock
from windlass.errors import ConfigError, Evicted, StoreError
from windlass.model import Ending, Orders, State, WorkerInfo
from windlass.store.contract import Store
from windlass.store.dispatch import make_store
from windlass.worker.duties import Duties
from windlass.worker.messages import Broken, Cancel, Hello, Pause, Stop, Wake, Welcome
from windlass.worker.seat import Seat, Spec

logger = logging.getLogger("windlass.worker")

TICK = 0.25
"""Seconds between two looks at the runners' boards."""

OVERTIME = 1.0
"""Seconds that an attempt may run over its deadline before its runner is ended."""

LAST_CALL = 5.0
"""Seconds that the neighbours of an overdue attempt get to finish."""

STOP_AT, CANCEL_AT, KILL_AT = 1 / 2, 2 / 3, 5 / 6
"""Parts of the lease without a good beat after which nothing is claimed, jobs are cancelled, runners are killed."""

QUICK_DEATH = 5.0
FLUSH = 3.0
"""Seconds beyond the grace that runners get to hand in what they have."""


@dataclass(slots=True)
class Timing:
    """The intervals that follow from a lease, in seconds: each beat and its timeout fit twice into a third of it."""

    lease: float

    @property
    def beat(self) -> float:
        return min(1.0, self.lease / 5)

    @property
    def timeout(self) -> float:
        return self.lease * 2 / 15


class Supervisor:
    """One worker: `processes` runners of one app, kept alive until told to stop."""

    def __init__(self, spec: Spec, processes: int, *, on_event: Callable[[str], None] = logger.info) -> None:
        self.id = str(uuid.uuid4())
        self.exit_code = 0
        self._spec = spec
        self._processes = processes
        self._say = on_event
        self._clock = SystemClock()
        self._seats: set[Seat] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._hello: Hello | None = None
        self._store: Store | None = None
        self._timing = Timing(15)
        self._last_beat = 0.0
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        self._enlisted = asyncio.Event()

    async def run(self) -> int:
        """Work until stopped; the exit code of the process."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        seats = [self._spawn_task(self._keep_seat()) for _ in range(self._processes)]
        try:
            await self._wait_any(self._enlisted, self._stopping)
            if not self._stopping.is_set():
                self._spawn_task(self._beat_for_ever())
                self._spawn_task(self._watch_boards())
                assert self._store
                assert self._hello
                keep = {State(state): seconds for state, seconds in self._hello.keep.items()}
                self._spawn_task(Duties(self._store, keep).run())
            await self._stopping.wait()
            await self._drain()
            await asyncio.gather(*seats, return_exceptions=True)
        finally:
            for task in self._tasks:
                task.cancel()
            await self._leave()
        return self.exit_code

    def stop(self) -> None:
        """Begin to stop; the second time, stop waiting."""
        if self._stopping.is_set():
            self._hurry.set()
        self._stopping.set()

    async def restart_runners(self) -> None:
        """Replace every runner by one with fresh code, letting running jobs end first."""
        for seat in tuple(self._seats):
            seat.expected = True
            seat.send(Stop(grace=2.0))

    # Runners

    async def _keep_seat(self) -> None:
        """Keep one runner running: start it, wait for its end, clean up behind it, start the next."""
        pause = 0.0
        while not self._stopping.is_set():
            seat = await Seat.start(self._spec)
            self._seats.add(seat)
            started = self._clock.boot()
            try:
                await self._serve(seat)
                await seat.gone()
            finally:
                await self._bury(seat)
            if self._stopping.is_set():
                return
            lived = self._clock.boot() - started
            pause = 0.0 if seat.expected or lived > QUICK_DEATH else min(10.0, pause * 2 or 0.2)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)

    async def _serve(self, seat: Seat) -> None:
        """Answer what a runner says until its end."""
        async for message in seat.messages():
            if isinstance(message, Hello):
                await self._enlist(message)
                seat.board.beat = self._last_beat
                seat.ready = True
                seat.send(Welcome(worker=self.id))
            elif isinstance(message, Broken):
                self._broken(seat, message)
            else:
                seat.hear(message, self._clock.boot())

    def _broken(self, seat: Seat, message: Broken) -> None:
        logger.error("%s", message.text)
        seat.expected = False
        if self._hello is None and not self._spec.reload:
            self.exit_code = 1
            self._stopping.set()

    async def _enlist(self, hello: Hello) -> None:
        """Register this worker when its first runner has told where jobs live."""
        if self._hello is not None:
            await self._enlisted.wait()
            return
        self._hello = hello
        self._timing = Timing(hello.lease)
        store = make_store(hello.url)
        while True:
            sent = self._clock.boot()
            try:
                await store.open()
                await store.enlist(self._info(hello))
                break
            except ConfigError as error:
                logger.error("%s", error)
                self.exit_code = 1
                self._stopping.set()
                return
            except StoreError as error:
                logger.error("the store cannot be used yet, trying again: %s", error)
                await asyncio.sleep(1)
        self._store = store
        self._last_beat = sent
        self._enlisted.set()
        self._say(f"worker {self.id[:8]} is ready: {self._processes} × {self._spec.concurrency} slots")

    def _info(self, hello: Hello) -> WorkerInfo:
        return WorkerInfo(
            id=self.id,
            host=socket.gethostname(),
            pid=os.getpid(),
            version=version("windlass"),
            lease=hello.lease,
            queues=self._spec.queues,
            concurrency=self._spec.concurrency * self._processes,
        )

    async def _bury(self, seat: Seat) -> None:
        """Make sure that no code of a runner runs any more, then hand its jobs back."""
        code = await seat.kill()
        self._seats.discard(seat)
        ending = Ending.INTERRUPTED if seat.expected else Ending.LOST
        if not seat.expected:
            logger.error("runner %s (pid %d) died: %s; its jobs go back", seat.id[:8], seat.pid, died_of(code))
        store = self._store
        if store is None or not seat.ready:
            seat.close()
            return
        outcomes = seat.overdue_outcomes()
        while True:
            try:
                back = await asyncio.wait_for(store.release([seat.id], ending, outcomes), 10)
                break
            except (StoreError, TimeoutError) as error:
                logger.error("the jobs of runner %s could not be handed back yet: %s", seat.id[:8], error)
                await asyncio.sleep(1)
        if back:
            logger.warning("%d unfinished jobs of runner %s are ready again", back, seat.id[:8])
        seat.close()

    # The lease

    async def _beat_for_ever(self) -> None:
        """Renew the lease, pass on orders, and draw the stop lines when it cannot be renewed."""
        while True:
            began = self._clock.boot()
            try:
                orders = await asyncio.wait_for(self._beat(), self._timing.timeout)
            except (StoreError, TimeoutError) as error:
                logger.warning("the lease could not be renewed: %s", error or "the store did not answer in time")
            else:
                await self._follow(orders, began)
            self._draw_lines()
            await asyncio.sleep(max(0.0, self._timing.beat - (self._clock.boot() - began)))

    async def _beat(self) -> Orders:
        assert self._store
        now = self._clock.boot()
        held = {seat.id: seat.held for seat in self._seats if seat.held and now - seat.held_at < self._timing.beat * 2}
        return await self._store.beat(self.id, held)

    async def _follow(self, orders: Orders, sent: float) -> None:
        if orders.evicted:
            await self._start_over()
            return
        self._last_beat = sent
        for seat in self._seats:
            seat.board.beat = sent
            for order in orders.cancel:
                if order.runner == seat.id:
                    seat.send(Cancel(id=order.id, fence=order.fence))
        if orders.due is not None and orders.due < self._timing.beat:
            asyncio.get_running_loop().call_later(orders.due, self._wake_all)
        if orders.dead and self._store:
            with contextlib.suppress(StoreError):
                for worker in await self._store.reap():
                    logger.warning("worker %s stopped beating; its jobs are ready again", worker[:8])

    def _wake_all(self) -> None:
        for seat in self._seats:
            seat.send(Wake())

    async def _start_over(self) -> None:
        """Somebody took this worker for dead: its jobs are others' now, so end what runs and come back anew."""
        logger.error("this worker was taken for dead and its jobs were handed to others; starting over")
        for seat in tuple(self._seats):
            seat.ready = False
            seat.expected = True
            await seat.kill()
        self.id = str(uuid.uuid4())
        assert self._store
        assert self._hello
        sent = self._clock.boot()
        with contextlib.suppress(StoreError):
            await self._store.enlist(self._info(self._hello))
            self._last_beat = sent

    def _draw_lines(self) -> None:
        if self._clock.boot() - self._last_beat > self._timing.lease * KILL_AT:
            for seat in tuple(self._seats):
                if seat.ready:
                    logger.error("no good beat for %.0f s: ending runner %s", self._timing.lease * KILL_AT, seat.id[:8])
                    seat.expected = True
                    seat.kill_now()

    # Boards

    async def _watch_boards(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            now = self._clock.boot()
            for seat in tuple(self._seats):
                if not seat.ready:
                    continue
                seat.report_blocked(now)
                deadline = seat.board.deadline
                if deadline and now > deadline + OVERTIME and seat.last_call is None:
                    self._call_last(seat, now)
                elif seat.last_call is not None and now > seat.last_call + LAST_CALL:
                    seat.expected = True
                    seat.kill_now()

    def _call_last(self, seat: Seat, now: float) -> None:
        claim, _, timeout = seat.board.overdue()
        logger.error(
            "job %s runs over its timeout of %g s and cannot be stopped; runner %s will be replaced",
            claim.id,
            timeout,
            seat.id[:8],
        )
        seat.last_call = now
        seat.send(Pause())

    # The end

    async def _drain(self) -> None:
        """Let runners finish within the grace, then end them."""
        grace = self._hello.grace if self._hello else 0.0
        for seat in self._seats:
            seat.expected = True
            seat.send(Stop(grace=grace))
        if self._seats:
            self._say(f"stopping: waiting up to {grace:g} s for running jobs")
        empty = asyncio.create_task(self._until_empty())
        hurry = asyncio.create_task(self._hurry.wait())
        await asyncio.wait({empty, hurry}, timeout=grace + FLUSH, return_when=asyncio.FIRST_COMPLETED)
        for task in (empty, hurry):
            task.cancel()
        for seat in tuple(self._seats):
            seat.kill_now()

    async def _until_empty(self) -> None:
        while self._seats:
            await asyncio.sleep(0.02)

    async def _leave(self) -> None:
        if self._store:
            with contextlib.suppress(StoreError, Evicted, TimeoutError):
                await asyncio.wait_for(self._store.retire(self.id), 10)
            await self._store.close()

    def _spawn_task(self, work: object) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.ensure_future(work)  # type: ignore[arg-type]
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


def died_of(code: int) -> str:
    """A return code in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {-code} ({signal.Signals(-code).name})"
    except ValueError:
        return f"signal {-code}"


