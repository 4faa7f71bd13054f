"""Every ending and where it leads; the fence that keeps late outcomes out; repeating."""

import msgspec
import pytest

from tests.store.world import Crew, World, ends, new
from windlass import policy
from windlass.model import Claim, Ending, Outcome, Patch, Progress, State, Verb
from windlass.policy import LOST_RUNS, Retry

ENDINGS = list(Ending)
GOES_ON = [ending for ending in Ending if not ending.state.final]
OVER = [ending for ending in Ending if ending.state.final]


async def started(world: World) -> tuple[Crew, Claim]:
    """A crew that holds the one job."""
    await world.put(new())
    crew = await world.crew()
    return crew, await crew.take()


async def apply(crew: Crew, outcome: Outcome, way: str) -> bool:
    """Hand in an outcome by one of the two ways; whether it stands."""
    if way == "settle":
        return await crew.settle(outcome)
    return (await crew.exchange(outcome)).refused == ()


@pytest.fixture(params=["settle", "exchange"])
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# Endings


@pytest.mark.parametrize("ending", ENDINGS)
async def test_every_ending_leads_to_its_state(world: World, way: str, ending: Ending) -> None:
    crew, claim = await started(world)
    await world.advance(3)
    assert await apply(crew, ends(claim, ending), way)
    job = await world.job(claim.id)
    assert job.state is ending.state
    assert job.fence == claim.fence
    assert (job.finished_at is not None) == ending.state.final
    assert not (await world.store.workers())[0].runners[0].running


async def test_success_keeps_its_result_and_no_attempt(world: World, way: str) -> None:
    crew, claim = await started(world)
    await world.advance(3)
    await apply(crew, policy.succeeded(claim, b'{"x":[1,"\xc3\xa9"]}'), way)
    job = await world.job(claim.id)
    assert (job.result, job.attempt, job.attempts) == (b'{"x":[1,"\xc3\xa9"]}', 1, ())
    assert job.finished_at == pytest.approx(await world.now())


async def test_success_without_result(world: World, way: str) -> None:
    crew, claim = await started(world)
    await apply(crew, policy.succeeded(claim, None), way)
    assert (await world.job(claim.id)).result is None


async def test_a_retry_waits_and_counts(world: World, way: str) -> None:
    crew, claim = await started(world)
    assert await apply(crew, ends(claim, Ending.RETRY, delay=60), way)
    job = await world.job(claim.id)
    assert (job.attempt, job.lost) == (1, 0)
    assert job.run_at == pytest.approx(await world.now() + 60)
    assert await crew.claim() == []
    await world.advance(60.001)
    again = await crew.take()
    assert (again.attempt, again.fence) == (1, claim.fence + 1)


async def test_a_snooze_waits_and_does_not_count(world: World, way: str) -> None:
    crew, claim = await started(world)
    await apply(crew, ends(claim, Ending.SNOOZED, delay=5), way)
    await world.advance(5.001)
    assert (await crew.take()).attempt == 0


async def test_an_interruption_does_not_count_and_is_ready_at_once(world: World, way: str) -> None:
    crew, claim = await started(world)
    await apply(crew, ends(claim, Ending.INTERRUPTED), way)
    again = await crew.take()
    assert (again.attempt, again.lost, again.fence) == (0, 0, 2)


async def test_losses_count_apart_and_end_in_failure(world: World, way: str) -> None:
    crew, claim = await started(world)
    for runs in range(1, LOST_RUNS):
        await apply(crew, policy.lost(claim, "signal 11"), way)
        assert await crew.claim(1, "work") == []
        claim = await crew.take("work", suspects=["work"])
        assert (claim.lost, claim.attempt) == (runs, 0)
    await apply(crew, policy.lost(claim, "signal 11"), way)
    job = await world.job(claim.id)
    assert (job.state, job.lost, job.attempt) == (State.FAILED, LOST_RUNS, 0)


