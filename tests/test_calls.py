"""Tasks as they are defined and called, and the jobs that their calls become. No store."""

import asyncio
import json
import subprocess
import sys
import textwrap
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from windlass import App, CallError, ConfigError, DecodeError, EncodeError, PayloadTooLarge, Retry
from windlass.model import Claim, NewJob
from windlass.options import read_options


@pytest.fixture
def app() -> App:
    return App("sqlite:///never-opened.db", max_payload=2000)


class Broken(OSError):
    """An error class of the test's own."""


def claim(new: NewJob) -> Claim:
    """What a runner gets of a job."""
    return Claim(
        id=new.id,
        fence=1,
        seq=1,
        task=new.task,
        queue=new.queue,
        args=new.args,
        options=new.options,
        priority=new.priority,
        attempt=0,
        lost=0,
        enqueued_at=0,
        run_at=0,
    )


# Defining


def test_a_task_is_still_its_function(app: App) -> None:
    @app.task
    def add(a: int, b: int = 2) -> int:
        """Add."""
        return a + b

    assert add(1) == 3
    assert (add.__name__, add.__doc__) == ("add", "Add.")
    assert add.name == "tests.test_calls.test_a_task_is_still_its_function.add"
    assert app.tasks[add.name] is add


async def plain_coroutine(n: int) -> int:
    return n


def test_a_coroutine_task_is_awaited(app: App) -> None:
    assert asyncio.run(app.task(plain_coroutine)(3)) == 3


def test_where_tasks_run(app: App) -> None:
    def plain() -> None: ...

    async def coroutine() -> None: ...

    assert app.task(plain).executor == "thread"
    assert app.task(coroutine).executor == "async"
    assert app.task(name="p", executor="process")(plain).executor == "process"
    assert app.task(name="c", executor="process")(coroutine).executor == "process"
    with pytest.raises(ConfigError, match="plain function: expected executor 'auto', 'thread' or 'process'"):
        app.task(name="x", executor="async")(plain)
    with pytest.raises(ConfigError, match="coroutine function"):
        app.task(name="x", executor="thread")(coroutine)


def test_options_of_a_task(app: App) -> None:
    @app.task(queue="mail", priority=7, timeout=timedelta(minutes=2), retry=3, name="shop.send", aliases=["shop.mail"])
    def send() -> None: ...

    assert (send.queue, send.priority, send.timeout, send.retry) == ("mail", 7, 120.0, Retry(attempts=3))
    assert app.tasks["shop.mail"] is app.tasks["shop.send"] is send
    assert set(app.tasks) == {"shop.send", "shop.mail"}


def test_two_tasks_of_one_name(app: App) -> None:
    def first() -> None: ...

    def second() -> None: ...

    app.task(name="shop.one")(first)
    with pytest.raises(ConfigError, match=r"two tasks are called shop\.one: .*first .*test_calls\.py:\d+.*second"):
        app.task(name="shop.two", aliases=["shop.one"])(second)
    assert "shop.two" not in app.tasks
    app.task(name="shop.one")(first)


def generator() -> Any:
    yield 1


