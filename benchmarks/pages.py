"""How fast the dashboard, its API and /metrics are on a large store.

    python -m benchmarks.pages --store postgres --jobs 10000000

On a server or file of its own, filled with jobs of 30 days in every state, while 1,000 jobs a second are put and run
beside. Asks for every page and every call of the API, and prints milliseconds by route (median, p95, most); then, each
beside its bar: by how much /metrics is wrong about the oldest job, what 50 open pages cost, how soon a change is seen
there, and how long it takes to retry 100,000 jobs that failed with one error.
"""

import argparse
import asyncio
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import httpx2

from benchmarks import past, viewers
from benchmarks.marks import Marks
from benchmarks.measure import running
from benchmarks.served import STORES, served
from windlass import App, cron
from windlass.model import NewJob
from windlass.store.contract import BATCH
from windlass.web import Dashboard
from windlass.web.dashboard import spots

RATE, BULK = 1_000, 25
ROOMY = {"shared_buffers": "1GB", "max_wal_size": "8GB", "maintenance_work_mem": "512MB"}
"""Settings of a PostgreSQL server that has so many jobs."""

ROUNDS = 20
MOST = 100_000
"""Jobs that are retried."""

SKIPPED = {"/live", "/static/{file}"}
FAILURE = {"state": "failed", "error": past.UNLUCKY}
FILTERS: list[dict[str, str]] = [
    {},
    *({"state": state} for state in ("ready", "scheduled", "running", "waiting", "succeeded", "failed", "cancelled")),
    {"task": "shop.tasks.t7"},
    {"queue": "q3"},
    {"queue": "q3", "task": "shop.tasks.t7", "state": "succeeded"},
    {"task": past.RARE},
    {"task": past.RARE, "state": "failed"},
    {"queue": "q3", "task": past.RARE, "state": "succeeded"},
    {"task": "shop.tasks.none"},
    {"tag": "vip"},
    {"tag": "vip", "state": "failed"},
    {"error": past.UNLUCKY},
    {"error": "shop.errors.Kind7", "task": "shop.tasks.t7"},
    {"text": "no job says this"},
    {"prefix": "01a0"},
    {"since": "2020-01-01T00:00", "until": "2020-01-02T00:00"},
]


def make_app(url: str) -> App:
    """The app whose jobs these are."""
    app = App(url)

    @app.task(name="shop.tasks.t1")
    def ship(order: str = "") -> None: ...

    return app


async def add_live(app: App, count: int) -> float:
    """Ready and scheduled jobs that nobody takes, and one that is older; when that one came."""
    store = await app.connect()
    oldest = time.time()
    await store.put([NewJob(id="oldest-of-all", task="shop.tasks.t1", queue="aged", args=b"{}")])
    for start in range(0, count, BATCH):
        numbers = range(start, min(start + BATCH, count))
        await store.put(
            [
                NewJob(
                    id=f"live-{n:09}",
                    task=f"shop.tasks.t{n % 50}",
                    queue=f"q{n % 10}",
                    args=b'{"n": 1}',
                    delay=86_400.0 * (n % 2),
                )
                for n in numbers
            ]
        )
    for n in range(20):
        await app.schedules.acreate(f"nightly-{n}", cron(f"{n} 3 * * *"), app.tasks["shop.tasks.t1"])
    return oldest


async def feed() -> None:
    """Put jobs for as long as nobody ends this."""
    from benchmarks.tasks import app, on_loop

    n, began = 0, time.monotonic()
    while True:
        await app.aenqueue_many([on_loop.bind(n + one) for one in range(BULK)])
        n += BULK
        await asyncio.sleep(max(0.0, began + n / RATE - time.monotonic()))


