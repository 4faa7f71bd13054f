"""What only PostgreSQL has: a schema that moves on, a history in days, poolers, listeners, servers that go away."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import psycopg
import pytest

from tests import servers
from tests.proxy import Proxy
from tests.store.postgres_world import PgBouncerWorld, PostgresWorld, old_snapshot
from tests.store.straight import Straight, app, sweep
from tests.store.world import World, doc, ends, name, new, new_id, wants, worker_info
from windlass import every
from windlass.access import Access
from windlass.clock import SystemClock
from windlass.errors import ConfigError, Conflict, StoreUnavailable, UniquePending
from windlass.model import Claim, Ending, Filter, RunnerInfo, State, Verb
from windlass.schedules import Schedules
from windlass.store.contract import Store
from windlass.store.dispatch import make_store
from windlass.store.documents import in_transaction, on_store
from windlass.store.links import SyncLink, recognise
from windlass.store.tx import make_joinable
from windlass.vault import Vault
from windlass.worker.fires import Fires

DAY = 86_400.0


@pytest.fixture
def schema() -> str:
    """The name of a schema that does not exist yet."""
    return f"own_{new_id().replace('-', '')[:24]}"


@contextlib.asynccontextmanager
async def opened(url: str) -> AsyncIterator[Store]:
    store = make_store(url)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture
def direct() -> Iterator[psycopg.Connection]:
    """A connection of the test's own."""
    with psycopg.connect(servers.postgres_url(), autocommit=True) as connection:
        yield connection


# The schema


async def test_the_first_start_makes_the_schema_unless_forbidden(schema: str) -> None:
    url = f"{servers.postgres_url()}?schema={schema}"
    with pytest.raises(ConfigError, match="windlass migrate"):
        async with opened(f"{url}&migrate=no"):
            pass
    store = make_store(url)
    assert (await store.migrate())[0] == "0001_tables"
    assert await store.migrate() == []
    async with opened(f"{url}&migrate=no") as open_store:
        await open_store.put([job := new()])
        assert (await open_store.get([job.id]))[0].state is State.READY


async def test_many_first_starts_at_once(schema: str) -> None:
    url = f"{servers.postgres_url()}?schema={schema}"
    taken = await asyncio.gather(*(make_store(url).migrate() for _ in range(6)))
    assert sum(bool(steps) for steps in taken) == 1


async def test_a_schema_for_later_code_is_refused_and_a_compatible_one_is_not(
    schema: str, direct: psycopg.Connection
) -> None:
    url = f"{servers.postgres_url()}?schema={schema}"
    await make_store(url).migrate()
    direct.execute(f"UPDATE {schema}.schema_version SET version = 99")
    async with opened(url):
        pass
    direct.execute(f"UPDATE {schema}.schema_version SET oldest = 98")
    with pytest.raises(ConfigError, match="update Windlass"):
        async with opened(url):
            pass


async def test_two_schemas_share_nothing(schema: str) -> None:
    async with (
        opened(f"{servers.postgres_url()}?schema={schema}_a") as one,
        opened(f"{servers.postgres_url()}?schema={schema}_b") as other,
    ):
        await one.put([job := new()])
        assert await other.get([job.id]) == []
        assert await other.count(Filter()) == 0


@pytest.mark.parametrize("option", ["schema=a.b", "schema=", "migrate=maybe"])
def test_a_url_that_means_nothing_is_refused(option: str) -> None:
    with pytest.raises(ConfigError, match="expected"):
        make_store(f"postgresql://localhost/x?{option}")


# The history


@pytest.fixture
def world(tmp_path: Path, loop: asyncio.Runner) -> Iterator[PostgresWorld]:
    world = PostgresWorld(tmp_path)
    loop.run(world.open())
    yield world
    loop.run(world.close())


async def test_finished_jobs_leave_the_hot_table_and_come_back_under_their_fence(world: PostgresWorld) -> None:
    await world.put(job := new(tags=("eu",)))
    crew = await world.crew()
    await crew.settle(ends(await crew.take(), Ending.FAILED))
    assert world.direct.execute("SELECT count(*) FROM live").fetchone() == (0,)
    assert world.direct.execute("SELECT count(*) FROM history_failed").fetchone() == (1,)
    assert await world.store.act([job.id], Verb.RETRY) == [job.id]
    assert world.direct.execute("SELECT count(*) FROM history").fetchone() == (0,)
    claim = await crew.take()
    assert (claim.id, claim.fence, claim.attempt) == (job.id, 2, 0)


