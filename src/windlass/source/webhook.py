"""Webhooks: an ASGI app that checks who sent a request, and answers once the job that it makes is stored."""

import asyncio
import contextlib
import inspect
import logging
import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any, Protocol
from uuid import UUID, uuid5

from msgspec import Raw, Struct, json

from windlass.clock import Clock, SystemClock
from windlass.codec import located
from windlass.errors import (
    CallError,
    ConfigError,
    DecodeError,
    EncodeError,
    PayloadTooLarge,
    QueueDraining,
    QueueFull,
    StoreError,
)
from windlass.jobs import Job
from windlass.model import Mark, NewJob
from windlass.options import short
from windlass.source.verify import Refused, Verify
from windlass.task import Task, Tx
from windlass.values import plain_value

logger = logging.getLogger("windlass.webhook")

MAX_SIZE = 1024 * 1024
"""Bytes of a body, unless the route says otherwise."""

PATIENCE = 10.0
"""Seconds within which a whole body has to come."""

LARGE = 64 * 1024
"""Bytes from which on a body is looked at beside the event loop."""

REMEMBERED = 30 * 86_400.0
"""Seconds within which a delivery is known again by its id, whatever became of its job. Senders repeat for days (three
at GitHub and Stripe), and Stripe's people by hand for 30."""

AGAIN = "5"
"""Seconds after which a sender may come again when the store is down."""

NAMESPACE = UUID("5b0f3c0e-6f1c-5d0e-9a53-0f6f5d3a7c11")
PATH = re.compile(r"(/[A-Za-z0-9_.~-]+)+|/")
JSON = re.compile(r"application/([a-z0-9.+-]+\+)?json\s*(;\s*charset=\"?utf-8\"?\s*)?", re.IGNORECASE)
HEADER = re.compile(r"[A-Za-z0-9-]+")
PLACE = re.compile(r"[\w.\[\]]{1,100}")

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Host(Protocol):
    """What webhooks need of their app."""

    async def aplace(
        self, jobs: Sequence[NewJob], tx: Tx = None, marks: Sequence[Mark] = (), *, wait: bool = True
    ) -> list[Job[Any]]:
        """Store jobs and marks in one commit; without `wait`, a full queue is an error at once."""

    async def connect(self) -> object:
        """Open the store."""

    async def aclose(self) -> None:
        """Let go of the store."""


class Answer(Exception):
    """Ends a request with a status and a word to the sender."""

    def __init__(self, status: int, text: str, *headers: tuple[str, str]) -> None:
        super().__init__(text)
        self.status, self.headers = status, headers


class Left(Exception):
    """The sender has gone away in the middle of its request."""


class Route(Struct, frozen=True, kw_only=True):
    """An address and the task that runs for what comes there: `event` is the parameter that takes the body, `headers`
    are those that take headers."""

    path: str
    task: Task[..., Any]
    verify: Verify
    event: str
    headers: Mapping[str, str]
    max_size: int

    def make_job(self, body: bytes, headers: Mapping[str, str], delivery: str | None) -> NewJob:
        """The job of one delivery. Raises `Answer` for a body that does not fit the task."""
        try:
            plain_value(body)
        except Exception:
            raise Answer(400, "the body is no JSON") from None
        taken = {name: headers[header] for name, header in self.headers.items() if header in headers}
        try:
            args, kwargs = self.task.shape.decode_call(json.encode({self.event: Raw(body), **taken}))
            task = self.task if delivery is None else self.task.using(id=job_id(self.path, delivery))
            return task.bind(*args, **kwargs).new
        except PayloadTooLarge:
            raise Answer(413, "what the task keeps of the body is larger than max_payload") from None
        except (DecodeError, CallError, EncodeError) as error:
            raise Answer(422, f"the body does not fit what is expected here{place_in(error)}") from None


