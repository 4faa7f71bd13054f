"""The main of a process child: import the app, then run jobs for one runner, one at a time.

Coroutine functions run on the event loop. Plain functions run on the main thread outside of it, as in a script:
signals, C code and `asyncio.run` behave. Log lines go to the inherited stderr, as those of every process of a worker.
"""

import asyncio
import contextvars
import logging
import os
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from windlass import policy
from windlass.app import App
from windlass.context import Takes
from windlass.errors import UnknownTask
from windlass.loader import load
from windlass.model import Claim, Outcome
from windlass.policy import Retry
from windlass.task import is_coroutine
from windlass.worker.completion import Transactions
from windlass.worker.errands import Broken, Did, Do, End, FromRunner, Leave, Moved, Ready
from windlass.worker.hosting import end_group, fast_loop, lifespan, run_through, stand_alone, why
from windlass.worker.logs import keeping, set_up
from windlass.worker.pipeline import Running, Stop, perform, perform_blocking, stopped
from windlass.worker.wire import Pipe

logger = logging.getLogger("windlass.worker")

TELL_EVERY = 0.1
"""Seconds between two words of progress to the runner; the last one is always told."""


def tell(pipe: Pipe, message: Ready | Broken | Did | Moved) -> None:
    """Say something to the runner. When it is gone, or cannot be reached any more, so are we."""
    try:
        pipe.send(message)
    except OSError:
        end_group()


