"""Limits under load, one bar each: python -m benchmarks.limits rate|fair|blocked|killed|once|debounce|aging|parents.

On a SQLite file of its own, or with --store on a server of its own. The commands start their own workers, and print
each figure beside what was asked for, with PASS or MISSED; the exit code is 1 if a bar was missed.
"""

import argparse
import asyncio
import contextlib
import logging
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from benchmarks.claims import claims
from benchmarks.idle import Idle, idle, left_alone
from benchmarks.served import STORES, beside, served
from windlass import App, limit
from windlass.jobs import Job

ROOT = Path(__file__).parent.parent
LEASE, LIVED = 5, 6
"""Seconds of a worker's lease where processes are killed, and that each lives before."""

BATCH = 5_000
"""Jobs in one call."""

Told = Iterator[tuple[bool, str]]
"""What a trial found: whether a bar was met, and the figures."""


def lines(word: str) -> list[list[str]]:
    """What tasks wrote under that word so far."""
    file = Path(os.environ["EFFECTS"])
    found = file.read_text().splitlines() if file.exists() else []
    return [line.split()[1:] for line in found if line.split()[0] == word]


@contextlib.contextmanager
def worker(*options: str, url: str | None = None) -> Iterator[psutil.Process]:
    """A worker beside the block, on the store of WINDLASS_URL unless told otherwise."""
    command = [sys.executable, "-m", "windlass", "worker", "benchmarks.limit_tasks:app", *options]
    environment = os.environ | ({} if url is None else {"WINDLASS_URL": url})
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
    try:
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(60)


def until(done: Callable[[], bool], seconds: float) -> float:
    """Wait until it is done; how long that took. Raises `TimeoutError`."""
    began = time.monotonic()
    while not done():
        if time.monotonic() - began > seconds:
            raise TimeoutError(f"not done within {seconds:g} s")
        time.sleep(0.05)
    return time.monotonic() - began


def p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100)[98]


def rate(seconds: float) -> Told:
    """Starts in any window of 60 s, and another queue's start beside it."""
    from benchmarks.limit_tasks import app, other, rated

    with worker("-p", "10", "-c", "8"):
        other.enqueue(time.time())
        until(lambda: len(lines("other")) == 1, 60)
        for _ in range(200):
            other.enqueue(time.time())
            time.sleep(0.01)
        until(lambda: len(lines("other")) == 201, 60)
        app.enqueue_many([rated.bind(n) for n in range(1_000)])
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            other.enqueue(time.time())
            time.sleep(0.05)
        time.sleep(2)
    starts = sorted(float(at) for _, at in lines("rated"))
    most = max(sum(at <= other <= at + 60 for other in starts) for at in starts)
    times = [float(took) for _, took in lines("other")][1:]
    yield (
        most <= 120,
        f"{len(starts)} starts in {seconds:g} s; at most {most} in any 60 s (asked: 120 = 100 + burst); another queue "
        f"p99 {p99(times[:200]) * 1000:.1f} ms before, {p99(times[200:]) * 1000:.1f} ms beside it",
    )


KEYS, EACH = 10_000, 5
"""Fair keys in one queue, and the jobs of each."""


def fair(_: float) -> Told:
    """A tenant with a hundred thousand jobs, then one with ten; and claims where there are very many tenants."""
    from benchmarks.limit_tasks import app, fair, free, plain

    fill(app, 100_000, fair.bind, "a")
    with worker("-p", "1", "-c", "8"):
        until(lambda: len(lines("fair")) > 100, 60)
        began, before = time.time(), len(lines("fair"))
        app.enqueue_many([fair.bind("b") for _ in range(10)])
        until(lambda: sum(tenant == "b" for tenant, _ in lines("fair")) == 10, 60)
        last = max(float(at) for tenant, at in lines("fair") if tenant == "b") - 0.1 - began
        time.sleep(10)
        fill(app, 2_000, plain.using(priority=1).bind)
        time.sleep(10)
    late = [float(at) for tenant, at in lines("fair")[before:] if tenant == "a" and float(at) > began + last + 0.5]
    share, without = (per_second(ends) / 80 for ends in (late, [float(at) for _, at in lines("plain")]))
    yield last <= 2, f"the second tenant started within {last:.2f} s (asked: 2)"
    yield (
        share >= 0.95,
        f"the first alone at {share:.1%} of the full rate (asked: 95); jobs that take no turns at {without:.1%}",
    )
    many = fair.using(queue="many")
    for _round in range(EACH):
        app.enqueue_many([many.bind(str(n)) for n in range(KEYS)])
    fill(app, KEYS * EACH, fair.using(queue="one").bind, "a")
    fill(app, KEYS * EACH, free.using(queue="none").bind)
    took = asyncio.run(claims(app, {"many": "fair", "one": "fair", "none": "free"}, rounds=2_000, slots=8))
    tails = {queue: p99(times) for queue, times in took.items()}
    texts = [f"{name} p50 {statistics.median(took[name]):.2f}, p99 {tails[name]:.2f}" for name in took]
    most = tails["many"] / min(tails["one"], tails["none"])
    yield most <= 2, f"claims of 8, ms, by keys: {'; '.join(texts)}: {KEYS:,} keys are {most:.2f} times one (asked: 2)"