async def test_a_reason_is_kept(world: World, way: str) -> None:
    crew, claim = await started(world)
    await apply(crew, policy.cancelled(claim, "no longer needed"), way)
    assert (await world.job(claim.id)).reason == "no longer needed"


async def test_outcomes_of_one_exchange_are_applied_one_by_one(world: World) -> None:
    await world.put(*(new() for _ in ENDINGS))
    crew = await world.crew()
    claims = await crew.claim(len(ENDINGS))
    outcomes = [ends(claim, ending) for claim, ending in zip(claims, ENDINGS, strict=True)]
    assert (await crew.exchange(*outcomes)).refused == ()
    states = [await world.state(claim.id) for claim in claims]
    assert states == [ending.state for ending in ENDINGS]


async def test_refused_names_exactly_those_that_do_not_stand(world: World) -> None:
    await world.put(*(new() for _ in range(6)))
    crew = await world.crew()
    claims = await crew.claim(6)
    outcomes = [ends(claim, ending) for claim, ending in zip(claims, ENDINGS, strict=False)]
    wrong = [msgspec.structs.replace(outcome, fence=7) for outcome in outcomes[::2]]
    answer = await crew.exchange(*wrong, *outcomes[1::2])
    assert set(answer.refused) == {outcome.id for outcome in wrong}
    assert len(answer.refused) == 3


async def test_three_hundred_outcomes_in_one_exchange(world: World) -> None:
    await world.put(*(new() for _ in range(300)))
    crew = await world.crew()
    claims = await crew.claim(300)
    outcomes = [policy.succeeded(claim, str(n).encode()) for n, claim in enumerate(claims)]
    outcomes[77] = msgspec.structs.replace(outcomes[77], fence=9)
    assert (await crew.exchange(*outcomes)).refused == (claims[77].id,)
    jobs = await world.store.get([claim.id for claim in claims])
    assert [job.result for job in jobs] == [None if n == 77 else str(n).encode() for n in range(300)]


# The fence


@pytest.mark.parametrize("change", ["fence", "seq", "runner", "id"])
async def test_an_outcome_of_another_attempt_is_refused(world: World, way: str, change: str) -> None:
    crew, claim = await started(world)
    before = await world.job(claim.id)
    sender = await world.crew(worker=crew.worker) if change == "runner" else crew
    for ending in ENDINGS:
        outcome = ends(claim, ending)
        if change == "id":
            outcome = msgspec.structs.replace(outcome, id="no-such-job")
        elif change != "runner":
            outcome = msgspec.structs.replace(outcome, **{change: getattr(outcome, change) + 1})
        assert not await apply(sender, outcome, way), ending
        assert await world.job(claim.id) == before
    assert await apply(crew, ends(claim, Ending.SUCCEEDED), way)


async def late(world: World, crew: Crew, claim: Claim, how: str) -> None:
    """Take the job from `claim` by one of the ways it can lose it."""
    if how in ("retry", "snooze", "interrupted", "lost"):
        await crew.settle(ends(claim, Ending("snoozed" if how == "snooze" else how), delay=0))
    elif how == "release":
        await crew.release()
    elif how == "retire":
        await world.store.retire(crew.worker)
    elif how == "reconcile":
        await crew.beat(seq=crew.seq)
    elif how == "reap":
        await world.advance(16)
        assert await world.store.reap() == [crew.worker]
    elif how == "operator":
        await crew.settle(ends(claim, Ending.FAILED))
        assert await world.store.act([claim.id], Verb.RETRY) == [claim.id]
    elif how == "deleted":
        await crew.settle(ends(claim, Ending.FAILED))
        assert await world.store.act([claim.id], Verb.DELETE) == [claim.id]


LOST_BY = ["retry", "snooze", "interrupted", "lost", "release", "retire", "reconcile", "reap", "operator"]


