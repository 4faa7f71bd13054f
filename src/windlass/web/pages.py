"""The pages: what each shows, and the forms that come back from them."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any, TypeVar
from urllib.parse import parse_qsl, urlencode

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import replace
from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse

from windlass.errors import StoreError
from windlass.jobs import Job
from windlass.model import Filter, State, Verb
from windlass.schedules import Schedule
from windlass.view import is_late, living, rule_text, rule_zone
from windlass.web import chart, minute, search
from windlass.web.acts import Desk
from windlass.web.guard import user_of
from windlass.web.look import failures, problems, queues, totals
from windlass.web.render import STATIC, TOLD, is_live
from windlass.web.which import FIELDS, Name, Targets, Which

LIMIT = 50
"""Jobs on one page."""

SAMPLE = 10
"""Jobs that a preview shows."""

FAILED = 100
"""The newest failed jobs that are grouped by what went wrong."""

BODY = 65_536
"""Bytes of a request's body."""

FRESH = 15.0
"""Seconds for which a chart is good enough for an open page."""

T = TypeVar("T")


class JobsQuery(Which, frozen=True, kw_only=True, omit_defaults=True):
    """Which jobs, and from where on."""

    after: Annotated[str, Meta(max_length=512)] | None = None
    limit: Annotated[int, Meta(ge=1, le=200)] = LIMIT


class AuditQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """From where on, and how many entries of the audit log."""

    after: Annotated[str, Meta(pattern=r"^[0-9]{16}-[0-9a-f]{8}$", max_length=25)] | None = None
    limit: Annotated[int, Meta(ge=1, le=200)] = LIMIT


def desk_of(request: Request) -> Desk:
    """What the routes work with."""
    desk: Desk = request.app.state.desk
    return desk


def read(kind: type[T], values: Mapping[str, Any]) -> T:
    """What a form says: its empty fields count as not given. Raises 400."""
    return checked(kind, {name: value for name, value in once(values).items() if value != "" and name not in TOLD})


def checked(kind: type[T], values: Mapping[str, Any]) -> T:
    """Checked parameters. Raises 400."""
    try:
        return msgspec.convert(once(values), kind, strict=False)
    except (msgspec.ValidationError, ValueError) as error:
        raise HTTPException(400, f"this cannot be asked for: {error}") from None


