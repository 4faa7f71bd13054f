"""What every transport promises: each message is one job, whatever fails in between."""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.servers import free_port
from tests.source.kinds import Kind
from windlass import App
from windlass.model import Filter, JobRecord, State, Verb
from windlass.source.bridge import bridging
from windlass.store.contract import Store

PATIENCE = 60.0
TASK = "shop.order"


class Shop:
    """An app with one source."""

    def __init__(self, kind: Kind, folder: Path, url: str | None = None, **options: Any) -> None:
        self.kind = kind
        self.app = App(f"sqlite:///{folder}/windlass.db", max_payload=2000)

        @self.app.task(name=TASK)
        def order(number: int) -> int:
            return number

        self.app.source(url or kind.url, task=order, name=kind.reader, **options)

    @contextlib.asynccontextmanager
    async def reading(self, store: Store | None = None) -> AsyncIterator[None]:
        async with bridging(self.app.sources, store or await self.app.connect()):
            yield

    async def jobs(self) -> list[JobRecord]:
        found: list[JobRecord] = []
        store, after = await self.app.connect(), None
        while True:
            page = await store.find(Filter(task=TASK), 1000, after)
            found += page.jobs
            if (after := page.after) is None:
                return found

    async def numbers(self) -> list[int]:
        return sorted(json.loads(job.args)["number"] for job in await self.jobs())

    async def have(self, count: int) -> None:
        async def enough() -> bool:
            return len(await self.jobs()) >= count

        await until(enough, f"{count} jobs")

    async def nothing_left(self) -> None:
        async def none() -> bool:
            return await self.kind.left() == 0

        await until(none, "the broker to hold no message")


async def until(look: Callable[[], Awaitable[bool]], what: str) -> None:
    async with asyncio.timeout(PATIENCE):
        while not await look():
            await asyncio.sleep(0.02)
    assert what


class Dying:
    """A store whose caller is cancelled right after its first put, as by a death."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.dead = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def put(self, *args: Any) -> Any:
        await self._store.put(*args)
        self.dead.set()
        raise asyncio.CancelledError


def numbers(*bounds: int) -> list[bytes]:
    return [str(number).encode() for number in range(*bounds)]


async def test_each_message_is_one_job(kind: Kind, tmp_path: Path) -> None:
    shop = Shop(kind, tmp_path)
    await kind.prepare()
    async with shop.reading():
        await kind.publish(numbers(30))
        await shop.have(30)
        await kind.publish(numbers(30, 40))
        await shop.have(40)
    await shop.nothing_left()
    assert await shop.numbers() == list(range(40))
    job = (await shop.jobs())[0]
    assert job.state is State.READY
    assert json.loads(job.options or b"")["meta"]["source"] == kind.reader
    await shop.app.aclose()


async def test_death_between_store_and_acknowledgement(kind: Kind, tmp_path: Path) -> None:
    shop = Shop(kind, tmp_path)
    await kind.prepare()
    dying: Any = Dying(await shop.app.connect())
    async with shop.reading(dying):
        await kind.publish(numbers(20))
        await asyncio.wait_for(dying.dead.wait(), PATIENCE)
    stored = await shop.jobs()
    assert stored
    assert await kind.left() >= len(stored)
    async with shop.reading():
        await kind.publish(numbers(20, 25))
        await shop.have(25)
        if kind.watched:
            await shop.nothing_left()
    await shop.nothing_left()
    assert await shop.numbers() == list(range(25))
    await shop.app.aclose()


async def test_restart_of_the_broker(durable: Kind, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shop = Shop(durable, tmp_path)
    await durable.prepare()
    with caplog.at_level(logging.INFO, "windlass.source"):
        async with shop.reading():
            await durable.publish(numbers(10))
            await shop.have(10)
            await asyncio.to_thread(durable.server.restart)
            await durable.publish(numbers(10, 20))
            await shop.have(20)
            if durable.watched:
                await shop.nothing_left()
    await shop.nothing_left()
    assert await shop.numbers() == list(range(20))
    assert "is read again" in caplog.text
    await shop.app.aclose()


async def test_bad_messages_are_jobs_that_fail_and_stop_nothing(kind: Kind, tmp_path: Path) -> None:
    shop = Shop(kind, tmp_path)
    await kind.prepare()
    bad = [b"{", b'1, "number": 2', b"", b"9" * 3000]
    async with shop.reading():
        await kind.publish([*numbers(3), *bad, *numbers(3, 6)])
        await shop.have(10)
    await shop.nothing_left()
    shape = shop.app.tasks[TASK].shape
    said = []
    for job in await shop.jobs():
        try:
            assert shape.decode_call(job.args)
        except ValueError as error:
            said.append(str(error))
    assert len(said) == len(bad)
    assert sum("no JSON" in one for one in said) == 3
    assert sum("3,000 bytes, over max_payload (2,000)" in one for one in said) == 1
    await shop.app.aclose()


async def test_it_rests_while_the_queue_is_full(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("windlass.source.bridge.LOOK_EVERY", 0.05)
    shop = Shop(kind, tmp_path, max_ready=10)
    await kind.prepare()
    done: set[str] = set()
    with caplog.at_level(logging.INFO, "windlass.source"):
        async with shop.reading():
            await kind.publish(numbers(25))
            while len(done) < 25:
                await until(lambda: rested(caplog), "the source to rest")
                caplog.clear()
                ready = await shop.jobs()
                assert len(ready) <= 10
                await (await shop.app.connect()).act([job.id for job in ready], Verb.DELETE)
                done |= {job.id for job in ready}
                if len(done) == 20:
                    await shop.have(5)
                    done |= {job.id for job in await shop.jobs()}
    assert len(done) == 25
    await shop.nothing_left()
    await shop.app.aclose()


async def rested(caplog: pytest.LogCaptureFixture) -> bool:
    return "is full" in caplog.text


async def test_a_stop_loses_nothing(kind: Kind, tmp_path: Path) -> None:
    shop = Shop(kind, tmp_path)
    await kind.prepare()
    async with shop.reading():
        await kind.publish(numbers(300))
        await shop.have(1)
    async with shop.reading():
        await shop.have(300)
    await shop.nothing_left()
    assert await shop.numbers() == list(range(300))
    await shop.app.aclose()


async def test_a_broker_that_is_not_there(kind: Kind, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    scheme, _, rest = kind.url.partition("://")
    url = f"{scheme}://user:secret@127.0.0.1:{free_port()}/{rest.partition('/')[2]}"
    shop = Shop(kind, tmp_path, url)
    async with shop.reading():
        await until(lambda: warned(caplog), "a warning")
    assert caplog.text.count("is not read") == 1
    assert "secret" not in caplog.text
    await shop.app.aclose()


async def warned(caplog: pytest.LogCaptureFixture) -> bool:
    return "is not read" in caplog.text
