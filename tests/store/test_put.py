"""Putting jobs: where they are placed, and that repeating a put changes nothing."""

import msgspec
import pytest

from tests.store.world import World, new, new_id, wants
from windlass.model import Filter, NewJob, Placed, State, Verb


async def test_a_job_is_kept_as_it_was_put(world: World) -> None:
    job = new(
        "mail.send",
        args=b'[[1],{"x":"\xc3\xa9"}]',
        queue="mail",
        priority=-7,
        tags=("eu", "vip"),
        options=b'{"timeout":3}',
        expires_in=60,
    )
    now = await world.now()
    assert await world.put(job) == [Placed(id=job.id, state=State.READY, new=True)]
    kept = await world.job(job.id)
    assert (kept.task, kept.queue, kept.priority, kept.args) == (job.task, job.queue, job.priority, job.args)
    assert (kept.options, set(kept.tags)) == (job.options, {"eu", "vip"})
    assert (kept.attempt, kept.lost, kept.fence, kept.runner, kept.attempts) == (0, 0, 0, None, ())
    assert (kept.enqueued_at, kept.run_at) == pytest.approx((now, now))
    assert kept.expires_at == pytest.approx(now + 60)
    assert (kept.started_at, kept.finished_at, kept.cancelling, kept.result) == (None, None, False, None)


async def test_tags_are_a_set_told_in_order(world: World) -> None:
    plain, other, moved = (new(tags=tags) for tags in (("b", "a", "b"), ("c", "c"), ("b", "a")))
    await world.put(plain, msgspec.structs.replace(other, fresh=True), msgspec.structs.replace(moved, unique="k"))
    world.store.put_now([alone := new(tags=("z", "y", "z"), fresh=True)], 5)
    kept = await world.store.get([plain.id, other.id, moved.id, alone.id])
    assert [job.tags for job in kept] == [("a", "b"), ("c",), ("a", "b"), ("y", "z")]
    assert [await world.store.count(Filter(tag=tag)) for tag in "abcy"] == [2, 2, 1, 1]


async def test_nothing_put(world: World) -> None:
    assert await world.put() == []


async def test_delay_places_a_job_scheduled(world: World) -> None:
    now = await world.now()
    job = new(delay=5)
    assert (await world.put(job))[0].state is State.SCHEDULED
    assert (await world.job(job.id)).run_at == pytest.approx(now + 5)


async def test_run_at_ahead_places_a_job_scheduled(world: World) -> None:
    now = await world.now()
    job = new(run_at=now + 100)
    assert (await world.put(job))[0].state is State.SCHEDULED
    assert (await world.job(job.id)).run_at == pytest.approx(now + 100)


async def test_run_at_past_or_now_places_a_job_ready(world: World) -> None:
    now = await world.now()
    placed = await world.put(new(run_at=now - 100), new(run_at=now))
    assert [entry.state for entry in placed] == [State.READY, State.READY]


async def test_answers_come_in_order(world: World) -> None:
    jobs = [new(delay=n % 2) for n in range(10)]
    placed = await world.put(*jobs)
    assert [entry.id for entry in placed] == [job.id for job in jobs]
    assert [entry.state for entry in placed] == [State.SCHEDULED if job.delay else State.READY for job in jobs]


async def test_repeated_put_of_a_live_job(world: World) -> None:
    job = new(priority=1)
    await world.put(job)
    again = msgspec.structs.replace(job, priority=9, args=b"[[9],{}]")
    assert await world.put(again) == [Placed(id=job.id, state=State.READY, new=False)]
    assert (await world.job(job.id)).priority == 1
    assert (await world.job(job.id)).args == job.args


async def test_repeated_put_of_a_running_job(world: World) -> None:
    job = new()
    await world.put(job)
    crew = await world.crew()
    claim = await crew.take()
    assert await world.put(job) == [Placed(id=job.id, state=State.RUNNING, new=False)]
    assert (await world.job(job.id)).fence == claim.fence


