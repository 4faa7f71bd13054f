"""Limits and rates: what a claim may take of a gate, who comes next, and what becomes of those that wait."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from tests.store.world import Crew, World, ends, new, wants
from windlass.gate import Settings, write_settings
from windlass.model import Claim, Demand, Doc, Ending, Filter, Lane, Need, NewJob, Rest, State, Verb
from windlass.move import as_new
from windlass.store.contract import GATE, PACE

SECOND = 1_000_000


async def declare(world: World, name: str = "g", *, version: int = 0, **settings: Any) -> None:
    """Store the settings of a gate."""
    await world.store.save([Doc(kind=GATE, name=name, version=version, body=write_settings(Settings(**settings)))])


async def redeclare(world: World, name: str = "g", **settings: Any) -> None:
    """Change them."""
    (old,) = (await world.store.load(GATE, names=[name])).docs
    await declare(world, name, version=old.version, **settings)


def behind(*gates: str | Need, **more: Any) -> NewJob:
    """A job behind gates."""
    return new(gates=tuple(Need(gate) if isinstance(gate, str) else gate for gate in gates), **more)


async def ids(crew: Crew, slots: int, *tasks: str) -> list[str]:
    """What a claim takes, in order."""
    return [claim.id for claim in await crew.claim(slots, *tasks)]


def names(jobs: Sequence[NewJob]) -> list[str]:
    return [job.id for job in jobs]


# How many


async def test_never_more_than_the_limit(world: World) -> None:
    await declare(world, limit=2)
    jobs = [behind("g") for _ in range(5)]
    placed = await world.put(*jobs)
    assert {one.state for one in placed} == {State.WAITING}
    crew = await world.crew()
    first = await crew.claim(10)
    assert [claim.id for claim in first] == names(jobs[:2])
    assert await crew.claim(10) == []
    answer = await crew.exchange(ends(first[0], Ending.SUCCEEDED), demand=wants(10))
    assert [claim.id for claim in answer.claimed] == names(jobs[2:3])
    assert answer.next_due is None


@pytest.mark.parametrize("ending", [Ending.FAILED, Ending.CANCELLED, Ending.RETRY, Ending.SNOOZED])
async def test_an_end_leaves_room(world: World, ending: Ending) -> None:
    await declare(world, limit=1)
    first, second = behind("g"), behind("g")
    await world.put(first, second)
    crew, other = await world.crew(), await world.crew()
    claim = await crew.take()
    assert await other.claim() == []
    await crew.exchange(ends(claim, ending))
    assert await ids(other, 5) == [second.id]


async def test_a_suspect_without_a_lane_lets_others_through_its_gate(world: World) -> None:
    await declare(world, limit=1)
    first, second = behind("g"), behind("g")
    await world.put(first, second)
    crew, other = await world.crew(), await world.crew()
    await crew.take()
    await crew.release(Ending.LOST)
    assert await ids(other, 5) == [second.id]


@pytest.mark.parametrize("ending", [Ending.LOST, Ending.INTERRUPTED])
async def test_a_death_leaves_room(world: World, ending: Ending) -> None:
    await declare(world, limit=1)
    first, second = behind("g"), behind("g")
    await world.put(first, second)
    crew, other = await world.crew(), await world.crew()
    await crew.take()
    await crew.release(ending)
    claims = await other.claim(5, suspects=["work"])
    assert [claim.id for claim in claims] == [first.id]
    assert (await world.state(first.id), await world.state(second.id)) == (State.RUNNING, State.WAITING)


async def test_a_worker_whose_lease_is_over_leaves_room(world: World) -> None:
    await declare(world, limit=1)
    await world.put(behind("g"), behind("g"))
    crew = await world.crew(lease=2)
    await crew.take()
    other = await world.crew()
    await world.advance(2.5)
    assert await world.store.reap() == [crew.worker]
    assert len(await other.claim(5, suspects=["work"])) == 1


async def test_a_gate_without_settings_admits_nothing(world: World) -> None:
    job = behind("g")
    await world.put(job, free := new())
    crew = await world.crew()
    answer = await crew.exchange(demand=wants(5))
    assert [claim.id for claim in answer.claimed] == [free.id]
    assert (await crew.exchange(demand=wants(5))).next_due is None
    await declare(world, limit=1)
    assert await ids(crew, 5) == [job.id]


async def test_each_key_has_its_own_room(world: World) -> None:
    await declare(world, limit=1)
    jobs = [behind(f"g/{key}") for key in "aabbc"]
    await world.put(*jobs)
    crew = await world.crew()
    assert await ids(crew, 10) == [jobs[0].id, jobs[2].id, jobs[4].id]


async def test_settings_change_while_jobs_wait(world: World) -> None:
    await declare(world, limit=1)
    await world.put(*(behind("g/k") for _ in range(6)))
    crew = await world.crew()
    claims = await crew.claim(10)
    await redeclare(world, limit=3)
    claims += await crew.claim(10)
    assert len(claims) == 3
    await redeclare(world, limit=1)
    assert await crew.claim(10) == []
    answer = await crew.exchange(ends(claims[0], Ending.SUCCEEDED), ends(claims[1], Ending.SUCCEEDED), demand=wants(9))
    assert answer.claimed == ()
    assert len((await crew.exchange(ends(claims[2], Ending.SUCCEEDED), demand=wants(9))).claimed) == 1
    await redeclare(world)
    assert len(await crew.claim(10)) == 2


async def test_settings_of_one_key_go_before_those_of_all(world: World) -> None:
    """Whatever happens to the one key alone: its jobs start at once where it lets them, and the others' line stands as
    it did."""
    await declare(world, limit=2)
    one, same, other = ([behind(f"g/{key}") for _ in range(9)] for key in ("a", "a/b", "c"))
    await declare(world, "g/a", limit=0)
    await world.put(*one, *same, *other)
    crew = await world.crew()

    async def starts() -> list[str]:
        answer = await crew.exchange(demand=wants(40))
        assert answer.next_due is None or key_is_rated
        return [claim.id for claim in answer.claimed]

    key_is_rated = False
    assert await starts() == names([*same[:2], *other[:2]]), "the key is shut, and no other"
    await redeclare(world, "g/a", limit=3)
    assert await starts() == names(one[:3])
    await redeclare(world, limit=4)
    assert await starts() == names([*same[2:4], *other[2:4]]), "what counts for all does not count for the key"
    await world.store.save([], [(GATE, "g/a")])
    assert await starts() == names(one[3:4])
    await declare(world, "g/a")
    assert await starts() == names(one[4:]), "no limit at all"
    (own,) = (await world.store.load(GATE, names=["g/a"])).docs
    await world.store.save([msgspec.structs.replace(own, gone=True)])
    await world.put(late := behind("g/a"))
    assert await starts() == [], "nine run, and four may"
    await declare(world, "g/c", limit=9, interval=5 * SECOND)
    key_is_rated = True
    assert await starts() == names(other[4:5])
    await world.advance(5.001)
    assert await starts() == names(other[5:6])
    (own,) = (await world.store.load(GATE, names=["g/c"])).docs
    await world.store.save([msgspec.structs.replace(own, body=b"[what")])
    await world.advance(5.001)
    assert await starts() == [], "what cannot be read lets nobody in"
    assert await world.state(late.id) is State.WAITING


async def test_a_job_that_comes_back_to_its_key(world: World) -> None:
    """By what counts for the key, also where that has changed while it waited for another."""
    await declare(world, limit=1)
    await world.put(first := behind("g/k"))
    crew = await world.crew()
    claim = await crew.take()
    rest = world.store.rest
    await rest(crew.runner, [resting(claim)], [])
    await world.put(second := behind("g/k"))
    assert await ids(crew, 5) == [second.id]
    assert await rest(crew.runner, [], [resting(claim)]) == []
    await declare(world, "g/k", limit=2)
    assert await rest(crew.runner, [], [resting(claim)]) == [first.id]


async def test_a_limit_that_falls_holds_for_what_was_ready(world: World) -> None:
    """Jobs of a task that nobody runs have been ready for long."""
    await declare(world, limit=3)
    await world.put(*(behind("g", task="later") for _ in range(3)))
    crew = await world.crew()
    assert await crew.claim(5) == []
    await redeclare(world, limit=1)
    assert len(await crew.claim(5, "later")) == 1


# Who comes first


async def test_the_better_one_goes_first_whenever_it_came(world: World) -> None:
    await declare(world, limit=1)
    low, high, higher = behind("g"), behind("g", priority=1), behind("g", priority=2)
    crew = await world.crew()
    await world.put(low)
    assert await crew.claim(1, "other") == []
    await world.put(high)
    assert await crew.claim(1, "other") == []
    await world.put(higher)
    claim = await crew.take()
    assert claim.id == higher.id
    answer = await crew.exchange(ends(claim, Ending.SUCCEEDED), demand=wants(5))
    assert [one.id for one in answer.claimed] == [high.id]


async def test_jobs_behind_gates_and_others_in_one_order(world: World) -> None:
    await declare(world, "a", limit=2)
    await declare(world, "b", limit=1)
    jobs = [new(), behind("a"), new(), behind("b"), behind("a"), behind("b"), new(), behind("a", "b")]
    await world.put(*jobs)
    crew = await world.crew()
    assert await ids(crew, 4) == names(jobs[:4])
    assert await ids(crew, 9) == [jobs[4].id, jobs[6].id]


async def test_a_task_that_nobody_runs_is_in_nobodys_way(world: World) -> None:
    await declare(world, limit=1)
    await world.put(*(behind("g", task="strange", priority=5) for _ in range(3)), job := behind("g"))
    crew = await world.crew()
    assert await ids(crew, 5) == [job.id]


async def test_a_queue_that_nobody_serves_is_in_nobodys_way(world: World) -> None:
    await declare(world, limit=1)
    await world.put(behind("g", queue="paused", priority=5), job := behind("g", queue="mail"))
    crew = await world.crew()
    answer = await crew.exchange(demand=wants(5, quotas=[("mail", 5)]))
    assert [claim.id for claim in answer.claimed] == [job.id]


async def test_one_gate_of_several_that_is_full(world: World) -> None:
    """Those that wait for it let others through the gates that they share."""
    await declare(world, "shared", limit=3)
    await declare(world, "own", limit=1)
    jobs = [behind("own/a", "shared", priority=9) for _ in range(5)] + [behind("own/b", "shared"), behind("shared")]
    await world.put(*jobs)
    crew = await world.crew()
    claims = await crew.claim(10)
    assert [claim.id for claim in claims] == [jobs[0].id, jobs[5].id, jobs[6].id]
    assert await crew.claim(10) == []
    answer = await crew.exchange(ends(claims[1], Ending.SUCCEEDED), demand=wants(10))
    assert answer.claimed == ()
    answer = await crew.exchange(ends(claims[0], Ending.SUCCEEDED), demand=wants(10))
    assert [claim.id for claim in answer.claimed] == [jobs[1].id]


async def test_many_keys_behind_one_gate(world: World) -> None:
    """A hundred tenants of one job at a time, and never more than four in all: everything is done in the end."""
    await declare(world, "all", limit=4)
    await declare(world, "tenant", limit=1)
    jobs = [behind("all", f"tenant/{n % 100}") for n in range(300)]
    await world.put(*jobs)
    crew, done = await world.crew(), 0
    claims = await crew.claim(10)
    while claims:
        assert len(claims) <= 4
        assert len({claim.id for claim in claims}) == len(claims)
        done += len(claims)
        answer = await crew.exchange(*(ends(claim, Ending.SUCCEEDED) for claim in claims), demand=wants(10))
        claims = list(answer.claimed)
    assert done == 300


async def test_heavy_jobs_take_more_and_are_not_passed(world: World) -> None:
    await declare(world, limit=3)
    light, heavy = [behind("g") for _ in range(2)], behind(Need("g", 3), priority=1)
    crew = await world.crew()
    await world.put(*light)
    claims = await crew.claim(5)
    await world.put(heavy, late := behind("g"))
    assert await crew.claim(5) == []
    answer = await crew.exchange(ends(claims[0], Ending.SUCCEEDED), demand=wants(5))
    assert answer.claimed == ()
    answer = await crew.exchange(ends(claims[1], Ending.SUCCEEDED), demand=wants(5))
    assert [claim.id for claim in answer.claimed] == [heavy.id]
    answer = await crew.exchange(ends(answer.claimed[0], Ending.SUCCEEDED), demand=wants(5))
    assert [claim.id for claim in answer.claimed] == [late.id]


async def test_a_heavy_job_of_another_task_holds_up_nobody_who_cannot_run_it(world: World) -> None:
    await declare(world, limit=2)
    first, light = behind("g"), behind("g")
    await world.put(first)
    crew = await world.crew()
    await crew.take()
    await world.put(behind(Need("g", 2), task="strange", priority=1), light)
    assert await ids(crew, 5) == [light.id]


async def test_a_job_heavier_than_its_gate_takes_all_of_it(world: World) -> None:
    await declare(world, limit=2)
    await world.put(heavy := behind(Need("g", 5)), behind("g"))
    crew = await world.crew()
    assert await ids(crew, 5) == [heavy.id]


# Strict order


async def test_a_retry_keeps_its_turn(world: World) -> None:
    await declare(world, limit=1)
    first, second = behind(Need("g", keep=True)), behind(Need("g", keep=True))
    await world.put(first, second)
    crew = await world.crew()
    claim = await crew.take()
    await crew.exchange(ends(claim, Ending.RETRY, delay=5))
    assert await crew.claim(5) == []
    await world.advance(5.1)
    claim = await crew.take()
    assert claim.id == first.id
    answer = await crew.exchange(ends(claim, Ending.FAILED), demand=wants(5))
    assert [one.id for one in answer.claimed] == [second.id]


async def test_a_lost_job_keeps_its_turn(world: World) -> None:
    """Even from those whose lane would take them at once."""
    await declare(world, limit=1)
    first, second = behind(Need("g", keep=True)), behind(Need("g", keep=True))
    await world.put(first, second)
    crew, other = await world.crew(), await world.crew()
    await crew.take()
    await crew.release(Ending.LOST)
    assert await other.claim(5) == []
    claim = await other.take(suspects=["work"])
    assert claim.id == first.id


@pytest.mark.parametrize("verb", [Verb.CANCEL, Verb.DELETE])
async def test_a_turn_that_is_given_up(world: World, verb: Verb) -> None:
    await declare(world, limit=1)
    first, second = behind(Need("g", keep=True)), behind(Need("g", keep=True))
    await world.put(first, second)
    crew = await world.crew()
    await crew.exchange(ends(await crew.take(), Ending.RETRY, delay=50))
    assert await world.store.act([first.id], verb) == [first.id]
    assert await ids(crew, 5) == [second.id]


async def test_who_has_kept_a_gate_and_waits_for_another_is_not_forgotten(world: World) -> None:
    """Even if a better job came behind the same gates meanwhile, which cannot pass the first."""
    await declare(world, "turn", limit=1)
    await declare(world, "other", limit=1)
    gates = (Need("other"), Need("turn", keep=True))
    first, second = new(gates=gates), new(gates=gates, priority=1)
    await world.put(first)
    crew = await world.crew()
    await crew.exchange(ends(await crew.take(), Ending.RETRY, delay=1))
    await world.put(behind("other", priority=5))
    holder = await crew.take()
    await world.advance(2)
    assert await crew.claim(5) == []
    await world.put(second)
    assert await crew.claim(5) == []
    answer = await crew.exchange(ends(holder, Ending.SUCCEEDED), demand=wants(5))
    assert [claim.id for claim in answer.claimed] == [first.id]


async def test_a_turn_that_is_kept_takes_no_room_twice(world: World) -> None:
    await declare(world, limit=2)
    first, others = behind(Need("g", keep=True)), [behind("g", priority=-1) for _ in range(2)]
    await world.put(first)
    crew = await world.crew()
    await crew.exchange(ends(await crew.take(), Ending.RETRY, delay=0))
    await world.put(*others)
    assert await ids(crew, 5) == [first.id, others[0].id]


# How fast


async def test_never_faster_than_the_rate(world: World) -> None:
    await declare(world, interval=2 * SECOND, burst=3)
    await world.put(*(behind("g") for _ in range(9)))
    crew = await world.crew()
    claims = await crew.claim(10)
    assert len(claims) == 3
    answer = await crew.exchange(*(ends(claim, Ending.SUCCEEDED) for claim in claims), demand=wants(10))
    assert answer.claimed == ()
    assert answer.next_due == pytest.approx(2, abs=0.001)
    await world.advance(1.9)
    assert await crew.claim(10) == []
    await world.advance(0.101)
    assert len(await crew.claim(10)) == 1
    await world.advance(100)
    assert len(await crew.claim(10)) == 3


async def test_each_start_counts(world: World) -> None:
    """Of a job that comes back as well, and none twice for an exchange that is repeated."""
    await declare(world, interval=10 * SECOND)
    job = behind("g")
    await world.put(job)
    crew = await world.crew()
    await crew.take()
    again = await crew.again(demand=wants(5))
    assert [claim.id for claim in again.claimed] == [job.id]
    await crew.release(Ending.INTERRUPTED)
    other = await world.crew()
    answer = await other.exchange(demand=wants(5))
    assert answer.claimed == ()
    assert answer.next_due == pytest.approx(10, abs=0.001)
    await world.advance(10.001)
    assert await ids(other, 5) == [job.id]


async def test_who_stands_ready_and_is_not_chosen_knows_when_the_rate_lets_him_start(world: World) -> None:
    await declare(world, interval=4 * SECOND)
    await world.put(new(), behind("g", queue="x"), behind("g", queue="y"))
    crew = await world.crew()
    lane = Lane(slots=2, tasks=frozenset({"work"}))
    answer = await crew.exchange(demand=Demand(slots=3, lanes=(lane,)))
    assert len(answer.claimed) == 2
    assert answer.next_due == pytest.approx(4, abs=0.01)


async def test_a_beat_tells_when_a_rate_lets_a_job_start(world: World) -> None:
    await declare(world, interval=4 * SECOND)
    await world.put(behind("g"), behind("g"))
    crew = await world.crew()
    await crew.claim(5)
    await crew.claim(5)
    assert (await crew.beat()).due == pytest.approx(4, abs=0.001)


async def test_jobs_that_are_not_run_use_up_no_rate(world: World) -> None:
    await declare(world, interval=1 * SECOND)
    await world.put(*(behind("g") for _ in range(5)))
    crew = await world.crew()
    for _ in range(4):
        await world.advance(3)
        assert await crew.claim(5, "other") == []
    assert len(await crew.claim(5)) == 1


async def test_a_rate_and_a_limit(world: World) -> None:
    await declare(world, "limit", limit=1)
    await declare(world, "rate", interval=2 * SECOND, burst=2)
    jobs = [behind("limit", "rate") for _ in range(4)]
    await world.put(*jobs)
    crew = await world.crew()
    seen = []
    for _ in range(4):
        claim = await crew.take()
        seen.append(claim.id)
        answer = await crew.exchange(ends(claim, Ending.SUCCEEDED))
        assert answer.refused == ()
        await world.advance(2.001)
    assert seen == names(jobs)


async def test_a_pace_that_somebody_else_sets(world: World) -> None:
    """What a running task takes of a gate, or how it slows it down, is a document."""
    await declare(world, interval=1 * SECOND, burst=1)
    await world.put(behind("g"), behind("g"))
    crew = await world.crew()
    await crew.take()
    (pace,) = (await world.store.load(PACE, names=["g"])).docs
    at = round(await world.now() * SECOND)
    body = msgspec.json.encode({"paid": at + 30 * SECOND, "at": at})
    await world.store.save([Doc(kind=PACE, name="g", version=pace.version, body=body)])
    await world.advance(20)
    assert await crew.claim(5) == []
    await world.advance(10.001)
    assert len(await crew.claim(5)) == 1


async def test_a_clock_that_is_set_back_stops_nobody(world: World) -> None:
    await declare(world, interval=2 * SECOND)
    await world.put(behind("g"), behind("g"), behind("g"))
    crew = await world.crew()
    await crew.take()
    assert await crew.claim(5) == []
    await world.shift(-3_000)
    assert len(await crew.claim(5)) == 1
    await world.advance(2.001)
    assert len(await crew.claim(5)) == 1


async def test_what_a_pace_says_is_dropped_with_time(world: World) -> None:
    await declare(world, interval=2 * SECOND)
    await world.put(behind("g/k"))
    await (await world.crew()).take()
    await world.advance(3)
    await world.store.prune({})
    assert (await world.store.load(PACE)).docs == ()


# What waits


@pytest.mark.parametrize("verb", [Verb.CANCEL, Verb.DELETE])
async def test_the_next_one_when_the_first_is_taken_away(world: World, verb: Verb) -> None:
    await declare(world, limit=1)
    jobs = [behind("g") for _ in range(3)]
    await world.put(*jobs)
    crew = await world.crew()
    assert await crew.claim(1, "other") == []
    assert await world.store.act([jobs[0].id], verb) == [jobs[0].id]
    assert await ids(crew, 5) == [jobs[1].id]


async def test_the_next_one_when_the_first_expires(world: World) -> None:
    await declare(world, limit=1)
    jobs = [behind("g", expires_in=5), behind("g", expires_in=5), behind("g")]
    await world.put(*jobs)
    crew = await world.crew()
    assert await crew.claim(1, "other") == []
    await world.advance(6)
    assert await ids(crew, 5) == [jobs[2].id]
    assert [await world.state(job.id) for job in jobs[:2]] == [State.CANCELLED] * 2


async def test_a_delayed_job_waits_when_its_time_has_come(world: World) -> None:
    await declare(world, limit=1)
    first, late = behind("g"), behind("g", delay=5)
    await world.put(first, late)
    crew = await world.crew()
    claim = await crew.take()
    await world.advance(6)
    assert await crew.claim(5) == []
    assert await world.state(late.id) is State.WAITING
    answer = await crew.exchange(ends(claim, Ending.SUCCEEDED), demand=wants(5))
    assert [one.id for one in answer.claimed] == [late.id]


@pytest.mark.parametrize("ending", [Ending.FAILED, Ending.CANCELLED])
async def test_a_job_that_an_operator_retries_passes_the_gate_again(world: World, ending: Ending) -> None:
    await declare(world, limit=1)
    job, other = behind("g"), behind("g", priority=1)
    await world.put(job)
    crew = await world.crew()
    await crew.exchange(ends(await crew.take(), ending))
    await world.put(other)
    await crew.take()
    assert await world.store.act([job.id], Verb.RETRY) == [job.id]
    assert await crew.claim(5) == []


async def test_those_that_wait_are_counted_and_found(world: World) -> None:
    await declare(world, limit=1)
    jobs = [behind("g", queue="mail", tags=("t",)) for _ in range(4)]
    await world.put(*jobs)
    crew = await world.crew()
    await crew.take()
    assert await crew.claim(5) == []
    lines = {(line.queue, line.task, line.state): line.count for line in await world.store.stats()}
    assert lines == {("mail", "work", State.RUNNING): 1, ("mail", "work", State.WAITING): 3}
    assert await world.store.count(Filter(state=State.WAITING)) == 3
    page = await world.store.find(Filter(state=State.WAITING, tag="t"))
    assert {job.id for job in page.jobs} == set(names(jobs[1:]))
    assert {job.gates for job in page.jobs} == {(Need("g"),)}
    assert len(await world.store.act(Filter(state=State.WAITING), Verb.CANCEL)) == 3


async def test_what_follows_a_job_passes_its_own_gate(world: World) -> None:
    await declare(world, limit=1)
    follow = [{"on": "s", "task": "next", "queue": "default", "args": "{}", "gates": '[["g",1,false]]'}] * 2
    await world.put(new(follow=msgspec.json.encode(follow)))
    crew = await world.crew()
    answer = await crew.exchange(ends(await crew.take(), Ending.SUCCEEDED), demand=wants(5, "next"))
    assert len(answer.claimed) == 1
    assert await crew.claim(5, "next") == []


async def test_jobs_that_come_from_another_store(world: World) -> None:
    """A turn that was kept there is kept here."""
    await declare(world, limit=1)
    first, second = behind(Need("g", keep=True)), behind(Need("g", keep=True))
    await world.put(first, second)
    crew = await world.crew()
    await crew.exchange(ends(await crew.take(), Ending.RETRY, delay=5))
    there = await world.store.get(names([first, second]))
    await world.store.act(names([first, second]), Verb.DELETE)
    moved = [as_new(job, await world.now()) for job in there]
    assert [job.gates for job in moved] == [first.gates, second.gates]
    await world.put(*moved)
    assert await crew.claim(5) == []
    await world.advance(5.1)
    assert await ids(crew, 5) == [first.id]


async def test_a_thousand_that_wait_and_others_that_do_not(world: World) -> None:
    await declare(world, limit=1)
    await world.put(*(behind("g", priority=5) for _ in range(1_500)))
    free = [new() for _ in range(3)]
    await world.put(*free)
    crew = await world.crew()
    assert len(await crew.claim(1)) == 1
    assert await ids(crew, 5) == names(free)


# Who waits for others


def resting(claim: Claim, *gates: str) -> Rest:
    """A running job, and gates that it gives back or takes again."""
    return Rest(id=claim.id, fence=claim.fence, seq=claim.seq, gates=gates or ("g",))


async def test_a_job_that_waits_lets_others_through_its_gates_and_takes_them_again(world: World) -> None:
    await declare(world, limit=2)
    await declare(world, "kept", limit=1)
    await declare(world, "other", limit=1)
    heavy = behind(Need("g", 2), Need("kept", 1, True), "other")
    light, kept, other = behind("g"), behind(Need("kept", 1, True)), behind("other")
    await world.put(heavy, light, kept, other)
    crew = await world.crew()
    claim = await crew.take()
    assert claim.id == heavy.id
    assert await crew.claim(5) == []
    rest = world.store.rest
    assert await rest(crew.runner, [], [resting(claim)]) == [claim.id], "it has them already"
    for _ in range(2):
        assert await rest(crew.runner, [resting(claim, "g", "kept")], []) == []
    (first,) = await crew.claim(5)
    assert first.id == light.id, "the gates that are not named stay, and what it keeps"
    assert await rest(crew.runner, [], [resting(claim)]) == [], "one of two places is no place for a weight of two"
    await world.put(behind("g"))
    answer = await crew.exchange(ends(first, Ending.SUCCEEDED), demand=wants(5))
    assert answer.claimed == (), "its place is kept"
    for _ in range(2):
        assert await rest(crew.runner, [], [resting(claim)]) == [claim.id]
    assert await crew.claim(5) == []
    await rest(crew.runner, [resting(claim)], [])
    (second,) = await crew.claim(5)
    assert await rest(crew.runner, [], [resting(claim)]) == []
    await rest(crew.runner, [resting(claim)], [])
    await world.put(behind("g"))
    assert len(await crew.claim(5)) == 1
    assert await rest(crew.runner, [], [resting(claim)]) == []
    await world.put(behind("g"))
    answer = await crew.exchange(ends(claim, Ending.SUCCEEDED), demand=wants(5))
    assert len(answer.claimed) == 2, "kept and other"
    answer = await crew.exchange(ends(second, Ending.SUCCEEDED), demand=wants(5))
    assert len(answer.claimed) == 1, "who has ended wants no place"
    assert await rest(crew.runner, [], [resting(claim)]) == [], "it has ended"


async def test_coming_back_is_no_start_and_needs_the_fence(world: World) -> None:
    await declare(world, limit=1, interval=600 * SECOND)
    first, second = behind("g"), behind("g")
    await world.put(first, second)
    crew, other = await world.crew(), await world.crew()
    claim = await crew.take()
    wrong = [msgspec.structs.replace(resting(claim), fence=claim.fence + 1), resting(claim)]
    assert await world.store.rest(other.runner, [resting(claim)], [resting(claim)]) == []
    assert await world.store.rest(crew.runner, wrong[:1], wrong[:1]) == []
    await world.advance(601)
    assert await crew.claim(5) == [], "nobody has given anything back"
    assert await world.store.rest(crew.runner, wrong[1:], wrong) == [claim.id], "however the rate stands"
    await world.advance(601)
    assert await crew.claim(5) == []
    await world.store.rest(crew.runner, wrong[1:], [])
    assert await ids(other, 5) == [second.id]
    await crew.release(Ending.LOST)
    assert await world.store.rest(crew.runner, [], wrong[1:]) == []
