"""What only the Redis store has: servers that are not fit for jobs, its keys, its scripts, its history."""

import asyncio
import logging
from pathlib import Path

import pytest

from tests.servers import Redis
from tests.store.redis_world import RedisWorld, opened, try_open
from tests.store.test_lift import late
from tests.store.world import doc, ends, new, wants
from windlass.clock import SystemClock
from windlass.errors import ConfigError
from windlass.model import Clash, Demand, Doc, Ending, Fair, Filter, Need, State, Verb
from windlass.store.contract import BATCH, GATE
from windlass.store.dispatch import make_store
from windlass.store.redis import wire
from windlass.store.redis.health import Health, refuse
from windlass.store.redis.store import RedisStore
from windlass.store.redis.url import parse

# Servers that are no place for jobs


async def test_a_server_that_evicts_is_refused() -> None:
    wanted = pytest.raises(ConfigError, match=r"allkeys-lru.*set maxmemory-policy to noeviction")
    with Redis(**{"maxmemory": "100mb", "maxmemory-policy": "allkeys-lru"}) as server, wanted:
        await try_open(server.url)


async def test_a_server_that_keeps_nothing_is_refused_unless_that_is_wanted(caplog: pytest.LogCaptureFixture) -> None:
    with Redis(appendonly="no") as server:
        with pytest.raises(ConfigError, match=r"set appendonly to yes.*durability=none"):
            await try_open(server.url)
        await try_open(f"{server.url}?durability=none")
    assert "durability=none" in caplog.text


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "appendfsync is everysec"),
        ({"appendonly": "no", "save": "60 1"}, "only writes snapshots"),
        ({"appendfsync": "always"}, ""),
    ],
)
async def test_what_a_crash_may_lose_is_told(
    settings: dict[str, str], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    with Redis(**settings) as server:
        await try_open(server.url)
    warned = [entry.getMessage() for entry in caplog.records if entry.levelno == logging.WARNING]
    assert len(warned) == bool(said)
    assert said in "".join(warned)


async def test_a_server_that_hides_its_settings_is_taken_with_a_warning() -> None:
    with Redis() as server:
        server.raw.acl_setuser(
            "app", True, passwords=["+p"], keys=["*"], channels=["*"], categories=["+@all"], commands=["-config"]
        )
        store = make_store(server.url.replace("://", "://app:p@"))
        await store.open()
        found = await store.probe()
        await store.close()
    assert "CONFIG GET" in found["warning"]
    assert found["eviction"] == "noeviction"


def test_an_old_server_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"6\.2\.14.*7\.0"):
        refuse(Health({"redis_version": "6.2.14"}, {}), parse("redis://x"))


async def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    world = RedisWorld(tmp_path)
    world.raw.set(world.key("schema"), 99)
    with pytest.raises(ConfigError, match=r"schema 99.*update Windlass"):
        await world.open()
    await world.close()


