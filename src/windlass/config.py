"""The settings of an app: few, checked at start, each with one place to come from."""

import math
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack
from urllib.parse import SplitResult, urlsplit

from windlass.errors import ConfigError
from windlass.machine import default_processes, most_slots
from windlass.model import FINAL, State
from windlass.outward import Outward
from windlass.vault import parse_keys

DAY = 86_400.0
PREFIX = "WINDLASS_"


Concurrency = int | Literal["auto"]


def default_keep() -> dict[State, float]:
    """Seconds that finished jobs stay."""
    return {State.SUCCEEDED: 3 * DAY, State.CANCELLED: 3 * DAY, State.FAILED: 30 * DAY}


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Seconds for all times, bytes for `max_payload` and `max_memory`. `queues` as after `windlass worker -q`.

    `concurrency` is per runner, `processes` the runners of a worker; "auto": each runner finds out what is best
    (docs/design/concurrency.md). These two and `queues`, given to `App()`, are for
    `app.worker()`: `windlass worker` imports no app before it starts runners, and takes its own options, else the
    environment, else pyproject.toml. `lease` is how long a dead machine keeps its
    jobs, `grace` how long a stopping worker waits for running ones. `keep` says, by outcome, how long finished jobs
    stay. A process of a worker is replaced after `max_jobs` jobs, and when it has more than `max_memory`; it
    never gets twice as much. 0 means no such limit. `health` is "[HOST:]PORT" where a worker answers
    probes. `keys` encrypt what is stored of jobs: the first one does, any of them opens it (docs/design/encryption.md).
    `callback_secrets`, one or two, sign what is posted to a `callback_url`; `callback_hosts` are hosts of your own
    network that may be called (docs/webhooks.md).
    """

    url: str
    concurrency: Concurrency = 25
    processes: int = field(default_factory=default_processes)
    queues: str = ""
    lease: float = 15.0
    grace: float = 25.0
    keep: Mapping[State, float] = field(default_factory=default_keep)
    max_payload: int = 1024 * 1024
    enqueue_timeout: float = 5.0
    max_jobs: int = 0
    max_memory: int = 0
    health: str = ""
    keys: tuple[str, ...] = ()
    callback_secrets: tuple[str, ...] = ()
    callback_hosts: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<Config of {masked(self.url)}>"


class Settings(TypedDict, total=False):
    """What `App()` takes besides `url` and `lifespan`: the fields of `Config`; None means not given."""

    concurrency: Concurrency | None
    processes: int | None
    queues: str | None
    lease: float | timedelta | None
    grace: float | timedelta | None
    keep: Mapping[str, float | timedelta] | None
    max_payload: int | None
    enqueue_timeout: float | timedelta | None
    max_jobs: int | None
    max_memory: int | str | None
    health: int | str | None
    keys: str | Sequence[str] | None
    callback_secrets: str | Sequence[str] | None
    callback_hosts: str | Sequence[str] | None


LEAST = {
    "concurrency": 1,
    "processes": 1,
    "lease": 1.0,
    "grace": 0.0,
    "max_payload": 1024,
    "enqueue_timeout": 0.1,
    "max_jobs": 0,
}
"""The smallest value that each number may have; its type is the setting's."""

NAMES = sorted(one.name for one in fields(Config))


def make_config(url: str | None = None, **given: Unpack[Settings]) -> Config:
    """Settings from arguments, else WINDLASS_… variables, else `[tool.windlass]` in the nearest pyproject.toml.

    Raises `ConfigError` that says what was expected, what came, and where.
    """
    project = find_project()
    values = {**from_project(project), **from_environment(), **from_arguments({"url": url, **given})}
    values.setdefault("url", f"sqlite:///{(project.parent if project else Path.cwd()) / 'windlass.db'}")
    return Config(**values)


def from_project(project: Path | None) -> dict[str, Any]:
    """Settings in `[tool.windlass]`; a relative path in its url begins at that file."""
    values: dict[str, Any] = {}
    for name, value in project_settings(project).items():
        if name == "app":
            continue
        if name in ("keys", "callback_secrets"):
            raise ConfigError(
                f"{project} has {name}, for everybody to read: give them in {PREFIX}{name.upper()}, or App({name}=…)"
            )
        if name not in NAMES:
            raise ConfigError(f"[tool.windlass] in {project} has {name!r}; {expected(name, [*NAMES, 'app'])}")
        values[name] = check(name, value, f"{name} of [tool.windlass] in {project}")
    if project and "url" in values:
        values["url"] = anchored(values["url"], project.parent)
    return values


