"""Circuit breakers: the rule, by a clock of the test's own; and what workers make of it."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.worker.rig import PATIENCE, empty_store
from windlass import App, Breaker, ConfigError, Retry
from windlass import breaker as rule
from windlass.breaker import HOLD
from windlass.model import Demand, Doc, Ending, Failure, Lane, Outcome, RunnerInfo, WorkerInfo
from windlass.pause import Pause, may_try, view_of, write
from windlass.store.contract import PAUSE

BREAKER = Breaker(failures=3, window=10, probe=30)


class Outage(ConnectionError):
    """What fails here."""


@pytest.mark.parametrize(
    ("moments", "trips"),
    [
        ([0, 1, 2], True),
        ([0, 1], False),
        ([0, 5, 10], False),  # the first is out of the window
        ([0, 5, 9.9], True),
        ([0, 5, 10, 11], True),
        ([100, 1, 2], False),  # the clock was set back
    ],
)
def test_failures_within_the_window(moments: list[float], trips: bool) -> None:
    at: tuple[float, ...] = ()
    for moment in moments:
        at = rule.added(BREAKER, at, 1, moment)
    assert rule.trips(BREAKER, at) is trips
    assert rule.read(rule.write(at)) == at


def test_a_storm_is_kept_in_bounds() -> None:
    at = rule.added(BREAKER, (), 1_000_000, 5)
    assert at == (5, 5, 5)
    assert rule.read(b"broken") == ()


def test_one_at_a_time_may_try() -> None:
    pause = rule.opened(BREAKER, "shop.Outage", 100)
    assert pause.until == 130
    assert pause.reason == "3 failures within 10 s, the last of them shop.Outage"
    assert [may_try(pause, now) for now in (100, 129.9, 130)] == [False, False, True]
    pause = rule.taken(pause, "me", 130)
    assert [may_try(pause, now) for now in (130, 130 + HOLD - 0.1, 130 + HOLD)] == [False, False, True]
    assert may_try(rule.released(pause), 131)
    pause = rule.reopened(BREAKER, pause, "shop.Outage", 140)
    assert [may_try(pause, now) for now in (140, 169, 170)] == [False, False, True]
    assert rule.reopened(BREAKER, pause, "A", 170).reason.count("tried") == 1
    assert not may_try(Pause(since=0), 1e12)


def test_what_workers_are_told() -> None:
    docs = [
        Doc(kind="pause", name="queue:mail", version=1, body=write(Pause(since=1))),
        Doc(kind="pause", name="task:a", version=1, body=write(Pause(since=1, until=10))),
        Doc(kind="pause", name="task:b", version=1, body=b"nonsense"),
    ]
    view = view_of(docs, 10)
    assert [sorted(one) for one in (view.queues, view.tasks, view.probes)] == [["mail"], ["a", "b"], ["a"]]
    assert not view_of(docs, 9).probes


def outcome(ending: Ending, kind: str = "") -> Outcome:
    failure = Failure(type=kind, message="") if kind else None
    return Outcome(id="1", fence=1, seq=1, ending=ending, attempt=1, failure=failure)


@pytest.mark.parametrize(
    ("on", "ending", "kind", "fine"),
    [
        ((Exception,), Ending.SUCCEEDED, "", True),
        ((Exception,), Ending.FAILED, "ValueError", False),
        ((Exception,), Ending.RETRY, "far.away.Unknown", False),
        ((OSError,), Ending.RETRY, f"{__name__}.Outage", False),
        ((OSError,), Ending.FAILED, "TimeoutError", False),
        ((OSError,), Ending.FAILED, "ValueError", True),
        (("far.away.Unknown",), Ending.FAILED, "far.away.Unknown", False),
        ((OSError,), Ending.FAILED, "far.away.Unknown", True),
        ((Exception,), Ending.INTERRUPTED, "", None),
        ((Exception,), Ending.SNOOZED, "", None),
        ((Exception,), Ending.CANCELLED, "ValueError", None),
        ((Exception,), Ending.LOST, "ProcessLost", None),
    ],
)
def test_what_an_attempt_tells(on: Any, ending: Ending, kind: str, fine: bool | None) -> None:
    assert rule.verdict(Breaker(on=on), outcome(ending, kind)) is fine


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"failures": 0}, "for failures; 0 came"),
        ({"window": 0}, "for window; 0 came"),
        ({"probe": "x"}, "for probe; 'x' came"),
        ({"on": ()}, r"for on; \(\) came"),
    ],
)
def test_mistakes_are_told(given: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Breaker(**given)


def test_no_breaker() -> None:
    with pytest.raises(ConfigError, match="for breaker; 5 came"):
        App("sqlite://").task(name="t", breaker=5)(lambda: None)  # type: ignore[call-overload]


@pytest.fixture(params=["sqlite", "postgres", "redis"])
def app(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[App]:
    app = App(empty_store(request.param, tmp_path))
    yield app
    app.close()


def test_a_task_that_only_fails_is_paused_tried_and_goes_on(app: App) -> None:
    ran: list[int] = []
    inside = most = 0
    well = False

    @app.task(name="call", retry=Retry(attempts=1), breaker=Breaker(failures=3, probe=0.1, on=(Outage,)))
    async def call(n: int) -> int:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        ran.append(n)
        try:
            if not well:
                await asyncio.sleep(0.1)
                raise Outage
            return n
        finally:
            inside -= 1

    async def main() -> None:
        nonlocal most, well
        jobs = await app.aenqueue_many(call.bind(n) for n in range(60))
        async with app.worker(concurrency=2) as runner:
            while not (held := await app.queues.apaused()):
                await asyncio.sleep(0.02)
            (one,) = held
            assert (one.kind, one.name) == ("task", "call")
            assert "3 failures within 60 s" in one.reason
            assert one.until
            while "call" in runner._lanes["async"] or await app.jobs.acount(state="running"):
                await asyncio.sleep(0.02)
            assert 3 <= len(ran) < 60
            before, most = len(ran), 0
            while len(ran) < before + 1 or await app.jobs.acount(state="running"):  # a job is tried, and fails
                await asyncio.sleep(0.02)
            assert most == 1
            assert (await app.queues.apaused())[0].until
            well = True
            assert await jobs[-1].aresult(PATIENCE) == 59
            assert not await app.queues.apaused()
        await app.aclose()

    asyncio.run(main())


def test_closed_by_hand(tmp_path: Path) -> None:
    app = App(f"sqlite:///{tmp_path}/windlass.db")
    well = False

    @app.task(name="call", retry=Retry(attempts=1), breaker=Breaker(failures=1, probe=3600))
    def call() -> None:
        if not well:
            raise Outage

    async def main() -> None:
        nonlocal well
        async with app.worker():
            await call.aenqueue()
            while not await app.queues.apaused():
                await asyncio.sleep(0.02)
            job = await call.aenqueue()
            well = True
            assert await app.queues.aresume(task=call)
            await job.aresult(PATIENCE)

    asyncio.run(main())


def test_a_job_that_was_lost_before_is_tried_as_well(tmp_path: Path) -> None:
    """With nothing else to try, the breaker would stay open for ever."""
    app = App(f"sqlite:///{tmp_path}/windlass.db")

    @app.task(name="call", breaker=Breaker(failures=1, probe=0.1))
    async def call() -> None: ...

    async def main() -> None:
        store = await app.connect()
        await store.enlist(WorkerInfo(id="w", host="h", pid=1, version="1", lease=15))
        await store.join(RunnerInfo(id="r", worker="w", pid=1, tasks=("call",)))
        await call.aenqueue()
        demand = Demand(slots=1, lanes=(Lane(slots=1, tasks=frozenset({"call"})),))
        assert (await store.exchange("r", 1, [], demand)).claimed
        assert await store.release(["r"], Ending.LOST) == 1
        opened = rule.opened(Breaker(probe=0.1), "Outage", 0)
        await store.save([Doc(kind=PAUSE, name="task:call", version=0, body=write(opened))])
        async with app.worker(concurrency=2) as runner:
            while not runner._tries:
                await asyncio.sleep(0.01)
            (lane, *_) = runner._demand().lanes
            assert (lane.slots, sorted(lane.suspects)) == (1, ["call"])
        await app.aclose()

    asyncio.run(main())
