"""`windlass workers`: who works; and of which jobs nobody would."""

import click

from windlass.cli.output import clean, print_json, table
from windlass.cli.reach import json_option, on_store, url_option
from windlass.model import Line, WorkerInfo
from windlass.store.contract import Store
from windlass.view import duration, worker_data


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
