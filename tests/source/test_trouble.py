"""When it is the store that fails, and who reads where one may."""

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

from tests.source.kinds import RedisKind
from tests.source.test_transports import Shop, numbers
from windlass.errors import StoreUnavailable
from windlass.source.turn import Turn


class Frail:
    """A store that cannot be reached twice, and then refuses every put of more than one job."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.tries = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def put(self, jobs: Any, *more: Any) -> Any:
        self.tries += 1
        if self.tries <= 2:
            raise StoreUnavailable("nobody is there")
        if len(jobs) > 1:
            raise ValueError("one of these is strange")
        return await self._store.put(jobs, *more)


async def test_a_store_that_fails_costs_no_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("windlass.source.bridge.FIRST_PAUSE", 0.05)
    kind = RedisKind(tmp_path)
    shop = Shop(kind, tmp_path)
    await kind.publish(numbers(5))
    frail: Any = Frail(await shop.app.connect())
    with caplog.at_level(logging.INFO, "windlass.source"):
        async with shop.reading(frail):
            await shop.have(5)
            await shop.nothing_left()
    assert await shop.numbers() == list(range(5))
    assert caplog.text.count("nobody is there") == 1
    assert "is read again" in caplog.text
    await shop.app.aclose()


async def test_one_has_the_turn_and_another_gets_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("windlass.source.turn.RENEW", 0.05)
    monkeypatch.setattr("windlass.source.turn.LEASE", 0.5)
    shop = Shop(RedisKind(tmp_path), tmp_path)
    store = await shop.app.connect()

    async def gets() -> bool:
        async with Turn(store, "orders", needed=True) as turn:
            return turn.ours

    async with Turn(store, "orders", needed=True) as first:
        assert first.ours
        for _ in range(20):
            await asyncio.sleep(0.05)  # twice as long as a lease: it is renewed
            assert not await gets()
        async with Turn(store, "orders", needed=False) as free, Turn(store, "others", needed=True) as other:
            assert free.ours
            assert other.ours
    assert await gets()
    dead = Turn(store, "orders", needed=True)
    await dead.__aenter__()
    assert dead._keeping
    dead._keeping.cancel()  # as a killed process would leave it
    assert not await gets()
    async with asyncio.timeout(60):
        while not await gets():
            await asyncio.sleep(0.05)
    await shop.app.aclose()
