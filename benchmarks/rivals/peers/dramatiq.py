"""Dramatiq on Redis with its default middleware; it has no call for many jobs."""

import os

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from benchmarks.drive import Client
from benchmarks.marks import mark

broker = RedisBroker(url=os.environ["STORE"])
dramatiq.set_broker(broker)
work = dramatiq.actor(mark, actor_name="work")


def connect() -> Client:
    """The blocking client."""
    return Client(work.send)
