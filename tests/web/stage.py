"""A store with something of everything, for looking at the dashboard: jobs in each state, workers, schedules.

`python -m tests.web.stage URL` fills a store, for looking around by hand.
"""

import asyncio
import sys
import time
from typing import Annotated, Any, TypedDict

from tests.web.hostile import HOSTILE
from windlass import App, Breaker, Secret, limit, pause, rate, usage
from windlass.model import (
    EMPTY,
    Demand,
    Depth,
    Doc,
    Ending,
    Failure,
    Lane,
    Need,
    NewJob,
    Outcome,
    Patch,
    Progress,
    RunnerInfo,
    Tally,
    Verb,
    WorkerInfo,
)
from windlass.pause import Pause
from windlass.store.contract import PAUSE, REPORT, Store
from windlass.timing import cron, every
from windlass.usage import Report, Usage
from windlass.values import plain_bytes

TRACE = """Traceback (most recent call last):
  File "/srv/shop/pay.py", line 48, in charge
    answer = await gateway.post("/charges", amount)
  File "/srv/shop/gateway.py", line 112, in post
    raise Refused(answer.reason)
shop.gateway.Refused: card_declined: the bank of the customer said no"""

QUEUES = {"shop.pay.charge": "payments", "shop.mail.receipt": "mail", "shop.pictures.resize": "pictures"}
TASKS = frozenset(QUEUES)


def make_app(url: str) -> App:
    """The app whose jobs these are."""
    app = App(url)
    app.gate("gateway", limit(3))

    @app.task(name="shop.pay.charge", queue="payments", gates=rate("100/minute", burst=5))
    def charge(order: int, card: Annotated[str, Secret()] = "", note: str = "") -> str:
        return f"{order} {len(card)} {note}"

    @app.task(name="shop.mail.receipt", queue="mail")
    def receipt(order: int, amount: str = "", lines: tuple[Line, ...] = ()) -> None: ...

    @app.task(name="shop.reports.nightly", queue="reports", breaker=Breaker(failures=3))
    def nightly() -> None: ...

    return app


def new(id: str, task: str, **more: Any) -> NewJob:
    """A job as data."""
    args = more.pop("args", b'{"order": 90071992547409931, "amount": "48.20", "lines": [{"sku": "A-1", "count": 2}]}')
    return NewJob(id=id, task=task, args=args, **{"queue": QUEUES.get(task, "default"), **more})


class Line(TypedDict):
    """A line of an order."""

    sku: str
    count: int


