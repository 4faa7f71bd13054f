"""Faults of processes: killed, frozen, told to stop."""

import time

from tests.faults.field import GRACE, LEASE, Field, Tree
from tests.faults.verdict import Figures


def a_busy(field: Field, kind: str) -> tuple[Tree, int]:
    """A worker, and a process of that kind in it that runs a job."""
    found: list[tuple[Tree, int]] = []

    def look() -> bool:
        found[:] = [(tree, pid) for tree in field.trees for pid in field.busy(tree, kind)]
        return bool(found)

    field.wait(look, f"a job to run in a {kind}")
    return field.dice.choice(found)


def where(field: Field, id: str) -> Tree:
    """The worker in which that job runs."""
    found: list[Tree] = []

    def look() -> bool:
        found[:] = [tree for tree in field.trees if field.runs(tree, id)]
        return bool(found)

    field.wait(look, f"job {id} to run")
    return found[0]


def kill_child(field: Field) -> Figures:
    """One process child, in the midst of a job."""
    _, pid = a_busy(field, "child")
    field.kill([pid], seen=True)
    return {}


def kill_runner(field: Field) -> Figures:
    """One runner; its children die with it."""
    end_runner(field, *a_busy(field, "runner"))
    return {}


def end_runner(field: Field, tree: Tree, pid: int) -> None:
    """That one."""
    field.kill([pid, *tree.below(pid)["child"]], to=1, seen=True)


def kill_supervisor(field: Field) -> Figures:
    """The supervisor alone; what it leaves must end by itself."""
    tree, _ = a_busy(field, "runner")
    end_supervisor(field, tree)
    field.rest()
    tree.start()
    return {}


def end_supervisor(field: Field, tree: Tree) -> None:
    """That of this worker."""
    field.kill(tree.pids(), to=1)
    tree.process.wait()


def kill_tree(field: Field) -> Figures:
    """A whole worker at once, as a machine does that loses power; it comes back."""
    tree, _ = a_busy(field, "runner")
    end_tree(field, tree)
    field.rest()
    tree.start()
    return {}


def end_tree(field: Field, tree: Tree) -> None:
    """All of it."""
    field.kill(tree.pids())
    tree.process.wait()


PACE = 0.7
"""Seconds between two kills of a soak, besides a short rest."""


def kill_any(field: Field) -> Figures:
    """A random member of a worker, or all of it. The next worker's turn comes before this one has recovered."""
    tree = field.trees.pop(0)
    field.trees.append(tree)
    field.wait(lambda: field.busy(tree, "runner"), "a job to run in that worker")
    busy = {kind: field.busy(tree, kind) for kind in ("runner", "child")}
    match field.dice.choice(("child", "runner", "runner", "supervisor", "tree")):
        case "child" if busy["child"]:
            field.kill([field.dice.choice(busy["child"])], seen=True)
        case "supervisor":
            end_supervisor(field, tree)
            tree.start()
        case "tree":
            end_tree(field, tree)
            tree.start()
        case _:
            end_runner(field, tree, field.dice.choice(busy["runner"] or tree.members()["runner"]))
    time.sleep(PACE)
    return {}


def freeze(field: Field, leases: float = 1.5) -> Figures:
    """A whole worker stands still past its lease and goes on: others have its jobs, and what it says is refused.

    Should it hold the lock of SQLite's file just then, nobody can do anything until it goes on: counted as `stood`, and
    the jobs' time counts from there.
    """
    tree, _ = a_busy(field, "runner")
    began = time.monotonic()
    with field.frozen(tree) as pids:
        field.mark(pids)
        time.sleep(LEASE * leases)
        stood = not field.took_any(since=began + LEASE / 2)
    if stood:
        field.mark(pids)
    return {"stood": stood}


def freeze_long(field: Field) -> Figures:
    """The same for three leases."""
    return freeze(field, 3.0)


def pause(field: Field) -> Figures:
    """A whole worker stands still for less than half of its lease: nothing happens."""
    tree, _ = a_busy(field, "runner")
    field.tell("frozen", ())
    with field.frozen(tree) as pids:
        field.mark(pids)
        time.sleep(LEASE * 0.4)
    return {}


def term(field: Field) -> Figures:
    """SIGTERM while jobs run, one of them at least longer than the grace; another worker takes its place."""
    tree = where(field, field.ask("nap", GRACE + 2).id)
    pids, began = tree.pids(), time.monotonic()
    tree.process.terminate()
    time.sleep(GRACE - 0.05)
    field.mark(pids, seen=True)
    code = tree.process.wait(GRACE + 15)
    took = time.monotonic() - began
    tree.start()
    return {"exit": took - GRACE, "code": abs(code)}
