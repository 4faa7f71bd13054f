"""Room in full queues, and jobs that are put elsewhere."""

import asyncio
from typing import Any

from msgspec import UNSET
from msgspec.structs import replace

from tests.store.test_fair import of
from tests.store.test_gates import behind, declare, ids, names
from tests.store.world import World, ends, name, new, wants
from windlass.model import Demand, Ending, Fair, Filter, JobRecord, Lane, Need, NewJob, Quota, Shed, State, Verb
from windlass.place import Change, Place

BY = "dropped to make room"


async def only(world: World, *ids: str) -> set[str]:
    """Which of these are cancelled; the others must be as before."""
    return {job.id for job in await world.store.get(ids) if job.state is State.CANCELLED}


async def test_those_that_were_due_first_make_room(world: World) -> None:
    """Ready and waiting ones alike, whatever their task and priority; what runs stays, and what is scheduled."""
    await declare(world, limit=1)
    running = new(queue="mail")
    await world.put(running, new(task="other", queue="mai"), new(task="other", queue="mail-x"))
    crew = await world.crew()
    await crew.take()
    jobs: list[NewJob] = []
    for job in (new(priority=5), behind("g"), new("other", priority=-3), behind("g"), new("other"), new(delay=99)):
        await world.advance(0.001)
        jobs.append(job := as_in(job, "mail"))
        await world.put(job)
    every = [running.id, *names(jobs)]
    assert await world.store.shed("mail", 6, reason=BY) == Shed(ids=(), left=6)
    assert await world.store.shed("mail", 4, reason=BY) != Shed(ids=(), left=4)
    assert await only(world, *every) == set(names(jobs[:2]))
    assert (await world.job(jobs[0].id)).reason == BY
    assert await world.store.shed("mail", 0, reason=BY) == Shed(ids=(), left=4), (
        "the scheduled one stays, so nothing goes"
    )
    shed = await world.store.shed("mail", 1, reason=BY)
    assert (set(shed.ids), shed.left) == (set(names(jobs[2:5])), 1)
    assert await world.store.count(Filter(state=State.READY)) == 2, "other queues"


async def test_those_that_stand_behind_make_room_as_of_when_they_were_due(world: World) -> None:
    """Not as of when they will be lifted. Ready and waiting ones of this queue alone."""
    await declare(world, limit=1)
    given = [(-50, ()), (0, ()), (-90, ("g",)), (-3, ()), (0, ("g",)), (-60, ("g",)), (-1, ())]
    jobs = [behind(*gates, queue="mail", priority=-1 if ahead else 0, ahead=ahead) for ahead, gates in given]
    for job in jobs:
        await world.advance(0.001)
        await world.put(new(queue="other", priority=-1, ahead=-9), job)
    assert await (await world.crew()).claim(0) == []
    for left in (6, 4, 2, 0):
        shed = await world.store.shed("mail", left, reason=BY)
        assert shed.left == left
        assert await only(world, *names(jobs)) == set(names(jobs[: 7 - left])), "in the order in which they came"
    assert (await world.store.shed("mail", 0, reason=BY)).ids == ()


async def test_the_lowest_make_room_and_of_them_the_newest(world: World) -> None:
    jobs = []
    for priority in (0, -5, -5, 3, -7):
        await world.advance(0.001)
        jobs.append(new(name("task"), priority=priority))
        await world.put(jobs[-1])
    shed = await world.store.shed("default", 3, below=0, reason=BY)
    assert (set(shed.ids), shed.left) == ({jobs[4].id, jobs[2].id}, 3)
    assert await world.store.shed("default", 1, below=0, reason=BY) == Shed(ids=(), left=3), "only one is lower"
    assert await world.store.shed("default", 2, below=0, reason=BY) == Shed(ids=(jobs[1].id,), left=2)


async def test_a_job_that_makes_room_ends_as_any(world: World) -> None:
    """Its key is free, its followers come, its gate has room, its death is told."""
    await declare(world, limit=1)
    follow = b'[{"on":"c","queue":"default","task":"after","args":"[[],{}]"}]'
    first, second = behind("g", unique="k", follow=follow), behind("g")
    await world.put(first, second)
    crew = await world.crew()
    assert await crew.claim(0) == []
    assert (await world.store.shed("default", 1, reason=BY)).ids == (first.id,)
    (again,) = await world.put(new(unique="k", queue="other"))
    assert again.new
    assert set(await ids(crew, 5, "work", "after")) >= {second.id, f"{first.id}.0c.0"}