def per_second(moments: list[float]) -> float:
    """How many there were a second, from the first to the last."""
    return (len(moments) - 1) / (moments[-1] - moments[0])


def fill(app: App, count: int, bind: Callable[..., Any], *arguments: Any) -> None:
    """So many jobs of the same call."""
    for start in range(0, count, BATCH):
        app.enqueue_many([bind(*arguments) for _ in range(min(BATCH, count - start))])


BLOCKED, OTHERS, ROUNDS = 100_000, 20_000, 3
MORE, MORE_CPU = 0.25, 0.5
"""By how much an idle worker may cost more before a blocked queue than before an empty one, for what a short look
cannot tell: calls a second, and per cent of a processor."""

SETTLED = 12.0
"""Seconds from the last job on: an idle connection of PostgreSQL tells of its statements up to ten seconds later."""


def blocked(seconds: float) -> Told:
    """A hundred thousand jobs behind a limit of one, others in the same queue, and then nothing to do; beside a store
    with none of them, in turns."""
    os.environ["WINDLASS_GRACE"] = "1"
    urls = {name: beside(os.environ["WINDLASS_URL"], name) for name in ("empty", "blocked")}
    rates: dict[str, list[float]] = {name: [] for name in urls}
    costs: dict[str, list[Idle]] = {name: [] for name in urls}
    apps = {name: App(url) for name, url in urls.items()}
    hold(apps["blocked"])
    for _ in range(ROUNDS):
        for name, url in urls.items():
            with worker("-p", "1", "-c", "50", url=url) as process:
                drain(apps[name], 1_000)
                rates[name].append(drain(apps[name], OTHERS))
                with left_alone(url):
                    time.sleep(SETTLED)
                    costs[name].append(idle(url, process.pid, seconds))
    for app in apps.values():
        app.close()
    plain, behind = (max(rates[name]) for name in urls)
    yield (
        behind >= 0.9 * plain,
        f"{plain:,.0f} jobs/s without, {behind:,.0f} beside {BLOCKED:,} blocked ones: {behind / plain:.0%} (asked: 90)",
    )
    for what, unit, more in (("calls", "calls/s", MORE), ("cpu", "% of a processor", MORE_CPU)):
        empty, full = (statistics.median(getattr(one, what) for one in costs[name]) for name in urls)
        yield (
            full <= empty + more,
            f"idle, {empty:.2f} {unit} without, {full:.2f} with them (asked: {more} more at most)",
        )


def hold(app: App) -> None:
    """Jobs behind a limit of one, of which one runs for as long as there is a worker."""
    from benchmarks.limit_tasks import one

    fill(app, BLOCKED, app.task(name=one.name, gates=limit(1))(one.fn).bind, 3600)


def drain(app: App, count: int) -> float:
    """Jobs a second that a worker ends which waits for them."""
    from benchmarks.limit_tasks import free

    task = app.task(name=free.name)(free.fn)
    app.enqueue_many([task.bind() for _ in range(count)])
    return count / until(lambda: not app.jobs.find(task=free.name, state="ready", limit=1), 300)


def killed(_: float) -> Told:
    """A limit of one on each of 200 keys, while runners die."""
    from benchmarks.limit_tasks import app, keyed

    keys, each, deaths = 200, 300, 200
    for n in range(each):
        app.enqueue_many([keyed.bind(key, n) for key in range(keys)])
    kills: dict[int, float] = {}
    os.environ["WINDLASS_LEASE"] = str(LEASE)
    with worker("-p", "4", "-c", "8") as supervisor:
        while len(kills) < deaths and app.jobs.count(task="keyed", state="succeeded") < keys * each:
            time.sleep(random.uniform(0.5, 2.0))
            fine = time.time() - LIVED  # after quicker deaths a worker waits before it starts the next
            if runners := [one for one in supervisor.children() if one.pid not in kills and one.create_time() < fine]:
                kills[(dying := random.choice(runners)).pid] = time.time()
                dying.kill()
        until(lambda: app.jobs.count(task="keyed", state="succeeded") == keys * each, 600)
    together, gaps = kept_apart(kills)
    yield together == 0, f"{len(kills)} runners killed; {together} times two of one key at once (asked: 0)"
    longest = max(gaps, default=0)
    yield (
        longest <= LEASE + 2,
        f"{len(gaps)} of them in a job; the next of a key after at most {longest:.2f} s (asked: {LEASE + 2})",
    )


