"""Workers and runners: registration, release, retirement, beats, leases and reaping."""

import pytest

from tests.store.world import LEASE, Crew, World, ends, new, new_id, wants, worker_info
from windlass import policy
from windlass.errors import Evicted
from windlass.model import Claim, Ending, Held, Order, RunnerInfo, State, Verb

TICK = 0.001


async def holding(world: World, jobs: int = 2) -> tuple[Crew, list[Claim]]:
    """A crew that holds some jobs."""
    await world.put(*(new() for _ in range(jobs)))
    crew = await world.crew()
    return crew, await crew.claim(jobs)


async def states(world: World, claims: list[Claim]) -> list[State]:
    return [job.state for job in await world.store.get([claim.id for claim in claims])]


# Registration


async def test_workers_are_listed_with_their_runners(world: World) -> None:
    now = await world.now()
    crew = await world.crew()
    await world.advance(1)
    runner = RunnerInfo(id=new_id(), worker=crew.worker, pid=77, tasks=("a.x", "b.y"))
    await world.store.join(runner)
    await world.put(new(), new())
    await crew.claim(2)
    await world.advance(1)
    first = await world.crew(lease=3)
    one, two = await world.store.workers()
    assert (one.id, one.host, one.pid, one.version, one.lease) == (crew.worker, "here", 1, "1.0", LEASE)
    assert (one.queues, one.concurrency) == ("a,b", 4)
    assert (one.started_at, one.beat_age) == pytest.approx((now, 2))
    assert [(entry.id, entry.running) for entry in one.runners] == [(crew.runner, 2), (runner.id, 0)]
    assert (one.runners[1].pid, one.runners[1].tasks, one.runners[1].worker) == (77, ("a.x", "b.y"), crew.worker)
    assert one.runners[1].joined_at == pytest.approx(now + 1)
    assert (two.id, two.lease) == (first.worker, 3)


async def test_a_worker_id_is_used_once(world: World) -> None:
    crew = await world.crew()
    with pytest.raises(Evicted):
        await world.store.enlist(worker_info(crew.worker))
    await world.store.retire(crew.worker)
    with pytest.raises(Evicted):
        await world.store.enlist(worker_info(crew.worker))
    assert await world.store.workers() == []


async def test_enlisting_an_id_in_use_does_not_renew_its_lease(world: World) -> None:
    crew = await world.crew()
    await world.advance(LEASE - 1)
    with pytest.raises(Evicted):
        await world.store.enlist(worker_info(crew.worker))
    await world.advance(1 + TICK)
    assert await world.store.reap() == [crew.worker]


async def test_a_runner_id_is_used_once(world: World) -> None:
    crew = await world.crew()
    other = await world.crew()
    for worker in (crew.worker, other.worker):
        with pytest.raises(Evicted):
            await world.store.join(RunnerInfo(id=crew.runner, worker=worker, pid=2))
    await crew.release()
    for worker in (crew.worker, other.worker):
        with pytest.raises(Evicted):
            await world.store.join(RunnerInfo(id=crew.runner, worker=worker, pid=2))
    with pytest.raises(Evicted):
        await crew.exchange()


async def test_a_runner_released_before_it_joined_cannot_join(world: World) -> None:
    """Its join may be on the way while the supervisor cleans up behind it."""
    crew = await world.crew()
    runner = new_id()
    assert await world.store.release([runner], Ending.LOST) == 0
    with pytest.raises(Evicted):
        await world.store.join(RunnerInfo(id=runner, worker=crew.worker, pid=2))


async def test_a_runner_joins_a_registered_worker_only(world: World) -> None:
    crew = await world.crew()
    await world.store.retire(crew.worker)
    for worker in (crew.worker, new_id()):
        with pytest.raises(Evicted):
            await world.store.join(RunnerInfo(id=new_id(), worker=worker, pid=2))


# Release and retirement


