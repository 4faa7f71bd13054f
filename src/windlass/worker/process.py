"""The main of a runner process: import the app, say hello to the supervisor, run jobs until told to stop."""

import asyncio
import faulthandler
import json
import logging
import math
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from windlass.app import App
from windlass.clock import SystemClock, boot_time
from windlass.errors import Evicted, WindlassError
from windlass.loader import load
from windlass.machine import usable_cpus
from windlass.model import RunnerInfo
from windlass.pause import View
from windlass.source.bridge import bridging
from windlass.store.contract import Store
from windlass.worker.adaptive import Adaptive
from windlass.worker.board import Board
from windlass.worker.children import Children
from windlass.worker.completion import Transactions
from windlass.worker.declare import declare
from windlass.worker.hosting import end_group, fast_loop, lifespan, run_through, stand_alone, why
from windlass.worker.limits import LEAVE_WITHIN, Limits
from windlass.worker.logs import set_up
from windlass.worker.messages import (
    Broken,
    Cancel,
    Child,
    Chosen,
    FromSupervisor,
    Hello,
    Holding,
    Left,
    Pause,
    Paused,
    Slots,
    Spent,
    Stop,
    Wake,
    Welcome,
)
from windlass.worker.queues import Queues
from windlass.worker.relay import relaying
from windlass.worker.runner import Runner
from windlass.worker.start import EX_GONE, command
from windlass.worker.telling import telling
from windlass.worker.timed import Calls, timed
from windlass.worker.wire import Channel

logger = logging.getLogger("windlass.worker")

SWITCH = 0.0002
"""Seconds after which a busy thread yields the interpreter. The store's thread takes a few turns per exchange; at
Python's default of 5 ms each of them would wait longer than the exchange itself takes."""

TICK = 0.5
"""Seconds between two signs of life of the event loop."""

DUMP_AFTER = 1.0
"""Seconds without one after which all stacks are dumped, by a thread that needs no interpreter."""

DECLARE_WITHIN = 5.0
"""Seconds that the first job waits for what the app declares to be in the store."""


