"""The tasks of `benchmarks.limits`. WINDLASS_URL names their store; starts and ends are lines of the file EFFECTS."""

import asyncio
import os
import time

from windlass import App, debounce, limit, rate
from windlass.description import WhenFull

app = App()
app.queue("aged", aging=60)
FULL: tuple[WhenFull, ...] = ("block", "reject", "drop_oldest", "shed_lowest")
for policy in FULL:
    app.queue(policy, max_length=1_000, when_full=policy)


def note(*words: object) -> None:
    """One line, written at once and whole."""
    file = os.open(os.environ["EFFECTS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, (" ".join(map(str, words)) + "\n").encode())
    os.close(file)


@app.task(name="rated", queue="rated", gates=rate("100/minute", burst=20))
async def rated(n: int) -> None:
    note("rated", n, time.time())


@app.task(name="other", queue="other")
async def other(sent: float) -> None:
    note("other", 0, time.time() - sent)


@app.task(name="keyed", gates=limit(1, key="{key}"))
async def keyed(key: int, n: int) -> None:
    note("begin", key, n, time.time(), os.getpid(), os.getppid())
    await asyncio.sleep(0.2)
    note("end", key, n, time.time(), os.getpid(), os.getppid())


@app.task(name="fair", fair_key="{tenant}")
async def fair(tenant: str) -> None:
    await asyncio.sleep(0.1)
    note("fair", tenant, time.time())


@app.task(name="plain")
async def plain() -> None:
    await asyncio.sleep(0.1)
    note("plain", 0, time.time())


@app.task(name="one", gates=limit(1))
async def one(seconds: float) -> None:
    await asyncio.sleep(seconds)


@app.task(name="free")
async def free() -> None: ...


@app.task(name="sole")
async def sole() -> None: ...


@app.task(name="saved", unique=debounce(2, max_wait=5, key="{document}"))
async def saved(document: str, n: int) -> None:
    note("saved", document, n, time.time())


@app.task(name="aged", queue="aged")
async def aged(word: str, sent: float) -> None:
    note("aged", word, sent, time.time())
    await asyncio.sleep(0.02)


@app.task(name="pushed")
async def pushed(n: int) -> None:
    await asyncio.sleep(0.02)
    note("pushed", n)


@app.task(name="parent")
async def parent(levels: int, children: int) -> int:
    """How many jobs it and its children are."""
    jobs = await app.aenqueue_many([parent.bind(levels - 1, children) for _ in range(children if levels else 0)])
    return 1 + sum([await job.aresult() for job in jobs])


@app.task(name="single", gates=limit(1))
async def single(levels: int, children: int) -> int:
    """The same, one at a time everywhere."""
    jobs = await app.aenqueue_many([single.bind(levels - 1, children) for _ in range(children if levels else 0)])
    return 1 + sum([await job.aresult() for job in jobs])
