"""What callers are told in trouble, in numbers: python -m benchmarks.soak frozen | commits [--rounds N] [--url URL].

frozen   PostgreSQL and Redis, SIGSTOP: 100 enqueues, each of which must raise within 5.5 s
commits  PostgreSQL: requests of {begin; insert a row; enqueue; roll back, die anywhere, or commit}: jobs are the
         committed rows

Servers are made in a temporary folder. The exit code is 1 if a bar was missed. What workers do in trouble is told by
`python -m tests.faults`.
"""

import argparse
import asyncio
import os
import random
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import Any

import asyncpg  # type: ignore[import-untyped]
import psutil
import psycopg
import sqlalchemy as sa
from sqlalchemy.orm import Session
from uuid_utils import uuid7

from tests.servers import Postgres, Redis, Server

ROOT = Path(__file__).parent.parent
PROFILE = {"LEASE": "2", "WINDLASS_GRACE": "3", "WINDLASS_ENQUEUE_TIMEOUT": "2"}


class Bench:
    """A worker of `benchmarks.trial_tasks` in the test profile, and what its jobs wrote."""

    def __init__(self, url: str, folder: Path) -> None:
        self.effects = folder / "effects"
        os.environ |= {"WINDLASS_URL": url, "EFFECTS": str(self.effects), **PROFILE}
        self.log = folder / "worker.log"
        self.start()

    def start(self) -> None:
        """Start the worker."""
        command = [sys.executable, "-m", "windlass", "worker", "benchmarks.trial_tasks:app", "-p", "2", "-c", "10"]
        with self.log.open("ab") as log:
            self.worker = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)

    def look_after(self) -> None:
        """Start the worker again if it ended."""
        if self.worker.poll() is not None:
            self.start()

    def ended(self) -> set[str]:
        """The jobs that ended."""
        lines = self.effects.read_text().splitlines() if self.effects.exists() else []
        split = [line.split() for line in lines]
        return {one[0] for one in split if one[3] == "end"}

    def stop(self) -> None:
        """As an operator would."""
        self.worker.terminate()
        try:
            self.worker.wait(30)
        except subprocess.TimeoutExpired:
            for one in psutil.Process(self.worker.pid).children(recursive=True):
                one.kill()
            self.worker.kill()


def settle(bench: Bench, made: set[str]) -> set[str]:
    """Wait until every job has ended; those that have not."""
    until = time.monotonic() + 30
    while (left := made - bench.ended()) and time.monotonic() < until:
        bench.look_after()
        time.sleep(0.2)
    return left


# A frozen server


def freeze() -> bool:
    """100 blocking enqueues in 100 threads and 100 in an event loop, on a server that was frozen; all must raise."""
    kinds: tuple[type[Server], ...] = (Postgres, Redis)
    good = [raises_in_time(kind, opened) for kind in kinds for opened in (True, False)]
    return all(good)


def raises_in_time(kind: type[Server], opened: bool) -> bool:
    """Whether each enqueue raises within half a second of its deadline. `opened`: there was a connection before."""
    from windlass import App

    with kind() as server:
        app = App(server.url)
        work: Any = app.task(name="work")(print)
        if opened:
            work.enqueue()
        with server.frozen():
            with ThreadPoolExecutor(100) as pool:
                took = list(pool.map(lambda _: raised(work.enqueue), range(100)))
            took += asyncio.run(raised_together(work))
            took += [raised(work.enqueue), raised(lambda: app.jobs.get("none"))]
        again = raised(work.enqueue)
        app.close()
    kinds = Counter(name for name, _ in took)
    most = max(seconds for _, seconds in took)
    name = f"{kind.__name__}, {'open' if opened else 'new'}"
    print(f"{name}: {dict(kinds)}, {most:.2f} s at most; afterwards: {again[0]}", flush=True)
    return most <= app.config.enqueue_timeout + 0.5 and "nothing" not in kinds and again[0] == "nothing"


def raised(call: Callable[[], Any]) -> tuple[str, float]:
    """What a call raises, and after how many seconds."""
    began = time.monotonic()
    try:
        call()
    except Exception as error:
        return type(error).__name__, time.monotonic() - began
    return "nothing", time.monotonic() - began


async def raised_together(work: Any) -> list[tuple[str, float]]:
    """The same for 100 enqueues in one event loop."""
    began = time.monotonic()
    found = await asyncio.gather(*(work.aenqueue() for _ in range(100)), return_exceptions=True)
    took = time.monotonic() - began
    await work.app.aclose()
    return [(type(one).__name__ if isinstance(one, Exception) else "nothing", took) for one in found]


# Transactions of the caller's own


MAKE = "CREATE TABLE IF NOT EXISTS soak_rows (id text PRIMARY KEY)"
ADD = "INSERT INTO soak_rows VALUES ('{}')"


