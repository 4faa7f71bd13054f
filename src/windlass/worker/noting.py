"""What running jobs say of themselves, on its way into the store: progress, and the lines that they log."""

import asyncio
import logging
from collections.abc import Iterable

from msgspec.structs import replace

from windlass.model import Ending, Outcome, Patch
from windlass.store.contract import Store
from windlass.vault import Vault
from windlass.worker.run import Run

logger = logging.getLogger("windlass.worker")

NOTE_EVERY = 0.5
"""Seconds between two writes."""


class Noting:
    """Writes what the jobs of one runner say; what says nothing costs nothing."""

    def __init__(self, store: Store, runner: str, vault: Vault) -> None:
        self._store = store
        self._runner = runner
        self._vault = vault
        self._moved: dict[str, Run] = {}
        self._last: list[Patch] = []

    def moved(self, run: Run) -> None:
        """There is something new; from any thread."""
        if not run.over:
            self._moved[run.claim.id] = run

    def ended(self, run: Run, outcome: Outcome) -> Outcome:
        """The outcome with what was logged, which stays with the attempt; of a success it is noted before."""
        news = self._moved.pop(run.claim.id, None)
        if not (lines := run.context.logged):
            return outcome
        if outcome.ending is Ending.SUCCEEDED:
            if news:
                self._last.append(self._patch(run))
            return outcome
        return replace(outcome, lines=lines)

    async def flush(self) -> None:
        """Write what was said last by jobs that succeeded: before their ends, or it is refused."""
        last, self._last = self._last, []
        await self._write(last)

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await asyncio.sleep(NOTE_EVERY)
            moved, self._moved = self._moved, {}
            await self._write([self._patch(run) for run in moved.values() if not run.over])

    async def _write(self, patches: Iterable[Patch]) -> None:
        if some := list(patches):
            try:
                await self._store.note(self._runner, some)
            except Exception as error:  # the next word replaces it
                logger.debug("progress was not written this time: %s", error)

    def _patch(self, run: Run) -> Patch:
        claim, context = run.claim, run.context
        new = Patch(id=claim.id, fence=claim.fence, seq=claim.seq, progress=context.said, lines=context.logged)
        return self._vault.seal_patch(claim, new)
