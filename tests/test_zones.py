"""Cron against a walk over UTC, in zones whose clocks are odd. `python -m tests.zones` takes all zones, all ticks."""

import pytest

from tests.zones import compare, groups


@pytest.mark.parametrize(
    ("zone", "year", "changes"),
    [
        ("Europe/Berlin", 2023, 2),
        ("America/New_York", 2023, 2),
        ("Australia/Lord_Howe", 2023, 2),  # by half an hour
        ("Pacific/Apia", 2011, 3),  # the 30th of December 2011 was skipped
        ("Pacific/Chatham", 2023, 2),  # at a quarter to
        ("Africa/Casablanca", 2023, 2),  # back for Ramadan
        ("Antarctica/Troll", 2023, 2),  # by two hours
        ("Europe/Dublin", 2023, 2),  # winter is what is unusual
        ("Asia/Kathmandu", 2023, 0),
    ],
)
def test_cron_is_due_when_a_walk_over_utc_says(zone: str, year: int, changes: int) -> None:
    (group,) = groups([zone], year, years=1)
    assert len(group.changes) == changes
    outcome = compare(group, most=80, whole=False)
    assert outcome.ticks >= 1_000
    assert not outcome.differences, outcome.differences[0]
