"""Brings the schedules, subscriptions, gates and alerts that an app declares into its store, when a worker starts.

The worker of an app that started last decides; runners that an older one starts later, with older code, change nothing.
"""

import asyncio
import logging
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from windlass import event, schedule, values
from windlass.alert import Alert
from windlass.call import seal_call
from windlass.errors import Conflict, DecodeError, StoreError
from windlass.event import Subscription
from windlass.gate import Settings, write_settings
from windlass.model import Doc
from windlass.schedule import Course, Plan
from windlass.store.contract import ALERT, GATE, MANIFEST, SCHEDULE, SUBSCRIPTIONS, Store
from windlass.store.documents import all_docs, named
from windlass.vault import Vault
from windlass.worker.alarms import declared, given_up

logger = logging.getLogger("windlass.schedule")

UNNAMED = "app"
"""The origin of what an app declares that nobody named as MODULE:APP."""


class Manifest(Struct, frozen=True, kw_only=True):
    """What an app declared last: when the worker that said so had started (by the store), and what it declared."""

    started_at: float
    digests: dict[str, str]
    subscribed: str = ""
    gates: dict[str, Settings] = {}
    alerts: tuple[str, ...] = ()


class Declared(Protocol):
    """What an app says in code."""

    @property
    def plans(self) -> Mapping[str, Plan]:
        """Its schedules, by name."""

    @property
    def subscriptions(self) -> Mapping[str, Subscription]:
        """The events that it wants, by name."""

    @property
    def limits(self) -> Mapping[str, Settings]:
        """What its gates admit, by name."""

    @property
    def alerts(self) -> Mapping[str, Alert]:
        """Its alerts, by name."""


async def declare(store: Store, vault: Vault, origin: str, worker: str, said: Declared) -> None:
    """Make the schedules of an app what its code says: new ones made, changed ones replaced, others of it gone; and its
    subscriptions, gates and alerts.

    A replaced one stays paused if it is; with another rule it begins anew, and catches nothing up.
    """
    while True:
        try:
            started_at = next((one.started_at for one in await store.workers() if one.id == worker), None)
            if started_at is not None:  # else it was taken for dead, and its runners start over
                await _declare(store, vault, origin, started_at, said)
            return
        except Conflict:
            await asyncio.sleep(random.uniform(0, 0.1))  # noqa: S311 - spreads load
        except StoreError as error:
            logger.warning("the schedules of %s could not be brought into the store yet: %s", origin, error)
            await asyncio.sleep(1)
        except Exception:
            logger.exception("the schedules of %s cannot be brought into the store", origin)
            return


async def _declare(store: Store, vault: Vault, origin: str, started_at: float, said: Declared) -> None:
    plans, wanted = said.plans, list(said.subscriptions.values())
    shelf = await store.load(MANIFEST, names=[origin])
    before = read_manifest(shelf.docs)
    manifest = Manifest(
        started_at=started_at,
        digests={name: digest_of(plan, vault) for name, plan in plans.items()},
        subscribed=digest_of(wanted, vault) if wanted else "",
        gates=dict(said.limits),
        alerts=tuple(sorted(said.alerts)),
    )
    if before.started_at > started_at:
        if before != replace(manifest, started_at=before.started_at):
            logger.info("a worker with other code started later: the schedules and subscriptions that it declares stay")
        return
    there = await named(store, SCHEDULE, plans)
    docs = [
        doc
        for name, plan in plans.items()
        if (doc := brought(name, plan, there.get(name), origin, manifest.digests[name], vault, shelf.now))
    ]
    docs += await settled(store, said.limits, before.gates)
    watched = {doc.name: doc async for doc in all_docs(store, ALERT)}
    docs += declared(said.alerts, watched, origin, shelf.now) + given_up(said.alerts, watched, origin)
    docs += await subscribed(store, vault, origin, wanted, changed=before.subscribed != manifest.subscribed)
    gone = before.digests.keys() - plans.keys()
    drop = [
        (SCHEDULE, name)
        for name, doc in (await named(store, SCHEDULE, gone)).items()
        if (course := stored_course(doc)) and course.origin == origin
    ]
    if docs or drop or before != manifest:
        version = shelf.docs[0].version if shelf.docs else 0
        docs.append(Doc(kind=MANIFEST, name=origin, version=version, body=values.to_bytes(manifest)))
        await store.save(docs, drop)


def brought(name: str, plan: Plan, old: Doc | None, origin: str, digest: str, vault: Vault, now: float) -> Doc | None:
    """The document of a declared schedule; None if what is stored stays."""
    fresh = replace(plan, call=seal_call(name, plan.call, vault))
    course = Course(plan=fresh, cursor=now, origin=origin, digest=digest)
    stored = stored_course(old)
    if stored is not None:
        if stored.digest == digest:
            return None
        if stored.origin != origin:
            owner = f"app {stored.origin} declares" if stored.origin else "somebody made at run time"
            logger.error("schedule %s is one that %s: it stays, and that of %s does not fire", name, owner, origin)
            return None
        course = replace(course, paused=stored.paused, fired=stored.fired, jobs=stored.jobs)
        if stored.plan.rule == plan.rule:
            course = replace(course, cursor=stored.cursor, waiting=stored.waiting)
    due = schedule.due_of(name, course)
    return Doc(kind=SCHEDULE, name=name, version=old.version if old else 0, body=schedule.write(course), due=due)


def stored_course(doc: Doc | None) -> Course | None:
    """A stored schedule; None where there is none, or none that can be read."""
    try:
        return schedule.read(doc.body) if doc else None
    except DecodeError:
        return None


async def settled(store: Store, said: Mapping[str, Settings], before: Mapping[str, Settings]) -> list[Doc]:
    """The documents of gates that the code declares anew, or in another way than before: what somebody set at run time
    stays until then. Those that it does not declare any more stay too: jobs may wait for them."""
    there = await named(store, GATE, said)
    return [
        Doc(kind=GATE, name=name, version=there[name].version if name in there else 0, body=write_settings(settings))
        for name, settings in said.items()
        if name not in there or before.get(name) != settings
    ]


async def subscribed(
    store: Store, vault: Vault, origin: str, wanted: Sequence[Subscription], *, changed: bool
) -> list[Doc]:
    """The document of an app's subscriptions, if what is stored does not stay."""
    docs = (await store.load(SUBSCRIPTIONS, names=[origin])).docs
    if not wanted:
        return [replace(doc, gone=True) for doc in docs]
    if docs and not changed:
        return []
    sealed = [event.sealed(one, vault) for one in wanted]
    version = docs[0].version if docs else 0
    return [Doc(kind=SUBSCRIPTIONS, name=origin, version=version, body=values.to_bytes(sealed))]


def digest_of(said: Plan | Sequence[Subscription], vault: Vault) -> str:
    """What is the same for the same declaration, and tells nobody its arguments."""
    return vault.unique("schedule", values.to_bytes(said).decode("utf-8", "surrogatepass"))


def read_manifest(docs: Iterable[Doc]) -> Manifest:
    """The stored one; one that every worker replaces where there is none, or none that can be read."""
    for doc in docs:
        try:
            return msgspec.json.decode(doc.body, type=Manifest)
        except (msgspec.MsgspecError, ValueError):
            logger.warning("the manifest of %s cannot be read; it is written anew", doc.name)
    return Manifest(started_at=0.0, digests={})