async def test_retention_drops_whole_days(world: PostgresWorld) -> None:
    """Jobs of past days stand in partitions of their own, and go with them."""
    past = (datetime.now(UTC).timestamp() // DAY) * DAY
    await world.shift(past - await world.now() + 60)  # today, which has a partition
    await world.store.prune({})
    await world.put(job := new())
    await world.store.act([job.id], Verb.CANCEL)
    day = f"history_cancelled_{int(past // DAY)}"
    assert world.direct.execute(f"SELECT count(*) FROM {day}").fetchone() == (1,)
    await world.advance(DAY * 2)
    await world.store.prune({State.CANCELLED: DAY * 2})
    assert await world.store.get([job.id])
    await world.advance(DAY)
    await world.store.prune({State.CANCELLED: DAY * 2})
    assert world.direct.execute("SELECT to_regclass(%s)", (day,)).fetchone() == (None,)
    assert await world.store.get([job.id]) == []


async def test_a_report_that_reads_for_long_only_delays_retention(world: PostgresWorld) -> None:
    past = (datetime.now(UTC).timestamp() // DAY) * DAY
    await world.shift(past - await world.now() + 60)
    await world.store.prune({})
    await world.put(job := new())
    await world.store.act([job.id], Verb.CANCEL)
    await world.advance(DAY * 4)
    with psycopg.connect(servers.postgres_url()) as reader:
        reader.execute(f"SELECT count(*) FROM {world.schema}.history")
        await world.store.prune({State.CANCELLED: DAY * 2})
        assert await world.store.get([job.id])
        await world.put(new())
    await world.store.prune({State.CANCELLED: DAY * 2})
    assert await world.store.get([job.id]) == []


# Other people's transactions


async def test_a_key_in_an_open_transaction_is_pending_and_holds_up_nobody_else(world: PostgresWorld) -> None:
    await world.put(held := new(unique="held"))
    crew = await world.crew()
    claim = await crew.take()
    with psycopg.connect(servers.postgres_url()) as theirs:
        theirs.execute(f"SET search_path = {world.schema}")
        theirs.execute("INSERT INTO marks VALUES ('fresh', 'theirs', NULL), ('held', 'x', NULL) ON CONFLICT DO NOTHING")
        with pytest.raises(UniquePending):
            await world.put(job := new(unique="fresh"))
        with pytest.raises(UniquePending):
            await world.store.put([job], docs=[doc("cursor")])
        assert (await world.store.load("thing")).docs == (), "a document would have moved on without its job"
        assert await world.store.get([job.id]) == []
        assert (await world.put(new(unique="held")))[0].id == held.id
        assert await crew.settle(ends(claim, Ending.SUCCEEDED))
        theirs.rollback()
    assert (await world.put(job))[0].new


@pytest.mark.parametrize(
    ("verb", "meanwhile"),
    [
        (Verb.CANCEL, Verb.RETRY),
        (Verb.DELETE, Verb.RETRY),
        (Verb.DELETE, Verb.CANCEL),
        (Verb.RETRY, Verb.CANCEL),
    ],
)
async def test_a_job_that_left_the_state_of_the_filter_meanwhile_is_left_alone(
    world: PostgresWorld, verb: Verb, meanwhile: Verb
) -> None:
    await world.put(job := new(delay=60))
    with psycopg.connect(servers.postgres_url()) as theirs:
        theirs.execute(f"SELECT {world.schema}.act(ARRAY[%s], %s, NULL)", (job.id, meanwhile))
        acting = asyncio.create_task(world.store.act(Filter(state=State.SCHEDULED), verb))
        async with asyncio.timeout(30):
            while not world.direct.execute(WAITING_FOR, (theirs.info.backend_pid,)).fetchone():
                await asyncio.sleep(0.01)
        theirs.commit()
    assert await acting == []
    assert await world.state(job.id) is (State.READY if meanwhile is Verb.RETRY else State.CANCELLED)


WAITING_FOR = "SELECT 1 FROM pg_stat_activity WHERE %s = ANY (pg_blocking_pids(pid))"


async def test_an_old_snapshot_elsewhere_hides_no_job(world: PostgresWorld) -> None:
    """With bounds that move on while dead rows stay, whatever lands below them is found."""
    crew = await world.crew()
    with old_snapshot(world):
        for _ in range(5):
            await world.put(*(new() for _ in range(50)))
            claims = await crew.claim(50)
            assert len(claims) == 50
            await crew.exchange(*(ends(claim, Ending.SUCCEEDED) for claim in claims[1:]))
            await world.advance(3)
            await crew.beat()
            await asyncio.sleep(0.05)  # the survey that follows a beat
            await crew.exchange(ends(claims[0], Ending.INTERRUPTED))  # lands below the bound
            assert [claim.id for claim in await crew.claim(5)] == [claims[0].id]
            await crew.exchange(ends(claims[0], Ending.SUCCEEDED))
            await world.store.release([crew.runner], Ending.INTERRUPTED)
            crew = await world.crew(worker=crew.worker)
            assert [claim.id for claim in await crew.claim(5)] == [claims[0].id]
            await world.store.act([claims[0].id], Verb.CANCEL)
            await world.store.retire(crew.worker)
            crew = await world.crew()


async def test_a_job_handed_back_during_a_survey_is_seen_at_once(world: PostgresWorld) -> None:
    """The survey cannot see it yet, and raises the bound past it: who comes second has to see what the other did."""
    crew = await world.crew()
    await world.put(old := new())
    assert await crew.claim(1)
    await world.advance(3)
    await world.put(young := new())
    with psycopg.connect(servers.postgres_url()) as survey:
        survey.execute(f"SET search_path = {world.schema}")
        survey.execute("SELECT survey()")
        back = asyncio.create_task(world.store.release([crew.runner], Ending.INTERRUPTED))
        while not back.done() and not world.direct.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchone():
            await asyncio.sleep(0.01)
    assert await back == 1
    other = await world.crew(worker=crew.worker)
    assert {claim.id for claim in await other.claim(5)} == {old.id, young.id}


async def test_an_idle_runner_leaves_nothing_behind_by_its_beats(world: PostgresWorld) -> None:
    crew = await world.crew()
    for _ in range(20):
        assert await crew.claim(1) == []
        await crew.beat(seq=crew.seq)
    assert world.direct.execute("SELECT count(*) FROM exchanges").fetchone() == (1,)


async def test_a_line_that_nobody_noted_is_found_by_the_survey(world: PostgresWorld) -> None:
    """A job put within the user's own transaction notes no line; the next beat finds it."""
    await world.put(job := new())
    world.direct.execute("TRUNCATE lines")
    crew = await world.crew()
    assert await crew.claim() == []
    await crew.beat()
    for _ in range(200):
        if claims := await crew.claim():
            break
        await asyncio.sleep(0.01)
    assert [claim.id for claim in claims] == [job.id]


# Poolers


async def test_two_hundred_clients_behind_a_pooler_with_two_connections(tmp_path: Path) -> None:
    world = PgBouncerWorld(tmp_path, SystemClock())
    await world.open()
    jobs = [new() for _ in range(2_000)]
    await world.put(*jobs)
    worker = new_id()
    await world.store.enlist(worker_info(worker))
    got: list[str] = []

    async def drain() -> None:
        async with opened(world.url) as store:
            runner, seq = new_id(), 0
            claims: list[Claim] = []
            await store.join(RunnerInfo(id=runner, worker=worker, pid=1))
            while not seq or claims:
                seq += 1
                outcomes = [ends(claim, Ending.SUCCEEDED) for claim in claims]
                answer = await store.exchange(runner, seq, outcomes, wants(5))
                assert answer.refused == ()
                claims = list(answer.claimed)
                got.extend(claim.id for claim in claims)

    await asyncio.gather(*(drain() for _ in range(200)))
    assert sorted(got) == sorted(job.id for job in jobs)
    await world.close()


async def test_without_a_listener_a_wait_just_ends(tmp_path: Path) -> None:
    world = PostgresWorld(tmp_path, SystemClock())
    await world.open()
    async with opened(f"{servers.pgbouncer_url()}?schema={world.schema}") as store:
        assert not await store.wait("work", 0.1)
        await store.put([job := new()])
        assert not await store.wait("work", 0.1)
        assert (await store.get([job.id]))[0].state is State.READY
    await world.close()


# A server that goes away


async def until_heard(world: World, store: Store) -> bool:
    """Whether a wait on `store` hears of a put through the world's own store, tried a few times."""
    for _ in range(100):
        waiting = asyncio.create_task(store.wait("work", 1))
        await asyncio.sleep(0.02)
        await world.put(new(name("other")))  # whose line is empty: else nobody would be idle
        if await waiting:
            return True
    return False


async def test_everything_goes_on_after_the_connections_are_ended(tmp_path: Path, direct: psycopg.Connection) -> None:
    world = PostgresWorld(tmp_path, SystemClock())
    await world.open()
    async with opened(world.url) as store:
        assert await until_heard(world, store)
        for _ in range(3):
            direct.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'windlass'")
            await world.put(new())
            assert world.store.put_now([new()], 5)[0].new
            while await store.wait("work", 0.05):
                pass
            assert await until_heard(world, store)
    await world.close()


async def test_a_server_that_was_killed_costs_no_job_and_no_store() -> None:
    with servers.Postgres() as server:
        async with opened(server.url) as store:
            jobs = [new() for _ in range(50)]
            await store.put(jobs[:25])
            server.stop()
            with pytest.raises(StoreUnavailable, match="nothing was written"):
                await asyncio.to_thread(store.put_now, [new()], 0.3)
            server.start()
            await store.put(jobs[25:])
            server.restart()
            assert store.put_now([jobs[0]], 5)[0].new is False
            assert len(await store.get([job.id for job in jobs])) == 50


async def test_registering_is_never_repeated() -> None:
    with servers.Postgres(fsync="off") as server, Proxy(server.port) as proxy:
        async with opened(server.url.replace(str(server.port), str(proxy.port))) as store:
            proxy.wanted = b"somebody"
            with pytest.raises(StoreUnavailable, match="did not answer"):
                await store.enlist(worker_info("somebody"))
            proxy.wanted = b"its runner"
            with pytest.raises(StoreUnavailable, match="did not answer"):
                await store.join(RunnerInfo(id="its runner", worker="somebody", pid=1))
            (worker,) = await store.workers()
            assert [runner.id for runner in worker.runners] == ["its runner"]
            assert proxy.swallowed == 2


async def test_a_schedule_in_an_open_transaction_holds_up_no_other(world: PostgresWorld) -> None:
    found = Schedules(cast("Access", Straight(world.store)), Vault(), app.jobs)
    for title in ("a", "held", "z"):
        await found.acreate(title, every(seconds=60), sweep)
    joinable = make_joinable(world.url)
    with psycopg.connect(servers.postgres_url()) as theirs:
        work = found._update("held", None, None, {"jitter": 1})
        recognise(theirs, SyncLink).drive(in_transaction(joinable, work), lambda: None)
        await world.advance(61)
        await Fires(world.store, Vault()).fire_due()
        assert await world.store.count(Filter(task="sweep")) == 2
        with pytest.raises(Conflict, match="still open"):
            await on_store(world.store, found._pause("held", True))
        theirs.commit()
    await Fires(world.store, Vault()).fire_due()
    assert await world.store.count(Filter(task="sweep")) == 3


async def test_a_count_that_is_given_up_ends_on_the_server(world: PostgresWorld) -> None:
    """It would count on for nobody; who else waits is not concerned."""
    with psycopg.connect(servers.postgres_url()) as theirs:
        theirs.execute(f"LOCK TABLE {world.schema}.history")
        counts = [asyncio.create_task(world.store.count(Filter(state=State.FAILED))) for _ in range(2)]
        async with asyncio.timeout(30):
            for waiting in (2, 1):
                while len(world.direct.execute(WAITING_FOR, (theirs.info.backend_pid,)).fetchall()) != waiting:
                    await asyncio.sleep(0.01)
                counts[0].cancel()
    assert await counts[1] == 0
