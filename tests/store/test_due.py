"""What time does: promotion, next_due, expiry."""

import pytest

from tests.store.world import World, ends, new, new_id, wants
from windlass.model import Demand, Ending, State, Verb
from windlass.store.contract import BATCH

NONE = Demand(slots=0)


async def test_a_scheduled_job_is_claimed_when_due_and_not_before(world: World) -> None:
    job = new(delay=10)
    await world.put(job)
    crew = await world.crew()
    await world.advance(9.999)
    assert await crew.claim() == []
    await world.advance(0.002)
    assert (await crew.take()).id == job.id


async def test_next_due_is_exact(world: World) -> None:
    await world.put(new(delay=70.5), new(delay=10.25))
    crew = await world.crew()
    assert (await crew.exchange(demand=wants(1))).next_due == pytest.approx(10.25, abs=0.001)
    await world.advance(4)
    assert (await crew.exchange(demand=wants(1))).next_due == pytest.approx(6.25, abs=0.001)
    await world.advance(6.25)
    answer = await crew.exchange(demand=wants(2))
    assert len(answer.claimed) == 1
    assert answer.next_due == pytest.approx(60.25, abs=0.001)


async def test_next_due_of_an_empty_store(world: World) -> None:
    crew = await world.crew()
    assert (await crew.exchange(demand=wants(1))).next_due is None


async def test_next_due_tells_of_retries(world: World) -> None:
    await world.put(new())
    crew = await world.crew()
    answer = await crew.exchange(ends(await crew.take(), Ending.RETRY, delay=33), demand=wants(1))
    assert answer.next_due == pytest.approx(33, abs=0.001)


@pytest.mark.parametrize("ending", [Ending.RETRY, Ending.SNOOZED])
async def test_a_job_that_comes_back_at_once_is_claimed_in_the_same_exchange(world: World, ending: Ending) -> None:
    await world.put(job := new())
    crew = await world.crew()
    answer = await crew.exchange(ends(await crew.take(), ending, delay=0), demand=wants(1))
    assert [claim.id for claim in answer.claimed] == [job.id]


async def test_next_due_by_beat(world: World) -> None:
    crew = await world.crew()
    assert (await crew.beat()).due is None
    await world.put(new(delay=20))
    await world.advance(5)
    assert (await crew.beat()).due == pytest.approx(15, abs=0.001)
    await world.put(new())
    assert (await crew.beat()).due == 0
    await crew.take()
    assert (await crew.beat()).due == pytest.approx(15, abs=0.001)
    await world.advance(15.001)
    assert (await crew.beat()).due == 0


async def test_an_exchange_promotes_at_most_a_batch(world: World) -> None:
    await world.put(*(new(delay=5) for _ in range(2 * BATCH + 500)))
    crew = await world.crew()
    await world.advance(6)
    ready = []
    for _ in range(4):
        answer = await crew.exchange(demand=NONE)
        ready.append(sum(line.count for line in await world.store.stats() if line.state is State.READY))
        assert answer.next_due == (0 if ready[-1] < 2 * BATCH + 500 else None)
    assert ready == [BATCH, 2 * BATCH, 2 * BATCH + 500, 2 * BATCH + 500]


async def test_many_due_in_one_moment_keep_their_order(world: World) -> None:
    jobs = [new(delay=5) for _ in range(BATCH + 200)]
    await world.put(*reversed(jobs))
    await world.advance(5)
    crew = await world.crew()
    got: list[str] = []
    for _ in range(20):
        got += [claim.id for claim in await crew.claim(150)]
    assert sorted(got) == [job.id for job in jobs]


async def test_a_job_due_later_never_comes_before_one_due_earlier(world: World) -> None:
    jobs = [new(delay=1 + n / 1000) for n in range(BATCH + 200)]
    await world.put(*reversed(jobs))
    await world.advance(60)
    crew = await world.crew()
    got: list[str] = []
    for _ in range(20):
        got += [claim.id for claim in await crew.claim(90)]
    assert got == [job.id for job in jobs]


