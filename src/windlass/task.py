"""A task: a function, how it runs, and the ways to enqueue it."""

import inspect
import sys
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Generic, ParamSpec, Protocol, Self, TypeVar, Union

from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace
from uuid_utils import uuid7

from windlass import follow, options
from windlass.breaker import Breaker
from windlass.codec import Shape
from windlass.description import Described
from windlass.errors import CallError, ConfigError, DecodeError, NotUnique
from windlass.jobs import Job
from windlass.kin import Kin
from windlass.limits import Gate, Key, gates_of, needs_of, ordered
from windlass.model import Claim, Clash, Fair, Need, NewJob
from windlass.options import Executor, Options, Seconds
from windlass.policy import Retry
from windlass.unique import AGAIN, Uniqueness, Weigh, fitting, turns
from windlass.vault import Vault

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)

Gates = Gate | Iterable[Gate]

Tx = Any
"""A connection or session of the user's own, or a Django alias; `store/links.py` has the kinds that fit."""


class Call(Struct, frozen=True, kw_only=True):
    """Where and when the jobs of one `using()` go."""

    queue: str
    priority: int
    delay: float = 0
    run_at: float | None = None
    expires_in: float | None = None
    unique: str | None = None
    rule: Uniqueness | None = None
    tags: tuple[str, ...] = ()
    id: str | None = None
    tx: Tx = None
    followers: tuple[tuple[str, NewJob], ...] = ()
    options: Options = options.NONE
    stored_options: bytes | None = None


class Bound(Struct, Generic[R_co], frozen=True, gc=False):
    """One call as a value, ready for `App.enqueue_many`."""

    new: NewJob
    task: "Task[..., R_co]"


Followers = Union["Task[..., Any]", Bound[Any], Sequence[Union["Task[..., Any]", Bound[Any]]]]
"""What runs when a job is over: tasks, if they need no arguments, else bound calls; one or several."""


class Enqueuer(Protocol):
    """What a task needs of its app."""

    @property
    def max_payload(self) -> int:
        """The most bytes of encoded arguments."""

    @property
    def vault(self) -> Vault:
        """What seals arguments and hashes unique keys."""

    def described(self, queue: str) -> Described:
        """What all jobs of a queue have in common."""

    def caller(self, url: str) -> "Bound[Any]":
        """The call that posts to `url` how the job that it follows has ended. Raises `ConfigError`."""

    @property
    def kin(self) -> Kin:
        """The way of calls into the store."""


