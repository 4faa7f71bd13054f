"""Faults of tasks: they kill their process, eat its memory, block it, do not listen, leave processes behind."""

import contextlib
import time
import uuid
from pathlib import Path
from typing import Any

from tests.faults.field import LEASE, Field, alive
from tests.faults.grounds import CannotInject
from tests.faults.guard import drop_group, memory_group
from tests.faults.verdict import Figures
from tests.history import Event
from windlass.errors import WindlassError

DEATHS = 3
LIMIT, WANTED = 700, 1_400
"""MB that a worker may use, and that a job takes of it."""

BLOCKED = 1.5 * LEASE
"""Seconds that a task keeps its event loop from turning: past the lease."""


def over(field: Field, *jobs: Any) -> None:
    """Wait until these jobs are over."""
    field.wait(lambda: not field.open([job.id for job in jobs]), "the misdeed to be over")
    for job in jobs:
        with contextlib.suppress(WindlassError):
            job.refresh()


def says(job: Any, *words: str) -> bool:
    """Whether its last error has all these words."""
    text = f"{job.error.type} {job.error.message}" if job.error else ""
    return all(word in text for word in words)


def says_killed(job: Any) -> bool:
    """Whether it says that it was killed; or was refused the memory for which it had been, which names the line."""
    return says(job, "ProcessLost", "SIGKILL", "peak memory") or says(
        job, "MemoryError", "more memory than it can have"
    )


def starts(field: Field, job: Any) -> list[Event]:
    """Its starts so far."""
    return [event for event in field.events() if event.what == "started" and event.job == job.id]


def runs(field: Field, job: Any) -> int:
    """How often it ran, but for what others cut short: the death of its runner in which it had no part is told
    without a failure of its own. The first of these counts, as the one that makes it a suspect."""
    dragged: int = sum(entry.ending == "lost" and entry.failure is None for entry in job.record.attempts)
    return len(starts(field, job)) - max(0, dragged - 1)


def die(field: Field) -> Figures:
    """Two jobs kill the process that runs them: in a child, and in a thread, which costs the runner. Each fails at its
    third death, and says of what."""
    jobs = [field.ask("die", ends="failed"), field.ask("die_in_thread", ends="failed")]
    over(field, *jobs)
    return {
        "runs": max(runs(field, job) for job in jobs),
        "silent": sum(not says(job, "ProcessLost", "SIGKILL") for job in jobs),
    }


def gorge(field: Field) -> Figures:
    """A job takes twice the memory that its worker may use; the kernel kills it."""
    limit_memory(field)
    job = field.ask("gorge", WANTED, ends="failed")
    over(field, job)
    return {"runs": runs(field, job), "silent": not says_killed(job)}


def poisons(field: Field) -> Figures:
    """Five jobs that kill themselves and five that take twice the memory, among a thousand others."""
    limit_memory(field)
    wanted = len(field.load.put) + 1_000
    jobs = [field.ask(*call, ends="failed") for call in 5 * (("die",), ("gorge", WANTED))]
    field.wait(lambda: len(field.load.put) >= wanted, "a thousand jobs to be put", 120)
    over(field, *jobs)
    return {
        "runs": max(runs(field, job) for job in jobs),
        "silent": sum(not says_killed(job) for job in jobs),
    }


def limit_memory(field: Field) -> None:
    """Put every worker into a cgroup of its own, once."""
    for tree in field.trees:
        if tree.cgroup is None:
            tree.cgroup = limited(field)
            field.stack.callback(drop_group, tree.cgroup)
            (tree.cgroup / "cgroup.procs").write_text(str(tree.pid))
            for pid in tree.pids()[1:]:
                with contextlib.suppress(OSError):
                    (tree.cgroup / "cgroup.procs").write_text(str(pid))


def limited(field: Field) -> Path:
    """A new cgroup that may use so many MB. Raises `CannotInject`."""
    group = memory_group(f"{field.folder.name}-{uuid.uuid4().hex[:8]}")
    limit = next((name for name in ("memory.limit_in_bytes", "memory.max") if (group.parent / name).exists()), "")
    try:
        group.mkdir()
        (group / limit).write_text(str(LIMIT << 20))
    except OSError as error:
        with contextlib.suppress(OSError):
            group.rmdir()
        raise CannotInject(f"no cgroup with a limit of memory can be made: {error}") from error
    return group


def starve(field: Field) -> Figures:
    """A job asks for memory that nobody has: an error like any other."""
    job = field.ask("starve", ends="failed")
    over(field, job)
    return {"runs": len(starts(field, job)), "silent": not says(job, "MemoryError")}


def block(field: Field) -> Figures:
    """Two tasks keep their event loops from turning, past the lease: asleep, and in a C call that holds the
    interpreter. The lease is renewed all the same, and the log names the line."""
    before = field.worker_log.stat().st_size
    field.mark([pid for tree in field.trees for pid in tree.pids()])
    jobs = [field.ask("block", BLOCKED, how) for how in ("sleep", "C")]
    over(field, *jobs)
    text = field.worker_log.read_bytes()[before:].decode("utf-8", "replace")
    return {"runs": max(len(starts(field, job)) for job in jobs), "silent": "has been blocked" not in text}


def shrug(field: Field) -> Figures:
    """Three jobs ignore that their time is over: a coroutine, a thread, a process. Each is ended, and nobody else is
    charged."""
    began = time.monotonic()
    jobs = [field.ask(name, 60, ends="failed", timeout=0.5) for name in ("shrug", "ignore", "defy")]
    over(field, *jobs)
    return {
        "ended": time.monotonic() - began,
        "runs": max(len(starts(field, job)) for job in jobs),
        "silent": sum(not says(job, "TimeoutError") for job in jobs),
    }


def breed(field: Field) -> Figures:
    """A job leaves processes behind and ends its own: they are gone too."""
    job = field.ask("breed", 3, ends="failed")
    over(field, job)
    time.sleep(1)
    pids = [int(event.word) for event in field.events() if event.what == "effect" and event.job == job.id]
    return {"left": sum(alive(pid) for pid in pids), "silent": not says(job, "ProcessLost", "exit code 7") or not pids}
