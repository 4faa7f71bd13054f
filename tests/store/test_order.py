"""The order of claiming: within a queue, between queues, within the slots, and what is never claimed."""

import random

import pytest

from tests.store.model import Job, Model, ideal
from tests.store.world import World, ends, new, new_id, wants
from windlass.model import Claim, Demand, Ending, Lane, NewJob, Quota


def ids(jobs: list[NewJob]) -> list[str]:
    return [job.id for job in jobs]


def lanes(*given: tuple[int, str], suspects: str = "") -> tuple[Lane, ...]:
    """Lanes as (slots, task names separated by blanks)."""
    return tuple(
        Lane(slots=slots, tasks=frozenset(tasks.split()), suspects=frozenset(suspects.split()))
        for slots, tasks in given
    )


async def drain(world: World, demand: Demand, most: int = 1_000) -> list[str]:
    """The ids claimed, in order, until nothing more comes."""
    crew = await world.crew()
    got: list[str] = []
    while len(got) < most:
        answer = await crew.exchange(demand=demand)
        got += [claim.id for claim in answer.claimed]
        if not answer.claimed and answer.next_due != 0:
            return got
    return got


async def test_priority_then_rank_then_id(world: World) -> None:
    late, early = new(), new()
    low, high = new(priority=-1), new(priority=1)
    await world.put(early, low)
    await world.advance(1)
    await world.put(late, high)
    assert await drain(world, wants(1)) == ids([high, early, late, low])


async def test_jobs_of_one_moment_come_by_id(world: World) -> None:
    jobs = [new() for _ in range(20)]
    shuffled = random.Random(1).sample(jobs, len(jobs))
    await world.put(*shuffled)
    assert await drain(world, wants(7)) == ids(jobs)


async def test_order_holds_across_queues_and_tasks(world: World) -> None:
    rng = random.Random(2)
    jobs = [
        new(f"t{rng.randrange(5)}", queue=f"q{rng.randrange(4)}", priority=rng.randrange(-2, 3)) for _ in range(200)
    ]
    await world.put(*rng.sample(jobs, len(jobs)))
    expected = ids(sorted(jobs, key=lambda job: (-job.priority, job.id)))
    assert await drain(world, wants(13, *(f"t{n}" for n in range(5)))) == expected


async def test_one_deep_line_among_shallow_ones(world: World) -> None:
    """The best jobs all stand in one line: taking a fair part of each line would break the order."""
    deep = [new("deep", priority=1) for _ in range(60)]
    others = [new(f"t{n}") for n in range(30)]
    await world.put(*others, *deep)
    assert await drain(world, wants(25, "deep", *(f"t{n}" for n in range(30)))) == ids(deep) + ids(others)


async def test_a_delayed_job_takes_its_place_by_the_moment_it_was_due(world: World) -> None:
    delayed = new(delay=5)
    first, last = new(), new()
    await world.put(delayed, first)
    await world.advance(10)
    await world.put(last)
    assert await drain(world, wants(1)) == ids([first, delayed, last])


async def test_a_job_handed_back_stands_where_it_stood(world: World) -> None:
    first, second = new(), new()
    await world.put(first)
    await world.advance(1)
    await world.put(second)
    crew = await world.crew()
    assert (await crew.take()).id == first.id
    await crew.release(Ending.INTERRUPTED)
    assert await drain(world, wants(1)) == ids([first, second])


async def test_a_retried_job_stands_where_its_new_time_puts_it(world: World) -> None:
    first, second = new(), new()
    await world.put(first)
    crew = await world.crew()
    await crew.exchange(ends(await crew.take(), Ending.RETRY, delay=2))
    await world.advance(1)
    await world.put(second)
    await world.advance(5)
    assert await drain(world, wants(1)) == ids([second, first])


# Slots


async def test_never_more_than_the_slots(world: World) -> None:
    await world.put(*(new() for _ in range(10)))
    crew = await world.crew()
    assert len(await crew.claim(3)) == 3
    assert await crew.claim(0) == []
    assert len(await crew.claim(99)) == 7


async def test_never_more_than_a_lane_has(world: World) -> None:
    await world.put(*(new(task) for task in "aaaabbbbcccc"))
    crew = await world.crew()
    demand = Demand(slots=6, lanes=lanes((1, "a"), (3, "b c"), (9, "nothing")))
    claims = (await crew.exchange(demand=demand)).claimed
    tasks = [claim.task for claim in claims]
    assert tasks.count("a") <= 1
    assert tasks.count("b") + tasks.count("c") <= 3


async def test_the_slots_in_all_count_before_the_lanes(world: World) -> None:
    await world.put(*(new(task) for task in "aaaabbbb"))
    crew = await world.crew()
    claims = (await crew.exchange(demand=Demand(slots=2, lanes=lanes((4, "a"), (4, "b"))))).claimed
    assert len(claims) == 2


