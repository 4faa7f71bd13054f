"""What other programs read: `/metrics` for Prometheus, and how many jobs want a worker, for autoscalers."""

import os
from collections.abc import Iterable
from typing import Annotated

from msgspec import Meta, Struct
from starlette.requests import Request
from starlette.responses import Response

from windlass import metrics
from windlass.machine import cpu_time, resident
from windlass.model import Line, State
from windlass.values import plain_bytes
from windlass.web.pages import checked, desk_of


class ScaleQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Which jobs: of this queue and this task; without them, of all."""

    queue: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    task: Annotated[str, Meta(min_length=1, max_length=128)] | None = None


async def prometheus(request: Request) -> Response:
    """What the store holds, and what this process takes."""
    pid = os.getpid()
    own: metrics.Found = {
        **metrics.build(),
        metrics.MEMORY: {("dashboard",): float(resident(pid))},
        metrics.CPU: {("dashboard",): cpu_time(pid) or 0.0},
    }
    text = metrics.text({**own, **await desk_of(request).overview.found()})
    return Response(text, 200, {"content-type": metrics.KIND})


async def scale(request: Request) -> Response:
    """How many jobs want a worker, as {"value": n}."""
    query = checked(ScaleQuery, request.query_params)
    snapshot = await desk_of(request).watch.snapshot()
    lines = (line for line in snapshot.lines if query.queue in (None, line.queue) and query.task in (None, line.task))
    return Response(plain_bytes({"value": wanted(lines)}), 200, media_type="application/json")


def wanted(lines: Iterable[Line]) -> int:
    """Jobs that are ready or run; and of those that became due, or wait for a limit, one of each queue and task: only a
    worker can tell how many of them may start, so there has to be one."""
    value = 0
    for line in lines:
        if line.state in (State.READY, State.RUNNING):
            value += line.count
        elif line.count and (line.state is State.WAITING or line.oldest > 0):
            value += 1
    return value
