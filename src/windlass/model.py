"""Frozen values that every room shares: jobs, outcomes, demands, workers. No behaviour beyond small derivations."""

from enum import StrEnum

from msgspec import Struct

from windlass.discreet import Discreet
from windlass.usage import Usage

PRIORITIES = range(-100, 101)


class State(StrEnum):
    """Where a job stands. The last three are final."""

    WAITING = "waiting"
    SCHEDULED = "scheduled"
    READY = "ready"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Whether a job in this state is over (only an operator's retry brings it back)."""
        return self in FINAL


IDLE = (State.SCHEDULED, State.WAITING, State.READY)
"""The states of jobs that wait to be run, in the order in which jobs go through them."""

FINAL = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED})


class Ending(StrEnum):
    """How an attempt ended, and with that where its job goes."""

    SUCCEEDED = "succeeded"
    RETRY = "retry"
    SNOOZED = "snoozed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"
    LOST = "lost"

    @property
    def state(self) -> State:
        """The state that a job takes when an attempt ends so."""
        return _AFTER[self]


_AFTER = {
    Ending.SUCCEEDED: State.SUCCEEDED,
    Ending.RETRY: State.SCHEDULED,
    Ending.SNOOZED: State.SCHEDULED,
    Ending.FAILED: State.FAILED,
    Ending.CANCELLED: State.CANCELLED,
    Ending.INTERRUPTED: State.READY,
    Ending.LOST: State.READY,
}


class Failure(Struct, frozen=True, kw_only=True):
    """An error as data: never pickled, never rebuilt into a class."""

    type: str
    message: str
    traceback: str = ""


class Clash(StrEnum):
    """What becomes of a live job whose unique key a new one brings."""

    KEEP = "keep"
    """It stands for the new one."""

    REPLACE = "replace"
    """It stands for the new one, and unless it runs, with the new one's arguments, options and followers."""

    MOVE = "move"
    """The same, and it is due when the new one would be, at most `max_wait` seconds after it was made."""

    CANCEL = "cancel"
    """It is cancelled (if it runs, it is marked), and the new one has the key."""


class Need(Struct, frozen=True, array_like=True, gc=False):
    """What a job takes of a gate: so many units while it runs, and for each start. A gate's settings are stored under
    what stands before the first "/" of its name. `keep`: from its first start to its end, through retries."""

    gate: str
    weight: int = 1
    keep: bool = False


class Fair(Struct, frozen=True, array_like=True, gc=False):
    """Whose turn a job takes among those of its queue and priority; `weight` 2 has twice as many turns as 1."""

    key: str
    weight: float = 1.0


class NewJob(Discreet, frozen=True, kw_only=True, gc=False):
    """One request to run a task, before a store has it. `delay` and `expires_in` are seconds from the store's now.

    `fresh`: the id was made for this very put, so a store need not look for it among finished jobs. `follow`: the jobs
    that its end makes, as `windlass.follow` writes them. `unique_for`: seconds for which the unique key is held,
    whatever becomes of the job; 0: until it is first claimed; None: until it ends. `ahead`: seconds by which it stands
    in front of others that are due at the same moment.
    """

    id: str
    task: str
    args: bytes
    queue: str = "default"
    priority: int = 0
    delay: float = 0
    run_at: float | None = None
    expires_in: float | None = None
    unique: str | None = None
    unique_for: float | None = None
    clash: Clash = Clash.KEEP
    max_wait: float | None = None
    ahead: float = 0
    fair: Fair | None = None
    tags: tuple[str, ...] = ()
    options: bytes | None = None
    fresh: bool = False
    past: "Past | None" = None
    follow: bytes | None = None
    gates: tuple[Need, ...] = ()


class Past(Struct, frozen=True, kw_only=True):
    """What a job brings along that lived in another store: its counts, its fence, its attempts, when it was made and
    when it was claimed last.

    With it, `run_at` is the moment that it was due there, and its rank.
    """

    enqueued_at: float
    started_at: float | None = None
    attempt: int = 0
    lost: int = 0
    fence: int = 0
    attempts: tuple["Attempt", ...] = ()


REMEMBERED = 7 * 86_400.0
"""Seconds for which the marks of derived ids are kept, beyond the jobs' own retention: what comes again within them (a
row of an outbox, a message, a tick, an event) makes no second job."""


TURN = 1_000
"""Microseconds of rank between two turns of one key of weight 1: small beside the time that jobs wait."""


class Mark(Struct, frozen=True, kw_only=True):
    """A key that admits one holder: a unique key while its job lives, or a derived id until `ttl` seconds are over."""

    key: str
    job: str
    ttl: float


