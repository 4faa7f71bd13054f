"""The app: the tasks it knows, where its jobs live, and the ways in."""

import contextlib
import inspect
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from types import MappingProxyType
from typing import Any, ParamSpec, Protocol, TypeVar, Unpack, overload

from msgspec.structs import replace

from windlass import blocking, callback, notice, options
from windlass.access import Access
from windlass.alert import QUEUE, Alert
from windlass.breaker import Breaker
from windlass.carrier import Carrier
from windlass.config import Concurrency, make_config
from windlass.config import Settings as Configured
from windlass.description import PLAIN, Described, WhenFull, bound_of
from windlass.drain import Drains
from windlass.errors import CallError, ConfigError
from windlass.event import Subscription
from windlass.events import DEBOUNCE, Events, SubscriptionOptions
from windlass.gate import Settings
from windlass.gates import Gates
from windlass.hook import Hook, tell_caller, who_hear
from windlass.jobs import Job, Jobs
from windlass.kin import Kin
from windlass.limits import Gate, Key, declared, gates_of
from windlass.model import Mark, NewJob, Placed
from windlass.options import Executor, Seconds, short
from windlass.origin import by_hand, is_same, place_of
from windlass.outward import Outward
from windlass.policy import Retry
from windlass.pressure import Pressure, full_after
from windlass.queues import Queues
from windlass.schedule import Plan
from windlass.schedules import PlanOptions, Scheduled, Schedules
from windlass.source.bridge import bridging
from windlass.source.feed import Identify
from windlass.source.source import MAX_READY, Source
from windlass.source.verify import Verify
from windlass.source.webhook import MAX_SIZE, Webhooks, make_route
from windlass.standing import Rules
from windlass.store.contract import Store
from windlass.task import AsyncTask, Bound, Followers, SyncTask, Task, Tx, is_coroutine
from windlass.task import Gates as GatesGiven
from windlass.timing import Rule
from windlass.unique import AGAIN, Uniqueness, Weigh
from windlass.vault import Vault
from windlass.worker.embedded import embedded
from windlass.worker.relay import Relayed, relaying
from windlass.worker.runner import Runner
from windlass.workers import Workers

P = ParamSpec("P")
R = TypeVar("R")
ScheduledT = TypeVar("ScheduledT", bound=Scheduled)
TaskT = TypeVar("TaskT", bound=Task[..., Any])

Lifespan = Callable[["App"], AbstractAsyncContextManager[Any]]


class Decorator(Protocol):
    """What `app.task(…)` with options returns. The overloads overlap on purpose: the first that fits is meant."""

    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, fn: Callable[P, R], /) -> SyncTask[P, R]: ...


