"""Time, injected everywhere: one way to read it, and a fake to move it."""

import time
from typing import Protocol


class Clock(Protocol):
    """Two readings in seconds: the wall (since the epoch) and the boot clock (monotonic, counts suspend)."""

    def now(self) -> float:
        """Seconds since the epoch, by this host's wall clock."""

    def boot(self) -> float:
        """Seconds since boot, suspended time included; leases are measured with it."""


class SystemClock:
    """The real clocks of this host."""

    def now(self) -> float:
        return time.time()

    def boot(self) -> float:
        return boot_time()


def boot_time() -> float:
    """Seconds on a clock that nobody sets; on Linux CLOCK_BOOTTIME, which a suspended machine does not stop."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class FakeClock:
    """A clock that stands still until told. `advance` moves both readings, `shift` the wall alone."""

    def __init__(self, now: float = 1_800_000_000.0, boot: float = 1_000.0) -> None:
        self._now, self._boot = now, boot

    def now(self) -> float:
        return self._now

    def boot(self) -> float:
        return self._boot

    def advance(self, seconds: float) -> None:
        """Let `seconds` (≥ 0) pass."""
        self._now += seconds
        self._boot += seconds

    def shift(self, seconds: float) -> None:
        """Set the wall clock forward or back, as an operator or NTP would."""
        self._now += seconds


def made_at(id: str) -> float:
    """The moment in a UUIDv7, in seconds since the epoch; 0 for any other id."""
    if len(id) != 36 or id[14] != "7":
        return 0.0
    try:
        return int(id[:8] + id[9:13], 16) / 1000
    except ValueError:
        return 0.0
