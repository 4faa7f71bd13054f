"""PURE: which jobs somebody means, as it stands in addresses, forms and the API."""

import json
import re
from datetime import UTC, datetime
from typing import Annotated, Any

from msgspec import Meta, Struct

from windlass.jobs import Job
from windlass.lazy import Lazy
from windlass.model import Filter, JobRecord, State
from windlass.store.contract import BATCH, NAMED
from windlass.vault import is_sealed
from windlass.view import arguments_of, secrets_of
from windlass.web.look import LINE, cause_of

Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]{1,128}$", max_length=128)]
"""The name of a queue, task or tag, or the id of a job."""

Text = Annotated[str, Meta(min_length=1, max_length=LINE)]

Moment = Annotated[str, Meta(max_length=40, extra_json_schema={"format": "date-time"})]

CLASS = re.compile(rf"[\w.<>]{{1,{min(LINE - 1, NAMED)}}}")
"""A class of errors that is shown as it is stored."""

FIELDS = ("state", "task", "queue", "tag", "prefix", "error", "shape", "text", "since", "until")
"""What may narrow jobs."""


class Which(Struct, frozen=True, kw_only=True, omit_defaults=True, dict=True, forbid_unknown_fields=True):
    """Jobs, by filter: every field that is given must match. One that is misspelt is refused: it would narrow nothing.

    Those from `prefix` on are looked up in the jobs themselves, newest first, but for the `error` of failed jobs.
    `prefix`: how the id begins. `error`: the class of the last error; `shape`: the first line of its message, with #
    for numbers and ids. `text` stands in the arguments or the error. `since`, `until`: when it ended, or else came; ISO
    8601, UTC without a zone.
    """

    state: State | None = None
    task: Name | None = None
    queue: Name | None = None
    tag: Name | None = None
    prefix: Name | None = None
    error: Text | None = None
    shape: Text | None = None
    text: Text | None = None
    since: Moment | None = None
    until: Moment | None = None

    def __post_init__(self) -> None:
        _ = self.span

    @property
    def filter(self) -> Filter:
        """What of it a store can tell."""
        state = State.FAILED if self.state is None and (self.error or self.shape) else self.state
        return Filter(
            state=state, task=self.task, queue=self.queue, tag=self.tag, error=self.error if self.named else None
        )

    @property
    def named(self) -> bool:
        """Whether a store can look up the class of the error."""
        return self.state in (None, State.FAILED) and self.error is not None and CLASS.fullmatch(self.error) is not None

    @property
    def reads(self) -> bool:
        """Whether the jobs themselves have to be read to tell."""
        return any(getattr(self, name) is not None for name in FIELDS[4:] if name != "error" or not self.named)

    @property
    def given(self) -> dict[str, str]:
        """What was given, by name."""
        return {name: str(value) for name in FIELDS if (value := getattr(self, name)) is not None}

    @Lazy
    def span(self) -> tuple[float, float]:
        """`since` and `until` in seconds since the epoch. Raises `ValueError`."""
        return seconds(self.since, float("-inf")), seconds(self.until, float("inf"))

    def fits(self, job: Job[Any]) -> bool:
        """Whether a job matches in what a store cannot tell."""
        begin, end = self.span
        return (
            (self.prefix is None or job.id.startswith(self.prefix))
            and begin <= when(job.record) <= end
            and (self.text is None or holds(job, self.text.casefold()))
            and (self.error is None or cause_of(job)[0] == self.error)
            and (self.shape is None or cause_of(job)[1] == self.shape)
        )


class Targets(Which, frozen=True, kw_only=True, omit_defaults=True, dict=True):
    """Jobs to act on: those of `ids`, or those that a filter leaves; of these at most `most`."""

    ids: Annotated[list[Name], Meta(max_length=BATCH)] = []
    most: Annotated[int, Meta(ge=1, le=2**53)] | None = None

    @property
    def filters(self) -> bool:
        """Whether anything narrows it."""
        return bool(self.given)


def seconds(text: str | None, default: float) -> float:
    """A moment in seconds since the epoch. Raises `ValueError`."""
    if text is None:
        return default
    found = datetime.fromisoformat(text)
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def when(job: JobRecord) -> float:
    """When a job ended, or else came."""
    return job.finished_at or job.enqueued_at


def holds(job: Job[Any], text: str) -> bool:
    """Whether a text, which is casefolded, stands in the arguments that may be seen, or in the last error."""
    error = job.error
    if error is not None and (text in error.type.casefold() or text in error.message.casefold()):
        return True
    record = job.record
    if is_sealed(record.args):
        return False
    if record.options is None or not secrets_of(record):
        return text in record.args.decode("utf-8", "replace").casefold()
    return text in json.dumps(arguments_of(record), ensure_ascii=False).casefold()
