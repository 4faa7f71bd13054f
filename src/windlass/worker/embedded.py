"""A worker inside the user's own process: `async with app.worker(): ...`."""

import asyncio
import contextlib
import json
import logging
import os
import socket
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from windlass.clock import SystemClock, boot_time
from windlass.config import Concurrency, Config, slots_of
from windlass.context import Takes
from windlass.errors import StoreError
from windlass.hook import Hook
from windlass.machine import usable_cpus
from windlass.model import Orders, RunnerInfo
from windlass.overview import Overview, opened
from windlass.pause import View
from windlass.store.contract import Store
from windlass.vault import Vault
from windlass.worker.adaptive import Adaptive
from windlass.worker.board import Board
from windlass.worker.children import PATIENCE, Children
from windlass.worker.completion import Transactions
from windlass.worker.declare import UNNAMED, Declared, declare
from windlass.worker.duties import Duties
from windlass.worker.fires import Fires
from windlass.worker.limits import Limits
from windlass.worker.messages import Bye, Cancel, Drained, FromSupervisor, Holding, Paused, Wake, Welcome
from windlass.worker.pauses import Pauses
from windlass.worker.pulse import Pulse
from windlass.worker.queues import Queues
from windlass.worker.reports import OWN, Reports
from windlass.worker.runner import AnyTask, Runner
from windlass.worker.start import command
from windlass.worker.tallies import Tallies
from windlass.worker.telling import telling
from windlass.worker.timed import Calls
from windlass.worker.wire import Channel

logger = logging.getLogger("windlass.worker")

FIRST_WORD = 5.0
"""Seconds that the body of the `with` waits until the app's schedules and subscriptions are in the store."""

TELL_EVERY = 2.0
"""Seconds between two words to the helper of what is held."""


@contextlib.asynccontextmanager
async def embedded(
    store: Store,
    config: Config,
    tasks: Mapping[str, AnyTask],
    spec: str,
    state: Any,
    *,
    hooks: Sequence[Hook],
    vault: Vault,
    declared: Declared,
    gates: Takes,
    concurrency: Concurrency,
    queues: str,
) -> AsyncIterator[Runner]:
    """Run jobs beside the body of the `with`; at its end, or drained, running jobs get the grace to finish."""
    id, board = str(uuid.uuid4()), Board.make()
    slots = slots_of(concurrency, config.processes)
    adaptive = Adaptive(ceiling=slots, processes=1) if concurrency == "auto" else None
    limits = Limits(config.max_jobs, config.max_memory)
    children = Children(command("windlass.worker.child", id), spec, size=min(slots, usable_cpus()), limits=limits)
    transactions = Transactions(config.url, id, vault)
    runner = Runner(
        id,
        store,
        tasks,
        slots=slots,
        queues=Queues(queues),
        children=children,
        board=board,
        clock=SystemClock(),
        lease=config.lease,
        state=state,
        hooks=hooks,
        limit=config.max_payload,
        vault=vault,
        transactions=transactions,
        gates=gates,
        meter=adaptive.meter if adaptive else None,
    )
    beating = beat_here if config.url.endswith(":memory:") else beat_beside
    asked = asyncio.Event()
    try:
        async with contextlib.AsyncExitStack() as registered:
            beat = beating(store, config, runner, board, slots, queues, asked)
            worker = await registered.enter_async_context(beat)
            await store.join(RunnerInfo(id=id, worker=worker, pid=os.getpid(), tasks=tuple(tasks)))
            declaring = asyncio.create_task(declare(store, vault, spec or UNNAMED, worker, declared))
            await asyncio.wait({declaring}, timeout=FIRST_WORD)
            beside = [declaring, asyncio.create_task(watch_lease(runner, board, config.lease))]
            beside += [asyncio.create_task(adaptive.run(runner.resize))] if adaptive else []
            async with counting(runner, store, worker), working(runner, children, config.grace, asked, registered):
                try:
                    yield runner
                finally:
                    for one in beside:
                        one.cancel()
    finally:
        transactions.close()
        board.close()


@contextlib.asynccontextmanager
async def working(
    runner: Runner, children: Children, grace: float, asked: asyncio.Event, registered: contextlib.AsyncExitStack
) -> AsyncIterator[None]:
    """Run jobs during the body of the `with`, or until somebody has asked this worker to end; then it leaves."""
    work = asyncio.create_task(runner.run())
    work.add_done_callback(tell_end)

    async def end() -> None:
        await asked.wait()
        async with contextlib.aclosing(registered):
            try:
                await finish(runner, work, grace)
            finally:
                await children.close(grace=0)  # before the worker leaves: what it holds then goes to others

    ending = asyncio.create_task(end())
    try:
        yield
    finally:
        asked.set()
        await ending


@contextlib.asynccontextmanager
async def counting(runner: Runner, store: Store, worker: str) -> AsyncIterator[None]:
    """Write down what its jobs come to during the body of the `with`."""
    tallies = Tallies(store, Overview(opened(store), SystemClock()), lambda: worker)
    writing = asyncio.create_task(tallies.run())
    try:
        async with telling(runner, store, Calls(), lambda word: tallies.add(word.rows)):
            yield
    finally:
        writing.cancel()
        await tallies.flush()