async def fill(app: App) -> None:
    """Everything, once."""
    store = await app.connect()
    await enlist(store, "worker-aaaa1111", "web-1.example", 4121, 2)
    await enlist(store, "worker-bbbb2222", "web-2.example", 991, 1)
    jobs = [new(f"done-{n:02}", task) for n in range(9) for task in (sorted(TASKS)[n % 3],)]
    jobs += [new(f"fail-{n:02}", "shop.pay.charge" if n % 3 else "shop.mail.receipt", tags=("eu",)) for n in range(7)]
    await store.put(jobs)
    await settle(store, jobs)
    await app.gates.aset("gateway", limit(3))
    eu = (Need("gateway/eu", 2),)
    await store.put([new(f"run-{n}", "shop.pictures.resize", gates=eu if n == 2 else ()) for n in range(3)])
    for claim in await claim_all(store, "runner-1-aaaa1111", 3):
        progress = Progress(done=30, total=120, note="page 30")
        await store.note("runner-1-aaaa1111", [Patch(id=claim.id, fence=claim.fence, seq=claim.seq, progress=progress)])
    receipt = app.tasks["shop.mail.receipt"]
    told = receipt.using(queue="family", on_failure=receipt.bind(3)).bind(2)
    await receipt.using(id="sent-01", queue="family", on_success=told, on_failure=receipt.bind(4)).aenqueue(1)
    claim = (await claim_all(store, "runner-2-aaaa1111", 9, 3))[0]
    done = Outcome(id=claim.id, fence=claim.fence, seq=claim.seq, ending=Ending.SUCCEEDED, attempt=1, result=b"null")
    await store.settle("runner-2-aaaa1111", done)
    minute = int(time.time() // 60)
    rows = [
        Tally(
            minute=minute - ago, queue="mail", task="shop.mail.receipt", started=20, succeeded=10 + ago % 9,
            failed=ago % 4, waits=(*EMPTY[:3], 12, 6, 2, *EMPTY[6:]), runs=(*EMPTY[:5], 15, 4, 1, *EMPTY[8:]),
        )
        for ago in range(1, 50)
        if ago % 11
    ]  # fmt: skip
    await store.tally(rows, [Depth(minute=minute - ago, queue="mail", ready=ago * ago % 37) for ago in range(1, 50)])
    ready = [new(f"ready-{n:02}", sorted(TASKS)[n % 3], priority=n % 2 * 10) for n in range(14)]
    later = [new(f"later-{n:02}", "shop.mail.receipt", delay=600.0 * (n + 1)) for n in range(5)]
    await store.put([*ready, *later, new("orphan-01", "shop.old.export", queue="legacy")])
    await store.put([new("orphan-02", "shop.old.export", queue="legacy", gates=(Need("gateway"),))])
    await app.queues.apause("reports", reason="the warehouse is being moved")
    now = time.time()
    broken = Pause(since=now - 90, until=now + 3_600, reason="3 failures within 60 s, the last of them TimeoutError")
    await store.save([Doc(kind=PAUSE, name="task:shop.reports.nightly", version=0, body=pause.write(broken))])
    await store.act(["later-04"], Verb.CANCEL)
    await (
        app.tasks["shop.pay.charge"]
        .using(id="secret-01", delay=3_600, meta={"by": "anna"})
        .aenqueue(7, "4111-SECRET-1111")
    )
    await store.put(
        [new("hostile-01", "shop.pay.charge", args=b'{"note": ' + plain_bytes(HOSTILE) + b"}", delay=1_800)]
    )
    charge = app.tasks["shop.pay.charge"]
    await app.schedules.acreate(
        "nightly-report", cron("30 2 * * MON-FRI", tz="Europe/Berlin"), app.tasks["shop.reports.nightly"]
    )
    await app.schedules.acreate("charge-due", every(minutes=5), charge.bind(1), jitter=20)
    await app.schedules.acreate("quarterly", cron("0 6 1 */3 *", tz="America/New_York"), charge.bind(4), paused=True)
    await app.schedules.atrigger("charge-due")


async def enlist(store: Store, id: str, host: str, pid: int, runners: int) -> None:
    """A worker with its runners, and what it takes."""
    await store.enlist(
        WorkerInfo(
            id=id, host=host, pid=pid, version="0.1.0", lease=86_400, concurrency=25, started_at=time.time() - 9_000
        )
    )
    for n in range(1, runners + 1):
        await store.join(
            RunnerInfo(
                id=f"runner-{n}-{id[-8:]}", worker=id, pid=pid + n, tasks=(*sorted(TASKS), "shop.reports.nightly")
            )
        )
    takes = {f"runner-{n}-{id[-8:]}": Usage(memory=(90 + 37 * n) << 20, cpu=0.35 * n) for n in range(1, runners + 1)}
    total = Usage(memory=sum(one.memory for one in takes.values()) + (34 << 20), cpu=1.06 if runners > 1 else 0.36)
    report = Report(total=total, runners=takes)
    await store.save([Doc(kind=REPORT, name=id, version=0, body=usage.write(report))])


async def claim_all(store: Store, runner: str, slots: int, seq: int = 1) -> tuple[Any, ...]:
    """What a runner is given."""
    lane = Lane(slots=slots, tasks=TASKS)
    return (await store.exchange(runner, seq, [], Demand(slots=slots, lanes=(lane,)))).claimed


async def settle(store: Store, jobs: list[NewJob]) -> None:
    """Run what can be: done ones succeed, the others fail at the second try."""
    failure = Failure(
        type="shop.gateway.Refused", message="card_declined: the bank of the customer said no", traceback=TRACE
    )
    other = Failure(
        type="TimeoutError", message=f"mail.example did not answer within 30 s {HOSTILE[0]}", traceback=TRACE
    )
    for attempt in (1, 2):
        for claim in await claim_all(store, "runner-2-aaaa1111", len(jobs), attempt):
            good = claim.id.startswith("done")
            ending = Ending.SUCCEEDED if good else Ending.RETRY if attempt == 1 else Ending.FAILED
            await store.settle(
                "runner-2-aaaa1111",
                Outcome(
                    id=claim.id,
                    fence=claim.fence,
                    seq=claim.seq,
                    ending=ending,
                    attempt=attempt,
                    result=b'{"receipt": 4711}' if good else None,
                    failure=None if good else failure if claim.task == "shop.pay.charge" else other,
                ),
            )


if __name__ == "__main__":
    asyncio.run(fill(make_app(sys.argv[1])))
