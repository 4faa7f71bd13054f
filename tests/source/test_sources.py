"""Sources as users meet them: declaring one, what a task gets, and workers that read."""

import asyncio
import base64
import json
from pathlib import Path
from typing import Annotated, Any

import pytest
from msgspec import Struct

from tests.source.kinds import RedisKind, redis_server
from tests.worker.rig import Rig, until
from windlass import App, ConfigError, Secret, State, current
from windlass.model import Filter
from windlass.source.feed import Message
from windlass.source.intake import Intake

URL = "redis://localhost/orders"


class Order(Struct):
    number: int


@pytest.fixture
def app(tmp_path: Path) -> App:
    return App(f"sqlite:///{tmp_path}/windlass.db", max_payload=2000)


def test_a_source_is_named_after_its_task(app: App) -> None:
    @app.task(name="shop.order")
    def order(number: int) -> None: ...

    source = app.source("redis://me:secret@localhost/orders", task=order)
    assert source.name == "shop.order"
    assert "secret" not in repr(source)
    assert "secret" not in repr(source.feed().address)
    with pytest.raises(ConfigError, match=r"two sources are called shop\.order"):
        app.source(URL, task=order)
    assert app.source(URL, task=order, name="more").name == "more"


URLS = (
    "amqp://user:pass@host/shop/orders",
    "file:///spool",
    "kafka://one:9092,two:9092/orders?sasl=PLAIN",
    "mqtt://host/shop/+/orders/#",
    "nats://host/ORDERS?subject=orders.eu.>",
    "postgresql://host/shop/orders",
    "rediss://host/2/orders",
)


@pytest.mark.parametrize("url", URLS)
def test_sources_are_declared_where_no_event_loop_runs(app: App, url: str) -> None:
    @app.task
    def order(number: int) -> None: ...

    assert app.source(url, task=order).feed().address.last in {"orders", "spool", "ORDERS", "#"}


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("orders", "the URL of a source"),
        ("ftp://host/orders", "the URL of a source"),
        ("redis://user:pass#word@host/0/orders", "cannot be read"),
        ("redis://host", r"expected a source as redis://"),
        ("redis://host:port/orders", "cannot be read"),
    ],
)
def test_urls_that_name_no_source(app: App, url: str, said: str) -> None:
    @app.task
    def order(number: int) -> None: ...

    with pytest.raises(ConfigError, match=said):
        app.source(url, task=order)
    assert app.sources == []


def test_tasks_that_take_no_message(app: App) -> None:
    @app.task
    def two(number: int, colour: str) -> None: ...

    with pytest.raises(ConfigError, match="Give all but the first a default"):
        app.source(URL, task=two)
    with pytest.raises(ConfigError, match="a task of this app"):
        App(app.config.url).source(URL, task=two)


