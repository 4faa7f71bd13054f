"""Which jobs a call is about, by the words that people give."""

from typing import Protocol

from windlass.errors import CallError, ConfigError
from windlass.model import Filter, State


class Named(Protocol):
    """A task, as far as a filter looks at it."""

    @property
    def name(self) -> str:
        """Its name."""


def which(state: str | None, task: str | Named | None, queue: str | None, tag: str | None) -> Filter:
    """A filter. Raises `ConfigError` for a state that there is none of."""
    if state is not None and state not in list(State):
        raise ConfigError(f"expected state as one of {', '.join(State)}; {state!r} came")
    name = task if isinstance(task, str | None) else task.name
    return Filter(state=None if state is None else State(state), task=name, queue=queue, tag=tag)


def some(verb: str, filter: Filter) -> Filter:
    """A filter that names something. Raises `CallError`."""
    if filter == Filter():
        raise CallError(f"expected a state, task, queue or tag: {verb} without any would touch every job")
    return filter
