"""Windlass, with its defaults: timeouts, retries, results and history are on."""

from benchmarks.drive import Client
from benchmarks.tasks import app, on_loop


def connect() -> Client:
    """The blocking client."""

    def many(numbers: list[int]) -> None:
        app.enqueue_many([on_loop.bind(n) for n in numbers])

    return Client(on_loop.enqueue, many)
