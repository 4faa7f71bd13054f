"""Uniqueness and turns as users write them."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.worker.rig import PATIENCE, closing, empty_store
from windlass import App, ConfigError, NotUnique, Unique, current, debounce, limit
from windlass.model import State
from windlass.vault import make_key

ran: list[Any] = []


@pytest.fixture(params=["sqlite", "postgres", "redis"])
def app(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[App]:
    ran.clear()
    app = App(empty_store(request.param, tmp_path))
    yield app
    app.close()  # what plain functions opened


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[App]:
    app = App(f"sqlite:///{tmp_path}/windlass.db")
    yield app
    app.close()


async def until_over(app: App, concurrency: int = 1) -> None:
    """Run until nothing is left."""
    async with app.worker(concurrency=concurrency):
        async with asyncio.timeout(PATIENCE):
            while any([await app.jobs.acount(state=state) for state in ("waiting", "scheduled", "ready", "running")]):
                await asyncio.sleep(0.02)


def test_one_job_per_key_of_the_arguments(app: App) -> None:
    @app.task(name="work", unique=Unique("{order}"))
    async def work(order: int, note: str = "") -> None: ...

    async def main() -> None:
        first = await work.aenqueue(1)
        again = await work.aenqueue(1, note="other")
        other = await work.aenqueue(2)
        assert (first.new, again.new, other.new) == (True, False, True)
        assert again == first
        await until_over(app)
        assert (await work.aenqueue(1)).new

    closing(app, main())


def test_all_arguments_make_the_key_and_defaults_are_some(plain: App) -> None:
    @plain.task(name="work", unique=Unique())
    def work(a: int, b: int = 2) -> None: ...

    first = work.enqueue(1)
    assert work.enqueue(1, 2) == work.enqueue(b=2, a=1) == first
    assert work.enqueue(1, 3) != first


def test_until_it_starts_and_for_a_time(plain: App) -> None:
    @plain.task(name="brief", unique=Unique("{a}", until="start"))
    async def brief(a: int) -> bool:
        return (await brief.aenqueue(a)).new if current().attempt == 1 and not ran else False

    @plain.task(name="long", unique=Unique("{a}", until=60))
    async def long(a: int) -> None: ...

    async def main() -> None:
        ran.clear()
        first, kept = await brief.aenqueue(1), await long.aenqueue(1)
        async with plain.worker(concurrency=1):
            assert await first.aresult(PATIENCE) is True
            ran.append("over")
            await kept.aresult(PATIENCE)
        again = await long.aenqueue(1)
        assert (again.id, again.new, again.state) == (kept.id, False, State.SUCCEEDED)

    closing(plain, main())


def test_a_second_one_is_an_error(plain: App) -> None:
    @plain.task(name="work", unique=Unique("{a}", on_conflict="raise"))
    def work(a: int) -> None: ...

    first = work.enqueue(1)
    with pytest.raises(NotUnique) as raised:
        work.enqueue(1)
    assert raised.value.job == first.id
    with pytest.raises(ConfigError, match="a bound call raises nothing"):
        work.bind(1)


def test_many_calls_run_once_with_the_last_arguments(app: App) -> None:
    @app.task(name="save", unique=debounce(0.3, max_wait=30, key="{document}"))
    async def save(document: str, n: int) -> None:
        ran.append((document, n))

    async def main() -> None:
        for n in range(40):
            await save.aenqueue("a", n)
        await save.aenqueue("b", 0)
        await until_over(app)

    closing(app, main())
    assert sorted(ran) == [("a", 39), ("b", 0)]


def test_once_more_after_the_run_that_is_under_way(app: App) -> None:
    @app.task(name="sync", unique=Unique("{n}", on_conflict="again"))
    async def sync(n: int) -> None:
        ran.append("begin")
        if len(ran) == 1:
            first, second = await sync.aenqueue(n), await sync.aenqueue(n)
            assert (first.new, second.new) == (True, False)
            await asyncio.sleep(0.05)
        ran.append("end")

    async def main() -> None:
        await sync.aenqueue(1)
        await until_over(app, concurrency=4)

    closing(app, main())
    assert ran == ["begin", "end", "begin", "end"]


def test_the_first_is_cancelled_for_the_second(app: App) -> None:
    @app.task(name="build", unique=Unique("{branch}", on_conflict="cancel"))
    async def build(branch: str, n: int) -> int:
        return n

    async def main() -> None:
        first, second = await build.aenqueue("main", 1), await build.aenqueue("main", 2)
        assert (await app.jobs.aget(first.id)).state == State.CANCELLED
        await until_over(app)
        assert await (await app.jobs.aget(second.id)).aresult() == 2

    closing(app, main())


def test_tenants_take_turns(app: App) -> None:
    @app.task(name="work", fair_key="{tenant}", fair_weight=lambda tenant: 2 if tenant == "big" else 1)
    async def work(tenant: str) -> None:
        ran.append(tenant)

    async def main() -> None:
        await app.aenqueue_many(work.bind("big") for _ in range(12))
        await app.aenqueue_many(work.bind("small") for _ in range(4))
        await until_over(app)

    closing(app, main())
    assert ran[:9].count("small") == 3


def test_what_waited_long_passes_what_came_with_more_priority(plain: App) -> None:
    plain.queue("mail", aging=60)

    @plain.task(name="work", queue="mail")
    def work() -> None: ...

    low, high = work.using(priority=-100).bind().new, work.using(priority=100).bind().new
    assert (low.priority, low.ahead, high.priority, high.ahead) == (-1, -60, 0, 0)
    job = work.using(priority=50).enqueue()
    assert plain.jobs.get(job.id).priority == 50


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"unique": "x"}, "expected Unique"),
        ({"unique": Unique("{y}")}, "names the argument 'y'"),
        ({"fair_key": "{y}"}, "names the argument 'y'"),
        ({"fair_weight": 2}, "which is missing"),
        ({"fair_key": "{x}", "fair_weight": 0}, "0.001 to 1000"),
        ({"gates": [limit(1, name=f"g{n}") for n in range(9)]}, "at most 4 gates"),
    ],
)
def test_mistakes_are_told(plain: App, given: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        plain.task(name="t", **given)(lambda x: None)


def test_replaced_arguments_and_encryption_exclude_each_other(tmp_path: Path) -> None:
    app = App(f"sqlite:///{tmp_path}/windlass.db", keys=[make_key("k1"), make_key("unique")])
    with pytest.raises(ConfigError, match="opens for no other"):
        app.task(name="t", unique=debounce(1))(lambda x: None)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Unique(on_conflict="explode"), "expected on_conflict as one of"),  # type: ignore[arg-type]
        (lambda: Unique(until=0), "more than 0"),
        (lambda: Unique("", until="start"), "expected key as a template"),
        (lambda: Unique(until="start", on_conflict="again"), "leave until= out"),
        (lambda: debounce(0), "more than 0"),
    ],
)
def test_impossible_rules(make: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make()
