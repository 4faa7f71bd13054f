"""Jobs behind gates: which of them become ready, and which of those that a claim has chosen may start.

Jobs of one line with the same needs stand together, by (priority, rank, id). As many of them are ready as would fit if
all others stood still; they take nothing of a gate before they are claimed, so what nobody runs is in nobody's way. A
claim looks again: what does not fit any more goes back. Behind a gate without room a line is *blocked*, one row, at one
of its gates, and nothing is asked until that gate is called.
"""

import json
import sqlite3
from collections.abc import Callable, Collection, Iterable

from windlass.gate import (
    Settings,
    family_of,
    fit,
    paid_after,
    read_needs,
    read_pace,
    read_settings,
    share,
    starts_at,
    write_pace,
)
from windlass.model import Need, Rest
from windlass.store.contract import BATCH, GATE, PACE
from windlass.store.queries import load_queries
from windlass.store.sqlite.rows import exact, one

SQL = load_queries("windlass.store.sqlite", "gates.sql")

Connection = sqlite3.Connection
Place = tuple[int, int, str]
"""(-priority, rank, id): sorts in the order of claiming."""

Chosen = tuple[Place, str, str]
"""A ready job: its place, its line, its gates."""


class Gate:
    """One gate as it is now, with what this claim has chosen to take of it."""

    def __init__(self, db: Connection, now: int, name: str, settings: Settings) -> None:
        self._db, self._now, self.name, self.settings = db, now, name, settings
        self.paid = 0 if self.settings.interval is None else read_pace(one(db, SQL.doc_body, (PACE, name)), now)
        self.used: int = one(db, SQL.used, (name,))

    def own(self, need: Need, job: str) -> int:
        """The units that a job has kept."""
        return (need.keep and one(self._db, SQL.held_of, (self.name, job))) or 0

    def fits(self, need: Need, job: str, most: int = 1) -> int:
        """How many jobs of this need fit, at most `most`, if `job` is the first of them."""
        return fit(self.settings, self.used - self.own(need, job), self.paid, self._now, need.weight, most)

    def has_place(self, need: Need) -> bool:
        """Whether there is room for one more job of this need, which has started already."""
        used: int = one(self._db, SQL.used_by_others, (self.name,))
        return self.settings.limit is None or self.settings.limit - used >= share(self.settings, need.weight)

    def keep_place(self, need: Need, job: str) -> None:
        """Let nobody else start where this job wants to come back."""
        self._db.execute(SQL.keep_place, (self.name, job, share(self.settings, need.weight)))

    def take(self, need: Need, job: str) -> None:
        """Let one job start."""
        self.used += share(self.settings, need.weight) - self.own(need, job)
        if self.settings.interval is not None:
            self.paid = paid_after(self.settings, self.paid, self._now, need.weight)

    def start(self, need: Need, job: str) -> None:
        """Write that a job has started."""
        self._db.execute(SQL.hold, (self.name, job, share(self.settings, need.weight), need.keep))

    def settle(self) -> None:
        """Write what the starts have cost, and when others may go on that wait here, or stand ready to be refused."""
        if self.settings.interval is None:
            return
        self._db.execute(SQL.save_pace, (PACE, self.name, self._now, write_pace(self.paid, self._now), self.paid))
        self.call(1)

    def call(self, weight: int) -> None:
        """Have a gate that has a rate looked at when that lets `weight` units start."""
        if self.settings.interval is not None:
            at = starts_at(self.settings, self.paid, self._now, weight)
            if at > self._now:
                self._db.execute(SQL.call, (self.name, at, self._now))