class Task(Generic[P, R_co]):
    """A function that can be called as ever, and enqueued. Made by `@app.task`.

    `executor` says where it runs: "async" (on the event loop), "thread" or "process". `timeout` is in seconds. `gates`
    are what its jobs pass, its queue's left out.
    """

    def __init__(
        self,
        app: Enqueuer,
        fn: Callable[P, Any],
        *,
        name: str | None = None,
        aliases: Sequence[str] = (),
        queue: str = "default",
        priority: int = 0,
        executor: Executor = "auto",
        timeout: Seconds | None = None,
        retry: Retry | int | None = None,
        gates: Gates = (),
        ordered_by: Key | None = None,
        unique: Uniqueness | None = None,
        fair_key: Key | None = None,
        fair_weight: Weigh = 1.0,
        breaker: Breaker | None = None,
        on_success: Followers | None = None,
        on_failure: Followers | None = None,
        on_final: Followers | None = None,
    ) -> None:
        refuse_no_function(fn)
        self.name = options.name("a task name", name_of(fn) if name is None else name)
        self.aliases = options.names("aliases", aliases)
        self.fn: Callable[..., Any] = fn
        self.executor = options.executor(executor, coroutine=is_coroutine(fn), task=self.name)
        self.timeout = options.timeout(timeout)
        self.retry = Retry() if retry is None else options.retry(retry)
        self.shape = Shape(fn, self.name)
        in_order = () if ordered_by is None else gates_of(ordered(ordered_by), f"order:{self.name}", self.shape)
        self.gates = (*gates_of(gates, f"task:{self.name}", self.shape), *in_order)
        self.turns = turns(fair_key, fair_weight, self.shape) if fair_key is not None or fair_weight != 1.0 else None
        self.breaker = checked_breaker(breaker)
        self.app = app
        self._call = Call(
            rule=None if unique is None else self._rule(unique),
            queue=options.name("a queue", queue),
            priority=options.priority(priority),
            followers=followers(app, {"on_success": on_success, "on_failure": on_failure, "on_final": on_final}),
        )
        self.__name__, self.__qualname__ = fn.__name__, fn.__qualname__
        self.__module__, self.__doc__ = fn.__module__, fn.__doc__
        self.__wrapped__ = fn

    def __repr__(self) -> str:
        return f"<Task {self.name}>"

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Call the function itself, here and now, with nothing of a job around it."""
        return self.fn(*args, **kwargs)

    @property
    def queue(self) -> str:
        """The queue that its jobs go into."""
        return self._call.queue

    @property
    def priority(self) -> int:
        """-100 to 100, higher first."""
        return self._call.priority

    def enqueue(self, /, *args: P.args, **kwargs: P.kwargs) -> Job[R_co]:
        """Store a job that runs this task with these arguments; it is safe when this returns.

        Raises `CallError` or `EncodeError` for arguments that do not fit, `StoreUnavailable` when nothing was stored,
        `EnqueueUnknown` when that cannot be told. Inside an event loop, `await aenqueue(…)`.
        """
        (new,), (job,) = self.app.kin.enqueue((self._new(args, kwargs),), self._call.tx, often=False)
        return self._first(new, job)

    async def aenqueue(self, /, *args: P.args, **kwargs: P.kwargs) -> Job[R_co]:
        """`enqueue`, without blocking the event loop."""
        (new,), (job,) = await self.app.kin.aenqueue((self._new(args, kwargs),), self._call.tx, often=False)
        return self._first(new, job)

    def _first(self, new: NewJob, job: Job[R_co]) -> Job[R_co]:
        """The job that was put, or stands for it. Raises `NotUnique` where the task says so."""
        rule = self._call.rule
        if rule is not None and rule.conflict == "raise" and job.id != new.id:
            raise NotUnique(f"job {job.id} of {self.name} has this unique key already; nothing was stored", job.id)
        return job

    def bind(self, /, *args: P.args, **kwargs: P.kwargs) -> Bound[R_co]:
        """The call as a value, for `App.enqueue_many`. Raises as `enqueue`."""
        if self._call.rule is not None and self._call.rule.conflict == "raise":
            raise ConfigError(
                'a bound call raises nothing when it is stored: use on_conflict="return", and look at job.new'
            )
        if self._call.tx is not None:
            raise ConfigError("a bound call takes no tx=: give it to enqueue_many(calls, tx=…), or use enqueue()")
        return Bound(self._new(args, kwargs), self)

    def using(
        self,
        *,
        queue: str | None = None,
        priority: int | None = None,
        delay: Seconds | None = None,
        run_at: datetime | timedelta | None = None,
        run_after: datetime | timedelta | None = None,
        expires_in: Seconds | None = None,
        unique: str | Uniqueness | None = None,
        retry: Retry | int | None = None,
        timeout: Seconds | UnsetType | None = UNSET,
        tags: Iterable[str] | None = None,
        meta: Mapping[str, Any] | None = None,
        id: str | None = None,
        on_success: Followers | None = None,
        on_failure: Followers | None = None,
        on_final: Followers | None = None,
        callback_url: str | None = None,
        tx: Tx = None,
    ) -> Self:
        """This task with options for its next calls; those not given stay. Raises `ConfigError` for wrong ones.

        `delay`, `expires_in` and `timeout` are seconds or timedeltas; `run_at` (or `run_after`) is a datetime with a
        time zone. `unique` admits one live job of this task per key; while it lives, enqueueing again returns it; a
        `Unique(…)` or `debounce(…)` says more.
        `timeout=None` means no timeout. `retry=3` changes the attempts alone, a `Retry` replaces the task's; its
        backoff is seconds here. `meta` is free data for hooks and for people. `id` makes repeating the call safe:
        however often, it stores one job. `on_success`, `on_failure` and `on_final` are tasks, or bound calls, that run
        when the job is over; `current().parent` is its id there. `callback_url` is told how it ended, signed. `tx` is a
        connection or session of your own (or a Django alias) whose open transaction the job becomes part of: it exists
        if and when you commit.
        """
        old = self._call
        if priority is not None and any(gate.keep for gate in self.gates):
            raise ConfigError(
                f"{self} runs in the order in which its jobs came (ordered_by=): no priority changes that"
            )
        changes: dict[str, Any] = {
            "queue": None if queue is None else options.name("a queue", queue),
            "priority": None if priority is None else options.priority(priority),
            "expires_in": None if expires_in is None else options.seconds("expires_in", expires_in, above_zero=True),
            "unique": self.app.vault.unique(self.name, options.unique(unique)) if isinstance(unique, str) else None,
            "rule": None if unique is None or isinstance(unique, str) else self._rule(unique),
            "tags": None if tags is None else options.names("tags", tags),
            "id": None if id is None else options.name("a job id", id),
            "tx": tx,
        }
        changed = replace(old, **{key: value for key, value in changes.items() if value is not None})
        changed = replace(changed, **options.start(delay=delay, run_at=run_at, run_after=run_after))
        called = None if callback_url is None else self.app.caller(callback_url) if callback_url else ()
        after = {"on_success": on_success, "on_failure": on_failure, "on_final": on_final, "callback_url": called}
        if any(one is not None for one in after.values()):
            changed = replace(changed, followers=followers(self.app, after, old.followers))
        if retry is not None or timeout is not UNSET or meta is not None:
            changed = with_options(changed, retry, timeout, meta, self.app.max_payload)
        task = object.__new__(type(self))
        task.__dict__.update(self.__dict__)
        task._call = changed
        return task

    def options_for(self, claim: Claim) -> tuple[Retry, float | None]:
        """How this job is retried, and its timeout in seconds: the task's, as far as its call changed nothing.

        Raises `DecodeError` for options that cannot be read.
        """
        if claim.options is None:
            return self.retry, self.timeout
        own = options.read_options(claim.options)
        retry = self.retry if own.retry is None else options.as_retry(own.retry, self.retry)
        return retry, self.timeout if own.timeout is UNSET else own.timeout

    def _new(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> NewJob:
        try:
            stored = self.shape.encode_call(args, kwargs, self.app.max_payload)
        except CallError as error:
            raise with_hint(error, kwargs) from error.__cause__
        return self.new(stored)

    def new(self, stored: bytes, own: Options | None = None) -> NewJob:
        """The job of a call that is encoded already, which nobody has checked: one that does not fit fails. `own` are
        options instead of those of the call."""
        call, vault = self._call, self.app.vault
        id, described = call.id or str(uuid7()), self.app.described(call.queue)
        gates = (*self.gates, *described.gates)
        place = described.stands(call.priority) if described.ages(gates, fair=self.turns is not None) else None
        more = self._more(stored, gates) if gates or call.rule or self.turns else {}
        if place is not None:
            more["priority"], more["ahead"] = place
        kept = self._stored_options(own, None if place is None else call.priority)
        if vault.seals:
            stored = vault.seal(stored, id, self.name, "args")
            kept = None if kept is None else vault.seal(kept, id, self.name, "options")
        new = NewJob(
            id=id,
            task=self.name,
            args=stored,
            queue=call.queue,
            priority=call.priority,
            delay=call.delay,
            run_at=call.run_at,
            expires_in=call.expires_in if described.expires_in is None else self._life(described.expires_in),
            unique=call.unique,
            tags=call.tags,
            options=kept,
            fresh=call.id is None,
            follow=follow.write(call.followers, id, vault, self.app.max_payload) if call.followers else None,
        )
        return replace(new, **more) if more else new

    def _life(self, seconds: float) -> float | None:
        """The time to live of a call in a queue whose jobs have so many seconds from when they are due. One that later
        calls put off has none."""
        call = self._call
        if call.expires_in is not None or (call.rule is not None and call.rule.clash is Clash.MOVE):
            return call.expires_in
        return seconds + (call.delay if call.run_at is None else max(0.0, call.run_at - time.time()))

    def _more(self, stored: bytes, gates: tuple[Gate, ...]) -> dict[str, Any]:
        """What few jobs have, of their arguments, as fields: gates, unique key, turns."""
        call, vault = self._call, self.app.vault
        more: dict[str, Any] = {"gates": needs_of(gates, stored, self.shape, vault.key)}
        try:
            if call.rule is not None and call.unique is None:
                more |= self._held(call.rule, stored, more["gates"])
            if self.turns is not None:
                key, weight = self.turns.of(stored, self.shape)
                more["fair"] = Fair(vault.key(self.name, key), weight)
        except DecodeError:
            pass  # the job will fail, alone
        return more

    def _held(self, rule: Uniqueness, stored: bytes, gates: tuple[Need, ...]) -> dict[str, Any]:
        """The unique key of a call, as fields of its job."""
        key = self.app.vault.unique(self.name, rule.text(stored, self.shape))
        more: dict[str, Any] = {"unique": key, "unique_for": rule.held, "clash": rule.clash, "max_wait": rule.max_wait}
        if rule.delay is not None:
            more["delay"] = rule.delay
        if rule.conflict == "again":
            more["gates"] = tuple(sorted((*gates, Need(f"{AGAIN}/{key}")), key=lambda need: need.gate))
        return more

    def _rule(self, unique: object) -> Uniqueness:
        rule = fitting(unique, self.shape)
        if rule.clash in (Clash.REPLACE, Clash.MOVE) and self.app.vault.seals:
            raise ConfigError(
                f"{self} would replace the arguments of a stored job: what is encrypted for one job opens for no other"
            )
        return rule

    def _stored_options(self, own: Options | None, asked: int | None) -> bytes | None:
        """The options of a job of this call, or others, with the names of the task's secret arguments and the priority
        that was asked for, where the store has another."""
        call, secrets = self._call, self.shape.secrets
        if own is None and not secrets and asked is None:
            return call.stored_options
        given = call.options if own is None else own
        secret = (*given.secret, *(one for one in secrets if one not in given.secret))
        return options.store_options(replace(given, secret=secret, priority=asked), self.app.max_payload)


class SyncTask(Task[P, R_co]):
    """A task made of a plain function."""

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Call the function itself, here and now, with nothing of a job around it."""
        result: R_co = self.fn(*args, **kwargs)
        return result


