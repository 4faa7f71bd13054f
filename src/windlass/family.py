"""PURE: the jobs around one, by what their ids tell."""

import re
from collections.abc import Iterable, Sequence

from msgspec import Struct

from windlass import follow, lineage
from windlass.model import Ending, JobRecord, State

UP = 8
"""The most generations that are shown above a job."""

MOST = 60
"""The most jobs of a family that are shown."""

CHILDREN = 24
"""The most jobs that are looked for of those that one has enqueued."""

COPIES = 9
"""The most copies of one job with other arguments."""

_COPY = re.compile(r"(.+)\.edit-[1-9]")

WHEN = {"s": "on success", "f": "on failure", "c": "when cancelled"}


class Kin(Struct, frozen=True):
    """A job of a family: below `parent`, so many generations below the first. Without a state it is to come."""

    id: str
    task: str
    state: State | None
    parent: str | None
    depth: int
    note: str = ""


def ancestors(id: str) -> list[str]:
    """The ids of the job that made this one, the one that made that, and so on: the first of them first."""
    found: list[str] = []
    above = follow.parent_of(id)
    while above is not None and len(found) < UP:
        found.insert(0, above)
        above = follow.parent_of(above)
    return found


def root_of(id: str) -> str:
    """The job of which this is a copy with other arguments; itself if it is none."""
    found = _COPY.fullmatch(id)
    return found[1] if found else id


def copies(id: str) -> list[str]:
    """The ids that copies of a job with other arguments may have."""
    root = root_of(id)
    return [f"{root}.edit-{number}" for number in range(1, COPIES + 1)]


def made_by(job: JobRecord) -> dict[str, Kin]:
    """The jobs that this one may have enqueued, and those that its ends may have made, by id."""
    fences = sorted({job.fence, *(one.fence for one in job.attempts)})
    snoozes = {one.fence for one in job.attempts if one.ending is Ending.SNOOZED}
    ids = [(one, "", "") for epoch in sorted({0, *snoozes}) for one in children(job.id, epoch)]
    ids += [
        (f"{job.id}.{fence}{letter}.{place}", one.task, WHEN.get(letter, ""))
        for place, one in enumerate(follow.read(job.follow))
        for fence in fences
        for letter in one.on
    ]
    return {id: Kin(id, task, None, job.id, 0, note) for id, task, note in ids}


def children(id: str, epoch: int = 0) -> list[str]:
    """The ids of the first jobs that a job has enqueued since its last snooze."""
    return [lineage.child_id(id, epoch, number) for number in range(CHILDREN)]


def to_come(job: JobRecord) -> list[Kin]:
    """What the end of a job that is not over would make."""
    if job.state.final:
        return []
    found = []
    for place, one in enumerate(follow.read(job.follow)):
        note = "at the end" if len(one.on) > 1 else WHEN.get(one.on, "")
        found.append(Kin(f"{job.id}.{place}", one.task, None, job.id, 0, note))
    return found


def kin_of(job: JobRecord, parent: str | None, depth: int, note: str = "") -> Kin:
    """A job that there is."""
    return Kin(job.id, job.task, job.state, parent, depth, note)


def tree(above: Sequence[JobRecord], job: JobRecord, levels: Sequence[Iterable[JobRecord]]) -> list[Kin]:
    """The family of a job, parents before their children: those above it, itself, and generations below."""
    chain = [*above, job]
    found = [kin_of(one, chain[at - 1].id if at else None, at) for at, one in enumerate(chain)]
    last = {job.id: job}
    for depth, level in enumerate(levels, len(chain)):
        fresh = list(level)
        made = {id: kin for one in last.values() for id, kin in made_by(one).items()}
        found += [kin_of(one, made[one.id].parent, depth, made[one.id].note) for one in fresh]
        last = {one.id: one for one in fresh}
    found += [Kin(one.id, one.task, None, job.id, len(chain), one.note) for one in to_come(job)]
    return found[:MOST]