class Gates:
    """The gates that one exchange meets."""

    def __init__(self, db: Connection, now: int) -> None:
        self._db, self._now = db, now
        self._known: dict[str, Gate] = {}
        self._families: dict[str, Settings] = {}
        self.opened: set[str] = set()
        """The jobs that became ready."""

    def __getitem__(self, name: str) -> Gate:
        if name not in self._known:
            self._known[name] = Gate(self._db, self._now, name, self._settings(name))
        return self._known[name]

    def _settings(self, name: str) -> Settings:
        """What somebody has set for the key alone, else what counts for all keys."""
        family = family_of(name)
        own = None if name == family else one(self._db, SQL.doc_body, (GATE, name))
        if own is not None:
            return read_settings(own)
        if family not in self._families:
            self._families[family] = read_settings(one(self._db, SQL.doc_body, (GATE, family)))
        return self._families[family]

    # Before a claim: who is ready

    def admit(self) -> bool:
        """Look at what was stirred and at gates that were called; whether more of that is left."""
        if (at := next_look(self._db, self._now)) is None or at > self._now:
            return False
        lines = exact(self._db, SQL.stirred, (BATCH,))
        for line, gates in lines:
            self._look(line, gates)
        called = exact(self._db, SQL.freed, (self._now, self._now, BATCH))
        for (name,) in called:
            self._open(name)
        return max(len(lines), len(called)) == BATCH

    def _look(self, line: str, gates: str) -> int:
        """Make the best jobs of one line behind these gates ready, as many as fit; how many that are."""
        needs = read_needs(gates)
        kept = [row[0] for need in needs if need.keep for row in exact(self._db, SQL.kept, (need.gate, gates, line))]
        rooms = {id: self._room(needs, id) for id in kept}
        self._admit(id for id, (most, _) in rooms.items() if most)
        first = exact(self._db, SQL.standing, (gates, line, 1))
        room, barred = self._room(needs, first[0][0] if first else "")
        barred = next((one for most, one in rooms.values() if not most), barred)  # what those wait for lets others on
        rows = exact(self._db, SQL.standing, (gates, line, room + 1))
        self._admit(row[0] for row in rows[:room] if row[1] == "waiting")
        if barred is not None and len(rows) > room:
            id, _, priority, rank = rows[room]
            self._block(line, gates, barred, (-priority, rank, id))
        else:
            self._db.execute(SQL.unblock, (gates, line))
        return min(room, len(rows))

    def _room(self, needs: Iterable[Need], first: str) -> tuple[int, Need | None]:
        """How many jobs with these needs fit, at most BATCH, if `first` is one of them; and what bars more."""
        room, barred = BATCH, None
        for need in needs:
            if (most := self[need.gate].fits(need, first, room)) < room or barred is None:
                room, barred = most, need
        return room, barred

    def _admit(self, jobs: Iterable[str]) -> None:
        ids = list(jobs)
        self._db.execute(SQL.admit, (json.dumps(ids),))
        self.opened.update(ids)

    def _block(self, line: str, gates: str, barred: Need, best: Place) -> None:
        self._db.execute(SQL.block, (line, gates, barred.gate, barred.weight, -best[0], best[1], best[2]))
        self[barred.gate].call(barred.weight)

    def _open(self, name: str) -> None:
        """Look at the best lines that are blocked at a gate, of each task and queue as many as it has room for."""
        gate = self[name]
        for (line,) in exact(self._db, SQL.lines_blocked, (name,)):
            room = gate.fits(Need(name), "", BATCH)
            for gates, weight in exact(self._db, SQL.blocked_at, (name, line, BATCH)):
                if room <= 0:
                    gate.call(weight)
                    break
                room -= weight * self._look(line, gates)

    # In a claim: who may start

    def refuse(self, chosen: Iterable[Chosen], serves: Callable[[str], bool]) -> set[str]:
        """The ids of those that do not fit, of jobs that are ready and were chosen, in the order of claiming."""
        shut: set[str] = set()
        refused: dict[tuple[str, str], tuple[Need, list[Place]]] = {}
        for place, line, gates in chosen:
            needs = read_needs(gates)
            barred = next((need for need in needs if not self._passes(need, place, shut, serves)), None)
            if barred is None:
                for need in needs:
                    self[need.gate].take(need, place[2])
            else:
                shut.add(barred.gate)
                refused.setdefault((line, gates), (barred, []))[1].append(place)
        if refused:
            self._known.clear()  # nobody has started
        for (line, gates), (barred, places) in refused.items():
            self._turn_away(line, gates, barred, places[0])
        return {place[2] for _, places in refused.values() for place in places}

    def _passes(self, need: Need, place: Place, shut: Collection[str], serves: Callable[[str], bool]) -> bool:
        """Whether a job may pass a gate: there is room, and no heavier and better one waits for it."""
        gate = self[need.gate]
        if gate.own(need, place[2]):
            return gate.fits(need, place[2]) > 0
        if need.gate in shut or not gate.fits(need, place[2]):
            return False
        heavier = exact(self._db, SQL.heavier, (need.gate, need.weight))
        return not any(tuple(row[:3]) < place and serves(row[3]) for row in heavier)

    def _turn_away(self, line: str, gates: str, barred: Need, best: Place) -> None:
        """The ready jobs of one line go back, from the place `best` on."""
        standing = exact(self._db, SQL.standing, (gates, line, 2 * BATCH))
        back = [id for id, state, priority, rank in standing if state == "ready" and (-priority, rank, id) >= best]
        self._db.execute(SQL.turn_away, (json.dumps(back),))
        self.opened.difference_update(back)
        self._block(line, gates, barred, best)
        for need in read_needs(gates):  # others may wait for what these do not take
            if need.gate != barred.gate:
                self._db.execute(SQL.call, (need.gate, 0, 0))

    def start(self, jobs: Iterable[tuple[str, str]], *, again: bool) -> None:
        """Write what jobs that were claimed, given as (id, gates), take; `again`: after others were refused, with whom
        what these take was forgotten."""
        met = {}
        for id, gates in jobs:
            for need in read_needs(gates):
                if again:
                    self[need.gate].take(need, id)
                self[need.gate].start(need, id)
                met[need.gate] = self[need.gate]
        for gate in met.values():
            gate.settle()


