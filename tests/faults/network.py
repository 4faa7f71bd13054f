"""Faults of the way to the server, made by a proxy in between."""

import time

from tests.faults.field import LEASE, Field
from tests.faults.verdict import Figures

SLOW = 0.05
"""Seconds that each piece waits on the way, at most, in each direction: 200 ms there and back in a profile with a lease
of 15 s would be the same part of it as 27 ms here."""


def set_all(field: Field, **values: object) -> None:
    """Let every way be so."""
    for proxy in field.ground.proxies:
        for name, value in values.items():
            setattr(proxy, name, value)


def cut_all(field: Field) -> None:
    """Reset every connection."""
    for proxy in field.ground.proxies:
        proxy.cut()


def cut(field: Field) -> Figures:
    """Every connection is reset, in the midst of calls; sometimes no new one comes about for half a second."""
    set_all(field, open=field.dice.random() < 0.5)
    cut_all(field)
    time.sleep(0.5)
    set_all(field, open=True)
    return {}


def hole(field: Field) -> Figures:
    """Nothing passes for longer than a lease, and nobody says so; then it goes on, or all is reset."""
    set_all(field, up=False, down=False)
    time.sleep(LEASE * 1.5)
    if field.dice.random() < 0.5:
        cut_all(field)
    set_all(field, up=True, down=True)
    return {}


def one_way(field: Field) -> Figures:
    """Calls arrive, answers do not, for longer than a lease; then all is reset."""
    set_all(field, down=False)
    time.sleep(LEASE * 1.5)
    cut_all(field)
    set_all(field, down=True)
    return {}


def latency(field: Field) -> Figures:
    """Every piece waits on its way: slower, and nothing else."""
    field.mark([pid for tree in field.trees for pid in tree.pids()])
    set_all(field, delay=field.dice.uniform(SLOW / 5, SLOW))
    time.sleep(LEASE)
    set_all(field, delay=0.0)
    return {}
