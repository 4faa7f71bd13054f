"""Schedules as users make, see and change them: `app.schedules`."""

import contextlib
import itertools
from datetime import datetime
from functools import partial
from typing import Any, TypedDict, TypeVar, Unpack

from msgspec import Struct
from msgspec.structs import replace
from uuid_utils import uuid7

from windlass import options, schedule
from windlass.access import Access
from windlass.blocking import twin
from windlass.call import Call, call_of, open_call, seal_call
from windlass.codec import show
from windlass.errors import ConfigError, DecodeError, ScheduleNotFound
from windlass.jobs import Job, Jobs
from windlass.model import Doc, Placed
from windlass.options import Seconds
from windlass.schedule import CatchUp, Course, Overlap, Plan
from windlass.secret import hide
from windlass.store.contract import SCHEDULE
from windlass.store.documents import Load, Put, Save, Work, all_docs, now_of
from windlass.task import Bound, Task, Tx
from windlass.timing import Rule
from windlass.vault import ENCRYPTED, Vault

MOST = 10_000
"""The most ticks of one backfill."""

PIECE = 500
"""Jobs of one commit of a backfill."""

INSTEAD = "the rule says when, jitter= how much later, and overlap= what happens while an earlier job is not over"
"""What a schedule has for options of single jobs."""

UNDER_WAY = 20
"""The most jobs of one schedule that are watched, where they may not overlap."""

T = TypeVar("T")

Scheduled = Task[..., Any] | Bound[Any]
"""What a schedule enqueues: a task that needs no arguments, or `task.bind(…)`."""


Ticks = list[datetime]
Names = list[str]
Made = list[Job[Any]]


class PlanOptions(TypedDict, total=False):
    """How a schedule fires.

    `jitter` puts each run off by a random time up to so many seconds. `catch_up` is for ticks that nobody could fire:
    "skip", "latest" (the default) or "all", of which the last `most` (100). `overlap` is for ticks while an earlier job
    is not over: "allow" (the default), "skip", "queue" one, or "cancel" it and run when it has ended. `runs`: so often
    in all.
    """

    jitter: Seconds
    catch_up: CatchUp
    most: int
    overlap: Overlap
    runs: int | None


class Schedule(Struct, frozen=True, kw_only=True):
    """One schedule as it was when it was read. Times are in UTC; `next_runs` are in the zone of its rule.

    `origin` is the app that declares it in code, empty for one made at run time. `last_tick`: its ticks are done with
    up to there. `jobs` are the ids of those that it made last. `jitter` is in seconds.
    """

    name: str
    rule: Rule
    task: str
    args: dict[str, Any]
    queue: str
    priority: int
    tags: tuple[str, ...]
    catch_up: CatchUp
    most: int
    overlap: Overlap
    jitter: float
    runs: int | None
    fired: int
    jobs: tuple[str, ...]
    paused: bool
    waiting: bool
    origin: str
    last_tick: datetime
    read_at: datetime

    @property
    def over(self) -> bool:
        """Whether it will never fire again by itself."""
        return not self.next_runs(1)

    def next_runs(self, count: int = 5) -> list[datetime]:
        """The next ticks, as if it was not paused; in the zone of its rule."""
        left = count if self.runs is None else min(count, max(0, self.runs - self.fired))
        found: list[datetime] = []
        tick = self.rule.next_after(max(self.last_tick, self.read_at) if self.paused else self.last_tick)
        while tick is not None and len(found) < left:
            found.append(tick)
            tick = self.rule.next_after(tick)
        return found


Found = list[Schedule]


