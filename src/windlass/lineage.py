"""Which jobs a running job has enqueued: their ids, made so that it finds them when it runs again.

A child's id is that of its parent, the fence of the parent's last snooze (0: it never snoozed) and a number: `ID.0-a3`.
The letter says how many digits follow, so that ids sort by number. A run after a crash or an error reads which children
there are, and takes for each call one that was made by the same call: of the same task with the same arguments. What it
cannot match is a new job, so a parent that enqueues something else than the last time loses nothing.
"""

import hashlib
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from msgspec.structs import replace

from windlass import follow
from windlass.errors import DecodeError
from windlass.model import Claim, Ending, JobRecord, NewJob, State
from windlass.vault import Vault

FIRST_PAGE, PAGE = 100, 1_000
"""How many ids are asked for at once, by a run that looks for the children of runs before it."""

LONGEST = 88
"""The most characters of a child's id; where its parent's would make it longer, a hash stands for that."""

Read = Callable[[Sequence[str]], Awaitable[Sequence[JobRecord]]]


class Lineage:
    """The children of one run of a job. May be used by several threads at once."""

    def __init__(self, claim: Claim) -> None:
        self.ready = claim.fence <= 1  # there was no run before
        self._claim = claim
        self._lock = threading.Lock()
        self._epoch = 0
        self._spans = [[0, 0]]  # the numbers that calls of this run have: from, to
        self._known: set[str] = set()
        self._bad: set[str] = set()
        self._free: dict[bytes, deque[str]] = {}
        self._taken: set[str] = set()
        self._anew: set[str] = set()
        self._bound: dict[str, str] = {}

    async def load(self, read: Read, vault: Vault) -> None:
        """Know the children that there are in the store. Raises `StoreError`."""
        parent = next(iter(await read([self._claim.id])), None)
        attempts = parent.attempts if parent else ()
        epoch = max((one.fence for one in attempts if one.ending is Ending.SNOOZED), default=0)
        began = (parent.started_at if parent else None) or 0.0
        start, size, free, found = 0, FIRST_PAGE, 0, list[JobRecord]()
        least = max(FIRST_PAGE, *(span[1] for span in self._spans))  # this run has met others there, or they left a gap
        while True:
            records = await read([child_id(self._claim.id, epoch, at) for at in range(start, start + size)])
            if not records and start >= least:
                break
            found += (replace(record, result=None, attempts=()) for record in records)
            start, size = start + size, PAGE
            free = start if records else free
        calls = {record.id: summary(record, vault) for record in found if record.enqueued_at >= self._claim.enqueued_at}
        with self._lock:
            own = {child_id(self._claim.id, epoch, at) for span in self._spans for at in range(*span)}
            used = (own | self._taken) - self._anew
            self._epoch, self.ready, self._free = epoch, True, {}
            self._known.update(record.id for record in found)
            self._bad.update(record.id for record in found if is_bad(record, began))
            for id in sorted(calls.keys() - used, key=lambda name: (len(name), name)):
                self._free.setdefault(calls[id], deque()).append(id)
            if free > self._spans[-1][1]:
                self._spans.append([free, free])

    def name(self, jobs: Sequence[NewJob], vault: Vault) -> list[NewJob]:
        """Calls as children, but for those with an id of their own. The same call again is the same child."""
        return [renamed(job, self._name(job, vault), vault) if job.fresh else job for job in jobs]

    def _name(self, job: NewJob, vault: Vault) -> str:
        same = content(job.task, opened(job, vault)) if self._free else b""
        with self._lock:
            if (id := self._bound.get(job.id)) is None:
                if ids := self._free.get(same):
                    id = ids.popleft()
                    self._taken.add(id)
                else:
                    span = self._spans[-1]
                    id, span[1] = child_id(self._claim.id, self._epoch, span[1]), span[1] + 1
                self._bound[job.id] = id
            return id

    def strange(self, id: str) -> bool:
        """Whether it was not known that there is such a child."""
        return id not in self._known

    def again(self, jobs: Sequence[NewJob]) -> None:
        """These calls are to be named anew."""
        with self._lock:
            self._anew.update(self._bound.pop(job.id) for job in jobs if job.id in self._bound)

    def placed(self, jobs: Sequence[NewJob]) -> None:
        """These calls will not come again."""
        with self._lock:
            for job in jobs:
                self._bound.pop(job.id, None)

    def failed(self, ids: Sequence[str]) -> list[str]:
        """Those of these children that had failed, or were cancelled, before this run began; each is told once."""
        with self._lock:
            bad = [id for id in ids if id in self._bad]
            self._bad.difference_update(bad)
            return bad


def child_id(parent: str, epoch: int, number: int) -> str:
    """The id of a child."""
    digits = str(number)
    own = f"{epoch}-{chr(96 + len(digits))}{digits}"
    if len(parent) + 1 + len(own) > LONGEST:
        parent = f"{follow.DEEP}{hashlib.blake2b(parent.encode(), digest_size=16).hexdigest()}"
    return f"{parent}.{own}"


def content(task: str, args: bytes) -> bytes:
    """What tells calls apart."""
    return hashlib.blake2b(args, digest_size=16, key=hashlib.blake2b(task.encode(), digest_size=32).digest()).digest()


def summary(record: JobRecord, vault: Vault) -> bytes:
    """The content of a stored call; nothing in particular, where it cannot be opened."""
    try:
        return content(record.task, opened(record, vault))
    except DecodeError:
        return b""


def is_bad(record: JobRecord, began: float) -> bool:
    """Whether a job had failed, or was cancelled, before that moment."""
    return record.state in (State.FAILED, State.CANCELLED) and (record.finished_at or 0.0) < began


def opened(job: NewJob | JobRecord, vault: Vault) -> bytes:
    """The arguments of a job, decrypted. Raises `DecodeError`."""
    return vault.field(job, "args") or b""


def renamed(job: NewJob, id: str, vault: Vault) -> NewJob:
    """The same job under another id, under which there may be one already."""
    if not vault.seals:
        return replace(job, id=id, fresh=False)
    own = None if job.options is None else vault.open(job.options, job.id, job.task, "options")
    return replace(
        job,
        id=id,
        fresh=False,
        args=vault.seal(opened(job, vault), id, job.task, "args"),
        options=None if own is None else vault.seal(own, id, job.task, "options"),
        follow=follow.sealed(follow.opened(job.follow, job.id, vault), id, vault),
    )
