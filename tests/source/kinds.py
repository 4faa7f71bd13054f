"""The transports as tests use them: publish messages with an identity each, and see what the broker still holds."""

import asyncio
import functools
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import aio_pika
import aiomqtt
import nats
from aiokafka import AIOKafkaConsumer, TopicPartition
from confluent_kafka import Producer
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from redis.asyncio import Redis as RedisClient

from tests import brokers
from tests.servers import Redis, Server
from windlass.source.feed import parse
from windlass.source.mqtt import MqttFeed

PROPERTIES: Any = Properties


class Kind:
    """One queue, stream, topic, channel or folder of its own, and the name of the source that reads it.

    `watched`: `left` may be asked while the source is read. `durable`: its server keeps messages over a restart.
    """

    watched = True
    durable = True

    def __init__(self, folder: Path) -> None:
        self.name = f"place{uuid.uuid4().hex[:12]}"
        self.reader = f"reader.of.{self.name}"
        self.folder = folder

    @property
    def server(self) -> Any:
        """A `Server`, if it is durable; anything with a port and a URL."""
        raise NotImplementedError

    @property
    def url(self) -> str:
        """The URL of the source."""
        return f"{self.server.url}{self.name}"

    async def prepare(self) -> None:
        """Make the place, where that is not the source's business."""

    async def publish(self, bodies: Sequence[bytes], ids: Sequence[str] = ()) -> None:
        """Send messages; they are safe with the broker when this returns. With `ids`, sending them again is safe."""
        raise NotImplementedError

    async def left(self) -> int:
        """How many messages are not acknowledged."""
        raise NotImplementedError


def new_ids(bodies: Sequence[bytes]) -> list[str]:
    """An id for each message."""
    return [uuid.uuid4().hex for _ in bodies]


@functools.cache
def redis_server() -> Redis:
    """A Redis that tests of sources may restart."""
    return Redis()


class RedisKind(Kind):
    @property
    def server(self) -> Server:
        return redis_server()

    @property
    def url(self) -> str:
        return f"{self.server.url}/{self.name}"

    def client(self) -> Any:
        return RedisClient(port=self.server.port)

    async def publish(self, bodies: Sequence[bytes], ids: Sequence[str] = ()) -> None:
        async with self.client() as client, client.pipeline(transaction=False) as pipe:
            for body in bodies:
                pipe.xadd(self.name, {b"body": body}, id=f"{int(body) + 1}-0" if ids else "*")
            for answer in await pipe.execute(raise_on_error=not ids):
                if isinstance(answer, Exception) and "equal or smaller" not in str(answer):
                    raise answer

    async def left(self) -> int:
        async with self.client() as client:
            groups = [one for one in await client.xinfo_groups(self.name) if one["name"] == self.reader.encode()]
            return sum(one["pending"] + one["lag"] for one in groups)


class AmqpKind(Kind):
    @property
    def server(self) -> Server:
        return brokers.rabbitmq()

    async def prepare(self) -> None:
        async with await aio_pika.connect(self.server.url) as connection:
            await (await connection.channel()).declare_queue(self.name, durable=True)

    async def publish(self, bodies: Sequence[bytes], ids: Sequence[str] = ()) -> None:
        async with await aio_pika.connect(self.server.url) as connection:
            channel = await connection.channel()
            sending = [
                channel.default_exchange.publish(
                    aio_pika.Message(body, message_id=id, delivery_mode=aio_pika.DeliveryMode.PERSISTENT),
                    self.name,
                )
                for body, id in zip(bodies, ids or new_ids(bodies), strict=True)
            ]
            await asyncio.gather(*sending)

    async def left(self) -> int:
        async with await aio_pika.connect(self.server.url) as connection:
            queue = await (await connection.channel()).declare_queue(self.name, passive=True)
            return int(queue.declaration_result.message_count or 0)


