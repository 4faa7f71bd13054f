"""Jobs that stand behind until they have waited for long enough: `Store.lift`."""

import asyncio
from typing import Any

from tests.store.test_gates import declare, ids, names
from tests.store.world import World, ends, new, wants
from windlass.model import Ending, Need, NewJob, State, Verb
from windlass.place import BEHIND, EARLY, LIFTED, Change, Place
from windlass.store.contract import BATCH


def late(after: float = 60, **more: Any) -> NewJob:
    """A job that stands behind for so many seconds."""
    return new(priority=BEHIND, ahead=-after, **more)


async def test_a_job_stands_as_of_when_it_was_due_once_it_has_waited(world: World) -> None:
    """Behind all others until then; from then on before all that came later. Beats tell when it is time."""
    crew = await world.crew()
    early, low, high = new(), late(), new()
    for job in (early, low, high):
        await world.put(job)
        await world.advance(1)
    await world.advance(60 - EARLY - 2.5)
    assert (await world.store.lift(), (await crew.beat()).lift) == (0, False)
    assert [claim.id for claim in await crew.claim(2)] == names([early, high])
    await crew.release(Ending.INTERRUPTED)
    crew = await world.crew()
    before = await world.job(low.id)
    await world.advance(1)
    assert (await crew.beat()).lift
    assert (await world.store.lift(), await world.store.lift()) == (1, 0)
    assert not (await crew.beat()).lift
    after = await world.job(low.id)
    assert (after.priority, after.ahead) == (LIFTED, 0)
    assert (after.state, after.run_at, after.enqueued_at) == (before.state, before.run_at, before.enqueued_at)
    assert await ids(crew, 3) == names([early, low, high])


async def test_those_that_are_not_lifted_yet_stand_in_the_order_in_which_they_will_be(world: World) -> None:
    long, short, other = late(60), late(20), late(30)
    for job in (long, short, other):
        await world.put(job)
        await world.advance(15)
    assert await ids(await world.crew(), 3) == names([short, long, other])


async def test_the_ones_longest_behind_are_lifted_first_and_a_batch_at_a_time(world: World) -> None:
    many, first = [late(20) for _ in range(BATCH)], late(10)
    await world.put(*many, first)
    await world.advance(30)
    assert await world.store.lift() == BATCH
    assert (await world.job(first.id)).priority == LIFTED
    assert (await world.store.lift(), await world.store.lift()) == (1, 0)
    assert await ids(await world.crew(), 1) == [many[0].id], "they came together"


async def test_only_jobs_that_stand_in_line_are_lifted(world: World) -> None:
    """What runs, is over or is not due yet stays; one that comes back is lifted then, and stays so when it is tried
    again."""
    taken, done, gone, soon = late(5), late(5), late(5), late(5, delay=20)
    await world.put(taken, done, gone, soon)
    crew = await world.crew()
    claims = await crew.claim(2)
    await crew.exchange(ends(claims[1], Ending.SUCCEEDED))
    await world.store.act([gone.id], Verb.CANCEL)
    await world.advance(10)
    assert (await world.store.lift(), (await crew.beat()).lift) == (0, False)
    await crew.exchange(ends(claims[0], Ending.INTERRUPTED))
    assert (await world.store.lift(), (await world.job(taken.id)).priority) == (1, LIFTED)
    (claim,) = await crew.claim(1)
    await crew.exchange(ends(claim, Ending.RETRY, delay=0))
    assert (await world.job(taken.id)).priority == LIFTED
    await world.advance(12)
    await crew.exchange()
    assert (await world.state(soon.id), await world.store.lift()) == (State.READY, 0)
    await world.advance(3)
    assert await world.store.lift() == 1


async def test_a_job_behind_a_gate_passes_what_came_later(world: World) -> None:
    """Whether it waits, or another stands ready in its place."""
    await declare(world, limit=1)
    gate = (Need("g"),)
    running, low, high, free = new(gates=gate), late(gates=gate), new(gates=gate), late()
    crew = await world.crew()
    await world.put(running)
    (claim,) = await crew.claim(1)
    await world.put(low, free)
    await world.advance(1)
    await world.put(high)
    await world.advance(60)
    assert await world.store.lift() == 2
    assert {await world.state(job.id) for job in (low, high)} == {State.WAITING}
    found = (await crew.exchange(ends(claim, Ending.SUCCEEDED), demand=wants(5))).claimed
    assert [one.id for one in found] == names([low, free])
    await crew.exchange(*(ends(one, Ending.SUCCEEDED) for one in found))
    assert await ids(crew, 5) == [high.id]

    other = await world.crew()
    await declare(world, "h", limit=1)
    gate = (Need("h"),)
    low, high = late(gates=gate), new(gates=gate)
    await world.put(low)
    await world.advance(1)
    await world.put(high)
    assert await other.claim(0) == [], "now the high one is the candidate"
    await world.advance(60)
    assert await world.store.lift() == 1
    assert await ids(other, 1) == [low.id]


async def test_a_lifted_job_that_is_put_behind_again_is_lifted_again(world: World) -> None:
    await world.put(job := late(5, gates=()))
    await world.advance(10)
    assert await world.store.lift() == 1
    up, back = Place(queue="default", priority=LIFTED), Place(queue="other", priority=BEHIND, ahead=-30.0)
    assert await world.store.amend([Change(id=job.id, was=up, now=back)]) == [job.id]
    assert await world.store.lift() == 0
    await world.advance(20)
    assert await world.store.lift() == 1
    assert await world.store.amend([Change(id=job.id, was=back, now=up)]) == []


async def test_jobs_of_versions_that_knew_no_lift(world: World) -> None:
    """Those had priority 0, and less or more than none to stand ahead: they stand with those that were lifted."""
    low, high, plain = new(ahead=-30), new(ahead=30), new()
    await world.put(low)
    await world.put(plain, high)
    await world.put(other := late(40))
    await world.advance(50)
    assert await world.store.lift() == 2
    assert [(job.priority, job.ahead) for job in await world.store.get(names([low, high]))] == [(0, 0), (0, 30)]
    assert await ids(await world.crew(), 4) == names([high, low, plain, other])


async def test_a_job_that_follows_another_stands_behind_too(world: World) -> None:
    one = b'"queue":"default","task":"work","args":"[[],{}]","priority":-1,"ahead":-20000000'
    follow = b'[{"on":"s",' + one + b'},{"on":"s","delay":5000000,' + one + b"}]"
    await world.put(first := new(follow=follow))
    crew = await world.crew()
    (claim,) = await crew.claim(1)
    await crew.exchange(ends(claim, Ending.SUCCEEDED))
    made = [f"{first.id}.1s.{n}" for n in range(2)]
    found = await world.store.get(made)
    assert [(job.priority, job.ahead) for job in found] == [(BEHIND, -20)] * 2
    assert [job.run_at - (found[0].run_at) for job in found] == [0, 5]
    await world.put(high := new())
    await world.advance(6)
    await crew.exchange()
    await world.advance(13)
    assert await world.store.lift() == 1
    assert await ids(crew, 3) == [made[0], high.id, made[1]]


async def test_many_who_lift_at_once_lift_each_job_once(shared: World) -> None:
    stores = [shared.store, await shared.reopen(), await shared.reopen()]
    await shared.put(*(late(1) for _ in range(300)))
    assert sum(await asyncio.gather(*(stores[n % 3].lift() for n in range(9)))) == 300
