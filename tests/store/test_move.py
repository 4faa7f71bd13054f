"""Jobs that come from another store: they go on there as if they had always been in this one."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.store.world import Crew, SQLiteWorld, World, doc, ends, new, worker_info
from windlass.errors import ConfigError, StoreError
from windlass.model import Attempt, Ending, Failure, Filter, JobRecord, NewJob, Past, Placed, State
from windlass.move import PAGE, Move, Moved

OLD = 1_700_000_000.0
"""A moment before any that a test's clock shows."""


def moved(**more: Any) -> NewJob:
    """A job with a long past elsewhere."""
    failure = Failure(type="ValueError", message="no \N{EURO SIGN}", traceback="tb")
    attempts = (
        Attempt(
            fence=1, attempt=1, ending=Ending.RETRY, runner="r1", started_at=OLD, ended_at=OLD + 1, failure=failure
        ),
        Attempt(fence=4, attempt=1, ending=Ending.LOST, runner=None, started_at=None, ended_at=OLD + 2),
    )
    past = {"enqueued_at": OLD - 5, "attempt": 1, "lost": 0, "fence": 7, "attempts": attempts}
    return new(**{"run_at": OLD + 10, "past": Past(**{**past, **more.pop("past", {})}), **more})


# A job with a past


async def test_a_past_is_kept(world: World) -> None:
    job = moved(tags=("eu", "vip"), unique="k", options=b'{"timeout":3}', queue="mail", priority=9)
    [placed] = await world.put(job)
    assert (placed.state, placed.new) == (State.READY, True)
    kept = await world.job(job.id)
    assert job.past
    assert (kept.attempt, kept.lost, kept.fence, kept.attempts) == (1, 0, 7, job.past.attempts)
    assert (kept.enqueued_at, kept.run_at) == pytest.approx((OLD - 5, OLD + 10))
    assert (kept.queue, kept.priority, kept.unique, set(kept.tags)) == ("mail", 9, "k", {"eu", "vip"})
    assert (kept.runner, kept.finished_at, kept.cancelling) == (None, None, False)
    assert await world.put(job) == [Placed(id=job.id, state=State.READY, new=False)]
    assert await world.job(job.id) == kept


@pytest.mark.parametrize("fence", [0, 7])
async def test_a_job_that_was_claimed_elsewhere_does_not_expire(world: World, fence: int) -> None:
    await world.put(
        known := moved(expires_in=5, past={"fence": fence, "started_at": OLD + 1}),
        unknown := moved(expires_in=5, past={"fence": fence}),
    )
    kept = await world.store.get([known.id, unknown.id])
    assert [job.started_at for job in kept] == ([OLD + 1, OLD - 5] if fence else [None, None])
    await world.advance(6)
    assert len(await (await world.crew()).claim(2)) == (2 if fence else 0)


async def test_a_past_with_no_attempts(world: World) -> None:
    job = moved(past={"attempt": 0, "fence": 0, "attempts": ()})
    await world.put(job)
    kept = await world.job(job.id)
    assert (kept.attempt, kept.fence, kept.attempts) == (0, 0, ())
    assert (await (await world.crew()).take()).fence == 1


async def test_its_fence_and_counts_go_on(world: World) -> None:
    job = moved()
    await world.put(job)
    crew = await world.crew()
    claim = await crew.take()
    assert (claim.fence, claim.attempt, claim.lost) == (8, 1, 0)
    assert (claim.enqueued_at, claim.run_at) == pytest.approx((OLD - 5, OLD + 10))
    await crew.exchange(ends(claim, Ending.RETRY))
    kept = await world.job(job.id)
    assert (kept.attempt, [one.fence for one in kept.attempts]) == (2, [1, 4, 8])


async def test_a_suspect_stays_one(world: World) -> None:
    job = moved(past={"lost": 2})
    await world.put(job)
    crew = await world.crew()
    assert not await crew.claim(5)
    assert (await crew.take("other", suspects=["work"])).lost == 2


async def test_its_rank_is_the_moment_that_it_was_due(world: World) -> None:
    before, early, late = new(), moved(), moved(run_at=OLD + 20)
    await world.put(before)
    await world.put(late)
    await world.put(early)
    crew = await world.crew()
    assert [claim.id for claim in await crew.claim(3)] == [early.id, late.id, before.id]


