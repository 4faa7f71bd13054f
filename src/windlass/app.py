"""The app: the tasks it knows, where its jobs live, and the ways in."""

import asyncio
import contextlib
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from types import MappingProxyType
from typing import Any, ParamSpec, TypeVar, overload
from weakref import WeakSet

from windlass.blocking import refuse_in_loop, run
from windlass.config import make_config
from windlass.errors import ConfigError, EnqueueUnknown
from windlass.jobs import Job, Jobs
from windlass.model import NewJob
from windlass.policy import Retry
from windlass.store.contract import Store
from windlass.store.dispatch import make_store
from windlass.task import Bound, Seconds, Task
from windlass.worker.embedded import embedded
from windlass.worker.runner import Runner

P = ParamSpec("P")
R = TypeVar("R")

Lifespan = Callable[["App"], AbstractAsyncContextManager[Any]]


class App:
    """Tasks and the store of their jobs.

    `url` names the store (else WINDLASS_URL, `[tool.windlass] url`, or windlass.db beside the nearest
    pyproject.toml). `lifespan(app)` is an async context manager, opened once per runner and process child; what it
    yields is `current().state`. Other settings are those of `Config`.
    """

    def __init__(self, url: str | None = None, *, lifespan: Lifespan | None = None, **settings: Any) -> None:
        self.config = make_config(url=url, **settings)
        self.lifespan = lifespan
        self.max_payload = self.config.max_payload
        self.jobs = Jobs(self.connect, self._results)
        self._tasks: dict[str, Task[Any, Any]] = {}
        self._forget()
        _apps.add(self)

    def _forget(self) -> None:
        """Begin without a store, as in a process that was just forked."""
        self._store: Store | None = None
        self._opening = threading.Lock()
        self._open = False

    # Tasks

    @property
    def tasks(self) -> Mapping[str, Task[Any, Any]]:
        """The tasks by their names and aliases."""
        return MappingProxyType(self._tasks)

    @overload
    def task(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> Task[P, R]: ...
    @overload
    def task(self, fn: Callable[P, R], /) -> Task[P, R]: ...
    @overload
    def task(
        self,
        *,
        name: str | None = None,
        aliases: Sequence[str] = (),
        queue: str = "default",
        priority: int = 0,
        executor: str = "auto",
        timeout: Seconds | None = None,
        retry: Retry | int | None = None,
    ) -> "Decorator": ...

    def task(self, fn: Callable[..., Any] | None = None, /, **options: Any) -> Any:
        """Make a function a task: `@app.task` or `@app.task(queue=…, retry=…, timeout=…, executor=…)`.

        Its name is `module.function` unless `name` says otherwise; under `aliases` jobs of its old names run.
        """
        return self._add(fn, options) if fn is not None else lambda fn: self._add(fn, options)

    def _add(self, fn: Callable[..., Any], options: dict[str, Any]) -> Task[Any, Any]:
        task: Task[Any, Any] = Task(self, fn, **options)
        for name in (task.name, *task.aliases):
            other = self._tasks.get(name)
            if other is not None and place_of(other.fn) != place_of(fn):
                raise ConfigError(
                    f"two tasks are called {name}: {place_of(other.fn)} and {place_of(fn)}; give one another name="
                )
            self._tasks[name] = task
        return task

    def _results(self, name: str) -> Any:
        task = self._tasks.get(name)
        return task and task.shape

    # Jobs in

    def enqueue_many(self, calls: Sequence[Bound[R]]) -> list[Job[R]]:
        """Store many calls (`task.bind(…)`) in one commit, in order. Raises as `Task.enqueue`."""
        return self.place([call.new for call in calls])

    async def aenqueue_many(self, calls: Sequence[Bound[R]]) -> list[Job[R]]:
        """`enqueue_many` for async code."""
        return await self.aplace([call.new for call in calls])

    def place(self, jobs: Sequence[NewJob]) -> list[Job[Any]]:
        """Store jobs on this very thread."""
        refuse_in_loop("aenqueue")
        if not jobs:
            return []
        if not self._open:
            run(self.connect())
        assert self._store
        return [self.jobs.placed(placed) for placed in self._store.put_now(jobs, self.config.enqueue_timeout)]

    async def aplace(self, jobs: Sequence[NewJob]) -> list[Job[Any]]:
        """Store jobs without blocking the event loop."""
        if not jobs:
            return []
        store = await self.connect()
        try:
            async with asyncio.timeout(self.config.enqueue_timeout):
                placed = await store.put(jobs)
        except TimeoutError:
            raise EnqueueUnknown(
                f"the store did not answer within {self.config.enqueue_timeout:g} s: the job may exist. "
                "Repeating with using(id=…) is safe",
                jobs[0].id,
            ) from None
        return [self.jobs.placed(one) for one in placed]

    # The store

    async def connect(self) -> Store:
        """The app's store, opened on first use."""
        with self._opening:
            store = self._store = self._store or make_store(self.config.url)
        if not self._open:
            await store.open()
            self._open = True
        return store

    def close(self) -> None:
        """Let go of the store; the next use opens it again."""
        run(self.aclose())

    async def aclose(self) -> None:
        """`close` for async code."""
        store, self._store, self._open = self._store, None, False
        if store is not None:
            await store.close()

    # A worker here

    @contextlib.asynccontextmanager
    async def worker(self, *, concurrency: int | None = None, queues: str | None = None) -> AsyncIterator[Runner]:
        """Run jobs in this process, beside the body of the `async with`.

        A helper process renews the lease. It cannot end this process: a timeout that a thread ignores is not
        enforced here, and code that blocks the event loop blocks its neighbours. `windlass worker` has neither limit.
        """
        async with contextlib.AsyncExitStack() as stack:
            state = await stack.enter_async_context(self.lifespan(self)) if self.lifespan else None
            runner = embedded(
                await self.connect(),
                self.config,
                self.tasks,
                self._spec(),
                state,
                concurrency=self.config.concurrency if concurrency is None else concurrency,
                queues=self.config.queues if queues is None else queues,
            )
            yield await stack.enter_async_context(runner)

    def _spec(self) -> str:
        """MODULE:NAME under which a process child finds this app; empty if it is no module's global."""
        for name, module in tuple(sys.modules.items()):
            for attribute, value in tuple(getattr(module, "__dict__", {}).items()):
                if value is self and not name.startswith("windlass."):
                    return f"{name}:{attribute}"
        return ""


class Decorator:
    """What `app.task(…)` with options returns; it exists for its types alone."""

    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> Task[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, R], /) -> Task[P, R]: ...
    def __call__(self, fn: Any, /) -> Any:
        """The task made of `fn`."""
        raise NotImplementedError


def place_of(fn: Callable[..., Any]) -> str:
    """File, line and name of a function, for people."""
    code = getattr(fn, "__code__", None)
    where = f" ({code.co_filename}:{code.co_firstlineno})" if code else ""
    return f"{fn.__module__}.{fn.__qualname__}{where}"


_apps: "WeakSet[App]" = WeakSet()


def _forget_stores() -> None:
    for app in _apps:
        app._forget()


os.register_at_fork(after_in_child=_forget_stores)