async def test_a_lane_without_slots_takes_nothing(world: World) -> None:
    await world.put(new("a"), new("b"))
    crew = await world.crew()
    answer = await crew.exchange(demand=Demand(slots=5, lanes=lanes((0, "a"), (5, "b"))))
    assert [claim.task for claim in answer.claimed] == ["b"]


async def test_a_full_lane_does_not_hold_up_another(world: World) -> None:
    """A lane that is busy all the time, with a long line of better jobs, leaves the others their turn."""
    await world.put(*(new("busy", priority=1) for _ in range(200)), *(new("idle") for _ in range(10)))
    crew = await world.crew()
    demand = Demand(slots=11, lanes=lanes((1, "busy"), (10, "idle")))
    done: list[Claim] = []
    for _ in range(3):
        answer = await crew.exchange(*(ends(claim, Ending.SUCCEEDED) for claim in done), demand=demand)
        done = list(answer.claimed)
        if any(claim.task == "idle" for claim in done):
            return
    pytest.fail("three exchanges took only jobs of the lane with one slot")


async def test_a_full_queue_of_unknown_tasks(world: World) -> None:
    await world.put(*(new("strange", priority=9) for _ in range(1_500)), known := new())
    crew = await world.crew()
    answer = await crew.exchange(demand=wants(5))
    assert [claim.id for claim in answer.claimed] == [known.id]
    answer = await crew.exchange(demand=wants(5))
    assert (answer.claimed, answer.next_due) == ((), None)
    assert await drain(world, wants(400, "strange"), 2_000) != []


@pytest.mark.parametrize("task", ["wor", "work2", "work.", "work-", "a.work", "WORK", "w_rk"])
async def test_a_name_is_matched_whole(world: World, task: str) -> None:
    await world.put(new(task))
    crew = await world.crew()
    assert await crew.claim(5) == []
    assert (await crew.take(task)).task == task


@pytest.mark.parametrize("queue", ["a.b", "a-", "A", "a_", "aa", "0"])
async def test_a_queue_is_matched_whole(world: World, queue: str) -> None:
    await world.put(new(queue=queue), new(queue="a"))
    crew = await world.crew()
    claims = (await crew.exchange(demand=wants(5, quotas=[(queue, 5)]))).claimed
    assert [claim.queue for claim in claims] == [queue]


# Suspects


async def test_a_suspect_waits_for_a_lane_that_lists_it(world: World) -> None:
    job, other = new(), new()
    await world.put(job)
    crew = await world.crew()
    await crew.take()
    await crew.release(Ending.LOST)
    await world.put(other)
    crew = await world.crew()
    assert [claim.id for claim in await crew.claim(5, "work")] == [other.id]
    assert await crew.claim(5, "other", suspects=["other"]) == []
    (claim,) = await crew.claim(5, "other", suspects=["work"])
    assert (claim.id, claim.lost) == (job.id, 1)


async def test_suspects_keep_within_their_lane(world: World) -> None:
    await world.put(*(new() for _ in range(6)))
    crew = await world.crew()
    assert len(await crew.claim(6)) == 6
    await crew.release(Ending.LOST)
    await world.put(*(new() for _ in range(6)))
    crew = await world.crew()
    demand = Demand(
        slots=6, lanes=(*lanes((6, "work")), Lane(slots=2, tasks=frozenset(), suspects=frozenset({"work"})))
    )
    claims = (await crew.exchange(demand=demand)).claimed
    assert sum(claim.lost > 0 for claim in claims) <= 2
    assert len(claims) <= 6


async def test_an_innocent_suspect_clears_itself(world: World) -> None:
    await world.put(new())
    crew = await world.crew()
    await crew.take()
    await crew.release(Ending.LOST)
    crew = await world.crew()
    claim = await crew.take("other", suspects=["work"])
    await crew.exchange(ends(claim, Ending.RETRY, delay=0))
    assert (await crew.take("work")).lost == 0


# Quotas


async def test_strict_order_between_queues(world: World) -> None:
    second = [new(queue="b", priority=5) for _ in range(4)]
    first = [new(queue="a", priority=-5) for _ in range(4)]
    await world.put(*second, *first, new(queue="c"))
    crew = await world.crew()
    answer = await crew.exchange(demand=wants(6, quotas=[("a", 6), ("b", 6)]))
    assert {claim.id for claim in answer.claimed} == set(ids(first) + ids(second)[:2])


