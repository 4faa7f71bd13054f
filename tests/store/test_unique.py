"""Unique keys, marks and the documents that are written with jobs."""

from typing import Any

import pytest

from tests.store.world import Crew, World, doc, ends, new, new_id, wants
from windlass.errors import Conflict
from windlass.gate import Settings, write_settings
from windlass.model import Clash, Doc, Ending, Mark, Need, NewJob, Placed, State, Verb
from windlass.store.contract import GATE

KEY = "order:42"
FINAL = [Ending.SUCCEEDED, Ending.FAILED, Ending.CANCELLED]
NOT_FINAL = [Ending.RETRY, Ending.SNOOZED, Ending.INTERRUPTED, Ending.LOST]


async def held(world: World, **more: Any) -> NewJob:
    """A live job that holds KEY."""
    job = new(unique=KEY, **more)
    assert (await world.put(job))[0].new
    return job


async def free(world: World) -> bool:
    """Whether KEY is free. Takes it if it is."""
    return (await world.put(new(unique=KEY)))[0].new


async def started(world: World) -> tuple[Crew, NewJob]:
    job = await held(world)
    crew = await world.crew()
    return crew, job


async def test_a_held_key_answers_its_holder(world: World) -> None:
    job = await held(world)
    assert await world.put(new(unique=KEY)) == [Placed(id=job.id, state=State.READY, new=False)]
    assert sum(line.count for line in await world.store.stats()) == 1
    assert (await world.put(new(unique="another")))[0].new


@pytest.mark.parametrize("delay", [0, 60])
async def test_a_key_is_held_while_waiting_and_while_running(world: World, delay: float) -> None:
    job = await held(world, delay=delay)
    assert not await free(world)
    await world.advance(delay)
    crew = await world.crew()
    assert (await crew.take()).id == job.id
    assert (await world.put(new(unique=KEY)))[0] == Placed(id=job.id, state=State.RUNNING, new=False)


@pytest.mark.parametrize("ending", FINAL)
async def test_a_key_is_freed_when_its_job_is_over(world: World, ending: Ending) -> None:
    crew, _ = await started(world)
    await crew.exchange(ends(await crew.take(), ending))
    assert await free(world)
    assert not await free(world)


@pytest.mark.parametrize("ending", NOT_FINAL)
async def test_a_key_is_kept_when_its_job_goes_on(world: World, ending: Ending) -> None:
    crew, _ = await started(world)
    assert await crew.settle(ends(await crew.take(), ending))
    assert not await free(world)


async def test_a_key_is_kept_when_its_job_is_handed_back(world: World) -> None:
    crew, _ = await started(world)
    await crew.take()
    await crew.release()
    assert not await free(world)


async def test_a_key_is_freed_when_its_job_is_cancelled_before_it_ran(world: World) -> None:
    job = await held(world)
    await world.store.act([job.id], Verb.CANCEL)
    assert await free(world)


async def test_a_key_is_freed_when_a_marked_job_comes_back(world: World) -> None:
    crew, job = await started(world)
    await crew.take()
    await world.store.act([job.id], Verb.CANCEL)
    assert not await free(world)
    await crew.release()
    assert await free(world)


async def test_a_key_is_freed_when_its_job_is_deleted(world: World) -> None:
    job = await held(world)
    await world.store.act([job.id], Verb.DELETE)
    assert await free(world)


async def test_a_key_is_freed_when_its_job_expires(world: World) -> None:
    await held(world, expires_in=5)
    await world.advance(6)
    await (await world.crew()).exchange()
    assert await free(world)


async def test_a_key_is_freed_when_its_job_is_found_expired_by_a_claim(world: World) -> None:
    await held(world, expires_in=5)
    await world.advance(6)
    assert await (await world.crew()).claim() == []
    assert await free(world)


async def test_deleting_an_old_holder_leaves_the_key_of_the_new_one(world: World) -> None:
    crew, job = await started(world)
    await crew.exchange(ends(await crew.take(), Ending.SUCCEEDED))
    await held(world)
    await world.store.act([job.id], Verb.DELETE)
    assert not await free(world)


async def test_two_jobs_of_one_put_with_one_key(world: World) -> None:
    first, second = new(unique=KEY), new(unique=KEY)
    placed = await world.put(first, new(), second)
    assert placed[2] == Placed(id=first.id, state=State.READY, new=False)
    assert [entry.new for entry in placed] == [True, True, False]
    assert not await world.store.get([second.id])