class App:
    """Tasks and the store of their jobs.

    `url` names the store (else WINDLASS_URL, `[tool.windlass] url`, or windlass.db beside the nearest
    pyproject.toml). `lifespan(app)` is an async context manager, opened once per runner and process child; what it
    yields is `current().state`. `hooks` see jobs come, run and end; `alerts` tell people of trouble (docs/alerts.md).
    Other settings are those of `Config`.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        lifespan: Lifespan | None = None,
        hooks: Iterable[Hook] = (),
        alerts: Iterable[Alert] = (),
        **settings: Unpack[Configured],
    ) -> None:
        if lifespan is not None and (not callable(lifespan) or inspect.isasyncgenfunction(lifespan)):
            raise ConfigError(
                f"expected lifespan as a function of the app that returns an async context manager; {short(lifespan)} "
                "came. Put @contextlib.asynccontextmanager above an async def that yields once"
            )
        self.config = make_config(url=url, **settings)
        self.lifespan = lifespan
        self.hooks = tuple(hooks)
        self.max_payload = self.config.max_payload
        self.vault = Vault(self.config.keys)
        self.outward = Outward(self.config.callback_secrets, self.config.callback_hosts)
        self._access = Access(self.config)
        self._tasks: dict[str, Task[..., Any]] = {}
        self._queues: dict[str, Described] = {}
        self.pressure = Pressure(self._access)
        self.limits: dict[str, Settings] = {AGAIN: Settings(limit=1)}
        self.gates = Gates(self._access, self.vault, self.limits)
        self.queues = Queues(self._access)
        self.workers = Workers(self._access)
        self._drains = Drains(self._access)
        self.outboxes: list[Relayed] = []
        self.sources: list[Source] = []
        wrap = Carrier(self.hooks, self.vault).sending if who_hear(self.hooks, "sending") else contextlib.nullcontext
        told = partial(tell_caller, hear) if (hear := who_hear(self.hooks, "enqueued")) else None
        self.jobs = Jobs(self.connect, self._results, self.vault, told, wrap, Rules(self.described, self._gates_of))
        self.kin = Kin(self)
        self.schedules = Schedules(self._access, self.vault, self.jobs)
        self.plans: dict[str, Plan] = {}
        self.events = Events(self._access, self.vault, self.jobs, self.max_payload)
        self.webhooks = Webhooks(self)
        self.alerts = notice.by_name(alerts)
        for name, fn in notice.make_tasks(self, self.alerts.values()).items():
            self.task(name=name, queue=QUEUE, retry=notice.RETRY, timeout=notice.TIMEOUT)(fn)
        if self.outward.signs:
            self.task(name=callback.NAME, queue=callback.QUEUE, retry=callback.RETRY, timeout=callback.TIMEOUT)(
                callback.make_callback(self)
            )

    # Tasks

    @property
    def tasks(self) -> Mapping[str, Task[..., Any]]:
        """The tasks by their names and aliases."""
        return MappingProxyType(self._tasks)

    @overload
    def task(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...  # type: ignore[overload-overlap]
    @overload
    def task(self, fn: Callable[P, R], /) -> SyncTask[P, R]: ...
    @overload
    def task(
        self,
        /,
        *,
        name: str | None = None,
        aliases: Sequence[str] = (),
        queue: str = "default",
        priority: int = 0,
        executor: Executor = "auto",
        timeout: Seconds | None = None,
        retry: Retry | int | None = None,
        gates: GatesGiven = (),
        ordered_by: Key | None = None,
        unique: Uniqueness | None = None,
        fair_key: Key | None = None,
        fair_weight: Weigh = 1.0,
        breaker: Breaker | None = None,
        on_success: Followers | None = None,
        on_failure: Followers | None = None,
        on_final: Followers | None = None,
    ) -> Decorator: ...

    def task(self, fn: Callable[..., Any] | None = None, /, **options: Any) -> Any:
        """Make a function a task: `@app.task` or `@app.task(queue=…, retry=…, timeout=…, executor=…)`.

        Its name is `module.function` unless `name` says otherwise; under `aliases` jobs of its old names run.
        `executor` is "auto" (coroutines on the event loop, functions in threads), "process", or says which. `gates` are
        limits and rates that its jobs pass (`windlass.limit`, `windlass.rate`). With `ordered_by` (a template such as
        `"{account_id}"`, or a function of the arguments) the jobs of each key run strictly one after another, in the
        order in which they came; one that is tried again holds up those behind it. `unique` is a `Unique(…)` or a
        `debounce(…)`. With `fair_key` the jobs of each key of a queue take turns, whoever came first with how many;
        `fair_weight` (a number, or a function of the arguments) gives a key more turns or fewer. `breaker` pauses the
        task everywhere while it does nothing but fail (`windlass.Breaker`).
        """
        return self._add(fn, options) if fn is not None else lambda fn: self._add(fn, options)

    def _add(self, fn: Callable[..., Any], options: dict[str, Any]) -> Task[..., Any]:
        kind = AsyncTask if is_coroutine(fn) else SyncTask
        task: Task[..., Any] = kind(self, fn, **options)
        names = (task.name, *task.aliases)
        for name in names:
            other = self._tasks.get(name)
            if other is not None and not is_same(other.fn, fn):
                raise ConfigError(
                    f"two tasks are called {name}: {place_of(other.fn)} and {place_of(fn)}. Give one another name="
                )
        self._declare(task.gates, again=by_hand(fn))
        self._tasks.update(dict.fromkeys(names, task))
        return task

    def queue(
        self,
        name: str,
        *,
        gates: GatesGiven = (),
        aging: Seconds | None = None,
        expires_in: Seconds | None = None,
        max_length: int | None = None,
        when_full: WhenFull = "block",
        max_wait: Seconds | None = None,
    ) -> None:
        """Say what all jobs of a queue have in common: `app.queue("mail", gates=limit(10))`. Raises `ConfigError`.

        It counts for jobs that this app enqueues, whatever their task. With `aging`, waiting makes up for priority: a
        job of the lowest has the highest after so many seconds, one of a priority in between after its part of them,
        and what comes later stands behind it (docs/limits.md). With `expires_in`, jobs that were not started so many
        seconds after they were due are cancelled, unless their call says otherwise. While `max_length` jobs or more
        are ready, waiting or scheduled in the queue, enqueueing waits for room, up to `max_wait` seconds (None: for
        ever), and then raises `QueueFull`. With `when_full="reject"`, and with tx=, it raises at once; with
        "drop_oldest", the jobs that were due first are cancelled, and with "shed_lowest" those of the lowest priority,
        if that is lower than the new one's (docs/queues.md).
        """
        title = options.name("a queue", name)
        found = Described(
            gates=gates_of(gates, f"queue:{title}", None),
            aging=None if aging is None else options.seconds("aging", aging, above_zero=True),
            expires_in=None if expires_in is None else options.seconds("expires_in", expires_in, above_zero=True),
            most=bound_of(max_length, when_full, max_wait, ages=aging is not None),
        )
        if self._queues.get(title, found) != found:
            raise ConfigError(f"queue {title} was described before, and differently: say it once")
        self._declare(found.gates)
        self._queues[title] = found
        if found.most is not None:
            self.pressure.bounds[title] = found.most

    def gate(self, name: str, gate: Gate) -> None:
        """Declare a gate that tasks take of while they run: `app.gate("stripe", rate("100/minute"))`, and in a task
        `await current().take("stripe")`. Raises `ConfigError`."""
        title = options.name("the name of a gate", name)
        if not isinstance(gate, Gate) or gate.asks or gate.name not in ("", title):
            raise ConfigError(f"expected limit(…) or rate(…) without name, key and weight; {short(gate)} came")
        self._declare([replace(gate, name=title)])

    def described(self, queue: str) -> Described:
        """What all jobs of a queue have in common."""
        return self._queues.get(queue, PLAIN)

    def _declare(self, gates: Iterable[Gate], *, again: bool = False) -> None:
        """Know the settings of gates. Raises `ConfigError` where two of one name differ, unless said `again`."""
        for name, settings in declared(gates).items():
            if self.limits.get(name, settings) != settings and not again:
                raise ConfigError(f"two gates are called {name} and have different settings: say them once")
            self.limits[name] = settings

    def schedule(
        self, rule: Rule, *, name: str | None = None, **given: Unpack[PlanOptions]
    ) -> Callable[[ScheduledT], ScheduledT]:
        """Run a task whenever `rule` says: `@app.schedule(cron("0 5 * * *"))` above `@app.task`.

        `app.schedule(every(minutes=5), name="eu")(sweep.bind("eu"))` gives it arguments. The name is the task's unless
        `name` says otherwise; options are `PlanOptions`. Workers bring it into the store when they start, and take it
        away when the code does not declare it any more.
        """

        def declare(call: ScheduledT) -> ScheduledT:
            task = call.task if isinstance(call, Bound) else call
            if not isinstance(task, Task):
                raise ConfigError(
                    f"expected a task below @app.schedule(…); {short(call)} came. Put @app.task between them"
                )
            title = options.name("the name of a schedule", task.name if name is None else name)
            plan = self.schedules.plan(rule, call, given)
            if self.plans.get(title, plan) != plan and not by_hand(task.fn):
                raise ConfigError(f"two schedules are called {title}: give one another name=")
            self.plans[title] = plan
            return call

        return declare

    def on(self, topics: str, **given: Unpack[SubscriptionOptions]) -> Callable[[TaskT], TaskT]:
        """Run a task for events: `@app.on("order.*", where={"country": "DE"})` above `@app.task`.

        `topics` is a topic, or a pattern in which `*` stands for one word and `**` for any number. The task's first
        parameter takes the payload; options are `SubscriptionOptions`. Workers bring it into the store when they start.
        """

        def subscribe(task: TaskT) -> TaskT:
            if not isinstance(task, Task):
                raise ConfigError(f"expected a task below @app.on(…); {short(task)} came. Put @app.task between them")
            made = self.events.subscribe(topics, task, given)
            if made.debounce is not None and DEBOUNCE not in self._tasks:
                self.task(name=DEBOUNCE)(self.events.debounce)
            return task

        return subscribe

    @property
    def subscriptions(self) -> Mapping[str, Subscription]:
        """The events that its code wants, by the names of the subscriptions."""
        return MappingProxyType(self.events.subscriptions)

    def publish(
        self, topic: str, payload: Any, *, id: str | None = None, retain: Seconds | None = None, tx: Tx = None
    ) -> list[Job[Any]]:
        """Tell all who want to know that something happened: each subscription gets a job of its own, in one commit.

        `payload` is what JSON can hold. `id` makes repeating the call safe. `retain` keeps the event for so many
        seconds for subscribers to come (`app.events.replay`). With `tx`, a connection or session of your own, it
        becomes part of the transaction that is open there. Gives the jobs, but for debounced ones.

        Raises `ConfigError`, `EncodeError`; `EnqueueUnknown`, with the event's id, when no answer came in time.
        """
        return self.events.publish(topic, payload, id=id, retain=retain, tx=tx)

    async def apublish(
        self, topic: str, payload: Any, *, id: str | None = None, retain: Seconds | None = None, tx: Tx = None
    ) -> list[Job[Any]]:
        """`publish`, without blocking the event loop."""
        return await self.events.apublish(topic, payload, id=id, retain=retain, tx=tx)

    def webhook(
        self, path: str, *, verify: Verify, headers: Mapping[str, str] | None = None, max_size: int = MAX_SIZE
    ) -> Callable[[TaskT], TaskT]:
        """Run a task for what is posted: `@app.webhook("/stripe", verify=stripe(…))` above `@app.task`.

        `path` is the one in `app.webhooks`, an ASGI app. The task's first parameter takes the JSON body, of at most
        `max_size` bytes; `headers={"kind": "X-GitHub-Event"}` gives others. `verify` is one of
        `windlass.source.verify`, or a function of your own. Raises `ConfigError`.
        """

        def mount(task: TaskT) -> TaskT:
            route = make_route(path, task, verify, headers, max_size)
            other = self.webhooks.routes.get(path)
            if task.app is not self:
                raise ConfigError(f"{task} belongs to another app: use that one's webhook()")
            if other is not None and not is_same(other.task.fn, task.fn):
                raise ConfigError(f"two webhooks are at {path}: {place_of(other.task.fn)} and {place_of(task.fn)}")
            self.webhooks.routes[path] = route
            return task

        return mount

    def caller(self, url: str) -> Bound[int]:
        """The call that posts to `url` how the job that it follows has ended. Raises `ConfigError`."""
        checked = self.outward.check(url)
        bound: Bound[int] = self._tasks[callback.NAME].bind(checked)
        return bound

    def _results(self, name: str) -> Any:
        task = self._tasks.get(name)
        return task and task.shape

    def _gates_of(self, name: str) -> Sequence[Gate]:
        task = self._tasks.get(name)
        return task.gates if task else ()

    # Jobs in

    def enqueue_many(self, calls: Iterable[Bound[R]], *, tx: Tx = None) -> list[Job[R]]:
        """Store many calls (`task.bind(…)`) in one commit, in order. Raises as `Task.enqueue`.

        With `tx`, a connection or session of your own, they become part of the transaction that is open there.
        """
        return self.kin.enqueue(self.new_jobs(calls), tx, often=True)[1]

    async def aenqueue_many(self, calls: Iterable[Bound[R]], *, tx: Tx = None) -> list[Job[R]]:
        """`enqueue_many`, without blocking the event loop."""
        return (await self.kin.aenqueue(self.new_jobs(calls), tx, often=True))[1]

    def new_jobs(self, calls: Iterable[Bound[Any]]) -> list[NewJob]:
        """The jobs of bound calls. Raises `CallError` for anything else, and for calls of another app's tasks."""
        jobs: list[NewJob] = []
        for call in calls:
            if not isinstance(call, Bound):
                raise CallError(f"expected calls made by task.bind(…); {short(call)} came")
            if call.task.app is not self:
                raise CallError(f"{call.task} belongs to another app: enqueue its calls there")
            jobs.append(call.new)
        return jobs

    def place(self, jobs: Sequence[NewJob], tx: Tx = None) -> list[Job[Any]]:
        """Store jobs on this very thread; inside the transaction of `tx` if one is given."""
        if not jobs:
            return []
        with self.jobs.sending(jobs) as new:
            self._drains.refuse(jobs, tx)
            if self.pressure.touches(new):
                return self._squeeze(new, tx)
            placed = self._access.put(new) if tx is None else self._access.put_in(tx, new)
            return list(map(self.jobs.placed, placed, new))

    async def aplace(
        self, jobs: Sequence[NewJob], tx: Tx = None, marks: Sequence[Mark] = (), *, wait: bool = True
    ) -> list[Job[Any]]:
        """Store jobs, and marks, without blocking the event loop; inside the transaction of `tx` if one is given.
        Without `wait`, a full queue is an error at once."""
        if not jobs:
            return []
        with self.jobs.sending(jobs) as new:
            await self._drains.arefuse(jobs, tx)
            if self.pressure.touches(new):
                return await self._asqueeze(new, tx, marks, wait=wait and tx is None)
            placed = await (self._access.aput(new, marks) if tx is None else self._access.aput_in(tx, new, marks))
            return list(map(self.jobs.placed, placed, new))

    def _squeeze(self, jobs: Sequence[NewJob], tx: Tx) -> list[Job[Any]]:
        """`place`, of which some go into queues with a bound: in pieces, as there is room."""
        if tx is not None:
            with self.pressure.admit_now(jobs):
                return list(map(self.jobs.placed, self._access.put_in(tx, jobs), jobs))
        blocking.refuse_in_loop("aenqueue" if len(jobs) == 1 else "aenqueue_many")
        placed: list[Placed] = []
        while len(placed) < len(jobs):
            with full_after(placed):
                number, room = blocking.run(self.pressure.admit(jobs[len(placed) :], wait=True))
            with room:
                placed += self._access.put(jobs[len(placed) : len(placed) + number])
        return list(map(self.jobs.placed, placed, jobs))

    async def _asqueeze(self, jobs: Sequence[NewJob], tx: Tx, marks: Sequence[Mark], *, wait: bool) -> list[Job[Any]]:
        """`_squeeze`, without blocking the event loop."""
        placed: list[Placed] = []
        while len(placed) < len(jobs):
            with full_after(placed):
                number, room = await self.pressure.admit(jobs[len(placed) :], wait=wait)
            now = jobs[len(placed) : len(placed) + number]
            with room:
                placed += await (self._access.aput(now, marks) if tx is None else self._access.aput_in(tx, now, marks))
        return list(map(self.jobs.placed, placed, jobs))

    # Messages in

    def source(
        self,
        url: str,
        *,
        task: Task[..., Any],
        name: str | None = None,
        identity: Identify | None = None,
        max_ready: int = MAX_READY,
    ) -> Source:
        """Have workers of this app read a message stream: each message becomes a job of `task`, its one argument.

        `url` names a queue, stream, topic, channel or folder (docs/sources.md). A message is acknowledged once its job
        is stored, and one that is delivered again makes no second job. `name` is what the broker knows this reader by;
        it is the task's unless given. `identity` tells messages apart where the transport cannot: it takes a `Message`.
        The source rests while its task's queue has `max_ready` jobs that are ready. Raises `ConfigError`.
        """
        source = Source(self, url, task, name=name, identity=identity, max_ready=max_ready)
        if any(source.name == other.name for other in self.sources):
            raise ConfigError(f"two sources are called {source.name}, after their task: give one another name=")
        self.sources.append(source)
        return source

    # The store

    async def connect(self) -> Store:
        """The app's store for the running event loop, opened on first use."""
        return await self._access.connect()

    def close(self) -> None:
        """Let go of the store; the next use opens it again."""
        self._access.close()

    async def aclose(self) -> None:
        """`close`, inside an event loop."""
        await self._access.aclose()

    # A worker here

    @contextlib.asynccontextmanager
    async def worker(
        self, *, concurrency: Concurrency | None = None, queues: str | None = None
    ) -> AsyncIterator[Runner]:
        """Run jobs in this process, beside the body of the `async with`.

        A helper process renews the lease. It cannot end this process: a timeout that a thread ignores is not
        enforced here, and code that blocks the event loop blocks its neighbours. `windlass worker` has neither limit.
        """
        async with contextlib.AsyncExitStack() as stack:
            state = await stack.enter_async_context(self.lifespan(self)) if self.lifespan else None
            store = await self.connect()
            await stack.enter_async_context(relaying(self.outboxes, store))
            runner = embedded(
                store,
                self.config,
                self.tasks,
                self._spec(),
                state,
                hooks=self.hooks,
                vault=self.vault,
                declared=self,
                gates=self.gates,
                concurrency=self.config.concurrency if concurrency is None else concurrency,
                queues=self.config.queues if queues is None else queues,
            )
            running = await stack.enter_async_context(runner)
            await stack.enter_async_context(bridging(self.sources, store))
            yield running

    def _spec(self) -> str:
        """MODULE:NAME under which a process child finds this app; empty if it is no module's global."""
        for name, module in tuple(sys.modules.items()):
            for attribute, value in tuple(getattr(module, "__dict__", {}).items()):
                if value is self and not name.startswith("windlass."):
                    return f"{name}:{attribute}"
        return ""