async def finish(runner: Runner, work: asyncio.Task[None], grace: float) -> None:
    """Let running jobs end within `grace` seconds, then end them uncharged."""
    runner.stop_claiming()
    _, late = await asyncio.wait({work}, timeout=grace)
    if late:
        runner.interrupt()
        await asyncio.wait({work}, timeout=PATIENCE + 1.0)
        work.cancel()
    with contextlib.suppress(asyncio.CancelledError, StoreError):
        await work


def tell_end(work: asyncio.Task[None]) -> None:
    """Say so when the runner ended by itself: nothing runs here any more."""
    if not work.cancelled() and (error := work.exception()):
        logger.critical("the worker in this process has ended and runs no more jobs; start it anew", exc_info=error)


async def watch_lease(runner: Runner, board: Board, lease: float) -> None:
    """End what runs, uncharged, when the lease is nearly over: somebody else may have the jobs soon."""
    while True:
        await asyncio.sleep(lease / 15)
        if boot_time() - board.beat > lease * 2 / 3 and runner.running:
            logger.error("no good beat for %.1f s: the jobs that run in this process are ended", lease * 2 / 3)
            runner.interrupt()


def drained(asked: asyncio.Event) -> None:
    """Tell those who wait for it that somebody drains this worker."""
    if not asked.is_set():
        logger.warning("somebody has asked the worker in this process to end: it runs no more jobs; start it anew")
        asked.set()


@contextlib.asynccontextmanager
async def beat_here(
    store: Store, config: Config, runner: Runner, board: Board, concurrency: int, queues: str, asked: asyncio.Event
) -> AsyncIterator[str]:
    """Beat in this event loop: for a store that lives and dies with this process."""

    def follow(orders: Orders) -> None:
        board.beat = pulse.last
        for order in orders.cancel:
            runner.cancel(order.id, order.fence)
        fires.hear(orders.fire)
        if orders.due is not None:
            runner.wake()

    async def evicted() -> None:
        runner.interrupt()

    def hear(view: View) -> None:
        runner.hold(view)
        if pulse.id in view.workers:
            drained(asked)

    fires = Fires(store, Vault(config.keys))
    pulse = Pulse(
        store,
        SystemClock(),
        config.lease,
        queues=queues,
        concurrency=concurrency,
        held=lambda: {runner.id: runner.held()},
        on_orders=follow,
        on_evicted=evicted,
    )
    await pulse.enlist()
    board.beat = pulse.last
    duties = Duties(store, config.keep)
    pauses = Pauses(store, hear, every=not queues)
    reports = Reports(store, lambda: pulse.id, lambda: {OWN: (), runner.id: (os.getpid(),)}, asked)
    work = [asyncio.create_task(one.run()) for one in (pulse, duties, fires, pauses, reports)]
    try:
        yield pulse.id
    finally:
        for task in work:
            task.cancel()
        await pulse.leave()


@contextlib.asynccontextmanager
async def beat_beside(
    store: Store, config: Config, runner: Runner, board: Board, concurrency: int, queues: str, asked: asyncio.Event
) -> AsyncIterator[str]:
    """Beat in a small process of its own, which no user code can keep from it."""
    ours, theirs = socket.socketpair()
    given = {
        "id": runner.id,
        "url": config.url,
        "lease": config.lease,
        "keys": config.keys,
        "keep": {str(key): seconds for key, seconds in config.keep.items()},
        "queues": queues,
        "concurrency": concurrency,
        "channel": theirs.fileno(),
        "board": board.fd,
    }
    command = [sys.executable, "-m", "windlass.worker.beater"]
    helper = subprocess.Popen(command, pass_fds=(theirs.fileno(), board.fd), stdin=subprocess.PIPE)  # noqa: ASYNC220
    assert helper.stdin
    with helper.stdin as inlet:  # everybody may read the arguments of a process, and the URL may hold a password
        inlet.write(json.dumps(given).encode())
    theirs.close()
    channel = await Channel.open(ours, FromSupervisor)
    first = await channel.receive()
    if not isinstance(first, Welcome):
        channel.close()
        raise StoreError("the helper that renews the lease did not start; its error stands above")

    async def obey() -> None:
        async for message in channel:
            if isinstance(message, Cancel):
                runner.cancel(message.id, message.fence)
            elif isinstance(message, Wake):
                runner.wake()
            elif isinstance(message, Paused):
                runner.hold(message.view)
            elif isinstance(message, Drained):
                drained(asked)
        logger.critical("the helper that renews the lease is gone: nothing new is started here; start the worker anew")

    async def tell() -> None:
        while True:
            await asyncio.sleep(TELL_EVERY)
            channel.send(Holding(held=runner.held()))

    work = [asyncio.create_task(obey()), asyncio.create_task(tell())]
    try:
        yield first.worker
    finally:
        for task in work:
            task.cancel()
        channel.send(Bye())
        await channel.flush()
        channel.close()
        await asyncio.to_thread(helper.wait)
