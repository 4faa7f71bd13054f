"""One runner as its supervisor sees it: a process, a channel, a board, and the file its stacks are dumped to."""

import asyncio
import contextlib
import json
import logging
import os
import re
import resource
import signal
import socket
import subprocess
import tempfile
import uuid
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from windlass import policy
from windlass.machine import oom_kills
from windlass.model import Held, Outcome
from windlass.worker.board import Board, Deadline
from windlass.worker.climb import START
from windlass.worker.death import RSS_UNIT, Death, collect, wait_in_thread
from windlass.worker.hosting import reap_group
from windlass.worker.messages import Child, Chosen, Counted, FromRunner, FromSupervisor, Holding
from windlass.worker.start import command
from windlass.worker.wire import Channel

logger = logging.getLogger("windlass.worker")

BLOCKED = 1.0
"""Seconds without a turn of a runner's event loop from which on it counts as blocked."""

MOST_STACK = 256 * 1024
"""The most bytes that are read of a dump of stacks."""

GONE_WITHIN = 5.0
"""Seconds that a killed process group gets to vanish before we say so."""

_FRAME = re.compile(r'^  File "(.+)", line (\d+) in (.+)$', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Spec:
    """What every runner of a worker is started with. Limits that are None are those of the app.

    `adaptive`: each runner finds itself how many of its `concurrency` slots it uses.
    """

    app: str
    concurrency: int
    adaptive: bool = False
    processes: int = 1
    queues: str = ""
    reload: bool = False
    quiet: bool = False
    max_jobs: int | None = None
    max_memory: int | None = None
    health: str = ""


class Seat:
    """One runner process, from its start to the moment when nothing of it runs any more.

    `line`: the runners that follow one another here, of which the older ones only end what they run; `slots`: how many
    jobs it may have now; `limit`: of which it uses at most so many, by its own choice if concurrency is adaptive;
    `number`: which of the worker's lines this is.
    """

    def __init__(
        self, id: str, spec: Spec, process: subprocess.Popen[bytes], channel: Channel, board: Board, dump: IO[bytes]
    ) -> None:
        self.id = id
        self.pid = process.pid
        self.board = board
        self.expected = False
        self.broken = False
        self.ready = False
        self.retired = False
        self.spent = asyncio.Event()
        self.line: list[Seat] = []
        self.slots = 0
        self.limit = START if spec.adaptive else spec.concurrency
        self.learnt: Chosen | None = None
        self.kills = oom_kills()
        self.held: Held | None = None
        self.held_at = 0.0
        self.running = 0
        self.number = 0
        self.last_call = 0.0
        self.is_late = False
        self._process = process
        self._channel = channel
        self._dump = dump
        self._children: set[int] = set()
        self._blocked_since = 0.0
        self._exit = self._wait_for(process)

    @classmethod
    async def start(cls, spec: Spec) -> "Seat":
        """Start a runner under a new id, in a process group of its own. Raises `OSError`, and leaves nothing open."""
        id = str(uuid.uuid4())
        with contextlib.ExitStack() as opened:
            board = Board.make()
            opened.callback(board.close)
            dump = opened.enter_context(tempfile.TemporaryFile())
            ours, theirs = socket.socketpair()
            with theirs:
                channel = await Channel.open(ours, FromRunner)  # before: a child that nobody knows might be reaped
                opened.callback(channel.close)
                given = asdict(spec) | {"id": id, "channel": theirs.fileno(), "board": board.fd, "dump": dump.fileno()}
                process = subprocess.Popen(  # noqa: ASYNC220 - exec of our own interpreter: a millisecond
                    command("windlass.worker.process", json.dumps(given)),
                    pass_fds=(theirs.fileno(), board.fd, dump.fileno()),
                    start_new_session=True,
                    stdin=subprocess.DEVNULL,
                )
            seat = cls(id, spec, process, channel, board, dump)
            opened.pop_all()
            return seat

    @property
    def used(self) -> int:
        """How many jobs at a time it takes now."""
        return min(self.slots, self.limit)

    @property
    def children(self) -> tuple[int, ...]:
        """Its process children."""
        return tuple(self._children)

    def send(self, message: FromSupervisor) -> None:
        """Say something to the runner; nothing happens if it is gone."""
        self._channel.send(message)

    async def messages(self) -> AsyncIterator[FromRunner]:
        """What the runner says, until it closes the channel."""
        async for message in self._channel:
            yield message

    def hear(self, message: FromRunner, now: float) -> None:
        """Keep what a runner tells of itself."""
        if isinstance(message, Child):
            (self._children.add if message.alive else self._children.discard)(message.pid)
        elif isinstance(message, Chosen):
            self.limit, self.learnt = message.limit, message
        elif isinstance(message, Holding):
            self.held, self.held_at = message.held, now
        elif isinstance(message, Counted):
            self.running = message.running

    async def gone(self) -> Death:
        """Wait for the end of the process; how it ended."""
        return await asyncio.shield(self._exit)

    def kill_now(self) -> None:
        """Kill the runner and its children, whatever they are doing."""
        for group in (self.pid, *self._children):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)

    async def kill(self) -> Death:
        """Kill the runner's process group and its children's, and wait until none is left; how the runner ended."""
        self.kill_now()
        death = await self.gone()
        self.kill_now()
        for _ in range(int(GONE_WITHIN / 0.01)):
            left = [group for group in (self.pid, *self._children) if reap_group(group)]
            if not left:
                return death
            await asyncio.sleep(0.01)
        logger.error("processes of runner %s do not die; its jobs go back anyway", self.id[:8])
        return death

    def overdue(self, before: float) -> list[Deadline]:
        """The attempts that still run after a deadline before that moment, once this runner is to end for one."""
        return [one for one in self.board.deadlines() if one.at < before] if self.is_late else []

    def overdue_outcomes(self, before: float) -> list[Outcome]:
        """Their outcomes, if they were the reason why this runner was ended."""
        return [policy.timed_out(one.claim, one.retry, one.timeout) for one in self.overdue(before)]

    def report_blocked(self, now: float) -> None:
        """Log, once per occasion, what keeps the event loop of this runner from turning."""
        tick = self.board.tick
        if not tick or now - tick < BLOCKED or tick == self._blocked_since:
            return
        frames = self._stacks()
        if not frames and now - tick < BLOCKED * 3:
            return
        self._blocked_since = tick
        where = " < ".join(frames) or "(its stack could not be read)"
        logger.warning(
            "the event loop of runner %s has been blocked for %.1f s by %s; move the call to a thread or a process",
            self.id[:8],
            now - tick,
            where,
        )

    def _stacks(self) -> list[str]:
        """The innermost frames of the runner's main thread as faulthandler dumped them, user code first."""
        text = os.pread(self._dump.fileno(), MOST_STACK, 0).decode("utf-8", "replace")
        os.ftruncate(self._dump.fileno(), 0)
        os.lseek(self._dump.fileno(), 0, os.SEEK_SET)  # the runner writes through the same open file
        frames = _FRAME.findall(text.rpartition("hread 0x")[2])
        library = (str(Path(os.__file__).parent), str(Path(__file__).parent.parent), "<frozen ")
        shown = [f"{file}:{line} in {name}" for file, line, name in frames if not file.startswith(library)]
        return shown[:3] or [f"{file}:{line} in {name}" for file, line, name in frames[:3]]

    def close(self) -> None:
        """Let go of the channel, the board and the file."""
        self._channel.close()
        self.board.close()
        self._dump.close()

    def _wait_for(self, process: subprocess.Popen[bytes]) -> asyncio.Future[Death]:
        """How the process ends, seen at once by a thread that waits for nothing else."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[Death] = loop.create_future()
        floor = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT

        def wait() -> None:
            death = collect(self.pid, floor, lambda: self.kills)
            process.returncode = death.code or 0
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody asks any more
                loop.call_soon_threadsafe(ended.set_result, death)

        wait_in_thread(process, wait, f"windlass-wait-{process.pid}")
        return ended
