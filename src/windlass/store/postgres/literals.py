"""Arrays and rows as PostgreSQL reads them from text: a few times cheaper than a driver's own way, and the same for all
drivers."""

from collections.abc import Iterable, Sequence


def texts(values: Sequence[str]) -> str:
    """A text[]."""
    if not values:
        return "{}"
    plain = '","'.join(values)
    if "\\" in plain or plain.count('"') != 2 * (len(values) - 1):
        plain = '","'.join([value.replace("\\", "\\\\").replace('"', '\\"') for value in values])
    return f'{{"{plain}"}}'


def optional_texts(values: Iterable[str | None]) -> str:
    """A text[] with nulls in it."""
    return f"{{{','.join(['NULL' if value is None else quoted(value) for value in values])}}}"


def numbers(values: Iterable[int]) -> str:
    """An integer[] or bigint[]."""
    return f"{{{','.join(map(str, values))}}}"


def row(values: Iterable[str | int | None]) -> str:
    """A row of a composite type."""
    return f"({','.join(['' if value is None else quoted(str(value)) for value in values])})"


def quoted(value: str) -> str:
    """An element of an array, or a field of a row."""
    value = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{value}"'