class AsyncTask(Task[P, R_co]):
    """A task made of a coroutine function."""

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R_co]:
        """Call the function itself, here and now, with nothing of a job around it."""
        coroutine: Coroutine[Any, Any, R_co] = self.fn(*args, **kwargs)
        return coroutine


def parameter_of(task: Task[..., Any], what: str) -> str | None:
    """The parameter that takes what comes, "an event" or so; None where a task takes nothing. Raises `ConfigError`."""
    given = [
        one
        for one in inspect.signature(task.fn).parameters.values()
        if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
    ]
    if any(one.default is one.empty for one in given[1:]):
        names = ", ".join(one.name for one in given)
        raise ConfigError(
            f"expected a task with one argument, which takes {what}; {task.name} takes {names}. Give all but the first "
            "a default"
        )
    return options.name("a parameter", given[0].name) if given else None


def followers(
    app: Enqueuer, given: Mapping[str, Followers | None], before: Sequence[tuple[str, NewJob]] = ()
) -> tuple[tuple[str, NewJob], ...]:
    """The jobs that follow, each with the name it is given under; for what is None, those of `before`.

    Raises `ConfigError`.
    """
    found: list[tuple[str, NewJob]] = []
    for what, value in given.items():
        if value is None:
            found += [one for one in before if one[0] == what]
        else:
            several = value if isinstance(value, Sequence) else (value,)
            found += [(what, follower(app, what, one)) for one in several]
    return tuple(found)