class Schedules:
    """The schedules of an app's store. Each call has a twin with an `a` in front for asynchronous code.

    With `tx`, a connection or session of your own on an SQL store, a change is part of the transaction that is open
    there. Raises `ScheduleNotFound`, `ConfigError`.
    """

    def __init__(self, access: Access, vault: Vault, jobs: Jobs) -> None:
        self._access = access
        self._vault = vault
        self._jobs = jobs

    # Reading

    def get(self, name: str, *, tx: Tx = None) -> Schedule:
        """One schedule."""
        return self._access.do(partial(self._get, name), tx)

    async def aget(self, name: str, *, tx: Tx = None) -> Schedule:
        """`get`, without blocking the event loop."""
        return await self._access.ado(partial(self._get, name), tx)

    async def alist(self) -> Found:
        """All schedules, by name, but for those that cannot be read: `unreadable` names them."""
        store = await self._access.connect()
        now = await now_of(store)
        found = []
        async for doc in all_docs(store, SCHEDULE):
            with contextlib.suppress(DecodeError):
                found.append(self._shown(doc.name, schedule.read(doc.body), now))
        return found

    async def aunreadable(self) -> Names:
        """The names of schedules that cannot be read, and so do not fire: made by another version, or by hand."""
        store = await self._access.connect()
        return [doc.name async for doc in all_docs(store, SCHEDULE) if not is_readable(doc)]

    list = twin(alist)
    unreadable = twin(aunreadable)

    def next_runs(self, name: str, count: int = 5) -> Ticks:
        """The next ticks of a schedule, in the zone of its rule."""
        return self.get(name).next_runs(count)

    async def anext_runs(self, name: str, count: int = 5) -> Ticks:
        """`next_runs`, without blocking the event loop."""
        return (await self.aget(name)).next_runs(count)

    # Changing

    def create(
        self,
        name: str,
        rule: Rule,
        call: Scheduled,
        *,
        paused: bool = False,
        tx: Tx = None,
        **given: Unpack[PlanOptions],
    ) -> Schedule:
        """Enqueue `call`, a task or `task.bind(…)`, whenever `rule` says, from now on; options are `PlanOptions`.

        Raises `ConfigError` for a name that there is, and for a rule that is never due.
        """
        plan = self.plan(rule, call, given)
        return self._access.do(partial(self._create, name, plan, paused), tx)

    async def acreate(
        self,
        name: str,
        rule: Rule,
        call: Scheduled,
        *,
        paused: bool = False,
        tx: Tx = None,
        **given: Unpack[PlanOptions],
    ) -> Schedule:
        """`create`, without blocking the event loop."""
        plan = self.plan(rule, call, given)
        return await self._access.ado(partial(self._create, name, plan, paused), tx)

    def update(
        self,
        name: str,
        *,
        rule: Rule | None = None,
        call: Scheduled | None = None,
        tx: Tx = None,
        **given: Unpack[PlanOptions],
    ) -> Schedule:
        """Change what is given of a schedule, for the ticks to come. What a worker declares in code, its next start
        declares again."""
        return self._access.do(partial(self._update, name, rule, call, given), tx)

    async def aupdate(
        self,
        name: str,
        *,
        rule: Rule | None = None,
        call: Scheduled | None = None,
        tx: Tx = None,
        **given: Unpack[PlanOptions],
    ) -> Schedule:
        """`update`, without blocking the event loop."""
        return await self._access.ado(partial(self._update, name, rule, call, given), tx)

    def pause(self, name: str, *, tx: Tx = None) -> Schedule:
        """Fire no more ticks until `resume`. Jobs that were made stay."""
        return self._access.do(partial(self._pause, name, True), tx)

    async def apause(self, name: str, *, tx: Tx = None) -> Schedule:
        """`pause`, without blocking the event loop."""
        return await self._access.ado(partial(self._pause, name, True), tx)

    def resume(self, name: str, *, tx: Tx = None) -> Schedule:
        """Fire again, from now on: ticks of the pause are not caught up."""
        return self._access.do(partial(self._pause, name, False), tx)

    async def aresume(self, name: str, *, tx: Tx = None) -> Schedule:
        """`resume`, without blocking the event loop."""
        return await self._access.ado(partial(self._pause, name, False), tx)

    def delete(self, name: str, *, tx: Tx = None) -> None:
        """Forget a schedule; its jobs stay. What a worker declares in code, its next start makes anew."""
        self._access.do(partial(self._delete, name), tx)

    async def adelete(self, name: str, *, tx: Tx = None) -> None:
        """`delete`, without blocking the event loop."""
        await self._access.ado(partial(self._delete, name), tx)

    def trigger(self, name: str, *, tx: Tx = None) -> Job[Any]:
        """Run it once now, beside its ticks, whatever is under way and even if it is paused."""
        return self._access.do(partial(self._trigger, name), tx)

    async def atrigger(self, name: str, *, tx: Tx = None) -> Job[Any]:
        """`trigger`, without blocking the event loop."""
        return await self._access.ado(partial(self._trigger, name), tx)

    def backfill(self, name: str, start: datetime, end: datetime, *, tx: Tx = None) -> Made:
        """A job for every tick from `start` to `end`, both included and past, that has none yet; at most MOST."""
        return self._access.do(partial(self._backfill, name, start, end), tx)

    async def abackfill(self, name: str, start: datetime, end: datetime, *, tx: Tx = None) -> Made:
        """`backfill`, without blocking the event loop."""
        return await self._access.ado(partial(self._backfill, name, start, end), tx)

    # The work

    def plan(self, rule: Rule, call: Scheduled, given: PlanOptions) -> Plan:
        """A schedule as asked for, not stored and not sealed. Raises `ConfigError`, `CallError`."""
        return changed(Plan(rule=checked(rule), call=kept(call, self._vault)), given)

    def _get(self, name: str) -> Work[Schedule]:
        doc, now = yield from found(name)
        return self._shown(name, schedule.read(doc.body), now)

    def _create(self, name: str, plan: Plan, paused: bool) -> Work[Schedule]:
        options.name("the name of a schedule", name)
        shelf = yield Load(SCHEDULE, (name,))
        if shelf.docs:
            raise ConfigError(
                f"there is a schedule {name} already: change it by update(…), or give this one another name"
            )
        course = Course(plan=sealed(name, plan, self._vault), cursor=shelf.now, paused=paused)
        return (yield from self._save(Doc(kind=SCHEDULE, name=name, version=0, body=b""), course, shelf.now))

    def _update(self, name: str, rule: Rule | None, call: Scheduled | None, given: PlanOptions) -> Work[Schedule]:
        doc, now = yield from found(name)
        course = schedule.read(doc.body)
        plan = changed(course.plan, given)
        if call is not None:
            plan = replace(plan, call=seal_call(name, kept(call, self._vault), self._vault))
        if rule is not None:
            plan, course = replace(plan, rule=checked(rule)), replace(course, cursor=now, waiting=None)
        return (yield from self._save(doc, replace(course, plan=plan, digest=""), now))

    def _pause(self, name: str, paused: bool) -> Work[Schedule]:
        doc, now = yield from found(name)
        course = schedule.read(doc.body)
        if course.paused and not paused:
            course = replace(course, cursor=now, waiting=None)
        return (yield from self._save(doc, replace(course, paused=paused), now))

    def _delete(self, name: str) -> Work[None]:
        yield from found(name)
        yield Save(drop=((SCHEDULE, name),))

    def _trigger(self, name: str) -> Work[Job[Any]]:
        doc, now = yield from found(name)
        course = schedule.read(doc.body)
        job = schedule.make_job(name, course.plan.call, now, self._vault, str(uuid7()))
        course = replace(course, jobs=(*course.jobs, job.id)[-UNDER_WAY:])
        with self._jobs.sending((job,)) as jobs:
            placed = yield Put(jobs, docs=(replace(doc, body=schedule.write(course)),))
            return self._jobs.placed(placed[0], jobs[0])

    def _backfill(self, name: str, start: datetime, end: datetime) -> Work[Made]:
        doc, now = yield from found(name)
        first, last = (options.moment(what, moment) for what, moment in (("start", start), ("end", end)))
        if last > now:
            raise ConfigError(
                f"expected an end of the backfill that is past; {end} came, and it is {schedule.moment(now)}"
            )
        plan = schedule.read(doc.body).plan
        ticks = list(itertools.islice(schedule.ticks_between(plan.rule, first - 1e-6, last), MOST + 1))
        if len(ticks) > MOST:
            raise ConfigError(f"expected at most {MOST:,} ticks from {start} to {end}; there are more. Do it in parts")
        jobs: list[Job[Any]] = []
        for at in range(0, len(ticks), PIECE):
            part = ticks[at : at + PIECE]
            new = [schedule.make_job(name, plan.call, tick, self._vault) for tick in part]
            with self._jobs.sending(new) as sent:
                placed: list[Placed] = yield Put(sent, [schedule.make_mark(name, tick) for tick in part])
                jobs += map(self._jobs.placed, placed, sent)
        return jobs

    def _save(self, doc: Doc, course: Course, now: float) -> Work[Schedule]:
        """Store a schedule that was changed. Raises `ConfigError` for one that is never due any more."""
        if not course.over and schedule.next_tick(course.plan.rule, course.cursor) is None:
            raise ConfigError(f"expected a rule with a moment to come; {course.plan.rule} has none after now")
        due = schedule.due_of(doc.name, course)
        yield Save((replace(doc, body=schedule.write(course), due=due),))
        return self._shown(doc.name, course, now)

    def _shown(self, name: str, course: Course, now: float) -> Schedule:
        plan = course.plan
        try:
            call = open_call(name, plan.call, self._vault)
            own = options.read_options(call.options)
            shown = hide(show(call.args), own.secret)
        except DecodeError:
            own, shown = options.NONE, {ENCRYPTED: ENCRYPTED}
        return Schedule(
            name=name,
            rule=plan.rule,
            task=plan.call.task,
            args=shown,
            queue=plan.call.queue,
            priority=own.asked(plan.call.priority),
            tags=plan.call.tags,
            catch_up=plan.catch_up,
            most=plan.most,
            overlap=plan.overlap,
            jitter=plan.jitter,
            runs=plan.runs,
            fired=course.fired,
            jobs=course.jobs,
            paused=course.paused,
            waiting=course.waiting is not None,
            origin=course.origin,
            last_tick=schedule.moment(course.cursor),
            read_at=schedule.moment(now),
        )


