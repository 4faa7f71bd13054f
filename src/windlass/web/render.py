"""Pages from templates. All text is escaped, and what steers a terminal or turns text around is written out."""

import hashlib
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from windlass.model import State
from windlass.values import visible
from windlass.view import ENDINGS, about, admits, duration, iso, memory_of, pretty, share_of, words
from windlass.web.chart import rate
from windlass.web.guard import user_of
from windlass.web.users import Role

STATIC = {
    "app.css": "text/css; charset=utf-8",
    "app.js": "text/javascript; charset=utf-8",
    "idiomorph.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}

SIGNS = {
    State.WAITING: "◇",
    State.SCHEDULED: "◷",
    State.READY: "○",
    State.RUNNING: "▶",
    State.SUCCEEDED: "✓",
    State.FAILED: "✕",
    State.CANCELLED: "⊘",
}
"""A state is told by a sign and its name, never by its colour alone."""


def finalize(value: Any) -> Any:
    """What an expression of a template puts on the page."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return "" if value is None else value
    return visible(value.replace("\r\n", "\n"))


def when(moment: float | datetime | None, form: str = "ago") -> Markup:
    """A moment as UTC, which the page turns into the reader's zone (`local`, or `clock` without the day) or into time
    since then (`ago`)."""
    if moment is None:
        return Markup("")
    seconds = moment.timestamp() if isinstance(moment, datetime) else moment
    text = iso(seconds) or ""
    try:
        shown = f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (ValueError, OverflowError, OSError):
        return escape(text)
    return Markup('<time datetime="{}" data-show="{}">{}</time>').format(text, form, shown)


def state(value: State | str) -> Markup:
    """A state with its sign and colour."""
    found = State(value)
    return Markup('<span class="state {0}"><i aria-hidden="true">{1}</i>{0}</span>').format(str(found), SIGNS[found])


class Pages:
    """The templates."""

    def __init__(self, title: str) -> None:
        found = files("windlass.web") / "static"
        self.assets = {name: (found / name).read_bytes() for name in STATIC}
        self._version = hashlib.sha256(b"".join(self.assets.values())).hexdigest()[:10]
        self._templates = Environment(
            loader=PackageLoader("windlass.web"),
            autoescape=True,
            finalize=finalize,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            enable_async=False,
        )
        self._templates.globals |= {
            "States": list(State),
            "ENDINGS": ENDINGS,
            "SIGNS": SIGNS,
            "Role": Role,
            "title": title,
            "version": self._version,
        }
        self._templates.filters |= {
            "when": when,
            "state": state,
            "admits": admits,
            "duration": duration,
            "pretty": pretty,
            "words": words,
            "n": lambda number: f"{number:,}",
            "about": about,
            "rate": rate,
            "memory": memory_of,
            "share": share_of,
        }

    def page(self, request: Request, template: str, status: int = 200, **values: Any) -> Response:
        """A page, and its tag."""
        base = request.scope.get("root_path", "")
        text = self._templates.get_template(f"{template}.html").render(
            base=base, here=template, user=user_of(request), done=done_text(request), **values
        )
        tag = f'"{hashlib.sha256(text.encode()).hexdigest()[:20]}"'
        return HTMLResponse(text, status, {"etag": tag})

    def static(self, name: str) -> Response:
        """A file of the dashboard's own."""
        headers = {"cache-control": "private, max-age=31536000, immutable"}
        return Response(self.assets[name], 200, headers, STATIC[name])


def is_live(request: Request) -> bool:
    """Whether an open page looks again, and not a person who just came."""
    return "x-live" in request.headers


DONE = {
    "retry": "{} ready to run again.",
    "edit": "This is a new job, with other arguments.",
    "cancel": "{} cancelled; those that run are told to stop.",
    "delete": "{} deleted.",
    "pause": "Paused: no more ticks fire.",
    "resume": "Resumed.",
    "paused": "Paused: workers begin nothing more of it within a second or two; what runs goes on.",
    "drained": "It takes no more jobs; what is there runs to its end.",
    "changed": "The schedule is changed, for the runs to come.",
    "resumed": "It goes on.",
    "limit": "The limit is changed, from now on; what runs goes on.",
    "trigger": "A job was made; it runs beside the ticks.",
    "ending": "The worker takes no more jobs within a second or two, and ends when those that it runs have.",
}


TOLD = frozenset({"done", "n"})
"""The parameters that tell it."""


def done_text(request: Request) -> str:
    """What the last action came to: its name and number are in the address, its words are ours."""
    verb, number = request.query_params.get("done", ""), request.query_params.get("n", "1")
    if verb not in DONE or not number.isdecimal() or len(number) > 12:
        return ""
    return DONE[verb].format(f"{int(number):,} job{'' if int(number) == 1 else 's'}")
