"""An app that Sentry watches. What would be sent is appended to the file SENTRY, as JSON lines."""

import asyncio
import json
import os
import signal
from typing import Annotated

import sentry_sdk
from sentry_sdk.envelope import Envelope
from sentry_sdk.integrations.dedupe import DedupeIntegration
from sentry_sdk.integrations.logging import LoggingIntegration
from sentry_sdk.transport import Transport

from windlass import App, Cancel, Retry, Secret, Snooze, current
from windlass.contrib.sentry import Sentry


class Kept(Transport):
    """Writes down what it gets, and fails for a task of the name "down"."""

    def capture_envelope(self, envelope: Envelope) -> None:
        for item in envelope.items:
            text = json.dumps(item.payload.json)
            handle = os.open(os.environ["SENTRY"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.write(handle, text.encode() + b"\n")
            os.close(handle)
            if '"down"' in text:
                raise RuntimeError("Sentry is down")


def begin() -> None:
    """Have Sentry watch this process."""
    sentry_sdk.init(
        "https://key@localhost/1",
        transport=Kept,
        traces_sample_rate=1.0,
        data_collection={"queues": True},
        default_integrations=False,
        integrations=[LoggingIntegration(), DedupeIntegration()],
    )


if "SENTRY" in os.environ:
    begin()
app = App(hooks=[Sentry()])


@app.task(name="fails", queue="mail", retry=Retry(attempts=2, backoff=0))
async def fails(word: Annotated[str, Secret()], pin: Annotated[int, Secret()], order: int) -> None:
    said = [f"{word} for {order}"]
    current().log.info("with %s", said)
    await plain.aenqueue(current().attempt)
    raise ValueError(f"not {word}")


@app.task(name="plain")
def plain(number: int = 0) -> None: ...


@app.task(name="changes")
async def changes() -> None:
    if "cancel" in current().meta:
        raise Cancel("not needed")
    raise Snooze(3600)


@app.task(name="again", retry=Retry(attempts=2, backoff=0))
def again() -> None:
    if current().attempt == 1:
        raise KeyError("once")


@app.task(name="late", timeout=0.05, retry=1)
async def late() -> None:
    await asyncio.sleep(60)


@app.task(name="dies", executor="process")
def dies() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(name="bad", executor="process", retry=1)
def bad() -> None:
    raise LookupError("in a process")


@app.task(name="down", retry=1)
async def down() -> None:
    raise OSError("what it raised")
