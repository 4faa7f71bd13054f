"""What open pages see when they look again: made once for all who look at the same page with the same role."""

import asyncio
from collections.abc import Awaitable, Callable

from msgspec import Struct
from msgspec.structs import replace
from starlette.requests import Request
from starlette.responses import Response

from windlass.clock import Clock
from windlass.web.guard import user_of
from windlass.web.live import EVERY, Watch

KEPT = 200
"""Pages that are kept."""

Handler = Callable[[Request], Awaitable[Response]]


class Made(Struct):
    """A page that somebody is making, or has made: when he began, and after which news."""

    work: "asyncio.Task[Response]"
    began: float
    news: int


class Shared:
    """Makes pages for open ones, anew whenever there is news."""

    def __init__(self, watch: Watch, clock: Clock) -> None:
        self._watch = watch
        self._clock = clock
        self._made: dict[object, Made] = {}

    async def page(self, request: Request, handler: Handler) -> Response:
        """What `handler` makes of the request; 304 for whoever has seen that already."""
        user, scope = user_of(request), request.scope
        key = (scope.get("root_path", ""), scope["path"], scope["query_string"], user.role)
        now, made = self._clock.boot(), self._made.get(key)
        if made is None or made.news != self._watch.news or now - made.began >= EVERY * 0.9:
            nobody = replace(user, name="", place="")  # an open page does not take the header over
            alone = Request({**scope, "state": {**scope["state"], "user": nobody}}, request.receive)
            work = asyncio.ensure_future(handler(alone))
            work.add_done_callback(lambda over: over.cancelled() or over.exception())  # told to those who still wait
            self._made.pop(key, None)
            made = self._made[key] = Made(work, now, self._watch.news)
            while len(self._made) > KEPT:
                del self._made[next(iter(self._made))]
        found = await asyncio.shield(made.work)
        if (tag := found.headers.get("etag")) is not None and request.headers.get("if-none-match") == tag:
            return Response(None, 304, {"etag": tag})
        return Response(found.body, found.status_code, found.headers)
