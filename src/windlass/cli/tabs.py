"""What `windlass top` shows on each of its tabs, as rows of text, and what can be done there."""

from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from typing import TypeVar

from msgspec import Struct

from windlass.app import App
from windlass.audit import of_held, of_jobs
from windlass.cli.actions import DONE
from windlass.cli.jobs import row as job_row
from windlass.cli.output import ago, cell, counted
from windlass.cli.queues import queue_row
from windlass.cli.schedules import row as schedule_row
from windlass.cli.trail import aaudited
from windlass.cli.workers import HEAD as WORKER_HEAD
from windlass.cli.workers import worker_rows
from windlass.errors import ConfigError, WindlassError
from windlass.gates import paused_keys
from windlass.model import Filter, JobRecord, Line, State, Verb, WorkerInfo
from windlass.pause import DRAIN, QUEUE
from windlass.queues import Paused, QueueInfo, held_in, queue_info
from windlass.view import duration, is_late, living, nobody, why_not
from windlass.workers import told_in, with_told

SHOWN = 200
"""The most jobs on a tab."""

FAILED = 100
"""The newest failed jobs that the overview sorts by cause."""

CAUSES = 5

REASON = "by windlass top"
"""Why a queue is paused from here."""

T = TypeVar("T")
Words = dict[str, str]


class Row(Struct, frozen=True):
    """A row: what it stands for, and its cells, which may hold colours and nothing else that steers a terminal."""

    key: str
    cells: tuple[str, ...]


class Sight(Struct, frozen=True):
    """What every tab needs to know: the live jobs and the workers."""

    lines: list[Line]
    workers: list[WorkerInfo]

    @property
    def headline(self) -> str:
        """The numbers at the top."""
        counts = {state: sum(line.count for line in self.lines if line.state is state) for state in State}
        alive = living(self.workers)
        slots = sum(worker.concurrency for worker in alive)
        oldest = max((line.oldest for line in self.lines if line.state is State.READY), default=0.0)
        parts = [f"{counts[state]:,} {state}" for state in (State.READY, State.WAITING, State.SCHEDULED)]
        parts.append(f"{counts[State.RUNNING]:,} running in {counted(slots, 'slot')}")
        return ", ".join([*parts, counted(len(alive), "worker")]) + (f"; oldest {duration(oldest)}" if oldest else "")


Read = Callable[[App, Sight, Words], Awaitable[list[Row]]]
Do = Callable[[App, Sequence[str]], Awaitable[str]]


class Act(Struct, frozen=True):
    """Something that a key does to the rows that are chosen; what says `sure` is asked about before."""

    key: str
    word: str
    do: Do
    sure: bool = True


class Tab(Struct, frozen=True):
    """One tab."""

    name: str
    head: tuple[str, ...]
    read: Read
    things: str = ""
    acts: tuple[Act, ...] = ()
    narrows: Collection[str] = ()


async def look(core: App) -> Sight:
    """Look at the store, as the dashboard does."""
    store = await core.connect()
    return Sight(await store.stats(), await store.workers())


# Reading


async def overview(core: App, sight: Sight, _: Words) -> list[Row]:
    """What needs a look, and why; the newest failures by cause."""
    store = await core.connect()
    found = troubles(sight)
    for key, one in (await held_in(store)).items():
        how = "draining" if key.startswith(DRAIN) else "paused"
        found += [(f"{one.kind} {one.name} is {how}", why_held(one))]
    found += [(f"key {one.name} is paused", why_held(one)) for one in await paused_keys(store)]
    found += [
        (f"schedule {one.name} is late", "no worker fired it") for one in filter(is_late, await core.schedules.alist())
    ]
    found += causes((await store.find(Filter(state=State.FAILED), FAILED)).jobs)
    rows = [Row(f"{at}", (cell(what), cell(why))) for at, (what, why) in enumerate(found)]
    return rows or [Row("well", ("all is well", ""))]


def why_held(one: Paused) -> str:
    """Why something is paused or drained; since when, if nobody said."""
    return one.reason or f"since {ago(one.since.timestamp())}"


