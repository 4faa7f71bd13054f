"""A crash after every single store call of a life that passes through all states: what is left drains."""

from collections.abc import AsyncGenerator, Callable
from pathlib import Path

from tests.store.kinds import KINDS
from tests.store.world import LEASE, Crew, World, doc, ends, new, wants
from windlass import policy
from windlass.model import Ending, Filter, NewJob, Outcome, Patch, Progress, State, Verb

Story = Callable[[World, list[NewJob], list[Outcome]], AsyncGenerator[None, None]]


async def story(world: World, known: list[NewJob], done: list[Outcome]) -> AsyncGenerator[None, None]:
    """One step per store call. `known` gets what was put, `done` each outcome that was accepted."""

    async def put(*jobs: NewJob) -> None:
        known.extend(jobs)
        await world.store.put(jobs, docs=[doc(jobs[0].id)])

    await put(new(), new(), new(unique="k"))
    yield
    await put(new(delay=5), new(delay=9, expires_in=12), new(priority=1, expires_in=1))
    yield
    crew = await world.crew()
    yield
    second = await world.crew(worker=crew.worker)
    yield
    claims = await crew.claim(3)
    yield
    done.append(ends(claims[0], Ending.RETRY, delay=4))
    assert await crew.settle(done[0])
    yield
    outcomes = [ends(claims[1], Ending.SUCCEEDED), ends(claims[2], Ending.SNOOZED, delay=2)]
    answer = await crew.exchange(*outcomes, demand=wants(1))
    done.extend(outcomes)
    yield
    again = await crew.again(*outcomes, demand=wants(1))
    assert again.claimed == answer.claimed
    yield
    for claim in answer.claimed:
        patch = Patch(id=claim.id, fence=claim.fence, seq=claim.seq, progress=Progress(done=1))
        assert not await world.store.note(crew.runner, [patch])
        yield
    await world.advance(6)
    claims = await second.claim(9)
    yield
    await crew.beat(seq=crew.seq)
    yield
    await world.store.act([claims[0].id], Verb.CANCEL)
    yield
    lost = policy.lost(claims[-1], "signal 9")
    await second.release(Ending.LOST, lost)
    done.append(lost)
    yield
    await world.store.act([known[1].id, known[3].id], Verb.RETRY)
    yield
    claims = await crew.claim(9, "work", suspects=["work"])
    yield
    done.append(failed := ends(claims[0], Ending.FAILED))
    await crew.exchange(failed)
    yield
    await world.store.act([failed.id], Verb.RETRY)
    yield
    await world.store.retire(crew.worker)
    yield


async def play(world: World, steps: int) -> tuple[list[NewJob], list[Outcome], bool]:
    """The story up to its crash; what was put, what was accepted, whether it ended before."""
    known: list[NewJob] = []
    done: list[Outcome] = []
    told = story(world, known, done)
    for _ in range(steps):
        if await anext(told, ...) is ...:
            return known, done, True
    await told.aclose()
    return known, done, False


async def drain(world: World) -> None:
    """What a worker that starts after the crash does."""
    await world.crash()
    crew = await world.crew()
    await world.advance(LEASE + 0.001)
    await crew.beat()
    await world.store.reap()
    for _ in range(20):
        claims = await crew.claim(3, "work", suspects=["work"])
        answer = await crew.exchange(*(policy.succeeded(claim, b'"drained"') for claim in claims))
        assert answer.refused == ()
        await world.advance(2)
        await crew.beat()


async def check(world: World, known: list[NewJob], done: list[Outcome]) -> None:
    jobs = await world.store.get([job.id for job in known])
    assert [job.id for job in jobs] == [job.id for job in known], "a job is lost"
    assert all(job.state.final for job in jobs), [job.state for job in jobs]
    assert await world.store.stats() == []
    for job, put in zip(jobs, known, strict=True):
        ended = [outcome for outcome in done if outcome.id == job.id and outcome.ending.state.final]
        if job.state is State.SUCCEEDED:
            assert job.result in (b'"drained"', b'"done"')
        elif job.state is State.FAILED:
            assert ended
        else:
            assert job.reason != "expired" or put.expires_in is not None
    assert (await world.put(new(unique="k")))[0].new, "a unique key is stuck"


async def test_a_crash_after_every_call(kind: str, tmp_path: Path) -> None:
    seen: set[State] = set()
    over, steps = False, 0
    while not over:
        folder = tmp_path / str(steps)
        folder.mkdir()
        world = KINDS[kind](folder)
        await world.open()
        known, done, over = await play(world, steps)
        seen |= {job.state for job in (await world.store.find(Filter(), 100)).jobs}
        await drain(world)
        await check(world, known, done)
        await world.close()
        steps += 1
    assert steps > 15
    assert seen == set(State) - {State.WAITING}


async def test_a_store_reopened_between_all_calls(shared: World) -> None:
    """No step needs what a store object remembers of the one before."""
    known: list[NewJob] = []
    done: list[Outcome] = []
    async for _ in story(shared, known, done):
        await shared.crash()
    await drain(shared)
    await check(shared, known, done)


async def test_a_crew_outlives_its_store(shared: World) -> None:
    await shared.put(new())
    crew: Crew = await shared.crew()
    claim = await crew.take()
    await shared.crash()
    assert not (await crew.beat()).evicted
    assert (await crew.again(demand=wants(1))).claimed == (claim,)
    assert await crew.settle(ends(claim, Ending.SUCCEEDED))