@pytest.mark.parametrize(
    ("keys", "answers"),
    [
        (("b=l", "a=", "a=l"), "b a a"),
        (("a=k", "a=l", "b=l"), "x a a"),
        (("a=k", "b=l", "a=l"), "x b b"),
        (("a=k", "a=", "b=l"), "x a b"),
        (("a=l", "a=k", "b=l"), "a a a"),
    ],
)
async def test_an_id_comes_twice_in_one_put_with_other_keys(world: World, keys: tuple[str, ...], answers: str) -> None:
    await world.put(new(id="x", unique="k"))
    pairs = [one.partition("=") for one in keys]
    placed = await world.put(*[new(id=id, unique=key or None) for id, _, key in pairs])
    assert [one.id for one in placed] == answers.split()
    assert [one.new for one in placed] == [one.id not in ["x", *answers.split()[:n]] for n, one in enumerate(placed)]
    holder = next(
        (id for (id, _, key), got in zip(pairs, answers.split(), strict=True) if key == "l" and id == got), "y"
    )
    assert (await world.put(new(id="y", unique="l")))[0].id == holder


async def test_repeated_put_of_a_unique_job(world: World) -> None:
    job = await held(world)
    assert await world.put(job) == [Placed(id=job.id, state=State.READY, new=False)]
    await world.store.act([job.id], Verb.CANCEL)
    assert await world.put(job) == [Placed(id=job.id, state=State.CANCELLED, new=False)]
    assert await free(world)


async def test_retry_takes_the_key_again(world: World) -> None:
    job = await held(world)
    await world.store.act([job.id], Verb.CANCEL)
    assert await world.store.act([job.id], Verb.RETRY) == [job.id]
    assert not await free(world)


async def test_retry_is_refused_while_another_holds_the_key(world: World) -> None:
    job = await held(world)
    await world.store.act([job.id], Verb.CANCEL)
    other = await held(world)
    assert await world.store.act([job.id], Verb.RETRY) == []
    assert await world.state(job.id) is State.CANCELLED
    await world.store.act([other.id], Verb.CANCEL)
    assert await world.store.act([job.id], Verb.RETRY) == [job.id]


# Marks


def mark(job: NewJob, key: str = KEY, ttl: float = 100) -> Mark:
    return Mark(key=key, job=job.id, ttl=ttl)


async def test_a_taken_mark_drops_the_job_it_names(world: World) -> None:
    first, second, other = new(), new(), new()
    assert (await world.store.put([first], [mark(first)]))[0].new
    placed = await world.store.put([second, other], [mark(second)])
    assert placed[0] == Placed(id=first.id, state=State.READY, new=False)
    assert placed[1].new
    assert not await world.store.get([second.id])


async def test_a_repeated_put_with_its_mark_answers_its_own_job(world: World) -> None:
    job = new()
    await world.store.put([job], [mark(job)])
    assert await world.store.put([job], [mark(job)]) == [Placed(id=job.id, state=State.READY, new=False)]


async def test_a_mark_outlives_its_job_and_ends_by_time(world: World) -> None:
    job, second, third = new(), new(), new()
    await world.store.put([job], [mark(job)])
    await world.store.act([job.id], Verb.DELETE)
    assert (await world.store.put([second], [mark(second)])) == [Placed(id=job.id, state=None, new=False)]
    await world.advance(101)
    assert (await world.store.put([third], [mark(third)]))[0].new
    assert (await world.store.put([second], [mark(second)]))[0].id == third.id


async def test_a_put_with_a_mark_may_be_repeated_after_its_job_is_gone(world: World) -> None:
    job, other = new(), new()
    await world.store.put([job], [mark(job)])
    await world.store.act([job.id], Verb.DELETE)
    placed = await world.store.put([job, other], [mark(job)])
    assert placed[0] == Placed(id=job.id, state=None, new=False)
    assert placed[1].new
    assert not await world.store.get([job.id])
    await world.advance(101)
    assert (await world.store.put([job], [mark(job)]))[0].new


async def test_a_mark_outlives_the_end_of_its_job(world: World) -> None:
    job, second = new(), new()
    await world.store.put([job], [mark(job)])
    await world.store.act([job.id], Verb.CANCEL)
    assert (await world.store.put([second], [mark(second)])) == [Placed(id=job.id, state=State.CANCELLED, new=False)]


async def test_marks_of_several_jobs_in_one_put(world: World) -> None:
    taken = new()
    await world.store.put([taken], [mark(taken, "m1")])
    jobs = [new() for _ in range(3)]
    placed = await world.store.put(jobs, [mark(job, f"m{n}") for n, job in enumerate(jobs)])
    assert [entry.new for entry in placed] == [True, False, True]
    assert placed[1].id == taken.id


