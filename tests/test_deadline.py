"""A store that is dead or frozen hangs nobody: every way in ends in time, and says what may have been written."""

import asyncio
import contextlib
import functools
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.servers import Postgres, Redis, Server
from windlass import App, EnqueueUnknown, Job, StoreUnavailable
from windlass.model import State
from windlass.store.dispatch import within

LIMIT = 0.6
PATIENCE = 15.0
"""Seconds that anything here may take at most; what hangs takes for ever."""


class Frozen:
    """A store whose server was stopped before (`opens` false) or after it was opened.

    Its calls hang as those of some drivers do: also when they are cancelled, while they try to tell the server so.
    """

    def __init__(self, opens: bool) -> None:
        self.opens = opens
        self.over = False

    async def for_ever(self) -> None:
        while not self.over:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.05)

    async def open(self) -> None:
        if not self.opens:
            await self.for_ever()

    def put_now(self, jobs: Any, timeout: float) -> Any:
        time.sleep(timeout)
        raise EnqueueUnknown("no answer", jobs[0].id)

    def __getattr__(self, name: str) -> Any:
        async def call(*args: Any, **more: Any) -> None:
            await self.for_ever()

        return call


@pytest.fixture
def opens() -> bool:
    """Whether the store could be opened before its server froze."""
    return True


@pytest.fixture
def app(opens: bool, monkeypatch: pytest.MonkeyPatch) -> Iterator[App]:
    """An app whose store is frozen."""
    frozen = Frozen(opens)
    monkeypatch.setattr("windlass.access.make_store", lambda url: frozen)
    monkeypatch.setattr("windlass.store.dispatch.SLOW_LIMIT", LIMIT)
    yield make_app("postgresql://user:secret@here/db")
    frozen.over = True
    time.sleep(0.1)


def make_app(url: str, limit: float = LIMIT) -> App:
    app = App(url, enqueue_timeout=limit)

    @app.task(name="work")
    def work(n: int) -> None: ...

    return app


@contextlib.contextmanager
def in_time() -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < PATIENCE


def some_job(app: App) -> Job[Any]:
    return Job(app.jobs, "some-id", _state=State.READY)


# Enqueueing

reached = pytest.mark.parametrize("opens", [False, True], ids=["unreachable", "frozen"])


@reached
def test_a_blocking_enqueue(app: App, opens: bool) -> None:
    for _ in range(3):
        with in_time(), pytest.raises(EnqueueUnknown if opens else StoreUnavailable) as found:
            app.tasks["work"].enqueue(1)
        assert "secret" not in str(found.value)
        assert opens or "nothing was written" in str(found.value)


@reached
def test_a_hundred_async_enqueues(app: App, opens: bool) -> None:
    async def main() -> list[Any]:
        work = app.tasks["work"]
        calls = [work.using(id=f"id-{n}").aenqueue(n) for n in range(100)]
        with in_time():
            found = await asyncio.gather(*calls, return_exceptions=True)
        app._access._stores.clear()
        return list(found)

    found = run_and_leave(main())
    assert {type(error) for error in found} == {EnqueueUnknown if opens else StoreUnavailable}
    assert not opens or [error.id for error in found] == [f"id-{n}" for n in range(100)]


def run_and_leave(work: Coroutine[Any, Any, list[Any]]) -> list[Any]:
    """The result of a coroutine whose event loop is left with what hangs in it."""
    loop = asyncio.new_event_loop()
    found = loop.run_until_complete(work)
    _left.append(loop)
    return found


_left: list[asyncio.AbstractEventLoop] = []
"""Loops with tasks that do not end: closing them would wait or warn."""


# Everything else


@reached
@pytest.mark.parametrize(
    "ask",
    [
        lambda app: some_job(app).refresh(),
        lambda app: some_job(app).result(timeout=60),
        lambda app: some_job(app).result(),
        lambda app: some_job(app).cancel(),
        lambda app: some_job(app).delete(),
        lambda app: app.jobs.get("some-id"),
        lambda app: app.jobs.find(state="failed"),
        lambda app: app.jobs.count(),
        lambda app: app.jobs.retry(queue="mail"),
    ],
    ids=["refresh", "result", "result without end", "cancel", "delete", "get", "find", "count", "retry many"],
)
def test_asking(app: App, ask: Callable[[App], Any]) -> None:
    with in_time(), pytest.raises(StoreUnavailable, match="within"):
        ask(app)


def test_closing(app: App) -> None:
    with pytest.raises(StoreUnavailable):
        app.jobs.count()
    with in_time(), contextlib.suppress(StoreUnavailable):
        app.close()


