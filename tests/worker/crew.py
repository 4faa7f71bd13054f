"""Real process children for tests, and what they say."""

import asyncio
import contextlib
import itertools
import os
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec

from tests.worker import children_app
from windlass.model import Claim, Ending, Outcome, Progress
from windlass.policy import Retry
from windlass.worker.children import Children
from windlass.worker.hosting import fast_loop
from windlass.worker.start import command

ROOT = Path(__file__).parent.parent.parent
APPS = children_app.__package__
COMMAND = command("windlass.worker.child")
LONG = 60.0
"""Seconds until a test that hangs gives up."""

OUR_LOOP = fast_loop()
numbers = itertools.count(1)


def claim(task: str, *args: Any, lost: int = 0) -> Claim:
    name = f"{children_app.__name__}.{task}"
    known = children_app.app.tasks.get(name)
    return Claim(
        id=f"job-{next(numbers)}",
        fence=7,
        seq=1,
        task=name,
        queue="default",
        args=known.shape.encode_call(args, {}, 1 << 20) if known else b"{}",
        options=None,
        priority=0,
        attempt=0,
        lost=lost,
        enqueued_at=0,
        run_at=0,
    )


class Crew:
    """Children under test, and what they said."""

    def __init__(self, size: int, app: str, env: dict[str, str]) -> None:
        self.progress: list[tuple[Progress | None, str]] = []
        self.pids: list[tuple[int, bool]] = []
        self.children = Children(
            COMMAND,
            f"{APPS}.{app}:app",
            size=size,
            on_moved=lambda claim, progress, lines: self.progress.append((progress, lines)),
            on_pid=lambda pid, alive: self.pids.append((pid, alive)),
            env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT}/src", "WINDLASS_URL": "sqlite:///:memory:"} | env,
        )

    async def run(self, task: str, *args: Any, timeout: float | None = None, lost: int = 0) -> Outcome:
        return await self.run_claim(claim(task, *args, lost=lost), timeout)

    async def run_claim(self, claim: Claim, timeout: float | None = None) -> Outcome:
        return await asyncio.wait_for(self.children.run(claim, Retry(), timeout), LONG)

    async def result(self, task: str, *args: Any) -> Any:
        outcome = await self.run(task, *args)
        assert outcome.ending is Ending.SUCCEEDED, outcome
        return msgspec.json.decode(outcome.result or b"null")


@contextlib.asynccontextmanager
async def crew(size: int = 1, app: str = "children_app", **env: str) -> AsyncIterator[Crew]:
    crew = Crew(size, app, env)
    try:
        yield crew
    finally:
        await asyncio.wait_for(crew.children.close(), LONG)
        assert crew.children.pids == ()
        assert sorted(pid for pid, alive in crew.pids if alive) == sorted(pid for pid, alive in crew.pids if not alive)
        assert not any(exists(pid) for pid, _ in crew.pids)


def go(work: Coroutine[Any, Any, None], loop: Callable[[], asyncio.AbstractEventLoop] | None = OUR_LOOP) -> None:
    """Run a test on the loop that runners use."""
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(work)


def exists(pid: int) -> bool:
    """Whether that process runs; a zombie that its foster parent has not collected does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return not sys.platform.startswith("linux")


async def until(true: Callable[[], Any], what: str) -> None:
    for _ in range(int(LONG / 0.01)):
        if true():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"waited {LONG:g} s for {what}")


def message(outcome: Outcome) -> str:
    assert outcome.failure
    return outcome.failure.message