def kept_apart(kills: dict[int, float]) -> tuple[int, list[float]]:
    """How often two jobs of a key ran at once, and the seconds from each death in a job to the next of its key."""
    told = [("begin", *line) for line in lines("begin")] + [("end", *line) for line in lines("end")]
    together, gaps = 0, []
    running: dict[str, tuple[str, str]] = {}
    for word, key, _, at, *processes in sorted(told, key=lambda line: float(line[3])):
        there = running.pop(key, None)
        if word == "end":
            together += there != tuple(processes)
            continue
        if there:
            died = min(kills.get(int(process), float("inf")) for process in there)
            together += died > float(at)
            gaps.append(float(at) - died)
        running[key] = (processes[0], processes[1])
    return together, gaps


def once(seconds: float) -> Told:
    """Very many processes enqueue one key, some roll back, some are killed, and a worker makes the key free."""
    from benchmarks import once
    from benchmarks.limit_tasks import sole

    once.migrate()
    began = time.monotonic()
    with worker("-p", "1", "-c", "4"):
        answers, killed = once.watched(seconds)
        tried, took = answers.look(), time.monotonic() - began
        until(lambda: not once.living(), 60)
        time.sleep(1)  # for what a server still does for those who are dead
        until(lambda: not once.living(), 60)
        free = sole.using(unique=once.KEY).enqueue()
        free.result(timeout=60)
    counts, asked = answers.counts, once.PROCESSES * once.EACH
    yield (
        tried >= asked,
        f"{tried:,} enqueues of one key (asked: {asked:,}) in {took:.0f} s by {once.PROCESSES} processes, of which "
        f"{killed} were killed: {counts['stored']:,} stored, {counts['held']:,} given the one there was, "
        f"{counts['back']:,} rolled back, {counts['refused']:,} refused {sorted(answers.said['refused'])}",
    )
    most = max(answers.looks, default=0)
    yield most == 1, f"at most {most} live jobs of it in {answers.looks.total():,} looks (asked: 1)"
    given, back = answers.said["stored"] | answers.said["held"], answers.said["back"]
    missing, extra = given - once.stored(given), once.stored(back)
    yield not missing, f"{len(missing)} of {len(given):,} jobs that callers were given are not there (asked: 0)"
    yield not extra, f"{len(extra)} of {len(back):,} jobs that were rolled back are there (asked: 0)"
    yield free.new, f"the key is {'free' if free.new else 'held by ' + free.id} in the end (asked: free)"
    yield not answers.counts["broken"], f"errors that nobody expects: {sorted(answers.said['broken'])} (asked: none)"


def debounce(_: float) -> Told:
    """A thousand calls in ten seconds."""
    from benchmarks.limit_tasks import saved

    with worker("-c", "4"):
        began = time.monotonic()
        for n in range(1_000):
            saved.enqueue("d", n)
            time.sleep(max(0.0, began + (n + 1) * 0.01 - time.monotonic()))
        until(lambda: any(int(n) == 999 for _, n, _ in lines("saved")), 30)
        time.sleep(3)
    runs = [int(n) for _, n, _ in lines("saved")]
    yield (
        len(runs) in (2, 3) and runs[-1] == 999,
        f"{len(runs)} runs for 1,000 calls in 10 s (asked: 2 or 3, the last with 999), with the arguments {runs}",
    )


STANDING, SLOTS, TOOK = 10_000, 4, 0.02
"""Jobs of low priority before which one of high priority comes; slots, and the seconds that a job takes."""

LOWS, AGING, LATE = 20, 60.0, 0.25
"""Jobs that age, in how many seconds, and the seconds that one job takes with its enqueue and its claim."""


def aging(seconds: float) -> Told:
    """One job of high priority before very many of low priority; then some of low priority, in a queue that ages, under
    twice the capacity in high ones."""
    yield comes_next()
    ran = under_load(seconds)
    lows = [(sent, start) for word, sent, start in ran if word == "low"]
    highs = [(sent, start) for word, sent, start in ran if word == "high"]
    longest = max((start - sent for sent, start in lows), default=0.0)
    speed = per_second([start for _, start in highs])
    yield (
        len(lows) == LOWS and longest <= AGING + LATE,
        f"{len(lows)} of {LOWS} of low priority ran, after at most {longest:.2f} s (asked: {AGING:g} and a job), "
        f"beside {2 * SLOTS / TOOK:.0f} high ones a second, of which {speed:.0f} ran",
    )
    younger = [sum(sent > low + AGING + LATE and at < start for sent, at in highs) for low, start in lows]
    yield (
        max(younger, default=1) == 0,
        f"at most {max(younger, default=0)} high ones went before one of low priority that was {AGING:g} s older "
        "(asked: 0)",
    )


