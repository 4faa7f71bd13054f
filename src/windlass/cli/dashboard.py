"""`windlass dashboard`: the dashboard of an app, served alone."""

import contextlib
import ipaddress
import os
from types import FrameType

import click

from windlass.app import App
from windlass.cli.reach import find_url, log_option, refuse_missing, shown, url_option
from windlass.errors import ConfigError
from windlass.loader import load, spec_or_default
from windlass.worker.declare import UNNAMED
from windlass.worker.logs import is_json, set_up

USERS = "WINDLASS_DASHBOARD_USERS"

PORT = 8787

FAREWELL = 2
"""Seconds that open pages are given when it stops."""


@click.command()
@click.argument("app", metavar="[MODULE:APP]", required=False)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen at.")
@click.option("--port", type=click.IntRange(1, 65_535), default=PORT, show_default=True)
@click.option("--allow-host", "hosts", multiple=True, metavar="NAME", help="A name that it may be asked for under.")
@log_option
@url_option
def dashboard(
    app: str | None, host: str, port: int, hosts: tuple[str, ...], log_format: str | None, url: str | None
) -> None:
    """Serve the dashboard of MODULE:APP, or of the store at --url without any app's code.

    Without users it answers this machine only, and whoever sits there may do everything. Users stand in
    WINDLASS_DASHBOARD_USERS as NAME:ROLE:SECRET, separated by commas; ROLE is viewer, operator or admin.
    """
    users = users_given()
    if not users and not is_loopback(host):
        raise ConfigError(
            f"--host {host} lets others in, and nothing says who they are: set {USERS} to NAME:ROLE:SECRET, "
            "or listen at 127.0.0.1"
        )
    set_up(form=log_format)
    if url:
        refuse_missing(find_url(url))
    spec = UNNAMED if url else spec_or_default(app)
    served = App(url) if url else load(spec)
    name = f"[{host}]" if ":" in host else host
    click.echo(f"dashboard of {shown(served.config.url)}\n  http://{name}:{port}/", err=True)
    if not is_loopback(host):
        click.echo("  passwords travel as they are: put TLS in front of it", err=True)
    serve(served, spec, users, host, port, hosts)


def users_given() -> list[str]:
    """The users that the environment names."""
    return [one.strip() for one in os.environ.get(USERS, "").split(",") if one.strip()]


def is_loopback(host: str) -> bool:
    """Whether an address to listen at is this machine's own."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def serve(app: App, spec: str, users: list[str], host: str, port: int, hosts: tuple[str, ...]) -> None:
    """Serve until told to stop. Raises `ConfigError` where what it needs is not installed."""
    try:
        import uvicorn

        from windlass.web import Dashboard
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"the dashboard needs {error.name}, which is not installed: pip install 'windlass[dashboard]'"
        ) from error
    served = Dashboard(app, auth=users or None, hosts=hosts or None, spec=spec)
    config = uvicorn.Config(
        served,
        host=host,
        port=port,
        log_level="warning",
        log_config=None if is_json() else uvicorn.config.LOGGING_CONFIG,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=FAREWELL,
    )

    class Server(uvicorn.Server):
        """Lets open pages go when it is told to stop."""

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            super().handle_exit(sig, frame)
            served.end_streams()

    with contextlib.suppress(KeyboardInterrupt):
        Server(config).run()