class Process:
    """One runner process."""

    def __init__(self, given: dict[str, Any], loop: asyncio.AbstractEventLoop) -> None:
        self._given = given
        self._id: str = given["id"]
        self._board = Board(given["board"])
        self._dump: int = given["dump"]
        self._parent = os.getppid()
        self._lease = 15.0
        self._welcome: asyncio.Future[Welcome] = loop.create_future()
        self._runner: Runner | None = None
        self._adaptive = (
            Adaptive(ceiling=given["concurrency"], processes=given["processes"]) if given["adaptive"] else None
        )
        self._stop_reading: Callable[[], None] = lambda: None
        self._slots = 0
        self._calls = Calls()
        self._view: View | None = None
        self._leaving = False
        self._spent = False
        self._grace: asyncio.TimerHandle | None = None
        self._end_by = math.inf

    async def main(self) -> int:
        """From import to exit code."""
        self._channel = await Channel.open(socket.socket(fileno=self._given["channel"]), FromSupervisor)
        try:
            app = load(self._given["app"])
        except BaseException as error:
            self._channel.send(Broken(text=why(error, self._given["app"])))
            await self._channel.flush()
            return 1
        self._lease = app.config.lease
        limits = Limits(
            app.config.max_jobs if self._given["max_jobs"] is None else self._given["max_jobs"],
            app.config.max_memory if self._given["max_memory"] is None else self._given["max_memory"],
        )
        self._channel.send(
            Hello(
                url=app.config.url,
                lease=app.config.lease,
                grace=app.config.grace,
                keep={str(state): seconds for state, seconds in app.config.keep.items()},
                tasks=tuple(app.tasks),
                max_memory=limits.max_memory,
                health=app.config.health,
                keys=app.config.keys,
            )
        )
        orders = asyncio.create_task(self._obey())
        try:
            return await self._work(app, await self._welcome, limits)
        except Evicted as error:
            logger.error("%s", error)
            return EX_GONE
        finally:
            orders.cancel()

    async def _work(self, app: App, welcome: Welcome, limits: Limits) -> int:
        store = timed(await app.connect(), self._calls)
        children = Children(
            command("windlass.worker.child", self._id),
            self._given["app"],
            size=min(self._given["concurrency"], max(1, usable_cpus() // self._given["processes"])),
            on_pid=lambda pid, alive: self._channel.send(Child(pid=pid, alive=alive)),
            limits=limits,
        )
        try:
            async with relaying(app.outboxes, store), lifespan(app) as state, bridging(app.sources, store) as stop:
                self._stop_reading = stop
                runner = Runner(
                    self._id,
                    store,
                    app.tasks,
                    slots=self._given["concurrency"],
                    queues=Queues(self._given["queues"]),
                    children=children,
                    board=self._board,
                    clock=SystemClock(),
                    lease=self._lease,
                    state=state,
                    hooks=app.hooks,
                    limit=app.config.max_payload,
                    vault=app.vault,
                    transactions=Transactions(app.config.url, self._id, app.vault),
                    gates=app.gates,
                    meter=self._adaptive.meter if self._adaptive else None,
                )
                worker = welcome.worker
                await store.join(RunnerInfo(id=self._id, worker=worker, pid=os.getpid(), tasks=tuple(app.tasks)))
                self._begin(runner)
                threading.Thread(target=self._guard, name="windlass-guard", daemon=True).start()
                beside = [
                    declaring := asyncio.create_task(declare(store, app.vault, self._given["app"], worker, app)),
                    asyncio.create_task(self._tick(runner, limits)),
                    asyncio.create_task(self._adapt(welcome.learnt)),
                ]
                try:
                    # a job that holds the interpreter's lock would stop this write where everybody waits for it
                    await asyncio.wait([declaring], timeout=DECLARE_WITHIN)
                    await self._run(runner, store)
                    if self._leaving:
                        self._end_by = boot_time() + LEAVE_WITHIN
                        self._channel.send(Left(running=0))
                finally:
                    await children.close()
                    for one in beside:
                        one.cancel()
                    faulthandler.cancel_dump_traceback_later()
                    self._board.tick = 0.0  # from here on nobody watches how the event loop turns
        except WindlassError:
            raise
        except Exception as error:
            self._channel.send(Broken(text=f"the runner cannot go on\n{why(error, self._given['app'])}"))
            await self._channel.flush()
            return 1
        await app.aclose()
        return 0

    async def _run(self, runner: Runner, store: Store) -> None:
        async with telling(runner, store, self._calls, self._channel.send):
            await runner.run()

    def _begin(self, runner: Runner) -> None:
        """Let it know what the supervisor has said so far, and hear what it says from now on."""
        self._runner = runner
        self._resize()
        if self._view is not None:
            runner.hold(self._view)

    async def _obey(self) -> None:
        """Do what the supervisor says; when it is gone, so are we."""
        async for message in self._channel:
            runner = self._runner
            if isinstance(message, Welcome):
                self._welcome.set_result(message)
            elif isinstance(message, Slots):
                self._slots = message.slots
                self._resize()
            elif isinstance(message, Paused):
                self._view = message.view
                if runner:
                    runner.hold(message.view)
            elif isinstance(message, Wake) and runner:
                runner.wake()
            elif isinstance(message, Cancel) and runner:
                runner.cancel(message.id, message.fence)
            elif isinstance(message, Pause) and runner:
                runner.stop_claiming()
                self._stop_reading()
                self._leaving = True
                self._channel.send(Left(running=runner.running))
            elif isinstance(message, Stop):
                self._stop(message.grace)
        end_group()

    async def _adapt(self, learnt: Chosen | None) -> None:
        if self._adaptive:
            if learnt:
                self._adaptive.inherit(learnt.limit, learnt.calm)
            await self._adaptive.run(self._choose)

    def _choose(self, limit: int) -> None:
        assert self._adaptive
        self._channel.send(Chosen(limit=limit, calm=dict(self._adaptive.calm)))
        self._resize()

    def _resize(self) -> None:
        """Use the slots that the supervisor gives, or those of them that are good to use."""
        slots = self._slots
        if self._adaptive:
            self._adaptive.given = slots
            slots = min(slots, self._adaptive.limit)
        if self._runner:
            self._runner.resize(slots)

    def _stop(self, grace: float) -> None:
        if self._runner is None:
            end_group()
            return
        self._runner.stop_claiming()
        self._stop_reading()
        if self._grace:
            self._grace.cancel()
        self._grace = asyncio.get_running_loop().call_later(grace, self._give_up)

    def _give_up(self) -> None:
        """The grace is over: end what still runs, uncharged. What does not end the supervisor kills."""
        if self._runner and self._runner.running:
            logger.warning("%d jobs did not end within the grace; they go back", self._runner.running)
            self._runner.interrupt()

    async def _tick(self, runner: Runner, limits: Limits) -> None:
        """Show that the event loop turns, and arm the dump of stacks for when it does not."""
        turns = 0
        while True:
            self._board.tick = now = boot_time()
            faulthandler.dump_traceback_later(DUMP_AFTER, file=self._dump)
            turns += 1
            if turns % 10 == 0:
                self._channel.send(Holding(held=runner.held()))
            if now - self._board.beat > self._lease * 2 / 3:
                runner.interrupt()
            if self._leaving:
                self._channel.send(Left(running=runner.running))
            elif not self._spent and (why := limits.spent(os.getpid(), runner.jobs)):
                self._spent = True
                self._channel.send(Spent(why=why))
            await asyncio.sleep(TICK)

    def _guard(self) -> None:
        """End this process when its supervisor is gone or its time is over, should the event loop be blocked."""
        while True:
            time.sleep(max(0.1, self._lease / 15))
            if boot_time() > self._end_by:
                logger.error("%s did not close within %g s; its process ends anyway", self._given["app"], LEAVE_WITHIN)
                os._exit(0)
            if os.getppid() != self._parent or boot_time() - self._board.beat > self._lease * 5 / 6:
                end_group()


def main() -> None:
    """`windlass.worker.process SPEC`; started by a supervisor only."""
    stand_alone()
    given = json.loads(sys.argv[1])
    set_up(logging.WARNING if given["quiet"] else logging.INFO)
    sys.setswitchinterval(SWITCH)

    loop = (fast_loop() or asyncio.new_event_loop)()
    asyncio.set_event_loop(loop)
    try:
        code = run_through(loop, Process(given, loop).main())
    except BaseException:
        logger.exception("this runner cannot go on")
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # threads that still run user code do not keep us


if __name__ == "__main__":
    main()
