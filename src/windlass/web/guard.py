"""What stands before every route: which hosts, who, from where, and the headers that keep a page to itself."""

import inspect
import ipaddress
from collections.abc import Awaitable, Callable, Collection, MutableMapping, Sequence
from typing import Any

from msgspec.structs import replace
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from windlass import audit
from windlass.clock import Clock
from windlass.values import visible
from windlass.web.users import LOCAL, Role, Tries, User, Users

Auth = Callable[[Request], Awaitable[User | None] | User | None]
"""The host app's own way to tell who somebody is."""

LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})

FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip", "via")
"""What proxies add: behind one, everybody seems to sit at this machine."""

SAFE = frozenset({"GET", "HEAD"})

OWN = "x-windlass"
"""A header that no page of another site can send: what programs show in place of an Origin."""

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)

HEADERS = {
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "same-origin",  # with no-referrer, browsers send forms with Origin: null
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


class Guard:
    """Lets through what may come in, with `scope["state"]["user"]` set.

    Without `auth` only whoever sits at this machine: judged by the peer of the socket, with no proxy between. `hosts`
    are the names under which the dashboard may be asked for; None: those of this machine without `auth`, else any.
    """

    def __init__(
        self, inner: ASGIApp, auth: Auth | Sequence[str] | None, hosts: Collection[str] | None, clock: Clock
    ) -> None:
        self._inner = inner
        self._users = None if auth is None or callable(auth) else Users(auth)
        self._auth = auth if callable(auth) else None
        self._hosts = LOCAL_HOSTS if hosts is None and auth is None else hosts and {host.lower() for host in hosts}
        self._tries = Tries(clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection, as ASGI 3 says."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})
            return
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            self._check_host(request.headers)
            user = await self._who(request)
            check_origin(request)
        except HTTPException as error:
            await refusal(request, error)(scope, receive, guarded(send))
            return
        via = "api" if path_of(request).startswith("/api/") else "dashboard"
        known = replace(user, via=via, place=request.client.host if request.client else "")
        scope["state"] = {**scope.get("state", {}), "user": known}
        await self._inner(scope, receive, guarded(send))

    def _check_host(self, headers: Headers) -> None:
        """Raise 421 for a name that is not ours: a page elsewhere can let its own name lead to this machine."""
        host = name_of(headers.get("host", ""))
        if self._hosts is not None and host not in self._hosts:
            raise HTTPException(
                421, f"this dashboard is not known as {visible(host)[:100]}: allow that name with hosts="
            )

    async def _who(self, request: Request) -> User:
        """The user. Raises 401, 403 or 429."""
        if self._users is not None:
            return self._known(request, self._users)
        if self._auth is not None:
            found = self._auth(request)
            user = await found if inspect.isawaitable(found) else found
            if user is None:
                raise HTTPException(401, "sign in first")
            return user
        if not is_local(request):
            raise HTTPException(
                403, "without users this dashboard is for its own machine only: set WINDLASS_DASHBOARD_USERS, or auth="
            )
        return LOCAL

    def _known(self, request: Request, users: Users) -> User:
        address = request.client.host if request.client else ""
        header = request.headers.get("authorization", "")
        user = users.read(header)
        if user is None:
            if header and self._tries.over(address):
                raise HTTPException(429, "too many wrong secrets: wait a minute", {"retry-after": "60"})
            if header:
                self._tries.add(address)
                audit.logger.warning("a wrong secret came from %s", visible(address))
            raise HTTPException(401, "who are you?", {"www-authenticate": 'Basic realm="windlass", charset="UTF-8"'})
        return user


def name_of(host: str) -> str:
    """The name in a Host header, without its port."""
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdecimal() else host).lower().rstrip(".")


def is_local(request: Request) -> bool:
    """Whether a request comes from this machine, with no proxy between."""
    if any(name in request.headers for name in FORWARDED) or request.client is None:
        return False
    try:
        return ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        return False


def check_origin(request: Request) -> None:
    """Raise 403 for what another site made a browser send, unless it only reads.

    Browsers say so in Sec-Fetch-Site, or at least in Origin; programs send neither, but a header of their own.
    """
    if request.method in SAFE:
        return
    headers = request.headers
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None:
        fine = site == "same-origin"
    elif origin is not None:
        fine = origin.rpartition("://")[2].lower() == headers.get("host", "").lower()
    else:
        fine = OWN in headers or headers.get("authorization", "").lower().startswith("bearer ")
    if not fine:
        raise HTTPException(
            403, "this came from another site. A program sends 'Authorization: Bearer …', or the header 'X-Windlass: 1'"
        )


def refusal(request: Request, error: HTTPException) -> Response:
    """An error before any page could be made."""
    if path_of(request).startswith("/api/"):
        return JSONResponse({"error": error.detail}, error.status_code, error.headers)
    return PlainTextResponse(f"{error.status_code}: {error.detail}\n", error.status_code, error.headers)


def path_of(request: Request) -> str:
    """The path below where the dashboard is mounted."""
    path: str = request.scope["path"]
    return path.removeprefix(request.scope.get("root_path", ""))


def guarded(send: Send) -> Send:
    """`send`, with the headers that every answer has."""

    async def with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers[name] = value
            headers.setdefault("cache-control", "no-store")
        await send(message)

    return with_headers


def user_of(request: Request) -> User:
    """Who asks."""
    state: MutableMapping[str, Any] = request.scope["state"]
    user: User = state["user"]
    return user


def check_role(request: Request, role: Role) -> None:
    """Raise 403 for somebody who may not do this."""
    user = user_of(request)
    if user.role < role:
        raise HTTPException(
            403, f"{user.name} is {user.role.name.lower()}, and this takes the role {role.name.lower()}"
        )