def make_route(
    path: str, task: Task[..., Any], verify: Verify, headers: Mapping[str, str] | None, max_size: int
) -> Route:
    """A route, its parts checked. Raises `ConfigError`."""
    if not isinstance(path, str) or not PATH.fullmatch(path):
        raise ConfigError(f"expected the path of a webhook as in '/stripe'; {short(path)} came")
    if not isinstance(task, Task):
        raise ConfigError(f"expected a task below @app.webhook(…); {short(task)} came. Put @app.task between them")
    if not callable(verify):
        raise ConfigError(
            "expected verify= as stripe(…), github(…), standard_webhooks(…) or a function of your own; "
            f"{short(verify)} came. verify=unsigned takes whatever comes"
        )
    if type(max_size) is not int or max_size < 1:
        raise ConfigError(f"expected max_size as a number of bytes; {short(max_size)} came")
    taken = {name: lower(header) for name, header in (headers or {}).items()}
    event = body_parameter(task, taken)
    return Route(path=path, task=task, verify=verify, event=event, headers=taken, max_size=max_size)


def body_parameter(task: Task[..., Any], headers: Mapping[str, str]) -> str:
    """The parameter that takes the body: the first that takes no header. Raises `ConfigError` for tasks that can never
    be called so."""
    found = {
        name: one
        for name, one in inspect.signature(task.fn).parameters.items()
        if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
    }
    unknown = headers.keys() - found.keys()
    if unknown:
        raise ConfigError(f"headers= of a webhook names {min(unknown)!r}, which {task.name} has no parameter of")
    rest = [name for name in found if name not in headers]
    if not rest:
        raise ConfigError(f"expected a parameter of {task.name} that takes the body; all take headers")
    for name in rest[1:]:
        if found[name].default is found[name].empty:
            raise ConfigError(
                f"{task.name} needs {name!r}, and a webhook gives it the body and what headers= names. "
                f"Give it a default, or name its header: headers={{{name!r}: 'X-Header'}}"
            )
    return rest[0]


def lower(header: object) -> str:
    """The name of a header. Raises `ConfigError`."""
    if isinstance(header, str) and HEADER.fullmatch(header):
        return header.lower()
    raise ConfigError(f"expected headers= as in {{'kind': 'X-GitHub-Event'}}; {short(header)} came")


def job_id(path: str, delivery: str) -> str:
    """The id of the job of a delivery: the same whenever it comes again."""
    return str(uuid5(NAMESPACE, f"{path}\0{delivery}"))


def place_in(error: Exception) -> str:
    """Where in a body something is wrong; never what stands there."""
    field = located(error.__cause__)[1] if isinstance(error.__cause__, Exception) else ""
    return f", at {field}" if PLACE.fullmatch(field) else ""


