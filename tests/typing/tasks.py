"""The tasks that right.py and wrong.py call."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from windlass import App, Retry


@dataclass
class Order:
    """An argument with a type of its own."""

    id: int
    lines: list[str]


@asynccontextmanager
async def lifespan(_: App) -> AsyncIterator[str]:
    """What runners open."""
    yield "open"


app = App("sqlite:///typing.db", lifespan=lifespan, concurrency=3, lease=timedelta(seconds=20))


@app.task
def add(a: int, b: int = 2) -> int:
    """A plain function, decorated bare."""
    return a + b


@app.task(queue="mail", retry=Retry(attempts=5), timeout=30)
async def mail(order_id: int, *, copy: bool = False) -> str:
    """A coroutine function with options."""
    return f"{order_id} {copy}"


@app.task(executor="process", timeout=timedelta(minutes=10), aliases=["old.render"], priority=5)
def render(path: str, /, order: Order, *pages: int, **marks: float) -> list[str]:
    """Every kind of parameter."""
    return [path, *order.lines, *map(str, pages), *marks]


@app.task
async def sweep(since: UUID | None = None) -> None:
    """A coroutine function that returns nothing."""
