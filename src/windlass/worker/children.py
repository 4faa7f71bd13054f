"""The process lane: warm child processes that run one job at a time and can be killed at any moment."""

import asyncio
import contextlib
import logging
import math
import os
import resource
import signal
import socket
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import msgspec

from windlass import policy
from windlass.errors import WindlassError
from windlass.machine import forget_peak, oom_kills
from windlass.model import Claim, Outcome, Progress
from windlass.policy import Retry
from windlass.worker.death import RSS_UNIT, Death, collect, wait_in_thread
from windlass.worker.errands import Broken, Did, Do, End, FromChild, Leave, Moved, Ready
from windlass.worker.limits import LEAVE_WITHIN, Limits
from windlass.worker.pipeline import Stop, stopped
from windlass.worker.wire import Channel

logger = logging.getLogger("windlass.worker")

PATIENCE = 2.0
"""Seconds between asking an attempt to end and killing its process."""

START_WITHIN = 600.0
"""Seconds that a child may take to import the app and open its lifespan."""

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds until the next start after one that failed; doubled each time."""

LAST_WORDS = 0.5
"""Seconds that a dead child's connection is still read for. Only a process that escaped its group keeps it open."""

GONE_WITHIN = 5.0
"""Seconds that killed children get to end before we say so."""

VANISH_WITHIN = 1.0
"""Seconds that what a dead child left behind gets to vanish, once it is killed too."""

COUNT_EVERY = 1.0
"""Seconds that a count of the processes killed for want of memory is used again."""

NO_LIMITS = Limits()


class ChildNotStarted(WindlassError):
    """The process that should run this job could not start. The worker's log has the whole story."""

    def __init__(self, text: str) -> None:
        last = text.strip().rpartition("\n")[2]
        super().__init__(f"the process for this job could not start: {last}")
        self.text = text


class Child:
    """One child process, in a session of its own. `gone` is done when it and its group are dead and it is reaped."""

    def __init__(self, process: subprocess.Popen[bytes], channel: Channel, floor: int) -> None:
        self.pid = process.pid
        self.channel = channel
        self.killed = False
        self.leaving = False
        self.jobs = 0
        self.kills: int | None = None
        self.gone: asyncio.Future[Death] = asyncio.get_running_loop().create_future()
        self._process = process
        self._floor = floor
        self._reaped = False
        self._reaping = threading.Lock()
        wait_in_thread(process, partial(self._reap, self.gone.get_loop()), "windlass-reap")

    @classmethod
    async def spawn(cls, argv: Sequence[str], env: Mapping[str, str] | None) -> "Child":
        """Start a process. On Linux it dies with the calling thread, so call from one that stays. Raises `OSError`."""
        ours, theirs = socket.socketpair()
        with theirs:
            channel = await Channel.open(ours, FromChild)
            floor = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT
            try:
                process = subprocess.Popen(  # noqa: ASYNC220 - it takes a millisecond
                    [*argv, str(theirs.fileno())],
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,
                    stdin=subprocess.DEVNULL,
                    env=env,
                )
                return cls(process, channel, floor)
            except BaseException:
                channel.close()
                raise

    async def started(self) -> None:
        """Wait until it can take jobs. Raises `ChildNotStarted`."""
        try:
            async with asyncio.timeout(START_WITHIN):
                message = await self.channel.receive()
        except TimeoutError:
            self.kill()
            raise ChildNotStarted(f"it was not ready within {START_WITHIN:g} s") from None
        if not isinstance(message, Ready):
            self.kill()
            death = await asyncio.shield(self.gone)
            raise ChildNotStarted(message.text if isinstance(message, Broken) else f"it died at once: {death}")

    @property
    def usable(self) -> bool:
        """Whether it may be given a job."""
        return not self.killed and not self.leaving and not self.gone.done()

    def leave(self) -> None:
        """Have it close the app and end, by itself or by force."""
        self.leaving = True
        self.channel.send(Leave())
        asyncio.get_running_loop().call_later(LEAVE_WITHIN, self.kill)

    def limit(self, size: float) -> None:
        """Linux: let it have at most this much memory; what it asks for beyond raises `MemoryError` there."""
        if hasattr(resource, "prlimit"):
            with contextlib.suppress(OSError, ValueError):
                _, most = resource.prlimit(self.pid, resource.RLIMIT_DATA)
                wanted = most if size == math.inf else int(size)
                resource.prlimit(self.pid, resource.RLIMIT_DATA, (wanted if most < 0 else min(wanted, most), most))

    def kill(self) -> None:
        """Kill it and its process group, whatever they are doing."""
        self.killed = True
        with self._reaping:
            if not self._reaped:
                self._kill_group()

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def _reap(self, loop: asyncio.AbstractEventLoop) -> None:
        """In a thread: wait for the end of the process, and make it the end of all that it started."""
        if hasattr(os, "waitid"):
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)  # while it is a zombie, its number stays its own
            with self._reaping:
                self._kill_group()
                death = self._collect()
        else:  # macOS before Python 3.13
            death = self._collect()
            self._kill_group()
        self._outlive()
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody asks any more
            loop.call_soon_threadsafe(self._bury, death)

    def _collect(self) -> Death:
        death = collect(self.pid, self._floor, lambda: self.kills)
        self._reaped = True
        self._process.returncode = death.code or 0
        return death

    def _outlive(self) -> None:
        """Wait until nothing of the killed group is left; zombies that nobody reaps do not hold us for long."""
        until = time.monotonic() + VANISH_WITHIN
        while time.monotonic() < until:
            try:
                os.killpg(self.pid, 0)
            except (ProcessLookupError, PermissionError):
                return
            time.sleep(0.005)

    def _bury(self, death: Death) -> None:
        self.gone.set_result(death)
        asyncio.get_running_loop().call_later(LAST_WORDS, self.channel.close)


