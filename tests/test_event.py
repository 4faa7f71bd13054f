"""Which events reach whom: patterns and filters, as data."""

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from windlass import App, ConfigError
from windlass.event import accepts, checked, fits, pattern, topic

words = st.sampled_from(["a", "b", "order"])


@settings(deadline=None)
@given(st.lists(st.one_of(words, st.sampled_from(["*", "**"])), min_size=1, max_size=6), st.lists(words, min_size=1))
def test_patterns_mean_what_a_regular_expression_says(parts: list[str], topic: list[str]) -> None:
    wanted = "".join({"*": r"\.\w+", "**": r"(\.\w+)*"}.get(part, rf"\.{part}") for part in parts)
    assert fits(".".join(parts), ".".join(topic)) == bool(re.fullmatch(wanted, "".join(f".{word}" for word in topic)))


PAYLOAD = {
    "country": "DE",
    "total": 120,
    "vip": True,
    "none": None,
    "customer": {"name": "Ada"},
    "lines": [{"sku": "x-1"}, {"sku": "y-2"}],
}


@pytest.mark.parametrize(
    ("where", "fit"),
    [
        ({}, True),
        ({"country": "DE"}, True),
        ({"country": "FR"}, False),
        ({"country": ["FR", "DE"]}, True),
        ({"country": "DE", "total": {">=": 120, "<": 121}}, True),
        ({"total": {">": 120}}, False),
        ({"total": {"<=": "200"}}, False),
        ({"total": 120.0}, True),
        ({"vip": 1}, False),
        ({"vip": True}, True),
        ({"none": None}, True),
        ({"gone": None}, False),
        ({"gone": {"exists": False}}, True),
        ({"none": {"exists": True}}, True),
        ({"customer.name": {"prefix": "A"}}, True),
        ({"lines.1.sku": "y-2"}, True),
        ({"lines.2.sku": {"exists": True}}, False),
        ({"country": {"!=": "FR"}}, True),
        ({"gone": {"!=": "FR"}}, True),
        ({"country": {"in": ["AT", "DE"]}}, True),
        ({"customer": {"==": {"name": "Ada"}}}, True),
        ({"vip": {"<": 2}}, False),
    ],
)
def test_filters(where: dict[str, Any], fit: bool) -> None:
    assert accepts(checked(where), PAYLOAD) is fit


@pytest.mark.parametrize("payload", [None, 3, "text", [], [1]])
def test_a_payload_that_is_no_object_fits_no_path(payload: object) -> None:
    assert not accepts({"country": "DE"}, payload)
    assert accepts({}, payload)


@pytest.mark.parametrize("value", ["", "order.", ".x", "a..b", "order paid", "order.*", "a" * 129, 3, None])
def test_topics_are_checked(value: object) -> None:
    with pytest.raises(ConfigError, match="expected a topic"):
        topic(value)


@pytest.mark.parametrize("value", ["", "order.", "or*der", "***", "a b", None])
def test_patterns_are_checked(value: object) -> None:
    with pytest.raises(ConfigError, match="expected topics"):
        pattern(value)


@pytest.mark.parametrize(
    "where", ["country == 'DE'", {"a": {"~": 1}}, {"a": {}}, {"": 1}, {3: 1}, {"a": object()}, {"a": "x" * 70_000}]
)
def test_filters_are_checked(where: Any) -> None:
    with pytest.raises(ConfigError, match="expected"):
        checked(where)


def test_subscriptions_are_checked() -> None:
    app = App("sqlite:///:memory:")
    task = app.task(name="book")(lambda event: None)
    for options, why in (
        ({"debounce": 1, "throttle": 1}, "both came"),
        ({"key": "id"}, "beside key="),
        ({"debounce": 0}, "debounce"),
        ({"when": 1}, "when came"),
    ):
        with pytest.raises(ConfigError, match=why):
            app.on("order.*", **options)(task)
    app.on("order.*")(task)
    with pytest.raises(ConfigError, match="two subscriptions"):
        app.on("order.*")(task)
    with pytest.raises(ConfigError, match="one argument"):
        app.on("x")(app.task(name="two")(lambda a, b: None))