def asked(ids: list[str]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Every request: its name, method and address, and what is sent along."""
    for spot in spots():
        if spot.path in SKIPPED or ("{name" in spot.path and "schedules" not in spot.path and spot.method == "POST"):
            continue
        path = spot.path.replace("{id:name}", ids[0]).replace("queues/{name:name}", "queues/q3")
        path = path.replace("{name:name}", "nightly-3")
        if spot.method == "GET" and (spot.path.endswith("/jobs") or "/bulk/" in spot.path):
            for filter in FILTERS:
                if spot.path.endswith("/jobs") or (len(filter) == 1 and "prefix" not in filter):
                    yield f"{spot.path} {urlencode(filter)}", path, filter
        elif spot.method == "GET":
            yield spot.path, path, {}


async def measure(client: httpx2.AsyncClient, ids: list[str], rounds: int) -> dict[str, list[float]]:
    """Milliseconds by route."""
    took: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, path, query in asked(ids):
            began = time.perf_counter()
            answer = await client.get(path, params=query)
            took.setdefault(name, []).append(1_000 * (time.perf_counter() - began))
            if answer.status_code != 200:
                print(f"{answer.status_code} {path} {query}: {answer.text[:300]}", file=sys.stderr)
    for verb in ("retry", "cancel", "delete"):
        for id in ids[1 : 1 + rounds]:
            began = time.perf_counter()
            await client.post(f"/api/jobs/{id}/{verb}")
            took.setdefault(f"POST /api/jobs/{{id}}/{verb}", []).append(1_000 * (time.perf_counter() - began))
    return took


async def oldest_error(client: httpx2.AsyncClient, since: float) -> float:
    """By how many seconds /metrics is wrong, at worst."""
    worst = 0.0
    for _ in range(50):
        text = (await client.get("/metrics")).text
        told = re.search(r'windlass_queue_oldest_seconds\{queue="aged"\} (\S+)', text)
        worst = max(worst, abs(float(told.group(1) if told else "inf") - (time.time() - since)))
        await asyncio.sleep(0.1)
    return worst


async def look(url: str, since: float, rounds: int) -> None:
    """Ask for everything, and tell."""
    app = make_app(url)
    transport = httpx2.ASGITransport(Dashboard(app), client=("127.0.0.1", 1))
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost", timeout=120) as client:
        client.headers["origin"] = "http://localhost"
        ids = [job.id for job in await app.jobs.afind(state="failed", limit=rounds + 1)]
        took = await measure(client, ids, rounds)
        for name, times in sorted(took.items(), key=lambda one: -p95(one[1])):
            print(f"{statistics.median(times):8.1f} {p95(times):8.1f} {max(times):8.1f}  {name}")
        tell("the slowest page or call, p95", max(map(p95, took.values())), 300, "ms")
        tell("/metrics, p95", p95(took["/metrics"]), 50, "ms")
        tell("the oldest job in /metrics is wrong by at most", await oldest_error(client, since), 1, "s")
        tell(f"{viewers.VIEWERS} open pages", await viewers.statements(make_app(url), 20), 20, "statements a second")
        alone, among = await viewers.delays(make_app(url), await app.connect())
        tell("a change on the only open page, p95", p95(alone), 1, "s")
        tell(f"a change with {viewers.VIEWERS} open pages, p95", p95(among), 1, "s")
        began = time.perf_counter()
        done = (await client.post("/api/bulk/retry", json={**FAILURE, "most": MOST})).json()["done"]
        spent = (time.perf_counter() - began) * MOST / max(1, done)
        tell(f"retried {done:,} with one error; for {MOST:,}", spent, 10, "s")
    await app.aclose()


def tell(what: str, got: float, bar: float, unit: str) -> None:
    """A figure, and whether it is as good as it has to be."""
    print(f"{'PASS' if got <= bar else 'missed':6}  {what}: {got:.3g} {unit} (bar: {bar:g})", flush=True)


def p95(values: list[float]) -> float:
    return statistics.quantiles(values, n=20, method="inclusive")[-1]


def main() -> None:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", choices=STORES, default="sqlite")
    parser.add_argument("--jobs", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--idle", action="store_true", help="no jobs beside")
    parser.add_argument("--feed", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.feed:
        asyncio.run(feed())
    with served(given.store, **ROOMY) as url, tempfile.TemporaryDirectory() as folder:
        Marks(folder)
        os.environ["WINDLASS_URL"] = url
        began, live = time.monotonic(), given.jobs // 25
        oldest = asyncio.run(prepared(url, live))
        past.fill(given.store, url, given.jobs - live, max(given.jobs // 10, min(given.jobs // 4, 200_000)))
        print(f"{given.store}: {given.jobs:,} jobs after {time.monotonic() - began:.0f} s", flush=True)
        python = [sys.executable, "-m"]
        load = [
            [*python, "windlass", "worker", "benchmarks.tasks:app", "-q", "default", "-p", "1", "-c", "50"],
            [*python, "benchmarks.pages", "--feed"],
        ]
        with running([] if given.idle else load):
            time.sleep(0 if given.idle else 5)
            asyncio.run(look(url, oldest, given.rounds))


async def prepared(url: str, live: int) -> float:
    """The store with its live jobs; when the oldest came."""
    app = make_app(url)
    try:
        return await add_live(app, live)
    finally:
        await app.aclose()


if __name__ == "__main__":
    main()