@pytest.mark.parametrize("how", [*LOST_BY, "deleted"])
async def test_a_late_settle_is_refused(world: World, how: str) -> None:
    crew, claim = await started(world)
    await late(world, crew, claim, how)
    before = await world.store.get([claim.id])
    assert not await crew.settle(policy.succeeded(claim, b'"late"'))
    assert not await crew.settle(ends(claim, Ending.CANCELLED))
    assert await world.store.get([claim.id]) == before


@pytest.mark.parametrize("how", LOST_BY)
async def test_a_late_settle_is_refused_while_a_successor_runs_and_after_it_settled(world: World, how: str) -> None:
    crew, claim = await started(world)
    await late(world, crew, claim, how)
    heir = await world.crew()
    again = await heir.take("work", suspects=["work"])
    assert again.fence > claim.fence
    running = await world.job(claim.id)
    assert not await crew.settle(policy.succeeded(claim, b'"late"'))
    assert not await crew.settle(ends(claim, Ending.RETRY))
    assert await world.job(claim.id) == running
    assert await heir.settle(policy.succeeded(again, b'"right"'))
    done = await world.job(claim.id)
    assert not await crew.settle(policy.succeeded(claim, b'"late"'))
    assert await world.job(claim.id) == done
    assert done.result == b'"right"'


@pytest.mark.parametrize("how", ["retry", "snooze", "interrupted", "lost", "reconcile", "operator"])
async def test_a_late_settle_is_refused_when_the_same_runner_took_the_job_again(world: World, how: str) -> None:
    crew, claim = await started(world)
    await late(world, crew, claim, how)
    again = await crew.take("work", suspects=["work"])
    assert (again.id, again.fence, again.seq) == (claim.id, claim.fence + 1, crew.seq)
    assert not await crew.settle(policy.succeeded(claim, b'"late"'))
    assert (await world.job(claim.id)).state is State.RUNNING
    assert await crew.settle(policy.succeeded(again, b'"right"'))


@pytest.mark.parametrize("how", LOST_BY)
async def test_the_fence_only_grows(world: World, how: str) -> None:
    crew, claim = await started(world)
    for fence in range(2, 4):
        await late(world, crew, claim, how)
        crew = await world.crew()
        claim = await crew.take("work", suspects=["work"])
        assert claim.fence == fence


# Repeating


@pytest.mark.parametrize("ending", ENDINGS)
async def test_the_first_outcome_stands_and_may_be_repeated(world: World, way: str, ending: Ending) -> None:
    crew, claim = await started(world)
    outcome = ends(claim, ending)
    assert await apply(crew, outcome, way)
    before = await world.job(claim.id)
    await world.advance(1)
    assert await apply(crew, outcome, way)
    assert await apply(crew, outcome, "exchange")
    for other in ENDINGS:
        if other is not ending:
            assert not await apply(crew, ends(claim, other), way), other
    assert await world.job(claim.id) == before


async def test_two_outcomes_of_one_claim_in_one_exchange(world: World) -> None:
    """Outcomes are applied in order: the first stands."""
    crew, claim = await started(world)
    answer = await crew.exchange(ends(claim, Ending.FAILED), ends(claim, Ending.SUCCEEDED))
    assert answer.refused == (claim.id,)
    assert await world.state(claim.id) is State.FAILED


async def test_one_outcome_twice_in_one_exchange(world: World) -> None:
    crew, claim = await started(world)
    assert (await crew.exchange(ends(claim, Ending.SUCCEEDED), ends(claim, Ending.SUCCEEDED))).refused == ()
    assert await world.state(claim.id) is State.SUCCEEDED


async def test_a_repeated_retry_does_not_move_the_next_try(world: World) -> None:
    crew, claim = await started(world)
    outcome = policy.raised(claim, ValueError("x"), Retry(backoff=10))
    await crew.settle(outcome)
    due = (await world.job(claim.id)).run_at
    await world.advance(7)
    assert await crew.settle(outcome)
    assert (await world.job(claim.id)).run_at == pytest.approx(due)
    assert len((await world.job(claim.id)).attempts) == 1


