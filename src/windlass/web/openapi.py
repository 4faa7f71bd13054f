"""The OpenAPI document of the JSON API."""

from importlib.metadata import version
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from windlass.values import plain_bytes
from windlass.web.acts import HOLDS, KEY_ROLES, KINDS, ROLES, SCHEDULE_ROLES, Change, Keyed, Why
from windlass.web.figures import ScaleQuery
from windlass.web.guard import OWN
from windlass.web.job import Edit
from windlass.web.pages import AuditQuery, ChartQuery, JobsQuery
from windlass.web.timetable import Timing
from windlass.web.which import Targets, Which

KEY_ACTS = {"pause": "Start no more jobs of", "resume": "Go on with", "reset": "Drop what was set for"}

NAME = {"type": "string", "pattern": "^[A-Za-z0-9_.-]{1,128}$"}

LINES = {
    "queues": "Live jobs by queue, task and state; what is paused or drained",
    "limits": "Limits and rates, who holds them, and how many jobs wait",
    "workers": "The workers, their runners, what they run, their `memory` in bytes, `cpu` in processors' worth of time",
    "series": "What happened, step by step: jobs a minute, waits and runs in seconds, the most jobs that were due",
    "failures": "Failed jobs by task, error and how its message begins, of the newest 10,000 that 200 ms let read",
    "jobs": "Jobs that match, what is to come next first, what is over newest first; `after` of an answer leads on. "
    "Those that must be read to tell (`prefix` and below), and jobs of a rare task or queue, are looked for 200 ms: "
    "there may be fewer than `limit`, and more after them; `searched` says how far that went",
    "schedules": "Every schedule, with its next runs",
    "scale": "How many jobs want a worker: those that are ready or run, and one more for each queue and task of which "
    "some are due or wait for a limit",
    "audit": "Who did what, from where and when, the newest first; `after` of an answer leads on. Takes the role admin",
}


async def document(request: Request) -> Response:
    """The document, with the address that it was asked for at."""
    base = request.scope.get("root_path", "")
    return Response(plain_bytes(made(f"{base}/api")), 200, media_type="application/json")


def made(server: str) -> dict[str, Any]:
    """The whole document."""
    paths, schemas = described()
    return {
        "openapi": "3.1.0",
        "info": {"title": "Windlass", "version": version("windlass")},
        "servers": [{"url": server}],
        "security": [{"bearer": []}, {"basic": []}],
        "paths": paths,
        "components": {
            "schemas": {**schemas, "Error": ERROR},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "basic": {"type": "http", "scheme": "basic"},
            },
        },
    }


