"""Reads what the processes of a field tell while they run."""

from collections import Counter
from pathlib import Path

import msgspec

from tests.history import Event

OVER = frozenset({"succeeded", "failed", "cancelled"})


class Follower:
    """Reads a history while it is written."""

    def __init__(self, folder: Path) -> None:
        self.over: set[str] = set()
        self.running: dict[int, set[str]] = {}
        self._ended: list[tuple[float, str]] = []
        self.put: dict[str, float] = {}
        """When each job was put."""
        self._starters: Counter[str] = Counter()
        self._folder = folder
        self._read: dict[Path, int] = {}
        self._decode = msgspec.json.Decoder(Event).decode

    def look(self) -> None:
        """Take in what is new."""
        for path in self._folder.glob("*.jsonl"):
            at = self._read.get(path, 0)
            if path.stat().st_size > at:
                with path.open("rb") as file:
                    file.seek(at)
                    whole, _, _ = file.read().rpartition(b"\n")
                self._read[path] = at + len(whole) + bool(whole)
                for line in whole.splitlines():
                    self._take(self._decode(line))

    def _take(self, event: Event) -> None:
        if event.what == "started":
            self.running.setdefault(int(event.process), set()).add(event.job)
            self._starters[event.process] += 1
        elif event.what == "ended":
            self.running.get(int(event.process), set()).discard(event.job)
            self._ended.append((event.at, event.job))
        elif event.what == "put":
            self.put.setdefault(event.job, event.at)
        elif event.what == "settled" and event.yes and event.word in OVER:
            self.over.add(event.job)

    def workers(self) -> Counter[str]:
        """Which processes ran jobs, and how many."""
        self.look()
        return self._starters

    def first_after(self, moment: float) -> float:
        """When the first job ended that was put after that moment; 0: none has."""
        self.look()
        return min((at for at, job in self._ended if at > moment and self.put.get(job, 0.0) > moment), default=0.0)