async def test_the_wall_clock_decides_when_a_job_is_due(world: World) -> None:
    await world.put(job := new(delay=3_600))
    crew = await world.crew()
    await world.shift(3_601)
    assert (await crew.take()).id == job.id


# Expiry


@pytest.mark.parametrize("delay", [0, 2, 60])
async def test_a_job_past_its_time_ends_cancelled(world: World, delay: float) -> None:
    job = new(delay=delay, expires_in=5)
    await world.put(job)
    await world.advance(5.001)
    now = await world.now()
    crew = await world.crew()
    assert await crew.claim() == []
    kept = await world.job(job.id)
    assert (kept.state, kept.reason, kept.fence) == (State.CANCELLED, "expired", 0)
    assert kept.finished_at == pytest.approx(now)


async def test_a_job_within_its_time_is_claimed(world: World) -> None:
    await world.put(job := new(expires_in=5))
    await world.advance(4.999)
    assert (await (await world.crew()).take()).id == job.id


async def test_a_running_job_does_not_expire(world: World) -> None:
    await world.put(job := new(expires_in=5))
    crew = await world.crew()
    claim = await crew.take()
    await world.advance(6)
    await crew.exchange(demand=wants(1))
    assert await world.state(job.id) is State.RUNNING
    await crew.exchange(ends(claim, Ending.SUCCEEDED))
    assert await world.state(job.id) is State.SUCCEEDED


@pytest.mark.parametrize("ending", [Ending.RETRY, Ending.SNOOZED, Ending.INTERRUPTED, Ending.LOST])
async def test_a_job_that_was_started_once_does_not_expire(world: World, ending: Ending) -> None:
    await world.put(job := new(expires_in=5))
    crew = await world.crew()
    await crew.settle(ends(await crew.take(), ending, delay=9))
    await world.advance(10)
    assert (await crew.take("work", suspects=["work"])).id == job.id
    await crew.release(Ending.INTERRUPTED)
    await world.advance(10)
    crew = await world.crew()
    assert (await crew.take("work", suspects=["work"])).fence == 3


async def test_a_job_without_a_limit_does_not_expire(world: World) -> None:
    await world.put(job := new())
    await world.advance(10_000_000)
    assert (await (await world.crew()).take()).id == job.id


async def test_an_expired_job_is_never_claimed_behind_a_head_of_thousands(world: World) -> None:
    jobs = [new(priority=5, expires_in=1) for _ in range(3 * BATCH + 7)]
    short = {job.id for job in jobs}
    await world.put(*jobs, live := new())
    await world.advance(2)
    crew = await world.crew()
    for _ in range(5):
        answer = await crew.exchange(demand=wants(10))
        assert not short & {claim.id for claim in answer.claimed}
        if answer.claimed:
            break
        assert answer.next_due == 0
    assert [claim.id for claim in answer.claimed] == [live.id]
    for _ in range(5):
        await crew.exchange()
    assert {line.state for line in await world.store.stats()} == {State.RUNNING}


async def test_expired_jobs_of_unknown_tasks_end_too(world: World) -> None:
    await world.put(job := new("strange", expires_in=1))
    await world.advance(2)
    await (await world.crew()).claim()
    assert await world.state(job.id) is State.CANCELLED


async def test_an_expired_job_is_not_retried_into_the_same_end(world: World) -> None:
    """An operator's retry is a new request: the old limit does not end it at once."""
    await world.put(job := new(expires_in=1))
    await world.advance(2)
    crew = await world.crew()
    await crew.exchange()
    assert await world.store.act([job.id], Verb.RETRY) == [job.id]
    assert (await crew.take()).id == job.id


async def test_expiry_frees_nothing_but_its_own(world: World) -> None:
    ids = [new_id() for _ in range(3)]
    await world.put(*(new(id=id, unique=id, expires_in=n + 1) for n, id in enumerate(ids)))
    await world.advance(2.5)
    await (await world.crew()).exchange()
    placed = await world.put(*(new(unique=id) for id in ids))
    assert [entry.new for entry in placed] == [True, True, False]
