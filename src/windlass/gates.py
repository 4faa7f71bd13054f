"""Gates at run time, `app.gates`: take of one inside a task, slow one down, change its settings, see who holds it."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from functools import partial

from msgspec import Struct

from windlass import options
from windlass.access import Access
from windlass.blocking import twin
from windlass.errors import ConfigError
from windlass.gate import (
    Settings,
    family_of,
    paid_after,
    read_pace,
    read_settings,
    share,
    starts_at,
    write_pace,
    write_settings,
)
from windlass.limits import Gate, checked_weight
from windlass.model import Doc, Filter, State
from windlass.options import Seconds
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
    limit. `holders`: units by job; `name` has the key behind a "/", if there are keys.
    """

    name: str
    limit: int | None
    interval: float | None
    burst: int
    holders: Mapping[str, int]
    waiting: int


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
        wait = await self._access.ado(partial(self._take, self._name(name, key), checked_weight(units), most))
        if wait > 0:
            await asyncio.sleep(wait)

    take = twin(atake)

    async def aslow(self, name: str, seconds: Seconds, *, key: object = None) -> None:
        """Start nothing through a gate with a rate for so many seconds: another system said "429, retry after …".

        What runs goes on. Raises `ConfigError` for a gate without a rate, or that nobody has declared.
        """
        length = options.seconds("seconds", seconds)
        await self._access.ado(partial(self._slow, self._name(name, key), length))

    slow = twin(aslow)

    async def aset(self, name: str, gate: Gate) -> None:
        """Change what a gate admits, for all its keys: `app.gates.set("stripe", rate("50/minute"))`.

        It counts at once, and until a worker starts whose code declares the gate in another way than before. Jobs that
        run go on. Raises `ConfigError`.
        """
        if not isinstance(gate, Gate):
            raise ConfigError(f"expected limit(…) or rate(…); {options.short(gate)} came")
        await self._access.ado(partial(self._set, name, gate.settings))

    set = twin(aset)

    async def alist(self) -> list[GateInfo]:
        """The gates that are held or waited for, and those of which settings are stored, by name."""
        return await gates_in(await self._access.connect())

    list = twin(alist)

    def _known(self) -> str:
        """The names of the gates that users have declared."""
        return ", ".join(sorted(name for name in self._declared if not name.startswith(OURS))) or "none"

    # Work on documents

    def _name(self, name: str, key: object) -> str:
        return name if key is None else f"{name}/{self._vault.key(name, str(key))}"

    def _read(self, gate: str) -> Work[tuple[Settings, int, int, int]]:
        """The settings of a gate, until when it is paid for, the time, and the version of its pace. Raises
        `ConfigError`."""
        family = family_of(gate)
        found = yield Load(GATE, [family])
        settings = read_settings(found.docs[0].body) if found.docs else self._declared.get(family)
        if settings is None:
            raise ConfigError(
                f"expected a gate that is declared, of {self._known()}; {options.short(family)} came. "
                'Declare it: app.gate("name", rate("100/minute"))'
            )
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

    def _set(self, name: str, settings: Settings) -> Work[None]:
        shelf = yield Load(GATE, [name])
        if not shelf.docs and name not in self._declared:
            raise ConfigError(f"expected the name of a gate, of {self._known()}; {options.short(name)} came")
        version = shelf.docs[0].version if shelf.docs else 0
        yield Save([Doc(kind=GATE, name=name, version=version, body=write_settings(settings))])


async def gates_in(store: Store) -> Found:
    """The gates of a store that are held or waited for, and those of which settings are stored, by name."""
    stored = {doc.name: read_settings(doc.body) async for doc in all_docs(store, GATE)}
    held: dict[str, dict[str, int]] = {}
    for job in (await store.find(Filter(state=State.RUNNING), LOOKED_AT)).jobs:
        for need in job.gates:
            held.setdefault(need.gate, {})[job.id] = share(stored.get(family_of(need.gate), Settings()), need.weight)
    waits = Counter(
        need.gate for job in (await store.find(Filter(state=State.WAITING), LOOKED_AT)).jobs for need in job.gates
    )
    met = held.keys() | waits.keys()
    names = {name for name in met | (stored.keys() - set(map(family_of, met))) if not name.startswith(OURS)}
    return [info(name, stored.get(family_of(name)), held.get(name, {}), waits[name]) for name in sorted(names)]


def pace_doc(gate: str, paid: int, now: int, version: int) -> Doc:
    """Until when a gate is paid for, as a document."""
    return Doc(kind=PACE, name=gate, version=version, body=write_pace(paid, now), due=paid / MICRO)


def info(name: str, settings: Settings | None, holders: Mapping[str, int], waiting: int) -> GateInfo:
    """What `list` says of one gate. One without settings is closed: nothing gets through."""
    limit = 0 if settings is None else settings.limit
    interval = None if settings is None or settings.interval is None else settings.interval / MICRO
    burst = 1 if settings is None else settings.burst
    return GateInfo(name=name, limit=limit, interval=interval, burst=burst, holders=holders, waiting=waiting)
