"""The short form of the faults. Counts are held to their bars; times are not, as others use the machine meanwhile:
`python -m tests.faults` holds those."""

import math
from collections.abc import Mapping

import pytest

from tests import budget
from tests.faults.bars import TIMES, bar_of
from tests.faults.rounds import FAULTS, run

FIELDS = [
    pytest.param(store, rounds, id=f"{store}-{'-'.join(rounds)}")
    for store, fields in budget.FAULTS.items()
    for rounds in fields
]


@pytest.mark.timeout(400)
@pytest.mark.parametrize(("store", "rounds"), FIELDS)
def test_faults(store: str, rounds: Mapping[str, int]) -> None:
    report = run(store, [FAULTS[name] for name, count in rounds.items() for _ in range(count)], 1)
    missed = {
        f"{name}: {figure}": figures.get(figure)
        for name, figures in report.figures.items()
        for figure, most in bar_of(store, name).items()
        if figure not in TIMES and figures.get(figure, math.inf) > most
    }
    assert not missed, "\n\n".join(report.stories)
    assert {name: figures["rounds"] for name, figures in report.figures.items()} == rounds