def follower(app: Enqueuer, what: str, value: object) -> NewJob:
    """The job of one task or bound call that follows another. Raises `ConfigError`."""
    call = value.bind() if isinstance(value, Task) else value
    if not isinstance(call, Bound):
        raise ConfigError(f"expected a task, or a call made by task.bind(…), for {what}; {options.short(value)} came")
    job = call.new
    if call.task.app is not app:
        raise ConfigError(f"{call.task} belongs to another app: {what} takes tasks of the same one")
    wrong = [name for name, given in (("id", not job.fresh), ("unique", job.unique), ("run_at", job.run_at)) if given]
    if wrong:
        raise ConfigError(f"{what} got a call with {wrong[0]}=, which is for calls that are made at once; use delay=")
    if follow.depth(job.follow) >= follow.GENERATIONS:
        raise ConfigError(f"{what}: at most {follow.GENERATIONS} jobs may follow one another")
    return job


def with_options(
    call: Call, retry: Retry | int | None, timeout: Any, meta: Mapping[str, Any] | None, limit: int
) -> Call:
    """The same call with what it changes of its task; what is not given stays. Raises `ConfigError`."""
    old = call.options
    own = Options(
        retry=old.retry if retry is None else options.as_override(retry),
        timeout=old.timeout if timeout is UNSET else options.timeout(timeout),
        meta=old.meta if meta is None else options.meta(meta),
    )
    return replace(call, options=own, stored_options=options.store_options(own, limit))