@pytest.mark.parametrize(
    ("options", "fn", "says"),
    [
        ({}, 42, "expected a function"),
        ({}, int, "expected a function"),
        ({}, generator, "generator"),
        ({}, lambda: None, "expected a task name"),
        ({"name": "a b"}, print, "expected a task name"),
        ({"name": "x" * 129}, print, "128"),
        ({"queue": "a/b"}, print, "expected a queue"),
        ({"queue": ""}, print, "expected a queue"),
        ({"priority": 101}, print, "from -100 to 100"),
        ({"priority": True}, print, "True came"),
        ({"priority": 1.0}, print, "whole number"),
        ({"timeout": 0}, print, "more than 0"),
        ({"timeout": "30"}, print, "'30' came"),
        ({"timeout": True}, print, "seconds"),
        ({"retry": 0}, print, "Retry"),
        ({"retry": "often"}, print, "Retry"),
        ({"executor": "fiber"}, print, "'fiber' came"),
        ({"aliases": "old"}, print, r"\['old'\]"),
    ],
)
def test_wrong_definitions(app: App, options: dict[str, Any], fn: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        app.task(**options)(fn) if options else app.task(fn)
    assert not app.tasks


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (["shop.py"], "shop.send"),
        (["-m", "shop"], "shop.send"),
        (["pkg/jobs.py"], "pkg.jobs.send"),
        (["-m", "pkg.jobs"], "pkg.jobs.send"),
        (["-m", "pkg"], "pkg.__main__.send"),
        (["odd-folder/jobs.py"], "jobs.send"),
    ],
)
def test_a_task_in_main_is_named_as_a_worker_imports_it(tmp_path: Path, command: list[str], name: str) -> None:
    code = textwrap.dedent("""
        from windlass import App
        app = App()
        @app.task
        def send(): ...
        print(send.name)
    """)
    for file in ("shop.py", "pkg/__init__.py", "pkg/__main__.py", "pkg/jobs.py", "odd-folder/jobs.py"):
        path = tmp_path / file
        path.parent.mkdir(exist_ok=True)
        path.write_text("" if file == "pkg/__init__.py" else code)
    done = subprocess.run([sys.executable, *command], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == name


# Calling


def made(app: App, **options: Any) -> NewJob:
    """The job of one call with these options."""

    @app.task(name="shop.send")
    def send(order_id: int) -> None: ...

    return send.using(**options).bind(1).new


def test_a_call_becomes_a_job(app: App) -> None:
    new = made(app)
    assert (new.task, new.queue, new.priority, new.delay, new.run_at) == ("shop.send", "default", 0, 0, None)
    assert json.loads(new.args) == {"order_id": 1}
    assert (new.unique, new.tags, new.options, new.expires_in) == (None, (), None, None)


def test_ids_are_unique_and_sort_by_time(app: App) -> None:
    @app.task
    def send() -> None: ...

    ids = [send.bind().new.id for _ in range(1000)]
    assert sorted(set(ids)) == ids


def test_options_of_a_call(app: App) -> None:
    new = made(
        app, queue="slow", priority=-3, delay=timedelta(minutes=1), expires_in=90, tags=["a", "b", "a"], id="x-1"
    )
    assert (new.queue, new.priority, new.delay, new.expires_in) == ("slow", -3, 60.0, 90.0)
    assert (new.tags, new.id) == (("a", "b"), "x-1")


def test_using_adds_up_and_changes_nothing_else(app: App) -> None:
    @app.task(queue="mail", timeout=5, retry=Retry(7, backoff=3))
    def send() -> None: ...

    first = send.using(priority=5, meta={"a": 1}, timeout=9)
    second = first.using(delay=60).using(run_at=datetime(2030, 1, 1, tzinfo=UTC), retry=2)
    new = second.bind().new
    assert (new.queue, new.priority, new.delay, new.run_at) == ("mail", 5, 0, 1893456000.0)
    assert read_options(new.options).meta == {"a": 1}
    assert second.options_for(claim(new)) == (Retry(2, backoff=3), 9.0)
    assert send.options_for(claim(send.bind().new)) == (Retry(7, backoff=3), 5.0)
    assert second.using(delay=1).bind().new.run_at is None


def test_when_a_job_is_due(app: App) -> None:
    at = datetime(2030, 1, 1, tzinfo=UTC)
    assert made(app, run_at=at).run_at == made(app, run_after=at).run_at == at.timestamp()
    assert made(app, run_at=timedelta(hours=1)).delay == 3600


def test_unique_keys_belong_to_their_task(app: App) -> None:
    one = made(app, unique="order:42")
    other = app.task(name="shop.other")(lambda: None).using(unique="order:42").bind().new
    assert one.unique == made(app, unique="order:42").unique != made(app, unique="order:43").unique
    assert one.unique != other.unique
    assert made(app, unique="\ud800").unique


def test_a_retry_for_one_call_travels_as_data(app: App) -> None:
    @app.task(retry=Retry(9, on=(ValueError,)))
    def send() -> None: ...

    new = (
        send.using(retry=Retry(3, backoff=2.5, on=(OSError,), give_up_on=(Broken, "shop.Fatal")), timeout=None)
        .bind()
        .new
    )
    retry, timeout = send.options_for(claim(new))
    assert (retry.attempts, retry.backoff, timeout) == (3, 2.5, None)
    assert retry.wants(ConnectionError(), 1)
    assert not retry.wants(Broken(), 1)
    assert not retry.wants(ValueError(), 1)
    fatal = type("Fatal", (OSError,), {"__module__": "shop"})
    assert not retry.wants(fatal(), 1)
    with pytest.raises(CallError, match="a function came"):
        send.using(retry=Retry(backoff=lambda attempt: attempt))


@pytest.mark.parametrize("data", [b"", b"[", b"[1]", b'{"retry":{"attempts":0}}', b'{"timeout":"x"}', b"[" * 100_000])
def test_stored_options_that_cannot_be_read(app: App, data: bytes) -> None:
    @app.task
    def send() -> None: ...

    broken = NewJob(id="x", task=send.name, args=b"{}", options=data)
    with pytest.raises(DecodeError, match="stored options"):
        send.options_for(claim(broken))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"delay": -1}, "0 or more"),
        ({"delay": "60"}, "'60' came"),
        ({"delay": True}, "True came"),
        ({"delay": float("nan")}, "nan came"),
        ({"delay": 1e12}, "came"),
        ({"delay": 1, "run_at": datetime(2030, 1, 1, tzinfo=UTC)}, "one of delay, run_at and run_after"),
        ({"run_at": datetime(2030, 1, 1)}, "without one, so nobody knows"),  # noqa: DTZ001
        ({"run_at": 1893456000}, "for a wait use delay="),
        ({"run_at": "tomorrow"}, "expected a datetime"),
        ({"expires_in": 0}, "more than 0"),
        ({"unique": 42}, "order:42"),
        ({"unique": ""}, "expected a text"),
        ({"tags": "eu"}, r"\['eu'\]"),
        ({"tags": ["a b"]}, "'a b' came"),
        ({"tags": [1]}, "1 came"),
        ({"priority": 1000}, "from -100 to 100"),
        ({"queue": "a b"}, "expected a queue"),
        ({"id": "a/b"}, "expected a job id"),
        ({"meta": [1]}, "expected a dict"),
        ({"meta": {1: 2}}, "texts as keys"),
        ({"timeout": -1}, "more than 0"),
        ({"retry": -1}, "expected Retry"),
    ],
)
def test_wrong_options(app: App, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        made(app, **options)


def test_meta_has_to_be_storable(app: App) -> None:
    with pytest.raises(EncodeError, match=r"meta\.a\[0\]"):
        made(app, meta={"a": [object()]})
    with pytest.raises(PayloadTooLarge):
        made(app, meta={"a": "x" * 3000})


def test_a_misplaced_option_gets_a_hint(app: App) -> None:
    @app.task
    def send(order_id: int) -> None: ...

    wrong: Callable[..., Any] = send.bind
    with pytest.raises(CallError, match=r"\.using\(delay=…\)\.enqueue"):
        wrong(1, delay=60)
    with pytest.raises(CallError) as found:
        wrong(1, dealy=60)
    assert "using" not in str(found.value)


def test_what_cannot_be_enqueued_together(app: App) -> None:
    other = App("sqlite:///never-opened-either.db")

    @other.task
    def send() -> None: ...

    with pytest.raises(CallError, match="belongs to another app"):
        app.enqueue_many([send.bind()])
    calls: Any = [send]
    with pytest.raises(CallError, match=r"task\.bind"):
        app.enqueue_many(calls)
    with pytest.raises(ConfigError, match="tx="):
        send.using(tx=object()).bind()
    assert app.enqueue_many([]) == []


def test_max_payload_is_the_apps(app: App) -> None:
    @app.task
    def send(text: str) -> None: ...

    assert send.bind("x" * 1900)
    with pytest.raises(PayloadTooLarge, match="max_payload allows 2,000"):
        send.bind("x" * 2000)
