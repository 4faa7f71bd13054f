"""An app on a SQLite store, as its users see it. What a worker would do to jobs is done here by hand."""

import asyncio
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from windlass import (
    App,
    CallError,
    ConfigError,
    DecodeError,
    Job,
    JobCancelled,
    JobFailed,
    JobNotFound,
    ResultTimeout,
    State,
    StoreUnavailable,
)
from windlass.blocking import run
from windlass.model import (
    Claim,
    Demand,
    Ending,
    Failure,
    Lane,
    NewJob,
    Outcome,
    Patch,
    Placed,
    Progress,
    RunnerInfo,
    WorkerInfo,
)
from windlass.store.contract import BATCH


@dataclass
class Receipt:
    order_id: int
    paid: datetime


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    app = App(f"sqlite:///{tmp_path}/windlass.db")
    yield app
    app.close()


class Hand:
    """A worker that does what it is told."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.seq = 0

    def claim(self, slots: int = 1) -> list[Claim]:
        return run(self._claim(slots))

    async def _claim(self, slots: int) -> list[Claim]:
        store = await self.app.connect()
        if not self.seq:
            await store.enlist(WorkerInfo(id=f"w{id(self)}", host="h", pid=1, version="0", lease=15.0))
            await store.join(RunnerInfo(id=f"r{id(self)}", worker=f"w{id(self)}", pid=2))
        self.seq += 1
        lane = Lane(slots=slots, tasks=frozenset(self.app.tasks))
        return list((await store.exchange(f"r{id(self)}", self.seq, (), Demand(slots=slots, lanes=(lane,)))).claimed)

    def end(self, claim: Claim, ending: Ending, **fields: Any) -> None:
        async def settle() -> None:
            outcome = Outcome(
                id=claim.id, fence=claim.fence, seq=claim.seq, ending=ending, attempt=claim.attempt + 1, **fields
            )
            assert await (await self.app.connect()).settle(f"r{id(self)}", outcome)

        run(settle())

    def note(self, claim: Claim, progress: Progress) -> None:
        async def note() -> None:
            patch = Patch(id=claim.id, fence=claim.fence, seq=claim.seq, progress=progress)
            await (await self.app.connect()).note(f"r{id(self)}", [patch])

        run(note())


def task_of(app: App) -> Any:
    @app.task(name="shop.pay")
    def pay(order_id: int, at: datetime | None = None) -> Receipt:
        return Receipt(order_id, at or datetime.now(UTC))

    return pay


# One job


def test_a_new_job_is_known_without_asking(app: App) -> None:
    job = task_of(app).using(tags=["eu"], meta={"by": "me"}, queue="mail", priority=3).enqueue(42)
    app.close()
    Path(app.config.url.removeprefix("sqlite:///")).unlink()
    assert (job.state, job.new, job.task, job.queue, job.priority) == ("ready", True, "shop.pay", "mail", 3)
    assert (job.args, job.tags, job.meta) == ({"order_id": 42}, ("eu",), {"by": "me"})


def test_a_jobs_life(app: App) -> None:
    job = task_of(app).enqueue(42)
    hand = Hand(app)
    [claim] = hand.claim()
    hand.note(claim, Progress(done=1, total=2, note="half"))
    assert job.state == "ready"
    assert job.refresh() is job
    assert (job.state, job.attempt, job.progress) == ("running", 1, Progress(done=1, total=2, note="half"))
    hand.end(claim, Ending.RETRY, failure=Failure(type="ValueError", message="bad", traceback="tb"))
    [claim] = hand.claim()
    job.refresh()
    assert (job.attempt, len(job.attempts), job.error and job.error.message) == (2, 1, "bad")
    receipt = Receipt(42, datetime(2030, 1, 1, tzinfo=UTC))
    hand.end(claim, Ending.SUCCEEDED, result=app.tasks["shop.pay"].shape.encode_result(receipt, 1000))
    assert job.result(timeout=1) == receipt
    assert (job.state, job.attempt, job.error) == ("succeeded", 2, None)
    assert job.started_at
    assert job.finished_at
    assert job.enqueued_at <= job.run_at <= job.started_at <= job.finished_at
    assert job.enqueued_at.tzinfo is UTC


def test_a_job_is_watched_to_its_end(app: App) -> None:
    job = task_of(app).enqueue(42)
    hand = Hand(app)
    claims: list[Claim] = []
    acts: Iterator[Callable[[], object]] = iter(
        [
            lambda: claims.extend(hand.claim()),
            lambda: hand.note(claims[0], Progress(done=1, total=2, note="half")),
            lambda: hand.end(claims[0], Ending.SUCCEEDED),
        ]
    )
    seen = []
    for step in job.watch():
        seen.append((step.state, step.attempt, step.done, step.total, step.note))
        next(acts, lambda: None)()
    half = (1.0, 2.0, "half")
    assert seen == [
        ("ready", 0, 0, None, ""),
        ("running", 1, 0, None, ""),
        ("running", 1, *half),
        (*seen[-1][:2], *half),
    ]
    assert seen[-1][:2] == ("succeeded", 1)

    async def main() -> list[str]:
        return [step.state async for step in (await app.jobs.aget(job.id)).watch()]

    assert asyncio.run(main()) == ["succeeded"]
    assert job.delete()
    with pytest.raises(JobNotFound):
        list(job.watch())


def test_a_failed_job_tells_why(app: App) -> None:
    job = task_of(app).enqueue(1)
    hand = Hand(app)
    hand.end(hand.claim()[0], Ending.FAILED, failure=Failure(type="shop.Broke", message="no money", traceback="line 1"))
    with pytest.raises(JobFailed, match=r"shop\.pay.* failed at attempt 1: shop\.Broke: no money") as found:
        job.result()
    assert (found.value.type, found.value.traceback) == ("shop.Broke", "line 1")
    assert job.retry()
    assert job.state == "ready"
    assert not job.retry()


def test_a_cancelled_job_tells_why(app: App) -> None:
    job = task_of(app).using(delay=timedelta(days=1)).enqueue(1)
    assert (job.state, job.cancel(), job.state, job.cancel()) == ("scheduled", True, "cancelled", False)
    with pytest.raises(JobCancelled, match="cancelled by an operator"):
        job.result()


def test_a_result_in_time_or_not(app: App) -> None:
    job = task_of(app).enqueue(1)
    began = time.monotonic()
    with pytest.raises(ResultTimeout, match=r"was ready when the 0\.2 s"):
        job.result(timeout=0.2)
    assert time.monotonic() - began >= 0.2
    with pytest.raises(ResultTimeout):
        job.result(0)
    hand = Hand(app)
    [claim] = hand.claim()

    def end() -> None:
        time.sleep(0.4)
        hand.end(claim, Ending.CANCELLED, reason="enough")

    thread = threading.Thread(target=end)
    thread.start()
    with pytest.raises(JobCancelled, match="enough"):
        job.result(timedelta(seconds=30))
    thread.join()


def test_a_result_that_does_not_fit_the_annotation(app: App) -> None:
    job = task_of(app).enqueue(1)
    hand = Hand(app)
    hand.end(hand.claim()[0], Ending.SUCCEEDED, result=b'{"order_id":"x"}')
    with pytest.raises(DecodeError, match=r"shop\.pay.*order_id"):
        job.result()


def test_a_result_of_a_task_that_is_not_known_here(app: App) -> None:
    job = task_of(app).enqueue(1)
    hand = Hand(app)
    hand.end(hand.claim()[0], Ending.SUCCEEDED, result=b'{"order_id":1}')
    other = App(app.config.url)
    assert other.jobs.get(job.id).result() == {"order_id": 1}
    other.close()


def test_one_live_job_per_unique_key(app: App) -> None:
    pay = task_of(app)
    first, second = (pay.using(unique="order:1", meta={"n": n}).enqueue(n) for n in (1, 2))
    assert (first.new, second.new, first == second, len({first, second})) == (True, False, True, 1)
    assert (second.args, second.meta) == ({"order_id": 1}, {"n": 1})
    assert pay.using(unique="order:2").enqueue(1).new
    first.cancel()
    assert pay.using(unique="order:1").enqueue(3).new


def test_an_id_makes_repeating_safe(app: App) -> None:
    pay = task_of(app).using(id="order-1")
    assert [pay.enqueue(1).new, pay.enqueue(1).new, app.jobs.count()] == [True, False, 1]


def test_deleting(app: App) -> None:
    job = task_of(app).enqueue(1)
    assert job.delete()
    for look in (job.refresh, job.delete, job.result, lambda: app.jobs.get(job.id)):
        with pytest.raises(JobNotFound, match=job.id):
            look()


# Many jobs


def test_many_at_once_in_order(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    pay = task_of(app)
    store = run(app.connect())
    calls: list[int] = []
    put_now = store.put_now

    def counting(jobs: Sequence[NewJob], timeout: float) -> list[Placed]:
        calls.append(len(jobs))
        return put_now(jobs, timeout)

    monkeypatch.setattr(store, "put_now", counting)
    jobs = app.enqueue_many(pay.bind(n) for n in range(3000))
    assert calls == [3000]
    assert [job.args["order_id"] for job in jobs] == list(range(3000))
    assert [claim.id for claim in Hand(app).claim(100)] == [job.id for job in jobs[:100]]
    assert app.enqueue_many([]) == []
    assert calls == [3000]


def test_finding_and_counting(app: App) -> None:
    pay = task_of(app)
    app.enqueue_many([pay.using(queue=f"q{n % 2}", tags=[f"t{n % 3}"]).bind(n) for n in range(12)])
    pay.using(delay=60).enqueue(99)
    assert app.jobs.count() == 13
    assert app.jobs.count(queue="q1", tag="t2") == 2
    assert app.jobs.count(state=State.SCHEDULED) == app.jobs.count(state="scheduled", task=pay) == 1
    assert {job.args["order_id"] for job in app.jobs.find(queue="q0", tag="t0")} == {0, 6}
    seen: list[Job[Any]] = []
    page = app.jobs.find(task="shop.pay", limit=5)
    while True:
        seen += page
        if page.after is None:
            break
        page = app.jobs.find(task="shop.pay", limit=5, after=page.after)
    assert (len(seen), len(set(seen))) == (13, 13)
    assert app.jobs.get_many([seen[0].id, "no such job", seen[1].id]) == seen[:2]
    with pytest.raises(ConfigError, match="'done' came"):
        app.jobs.find(state="done")


def test_acting_on_many(app: App) -> None:
    pay = task_of(app)
    app.enqueue_many([pay.bind(n) for n in range(2 * BATCH + 1)])
    pay.using(queue="other").enqueue(0)
    assert app.jobs.cancel(queue="default") == 2 * BATCH + 1
    assert app.jobs.retry(queue="default") == 0
    assert app.jobs.retry(state="cancelled", task=pay) == 2 * BATCH + 1
    assert app.jobs.delete(state="ready", queue="default") == 2 * BATCH + 1
    assert app.jobs.count() == 1
    acts: list[Callable[[], int]] = [app.jobs.cancel, app.jobs.delete, lambda: app.jobs.retry(state=None)]
    for act in acts:
        with pytest.raises(CallError, match="every job"):
            act()


# Async code


def test_the_same_in_async_code(app: App) -> None:
    pay = task_of(app)

    async def main() -> None:
        job = await pay.using(unique="x").aenqueue(1)
        assert (job.state, job.args) == ("ready", {"order_id": 1})
        many = await app.aenqueue_many([pay.bind(n) for n in range(10)])
        assert [await app.jobs.acount(), (await app.jobs.aget(job.id)).attempt, len(many)] == [11, 0, 10]
        assert len(await app.jobs.afind(task=pay, limit=3)) == 3
        with pytest.raises(ResultTimeout):
            await job.aresult(timeout=0.05)
        assert await job.acancel()
        assert await app.jobs.adelete(task=pay) == 11
        with pytest.raises(JobNotFound):
            await job.arefresh()
        await app.aclose()

    for _ in range(2):
        asyncio.run(main())


def test_blocking_calls_in_async_code_say_what_to_do(app: App) -> None:
    pay = task_of(app)

    async def main() -> None:
        job = await pay.aenqueue(1)
        for call, twin in (
            (lambda: pay.enqueue(1), "await aenqueue("),
            (lambda: app.enqueue_many([pay.bind(1), pay.bind(2)]), "await aenqueue_many("),
            (lambda: job.result(1), "await aresult("),
            (job.cancel, "await acancel("),
            (lambda: job.attempt, "await arefresh("),
            (lambda: list(job.watch()), "write async for"),
            (app.jobs.count, "await acount("),
            (app.close, "await aclose("),
        ):
            with pytest.raises(RuntimeError) as found:
                call()
            assert twin in str(found.value)

    asyncio.run(main())
    assert app.jobs.count() == 1


def test_blocking_and_async_code_share_a_store_in_memory() -> None:
    app = App("sqlite:///:memory:")
    pay = task_of(app)
    pay.enqueue(1)

    async def main() -> int:
        await pay.aenqueue(2)
        return await app.jobs.acount()

    assert asyncio.run(main()) == 2 == app.jobs.count()
    app.close()


def test_many_event_loops_leave_no_threads(app: App) -> None:
    pay = task_of(app)
    pay.enqueue(0)
    before = threading.active_count()

    async def main() -> None:
        await asyncio.gather(*(pay.aenqueue(n) for n in range(10)))

    for _ in range(10):
        asyncio.run(main())
    assert threading.active_count() <= before + 5
    assert app.jobs.count() == 101


# Threads, forks, stores that are not there


def test_many_threads(app: App) -> None:
    pay = task_of(app)
    threads = [threading.Thread(target=lambda: [pay.enqueue(n) for n in range(20)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert app.jobs.count() == 160


def test_a_closed_app_opens_again(app: App) -> None:
    pay = task_of(app)
    pay.enqueue(1)
    app.close()
    app.close()
    pay.enqueue(2)
    assert app.jobs.count() == 2


def test_a_forked_child_has_a_store_of_its_own(tmp_path: Path) -> None:
    code = textwrap.dedent("""
        import os, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        from windlass import App
        app = App("sqlite:///fork.db")
        @app.task(name="add")
        def add(n: int) -> int: ...
        ids = {add.enqueue(0).id}
        children = []
        for n in range(3):
            reading, writing = os.pipe()
            child = os.fork()
            if not child:
                made = [add.enqueue(n).id for n in range(20)]
                assert app.jobs.get(made[0]).refresh().state == "ready"
                os.write(writing, " ".join(made).encode())
                os._exit(0)
            children.append((child, reading))
            ids |= {add.enqueue(n).id for n in range(20)}
        for child, reading in children:
            assert os.waitpid(child, 0)[1] == 0
            ids |= set(os.read(reading, 65536).decode().split())
        assert len(ids) == 121 == app.jobs.count(), (len(ids), app.jobs.count())
    """)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_process_ends_at_once_and_quietly(tmp_path: Path) -> None:
    code = (
        "from windlass import App; a = App('sqlite:///x.db'); t = a.task(name='t')(print); t.enqueue(); a.jobs.count()"
    )
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],  # not -X dev: asyncio then complains of a busy machine
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert time.monotonic() - began < 10


def test_a_store_that_cannot_be_opened(tmp_path: Path) -> None:
    app = App(f"sqlite:///{tmp_path}/no/such/folder/windlass.db")
    with pytest.raises(StoreUnavailable, match="no/such/folder"):
        task_of(app).enqueue(1)
    (tmp_path / "no/such/folder").mkdir(parents=True)
    assert task_of(app).enqueue(1).new
    app.close()


def test_a_url_that_names_no_store() -> None:
    with pytest.raises(ConfigError, match="'mysql' names no store"):
        task_of(App("mysql://x")).enqueue(1)


def test_a_transaction_of_the_callers_own_is_refused_for_now(app: App) -> None:
    with pytest.raises(ConfigError, match="expected a SQLAlchemy"):
        task_of(app).using(tx=object()).enqueue(1)
