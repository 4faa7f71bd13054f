"""The audit log: who did what to which jobs, from where, when, and what came of it. It is kept in the store.

An entry is written before its act begins and completed after it: whoever dies in between leaves one that says so. Names
of the documents fall as time goes on, so the newest come first in the order of names.
"""

import logging
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from random import random

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from windlass.errors import Conflict, StoreError
from windlass.model import Doc
from windlass.store.contract import AUDIT, BATCH, Store
from windlass.values import visible

logger = logging.getLogger("windlass.audit")

KEEP = 90 * 86_400.0
"""Seconds for which entries are kept."""

MOST = 10_000
"""The newest entries that are kept, beside those of the last hundred or so acts."""

COUNTED = 0.01
"""How often one who writes looks whether there are more."""

LATEST = 10**16
"""Microseconds since the epoch from which names count back: the year 2286."""

NAMED = 20
"""The most ids that the target of an act names."""

LENGTH = 4_000
"""The most characters of a text that are kept."""


class Who(Struct, frozen=True, kw_only=True):
    """Somebody who acts: a name, a role, the way in (dashboard, api, command) and the address or the host."""

    user: str
    role: str
    via: str
    place: str = ""


class Entry(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One act. `at` is the moment by the store's clock, in seconds since the epoch; `done` is to how many jobs or
    schedules it was done, None as long as that is not known; `error` is why it went wrong."""

    id: str = ""
    at: float
    user: str
    role: str
    via: str
    place: str = ""
    act: str
    target: str
    done: int | None = None
    error: str = ""


class Note(Struct):
    """What comes of an act: whoever acts sets `done`."""

    done: int = 0


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Entry).decode


@asynccontextmanager
async def audited(store: Store, who: Who, act: str, target: str) -> AsyncIterator[Note]:
    """Around an act: an entry before it, completed after it. Raises `StoreError` before anything was done."""
    note = Note()
    entry = await begin(store, who, act, target)
    error = "it was broken off"
    try:
        yield note
        error = ""
    except Exception as wrong:
        error = clean(str(wrong) or type(wrong).__name__)
        raise
    finally:
        await end(store, replace(entry, done=note.done, error=error))


async def begin(store: Store, who: Who, act: str, target: str) -> Entry:
    """The entry of an act that begins, stored. What is too old goes in the same commit."""
    shelf = await store.load(AUDIT, due=0.0)
    id = f"{LATEST - int(shelf.now * 1e6):016}-{secrets.token_hex(4)}"
    entry = Entry(
        id=id,
        at=shelf.now,
        user=clean(who.user),
        role=who.role,
        via=who.via,
        place=clean(who.place),
        act=act,
        target=clean(target),
    )
    doc = Doc(kind=AUDIT, name=id, version=0, body=_encode(replace(entry, id="")), due=shelf.now + KEEP)
    await store.save([doc], drop=[(AUDIT, old.name) for old in shelf.docs])
    if random() < COUNTED:  # noqa: S311 - spreads the work
        await trim(store)
    return entry


async def end(store: Store, entry: Entry) -> None:
    """Complete an entry. The act is done: a store that fails now is told to the log alone."""
    more = {name: getattr(entry, name) for name in ("user", "role", "via", "place", "act", "target", "done", "error")}
    logger.info(
        "%s (%s): %s %s: %d done%s",
        entry.user,
        entry.role,
        entry.act,
        entry.target,
        entry.done,
        entry.error and f", then: {entry.error}",
        extra=more,
    )
    try:
        for doc in (await store.load(AUDIT, names=[entry.id])).docs:
            body = _encode(replace(entry, id=""))
            await store.save([Doc(kind=AUDIT, name=doc.name, version=doc.version, body=body, due=doc.due)])
    except (StoreError, Conflict):
        logger.exception("what came of %s %s could not be kept", entry.act, entry.target)


async def trim(store: Store) -> None:
    """Drop what is beyond the newest entries that are kept."""
    after, found = "", 0
    while docs := (await store.load(AUDIT, after=after)).docs:
        after = docs[-1].name
        over = [doc.name for doc in docs[max(0, MOST - found) :]]
        found += len(docs)
        if over:
            await store.save([], drop=[(AUDIT, name) for name in over])


async def entries(store: Store, limit: int, after: str = "") -> tuple[Sequence[Entry], str | None]:
    """The newest entries behind that one, and what leads on if there are more. `limit` is below BATCH."""
    assert limit < BATCH
    docs = (await store.load(AUDIT, after=after)).docs
    return [read(doc) for doc in docs[:limit]], docs[limit - 1].name if len(docs) > limit else None


def read(doc: Doc) -> Entry:
    """A stored entry. One that cannot be read is shown all the same."""
    try:
        return replace(_decode(doc.body), id=doc.name)
    except msgspec.MsgspecError:
        return Entry(id=doc.name, at=0.0, user="", role="", via="", act="", target="", error="cannot be read")


def of_jobs(ids: Sequence[str]) -> str:
    """Jobs as the target of an act: the first of them by their ids."""
    more = f" and {len(ids) - NAMED} more" if len(ids) > NAMED else ""
    return f"jobs {', '.join(ids[:NAMED])}{more}"


def of_filter(given: Mapping[str, object]) -> str:
    """All jobs that match as the target of an act."""
    return f"jobs with {' '.join(f'{name}={value}' for name, value in given.items())}" if given else "all jobs"


def of_held(kind: str, name: str, reason: str = "") -> str:
    """A queue, a task, a schedule, a worker or a key of a gate as the target of a pause, of a drain, or of the end of
    one."""
    return f"{kind} {name}{': ' if reason else ''}{reason}"


def of_gate(name: str, admits: int | str | None, burst: int) -> str:
    """A gate as the target of a change; None: it admits all."""
    return f"{name} to {'all' if admits is None else admits}{f', {burst} together' if burst > 1 else ''}"


def clean(text: str) -> str:
    """A text as it can be kept, on one line."""
    return visible(text[:LENGTH]).replace("\n", "\\n").replace("\t", "\\t")