class Reports:
    """Tells the runner how far the job is, on a thread of its own, so that the task never waits for that."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self._news: Callable[[], Moved] | None = None
        self._bell = threading.Event()
        self._telling = threading.Lock()
        self._pid = os.getpid()
        self._started = False

    def take(self, news: Callable[[], Moved]) -> None:
        """Tell this soon. What a forked copy of this process says is dropped: the connection is not its own."""
        if os.getpid() != self._pid:
            return
        self._news = news
        self._bell.set()
        if not self._started:
            self._started = True
            threading.Thread(target=self._work, name="windlass-progress", daemon=True).start()

    def flush(self) -> None:
        """Tell now what is not told yet."""
        with self._telling:
            news, self._news = self._news, None
            if news is not None:
                tell(self._pipe, news())

    def _work(self) -> None:
        while True:
            self._bell.wait()
            self._bell.clear()
            self.flush()
            time.sleep(TELL_EVERY)


class Job:
    """The job that this process has now."""

    def __init__(
        self,
        errand: Do,
        runner: str,
        state: Any,
        reports: Reports,
        transactions: Transactions | None,
        gates: Takes | None,
    ) -> None:
        self.claim = errand.claim
        self.context = Running(
            errand.claim, runner=runner, state=state, moved=self._moved, transactions=transactions, gates=gates
        )
        self.work: asyncio.Task[Outcome] | None = None
        self._reports = reports

    def _moved(self) -> None:
        self._reports.take(self._news)

    def _news(self) -> Moved:
        context = self.context
        return Moved(id=self.claim.id, fence=self.claim.fence, progress=context.said, lines=context.logged)

    def cancel(self) -> None:
        """Cancel its coroutine, if it runs as one."""
        if self.work is not None:
            self.work.cancel()


class Alone:
    """The slot of a job that must run in a process of its own: it keeps it."""

    def __init__(self, claim: Claim) -> None:
        self._claim = claim

    async def leave(self, task: str) -> None:
        """Wait with the slot."""
        logger.warning(
            "job %s (%s) waits for a job of %s and keeps its slot, as all that run in processes of their own: with no "
            'other slot it waits in vain. A coroutine, or executor="thread", gives its slot back',
            self._claim.id,
            self._claim.task,
            task,
        )

    async def take(self, task: str) -> None:
        """It has it."""


class Cleared:
    """The slot of a job that is here because its process died. Having come so far that it waits, it goes back to its
    runner, where it waits without a slot. If it ends that process too, it comes back, and then need not wait."""

    def __init__(self, job: Job, loop: asyncio.AbstractEventLoop) -> None:
        self._job = job
        self._loop = loop

    async def leave(self, task: str) -> None:
        """Hand the job back. Raises `CancelledError`."""
        self._job.context.cleared = True
        self._job.context.end(Stop.INTERRUPTED)
        self._loop.call_soon_threadsafe(self._job.cancel)
        raise asyncio.CancelledError

    async def take(self, task: str) -> None:
        """It does not come to that."""


class Child:
    """One process child."""

    def __init__(self, spec: str, pipe: Pipe, loop: asyncio.AbstractEventLoop, runner: str) -> None:
        self._spec = spec
        self._runner = runner
        self._transactions: Transactions | None = None
        self._gates: Takes | None = None
        self._pipe = pipe
        self._loop = loop
        self._reports = Reports(pipe)
        self._state: Any = None
        self._job: Job | None = None
        self._inbox: deque[Job | None] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._closing = asyncio.Event()
        self._pid = os.getpid()

    def main(self) -> int:
        """From import to exit code."""
        threading.Thread(target=self._listen, name="windlass-orders", daemon=True).start()
        try:
            app = load(self._spec)
            self._gates = app.gates
            if self._runner:
                self._transactions = Transactions(app.config.url, self._runner, app.vault)
            opened = self._loop.create_future()
            life = self._loop.create_task(self._live(app, opened))
            life.add_done_callback(lambda life: self._put(None))  # should it end by itself, so do we
            self._state = run_through(self._loop, first_of(opened, life))
        except BaseException as error:
            tell(self._pipe, Broken(text=why(error, self._spec)))
            return 1
        tell(self._pipe, Ready())
        with keeping():
            while (job := run_through(self._loop, self._next())) is not None:
                outcome = self._attempt(app, job)
                if os.getpid() != self._pid:
                    os._exit(0)  # a copy that the task forked, and that came back here: the job is not its own
                self._job, job.context.over = None, True
                self._reports.flush()
                tell(self._pipe, Did(outcome=outcome))
        return self._leave(life)

    # Jobs

    def _attempt(self, app: App, job: Job) -> Outcome:
        claim, context = job.claim, job.context
        task = app.tasks.get(claim.task)
        if task is None:
            error = UnknownTask(f"this process knows no task {claim.task!r}: was {self._spec} changed while it ran?")
            return policy.raised(claim, error, Retry())
        if context.stop is not None:
            return stopped(claim, context.stop, *task.options_for(claim))
        context.slot = Alone(claim) if task.executor == "process" else Cleared(job, self._loop)
        if is_coroutine(task.fn):
            job.work = self._loop.create_task(perform(task, claim, context, app.hooks, app.config.max_payload))
            try:
                return run_through(self._loop, job.work)
            except asyncio.CancelledError:  # before its first step
                return stopped(claim, context.stop or Stop.INTERRUPTED, *task.options_for(claim))
        own = contextvars.copy_context()
        return own.run(perform_blocking, task, claim, context, app.hooks, app.config.max_payload)

    async def _next(self) -> Job | None:
        """Let the event loop turn until there is a job; None: there will be no more."""
        while not self._inbox:
            self._waiter = self._loop.create_future()
            await self._waiter
        return self._inbox.popleft()

    # Orders

    def _listen(self) -> None:
        """On a thread: take the runner's orders. When it is gone, so are we, and all that we started."""
        try:
            while (order := self._pipe.receive()) is not None:
                self._obey(order)
        finally:
            end_group()

    def _obey(self, order: Do | End | Leave) -> None:
        if isinstance(order, Do):
            self._job = Job(order, self._runner, self._state, self._reports, self._transactions, self._gates)
            self._put(self._job)
        elif isinstance(order, Leave):
            self._put(None)
        elif (job := self._job) and (job.claim.id, job.claim.fence) == (order.id, order.fence):
            job.context.end(order.why)
            self._loop.call_soon_threadsafe(job.cancel)

    def _put(self, job: Job | None) -> None:
        self._inbox.append(job)
        self._loop.call_soon_threadsafe(self._ring)

    def _ring(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # The app

    async def _live(self, app: App, opened: asyncio.Future[Any]) -> None:
        """Hold the app's lifespan open, in one task from begin to end, as task groups inside it want."""
        async with lifespan(app) as state:
            opened.set_result(state)
            await self._closing.wait()

    def _leave(self, life: asyncio.Task[None]) -> int:
        self._closing.set()
        try:
            run_through(self._loop, life)
        except BaseException:
            logger.exception("the lifespan of %s failed", self._spec)
            return 1
        run_through(self._loop, self._loop.shutdown_asyncgens())
        return 0


async def first_of(opened: asyncio.Future[Any], life: asyncio.Task[None]) -> Any:
    """What the lifespan yielded. Raises what it raised instead."""
    await asyncio.wait((opened, life), return_when=asyncio.FIRST_COMPLETED)
    if not opened.done():
        life.result()
    return opened.result()


def main() -> None:
    """`windlass.worker.child [RUNNER] MODULE:APP FD`; started by a runner only."""
    stand_alone()
    set_up()
    *runner, spec, fd = sys.argv[1:]
    loop = (fast_loop() or asyncio.new_event_loop)()
    code = Child(spec, Pipe(socket.socket(fileno=int(fd)), FromRunner), loop, "".join(runner)).main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # threads that still run user code do not keep us


if __name__ == "__main__":
    main()