def test_a_library_that_is_missing(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    @app.task
    def order(number: int) -> None: ...

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs redis: pip install 'windlass\[redis\]'"):
        app.source(URL, task=order)


def taken(app: App, fn: Any, body: bytes, *, text: bool = False) -> Any:
    """What a task is called with for a message."""
    task = app.task(name=f"shop.{fn.__name__}")(fn)
    job, whole = Intake("source", task, None).job(Message(body=body, identity="1"), text=text)
    assert whole
    args, kwargs = task.shape.decode_call(job.args)
    return [*args, *kwargs.values()]


def test_what_a_task_gets(app: App) -> None:
    def typed(order: Order) -> None: ...
    def free(order: Any) -> None: ...
    def texts(order: str, colour: str = "red") -> None: ...
    def raw(order: bytes) -> None: ...
    def hidden(order: Annotated[str, Secret()]) -> None: ...
    def nothing() -> None: ...

    assert taken(app, typed, b'{"number": 3}') == [Order(3)]
    assert taken(app, free, b"[1, 2]") == [[1, 2]]
    assert taken(app, texts, '"grün\n'.encode()) == ['"grün\n']
    assert taken(app, raw, b"\xff\x00") == [b"\xff\x00"]
    assert taken(app, hidden, b"plain") == ["plain"]
    assert taken(app, nothing, b"whatever") == []
    assert taken(app, free, b"{no JSON", text=True) == ["{no JSON"]
    assert taken(app, raw, base64.b64encode(b"x"), text=True) == [b"x"]


def test_ids_come_from_the_message(app: App, caplog: pytest.LogCaptureFixture) -> None:
    @app.task(name="shop.order")
    def order(number: int) -> None: ...

    def made(intake: Intake, **message: Any) -> str:
        return intake.job(Message(body=b"1", **message), text=False)[0].id

    plain, other = Intake("orders", order, None), Intake("others", order, None)
    assert made(plain, identity="1") == made(plain, identity="1", redelivered=True, headers={"a": 1})
    assert len({made(plain, identity="1"), made(plain, identity="2"), made(other, identity="1")}) == 3
    assert made(plain) != made(plain)
    assert caplog.text.count("carry no identity") == 1
    own = Intake("orders", order, lambda message: message.headers["number"])
    assert made(own, headers={"number": "7"}) == made(own, identity="x", headers={"number": "7"})
    assert made(own, identity="1") == made(plain, identity="1")
    assert "identity= of source orders failed" in caplog.text


def test_what_a_task_knows_of_its_message_has_bounds(app: App) -> None:
    @app.task(name="shop.order")
    def order(number: int) -> None: ...

    def meta(**message: Any) -> Any:
        job = Intake("orders", order, None).job(Message(body=b"1", identity="1", **message), text=False)[0]
        return json.loads(job.options or b"")["meta"]

    assert meta() == {"source": "orders", "id": "1"}
    assert meta(topic="t", key="k", redelivered=True, headers={"a": 1}, extra={"offset": 0}) == {
        "source": "orders",
        "id": "1",
        "topic": "t",
        "key": "k",
        "redelivered": True,
        "headers": {"a": 1},
        "offset": 0,
    }
    assert len(meta(headers={"a": "x" * 5000})["headers"]["a"]) == 1024
    assert meta(headers={str(number): "x" * 1000 for number in range(99)}) == {"source": "orders"}


def test_a_worker_reads_and_stops(tmp_path: Path) -> None:
    kind = RedisKind(tmp_path)
    rig = Rig(tmp_path)
    rig.environment["SOURCE"] = kind.url
    with redis_server().raw as client:
        for number in range(20):
            client.xadd(kind.name, {"number": number, "name": f"n{number}"})
        worker = rig.start("--processes", "2", app="tests.source.app:app")
        until(lambda: len(rig.effects()) == 20, "20 jobs")
        assert rig.stop(worker) == 0
        assert sorted(one.text for one in rig.effects()) == sorted(f"n{n} {n} {kind.name}" for n in range(20))
        assert client.xinfo_groups(kind.name)[0]["consumers"] == 0
        assert client.xpending(kind.name, "tests.order")["pending"] == 0


async def test_a_worker_inside_the_process(tmp_path: Path, app: App) -> None:
    kind = RedisKind(tmp_path)
    seen: list[Any] = []

    @app.task(name="shop.order")
    async def order(number: int) -> None:
        seen.append((number, current().meta["entry"]))

    app.source(kind.url, task=order)
    await kind.publish([b"1", b"{"])
    async with app.worker():
        jobs = await all_over(app, 2)
    assert [number for number, _ in seen] == [1]
    failed = next(job for job in jobs if job.state is State.FAILED)
    assert "no JSON" in failed.attempts[-1].failure.message
    await app.aclose()


async def all_over(app: App, count: int) -> Any:
    store = await app.connect()
    while True:
        jobs = (await store.find(Filter(), 100)).jobs
        if len(jobs) == count and all(job.state.final for job in jobs):
            return await store.get([job.id for job in jobs])
        await asyncio.sleep(0.02)
