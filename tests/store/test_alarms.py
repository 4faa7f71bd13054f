"""Alerts on every store: however many look at the same time, an alarm is told once, and once when it is over."""

import asyncio

from tests.store.world import World
from windlass.alert import (
    QUEUE,
    Alert,
    Rule,
    failed_jobs,
    failure_rate,
    no_worker,
    queue_age,
    read,
    schedule_missed,
    slack,
)
from windlass.app import App
from windlass.model import Filter, WorkerInfo
from windlass.standby import bring
from windlass.store.contract import ALERT
from windlass.worker.alarms import EVERY, Alarms, declared
from windlass.worker.declare import declare


async def look(world: World, times: int) -> list[str]:
    """What is told when so many look at the alerts that are due."""
    docs = (await world.store.load(ALERT, due=0)).docs
    looks = await asyncio.gather(*[Alarms(world.store).look(docs) for _ in range(times)])
    return [f"{message.kind} {message.name}" for told in looks for message in told]


async def test_an_alarm_is_told_once(world: World) -> None:
    rules: dict[str, Rule] = {
        "nobody": no_worker(),
        "dead": failed_jobs(),
        "old": queue_age(5),
        "late": schedule_missed(),
        "bad": failure_rate(0.1),
    }
    alerts = {name: Alert(name, rule, [slack("https://x/1"), slack("https://x/2")]) for name, rule in rules.items()}
    await world.store.save(declared(alerts, {}, "shop:app", await world.now()))
    assert await look(world, 4) == ["alarm nobody"]
    assert await look(world, 4) == []
    jobs = (await world.store.find(Filter(queue=QUEUE))).jobs
    assert [(job.task, job.priority) for job in jobs] == [("windlass.alert.nobody", 100)] * 2
    stored = {doc.name: doc for doc in (await world.store.load(ALERT)).docs}
    assert {name: bool(one.since) for name, doc in stored.items() if (one := read(doc.body))} == {
        name: name == "nobody" for name in rules
    }
    assert declared(alerts, stored, "shop:app", await world.now()) == []
    await world.store.enlist(WorkerInfo(id="w", host="h", pid=1, version="1", lease=1000))
    await world.advance(EVERY + 1)
    assert await look(world, 4) == ["over nobody"]


async def test_what_was_brought_without_a_worker_follows_the_code_until_a_worker_decides(world: World) -> None:
    def app(**rules: Rule) -> App:
        return App(
            "sqlite:///:memory:", alerts=[Alert(name, rule, slack("https://x/1")) for name, rule in rules.items()]
        )

    async def there() -> dict[str, Rule]:
        return {doc.name: one.rule for doc in (await world.store.load(ALERT)).docs if (one := read(doc.body))}

    assert await bring(world.store, app(renamed=no_worker(), changed=no_worker()), "shop:app")
    assert await bring(world.store, app(changed=failed_jobs(), new=no_worker()), "shop:app")
    assert await bring(world.store, app(changed=queue_age(5), other=queue_age(5)), "mail:app")
    assert await there() == {"changed": failed_jobs(), "new": no_worker(), "other": queue_age(5)}
    await world.store.enlist(WorkerInfo(id="w", host="h", pid=1, version="1", lease=1000))
    worker = app(changed=failed_jobs(2), other=failed_jobs(2))
    await declare(world.store, worker.vault, "shop:app", "w", worker)
    decided = {"changed": failed_jobs(2), "other": failed_jobs(2)}
    assert await there() == decided
    for origin in ("shop:app", "mail:app"):
        assert await bring(world.store, app(changed=queue_age(5), other=queue_age(5)), origin)
    assert await there() == decided
