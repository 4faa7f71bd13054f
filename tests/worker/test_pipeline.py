"""One attempt: whatever the task does, an outcome comes out, and it says what happened."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from windlass import policy
from windlass.context import Context, current
from windlass.errors import Cancel, DecodeError, EncodeError, Fail, Snooze
from windlass.hook import Hook
from windlass.model import Claim, Ending, Outcome
from windlass.policy import Retry
from windlass.worker.pipeline import Running, Stop, perform, perform_blocking

CLAIM = Claim(
    id="job-1",
    fence=3,
    seq=2,
    task="t",
    queue="default",
    args=b"{}",
    options=None,
    priority=0,
    attempt=1,
    lost=0,
    enqueued_at=0,
    run_at=0,
)


class Stored:
    """A stand-in for a task's shape: the arguments are given, results are their repr, and objects cannot be stored."""

    def __init__(self, args: Sequence[Any] | Exception) -> None:
        self.args = args

    def decode_call(self, stored: bytes, /) -> tuple[Sequence[Any], Mapping[str, Any]]:
        if isinstance(self.args, Exception):
            raise self.args
        return self.args, {}

    def encode_result(self, value: Any, limit: int, /) -> bytes | None:
        if type(value) is object:
            raise EncodeError("an object cannot be stored", "result.inner[3]")
        if len(repr(value)) > limit:
            raise EncodeError("too long", "result")
        return repr(value).encode()

    def secret_texts(self, stored: bytes, /) -> Sequence[str]:
        return ()


class Task:
    def __init__(
        self, fn: Callable[..., Any], args: Sequence[Any] | Exception = (), retry: Retry | None = None
    ) -> None:
        self.fn = fn
        self.shape = Stored(args)
        self._retry = retry

    def options_for(self, claim: Claim, /) -> tuple[Retry, float | None]:
        if self._retry is None:
            return Retry(), 5.0
        return self._retry, 5.0


def plain(fn: Callable[..., Any], *args: Any, context: Running | None = None, **more: Any) -> Outcome:
    return perform_blocking(Task(fn, args), CLAIM, context or Running(CLAIM), **more)


def coroutine(fn: Callable[..., Any], *args: Any, context: Running | None = None, **more: Any) -> Outcome:
    async def call(*args: Any) -> Any:
        return fn(*args)

    return asyncio.run(perform(Task(call, args), CLAIM, context or Running(CLAIM), **more))


Way = Callable[..., Outcome]


@pytest.fixture(params=[plain, coroutine])
def way(request: pytest.FixtureRequest) -> Way:
    found: Way = request.param
    return found


def raiser(error: BaseException) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


class Defiant(Exception):
    """Has no text and no traceback to show."""

    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


class Aloof(BaseException):
    pass


class OutOfReach(type):
    def __instancecheck__(cls, instance: object) -> bool:
        raise MemoryError


class Untouchable(Exception, metaclass=OutOfReach):
    pass


def test_success(way: Way) -> None:
    outcome = way(lambda a, b: a + b, 2, 3)
    assert outcome == Outcome(id="job-1", fence=3, seq=2, ending=Ending.SUCCEEDED, attempt=2, result=b"5")


def test_the_task_sees_its_context(way: Way) -> None:
    context = Running(CLAIM, state="opened")
    seen: list[Context] = []
    way(lambda: seen.append(current()), context=context)
    assert seen == [context]
    assert (context.job, context.attempt, context.fence, context.state) == (CLAIM, 2, 3, "opened")


@pytest.mark.parametrize(
    ("error", "ending", "type"),
    [
        (ValueError("bad"), Ending.RETRY, "ValueError"),
        (SystemExit(3), Ending.RETRY, "SystemExit"),
        (KeyboardInterrupt(), Ending.RETRY, "KeyboardInterrupt"),
        (ExceptionGroup("some", [ValueError("a"), TypeError("b")]), Ending.RETRY, "ExceptionGroup"),
        (Aloof("far"), Ending.FAILED, "Aloof"),
        (GeneratorExit(), Ending.FAILED, "GeneratorExit"),
        (BaseExceptionGroup("all", [Aloof()]), Ending.FAILED, "BaseExceptionGroup"),
        (Defiant(), Ending.RETRY, "Defiant"),
        (Fail("enough"), Ending.FAILED, "Fail"),
        (StopAsyncIteration(), Ending.RETRY, "StopAsyncIteration"),
    ],
)
def test_errors(way: Way, error: BaseException, ending: Ending, type: str) -> None:
    outcome = way(raiser(error))
    assert (outcome.ending, outcome.attempt) == (ending, 2)
    assert outcome.failure
    if way is plain or type != "StopAsyncIteration":  # Python itself turns that one into a RuntimeError in a coroutine
        assert outcome.failure.type.endswith(type)
    assert outcome.failure.traceback


def test_fifty_megabytes_of_message(way: Way) -> None:
    outcome = way(raiser(ValueError("x" * 50_000_000)))
    assert outcome.failure
    assert len(outcome.failure.message) < 2 * policy.MAX_TEXT
    assert len(outcome.failure.traceback) < 2 * policy.MAX_TEXT


