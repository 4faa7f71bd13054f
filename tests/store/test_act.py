"""The operator's verbs in every state."""

from typing import Any

import pytest
from msgspec.structs import replace

from tests.store.world import World, ends, new, new_id
from windlass import policy
from windlass.bulk import in_batches
from windlass.model import Ending, Failure, Fair, Filter, Need, State, Verb
from windlass.policy import Retry
from windlass.store.contract import BATCH

STATES = ["scheduled", "ready", "running", "cancelling", "retrying", "succeeded", "failed", "cancelled", "expired"]


async def in_state(world: World, state: str) -> str:
    """The id of a job in one of STATES."""
    job = new(delay=60 if state == "scheduled" else 0, expires_in=1 if state == "expired" else None)
    await world.put(job)
    if state in ("scheduled", "ready"):
        return job.id
    crew = await world.crew()
    if state == "expired":
        await world.advance(2)
        await crew.exchange()
        return job.id
    claim = await crew.take()
    if state == "cancelling":
        await world.store.act([job.id], Verb.CANCEL)
    elif state != "running":
        ending = Ending.RETRY if state == "retrying" else Ending(state)
        await crew.exchange(ends(claim, ending))
    return job.id


def expected(state: str, verb: Verb) -> State | None:
    """The state after a verb that fits, None where it does not. DELETE that fits is told apart by `gone`."""
    if verb is Verb.RETRY:
        return (
            State.READY if state in ("scheduled", "retrying", "succeeded", "failed", "cancelled", "expired") else None
        )
    if state in ("scheduled", "ready", "retrying"):
        return State.CANCELLED
    return State.RUNNING if state == "running" else None


@pytest.mark.parametrize("by", ["ids", "filter"])
@pytest.mark.parametrize("verb", [Verb.CANCEL, Verb.RETRY])
@pytest.mark.parametrize("state", STATES)
async def test_cancel_and_retry_in_every_state(world: World, state: str, verb: Verb, by: str) -> None:
    id = await in_state(world, state)
    before = await world.job(id)
    done = await world.store.act([id] if by == "ids" else Filter(task="work"), verb)
    after = await world.job(id)
    wanted = expected(state, verb)
    if wanted is None:
        assert (done, after) == ([], before)
    else:
        assert (done, after.state) == ([id], wanted)
    assert await world.store.act(Filter(state=before.state), verb) == []


@pytest.mark.parametrize("by", ["ids", "filter"])
@pytest.mark.parametrize("state", STATES)
async def test_delete_in_every_state(world: World, state: str, by: str) -> None:
    id = await in_state(world, state)
    running = state in ("running", "cancelling")
    done = await world.store.act([id] if by == "ids" else Filter(queue="default"), Verb.DELETE)
    assert done == ([] if running else [id])
    assert len(await world.store.get([id])) == running
    assert await world.store.count(Filter()) == running
    assert await world.store.act([id], Verb.DELETE) == []


@pytest.mark.parametrize("verb", list(Verb))
async def test_unknown_ids_are_left_out(world: World, verb: Verb) -> None:
    assert await world.store.act([new_id()], verb) == []
    assert await world.store.act([], verb) == []


# Cancelling


async def test_a_job_cancelled_before_it_ran_never_runs(world: World) -> None:
    id = await in_state(world, "scheduled")
    await world.store.act([id], Verb.CANCEL)
    await world.advance(100)
    assert await (await world.crew()).claim() == []
    job = await world.job(id)
    assert job.finished_at == pytest.approx(await world.now() - 100)
    assert job.fence == 0


@pytest.mark.parametrize("ending", list(Ending))
async def test_how_a_job_marked_for_cancelling_ends(world: World, ending: Ending) -> None:
    await world.put(new())
    crew = await world.crew()
    claim = await crew.take()
    await world.store.act([claim.id], Verb.CANCEL)
    assert await crew.settle(ends(claim, ending))
    job = await world.job(claim.id)
    assert job.state is (ending.state if ending.state.final else State.CANCELLED)
    assert job.finished_at == pytest.approx(await world.now())
    assert not job.cancelling
    await world.advance(60)
    heir = await world.crew()
    assert await heir.claim(1, "work", suspects=["work"]) == []


