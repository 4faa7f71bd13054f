"""Gates at run time, `app.gates`: take of one inside a task, slow one down, change its settings, see who holds it."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from functools import partial

from msgspec import Struct
from msgspec.structs import replace

from windlass import options
from windlass.access import Access
from windlass.blocking import twin
from windlass.errors import ConfigError
from windlass.gate import (
    Own,
    Settings,
    family_of,
    paid_after,
    read_own,
    read_pace,
    said_by,
    share,
    starts_at,
    write_pace,
    write_settings,
)
from windlass.limits import Gate, checked_weight, plain
from windlass.model import Doc, Filter, State
from windlass.options import Seconds
from windlass.pause import Pause
from windlass.queues import Paused, paused_of, reason_of
from windlass.store.contract import GATE, PACE, Store
from windlass.store.documents import Load, Save, Work, all_docs
from windlass.vault import Vault

MICRO = 1_000_000
OURS = "windlass."
"""What the names of gates begin with that Windlass makes for itself."""

LOOKED_AT = 1_000
"""The most running jobs, and waiting ones, that a list of gates looks at."""


class GateInfo(Struct, frozen=True, kw_only=True):
    """A gate: what it admits, who has how much of it, and how many jobs wait for it (of the LOOKED_AT newest).

    `limit`: units at once; `interval`: seconds from one start to the next, `burst` of which may come together; None: no
    limit. `holders`: units by job; `name` has the key behind a "/", if there are keys. `own`: somebody has set this for
    the key alone, or `paused` it.
    """

    name: str
    limit: int | None
    interval: float | None
    burst: int
    holders: Mapping[str, int]
    waiting: int
    own: bool = False
    paused: Paused | None = None


Found = list[GateInfo]


class Gates:
    """The gates of an app's store."""

    def __init__(self, access: Access, vault: Vault, declared: dict[str, Settings]) -> None:
        self._access = access
        self._vault = vault
        self._declared = declared

    async def atake(self, name: str, units: int = 1, *, key: object = None, timeout: Seconds | None = None) -> None:
        """Take `units` starts of a gate with a rate, and wait until its rate allows them.

        Who comes first is served first, and jobs that start through the gate are counted with it. `key` is the value of
        its key. Raises `TimeoutError`, having taken nothing, if that would take longer than `timeout` seconds;
        `ConfigError` for a gate that nobody has declared.
        """
        most = None if timeout is None else options.seconds("timeout", timeout)
        wait = await self._access.ado(partial(self._take, self.full_name(name, key), checked_weight(units), most))
        if wait > 0:
            await asyncio.sleep(wait)

    take = twin(atake)

    async def aslow(self, name: str, seconds: Seconds, *, key: object = None) -> None:
        """Start nothing through a gate with a rate for so many seconds: another system said "429, retry after …".

        What runs goes on. Raises `ConfigError` for a gate without a rate, or that nobody has declared.
        """
        length = options.seconds("seconds", seconds)
        await self._access.ado(partial(self._slow, self.full_name(name, key), length))

    slow = twin(aslow)

    async def aset(self, name: str, gate: Gate, *, key: object = None) -> None:
        """Change what a gate admits: `app.gates.set("stripe", rate("50/minute"))`. With `key`, or under a name that has
        one, for that key alone, whose jobs then go by this limit and not by that of all keys.

        It counts at once. For all keys it does until a worker starts whose code declares the gate in another way than
        before; for one key until `reset`. What is paused stays so. Jobs that run go on. Raises `ConfigError`.
        """
        if not isinstance(gate, Gate):
            raise ConfigError(f"expected limit(…) or rate(…); {options.short(gate)} came")
        await self._access.ado(partial(self._set, self.full_name(name, key), gate.settings))

    set = twin(aset)

    async def areset(self, name: str, *, key: object = None) -> bool:
        """Drop what was set for one key, its pause too: the limit of all keys counts for it again. Whether there was
        anything. Raises `ConfigError`."""
        return await self._access.ado(partial(self._reset, self._one_key(name, key)))

    reset = twin(areset)

    async def apause(self, name: str, *, key: object = None, reason: str = "") -> None:
        """Start no more jobs of one key of a gate, at once and everywhere: `app.gates.pause("tenant", key="acme")`.

        Jobs that run go on; `reason` is for people. It lasts until it is resumed. Raises `ConfigError`.
        """
        await self._access.ado(partial(self._pause, self._one_key(name, key), reason_of(reason)))

    pause = twin(apause)

    async def aresume(self, name: str, *, key: object = None) -> bool:
        """Go on with a key that is paused, by the limit that it had before; whether it was. Raises `ConfigError`."""
        return await self._access.ado(partial(self._resume, self._one_key(name, key)))

    resume = twin(aresume)

    async def alist(self) -> list[GateInfo]:
        """The gates that are held or waited for, and those of which settings are stored, by name."""
        return await gates_in(await self._access.connect())

    list = twin(alist)

    def _known(self) -> str:
        """The names of the gates that users have declared."""
        return ", ".join(sorted(name for name in self._declared if not name.startswith(OURS))) or "none"

    def full_name(self, name: str, key: object = None) -> str:
        """The name of a gate with its key as it is stored, and as `list` gives it; `key` is the value, which is hashed
        where payloads are encrypted. A name that has a key already stays. Raises `ConfigError`."""
        family, mark, given = name.partition("/")
        if not mark:
            return name if key is None else f"{name}/{self._vault.key(name, str(key))}"
        if key is not None:
            raise ConfigError(f"expected key=… or a name with a key; both came: {options.short(name)} and a key")
        return f"{family}/{plain(given)}"

    def _one_key(self, name: str, key: object) -> str:
        """The name of one key of a gate. Raises `ConfigError`."""
        gate = self.full_name(name, key)
        if family_of(gate) == gate:
            raise ConfigError(
                f"expected one key of the gate {options.short(name)}: give key=…, or a name with its key as "
                "app.gates.list() has it"
            )
        return gate

    # Work on documents

    def _load(self, gate: str) -> Work[tuple[Mapping[str, Doc], float]]:
        """The documents that say the settings of a gate, by name, and the moment. Raises `ConfigError`."""
        family = family_of(gate)
        shelf = yield Load(GATE, said_by(gate))
        docs = {doc.name: doc for doc in shelf.docs}
        if family not in docs and family not in self._declared:
            raise ConfigError(
                f"expected the name of a gate that is declared, of {self._known()}; {options.short(family)} came. "
                'Code declares one with gates=…, or app.gate("name", rate("100/minute"))'
            )
        return docs, shelf.now

    def _read(self, gate: str) -> Work[tuple[Settings, int, int, int]]:
        """What a gate admits to jobs that run, until when it is paid for, the time, and the version of its pace. Raises
        `ConfigError`."""
        docs, _ = yield from self._load(gate)
        stored = {name: read_own(doc.body) for name, doc in docs.items()}
        settings = rule_in(stored, gate) or self._declared[family_of(gate)]
        shelf = yield Load(PACE, [gate])
        now = round(shelf.now * MICRO)
        paid, version = (read_pace(shelf.docs[0].body, now), shelf.docs[0].version) if shelf.docs else (0, 0)
        return settings, paid, now, version

    def _take(self, gate: str, units: int, most: float | None) -> Work[float]:
        settings, paid, now, version = yield from self._read(gate)
        wait = (starts_at(settings, paid, now, units) - now) / MICRO
        if most is not None and wait > most:
            raise TimeoutError(f"{gate} has no room for {units} within {most:g} s, but in {wait:g} s")
        if settings.interval is not None:
            yield Save([pace_doc(gate, paid_after(settings, paid, now, units), now, version)])
        return wait

    def _slow(self, gate: str, seconds: float) -> Work[None]:
        settings, paid, now, version = yield from self._read(gate)
        if settings.interval is None:
            raise ConfigError(f"gate {gate} has no rate that could be slowed down: declare one with rate(…)")
        until = now + round(seconds * MICRO) + (settings.burst - 1) * settings.interval
        if until > paid:
            yield Save([pace_doc(gate, until, now, version)])

    def _set(self, gate: str, settings: Settings) -> Work[None]:
        docs, _ = yield from self._load(gate)
        old = read_own(docs[gate].body) if gate in docs else None
        new = replace(old, then=settings) if old and old.paused else settings
        yield Save([settings_doc(gate, docs.get(gate), new)])

    def _reset(self, gate: str) -> Work[bool]:
        docs, _ = yield from self._load(gate)
        yield Save(drop=[(GATE, gate)])
        return gate in docs

    def _pause(self, gate: str, reason: str) -> Work[None]:
        docs, now = yield from self._load(gate)
        then = read_own(docs[gate].body).rule if gate in docs else None
        own = Own(limit=0, paused=Pause(since=now, reason=reason), then=then)
        yield Save([settings_doc(gate, docs.get(gate), own)])

    def _resume(self, gate: str) -> Work[bool]:
        docs, _ = yield from self._load(gate)
        own = read_own(docs[gate].body) if gate in docs else None
        if own is None or not own.paused:
            return False
        yield Save([settings_doc(gate, docs[gate], own.then) if own.then else replace(docs[gate], gone=True)])
        return True