class Errand:
    """One job on its way through a child."""

    def __init__(self, claim: Claim) -> None:
        self.claim = claim
        self.stop: Stop | None = None
        self.child: Child | None = None
        self.place: asyncio.Future[Child | None] = asyncio.get_running_loop().create_future()
        self._alarms: list[asyncio.TimerHandle] = []

    def give(self, child: Child) -> None:
        """Let this child run the job."""
        self.child = child
        self.place.set_result(child)

    def end(self, why: Stop) -> None:
        """End the job. The first reason stands; asked a second time, or when time is over, it is not asked again."""
        asked, self.stop = self.stop, self.stop or why
        if self.child is None:
            if not self.place.done():
                self.place.set_result(None)
        elif asked or why is Stop.TIMED_OUT:
            self.child.kill()
        else:
            self.child.channel.send(End(id=self.claim.id, fence=self.claim.fence, why=why))
            self.ring_after(PATIENCE, self.child.kill)

    def ring_after(self, seconds: float, call: Callable[[], None]) -> None:
        """Call something then, unless the job is over before."""
        self._alarms.append(asyncio.get_running_loop().call_later(seconds, call))

    def silence(self) -> None:
        """The job is over."""
        for alarm in self._alarms:
            alarm.cancel()

    def is_of(self, said: Outcome | Moved) -> bool:
        """Whether what a child says is about this attempt, and not about one before."""
        return said.id == self.claim.id and said.fence == self.claim.fence


