"""One verb to all jobs that match: those that did when somebody asked, in batches."""

from collections.abc import AsyncIterator, Sequence

from msgspec.structs import replace

from windlass.model import Filter, Verb
from windlass.store.contract import BATCH, Store
from windlass.store.documents import now_of


async def in_batches(
    store: Store, which: Sequence[Filter], verb: Verb, most: int | None = None
) -> AsyncIterator[list[str]]:
    """The ids that it was done to, batch by batch: at most `most`, or as many as there were.

    What ends meanwhile was not asked about: a job that fails again at once is retried once.
    """
    began = await now_of(store)
    left = sum([await store.count(one) for one in which]) if most is None else most
    for one in which:
        bound = replace(one, ended_by=began if one.ended_by is None else min(began, one.ended_by))
        while left > 0 and (ids := await store.act(bound, verb, min(left, BATCH))):
            left -= len(ids)
            yield ids