class Doc(Discreet, frozen=True, kw_only=True):
    """A small versioned document. `version` is the one that was read (0: it must not exist yet); `gone` drops it."""

    kind: str
    name: str
    version: int
    body: bytes
    due: float | None = None
    gone: bool = False


class Shelf(Struct, frozen=True, kw_only=True):
    """Documents, and the store's time (seconds since the epoch) when they were read."""

    now: float
    docs: tuple[Doc, ...]


class Placed(Struct, frozen=True, kw_only=True, gc=False):
    """What `put` did with one job: its id (or the one that stands for it) and whether it is new.

    `state` is None when only a mark still tells of that job: retention dropped it.
    """

    id: str
    state: State | None
    new: bool


class Claim(Discreet, frozen=True, kw_only=True):
    """One job handed to a runner. (`id`, `fence`, runner, `seq`) names this attempt and no other, ever."""

    id: str
    fence: int
    seq: int
    task: str
    queue: str
    args: bytes
    options: bytes | None
    priority: int
    attempt: int
    lost: int
    enqueued_at: float
    run_at: float


class Outcome(Discreet, frozen=True, kw_only=True):
    """How one attempt ended. `attempt` and `lost` are the job's new counts; `delay` is in seconds from now. `lines` is
    what it logged; a success keeps what was noted."""

    id: str
    fence: int
    seq: int
    ending: Ending
    attempt: int
    lost: int = 0
    delay: float = 0
    result: bytes | None = None
    failure: Failure | None = None
    reason: str | None = None
    lines: str = ""


class Patch(Discreet, frozen=True, kw_only=True):
    """Fenced news of a running job: its progress, and what it logged."""

    id: str
    fence: int
    seq: int
    progress: "Progress | None" = None
    lines: str = ""


class Rest(Struct, frozen=True, kw_only=True):
    """A running job that waits for others, or waits no more, and the gates that this is about, by the names of their
    settings."""

    id: str
    fence: int
    seq: int
    gates: tuple[str, ...]


class Progress(Struct, frozen=True, kw_only=True):
    """How far a job is: `done` of `total` (None: unknown) and a word for people."""

    done: float
    total: float | None = None
    note: str = ""


class Lane(Struct, frozen=True, kw_only=True):
    """Free slots of one lane, the tasks it runs, and the suspects (jobs lost before) that it may take."""

    slots: int
    tasks: frozenset[str]
    suspects: frozenset[str] = frozenset()


class Quota(Struct, frozen=True, kw_only=True):
    """One queue's share of the free slots in this exchange; what it leaves passes on, in order."""

    queue: str
    share: int


class Demand(Struct, frozen=True, kw_only=True):
    """What a runner can take now. No quotas: every queue, merged by (priority, rank, id)."""

    slots: int
    lanes: tuple[Lane, ...] = ()
    quotas: tuple[Quota, ...] | None = None


class Exchanged(Struct, frozen=True, kw_only=True):
    """The answer to an exchange. `next_due`: seconds until a wait could end (0: more is ready now; None: nothing)."""

    refused: tuple[str, ...]
    claimed: tuple[Claim, ...]
    next_due: float | None


class Held(Struct, frozen=True, kw_only=True):
    """The claims that a runner holds, as (id, fence), as of its exchange `seq`."""

    seq: int
    claims: frozenset[tuple[str, int]]


class Order(Struct, frozen=True, kw_only=True):
    """A running job that its runner shall cancel."""

    runner: str
    id: str
    fence: int


class Orders(Struct, frozen=True, kw_only=True):
    """The answer to a beat. `due` as `Exchanged.next_due`; `fire`: seconds until a schedule is due (None: none is);
    `dead`: another worker's lease is over, so reap; `lift`: there are jobs to lift."""

    evicted: bool = False
    cancel: tuple[Order, ...] = ()
    due: float | None = None
    fire: float | None = None
    dead: bool = False
    lift: bool = False


class Attempt(Struct, frozen=True, kw_only=True):
    """One attempt that did not end in success, kept with its job, and the newest lines that it logged."""

    fence: int
    attempt: int
    ending: Ending
    runner: str | None
    started_at: float | None
    ended_at: float
    failure: Failure | None = None
    lines: str = ""


