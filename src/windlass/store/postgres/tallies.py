"""Statistics in PostgreSQL: two tables, rows of minutes and rows of hours, in statements of their own."""

from collections.abc import Sequence

from windlass.model import Depth, Tally
from windlass.store import tallies
from windlass.store.contract import BATCH
from windlass.store.postgres.statements import Call, filled, to_json
from windlass.store.queries import Queries, load_queries

SQL = Queries(
    **{
        name: tallies.filled(sql, typed=True)
        for name, sql in vars(load_queries("windlass.store.postgres", "tallies.sql")).items()
    }
)


def tally(schema: str, now: float, rows: Sequence[Tally], depths: Sequence[Depth]) -> list[Call]:
    """`Store.tally`, a statement for rows and one for depths."""
    calls = []
    if found := tallies.added(rows, now):
        given = to_json([[*key, *values] for key, values in found.items()])
        calls.append(Call(filled(SQL.add, schema), (given, tallies.LINES)))
    if deep := tallies.deepest(depths, now):
        given = to_json([[*key, *numbers] for key, numbers in deep.items()])
        calls.append(Call(filled(SQL.deepen, schema), (given, tallies.LINES)))
    return calls


def read(sql: str, schema: str, parts: Sequence[tallies.Stretch], step: int, queue: str | None) -> list[Call]:
    """The statements of `Store.series` and `Store.depths`."""
    return [Call(filled(sql, schema), (step, step, *part, queue, queue)) for part in parts]


def prune(schema: str, now: float) -> list[Call]:
    """Drop what is kept no longer, at most BATCH rows of each kind."""
    return [Call(filled(SQL.prune, schema), (*end, BATCH) * 2) for end in tallies.ends(now)]
