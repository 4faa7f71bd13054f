"""Turns between keys, and jobs that stand ahead of others: how rank is made when a job comes to stand in line."""

from typing import Any

from tests.store.world import Crew, World, ends, new, wants
from windlass.model import Ending, Fair, NewJob, State, Verb
from windlass.move import as_new


def of(key: str, weight: float = 1.0, **more: Any) -> NewJob:
    """A job that takes turns."""
    return new(fair=Fair(key, weight), **more)


async def order(crew: Crew, jobs: list[NewJob], slots: int = 1) -> str:
    """The first letters of the keys, as jobs are claimed one by one."""
    key = {job.id: job.fair.key if job.fair else "-" for job in jobs}
    found = ""
    while claims := await crew.claim(slots):
        found += "".join(key[claim.id] for claim in claims)
    return found


async def test_keys_take_turns(world: World) -> None:
    jobs = [of(key) for key in "aaaabbc"]
    await world.put(*jobs)
    assert await order(await world.crew(), jobs) == "abcabaa"


async def test_who_comes_late_need_not_wait_for_what_came_before(world: World) -> None:
    many = [of("a") for _ in range(50)]
    await world.put(*many)
    crew = await world.crew()
    await crew.claim(10)
    await world.advance(5)
    few = [of("b") for _ in range(3)]
    await world.put(*few)
    assert (await order(crew, [*many, *few]))[:6] == "ababab"


async def test_nobody_saves_turns_up(world: World) -> None:
    """Who had nothing to do for long has no more turns than others."""
    await world.put(*(first := [of("b")]))
    crew = await world.crew()
    await crew.claim(5)
    await world.put(*(many := [of("a") for _ in range(6)]))
    await world.advance(60)
    await world.put(*(late := [of("b") for _ in range(6)]))
    assert (await order(crew, [*first, *many, *late])).startswith("ababab")


async def test_weights(world: World) -> None:
    jobs = [of("a", 2.0) for _ in range(8)] + [of("b") for _ in range(4)]
    await world.put(*jobs)
    found = (await order(await world.crew(), jobs))[:9]
    assert (found.count("a"), found.count("b")) == (6, 3)


async def test_turns_are_within_a_priority_and_a_queue(world: World) -> None:
    jobs = [of("a"), of("a"), of("b", priority=1), of("b", priority=1), of("a", priority=1)]
    await world.put(*jobs)
    assert await order(await world.crew(), jobs) == "babaa"


async def test_turns_are_taken_across_tasks(world: World) -> None:
    many = [of("a") for _ in range(20)]
    await world.put(*many)
    await world.advance(3)
    await world.put(one := of("b", task="other"))
    crew = await world.crew()
    assert one.id in [claim.id for claim in await crew.claim(3, "work", "other")]


async def test_delayed_jobs_take_turns_when_they_are_due(world: World) -> None:
    jobs = [of("a", delay=5) for _ in range(4)] + [of("b", delay=5) for _ in range(2)]
    await world.put(*jobs)
    await world.advance(6)
    assert await order(await world.crew(), jobs) == "ababaa"


async def test_a_job_that_comes_back_has_its_turn_still(world: World) -> None:
    jobs = [of("a"), of("a"), of("b")]
    await world.put(*jobs)
    crew, other = await world.crew(), await world.crew()
    assert (await crew.take()).id == jobs[0].id
    await crew.release(Ending.INTERRUPTED)
    assert await order(other, jobs) == "aba"


async def test_retries_take_a_new_turn(world: World) -> None:
    jobs = [of("a"), *(of("b") for _ in range(5))]
    await world.put(*jobs)
    crew = await world.crew()
    await crew.exchange(ends(await crew.take(), Ending.RETRY, delay=1))
    await world.advance(2)
    assert (await order(crew, jobs)).startswith(("ab", "ba"))
    failed = of("c")
    await world.put(failed)
    await crew.exchange(ends(await crew.take(), Ending.FAILED))
    await world.store.act([failed.id], Verb.RETRY)
    assert (await crew.take()).id == failed.id


async def test_fair_jobs_and_others(world: World) -> None:
    """Others stand where their moment puts them."""
    fair, plain = [of("a") for _ in range(3)], new()
    await world.put(*fair)
    await world.advance(1)
    await world.put(plain)
    assert await order(await world.crew(), [*fair, plain]) == "aaa-"


async def test_a_job_stands_ahead_of_others(world: World) -> None:
    """Of a queue that ages: what came so much earlier goes first all the same."""
    await world.put(low := new())
    await world.advance(31)
    await world.put(high := new(ahead=30))
    await world.put(higher := new(ahead=60))
    crew = await world.crew()
    assert [claim.id for claim in await crew.claim(5)] == [higher.id, low.id, high.id]


async def test_a_retry_stands_as_far_ahead(world: World) -> None:
    await world.put(first := new(ahead=30))
    crew = await world.crew()
    await crew.exchange(ends(await crew.take(), Ending.RETRY, delay=20))
    await world.put(second := new())
    await world.advance(21)
    assert [claim.id for claim in await crew.claim(5)] == [first.id, second.id]


async def test_what_it_is_is_told_and_moved(world: World) -> None:
    await world.put(job := of("a", 2.5, ahead=3))
    found = await world.job(job.id)
    assert (found.fair, found.ahead) == (Fair("a", 2.5), 3)
    moved = as_new(found, await world.now())
    assert (moved.fair, moved.ahead) == (job.fair, job.ahead)


async def test_thousands_of_keys(world: World) -> None:
    await world.put(*(of(f"k{n % 1_000}") for n in range(2_000)))
    await world.put(late := of("late"))
    crew = await world.crew()
    first = (await crew.exchange(demand=wants(1_000))).claimed
    second = (await crew.exchange(demand=wants(1_000))).claimed
    assert late.id in {claim.id for claim in (*first, *second[:1])}
    assert await world.state(first[0].id) is State.RUNNING