def described() -> tuple[dict[str, Any], dict[str, Any]]:
    """The paths, and the schemas that they name."""
    (*_, why, change, keyed, edit, timing), components = msgspec.json.schema_components(
        [Which, JobsQuery, AuditQuery, ChartQuery, ScaleQuery, Targets, Why, Change, Keyed, Edit, Timing],
        ref_template="#/components/schemas/{name}",
    )
    paths: dict[str, Any] = {f"/{name}": {"get": operation(name, line)} for name, line in LINES.items()}
    paths["/jobs"]["get"]["parameters"] = parameters(components["JobsQuery"])
    paths["/audit"]["get"]["parameters"] = parameters(components["AuditQuery"])
    paths["/scale"]["get"]["parameters"] = parameters(components["ScaleQuery"])
    paths["/series"]["get"]["parameters"] = parameters(components["ChartQuery"])
    paths["/failures"]["get"]["parameters"] = parameters(components["Which"])
    paths["/jobs/{id}"] = {"get": {**operation("job", "One job", 404), "parameters": [in_path("id")]}}
    paths["/schedules/{name}"] = {
        "get": {**operation("schedule", "One schedule", 404), "parameters": [in_path("name")]}
    }
    for verb, role in ROLES.items():
        note = f"Takes the role {role.name.lower()}"
        one = operation(f"{verb}_job", f"{str(verb).capitalize()} one job. {note}", 404, 409)
        paths[f"/jobs/{{id}}/{verb}"] = {"post": {**one, "parameters": [in_path("id"), own()]}}
        many = operation(f"{verb}_jobs", f"{str(verb).capitalize()} the jobs of a filter, or of ids. {note}")
        how_many = operation(
            f"count_to_{verb}", "How many jobs that would be; null if they are too many to count in time", 503
        )
        paths[f"/bulk/{verb}"] = {
            "get": {**how_many, "parameters": parameters(components["Which"])},
            "post": {**many, "parameters": [own()], "requestBody": body(bulk(components["Targets"]))},
        }
    one = operation("edit_job", "Run a copy of a job with other arguments. Takes the role operator", 404, 409)
    paths["/jobs/{id}/edit"] = {"post": {**one, "parameters": [in_path("id"), own()], "requestBody": body(edit)}}
    for path, kind in KINDS.items():
        for act in HOLDS[kind]:
            one = operation(f"{act}_{kind}", f"{act.capitalize()} a {kind}. Takes the role operator", 404)
            more = {"requestBody": body(why, required=False)} if act != "resume" else {}
            paths[f"/{path}/{{name}}/{act}"] = {"post": {**one, "parameters": [in_path("name"), own()], **more}}
    one = operation("drain_worker", "Ask a worker to end, as SIGTERM does. Takes the role operator", 404, 409)
    paths["/workers/{id}/drain"] = {"post": {**one, "parameters": [in_path("id"), own()]}}
    one = operation("set_limit", "Change what a limit or a rate admits. Takes the role admin")
    paths["/limits"]["post"] = {**one, "parameters": [own()], "requestBody": body(change)}
    paths |= {f"/limits/{act}": {"post": of_key(act, keyed)} for act in KEY_ROLES}
    one = operation("edit_schedule", "Change a schedule that was made at run time. Takes the role admin", 404, 409)
    one |= {"parameters": [in_path("name"), own()], "requestBody": body(timing)}
    paths["/schedules/{name}/edit"] = {"post": one}
    for act, role in SCHEDULE_ROLES.items():
        line = f"{act.capitalize()} one schedule. Takes the role {role.name.lower()}"
        one = operation(f"{act}_schedule", line, 404)
        paths[f"/schedules/{{name}}/{act}"] = {"post": {**one, "parameters": [in_path("name"), own()]}}
    return paths, components


ERROR = {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]}


def operation(id: str, line: str, *more: int) -> dict[str, Any]:
    """An operation that answers JSON."""
    wrong = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    answers = {str(code): {"description": "Refused, and why", "content": wrong} for code in (400, 401, 403, *more)}
    fine = {"description": "Done", "content": {"application/json": {"schema": {"type": "object"}}}}
    return {"operationId": id, "summary": line, "responses": {"200": fine, **answers}}


def of_key(act: str, keyed: dict[str, Any]) -> dict[str, Any]:
    """What is done to one key of a gate."""
    line = f"{KEY_ACTS[act]} one key of a limit. Takes the role {KEY_ROLES[act].name.lower()}"
    return {**operation(f"{act}_key", line), "parameters": [own()], "requestBody": body(keyed)}


def body(schema: dict[str, Any], *, required: bool = True) -> dict[str, Any]:
    """What is sent as JSON."""
    return {"required": required, "content": {"application/json": {"schema": schema}}}


def bulk(schema: dict[str, Any]) -> dict[str, Any]:
    """The jobs to act on: ids, or fields of a filter of which at least one is given."""
    fields = dict(schema["properties"])
    ids = {**fields.pop("ids"), "minItems": 1}
    narrowing = [name for name in fields if name != "most"]
    filled = [{"required": [name], "properties": {name: {"type": "string"}}} for name in narrowing]
    none = {"type": "null"}
    return {
        "oneOf": [
            {
                "type": "object",
                "properties": {"ids": ids, **dict.fromkeys(fields, none)},
                "required": ["ids"],
                "additionalProperties": False,
            },
            {
                "type": "object",
                "properties": {"ids": {"type": "array", "maxItems": 0}, **fields},
                "anyOf": filled,
                "additionalProperties": False,
            },
        ]
    }


def in_path(name: str) -> dict[str, Any]:
    """A name that is part of a path."""
    return {"name": name, "in": "path", "required": True, "schema": NAME}


def own() -> dict[str, Any]:
    """What stands for the Origin that browsers send, where no bearer token does."""
    return {"name": OWN, "in": "header", "required": False, "schema": {"type": "string"}}


def parameters(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """The fields of a struct as parameters of a query."""
    return [
        {"name": name, "in": "query", "required": False, "schema": one} for name, one in schema["properties"].items()
    ]
