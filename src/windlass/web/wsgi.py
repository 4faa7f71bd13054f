"""The dashboard below a WSGI app, such as Django or Flask on gunicorn.

Requests are served by the event loop of blocking calls, which each process has for itself, also after a fork. Here an
open response keeps a thread, so there are no streams: `/live` answers 204, and open pages look every few seconds.
"""

from collections.abc import Callable, Iterable
from typing import Any, cast

from a2wsgi import ASGIMiddleware

from windlass import blocking
from windlass.errors import ConfigError
from windlass.web.dashboard import Dashboard

Wsgi = Callable[[dict[str, Any], Any], Iterable[bytes]]


def mount(site: Wsgi, path: str, dashboard: Dashboard) -> Wsgi:
    """A WSGI app: what is asked for at `path` or below goes to the dashboard, all else to `site`. Raises `ConfigError`.

    The dashboard's `auth=` finds what the server knows of a request in `request.scope["wsgi_environ"]`.
    """
    if not path.startswith("/") or path.endswith("/"):
        raise ConfigError(f"expected a path such as '/ops/jobs' for the dashboard; {path!r} came")

    def serve(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        asked = environ.get("PATH_INFO", "")
        if asked != path and not asked.startswith(f"{path}/"):
            return site(environ, start_response)
        below = {"REMOTE_PORT": "0", **environ}
        below |= {"SCRIPT_NAME": environ.get("SCRIPT_NAME", "") + path, "PATH_INFO": asked.removeprefix(path)}
        bridge = ASGIMiddleware(cast("Any", dashboard), loop=blocking.background_loop())
        return list(bridge(cast("Any", below), start_response))  # whole: nothing is left open when a client goes

    return serve
