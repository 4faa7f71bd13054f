"""An app that reads orders and writes down what it did."""

import os

from msgspec import Struct

from tests.worker.sample import effect
from windlass import App, current

app = App()


class Order(Struct):
    """As it comes from a Redis stream: all its fields are texts."""

    number: str
    name: str


@app.task(name="tests.order")
def order(order: Order) -> None:
    effect(f"{order.name} {order.number} {current().meta['topic']}")


app.source(os.environ["SOURCE"], task=order)