async def test_a_job_with_a_mark_and_a_unique_key(world: World) -> None:
    holder = await held(world)
    job = new(unique=KEY)
    assert (await world.store.put([job], [mark(job, "m")]))[0].id == holder.id
    other = new(unique="free")
    assert (await world.store.put([other], [mark(other, "m2")]))[0].new


# Documents


async def test_documents_are_written_with_jobs(world: World) -> None:
    job = new()
    await world.store.put([job], docs=[doc("cursor", body=b"1")])
    (saved,) = (await world.store.load("thing")).docs
    assert saved.body == b"1"
    assert await world.state(job.id) is State.READY


async def test_a_conflict_fails_the_whole_put(world: World) -> None:
    await world.store.save([doc("cursor")])
    job, unique = new(), new(unique=KEY)
    with pytest.raises(Conflict):
        await world.store.put([job, unique], [mark(job, "m")], [doc("fresh"), doc("cursor")])
    assert await world.store.get([job.id, unique.id]) == []
    assert [entry.name for entry in (await world.store.load("thing")).docs] == ["cursor"]
    assert await free(world)
    assert (await world.store.put([job], [mark(job, "m")]))[0].new


async def test_only_one_of_two_racing_fires_gets_in(world: World) -> None:
    await world.store.save([doc("schedule")])
    (at,) = (await world.store.load("thing")).docs
    first, second = new(), new()
    await world.store.put([first], [mark(first, "fire:1")], [at])
    with pytest.raises(Conflict):
        await world.store.put([second], [mark(second, "fire:1")], [at])
    (at,) = (await world.store.load("thing")).docs
    assert (await world.store.put([second], [mark(second, "fire:1")], [at]))[0].id == first.id


async def test_ids_are_not_keys(world: World) -> None:
    """A unique key that looks like a job's id has nothing to do with that job."""
    id = new_id()
    assert (await world.put(new(unique=id), new(id=id)))[1].new


# What the key is held for


async def test_a_key_that_is_held_until_the_job_starts(world: World) -> None:
    """And not again when it is tried again."""
    await world.put(first := new(unique=KEY, unique_for=0))
    assert not (await world.put(new(unique=KEY, unique_for=0)))[0].new
    crew = await world.crew()
    claim = await crew.take()
    assert claim.id == first.id
    second = await held(world, unique_for=0)
    await crew.exchange(ends(claim, Ending.RETRY, delay=0))
    assert (await world.put(new(unique=KEY, unique_for=0)))[0].id == second.id
    assert len(await crew.claim(5)) == 2


async def test_a_key_that_is_held_for_a_time(world: World) -> None:
    """Whatever becomes of its job."""
    await world.put(first := new(unique=KEY, unique_for=10))
    crew = await world.crew()
    await crew.exchange(ends(await crew.take(), Ending.SUCCEEDED))
    assert await world.put(new(unique=KEY, unique_for=10)) == [Placed(id=first.id, state=State.SUCCEEDED, new=False)]
    await world.store.act([first.id], Verb.DELETE)
    assert await world.put(new(unique=KEY, unique_for=10)) == [Placed(id=first.id, state=None, new=False)]
    await world.advance(10.001)
    assert (await world.put(new(unique=KEY, unique_for=10)))[0].new


# What becomes of the holder


@pytest.mark.parametrize("clash", [Clash.REPLACE, Clash.MOVE])
@pytest.mark.parametrize("delay", [0, 60])
async def test_its_arguments_are_replaced(world: World, clash: Clash, delay: float) -> None:
    job = await held(world, delay=delay, options=b'{"timeout":1}')
    placed = await world.put(new(unique=KEY, args=b"[[1],{}]", clash=clash, delay=delay))
    assert [(one.id, one.new) for one in placed] == [(job.id, False)]
    found = await world.job(job.id)
    assert (found.args, found.options, found.unique) == (b"[[1],{}]", None, KEY)


@pytest.mark.parametrize("clash", [Clash.KEEP, Clash.REPLACE, Clash.MOVE])
async def test_what_runs_stays_as_it_is(world: World, clash: Clash) -> None:
    crew, job = await started(world)
    await crew.take()
    placed = await world.put(new(unique=KEY, args=b"[[1],{}]", clash=clash, delay=5))
    assert placed == [Placed(id=job.id, state=State.RUNNING, new=False)]
    assert (await world.job(job.id)).args == job.args


