"""When attempts have to be over."""

import asyncio
import heapq
import itertools

from windlass.clock import Clock
from windlass.worker.board import Board, Deadline
from windlass.worker.pipeline import Stop
from windlass.worker.run import Run

NEVER = float("inf")


class Deadlines:
    """Ends attempts whose time is over, and shows the supervisor, on the board, which those are."""

    def __init__(self, board: Board, clock: Clock) -> None:
        self._board = board
        self._clock = clock
        self._deadlines: list[tuple[float, int, Run]] = []
        self._order = itertools.count()
        self._overdue: list[tuple[float, Run]] = []
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = NEVER

    def watch(self, run: Run, timeout: float, running: int) -> None:
        """End an attempt so many seconds from now, which is one of so many."""
        deadline = self._clock.boot() + timeout
        first = not self._deadlines or deadline < self._deadlines[0][0]
        if len(self._deadlines) > 2 * running + 64:  # mostly of attempts that are over
            self._deadlines = [entry for entry in self._deadlines if not entry[2].over]
            heapq.heapify(self._deadlines)
        heapq.heappush(self._deadlines, (deadline, next(self._order), run))
        if first:
            self._show()

    def ended(self) -> None:
        """An attempt is over."""
        if (self._deadlines and self._deadlines[0][2].over) or any(late.over for _, late in self._overdue):
            self._show()

    def close(self) -> None:
        """End nothing any more."""
        if self._alarm:
            self._alarm.cancel()

    def _show(self) -> None:
        """Show the supervisor the attempts whose deadline was, or else the first one; have the alarm ring for that."""
        self._overdue = [entry for entry in self._overdue if not entry[1].over]
        while self._deadlines and self._deadlines[0][2].over:
            heapq.heappop(self._deadlines)
        shown = self._overdue or [(deadline, run) for deadline, _, run in self._deadlines[:1]]
        self._board.watch([Deadline(at, run.timeout or 0.0, run.claim, run.retry) for at, run in shown])
        if self._deadlines and self._deadlines[0][0] < self._alarm_at:
            self._set_alarm(self._deadlines[0][0])

    def _set_alarm(self, at: float) -> None:
        """Ring then; an alarm for an attempt that ended is left to ring in vain, which costs less than moving it."""
        if self._alarm:
            self._alarm.cancel()
        self._alarm_at = at
        self._alarm = asyncio.get_running_loop().call_later(max(0.0, at - self._clock.boot()), self._ring)

    def _ring(self) -> None:
        self._alarm, self._alarm_at = None, NEVER
        now = self._clock.boot()
        while self._deadlines and self._deadlines[0][0] <= now:
            deadline, _, run = heapq.heappop(self._deadlines)
            if not run.over:
                self._overdue.append((deadline, run))
                run.stop(Stop.TIMED_OUT)
        self._show()
