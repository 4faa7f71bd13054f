"""What happened to jobs, told by everybody involved and kept outside of the store; and what must be true of it.

Each process appends its events, one JSON line each, to a file of its own in a folder that all share. A line is in the
kernel's hands when `tell` returns, so `kill -9` of the process loses none::

    log = Log(folder)                                 # in every process: producers, tasks, whoever kills
    log.tell("asked", job_id, word=unique_key)        # before a put ...
    log.tell("put", job_id, yes=placed_now)           # ... and when it was answered
    with attempt(log) as (job, fence):                # around the body of a task: "started" ... "ended"
        log.tell("effect", job, fence)
    log.tell("killed", process=str(pid))              # by whoever does such things, before the deed
    tell_found(log, await store.find(...))            # in the end: what the store has

    events = read(folder)
    violations = check(events)                        # [] or what is wrong, the shortest story first
    print(violations[0])

`watched(store, log)` stands in front of a store in a runner (`class Soaked(App): async def connect(self): ...`), and
tells "settling", "settled" and "claimed" of every exchange, and "fired" of the jobs of schedules. The fewer of these a
history has, the less is checked; nothing is guessed. Times are seconds of the monotonic clock, which all processes of
a host share; `since` is when a call was sent whose answer is told. The simulation tells the same events by its own
time.

========== ============================================================================================================
asked      somebody is about to put the job; `word`: its unique key
put        the put was answered, with this id; `yes`: the job is new; `word`: its unique key
claimed    the store gave the attempt (job, fence) to the process
started    the job's code runs; effect: it did something; wrote: it wrote a row in the transaction that settles it
ended      the job's code runs no more; `word`: how
settling   the process is about to hand in an outcome; `word`: the ending
settled    the store answered it; `yes`: it stands
back       the attempt was handed back; `word`: lost or interrupted
acted      an operator's verb (`word`) was answered; `yes`: it was done
found      the store's own record in the end; `word`: its state; `attempts`: (fence, ending) of those without success
row        a row that the job's transaction wrote was found in the end
counted    how many jobs (`fence`) the store counts in the state `word`
fired      a worker put the job of a tick; `word`: its schedule and moment; `yes`: the job is new
due        in the end, a tick (`word`) that must have had its job
killed     the process was, or will be at once, killed; frozen and thawed: it was stopped, it was continued
evicted    the process was told by the store that it is not registered any more
========== ============================================================================================================
"""

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import msgspec

from windlass import current
from windlass.model import FINAL, Demand, Doc, Ending, Exchanged, JobRecord, Mark, NewJob, Outcome, Placed
from windlass.options import read_options
from windlass.store.contract import Store