def from_environment() -> dict[str, Any]:
    """Settings in WINDLASS_… variables. Foreign ones are let be, but not one that looks like a slip."""
    known = {f"{PREFIX}{name.upper()}": name for name in NAMES}
    values: dict[str, Any] = {}
    for variable, value in os.environ.items():
        if variable in known and value:
            values[known[variable]] = check(known[variable], value, variable)
        elif variable.startswith(PREFIX) and variable not in known and get_close_matches(variable, known, cutoff=0.9):
            raise ConfigError(f"the environment has {variable}; {expected(variable, list(known))}")
    if "url" in values:
        values["url"] = anchored(values["url"], Path.cwd())
    return values


def from_arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that are given in code."""
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name not in NAMES:
            raise ConfigError(f"App() got {name!r}; {expected(name, [*NAMES, 'lifespan'])}")
        if value is not None:
            values[name] = check(name, value, f"{name}=")
    if "url" in values:
        values["url"] = anchored(values["url"], Path.cwd())
    return values


def expected(name: str, names: list[str]) -> str:
    """Which names there are; the one that was meant first."""
    close = get_close_matches(name, names, n=1)
    return f"did you mean {close[0]}?" if close else f"expected one of {', '.join(names)}"


def check(name: str, value: Any, where: str) -> Any:
    """One setting in its type. Raises `ConfigError`."""
    if name == "keep":
        return check_keep(value, where)
    if name == "max_memory":
        return check_size(value, where)
    if name == "keys":
        return check_keys(value, where)
    if name in ("callback_secrets", "callback_hosts"):
        return check_list(name, value, where)
    if name == "concurrency" and not isinstance(value, int):
        return check_concurrency(value, where)
    if name in LEAST:
        return check_number(LEAST[name], value, where)
    if name == "health":
        return check_health(value, where)
    if not isinstance(value, str):
        raise ConfigError(f"expected text for {where}; {value!r} came")
    if name == "url" and "://" not in value:
        raise ConfigError(f"expected a URL such as sqlite:///windlass.db for {where}; {masked(value)!r} came")
    return value


def check_concurrency(value: Any, where: str) -> Concurrency:
    """A whole number from 1 on, or "auto". Raises `ConfigError`."""
    if value == "auto":
        return "auto"
    try:
        return int(check_number(1, value, where))
    except ConfigError:
        raise ConfigError(f"expected a whole number from 1 on, or auto, for {where}; {value!r} came") from None


def slots_of(concurrency: Concurrency, processes: int) -> int:
    """How many slots each runner has at most."""
    return most_slots(processes) if concurrency == "auto" else concurrency


def check_number(least: float, value: Any, where: str) -> float:
    """A number of the type of `least`, from it on; texts come from the environment. Raises `ConfigError`."""
    try:
        number = value.total_seconds() if isinstance(value, timedelta) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    whole = isinstance(least, int)
    if isinstance(value, bool) or not least <= number < math.inf or (whole and number != int(number)):
        kind = "a whole number" if whole else "a number"
        raise ConfigError(f"expected {kind} from {least:g} on for {where}; {value!r} came")
    return int(number) if whole else number


def check_size(value: Any, where: str) -> int:
    """A size in bytes: a whole number, or a text such as 512M or 2G. Raises `ConfigError`."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)i?B?", str(value).strip(), re.IGNORECASE)
    if not found or not isinstance(value, str):
        raise ConfigError(f"expected a size such as 512M or 2G, or whole bytes from 0 on, for {where}; {value!r} came")
    return int(float(found[1]) * 1024 ** " KMGT".index(found[2].upper() or " "))


def check_health(value: Any, where: str) -> str:
    """A port, HOST:PORT, or an empty text for none. Raises `ConfigError`."""
    text = str(value)
    if text:
        address_of(text, where)
    return text


