"""The settings of an app: few, checked at start, each with one place to come from."""

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from windlass.errors import ConfigError
from windlass.model import FINAL, State

DAY = 86_400.0


def usable_cpus() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Seconds for all times, bytes for `max_payload`. `queues` as after `windlass worker -q`; "" is every queue.

    `concurrency` is per runner, `processes` the runners of a worker. `lease` is how long a dead machine keeps its
    jobs, `grace` how long a stopping worker waits for running ones. `keep` says, by outcome, how long finished jobs
    stay.
    """

    url: str
    concurrency: int = 25
    processes: int = field(default_factory=usable_cpus)
    queues: str = ""
    lease: float = 15.0
    grace: float = 25.0
    keep: Mapping[State, float] = field(
        default_factory=lambda: {State.SUCCEEDED: 3 * DAY, State.CANCELLED: 3 * DAY, State.FAILED: 30 * DAY}
    )
    max_payload: int = 1024 * 1024
    enqueue_timeout: float = 5.0


LEAST = {"concurrency": 1, "processes": 1, "lease": 1.0, "grace": 0.0, "max_payload": 1024, "enqueue_timeout": 0.1}
"""The smallest value that each number may have."""

NAMES = {one.name for one in fields(Config)}


def make_config(**given: Any) -> Config:
    """Settings from arguments, else WINDLASS_… variables, else `[tool.windlass]` in the nearest pyproject.toml.

    Raises `ConfigError` that says what was expected, what came, and where.
    """
    project = find_project()
    from_file = project_settings(project)
    values: dict[str, Any] = {}
    for name, value in from_file.items():
        if name not in NAMES | {"app"}:
            raise ConfigError(f"[tool.windlass] in {project} has {name!r}; it may have {', '.join(sorted(NAMES))}, app")
        if name != "app":
            values[name] = check(name, value, f"[tool.windlass] in {project}")
    for name in NAMES - {"keep"}:
        variable = f"WINDLASS_{name.upper()}"
        if os.environ.get(variable):
            values[name] = check(name, os.environ[variable], variable)
    for name, value in given.items():
        if name not in NAMES:
            raise ConfigError(f"App() got {name!r}; it takes {', '.join(sorted(NAMES))} and lifespan")
        if value is not None:
            values[name] = check(name, value, f"{name}=")
    values.setdefault("url", f"sqlite:///{(project.parent if project else Path.cwd()) / 'windlass.db'}")
    return Config(**values)


def check(name: str, value: Any, where: str) -> Any:
    """One setting in its type. Raises `ConfigError`."""
    if name == "keep":
        return check_keep(value, where)
    if name not in LEAST:
        if not isinstance(value, str):
            raise ConfigError(f"expected text for {where}; {value!r} came")
        return value
    least = LEAST[name]
    try:
        number = type(least)(value)
    except (TypeError, ValueError):
        number = least - 1
    if isinstance(value, bool) or number < least or number != number:
        raise ConfigError(f"expected a number from {least:g} on for {name} in {where}; {value!r} came")
    return number


def check_keep(value: Any, where: str) -> dict[State, float]:
    """How long finished jobs stay. Raises `ConfigError`."""
    keep = Config(url="").keep
    wanted = ", ".join(sorted(FINAL))
    if not isinstance(value, Mapping) or not set(value) <= FINAL:
        raise ConfigError(f"expected keep with seconds for {wanted} in {where}; {value!r} came")
    if not all(isinstance(seconds, int | float) and seconds >= 0 for seconds in value.values()):
        raise ConfigError(f"expected seconds from 0 on for each of {wanted} in {where}; {value!r} came")
    return {**keep, **{State(state): float(seconds) for state, seconds in value.items()}}


def find_project() -> Path | None:
    """The nearest pyproject.toml, from the working directory upwards."""
    here = Path.cwd()
    return next((file for folder in (here, *here.parents) if (file := folder / "pyproject.toml").is_file()), None)


def project_settings(project: Path | None) -> dict[str, Any]:
    """`[tool.windlass]` of a pyproject.toml. Raises `ConfigError` for a file that is none."""
    if project is None:
        return {}
    try:
        found = tomllib.loads(project.read_text("utf-8")).get("tool", {}).get("windlass", {})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{project} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise ConfigError(f"expected a table [tool.windlass] in {project}; {found!r} came")
    return found


def masked(url: str) -> str:
    """A URL without its password, for people and logs."""
    return re.sub(r"(://[^:/@]*:)[^@/]*@", r"\1***@", url)
