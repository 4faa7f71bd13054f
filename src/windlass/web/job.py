"""The page of one job: what it is, when it waited and ran, its family; and its copy with other arguments."""

import json
from functools import partial
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct
from msgspec.structs import replace
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from windlass import family, follow, options
from windlass.app import App
from windlass.errors import CallError, ConfigError, DecodeError, EncodeError, QueueDraining, QueueFull
from windlass.jobs import Job
from windlass.model import JobRecord, NewJob
from windlass.secret import RESULT
from windlass.store.contract import BATCH
from windlass.task import Task
from windlass.vault import is_sealed
from windlass.view import arguments_of, log_of, options_of, result_of, secrets_of
from windlass.web.acts import Desk
from windlass.web.guard import user_of
from windlass.web.look import timeline
from windlass.web.pages import back, body_of, desk_of, form_of
from windlass.web.picture import picture
from windlass.web.render import is_live
from windlass.web.users import User

EDITABLE = 200_000
"""Characters of arguments up to which they can be edited."""

DEEP = 3
"""The most generations that are shown below a job."""

WRONG = (CallError, ConfigError, DecodeError, EncodeError)


class Edit(Struct, frozen=True, kw_only=True):
    """Other arguments for a copy of a job, by name. `copy`: which of its copies; the next free one if it is left out,
    and with it the same request makes one copy only."""

    args: Raw
    copy: Annotated[int, Meta(ge=1, le=family.COPIES)] | None = None


class Seen(Struct, frozen=True):
    """A job with those around it."""

    job: Job[Any]
    family: list[family.Kin]
    copies: list[Job[Any]]
    root: str | None


async def seen(app: App, id: str) -> Seen:
    """A job and its family. Raises `JobNotFound`."""
    above, copies, root = family.ancestors(id), family.copies(id), family.root_of(id)
    asked = [id, *above, *copies, root, *family.children(id)]
    found = {job.id: job for job in await app.jobs.aget_many(asked)}
    job: Job[Any] = found.get(id) or await app.jobs.aget(id)
    chain = [found[one].record for one in above if one in found]
    levels: list[list[JobRecord]] = []
    last, room = [job.record], family.MOST
    while last and len(levels) < DEEP and room > 0:
        ids = [one for record in last for one in family.made_by(record)][:BATCH]
        if more := [one for one in ids if one not in asked]:
            found |= {job.id: job for job in await app.jobs.aget_many(more)}
        last = [found[one].record for one in ids if one in found][:room]
        room -= len(last)
        levels.append(last)
    return Seen(
        job,
        family.tree(chain, job.record, levels),
        [found[one] for one in copies if one in found and one != id],
        root if root != id else None,
    )


async def job_page(request: Request) -> Response:
    """One job."""
    desk, id = desk_of(request), request.path_params["id"]
    one: Seen = await desk.watch.look(("job", id), partial(seen, desk.app, id), is_live(request))
    job, record = one.job, one.job.record
    spans = timeline(record, desk.clock.now())
    return desk.pages.page(
        request,
        "job",
        job=record,
        failure=job.error,
        attempt=job.attempt,
        args=arguments_of(record),
        result=result_of(record),
        options=options_of(record),
        log=log_of(record),
        timeline=spans,
        family=picture(one.family) if len(one.family) > 1 else None,
        copies=one.copies,
        root=one.root,
    )


# A copy with other arguments


async def edit_page(request: Request) -> Response:
    """The arguments of a job, to be changed."""
    desk = desk_of(request)
    job: Job[Any] = await desk.app.jobs.aget(request.path_params["id"])
    refused = why_not(desk.app, job.record)
    text = "" if refused else json.dumps(arguments_of(job.record), ensure_ascii=False, indent=2)
    return form(desk, request, job.record, text, await next_copy(desk.app, job.id), refused=refused)


def form(
    desk: Desk, request: Request, job: JobRecord, text: str, copy: int | None, *, refused: str = "", wrong: str = ""
) -> Response:
    """The form; with what is wrong with what came."""
    task = desk.app.tasks.get(job.task)
    call = "" if task is None else task.shape.title
    return desk.pages.page(
        request, "edit", 400 if wrong else 200, job=job, text=text, copy=copy, refused=refused, wrong=wrong, call=call
    )