async def test_many_who_make_room_at_once_drop_no_more_than_needed(shared: World) -> None:
    stores = [shared.store, await shared.reopen(), await shared.reopen()]
    await shared.put(*(new(queue="mail") for _ in range(40)))
    found = await asyncio.gather(*(stores[n % 3].shed("mail", 30, reason=BY) for n in range(9)))
    assert sum(len(shed.ids) for shed in found) == 10
    assert await shared.store.count(Filter(queue="mail", state=State.READY)) == 30


# Elsewhere


def as_in(job: NewJob, queue: str) -> NewJob:
    """The same job in another queue."""
    return NewJob(**{**{field: getattr(job, field) for field in job.__struct_fields__}, "queue": queue})


def change(job: NewJob, **more: Any) -> Change:
    """A change of one job, as it is but for what is given."""
    was = Place(queue=job.queue, priority=job.priority, ahead=job.ahead, gates=job.gates)
    if more.get("options", UNSET) is not UNSET:
        was = replace(was, options=job.options)
    return Change(id=job.id, was=was, now=replace(was, **more))


def from_queue(queue: str) -> Demand:
    """What takes all of one queue."""
    lane = Lane(slots=50, tasks=frozenset({"work", "other"}), suspects=frozenset({"work"}))
    return Demand(slots=50, lanes=(lane,), quotas=(Quota(queue=queue, share=50),))


async def test_jobs_stand_elsewhere_as_if_they_had_come_there(world: World) -> None:
    """In the order that they had, with priority, key, options and tags; what runs, is over or is not there stays."""
    jobs = [new(queue="a", tags=("t",), unique=f"k{n}", options=b'{"meta":{"n":1}}') for n in range(3)]
    later, suspect, running = (
        new(queue="a", delay=50),
        new(queue="a", args=b"[[" + b"1" * 900 + b"],{}]"),
        new(queue="a"),
    )
    crew = await world.crew()
    await world.put(suspect)
    await crew.take()
    await crew.release()
    crew = await world.crew()
    await world.put(running)
    await crew.take()
    await world.put(*jobs, later)
    before = {job.id: job for job in await world.store.get([later.id, *names(jobs), suspect.id])}
    moved = [jobs[2], later, jobs[0], suspect, running]
    done = await world.store.amend([*(change(job, queue="b") for job in moved), change(new(), queue="b")])
    assert done == names(moved[:4])
    assert await world.store.amend([change(jobs[1], priority=9), change(jobs[1], priority=9)]) == [jobs[1].id]
    for job in await world.store.get(names([jobs[2], later, jobs[0], suspect])):
        assert job == replaced(before[job.id], queue="b")
    assert {line.queue: line.count for line in await world.store.stats() if line.state is State.READY} == {
        "a": 1,
        "b": 3,
    }
    assert [claim.id for claim in (await crew.exchange(demand=from_queue("b"))).claimed] == names(
        [jobs[0], jobs[2], suspect]
    )
    await world.advance(60)
    assert [claim.id for claim in (await crew.exchange(demand=from_queue("b"))).claimed] == [later.id]
    (claim,) = (await crew.exchange(demand=from_queue("a"))).claimed
    assert (claim.id, claim.priority, claim.options) == (jobs[1].id, 9, b'{"meta":{"n":1}}')
    assert await world.store.amend([change(claimed, queue="c") for claimed in jobs]) == []
    assert await world.store.act(Filter(tag="t", queue="b"), Verb.DELETE) == []
    (again,) = await world.put(new(unique="k0"))
    assert not again.new, "the key is still its own"


def replaced(job: JobRecord, **more: Any) -> JobRecord:
    """A record as it should be now."""
    return JobRecord(**{**{field: getattr(job, field) for field in job.__struct_fields__}, **more})


async def test_options_of_a_job_that_is_put_elsewhere(world: World) -> None:
    """Also where they and the arguments are long, and grow or shrink beyond what stands beside the record."""
    short, long = new(options=b'{"a":1}'), new(options=b'{"b":"' + b"x" * 900 + b'"}')
    await world.put(short, long)
    await world.store.amend([change(short, options=long.options), change(long, options=None)])
    one, two = await world.store.get([short.id, long.id])
    assert (one.options, one.args, two.options, two.args) == (long.options, short.args, None, long.args)
    await world.store.amend([change(short, priority=4)])
    assert (await world.job(short.id)).options == long.options