class Event(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that happened; see above for what the fields mean with each `what`."""

    at: float
    process: str
    what: str
    job: str = ""
    fence: int = 0
    word: str = ""
    yes: bool = True
    since: float | None = None
    attempts: tuple[tuple[int, str], ...] = ()

    @property
    def sent(self) -> float:
        """When the call was sent of which this is the answer."""
        return self.at if self.since is None else self.since

    def __str__(self) -> str:
        parts = [f"fence {self.fence}" if self.fence else "", self.word, "" if self.yes else "no"]
        parts += [f"sent at {self.since:.3f}" if self.since is not None else "", str([*self.attempts] or "")]
        return (
            f"{self.at:12.3f}  {self.process:<12} {self.what:<9} {', '.join(part for part in parts if part)}".rstrip()
        )


class Violation(Exception):
    """What must not be, and the story of the job it happened to."""

    def __init__(self, job: str, text: str, story: Sequence[Event] = ()) -> None:
        super().__init__(job, text, story)
        self.job, self.text, self.story = job, text, story

    def __str__(self) -> str:
        several = len({event.job for event in self.story} - {""}) > 1
        lines = [f"{event.job:<10} {event}" if several else str(event) for event in self.story]
        return "\n".join([f"{self.job or 'the store'}: {self.text}", *lines])


# Telling


class Log:
    """The file of this process in the folder of a history; a forked child begins its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pid = self._file = 0

    def tell(self, what: str, job: str = "", fence: int = 0, *, process: str = "", **more: Any) -> None:
        """Append an event that happens now."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            path = self._folder / f"{self._pid}.jsonl"
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        event = Event(time.monotonic(), process or str(self._pid), what, job, fence, **more)
        os.write(self._file, msgspec.json.encode(event) + b"\n")


@contextmanager
def attempt(log: Log) -> Iterator[tuple[str, int]]:
    """Around the body of a task: tells that it starts and how it ends. Gives its job and its fence."""
    context = current()
    assert context.job
    job, fence = context.job.id, context.fence
    log.tell("started", job, fence)
    try:
        yield job, fence
    except BaseException as error:
        log.tell("ended", job, fence, word=type(error).__name__)
        raise
    log.tell("ended", job, fence, word="ok")


def tell_found(log: Log, jobs: Iterable[JobRecord]) -> None:
    """What the store has in the end."""
    for job in jobs:
        log.tell("found", job.id, job.fence, word=str(job.state), attempts=attempts_of(job))


def attempts_of(job: JobRecord) -> tuple[tuple[int, str], ...]:
    """Fence and ending of the attempts that did not succeed."""
    return tuple((entry.fence, str(entry.ending)) for entry in job.attempts)


def watched(store: Store, log: Log) -> Store:
    """The same store, which tells what a runner hands in and gets."""
    return cast("Store", Watched(store, log))


class Watched:
    """In front of a store, in a runner."""

    def __init__(self, store: Store, log: Log) -> None:
        self._store, self._log = store, log

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def put(self, jobs: Sequence[NewJob], marks: Sequence[Mark] = (), docs: Sequence[Doc] = ()) -> list[Placed]:
        placed = await self._store.put(jobs, marks, docs)
        for job, one in zip(jobs, placed, strict=True):
            own = read_options(job.options)
            if own.tick is not None:
                self._log.tell("fired", job.id, word=f"{own.schedule}@{own.tick:.6f}", yes=one.new)
        return placed

    async def exchange(self, runner: str, seq: int, outcomes: Sequence[Outcome], demand: Demand) -> Exchanged:
        sent = self._settling(outcomes)
        answer = await self._store.exchange(runner, seq, outcomes, demand)
        for outcome in outcomes:
            self._settled(outcome, outcome.id not in answer.refused, sent)
        for claim in answer.claimed:
            self._log.tell("claimed", claim.id, claim.fence, since=sent)
        return answer

    async def settle(self, runner: str, outcome: Outcome) -> bool:
        sent = self._settling([outcome])
        stands = await self._store.settle(runner, outcome)
        self._settled(outcome, stands, sent)
        return stands

    def _settling(self, outcomes: Sequence[Outcome]) -> float:
        for outcome in outcomes:
            self._log.tell("settling", outcome.id, outcome.fence, word=str(outcome.ending))
        return time.monotonic()

    def _settled(self, outcome: Outcome, stands: bool, sent: float) -> None:
        self._log.tell("settled", outcome.id, outcome.fence, word=str(outcome.ending), yes=stands, since=sent)


def read(folder: Path) -> list[Event]:
    """All events, in the order of time. The last line of a process that was killed while it wrote may be torn."""
    decode = msgspec.json.Decoder(Event).decode
    files = [path.read_bytes().split(b"\n") for path in sorted(folder.glob("*.jsonl"))]
    return sorted((decode(line) for lines in files for line in lines[:-1]), key=lambda event: event.at)


# Checking

FINAL_ENDINGS = frozenset(ending for ending in Ending if ending.state.final)


FATES = frozenset({"killed", "frozen", "thawed", "evicted"})
"""What befalls a process, whatever jobs it has."""


class Tale:
    """The events of one job in the order of time, and what befell the processes in it."""

    def __init__(self, job: str, faults: dict[str, list[Event]]) -> None:
        self.job = job
        self.events: list[Event] = []
        self._faults = faults

    def all(self, *whats: str) -> list[Event]:
        """Its events of some kinds."""
        return [event for event in self.events if event.what in whats]

    def done(self, verb: str) -> list[Event]:
        """When an operator did this to it."""
        return [event for event in self.all("acted") if event.word == verb and event.yes]

    @property
    def found(self) -> Event | None:
        """What the store had in the end."""
        return next(iter(self.all("found")), None)

    @property
    def accepted(self) -> list[Event]:
        """The outcomes that stand, each as it was first answered: a repetition of it may come late."""
        first: dict[tuple[int, str], Event] = {}
        for event in self.all("settled"):
            if event.yes:
                first.setdefault((event.fence, event.word), event)
        return list(first.values())

    def excused(self, process: str, start: float, end: float) -> bool:
        """Whether a process stood still or was killed at some time between; nobody can help what it does then."""
        fates = self._faults.get(process, [])
        for number, fate in enumerate(fates):
            until = fates[number + 1].at if number + 1 < len(fates) else end
            if fate.what in ("killed", "frozen") and fate.at <= end and until >= start:
                return True
        return False

    def story(self) -> list[Event]:
        """Its events, with what befell those who took part, while they did."""
        if not self.events:
            return []
        parts = {event.process for event in self.events}
        first, last = self.events[0].at, self.events[-1].at
        faults = [event for part in sorted(parts) for event in self._faults.get(part, ()) if first <= event.at <= last]
        return sorted([*self.events, *faults], key=lambda event: event.at)


Rule = Callable[[Tale], Iterator[str]]


def kept(tale: Tale) -> Iterator[str]:
    """I1: a job whose put was answered exists in the end, unless it was deleted."""
    if tale.all("put") and not tale.found:
        yield "lost: its put was answered, and the store does not know it"


def over(tale: Tale) -> Iterator[str]:
    """L1: in the end every job is over."""
    if tale.found and tale.found.word not in FINAL:
        yield f"stuck: still {tale.found.word} in the end"


def stored_once(tale: Tale) -> Iterator[str]:
    """I6: one id is new once."""
    if sum(event.yes for event in tale.all("put")) > 1:
        yield "stored twice: two puts of this id were answered as new"
    if len(tale.all("found")) > 1:
        yield "found twice"


def settled_once(tale: Tale) -> Iterator[str]:
    """I2: after an outcome that ends the job stands, no other does and nobody gets the job, unless it is retried."""
    ends = [event for event in tale.accepted if event.word in FINAL_ENDINGS]
    retried = [event.at for event in tale.done("retry")]
    for end in ends:
        if any(at >= end.sent for at in retried):
            continue
        for event in tale.events:
            if event.what in ("claimed", "started") and event.fence > end.fence:
                yield f"{event.what} under fence {event.fence} although the outcome of fence {end.fence} ended it"
            elif event in ends and event.at >= end.at and event is not end:
                yield f"settled twice: {end.word} under fence {end.fence} and {event.word} under fence {event.fence}"


def one_outcome(tale: Tale) -> Iterator[str]:
    """I2: of one attempt, one outcome stands."""
    stands: dict[int, str] = {}
    for event in tale.accepted:
        if stands.setdefault(event.fence, event.word) != event.word:
            yield f"two outcomes of fence {event.fence} stand: {stands[event.fence]} and {event.word}"


def fences_grow(tale: Tale) -> Iterator[str]:
    """I3: a fence belongs to one process, is started once, and a later claim has a higher one."""
    claims = tale.all("claimed")
    starts = Counter(event.fence for event in tale.all("started"))
    yield from (f"fence {fence} was started {count} times" for fence, count in starts.items() if count > 1)
    owners: dict[int, set[str]] = {}
    for event in claims:
        owners.setdefault(event.fence, set()).add(event.process)
    yield from (f"fence {fence} was given to {sorted(who)}" for fence, who in owners.items() if len(who) > 1)
    known: dict[tuple[int, str], float] = {}
    newest = Event(0.0, "", "claimed")
    for event in claims:
        if event.fence < newest.fence and event.sent > newest.at and (event.fence, event.process) not in known:
            yield f"claimed under fence {event.fence} after it was claimed under {newest.fence}"
        known[event.fence, event.process] = event.at
        newest = max(newest, event, key=lambda event: event.fence)


def fenced(tale: Tale) -> Iterator[str]:
    """I4: an outcome first handed in after somebody else got the job, or after it was handed back, does not stand."""
    first: dict[tuple[int, str], float] = {}
    for event in tale.all("settling"):
        first.setdefault((event.fence, event.word), event.at)
    for event in tale.accepted:
        sent = first.get((event.fence, event.word), event.sent)
        for other in tale.events:
            later = other.what in ("claimed", "started") and other.fence > event.fence
            if other.at < sent and (later or (other.what == "back" and other.fence == event.fence)):
                yield f"the late outcome {event.word} of fence {event.fence} stands, after it was {other.what}"
                break


def remembered(tale: Tale) -> Iterator[str]:
    """I4: what stands is what the store tells in the end; and what it tells, somebody did."""
    found = tale.found
    if found is None or tale.done("retry"):
        return
    told = dict(found.attempts)
    for event in tale.accepted:
        if event.word == Ending.SUCCEEDED:
            if (found.word, found.fence) != ("succeeded", event.fence):
                yield f"the success of fence {event.fence} stands, but it was found {found.word}, fence {found.fence}"
        elif told.get(event.fence) != event.word:
            yield f"{event.word} of fence {event.fence} stands, but the store tells {told.get(event.fence)}"
    if found.word == "succeeded" and tale.all("started") and found.fence not in _fences(tale, "started"):
        yield f"succeeded under fence {found.fence}, which nobody started"


def accounted(tale: Tale) -> Iterator[str]:
    """I9: every attempt that began has an end that the store tells: none was forgotten, none invented."""
    found = tale.found
    if found is None or tale.done("retry"):
        return
    told = {fence for fence, _ in found.attempts}
    open_fence = {found.fence} if found.word in ("succeeded", "running") else set()
    if missing := set(range(1, found.fence + 1)) - told - open_fence:
        yield f"the store does not tell how fence {sorted(missing)} ended"
    if unknown := _fences(tale, "claimed", "started") - set(range(1, found.fence + 1)):
        yield f"ran under fence {sorted(unknown)}, which the store does not know"


def _fences(tale: Tale, *whats: str) -> set[int]:
    return {event.fence for event in tale.all(*whats)}


def alone(tale: Tale) -> Iterator[str]:
    """I5: an attempt shows no sign of life after a later one began, unless its process stood still or was killed.

    That may be between the claim and the start: what was on its way into a process starts when it wakes up.
    """
    began: list[Event] = []
    begins: dict[int, float] = {}
    for event in tale.events:
        if event.what in ("claimed", "started"):
            begins.setdefault(event.fence, event.at)
        if event.what == "started":
            began.append(event)
        if event.what not in ("started", "effect", "wrote", "ended"):
            continue
        for later in began:
            own = begins.get(event.fence, event.at)
            if later.fence > event.fence and not tale.excused(event.process, own, event.at):
                yield (
                    f"fence {event.fence} still ran ({event.what}) in {event.process} at {event.at:.3f}, after fence "
                    f"{later.fence} started in {later.process}"
                )
                return


def atomic(tale: Tale) -> Iterator[str]:
    """I10: a row that is written with the success of its job is there once if it succeeded, and not at all else."""
    rows = len(tale.all("row"))
    if tale.found and (tale.all("wrote") or rows) and rows != (tale.found.word == "succeeded"):
        yield f"{tale.found.word}, with {rows} rows of its transaction"


RULES: tuple[Rule, ...] = (
    kept,
    over,
    stored_once,
    settled_once,
    one_outcome,
    fences_grow,
    fenced,
    remembered,
    accounted,
    alone,
    atomic,
)


def check(events: Iterable[Event]) -> list[Violation]:
    """All that is wrong with a history, the shortest story first. Until the store was looked at ("found", "counted")
    nothing is lost. A deleted job is not judged, as its id may begin anew.
    """
    history = sorted(events, key=lambda event: event.at)
    looked = any(event.what in ("found", "counted") for event in history)
    rules = RULES if looked else [rule for rule in RULES if rule is not kept]
    judged = [tale for tale in tales_of(history).values() if not tale.done("delete")]
    wrong = [Violation(tale.job, text, tale.story()) for tale in judged for rule in rules for text in rule(tale)]
    wrong += [*unique(judged), *ticks(history), *conserved(history)]
    return sorted(wrong, key=lambda violation: len(violation.story))


def tales_of(history: Iterable[Event]) -> dict[str, Tale]:
    """What happened to each job."""
    faults: dict[str, list[Event]] = {}
    tales: dict[str, Tale] = {}
    for event in history:
        if event.what in FATES:
            faults.setdefault(event.process, []).append(event)
        elif event.job:
            tales.setdefault(event.job, Tale(event.job, faults)).events.append(event)
    return tales


def unique(tales: Iterable[Tale]) -> Iterator[Violation]:
    """I7: a job is not admitted while another one surely holds its unique key."""
    holders: dict[str, list[tuple[Event, Tale]]] = {}
    for tale in tales:
        for put in tale.all("put"):
            if put.yes and put.word:
                holders.setdefault(put.word, []).append((put, tale))
    for key, puts in holders.items():
        for (first, tale), (second, other) in pairwise(sorted(puts, key=lambda entry: entry[0].at)):
            if first.at < second.sent and second.at < _surely_live_until(tale):
                story = sorted([*tale.story(), *other.story()], key=lambda event: event.at)
                yield Violation(other.job, f"admitted although {tale.job} holds its unique key {key}", story)


def ticks(history: Sequence[Event]) -> Iterator[Violation]:
    """A tick of a schedule makes one job, whatever becomes of it, and none that was due is left out."""
    fired: dict[str, list[Event]] = {}
    for event in history:
        if event.what == "fired" and event.yes:
            fired.setdefault(event.word, []).append(event)
    for tick, puts in fired.items():
        if len(puts) > 1:
            yield Violation(puts[-1].job, f"tick {tick} fired {len(puts)} times", puts)
    for event in history:
        if event.what == "due" and event.word not in fired:
            yield Violation("", f"tick {event.word} never fired", [event])


def _surely_live_until(tale: Tale) -> float:
    """The last moment at which the job was live for sure, in its first life."""
    retried = min((event.sent for event in tale.done("retry")), default=float("inf"))
    if tale.found and tale.found.word not in FINAL and not tale.done("retry"):
        return tale.found.at
    first = (event.sent for event in (*tale.all("claimed"), *tale.accepted) if event.sent < retried)
    return max(first, default=0.0)


def conserved(history: Sequence[Event]) -> Iterator[Violation]:
    """I11: what the store counts is what is found in it."""
    found = Counter(event.word for event in history if event.what == "found")
    for event in history:
        if event.what == "counted" and event.fence != found[event.word]:
            yield Violation("", f"counts {event.fence} {event.word} jobs, of which {found[event.word]} are found")


def tally(events: Iterable[Event]) -> Counter[str]:
    """How many events of each kind there are; "extra": starts beyond the first of each job."""
    counts: Counter[str] = Counter()
    started: set[str] = set()
    for event in events:
        counts[event.what] += 1
        if event.what == "started":
            counts["extra"] += event.job in started
            started.add(event.job)
    return counts