@pytest.mark.parametrize("delay", [0, 60])
async def test_repeated_put_of_a_finished_job(world: World, delay: float) -> None:
    job = new(delay=delay)
    await world.put(job)
    await world.store.act([job.id], Verb.CANCEL)
    before = await world.job(job.id)
    assert await world.put(job) == [Placed(id=job.id, state=State.CANCELLED, new=False)]
    assert await world.job(job.id) == before
    assert not await (await world.crew()).claim(5)


async def test_two_jobs_of_one_put_with_one_id(world: World) -> None:
    job = new(priority=1)
    twin = msgspec.structs.replace(job, priority=2)
    placed = await world.put(job, new(), twin)
    assert [entry.new for entry in placed] == [True, True, False]
    assert placed[2] == Placed(id=job.id, state=State.READY, new=False)
    assert (await world.job(job.id)).priority == 1
    assert len(await (await world.crew()).claim(9)) == 2


async def test_a_put_that_is_new_in_part(world: World) -> None:
    old, fresh = [new() for _ in range(3)], [new(tags=("t",)) for _ in range(3)]
    await world.put(*old)
    mixed = [job for pair in zip(old, fresh, strict=True) for job in pair]
    assert [entry.new for entry in await world.put(*mixed)] == [False, True] * 3
    assert len(await (await world.crew()).claim(99)) == 6
    assert (await world.job(fresh[0].id)).tags == ("t",)


async def test_five_thousand_jobs_in_one_put(world: World) -> None:
    jobs = [new("work", queue=f"q{n % 3}", priority=n % 2, tags=("bulk",) if n % 2 else ()) for n in range(5_000)]
    placed = await world.put(*jobs)
    assert [entry.id for entry in placed] == [job.id for job in jobs]
    assert all(entry.new and entry.state is State.READY for entry in placed)
    assert sum(line.count for line in await world.store.stats()) == 5_000
    again = await world.put(*jobs)
    assert not any(entry.new for entry in again)
    crew = await world.crew()
    claims = await crew.claim(900)
    assert [claim.id for claim in claims] == [job.id for job in jobs if job.priority == 1][:900]


async def test_a_put_in_the_middle_of_which_an_id_repeats(world: World) -> None:
    jobs = [new() for _ in range(700)]
    jobs[650] = msgspec.structs.replace(jobs[650], id=jobs[3].id)
    placed = await world.put(*jobs)
    assert [n for n, entry in enumerate(placed) if not entry.new] == [650]
    assert sum(line.count for line in await world.store.stats()) == 699


async def test_a_deleted_id_is_free_again(world: World) -> None:
    job = new()
    await world.put(job)
    await world.store.act([job.id], Verb.DELETE)
    assert await world.put(job) == [Placed(id=job.id, state=State.READY, new=True)]


async def test_put_now_places_like_put(world: World) -> None:
    job, later = new(unique="k"), new(delay=9)
    placed = world.store.put_now([job, later], 5)
    assert [entry.state for entry in placed] == [State.READY, State.SCHEDULED]
    assert world.store.put_now([job, new(unique="k")], 5) == [Placed(id=job.id, state=State.READY, new=False)] * 2
    assert (await (await world.crew()).take()).id == job.id


async def test_what_a_claim_tells(world: World) -> None:
    job = NewJob(id=new_id(), task="work", args=b'[["\xe2\x82\xac"],{}]', queue="mail", priority=5, options=b"{}")
    now = await world.now()
    await world.put(job)
    await world.advance(2)
    crew = await world.crew()
    claim = (await crew.exchange(demand=wants(1))).claimed[0]
    assert (claim.id, claim.task, claim.queue, claim.args) == (job.id, job.task, job.queue, job.args)
    assert (claim.options, claim.priority, claim.attempt, claim.lost) == (b"{}", 5, 0, 0)
    assert (claim.fence, claim.seq) == (1, crew.seq)
    assert (claim.enqueued_at, claim.run_at) == pytest.approx((now, now))
    kept = await world.job(job.id)
    assert (kept.state, kept.runner, kept.fence) == (State.RUNNING, crew.runner, 1)
    assert kept.started_at == pytest.approx(now + 2)