def test_an_error_that_nobody_can_look_at() -> None:
    broken = Retry(on=(Untouchable,))
    outcome = perform_blocking(Task(raiser(ValueError("bad")), (), broken), CLAIM, Running(CLAIM))
    assert outcome.ending is Ending.FAILED
    assert outcome.failure
    assert outcome.failure.type == "ValueError"


@pytest.mark.parametrize("wrap", [lambda error: error, lambda error: ExceptionGroup("tasks", [error])])
def test_directives(way: Way, wrap: Callable[[Exception], Exception]) -> None:
    snoozed = way(raiser(wrap(Snooze(60, "later"))))
    assert (snoozed.ending, snoozed.delay, snoozed.attempt, snoozed.reason) == (Ending.SNOOZED, 60, 1, "later")
    cancelled = way(raiser(wrap(Cancel("not wanted"))))
    assert (cancelled.ending, cancelled.reason) == (Ending.CANCELLED, "not wanted")


def test_arguments_that_do_not_fit_fail_for_good() -> None:
    outcome = perform_blocking(Task(print, DecodeError("args.a: expected int")), CLAIM, Running(CLAIM))
    assert outcome.ending is Ending.FAILED
    assert outcome.failure
    assert "args.a" in outcome.failure.message


def test_a_result_that_cannot_be_stored_fails_for_good_with_its_path(way: Way) -> None:
    outcome = way(object)
    assert outcome.ending is Ending.FAILED
    assert outcome.failure
    assert "result.inner[3]" in outcome.failure.message
    assert way(lambda: "x" * 100, limit=50).ending is Ending.FAILED


def test_a_cancellation_that_nobody_asked_for_is_a_failure(way: Way) -> None:
    outcome = way(raiser(asyncio.CancelledError("who?")))
    assert outcome.ending is Ending.RETRY
    assert outcome.failure
    assert "CancelledError" in outcome.failure.message
    assert "who?" in outcome.failure.traceback


def stopped_while_running(fn: Callable[[], Any], why: Stop) -> Outcome:
    """Run `fn` after a cancellation has reached the task; it raises CancelledError if `fn` raises nothing."""

    async def work() -> Outcome:
        context = Running(CLAIM)
        begun = asyncio.Event()

        async def call() -> Any:
            begun.set()
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                assert current().cancelled
                value = fn()
                if value is not None:
                    return value
                raise

        running = asyncio.create_task(perform(Task(call), CLAIM, context))
        await begun.wait()
        context.end(why)
        context.end(Stop.CANCELLED)
        running.cancel()
        return await running

    return asyncio.run(work())


def test_cancelled_by_an_operator() -> None:
    outcome = stopped_while_running(lambda: None, Stop.CANCELLED)
    assert (outcome.ending, outcome.attempt, outcome.failure) == (Ending.CANCELLED, 1, None)
    outcome = stopped_while_running(raiser(ValueError("on the way out")), Stop.CANCELLED)
    assert outcome.ending is Ending.CANCELLED
    assert outcome.failure
    assert outcome.failure.message == "on the way out"
    assert stopped_while_running(lambda: "done", Stop.CANCELLED).ending is Ending.SUCCEEDED


def test_interrupted_by_shutdown_charges_nothing() -> None:
    outcome = stopped_while_running(lambda: None, Stop.INTERRUPTED)
    assert (outcome.ending, outcome.attempt) == (Ending.INTERRUPTED, 1)
    assert stopped_while_running(raiser(ValueError()), Stop.INTERRUPTED).ending is Ending.INTERRUPTED
    assert stopped_while_running(raiser(Snooze(5)), Stop.INTERRUPTED).ending is Ending.SNOOZED
    assert stopped_while_running(lambda: "done", Stop.INTERRUPTED).ending is Ending.SUCCEEDED


@pytest.mark.parametrize("fn", [lambda: None, lambda: "done", raiser(ValueError()), raiser(Snooze(1))])
def test_timed_out_whatever_it_does_then(fn: Callable[[], Any]) -> None:
    outcome = stopped_while_running(fn, Stop.TIMED_OUT)
    assert (outcome.ending, outcome.attempt) == (Ending.RETRY, 2)
    assert outcome.failure
    assert (outcome.failure.type, "5 s" in outcome.failure.message) == ("TimeoutError", True)


def test_hooks_see_every_attempt_and_break_none(way: Way, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[Any] = []

    class Broken(Hook):
        def before(self, context: Context) -> None:
            raise RuntimeError("before")

        def after(self, context: Context, outcome: Outcome) -> None:
            raise SystemExit

    class Watching(Hook):
        def before(self, context: Context) -> None:
            seen.append(current() is context)

        def after(self, context: Context, outcome: Outcome) -> None:
            seen.append(outcome.ending)

    hooks = [Hook(), Broken(), Watching()]
    with caplog.at_level(logging.ERROR):
        assert way(lambda: 1, hooks=hooks).ending is Ending.SUCCEEDED
        assert way(raiser(ValueError()), hooks=hooks).ending is Ending.RETRY
    assert seen == [True, Ending.SUCCEEDED, True, Ending.RETRY]
    assert "Broken.before failed" in caplog.text
    assert "Broken.after failed" in caplog.text