async def test_settle_is_taken_after_its_runner_was_released_only_if_it_came_first(world: World) -> None:
    crew, claim = await started(world)
    outcome = policy.succeeded(claim, b"1")
    assert await crew.settle(outcome)
    await crew.release()
    assert await crew.settle(outcome)
    assert await world.state(claim.id) is State.SUCCEEDED


# Attempts and progress


async def test_the_history_of_attempts(world: World) -> None:
    crew, claim = await started(world)
    begun = await world.now()
    await world.advance(2)
    outcome = msgspec.structs.replace(ends(claim, Ending.RETRY, delay=0), lines="first\nsecond é")
    await crew.settle(outcome)
    snoozed = ends(await crew.take(), Ending.SNOOZED, delay=0)
    await crew.settle(msgspec.structs.replace(snoozed, lines="no error, but a line"))
    await crew.take()
    await crew.release(Ending.LOST)
    heir = await world.crew()
    await heir.settle(ends(await heir.take("work", suspects=["work"]), Ending.FAILED))
    attempts = (await world.job(claim.id)).attempts
    assert [(entry.fence, entry.attempt, entry.ending) for entry in attempts] == [
        (1, 1, Ending.RETRY),
        (2, 1, Ending.SNOOZED),
        (3, 1, Ending.LOST),
        (4, 2, Ending.FAILED),
    ]
    assert [entry.runner for entry in attempts] == [crew.runner] * 3 + [heir.runner]
    first = attempts[0]
    assert first.failure == outcome.failure
    assert [entry.lines for entry in attempts] == [outcome.lines, "no error, but a line", "", ""]
    assert attempts[1].failure is None
    assert (first.started_at, first.ended_at) == pytest.approx((begun, begun + 2))


async def test_attempts_outlive_an_operators_retry(world: World) -> None:
    crew, claim = await started(world)
    await crew.settle(ends(claim, Ending.FAILED))
    await world.store.act([claim.id], Verb.RETRY)
    await crew.settle(ends(await crew.take(), Ending.SUCCEEDED))
    assert [entry.ending for entry in (await world.job(claim.id)).attempts] == [Ending.FAILED]


async def test_progress_is_written_under_its_fence(world: World) -> None:
    crew, claim = await started(world)
    progress = Progress(done=3, total=12, note="page 3 é")
    patch = Patch(id=claim.id, fence=claim.fence, seq=claim.seq, lines="a line")
    assert list(await world.store.note(crew.runner, [patch])) == []
    job = await world.job(claim.id)
    assert (job.progress, job.lines) == (None, "a line")
    patch = msgspec.structs.replace(patch, progress=progress, lines="a line\nanother é")
    assert list(await world.store.note(crew.runner, [patch])) == []
    job = await world.job(claim.id)
    assert (job.progress, job.lines) == (progress, patch.lines)
    wrong = [
        msgspec.structs.replace(patch, fence=9),
        msgspec.structs.replace(patch, seq=9),
        msgspec.structs.replace(patch, id="no-such-job"),
    ]
    more = msgspec.structs.replace(patch, progress=Progress(done=4))
    assert list(await world.store.note(crew.runner, [*wrong, more])) == [patch.id, patch.id, "no-such-job"]
    assert (await world.job(claim.id)).progress == Progress(done=4)
    other = await world.crew(worker=crew.worker)
    assert list(await world.store.note(other.runner, [patch])) == [patch.id]
    await crew.settle(ends(claim, Ending.SUCCEEDED))
    assert (await world.job(claim.id)).lines == patch.lines


@pytest.mark.parametrize("how", LOST_BY)
async def test_late_progress_is_refused(world: World, how: str) -> None:
    crew, claim = await started(world)
    await late(world, crew, claim, how)
    before = await world.job(claim.id)
    patch = Patch(id=claim.id, fence=claim.fence, seq=claim.seq, progress=Progress(done=1))
    assert list(await world.store.note(crew.runner, [patch])) == [claim.id]
    assert await world.job(claim.id) == before
