"""Transactional completion: what a task writes and that it succeeded, in one commit."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Protocol, TypeVar

from windlass import policy
from windlass.errors import ConfigError, Evicted
from windlass.model import Claim, Outcome
from windlass.store.borrowed import BorrowedBlock
from windlass.store.tx import Block, Joinable, Steps, adrive, drive, make_joinable
from windlass.vault import Vault

T = TypeVar("T")

INSTEAD = (
    "Hand current().fence or the job's id to your database instead, so that it refuses what an older attempt writes, "
    "or writes nothing twice"
)


class Attempt(Protocol):
    """What a transaction needs of the running attempt, and tells it."""

    settled: Outcome | None
    superseded: bool

    @property
    def claim(self) -> Claim:
        """The claim that it runs under."""

    @property
    def late(self) -> bool:
        """Whether its time is over."""

    def encode(self, result: Any) -> bytes | None:
        """A result as it is stored. Raises `EncodeError`."""


class Transactions:
    """Transactions on the app's store, for the attempts of one runner."""

    def __init__(self, url: str, runner: str, vault: Vault) -> None:
        self._url = url
        self._vault = vault
        self._runner = runner
        self._joinable: Joinable | None = None
        self._making = threading.Lock()

    def begin(self, attempt: Attempt, database: Any, result: Any) -> "Completion":
        """One that is not open yet. Raises `ConfigError` for a store that has none, and for a second one of a job."""
        if attempt.settled is not None:
            raise ConfigError("this job is settled already: its one transaction is over. Do all of it in one block")
        with self._making:  # threads of one runner share it, and its idle connections
            if self._joinable is None:
                self._joinable = make_joinable(self._url, INSTEAD)
        return Completion(self._joinable, self._runner, self._vault, attempt, database, result)

    def close(self) -> None:
        """Drop idle connections."""
        if self._joinable is not None:
            self._joinable.close()


class Completion:
    """The block in which a task writes. Its end settles the job as succeeded, with `result`, and commits both."""

    def __init__(
        self, joinable: Joinable, runner: str, vault: Vault, attempt: Attempt, database: Any, result: Any
    ) -> None:
        self.result = result
        self._vault = vault
        self._database = database
        self._joinable = joinable
        self._runner = runner
        self._attempt = attempt
        self._block: Block | None = None
        self._thread: ThreadPoolExecutor | None = None

    def __enter__(self) -> Any:
        with contextlib.suppress(RuntimeError):
            asyncio.get_running_loop()
            raise ConfigError("this would block the event loop: in async code, `async with current().transaction()`")
        return drive(self._enter(asynchronous=False), call)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        drive(self._leave(error), call)

    async def __aenter__(self) -> Any:
        steps = self._enter(asynchronous=True)
        opening = asyncio.ensure_future(adrive(steps, self._call))
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            self._abandon(opening)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        try:
            await to_the_end(adrive(self._leave(error), self._call))
        finally:
            if self._thread:
                self._thread.shutdown(wait=False)

    def _enter(self, asynchronous: bool) -> Steps[Any]:
        if self._block is not None:
            raise ConfigError("this transaction was used before: current().transaction() makes a new one")
        if self._database is None:
            self._block = self._joinable.block(asynchronous)
        else:
            self._block = BorrowedBlock(self._joinable, self._database, asynchronous)
        if asynchronous and self._block.threaded:
            self._thread = ThreadPoolExecutor(1, "windlass-transaction")
        return self._block.enter()

    def _call(self, step: Callable[[], Any]) -> Any:
        """Do a step without blocking the event loop."""
        return asyncio.get_running_loop().run_in_executor(self._thread, step) if self._thread else step()

    def _abandon(self, opening: "asyncio.Future[Any]") -> None:
        """The task was cancelled while its transaction was being opened: whenever it is open, end it."""
        block, thread = self._block, self._thread
        assert block
        if thread is None:
            opening.cancel()
            return
        block.abandon()

        def opened(_: object) -> None:
            if not opening.cancelled() and opening.exception() is None:
                thread.submit(drive, block.leave(self._runner, None), call)
            thread.shutdown(wait=False)

        opening.add_done_callback(opened)

    def _leave(self, error: BaseException | None) -> Steps[None]:
        block, attempt = self._block, self._attempt
        assert block
        try:
            outcome = self._outcome() if error is None else None
        except BaseException:
            yield from block.leave(self._runner, None)
            raise
        if outcome is None:
            with contextlib.suppress(Exception):  # the error of the block is the one to tell
                yield from block.leave(self._runner, None)
        elif (yield from block.leave(self._runner, self._vault.seal_outcome(attempt.claim, outcome))):
            attempt.settled = outcome
        else:
            attempt.superseded = True
            raise Evicted(
                f"job {attempt.claim.id} is not this attempt's any more (fence {attempt.claim.fence}), so what its "
                "transaction wrote was rolled back: the job is another's now, or an earlier transaction settled it"
            )

    def _outcome(self) -> Outcome:
        if self._attempt.late:
            raise TimeoutError("the time of this attempt was over before its transaction was; it was rolled back")
        return policy.succeeded(self._attempt.claim, self._attempt.encode(self.result))


def call(step: Callable[[], Any]) -> Any:
    """Do a step here and now."""
    return step()


async def to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is not cancelled with us: half a commit is worse than a late one."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    result = task.result()
    if cancelled is not None:
        raise cancelled
    return result
