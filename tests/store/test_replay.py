"""Lost replies: an exchange that is repeated, late, or made by a runner that is gone."""

import pytest

from tests.store.world import Crew, World, ends, new, new_id, wants
from windlass import policy
from windlass.errors import Evicted
from windlass.model import Claim, Ending, Exchanged, State, Verb


def pairs(answer: Exchanged) -> set[tuple[str, int, int]]:
    """What names the claims of an answer."""
    return {(claim.id, claim.fence, claim.seq) for claim in answer.claimed}


async def lost_reply(world: World, jobs: int = 3, slots: int = 3) -> tuple[Crew, Exchanged]:
    """An exchange whose answer the runner never saw."""
    await world.put(*(new() for _ in range(jobs)))
    crew = await world.crew()
    return crew, await crew.exchange(demand=wants(slots))


async def test_the_same_exchange_again_answers_the_same_claims(world: World) -> None:
    crew, first = await lost_reply(world, jobs=9)
    jobs = await world.store.get([claim.id for claim in first.claimed])
    for _ in range(3):
        again = await crew.again(demand=wants(3))
        assert again.claimed == first.claimed
    assert await world.store.get([claim.id for claim in first.claimed]) == jobs


async def test_a_repeat_takes_nothing_new(world: World) -> None:
    crew, first = await lost_reply(world, jobs=1)
    await world.put(new(), new())
    again = await crew.again(demand=wants(3))
    assert again.claimed == first.claimed
    assert len(await crew.claim(3)) == 2


async def test_a_repeat_applies_nothing_twice(world: World) -> None:
    crew, first = await lost_reply(world, jobs=4, slots=2)
    done, other = first.claimed
    outcomes = policy.succeeded(done, b"1"), ends(other, Ending.RETRY)
    answer = await crew.exchange(*outcomes, demand=wants(1))
    before = await world.store.get([done.id, other.id])
    again = await crew.again(*outcomes, demand=wants(1))
    assert (again.refused, again.claimed) == (answer.refused, answer.claimed) == ((), answer.claimed)
    assert await world.store.get([done.id, other.id]) == before
    assert len(before[1].attempts) == 1


async def test_a_repeat_keeps_saying_what_was_refused(world: World) -> None:
    crew, first = await lost_reply(world, slots=1)
    await crew.beat(seq=crew.seq)
    outcome = policy.succeeded(first.claimed[0], b"1")
    assert (await crew.exchange(outcome)).refused == (first.claimed[0].id,)
    assert (await crew.again(outcome)).refused == (first.claimed[0].id,)


async def test_an_exchange_that_brought_nothing_may_be_repeated(world: World) -> None:
    crew = await world.crew()
    assert (await crew.exchange(demand=wants(2))).claimed == ()
    await world.put(new(), new(), new())
    claims = (await crew.again(demand=wants(2))).claimed
    assert len(claims) <= 2
    assert (await crew.again(demand=wants(2))).claimed == claims or not claims
    more = await crew.claim(9)
    assert len(claims) + len(more) == 3
    assert {claim.seq for claim in claims} <= {crew.seq - 1}
    assert {claim.seq for claim in more} == {crew.seq}


async def test_a_repeat_leaves_out_what_was_settled(world: World) -> None:
    crew, first = await lost_reply(world)
    gone, *kept = first.claimed
    await crew.settle(policy.succeeded(gone, b"1"))
    assert (await crew.again(demand=wants(3))).claimed == tuple(kept)


@pytest.mark.parametrize("ending", list(Ending))
async def test_a_repeat_leaves_out_what_ended_in_any_way(world: World, ending: Ending) -> None:
    crew, first = await lost_reply(world)
    gone, *kept = first.claimed
    await crew.settle(ends(gone, ending, delay=0))
    assert (await crew.again(demand=wants(3))).claimed == tuple(kept)


async def test_a_repeat_leaves_out_what_was_handed_back(world: World) -> None:
    crew, first = await lost_reply(world)
    kept = first.claimed[1]
    await crew.beat(kept, seq=crew.seq)
    assert (await crew.again(demand=wants(3))).claimed == (kept,)


