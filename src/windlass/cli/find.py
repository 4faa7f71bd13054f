"""Which jobs a command is about: by filter, by id, or by a piece of an id that only one job has."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import click
from msgspec.structs import asdict

from windlass.errors import JobNotFound
from windlass.model import Filter, JobRecord, State
from windlass.store.contract import Store

PIECE = 4
"""The fewest characters of an id that stand for it."""

SEARCHED = 1_000
"""How many of the newest jobs a piece of an id is looked for in."""


def filters(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say which jobs; the command is given them as `wanted`, a filter."""
    return click.option("--error", help="Only jobs that failed with an error of this class.")(places(command))


def places(command: Callable[..., Any]) -> Callable[..., Any]:
    """`filters` of jobs that do not run."""

    @wraps(command)
    def filtered(
        *args: Any, state: str | None, task: str | None, queue: str | None, tag: str | None, **more: Any
    ) -> Any:
        error = more.pop("error", None)
        wanted = Filter(state=State(state) if state else None, task=task, queue=queue, tag=tag, error=error)
        return command(*args, wanted=wanted, **more)

    for add in (
        click.option("--tag", help="Only jobs with this tag."),
        click.option("--queue", help="Only jobs in this queue."),
        click.option("--task", help="Only jobs of this task."),
        click.option("--state", type=click.Choice([str(state) for state in State]), help="Only jobs in this state."),
    ):
        filtered = add(filtered)
    return filtered


def given(wanted: Filter) -> dict[str, str]:
    """What a filter asks for, by the names of the options."""
    return {name: str(value) for name, value in asdict(wanted).items() if value is not None}


async def one_job(store: Store, id: str, *, sure: bool = False) -> JobRecord:
    """The job with this id, or with an id that begins or ends so. Raises `JobNotFound`.

    With `sure`, a piece counts only if every job there is was compared: it is going to be acted on.
    """
    if exact := await store.get([id]):
        return exact[0]
    found: list[str] = []
    seen = 0
    after: str | None = None
    while len(id) >= PIECE and seen < SEARCHED:
        page = await store.find(Filter(), 200, after)
        found += [job.id for job in page.jobs if job.id.startswith(id) or job.id.endswith(id)]
        seen, after = seen + len(page.jobs), page.after
        if after is None:
            break
    if len(found) > 1:
        raise JobNotFound(f"{len(found)} jobs have an id like {id!r}; give more of it: {', '.join(found[:5])}")
    if not found or (sure and after is not None):
        raise JobNotFound(missing(id, after is not None))
    return (await store.get(found))[0]


def missing(id: str, more: bool) -> str:
    """Why no job was found for an id."""
    hint = " There are too many jobs to look for a piece of an id: give it in full." if more else ""
    return f"there is no job {id!r}: it never was, was deleted, or its retention is over.{hint}"
