"""Redis in trouble: full, away, frozen, read-only, with replies that are lost and records that are gone."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from msgspec.structs import replace

from tests.proxy import Proxy
from tests.servers import Redis
from tests.store.redis_world import OwnWorld, RedisWorld, opened, try_open
from tests.store.world import doc, ends, new, wants, worker_info
from windlass.errors import EnqueueUnknown, StoreUnavailable
from windlass.model import Ending, Filter, Verb

# A full server


async def test_a_full_server_refuses_jobs_and_is_still_worked_off(tmp_path: Path) -> None:
    async with opened(tmp_path) as world:
        await world.put(
            *(new() for _ in range(200)), *(new("other", args=b'"' + b"x" * 90_000 + b'"') for _ in range(50))
        )
        world.raw.config_set("maxmemory", world.raw.info("memory")["used_memory"] - 100_000)
        with pytest.raises(StoreUnavailable, match="maxmemory"):
            await world.put(new())
        with pytest.raises(StoreUnavailable, match="maxmemory"):
            world.store.put_now([new()], 5)
        assert await world.store.count(Filter()) == 250
        crew = await world.crew()
        while claims := await crew.claim(50):
            assert (await crew.exchange(*(ends(claim, Ending.SUCCEEDED) for claim in claims))).refused == ()
        assert not (await crew.beat()).evicted
        await world.store.act(Filter(task="other"), Verb.DELETE)
        assert (await world.put(new()))[0].new


# A server that is away


async def test_a_server_that_is_killed_and_started_again_loses_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path) as world:
        await world.put(*(new() for _ in range(20)))
        crew = await world.crew()
        claims = await crew.claim(5)
        waiting = asyncio.create_task(world.store.wait("work", 30))
        await asyncio.sleep(0.2)
        while await world.store.wait("work", 0.05):
            pass
        waiting.cancel()
        waiting = asyncio.create_task(world.store.wait("work", 30))
        world.own.kill()
        later = asyncio.create_task(crew.exchange(*(ends(claim, Ending.SUCCEEDED) for claim in claims)))
        await asyncio.sleep(0.5)
        await asyncio.to_thread(world.own.start)
        assert (await later).refused == ()
        assert await asyncio.wait_for(waiting, 10)
        assert len(await crew.claim(99)) == 15
        assert world.store.put_now([new()], 5)[0].new
        await world.store.enlist(worker_info("another"))


async def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    async with opened(tmp_path) as world:
        world.own.kill()
        await asyncio.sleep(0.05)
        began = time.monotonic()
        with pytest.raises(StoreUnavailable, match="is the server running"):
            world.store.put_now([new()], 0.5)
        assert time.monotonic() - began < 1.5
        with pytest.raises(StoreUnavailable):
            await world.put(new())
        assert time.monotonic() - began < 7.5
        with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1"):
            await try_open(world.url)


async def test_a_frozen_server_keeps_nobody_waiting(tmp_path: Path) -> None:
    async with opened(tmp_path) as world:
        await world.put(new())
        world.store.put_now([new()], 5)
        with world.own.frozen():
            began = time.monotonic()
            job = new()
            with pytest.raises(EnqueueUnknown) as caught:
                world.store.put_now([job], 0.5)
            assert caught.value.id == job.id
            assert time.monotonic() - began < 1.5
            with pytest.raises(EnqueueUnknown):
                await world.put(new())
            with pytest.raises(StoreUnavailable, match="did not answer"):
                await world.store.beat("w")
            assert time.monotonic() - began < 13
            began = time.monotonic()
            with pytest.raises(StoreUnavailable):
                await try_open(world.url)
            assert time.monotonic() - began < 6
        assert (await world.put(new()))[0].new
        assert world.store.put_now([new()], 5)[0].new


# Lost replies


@contextlib.asynccontextmanager
async def lossy(folder: Path) -> AsyncGenerator[tuple[OwnWorld, Proxy], None]:
    """A world that talks through a proxy."""
    with Redis() as server, Proxy(server.port) as proxy:

        class Through(OwnWorld):
            server = property(lambda self: f"redis://127.0.0.1:{proxy.port}/0")

        world = Through(folder, server)
        await world.open()
        yield world, proxy
        await world.close()


async def test_a_repeat_after_a_lost_reply_is_not_noticed(tmp_path: Path) -> None:
    async with lossy(tmp_path) as (world, proxy):
        crew = await world.crew()
        jobs = [new(fresh=True), new(fresh=True, unique="k")]
        proxy.wanted = jobs[0].id.encode()
        assert [entry.new for entry in await world.put(*jobs)] == [True, True]
        proxy.wanted = b"thing"
        await world.store.save([doc("a", body=b"one")])
        (saved,) = (await world.store.load("thing")).docs
        proxy.wanted = b"thing"
        job = new()
        assert (await world.store.put([job], docs=[replace(saved, body=b"two")]))[0].id == job.id
        proxy.wanted = crew.runner.encode()
        claims = await crew.claim(9)
        assert {claim.id for claim in claims} == {entry.id for entry in (*jobs, job)}
        proxy.wanted = crew.runner.encode()
        answer = await crew.exchange(*(ends(claim, Ending.SUCCEEDED) for claim in claims))
        assert (answer.refused, proxy.swallowed) == ((), 5)
        (saved,) = (await world.store.load("thing")).docs
        assert saved.body == b"two"
        proxy.wanted = b"thing"
        await world.store.save([replace(saved, gone=True)])
        assert ((await world.store.load("thing")).docs, proxy.swallowed) == ((), 6)


async def test_registering_is_never_repeated(tmp_path: Path) -> None:
    async with lossy(tmp_path) as (world, proxy):
        await world.crew(worker=(await world.crew()).worker)
        proxy.wanted = b"somebody"
        with pytest.raises(StoreUnavailable):
            await world.store.enlist(worker_info("somebody"))
        assert [worker.id for worker in await world.store.workers()][1:] == ["somebody"]


# Records that are gone, a server that does not write


async def test_records_that_were_taken_away_by_hand_stop_nobody(tmp_path: Path) -> None:
    world = RedisWorld(tmp_path, options="&history=1")
    await world.open()
    jobs = [new() for _ in range(6)]
    await world.put(*jobs)
    crew = await world.crew()
    world.raw.hdel(world.key("jobs"), jobs[0].id)
    claims = await crew.claim(3)
    assert [claim.id for claim in claims] == [job.id for job in jobs[1:3]]
    world.raw.hdel(world.key("news"), jobs[1].id)
    assert [claim.id for claim in (await crew.again(demand=wants(3))).claimed] == [jobs[2].id]
    assert (await crew.exchange(*(ends(claim, Ending.SUCCEEDED) for claim in claims))).refused == (jobs[1].id,)
    assert len(await crew.claim(9)) == 3
    await world.close()


@pytest.mark.parametrize("damage", [None, b"", b"\xc1\xff", b"\xa4late\x00", b"\x80"])
@pytest.mark.parametrize("what", ["workers", "runners", "news"])
async def test_a_record_that_is_damaged_ends_no_beat_and_keeps_no_job(
    tmp_path: Path, what: str, damage: bytes | None
) -> None:
    world = RedisWorld(tmp_path)
    await world.open()
    jobs = [new(), new()]
    await world.put(*jobs)
    other, crew = await world.crew(), await world.crew()
    claims = await crew.claim(2)
    await world.store.act([jobs[0].id], Verb.CANCEL)
    await world.advance(1)
    await crew.beat()  # its lease ends last
    name = {"workers": crew.worker, "runners": crew.runner, "news": jobs[0].id}[what]
    if damage is None:
        world.raw.hdel(world.key(what), name)
    else:
        world.raw.hset(world.key(what), name, damage)
    assert not (await other.beat()).evicted
    assert other.worker in [worker.id for worker in await world.store.workers()]
    assert (await crew.beat(*claims, seq=crew.seq)).evicted == (what == "workers")
    assert claims[1].id in {claim.id for claim in (await crew.again(demand=wants(2))).claimed}
    assert (await crew.exchange(ends(claims[0], Ending.SUCCEEDED))).refused == ((jobs[0].id,) if what == "news" else ())
    if what != "workers":
        for _ in range(4):
            await world.advance(5)
            await other.beat()
    assert (await other.beat()).dead
    assert await world.store.reap(other.worker) == [crew.worker]
    assert not (await other.beat()).dead
    assert jobs[1].id in {claim.id for claim in await other.claim(2, suspects=["work"])}
    await world.close()


async def test_a_read_only_server_is_waited_for(tmp_path: Path) -> None:
    """As after a failover, when the old master came back as a replica but nobody has noticed yet."""
    async with opened(tmp_path) as world:
        await world.put(new())
        world.raw.replicaof("127.0.0.1", 1)
        later = asyncio.create_task(world.put(new()))
        await asyncio.sleep(0.3)
        assert not later.done()
        world.raw.replicaof("NO", "ONE")
        assert (await later)[0].new
