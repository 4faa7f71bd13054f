"""A task: a function, how it runs, and the ways to enqueue it."""

import inspect
import re
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, Generic, ParamSpec, Protocol, TypeVar

import msgspec
from uuid_utils import uuid7

from windlass.codec import Shape, encode_free
from windlass.errors import CallError, ConfigError
from windlass.jobs import Job
from windlass.model import PRIORITIES, Claim, NewJob
from windlass.policy import Retry

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")
EXECUTORS = ("auto", "async", "thread", "process")

Seconds = float | timedelta


class Override(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one call changes of its task's retry policy: numbers only, so that any process can read it."""

    attempts: int
    backoff: float | None = None


class Options(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a job carries besides its arguments. The store does not look into it."""

    retry: Override | None = None
    timeout: float | None = None
    meta: dict[str, Any] = {}


_encode_options = msgspec.json.Encoder().encode
_decode_options = msgspec.json.Decoder(Options).decode


@dataclass(frozen=True, slots=True)
class Call:
    """Where and when the jobs of one `using()` go."""

    queue: str = "default"
    priority: int = 0
    delay: float = 0
    run_at: float | None = None
    expires_in: float | None = None
    unique: str | None = None
    tags: tuple[str, ...] = ()
    id: str | None = None
    options: Options = field(default_factory=Options)


class Bound(msgspec.Struct, Generic[R_co], frozen=True):
    """One call, ready for `App.enqueue_many`."""

    new: NewJob


class Enqueuer(Protocol):
    """What a task needs of its app."""

    max_payload: int

    def place(self, jobs: Sequence[NewJob]) -> list[Job[Any]]:
        """Store jobs, on this thread."""

    async def aplace(self, jobs: Sequence[NewJob]) -> list[Job[Any]]:
        """Store jobs without blocking the event loop."""


class Task(Generic[P, R]):
    """A function that can be called as ever, and enqueued.

    `executor` is "async" (on the event loop), "thread" or "process"; `timeout` is in seconds.
    """

    def __init__(
        self,
        app: Enqueuer,
        fn: Callable[P, R | Awaitable[R]],
        *,
        name: str | None = None,
        aliases: Sequence[str] = (),
        queue: str = "default",
        priority: int = 0,
        executor: str = "auto",
        timeout: Seconds | None = None,
        retry: Retry | int | None = None,
    ) -> None:
        self.name = check_name(name if name is not None else name_of(fn), "task")
        self.aliases = tuple(check_name(alias, "task") for alias in aliases)
        self.fn: Callable[..., Any] = fn
        self.queue = check_name(queue, "queue")
        self.executor = lane_for(fn, executor, self.name)
        self.timeout = check_seconds("timeout", timeout, above_zero=True)
        self.retry = as_retry(retry)
        self.shape = Shape(fn, self.name)
        self._app = app
        self._call = Call(queue=self.queue, priority=check_priority(priority))
        self.__name__ = getattr(fn, "__name__", self.name)
        self.__doc__ = fn.__doc__
        self.__module__ = fn.__module__
        self.__wrapped__ = fn

    def __repr__(self) -> str:
        return f"<Task {self.name}>"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R | Awaitable[R]:
        """Call the function itself, here and now, with nothing of a job around it."""
        return self.fn(*args, **kwargs)  # type: ignore[no-any-return]

    def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """Store a job that runs this task with these arguments; it is safe when this returns.

        Raises `CallError` or `EncodeError` for arguments that do not fit, `StoreUnavailable` when nothing was stored,
        `EnqueueUnknown` when that cannot be told.
        """
        return self._app.place([self._bind(args, kwargs)])[0]

    async def aenqueue(self, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """`enqueue`, without blocking the event loop."""
        return (await self._app.aplace([self._bind(args, kwargs)]))[0]

    def bind(self, *args: P.args, **kwargs: P.kwargs) -> Bound[R]:
        """The call as a value, for `App.enqueue_many`. Raises as `enqueue`."""
        return Bound(self._bind(args, kwargs))

    def using(
        self,
        *,
        queue: str | None = None,
        priority: int | None = None,
        delay: Seconds | None = None,
        run_at: datetime | None = None,
        run_after: datetime | None = None,
        expires_in: Seconds | None = None,
        unique: str | None = None,
        retry: Retry | int | None = None,
        timeout: Seconds | None = None,
        tags: Iterable[str] | None = None,
        meta: Mapping[str, Any] | None = None,
        id: str | None = None,
    ) -> "Task[P, R]":
        """This task with options for its next calls; those not given stay.

        `delay`, `expires_in` and `timeout` are seconds or timedeltas, `run_at` (or `run_after`) an aware datetime.
        `unique` admits one live job of this task per key; while it lives, enqueueing again returns it. A `retry`
        here may change `attempts` and a `backoff` in seconds. `id` makes repeating the call safe: it stores one job.
        """
        old = self._call
        options = old.options
        changed = {
            "queue": queue and check_name(queue, "queue"),
            "priority": None if priority is None else check_priority(priority),
            "delay": check_seconds("delay", delay),
            "run_at": moment(run_at if run_at is not None else run_after),
            "expires_in": check_seconds("expires_in", expires_in),
            "unique": None if unique is None else self._unique_key(unique),
            "tags": None if tags is None else check_tags(tags),
            "id": None if id is None else check_name(id, "job"),
            "options": Options(
                retry=options.retry if retry is None else override(retry),
                timeout=options.timeout if timeout is None else check_seconds("timeout", timeout, above_zero=True),
                meta=options.meta if meta is None else check_meta(meta, self._app.max_payload),
            ),
        }
        task: Task[P, R] = object.__new__(Task)
        task.__dict__.update(self.__dict__)
        task._call = replace(old, **{name: value for name, value in changed.items() if value is not None})
        return task

    def options_for(self, claim: Claim) -> tuple[Retry, float | None]:
        """How this job is retried, and its timeout in seconds: the task's, as far as its call changed nothing."""
        if claim.options is None:
            return self.retry, self.timeout
        options = _decode_options(claim.options)
        retry = self.retry
        if options.retry is not None:
            backoff = options.retry.backoff if options.retry.backoff is not None else retry.backoff
            retry = replace(retry, attempts=options.retry.attempts, backoff=backoff)
        return retry, self.timeout if options.timeout is None else options.timeout

    def _bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> NewJob:
        call = self._call
        return NewJob(
            id=call.id or str(uuid7()),
            task=self.name,
            args=self.shape.encode_call(args, kwargs, self._app.max_payload),
            queue=call.queue,
            priority=call.priority,
            delay=call.delay,
            run_at=call.run_at,
            expires_in=call.expires_in,
            unique=call.unique,
            tags=call.tags,
            options=None if call.options == PLAIN else _encode_options(call.options),
        )

    def _unique_key(self, key: str) -> str:
        if not isinstance(key, str) or not key:
            raise CallError(f"expected unique= as a text such as 'order:42'; {key!r} came")
        return sha256(f"{self.name}\0{key}".encode()).hexdigest()


PLAIN = Options()


def meta_of(options: bytes | None) -> dict[str, Any]:
    """The `meta` of a stored job."""
    return {} if options is None else _decode_options(options).meta


def name_of(fn: Callable[..., Any]) -> str:
    """`module.function`, as a worker that imports the module would call it."""
    module = fn.__module__
    if module == "__main__":
        main = sys.modules["__main__"]
        spec = getattr(main, "__spec__", None)
        file = getattr(main, "__file__", None)
        if spec:
            module = spec.name.removesuffix(".__main__")
        elif file:
            module = Path(file).stem
    return f"{module}.{fn.__qualname__}".replace("<locals>.", "").replace("<lambda>", "lambda")


def lane_for(fn: Callable[..., Any], executor: str, name: str) -> str:
    """Where a function runs. Raises `ConfigError` where that cannot be."""
    coroutine = inspect.iscoroutinefunction(fn)
    if executor not in EXECUTORS:
        raise ConfigError(f"expected executor= as one of {', '.join(EXECUTORS)} for task {name}; {executor!r} came")
    if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
        raise ConfigError(f"task {name} is a generator; a task returns its result once, so return a list instead")
    if executor == "auto":
        return "async" if coroutine else "thread"
    if executor == "async" and not coroutine:
        raise ConfigError(f"task {name} is no coroutine function, so it would block the event loop: use 'thread'")
    if executor == "thread" and coroutine:
        raise ConfigError(f"task {name} is a coroutine function: it runs on the event loop ('async') or in a 'process'")
    return executor


def check_name(name: str, what: str) -> str:
    """A name as stores and pages take it. Raises `ConfigError`."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ConfigError(f"expected a {what} name of 1 to 128 letters, digits, '_', '.' and '-'; {name!r} came")
    return name


def check_tags(tags: Iterable[str]) -> tuple[str, ...]:
    """Tags, each once. Raises `ConfigError`."""
    if isinstance(tags, str):
        raise ConfigError(f"expected tags= as a list of names, such as [{tags!r}]; a single text came")
    return tuple(dict.fromkeys(check_name(tag, "tag") for tag in tags))


def check_priority(priority: int) -> int:
    """A priority from -100 to 100. Raises `ConfigError`."""
    if isinstance(priority, bool) or not isinstance(priority, int) or priority not in PRIORITIES:
        raise ConfigError(f"expected a whole number from -100 to 100 as priority, higher first; {priority!r} came")
    return priority


def check_seconds(what: str, value: Seconds | None, *, above_zero: bool = False) -> float | None:
    """Seconds from 0 on. Raises `ConfigError`."""
    if value is None:
        return None
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < 1e10:
        raise ConfigError(f"expected {what}= as seconds from 0 on, or a timedelta; {value!r} came")
    if above_zero and seconds == 0:
        raise ConfigError(f"expected {what}= above 0 seconds; leave it out for none")
    return float(seconds)


def check_meta(meta: Mapping[str, Any], limit: int) -> dict[str, Any]:
    """Free data that comes back equal. Raises `EncodeError`."""
    encode_free(meta, "meta", limit)
    return dict(meta)


def moment(at: datetime | None) -> float | None:
    """An aware datetime as seconds since the epoch. Raises `ConfigError` for a naive one."""
    if at is None:
        return None
    if not isinstance(at, datetime) or at.tzinfo is None:
        raise ConfigError(f"expected run_at= as a datetime with a time zone, such as datetime.now(UTC); {at!r} came")
    return at.timestamp()


def as_retry(retry: Retry | int | None) -> Retry:
    """A policy; a number is its attempts. Raises `ConfigError`."""
    if isinstance(retry, int) and not isinstance(retry, bool):
        retry = Retry(attempts=retry)
    if retry is not None and not isinstance(retry, Retry):
        raise ConfigError(f"expected retry= as Retry(attempts=…) or a number of attempts; {retry!r} came")
    return retry or Retry()


def override(retry: Retry | int) -> Override:
    """A policy for single jobs, as data. Raises `ConfigError` for what only code can say."""
    policy = as_retry(retry)
    plain = Retry(attempts=policy.attempts, backoff=policy.backoff)
    if callable(policy.backoff) or policy != plain:
        raise ConfigError(
            "a retry for single jobs is stored with them, so it takes attempts= and a backoff= in seconds; "
            "functions and error classes (on=, give_up_on=) belong to the task: @app.task(retry=…)"
        )
    return Override(attempts=policy.attempts, backoff=None if policy.backoff is None else float(policy.backoff))
