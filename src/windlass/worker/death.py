"""How a process of ours ended: its exit code or signal, its peak memory, and whether memory had run out."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass

from windlass.machine import megabytes, oom_kills

RSS_UNIT = 1 if sys.platform == "darwin" else 1024
"""Bytes in one unit of `ru_maxrss`."""


@dataclass(frozen=True, slots=True)
class Death:
    """Exit code (negative: the signal) and peak memory in bytes, exact unless below `floor`.

    `starved`: whether the kernel killed for want of memory meanwhile; None where it does not tell.
    """

    code: int | None
    peak: int
    floor: int = 0
    starved: bool | None = False

    def __str__(self) -> str:
        if self.code is None:
            return "unknown cause (something else in this process collected its exit status)"
        memory = f"{'under ' if self.peak <= self.floor else ''}{megabytes(self.peak)}"
        return f"{died_of(self.code)}{self._hint()}, peak memory {memory}"

    def _hint(self) -> str:
        if self.code != -signal.SIGKILL or self.starved is False:
            return ""
        return " (out of memory)" if self.starved else " (perhaps out of memory)"


def died_of(code: int) -> str:
    """A return code in words."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def wait_in_thread(process: subprocess.Popen[bytes], wait: Callable[[], None], name: str) -> None:
    """Have a thread wait for the end of a process that was just started. Raises `OSError` where the system has no
    thread left; the process is ended then."""
    try:
        threading.Thread(target=wait, name=name, daemon=True).start()
    except RuntimeError as error:
        process.kill()
        process.wait()
        raise OSError(str(error)) from error


def collect(pid: int, floor: int, kills: Callable[[], int | None]) -> Death:
    """Wait for the end of a child of this process and reap it; `kills` says how many were killed before it."""
    code, peak = None, 0
    with contextlib.suppress(ChildProcessError):
        _, status, usage = os.wait4(pid, 0)
        code, peak = os.waitstatus_to_exitcode(status), usage.ru_maxrss * RSS_UNIT
    before, now = kills(), oom_kills()
    return Death(code=code, peak=peak, floor=floor, starved=None if before is None or now is None else now > before)