def troubles(sight: Sight) -> list[tuple[str, str]]:
    """Workers that are missing, and jobs that nobody would run."""
    alive = living(sight.workers)
    lost = [one for one in sight.workers if not one.alive]
    found = [(f"worker {one.host}:{one.pid} is lost", f"last beat {duration(one.beat_age)} ago") for one in lost]
    if not alive:
        return [("no worker is running", "start one: windlass worker MODULE:APP"), *found]
    idle = [line for line in sight.lines if line.state is not State.RUNNING]
    return found + [
        (f"{counted(line.count)} of {line.task} in {line.queue}", why) for line in idle if (why := nobody(line, alive))
    ]


def causes(jobs: Sequence[JobRecord]) -> list[tuple[str, str]]:
    """The newest failures by task and kind of error, the most frequent first."""
    counts: dict[tuple[str, str], int] = {}
    for job in jobs:
        failure = job.attempts[-1].failure if job.attempts else None
        key = job.task, failure.type if failure else "no error was kept"
        counts[key] = counts.get(key, 0) + 1
    often = sorted(counts.items(), key=lambda one: -one[1])[:CAUSES]
    return [(f"{counted(count)} of {task} failed", error) for (task, error), count in often]


async def queues(core: App, sight: Sight, _: Words) -> list[Row]:
    """The queues with jobs, and those that are paused or drained."""
    held = await held_in(await core.connect())
    names = {line.queue for line in sight.lines} | {one.name for one in held.values() if one.kind == "queue"}
    found = []
    for name in sorted(names):
        lines = [line for line in sight.lines if line.queue == name]
        one = queue_info(name, lines, 0.0, 0.0, held.get(QUEUE + name), held.get(DRAIN + name))
        found.append(Row(name, shown_queue(one)))
    return found


def shown_queue(one: QueueInfo) -> tuple[str, ...]:
    """A queue without its rates, which would cost a look at many jobs."""
    row = queue_row(one)
    return (*row[:6], row[-1])


async def jobs(core: App, _: Sight, words: Words, state: State | None = None) -> list[Row]:
    """Jobs, in one state or in any."""
    given = words.get("state")
    if state is None and given is not None:
        if given not in list(State):
            raise ConfigError(f"expected state as one of {', '.join(State)}; {given} came")
        state = State(given)
    wanted = Filter(state=state, task=words.get("task"), queue=words.get("queue"), tag=words.get("tag"))
    found = (await (await core.connect()).find(wanted, SHOWN)).jobs
    return [Row(job.id, (cell(job.id[-8:]), *job_row(job)[1:])) for job in found]


async def workers(core: App, sight: Sight, _: Words) -> list[Row]:
    """The workers and their runners."""
    found = with_told(sight.workers, await told_in(await core.connect()))
    return [
        Row(worker.id if at == 0 else f"{worker.id} {at}", row)
        for worker in found
        for at, row in enumerate(worker_rows(worker))
    ]


async def schedules(core: App, _: Sight, __: Words) -> list[Row]:
    """The schedules, and those that cannot be read."""
    found = []
    for one in await core.schedules.alist():
        row = schedule_row(one)
        found.append(Row(one.name, (row[0], row[1], row[2], row[4], row[5], row[6])))
    broken = await core.schedules.aunreadable()
    return found + [Row(name, (cell(name), "", "", "", "", "cannot be read: delete it")) for name in broken]


# Acting, as commands do: each act stands in the audit log


async def act_on_jobs(verb: Verb, core: App, ids: Sequence[str]) -> str:
    """Do an operator's verb; what came of it, and of the first that was refused, why."""
    async with aaudited(core, str(verb), of_jobs(ids)) as note:
        done = await core.jobs.act(ids, verb)
        note.done = len(done)
    said = f"{counted(len(done))} {DONE[verb]}"
    refused = [id for id in ids if id not in set(done)]
    if refused and (left := await core.jobs.aget_many(refused[:1])):
        said += f"; {len(refused)} not: {why_not(left[0].record, verb)}"
    return said