async def test_a_repeat_leaves_out_what_was_claimed_again_since(world: World) -> None:
    crew, first = await lost_reply(world, jobs=1)
    (claim,) = first.claimed
    await crew.settle(ends(claim, Ending.SNOOZED, delay=0))
    (again,) = await crew.claim(1)
    assert (again.id, again.fence) == (claim.id, 2)
    assert (await crew.again(demand=wants(3), seq=1)).claimed == ()
    assert (await crew.again(demand=wants(3))).claimed == (again,)
    await crew.release()
    (heirs,) = await (await world.crew()).claim(1, "other", suspects=["work"])
    assert heirs.fence == 3


async def test_a_repeat_still_names_a_job_that_is_to_be_cancelled(world: World) -> None:
    crew, first = await lost_reply(world)
    await world.store.act([first.claimed[0].id], Verb.CANCEL)
    assert (await crew.again(demand=wants(3))).claimed == first.claimed


async def test_an_old_exchange_that_arrives_late_does_nothing(world: World) -> None:
    crew, first = await lost_reply(world, jobs=9, slots=2)
    await crew.exchange(policy.succeeded(first.claimed[0], b"1"))
    held = {(claim.id, claim.fence, claim.seq) for claim in first.claimed[1:]}
    late = await crew.again(policy.succeeded(first.claimed[0], b"2"), demand=wants(9), seq=1)
    assert pairs(late) == held
    assert (await world.job(first.claimed[0].id)).result == b"1"
    assert len(await crew.claim(99)) == 7


async def test_another_runner_may_use_the_same_number(world: World) -> None:
    crew, first = await lost_reply(world, jobs=6)
    other = await world.crew(worker=crew.worker)
    mine = await other.exchange(demand=wants(3))
    assert other.seq == crew.seq
    assert not pairs(mine) & pairs(first)
    assert (await crew.again(demand=wants(3))).claimed == first.claimed


async def test_an_attempt_has_one_name_for_ever(world: World) -> None:
    await world.put(new())
    crew = await world.crew()
    names: set[tuple[str, int]] = set()
    for _ in range(5):
        claim = await crew.take()
        assert (claim.id, claim.fence) not in names
        names.add((claim.id, claim.fence))
        await crew.settle(ends(claim, Ending.INTERRUPTED))


# Runners that are gone


async def everything(world: World, claims: list[Claim]) -> object:
    return await world.store.get([claim.id for claim in claims]), await world.store.stats()


async def gone(world: World, crew: Crew, how: str) -> None:
    if how == "released":
        await crew.release(Ending.INTERRUPTED)
    elif how == "retired":
        await world.store.retire(crew.worker)
    else:
        await world.advance(15.001)
        assert await world.store.reap() == [crew.worker]


@pytest.mark.parametrize("how", ["released", "retired", "reaped"])
async def test_a_runner_that_is_gone_is_evicted_and_writes_nothing(world: World, how: str) -> None:
    await world.put(*(new() for _ in range(4)), new(delay=20, expires_in=20.5))
    crew = await world.crew()
    claims = await crew.claim(2)
    await gone(world, crew, how)
    before = await everything(world, claims)
    outcomes = [policy.succeeded(claim, b"1") for claim in claims]
    with pytest.raises(Evicted):
        await crew.exchange(*outcomes, demand=wants(9))
    with pytest.raises(Evicted):
        await crew.again(*outcomes, demand=wants(9), seq=1)
    assert await everything(world, claims) == before


@pytest.mark.parametrize("how", ["released", "retired", "reaped"])
async def test_a_claim_that_comes_after_its_runner_is_gone_strands_nothing(world: World, how: str) -> None:
    """The first exchange of a runner reaches the store when the runner is dead and cleaned up behind."""
    await world.put(job := new())
    crew = await world.crew()
    await gone(world, crew, how)
    with pytest.raises(Evicted):
        await crew.exchange(demand=wants(1))
    assert await world.state(job.id) is State.READY
    assert (await (await world.crew()).take()).fence == 1


async def test_an_unknown_runner_is_evicted(world: World) -> None:
    await world.put(job := new())
    stranger = Crew(world, new_id(), new_id())
    with pytest.raises(Evicted):
        await stranger.exchange(demand=wants(1))
    assert await world.state(job.id) is State.READY


async def test_releasing_again_does_nothing(world: World) -> None:
    await world.put(new(), new())
    crew = await world.crew()
    await crew.claim(2)
    assert await crew.release() == 2
    heir = await world.crew()
    await heir.claim(2, "work", suspects=["work"])
    assert await crew.release() == 0
    assert (await world.store.workers())[-1].runners[0].running == 2