async def test_probe_tells_what_an_operator_wants(tmp_path: Path) -> None:
    async with opened(tmp_path) as world:
        found = await world.store.probe()
    assert found["engine"].startswith(("Redis ", "Valkey "))
    assert int(found["bytes"]) > 0
    assert abs(float(found["clock_offset"])) < 1
    assert found["persistence"] == "AOF, fsync everysec"
    assert "problem" not in found


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis://h/x", "database"),
        ("redis://h?prefix={a}", "prefix"),
        ("redis://h?history=many", "history"),
        ("redis://h?durability=all", "durability"),
        ("redis://h?colour=red", "colour"),
        ("redis+sentinel://h:1", "service"),
        ("redis+cluster://h:1/3", "cluster"),
        ("redis://h:port", "[Pp]ort"),
    ],
)
def test_a_url_that_is_none(url: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        RedisStore(url, SystemClock())


def test_what_a_url_says() -> None:
    target = parse("rediss+cluster://me:p%40ss@a:1,b?prefix=shop&history=5&durability=none")
    assert (target.kind, target.tls, target.nodes) == ("cluster", True, (("a", 1), ("b", 6379)))
    assert (target.login["username"], target.login["password"]) == ("me", "p@ss")
    assert (target.tag, target.history, target.durable) == ("{shop}:", 5, False)
    assert "p%40ss" not in target.shown
    sentinel = parse("redis+sentinel://a,b:7/main/2")
    assert (sentinel.nodes, sentinel.service, sentinel.login["db"]) == ((("a", 26379), ("b", 7)), "main", 2)
    assert parse("valkey://h").nodes == (("h", 6379),)


def test_commands_are_packed_alike_with_and_without_the_c_part() -> None:
    words = ("EVALSHA", b"\xff\x00", 7, "é")
    assert wire.pack_plainly(words) == b"*4\r\n$7\r\nEVALSHA\r\n$2\r\n\xff\x00\r\n$1\r\n7\r\n$2\r\n\xc3\xa9\r\n"
    assert wire.pack(words) == wire.pack_plainly(words)


# Keys


async def test_all_keys_carry_one_tag_and_apps_are_apart(tmp_path: Path) -> None:
    one, other = RedisWorld(tmp_path), RedisWorld(tmp_path)
    async with opened(tmp_path) as world:
        await world.put(job := new(tags=("t",), unique="k", expires_in=60), new(args=b'"' + b"x" * 2_000 + b'"'))
        await world.store.save([doc("a", due=5)])
        crew = await world.crew()
        await crew.exchange(*[ends(claim, Ending.RETRY) for claim in await crew.claim(9)])
        await world.store.act([job.id], Verb.CANCEL)
        tag = world.key("").encode()
        assert [key for key in world.raw.scan_iter() if not key.startswith(tag)] == []
    for each in (one, other):
        await each.open()
    await one.put(job := new(unique="k"))
    assert (await other.put(new(id=job.id, unique="k")))[0].new
    assert await other.store.act([job.id], Verb.DELETE) == [job.id]
    assert await one.state(job.id) is State.READY
    for each in (one, other):
        await each.close()


async def test_nothing_is_left_of_a_job_that_is_gone(tmp_path: Path) -> None:
    world = RedisWorld(tmp_path)
    await world.open()
    crew = await world.crew()
    before = set(world.raw.scan_iter(world.key("*")))
    jobs = [new(tags=("t",), unique=f"k{n}", expires_in=60 + n, args=b"1" * n * 90, delay=n % 2) for n in range(12)]
    await world.put(*jobs)
    await world.advance(1)
    endings = list(Ending)
    claims = await crew.claim(8)
    await crew.exchange(*(ends(claim, endings[n % 7]) for n, claim in enumerate(claims)))
    await crew.claim(1)
    await world.store.beat(crew.worker)
    await world.store.retire(crew.worker)
    await world.store.act([job.id for job in jobs], Verb.DELETE)
    left = {key.decode() for key in set(world.raw.scan_iter(world.key("*"))) - before}
    assert left == {world.key("departed")}
    await world.close()


async def test_nothing_is_left_of_a_job_that_passed_gates_and_took_turns(tmp_path: Path) -> None:
    world = RedisWorld(tmp_path)
    await world.open()
    await world.store.save([Doc(kind=GATE, name="g", version=0, body=b'{"limit":2}')])
    crew = await world.crew()
    before = set(world.raw.scan_iter(world.key("*")))
    gates = Need("g/a", 2), Need("g/b", keep=True)
    jobs = [new(gates=gates[: 1 + n % 2], fair=Fair(f"k{n % 3}"), unique=f"u{n}", delay=n % 2) for n in range(12)]
    await world.put(*jobs, *(new(id=job.id, gates=gates) for job in jobs))
    await world.advance(1)
    for ending in Ending:
        await crew.exchange(*(ends(claim, ending) for claim in await crew.claim(8)))
    await world.put(*(new(unique=f"u{n}", clash=clash) for n, clash in enumerate(Clash)))
    while await world.store.act(Filter(), Verb.DELETE):
        pass
    assert await crew.claim(8) == []
    assert {key.decode() for key in set(world.raw.scan_iter(world.key("*"))) - before} == set()
    await world.close()


# Gates that nobody of ours wrote


@pytest.mark.parametrize("needs", ["", "7", "[[]]", '[["g","x"]]', '[["g",1,2]]', '[["g",1e400]]', "[" * 2_000, "\xff"])
async def test_needs_that_are_none_stop_no_job(tmp_path: Path, needs: str) -> None:
    world = RedisWorld(tmp_path)
    await world.open()
    await world.put(job := new(gates=(Need("g"),), delay=1))
    world.raw.hset(world.key("gates"), job.id, needs.encode("latin-1"))
    await world.advance(1)
    crew = await world.crew()
    claim = await crew.take()
    assert (await world.job(job.id)).gates == ()
    assert (await crew.exchange(ends(claim, Ending.SUCCEEDED))).refused == ()
    await world.close()


@pytest.mark.parametrize("body", [b"", b"7", b"[]", b'{"limit":"x"}', b'{"limit":1e400}', b'{"burst":null}', b"\xff"])
async def test_settings_that_are_none_close_a_gate(tmp_path: Path, body: bytes) -> None:
    world = RedisWorld(tmp_path)
    await world.open()
    await world.store.save([Doc(kind=GATE, name="g", version=0, body=body)])
    await world.put(new(gates=(Need("g"),)), free := new())
    assert (await (await world.crew()).take()).id == free.id
    await world.close()


# Scripts


async def test_scripts_that_the_server_forgot_are_loaded_again(tmp_path: Path) -> None:
    async with opened(tmp_path) as world:
        for _ in range(3):
            await world.put(new())
            world.raw.script_flush()
        crew = await world.crew()
        claims = await crew.claim(9)
        world.raw.script_flush()
        assert (await crew.exchange(*(ends(claim, Ending.SUCCEEDED) for claim in claims))).refused == ()
        world.raw.script_flush()
        assert world.store.put_now([new()], 5)[0].new


async def test_a_backlog_that_nobody_here_knows_costs_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path) as world:
        await world.put(*(new("strange", queue=f"q{n % 3}", priority=9) for n in range(20)))
        crew = await world.crew()

        async def commands() -> int:
            world.raw.config_resetstat()
            assert await crew.claim(10) == []
            found = world.raw.info("commandstats")
            return sum(entry["calls"] for name, entry in found.items() if name.startswith(("cmdstat_z", "cmdstat_h")))

        few = await commands()
        for _ in range(10):
            await world.put(*(new("strange", queue=f"q{n % 3}", priority=9) for n in range(2_000)))
        assert await commands() == few <= 12