@pytest.mark.parametrize(("ending", "lost"), [(Ending.LOST, 1), (Ending.INTERRUPTED, 0)])
async def test_release_hands_back_what_is_held(world: World, ending: Ending, lost: int) -> None:
    crew, claims = await holding(world, 3)
    await crew.exchange(ends(claims[0], Ending.SUCCEEDED))
    other = await world.crew(worker=crew.worker)
    await world.put(new())
    (kept,) = await other.claim(1)
    assert await crew.release(ending) == 2
    jobs = await world.store.get([claim.id for claim in claims])
    assert [job.state for job in jobs] == [State.SUCCEEDED, State.READY, State.READY]
    assert [(job.lost, job.attempt) for job in jobs[1:]] == [(lost, 0)] * 2
    assert [entry.ending for entry in jobs[1].attempts] == [ending]
    assert await world.state(kept.id) is State.RUNNING
    assert [entry.id for entry in (await world.store.workers())[0].runners] == [other.runner]


async def test_release_does_not_charge_a_suspect_twice(world: World) -> None:
    crew, (claim,) = await holding(world, 1)
    await crew.settle(policy.lost(claim, "x"))
    again = await crew.take("work", suspects=["work"])
    await crew.settle(policy.lost(again, "x"))
    await crew.take("work", suspects=["work"])
    await crew.release(Ending.LOST)
    assert (await world.job(claim.id)).lost == 2


async def test_release_as_interrupted_keeps_the_suspicion(world: World) -> None:
    crew, (claim,) = await holding(world, 1)
    await crew.settle(policy.lost(claim, "x"))
    await crew.take("work", suspects=["work"])
    await crew.release(Ending.INTERRUPTED)
    assert (await world.job(claim.id)).lost == 1


async def test_release_settles_in_the_same_commit(world: World) -> None:
    crew, claims = await holding(world, 3)
    outcomes = [policy.lost(claims[0], "signal 9"), ends(claims[1], Ending.FAILED)]
    assert await crew.release(Ending.INTERRUPTED, *outcomes) == 1
    jobs = await world.store.get([claim.id for claim in claims])
    assert [(job.state, job.lost) for job in jobs] == [(State.READY, 1), (State.FAILED, 0), (State.READY, 0)]


async def test_release_takes_outcomes_under_their_fence_only(world: World) -> None:
    crew, (claim,) = await holding(world, 1)
    await crew.settle(ends(claim, Ending.INTERRUPTED))
    again = await crew.take()
    assert await crew.release(Ending.INTERRUPTED, policy.succeeded(claim, b"1")) == 1
    assert await world.state(again.id) is State.READY


async def test_release_of_several_runners(world: World) -> None:
    crew, claims = await holding(world, 2)
    other = await world.crew(worker=crew.worker)
    await world.put(new())
    third = await other.take()
    outcomes = [ends(claims[0], Ending.FAILED), ends(third, Ending.FAILED)]
    assert await world.store.release([crew.runner, other.runner, new_id()], Ending.LOST, outcomes) == 1
    assert await states(world, [*claims, third]) == [State.FAILED, State.READY, State.FAILED]


async def test_a_retired_worker_hands_back_as_interrupted(world: World) -> None:
    crew, claims = await holding(world, 2)
    other = await world.crew(worker=crew.worker)
    await world.put(new())
    claims += await other.claim(1)
    bystander, kept = await holding(world, 1)
    await world.store.retire(crew.worker)
    jobs = await world.store.get([claim.id for claim in claims])
    assert {(job.state, job.lost, job.attempt) for job in jobs} == {(State.READY, 0, 0)}
    assert [worker.id for worker in await world.store.workers()] == [bystander.worker]
    assert await states(world, kept) == [State.RUNNING]
    assert (await crew.beat()).evicted
    await world.store.retire(crew.worker)
    await world.store.retire(new_id())


# Leases


async def test_a_lease_is_over_exactly_after_its_time(world: World) -> None:
    crew, claims = await holding(world)
    await world.advance(LEASE - TICK)
    assert await world.store.reap() == []
    assert await states(world, claims) == [State.RUNNING] * 2
    await world.advance(2 * TICK)
    assert await world.store.reap() == [crew.worker]
    jobs = await world.store.get([claim.id for claim in claims])
    assert {(job.state, job.lost, job.attempt) for job in jobs} == {(State.READY, 1, 0)}
    assert await world.store.reap() == []
    assert await world.store.workers() == []


