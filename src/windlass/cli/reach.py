"""The way to a store without the user's code: by `--url`, or as the configuration says."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import click

from windlass import blocking
from windlass.app import App
from windlass.config import make_config, masked
from windlass.errors import ConfigError, StoreError, StoreUnavailable
from windlass.store.contract import Store
from windlass.store.dispatch import bounded, make_store, within
from windlass.worker.logs import FORMATS, VARIABLE

OPEN_WITHIN, CLOSE_WITHIN = 3.0, 0.5
"""Seconds after which a command says that the store does not answer, and after which it ends without a farewell."""

REACH = "Is the server running, not frozen or overloaded, and may this host reach it?"

T = TypeVar("T")
Command = TypeVar("Command", bound=Callable[..., Any])


def url_option(command: Command) -> Command:
    """The option `--url`."""
    return click.option(
        "--url", metavar="URL", help="The store. By default WINDLASS_URL, then pyproject.toml, then windlass.db."
    )(command)


def log_option(command: Command) -> Command:
    """The option `--log-format`."""
    return click.option(
        "--log-format",
        type=click.Choice(FORMATS),
        envvar=VARIABLE,
        help="How log lines look. By default WINDLASS_LOG_FORMAT, then console; json needs 'windlass[json]'.",
    )(command)


def json_option(command: Command) -> Command:
    """The option `--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def find_url(url: str | None) -> str:
    """The store's URL. Raises `ConfigError` for a store that no other process can see."""
    found = url or make_config().url
    if ":memory:" in found:
        raise ConfigError(
            f"{masked(found)} lives inside of one process, and this is another. Expected the URL of a file or a "
            "server: pass --url, or set WINDLASS_URL"
        )
    return found


def file_of(url: str) -> Path | None:
    """The file that a URL names, if its store is one."""
    return Path(url.partition("?")[0].removeprefix("sqlite:///")).absolute() if url.startswith("sqlite:///") else None


def shown(url: str) -> str:
    """Where a store is, as people want to read it: a file's full path, or a URL without its password."""
    file = file_of(url)
    return str(file) if file else masked(url)


def refuse_missing(url: str) -> None:
    """Raise `StoreUnavailable` for a file that does not exist: looking at a store does not make one."""
    file = file_of(url)
    if file and not file.exists():
        raise StoreUnavailable(
            f"there is no store at {file} yet. Enqueue a job or start a worker to make it, "
            "or name another with --url or WINDLASS_URL"
        )


def app_at(url: str | None) -> App:
    """An app without code at a store that exists."""
    found = find_url(url)
    refuse_missing(found)
    return App(found)


def on_store(url: str | None, work: Callable[[Store], Awaitable[T]], *, make: bool = False) -> T:
    """Open the store, do `work` with it, close it; with `make`, a store that is not there yet is made."""
    found = find_url(url)
    if not make:
        refuse_missing(found)

    async def run() -> T:
        async with opened(found) as store:
            return await work(store)

    return blocking.run(run())


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Store]:
    """The store of that URL, open within the block. No call to it hangs, whatever became of its server."""
    store = bounded(make_store(url))
    late = StoreUnavailable(f"{shown(url)} does not answer: nothing came within {OPEN_WITHIN:g} s. {REACH}")
    try:
        await within(OPEN_WITHIN, store.open(), late)
        yield store
    finally:
        with suppress(StoreError):
            await within(CLOSE_WITHIN, store.close(), StoreError("it does not close"))
