"""The task that tells others how a job has ended: `using(callback_url=…)`."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from importlib import import_module
from types import ModuleType
from typing import Annotated, Any, Protocol
from uuid import UUID, uuid5

from msgspec import Raw, json

from windlass.context import current
from windlass.errors import ConfigError, Fail, JobNotFound, Snooze
from windlass.jobs import Job, Jobs
from windlass.model import State
from windlass.outward import Outward
from windlass.policy import Retry
from windlass.secret import Secret

NAME, QUEUE = "windlass.callback", "windlass.callbacks"

RETRY = Retry(attempts=17)
"""For about three days, as the senders of webhooks do."""

TIMEOUT = 20.0
"""Seconds of one try."""

PATIENCE = 3 * 86_400.0
"""Seconds within which a receiver may put us off by Retry-After, which charges no attempt."""

LONGEST_WAIT = 3_600.0
"""Seconds that one Retry-After may put us off."""

AGAIN = frozenset({408, 425, 429})
"""Those of the answers 400 to 499 that are worth another try."""

MESSAGES = UUID("0f5b3c1a-90b7-5d3e-8f35-3c5be0f7d6aa")
"""The namespace of the ids of messages."""


class Host(Protocol):
    """What callbacks need of their app."""

    jobs: Jobs
    outward: Outward


def make_callback(host: Host) -> Callable[..., Awaitable[int]]:
    """The function of an app's callbacks."""

    async def callback(url: Annotated[str, Secret()]) -> int:
        """Post how the job that this one follows has ended; the status of the answer."""
        me, parent = current().job, current().parent
        if me is None or parent is None:
            raise Fail("this task follows jobs: using(callback_url=…) enqueues it")
        try:
            body = message(await host.jobs.aget(parent), host.jobs)
        except JobNotFound:
            raise Fail(f"job {parent}, which it tells of, is gone") from None
        late = datetime.now(UTC).timestamp() - me.enqueued_at > PATIENCE
        return await send(url, f"msg_{uuid5(MESSAGES, me.id).hex}", body, host.outward, late=late)

    return callback


def message(job: Job[Any], jobs: Jobs) -> bytes:
    """How a job has ended, as what is posted. Raises `DecodeError` for what cannot be decrypted here."""
    record = job.record
    data: dict[str, Any] = {
        "id": job.id,
        "task": record.task,
        "queue": record.queue,
        "state": record.state,
        "tags": record.tags,
        "meta": job.meta,
        "attempt": record.attempt,
        "enqueued_at": job.enqueued_at,
        "finished_at": job.finished_at,
    }
    if record.state is State.SUCCEEDED and not job.hides_result:
        data["result"] = Raw(jobs.open(record, "result") or b"null")
    if record.state is State.FAILED and job.error is not None:
        data["error"] = {"type": job.error.type, "message": job.error.message}
    if record.state is State.CANCELLED:
        data["reason"] = record.reason
    return json.encode({"type": f"job.{record.state}", "timestamp": job.finished_at, "data": data})


async def send(url: str, id: str, body: bytes, outward: Outward, *, late: bool) -> int:
    """Post once; the status of an answer that counts. Raises what says whether, and when, to try again."""
    sent = int(datetime.now(UTC).timestamp())
    return await attempt(outward.check(url), body, outward.sign(id, sent, body), outward, late=late)


async def attempt(url: str, body: bytes, signed: Mapping[str, str], outward: Outward, *, late: bool) -> int:
    """Post JSON once, with the headers that sign it, in the same way."""
    poster = await asyncio.to_thread(load_poster)
    headers = {"content-type": "application/json", "user-agent": "windlass", **signed}
    try:
        reply = await poster.post(url, body, headers, outward)
    except poster.Forbidden as error:
        raise Fail(f"it was not called: {error}. If it is a host of your own, name it in callback_hosts") from None
    if 200 <= reply.status < 300:
        return int(reply.status)
    said = f"the answer was {reply.status}"
    if 400 <= reply.status < 500 and reply.status not in AGAIN:
        raise Fail(f"{said}: it is not wanted there")
    if reply.again is not None and not late:
        raise Snooze(min(max(reply.again, 1.0), LONGEST_WAIT), f"{said}, and to come again in {reply.again:.0f} s")
    raise Refusal(f"{said}, where one of 200 to 299 says that it arrived")


def load_poster() -> ModuleType:
    """What posts. Raises `ConfigError` where its library is not installed."""
    try:
        return import_module("windlass.poster")
    except ModuleNotFoundError as error:
        raise ConfigError(
            "callbacks, webhooks and Slack need aiohttp in workers: pip install 'windlass[webhook]'"
        ) from error


class Refusal(Exception):
    """The other side did not take it now."""
