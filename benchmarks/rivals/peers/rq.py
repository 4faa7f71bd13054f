"""RQ: results are not kept."""

import os

from redis import Redis
from rq import Queue

from benchmarks.drive import Client
from benchmarks.marks import mark


def connect() -> Client:
    """The blocking client."""
    queue = Queue(connection=Redis.from_url(os.environ["STORE"]))

    def one(n: int) -> None:
        queue.enqueue(mark, n, result_ttl=0)

    def many(numbers: list[int]) -> None:
        queue.enqueue_many([Queue.prepare_data(mark, (n,), result_ttl=0) for n in numbers])

    return Client(one, many)