async def next_copy(app: App, id: str) -> int | None:
    """The number of the next copy of a job; None if there are as many as there may be."""
    ids = family.copies(id)
    there = {job.id for job in await app.jobs.aget_many(ids)}
    return next((number for number, one in enumerate(ids, 1) if one not in there), None)


def why_not(app: App, job: JobRecord) -> str:
    """Why the arguments of a job cannot be edited; empty if they can."""
    task, args = app.tasks.get(job.task), arguments_of(job)
    if not job.state.final:
        return f"it is {job.state}: only what is over can be run with other arguments. Cancel it first"
    if task is None:
        return "this dashboard does not know its task, and so cannot check arguments: start it with MODULE:APP"
    if is_sealed(job.args) or is_sealed(job.options):
        return "it is encrypted, and its key is not here"
    secrets = sorted({*secrets_of(job), *task.shape.secrets} - {RESULT})
    if secrets:
        return f"what is secret is not shown, and what is not shown cannot be edited: {', '.join(secrets)}"
    if not isinstance(args, dict):
        return "its stored arguments are no JSON object"
    if len(job.args) > EDITABLE:
        return f"its arguments have {len(job.args):,} bytes; up to {EDITABLE:,} can be edited here"
    return ""


def copy_of(app: App, task: Task[..., Any], job: Job[Any], id: str, args: bytes) -> NewJob:
    """A job like another, with other arguments: in its queue, with its options, tags and followers. Raises
    `DecodeError` for arguments that do not fit the task, `EncodeError`."""
    record, vault = job.record, app.vault
    given, named = task.shape.decode_call(args)
    stored = task.shape.encode_call(given, named, app.max_payload)
    call = task.using(queue=record.queue, tags=record.tags, id=id)
    if job.priority != call.priority:
        call = call.using(priority=job.priority)
    own = replace(options.read_options(record.options), schedule="", tick=None)
    followers = follow.opened(record.follow, record.id, vault)
    return replace(call.new(stored, own), follow=follow.sealed(followers, id, vault))


async def make_copy(desk: Desk, user: User, id: str, edit: Edit) -> str:
    """Enqueue a copy of a job with other arguments; its id. Raises 409 where that cannot be, what `copy_of` raises."""
    app = desk.app
    job: Job[Any] = await app.jobs.aget(id)
    if refused := why_not(app, job.record):
        raise HTTPException(409, f"job {id} cannot be edited: {refused}")
    number = edit.copy or await next_copy(app, id)
    if number is None or number > family.COPIES:
        raise HTTPException(409, f"job {id} has {family.COPIES} copies already: edit one that failed and is not needed")
    copy = family.copies(id)[number - 1]
    new = copy_of(app, app.tasks[job.task], job, copy, bytes(edit.args))
    async with desk.audited(user, "edit", f"job {id} of {job.task}, as {copy}") as note:
        try:
            placed = (await app.aplace((new,), wait=False))[0]
        except (QueueFull, QueueDraining) as error:
            raise HTTPException(409, str(error)) from None
        note.done = int(placed.new)
    if placed.id != copy:
        raise HTTPException(409, f"job {placed.id} has the unique key of these arguments; nothing was stored")
    return copy


async def edit(request: Request) -> Response:
    """The form that comes back: a copy with other arguments, or the form again with what is wrong."""
    desk, id = desk_of(request), request.path_params["id"]
    fields = dict(await form_of(request, most=6 * EDITABLE))
    number, text = fields.get("copy", ""), fields.get("args", "")
    try:
        given = Edit(args=Raw(text.encode()), copy=int(number) if number in "123456789" and number else None)
        copy = await make_copy(desk, user_of(request), id, given)
    except WRONG as error:
        job = await desk.app.jobs.record(id)
        return form(desk, request, job, text, given.copy, wrong=str(error))
    return back(request, f"/jobs/{copy}", "edit")


async def sent_edit(request: Request) -> Edit:
    """The same as JSON. Raises 400."""
    try:
        return msgspec.json.decode(await body_of(request, 6 * EDITABLE), type=Edit)
    except (msgspec.DecodeError, ValueError) as error:
        raise HTTPException(400, f"this cannot be asked for: {error}") from None
