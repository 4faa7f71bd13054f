"""How much of what has no end a run of the suite does, by kind of store. `scripts/test` shall take under 13 minutes.

Longer runs are commands: `python -m tests.store.simulation --store KIND --seeds N`, `python -m tests.store.differential
--seeds N`, `WINDLASS_MACHINE=2000x80 pytest tests/store/test_machine.py`, `python -m tests.faults --store KIND --all
--rounds N`.
"""

import os
import zlib
from collections.abc import Mapping, Sequence

MACHINE = {
    "memory": (30, 50),
    "sqlite": (20, 40),
    "postgres": (6, 40),
    "pgbouncer": (3, 40),
    "redis": (8, 40),
    "cluster": (4, 40),
}
"""Examples of the state machine, and steps in each."""

BETWEEN = frozenset({"pgbouncer", "cluster"})
THROUGH = frozenset({"test_machine", "test_simulation"})
"""Behind PgBouncer and on a cluster the same code runs as on a PostgreSQL and a Redis of their own: of the conformance
tests, those of these files. `WINDLASS_BETWEEN=1` runs all of them there."""


def stores(test: str) -> list[str]:
    """The stores on which a test of workers runs: SQLite, and of the servers one, by the name of the test, for what
    stands above the contract knows no store. `WINDLASS_BETWEEN=1` runs all of them."""
    servers = ["postgres", "redis"]
    if "WINDLASS_BETWEEN" not in os.environ:
        servers = [servers[zlib.crc32(test.encode()) % len(servers)]]
    return ["sqlite", *servers]


SEEDS = {"memory": 120, "postgres": 6, "pgbouncer": 3, "redis": 8, "cluster": 3}
"""Seeds of the simulation."""

BUGS = 32
"""How many of the planted bugs are looked for, spread over their names: `python -m tests.store.mutants` plants all."""

LATE_BUGS = frozenset(
    {
        "a_lost_lease_is_ignored_without_a_stop_line",
        "fence_by_runner_only",
        "no_stop_line",
        "poison_is_tried_for_ever",
        "progress_is_not_fenced",
        "the_stop_line_waits_for_the_beat",
    }
)
"""Planted bugs that take hundreds of seeds to show: `python -m tests.store.mutants` plants them, with all others."""

HISTORIES = 4
"""Seeds of the differential test, on four stores side by side."""

DEATHS = {"kill-child": 1, "kill-runner": 1, "kill-supervisor": 1, "kill-tree": 1, "freeze": 1, "poison": 1}
TROUBLE = {"cut": 1, "server-kill": 1}

FAULTS: Mapping[str, Sequence[Mapping[str, int]]] = {
    "sqlite": (DEATHS, {"term": 1}, {"disk-full": 1}),
    "postgres": (DEATHS, TROUBLE, {"term": 1}, {"disk-full": 1}, {"failover": 1}),
    "redis": (DEATHS, TROUBLE, {"term": 1}, {"disk-full": 1}),
    "cluster": ({"cut": 2},),
}
"""Rounds of faults, those of each group on the same workers and server. The first of a group says what they need."""