async def test_its_time_may_lie_ahead(world: World) -> None:
    now = await world.now()
    job = moved(run_at=now + 30)
    [placed] = await world.put(job)
    assert placed.state is State.SCHEDULED
    assert (await world.job(job.id)).run_at == pytest.approx(now + 30)
    await world.advance(31)
    assert (await (await world.crew()).take()).fence == 8


async def test_its_unique_key_is_held(world: World) -> None:
    job = moved(unique="k")
    await world.put(job)
    [placed] = await world.put(new(unique="k"))
    assert (placed.id, placed.new) == (job.id, False)
    other = moved(unique="k")
    [placed] = await world.put(other)
    assert (placed.id, placed.new) == (job.id, False)
    assert await world.store.get([other.id]) == []


async def test_many_with_a_past_in_one_put(world: World) -> None:
    jobs = [moved(tags=("t",)) if n % 2 else new() for n in range(500)]
    assert all(placed.new for placed in await world.put(*jobs))
    kept = await world.store.get([job.id for job in jobs])
    assert [len(job.attempts) for job in kept] == [2 * (n % 2) for n in range(500)]
    assert [job.fence for job in kept] == [7 * (n % 2) for n in range(500)]


async def test_put_now_keeps_a_past_too(world: World) -> None:
    job = moved()
    assert world.store.put_now([job], 5)[0].new
    assert (await world.job(job.id)).fence == 7


# Moving between stores


@pytest.fixture
def source(tmp_path: Path, loop: asyncio.Runner, world: World) -> Iterator[World]:
    """A second store, in a file, on the same time as the world."""
    folder = tmp_path / "source"
    folder.mkdir()
    source = SQLiteWorld(folder, world.clock)
    loop.run(source.open())
    yield source
    loop.run(source.close())


async def move(source: World, target: World) -> Moved:
    await target.advance(0)  # one clock for both, which some worlds have to tell to their server
    return await Move(source.store, target.store, clock=source.clock).run()


async def through(crew: Crew, *endings: Ending) -> JobRecord:
    """A job of the crew's world whose attempts ended so."""
    job = new(tags=("eu",), expires_in=10_000, unique=f"key-{len(endings)}-{endings}", options=b"{}")
    await crew.world.put(job)
    for ending in endings:
        await crew.exchange(ends(await crew.take(suspects=["work"]), ending, delay=0.0001))
        await crew.world.advance(0.001)
    return await crew.world.job(job.id)


def essence(job: JobRecord) -> Any:
    """What a move may not change, times to the microsecond."""
    expires = None if job.expires_at is None or job.fence else round(job.expires_at, 3)
    times = (round(job.enqueued_at, 5), round(job.run_at, 5), round(job.started_at or 0, 5), expires)
    facts = (job.id, job.task, job.args, job.options, job.queue, job.priority, job.tags, job.unique)
    return facts, times, (job.attempt, job.lost, job.fence), job.attempts


async def test_live_jobs_move_as_they_are(source: World, world: World) -> None:
    crew = await source.crew()
    jobs = [await through(crew, *[Ending.RETRY] * n) for n in range(3)]
    jobs.append(await through(crew, Ending.SNOOZED))
    later = new(delay=500, expires_in=9_000, priority=5, queue="mail")
    done = new("done")
    await source.put(later, done)
    await crew.exchange(ends(await crew.take("done"), Ending.SUCCEEDED))
    jobs = await source.store.get([*(job.id for job in jobs), later.id])
    await source.store.retire(crew.worker)
    report = await move(source, world)
    assert (report.jobs, report.docs, report.left) == (5, 0, {})
    assert [essence(job) for job in await world.store.get([job.id for job in jobs])] == [essence(job) for job in jobs]
    assert [job.id for job in (await source.store.find(Filter())).jobs] == [done.id]
    assert (await move(source, world)).jobs == 0


async def test_more_than_a_page_moves(source: World, world: World) -> None:
    jobs = [new(delay=n % 2 * 900, priority=n % 3) for n in range(1_050)]
    await source.put(*jobs)
    told: list[int] = []
    moved = await Move(source.store, world.store, clock=source.clock, tell=told.append).run()
    assert (moved.jobs, told[-1]) == (1_050, 1_050)
    assert await world.store.count(Filter()) == 1_050
    assert await source.store.count(Filter()) == 0


async def test_a_unique_key_taken_in_the_target_stays(source: World, world: World) -> None:
    theirs, ours, free = new(unique="k"), new(unique="k"), new()
    await world.put(theirs)
    await source.put(ours, free)
    moved = await move(source, world)
    assert moved.jobs == 1
    assert list(moved.left) == [ours.id]
    assert theirs.id in moved.left[ours.id]
    assert await source.state(ours.id) is State.READY


