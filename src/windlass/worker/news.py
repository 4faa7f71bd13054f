"""What a runner tells hooks of ends that stand."""

import asyncio
import queue
import threading
from collections.abc import Collection, Iterable, Sequence

from windlass.hook import Hook, tell, who_hear
from windlass.model import Claim, Outcome

PATIENCE = 2.0
"""Seconds that a runner that is done waits for hooks."""

News = tuple[Claim, Outcome]


class Settled:
    """Tells hooks which ends the store took, in a thread of its own: a slow hook delays no job and no exchange."""

    def __init__(self, hooks: Sequence[Hook]) -> None:
        self._hooks = who_hear(hooks, "settled")
        self._open: dict[tuple[str, int], News] = {}
        self._told: queue.SimpleQueue[News | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def ended(self, claim: Claim, outcome: Outcome) -> None:
        """An attempt ended so; whether that stands is not known yet."""
        if self._hooks:
            self._open[outcome.id, outcome.fence] = (claim, outcome)

    def answered(self, outcomes: Iterable[Outcome], refused: Collection[str]) -> None:
        """The store took these outcomes, but for those of the refused ids."""
        if not self._hooks:
            return
        for outcome in outcomes:
            news = self._open.pop((outcome.id, outcome.fence), None)
            if news and outcome.id not in refused:
                self._told.put(news)
                self._start()

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name="windlass-hooks", daemon=True)
            self._thread.start()

    def _serve(self) -> None:
        while news := self._told.get():
            tell(self._hooks, "settled", *news)

    async def close(self) -> None:
        """Let hooks hear the rest, for at most PATIENCE."""
        if self._thread:
            self._told.put(None)
            await asyncio.to_thread(self._thread.join, PATIENCE)
