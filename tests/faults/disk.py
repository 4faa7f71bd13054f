"""Faults of the disk: full, or not to be written to."""

import contextlib
import sqlite3
import time

from tests.faults.field import LEASE, Field
from tests.faults.grounds import OnSQLite
from tests.faults.verdict import Figures


def full(field: Field) -> Figures:
    """No byte is left for a while. A server that ends of it is started again when there is room."""
    disk, server = field.ground.disk, field.ground.server
    assert disk
    until = time.monotonic() + LEASE
    while time.monotonic() < until:
        disk.fill()
        time.sleep(0.05)
    disk.empty()
    if server:
        try:
            server.answers()
        except Exception:
            server.restart()
    return corrupt(field)


def read_only(field: Field) -> Figures:
    """The store takes no writes for longer than a lease; a runner dies meanwhile, and its successor finds it so."""
    with field.ground.read_only():
        field.rest()
        runners = [pid for tree in field.trees for pid in tree.members()["runner"]]
        field.kill([field.dice.choice(runners)])
        time.sleep(LEASE * 1.5)
    return corrupt(field)


def corrupt(field: Field) -> Figures:
    """Whether a file is damaged."""
    if not isinstance(field.ground, OnSQLite):
        return {}
    with contextlib.closing(sqlite3.connect(field.ground.path, timeout=10)) as db:
        return {"corrupt": db.execute("PRAGMA integrity_check").fetchone()[0] != "ok"}
