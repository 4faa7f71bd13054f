"""What open pages see when they look again: made once for all who look at the same page with the same role."""

import asyncio
from collections.abc import Awaitable, Callable

from msgspec import Struct
from msgspec.structs import replace
from starlette.requests import Request
from starlette.responses import Response

from windlass.clock import Clock
from windlass.web.guard import user_of
from windlass.web.live import Watch, begun, good_for

Handler = Callable[[Request], Awaitable[Response]]


class Made(Struct):
    """A page that somebody is making, or has made: when he began, and after which news."""

    work: "asyncio.Future[Response]"
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
        made = self._made.get(key)
        if made is None or not self._is_good(made):
            self._made = {key: one for key, one in self._made.items() if self._is_good(one)}
            nobody = replace(user, name="", place="")  # an open page does not take the header over
            alone = Request({**scope, "state": {**scope["state"], "user": nobody}}, request.receive)
            work = begun(handler(alone))
            made = self._made[key] = Made(work, self._clock.boot(), self._watch.news)
        try:
            found = await asyncio.shield(made.work)
        except BaseException:
            if made.work.done() and self._made.get(key) is made:
                del self._made[key]
            raise
        if (tag := found.headers.get("etag")) is not None and request.headers.get("if-none-match") == tag:
            return Response(None, 304, {"etag": tag})
        return Response(found.body, found.status_code, found.headers)

    def _is_good(self, made: Made) -> bool:
        """Whether a page may be shown to whoever looks now."""
        here = made.work.done() or made.work.get_loop() is asyncio.get_running_loop()
        return here and made.news == self._watch.news and self._clock.boot() - made.began < good_for()
