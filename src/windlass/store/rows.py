"""What the stores' rows have in common: times in whole microseconds, values as JSON."""

import json
from typing import Any

import msgspec
from msgspec import Struct

from windlass.errors import ConfigError
from windlass.model import Attempt, Ending, Failure, Fair, Filter, Outcome, Past, Patch, Progress, State
from windlass.store.contract import NAMED

MICRO = 1_000_000


class News(Struct, omit_defaults=True):
    """What a running job says of itself, as one value. `done` is None where it says nothing of its progress."""

    done: float | None = None
    total: float | None = None
    note: str = ""
    lines: str = ""


class End(Struct, omit_defaults=True):
    """What is known of an attempt that did not succeed, as one value. `type` is empty where it had no error."""

    type: str = ""
    message: str = ""
    traceback: str = ""
    lines: str = ""


_news = msgspec.json.Decoder(News)
_end = msgspec.json.Decoder(End)
_fair = msgspec.json.Decoder(Fair)


def micros(seconds: float) -> int:
    """Seconds as the whole microseconds that stores keep."""
    return round(seconds * MICRO)


def seconds(micros: int | None) -> float | None:
    """The way back."""
    return None if micros is None else micros / MICRO


def claimed_at(past: Past) -> int | None:
    """When a job that comes from another store was claimed there last; None if it never was."""
    if not past.fence:
        return None
    return micros(past.enqueued_at if past.started_at is None else past.started_at)


def read_state(text: str) -> State:
    """A stored state; what there is none of counts as failed: nobody will run that job."""
    return State(text) if text in State.__members__.values() else State.FAILED


def read_ending(text: str) -> Ending:
    """A stored ending; what there is none of counts as failed."""
    return Ending(text) if text in Ending.__members__.values() else Ending.FAILED


def write_news(patch: Patch) -> str:
    """Progress and lines as they are stored."""
    far = patch.progress
    news = News(lines=patch.lines) if far is None else News(far.done, far.total, far.note, patch.lines)
    return msgspec.json.encode(news).decode()


def read_news(data: str | bytes | None) -> tuple[Progress | None, str]:
    """Stored progress and lines; None and nothing if there are none, or none that can be read."""
    news = _decoded(_news, data) or News()
    far = None if news.done is None else Progress(done=news.done, total=news.total, note=news.note)
    return far, news.lines


def write_end(attempt: Outcome | Attempt) -> str | None:
    """The error and the lines of an attempt that did not succeed, as they are stored; None if there are none."""
    error, lines = attempt.failure, attempt.lines
    if error is None and not lines:
        return None
    end = End(lines=lines) if error is None else End(error.type or "Exception", error.message, error.traceback, lines)
    return msgspec.json.encode(end).decode()


def class_of(outcome: Outcome) -> str | None:
    """The class of errors by which a job that ends so is looked up; None for none."""
    if outcome.ending is not Ending.FAILED or outcome.failure is None:
        return None
    name = outcome.failure.type or "Exception"
    return name if len(name) <= NAMED and min(name) >= " " and not {'"', "\\"} & {*name} else None


def read_end(data: str | bytes | None) -> tuple[Failure | None, str]:
    """A stored error, and lines; None and nothing if there are none, or none that can be read."""
    end = _decoded(_end, data) or End()
    error = Failure(type=end.type, message=end.message, traceback=end.traceback) if end.type else None
    return error, end.lines


def read_fair(data: str | bytes | None) -> Fair | None:
    """Whose turn a stored job takes; None if nobody's, or if that cannot be read."""
    return _decoded(_fair, data)  # type: ignore[no-any-return]


def _decoded(decoder: msgspec.json.Decoder[Any], data: str | bytes | None) -> Any:
    try:
        return None if data is None else decoder.decode(data)
    except msgspec.MsgspecError:
        return None


def of_lines(filter: Filter) -> tuple[str, list[str]] | None:
    """The condition that jobs stand in the lines of a filter's queue and task, its texts as {text}; None where lines
    do not tell which jobs match."""
    if filter.state not in (State.WAITING, State.SCHEDULED, State.READY) or filter.queue is None:
        return None
    if filter.task is not None:
        line = f"{filter.queue}/{filter.task}"
        return "line IN ({text}, {text})", [line, f"{line}!"]
    return "line >= {text} AND line < {text}", [f"{filter.queue}/", f"{filter.queue}0"]  # 0 comes after /


def is_sparse(filter: Filter) -> bool:
    """Whether jobs that match have to be looked for among others: no index has those of a queue or a task."""
    named = filter.queue is not None or filter.task is not None
    return named and filter.state not in (State.READY, State.RUNNING)


def state_of(filter: Filter) -> State | None:
    """The one state of the jobs that match: only what failed has a class of errors."""
    return State.FAILED if filter.error is not None else filter.state


def is_over(filter: Filter) -> bool:
    """Whether all that match are over."""
    state = state_of(filter)
    return state is not None and state.final


def read_cursor(after: str, *kinds: type) -> list[Any]:
    """The values of a cursor that `find` gave, each of its kind. Raises `ConfigError` for any other text."""
    try:
        values = json.loads(after)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, list) or len(values) != len(kinds) or not all(map(fits, values, kinds)):
        raise strange(after)
    return values


def fits(value: object, kind: type) -> bool:
    """Whether a value of a cursor may be of this kind; a moment may be missing where somebody else wrote the row."""
    if kind is int:
        return value is None or (type(value) is int and abs(value) < 2**63)
    return type(value) is kind and "\0" not in str(value)


def strange(after: str) -> ConfigError:
    """The error of a cursor that no page gave."""
    return ConfigError(
        f"expected a cursor that find gave for this filter; {after[:100]!r} came: begin at the first page"
    )
