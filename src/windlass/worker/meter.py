"""What a runner's jobs took, and whether there were more of them than slots."""

from windlass.worker.climb import NONE, Ended, Sample


class Meter:
    """Counts between two looks. All calls come from one thread, and `now` is the boot clock's."""

    def __init__(self, now: float) -> None:
        self._since = now
        self._at = now
        self._is_full = False
        self._jobs = 0
        self._full = 0.0
        self._running = 0.0
        self._tasks: dict[str, Ended] = {}

    def asked(self, now: float, *, is_full: bool) -> None:
        """The store answered; `is_full`: with as many jobs as were asked for, so there may be more."""
        self._advance(now)
        self._is_full = is_full

    def began(self, now: float) -> None:
        """An attempt begins."""
        self._advance(now)
        self._jobs += 1

    def ended(self, now: float, task: str, seconds: float, *, good: bool) -> None:
        """An attempt of that task is over, after so many seconds."""
        self._advance(now)
        self._jobs -= 1
        self._tasks[task] = self._tasks.get(task, NONE) + Ended(1, int(good), seconds)

    def rests(self, now: float, waits: bool) -> None:
        """An attempt waits for another job, or waits no more."""
        self._advance(now)
        self._jobs += -1 if waits else 1

    def take(self, now: float, *, cpu: float, late: float, pressed: bool) -> Sample:
        """What happened since the last look, with what else was measured in that time."""
        self._advance(now)
        sample = Sample(
            seconds=now - self._since,
            full=self._full,
            running=self._running,
            cpu=cpu,
            late=late,
            pressed=pressed,
            tasks=self._tasks,
        )
        self._since, self._full, self._running, self._tasks = now, 0.0, 0.0, {}
        return sample

    def _advance(self, now: float) -> None:
        if self._is_full:
            self._full += now - self._at
            self._running += self._jobs * (now - self._at)
        self._at = now