class Dice:
    """What one request does: at which of its lines the process dies, if it dies, and whether it commits."""

    def __init__(self) -> None:
        self.dies = random.randrange(1, 6) if random.random() < 0.1 else 0
        self.commits = random.random() < 0.5
        self.id = str(uuid7())

    def line(self, number: int) -> None:
        """A line of the request."""
        if number == self.dies:
            os._exit(9)


def with_psycopg(url: str, count: int) -> Iterator[None]:
    """Requests on one connection of psycopg."""
    from benchmarks.trial_tasks import work

    with psycopg.connect(url) as db:
        for _ in range(count):
            dice = Dice()
            dice.line(1)
            db.execute(ADD.format(dice.id))
            dice.line(2)
            work.using(id=dice.id, tx=db).enqueue(0)
            dice.line(3)
            db.commit() if dice.commits else db.rollback()
            dice.line(4)
            yield


def with_sqlalchemy(url: str, count: int) -> Iterator[None]:
    """Requests in sessions of SQLAlchemy."""
    from benchmarks.trial_tasks import work

    engine = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    for _ in range(count):
        dice = Dice()
        with Session(engine) as session:
            dice.line(1)
            session.execute(sa.text(ADD.format(dice.id)))
            dice.line(2)
            work.using(id=dice.id, tx=session).enqueue(0)
            dice.line(3)
            session.commit() if dice.commits else session.rollback()
            dice.line(4)
        yield


async def with_asyncpg(url: str, count: int, done: Callable[[], object]) -> None:
    """Requests on one connection of asyncpg."""
    from benchmarks.trial_tasks import work

    db = await asyncpg.connect(url)
    for _ in range(count):
        dice = Dice()
        transaction = db.transaction()
        await transaction.start()
        dice.line(1)
        await db.execute(ADD.format(dice.id))
        dice.line(2)
        await work.using(id=dice.id, tx=db).aenqueue(0)
        dice.line(3)
        await (transaction.commit() if dice.commits else transaction.rollback())
        dice.line(4)
        done()
    await db.close()


DRIVERS = ("psycopg", "asyncpg", "sqlalchemy")


def requests(driver: str, url: str, count: int, written: int) -> None:
    """Requests until the end or death; a byte to `written` for each that came to its end."""

    def done() -> None:
        os.write(written, b".")

    if driver == "asyncpg":
        asyncio.run(with_asyncpg(url, count, done))
        return
    for _ in (with_psycopg if driver == "psycopg" else with_sqlalchemy)(url, count):
        done()


def commits(url: str | None, count: int) -> bool:
    """`count` requests per driver, by processes that die; whether the jobs are exactly the committed rows."""
    with ExitStack() as stack:
        url = url or stack.enter_context(Postgres()).url
        subprocess.run(
            [sys.executable, "-m", "windlass", "migrate", "--url", url], stdout=subprocess.DEVNULL, check=True
        )
        bench = Bench(url, Path(stack.enter_context(tempfile.TemporaryDirectory())))
        stack.callback(bench.stop)
        with psycopg.connect(url, autocommit=True) as db:
            db.execute(MAKE)
        import_module("benchmarks.trial_tasks")  # once, not in every process that dies
        good = [as_committed(driver, url, count, bench) for driver in DRIVERS]
        return all(good)


def as_committed(driver: str, url: str, count: int, bench: Bench) -> bool:
    """The requests of one driver, and what came of them."""
    began, made, deaths = time.monotonic(), 0, 0
    while made < count:
        reading, written = os.pipe()
        pid = os.fork()
        if not pid:
            try:
                requests(driver, url, count - made, written)
            except Exception:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        os.close(written)
        with os.fdopen(reading, "rb") as pipe:
            made += len(pipe.read()) + 1  # the last died in the midst, or was never begun
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        deaths += code == 9
        if code not in (0, 9):
            raise SystemExit(f"{driver}: a request failed; run it by hand to see why")
    time.sleep(1)
    with psycopg.connect(url, autocommit=True) as db:
        rows = {row[0] for row in db.execute("SELECT id FROM soak_rows")}
        db.execute("TRUNCATE soak_rows")
    lost = settle(bench, rows)
    extra = bench.ended() - rows
    bench.effects.unlink()
    print(
        f"{driver}: {made:,} requests in {time.monotonic() - began:.0f} s, {deaths} of them died; {len(rows):,} rows, "
        f"{len(lost)} without a job, {len(extra)} jobs without a row"
    )
    return not lost and not extra


def main() -> None:
    """Run one mode."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", choices=["frozen", "commits"])
    parser.add_argument("--rounds", type=int, default=10_000, help="requests per driver")
    parser.add_argument("--url", help="a PostgreSQL to use for commits")
    options = parser.parse_args()
    good = freeze() if options.mode == "frozen" else commits(options.url, options.rounds)
    if not good:
        raise SystemExit(f"{options.mode}: a bar was missed")


if __name__ == "__main__":
    main()
