"""The gates of jobs that wait for others: given back in the store, and taken again before the job goes on."""

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Callable, Sequence

from windlass.model import Rest
from windlass.store.contract import BATCH, Store

logger = logging.getLogger("windlass.worker")

AGAIN = 1.0
"""Seconds until a gate that had no room is asked again, unless something wakes the runner before."""

PAUSE = 0.5
"""Seconds to wait before a call that failed is repeated."""


class Rests:
    """What the store is told of the gates of one runner's jobs. `freed` is called when others may have them."""

    def __init__(self, store: Store, runner: str, freed: Callable[[], None]) -> None:
        self._store = store
        self._runner = runner
        self._freed = freed
        self._leaving: list[Rest] = []
        self._entering: dict[Rest, Callable[[], None]] = {}
        self._news = asyncio.Event()

    def leave(self, rest: Rest) -> None:
        """Let others pass its gates."""
        self._leaving.append(rest)
        self._news.set()

    def enter(self, rest: Rest, then: Callable[[], None]) -> None:
        """Take its gates when there is room at all of them, and call `then`."""
        self._entering[rest] = then
        self._news.set()

    def forget(self, rest: Rest | None) -> None:
        """It does not want to any more."""
        if rest is not None:
            self._entering.pop(rest, None)

    def wake(self) -> None:
        """There may be room."""
        if self._entering:
            self._news.set()

    async def run(self) -> None:
        """Tell the store, and ask it again while it has no room."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(AGAIN if self._entering else None):
                    await self._news.wait()
            self._news.clear()
            leaving = self._leaving[:BATCH]
            entering = {} if len(self._leaving) > BATCH else dict(itertools.islice(self._entering.items(), BATCH))
            try:
                back = set(await self._store.rest(self._runner, leaving, list(entering)))
            except Exception as error:  # without this work, whoever waits for gates would wait for ever
                logger.warning("the gates of jobs that wait could not be given back or taken, trying again: %s", error)
                await asyncio.sleep(PAUSE)
                self._news.set()
                continue
            self._done(leaving, [(rest, then) for rest, then in entering.items() if rest.id in back])

    def _done(self, left: Sequence[Rest], entered: Sequence[tuple[Rest, Callable[[], None]]]) -> None:
        del self._leaving[: len(left)]
        if self._leaving:
            self._news.set()
        if left:
            self._freed()
        for rest, then in entered:
            if self._entering.get(rest) is then:
                del self._entering[rest]
                then()
