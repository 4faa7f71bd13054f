"""The store contract. These docstrings are the specification; the conformance suite proves it on every store.

The store moves jobs between states atomically and knows no reasons. It knows no task, no retry rule, no schedule.
Every method may be repeated after a lost reply, but for `enlist` and `join` (ids are used once, so try again
under a new one) and `tally`, which may then count twice. Every moment is read from the store's own clock. Names of
queues, tasks and tags are `[A-Za-z0-9_.-]{1,128}`.

*Ready* jobs are claimed in the order (priority, higher first; rank; id). Rank is the moment a job became due, less its
`ahead`. One that stands behind, its `ahead` below zero, is lifted when its rank comes (`Store.lift`). That of a `fair`
job, whenever it comes to be ready (or to wait for its gates) by being put, due or retried by an operator, is the rank
of the first fair job of its queue and priority that is ready or waits (its own moment if there is none), or TURN /
weight after the last one of its own key, whichever is later: start-time fair queueing (Goyal, Vin, Cheng 1996), with
what stands in line as all memory.

*Fence.* A claim gives a job a number that only grows, in the name of a registered runner (whose id is random and new
at each start) and of that runner's exchange `seq`. Writes about an attempt carry (id, fence, seq) and are checked
against what the job has, with the job still running. The first outcome of a fence stands; repeating it is accepted
and changes nothing; any other write is refused and changes nothing.

*Gates.* A job with `gates` is *waiting* instead of ready, but for those that the store holds ready for the next claim.
It is claimed in the same order as all others, and only while each of its gates has room: for its weight beside what
running jobs take (and those that `keep`, until they end), and for a start, if the gate has a rate (`windlass.gate`).
Each claim is a start, also of a job that was handed back. A job that does not fit lets worse ones pass, but no lighter
one through the gate at which it waits, as far as the demand takes both. A gate without stored settings admits nothing.

*Followers.* In the commit in which a job ends, whoever ends it, the store places the jobs that its `follow` names for
that end, under ids made of the job's, its fence, the letter of the end and their place (`windlass.follow`); where there
is such a job already, it is not placed again. A deleted job has not ended. What is no such text names none.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Literal, Protocol

from windlass.model import (
    Demand,
    Depth,
    Doc,
    Ending,
    Exchanged,
    Filter,
    Held,
    JobRecord,
    Line,
    Mark,
    NewJob,
    Orders,
    Outcome,
    Page,
    Patch,
    Placed,
    Rest,
    RunnerInfo,
    Shed,
    Shelf,
    State,
    Tally,
    Verb,
    WorkerInfo,
)
from windlass.place import Change

BATCH = 1_000
"""The most rows that one step (promote, expire, act, shed, amend, lift, prune, load) touches."""

SCHEDULE = "schedule"
"""The documents that are schedules; beats tell when one of these, or one that is PENDING, is due."""

MANIFEST = "manifest"
"""The documents that say which worker of an app declared its schedules last."""

SUBSCRIPTIONS = "subscriptions"
"""The documents that say which events an app wants, one for each app."""

PENDING = "pending"
"""The documents that are debounced events; beats tell when one is due."""

RETAINED = "retained"
"""The documents that are events kept for later subscribers, due when they may go."""

GATE = "gate"
"""The documents that are the settings of gates (`windlass.gate.Settings`): of one under its name, of all that have the
same before a "/" under that; the former go before. A change of one counts from its commit."""

PACE = "pace"
"""The documents that say until when the starts of a gate are paid for (`windlass.gate.Pace`); due when they say nothing
any more."""

PAUSE = "pause"
"""The documents that name a queue or a task of which nothing is claimed (`windlass.pause.Pause`), a queue into which
nothing comes, or a worker that shall end."""

BREAKER = "breaker"
"""The documents that say when jobs of a task with a circuit breaker failed last (`windlass.breaker.Failures`)."""

AUDIT = "audit"
"""The documents that are entries of the audit log (`windlass.audit.Entry`), due when they may go."""

ALERT = "alert"
"""The documents that are alerts (`windlass.alert.Watched`), due when somebody shall look at them."""

REPORT = "report"
"""The documents in which workers tell what they take (`windlass.usage.Report`), due when one that is gone left it."""

STANDBY = "standby"
"""The document of the process that tells what no worker would (see windlass/standby.py), due when another may."""

KINDS: tuple[str, ...] = (
    SCHEDULE,
    MANIFEST,
    SUBSCRIPTIONS,
    PENDING,
    RETAINED,
    GATE,
    PACE,
    PAUSE,
    BREAKER,
    AUDIT,
    ALERT,
    REPORT,
    STANDBY,
)
"""The kinds of documents there are. Whoever adds one names it here, so that `windlass move` carries its documents."""

NAMED = 160
"""The most characters of a class of errors that is looked up."""

COUNTED = 10_000
"""The jobs of one line and priority that are counted often: see `windlass.store.census`."""

OTHER = "(other)"
"""The queue, and the task, of what was done in more of them than a store keeps apart."""

STEPS = 2_000
"""The most steps of one series."""

Topic = Literal["work", "done"]


class Store(Protocol):
    """Where jobs live."""

    async def open(self) -> None:
        """Connect, and bring the schema up if it is new. Raises `StoreUnavailable`, `ConfigError`."""

    async def close(self) -> None:
        """Let go of everything; safe to call twice."""

    async def migrate(self) -> Sequence[str]:
        """Bring the schema to this version; the names of the steps taken now."""

    async def put(self, jobs: Sequence[NewJob], marks: Sequence[Mark] = (), docs: Sequence[Doc] = ()) -> list[Placed]:
        """Store jobs, marks and documents in one commit; one answer per job, in order.

        A job is placed scheduled when `run_at`, or `delay` from now, lies ahead, else ready. An id that exists, live
        or finished, inserts nothing and answers the job as it is. A `unique` key held by another job inserts nothing
        and answers that job, which `clash` may change; with CANCEL that one loses the key, and this one is placed. A
        mark that is taken drops the job it names from this put, and answers the mark's holder, were it that very job
        which retention has dropped since. Two jobs of one put that share an id or a key follow the same rules, in
        order.
        A document whose version is not the stored one fails the whole put with `Conflict`. A version is never used
        again, were the document dropped and made anew. A key that another open
        transaction has taken fails it with `UniquePending` after at most a second. A `fresh` job is not looked for
        among finished ones, unless the store itself repeats the put. Tags are a set, told in order. A job with a `past`
        is placed with the counts, the fence and the attempts that it had in another store; its `run_at` is its rank,
        however long ago that was. One with a fence was claimed: at `started_at`, or if that is not known, when it was
        made.
        """

    def put_now(self, jobs: Sequence[NewJob], timeout: float) -> list[Placed]:
        """`put` of jobs on the caller's own thread, at most `timeout` seconds. Raises `StoreUnavailable` when nothing
        was written, `EnqueueUnknown` when that cannot be told."""

    async def enlist(self, worker: WorkerInfo) -> None:
        """Register a worker under its new id; its lease starts now. An id that was ever used raises `Evicted`."""

    async def join(self, runner: RunnerInfo) -> None:
        """Register a runner of a living worker. Raises `Evicted` if that worker is gone or the id was used before."""

    async def exchange(self, runner: str, seq: int, outcomes: Sequence[Outcome], demand: Demand) -> Exchanged:
        """Hand in what is finished and take what fits, in one commit.

        First the runner is checked to be registered and its worker to be registered: else `Evicted`, and nothing is
        written. Then outcomes are applied in order under their fences, due jobs promoted and expired ones cancelled
        (at most BATCH each), and jobs claimed for `demand`: never more than `slots` in all nor a lane's slots, and
        of each queue with quotas first its share in order, then what is left in order. A job that was lost before is
        claimed only for a lane that lists its task in `suspects`, any other only for one that lists it in `tasks`.
        A claim that takes fewer than it could takes the best of them and sets `next_due` to 0. A demand that can take
        nothing need not be told when a rate lets a job start. A job that was ever claimed does not expire.

        `seq` grows by one with each new exchange of a runner. The same (runner, seq) again applies nothing twice and
        answers the claims of that exchange that the runner still holds.
        """

    async def settle(self, runner: str, outcome: Outcome) -> bool:
        """Apply one outcome under its fence; whether it stands. Also for runners that are no longer registered, as
        long as the job still is theirs."""

    async def release(self, runners: Sequence[str], ending: Ending, outcomes: Sequence[Outcome] = ()) -> int:
        """Unregister runners whose processes are gone, and hand back what they hold; how many jobs came back.

        `outcomes` settle some of those jobs, in the same commit; the rest become ready again. With `Ending.LOST` each
        is marked suspect (`lost` at least 1), with `Ending.INTERRUPTED` it is not. No attempt is charged.
        """

    async def retire(self, worker: str) -> None:
        """Unregister a worker that stops, handing back, as interrupted, whatever its runners still hold."""

    async def beat(self, worker: str, held: Mapping[str, Held] | None = None) -> Orders:
        """Renew the lease of a worker and of all its runners; never waits for a writer.

        `evicted` when the worker is not registered any more: nothing was renewed. Orders name running jobs of this
        worker that shall be cancelled, for as long as they run. With `held`, claims of a named runner made at or
        before that `seq` which it does not list come back, as interrupted.
        """

    async def reap(self, spare: str | None = None) -> list[str]:
        """Unregister the workers whose lease is over, their jobs handed back as lost; the ids of those workers.

        `spare` is the worker that asks: whoever can ask is not dead, and finds out by its own beat.
        """

    async def wait(self, topic: Topic, timeout: float) -> bool:
        """Wait until something may have changed ("work": jobs to claim; "done": jobs finished), or `timeout` seconds.

        True after a hint. Hints may be lost, late or spurious: the caller looks for itself.
        """

    async def note(self, runner: str, patches: Sequence[Patch]) -> Sequence[str]:
        """Write progress and lines under their fence; the ids that were refused. They stay until the next claim."""

    async def rest(self, runner: str, leaving: Sequence[Rest], entering: Sequence[Rest]) -> Sequence[str]:
        """Free what running jobs that wait for others take of gates, and give it to those that wait no more, in order;
        the ids of those that have it.

        Each is checked under its fence, and passed over if that does not stand. It is about the gates that a `Rest`
        names, but for what a job keeps. A job has them again when each has room for its weight beside those that
        have theirs; until then the room that it needs is kept from others that would start. It is no start, so no rate
        counts. Whoever has what he enters for is told that he has; who leaves wants nothing any more.
        """

    async def act(self, target: Filter | Sequence[str], verb: Verb, most: int = BATCH) -> list[str]:
        """Do an operator's verb to the jobs it fits, at most `most` and at most BATCH of them; the ids that it was done
        to.

        cancel: a job not yet running ends cancelled; a running one is marked, and its runner is ordered by beat.
        A marked job that is handed back, or would be retried, ends cancelled.
        retry: a finished job becomes ready with its counts at 0 and its fence kept, unless its unique key is held by
        another; a scheduled one becomes ready now. delete: a job that does not run is gone, with its history.
        With a filter, call again until the answer is empty (`windlass.bulk`).
        """

    async def shed(self, queue: str, most: int, *, below: int | None = None, reason: str = "") -> Shed:
        """Cancel ready and waiting jobs of a queue until no more than `most` of its jobs are ready, waiting or
        scheduled; at most BATCH. Those that were due first; with `below`, those of less than that priority, the lowest
        first and of these the last due. Nothing, where that would not be enough. Of several who ask at once, the second
        sees what the first has done."""

    async def amend(self, changes: Sequence[Change]) -> list[str]:
        """Have jobs that are ready, waiting or scheduled stand elsewhere, in one commit, at most BATCH of them; the ids
        of those. One that does not stand as it `was` said to is passed over. A job keeps its unique key, its time, and
        its rank but for what it stands ahead more or less."""

    async def lift(self) -> int:
        """Lift jobs that are ready or wait, stand behind, and whose rank has come, or comes within EARLY: the first
        BATCH of them; how many. From then on they stand at the priority LIFTED, as of when they were due (`ahead` 0).
        Beats tell when there are such (`Orders.lift`)."""

    async def prune(self, keep: Mapping[State, float]) -> int:
        """Drop finished jobs older than `keep` seconds by their state, marks past their time and PACE documents past
        theirs; at most BATCH."""

    async def save(self, docs: Sequence[Doc], drop: Collection[tuple[str, str]] = ()) -> None:
        """Write and drop documents in one commit; `Conflict` if a version is not the stored one."""

    async def load(
        self, kind: str, *, names: Collection[str] | None = None, due: float | None = None, after: str = ""
    ) -> Shelf:
        """Documents of a kind by name, at most BATCH of them: those after the name `after`, or just those named.

        With `due`, those whose time comes within so many seconds, earliest first, whatever their names.
        """

    async def get(self, ids: Sequence[str]) -> list[JobRecord]:
        """The jobs that exist of these, in the order given, attempts included."""

    async def holders(self, keys: Sequence[str]) -> Mapping[str, str]:
        """The jobs that hold these unique keys, by key; those that nobody holds are left out."""

    async def find(self, filter: Filter, limit: int = 100, after: str | None = None, far: int | None = None) -> Page:
        """Jobs as a person wants them: what is to come next first, what is over newest first, else newest first.

        No index has the jobs of a queue or a task that are over. With `far`, looking for them ends after about so many
        others: the page is short then, or empty, and goes on after its `after`.

        `error` is that of jobs that failed, in their last attempt: a class of at most NAMED characters, without quotes,
        backslashes and control characters (no job has another), found by an index. `ended_by`, seconds since the epoch,
        leaves out those that ended later; what is not over matches.

        Raises `ConfigError` for an `after` that is none that a page gave."""

    async def count(self, filter: Filter, most: int | None = None) -> int:
        """How many jobs match; with `most`, `most + 1` stands for all that are more."""

    async def stats(self) -> list[Line]:
        """Live jobs by queue, task and state, with how long the oldest has been due now. How many there are may be what
        was counted some time ago, if counting takes long, and says so (`Line.exact`)."""

    async def tally(self, rows: Sequence[Tally], depths: Sequence[Depth] = ()) -> None:
        """Add what happened to what is known of those minutes, and note how deep queues were.

        The one write that counts twice when it is repeated after a lost reply; depths do not. It never waits for
        claims, nor they for it, and a crash of the server may lose the last seconds. A minute that lies ahead of the
        store's clock counts as the one it is. Kept for 30 days: by the minute for a day, by the hour before. A store
        keeps a bounded number of (queue, task) a minute and an hour, at least 100; the rest is added up under OTHER.
        """

    async def series(self, since: float, until: float, step: int, queue: str | None = None) -> Sequence[Tally]:
        """What happened from `since` to `until` (seconds since the epoch): sums by step, queue and task, oldest first.

        A step is `step` seconds, whole minutes; steps begin at the multiples of `step`, and that which holds `since`
        is told as a whole. What is known only by the hour counts as of the beginning of that hour. Steps in which
        nothing happened are left out. Raises `ConfigError` for another step, or for more than STEPS of them.
        """

    async def depths(self, since: float, until: float, step: int, queue: str | None = None) -> Sequence[Depth]:
        """How deep queues were, in the same way: the most of each number in each step, by queue, oldest first."""

    async def workers(self) -> list[WorkerInfo]:
        """The registered workers with their runners, oldest first."""

    async def probe(self) -> Mapping[str, str]:
        """What an operator should know of this store, for `windlass doctor`; may read a lot, but changes nothing.

        Every value is text for people. A key that starts with "warning" is something to mend, and its value says how;
        one that starts with "problem" makes the store unhealthy. "engine" is the server with its version, "bytes" the
        size of the data as a whole number, "clock_offset" how many seconds the store's clock is ahead of this host's
        (no such key: they are one clock), "persistence" what survives a crash of the server, "integrity" is "ok" or
        what is damaged. Other keys are shown as they are.
        """
