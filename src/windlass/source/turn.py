"""Whose turn it is, for sources that only one worker may read at a time: a small lease in the store.

It keeps workers out of each other's way and no more: that a message makes one job is seen to by its id.
"""

import asyncio
import contextlib
import uuid
from typing import Self

from msgspec import Struct, json
from msgspec.structs import replace

from windlass.errors import Conflict, StoreError
from windlass.model import Doc
from windlass.store.contract import Store

SOURCE = "source"
"""The documents that are such leases. A move to another store leaves them behind."""

LEASE, RENEW = 3.0, 1.0
"""Seconds that a turn lasts without a sign of life, and between two of these."""


class Held(Struct, frozen=True):
    """Who reads a source, and until when by the store's clock."""

    by: str
    until: float


_read = json.Decoder(Held).decode


class Turn:
    """Tries to get the turn of a source, and keeps it for the length of the block. `ours` turns false when it is lost;
    until then `pause` is how many seconds to wait before the next try."""

    pause = RENEW

    def __init__(self, store: Store, name: str, *, needed: bool) -> None:
        self.ours = not needed
        self._store = store
        self._name = name
        self._needed = needed
        self._id = str(uuid.uuid4())
        self._keeping: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        if self._needed and await self._take(LEASE):
            self.ours = True
            self._keeping = asyncio.create_task(self._keep())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait({self._keeping})
            with contextlib.suppress(StoreError):
                await self._take(0.0)

    async def _keep(self) -> None:
        while self.ours:
            await asyncio.sleep(RENEW)
            with contextlib.suppress(StoreError):
                self.ours = await self._take(LEASE)

    async def _take(self, lease: float) -> bool:
        """Get or renew the turn, or give it back; whether it is ours."""
        shelf = await self._store.load(SOURCE, names=[self._name])
        old = shelf.docs[0] if shelf.docs else Doc(kind=SOURCE, name=self._name, version=0, body=b"")
        held = _read(old.body) if old.body else None
        if held is not None and held.by != self._id and shelf.now < held.until:
            return False
        body = json.encode(Held(self._id, shelf.now + lease))
        try:
            await self._store.save([replace(old, body=body)])
        except Conflict:
            return False
        return True
