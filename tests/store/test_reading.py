"""What people and programs read: get, find, count, stats; and documents and retention."""

import pytest
from msgspec.structs import replace

from tests.store.world import World, doc, ends, new, new_id
from windlass.errors import ConfigError, Conflict
from windlass.model import Doc, Ending, Filter, Line, Mark, Need, State, Verb
from windlass.store import census
from windlass.store.contract import BATCH, SCHEDULE
from windlass.store.documents import all_docs


async def listed(world: World, filter: Filter, limit: int = 3, far: int | None = None) -> list[str]:
    """All ids that `find` gives, page by page."""
    ids: list[str] = []
    after: str | None = None
    while True:
        page = await world.store.find(filter, limit, after, far)
        assert len(page.jobs) <= limit
        ids += [job.id for job in page.jobs]
        if page.after is None:
            return ids
        assert len(page.jobs) == limit or far
        after = page.after


async def test_get_keeps_the_order_asked_for(world: World) -> None:
    jobs = [new() for _ in range(5)]
    await world.put(*jobs)
    wanted = [jobs[3].id, new_id(), jobs[0].id, jobs[4].id]
    assert [job.id for job in await world.store.get(wanted)] == [jobs[3].id, jobs[0].id, jobs[4].id]
    assert await world.store.get([]) == []


async def test_get_of_thousands(world: World) -> None:
    jobs = [new(tags=("t",)) for _ in range(2_500)]
    await world.put(*jobs)
    assert [job.id for job in await world.store.get([job.id for job in jobs])] == [job.id for job in jobs]


