"""Two versions of the code on one store, and a backlog."""

import time

from tests.faults import app as load_app
from tests.faults.field import ENQUEUE, GRACE, Field, Tree
from tests.faults.verdict import Figures

SEVERAL = 10
SAMPLE = 50
"""Jobs by which a start is timed."""


def version(field: Field, tree: Tree, code: str) -> None:
    """Stop a worker and start it with that code."""
    tree.process.terminate()
    tree.process.wait(GRACE + 15)
    tree.environment = tree.environment | {"CODE": code}
    tree.start()
    field.log.tell("effect", word=code)


def versions(field: Field) -> Figures:
    """A deploy and its undoing, under load. Old producers use a name that new code has as an alias; new ones use names
    that old code does not know: those jobs wait until there is a worker for them, and none is discarded."""
    for tree in field.trees:
        version(field, tree, "old")
    old = load_app.make_app(field.ground.url, "old", enqueue_timeout=ENQUEUE)
    named = [old.tasks["hello"].enqueue("you") for _ in range(SEVERAL)]
    old.close()
    jobs = [field.ask("greet", "you") for _ in range(SEVERAL)] + [field.ask("novelty") for _ in range(SEVERAL)]
    for job in named:
        field.own[job.id] = "succeeded"
        field.log.tell("put", job.id)
    field.wait(lambda: not field.open([job.id for job in named]), "the old worker to do what it knows")
    early = sum(job.refresh().state != "ready" for job in jobs)
    version(field, field.trees[0], "new")
    began = time.monotonic()
    field.wait(lambda: not field.open([job.id for job in jobs]), "the new worker to do the rest")
    return {"early": early, "drained": time.monotonic() - began}


def backlog(field: Field) -> Figures:
    """Half of it due tomorrow, half of a task that no worker knows, ahead of all else: a start costs the same."""
    other = load_app.make_app(field.ground.url, enqueue_timeout=60.0)
    stranger = other.task(name="stranger")(load_app.novelty)
    tomorrow = other.tasks["nap"].using(delay=86_400)
    first = stranger.using(priority=100)
    left = field.backlog
    while left > 0:
        count = min(left, 5_000)
        other.enqueue_many(
            [one.bind(*args) for one, args in ((tomorrow, (0,)), (first, ())) for _ in range(count // 2)]
        )
        left -= count
    other.close()
    waits = []
    for _ in range(SAMPLE):
        began = time.monotonic()
        job = field.ask("nap", 0, priority=50)
        job.result(timeout=30)
        waits.append(time.monotonic() - began)
    return {"backlog": field.backlog, "start": sorted(waits)[int(SAMPLE * 0.98)]}
