"""Fifty people with the dashboard open: what they ask the store for, and how soon they see that something changed."""

import asyncio
import contextlib
import re
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import cycle, islice
from typing import Any

import httpx2
import uvicorn

from windlass import App
from windlass.model import NewJob, Verb
from windlass.store.contract import Store
from windlass.store.postgres.link import AsyncLink
from windlass.store.redis.link import Link
from windlass.store.sqlite.store import SQLiteStore
from windlass.web import Dashboard

VIEWERS = 50
PAGES = (
    "/",
    "/queues",
    "/",
    "/jobs",
    "/failures",
    "/jobs?state=running",
    "/",
    "/workers",
    "/queues/q3",
    "/jobs?state=failed",
)
"""What they look at, in turn."""

CHANGES = 20
SEEN = "seen-by-all"
"""The job whose state changes."""

HEADING = re.compile(r"<h1>.*?</h1>", re.DOTALL)


@contextlib.asynccontextmanager
async def served(app: App) -> AsyncIterator[httpx2.AsyncClient]:
    """Its dashboard at a real port, and a client with room for everybody."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        dashboard = Dashboard(app)
        server = uvicorn.Server(uvicorn.Config(dashboard, log_level="warning", timeout_graceful_shutdown=1))
        work = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started:
            await asyncio.sleep(0.01)
        limits = httpx2.Limits(max_connections=3 * VIEWERS)
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with httpx2.AsyncClient(base_url=address, limits=limits, timeout=60) as client:
            yield client
        dashboard.end_streams()
        server.should_exit = True
        await work


async def follow(client: httpx2.AsyncClient, path: str, show: Callable[[str], None]) -> None:
    """Look at a page again when there is news, once for all that came meanwhile, as app.js does."""
    headers, news = {"x-live": "1"}, asyncio.Event()
    hearing = asyncio.create_task(hear(client, news))
    try:
        while await news.wait():
            news.clear()
            answer = await client.get(path, headers=headers)
            if answer.status_code == 200:
                headers["if-none-match"] = answer.headers["etag"]
                show(answer.text)
            if news.is_set():
                await asyncio.sleep(0.25)
    finally:
        await end(hearing)


async def hear(client: httpx2.AsyncClient, news: asyncio.Event) -> None:
    """Tell of what the dashboard tells of."""
    async with client.stream("GET", "/live") as stream:
        async for line in stream.aiter_lines():
            if line.startswith("data:"):
                news.set()


@contextlib.asynccontextmanager
async def open_pages(client: httpx2.AsyncClient) -> AsyncIterator[None]:
    """All of them look."""
    looking = [asyncio.create_task(follow(client, path, lambda _: None)) for path in islice(cycle(PAGES), VIEWERS)]
    try:
        await asyncio.sleep(5)
        yield
    finally:
        await end(*looking)


@contextlib.contextmanager
def counted(sent: list[str]) -> Iterator[None]:
    """Collect what this process sends to stores meanwhile: statements, or requests of Redis."""
    rows, run, connect = AsyncLink.rows, Link.run, SQLiteStore._connect

    async def call_postgres(self: AsyncLink, first: Any, *args: Any, **more: Any) -> Any:
        sent.append(first.sql)
        return await rows(self, first, *args, **more)

    async def call_redis(self: Link, request: Any, *args: Any) -> Any:
        sent.append(str(request))
        return await run(self, request, *args)

    def connect_sqlite(self: SQLiteStore) -> Any:
        db = connect(self)
        db.set_trace_callback(sent.append)
        return db

    classes: list[tuple[type, str, Any]] = [
        (AsyncLink, "rows", call_postgres),
        (Link, "run", call_redis),
        (SQLiteStore, "_connect", connect_sqlite),
    ]
    before = [getattr(kind, name) for kind, name, _ in classes]
    for kind, name, ours in classes:
        setattr(kind, name, ours)
    try:
        yield
    finally:
        for (kind, name, _), old in zip(classes, before, strict=True):
            setattr(kind, name, old)


async def statements(app: App, seconds: float) -> float:
    """How many statements a second all of them cost the store."""
    sent: list[str] = []
    with counted(sent):
        async with served(app) as client, open_pages(client):
            before = len(sent)
            await asyncio.sleep(seconds)
            return (len(sent) - before) / seconds


async def delays(app: App, store: Store) -> tuple[list[float], list[float]]:
    """Seconds from when a job's state has changed until an open page shows it: the only one, and one of all."""
    await store.put([NewJob(id=SEEN, task="shop.tasks.t1", queue="seen", args=b"{}", delay=86_400)])
    async with served(app) as client:
        alone = await changes(client, store)
        async with open_pages(client):
            return alone, await changes(client, store)


async def changes(client: httpx2.AsyncClient, store: Store) -> list[float]:
    """The same, as often as CHANGES."""
    page, shown = asyncio.Queue[str](), list[float]()
    work = asyncio.create_task(follow(client, f"/jobs/{SEEN}", page.put_nowait))
    verbs = cycle([(Verb.CANCEL, "cancelled"), (Verb.RETRY, "ready")])
    try:
        await page.get()
        for n, (verb, state) in enumerate(islice(verbs, CHANGES)):
            await asyncio.sleep(2 + 0.37 * n % 1)
            await store.act([SEEN], verb)
            began = time.monotonic()
            while state not in "".join(HEADING.findall(await page.get())):
                pass
            shown.append(time.monotonic() - began)
    finally:
        await end(work)
    return shown


async def end(*looking: asyncio.Task[None]) -> None:
    """Close some pages. Raises what one of them ended with before."""
    for one in looking:
        one.cancel()
    for error in await asyncio.gather(*looking, return_exceptions=True):
        if not isinstance(error, asyncio.CancelledError | None):
            raise error
