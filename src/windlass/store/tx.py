"""Writing inside a transaction that is the user's: what an SQL store offers for it, and how that is driven.

Work on a connection is written once, as a generator of steps; `drive` runs it on blocking connections and `adrive` on
asynchronous ones. A step is one statement, or for SQLite a function of the `sqlite3.Connection`.
"""

import inspect
import sqlite3
from collections.abc import Callable, Collection, Generator, Sequence
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

from msgspec import Struct

from windlass.clock import Clock, SystemClock
from windlass.config import masked
from windlass.errors import ConfigError
from windlass.model import Doc, Mark, NewJob, Outcome, Placed, Shelf
from windlass.store.contract import Topic
from windlass.store.fork import import_engine

T = TypeVar("T")

OUTBOX = (
    "One transaction cannot span two databases: put an Outbox beside your data (windlass.Outbox), or enqueue after "
    "the commit"
)


class Call(Struct, frozen=True):
    """One statement that any driver can run: placeholders are %s, a literal % is %%."""

    sql: str
    params: Sequence[Any] = ()


class Statement(Protocol):
    """A `Call`, or what looks like one."""

    @property
    def sql(self) -> str: ...
    @property
    def params(self) -> Sequence[Any]: ...


Work = Callable[[sqlite3.Connection], Any]
Step = Statement | Work
Steps = Generator[Any, Any, T]
Start = Callable[[object], Steps[T]]
"""Begins the steps on one connection. What is given stands for the database it leads to, so that checks of it can be
remembered."""


class Block(Protocol):
    """One transaction of the store's own. Its steps are functions without arguments that may return something to await;
    with `threaded` they may block, so asynchronous code runs them in a thread, one at a time."""

    threaded: bool

    def enter(self) -> Steps[Any]:
        """Open it; the connection for the user."""

    def leave(self, runner: str, outcome: Outcome | None) -> Steps[bool]:
        """Settle and commit; None rolls back. False: the outcome does not stand, and all was rolled back. Neither does
        one that was applied before: what was written with it would be written twice."""

    def abandon(self) -> None:
        """Nobody waits for `enter` any more: let it end soon. Called from any thread."""


class Joinable(Protocol):
    """An SQL store, as transactions see it. Never opened, and safe in any thread."""

    def put(self, jobs: Sequence[NewJob], marks: Sequence[Mark] = (), docs: Sequence[Doc] = ()) -> Start[list[Placed]]:
        """`Store.put` in the open transaction of a connection. Raises `ConfigError` if it leads elsewhere."""

    def load(self, kind: str, names: Collection[str] | None = None) -> Start[Shelf]:
        """`Store.load` there."""

    def save(self, docs: Sequence[Doc], drop: Collection[tuple[str, str]] = ()) -> Start[None]:
        """`Store.save` there."""

    def settle(self, runner: str, outcome: Outcome) -> Start[bool]:
        """Apply an outcome in the open transaction of a connection; whether it stands, and was not applied before."""

    def ring(self, topic: Topic = "work") -> None:
        """Hint that there is work, or that a job is done. Never blocks, never raises."""

    def block(self, asynchronous: bool) -> Block:
        """A transaction on a connection to this store."""

    def close(self) -> None:
        """Drop idle connections."""


def drive(steps: Steps[T], run: Callable[[Any], Any]) -> T:
    """Run steps one after another; what a step raises is raised inside of them."""
    try:
        step = next(steps)
        while True:
            try:
                value = run(step)
            except BaseException as error:
                step = steps.throw(error)
            else:
                step = steps.send(value)
    except StopIteration as end:
        done: T = end.value
        return done


async def adrive(steps: Steps[T], run: Callable[[Any], Any]) -> T:
    """`drive`, awaiting what has to be awaited."""
    try:
        step = next(steps)
        while True:
            try:
                value = run(step)
                if inspect.isawaitable(value):
                    value = await value
            except BaseException as error:
                step = steps.throw(error)
            else:
                step = steps.send(value)
    except StopIteration as end:
        done: T = end.value
        return done


SQL_STORES = {
    "sqlite": ("windlass.store.sqlite.tx", "SQLiteTx"),
    **dict.fromkeys(("postgresql", "postgres"), ("windlass.store.postgres.tx", "PostgresTx")),
}
"""By the scheme of a URL: who writes inside transactions there."""


def make_joinable(url: str, instead: str = OUTBOX, clock: Clock | None = None) -> Joinable:
    """The SQL store that `url` names. Raises `ConfigError` for a store that has no transactions to share; `instead` is
    what to do then."""
    scheme = urlsplit(url).scheme
    if scheme not in SQL_STORES:
        raise ConfigError(
            f"a transaction needs an SQL store that shares your database; the jobs of this app are in {masked(url)}. "
            f"{instead}"
        )
    module, name = SQL_STORES[scheme]
    try:
        engine = import_engine(module)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"a {scheme}:// store needs its driver ({error.name} is missing): pip install 'windlass[postgres]'"
        ) from error
    joinable: Joinable = getattr(engine, name)(url, clock or SystemClock())
    return joinable
