"""AMQP 0-9-1, as RabbitMQ speaks it: a queue that all workers consume.

A message is known by its `message_id`, which its sender sets; the broker gives it nothing else that stays. What is too
large is rejected, so that a dead-letter exchange of the queue gets it. The queue has to exist: what it is like is its
owner's business.
"""

import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

from windlass.source.feed import Address, Feed, Inbox, Message, headers_of, library

PREFETCH = 500
"""Messages that a broker sends ahead of acknowledgements."""

CHECK_EVERY = 30.0
"""Seconds without a message after which we ask whether the queue still has us as a consumer."""


class AmqpFeed(Feed):
    """One consumer of a queue."""

    def __init__(self, address: Address, name: str) -> None:
        super().__init__(address, name)
        address.end(expected="amqp://[user:password@]host:5672[/vhost]/queue", most=2)
        vhost = address.path[0] if len(address.path) == 2 else "/"
        self._server = urlunsplit(urlsplit(address.url)._replace(path=f"/{quote(vhost, safe='')}"))
        self._connection: Any = None
        self._queue: Any = None
        self._inbox = Inbox()
        self._heard = time.monotonic()

    async def open(self) -> None:
        connect = library("aio_pika").connect
        self._connection = await connect(self._server, client_properties={"connection_name": f"windlass {self.name}"})
        self._connection.close_callbacks.add(self._closed)
        channel = await self._connection.channel(publisher_confirms=False)
        channel.close_callbacks.add(self._closed)
        under = await channel.get_underlay_channel()
        under.on_consumer_cancel_callbacks.add(self._cancelled)
        await channel.set_qos(prefetch_count=PREFETCH)
        self._queue = await channel.get_queue(self.address.last)
        await self._queue.consume(self._take)

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.close()

    async def read(self, most: int, wait: float) -> Sequence[Message]:
        found = await self._inbox.read(most, wait)
        if found:
            self._heard = time.monotonic()
        elif time.monotonic() - self._heard > CHECK_EVERY:
            self._heard = time.monotonic()
            if not (await self._queue.declare()).consumer_count:
                raise ConnectionError("the queue was made anew, and does not know this consumer")
        return found

    async def acknowledge(self, messages: Sequence[Message]) -> None:
        if left := [message for message in messages if not message.handle.processed]:
            await left[-1].handle.ack(multiple=True)

    async def refuse(self, messages: Sequence[Message]) -> None:
        for message in messages:
            await message.handle.reject(requeue=False)

    async def _take(self, message: Any) -> None:
        self._inbox.put(
            Message(
                body=message.body,
                identity=message.message_id or None,
                topic=message.routing_key or "",
                headers=headers_of((message.headers or {}).items()),
                redelivered=bool(message.redelivered),
                handle=message,
            )
        )

    def _closed(self, _: Any, error: BaseException | None = None) -> None:
        self._inbox.fail(error)

    def _cancelled(self, *_: Any) -> None:
        self._inbox.fail(ConnectionError("the broker ended this consumer: its queue was deleted, or has moved"))
