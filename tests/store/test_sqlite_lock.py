"""SQLite: while another program holds the write lock, nothing fails that can wait, and nothing waits that must not."""

import asyncio
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.store.world import SQLiteWorld, World, new, wants
from windlass.clock import SystemClock
from windlass.errors import StoreUnavailable
from windlass.model import Filter, State
from windlass.store.sqlite.store import SQLiteStore


@contextmanager
def locked(world: World) -> Iterator[None]:
    """Another program writes to the same file, and takes its time."""
    foreign = sqlite3.connect(world.folder / "jobs.db", isolation_level=None)
    foreign.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        foreign.execute("ROLLBACK")
        foreign.close()


@pytest.fixture
def file(tmp_path: Path, loop: asyncio.Runner) -> Iterator[World]:
    world = SQLiteWorld(tmp_path)
    loop.run(world.open())
    yield world
    loop.run(world.close())


async def test_put_now_gives_up_in_time_and_writes_nothing(file: World) -> None:
    with locked(file):
        began = time.monotonic()
        with pytest.raises(StoreUnavailable):
            await asyncio.to_thread(file.store.put_now, [new()], 0.4)
        assert 0.3 < time.monotonic() - began < 3
    assert await file.store.count(Filter()) == 0
    assert file.store.put_now([new()], 5)[0].new


async def test_put_now_gives_up_behind_a_waiting_writer_too(file: World) -> None:
    with locked(file):
        first = asyncio.create_task(file.put(new()))
        await asyncio.sleep(0.05)
        with pytest.raises(StoreUnavailable):
            await asyncio.to_thread(file.store.put_now, [new()], 0.4)
    assert (await first)[0].new
    assert await file.store.count(Filter()) == 1


async def test_calls_wait_for_the_lock(file: World) -> None:
    crew = await file.crew()
    job = new()
    with locked(file):
        put = asyncio.create_task(file.put(job))
        await asyncio.sleep(0.5)
        assert not put.done()
    assert (await put)[0].new
    with locked(file):
        claim = asyncio.create_task(crew.exchange(demand=wants(1)))
        await asyncio.sleep(0.5)
        assert not claim.done()
    assert [entry.id for entry in (await claim).claimed] == [job.id]


async def test_beats_and_reads_do_not_wait(file: World) -> None:
    crew = await file.crew()
    await file.put(job := new())
    with locked(file):
        await file.advance(14)
        assert not (await asyncio.wait_for(crew.beat(), 1)).evicted
        await file.advance(14)
        assert await asyncio.wait_for(file.state(job.id), 1) is State.READY
        assert len(await asyncio.wait_for(file.store.workers(), 1)) == 1
    assert await file.store.reap() == []


async def test_a_call_that_was_cancelled_while_it_waited_harms_no_other(file: World) -> None:
    with locked(file):
        given_up = asyncio.create_task(file.put(new()))
        await asyncio.sleep(0.1)
        given_up.cancel()
        other = asyncio.create_task(file.put(kept := new()))
        await asyncio.sleep(0.1)
    assert (await other)[0].new
    assert await file.state(kept.id) is State.READY


async def test_reads_while_the_store_is_closed_say_so(tmp_path: Path) -> None:
    for _ in range(10):
        store = SQLiteStore(f"sqlite:///{tmp_path}/jobs.db", SystemClock())
        await store.open()

        async def read(store: SQLiteStore = store) -> None:
            while True:
                await store.count(Filter())

        readers = [asyncio.create_task(read()) for _ in range(8)]
        await store.count(Filter())
        await store.close()
        errors = await asyncio.gather(*readers, return_exceptions=True)
        assert {type(error) for error in errors} == {StoreUnavailable}, errors
