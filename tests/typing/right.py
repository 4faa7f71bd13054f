"""Right calls: no type checker may object to any. Never run, only checked."""

import sqlite3
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, assert_type
from uuid import UUID

from tests.typing.tasks import Order, add, app, mail, render, sweep
from windlass import App, Breaker, Job, Outbox, Retry, State, Task, current
from windlass.model import Failure, Progress
from windlass.source.verify import github, unsigned

order = Order(1, ["a"])
assert_type(add.enqueue(1), Job[int])
assert_type(add.enqueue(1, 2), Job[int])
assert_type(add.enqueue(a=1, b=2), Job[int])
assert_type(add.enqueue(1).result(), int)
assert_type(add.enqueue(1).result(timeout=10), int)
assert_type(add(1, b=3), int)
assert_type(mail.enqueue(42, copy=True), Job[str])
assert_type(mail.enqueue(order_id=42).result(timedelta(seconds=1)), str)
coroutine: Coroutine[Any, Any, str] = mail(42)
assert_type(render.enqueue("a.pdf", order, 1, 2, 3, bold=0.5), Job[list[str]])
assert_type(render("a.pdf", order=order), list[str])
assert_type(sweep.enqueue().result(), None)
assert_type(sweep.enqueue(UUID(int=1)), Job[None])
assert_type(add.using(queue="slow", priority=-5, tags=["eu", "vip"]).enqueue(1), Job[int])
assert_type(add.using(delay=60, expires_in=timedelta(hours=1)).enqueue(1).state, str)
assert_type(mail.using(run_at=datetime.now(UTC), unique="order:42").enqueue(42), Job[str])
another: Coroutine[Any, Any, str] = mail.using(run_after=datetime.now(UTC)).using(timeout=None)(42)
assert_type(mail.using(retry=Retry(2, on=(OSError, "httpx.TimeoutException")), meta={"who": [1]}).enqueue(1).new, bool)
assert_type(add.using(retry=3, id="order-42").enqueue(1).id, str)
assert_type(app.enqueue_many([add.bind(n) for n in range(10)]), list[Job[int]])
assert_type(app.enqueue_many(add.using(priority=1).bind(n, b=n) for n in range(10))[0].result(), int)
assert_type(app.jobs.get("id").refresh().error, Failure | None)
assert_type(app.jobs.find(state=State.FAILED, task=add, limit=5)[0].progress, Progress | None)
assert_type(app.jobs.count(queue="mail", tag="eu"), int)
assert_type(app.queues.pause("mail", reason="a deploy"), None)
assert_type(app.queues.resume(task=add), bool)
assert_type(app.queues.list()[0].empty_in, float | None)
assert_type(app.queues.paused()[0].until, datetime | None)
app.queue("mail", max_length=10_000, when_full="block", max_wait=timedelta(seconds=2))
app.task(breaker=Breaker(failures=5, window=timedelta(minutes=1), on=(OSError, "httpx.TimeoutException")))
assert_type(app.jobs.cancel(task="shop.add"), int)
assert_type(add.enqueue(1).cancel(), bool)
assert_type(add.enqueue(1).retry(), bool)


outbox = Outbox(app, "sqlite:///shop.db", table="jobs_out")
assert_type(add.using(tx=sqlite3.connect("typing.db")).enqueue(1), Job[int])
assert_type(app.enqueue_many([add.bind(1)], tx="default"), list[Job[int]])
assert_type(outbox.put("default", mail.using(delay=60).bind(42, copy=True)), Job[str])
assert_type(outbox.put_many("default", [add.bind(n) for n in range(3)]), list[Job[int]])
assert_type(outbox.ddl, str)


def in_a_task() -> None:
    with current().transaction(result=3) as connection:
        connection.execute("SELECT 1")
    transaction = current().transaction()
    transaction.result = 4


async def in_async_code(known: Task[[int], str]) -> None:
    assert_type(await add.aenqueue(1), Job[int])
    assert_type(await (await mail.aenqueue(42, copy=True)).aresult(timeout=1), str)
    assert_type(await app.aenqueue_many([mail.bind(1), mail.bind(2)]), list[Job[str]])
    assert_type(await app.aenqueue_many([add.bind(1)], tx=object()), list[Job[int]])
    assert_type(await outbox.aput(object(), add.bind(1)), Job[int])
    async with current().transaction() as connection:
        await connection.execute("SELECT 1")
    assert_type(await mail(42), str)
    assert_type(await app.jobs.acount(), int)
    assert_type(known.enqueue(1).result(), str)
    assert_type((await app.jobs.aget("id")).attempt, int)
    async with app.worker(concurrency=5):
        await (await add.aenqueue(1)).arefresh()


followed = add.using(on_success=[add.bind(1), sweep], on_final=sweep, callback_url="https://example.com/")
assert_type(followed.enqueue(1), Job[int])


@app.task(on_failure=add.bind(1), on_final=(sweep,))
async def led(n: int) -> str:
    return str(n)


assert_type(led.enqueue(1).result(), str)
signed = app.webhook("/add", verify=github("secret"), headers={"b": "X-B"}, max_size=1000)(add)
assert_type(signed.enqueue(1), Job[int])
assert_type(app.webhook("/mail", verify=unsigned)(mail.using(priority=1)).enqueue(1, copy=True).result(), str)
other = App(queues="mail:3,default", keep={"failed": timedelta(days=7)}, max_payload=2**20, grace=5.0)


def double(n: int) -> int:
    return n * 2


assert_type(other.task(name="other.double")(double).enqueue(1).result(), int)
assert_type(other.task(double)(1), int)
