"""Wrong calls, one per line: each must be flagged by every type checker. Never run, only checked."""

from tests.typing.tasks import Order, add, app, mail, render, sweep
from windlass import App, Job, Outbox, Retry, Task, current

order = Order(1, [])
add.enqueue()  # wrong
add.enqueue("1")  # wrong
add.enqueue(1, 2, 3)  # wrong
add.enqueue(1, c=3)  # wrong
add.enqueue(1, a=1)  # wrong
add.enqueue(a="1")  # wrong
add.enqueue(1, delay=60)  # wrong
add("1")  # wrong
mail.enqueue(42, True)  # wrong
mail.enqueue(42, copy="yes")  # wrong
mail.enqueue(None)  # wrong
render.enqueue(path="a.pdf", order=order)  # wrong
render.enqueue("a.pdf", order, "1")  # wrong
render.enqueue("a.pdf", order, bold="1")  # wrong
render.enqueue("a.pdf", {"id": 1, "lines": []})  # wrong
sweep.enqueue("2024")  # wrong
add.bind("1")  # wrong
add.using(delay="60")  # wrong
add.using(priority=1).enqueue("1")  # wrong
add.using(prio=1)  # wrong
add.using(tags=[1])  # wrong
add.using(run_at="2030-01-01")  # wrong
add.using(retry="often")  # wrong
add.using(unique=42)  # wrong
text: str = add.enqueue(1).result()  # wrong
number: Job[int] = mail.enqueue(42)  # wrong
app.enqueue_many([1, 2])  # wrong
app.jobs.find(limit="5")  # wrong
App(concurency=3)  # wrong
App(lease="15")  # wrong
Retry(attempts="5")  # wrong
app.task(executor="fiber")  # wrong
app.task(timeout="30")  # wrong
app.task(42)  # wrong
add.enqueue(1).result(timeout="1")  # wrong
takes_text: Task[[str], int] = add  # wrong
Outbox(app)  # wrong
Outbox(app, "sqlite:///shop.db").put(object(), 42)  # wrong
Outbox(app, "sqlite:///shop.db").put(object(), add.bind("1"))  # wrong
current().transaction(outcome=3)  # wrong


async def in_async_code() -> None:
    await add.aenqueue("1")  # wrong
    await add.enqueue(1)  # wrong
    await add(1)  # wrong
    add(await mail(42))  # wrong
    await mail(await (await mail.aenqueue(1)).aresult())  # wrong
    await app.jobs.aget(42)  # wrong


app.webhook("/add")(add)  # wrong
app.webhook("/add", verify=None)(add)  # wrong
app.webhook("/add", verify=len)(add)  # wrong
add.using(on_success=print)  # wrong
add.using(on_final="shop.add")  # wrong
add.using(callback_url=42)  # wrong
