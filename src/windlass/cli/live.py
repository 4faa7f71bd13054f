"""`windlass workers`: who works; and of which jobs nobody would."""

from collections.abc import Mapping, Sequence

import click

from windlass.cli.output import clean, duration, iso, print_json, table
from windlass.cli.reach import json_option, on_store, url_option
from windlass.model import Line, WorkerInfo
from windlass.store.contract import Store

NO_TASK = "no running worker knows this task"
NO_QUEUE = "no running worker serves this queue"
NO_WORKER = "no worker is running"


def living(workers: Sequence[WorkerInfo]) -> list[WorkerInfo]:
    """The workers whose lease runs."""
    return [worker for worker in workers if worker.beat_age <= worker.lease]


def served(worker: WorkerInfo) -> frozenset[str]:
    """The queues that a worker was told to serve; none: all of them."""
    return frozenset(part.partition(":")[0].strip() for part in worker.queues.split(",") if part.strip())


def nobody(line: Line, workers: Sequence[WorkerInfo]) -> str:
    """Why nobody would run the jobs of this line now; empty if somebody would."""
    alive = living(workers)
    knowing = [worker for worker in alive if any(line.task in runner.tasks for runner in worker.runners)]
    if not alive:
        return NO_WORKER
    if not knowing:
        return NO_TASK
    serving = [worker for worker in knowing if not served(worker) or line.queue in served(worker)]
    return "" if serving else NO_QUEUE


async def lines_and_workers(store: Store) -> tuple[list[Line], list[WorkerInfo]]:
    """What `queues` and `doctor` look at."""
    return await store.stats(), await store.workers()


@click.command()
@url_option
@json_option
def workers(url: str | None, as_json: bool) -> None:
    """Show the workers and their runners: what they run, their slots, their last beat."""

    async def work(store: Store) -> list[WorkerInfo]:
        return await store.workers()

    found = on_store(url, work)
    if as_json:
        print_json([worker_data(worker) for worker in found])
        return
    if not found:
        click.echo("No worker is running. Start one: windlass worker MODULE:APP")
        return
    head = ("WORKER", "PID", "RUNNING", "SLOTS", "QUEUES", "LAST BEAT", "TASKS", "HOST")
    table(head, [row for worker in found for row in worker_rows(worker)], right=(1, 2, 3))


def worker_data(worker: WorkerInfo) -> Mapping[str, object]:
    """A worker as `--json` prints it."""
    return {
        "id": worker.id,
        "host": worker.host,
        "pid": worker.pid,
        "version": worker.version,
        "alive": worker.beat_age <= worker.lease,
        "lease": worker.lease,
        "beat_age": worker.beat_age,
        "queues": worker.queues or None,
        "slots": worker.concurrency,
        "started_at": iso(worker.started_at),
        "runners": [
            {
                "id": runner.id,
                "pid": runner.pid,
                "running": runner.running,
                "joined_at": iso(runner.joined_at),
                "tasks": list(runner.tasks),
            }
            for runner in worker.runners
        ],
    }


def worker_rows(worker: WorkerInfo) -> list[tuple[str, ...]]:
    """A worker's row of the table, and one for each of its runners."""
    tasks = {task for runner in worker.runners for task in runner.tasks}
    running = sum(runner.running for runner in worker.runners)
    beat = f"{duration(worker.beat_age)} ago"
    if worker.beat_age > worker.lease:
        beat = click.style(f"{beat}: lost", fg="red")
    queues = clean(worker.queues) or "all"
    slots = str(worker.concurrency)
    rows: list[tuple[str, ...]] = [
        (worker.id[:8], str(worker.pid), str(running), slots, queues, beat, str(len(tasks)), clean(worker.host))
    ]
    for runner in worker.runners:
        rows.append((f"  {runner.id[:8]}", str(runner.pid), str(runner.running), "", "", "", "", ""))  # noqa: PERF401
    return rows