@pytest.mark.parametrize("how", ["release", "interrupted", "retire", "reap", "reconcile"])
async def test_a_job_marked_for_cancelling_ends_when_it_is_handed_back(world: World, how: str) -> None:
    await world.put(new())
    crew = await world.crew()
    claim = await crew.take()
    await world.store.act([claim.id], Verb.CANCEL)
    if how == "release":
        await crew.release(Ending.LOST)
    elif how == "interrupted":
        await crew.release(Ending.INTERRUPTED)
    elif how == "retire":
        await world.store.retire(crew.worker)
    elif how == "reap":
        await world.advance(15.001)
        await world.store.reap()
    else:
        await crew.beat(seq=crew.seq)
    job = await world.job(claim.id)
    assert job.state is State.CANCELLED
    assert job.finished_at == pytest.approx(await world.now())
    assert not job.cancelling


async def test_a_cancelled_job_that_is_retried_is_not_cancelled_again(world: World) -> None:
    await world.put(new())
    crew = await world.crew()
    claim = await crew.take()
    await world.store.act([claim.id], Verb.CANCEL)
    await crew.settle(ends(claim, Ending.CANCELLED))
    await world.store.act([claim.id], Verb.RETRY)
    again = await crew.take()
    assert not (await world.job(claim.id)).cancelling
    assert (await crew.beat()).cancel == ()
    await crew.settle(ends(again, Ending.RETRY))
    assert await world.state(claim.id) is State.SCHEDULED


async def test_why_a_job_was_cancelled_is_told(world: World) -> None:
    id = await in_state(world, "ready")
    await world.store.act([id], Verb.CANCEL)
    assert (await world.job(id)).reason not in (None, "expired")


# Retrying


async def test_retry_starts_counts_anew_and_keeps_the_fence(world: World) -> None:
    await world.put(new())
    crew = await world.crew()
    await crew.settle(policy.lost(await crew.take(), "signal 9"))
    await crew.settle(policy.raised(await crew.take("x", suspects=["work"]), ValueError("x"), Retry(attempts=1)))
    (failed,) = (await world.store.find(Filter(state=State.FAILED))).jobs
    assert (failed.attempt, failed.fence) == (1, 2)
    await world.advance(5)
    assert await world.store.act([failed.id], Verb.RETRY) == [failed.id]
    job = await world.job(failed.id)
    assert (job.state, job.attempt, job.lost, job.fence) == (State.READY, 0, 0, 2)
    assert (job.finished_at, job.result, job.reason) == (None, None, None)
    assert job.run_at == pytest.approx(await world.now())
    assert len(job.attempts) == 2
    assert (await crew.take()).fence == 3


async def test_retry_forgets_the_suspicion(world: World) -> None:
    await world.put(new())
    crew = await world.crew()
    claim = await crew.take()
    for _ in range(3):
        await crew.settle(policy.lost(claim, "signal 9"))
        if (await world.job(claim.id)).state is State.READY:
            claim = await crew.take("work", suspects=["work"])
    assert await world.state(claim.id) is State.FAILED
    await world.store.act([claim.id], Verb.RETRY)
    assert (await crew.take("work")).lost == 0


async def test_retry_of_a_scheduled_job_runs_it_now(world: World) -> None:
    id = await in_state(world, "retrying")
    assert await world.store.act([id], Verb.RETRY) == [id]
    job = await world.job(id)
    assert (job.state, job.attempt) == (State.READY, 1)
    assert (await (await world.crew()).take()).id == id
    assert await world.store.act([id], Verb.RETRY) == []


