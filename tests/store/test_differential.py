"""A few random histories on all stores side by side, and the proof that a difference would be seen.

`python -m tests.store.differential --seeds 1000` plays more.
"""

import pytest

from tests.budget import HISTORIES
from tests.store.differential import STEPS, STORES, difference
from windlass.model import Filter
from windlass.store.sqlite.store import SQLiteStore

SEEN_WITHIN = 4


@pytest.mark.timeout(0)
@pytest.mark.parametrize("seed", range(HISTORIES))
def test_all_stores_answer_alike(seed: int) -> None:
    if found := difference(seed, STEPS, STORES, shortest=False):
        how = f"python -m tests.store.differential --stores {','.join(STORES)} --first {seed} --seeds 1"
        pytest.fail(f"{how}\n{found.story}")


def test_a_difference_is_seen_and_its_story_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    count = SQLiteStore.count

    async def off_by_one(store: SQLiteStore, filter: Filter) -> int:
        return await count(store, filter) + (store.path != ":memory:")

    monkeypatch.setattr(SQLiteStore, "count", off_by_one)
    found = next(filter(None, (difference(seed, STEPS, ("memory", "sqlite")) for seed in range(SEEN_WITHIN))))
    (step,) = found.steps
    line, answered, memory, sqlite = found.story.splitlines()
    assert line.strip().startswith(f"{step}. count(Filter(")
    assert answered == "answered"
    assert [side.split() for side in (memory, sqlite)] == [["memory", "0"], ["sqlite", "1"]]