class JobRecord(Discreet, frozen=True, kw_only=True):
    """A job as its store has it. Times are seconds since the epoch, by the store's clock.

    `started_at`: when it was claimed last. `cancelling`: it runs, and shall be cancelled. `tags`: each once, sorted.
    `lines`: the newest of what its running or last attempt logged, as far as it was noted.
    """

    id: str
    task: str
    queue: str
    priority: int
    state: State
    args: bytes
    options: bytes | None
    attempt: int
    lost: int
    fence: int
    runner: str | None
    enqueued_at: float
    run_at: float
    started_at: float | None = None
    finished_at: float | None = None
    expires_at: float | None = None
    cancelling: bool = False
    reason: str | None = None
    result: bytes | None = None
    progress: Progress | None = None
    lines: str = ""
    unique: str | None = None
    tags: tuple[str, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    follow: bytes | None = None
    gates: tuple[Need, ...] = ()
    ahead: float = 0
    fair: Fair | None = None


class Filter(Struct, frozen=True, kw_only=True):
    """Which jobs: every given field must match. See `Store.find` for `error` and `ended_by`."""

    state: State | None = None
    task: str | None = None
    queue: str | None = None
    tag: str | None = None
    error: str | None = None
    ended_by: float | None = None


class Page(Struct, frozen=True, kw_only=True):
    """Some jobs and the cursor that continues after them (None: these were the last). `back_to`: of a page that ended
    early, when the last job that was looked at ended, or else came, where that is known."""

    jobs: tuple[JobRecord, ...]
    after: str | None
    back_to: float | None = None


class Verb(StrEnum):
    """What an operator may do to jobs."""

    CANCEL = "cancel"
    RETRY = "retry"
    DELETE = "delete"


class Shed(Struct, frozen=True, kw_only=True):
    """Jobs that were cancelled to make room in a queue, and how many are left there that do not run yet."""

    ids: tuple[str, ...]
    left: int


class RunnerInfo(Struct, frozen=True, kw_only=True):
    """One runner: a child process that runs jobs, and what it knows. Times as in `JobRecord`. `usage` as in
    `WorkerInfo`."""

    id: str
    worker: str
    pid: int
    tasks: tuple[str, ...] = ()
    joined_at: float = 0
    running: int = 0
    usage: Usage = Usage()


class WorkerInfo(Struct, frozen=True, kw_only=True):
    """One worker: a supervisor and its runners. `lease` in seconds; `beat_age`: seconds since its last beat.

    No store knows `usage`, what it told last, and whether it is `draining`: `windlass.workers` adds them.
    """

    id: str
    host: str
    pid: int
    version: str
    lease: float
    queues: str = ""
    concurrency: int = 0
    started_at: float = 0
    beat_age: float = 0
    runners: tuple[RunnerInfo, ...] = ()
    usage: Usage = Usage()
    draining: bool = False

    @property
    def alive(self) -> bool:
        """Whether its lease runs."""
        return self.beat_age <= self.lease

    @property
    def served(self) -> frozenset[str]:
        """The queues that it was told to serve; none: all of them."""
        return frozenset(name for part in self.queues.split(",") if (name := part.partition(":")[0].strip()))

    def serves(self, queue: str | None) -> bool:
        """Whether it serves a queue; None: any at all."""
        return queue is None or not self.served or queue in self.served


class Line(Struct, frozen=True, kw_only=True):
    """How many live jobs of one task stand in one queue in one state. `oldest`: seconds since the first became due, of
    those that stand in front (0: none did). `exact`: whether `count` is of now; else it was counted some time ago."""

    queue: str
    task: str
    state: State
    count: int
    oldest: float = 0
    exact: bool = True


BUCKETS: tuple[float, ...] = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 120.0, 600.0, 3600.0)
"""The upper bounds, in seconds, of the buckets in which a `Tally` counts times; one more counts what took longer."""

EMPTY: tuple[int, ...] = (0,) * (len(BUCKETS) + 1)
"""The counts of all buckets, while nothing was counted."""


class Tally(Struct, frozen=True, kw_only=True):
    """What happened to jobs of a task in a queue in a minute (`minute`: of the epoch), or in several from then on.

    `started`: claims that began to run. `succeeded`, `failed`, `cancelled`: jobs that ended so. `retried`, `lost`:
    attempts that did not end them. `waited`: seconds from due to start, `ran`: from start to end, each summed up;
    `waits` and `runs`: the same by bucket, for each of BUCKETS how many took no longer than it (and longer than the one
    before), then how many took longer than all.
    """

    minute: int
    queue: str
    task: str
    started: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    retried: int = 0
    lost: int = 0
    waited: float = 0.0
    ran: float = 0.0
    waits: tuple[int, ...] = EMPTY
    runs: tuple[int, ...] = EMPTY


class Depth(Struct, frozen=True, kw_only=True):
    """How many jobs stood in a queue at some moment of a minute, as in `Line`; of several moments, the most."""

    minute: int
    queue: str
    ready: int = 0
    waiting: int = 0
    scheduled: int = 0
    running: int = 0
    oldest: float = 0.0