async def gates_in(store: Store) -> Found:
    """The gates of a store that are held or waited for, and those of which settings are stored, by name."""
    stored = {doc.name: read_own(doc.body) async for doc in all_docs(store, GATE)}
    held: dict[str, dict[str, int]] = {}
    for job in (await store.find(Filter(state=State.RUNNING), LOOKED_AT)).jobs:
        for need in job.gates:
            held.setdefault(need.gate, {})[job.id] = share(rule_in(stored, need.gate) or Settings(), need.weight)
    waits = Counter(
        need.gate for job in (await store.find(Filter(state=State.WAITING), LOOKED_AT)).jobs for need in job.gates
    )
    met = held.keys() | waits.keys()
    names = {name for name in met | (stored.keys() - set(map(family_of, met))) if not name.startswith(OURS)}
    return [info(name, told(stored, name), held.get(name, {}), waits[name], name in stored) for name in sorted(names)]


async def paused_keys(store: Store) -> list[Paused]:
    """The keys of gates that are paused in a store."""
    owns = {doc.name: read_own(doc.body) async for doc in all_docs(store, GATE) if doc.name != family_of(doc.name)}
    return [paused_of("key", name, own.paused) for name, own in owns.items() if own.paused]


def told(stored: Mapping[str, Own], gate: str) -> Own | None:
    """What these say of a gate."""
    return next((stored[name] for name in said_by(gate) if name in stored), None)


