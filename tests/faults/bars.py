"""The bar of every fault: the most that each figure may be.

lost, twice   jobs that were acknowledged and are gone or stuck, or that were settled twice
overlaps      attempts that still ran after a later one began, though their process neither stood still nor was killed
wrong         whatever else the history checker found
charged       jobs whose attempts are not those that raised; failed: jobs that ended otherwise than they should
restarted     workers that ended by themselves
restart       seconds from the fault to the next start of each job that it interrupted
ready, again  the same where a supervisor sees a process of its own die, or, from the end of the grace on, is told to
              end itself: until the job may be claimed; until it starts
stood         how often the whole store stood still with a worker that did
orphans       processes that still ran two seconds after they, or who started them, had been killed
back          seconds from its end until a job that is put then is done
enqueue       seconds that one enqueue took, at most
"""

from collections.abc import Mapping

from tests.faults.field import ENQUEUE, LEASE
from tests.faults.grounds import SERVERS

ALWAYS = {
    "lost": 0,
    "twice": 0,
    "overlaps": 0,
    "wrong": 0,
    "charged": 0,
    "failed": 0,
    "restarted": 0,
    "orphans": 0,
    "enqueue": ENQUEUE + 0.5,
}

TIMES = frozenset({"restart", "ready", "again", "back", "enqueue", "exit", "ended", "drained", "start"})
"""Figures in seconds. A run that shares its machine with others cannot hold them; the counts it must."""

BARS: Mapping[str, Mapping[str, float]] = {
    "kill-child": {"ready": 1, "again": LEASE + 2, "back": 2},
    "kill-runner": {"ready": 1, "again": LEASE + 2, "back": 2},
    "kill-supervisor": {"restart": LEASE + 2, "back": 2},
    "kill-tree": {"restart": LEASE + 2, "back": 2},
    "freeze": {"restart": LEASE + 2, "back": 2, "stood": 0},
    "pause": {"restarts": 0, "back": 2},
    "term": {"ready": 2, "again": 2, "exit": 3, "code": 0, "back": 2},
    "poison": {"runs": 3, "silent": 0, "back": 2},
    "memory": {"runs": 3, "silent": 0, "back": 2},
    "no-memory": {"runs": 1, "silent": 0, "back": 2},
    "blocked-loop": {"runs": 1, "silent": 0, "restarts": 0, "back": 2},
    "deaf": {"runs": 1, "silent": 0, "ended": 10, "back": 4},
    "forks": {"left": 0, "silent": 0, "back": 2},
    "server-restart": {"back": 4},
    "server-kill": {"back": 4},
    "server-down": {"back": 4},
    "server-frozen": {"back": 4},
    "dropped": {"back": 2},
    "failover": {"back": 10, "forgotten": 0},
    "connections": {"back": 4},
    "transaction": {"restarts": 0, "back": 2},
    "cut": {"back": 4},
    "black-hole": {"back": 4},
    "one-way": {"back": 4},
    "latency": {"restarts": 0, "back": 2},
    "disk-full": {"corrupt": 0, "back": 4},
    "read-only": {"corrupt": 0, "back": 4},
    "worker-clock": {"restarts": 0, "back": 2},
    "server-clock": {"restart": LEASE + 2, "back": 2},
    "versions": {"early": 0, "drained": 5, "back": 2},
    "backlog": {"start": 0.1, "back": 2},
    "kill": {"restart": LEASE + 2, "ready": 1, "again": LEASE + 2},
    "zombie": {"restart": LEASE + 2, "back": 2, "stood": 0},
    "rolling": {"ready": 2, "exit": 3, "code": 0, "back": 2},
    "poisons": {"runs": 3, "silent": 0, "back": 4},
}


NOT_ASKED = {"sqlite": {"stood"}, **{kind: {"corrupt"} for kind in SERVERS}}
"""What is no figure of a store: only SQLite's file is looked at, and only SQLite has one lock for all."""


def bar_of(store: str, fault: str) -> Mapping[str, float]:
    """All that is asked of a fault on a store."""
    return {name: most for name, most in {**ALWAYS, **BARS[fault]}.items() if name not in NOT_ASKED[store]}