def comes_next() -> tuple[bool, str]:
    """How many of low priority are claimed after one of high priority was stored, and before it is claimed."""
    from benchmarks.limit_tasks import aged, app

    low, high = (aged.using(queue="default", priority=priority) for priority in (-1, 1))
    fill(app, STANDING, low.bind, "standing", 0.0)
    waits = []
    with worker("-p", "1", "-c", "1"):
        until(lambda: bool(lines("aged")), 60)
        for _ in range(20):
            time.sleep(random.uniform(0, 0.1))
            job = high.enqueue("next", 0.0)
            stored = time.time()
            job.result(timeout=60)
            waits.append((stored, claimed(job)))
    others = [claimed(job) for job in app.jobs.find(state="succeeded", task="aged", limit=1_000) if job.priority < 0]
    most = max(sum(stored < other < start for other in others) for stored, start in waits)
    return most == 0, (
        f"at most {most} of {STANDING:,} of low priority were claimed between the storing of one of high priority and "
        f"its claim, in {len(waits)} tries (asked: 0)"
    )


def claimed(job: Job[Any]) -> float:
    """When a job was claimed last, in Unix time by the store's clock."""
    assert job.started_at
    return job.started_at.timestamp()


def under_load(seconds: float) -> list[tuple[str, float, float]]:
    """Enqueue twice the capacity until those of low priority have run; what ran, when it was sent and when it began."""
    from benchmarks.limit_tasks import aged, app

    low, high = aged.using(priority=-100), aged.using(priority=100)
    sent = dict.fromkeys(("low", "high"), 0)
    with worker("-p", "1", "-c", str(SLOTS), "-q", aged.queue):
        low.enqueue("first", 0.0).result(timeout=60)
        began = looked = time.monotonic()
        while (passed := time.monotonic() - began) < seconds:
            due = int(passed * 2 * SLOTS / TOOK)
            app.enqueue_many([high.bind("high", time.time()) for _ in range(due - sent["high"])])
            sent["high"] = due
            if sent["low"] < LOWS and passed > 5 + sent["low"] / 2:
                low.enqueue("low", time.time())
                sent["low"] += 1
            if began + passed > looked + 1:
                looked = began + passed
                if sum(word == "low" for word, *_ in lines("aged")) == LOWS:
                    break
            time.sleep(0.05)
    return [(word, float(at), float(start)) for word, at, start in lines("aged")]


def parents(_: float) -> Told:
    """A tree of jobs that wait for their children, three levels deep, in one slot, and one behind a limit of 1."""
    from benchmarks.limit_tasks import parent, single

    with worker("-p", "1", "-c", "1"):
        took = []
        for task in (parent, single):
            task.enqueue(0, 0).result(timeout=60)
            began = time.monotonic()
            count = task.enqueue(3, 10).result(timeout=600)
            took.append(time.monotonic() - began)
    yield (
        count == 1_111 and took[0] <= 60,
        f"{count:,} jobs (asked: 1,111) in {took[0]:.1f} s (asked: within 60), behind a limit of 1 in {took[1]:.1f} s",
    )


BARS: dict[str, Callable[[float], Told]] = {
    one.__name__: one for one in (rate, fair, blocked, killed, once, debounce, aging, parents)
}
SECONDS = {"rate": 150.0, "aging": 200.0, "once": 300.0, "blocked": 20.0}
"""How long a trial looks unless told otherwise: `aging` and `once` at most, `blocked` at each idle worker."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bar", choices=list(BARS))
    parser.add_argument("--store", choices=STORES, default="sqlite")
    parser.add_argument("--seconds", type=float, help=f"instead of those of {', '.join(SECONDS)}")
    given = parser.parse_args()
    logging.getLogger("windlass.store").setLevel(logging.ERROR)  # else each process says how safe a Redis is
    seconds, good = given.seconds or SECONDS.get(given.bar, 0.0), True
    with served(given.store) as url, tempfile.TemporaryDirectory() as folder:
        os.environ |= {"WINDLASS_URL": url, "EFFECTS": f"{folder}/effects"}
        for met, figures in BARS[given.bar](seconds):
            good &= met
            print(f"{given.bar}, {given.store}: {'PASS' if met else 'MISSED'}: {figures}", flush=True)
        from benchmarks.limit_tasks import app

        app.close()
    sys.exit(not good)


if __name__ == "__main__":
    main()