def rule_in(stored: Mapping[str, Own], gate: str) -> Settings | None:
    """What a gate admits by these, but for a pause."""
    rules = (stored[name].rule for name in said_by(gate) if name in stored)
    return next((rule for rule in rules if rule is not None), None)


def pace_doc(gate: str, paid: int, now: int, version: int) -> Doc:
    """Until when a gate is paid for, as a document."""
    return Doc(kind=PACE, name=gate, version=version, body=write_pace(paid, now), due=paid / MICRO)


def settings_doc(gate: str, old: Doc | None, settings: Settings) -> Doc:
    """The settings of a gate as a document in the place of the old one."""
    return Doc(kind=GATE, name=gate, version=old.version if old else 0, body=write_settings(settings))


def info(name: str, settings: Own | None, holders: Mapping[str, int], waiting: int, stored: bool) -> GateInfo:
    """What `list` says of one gate. One without settings is closed: nothing gets through."""
    shown = settings or Own(limit=0)
    return GateInfo(
        name=name,
        limit=shown.limit,
        interval=None if shown.interval is None else shown.interval / MICRO,
        burst=shown.burst,
        holders=holders,
        waiting=waiting,
        own=stored and name != family_of(name),
        paused=paused_of("key", name, shown.paused) if shown.paused else None,
    )
