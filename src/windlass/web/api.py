"""The JSON API: the same as the pages, for programs."""

from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from windlass.model import Verb
from windlass.values import plain_bytes
from windlass.view import job_data, line_data, schedule_data, worker_data
from windlass.web.acts import Targets
from windlass.web.guard import user_of
from windlass.web.pages import JobsQuery, body_of, desk_of, find, read


def answer(data: Any) -> Response:
    """A JSON document."""
    return Response(plain_bytes(data), 200, media_type="application/json")


async def queues(request: Request) -> Response:
    """Live jobs by queue, task and state."""
    snapshot = await desk_of(request).watch.snapshot()
    return answer({"queues": [line_data(line, snapshot.workers) for line in snapshot.lines]})


async def workers(request: Request) -> Response:
    """The workers and their runners."""
    snapshot = await desk_of(request).watch.snapshot()
    return answer({"workers": [worker_data(worker) for worker in snapshot.workers]})


async def jobs(request: Request) -> Response:
    """Jobs that match."""
    found = await find(desk_of(request), read(JobsQuery, request.query_params))
    return answer({"jobs": [job_data(job.record) for job in found], "after": found.after})


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


# Actions


async def act_on_job(verb: Verb, request: Request) -> Response:
    """One verb to one job; the job as it is then, unless it was deleted."""
    desk, id = desk_of(request), request.path_params["id"]
    await desk.do(user_of(request), id, verb)
    if verb is Verb.DELETE:
        return answer({"done": 1})
    return answer(job_data(await desk.app.jobs.record(id)))


async def act_on_many(verb: Verb, request: Request) -> Response:
    """One verb to many jobs; to how many it was done."""
    try:
        targets = msgspec.json.decode(await body_of(request), type=Targets)
    except (msgspec.DecodeError, ValueError) as error:
        raise HTTPException(400, f"this cannot be asked for: {error}") from None
    return answer({"done": await desk_of(request).do_all(user_of(request), targets, verb)})


async def count(verb: Verb, request: Request) -> Response:
    """How many jobs a verb would be done to, by the same filter."""
    return answer({"count": await desk_of(request).count(read(Targets, request.query_params), verb)})


async def act_on_schedule(act: str, request: Request) -> Response:
    """One thing to one schedule."""
    found = await desk_of(request).do_schedule(user_of(request), request.path_params["name"], act)
    return answer({"done": 1, "job": found.id} if act == "trigger" else {"done": 1})


def error(status: int, text: str, headers: Any = None) -> Response:
    """An error as JSON."""
    return JSONResponse({"error": text}, status, headers)
