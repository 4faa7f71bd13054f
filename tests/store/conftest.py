"""Runs `async def` tests on one event loop per test, and gives each a world for every kind of store."""

import asyncio
import inspect
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.budget import BETWEEN, THROUGH
from tests.store.kinds import KINDS
from tests.store.world import World
from windlass.clock import SystemClock


@pytest.fixture
def loop() -> Iterator[asyncio.Runner]:
    """The event loop of one test and of its fixtures."""
    with asyncio.Runner() as runner:
        yield runner


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a coroutine function on the test's loop."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    given: dict[str, Any] = pyfuncitem.funcargs
    wanted = {name: given[name] for name in inspect.signature(pyfuncitem.obj).parameters}
    with asyncio.Runner() as spare:
        given.get("loop", spare).run(pyfuncitem.obj(**wanted))
    return True


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test on every kind of store; one that needs data shared by several store objects on those that have it."""
    if "kind" in metafunc.fixturenames:
        together = {"real", "shared"} & set(metafunc.fixturenames)
        through = metafunc.module.__name__.rpartition(".")[2] in THROUGH or "WINDLASS_BETWEEN" in os.environ
        kinds = [kind for kind in sorted(KINDS) if KINDS[kind].shared or not together]
        metafunc.parametrize("kind", [kind for kind in kinds if through or kind not in BETWEEN])


@pytest.fixture
def world(kind: str, tmp_path: Path, loop: asyncio.Runner) -> Iterator[World]:
    """An open, empty store of each kind."""
    world = KINDS[kind](tmp_path)
    loop.run(world.open())
    yield world
    loop.run(world.close())


@pytest.fixture
def real(kind: str, tmp_path: Path, loop: asyncio.Runner) -> Iterator[World]:
    """The same on the real clock, for tests with several processes."""
    world = KINDS[kind](tmp_path, SystemClock())
    loop.run(world.open())
    yield world
    loop.run(world.close())


@pytest.fixture
def shared(world: World) -> World:
    """A world whose data several store objects can see."""
    return world
