"""What is paused, by hand or by a circuit breaker: queues and tasks of which nothing is claimed; queues that are
drained: what is in them runs, and no more comes in; and workers that are drained: each ends what it runs, and itself.
Pure values.

The store has a document for each. Workers look once a second, leave what is paused out of what they ask for, and end if
they are told to; who enqueues looks what is drained. That a key of a gate is paused is said by its settings
(`windlass.gate.Own`).
"""

from collections.abc import Iterable

import msgspec
from msgspec import Struct

from windlass.model import Doc

QUEUE, TASK, DRAIN, WORKER = "queue:", "task:", "drain:", "worker:"
"""What the names of documents begin with; behind it stands the name of the queue or the task, or the worker's id."""


class Pause(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why nothing is claimed, and since when; moments are seconds since the epoch, by the store's clock.

    `until` is None for a pause by hand, which lasts until somebody resumes. A breaker lets one job at a time try from
    `until` on: that of the runner `prober`, which has this right until `held`.
    """

    since: float
    reason: str = ""
    until: float | None = None
    prober: str = ""
    held: float = 0.0


class View(Struct, frozen=True, kw_only=True):
    """What runners need to know: the queues and tasks that are paused, the tasks of which a runner may now ask for the
    right to try one job, and, while a queue is paused, the queues in which there are jobs. And what supervisors need to
    know: the workers that shall end."""

    queues: frozenset[str] = frozenset()
    tasks: frozenset[str] = frozenset()
    probes: frozenset[str] = frozenset()
    known: frozenset[str] = frozenset()
    workers: frozenset[str] = frozenset()


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Pause).decode


def write(pause: Pause) -> bytes:
    """A pause as it is stored."""
    return _encode(pause)


def read(body: bytes) -> Pause:
    """A stored pause. One that cannot be read pauses all the same, until somebody resumes."""
    try:
        return _decode(body)
    except msgspec.MsgspecError:
        return Pause(since=0.0, reason="the stored pause cannot be read; resume to drop it")


def may_try(pause: Pause, now: float) -> bool:
    """Whether a runner may take the right to try one job."""
    return pause.until is not None and now >= pause.until and now >= pause.held


def view_of(docs: Iterable[Doc], now: float) -> View:
    """What these documents say now."""
    found = {doc.name: read(doc.body) for doc in docs}

    def behind(kind: str) -> frozenset[str]:
        return frozenset(name.removeprefix(kind) for name in found if name.startswith(kind))

    return View(
        queues=behind(QUEUE),
        tasks=behind(TASK),
        probes=frozenset(
            name.removeprefix(TASK) for name, one in found.items() if name.startswith(TASK) and may_try(one, now)
        ),
        workers=behind(WORKER),
    )
