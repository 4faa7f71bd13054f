"""Schedules on every store: one job per tick whoever fires, and what stands in the way."""

import asyncio
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest
from msgspec.structs import replace

from tests.history import Log, Violation, check, read, watched
from tests.store.straight import Straight, app, fires, sweep
from tests.store.world import World, ends
from windlass import App, ConfigError, cron, every, schedule
from windlass.access import Access
from windlass.alert import Alert
from windlass.event import Subscription
from windlass.gate import Settings
from windlass.model import Doc, Ending, Filter, Mark, State, Verb
from windlass.options import read_options
from windlass.schedules import Schedules
from windlass.store.contract import MANIFEST, SCHEDULE
from windlass.store.documents import named
from windlass.timing import Rule
from windlass.vault import Vault
from windlass.worker import fires as module
from windlass.worker.declare import declare
from windlass.worker.fires import Fires


def schedules(world: World, vault: Vault | None = None) -> Schedules:
    return Schedules(cast("Access", Straight(world.store)), vault or Vault(), app.jobs)


HOURLY = every(hours=1)


async def made(world: World, rule: Rule = HOURLY, name: str = "s", **given: Any) -> Schedules:
    found = schedules(world)
    await found.acreate(name, rule, sweep, **given)
    return found


async def ticks(world: World, name: str = "s") -> list[float]:
    """The moments for which there are jobs of a schedule."""
    jobs = (await world.store.find(Filter(task="sweep"), 1_000)).jobs
    own = [read_options(job.options) for job in jobs]
    return sorted(one.tick or 0 for one in own if one.schedule == name)


async def course(world: World, name: str = "s") -> schedule.Course:
    return schedule.read((await named(world.store, SCHEDULE, [name]))[name].body)


@pytest.mark.parametrize(("given", "jobs"), [({"catch_up": "skip"}, 0), ({}, 1), ({"catch_up": "all", "most": 5}, 5)])
async def test_a_day_without_workers(world: World, given: dict[str, Any], jobs: int) -> None:
    await made(world, **given)
    now = await world.now()
    await world.advance(86_400 + (5_400 - now % 3_600) % 3_600)  # half past
    await fires(world).fire_due()
    last = (await world.now()) // 3_600 * 3_600
    assert await ticks(world) == [last - 3_600 * n for n in reversed(range(jobs))]
    assert (await course(world)).cursor == last
    await fires(world).fire_due()
    assert len(await ticks(world)) == jobs


async def test_any_number_may_fire_at_once(shared: World) -> None:
    names = [f"s{n}" for n in range(60)]
    found = schedules(shared)
    for name in names:
        await found.acreate(name, every(seconds=60), sweep, catch_up="all")
    stores = [shared.connect() for _ in range(3)]
    for store in stores:
        await store.open()
        shared.add(store)
    for _ in range(2):
        await shared.advance(120)
        await asyncio.gather(*(Fires(store, Vault()).fire_due() for store in (shared.store, *stores)))
        await fires(shared).fire_due()  # what they left to each other
    begins = [(await course(shared, name)).fired for name in names]
    assert set(begins) == {4}
    for name in names:
        assert len(set(await ticks(shared, name))) == len(await ticks(shared, name)) == 4
    assert await shared.store.count(Filter(task="sweep")) == 4 * len(names)