async def test_it_is_put_off_and_not_for_ever(world: World) -> None:
    later: dict[str, Any] = {"unique": KEY, "unique_for": 0, "clash": Clash.MOVE, "delay": 2.0, "max_wait": 5.0}
    await world.put(job := new(**later))
    made = await world.now()
    for n in range(4):
        await world.advance(1.4)
        placed = await world.put(new(**later, args=b"[[%d],{}]" % n))
        assert [(one.id, one.new) for one in placed] == [(job.id, False)]
    found = await world.job(job.id)
    assert found.args == b"[[3],{}]"
    assert found.run_at == pytest.approx(made + 5, abs=0.001)
    assert found.state is not State.SCHEDULED
    claim = await (await world.crew()).take()
    assert claim.args == b"[[3],{}]"


async def test_it_is_due_earlier_when_the_new_one_is(world: World) -> None:
    job = await held(world, delay=60)
    await world.put(new(unique=KEY, clash=Clash.MOVE))
    assert (await (await world.crew()).take()).id == job.id


async def test_one_that_was_ready_is_put_off(world: World) -> None:
    job = await held(world)
    await world.put(new(unique=KEY, clash=Clash.MOVE, delay=5))
    crew = await world.crew()
    assert await crew.claim(5) == []
    await world.advance(5.001)
    assert (await crew.take()).id == job.id


@pytest.mark.parametrize("delay", [0, 60])
async def test_it_is_cancelled_for_the_new_one(world: World, delay: float) -> None:
    old = await held(world, delay=delay)
    await world.put(fresh := new(unique=KEY, clash=Clash.CANCEL))
    found = await world.job(old.id)
    assert (found.state, found.reason) == (State.CANCELLED, "another job has taken its unique key")
    assert (await world.put(new(unique=KEY)))[0].id == fresh.id


async def test_one_that_runs_is_told_to_stop_for_the_new_one(world: World) -> None:
    crew, old = await started(world)
    claim = await crew.take()
    await world.put(fresh := new(unique=KEY, clash=Clash.CANCEL))
    orders = await crew.beat()
    assert [order.id for order in orders.cancel] == [old.id]
    await crew.exchange(ends(claim, Ending.CANCELLED))
    assert (await world.put(new(unique=KEY)))[0].id == fresh.id


async def test_two_of_one_put_clash_in_order(world: World) -> None:
    first, second = new(unique=KEY), new(unique=KEY, clash=Clash.CANCEL)
    placed = await world.put(first, second, new(unique=KEY, clash=Clash.REPLACE, args=b"[[2],{}]"))
    assert [(one.id, one.new) for one in placed] == [(first.id, True), (second.id, True), (second.id, False)]
    assert await world.state(first.id) is State.CANCELLED
    assert (await world.job(second.id)).args == b"[[2],{}]"


async def test_a_gated_job_that_is_put_off_gives_its_place_to_the_next(world: World) -> None:
    body = write_settings(Settings(limit=1))
    await world.store.save([Doc(kind=GATE, name="g", version=0, body=body)])
    gates = (Need("g"),)
    job = await held(world, gates=gates)
    await world.put(second := new(gates=gates))
    crew = await world.crew()
    assert await crew.claim(1, "other") == []
    await world.put(new(unique=KEY, clash=Clash.MOVE, delay=5, gates=gates))
    claim = await crew.take()
    assert claim.id == second.id
    await world.advance(6)
    answer = await crew.exchange(ends(claim, Ending.SUCCEEDED), demand=wants(5))
    assert [one.id for one in answer.claimed] == [job.id]


async def test_a_gated_job_that_is_moved_to_now_stands_behind_those_that_came_before(world: World) -> None:
    await world.store.save([Doc(kind=GATE, name="g", version=0, body=write_settings(Settings(limit=1)))])
    gates = (Need("g"),)
    job = await held(world, gates=gates)
    await world.advance(1)
    await world.put(second := new(gates=gates))
    crew = await world.crew()
    assert await crew.claim(1, "other") == []
    await world.advance(1)
    await world.put(new(unique=KEY, clash=Clash.MOVE, gates=gates))
    claim = await crew.take()
    assert claim.id == second.id
    answer = await crew.exchange(ends(claim, Ending.SUCCEEDED), demand=wants(5))
    assert [one.id for one in answer.claimed] == [job.id]


async def test_who_holds_keys(world: World) -> None:
    live, brief, timed, over = (new(unique=f"k{n}", unique_for=held) for n, held in enumerate((None, 0, 30.0, None)))
    await world.put(live, brief, timed, over)
    await world.store.act([over.id], Verb.CANCEL)
    wanted = ["k0", "k1", "k2", "k3", "none"]
    assert await world.store.holders(wanted) == {"k0": live.id, "k1": brief.id, "k2": timed.id}
    await world.advance(31)
    assert len(await (await world.crew()).claim(5)) == 3
    assert await world.store.holders(wanted) == {"k0": live.id}
