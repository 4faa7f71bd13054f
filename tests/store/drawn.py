"""What the state machine draws: jobs, demands, gates of every kind."""

from hypothesis import strategies as st

from tests.store.model import Gate
from windlass.model import Demand, Lane, Need, Quota

TASKS, QUEUES, KEYS = ("a", "b", "c"), ("x", "y"), (None, None, None, "k", "l")
PICK = st.integers(0, 1_000)

ALL, MOST, LAST, NONE = frozenset(TASKS), frozenset(TASKS[:2]), frozenset(TASKS[2:]), frozenset[str]()
SPLITS = [
    ((ALL, NONE),),
    ((ALL, ALL),),
    ((MOST, NONE), (LAST, ALL)),
    ((LAST, NONE), (MOST, MOST)),
    ((ALL, NONE), (NONE, ALL)),
]
demands = st.builds(
    lambda split, free, slots, quotas: Demand(
        slots=slots,
        lanes=tuple(Lane(slots=n, tasks=tasks, suspects=odd) for n, (tasks, odd) in zip(free, split, strict=False)),
        quotas=quotas,
    ),
    split=st.sampled_from(SPLITS),
    free=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    slots=st.integers(0, 6),
    quotas=st.none()
    | st.tuples(
        st.builds(Quota, queue=st.just("x"), share=st.integers(0, 4)),
        st.builds(Quota, queue=st.just("y"), share=st.integers(0, 4)),
    ),
)
GATES = {
    "one": Gate(limit=1),
    "two/k": Gate(limit=2),
    "two/l": Gate(limit=1),
    "pace": Gate(interval=2.5, burst=2),
    "turn/k": Gate(limit=1),
    "closed": Gate(limit=0),
}
"""Gates of every kind; those with a "/" have their settings under what stands before it, but for one of its own."""

NEEDS = [
    (),
    (),
    (),
    (Need("one"),),
    (Need("two/k"),),
    (Need("one"), Need("two/l")),
    (Need("pace"),),
    (Need("pace"), Need("two/k")),
    (Need("turn/k", keep=True),),
    (Need("turn/k", keep=True), Need("two/l")),
    (Need("closed"),),
]
AHEAD = st.sampled_from([0, 0, 0, 0, 3.37, -2.37, -6.11])
"""Seconds: below zero, those after which a job is lifted."""

jobs = st.fixed_dictionaries(
    {
        "gates": st.sampled_from(NEEDS),
        "task": st.sampled_from(TASKS),
        "queue": st.sampled_from(QUEUES),
        "priority": st.integers(-1, 1),
        "ahead": AHEAD,
        "delay": st.sampled_from([0, 0, 0, 1.2, 4.2]),
        "expires_in": st.sampled_from([None, None, None, 3.3]),
        "unique": st.sampled_from(KEYS),
    }
)


SAID = {name if name == "two/l" else name.partition("/")[0]: gate for name, gate in GATES.items() if name != "closed"}

places = st.fixed_dictionaries(
    {
        "queue": st.sampled_from(QUEUES),
        "priority": st.integers(-1, 1),
        "ahead": AHEAD,
        "gates": st.sampled_from(NEEDS),
    }
)
"""Where a job may be put."""

families = st.sampled_from([("one",), ("two",), ("one", "two"), ("one", "two", "pace"), ("turn", "two")])
"""What a job that waits for others may give back."""