def address_of(text: str, where: str = "health") -> tuple[str | None, int]:
    """A host, None for every address of this machine, and a port. Raises `ConfigError`."""
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]:|([^:\[\]]*):)?(\d{1,5})", text)
    if not found or not 0 < int(found[3]) < 65_536:
        raise ConfigError(f"expected a port, or HOST:PORT, for {where}; {text!r} came")
    return found[1] or found[2] or None, int(found[3])


def check_keep(value: Any, where: str) -> dict[State, float]:
    """How long finished jobs stay: a mapping, or text such as failed=604800,succeeded=3600. Raises `ConfigError`."""
    if isinstance(value, str):
        value = dict(part.partition("=")[::2] for part in value.replace(" ", "").split(","))
    states = sorted(FINAL)
    if not isinstance(value, Mapping) or not set(value) <= FINAL:
        raise ConfigError(f"expected seconds by outcome ({', '.join(states)}) for {where}; {value!r} came")
    given = {State(state): check_number(0.0, kept, f"{state} in {where}") for state, kept in value.items()}
    return {**default_keep(), **given}


def check_keys(value: Any, where: str) -> tuple[str, ...]:
    """The keys of payloads, as texts that are keys. Raises `ConfigError`, which shows none of them."""
    entries = value.split(",") if isinstance(value, str) else value
    if not isinstance(entries, list | tuple) or not all(isinstance(one, str) for one in entries):
        raise ConfigError(f"expected texts such as 'k1:BASE64' for {where}; {type(value).__name__} came")
    given = tuple(one.strip() for one in entries if one.strip())
    try:
        parse_keys(given)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    return given


def check_list(name: str, value: Any, where: str) -> tuple[str, ...]:
    """What callbacks are signed with, or where they may go. Raises `ConfigError`, which shows no secret."""
    entries = value.split(",") if isinstance(value, str) else value
    if not isinstance(entries, list | tuple) or not all(isinstance(one, str) for one in entries):
        raise ConfigError(f"expected a list of texts for {where}; {type(value).__name__} came")
    given = tuple(one.strip() for one in entries if one.strip())
    try:
        Outward(**{name.removeprefix("callback_"): given})
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    return given


def anchored(url: str, folder: Path) -> str:
    """`url` with a relative path to a file made absolute, so that a change of folder changes no store."""
    path, mark, query = url.removeprefix("sqlite:///").partition("?")
    if not url.startswith("sqlite:///") or not path or path.startswith((":memory:", "/")):
        return url
    return f"sqlite:///{folder / path}{mark}{query}"


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
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{project} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise ConfigError(f"expected a table [tool.windlass] in {project}; {found!r} came")
    return found


# URLs hold passwords


LOGIN = re.compile(r"(?:^(?!.*://)|://)[^:/@?]*:(.*)@", re.DOTALL)
NAMED = re.compile(
    r"(?:^|[?&\s])[\w.%+-]*(?:pass|secret|token|key|listen(?!=off(?:&|$)))[\w.%+-]*\s*=\s*([^&]*)", re.IGNORECASE
)
QUOTED = re.compile(r"""(["']).*\1""", re.DOTALL)


def masked(url: str) -> str:
    """A URL without its password, for people and logs; rather too much is hidden than too little."""
    shown = list(url)
    for found in (*LOGIN.finditer(url), *NAMED.finditer(url)):
        first, end = found.span(1)
        shown[first:end] = "\0" * (end - first)
    return re.sub("\0+", "***", "".join(shown))


def complaint(url: str, error: Exception) -> str:
    """What a driver, or Python, says of a URL. They quote what they do not understand, and that may be the rest of a
    password that was not escaped."""
    return str(error) if masked(url) == url else QUOTED.sub("***", str(error))


def split_url(url: str) -> SplitResult:
    """The parts of a server's URL. Raises `ValueError` for a user or password that ends too early: the rest of it would
    be taken for a host or a database, and be shown as such."""
    login, _, _ = url.partition("://")[2].partition("?")[0].rpartition("@")
    if set(login) & set("/#@"):
        raise ValueError("its user or password holds / # or @: write them as %2F, %23 and %40")
    return urlsplit(url)


def scheme_of(url: str) -> str:
    """What stands in front of ://, empty if there is none."""
    scheme, mark, _ = url.partition("://")
    return scheme.lower() if mark else ""
