"""What commands do stands in the audit log, beside what is done in the dashboard."""

import getpass
import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from windlass import audit, blocking
from windlass.app import App
from windlass.audit import Note, Who


@contextmanager
def audited(app: App, act: str, target: str) -> Iterator[Note]:
    """`audit.audited` around blocking code, on the store of an app."""
    entry = aaudited(app, act, target)
    note = blocking.run(entry.__aenter__())
    try:
        yield note
    except BaseException as error:
        blocking.run(entry.__aexit__(type(error), error, error.__traceback__))
        raise
    blocking.run(entry.__aexit__(None, None, None))


@asynccontextmanager
async def aaudited(app: App, act: str, target: str) -> AsyncIterator[Note]:
    """`audited`, in an event loop."""
    async with audit.audited(await app.connect(), who(), act, target) as note:
        yield note


def who() -> Who:
    """Whoever runs this command. With the store's URL one may do all."""
    return Who(user=login(), role="admin", via="command", place=socket.gethostname())


def login() -> str:
    """The name of the user, or the number of one that has no name here."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
