"""The JSON API: the same as the pages, for programs."""

from typing import Any, TypeVar

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from windlass.audit import Entry
from windlass.model import Verb
from windlass.values import plain_bytes
from windlass.view import gate_data, iso, job_data, line_data, paused_data, schedule_data, worker_data
from windlass.web import search
from windlass.web.acts import Change, Keyed, Why
from windlass.web.chart import RANGES
from windlass.web.guard import user_of
from windlass.web.job import make_copy, sent_edit
from windlass.web.pages import AuditQuery, ChartQuery, JobsQuery, body_of, checked, desk_of, failed_of, find, points_of
from windlass.web.search import Reach
from windlass.web.timetable import Timing, change
from windlass.web.which import Targets, Which

T = TypeVar("T")


def answer(data: Any) -> Response:
    """A JSON document."""
    return Response(plain_bytes(data), 200, media_type="application/json")


async def queues(request: Request) -> Response:
    """Live jobs by queue, task and state; what is paused or drained."""
    snapshot = await desk_of(request).watch.snapshot()
    lines = [line_data(line, snapshot.workers) for line in snapshot.lines]
    paused, draining = ([paused_data(one) for one in some] for some in (snapshot.paused, snapshot.draining))
    return answer({"queues": lines, "paused": paused, "draining": draining})


async def limits(request: Request) -> Response:
    """The gates, who holds them, and how many wait."""
    return answer({"limits": [gate_data(one) for one in await desk_of(request).app.gates.alist()]})


async def workers(request: Request) -> Response:
    """The workers and their runners."""
    desk = desk_of(request)
    found = await desk.workers_of(await desk.watch.snapshot())
    return answer({"workers": [worker_data(worker) for worker in found]})


async def jobs(request: Request) -> Response:
    """Jobs that match."""
    query = checked(JobsQuery, request.query_params)
    found = await find(desk_of(request), query, query.limit, query.after)
    reach = found.reach and reach_data(found.reach)
    return answer({"jobs": [job_data(job.record) for job in found.jobs], "after": found.after, "searched": reach})


async def failures(request: Request) -> Response:
    """The failed jobs by what went wrong."""
    causes, reach = await search.causes_of(desk_of(request).app.jobs, failed_of(checked(Which, request.query_params)))
    rows = [
        {
            **cause.query,
            "count": cause.count,
            "newest": cause.newest.id,
            "since": iso(cause.since),
            "until": iso(cause.newest.record.finished_at),
        }
        for cause in causes.list
    ]
    return answer({"failures": rows, "searched": reach_data(reach), "all": reach.after is None})


async def series(request: Request) -> Response:
    """What happened, step by step."""
    query = checked(ChartQuery, request.query_params)
    points = await points_of(desk_of(request), query, live=False)
    rows = [{**msgspec.to_builtins(one), "at": iso(one.at)} for one in points]
    return answer({"step": RANGES[query.range][1], "points": rows})


def reach_data(reach: Reach) -> dict[str, Any]:
    """How far was read."""
    return {"looked": reach.looked, "back_to": iso(reach.last)}


async def job(request: Request) -> Response:
    """One job."""
    found = await desk_of(request).app.jobs.aget(request.path_params["id"])
    return answer(job_data(found.record))


async def schedules(request: Request) -> Response:
    """Every schedule."""
    desk = desk_of(request)
    found = await desk.app.schedules.alist()
    return answer(
        {"schedules": [schedule_data(one) for one in found], "unreadable": await desk.app.schedules.aunreadable()}
    )


async def schedule(request: Request) -> Response:
    """One schedule."""
    return answer(schedule_data(await desk_of(request).app.schedules.aget(request.path_params["name"])))


async def audit_log(request: Request) -> Response:
    """Who did what, the newest first."""
    query = checked(AuditQuery, request.query_params)
    found, after = await desk_of(request).log(query.limit, query.after)
    return answer({"entries": [entry_data(one) for one in found], "after": after})


def entry_data(one: Entry) -> dict[str, Any]:
    """An entry of the audit log as JSON."""
    return {**msgspec.structs.asdict(one), "at": iso(one.at), "error": one.error or None}


# Actions


async def act_on_job(verb: Verb, request: Request) -> Response:
    """One verb to one job; the job as it is then, unless it was deleted."""
    desk, id = desk_of(request), request.path_params["id"]
    await desk.do(user_of(request), id, verb)
    if verb is Verb.DELETE:
        return answer({"done": 1})
    return answer(job_data(await desk.app.jobs.record(id)))


async def edit(request: Request) -> Response:
    """A copy of a job with other arguments."""
    desk = desk_of(request)
    id = await make_copy(desk, user_of(request), request.path_params["id"], await sent_edit(request))
    return answer(job_data(await desk.app.jobs.record(id)))


async def act_on_many(verb: Verb, request: Request) -> Response:
    """One verb to many jobs; to how many it was done."""
    targets = await sent(request, Targets)
    return answer({"done": await desk_of(request).do_all(user_of(request), targets, verb)})


async def sent(request: Request, kind: type[T], default: bytes = b"") -> T:
    """What came as JSON; `default` for an empty body. Raises 400."""
    try:
        return msgspec.convert(_decode(await body_of(request) or default), kind)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise HTTPException(400, f"this cannot be asked for: {error}") from None


def whole(text: str) -> float:
    """A number of JSON, for which 2.0 and 2 are the same."""
    number = float(text)
    return int(number) if number.is_integer() else number


_decode = msgspec.json.Decoder(float_hook=whole).decode


async def count(verb: Verb, request: Request) -> Response:
    """How many jobs a verb would be done to, by the same filter."""
    which = checked(Which, request.query_params)
    return answer({"count": await desk_of(request).count(Targets(**msgspec.structs.asdict(which)), verb)})


async def edit_schedule(request: Request) -> Response:
    """Change a schedule; as it is then."""
    desk, name = desk_of(request), request.path_params["name"]
    await change(desk, user_of(request), name, await sent(request, Timing))
    return answer(schedule_data(await desk.app.schedules.aget(name)))


async def act_on_schedule(act: str, request: Request) -> Response:
    """One thing to one schedule."""
    found = await desk_of(request).do_schedule(user_of(request), request.path_params["name"], act)
    return answer({"done": 1, "job": found.id} if act == "trigger" else {"done": 1})


async def hold(kind: str, act: str, request: Request) -> Response:
    """Pause, drain or resume a queue, pause or resume a task; whether that changed anything."""
    why = await sent(request, Why, b"{}")
    done = await desk_of(request).hold(user_of(request), kind, request.path_params["name"], act, why.reason)
    return answer({"done": int(done)})


async def drain_worker(request: Request) -> Response:
    """Ask a worker to end."""
    await desk_of(request).drain_worker(user_of(request), request.path_params["id"])
    return answer({"done": 1})


async def set_limit(request: Request) -> Response:
    """Change what a gate admits."""
    await desk_of(request).set_gate(user_of(request), await sent(request, Change))
    return answer({"done": 1})


async def hold_key(act: str, request: Request) -> Response:
    """Pause one key of a gate, resume it, or drop what was set for it; whether that changed anything."""
    done = await desk_of(request).hold_key(user_of(request), act, await sent(request, Keyed))
    return answer({"done": int(done)})


def error(status: int, text: str, headers: Any = None) -> Response:
    """An error as JSON."""
    return JSONResponse({"error": text}, status, headers)