@pytest.mark.parametrize("shares", [(6, 0), (6, 6)])
async def test_strict_order_holds_over_many_tasks(world: World, shares: tuple[int, int]) -> None:
    """A queue with one deep line among many shallow ones is still first."""
    deep = [new("deep", queue="a", priority=1) for _ in range(40)]
    others = [new(f"t{n}", queue="a") for n in range(12)]
    second = [new("deep", queue="b") for _ in range(40)]
    await world.put(*others, *deep, *second)
    demand = wants(30, "deep", *(f"t{n}" for n in range(12)), quotas=[("a", shares[0] * 5), ("b", shares[1] * 5)])
    got = await drain(world, demand)
    assert sorted(got[:52]) == sorted(ids(deep) + ids(others))
    assert sorted(got[52:]) == sorted(ids(second))


async def test_weighted_shares(world: World) -> None:
    await world.put(*(new(queue=queue) for queue in "aaaaaaaabbbbbbbb"))
    crew = await world.crew()
    answer = await crew.exchange(demand=wants(8, quotas=[("a", 6), ("b", 2)]))
    assert sorted(claim.queue for claim in answer.claimed) == list("aaaaaabb")


async def test_what_a_share_leaves_passes_on_in_order(world: World) -> None:
    await world.put(*(new(queue=queue) for queue in "abbbbbcccccc"))
    crew = await world.crew()
    answer = await crew.exchange(demand=wants(8, quotas=[("a", 4), ("b", 2), ("c", 2)]))
    assert sorted(claim.queue for claim in answer.claimed) == list("abbbbbcc")


async def test_a_quota_takes_the_best_of_its_queue(world: World) -> None:
    jobs = [new(queue="a", priority=n) for n in range(5)]
    await world.put(*jobs, *(new(queue="b") for _ in range(5)))
    crew = await world.crew()
    answer = await crew.exchange(demand=wants(3, quotas=[("a", 2), ("b", 1)]))
    assert {claim.id for claim in answer.claimed if claim.queue == "a"} == {jobs[4].id, jobs[3].id}


async def test_a_queue_without_quota_is_left_alone(world: World) -> None:
    await world.put(new(queue="other"))
    crew = await world.crew()
    answer = await crew.exchange(demand=wants(3, quotas=[("a", 3)]))
    assert (answer.claimed, answer.next_due) == ((), None)


# Against the model


def random_demand(rng: random.Random) -> Demand:
    tasks = [f"t{n}" for n in range(5)]
    rng.shuffle(tasks)
    known = tasks[: rng.randrange(1, 6)]
    cut = rng.randrange(len(known) + 1)
    given = tuple(
        Lane(slots=rng.randrange(6), tasks=frozenset(part), suspects=frozenset(rng.sample(tasks, 2) if at else ()))
        for at, part in enumerate((known[:cut], known[cut:]))
    )
    queues = rng.sample("abc", rng.randrange(1, 4))
    quotas = tuple(Quota(queue=queue, share=rng.randrange(7)) for queue in queues)
    return Demand(slots=rng.randrange(9), lanes=given, quotas=quotas if rng.random() < 0.6 else None)


@pytest.mark.parametrize("seed", range(8))
async def test_a_claim_is_a_head_of_the_ideal_one(world: World, seed: int) -> None:
    rng = random.Random(seed)
    model = Model(await world.now())
    for _ in range(25):
        for _ in range(rng.randrange(25)):
            job = new(f"t{rng.randrange(5)}", queue=rng.choice("abcd"), priority=rng.randrange(-1, 2), id=new_id())
            await world.put(job)
            model.put(job)
        if rng.random() < 0.5:
            await world.advance(1)
            model.now += 1
        crew = await world.crew()
        demand = random_demand(rng)
        answer = await crew.exchange(demand=demand)
        best = ideal(model.jobs.values(), demand)
        check(best, [claim.id for claim in answer.claimed], answer.next_due, demand)
        model.claimed(crew.runner, answer.claimed)
        ending = rng.choice([Ending.LOST, Ending.INTERRUPTED])
        if rng.random() < 0.4:
            await crew.release(ending)
            model.release(crew.runner, ending)


def check(best: list[str], got: list[str], next_due: float | None, demand: Demand) -> None:
    assert sorted(got) == sorted(best[: len(got)]), f"not the best {len(got)} for {demand}"
    assert len(got) == len(best) or next_due == 0, f"{len(got)} of {len(best)} for {demand}, and no word of more"
    assert got or best or next_due is None, f"told to ask again for nothing, {demand}"


def test_the_model_itself() -> None:
    model = Model(0.0)
    jobs = [new("t", queue=queue, priority=n) for n, queue in enumerate("abab")]
    for job in jobs:
        model.put(job)
    rows: list[Job] = list(model.jobs.values())
    assert ideal(rows, wants(3, "t")) == [jobs[3].id, jobs[2].id, jobs[1].id]
    assert ideal(rows, wants(3, "t", quotas=[("a", 1), ("b", 0)])) == [jobs[2].id, jobs[0].id, jobs[3].id]
