"""When which job started, kept outside of every store: eight bytes per job in the file MARKS, written in one go.

Nothing but the standard library: jobs of other systems, in environments of their own, use it as ours do.
"""

import os
import struct
import time
from array import array
from functools import cache
from pathlib import Path


@cache
def handle() -> int:
    """The file, open for as long as the process lives."""
    return os.open(os.environ["MARKS"], os.O_WRONLY)


def mark(n: int) -> None:
    """The job with the number `n` starts now."""
    os.pwrite(handle(), struct.pack("d", time.time()), 8 * n)


class Marks:
    """The file, for those who look at it; processes that are started afterwards write into it."""

    def __init__(self, folder: str) -> None:
        self._path = Path(folder) / "marks"
        self.clear()
        os.environ["MARKS"] = str(self._path)

    def clear(self) -> None:
        """No job has started."""
        self._path.write_bytes(b"")

    def starts(self, first: int, count: int) -> list[float]:
        """When those of the jobs `first` … `first + count - 1` that have started did, in Unix time, by number."""
        with self._path.open("rb") as file:
            file.seek(8 * first)
            return [moment for moment in array("d", file.read(8 * count)) if moment]