async def populated(world: World) -> None:
    """Jobs of two tasks in two queues in every state, several ending in one moment."""
    crew = await world.crew()
    for n in range(40):
        await world.put(
            new("ab"[n % 2], queue="xy"[n // 2 % 2], tags=("even",) if n % 4 == 0 else (), delay=n % 5 // 4)
        )
    claims = await crew.claim(25, "a", "b")
    await world.advance(0.5)
    for n, claim in enumerate(claims):
        await world.advance(n % 3 // 2)
        if n % 5:
            ending = [Ending.SUCCEEDED, Ending.FAILED, Ending.CANCELLED, Ending.RETRY][n % 4]
            await crew.settle(ends(claim, ending, delay=n + 100))


FILTERS = [
    Filter(),
    *(Filter(state=state) for state in State),
    Filter(task="a"),
    Filter(queue="y"),
    Filter(tag="even"),
    Filter(task="b", queue="x"),
    Filter(state=State.SUCCEEDED, tag="even"),
    Filter(state=State.READY, task="a", queue="y"),
    Filter(task="none"),
]


def label(filter: Filter) -> str:
    return "-".join(value for value in (filter.state, filter.task, filter.queue, filter.tag) if value) or "all"


@pytest.mark.parametrize("filter", FILTERS, ids=label)
async def test_pages_have_no_gaps_and_no_doubles(world: World, filter: Filter) -> None:
    await populated(world)
    everything = (await world.store.find(Filter(), 1_000)).jobs
    assert len(everything) == 40
    wanted = {
        job.id
        for job in everything
        if (filter.state in (None, job.state))
        and (filter.task in (None, job.task))
        and (filter.queue in (None, job.queue))
        and (filter.tag is None or filter.tag in job.tags)
    }
    for limit in (1, 3, 7, 1_000):
        ids = await listed(world, filter, limit)
        assert len(ids) == len(set(ids))
        assert set(ids) == wanted
    assert await listed(world, filter, 2) == await listed(world, filter, 1_000)
    assert await world.store.count(filter) == len(wanted)
    for most in (0, 2, len(wanted), 1_000):
        assert await world.store.count(filter, most) == min(len(wanted), most + 1)


@pytest.mark.parametrize("filter", FILTERS, ids=label)
async def test_looking_a_little_at_a_time_finds_the_same(
    world: World, filter: Filter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("windlass.store.redis.reads.BATCH", 2)
    await populated(world)
    whole = await listed(world, filter, 1_000)
    for far in (1, 4, 100):
        assert await listed(world, filter, 3, far) == whole


async def test_what_waits_is_found_beyond_the_first_look(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than are looked at wait in front of those that match."""
    monkeypatch.setattr("windlass.store.redis.reads.BATCH", 4)
    await world.put(*(new(gates=(Need("closed"),)) for _ in range(10)))
    last = [new(gates=(Need("closed"),), tags=("late",)) for _ in range(3)]
    await world.advance(1)
    await world.put(*last)
    found = await listed(world, Filter(state=State.WAITING, queue="default", tag="late"), 10, 4)
    assert sorted(found) == sorted(job.id for job in last)


async def test_looking_ends_after_so_many_and_tells_where(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("windlass.store.redis.reads.BATCH", 4)
    await populated(world)
    for filter in (Filter(state=State.SUCCEEDED, task="none"), Filter(task="none"), Filter(queue="none")):
        page = await world.store.find(filter, 3, None, 4)
        assert (page.jobs, page.after is None) == ((), False)
        assert page.back_to is not None
        assert filter.state is None or page.back_to == pytest.approx(await world.now(), abs=60)
        assert (await world.store.find(filter, 3, None, 100)).after is None


async def test_a_cursor_that_no_page_gave_is_refused(world: World) -> None:
    await world.put(*(new(delay=n % 2) for n in range(4)))
    strange = ("", "x", "{}", "[]", "[[], {}]", '["a", "b", "c", "d"]', "[1.5, 2.5, 3.5]", '["one", 7]', "[" * 99_999)
    for state in (None, *State):
        for after in strange:
            with pytest.raises(ConfigError, match="expected a cursor"):
                await world.store.find(Filter(state=state), 2, after)


async def test_pages_while_jobs_come_and_go(world: World) -> None:
    """What stays as it is, is listed exactly once."""
    jobs = [new(delay=100 + n) for n in range(30)]
    await world.put(*jobs)
    page = await world.store.find(Filter(state=State.SCHEDULED), 10)
    await world.put(*(new(delay=n) for n in range(90, 130)))
    await world.store.act([job.id for job in jobs[::7]], Verb.CANCEL)
    ids = [job.id for job in page.jobs]
    while page.after is not None:
        page = await world.store.find(Filter(state=State.SCHEDULED), 10, page.after)
        ids += [job.id for job in page.jobs]
    assert len(ids) == len(set(ids))
    assert {job.id for n, job in enumerate(jobs) if n % 7} <= set(ids)


async def test_what_is_to_come_next_is_first(world: World) -> None:
    ready = [new("ab"[n % 2], queue="xyz"[n % 3], priority=n % 4) for n in range(15)]
    await world.put(*ready)
    expected = [job.id for job in sorted(ready, key=lambda job: (-job.priority, job.id))]
    assert await listed(world, Filter(state=State.READY)) == expected
    scheduled = [new(delay=60 - n) for n in range(8)]
    await world.put(*scheduled)
    assert await listed(world, Filter(state=State.SCHEDULED)) == [job.id for job in reversed(scheduled)]


async def test_what_is_over_comes_newest_first(world: World) -> None:
    await world.put(*(new() for _ in range(8)))
    crew = await world.crew()
    claims = await crew.claim(8)
    for claim in reversed(claims):
        await world.advance(1)
        await crew.settle(ends(claim, Ending.FAILED))
    assert await listed(world, Filter(state=State.FAILED)) == [claim.id for claim in claims]


async def test_all_else_comes_newest_first(world: World) -> None:
    jobs = [new(delay=n % 2) for n in range(9)]
    for job in jobs:
        await world.put(job)
        await world.advance(1)
    assert await listed(world, Filter()) == [job.id for job in reversed(jobs)]
    crew = await world.crew()
    started = []
    for _ in range(4):
        started.append((await crew.take()).id)
        await world.advance(1)
    assert await listed(world, Filter(state=State.RUNNING)) == started[::-1]


async def test_find_tells_all_of_a_job(world: World) -> None:
    await world.put(new(tags=("b", "a")))
    crew = await world.crew()
    await crew.settle(ends(await crew.take(), Ending.FAILED))
    (found,) = (await world.store.find(Filter(state=State.FAILED))).jobs
    assert [found] == await world.store.get([found.id])
    assert found.attempts[0].failure is not None


async def test_stats_count_live_jobs_by_line(world: World) -> None:
    await world.put(new("a", queue="x"), new("a", queue="x"), new("b", queue="x", delay=30), new("a", queue="y"))
    crew = await world.crew()
    await world.advance(4)
    claim = await crew.take("a")
    lines = {(line.queue, line.task, line.state): line for line in await world.store.stats()}
    assert {key: line.count for key, line in lines.items()} == {
        ("x", "a", State.READY): 1,
        ("x", "a", State.RUNNING): 1,
        ("x", "b", State.SCHEDULED): 1,
        ("y", "a", State.READY): 1,
    }
    assert lines["x", "a", State.READY].oldest == pytest.approx(4)
    assert lines["x", "b", State.SCHEDULED].oldest == 0
    await crew.settle(ends(claim, Ending.SUCCEEDED))
    assert ("x", "a", State.RUNNING) not in {(line.queue, line.task, line.state) for line in await world.store.stats()}
    assert isinstance((await world.store.stats())[0], Line)


async def test_the_oldest_counts_from_when_it_came_to_be_due(world: World) -> None:
    """Whatever its priority, and however far it stands ahead of others."""
    now = await world.now()
    await world.put(new("a", run_at=now - 60), new("a", priority=5), new("b", run_at=now - 60), new("c", delay=5))
    await world.put(new("d", ahead=500), new("e", ahead=500, delay=5))
    await world.advance(3)
    await world.put(new("a", priority=9), new("d", ahead=900))
    await (await world.crew()).take("b")
    await world.advance(4)
    oldest = {(line.task, line.state): line.oldest for line in await world.store.stats()}
    expected = {("a", State.READY): 7, ("b", State.RUNNING): 7, ("c", State.SCHEDULED): 2}
    assert oldest == pytest.approx({**expected, ("d", State.READY): 7, ("e", State.SCHEDULED): 2})


@pytest.mark.parametrize("counted", [3, 100])
async def test_long_lines_are_counted_rarely_and_say_so(
    world: World, monkeypatch: pytest.MonkeyPatch, counted: int
) -> None:
    """If counting them takes long, were it only up to COUNTED."""
    monkeypatch.setattr(census, "FRONT", 3)
    monkeypatch.setattr(census, "COUNTED", counted)
    monkeypatch.setattr(census, "QUICK", 0)
    monkeypatch.setattr(census, "SHARE", 1e9)
    monkeypatch.setattr(census, "PATIENCE", 60)
    jobs = [new("a"), new("b", delay=60)]
    await world.put(*(replace(job, id=new_id()) for job in jobs for _ in range(5)), new("c"))
    first = {line.task: (line.count, line.exact) for line in await world.store.stats()}
    assert first == {"a": (5, True), "b": (5, True), "c": (1, True)}
    await world.put(new("a"), new("b", delay=60), new("c"))
    now = {line.task: (line.count, line.exact) for line in await world.store.stats()}
    assert now["c"] == (2, True)
    assert {now["a"], now["b"]} <= {(5, False), (6, True)}


async def test_nobody_waits_long_for_a_long_count(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was counted so far is told; the whole comes when it is there."""
    monkeypatch.setattr(census, "FRONT", 3)
    monkeypatch.setattr(census, "COUNTED", 3)
    monkeypatch.setattr(census, "PATIENCE", 0)
    await world.put(*(new() for _ in range(9)))
    counts = []
    while 9 not in counts:
        (line,) = await world.store.stats()
        assert line.exact <= (line.count == 9)
        counts.append(line.count)
    assert set(counts) <= {4, 9}


async def test_probe_tells_the_engine(world: World) -> None:
    assert (await world.store.probe())["engine"]


async def test_migrating_an_open_store_takes_no_step(world: World) -> None:
    await world.put(job := new())
    assert list(await world.store.migrate()) == []
    assert await world.state(job.id) is State.READY


# Documents


async def test_documents_are_versioned(world: World) -> None:
    await world.store.save([doc("a", body=b'{"n":1}')])
    (saved,) = (await world.store.load("thing")).docs
    assert saved == doc("a", saved.version, b'{"n":1}')
    await world.store.save([doc("a", saved.version, b"2", due=5.5)])
    (again,) = (await world.store.load("thing")).docs
    assert again == doc("a", again.version, b"2", due=5.5)
    for version in (0, saved.version, again.version + 1):
        for gone in (False, True):
            with pytest.raises(Conflict):
                await world.store.save([doc("a", version, b"9", gone=gone)])
    assert (await world.store.load("thing")).docs == (again,)


async def test_a_document_is_dropped_in_its_version_and_no_version_comes_again(world: World) -> None:
    await world.store.save([doc("a", due=5.0), doc("b")])
    old, kept = (await world.store.load("thing")).docs
    await world.store.put([new()], docs=[replace(old, gone=True)])
    assert (await world.store.load("thing")).docs == (kept,)
    assert (await world.store.load("thing", due=9e9)).docs == ()
    await world.advance(0.001)
    await world.store.save([doc("a", body=b"new")])
    for stale in (replace(old, body=b"stale"), replace(old, gone=True)):
        with pytest.raises(Conflict):
            await world.store.save([stale])
    assert (await world.store.load("thing", names=["a"])).docs[0].body == b"new"


async def test_a_conflict_fails_the_whole_save(world: World) -> None:
    await world.store.save([doc("a")])
    with pytest.raises(Conflict):
        await world.store.save([doc("b"), doc("a")], drop=[("thing", "a")])
    assert [entry.name for entry in (await world.store.load("thing")).docs] == ["a"]


async def test_dropped_documents_start_anew(world: World) -> None:
    await world.store.save([doc("a"), doc("b")])
    await world.store.save([doc("c")], drop=[("thing", "a"), ("thing", "never"), ("other", "b")])
    assert [entry.name for entry in (await world.store.load("thing")).docs] == ["b", "c"]
    await world.store.save([doc("a")])
    assert [entry.name for entry in (await world.store.load("thing")).docs] == ["a", "b", "c"]


async def test_documents_are_loaded_by_kind_and_due(world: World) -> None:
    now = await world.now()
    await world.store.save([doc("late", due=now + 50), doc("b", due=now + 5), doc("a", due=now + 6), doc("none")])
    assert [entry.name for entry in (await world.store.load("thing")).docs] == ["a", "b", "late", "none"]
    assert (await world.store.load("other")).docs == ()
    assert (await world.store.load("thing", due=0)).docs == ()
    assert [entry.name for entry in (await world.store.load("thing", due=5.5)).docs] == ["b"]
    await world.advance(6.001)
    assert [entry.name for entry in (await world.store.load("thing", due=0)).docs] == ["b", "a"]


async def test_documents_come_in_pieces_and_by_name_with_the_stores_time(world: World) -> None:
    names = [f"n{number:04}" for number in range(BATCH + 3)]
    await world.store.save([doc(name, due=1.0) for name in reversed(names)])
    first = await world.store.load("thing")
    rest = await world.store.load("thing", after=first.docs[-1].name)
    assert [entry.name for entry in (*first.docs, *rest.docs)] == names
    assert len(first.docs) == len((await world.store.load("thing", due=0)).docs) == BATCH
    assert [entry.name async for entry in all_docs(world.store, "thing")] == names
    some = await world.store.load("thing", names=["n0007", "never", "n0003", "n0007"])
    assert [entry.name for entry in some.docs] == ["n0003", "n0007"]
    none = await world.store.load("thing", names=[])
    assert none.docs == ()
    assert none.now == pytest.approx(await world.now(), abs=30)


async def test_a_beat_tells_when_the_next_schedule_is_due(world: World) -> None:
    crew = await world.crew(lease=3_000)
    assert (await crew.beat()).fire is None
    now = await world.now()
    plans = [
        Doc(kind=SCHEDULE, name=name, version=0, body=b"{}", due=now + due) for name, due in (("a", 900), ("b", 600))
    ]
    await world.store.save([*plans, doc("other", due=now), Doc(kind=SCHEDULE, name="paused", version=0, body=b"{}")])
    assert (await crew.beat()).fire == pytest.approx(600, abs=30)
    await world.advance(700)
    assert (await crew.beat()).fire == 0
    assert [entry.name for entry in (await world.store.load(SCHEDULE, due=0)).docs] == ["b"]


async def test_bytes_of_a_document_are_kept(world: World) -> None:
    body = bytes(range(256))
    await world.store.save([doc("a", body=body)])
    assert (await world.store.load("thing")).docs[0].body == body


# Retention


async def over(world: World, ending: Ending) -> str:
    await world.put(new())
    crew = await world.crew()
    claim = await crew.take()
    await crew.settle(ends(claim, ending))
    await world.store.retire(crew.worker)
    return claim.id


async def test_prune_drops_by_state_and_age(world: World) -> None:
    old = {ending: await over(world, ending) for ending in (Ending.SUCCEEDED, Ending.FAILED, Ending.CANCELLED)}
    await world.advance(100)
    young = await over(world, Ending.SUCCEEDED)
    live = [job.id for job in (new(), new(delay=9_999))]
    await world.put(*(new(id=id) for id in live))
    keep = {State.SUCCEEDED: 50.0, State.CANCELLED: 500.0}
    assert await world.store.prune(keep) == 1
    left = {job.id for job in (await world.store.find(Filter())).jobs}
    assert left == {old[Ending.FAILED], old[Ending.CANCELLED], young, *live}
    assert await world.store.prune(keep) == 0
    await world.advance(450)
    assert await world.store.prune(keep) == 2
    assert {job.id for job in (await world.store.find(Filter())).jobs} == {old[Ending.FAILED], *live}


async def test_prune_leaves_live_jobs_whatever_it_is_told(world: World) -> None:
    await world.put(new(), new(delay=5))
    crew = await world.crew()
    await world.put(new())
    await crew.take()
    await world.advance(1_000)
    assert await world.store.prune(dict.fromkeys(State, 0.0)) == 0
    assert await world.store.count(Filter()) == 3


async def test_a_job_retried_after_its_end_is_live(world: World) -> None:
    id = await over(world, Ending.FAILED)
    await world.advance(100)
    await world.store.act([id], Verb.RETRY)
    assert await world.store.prune(dict.fromkeys(State, 0.0)) == 0
    assert await world.state(id) is State.READY


async def test_prune_works_in_batches(world: World) -> None:
    jobs = [new(unique=f"k{n}", tags=("t",)) for n in range(BATCH + 50)]
    await world.put(*jobs)
    for part in (jobs[:BATCH], jobs[BATCH:]):
        await world.store.act([job.id for job in part], Verb.CANCEL)
    await world.advance(10)
    assert [await world.store.prune({State.CANCELLED: 5}) for _ in range(3)] == [BATCH, 50, 0]
    assert await world.store.count(Filter(tag="t")) == 0
    assert (await world.put(new(unique="k0"), jobs[1]))[1].new


async def test_prune_drops_marks_past_their_time(world: World) -> None:
    job, second = new(), new()
    await world.store.put([job], [Mark(key="m", job=job.id, ttl=10)])
    await world.advance(9)
    assert await world.store.prune({}) == 0
    assert not (await world.store.put([second], [Mark(key="m", job=second.id, ttl=10)]))[0].new
    await world.advance(2)
    assert await world.store.prune({}) == 1


async def test_prune_leaves_unique_keys_of_live_jobs(world: World) -> None:
    await world.put(new(unique="k", delay=10_000))
    await world.advance(5_000)
    await world.store.prune(dict.fromkeys(State, 0.0))
    assert not (await world.put(new(unique="k")))[0].new
