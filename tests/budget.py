"""How much of what has no end a run of the suite does, by kind of store. `scripts/test` shall take under 13 minutes.

Longer runs are commands: `python -m tests.store.simulation --store KIND --seeds N`, `WINDLASS_MACHINE=2000x80 pytest
tests/store/test_machine.py`.
"""

MACHINE = {
    "memory": (300, 50),
    "sqlite": (20, 40),
    "postgres": (8, 40),
    "pgbouncer": (6, 40),
    "redis": (12, 40),
    "cluster": (6, 40),
}
"""Examples of the state machine, and steps in each."""

SEEDS = {"memory": 1000, "postgres": 12, "pgbouncer": 6, "redis": 16, "cluster": 6}
"""Seeds of the simulation."""