async def test_retry_keeps_a_scheduled_jobs_unique_key(world: World) -> None:
    await world.put(job := new(delay=60, unique="k"))
    await world.store.act([job.id], Verb.RETRY)
    assert not (await world.put(new(unique="k")))[0].new


async def test_retry_of_two_jobs_that_share_a_key(world: World) -> None:
    ids = []
    for _ in range(2):
        await world.put(job := new(unique="k"))
        await world.store.act([job.id], Verb.CANCEL)
        ids.append(job.id)
    assert len(await world.store.act(ids, Verb.RETRY)) == 1
    assert await world.store.count(Filter(state=State.READY)) == 1


async def test_jobs_of_all_kinds_are_retried_together(world: World) -> None:
    milli = f"{int(await world.now() * 1000):012x}"
    ids = [f"{milli[:8]}-{milli[8:]}-7000-8000-{n:012x}" for n in range(6)] + [new_id(), "no-uuid"]
    gates = (Need("gate"),)
    kinds: list[dict[str, Any]] = [
        {},
        {"queue": "other"},
        {"unique": "k"},
        {"gates": gates},
        {"delay": 60},
        {"fair": Fair("a")},
    ]
    jobs = [new(id=id, **more) for id, more in zip(ids, [*kinds, {"tags": ("t",)}, {"priority": 5}], strict=True)]
    await world.put(*jobs)
    await world.advance(1)
    over = [id for id in ids if id != ids[4]]
    assert sorted(await world.store.act(over, Verb.CANCEL)) == sorted(over)
    before = {job.id: job for job in await world.store.get(over)}
    assert sorted(await world.store.act([*ids, ids[0], new_id()], Verb.RETRY)) == sorted(ids)
    for job in await world.store.get(over):
        old = before[job.id]
        fresh = replace(old, state=job.state, run_at=job.run_at, finished_at=None, reason=None, runner=None)
        assert replace(job, runner=None) == fresh
    assert await world.store.count(Filter(state=State.CANCELLED)) == 0
    assert [job.id for job in (await world.store.find(Filter(state=State.WAITING))).jobs] == [ids[3]]
    claims = await (await world.crew()).claim(20)
    assert {claim.id for claim in claims} == {*ids} - {ids[3]}


async def test_jobs_that_cannot_be_retried_do_not_hide_those_that_can(world: World) -> None:
    """Call again until the answer is empty: then every job that the verb fits was retried."""
    for _ in range(2):
        jobs = [new(unique=f"k{n}") for n in range(BATCH)]
        await world.put(*jobs)
        assert len(await world.store.act([job.id for job in jobs], Verb.CANCEL)) == BATCH
    await world.put(*(new(unique=f"k{n}", priority=-1) for n in range(BATCH)))
    await world.put(free := new())
    await world.store.act([free.id], Verb.CANCEL)
    done: list[str] = []
    while ids := await world.store.act(Filter(state=State.CANCELLED), Verb.RETRY):
        done += ids
    assert done == [free.id]


async def test_delete_drops_the_history(world: World) -> None:
    id = await in_state(world, "failed")
    await world.store.act([id], Verb.DELETE)
    await world.put(new(id=id))
    job = await world.job(id)
    assert (job.attempts, job.tags, job.attempt) == ((), (), 0)


# Many


@pytest.mark.parametrize("verb", list(Verb))
async def test_a_filter_is_worked_off_in_batches(world: World, verb: Verb) -> None:
    await world.put(*(new("many", delay=99, tags=("t",)) for _ in range(BATCH + 100)), new("other", delay=99))
    target = Filter(task="many", tag="t", state=State.SCHEDULED)
    first = await world.store.act(target, verb)
    second = await world.store.act(target, verb)
    assert (len(set(first)), len(set(second))) == (BATCH, 100)
    assert await world.store.act(target, verb) == []
    assert await world.store.count(Filter(state=State.SCHEDULED)) == 1