async def test_whoever_asks_is_not_dead(world: World) -> None:
    crew, claims = await holding(world)
    other = await world.crew()
    await world.advance(LEASE + TICK)
    assert await world.store.reap(crew.worker) == [other.worker]
    assert await states(world, claims) == [State.RUNNING] * 2
    assert not (await crew.beat()).evicted
    assert await world.store.reap() == []


async def test_each_worker_has_its_own_lease(world: World) -> None:
    short, long = await world.crew(lease=2), await world.crew(lease=60)
    await world.advance(2 + TICK)
    assert await world.store.reap() == [short.worker]
    await world.advance(58)
    assert await world.store.reap() == [long.worker]


async def test_a_beat_renews_the_lease(world: World) -> None:
    crew, claims = await holding(world)
    for _ in range(5):
        await world.advance(LEASE - TICK)
        assert not (await crew.beat()).evicted
    assert await world.store.reap() == []
    await world.advance(LEASE + TICK)
    assert await world.store.reap() == [crew.worker]
    assert await states(world, claims) == [State.READY] * 2


async def test_a_late_beat_renews_a_lease_that_nobody_ended(world: World) -> None:
    crew, claims = await holding(world)
    await world.advance(LEASE * 3)
    assert not (await crew.beat()).evicted
    assert await world.store.reap() == []
    assert await states(world, claims) == [State.RUNNING] * 2


async def test_a_beat_after_reaping_is_evicted_and_renews_nothing(world: World) -> None:
    crew, _ = await holding(world)
    await world.advance(LEASE + TICK)
    await world.store.reap()
    assert (await crew.beat()).evicted
    assert await world.store.workers() == []
    with pytest.raises(Evicted):
        await crew.exchange(demand=wants(1))


async def test_an_exchange_does_not_renew_the_lease(world: World) -> None:
    crew, _ = await holding(world)
    await world.advance(LEASE - TICK)
    await crew.exchange()
    await world.advance(2 * TICK)
    assert await world.store.reap() == [crew.worker]


@pytest.mark.parametrize("jump", [3_600, -3_600])
async def test_the_wall_clock_ends_no_lease_and_saves_none(world: World, jump: float) -> None:
    crew, claims = await holding(world)
    await world.advance(LEASE - 1)
    await world.shift(jump)
    assert await world.store.reap() == []
    assert not (await crew.beat()).dead
    await world.shift(-jump)
    await world.advance(LEASE - TICK)
    await world.shift(jump)
    assert await world.store.reap() == []
    await world.advance(2 * TICK)
    assert await world.store.reap() == [crew.worker]
    assert await states(world, claims) == [State.READY] * 2


async def test_a_clock_that_is_set_back_keeps_no_dead_worker_alive(world: World) -> None:
    if world.kind in ("memory", "sqlite"):
        pytest.skip("leases go by the boot clock, which nobody sets")
    crew, claims = await holding(world)
    other = await world.crew()
    await world.advance(-3_600)  # a server has no other clock for leases than its wall clock
    assert (await other.beat()).dead
    assert await world.store.reap(other.worker) == []
    assert not (await other.beat()).dead
    await world.advance(LEASE + TICK)
    assert (await other.beat()).dead
    assert await world.store.reap(other.worker) == [crew.worker]
    assert await states(world, claims) == [State.READY] * 2


async def test_a_beat_tells_of_dead_workers(world: World) -> None:
    crew, other = await world.crew(), await world.crew(lease=5)
    await world.advance(5 - TICK)
    assert not (await crew.beat()).dead
    await world.advance(2 * TICK)
    assert (await crew.beat()).dead
    assert not (await other.beat()).dead
    await world.advance(5 + TICK)
    assert await world.store.reap() == [other.worker]
    assert not (await crew.beat()).dead


async def test_beat_of_an_unknown_worker(world: World) -> None:
    orders = await world.store.beat(new_id())
    assert (orders.evicted, orders.cancel) == (True, ())


