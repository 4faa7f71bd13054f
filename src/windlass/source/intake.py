"""From messages to jobs: the id, the arguments, what a task can know of its message."""

import base64
import logging
from typing import Any
from uuid import UUID, uuid5

from uuid_utils import uuid7

from windlass import values
from windlass.errors import EncodeError
from windlass.model import NewJob
from windlass.policy import storable
from windlass.source.feed import Identify, Message
from windlass.task import Task, parameter_of

logger = logging.getLogger("windlass.source")

NAMESPACE = UUID("6f5c2f0e-2d1b-5c0a-9d55-0f8e3c1f7a10")

LONGEST_TEXT = 1024
"""The most characters of a header, key or topic that a job keeps."""

MOST_HEADERS = 64


class Intake:
    """Makes the jobs of one source."""

    def __init__(self, name: str, task: Task[..., Any], identify: Identify | None) -> None:
        self._name = name
        self._task = task
        self._identify = identify
        self._parameter = parameter_of(task, "a message")
        self._warned = False

    def job(self, message: Message, *, text: bool) -> tuple[NewJob, bool]:
        """The job of a message, and whether it holds the message. What cannot be its task's argument makes a job that
        fails for that reason; what is too large makes one that says so and holds nothing else."""
        identity = self._identity(message)
        id = str(uuid7()) if identity is None else str(uuid5(NAMESPACE, f"{self._name}\0{identity}"))
        limit = self._task.app.max_payload
        stored = self._arguments(message.body, text) if len(message.body) <= limit else None
        whole = stored is not None and len(stored) <= limit
        if not whole:
            stored = f"a message of {len(message.body):,} bytes, over max_payload ({limit:,}): it is not kept".encode()
        assert stored is not None
        return self._new(id, stored, self._meta(message, identity)), whole

    def _new(self, id: str, stored: bytes, meta: dict[str, Any]) -> NewJob:
        try:
            return self._task.using(id=id, meta=meta).new(stored)
        except EncodeError as error:
            logger.warning("the headers of a message of source %s are not kept with job %s: %s", self._name, id, error)
            return self._task.using(id=id, meta={"source": self._name}).new(stored)

    def _identity(self, message: Message) -> str | None:
        identity = message.identity
        if self._identify is not None:
            try:
                found = self._identify(message)
                identity = None if found is None else str(found)
            except Exception as error:
                logger.warning("identity= of source %s failed for a message: %s", self._name, error)
                return message.identity
        if identity is None and not self._warned:
            self._warned = True
            logger.warning(
                "messages of source %s carry no identity: one that is delivered twice makes two jobs. Have its senders "
                "set a message id, or give identity= to app.source()",
                self._name,
            )
        return identity

    def _arguments(self, body: bytes, text: bool) -> bytes:
        """A call with this message as its argument, as tasks store them."""
        if self._parameter is None:
            return b"{}"
        kind = self._task.shape.kind_of(self._parameter)
        try:
            if kind is bytes and not text:
                value = b'"' + base64.b64encode(body) + b'"'
            elif kind is str or text:
                value = values.plain_bytes(body.decode())
            else:
                values.plain_value(body)
                value = body
        except Exception as error:
            shown = storable(body.decode("utf-8", "backslashreplace"))
            return f"no {'text' if kind is str else 'JSON'} ({error}): {shown}".encode()
        return b'{"' + self._parameter.encode() + b'":' + value + b"}"

    def _meta(self, message: Message, identity: str | None) -> dict[str, Any]:
        """What `current().meta` says of a message; only what it has."""
        headers = {short(name): short(value) for name, value in list(message.headers.items())[:MOST_HEADERS]}
        said = {
            "id": short(identity),
            "topic": short(message.topic),
            "key": short(message.key),
            "headers": headers,
            "redelivered": message.redelivered,
        }
        extra = {name: short(value) for name, value in message.extra.items()}
        return {"source": self._name, **{name: value for name, value in said.items() if value}, **extra}


def short(value: Any) -> Any:
    """A text that is not too long; what is no text as it is."""
    return storable(value[:LONGEST_TEXT]) if isinstance(value, str) else value