class Children:
    """Runs jobs in at most `size` child processes, started when first needed, kept and reused.

    `argv` starts a child, with `spec` (the app) and the number of its socket appended. `on_pid(pid, alive)` tells of
    each start and end, `on_moved` of a job's progress and lines.
    A job's deadline counts from when a ready child gets it, and is kept here: nobody else needs to watch it.
    Between two jobs a child is replaced when `limits` says so.
    """

    def __init__(
        self,
        argv: Sequence[str],
        spec: str,
        *,
        size: int,
        on_moved: Callable[[Claim, Progress | None, str], None] = lambda claim, progress, lines: None,
        on_pid: Callable[[int, bool], None] = lambda pid, alive: None,
        env: Mapping[str, str] | None = None,
        limits: Limits = NO_LIMITS,
    ) -> None:
        self.on_moved = on_moved
        self._argv = (*argv, spec)
        self._size = size
        self._on_pid = on_pid
        self._env = env
        self._limits = limits
        self._kills: int | None = None
        self._count_again = 0.0
        self._children: set[Child] = set()
        self._idle: list[Child] = []
        self._taken = 0
        self._errands: dict[str, Errand] = {}
        self._waiting: deque[Errand] = deque()
        self._hiring: set[asyncio.Task[None]] = set()
        self._failures = 0
        self._not_before = 0.0
        self._closed = False

    @property
    def free(self) -> int:
        """How many more jobs can run now. While children fail to start, one job at a time finds out."""
        if self._closed:
            return 0
        return max(0, (1 if self._failures else self._size) - len(self._errands))

    @property
    def pids(self) -> tuple[int, ...]:
        """The children that live."""
        return tuple(child.pid for child in self._children)

    async def run(self, claim: Claim, retry: Retry, timeout: float | None) -> Outcome:
        """Run one job in a child. If this call is cancelled, the child is dead before that shows."""
        errand = Errand(claim)
        self._errands[claim.id] = errand
        try:
            child = await self._child_for(errand)
            if child is None:
                return stopped(claim, errand.stop or Stop.INTERRUPTED, retry, timeout)
            return await self._oversee(errand, child, retry, timeout)
        except ChildNotStarted as error:
            return not_started(claim, error, retry)
        finally:
            del self._errands[claim.id]

    def cancel(self, id: str, why: Stop) -> None:
        """End a job: ask it, and kill its child `PATIENCE` later; at once if its time is over or it was asked."""
        if errand := self._errands.get(id):
            errand.end(why)

    async def close(self, grace: float = 5.0) -> None:
        """Let running jobs end and children leave within `grace` seconds, then kill what remains."""
        self._closed = True
        for errand in self._waiting:
            errand.end(Stop.INTERRUPTED)
        for task in self._hiring:
            task.cancel()
        for child in self._children:
            child.channel.send(Leave())
        if await self._still_there(grace):
            for errand in self._errands.values():
                errand.stop = errand.stop or Stop.INTERRUPTED
            for child in self._children:
                child.kill()
            if left := await self._still_there(GONE_WITHIN):
                logger.error("process children do not die, though killed: %s", ", ".join(map(str, left)))

    async def _still_there(self, within: float) -> tuple[int, ...]:
        """Wait for the children to end; the pids of those that have not."""
        if self._children:
            await asyncio.wait([child.gone for child in self._children], timeout=within)
        return tuple(child.pid for child in self._children if not child.gone.done())

    # One job

    async def _child_for(self, errand: Errand) -> Child | None:
        """An idle child, or a new one; None if the job was ended before it began. Raises `ChildNotStarted`."""
        if self._closed:
            return None
        self._waiting.append(errand)
        self._assign()
        try:
            return await errand.place
        except asyncio.CancelledError:
            if errand.child:
                self._release(errand.child)
            raise

    async def _oversee(self, errand: Errand, child: Child, retry: Retry, timeout: float | None) -> Outcome:
        claim = errand.claim
        self._prepare(child, suspect=claim.lost > 0)
        child.channel.send(Do(claim=claim))
        if timeout is not None:
            errand.ring_after(timeout, lambda: errand.end(Stop.TIMED_OUT))
        try:
            async for said in child.channel:
                if isinstance(said, Did) and errand.is_of(said.outcome):
                    child.jobs += 1
                    self._release(child)
                    return said.outcome
                if isinstance(said, Moved) and errand.is_of(said):
                    self.on_moved(claim, said.progress, said.lines)
            child.kill()
            death = await asyncio.shield(child.gone)
        except BaseException:
            child.kill()
            await asyncio.shield(child.gone)
            raise
        finally:
            errand.silence()
        return stopped(claim, errand.stop, retry, timeout) if errand.stop else policy.lost(claim, str(death))

    # Children

    def _assign(self) -> None:
        """Give waiting jobs to idle children, and start children for those that are left over."""
        while self._waiting:
            if self._waiting[0].place.done():
                self._waiting.popleft()
            elif not self._idle:
                break
            elif (child := self._idle.pop()).usable:
                self._waiting.popleft().give(child)
        for _ in range(min(self._size - self._taken, len(self._waiting) - len(self._hiring))):
            self._begin_hiring()

    def _begin_hiring(self) -> None:
        self._taken += 1
        task = asyncio.create_task(self._hire())
        self._hiring.add(task)
        task.add_done_callback(self._hired)

    def _prepare(self, child: Child, *, suspect: bool) -> None:
        """Bound the memory of a child for its next job, and measure it."""
        now = asyncio.get_running_loop().time()
        if now > self._count_again:
            self._kills, self._count_again = oom_kills(), now + COUNT_EVERY
        child.kills = self._kills
        if suspect:
            forget_peak(child.pid)
        child.limit(self._limits.data(child.pid, suspect=suspect))

    def _release(self, child: Child) -> None:
        """A child has no job any more."""
        if not child.usable or self._closed:
            return
        if why := self._limits.spent(child.pid, child.jobs):
            logger.info("process child %d %s and is replaced", child.pid, why)
            child.leave()
            self._taken -= 1
            self._begin_hiring()
        else:
            self._idle.append(child)
            self._assign()

    async def _hire(self) -> None:
        """Start a child; if that fails, the job that has waited longest fails with it, and the next start waits."""
        await asyncio.sleep(max(0.0, self._not_before - asyncio.get_running_loop().time()))
        try:
            child = await self._spawn()
            await child.started()
        except ChildNotStarted as error:
            logger.error("a process child could not start: %s", error.text)
            self._not_before = asyncio.get_running_loop().time() + pause_after(self._failures)
            self._failures += 1
            self._fail_first(error)
        else:
            self._failures = 0
            self._release(child)

    async def _spawn(self) -> Child:
        try:
            child = await Child.spawn(self._argv, self._env)
        except BaseException as error:
            self._taken -= 1
            if isinstance(error, OSError):
                raise ChildNotStarted(str(error)) from error
            raise
        self._children.add(child)
        child.gone.add_done_callback(lambda gone: self._lose(child, gone.result()))
        self._on_pid(child.pid, True)
        return child

    def _hired(self, task: asyncio.Task[None]) -> None:
        self._hiring.discard(task)
        if not task.cancelled() and not self._closed:
            self._assign()

    def _fail_first(self, error: ChildNotStarted) -> None:
        while self._waiting:
            place = self._waiting.popleft().place
            if not place.done():
                place.set_exception(error)
                return

    def _lose(self, child: Child, death: Death) -> None:
        """A child is dead and reaped."""
        self._children.discard(child)
        if not child.leaving:
            self._taken -= 1
        if child in self._idle:
            self._idle.remove(child)
            if not self._closed:
                logger.warning("process child %d died while it had no job: %s", child.pid, death)
        self._on_pid(child.pid, False)
        if not self._closed:
            self._assign()


def pause_after(failures: int) -> float:
    """Seconds until the next start, after one that failed and `failures` that failed before it."""
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(failures, 10))


def not_started(claim: Claim, error: ChildNotStarted, retry: Retry) -> Outcome:
    """The outcome of a job whose process could not start: retried whatever errors the task itself is retried on."""
    outcome = policy.raised(claim, error, replace(retry, on=(Exception,), give_up_on=()))
    if outcome.failure is None:
        return outcome
    failure = msgspec.structs.replace(outcome.failure, traceback=policy.clip_tail(policy.storable(error.text)))
    return msgspec.structs.replace(outcome, failure=failure)