async def fails(world: World, *errors: str) -> list[str]:
    """The ids of jobs that failed one after another, each with an error of that class."""
    crew = await world.crew()
    ids: list[str] = []
    for error in errors:
        await world.put(new(tags=("odd",) if len(ids) % 2 else ()))
        claim = await crew.take()
        failure = Failure(type=error, message='{"type":"Other"}\0', traceback='"type":"Other"')
        await crew.exchange(replace(ends(claim, Ending.FAILED), failure=failure))
        ids.append(claim.id)
        await world.advance(1)
    return ids


async def test_failed_jobs_are_found_by_the_class_of_their_error(world: World) -> None:
    ids = await fails(world, "shop.Refused", "shop.Lost", "shop.Refused", "Größe", "x" * 161, "shop.Refused")
    refused = [ids[5], ids[2], ids[0]]
    wanted = Filter(error="shop.Refused")

    async def found(filter: Filter) -> list[str]:
        return [job.id for job in (await world.store.find(filter)).jobs]

    assert await found(wanted) == await found(replace(wanted, state=State.FAILED, task="work")) == refused
    assert await found(replace(wanted, tag="odd")) == ids[5:]
    assert await found(Filter(error="Größe")) == [ids[3]]
    for none in (Filter(error="x" * 161), replace(wanted, state=State.READY), replace(wanted, state=State.SUCCEEDED)):
        assert (await found(none), await world.store.count(none)) == ([], 0)
    page = await world.store.find(wanted, 2)
    assert [job.id for job in (await world.store.find(wanted, 2, page.after)).jobs] == refused[2:]
    assert await world.store.count(wanted) == 3
    assert await world.store.count(wanted, 1) == 2
    assert await world.store.act(wanted, Verb.CANCEL) == []
    assert await world.store.act([ids[0]], Verb.RETRY) == ids[:1]
    assert await world.store.act(replace(wanted, tag="odd"), Verb.DELETE) == ids[5:]
    assert await found(wanted) == [ids[2]]
    await world.store.prune({State.FAILED: 0.0})
    assert await world.store.count(wanted) == 0


async def test_acting_on_a_filter_is_bounded_by_number_and_moment(world: World) -> None:
    ids = await fails(world, "A", "A", "B", "A")
    then = (await world.job(ids[1])).finished_at
    assert await world.store.count(Filter(state=State.FAILED, ended_by=then)) == 2
    assert len(await world.store.act(Filter(error="A", ended_by=then), Verb.RETRY, 1)) == 1
    await world.store.act(Filter(error="A", ended_by=then), Verb.RETRY)
    assert [job.id for job in (await world.store.find(Filter(state=State.FAILED))).jobs] == [ids[3], ids[2]]
    assert set(await world.store.act(Filter(task="work", ended_by=then), Verb.DELETE, 9)) == set(ids[:2])


async def test_whoever_fails_again_at_once_is_retried_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("windlass.bulk.BATCH", 1)
    ids = await fails(world, "A", "A", "A")
    crew, seen = await world.crew(), list[str]()
    async for (id,) in in_batches(world.store, [Filter(state=State.FAILED)], Verb.RETRY):
        seen.append(id)
        assert len(seen) <= 3
        await world.advance(1)
        await crew.exchange(replace(ends(await crew.take(), Ending.FAILED), failure=Failure(type="A", message="")))
    assert sorted(seen) == sorted(ids)


async def test_a_filter_names_what_it_names(world: World) -> None:
    jobs = [new(task, queue=queue, tags=(tag,)) for task in "ab" for queue in "xy" for tag in "12"]
    await world.put(*jobs)
    assert await world.store.act(Filter(task="a", queue="y", tag="2"), Verb.CANCEL) == [jobs[3].id]
    assert len(await world.store.act(Filter(queue="x"), Verb.DELETE)) == 4
    assert set(await world.store.act(Filter(tag="1"), Verb.CANCEL)) == {jobs[2].id, jobs[6].id}
