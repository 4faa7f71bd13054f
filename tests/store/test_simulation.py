"""Thousands of simulated lives of several workers, and the proof that planted bugs would have been seen in them.

`WINDLASS_SEEDS=100000` runs that many; so does `python -m tests.store.simulation --seeds 100000`.
"""

import os

import pytest

from tests import budget
from tests.store.kinds import KINDS
from tests.store.mutants import MUTANTS, SURVIVORS
from tests.store.simulation import Simulation, failing, report

SEEDS = int(os.environ.get("WINDLASS_SEEDS") or budget.SEEDS["memory"])
PARTS = 4
FOUND_WITHIN = 400
EARLY = sorted(MUTANTS.keys() - SURVIVORS.keys() - budget.LATE_BUGS)
PLANTED = [name for n, name in enumerate(EARLY) if n * budget.BUGS // len(EARLY) != (n - 1) * budget.BUGS // len(EARLY)]


@pytest.mark.timeout(0)
@pytest.mark.parametrize("part", range(PARTS))
def test_no_seed_violates_anything(part: int) -> None:
    found = failing(range(part, SEEDS, PARTS))
    if found:
        pytest.fail(f"python -m tests.store.simulation --seeds 1 --start {found[0].seed}\n{report(*found)}")


@pytest.mark.timeout(0)
@pytest.mark.parametrize("server", sorted(budget.SEEDS.keys() - {"memory"}))
def test_no_seed_violates_anything_on_a_server(server: str) -> None:
    found = failing(range(budget.SEEDS[server]), KINDS[server])
    if found:
        how = f"python -m tests.store.simulation --store {server} --seeds 1 --start {found[0].seed}"
        pytest.fail(f"{how}\n{report(*found)}")


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_bug_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    MUTANTS[name](monkeypatch)
    assert failing(range(FOUND_WITHIN)), f"{FOUND_WITHIN} seeds did not show that {MUTANTS[name].__doc__}"


def test_the_same_seed_is_the_same_run() -> None:
    def told(seed: int) -> list[object]:
        simulation = Simulation(seed)
        simulation.run()
        return list(simulation.witness.events)

    assert told(7) == told(7)
    assert told(7) != told(8)


def test_a_report_tells_the_story_of_one_job(monkeypatch: pytest.MonkeyPatch) -> None:
    MUTANTS["no_fence"](monkeypatch)
    found = failing(range(FOUND_WITHIN))
    assert found
    simulation, violation = found
    first, *lines = report(simulation, violation).splitlines()
    assert first.startswith(f"seed {simulation.seed}, ")
    assert first.endswith(f"{violation.job}: {violation.text}")
    events = simulation.witness.events
    own = [str(event) for event in events if event.job == violation.job]
    assert [line for line in lines if line in own] == own
    assert len(lines) < len(events) / 2