class NatsKind(Kind):
    @property
    def server(self) -> Server:
        return brokers.nats()

    async def prepare(self) -> None:
        async with await nats.connect(self.server.url) as client:
            await client.jetstream().add_stream(name=self.name, subjects=[f"{self.name}.>"])

    async def publish(self, bodies: Sequence[bytes], ids: Sequence[str] = ()) -> None:
        async with await nats.connect(self.server.url) as client:
            stream = client.jetstream()
            for body, id in zip(bodies, ids or new_ids(bodies), strict=True):
                await stream.publish(f"{self.name}.new", body, headers={"Nats-Msg-Id": id})

    async def left(self) -> int:
        async with await nats.connect(self.server.url) as client:
            told = await client.jetstream().consumer_info(self.name, self.reader.replace(".", "_"))
            return int(told.num_pending + told.num_ack_pending)


class MqttKind(Kind):
    watched = False

    @property
    def server(self) -> Server:
        return brokers.mosquitto()

    @property
    def url(self) -> str:
        return f"{self.server.url}{self.name}/+/new"

    async def prepare(self) -> None:
        """The session collects from its first connection on, so there has to be one."""
        feed = MqttFeed(parse(self.url), self.reader)
        await feed.open()
        await asyncio.wait(feed._helpers, return_when=asyncio.FIRST_COMPLETED)
        await feed.close()

    async def publish(self, bodies: Sequence[bytes], ids: Sequence[str] = ()) -> None:
        async with aiomqtt.Client("127.0.0.1", self.server.port, protocol=aiomqtt.ProtocolVersion.V5) as client:
            for body, id in zip(bodies, ids or new_ids(bodies), strict=True):
                properties: Any = PROPERTIES(PacketTypes.PUBLISH)
                properties.UserProperty = [("message-id", id)]
                await client.publish(f"{self.name}/eu/new", body, qos=1, properties=properties)

    async def left(self) -> int:
        """What the session holds is sent to whoever connects to it."""
        feed = MqttFeed(parse(self.url), self.reader)
        await feed.open()
        found = await feed.read(1, 0.5)
        await asyncio.sleep(0.1)
        found = [*found, *await feed.read(1000, 0.01)]
        await feed.close()
        return len(found)


class MockKafka:
    """The broker that librdkafka, Kafka's client in C, has inside for its own tests: it speaks the protocol, groups and
    offsets included, and keeps messages in memory."""

    def __init__(self) -> None:
        self.producer: Any = Producer({"test.mock.num.brokers": 1, "log_level": 0})
        (broker,) = self.producer.list_topics(timeout=30).brokers.values()
        self.port: int = broker.port

    @property
    def url(self) -> str:
        return f"kafka://127.0.0.1:{self.port}/"


@functools.cache
def mock_kafka() -> MockKafka:
    """The Kafka of all tests in this process."""
    return MockKafka()


PARTITIONS = 4
"""Of each of its topics."""


class KafkaKind(Kind):
    durable = False

    @property
    def server(self) -> Any:
        return mock_kafka()

    async def prepare(self) -> None:
        await asyncio.to_thread(self.server.producer.list_topics, self.name)

    async def publish(self, bodies: Sequence[bytes], ids: Sequence[str] = ()) -> None:
        for body in bodies:
            self.server.producer.produce(self.name, body, key=body[-1:])
        await asyncio.to_thread(self.server.producer.flush)

    async def left(self) -> int:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=f"127.0.0.1:{self.server.port}", group_id=self.reader, enable_auto_commit=False
        )
        await consumer.start()
        try:
            places = [TopicPartition(self.name, number) for number in range(PARTITIONS)]
            consumer.assign(places)
            ends = await consumer.end_offsets(places)
            return sum([end - (await consumer.committed(place) or 0) for place, end in ends.items()])
        finally:
            await consumer.stop()


KINDS: Mapping[str, type[Kind]] = {
    "amqp": AmqpKind,
    "kafka": KafkaKind,
    "mqtt": MqttKind,
    "nats": NatsKind,
    "redis": RedisKind,
}
"""Those that promise that each message is one job, and have a server."""