async def test_a_job_that_was_put_elsewhere_meanwhile_stays_there(world: World) -> None:
    """Whatever of it is not as was thought: queue, priority, ahead, gates, or options if they are to change."""
    await declare(world, limit=1)
    job = behind("g", options=b'{"a":1}')
    stale = [
        change(job, queue="b"),
        change(job, priority=1),
        change(job, ahead=2.5),
        change(job, gates=(Need("g", 2),)),
        change(job, options=b'{"a":2}'),
    ]
    await world.put(job)
    for one in stale:
        assert await world.store.amend([one]) == [job.id]
        before = await world.job(job.id)
        assert await world.store.amend([change(job, options=None, queue="c")]) == []
        assert await world.job(job.id) == before
        back = Change(id=job.id, was=one.now, now=one.was)
        assert await world.store.amend([back]) == [job.id]
    assert (await world.job(job.id)).options == b'{"a":1}'


async def test_gates_of_a_job_that_is_put_elsewhere(world: World) -> None:
    """It leaves the old ones, passes the new ones, and who stood behind it moves up."""
    await declare(world, limit=1)
    await declare(world, "h", limit=1)
    first, second, third, free = behind("g", queue="a"), behind("g", queue="a"), behind("g", queue="a"), new(queue="a")
    await world.put(first, second, third, free)
    crew = await world.crew()
    assert await ids(crew, 1) == [first.id]
    through = (Need("h"),)
    assert await world.store.amend([change(job, queue="b", gates=through) for job in (second, free)]) == [
        second.id,
        free.id,
    ]
    (claim,) = await crew.claim(5)
    assert claim.id == second.id, "h has room for one, g for none"
    assert {await world.state(job.id) for job in (third, free)} == {State.WAITING}
    await world.store.amend([change(third, queue="b", gates=())])
    assert await world.state(third.id) is State.READY
    assert await ids(crew, 5) == [third.id]
    await crew.exchange(ends(claim, Ending.SUCCEEDED), demand=wants(5))
    assert await world.state(free.id) is State.RUNNING


async def test_turns_and_aging_of_jobs_that_are_put_elsewhere(world: World) -> None:
    """A job keeps its rank, less what it stands ahead; among the jobs of its new place others take their turns."""
    jobs = [of("a", queue="q") for _ in range(4)]
    await world.put(*jobs)
    ranks = [job.fair for job in await world.store.get(names(jobs))]
    assert await world.store.amend([change(job, queue="p") for job in jobs]) == names(jobs)
    assert [job.fair for job in await world.store.get(names(jobs))] == ranks == [Fair("a")] * 4
    late = [of("b", queue="p") for _ in range(2)]
    await world.put(*late)
    crew = await world.crew()
    assert [claim.id for claim in (await crew.exchange(demand=from_queue("p"))).claimed][:4] == [
        jobs[0].id,
        late[0].id,
        jobs[1].id,
        late[1].id,
    ]
    plain = [new() for _ in range(3)]
    await world.put(*plain)
    await world.store.amend([change(plain[2], ahead=5.0)])
    assert (await world.job(plain[2].id)).ahead == 5.0
    assert await ids(crew, 3) == names([plain[2], plain[0], plain[1]])


async def test_a_job_that_is_put_elsewhere_leaves_a_turn_that_it_has_kept(world: World) -> None:
    """One that is tried again keeps its turn: who stands behind it goes on as soon as it asks for no turn any more."""
    await declare(world, "turn", limit=1)
    turn = (Need("turn", keep=True),)
    for delay in (0.0, 60.0):
        first, second = new(gates=turn), new(gates=turn)
        await world.put(first, second)
        crew = await world.crew()
        (claim,) = await crew.claim(5)
        await crew.exchange(ends(claim, Ending.RETRY, delay=delay), demand=Demand(slots=0))
        await world.store.amend([change(first, queue="b", gates=())])
        left = await crew.claim(5)
        assert sorted(one.id for one in left) == sorted(names([second] if delay else [first, second])), delay
        await crew.exchange(*(ends(one, Ending.SUCCEEDED) for one in left), demand=Demand(slots=0))
