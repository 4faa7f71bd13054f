"""A fork finds nobody inside SQLite, and nobody who imports a driver; its child closes what it inherits before it opens
anything.

SQLite remembers which locks its process holds. A forked child inherits that memory but none of the locks: a connection
that it opens beside inherited ones believes in locks that are not there, waits for others that nobody holds, and, when
some other process empties the log under it, loses what it commits.

Python keeps a lock for each module that is being imported. A child inherits it, but not the thread that would let go of
it: whoever needs the module there waits for ever.
"""

import contextlib
import logging
import os
import threading
import weakref
from importlib import import_module
from types import ModuleType, TracebackType
from typing import Protocol

logger = logging.getLogger("windlass.store")

PATIENCE = 5.0
"""Seconds that a fork waits for those inside. After that it goes on, and the child leaves alone what it inherits."""


class Forked(Protocol):
    """What has to know of forks."""

    def hold(self) -> None:
        """Before a fork: wait until nobody is inside, and let nobody in."""

    def let_go(self) -> None:
        """After it, in the parent: go on."""

    def abandon(self) -> None:
        """After it, in the child: close the copies of what belongs to the parent."""


class Gate:
    """Lets any number of threads in, unless it is shut."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._shut = False

    def __enter__(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._shut)
            self._inside += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._inside -= 1
            self._changed.notify_all()

    def shut(self, timeout: float) -> bool:
        """Let nobody in any more; whether nobody is inside within `timeout` seconds."""
        with self._changed:
            self._shut = True
            return self._changed.wait_for(lambda: not self._inside, timeout)

    def open(self) -> None:
        """Let them in again."""
        with self._changed:
            self._shut = False
            self._changed.notify_all()


_watched: weakref.WeakSet[Forked] = weakref.WeakSet()
_held: list[Forked] = []
_forking = threading.Lock()
"""Two threads may fork at once."""

_importing = threading.RLock()
"""A module may fork while it is imported."""


def import_engine(name: str) -> ModuleType:
    """A module of ours, with the driver that it needs. Raises `ModuleNotFoundError`."""
    with _importing:
        return import_module(name)


def watch(one: Forked) -> None:
    """Tell `one` of every fork of this process, for as long as it exists. It has not been inside SQLite yet."""
    with _forking:  # not after a fork has looked who there is
        _watched.add(one)


def warn(path: str) -> None:
    """Say in a child that it had better not use the store."""
    logger.warning(
        "this process was forked while a call to %s had been going on for over %g s: jobs that it enqueues may be "
        "lost. Start such processes with exec (spawn), or before the app is used",
        path,
        PATIENCE,
    )


def _hold_all() -> None:
    _forking.acquire()
    _importing.acquire(timeout=PATIENCE)
    _held.extend(_watched)
    for one in _held:
        one.hold()


def _let_go_all() -> None:
    while _held:
        _held.pop().let_go()
    with contextlib.suppress(RuntimeError):  # it was waited for in vain
        _importing.release()
    _forking.release()


def _abandon_all() -> None:
    global _forking, _importing
    _forking, _importing = threading.Lock(), threading.RLock()
    _watched.clear()
    while _held:
        _held.pop().abandon()


os.register_at_fork(before=_hold_all, after_in_parent=_let_go_all, after_in_child=_abandon_all)