def once(values: Mapping[str, Any] | Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Values by name. Raises 400 for a name that comes twice: one of the two would silently narrow nothing."""
    given = values.multi_items() if isinstance(values, QueryParams) else values
    found = dict(given)
    if len(found) < len(given):
        raise HTTPException(400, f"expected each of {', '.join(found)} once; one of them came twice")
    return found


async def body_of(request: Request, most: int = BODY) -> bytes:
    """The body. Raises 413 for one that is too large."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > most:
            raise HTTPException(413, f"expected at most {most:,} bytes")
    return bytes(body)


def targets_of(pairs: list[tuple[str, str]]) -> Targets:
    """Which jobs a form is about."""
    ids = [value for name, value in pairs if name == "id"]
    return read(Targets, {**once([pair for pair in pairs if pair[0] != "id"]), "ids": ids})


# Pages


async def schedules_of(desk: Desk, live: bool) -> tuple[list[Schedule], list[str]]:
    """The schedules, and the names of those that cannot be read."""

    async def both() -> tuple[list[Schedule], list[str]]:
        return await desk.app.schedules.alist(), await desk.app.schedules.aunreadable()

    return await desk.watch.look("schedules", both, live)


class ChartQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How far back, and of which queue: of all without one."""

    range: chart.Range = "1h"
    queue: Name | None = None


class RangeQuery(Struct, frozen=True):
    """How far back a page shows charts."""

    range: chart.AnyRange = "1h"


async def points_of(desk: Desk, query: ChartQuery, live: bool) -> list[chart.Point]:
    """What happened, step by step; at most FRESH seconds old."""
    long, step = chart.RANGES[query.range]

    async def read() -> list[chart.Point]:
        store, end = await desk.app.connect(), desk.clock.now()
        tallies = await store.series(end - long, end, step, query.queue)
        depths = await store.depths(end - long, end, step, query.queue)
        return chart.points(tallies, depths, end - long, end, step)

    return await desk.watch.look(query, read, live, FRESH)


async def charts_of(request: Request, queue: str | None = None) -> chart.Shown:
    """The charts of a page."""
    desk, range = desk_of(request), read(RangeQuery, {"range": request.query_params.get("range", "")}).range
    if range == chart.NOW:
        return await minute_of(desk, queue)
    query = ChartQuery(range=range, queue=queue)
    return chart.Shown(range, await points_of(desk, query, is_live(request)))


async def minute_of(desk: Desk, queue: str | None) -> chart.Shown:
    """The last minute, as far as somebody looked; whoever asks looks on, for all."""
    snapshot, seen = await desk.watch.snapshot(), desk.minute

    async def read() -> None:
        store, now = await desk.app.connect(), desk.clock.now()
        rows = await store.series(now - minute.BACK, now + minute.AHEAD, 60)
        seen.add(now, rows, snapshot.lines, len(living(snapshot.workers)))

    await desk.watch.look(chart.NOW, read, live=True, fresh=minute.EVERY)
    desk.watch.hurry()
    now = desk.clock.now()
    return chart.Shown(chart.NOW, seen.points(now, queue), seen.before(now))


async def overview(request: Request) -> Response:
    """What runs, what is stuck and why."""
    desk, live = desk_of(request), is_live(request)
    snapshot = await desk.watch.snapshot()
    found, broken = await schedules_of(desk, live)
    failed = await desk.watch.look("failed", partial(desk.app.jobs.afind, state="failed", limit=FAILED), live)
    following = sorted((one.next_runs(1)[0], one.name) for one in found if not one.paused and not one.over)
    fresh = not (snapshot.lines or snapshot.workers or failed) and not await desk.app.jobs.afind(limit=1)
    return desk.pages.page(
        request,
        "overview",
        fresh=fresh,
        tasks=sorted(desk.app.tasks),
        problems=problems(snapshot, found, broken),
        totals=totals(snapshot),
        queues=queues(snapshot),
        failures=failures(failed),
        failed=failed,
        more_failed=failed.after is not None,
        workers=snapshot.workers,
        following=following[:6],
        shown=await charts_of(request),
    )


async def failure_list(request: Request) -> Response:
    """The failed jobs by what went wrong."""
    desk, which = desk_of(request), failed_of(read(Which, request.query_params))
    causes, reach = await desk.watch.look(
        ("causes", which), partial(search.causes_of, desk.app.jobs, which), is_live(request)
    )
    names = {"task": which.task, "queue": which.queue, "tag": which.tag}
    return desk.pages.page(request, "failures", causes=causes, reach=reach, which=names)


def failed_of(which: Which) -> Filter:
    """Which failed jobs."""
    return Filter(state=State.FAILED, task=which.task, queue=which.queue, tag=which.tag)


async def job_list(request: Request) -> Response:
    """Jobs that match."""
    desk, live = desk_of(request), is_live(request)
    if id := request.query_params.get("id", "").strip():
        there = await desk.app.jobs.aget_many([checked_id(id)])
        return RedirectResponse(f"{base_of(request)}/jobs{'/' if there else '?prefix='}{id}", 303)
    query = read(JobsQuery, request.query_params)
    look = partial(find, desk, query, query.limit, query.after)
    found: search.Found = await desk.watch.look(("jobs", query), look, live)
    snapshot = await desk.watch.snapshot()
    given = query.given
    return desk.pages.page(
        request,
        "jobs",
        jobs=found.jobs,
        reach=found.reach,
        query=query,
        given=given,
        link=urlencode(given),
        others={name: urlencode({key: value for key, value in given.items() if key != name}) for name in FIELDS},
        more=any(name in given for name in ("prefix", "error", "shape", "since", "until")),
        next=found.after and urlencode({**given, "after": found.after}),
        counts=totals(snapshot).states,
        names=names_of(desk, snapshot.lines),
    )


def names_of(desk: Desk, lines: Any) -> dict[str, list[str]]:
    """Queues and tasks to choose from."""
    tasks = {line.task for line in lines} | set(desk.app.tasks)
    return {"task": sorted(tasks), "queue": sorted({line.queue for line in lines})}


async def find(desk: Desk, which: Which, limit: int = LIMIT, after: str | None = None) -> search.Found:
    """Jobs that match. Raises 400 for a cursor that leads nowhere."""
    try:
        return await search.find(desk.app.jobs, which, limit, after, search.LOOK)
    except StoreError:
        raise
    except Exception:
        if after is None:
            raise
        raise HTTPException(400, "this cannot be asked for: `after` is none that a page gave") from None


def checked_id(id: str) -> str:
    """An id that somebody typed. Raises 404 for what can be none."""
    try:
        return msgspec.convert(id, Name)
    except msgspec.ValidationError:
        raise HTTPException(404, "this is no job's id") from None


async def schedule_list(request: Request) -> Response:
    """Every schedule."""
    desk = desk_of(request)
    found, broken = await schedules_of(desk, is_live(request))
    late = {one.name for one in found if is_late(one)}
    return desk.pages.page(request, "schedules", schedules=found, broken=broken, late=late)


async def schedule_page(request: Request) -> Response:
    """One schedule: its next runs, and the last."""
    desk, name = desk_of(request), request.path_params["name"]
    live = is_live(request)
    one: Schedule = await desk.watch.look(("schedule", name), partial(desk.app.schedules.aget, name), live)
    ids = one.jobs[::-1]
    runs = await desk.watch.look(("runs", ids), partial(desk.app.jobs.aget_many, ids), live)
    return desk.pages.page(
        request,
        "schedule",
        one=one,
        late=is_late(one),
        runs=runs,
        rule_text=rule_text(one.rule),
        zone=rule_zone(one.rule),
    )


async def workers(request: Request) -> Response:
    """Every worker, its runners, what they hold and what they take."""
    desk, live = desk_of(request), is_live(request)
    snapshot = await desk.watch.snapshot()
    running = await desk.watch.look("running", partial(desk.app.jobs.afind, state="running", limit=200), live)
    held: dict[str, list[Job[Any]]] = {}
    for job in running:
        held.setdefault(job.record.runner or "", []).append(job)
    return desk.pages.page(
        request,
        "workers",
        workers=await desk.workers_of(snapshot),
        read_at=snapshot.read_at,
        held=held,
        cut=running.after is not None,
    )


async def audit_log(request: Request) -> Response:
    """Who did what."""
    desk, query = desk_of(request), read(AuditQuery, request.query_params)
    found, after = await desk.watch.look(
        ("audit", query), partial(desk.log, query.limit, query.after), is_live(request)
    )
    return desk.pages.page(request, "audit", entries=found, after=query.after, next=after)


# Live, and files


async def live(request: Request) -> Response:
    """News as server-sent events. 204 under WSGI, where an open response takes a thread: the page asks by itself."""
    if "wsgi_environ" in request.scope:
        return Response(None, 204)
    return StreamingResponse(
        desk_of(request).watch.stream(), media_type="text/event-stream", headers={"x-accel-buffering": "no"}
    )


async def static(request: Request) -> Response:
    """A file of the dashboard's own. Raises 404."""
    name = request.path_params["file"]
    if name not in STATIC:
        raise HTTPException(404, "there is no such file")
    return desk_of(request).pages.static(name)


# Forms


async def form_of(request: Request, most: int = BODY) -> list[tuple[str, str]]:
    """The fields of a form that was sent. Raises 400, 413."""
    try:
        return parse_qsl((await body_of(request, most)).decode(), max_num_fields=2_000)
    except ValueError:
        raise HTTPException(400, "expected a form") from None


def base_of(request: Request) -> str:
    """The path where the dashboard is mounted."""
    base: str = request.scope.get("root_path", "")
    return base


def back(request: Request, path: str, done: str, number: int = 1) -> Response:
    """To the page that shows what came of an action."""
    join = "&" if "?" in path else "?"
    return RedirectResponse(f"{base_of(request)}{path}{join}done={done}&n={number}", 303)


async def act_on_job(verb: Verb, request: Request) -> Response:
    """One verb to one job."""
    id = request.path_params["id"]
    await desk_of(request).do(user_of(request), id, verb)
    return back(request, "/jobs" if verb is Verb.DELETE else f"/jobs/{id}", verb)


async def preview(verb: Verb, request: Request) -> Response:
    """How many jobs a verb would be done to, and some of them."""
    desk = desk_of(request)
    targets = targets_of(request.query_params.multi_items())
    if bool(targets.ids) == targets.filters:
        raise HTTPException(400, "choose jobs first, or filter them by state, task, queue, tag or what is searched for")
    number = await desk.count(targets, verb)
    if targets.ids:
        jobs = await desk.app.jobs.aget_many(targets.ids[:LIMIT])
    else:
        retried = verb is Verb.RETRY and targets.state is None
        some = replace(targets, state=State.FAILED) if retried else targets
        jobs = (await search.find(desk.app.jobs, some, SAMPLE, None, search.LOOK / 4)).jobs[:SAMPLE]
    return desk.pages.page(
        request,
        "bulk",
        verb=str(verb),
        targets=targets,
        given=targets.given,
        number=number,
        jobs=jobs,
        far=search.FAR,
    )


async def act_on_many(verb: Verb, request: Request) -> Response:
    """One verb to many jobs."""
    targets = targets_of(await form_of(request))
    done = await desk_of(request).do_all(user_of(request), targets, verb)
    return back(request, f"/jobs?{urlencode(targets.given)}", verb, done)


async def drain_worker(request: Request) -> Response:
    """Ask a worker to end."""
    await desk_of(request).drain_worker(user_of(request), request.path_params["id"])
    return back(request, "/workers", "ending")


async def act_on_schedule(act: str, request: Request) -> Response:
    """One thing to one schedule."""
    name = request.path_params["name"]
    await desk_of(request).do_schedule(user_of(request), name, act)
    return back(request, "/schedules" if act == "delete" else f"/schedules/{name}", act)
