"""Celery on Redis: no results, and jobs taken before they run, as by default; it has no call for many jobs."""

import os

from celery import Celery

from benchmarks.drive import Client
from benchmarks.marks import mark

app = Celery("rivals", broker=os.environ["STORE"])
app.conf.update(task_ignore_result=True, worker_prefetch_multiplier=200, broker_connection_retry_on_startup=True)
work = app.task(mark, name="work")


def connect() -> Client:
    """The blocking client."""
    return Client(work.delay)
