"""PgQueuer with logged tables, its worker run through the library, as a command."""

import os

import asyncpg  # type: ignore[import-untyped]
from pgqueuer import AsyncpgDriver, Job, PgQueuer, Queries

from benchmarks.drive import Client, run
from benchmarks.marks import mark

BATCH = 1000


async def job(given: Job) -> None:
    """The job."""
    mark(int(given.payload or b""))


async def worker() -> None:
    """Run jobs."""
    system = PgQueuer(AsyncpgDriver(await asyncpg.connect(os.environ["STORE"])))
    system.entrypoint("work")(job)
    await system.run(batch_size=BATCH)


async def connect() -> Client:
    """The asynchronous client."""
    queries = Queries(AsyncpgDriver(await asyncpg.connect(os.environ["STORE"])))

    async def one(n: int) -> None:
        await queries.enqueue("work", b"%d" % n)

    async def many(numbers: list[int]) -> None:
        count = len(numbers)
        await queries.enqueue(["work"] * count, [b"%d" % n for n in numbers], [0] * count)

    return Client(one, many, queries.install)


if __name__ == "__main__":
    run(worker())