async def test_a_claim_reads_the_heads_it_needs_and_no_more(tmp_path: Path) -> None:
    async with opened(tmp_path) as world:
        await world.put(*(new(f"t{n % 4}") for n in range(4_000)))
        crew = await world.crew()
        world.raw.config_resetstat()
        claims = (await crew.exchange(demand=wants(40, "t0", "t1", "t2", "t3"))).claimed
        assert len(claims) == 40
        assert world.raw.info("commandstats")["cmdstat_zrange"]["calls"] < 20


# A history that stays small


async def test_the_history_is_bounded_by_its_size(tmp_path: Path) -> None:
    async with opened(tmp_path, "&history=50") as world:
        jobs = [new(tags=("t",), unique=f"k{n}") for n in range(400)]
        await world.put(*jobs)
        crew = await world.crew()
        while claims := await crew.claim(30):
            outcomes = [ends(claim, Ending.FAILED if n % 3 else Ending.SUCCEEDED) for n, claim in enumerate(claims)]
            await crew.exchange(*outcomes)
        assert await world.store.count(Filter()) == 50
        assert await world.store.count(Filter(tag="t")) == 50
        left = {job.id for job in (await world.store.find(Filter())).jobs}
        assert left <= {job.id for job in jobs[-70:]}, "of those that ended in one exchange, any may go first"
        assert world.raw.hlen(world.key("jobs")) == world.raw.hlen(world.key("news")) == 50
        assert len(world.raw.keys(world.key("a:*"))) <= 50


async def test_a_history_that_became_smaller_is_worked_off_by_prune(tmp_path: Path) -> None:
    async with opened(tmp_path) as world:
        jobs = [new() for _ in range(2_500)]
        await world.put(*jobs)
        while await world.store.act(Filter(task="work"), Verb.CANCEL):
            pass
        world.options = "&history=100"
        await world.reopen()
        assert [await world.store.prune({}) for _ in range(4)] == [1_000, 1_000, 400, 0]
        assert await world.store.count(Filter(state=State.CANCELLED)) == 100


# Jobs that are lifted


async def test_entries_of_those_that_do_not_stand_behind_go_and_make_nothing_ready(tmp_path: Path) -> None:
    """As versions that knew no lift leave them. They do not count, and what comes after them is lifted all the same."""
    world = RedisWorld(tmp_path)
    await world.open()
    try:
        later, plain, early = late(5, delay=99), new(), late(50)
        await world.put(later, plain, early, *(late(5) for _ in range(BATCH + 1)))
        crew = await world.crew()
        gone = {f"gone-{n}": n for n in range(2 * BATCH)}
        behind = world.key("behind")
        world.raw.zadd(behind, {**gone, later.id: 1, plain.id: 1, early.id: 1})
        await world.advance(10)
        assert [await world.store.lift() for _ in range(3)] == [BATCH, 1, 0]
        assert not (await crew.beat()).lift
        assert world.raw.zrange(behind, 0, -1) == [early.id.encode()]
        assert (await world.state(later.id), (await world.job(later.id)).ahead) == (State.SCHEDULED, -5)
        await world.advance(40)
        assert await world.store.lift() == 1
        world.raw.zadd(behind, {later.id: 1})
        while await world.store.wait("work", 0.3):
            pass
        assert await world.store.lift() == 0
        assert not await world.store.wait("work", 0.3), "there is nothing to wake anybody for"
    finally:
        await world.close()


# Much at once


async def test_a_thousand_calls_at_once(tmp_path: Path) -> None:
    async with opened(tmp_path) as world:
        placed = await asyncio.gather(*(world.put(new()) for _ in range(1_000)))
        assert all(entry[0].new for entry in placed)
        assert len(world.raw.client_list()) < 30


async def test_callers_on_many_threads(tmp_path: Path) -> None:
    async with opened(tmp_path) as world:
        calls = [asyncio.to_thread(world.store.put_now, [new()], 5) for _ in range(200)]
        assert all(entry[0].new for entry in await asyncio.gather(*calls))
        assert await world.store.count(Filter()) == 200


async def test_a_caller_that_gives_up_breaks_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path) as world:
        crew = await world.crew()
        for n in range(30):
            call = asyncio.create_task(world.put(new()))
            await asyncio.sleep(0.0001 * n)
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
        jobs = await world.store.get([job.id for job in (await world.store.find(Filter())).jobs])
        assert (await crew.exchange(demand=Demand(slots=0))).claimed == ()
        assert len(await crew.claim(99)) == len(jobs)