async def test_what_is_there_already_is_not_doubled(source: World, world: World) -> None:
    waiting, running, over = new("a"), new("b"), new("c")
    for one in (source, world):
        await one.put(waiting, running, over)
    crew = await world.crew()
    await crew.take("b")
    await crew.exchange(ends(await crew.take("c"), Ending.SUCCEEDED))
    moved = await move(source, world)
    assert (moved.jobs, moved.left) == (3, {})
    states = [await world.state(job.id) for job in (waiting, running, over)]
    assert states == [State.READY, State.RUNNING, State.SUCCEEDED]
    assert await source.store.count(Filter()) == 0


async def test_living_workers_forbid_it_and_dead_ones_are_reaped(source: World, world: World) -> None:
    crew = await source.crew(lease=15)
    job = new()
    await source.put(job)
    await crew.take()
    with pytest.raises(StoreError, match=r"nobody works on.*pid 1 on here"):
        await move(source, world)
    await source.advance(16)
    moved = await move(source, world)
    assert (moved.reaped, moved.jobs, moved.left) == ([crew.worker], 1, {})
    kept = await world.job(job.id)
    assert (kept.lost, kept.fence, [one.ending for one in kept.attempts]) == (1, 1, [Ending.LOST])


async def test_a_worker_that_comes_meanwhile_ends_it(
    source: World, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await source.put(*[new() for _ in range(450)])
    put = world.store.put

    async def late(jobs: Any, *more: Any) -> Any:
        if not await source.store.workers():
            await source.store.enlist(worker_info("late"))
        return await put(jobs, *more)

    monkeypatch.setattr(world.store, "put", late)
    with pytest.raises(StoreError, match="late"):
        await move(source, world)
    assert await source.store.count(Filter()) + await world.store.count(Filter()) == 450


async def test_a_job_claimed_in_between_stays_and_is_taken_back(
    source: World, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, other = new(), new("other")
    await source.put(job, other)
    crew = await source.crew()
    put = world.store.put

    async def meanwhile(jobs: Any, *more: Any) -> Any:
        if job.id in [one.id for one in jobs] and (await source.job(job.id)).state is State.READY:
            await crew.take()
        return await put(jobs, *more)

    monkeypatch.setattr(world.store, "put", meanwhile)
    move = Move(source.store, world.store, clock=source.clock)
    monkeypatch.setattr(source.store, "workers", nobody)
    moved = await move.run()
    assert (moved.jobs, moved.left) == (1, {job.id: "it is running in the source"})
    assert await source.state(job.id) is State.RUNNING
    assert await world.store.get([job.id]) == []


async def nobody() -> list[Any]:
    return []


async def test_all_that_stays_is_named(source: World, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [new() for _ in range(2 * PAGE)]
    await source.put(*jobs)
    crew = await source.crew()
    while await crew.claim(PAGE):
        pass
    monkeypatch.setattr(source.store, "workers", nobody)
    moved = await Move(source.store, world.store, clock=source.clock).run()
    assert (moved.jobs, set(moved.left)) == (0, {job.id for job in jobs})


async def test_one_store_under_two_names(shared: World) -> None:
    await shared.put(new())
    first = shared.store
    second = await shared.reopen()
    with pytest.raises(ConfigError, match="the same one"):
        await Move(first, second, clock=shared.clock).run()
    assert await first.count(Filter()) == 1


async def test_a_job_that_expired_on_the_way_does_not_run(source: World, world: World) -> None:
    job = new(expires_in=5)
    await source.put(job)
    await source.advance(6)
    await move(source, world)
    assert not await (await world.crew()).claim(1)
    assert await world.state(job.id) is State.CANCELLED


async def test_documents_move(source: World, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("windlass.move.KINDS", ("thing",))
    due = OLD + 5
    await source.store.save([doc("a", body=b"{1}", due=due), doc("b", body=b"{2}"), doc("c", body=b"{3}")])
    await world.store.save([doc("b", body=b"{2}"), doc("c", body=b"{9}")])
    moved = await move(source, world)
    assert moved.docs == 2
    assert list(moved.left) == ["thing c"]
    assert [one.name for one in (await source.store.load("thing")).docs] == ["c"]
    there = {one.name: one for one in (await world.store.load("thing")).docs}
    assert (there["a"].body, there["c"].body) == (b"{1}", b"{9}")
    assert there["a"].due == pytest.approx(due)
