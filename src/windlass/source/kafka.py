"""Kafka: a topic, read by a consumer group that all workers share.

A message is known by its topic, partition, offset and time, so that a topic that was made anew has new messages.
Offsets are committed when jobs are stored; what a rebalance gives to another worker before that is stored once all the
same.
"""

import logging
import ssl
from collections.abc import Sequence
from typing import Any

from windlass.errors import ConfigError
from windlass.source.feed import Address, Feed, Message, headers_of, library, plain

logger = logging.getLogger("windlass.source")

SESSION, HEARTBEAT = 10_000, 3_000
"""Milliseconds after which a worker that is gone loses its partitions, and between two signs of life."""

NEWS = 30_000
"""Milliseconds until a topic or a partition that was made meanwhile is seen."""


class KafkaFeed(Feed):
    """One member of the group `name`."""

    def __init__(self, address: Address, name: str) -> None:
        super().__init__(address, name)
        address.end(expected="kafka://[user:password@]host:9092[,host:9092]/topic[?sasl=SCRAM-SHA-256]")
        if unknown := set(address.options) - {"sasl"}:
            raise ConfigError(f"expected ?sasl=… and no more in the URL of a Kafka source; {min(unknown)} came")
        self._consumer: Any = None

    async def open(self) -> None:
        address, tls = self.address, self.address.scheme.endswith("ssl")
        login: dict[str, Any] = {}
        if address.user:
            login = {
                "sasl_mechanism": address.options.get("sasl", "PLAIN"),
                "sasl_plain_username": address.user,
                "sasl_plain_password": address.password or "",
            }
        self._consumer = library("aiokafka").AIOKafkaConsumer(
            address.last,
            bootstrap_servers=[
                f"{f'[{host}]' if ':' in host else host}:{port or 9092}" for host, port in address.hosts
            ],
            client_id=f"windlass-{self.name}",
            group_id=self.name,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            session_timeout_ms=SESSION,
            heartbeat_interval_ms=HEARTBEAT,
            metadata_max_age_ms=NEWS,
            security_protocol=("SASL_" if login else "") + ("SSL" if tls else "PLAINTEXT"),
            ssl_context=ssl.create_default_context() if tls else None,
            **login,
        )
        await self._consumer.start()

    async def close(self) -> None:
        if self._consumer is not None:
            await self._consumer.stop()

    async def read(self, most: int, wait: float) -> Sequence[Message]:
        found = await self._consumer.getmany(timeout_ms=int(wait * 1000), max_records=most)
        return [read_message(place, one) for place, records in found.items() for one in records]

    async def acknowledge(self, messages: Sequence[Message]) -> None:
        errors = library("aiokafka.errors")
        ends = {message.handle[0]: message.handle[1] + 1 for message in messages}
        try:
            await self._consumer.commit(ends)
        except (errors.CommitFailedError, errors.IllegalStateError) as error:
            logger.debug("source %s: its partitions are another's by now: %s", self.name, error)


def read_message(place: Any, given: Any) -> Message:
    """A record of a partition as a message. A tombstone, which has no value, is an empty one."""
    return Message(
        body=given.value or b"",
        identity=f"{given.topic}\0{given.partition}\0{given.offset}\0{given.timestamp}",
        topic=given.topic,
        key=None if given.key is None else plain(given.key),
        headers=headers_of(given.headers),
        extra={"partition": given.partition, "offset": given.offset, "time": given.timestamp / 1000},
        handle=(place, given.offset),
    )