async def once(core: App, act: str, kind: str, name: str, work: Callable[[str], Awaitable[T]], why: str = "") -> T:
    """Do something to a queue, a schedule or a worker."""
    async with aaudited(core, act, of_held(kind, name, why)) as note:
        came = await work(name)
        note.done = 1
    return came


async def toggle_queues(core: App, names: Sequence[str]) -> str:
    """Pause those that go on, let the others go on."""
    held = {one.name for one in (await held_in(await core.connect())).values() if one.kind == "queue"}
    for name in names:
        if name in held:
            await once(core, "resume", "queue", name, core.queues.aresume)
        else:
            await once(core, "pause", "queue", name, partial(core.queues.apause, reason=REASON), REASON)
    return "; ".join(f"{name} {'goes on' if name in held else 'is paused'}" for name in names)


async def drain_workers(core: App, keys: Sequence[str]) -> str:
    """Ask workers to end, by their own rows or those of their runners."""
    ids = dict.fromkeys(key.partition(" ")[0] for key in keys)
    for id in ids:
        await once(core, "drain", "worker", id, core.workers.adrain)
    return f"{counted(len(ids), 'worker')} asked to end"


async def toggle_schedules(core: App, names: Sequence[str]) -> str:
    """Pause those that are not paused, resume the others."""
    said = []
    for name in names:
        if (await core.schedules.aget(name)).paused:
            await once(core, "resume", "schedule", name, core.schedules.aresume)
            said.append(f"{name} goes on")
        else:
            await once(core, "pause", "schedule", name, core.schedules.apause)
            said.append(f"{name} is paused")
    return "; ".join(said)


async def trigger(core: App, names: Sequence[str]) -> str:
    """Run these once now."""
    made = [await once(core, "trigger", "schedule", name, core.schedules.atrigger) for name in names]
    return f"{counted(len(made))} made: {', '.join(job.id for job in made)}"


async def drop_schedules(core: App, names: Sequence[str]) -> str:
    """Forget these."""
    for name in names:
        await once(core, "delete", "schedule", name, core.schedules.adelete)
    return f"{counted(len(names), 'schedule')} deleted"


JOB_ACTS = (
    Act("r", "retry", partial(act_on_jobs, Verb.RETRY), sure=False),
    Act("C", "cancel", partial(act_on_jobs, Verb.CANCEL)),
    Act("D", "delete", partial(act_on_jobs, Verb.DELETE)),
)
JOB_HEAD = ("ID", "TASK", "STATE", "TRIES", "QUEUE", "WHEN", "")

TABS = (
    Tab("overview", ("WHAT", "WHY"), overview),
    Tab(
        "queues",
        ("QUEUE", "READY", "WAITING", "LATER", "RUNNING", "FIRST DUE", ""),
        queues,
        "queue",
        (Act("P", "pause or resume", toggle_queues),),
    ),
    Tab("jobs", JOB_HEAD, jobs, "job", JOB_ACTS, ("state", "task", "queue", "tag")),
    Tab("failed", JOB_HEAD, partial(jobs, state=State.FAILED), "job", JOB_ACTS, ("task", "queue", "tag")),
    Tab("workers", WORKER_HEAD, workers, "worker", (Act("D", "drain", drain_workers),)),
    Tab(
        "schedules",
        ("NAME", "RULE", "TASK", "NEXT RUN", "FIRED", "STATE"),
        schedules,
        "schedule",
        (
            Act("P", "pause or resume", toggle_schedules),
            Act("T", "run now", trigger),
            Act("D", "delete", drop_schedules),
        ),
    ),
)


def split_filter(text: str, narrows: Collection[str]) -> tuple[Words, str]:
    """A filter as it was typed: `task=NAME` and the like, as far as the tab knows them, and what rows have to hold."""
    words: Words = {}
    rest = []
    for part in text.split():
        name, mark, value = part.partition("=")
        if mark and value and name in narrows:
            words[name] = value
        else:
            rest.append(part)
    return words, " ".join(rest).lower()


async def done_or_why(act: Act, core: App, keys: Sequence[str]) -> str:
    """Do it; what came of it, or why it could not be done."""
    try:
        return await act.do(core, keys)
    except WindlassError as error:
        return f"not done: {error}"
