"""PURE: what a schedule is as data, and which of its ticks fire at a moment. The rules: docs/design/schedules.md."""

import random
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, get_args

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from windlass import options, values
from windlass.call import Call, job_of, open_call
from windlass.errors import ConfigError, DecodeError
from windlass.model import REMEMBERED, Mark, NewJob
from windlass.timing import Rule, from_data, to_data
from windlass.vault import Vault

CatchUp = Literal["skip", "latest", "all"]
Overlap = Literal["allow", "skip", "queue", "cancel"]

ON_TIME = 60.0
"""Seconds that a tick may be late without counting as missed: a deploy must not skip the one run of a day."""

POLL = 1.0
"""Seconds between two looks whether the job that a tick waits for is over."""

FIRES = uuid.UUID("5e0e7d5c-6b0c-4a3f-9f0e-6a5d2b0f3c11")
"""The namespace of the ids of scheduled jobs."""


class Plan(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What somebody asked for. `jitter` in seconds; `most`: ticks that "all" catches up; `runs`: how often in all."""

    rule: Rule
    call: Call
    jitter: float = 0.0
    catch_up: CatchUp = "latest"
    most: int = 100
    overlap: Overlap = "allow"
    runs: int | None = None

    def __post_init__(self) -> None:
        for name, known in (("catch_up", CatchUp), ("overlap", Overlap)):
            if (value := getattr(self, name)) not in get_args(known):
                raise ConfigError(
                    f"expected {name} as one of {', '.join(get_args(known))}; {options.short(value)} came"
                )
        for name, bound in (("most", 1_000), ("runs", None)):
            if (number := getattr(self, name)) is not None and (
                type(number) is not int or number < 1 or (bound and number > bound)
            ):
                limit = f" to {bound:,}" if bound else " on"
                raise ConfigError(f"expected a whole number from 1{limit} for {name}; {options.short(number)} came")


class Course(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A plan and how far it is. Ticks up to `cursor` are done with; `jobs` are those that may be under way, the newest
    last, and `waiting` is the tick that fires when they are over. `origin`: the app that declares it (empty: made at
    run time), and `digest` what tells whether the app declares something else now."""

    plan: Plan
    cursor: float
    fired: int = 0
    jobs: tuple[str, ...] = ()
    waiting: float | None = None
    paused: bool = False
    origin: str = ""
    digest: str = ""

    @property
    def over(self) -> bool:
        """Whether it has run as often as it may."""
        return self.plan.runs is not None and self.fired >= self.plan.runs


class Fire(Struct, frozen=True):
    """What to do now: a job for each of `ticks`, cancel those under way, keep `course`, look again at `due`."""

    ticks: tuple[float, ...]
    course: Course
    due: float | None
    cancel: bool = False


_read = msgspec.json.Decoder(Course).decode


def read(body: bytes) -> Course:
    """A stored schedule. Raises `DecodeError`."""
    try:
        return _read(body)
    except Exception as error:
        raise DecodeError(f"the stored schedule cannot be read: {error}") from error


def write(course: Course) -> bytes:
    """A schedule as it is stored."""
    return values.to_bytes(course)


# When


def ticks_between(rule: Rule, after: float, until: float) -> Iterator[float]:
    """The ticks after one moment up to another, both in seconds since the epoch."""
    tick = rule.next_after(moment(after))
    while tick is not None and tick.timestamp() <= until:
        yield tick.timestamp()
        tick = rule.next_after(tick)


def next_tick(rule: Rule, after: float) -> float | None:
    """The first tick after a moment."""
    tick = rule.next_after(moment(after))
    return None if tick is None else tick.timestamp()


def newest_ticks(rule: Rule, after: float, until: float, most: int) -> list[float]:
    """The last `most` ticks after one moment up to another, however many there are: found by halving."""
    begin, far, near = after, after, until
    enough = 2 * most + 100
    while True:
        found: deque[float] = deque(maxlen=most)
        for count, tick in enumerate(ticks_between(rule, begin, until), 1):
            if count > enough:
                far = begin
                break
            found.append(tick)
        else:
            if len(found) == most or begin <= far:
                return list(found)
            near = begin
        if near - far < 1e-3:  # ticks are at least a second apart
            return list(found)
        begin = (far + near) / 2


def late_by(name: str, plan: Plan, tick: float) -> float:
    """Seconds by which jitter puts off a tick, at most to the next one: the same for whoever asks."""
    if not plan.jitter:
        return 0.0
    following = next_tick(plan.rule, tick)
    room = plan.jitter if following is None else min(plan.jitter, following - tick)
    return random.Random(f"{name}\n{tick}").uniform(0, room)  # noqa: S311 - spreads load


def due_of(name: str, course: Course) -> float | None:
    """When to look at a schedule next; None: never, as it stands."""
    if course.paused or course.over:
        return None
    tick = next_tick(course.plan.rule, course.cursor)
    return None if tick is None else tick + late_by(name, course.plan, tick)


# Which


def look(name: str, course: Course, now: float, busy: bool) -> Fire:
    """What a schedule does at a moment of the store's clock. `busy`: one of its jobs is not over.

    All missed ticks are done with by this. Unless jobs may overlap, several at once come to one.
    """
    plan = course.plan
    if course.paused or course.over:
        return Fire((), course, None)
    most = plan.most if plan.catch_up == "all" else 1
    passed = newest_ticks(plan.rule, course.cursor, now, most + 1)
    if passed and passed[-1] + late_by(name, plan, passed[-1]) > now:  # only the last one's jitter can lie ahead
        passed.pop()
    ticks = passed[-most:]
    if passed:
        course = replace(course, cursor=passed[-1])
        late = now - passed[-1] - late_by(name, plan, passed[-1])
        if plan.catch_up == "skip" and late > ON_TIME:
            ticks = []
    if plan.overlap != "allow":
        return _alone(name, course, ticks, now, busy)
    left = len(ticks) if plan.runs is None else plan.runs - course.fired
    return _fire(name, course, ticks[:left])


def _alone(name: str, course: Course, ticks: Sequence[float], now: float, busy: bool) -> Fire:
    """`look`, where one job at a time may be under way."""
    wanted = ticks[-1] if ticks else course.waiting
    if wanted is None or (busy and course.plan.overlap == "skip"):
        return _fire(name, course, ())
    if not busy:
        return _fire(name, replace(course, waiting=None), (wanted,))
    return Fire((), replace(course, waiting=wanted), now + POLL, course.plan.overlap == "cancel")


def _fire(name: str, course: Course, ticks: Sequence[float]) -> Fire:
    if ticks:
        course = replace(course, fired=course.fired + len(ticks), jobs=(fire_id(name, ticks[-1]),))
    return Fire(tuple(ticks), course, due_of(name, course))


# What


def fire_id(name: str, tick: float) -> str:
    """The id of the job of one tick."""
    return str(uuid.uuid5(FIRES, f"{name}\n{tick:.6f}"))


def make_job(
    name: str, call: Call, tick: float, vault: Vault, id: str | None = None, rhythm: dict[str, Any] | None = None
) -> NewJob:
    """The job of one tick, or with an id of its own, one beside the ticks. Raises `DecodeError`."""
    opened = open_call(name, call, vault)
    own = values.to_bytes(replace(options.read_options(opened.options), schedule=name, tick=tick, rhythm=rhythm))
    return job_of(replace(opened, options=own), fire_id(name, tick) if id is None else id, vault)


class Rhythm(Struct, frozen=True):
    """When a schedule is due, as its jobs know it. `jitter` in seconds; `ends`: it will not go on for ever."""

    rule: Rule
    jitter: float
    ends: bool


def rhythm_of(plan: Plan) -> dict[str, Any]:
    """The rhythm of a plan, as data that is kept with each job that is made in time."""
    more = {"jitter": plan.jitter} if plan.jitter else {}
    return {**to_data(plan.rule), **more, **({"runs": plan.runs} if plan.runs else {})}


def read_rhythm(data: dict[str, Any] | None) -> Rhythm | None:
    """A rhythm that was kept with a job; None if there is none that can be read."""
    try:
        rule = from_data(data)
        assert data is not None
        return Rhythm(rule, float(data.get("jitter", 0)), bool(rule.end or data.get("runs")))
    except (DecodeError, TypeError, ValueError):
        return None


def make_mark(name: str, tick: float) -> Mark:
    """What keeps a tick from firing twice."""
    return Mark(key=f"fire:{name}:{tick:.6f}", job=fire_id(name, tick), ttl=REMEMBERED)


def moment(seconds: float) -> datetime:
    """Seconds since the epoch as a datetime."""
    return datetime.fromtimestamp(seconds, UTC)
