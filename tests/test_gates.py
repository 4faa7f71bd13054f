"""Limits and rates as users write them."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.worker.rig import PATIENCE, closing, empty_store
from windlass import App, ConfigError, Retry, current, limit, rate
from windlass.limits import JITTER, MICRO
from windlass.model import Need, State
from windlass.vault import make_key


class Crowd:
    """How many are inside, by key, and the most that ever were."""

    def __init__(self) -> None:
        self.inside: dict[object, int] = {}
        self.most: dict[object, int] = {}
        self.order: list[Any] = []
        self._lock = threading.Lock()

    def enter(self, key: object, what: object = None) -> None:
        with self._lock:
            self.order.append(what)
            self.inside[key] = self.inside.get(key, 0) + 1
            self.most[key] = max(self.most.get(key, 0), self.inside[key])

    def leave(self, key: object) -> None:
        with self._lock:
            self.inside[key] -= 1


crowd = Crowd()


@pytest.fixture(params=["sqlite", "postgres", "redis"])
def app(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[App]:
    crowd.__init__()  # type: ignore[misc]
    app = App(empty_store(request.param, tmp_path))
    yield app
    app.close()  # what plain functions opened


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[App]:
    app = App(f"sqlite:///{tmp_path}/windlass.db")
    yield app
    app.close()


async def done(app: App, jobs: list[Any], concurrency: int = 8) -> list[Any]:
    """The results of jobs that a worker runs meanwhile."""
    async with app.worker(concurrency=concurrency):
        return [await job.aresult(PATIENCE) for job in jobs]


def test_never_more_at_once_than_the_limit_of_a_key(app: App) -> None:
    @app.task(name="charge", gates=[limit(2, key="{tenant}"), limit(3, name="stripe")])
    async def charge(tenant: str, n: int) -> int:
        crowd.enter(tenant)
        crowd.enter("all")
        await asyncio.sleep(0.01)
        crowd.leave(tenant)
        crowd.leave("all")
        return n

    async def main() -> list[Any]:
        jobs = await app.aenqueue_many(charge.bind("aaab"[n % 4], n) for n in range(30))
        assert {job.state for job in jobs} == {State.WAITING}
        return await done(app, jobs)

    assert closing(app, main()) == list(range(30))
    assert crowd.most["all"] == 3
    assert crowd.most["a"] == 2


def test_a_limit_of_a_queue_counts_for_all_its_tasks(app: App) -> None:
    app.queue("mail", gates=limit(1))

    @app.task(name="one", queue="mail")
    async def one() -> None:
        crowd.enter("mail")
        await asyncio.sleep(0.02)
        crowd.leave("mail")

    @app.task(name="two", queue="mail")
    def two() -> None:
        crowd.enter("mail")
        crowd.leave("mail")

    async def main() -> None:
        await done(app, await app.aenqueue_many([one.bind(), two.bind(), one.bind(), two.bind()]))

    closing(app, main())
    assert crowd.most == {"mail": 1}


def test_strictly_in_order_by_key(app: App) -> None:
    @app.task(name="book", ordered_by="{account}", retry=Retry(attempts=3, backoff=0.05))
    async def book(account: str, n: int) -> None:
        crowd.enter(account, (account, n, current().attempt))
        await asyncio.sleep(0.001)
        crowd.leave(account)
        if n == 1 and current().attempt < 3:
            raise OSError("again")

    async def main() -> None:
        await done(app, await app.aenqueue_many(book.bind(account, n) for n in range(4) for account in "ab"))

    closing(app, main())
    for account in "ab":
        mine = [(n, attempt) for who, n, attempt in crowd.order if who == account]
        assert mine == [(0, 1), (1, 1), (1, 2), (1, 3), (2, 1), (3, 1)]
    assert crowd.most == {"a": 1, "b": 1}


def test_starts_at_a_rate(app: App) -> None:
    """Not before its time, by the store's clock; the suite's machine may be slow, never the rate too fast."""

    @app.task(name="call", gates=rate("20/s", burst=2))
    async def call() -> None: ...

    async def main() -> list[float]:
        jobs = await app.aenqueue_many(call.bind() for _ in range(8))
        await done(app, jobs)
        found = [await app.jobs.aget(job.id) for job in jobs]
        return sorted(job.started_at.timestamp() for job in found if job.started_at)

    starts = closing(app, main())
    assert len(starts) == 8
    for first, last in zip(starts, starts[2:], strict=False):
        assert last - first >= 0.05 - 0.0005


def test_what_a_task_takes_while_it_runs(app: App) -> None:
    app.gate("stripe", rate("50/s"))

    @app.task(name="soft")
    async def soft() -> None:
        await current().take("stripe", 2)
        await current().slow("stripe", 300)

    @app.task(name="hard")
    def hard() -> None:
        current().take("stripe", key="another")

    async def main() -> None:
        await done(app, [await soft.aenqueue()])
        with pytest.raises(TimeoutError, match="stripe has no room for 1 within"):
            await app.gates.atake("stripe", timeout=0.001)
        await done(app, [await hard.aenqueue()])
        await app.gates.aset("stripe", rate("1000/s", burst=5))
        (gate,) = await app.gates.alist()
        assert (gate.name, gate.limit, gate.burst, gate.waiting) == ("stripe", None, 5, 0)

    closing(app, main())


def test_settings_that_somebody_changed_stay_until_the_code_changes(app: App) -> None:
    @app.task(name="work", gates=limit(1))
    async def work() -> None: ...

    async def main() -> list[int | None]:
        seen = []
        async with app.worker():
            await app.gates.aset("task:work", limit(7))
        async with app.worker():
            seen += [gate.limit for gate in await app.gates.alist()]
        app.limits["task:work"] = limit(3).settings
        async with app.worker():
            seen += [gate.limit for gate in await app.gates.alist()]
        return seen

    assert closing(app, main()) == [7, 3]


def test_one_key_is_paused_limited_and_let_go_while_the_others_go_on(app: App) -> None:
    @app.task(name="work", gates=[limit(1, key="{tenant}"), rate("9000/s", key="{tenant}", name="calls")])
    async def work(tenant: str) -> str:
        await app.gates.atake("calls", key="other")
        return tenant

    async def own() -> list[tuple[str, int | None, str | None]]:
        listed = [one for one in await app.gates.alist() if one.own]
        return [(one.name, one.limit, one.paused.reason if one.paused else None) for one in listed]

    async def main() -> None:
        gates = app.gates
        async with app.worker():
            await gates.apause("task:work", key="acme", reason="they asked")
            await gates.apause("calls", key="other")
            shut, late = [await work.aenqueue(tenant) for tenant in ("acme", "other")]
            assert await (await work.aenqueue("third")).aresult(PATIENCE) == "third"
            assert await own() == [("calls/other", 0, ""), ("task:work/acme", 0, "they asked")]
            assert {(await app.jobs.aget(job.id)).state for job in (shut, late)} == {State.WAITING}
            await gates.atake("calls", key="other", timeout=1)  # what runs goes on
            await gates.aset("task:work/acme", limit(3))
            assert await own() == [("calls/other", 0, ""), ("task:work/acme", 0, "they asked")], "paused all the same"
            assert await gates.aresume("task:work", key="acme")
            assert await shut.aresult(PATIENCE) == "acme"
            assert await own() == [("calls/other", 0, ""), ("task:work/acme", 3, None)]
            assert not await gates.aresume("task:work", key="acme")
            assert await gates.areset("task:work", key="acme")
            assert await gates.aresume("calls", key="other")
            assert await late.aresult(PATIENCE) == "other"
            assert await own() == []
            assert not await gates.areset("task:work", key="acme")

    closing(app, main())


def test_who_holds_a_gate_and_who_waits(app: App) -> None:
    @app.task(name="work", gates=limit(1, key=lambda n: n % 2))
    async def work(n: int) -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        jobs = await app.aenqueue_many(work.bind(n) for n in range(5))
        async with app.worker(concurrency=4):
            while len(held := [gate for gate in await app.gates.alist() if gate.holders]) < 2:
                await asyncio.sleep(0.01)
            assert {gate.name: (dict(gate.holders), gate.waiting) for gate in held} == {
                "task:work/0": ({jobs[0].id: 1}, 2),
                "task:work/1": ({jobs[1].id: 1}, 1),
            }
            for job in jobs:
                await job.acancel()

    closing(app, main())


# What a call needs


def needs(app: App, task: Any, *args: Any, **more: Any) -> tuple[Need, ...]:
    gates: tuple[Need, ...] = task.using(**more).bind(*args).new.gates
    return gates


def test_keys_and_weights_of_the_arguments(plain: App) -> None:
    @plain.task(name="work", gates=[limit(9, key="{place[city]}-{n}", weight=lambda place, n=1: n), rate("5/10s")])
    def work(place: dict[str, str], n: int = 3) -> None: ...

    assert needs(plain, work, {"city": "Rome"}) == (Need("task:work/Rome-3", 3), Need("task:work:2"))
    assert needs(plain, work, {"city": "x" * 500})[0].gate.startswith("task:work/")
    assert len(needs(plain, work, {"city": "x" * 500})[0].gate) < 100
    plain.queue("slow", gates=limit(1))
    assert Need("queue:slow") in needs(plain, work, {"city": "a"}, queue="slow")


def test_keys_are_hidden_where_arguments_are(tmp_path: Path) -> None:
    app = App(f"sqlite:///{tmp_path}/windlass.db", keys=[make_key("k1"), make_key("unique")])

    @app.task(name="work", gates=limit(1, key="{name}"))
    def work(name: str) -> None: ...

    (need,) = needs(app, work, "Ada")
    assert "Ada" not in need.gate
    assert needs(app, work, "Ada") == (need,)
    assert app.gates.full_name("task:work", "Ada") == app.gates.full_name(need.gate) == need.gate


@pytest.mark.parametrize(
    ("text", "starts", "window"),
    [("100/minute", 100, 60), ("5/10s", 5, 10), ("3 / 2 hours", 3, 7200), ("1/day", 1, 86_400)],
)
def test_rates(text: str, starts: int, window: float) -> None:
    interval = rate(text).settings.interval
    assert interval is not None
    assert window <= interval * starts / MICRO <= window + JITTER + 0.001


def make_task(**given: Any) -> None:
    App("sqlite://").task(name="t", **given)(lambda x: None)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: limit(0), "whole number from 1 on, or None"),
        (lambda: rate("fast"), "'100/minute'"),
        (lambda: rate("5/s", burst=0), "for burst"),
        (lambda: limit(1, key=""), "as a template"),
        (lambda: limit(1, weight=0), "the weight of a gate"),
        (lambda: make_task(gates=limit(1, key="{y}")), "names the argument 'y'"),
        (lambda: make_task(gates=limit(1, key="x")), "names no argument"),
        (lambda: make_task(gates=5), "for gates; 5 came"),
        (lambda: make_task(ordered_by=5), "expected ordered_by"),
        (lambda: App("sqlite://").queue("q", gates=limit(1, key="{x}")), "takes no key or function"),
        (lambda: App("sqlite://").gates.pause("g"), "expected one key of the gate 'g'"),
        (lambda: App("sqlite://").gates.reset("g/a", key="b"), "both came: 'g/a' and a key"),
        (lambda: App("sqlite://").gate("g", limit(1, key="{x}")), "without name, key and weight"),
    ],
)
def test_mistakes_are_told(make: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words.replace("(", r"\(")):
        make()


def test_two_gates_of_one_name_must_agree(plain: App) -> None:
    @plain.task(name="a", gates=limit(1, name="shared"))
    def a() -> None: ...

    with pytest.raises(ConfigError, match="two gates are called shared"):
        plain.task(name="b", gates=limit(2, name="shared"))(lambda: None)


def test_ordered_jobs_take_no_priority(plain: App) -> None:
    @plain.task(name="a", ordered_by="{x}")
    def a(x: int) -> None: ...

    with pytest.raises(ConfigError, match="in the order in which its jobs came"):
        a.using(priority=5)


def test_nobody_knows_the_gate(plain: App) -> None:
    with pytest.raises(ConfigError, match="expected the name of a gate that is declared, of none; 'stripe' came"):
        plain.gates.take("stripe")
