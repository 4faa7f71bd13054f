"""Procrastinate: jobs one by one with its blocking client, many with its asynchronous one, each the quicker way."""

import asyncio
import os

from procrastinate import App, PsycopgConnector

from benchmarks.drive import Client
from benchmarks.marks import mark

app = App(connector=PsycopgConnector(conninfo=os.environ["STORE"]))


async def job(n: int) -> None:
    """The job."""
    mark(n)


work = app.task(job, name="work")


def connect() -> Client:
    """Both clients."""
    app.open()
    runner = asyncio.Runner()

    async def opened() -> App:
        return await app.open_async()

    def many(numbers: list[int]) -> None:
        runner.run(work.batch_defer_async(*({"n": n} for n in numbers)))

    runner.run(opened())
    return Client(lambda n: work.defer(n=n), many, app.schema_manager.apply_schema)
