"""One attempt as its runner sees it."""

from collections.abc import Callable

from windlass.model import Claim
from windlass.policy import Retry
from windlass.worker.pipeline import Running, Stop


class Run:
    """One running attempt. `ask` tells whatever runs it to stop, as far as that is possible."""

    __slots__ = ("ask", "began", "claim", "context", "over", "rested", "retry", "timeout")

    def __init__(self, claim: Claim, context: Running, retry: Retry, timeout: float | None) -> None:
        self.claim = claim
        self.context = context
        self.retry = retry
        self.timeout = timeout
        self.over = False
        self.began = self.rested = 0.0
        self.ask: Callable[[Stop], object] = lambda why: None

    def stop(self, why: Stop) -> None:
        """Have it end; the first reason stands."""
        if not self.over and self.context.stop is None:
            self.context.end(why)
            self.ask(why)
