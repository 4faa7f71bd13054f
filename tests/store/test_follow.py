"""The jobs that follow a job, made in the commit that ends it, whoever ends it."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from tests.store.world import LEASE, Crew, World, ends, new, wants
from windlass import policy
from windlass.model import Claim, Ending, Filter, JobRecord, NewJob, State, Verb
from windlass.move import as_new
from windlass.policy import Retry

ARGS = '{"x":"\\u0000\\"ü"}'
FOLLOW = (
    {"on": "s", "task": "work", "queue": "a", "args": ARGS, "priority": 7, "tags": ["t", "u"]},
    {"on": "f", "task": "mend", "queue": "default", "args": "{}", "options": '{"timeout":5}', "delay": 60_000_000},
    {"on": "sfc", "task": "tell", "queue": "default", "args": "{}", "expires": 30_000_000},
)


def leading(*follow: object, **more: Any) -> NewJob:
    """A job that FOLLOW, or `follow`, comes after."""
    return new(follow=msgspec.json.encode(follow or FOLLOW), **more)


async def children(
    world: World, id: str, fence: int, letter: str, places: Sequence[int] = (0, 1, 2)
) -> list[JobRecord]:
    """What was made when that job ended so."""
    return await world.store.get([f"{id}.{fence}{letter}.{place}" for place in places])


async def count(world: World) -> int:
    """How many jobs there are."""
    return await world.store.count(Filter())


async def test_what_follows_a_success(world: World) -> None:
    job, crew = leading(), await world.crew()
    await world.put(job)
    claim = await crew.take()
    await world.advance(1)
    answer = await crew.exchange(ends(claim, Ending.SUCCEEDED))
    assert answer.refused == ()
    now = await world.now()
    first, last = await children(world, job.id, 1, "s")
    assert (first.task, first.queue, first.priority, first.tags) == ("work", "a", 7, ("t", "u"))
    assert (first.args, first.options, first.state) == (ARGS.encode(), None, State.READY)
    assert (first.enqueued_at, first.run_at, first.attempt, first.fence) == (now, now, 0, 0)
    assert (last.task, last.state, last.expires_at) == ("tell", State.READY, now + 30)
    assert (await world.job(job.id)).follow == job.follow
    assert [one.id for one in (await world.store.find(Filter(tag="u"))).jobs] == [first.id]


async def test_it_can_be_claimed_at_once(world: World) -> None:
    """By the very exchange that hands in the end of the first."""
    job, crew = leading(), await world.crew()
    await world.put(job)
    claim = await crew.take()
    answer = await crew.exchange(ends(claim, Ending.SUCCEEDED), demand=wants(5, "work", "tell"))
    assert [one.id for one in answer.claimed] == [f"{job.id}.1s.0", f"{job.id}.1s.2"]
    assert answer.claimed[0].args == ARGS.encode()


async def test_what_follows_a_failure(world: World) -> None:
    job, crew = leading(), await world.crew()
    await world.put(job)
    await crew.exchange(ends(await crew.take(), Ending.FAILED))
    mend, tell = await children(world, job.id, 1, "f")
    assert (mend.task, mend.state, mend.options) == ("mend", State.SCHEDULED, b'{"timeout":5}')
    assert (mend.run_at, tell.task) == (await world.now() + 60, "tell")


async def by_settle(world: World, crew: Crew, claim: Claim) -> None:
    await crew.settle(ends(claim, Ending.CANCELLED))


async def by_release(world: World, crew: Crew, claim: Claim) -> None:
    await crew.release(Ending.LOST, ends(claim, Ending.CANCELLED))


async def marked(world: World, claim: Claim) -> None:
    assert await world.store.act([claim.id], Verb.CANCEL) == [claim.id]


async def by_retry(world: World, crew: Crew, claim: Claim) -> None:
    await marked(world, claim)
    await crew.exchange(policy.raised(claim, ValueError(), Retry(attempts=9)))


async def by_hand_back(world: World, crew: Crew, claim: Claim) -> None:
    await marked(world, claim)
    await crew.release()


async def by_retire(world: World, crew: Crew, claim: Claim) -> None:
    await marked(world, claim)
    await world.store.retire(crew.worker)


async def by_reap(world: World, crew: Crew, claim: Claim) -> None:
    await marked(world, claim)
    await world.advance(LEASE + 1)
    assert await world.store.reap() == [crew.worker]


async def by_beat(world: World, crew: Crew, claim: Claim) -> None:
    await marked(world, claim)
    await crew.beat(seq=crew.seq)


@pytest.mark.parametrize("end", [by_settle, by_release, by_retry, by_hand_back, by_retire, by_reap, by_beat])
async def test_however_a_running_job_is_cancelled(world: World, end: object) -> None:
    assert callable(end)
    job, crew = leading(), await world.crew()
    await world.put(job)
    await end(world, crew, await crew.take())
    assert await world.state(job.id) is State.CANCELLED
    assert [one.task for one in await children(world, job.id, 1, "c")] == ["tell"]
    assert await count(world) == 2


@pytest.mark.parametrize("late", ["", "expiry", "claim"])
async def test_however_a_waiting_job_is_cancelled(world: World, late: str) -> None:
    job = leading(expires_in=5 if late else None)
    await world.put(job)
    if late:
        crew = await world.crew()
        await world.advance(6)
        await (crew.claim() if late == "claim" else crew.exchange())
    else:
        await world.store.act(Filter(task="work"), Verb.CANCEL)
    assert [one.task for one in await children(world, job.id, 0, "c")] == ["tell"]
    assert await count(world) == 2


async def test_nothing_follows_what_goes_on(world: World) -> None:
    job, crew = leading(), await world.crew()
    await world.put(job)
    await crew.exchange(ends(await crew.take(), Ending.RETRY))
    await world.store.act([job.id], Verb.RETRY)
    await crew.take()
    await crew.release()
    assert await count(world) == 1


async def test_nothing_follows_a_refused_outcome_or_a_repeated_one(world: World) -> None:
    job, crew = leading(), await world.crew()
    await world.put(job)
    claim = await crew.take()
    await crew.exchange(ends(claim, Ending.SUCCEEDED))
    await crew.again(ends(claim, Ending.SUCCEEDED))
    assert not await crew.settle(ends(claim, Ending.FAILED))
    assert await crew.settle(ends(claim, Ending.SUCCEEDED))
    assert await count(world) == 3


async def test_nothing_follows_a_deleted_job(world: World) -> None:
    job, over = leading(), leading()
    await world.put(job, over)
    await world.store.act([over.id], Verb.CANCEL)
    await world.store.act([job.id, over.id], Verb.DELETE)
    assert [one.id for one in await children(world, over.id, 0, "c")] == [f"{over.id}.0c.2"]
    assert await count(world) == 1


async def test_each_real_end_makes_its_own(world: World) -> None:
    job, crew = leading(), await world.crew()
    await world.put(job)
    await crew.exchange(ends(await crew.take(), Ending.FAILED))
    assert len(await children(world, job.id, 1, "f")) == 2
    await world.store.act([job.id], Verb.RETRY)
    await world.store.act([job.id], Verb.CANCEL)
    assert len(await children(world, job.id, 1, "c")) == 1
    await world.store.act([job.id], Verb.RETRY)
    await world.store.act([job.id], Verb.CANCEL)  # nothing has run in between: it ended so before
    assert await count(world) == 4
    await world.store.act([job.id], Verb.RETRY)
    await crew.exchange(ends(await crew.take(), Ending.SUCCEEDED))
    assert len(await children(world, job.id, 2, "s")) == 2


async def test_an_end_that_comes_again_is_known_when_its_follower_is_over(world: World) -> None:
    job, crew = leading(), await world.crew()
    await world.put(job)
    await world.store.act([job.id], Verb.CANCEL)
    await crew.exchange(ends(await crew.take("tell"), Ending.SUCCEEDED))
    await world.store.act([job.id], Verb.RETRY)
    await world.store.act([job.id], Verb.CANCEL)
    (tell,) = await children(world, job.id, 0, "c")
    assert tell.state is State.SUCCEEDED
    assert await count(world) == 2


async def test_followers_have_followers(world: World) -> None:
    inner = msgspec.json.encode([{"on": "s", "task": "last", "queue": "q", "args": "{}"}]).decode()
    job, crew = leading({"on": "s", "task": "next", "queue": "q", "args": "{}", "follow": inner}), await world.crew()
    await world.put(job)
    await crew.exchange(ends(await crew.take(), Ending.SUCCEEDED))
    await crew.exchange(ends(await crew.take("next"), Ending.SUCCEEDED))
    assert (await world.job(f"{job.id}.1s.0.1s.0")).task == "last"


async def test_large_followers_and_several_at_once(world: World) -> None:
    large = '{"x":"' + "y" * 100_000 + '"}'
    jobs = [leading({"on": "s", "task": "tell", "queue": "q", "args": large}) for _ in range(3)]
    crew = await world.crew()
    await world.put(*jobs, new())
    claims = await crew.claim(4)
    await crew.exchange(*(ends(claim, Ending.SUCCEEDED) for claim in claims))
    for job in jobs:
        (tell,) = await children(world, job.id, 1, "s")
        assert tell.args == large.encode()
    assert len(await crew.claim(9, "tell")) == 3


@pytest.mark.parametrize(
    "text",
    [
        b"nonsense",
        b"5",
        b"null",
        b"{}",
        b'["x", 5, null, [], {}]',
        b'[{"on": "sfc"}]',
        b'[{"on": 5, "task": "t", "queue": "q", "args": "{}"}]',
        b'[{"on": "sfc", "task": null, "queue": "q", "args": "{}"}]',
        b'[{"on": "sfc", "queue": "q", "args": "{}"}]',
    ],
)
async def test_what_nobody_of_ours_wrote_stops_nobody(world: World, text: bytes) -> None:
    job, other, crew = new(follow=text), leading(), await world.crew()
    await world.put(job, other)
    first, second = await crew.claim(2)
    answer = await crew.exchange(ends(first, Ending.SUCCEEDED), ends(second, Ending.SUCCEEDED))
    assert answer.refused == ()
    assert [await world.state(one.id) for one in (job, other)] == [State.SUCCEEDED] * 2
    assert len(await children(world, other.id, 1, "s")) == 2
    assert await count(world) == 4


async def test_followers_move_with_their_job(world: World) -> None:
    job, crew = leading(), await world.crew()
    await world.put(job)
    moved = as_new(await world.job(job.id), await world.now())
    await world.store.act([job.id], Verb.DELETE)
    await world.put(moved)
    await crew.exchange(ends(await crew.take(), Ending.SUCCEEDED))
    assert len(await children(world, job.id, 1, "s")) == 2
