"""MQTT 5: a topic filter, read by one worker at a time in a session that outlives it.

The session, whose client id is the source's name, is kept by the broker for a week after the last worker left, and
collects what comes meanwhile. Messages are acknowledged (QoS 1) when their jobs are stored. The protocol knows no
identity that outlives a delivery: senders set the user property `message-id`.
"""

import asyncio
import contextlib
import ssl
from collections.abc import Sequence
from typing import Any

from windlass.source.feed import Address, Feed, Inbox, Message, headers_of, library

RECEIVE = 500
"""Messages that the broker sends ahead of acknowledgements."""

KEPT = 7 * 86_400
"""Seconds that the broker keeps the session when nobody is connected."""

IDENTITY = "message-id"
PROTOCOL = 5
KEEPALIVE = 10
PATIENCE = 60.0
"""Seconds until a subscription has to be answered."""

REFUSED = 128
"""The first reason code that says no."""


class MqttFeed(Feed):
    """The session of a source."""

    alone = True

    def __init__(self, address: Address, name: str) -> None:
        super().__init__(address, name)
        address.end(expected="mqtt://[user:password@]host:1883/topic/filter", most=100)
        self._filter = "/".join(address.path)
        self._client: Any = None
        self._inbox = Inbox()
        self._helpers: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        aiomqtt, properties = library("aiomqtt"), library("paho.mqtt.properties").Properties
        host, port = self.address.hosts[0]
        tls = self.address.scheme == "mqtts"
        asked = properties(library("paho.mqtt.packettypes").PacketTypes.CONNECT)
        asked.SessionExpiryInterval = KEPT
        asked.ReceiveMaximum = RECEIVE
        client = aiomqtt.Client(
            host,
            port or (8883 if tls else 1883),
            username=self.address.user,
            password=self.address.password,
            identifier=self.name,
            protocol=aiomqtt.ProtocolVersion.V5,
            clean_start=False,
            properties=asked,
            keepalive=KEEPALIVE,
            tls_context=ssl.create_default_context() if tls else None,
        )
        client._client.manual_ack_set(True)  # aiomqtt acknowledges on receipt, and offers nothing else
        await client.__aenter__()
        self._client = client
        self._helpers = [asyncio.create_task(self._pump()), asyncio.create_task(self._subscribe())]

    async def _subscribe(self) -> None:
        """Have the session subscribe; what it holds already comes before the answer, so nobody waits for that."""
        options = library("paho.mqtt.subscribeoptions").SubscribeOptions
        kept_once = options(qos=1, retainHandling=options.RETAIN_SEND_IF_NEW_SUB)
        try:
            for answer in await self._client.subscribe(self._filter, options=kept_once, timeout=PATIENCE):
                if answer.value >= REFUSED:
                    raise ConnectionError(f"the broker refused the subscription to {self._filter}: {answer}")
        except Exception as error:
            self._inbox.fail(error)

    async def close(self) -> None:
        for helper in self._helpers:
            helper.cancel()
        if self._client is not None:
            with contextlib.suppress(library("aiomqtt").MqttError):
                await self._client.__aexit__(None, None, None)
            if self._client._disconnected.done():
                self._client._disconnected.exception()  # told already, and else told again in the log

    async def read(self, most: int, wait: float) -> Sequence[Message]:
        return await self._inbox.read(most, wait)

    async def acknowledge(self, messages: Sequence[Message]) -> None:
        for message in messages:
            qos, number = message.handle
            if qos:
                self._client._client.ack(number, qos)

    async def _pump(self) -> None:
        try:
            async for message in self._client.messages:
                self._inbox.put(read_message(message))
        except Exception as error:
            self._inbox.fail(error)


def read_message(given: Any) -> Message:
    """A message as the library has it."""
    headers = headers_of(getattr(given.properties, "UserProperty", None) or ())
    return Message(
        body=given.payload,
        identity=headers.get(IDENTITY),
        topic=str(given.topic),
        headers=headers,
        extra={"retained": True} if given.retain else {},
        handle=(given.qos, given.mid),
    )
