"""Hooks: what the code of an app sees of its jobs."""

import contextlib
import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from msgspec import Struct

from windlass.context import Context
from windlass.jobs import Job
from windlass.model import Claim, Outcome

logger = logging.getLogger("windlass.hooks")

FAILURES = "windlass.worker.failures"
"""The logger that tells of attempts which did not succeed."""

MOST_CARRIED = 8_192
"""Characters of one value that travels with a job, as W3C Baggage has it; a longer one is left out."""


class Sending(Struct, kw_only=True):
    """A job that is about to be stored. `size`: bytes of its arguments. `carrier` travels with it and with those that
    follow it, to `context.carrier` of every attempt."""

    id: str
    task: str
    queue: str
    size: int
    carrier: dict[str, str] = {}

    def carry(self, fields: Mapping[str, str]) -> None:
        """Have it carry these along too; to a baggage, more is added."""
        for name, value in fields.items():
            more = f"{self.carrier[name]},{value}" if name == "baggage" and name in self.carrier else value
            if len(more) <= MOST_CARRIED:
                self.carrier[name] = more


class Hook:
    """Sees jobs come, run and end, in the process where that happens. What it raises is logged and goes no further.

    Keep it short: all but `settled` run where the call or the task runs, on its event loop if any.
    """

    def sending(self, jobs: Sequence[Sending]) -> AbstractContextManager[Any]:
        """Around the writing of jobs, of which some may turn out to be there already. What the writing raised passes
        through. Not called for what workers and stores make themselves."""
        return contextlib.nullcontext()

    def enqueued(self, job: Job[Any]) -> None:
        """A new job is in the store; with `tx=` or an `Outbox` in your open transaction, which may still undo it."""

    def before(self, context: Context) -> None:
        """The arguments are decoded; the task is called next."""

    def after(self, context: Context, outcome: Outcome) -> None:
        """The attempt is over, but not yet settled: its runner may still lose the job, and this end with it."""

    def settled(self, claim: Claim, outcome: Outcome) -> None:
        """The store took this end of an attempt: it stands, and `outcome.ending.state` is what the job is now.

        Called in a thread beside the runner's event loop, one after another, at most once for an attempt. What ends
        without a runner is not seen here (docs/operations.md, Hooks); what must not be missed is `on_final`.
        """


def tell(hooks: Sequence[Hook], event: str, *news: Any) -> None:
    """Call that method of each hook."""
    for hook in hooks:
        try:
            getattr(hook, event)(*news)
        except BaseException:
            logger.exception("%s.%s failed; the job goes on all the same", type(hook).__name__, event)


def tell_caller(hooks: Sequence[Hook], job: Job[Any]) -> None:
    """Call `enqueued` of each hook; an interrupt is for the caller."""
    for hook in hooks:
        try:
            hook.enqueued(job)
        except Exception:
            logger.exception("%s.enqueued failed; job %s is enqueued all the same", type(hook).__name__, job.id)


def who_hear(hooks: Sequence[Hook], event: str) -> tuple[Hook, ...]:
    """The hooks that have a method of their own for it."""
    return tuple(hook for hook in hooks if getattr(type(hook), event) is not getattr(Hook, event))