# Servers that are none


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of a server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def closed() -> int:
    """A port at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


@pytest.mark.parametrize("url", ["postgresql://user:secret@127.0.0.1:{}/db", "redis://user:secret@127.0.0.1:{}/0"])
@pytest.mark.parametrize("port", ["silent", "closed"])
def test_a_server_that_is_none(url: str, port: str, request: pytest.FixtureRequest) -> None:
    found = url.format(request.getfixturevalue(port))
    app = make_app(found)

    async def main() -> None:
        with in_time(), pytest.raises(StoreUnavailable):
            await app.tasks["work"].aenqueue(1)

    for ask in (lambda: app.tasks["work"].enqueue(1), app.jobs.count, some_job(app).result):
        with in_time(), pytest.raises(StoreUnavailable) as error:
            ask()
        assert "secret" not in str(error.value)
    asyncio.run(main())
    with in_time():
        app.close()


@pytest.mark.parametrize("url", ["postgresql://user:secret@127.0.0.1:{}/db", "redis://user:secret@127.0.0.1:{}/0"])
@pytest.mark.parametrize("port", ["silent", "closed"])
def test_the_doctor_says_so_in_time(url: str, port: str, request: pytest.FixtureRequest) -> None:
    found = url.format(request.getfixturevalue(port))
    command = [sys.executable, "-m", "windlass", "doctor", found]
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    took = time.monotonic() - began
    assert (done.returncode, done.stderr) == (3, "")
    [problem] = [line for line in done.stdout.splitlines() if "✗" in line and "store" in line]
    assert "127.0.0.1" in problem
    assert "secret" not in done.stdout
    assert took < PATIENCE


# Servers that stand still


@functools.cache
def servers() -> dict[str, Server]:
    """Servers that no other test uses."""
    return {"postgres": Postgres(), "redis": Redis()}


@pytest.mark.parametrize("before", [True, False], ids=["used before", "new"])
@pytest.mark.parametrize("kind", ["postgres", "redis"])
def test_a_frozen_server(kind: str, before: bool) -> None:
    first = make_app(servers()[kind].url, PATIENCE)
    first.tasks["work"].enqueue(1)
    first.close()
    app = make_app(servers()[kind].url, 1.0)
    work = app.tasks["work"]
    job = work.enqueue(1) if before else some_job(app)
    with servers()[kind].frozen():
        with ThreadPoolExecutor(100) as pool, in_time():
            found = list(pool.map(lambda n: error_of(lambda: work.enqueue(n)), range(100)))
        with in_time():
            found += run_and_leave(all_errors(app, 100))
        assert {type(one) for one in found} <= {StoreUnavailable, EnqueueUnknown}
        for ask in (job.refresh, job.result):
            with in_time(), pytest.raises(StoreUnavailable):
                ask()
    ids = [one.id for one in found if isinstance(one, EnqueueUnknown)]
    for id in ids:
        assert work.using(id=id).enqueue(1).id == id
    if before:
        assert job.refresh().state == "ready"
    app.close()


def error_of(call: Callable[[], Any]) -> Exception | None:
    try:
        call()
    except Exception as error:
        return error
    return None


async def all_errors(app: App, count: int) -> list[Any]:
    return list(await asyncio.gather(*(app.tasks["work"].aenqueue(n) for n in range(count)), return_exceptions=True))


@pytest.mark.parametrize("kind", ["postgres", "redis"])
def test_the_doctor_of_a_frozen_server(kind: str) -> None:
    command = [sys.executable, "-m", "windlass", "doctor", servers()[kind].url]
    with servers()[kind].frozen():
        began = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        took = time.monotonic() - began
    assert (done.returncode, done.stderr) == (3, "")
    assert "does not answer" in done.stdout
    assert took < PATIENCE


@pytest.mark.parametrize("kind", ["postgres", "redis"])
def test_the_doctor_of_a_server(kind: str) -> None:
    command = [sys.executable, "-m", "windlass", "doctor", "--json", servers()[kind].url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert {"engine", "clock offset", "latency", "opened in"} <= set(checks)
    assert checks["clock offset"]["level"] == "ok"


# The way there


def test_within_gives_what_work_gives() -> None:
    async def main() -> None:
        async def value(n: int) -> int:
            await asyncio.sleep(0)
            return n

        async def wrong() -> None:
            raise ValueError("as it was")

        assert await within(5, value(3), TimeoutError()) == 3
        with pytest.raises(ValueError, match="as it was"):
            await within(5, wrong(), TimeoutError())
        with pytest.raises(TimeoutError):
            await within(0, asyncio.sleep(60), TimeoutError())
        outer = asyncio.create_task(within(60, asyncio.sleep(60), TimeoutError()))
        await asyncio.sleep(0)
        outer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await outer

    asyncio.run(main())


def test_repeating_with_the_id_is_safe(tmp_path: Path) -> None:
    app = make_app(f"sqlite:///{tmp_path}/jobs.db")
    work = app.tasks["work"]
    assert work.using(id="mine").enqueue(1).new
    assert not work.using(id="mine").enqueue(1).new
    assert app.jobs.count() == 1
    app.close()
