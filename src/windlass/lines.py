"""The newest lines that a job logs: a text of bounded length, as its store keeps it."""

import logging
import re
import threading
from collections import deque
from datetime import UTC, datetime

from windlass.policy import Hide, storable
from windlass.values import visible

MOST = 8_192
"""Characters that are kept of an attempt."""

LONGEST = 2_000
"""Characters of one record, its traceback included."""

_DROPPED = re.compile(r"\(([\d,]+) earlier lines? (?:was|were) dropped\)\n?")
_plain = logging.Formatter()


class Lines:
    """Takes records from any thread."""

    def __init__(self) -> None:
        self._kept: deque[str] = deque()
        self._size = 0
        self._dropped = 0
        self._taking = threading.Lock()

    def add(self, record: logging.LogRecord, hide: Hide) -> None:
        """Take a record, without what `hide` takes out."""
        line = line_of(record, hide)
        with self._taking:
            self._kept.append(line)
            self._size += len(line) + 1
            while self._size > MOST:
                self._size -= len(self._kept.popleft()) + 1
                self._dropped += 1

    def __str__(self) -> str:
        with self._taking:
            gone = self._dropped
            said = [f"({gone:,} earlier {'line was' if gone == 1 else 'lines were'} dropped)"] if gone else []
            return "\n".join([*said, *self._kept])


def line_of(record: logging.LogRecord, hide: Hide) -> str:
    """A record as it is kept: one line, the rest of it indented, so that no text forges one."""
    moment = datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    try:
        text = _plain.format(record)
    except Exception as error:
        text = f"(what was logged cannot be formatted: {type(error).__name__})"
    text = visible(storable(hide(text)))
    if len(text) > LONGEST:
        text = f"{text[:LONGEST]}… ({len(text) - LONGEST:,} more characters)"
    text = text.replace("\n", "\n    ")
    return (
        f"{moment} {record.levelname:<7} {text}"
        if record.name == "windlass.job"
        else (f"{moment} {record.levelname:<7} {visible(record.name)}: {text}")
    )


def fresh(text: str, seen: int) -> tuple[str, int]:
    """What comes after the first `seen` entries that a job ever logged, as far as kept; and how many there were."""
    found = _DROPPED.match(text)
    gone = int(found[1].replace(",", "")) if found else 0
    entries = entries_of(text[found.end() :] if found else text)
    new = entries[max(0, seen - gone) :]
    said = [found[0].rstrip()] if found and gone > seen else []
    return "\n".join([*said, *new]), gone + len(entries)


def entries_of(text: str) -> list[str]:
    """Kept entries, each with the rest of it that is indented."""
    entries: list[str] = []
    for row in text.split("\n") if text else []:
        if entries and row.startswith("    "):
            entries[-1] += f"\n{row}"
        else:
            entries.append(row)
    return entries
