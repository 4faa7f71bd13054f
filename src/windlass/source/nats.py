"""NATS JetStream: a stream, read by a durable pull consumer that all workers share.

The consumer is made where there is none of that name; one that exists is used as it is. A message is known by its
number in the stream and by when the stream took it, so that a stream that was made anew has new messages.
"""

import ssl
from collections.abc import Sequence
from typing import Any

from windlass.errors import ConfigError
from windlass.source.feed import Address, Feed, Message, headers_of, library

ACK_WAIT = 15.0
"""Seconds after which the server gives a message to somebody else. Should both store it, it is stored once."""

MOST_PENDING = 20_000
"""Messages that may be with workers at a time; those of a worker that died count until ACK_WAIT is over."""


class NatsFeed(Feed):
    """One worker's share of the durable consumer `name`."""

    def __init__(self, address: Address, name: str) -> None:
        super().__init__(address, name)
        address.end(expected="nats://[user:password@]host:4222/stream[?subject=orders.>]")
        if unknown := set(address.options) - {"subject"}:
            raise ConfigError(f"expected ?subject=… and no more in the URL of a NATS source; {min(unknown)} came")
        self._durable = name.replace(".", "_")
        self._client: Any = None
        self._reader: Any = None
        self._error: Exception | None = None

    async def open(self) -> None:
        try:
            self._client = await self._connect()
        except library("nats.errors").NoServersError as error:
            raise self._error or error from None
        await self._find_consumer()

    async def _connect(self) -> Any:
        address, tls = self.address, self.address.scheme.endswith("tls")
        return await library("nats").connect(
            [
                f"{'tls' if tls else 'nats'}://{f'[{host}]' if ':' in host else host}:{port or 4222}"
                for host, port in address.hosts
            ],
            user=address.user if address.password else None,
            password=address.password,
            token=None if address.password else address.user,
            tls=ssl.create_default_context() if tls else None,
            name=f"windlass {self.name}",
            allow_reconnect=False,
            connect_timeout=5,
            ping_interval=5,
            max_outstanding_pings=2,
            max_reconnect_attempts=1,
            reconnect_time_wait=0.1,
            error_cb=self._note,
        )

    async def _find_consumer(self) -> None:
        """Bind to the durable consumer; make it if there is none."""
        address, api = self.address, library("nats.js.api")
        stream = self._client.jetstream()
        try:
            await stream.consumer_info(address.last, self._durable)
        except library("nats.js.errors").NotFoundError:
            await stream.add_consumer(
                address.last,
                api.ConsumerConfig(
                    durable_name=self._durable,
                    ack_policy=api.AckPolicy.EXPLICIT,
                    ack_wait=ACK_WAIT,
                    max_ack_pending=MOST_PENDING,
                    filter_subject=address.options.get("subject"),
                ),
            )
        self._reader = await stream.pull_subscribe_bind(self._durable, stream=address.last)

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()

    async def read(self, most: int, wait: float) -> Sequence[Message]:
        try:
            found = await self._reader.fetch(most, timeout=wait)
        except TimeoutError:
            found = []
        if not self._client.is_connected:
            raise ConnectionError("the connection was closed")
        return [self._message(one) for one in found]

    async def acknowledge(self, messages: Sequence[Message]) -> None:
        for message in messages:
            await message.handle.ack()
        await self._client.flush(timeout=5)

    def _message(self, given: Any) -> Message:
        told = given.metadata
        number = told.sequence.stream
        return Message(
            body=given.data,
            identity=f"{told.stream}\0{number}\0{told.timestamp.timestamp():.6f}",
            topic=given.subject,
            headers=headers_of((given.headers or {}).items()),
            redelivered=told.num_delivered > 1,
            extra={"sequence": number},
            handle=given,
        )

    async def _note(self, error: Exception) -> None:
        self._error = error
