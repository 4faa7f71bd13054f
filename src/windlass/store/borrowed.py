"""Transactions of the user's own libraries that we open and end: for `current().transaction(Session)`."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from functools import partial
from importlib import import_module
from typing import Any

from windlass.errors import ConfigError
from windlass.model import Outcome
from windlass.options import short
from windlass.store.links import AsyncLink, Mismatch, SyncLink, has_django, recognise
from windlass.store.tx import OUTBOX, Joinable, Steps

FITS = "a SQLAlchemy sessionmaker or engine (or an async one), or a Django alias"

Opener = Callable[[Any], "AbstractContextManager[Any] | AbstractAsyncContextManager[Any]"]

OPENERS: dict[str, tuple[bool, Opener]] = {
    "sqlalchemy.orm.session.sessionmaker": (False, lambda given: given.begin()),
    "sqlalchemy.engine.base.Engine": (False, lambda given: given.begin()),
    "sqlalchemy.ext.asyncio.session.async_sessionmaker": (True, lambda given: given.begin()),
    "sqlalchemy.ext.asyncio.engine.AsyncEngine": (True, lambda given: given.begin()),
    "builtins.str": (False, lambda given: import_module("django.db.transaction").atomic(using=given, durable=True)),
}
"""By the full name of a class in the MRO of what came: whether it has to be awaited, and how it begins one."""


class BorrowedBlock:
    """A transaction of the user's library, in which we settle and which we commit."""

    threaded = False

    def __init__(self, joinable: Joinable, given: Any, asynchronous: bool) -> None:
        names = [f"{kind.__module__}.{kind.__qualname__}" for kind in type(given).__mro__]
        found = next((OPENERS[name] for name in names if name in OPENERS), None)
        if found is None or (isinstance(given, str) and not has_django()):
            raise ConfigError(f"expected {FITS} for transaction(…); {short(given)} came")
        awaited, self._begin = found
        if awaited is not asynchronous:
            use = "`async with`, in a coroutine" if awaited else "`with`, in a plain function"
            raise ConfigError(f"{short(given)} goes with {use}")
        self._joinable = joinable
        self._given = given
        self._async = asynchronous
        self._open: Any = None
        self._tx: Any = None

    def abandon(self) -> None:
        """What is cancelled while it begins ends by itself."""

    def enter(self) -> Steps[Any]:
        self._open = self._begin(self._given)
        self._tx = yield self._open.__aenter__ if self._async else self._open.__enter__
        if isinstance(self._given, str):
            self._tx = import_module("django.db").connections[self._given]
        return self._tx

    def leave(self, runner: str, outcome: Outcome | None) -> Steps[bool]:
        try:
            stands = outcome is not None and (yield partial(self._settle, runner, outcome))
        except Mismatch as error:
            yield from self._exit(error)
            raise ConfigError(
                f"transaction(…) got a database of {error}, but the jobs of this app are in another. {OUTBOX}"
            ) from None
        except BaseException as error:
            yield from self._exit(error)
            raise
        yield from self._exit(None if stands else RolledBack())
        if stands:
            self._joinable.ring("done")
        return stands

    def _settle(self, runner: str, outcome: Outcome) -> Any:
        """Whether it stands, or what to await for that."""
        start = self._joinable.settle(runner, outcome)
        if self._async:
            return recognise(self._tx, AsyncLink).adrive(start, nothing)
        return recognise(self._tx, SyncLink).drive(start, nothing)

    def _exit(self, error: BaseException | None) -> Steps[None]:
        leave = self._open.__aexit__ if self._async else self._open.__exit__
        yield partial(leave, type(error) if error else None, error, None)


class RolledBack(Exception):
    """Told to the user's library, so that it rolls back."""


def nothing() -> None:
    """No hint: the job is over."""