async def test_age_of_the_last_beat(world: World) -> None:
    crew = await world.crew()
    await world.advance(2)
    await crew.beat()
    await world.advance(3)
    assert (await world.store.workers())[0].beat_age == pytest.approx(3)


# Orders


async def test_a_cancel_order_is_repeated_until_the_job_is_settled(world: World) -> None:
    crew, claims = await holding(world, 3)
    claim = claims[1]
    assert (await crew.beat()).cancel == ()
    await world.store.act([claim.id], Verb.CANCEL)
    for _ in range(3):
        assert (await crew.beat()).cancel == (Order(runner=crew.runner, id=claim.id, fence=claim.fence),)
    await crew.settle(policy.cancelled(claim, "by an operator"))
    assert (await crew.beat()).cancel == ()


async def test_orders_go_to_the_worker_that_runs_the_job(world: World) -> None:
    crew, claims = await holding(world, 2)
    second = await world.crew(worker=crew.worker)
    other, _ = await holding(world, 1)
    await world.put(new())
    mine = await second.take()
    await world.store.act([claims[0].id, mine.id], Verb.CANCEL)
    assert {(order.runner, order.id) for order in (await crew.beat()).cancel} == {
        (crew.runner, claims[0].id),
        (second.runner, mine.id),
    }
    assert (await other.beat()).cancel == ()


# Reconciling


async def test_a_claim_that_nobody_holds_comes_back(world: World) -> None:
    crew, claims = await holding(world, 3)
    await crew.beat(claims[1], seq=crew.seq)
    assert await states(world, claims) == [State.READY, State.RUNNING, State.READY]
    jobs = await world.store.get([claim.id for claim in claims])
    assert [(job.lost, job.attempt) for job in jobs] == [(0, 0)] * 3
    assert [entry.ending for entry in jobs[0].attempts] == [Ending.INTERRUPTED]


async def test_a_newer_claim_stays(world: World) -> None:
    crew, old = await holding(world, 1)
    await world.put(new(), new())
    newer = await crew.claim(2)
    await crew.beat(seq=crew.seq - 1)
    assert await states(world, old) == [State.READY]
    assert await states(world, newer) == [State.RUNNING] * 2


async def test_a_beat_without_word_takes_nothing(world: World) -> None:
    crew, claims = await holding(world)
    await crew.beat()
    await world.store.beat(crew.worker, {})
    assert await states(world, claims) == [State.RUNNING] * 2


async def test_the_word_of_one_runner_is_not_that_of_another(world: World) -> None:
    crew, claims = await holding(world)
    silent = await world.crew(worker=crew.worker)
    await world.store.beat(crew.worker, {silent.runner: Held(seq=99, claims=frozenset())})
    assert await states(world, claims) == [State.RUNNING] * 2


async def test_what_a_late_copy_of_an_exchange_claims_comes_back(world: World) -> None:
    crew = await world.crew()
    assert await crew.claim(1) == []
    await crew.beat(seq=crew.seq)
    (job,) = await world.put(new())
    await crew.again(demand=wants(1))
    await crew.beat(seq=crew.seq + 1)
    assert await world.state(job.id) is State.READY


async def test_an_older_attempt_in_hand_is_not_the_newer(world: World) -> None:
    crew, (claim,) = await holding(world, 1)
    await crew.settle(ends(claim, Ending.INTERRUPTED))
    again = await crew.take()
    await crew.beat(claim, seq=crew.seq)
    assert await world.state(again.id) is State.READY


async def test_an_evicted_workers_word_takes_nothing(world: World) -> None:
    crew, claims = await holding(world)
    await world.store.retire(crew.worker)
    heir = await world.crew()
    await heir.claim(2)
    assert (await crew.beat(seq=99)).evicted
    assert await states(world, claims) == [State.RUNNING] * 2


async def test_a_reconciled_job_marked_for_cancelling_ends_cancelled(world: World) -> None:
    crew, (claim,) = await holding(world, 1)
    await world.store.act([claim.id], Verb.CANCEL)
    await crew.beat(seq=crew.seq)
    assert await world.state(claim.id) is State.CANCELLED
    assert (await crew.beat()).cancel == ()
