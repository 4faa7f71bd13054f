"""Work on documents, written once: on a store, or inside a transaction of the user's.

It is a generator of requests; what it gets back is what the store answers.
"""

from collections.abc import AsyncIterator, Collection, Generator, Sequence
from typing import Any, TypeVar

from msgspec import Struct

from windlass.model import Doc, Mark, NewJob, Placed, Shelf
from windlass.store.contract import BATCH, GATE, Store
from windlass.store.tx import Joinable, Start, Steps, adrive

T = TypeVar("T")


class Load(Struct, frozen=True):
    """`Store.load` by names, or of all that fit into one answer."""

    kind: str
    names: Collection[str] | None = None

    async def ask(self, store: Store) -> Shelf:
        return await store.load(self.kind, names=self.names)

    def join(self, joinable: Joinable) -> Start[Shelf]:
        return joinable.load(self.kind, self.names)


class Save(Struct, frozen=True):
    """`Store.save`."""

    docs: Sequence[Doc] = ()
    drop: Collection[tuple[str, str]] = ()

    async def ask(self, store: Store) -> None:
        await store.save(self.docs, self.drop)

    def join(self, joinable: Joinable) -> Start[None]:
        return joinable.save(self.docs, self.drop)


class Put(Struct, frozen=True):
    """`Store.put`."""

    jobs: Sequence[NewJob]
    marks: Sequence[Mark] = ()
    docs: Sequence[Doc] = ()

    async def ask(self, store: Store) -> list[Placed]:
        return await store.put(self.jobs, self.marks, self.docs)

    def join(self, joinable: Joinable) -> Start[list[Placed]]:
        return joinable.put(self.jobs, self.marks, self.docs)


Request = Load | Save | Put
Work = Generator[Request, Any, T]


async def on_store(store: Store, work: Work[T]) -> T:
    """Do it on a store; each request is a commit of its own."""
    return await adrive(work, lambda request: request.ask(store))


def in_transaction(joinable: Joinable, work: Work[T]) -> Start[T]:
    """The same as steps on a connection of the user's."""

    def start(anchor: object) -> Steps[T]:
        try:
            request = next(work)
            while True:
                answer = yield from request.join(joinable)(anchor)
                request = work.send(answer)
        except StopIteration as end:
            done: T = end.value
            return done

    return start


async def named(store: Store, kind: str, names: Collection[str]) -> dict[str, Doc]:
    """The documents of a kind that have one of these names, however many."""
    wanted = list(names)
    parts = [await store.load(kind, names=wanted[at : at + BATCH]) for at in range(0, len(wanted), BATCH)]
    return {doc.name: doc for shelf in parts for doc in shelf.docs}


async def now_of(store: Store) -> float:
    """The moment by the store's clock, in seconds since the epoch."""
    return (await store.load("", names=())).now


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


def changes_gates(docs: Sequence[Doc], drop: Collection[tuple[str, str]]) -> bool:
    """Whether jobs that wait for gates may start once these are written and dropped."""
    return any(doc.kind == GATE for doc in docs) or any(kind == GATE for kind, _ in drop)
