"""Faults of clocks: somebody sets one by an hour and back."""

import time

from tests.faults import deaths
from tests.faults.field import LEASE, Field
from tests.faults.verdict import Figures

HOUR = 3600


def jump(field: Field, seconds: int) -> None:
    """Set the clock."""
    assert field.ground.time
    field.ground.time.set(seconds)


def of_workers(field: Field) -> Figures:
    """The wall clock of the workers is an hour off for a while: nothing happens."""
    field.mark([pid for tree in field.trees for pid in tree.pids()])
    jump(field, field.dice.choice((HOUR, -HOUR)))
    time.sleep(LEASE)
    jump(field, 0)
    return {}


def of_the_server(field: Field) -> Figures:
    """The server's clock jumps an hour back, and a whole worker dies before its next beat; then an hour forward."""
    tree, _ = deaths.a_busy(field, "runner")
    jump(field, -HOUR)
    field.kill(tree.pids())
    tree.process.wait()
    tree.start()
    time.sleep(LEASE + 2)
    jump(field, 0)
    return {}
