"""All documents of a kind, however many."""

from collections.abc import AsyncIterator

from windlass.model import Doc
from windlass.store.contract import BATCH, Store


async def all_docs(store: Store, kind: str) -> AsyncIterator[Doc]:
    """The documents of a kind by name, read in pieces: what is written meanwhile may come or not."""
    after = ""
    while True:
        docs = (await store.load(kind, after=after)).docs
        for doc in docs:
            yield doc
        if len(docs) < BATCH:
            return
        after = docs[-1].name
