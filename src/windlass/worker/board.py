"""A page of memory that a supervisor and one runner share, so that each sees the other even when it cannot answer."""

import mmap
import os
import struct
import tempfile

from windlass.model import Claim
from windlass.policy import Retry

_BEAT = struct.Struct("d")
_TICK = struct.Struct("d")
_OLDEST = struct.Struct("dd128sqqqqqd")
_AT_BEAT, _AT_TICK, _AT_OLDEST = 0, 64, 128
SIZE = 4096

NO_BACKOFF = -1.0


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

    def watch(self, deadline: float, timeout: float, claim: Claim, retry: Retry) -> None:
        """Show the attempt whose deadline comes first."""
        backoff = retry.backoff if isinstance(retry.backoff, (int, float)) else NO_BACKOFF
        _OLDEST.pack_into(
            self._memory,
            _AT_OLDEST,
            deadline,
            timeout,
            claim.id.encode(),
            claim.fence,
            claim.seq,
            claim.attempt,
            claim.lost,
            retry.attempts if retry.wants(TimeoutError(), 0) else 1,
            backoff,
        )

    def unwatch(self) -> None:
        """No running attempt has a deadline."""
        struct.pack_into("d", self._memory, _AT_OLDEST, 0.0)

    @property
    def deadline(self) -> float:
        """The first deadline of a running attempt; 0 if there is none."""
        return float(struct.unpack_from("d", self._memory, _AT_OLDEST)[0])

    def overdue(self) -> tuple[Claim, Retry, float]:
        """The attempt of that deadline as far as settling it needs, its retry policy and its timeout."""
        _, timeout, id, fence, seq, attempt, lost, attempts, backoff = _OLDEST.unpack_from(self._memory, _AT_OLDEST)
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
        return claim, Retry(attempts=attempts, backoff=None if backoff == NO_BACKOFF else backoff), timeout
