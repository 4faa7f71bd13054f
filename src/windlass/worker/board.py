"""A page of memory that a supervisor and one runner share, so that each sees the other even when it cannot answer."""

import mmap
import os
import struct
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass

from windlass.model import Claim
from windlass.policy import Retry

_BEAT = struct.Struct("d")
_TICK = struct.Struct("d")
_COUNT = struct.Struct("q")
_DEADLINE = struct.Struct("dd128sqqqqqd")
_AT_BEAT, _AT_TICK, _AT_COUNT, _AT_DEADLINES = 0, 64, 128, 192
SIZE = 4096

MOST = (SIZE - _AT_DEADLINES) // _DEADLINE.size
"""Deadlines that the page has room for."""

NO_BACKOFF = -1.0


@dataclass(frozen=True, slots=True)
class Deadline:
    """When a running attempt must end, and what it takes to settle it if it does not."""

    at: float
    timeout: float
    claim: Claim
    retry: Retry


class Board:
    """Times are seconds by the boot clock. Each field has one writer: the supervisor `beat`, the runner the others."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._memory = mmap.mmap(fd, SIZE)

    @classmethod
    def make(cls) -> "Board":
        """A new one, in memory where the system offers it."""
        if hasattr(os, "memfd_create"):
            fd = os.memfd_create("windlass-board")
        else:
            fd, path = tempfile.mkstemp()
            os.unlink(path)
        os.ftruncate(fd, SIZE)
        return cls(fd)

    def close(self) -> None:
        """Let go of the page."""
        self._memory.close()
        os.close(self.fd)

    @property
    def beat(self) -> float:
        """When the last good beat was sent to the store."""
        return float(_BEAT.unpack_from(self._memory, _AT_BEAT)[0])

    @beat.setter
    def beat(self, at: float) -> None:
        _BEAT.pack_into(self._memory, _AT_BEAT, at)

    @property
    def tick(self) -> float:
        """When the runner's event loop last turned."""
        return float(_TICK.unpack_from(self._memory, _AT_TICK)[0])

    @tick.setter
    def tick(self, at: float) -> None:
        _TICK.pack_into(self._memory, _AT_TICK, at)

    def watch(self, deadlines: Sequence[Deadline]) -> None:
        """Show these deadlines of running attempts, the first one first; no more than there is room for."""
        _COUNT.pack_into(self._memory, _AT_COUNT, 0)
        for number, one in enumerate(deadlines[:MOST]):
            _DEADLINE.pack_into(self._memory, _AT_DEADLINES + number * _DEADLINE.size, *packed(one))
        _COUNT.pack_into(self._memory, _AT_COUNT, min(len(deadlines), MOST))

    def deadlines(self) -> list[Deadline]:
        """What the runner shows. Of a claim, what it takes to settle it."""
        count: int = _COUNT.unpack_from(self._memory, _AT_COUNT)[0]
        places = range(_AT_DEADLINES, _AT_DEADLINES + min(count, MOST) * _DEADLINE.size, _DEADLINE.size)
        return [unpacked(*_DEADLINE.unpack_from(self._memory, place)) for place in places]


def packed(one: Deadline) -> tuple[float | bytes, ...]:
    """A deadline as the page has it."""
    claim, retry = one.claim, one.retry
    backoff = retry.backoff if isinstance(retry.backoff, (int, float)) else NO_BACKOFF
    attempts = retry.attempts if retry.wants(TimeoutError(), 0) else 1
    whose = (claim.id.encode(), claim.fence, claim.seq, claim.attempt, claim.lost)
    return (one.at, one.timeout, *whose, attempts, backoff)


def unpacked(
    at: float, timeout: float, id: bytes, fence: int, seq: int, attempt: int, lost: int, attempts: int, backoff: float
) -> Deadline:
    """A deadline that the page has."""
    claim = Claim(
        id=id.rstrip(b"\0").decode(),
        fence=fence,
        seq=seq,
        task="",
        queue="",
        args=b"",
        options=None,
        priority=0,
        attempt=attempt,
        lost=lost,
        enqueued_at=0,
        run_at=0,
    )
    return Deadline(at, timeout, claim, Retry(attempts=attempts, backoff=None if backoff == NO_BACKOFF else backoff))
