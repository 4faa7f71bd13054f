"""One job of a key: the trial `once` of `benchmarks.limits`, in which many processes enqueue, roll back and die."""

import contextlib
import multiprocessing
import os
import random
import sqlite3
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.limit_tasks import app, note, sole
from windlass.errors import StoreError
from windlass.model import State

PROCESSES, EACH = 64, 1_000
KEY = "the only one"

INSIDE, BACK = 0.5, 0.5
"""The share of enqueues inside a transaction of the caller's own, and of these the share that is rolled back."""

OPEN, REST, PAUSE, LOOK = 0.002, 0.25, 0.3, 0.02
"""Seconds, at most: that a transaction stays open after its enqueue, between two enqueues of a process, between two
kills, between two looks. Without the rest the worker hardly gets a turn, and the key is hardly ever free."""

LOOKED_AT = 20
"""The newest jobs of the task; one that is live stands among them."""

ANSWERS = ("stored", "held", "back", "refused", "broken")
"""What became of an enqueue, as the processes write it down; with "live" before it, how many a look found."""

fork = multiprocessing.get_context("fork")


class Answers:
    """What the processes wrote down, read as it grows."""

    def __init__(self) -> None:
        Path(os.environ["EFFECTS"]).touch()
        self._lines = Path(os.environ["EFFECTS"]).open()  # noqa: SIM115 - read until the end of the trial
        self.counts: Counter[str] = Counter()
        self.said: defaultdict[str, set[str]] = defaultdict(set)
        self.looks: Counter[int] = Counter()

    def look(self) -> int:
        """How many enqueues were answered by now."""
        for line in self._lines.readlines():
            word, said = line.rstrip("\n").split(" ", 1)
            if word == "live":
                self.looks[int(said)] += 1
            else:
                self.counts[word] += 1
                self.said[word].add(said)
        return sum(self.counts[word] for word in ANSWERS)


def enqueue_often() -> None:
    """One of the processes. It dies of what it does not expect, and that is written down."""
    try:
        with connected(app.config.url) as db:
            for _ in range(EACH):
                time.sleep(random.uniform(0, REST))
                try:
                    enqueue_inside(db) if db and random.random() < INSIDE else enqueue_alone()
                except StoreError as error:
                    note("refused", type(error).__name__)
                    if db:
                        db.rollback()
    except Exception as error:
        note("broken", repr(error).replace("\n", " "))


def enqueue_alone() -> None:
    """In a commit of its own."""
    job = sole.using(unique=KEY).enqueue()
    note("stored" if job.new else "held", job.id)


def enqueue_inside(db: Any) -> None:
    """In a transaction, of which it is known before its end that it will not be committed."""
    job = sole.using(unique=KEY, tx=db).enqueue()
    time.sleep(random.uniform(0, OPEN))
    word = "stored" if job.new else "held"
    if random.random() < BACK:
        note("back" if job.new else word, job.id)
        db.rollback()
    else:
        db.commit()
        note(word, job.id)


@contextlib.contextmanager
def connected(url: str) -> Iterator[Any]:
    """A connection of the caller's own; None where the store has no transactions to share."""
    if url.startswith("sqlite:"):
        with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"), timeout=30)) as file:
            yield file
    elif url.startswith("postgresql:"):
        with contextlib.closing(psycopg.connect(url)) as server:
            yield server
    else:
        yield None


def look_often() -> None:
    """Another process: how many live jobs there are, each time at one moment of the store."""
    while True:
        with contextlib.suppress(StoreError):
            note("live", living())
        time.sleep(random.uniform(0, LOOK))


def living() -> int:
    """How many jobs of the task are not over. On each store the states of a page are read at one moment."""
    return sum(not State(job.state).final for job in app.jobs.find(task="sole", limit=LOOKED_AT))


def crowd(answers: Answers, seconds: float) -> int:
    """Have processes enqueue until enough was tried or the time is over; how many were killed meanwhile.

    This process has no store open while it forks: an SQLite connection of its own would be found in its children.
    """
    members: list[ForkProcess] = []
    killed, end = 0, time.monotonic() + seconds
    while answers.look() < PROCESSES * EACH and time.monotonic() < end:
        members = [one for one in members if one.is_alive()]
        while len(members) < PROCESSES:
            members.append(fork.Process(target=enqueue_often, daemon=True))
            members[-1].start()
        time.sleep(random.uniform(0, PAUSE))
        dying = random.choice(members)
        killed += dying.is_alive()
        dying.kill()
    for one in members:
        one.kill()
        one.join()
    return killed


def migrate() -> None:
    """Make the tables, in a process of its own."""
    command = [sys.executable, "-m", "windlass", "migrate", "--url", app.config.url]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)


def watched(seconds: float) -> tuple[Answers, int]:
    """The trial itself, beside a worker: what was answered, and how many processes were killed."""
    answers = Answers()
    watcher = fork.Process(target=look_often, daemon=True)
    watcher.start()
    killed = crowd(answers, seconds)
    watcher.kill()
    watcher.join()
    answers.look()
    return answers, killed


def stored(ids: set[str]) -> set[str]:
    """Those of the jobs that the store has, live or over."""
    listed = sorted(ids)
    parts = (listed[at : at + 500] for at in range(0, len(listed), 500))
    return {job.id for part in parts for job in app.jobs.get_many(part)}