class Webhooks:
    """The webhooks of an app: an ASGI app to serve (`uvicorn shop:app.webhooks`), or to mount in another."""

    def __init__(self, host: Host, clock: Clock | None = None) -> None:
        self.routes: dict[str, Route] = {}
        self._host = host
        self._clock = clock or SystemClock()

    def __repr__(self) -> str:
        return f"<Webhooks {', '.join(self.routes) or 'none'}>"

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one connection, as ASGI 3 says."""
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close"})
        else:
            raise RuntimeError(f"expected http, lifespan or websocket; {short(scope['type'])} came")

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        """Open the store ahead of the first request, and close it in the end. One that is down keeps nobody from
        starting: requests are answered with 503 until it is back."""
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                try:
                    with contextlib.suppress(StoreError):
                        await self._host.connect()
                except ConfigError as error:
                    await send({"type": "lifespan.startup.failed", "message": str(error)})
                    return
                await send({"type": "lifespan.startup.complete"})
            else:
                await self._host.aclose()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _http(self, scope: Message, receive: Receive, send: Send) -> None:
        path = path_of(scope)
        try:
            job = await self._take(path, scope, receive)
        except Left:
            return
        except Answer as answer:
            if answer.status not in (404, 405):
                level = logging.ERROR if answer.status >= 500 else logging.WARNING
                logger.log(level, "webhook %s answered %d: %s", path, answer.status, answer)
            await respond(send, answer.status, {"error": str(answer)}, answer.headers)
        else:
            await respond(send, 202, {"id": job.id, "new": job.new})

    async def _take(self, path: str, scope: Message, receive: Receive) -> Job[Any]:
        """The job of a request, stored. Raises `Answer`, `Left`."""
        route = self.routes.get(path)
        if route is None:
            raise Answer(404, "there is no webhook at this path")
        if scope["method"] != "POST":
            raise Answer(405, "expected POST", ("allow", "POST"))
        headers = headers_of(scope)
        check_kind(headers)
        body = await read(receive, headers, route.max_size)
        now = self._clock.now()
        try:
            if len(body) < LARGE:
                job, delivery = prepare(route, headers, body, now)
            else:
                job, delivery = await asyncio.to_thread(prepare, route, headers, body, now)
            marks = [] if delivery is None else [Mark(key=f"webhook:{job.id}", job=job.id, ttl=REMEMBERED)]
            return (await self._host.aplace([job], marks=marks, wait=False))[0]
        except Answer:
            raise
        except (StoreError, QueueFull, QueueDraining) as error:
            raise Answer(503, f"the job could not be stored: {type(error).__name__}", ("retry-after", AGAIN)) from None
        except Exception as error:  # its text may hold parts of the body
            logger.error("webhook %s of task %s raised %s", path, route.task.name, type(error).__name__)
            raise Answer(500, "this webhook does not work; its log tells more") from None


def prepare(route: Route, headers: Mapping[str, str], body: bytes, now: float) -> tuple[NewJob, str | None]:
    """The job of a request and the id of its delivery. Raises `Answer`."""
    try:
        delivery = route.verify(headers, body, now)
    except Refused as refused:
        raise Answer(401, str(refused)) from None
    return route.make_job(body, headers, delivery), delivery


def path_of(scope: Message) -> str:
    """The path below where the app is mounted."""
    path, root = str(scope["path"]), str(scope.get("root_path", ""))
    inner = path.removeprefix(root)
    return inner or "/" if inner[:1] in ("", "/") else path


def headers_of(scope: Message) -> dict[str, str]:
    """Headers by their names in lower case; what comes twice is one list."""
    found: dict[str, str] = {}
    for name, value in scope["headers"]:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1").strip()
        found[key] = f"{found[key]}, {text}" if key in found else text
    return found


def check_kind(headers: Mapping[str, str]) -> None:
    """Raise `Answer` unless the body is plain JSON."""
    if not JSON.fullmatch(headers.get("content-type", "")):
        raise Answer(415, "expected Content-Type: application/json, in UTF-8")
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise Answer(415, "expected a body without Content-Encoding")


async def read(receive: Receive, headers: Mapping[str, str], most: int) -> bytes:
    """The body of a request. Raises `Answer` for one that is too large or too slow, `Left`."""
    large = Answer(413, f"expected at most {most:,} bytes")
    length = headers.get("content-length", "")
    if length.isdecimal() and int(length[:20]) > most:
        raise large
    body = bytearray()
    try:
        async with asyncio.timeout(PATIENCE):
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    raise Left
                body += message.get("body", b"")
                if len(body) > most:
                    raise large
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError:
        raise Answer(408, f"expected the whole body within {PATIENCE:.0f} s") from None


async def respond(send: Send, status: int, content: Mapping[str, Any], more: Sequence[tuple[str, str]] = ()) -> None:
    """Send a whole response."""
    body = json.encode(content)
    headers = [("content-type", "application/json"), ("content-length", str(len(body))), *more]
    encoded = [(name.encode(), value.encode()) for name, value in headers]
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    await send({"type": "http.response.body", "body": body})
