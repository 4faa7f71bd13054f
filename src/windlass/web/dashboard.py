"""The dashboard as one ASGI app: its routes, the least role for each, and what becomes of errors."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection, Sequence
from functools import partial
from http import HTTPStatus

from msgspec import Struct
from starlette.applications import Starlette
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from windlass.app import App
from windlass.clock import Clock, SystemClock
from windlass.config import masked
from windlass.errors import (
    CallError,
    ConfigError,
    DecodeError,
    EncodeError,
    JobNotFound,
    ScheduleNotFound,
    StoreError,
    WindlassError,
    WorkerNotFound,
    WorkerTooOld,
)
from windlass.model import Verb
from windlass.overview import Overview
from windlass.standby import Standby
from windlass.web import api, figures, job, openapi, pages, queues, timetable
from windlass.web.acts import HOLDS, KEY_ROLES, KINDS, ROLES, SCHEDULE_ROLES, Desk
from windlass.web.guard import Auth, Guard, check_role, path_of
from windlass.web.live import Watch
from windlass.web.minute import Minute
from windlass.web.render import Pages, is_live
from windlass.web.shared import Handler, Shared
from windlass.web.users import Role
from windlass.worker.declare import UNNAMED

STATUSES: tuple[tuple[type[WindlassError], int], ...] = (
    (JobNotFound, 404),
    (ScheduleNotFound, 404),
    (WorkerNotFound, 404),
    (WorkerTooOld, 409),
    (ConfigError, 400),
    (CallError, 400),
    (DecodeError, 400),
    (EncodeError, 400),
    (StoreError, 503),
)


class NameConvertor(Convertor[str]):
    """The name of a schedule, or the id of a job or a worker."""

    regex = r"[A-Za-z0-9_.\-]{1,128}"

    def convert(self, value: str) -> str:
        """As it is."""
        return value

    def to_string(self, value: str) -> str:
        """As it is."""
        return value


register_url_convertor("name", NameConvertor())


class Spot(Struct, frozen=True):
    """A route, and the least role for it."""

    method: str
    path: str
    handler: Handler
    role: Role


def spots() -> list[Spot]:
    """Every route there is."""
    reading: list[tuple[str, Handler]] = [
        ("/", pages.overview),
        ("/queues", queues.queue_list),
        ("/queues/{name:name}", queues.queue_page),
        ("/limits", queues.limits),
        ("/failures", pages.failure_list),
        ("/jobs", pages.job_list),
        ("/jobs/{id:name}", job.job_page),
        ("/schedules", pages.schedule_list),
        ("/schedules/{name:name}", pages.schedule_page),
        ("/workers", pages.workers),
        ("/live", pages.live),
        ("/static/{file}", pages.static),
        ("/metrics", figures.prometheus),
        ("/api/openapi.json", openapi.document),
        ("/api/scale", figures.scale),
        ("/api/queues", api.queues),
        ("/api/limits", api.limits),
        ("/api/workers", api.workers),
        ("/api/failures", api.failures),
        ("/api/series", api.series),
        ("/api/jobs", api.jobs),
        ("/api/jobs/{id:name}", api.job),
        ("/api/schedules", api.schedules),
        ("/api/schedules/{name:name}", api.schedule),
    ]
    found = [Spot("GET", path, handler, Role.VIEWER) for path, handler in reading]
    found += [Spot("GET", "/audit", pages.audit_log, Role.ADMIN), Spot("GET", "/api/audit", api.audit_log, Role.ADMIN)]
    return [*found, *actions()]


def actions() -> list[Spot]:
    """The routes that change something, and those that ask about it first."""
    found: list[Spot] = []
    for verb in Verb:
        role = ROLES[verb]
        found += [
            Spot("POST", f"/jobs/{{id:name}}/{verb}", partial(pages.act_on_job, verb), role),
            Spot("GET", f"/bulk/{verb}", partial(pages.preview, verb), role),
            Spot("POST", f"/bulk/{verb}", partial(pages.act_on_many, verb), role),
            Spot("POST", f"/api/jobs/{{id:name}}/{verb}", partial(api.act_on_job, verb), role),
            Spot("GET", f"/api/bulk/{verb}", partial(api.count, verb), role),
            Spot("POST", f"/api/bulk/{verb}", partial(api.act_on_many, verb), role),
        ]
    found += [
        Spot("POST", "/limits", queues.set_limit, Role.ADMIN),
        Spot("POST", "/api/limits", api.set_limit, Role.ADMIN),
    ]
    for act, role in KEY_ROLES.items():
        found += [
            Spot("POST", f"/limits/{act}", partial(queues.hold_key, act), role),
            Spot("POST", f"/api/limits/{act}", partial(api.hold_key, act), role),
        ]
    found += [
        Spot("GET", "/jobs/{id:name}/edit", job.edit_page, Role.OPERATOR),
        Spot("POST", "/jobs/{id:name}/edit", job.edit, Role.OPERATOR),
        Spot("POST", "/api/jobs/{id:name}/edit", api.edit, Role.OPERATOR),
    ]
    found += [
        Spot("POST", "/workers/{id:name}/drain", pages.drain_worker, Role.OPERATOR),
        Spot("POST", "/api/workers/{id:name}/drain", api.drain_worker, Role.OPERATOR),
    ]
    for path, kind in KINDS.items():
        for act in HOLDS[kind]:
            found += [
                Spot("POST", f"/{path}/{{name:name}}/{act}", partial(queues.hold, kind, act), Role.OPERATOR),
                Spot("POST", f"/api/{path}/{{name:name}}/{act}", partial(api.hold, kind, act), Role.OPERATOR),
            ]
    found += [
        Spot("POST", "/schedules/{name:name}/edit", timetable.edit, Role.ADMIN),
        Spot("POST", "/api/schedules/{name:name}/edit", api.edit_schedule, Role.ADMIN),
    ]
    for act, role in SCHEDULE_ROLES.items():
        found += [
            Spot("POST", f"/schedules/{{name:name}}/{act}", partial(pages.act_on_schedule, act), role),
            Spot("POST", f"/api/schedules/{{name:name}}/{act}", partial(api.act_on_schedule, act), role),
        ]
    return found


def route(spot: Spot, shared: Shared) -> Route:
    """A route that asks for its role first."""

    async def handle(request: Request) -> Response:
        check_role(request, spot.role)
        if is_live(request) and spot.method == "GET" and spot.handler is not pages.live:
            return await shared.page(request, spot.handler)
        return await spot.handler(request)

    return Route(spot.path, handle, methods=[spot.method])


class Dashboard:
    """The dashboard of an app, to serve or to mount: `web.mount("/jobs", Dashboard(app, auth=…))`.

    Without `auth` it answers only who sits at this machine, with all rights. `auth` is a list of texts such as
    'anna:operator:SECRET', whose secret is that user's password and bearer token; or the host app's own function of a
    request that gives a `User`, or None. `hosts` are the names that it may be asked for under. `spec` is the MODULE:APP
    that workers run. Raises `ConfigError`.
    """

    def __init__(
        self,
        app: App,
        *,
        auth: Auth | Sequence[str] | None = None,
        hosts: Collection[str] | None = None,
        spec: str = UNNAMED,
        clock: Clock | None = None,
    ) -> None:
        clock = clock or SystemClock()
        self._app = app
        self._spec = spec
        self._watch = Watch(app.connect, clock)
        shared = Shared(self._watch, clock)
        inner = Starlette(
            routes=[route(spot, shared) for spot in spots()],
            exception_handlers={HTTPException: failed, **{kind: failed for kind, _ in STATUSES}},
            lifespan=self._lifespan,
        )
        pages, overview = Pages(masked(app.config.url)), Overview(app.connect, clock)
        inner.state.desk = Desk(app, self._watch, pages, clock, overview, Minute())
        self._guard = Guard(inner, auth, hosts, clock)

    def __repr__(self) -> str:
        return f"<Dashboard of {masked(self._app.config.url)}>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection, as ASGI 3 says."""
        await self._guard(scope, receive, send)

    def end_streams(self) -> None:
        """Let open pages go, for good: a server that stops waits for them."""
        self._watch.end()

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        """Served alone: stand by for its alerts, and let go of the store in the end."""
        watching = asyncio.create_task(Standby(self._app, self._spec).run()) if self._app.alerts else None
        try:
            yield
        finally:
            if watching is not None:
                watching.cancel()
                await asyncio.wait([watching])
            await self._watch.close()
            await self._app.aclose()


async def failed(request: Request, error: Exception) -> Response:
    """An error, as a page or as JSON."""
    if isinstance(error, HTTPException):
        status, text, headers = error.status_code, error.detail, error.headers
    else:
        status = next(status for kind, status in STATUSES if isinstance(error, kind))
        text, headers = str(error), {"retry-after": "2"} if status == 503 else None
    if path_of(request).startswith("/api/"):
        return api.error(status, text, headers)
    desk = pages.desk_of(request)
    page = desk.pages.page(request, "error", status, code=status, name=HTTPStatus(status).phrase, text=text)
    page.headers.update(headers or {})
    return page