def checked_breaker(value: object) -> Breaker | None:
    """The circuit breaker of a task. Raises `ConfigError`."""
    if value is None or isinstance(value, Breaker):
        return value
    raise ConfigError(f"expected Breaker(failures=…, window=…, probe=…) for breaker; {options.short(value)} came")


USING = inspect.signature(Task.using).parameters.keys() - {"self"}


def with_hint(error: CallError, kwargs: Mapping[str, Any]) -> CallError:
    """The same error; where an option stands among the arguments, saying where it belongs."""
    misplaced = [name for name in kwargs if name in USING and f"'{name}'" in str(error)]
    if not misplaced:
        return error
    return CallError(f"{error}. An option of the job goes into using(): .using({misplaced[0]}=…).enqueue(…)")


def name_of(fn: Callable[..., Any]) -> str:
    """`module.function`, as a worker that imports the module would call it."""
    module = fn.__module__
    if module in ("__main__", "__mp_main__"):
        module = main_module(module)
    return f"{module}.{fn.__qualname__}".replace("<locals>.", "")


def main_module(name: str) -> str:
    """The name under which another process would import the script that runs as `__main__`."""
    main = sys.modules[name]
    spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
    if spec is not None:
        return str(spec.name)
    if file is None:
        return name
    path = Path(file).resolve().with_suffix("")
    roots = {Path(entry or ".").resolve() for entry in (*sys.path[1:], ".")}
    inside = sorted((path.relative_to(root).parts for root in roots if path.is_relative_to(root)), key=len)
    parts = next((parts for parts in inside if all(part.isidentifier() for part in parts)), (path.name,))
    return ".".join(parts)


def is_coroutine(fn: Callable[..., Any]) -> bool:
    """Whether calling `fn` gives something to await."""
    return inspect.iscoroutinefunction(fn)


def refuse_no_function(fn: object) -> None:
    """Raise `ConfigError` for what cannot be a task."""
    if isinstance(fn, Task):
        raise ConfigError(f"expected a function to make a task of; it is one already: {fn.name}")
    if not callable(fn) or inspect.isclass(fn) or not hasattr(fn, "__qualname__"):
        raise ConfigError(f"expected a function to make a task of; {options.short(fn)} came")
    if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
        raise ConfigError(f"{fn.__qualname__} is a generator, but a job has one result: return a list instead")