async def test_a_full_batch_of_what_is_not_due_yet_is_no_busy_loop(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH", 3)
    for n in range(3):
        await schedules(world).acreate(f"s{n}", HOURLY, sweep)
    due = min(doc.due for doc in (await world.store.load(SCHEDULE)).docs if doc.due is not None)
    await world.advance(due - await world.now() - 1)
    assert await fires(world).fire_due() == pytest.approx(1, abs=0.001)


async def backup_comes_back(world: World, folder: Path) -> list[Violation]:
    """A tick fires, retention takes its job, and then the documents of before are restored; what the history says."""
    log = Log(folder)
    worker = Fires(watched(world.store, log), Vault())
    await made(world, every(seconds=60))
    before = await world.store.load(SCHEDULE)
    await world.advance(61)
    await worker.fire_due()
    tick = (await course(world)).cursor
    jobs = [one.id for one in (await world.store.find(Filter())).jobs]
    assert await world.store.act(jobs, Verb.DELETE) == jobs
    after = await world.store.load(SCHEDULE)
    await world.store.save([replace(before.docs[0], version=after.docs[0].version)])
    await worker.fire_due()
    assert (await course(world)).cursor == tick
    log.tell("due", word=f"s@{tick:.6f}")
    return check(read(folder))


async def test_the_mark_holds_where_the_cursor_does_not(world: World, tmp_path: Path) -> None:
    assert await backup_comes_back(world, tmp_path) == []
    assert await ticks(world) == []


async def test_a_missing_mark_is_found_in_the_history(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedule, "make_mark", lambda name, tick: Mark(key=str(uuid.uuid4()), job="none", ttl=1.0))
    (wrong,) = await backup_comes_back(world, tmp_path)
    assert "fired 2 times" in wrong.text


async def test_a_tick_that_is_left_out_is_found_in_the_history(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedule, "fire_id", lambda name, tick: "the-same")
    log = Log(tmp_path)
    await made(world, every(seconds=60), catch_up="all")
    await world.advance(125)
    await Fires(watched(world.store, log), Vault()).fire_due()
    last = (await course(world)).cursor
    for tick in (last - 60, last):
        log.tell("due", word=f"s@{tick:.6f}")
    assert [wrong.text.split()[-2:] for wrong in check(read(tmp_path))] == [["never", "fired"]]


async def test_a_long_job_under_a_short_schedule_with_skip(world: World) -> None:
    await made(world, every(seconds=30), overlap="skip")
    crew = await world.crew(lease=100_000)
    await world.advance(31)
    await fires(world).fire_due()
    (claim,) = await crew.claim(5, "sweep")
    for _ in range(20):
        await world.advance(30)
        await fires(world).fire_due()
        assert await crew.claim(5, "sweep") == []
    assert await world.store.count(Filter(task="sweep")) == 1
    await crew.exchange(ends(claim, Ending.SUCCEEDED))
    await world.advance(30)
    await fires(world).fire_due()
    assert len(await crew.claim(5, "sweep")) == 1


@pytest.mark.parametrize("overlap", ["queue", "cancel"])
async def test_one_waits_and_runs_when_the_job_under_way_is_over(world: World, overlap: str) -> None:
    await made(world, every(seconds=30), overlap=overlap)
    crew = await world.crew(lease=100_000)
    await world.advance(31)
    await fires(world).fire_due()
    (claim,) = await crew.claim(5, "sweep")
    for _ in range(3):
        await world.advance(30)
        await fires(world).fire_due()
    assert [order.id for order in (await crew.beat()).cancel] == ([claim.id] if overlap == "cancel" else [])
    assert await world.store.count(Filter(task="sweep")) == 1
    await crew.exchange(ends(claim, Ending.SUCCEEDED))
    await world.advance(2)
    await fires(world).fire_due()
    assert await world.store.count(Filter(task="sweep")) == 2
    assert (await course(world)).waiting is None


async def test_pause_resume_trigger_update_delete(world: World) -> None:
    found = await made(world, every(seconds=60))
    await found.apause("s")
    await world.advance(600)
    await fires(world).fire_due()
    assert await ticks(world) == []
    job = await found.atrigger("s")
    assert await world.state(job.id) == State.READY
    assert len(await ticks(world)) == 1
    await found.aresume("s")
    await fires(world).fire_due()
    assert len(await ticks(world)) == 1, "ticks of the pause are not caught up"
    await found.aupdate("s", rule=every(seconds=20), call=sweep.bind("us"), jitter=5)
    shown = await found.aget("s")
    assert (shown.rule, shown.args, shown.jitter, shown.paused) == (every(seconds=20), {"zone": "us"}, 5.0, False)
    await world.advance(26)
    await fires(world).fire_due()
    assert len(await ticks(world)) == 2
    await found.adelete("s")
    assert await found.alist() == []
    await world.advance(99)
    await fires(world).fire_due()
    assert len(await ticks(world)) == 2


async def test_backfill_makes_what_has_no_job_yet(world: World) -> None:
    found = await made(world, every(minutes=10))
    await world.advance(3_600)
    await fires(world).fire_due()
    now = await world.now()
    end = datetime.fromtimestamp(now, UTC)
    jobs = await found.abackfill("s", datetime.fromtimestamp(now - 3_600, UTC), end)
    assert sum(job.new for job in jobs) == len(jobs) - 1, "one tick had fired"
    assert len(await ticks(world)) == len(jobs)
    with pytest.raises(ConfigError, match="that is past"):
        await found.abackfill("s", end, datetime.fromtimestamp(now + 60, UTC))
    with pytest.raises(ConfigError, match="at most 10,000"):
        await found.abackfill("s", datetime(1990, 1, 1, tzinfo=UTC), end)


async def test_a_schedule_that_nobody_can_read_stops_no_other(world: World) -> None:
    found = await made(world, every(seconds=60))
    await world.store.save([Doc(kind=SCHEDULE, name="a-broken", version=0, body=b"{", due=1.0)])
    await world.advance(61)
    await fires(world).fire_due()
    assert len(await ticks(world)) == 1
    assert await found.aunreadable() == ["a-broken"]
    (broken,) = (await world.store.load(SCHEDULE, names=["a-broken"])).docs
    assert (broken.body, broken.due) == (b"{", None)


async def test_arguments_are_sealed_in_the_schedule_and_in_the_job(world: World) -> None:
    key = "A" * 43 + "="
    vault = Vault([f"k:{key}", f"unique:{key}"])
    found = schedules(world, vault)
    secret = App("sqlite:///:memory:", keys=[f"k:{key}", f"unique:{key}"])
    task = secret.task(name="sweep")(lambda zone: zone)
    await found.acreate("s", every(seconds=60), task.bind("canary-7"))
    await world.advance(61)
    await fires(world).fire_due()
    assert await world.store.count(Filter()) == 0, "a worker without the key makes nothing of it"
    await fires(world, vault).fire_due()
    (job,) = (await world.store.find(Filter())).jobs
    (doc,) = (await world.store.load(SCHEDULE)).docs
    assert b"canary-7" not in doc.body + job.args
    assert b"canary-7" in vault.reveal(job).args
    assert (await found.aget("s")).args == {"zone": "canary-7"}


# Declared in code


class Said:
    """What an app says in code."""

    subscriptions: Mapping[str, Subscription] = {}
    limits: Mapping[str, Settings] = {}
    alerts: Mapping[str, Alert] = {}

    def __init__(self, **rules: Rule) -> None:
        self.plans = {name: app.schedules.plan(rule, sweep, {}) for name, rule in rules.items()}


async def listed(world: World) -> dict[str, Rule]:
    return {one.name: one.rule for one in await schedules(world).alist()}


async def test_what_is_declared_is_what_there_is(world: World) -> None:
    found = await made(world, name="dynamic")
    crew = await world.crew()
    rules: dict[str, Rule] = {"a": every(hours=1), "b": cron("0 5 * * *")}
    await declare(world.store, Vault(), "shop:app", crew.worker, Said(**rules))
    await found.apause("b")
    rules = {"b": cron("0 6 * * *"), "c": every(hours=3)}
    await declare(world.store, Vault(), "shop:app", crew.worker, Said(**rules))
    assert await listed(world) == {"dynamic": every(hours=1), **rules}
    assert (await found.aget("b")).paused
    await declare(world.store, Vault(), "other:app", crew.worker, Said(b=every(hours=9), d=every(hours=9)))
    assert await listed(world) == {"dynamic": every(hours=1), **rules, "d": every(hours=9)}


async def test_a_worker_that_started_earlier_changes_nothing(world: World) -> None:
    old = await world.crew()
    await declare(world.store, Vault(), "shop:app", old.worker, Said(a=every(hours=1), gone=every(hours=1)))
    await world.advance(1)
    new = await world.crew()
    await declare(world.store, Vault(), "shop:app", new.worker, Said(a=every(hours=2)))
    await declare(world.store, Vault(), "shop:app", old.worker, Said(a=every(hours=1), gone=every(hours=1)))
    assert await listed(world) == {"a": every(hours=2)}
    await world.advance(1)
    again = await world.crew()  # a rollback: old code, started last
    await declare(world.store, Vault(), "shop:app", again.worker, Said(a=every(hours=1), gone=every(hours=1)))
    assert await listed(world) == {"a": every(hours=1), "gone": every(hours=1)}


async def test_runners_that_declare_at_once_make_one_each(shared: World) -> None:
    crew = await shared.crew()
    named_rules = {f"s{n}": every(hours=1) for n in range(20)}
    await asyncio.gather(
        *(declare(shared.store, Vault(), "shop:app", crew.worker, Said(**named_rules)) for _ in range(4))
    )
    assert await listed(shared) == named_rules
    assert len((await shared.store.load(MANIFEST)).docs) == 1