def rest(db: Connection, now: int, runner: str, leaving: Iterable[Rest], entering: Iterable[Rest]) -> list[str]:
    """Free gates of jobs that wait, and give them to those that wait no more; the ids of those that have them."""
    for given in leaving:
        for need in rested(db, runner, given) or ():
            if db.execute(SQL.let_go, (need.gate, given.id)).rowcount:
                db.execute(SQL.call, (need.gate, 0, 0))
    gates, back = Gates(db, now), []
    for given in entering:
        needs = rested(db, runner, given)
        missing = [need for need in needs or () if one(db, SQL.held_of, (need.gate, given.id)) is None]
        if needs is None:
            continue
        if all(gates[need.gate].has_place(need) for need in missing):
            for need in missing:
                db.execute(SQL.leave_place, (need.gate, given.id))
                gates[need.gate].start(need, given.id)
            back.append(given.id)
        else:
            for need in missing:
                gates[need.gate].keep_place(need, given.id)
    return back


def rested(db: Connection, runner: str, rest: Rest) -> list[Need] | None:
    """What a job takes of the gates that this is about; None if the attempt runs no more."""
    row = db.execute(SQL.gates_of, (rest.id, rest.fence, rest.seq, runner)).fetchone()
    if row is None:
        return None
    return [need for need in read_needs(row[0]) if not need.keep and family_of(need.gate) in rest.gates]


def call_for(db: Connection, kind: str, name: str) -> None:
    """Look again at the gates of which a document tells that was written."""
    if kind == GATE and name == family_of(name):
        db.execute(SQL.call_family, (name,))
    elif kind in (GATE, PACE):
        db.execute(SQL.call, (name, 0, 0))


def next_look(db: Connection, now: int) -> int | None:
    """When a gate is to be looked at next, at the earliest now; None: at no known time."""
    at: int | None = one(db, SQL.next_look, (now,))
    return at
