"""Faults of processes: killed, frozen, told to stop."""

import contextlib
import signal
import time

from tests.faults.field import GRACE, LEASE, Field, Tree, send
from tests.faults.verdict import Figures

GONE_WITHIN = 2.0
"""Seconds in which nothing of a worker may be left whose supervisor died."""


def a_busy(field: Field, kind: str) -> tuple[Tree, int]:
    """A worker, and a process of that kind in it that runs a job."""
    found: list[tuple[Tree, int]] = []

    def look() -> bool:
        found[:] = [(tree, pid) for tree in field.trees for pid in field.busy(tree, kind)]
        return bool(found)

    field.wait(look, f"a job to run in a {kind}")
    return field.dice.choice(found)


def kill_child(field: Field) -> Figures:
    """One process child, in the midst of a job."""
    field.kill([a_busy(field, "child")[1]])
    return {}


def kill_runner(field: Field) -> Figures:
    """One runner; its children die with it."""
    tree, pid = a_busy(field, "runner")
    field.tell("killed", tree.members()["child"])
    field.mark(tree.members()["child"])
    field.kill([pid])
    return {}


def kill_supervisor(field: Field) -> Figures:
    """The supervisor alone; what it leaves must end by itself."""
    tree, _ = a_busy(field, "runner")
    pids = tree.pids()
    field.tell("killed", pids)
    field.mark(pids)
    send(tree.pid, signal.SIGKILL)
    tree.process.wait()
    time.sleep(GONE_WITHIN)
    orphans = sum(alive(pid) for pid in pids)
    tree.start()
    return {"orphans": orphans}


def alive(pid: int) -> bool:
    """Whether a process still runs."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError), open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] != "Z"
    return False


def kill_tree(field: Field) -> Figures:
    """A whole worker at once, as a machine does that loses power; it comes back."""
    tree, _ = a_busy(field, "runner")
    field.kill(tree.pids())
    tree.process.wait()
    field.rest()
    tree.start()
    return {}


def freeze(field: Field, leases: float = 1.5) -> Figures:
    """A whole worker stands still past its lease and goes on: others have its jobs, and what it says is refused."""
    tree, _ = a_busy(field, "runner")
    with field.frozen(tree) as pids:
        field.mark(pids)
        time.sleep(LEASE * leases)
    return {}


def freeze_long(field: Field) -> Figures:
    """The same for three leases."""
    return freeze(field, 3.0)


def kill_any(field: Field) -> Figures:
    """A random member of a random worker, or all of it."""
    return field.dice.choice((kill_child, kill_runner, kill_runner, kill_supervisor, kill_tree))(field)


def pause(field: Field) -> Figures:
    """A whole worker stands still for less than half of its lease: nothing happens."""
    tree, _ = a_busy(field, "runner")
    field.tell("frozen", ())
    with field.frozen(tree) as pids:
        field.mark(pids)
        time.sleep(LEASE * 0.4)
    return {}


def term(field: Field) -> Figures:
    """SIGTERM while jobs run, some of them longer than the grace; another worker takes its place."""
    tree, _ = a_busy(field, "runner")
    pids, began = tree.pids(), time.monotonic()
    tree.process.terminate()
    time.sleep(GRACE - 0.05)
    field.mark(pids)
    code = tree.process.wait(GRACE + 15)
    took = time.monotonic() - began
    tree.start()
    return {"exit": took - GRACE, "code": abs(code)}
