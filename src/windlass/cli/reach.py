"""The way to a store without the user's code: by `--url`, or as the configuration says."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from windlass.config import make_config, masked
from windlass.errors import ConfigError, StoreUnavailable
from windlass.store.contract import Store
from windlass.store.dispatch import make_store

T = TypeVar("T")
Command = TypeVar("Command", bound=Callable[..., Any])


def url_option(command: Command) -> Command:
    """The option `--url`."""
    return click.option(
        "--url", metavar="URL", help="The store. By default WINDLASS_URL, then pyproject.toml, then windlass.db."
    )(command)


def json_option(command: Command) -> Command:
    """The option `--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def find_url(url: str | None) -> str:
    """The store's URL. Raises `ConfigError` for a store that no other process can see."""
    found = url or make_config().url
    if ":memory:" in found:
        raise ConfigError(
            f"{found} lives inside of one process, and this is another. Expected the URL of a file or a server: "
            "pass --url, or set WINDLASS_URL"
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


def on_store(url: str | None, work: Callable[[Store], Awaitable[T]], *, make: bool = False) -> T:
    """Open the store, do `work` with it, close it; with `make`, a store that is not there yet is made."""
    found = find_url(url)
    if not make:
        refuse_missing(found)

    async def run() -> T:
        store = make_store(found)
        try:
            await store.open()
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(run())
