"""Hostile arguments are stored and come back equal, or are a clear error where the job is enqueued."""

import asyncio
import gc
from collections.abc import Callable, Iterator
from functools import partial
from types import ModuleType
from typing import Any

import pytest

from tests.safety import hostile
from windlass import WindlassError
from windlass.jobs import Job


def refused(call: Callable[[], object]) -> str | None:
    """The text of the error, None if there was none; errors of anybody else come through."""
    try:
        call()
    except WindlassError as error:
        return str(error)
    return None


@pytest.fixture
def values() -> Iterator[dict[str, tuple[Any, Any]]]:
    """All of them, while a test runs: some are large."""
    found = hostile.values()
    yield found
    found.clear()
    gc.collect()


def unclear(error: str | None, back: Any) -> str | None:
    """What is wrong with the answer to a value that should come back as `back`."""
    if error is None:
        return "stored" if back is hostile.REFUSED else None
    if back is not hostile.REFUSED:
        return error[:200]
    return None if ("args" in error or "value" in error) and len(error) < 1_000 else f"no clear error: {error[:200]}"


async def serve(shop: ModuleType, jobs: list[Job[Any]]) -> None:
    """Run all of them, and then one more."""
    async with shop.app.worker(concurrency=8):
        for job in jobs:
            await job.aresult(60)
        assert await (await shop.typed.aenqueue("x", 1, [2])).aresult(60) is None
    assert await shop.app.jobs.acount() == len(jobs) + 1
    await shop.app.aclose()


def test_hostile_arguments(url: str, load: Callable[..., ModuleType], values: dict[str, tuple[Any, Any]]) -> None:
    shop = load(module="hostile_app")
    made: list[Job[Any]] = []
    expected: dict[str, tuple[str, Any]] = {}
    wrong: dict[str, str] = {}
    for name, (value, back) in values.items():
        before = len(made)
        problem = unclear(refused(lambda value=value: made.append(shop.take.enqueue(value))), back)  # type: ignore[misc]
        if problem:
            wrong[name] = problem
        elif len(made) > before:
            expected[made[-1].id] = name, value if back is hostile.SAME else back
    for name, (args, kwargs) in hostile.calls().items():
        if refused(partial(shop.typed.enqueue, *args, **kwargs)) is None:
            wrong[name] = "stored"
    assert not wrong
    assert len(values) + len(hostile.calls()) >= 100
    asyncio.run(serve(shop, made))
    assert len(shop.got) == len(made) + 1
    for id, (name, back) in expected.items():
        assert shop.got[id] == back, name
        assert type(shop.got[id]) is type(back), name
    assert not hostile.CANARY.exists()


def test_hostile_options(load: Callable[..., ModuleType], monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    shop = load(module="hostile_app")
    for option in hostile.options():
        ((name, _),) = option.items()
        error = refused(lambda option=option: shop.take.using(**option).enqueue(1))  # type: ignore[misc]
        assert error, name
        assert name in error, error
    keys = ("\0", "\ud800", "x" * 1_000_000, "'; DROP TABLE live; --")
    asyncio.run(serve(shop, [shop.take.using(unique=key).enqueue(key[:1] != key) for key in keys]))