def found(name: str) -> Work[tuple[Doc, float]]:
    """The stored schedule of that name, and the store's time. Raises `ScheduleNotFound`."""
    shelf = yield Load(SCHEDULE, (name,))
    if not shelf.docs:
        raise ScheduleNotFound(f"there is no schedule {name!r}; `windlass schedules list` shows those that there are")
    return shelf.docs[0], shelf.now


def is_readable(doc: Doc) -> bool:
    """Whether a stored schedule can be read."""
    try:
        schedule.read(doc.body)
    except DecodeError:
        return False
    return True


def checked(rule: Rule) -> Rule:
    """A rule. Raises `ConfigError` for anything else."""
    if isinstance(rule, Rule):
        return rule
    hint = f": cron({rule!r})?" if isinstance(rule, str) else ""
    raise ConfigError(f"expected a rule made by cron(…), every(…), rrule(…) or at(…); {options.short(rule)} came{hint}")


def changed(plan: Plan, given: PlanOptions) -> Plan:
    """A plan with some options of it changed. Raises `ConfigError`."""
    if unknown := given.keys() - PlanOptions.__annotations__.keys():
        raise ConfigError(f"expected options of {', '.join(PlanOptions.__annotations__)}; {', '.join(unknown)} came")
    values: dict[str, Any] = dict(given)
    if "jitter" in values:
        values["jitter"] = options.seconds("jitter", values["jitter"])
    return replace(plan, **values)


def kept(given: Scheduled, vault: Vault) -> Call:
    """What is enqueued, not sealed yet. Raises `ConfigError`, and `CallError` for a task that needs arguments."""
    bound = given.bind() if isinstance(given, Task) else given
    if not isinstance(bound, Bound):
        raise ConfigError(f"expected a task, or task.bind(…), to schedule; {options.short(given)} came")
    return call_of(bound.new, vault, INSTEAD)


def sealed(name: str, plan: Plan, vault: Vault) -> Plan:
    """A plan as a schedule of that name keeps it."""
    return replace(plan, call=seal_call(name, plan.call, vault))
