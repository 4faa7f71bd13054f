"""Webhooks, by speaking ASGI to them, and once over real HTTP."""

import asyncio
import contextlib
import hmac
import http.client
import json
import logging
import re
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from msgspec import Struct
from starlette.applications import Starlette
from starlette.routing import Mount

from tests.worker.rig import PATIENCE, ROOT, until
from windlass import App, ConfigError, StoreUnavailable
from windlass.clock import FakeClock
from windlass.source import webhook
from windlass.source.verify import github, stripe, unsigned
from windlass.source.webhook import Webhooks

SECRET = "a secret of ours"
DELIVERY = "72d3162e-cc78-11e3-81ab-4c9367dc0958"


class Author(Struct):
    login: str


class Push(Struct):
    ref: str
    author: Author
    count: int = 0


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    app = App(f"sqlite:///{tmp_path}/windlass.db")

    @app.webhook("/github", verify=github(SECRET), headers={"kind": "X-GitHub-Event"}, max_size=200_000)
    @app.task(name="push")
    def push(event: Push, kind: str, note: str = "") -> None: ...

    @app.webhook("/open", verify=unsigned)
    @app.task(name="anything")
    def anything(event: Any) -> None: ...

    yield app
    app.close()


BODY = b'{"ref": "main", "author": {"login": "ann", "id": 5}, "forced": false}'


def signed(body: bytes = BODY, **more: str) -> dict[str, str]:
    return {
        "content-type": "application/json",
        "x-hub-signature-256": f"sha256={hmac.digest(SECRET.encode(), body, 'sha256').hex()}",
        "x-github-delivery": DELIVERY,
        "x-github-event": "push",
        **{name.replace("_", "-"): value for name, value in more.items()},
    }


class Call:
    """One request, driven by hand."""

    def __init__(self, asgi: Any) -> None:
        self.asgi = asgi
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body: Any = None

    async def __call__(
        self,
        path: str,
        parts: Sequence[bytes | None] = (BODY,),
        headers: Mapping[str, str] | None = None,
        method: str = "POST",
        root: str = "",
    ) -> "Call":
        """None among the parts is the sender going away; without a last part the body never ends."""
        left = list(parts)
        given = signed(b"".join(part or b"" for part in parts)) if headers is None else headers

        async def receive() -> dict[str, Any]:
            if not left:
                await asyncio.sleep(PATIENCE)
            part = left.pop(0)
            if part is None:
                return {"type": "http.disconnect"}
            return {"type": "http.request", "body": part, "more_body": bool(left) or not part}

        async def send(message: Mapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                self.status = message["status"]
                self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            else:
                self.body = json.loads(message["body"])

        encoded = [(name.encode(), value.encode("latin-1")) for name, value in given.items()]
        scope = {"type": "http", "method": method, "path": path, "root_path": root, "headers": encoded}
        await self.asgi(scope, receive, send)
        return self


@pytest.fixture
def post(app: App) -> Callable[..., Call]:
    return lambda *args, **more: asyncio.run(Call(app.webhooks)(*args, **more))


def test_a_delivery_becomes_a_job(app: App, post: Callable[..., Call]) -> None:
    answer = post("/github", [BODY[:10], b"", BODY[10:]], signed())
    assert (answer.status, answer.body["new"]) == (202, True)
    job = app.jobs.get(answer.body["id"])
    assert job.task == "push"
    assert job.args == {"event": {"ref": "main", "author": {"login": "ann"}, "count": 0}, "kind": "push"}


def test_the_same_delivery_again_is_the_same_job(app: App, post: Callable[..., Call]) -> None:
    first, again = post("/github"), post("/github")
    assert (again.status, again.body) == (202, {"id": first.body["id"], "new": False})
    assert app.jobs.count(task="push") == 1
    other = post("/github", headers=signed(x_github_delivery="another"))
    assert other.body["new"]
    assert other.body["id"] != first.body["id"]


def test_a_delivery_is_known_when_its_job_is_gone(app: App, post: Callable[..., Call]) -> None:
    first = post("/github")
    assert app.jobs.get(first.body["id"]).delete()
    again = post("/github")
    assert (again.status, again.body) == (202, {"id": first.body["id"], "new": False})
    assert app.jobs.count(task="push") == 0


def test_unsigned_requests_are_all_new(app: App, post: Callable[..., Call]) -> None:
    json_only = {"content-type": "application/json; charset=UTF-8"}
    assert [post("/open", headers=json_only).body["new"] for _ in range(2)] == [True, True]
    assert app.jobs.count(task="anything") == 2


def test_a_large_body(app: App, post: Callable[..., Call]) -> None:
    body = json.dumps({"ref": "r" * 100_000, "author": {"login": "ann"}}).encode()
    answer = post("/github", [body])
    assert len(app.jobs.get(answer.body["id"]).args["event"]["ref"]) == 100_000


@pytest.mark.parametrize(
    ("status", "change"),
    [
        (404, {"path": "/nowhere"}),
        (404, {"path": "/github/"}),
        (404, {"path": "/"}),
        (405, {"method": "GET"}),
        (415, {"headers": {}}),
        (415, {"headers": signed(content_type="application/x-www-form-urlencoded")}),
        (415, {"headers": signed(content_type="application/json; charset=latin-1")}),
        (415, {"headers": signed(content_encoding="gzip")}),
        (413, {"headers": signed(content_length="200001")}),
        (413, {"parts": [b"x" * 150_000, b"x" * 50_001]}),
        (401, {"headers": signed(x_hub_signature_256="sha256=00")}),
        (401, {"headers": signed(b"other")}),
        (400, {"parts": [b"\n"]}),
        (400, {"parts": [b"{"]}),
        (400, {"parts": [b"1,2"]}),
        (400, {"parts": [b'{}, "kind": "forged"']}),
        (400, {"parts": [b'{"ref": NaN}']}),
        (400, {"parts": [b"\xff"]}),
        (400, {"parts": [b"[" * 100_000]}),
        (422, {"parts": [b"{}"]}),
        (422, {"parts": [b'{"ref": "main", "author": {"login": 5}}']}),
        (422, {"parts": [b'{"ref": "main", "ref": "x", "author": {"login": "a"}}']}),
        (422, {"parts": [b'{"ref": "main", "author": {"login": "a"}, "n": 123456789012345678901}']}),
        (422, {"headers": {name: value for name, value in signed().items() if name != "x-github-event"}}),
    ],
)
def test_what_is_refused(
    app: App, post: Callable[..., Call], caplog: pytest.LogCaptureFixture, status: int, change: dict[str, Any]
) -> None:
    answer = post(**{"path": "/github", **change})
    assert answer.status == status
    assert list(answer.body) == ["error"]
    assert app.jobs.count(task="push") == 0
    assert all(one.levelno == logging.WARNING and one.exc_info is None for one in caplog.records)


def test_neither_secrets_nor_bodies_are_told(post: Callable[..., Call], caplog: pytest.LogCaptureFixture) -> None:
    body = b'{"ref": "main", "author": {"login": ["my-password"]}}'
    answer = post("/github", [body])
    assert answer.status == 422
    assert answer.body["error"].endswith("at event.author.login")
    told = str(answer.body) + caplog.text
    assert not [one for one in ("my-password", SECRET, signed(body)["x-hub-signature-256"]) if one in told]


def test_a_sender_that_leaves(app: App, post: Callable[..., Call]) -> None:
    assert post("/github", [BODY[:5], None], signed()).status == 0
    assert app.jobs.count(task="push") == 0


def test_a_sender_that_stalls(app: App, post: Callable[..., Call], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "PATIENCE", 0.01)
    assert post("/github", [BODY, b""], signed()).status == 408
    assert app.jobs.count(task="push") == 0


def test_a_full_queue(app: App, post: Callable[..., Call]) -> None:
    app.queue("default", max_length=1)
    assert post("/github").status == 202
    assert post("/github").status == 202  # is there already
    other = signed(x_github_delivery="another")
    answer = post("/github", headers=other)  # nobody waits for room while a sender does
    assert (answer.status, answer.headers["retry-after"]) == (503, "5")


def test_a_store_that_is_down(app: App, post: Callable[..., Call], monkeypatch: pytest.MonkeyPatch) -> None:
    async def down(*_: object, **__: object) -> None:
        raise StoreUnavailable("no route to postgresql://user:password@host")

    with monkeypatch.context() as patch:
        patch.setattr(app, "aplace", down)
        answer = post("/github")
    assert (answer.status, answer.headers["retry-after"]) == (503, "5")
    assert "password" not in str(answer.body)
    assert post("/github").body["new"]


def test_a_verify_of_your_own(app: App, post: Callable[..., Call], caplog: pytest.LogCaptureFixture) -> None:
    def token(headers: Mapping[str, str], body: bytes, now: float) -> str | None:
        return headers["x-id"] if now == 1_800_000_000.0 else None

    @app.webhook("/own", verify=token)
    @app.task(name="own")
    def own(event: Any) -> None: ...

    asgi = Webhooks(app, FakeClock())
    asgi.routes.update(app.webhooks.routes)
    headers = {"content-type": "application/vnd.ours+json", "x-id": "1"}
    assert [asyncio.run(Call(asgi)("/own", headers=headers)).body["new"] for _ in range(2)] == [True, False]
    assert asyncio.run(Call(asgi)("/own", headers={"content-type": "application/json"})).status == 500
    assert "KeyError" in caplog.text


def test_a_task_that_needs_more_than_it_gets(app: App) -> None:
    @app.task(name="two")
    def two(event: Any, kind: str) -> None: ...

    with pytest.raises(ConfigError, match="Give it a default, or name its header"):
        app.webhook("/two", verify=unsigned)(two)
    with pytest.raises(ConfigError, match="has no parameter of"):
        app.webhook("/two", verify=unsigned, headers={"type": "X-Type"})(two)
    with pytest.raises(ConfigError, match="all take headers"):
        app.webhook("/two", verify=unsigned, headers={"kind": "X-Kind", "event": "X-Event"})(two)
    with pytest.raises(ConfigError, match="headers="):
        app.webhook("/two", verify=unsigned, headers={"kind": "X Kind"})(two)
    assert app.webhook("/two", verify=unsigned, headers={"kind": "X-Kind"})(two) is two


def test_wrong_webhooks(app: App, tmp_path: Path) -> None:
    @app.task(name="one")
    def one(event: Any) -> None: ...

    with pytest.raises(ConfigError, match="verify=unsigned takes whatever comes"):
        app.webhook("/one", verify=None)(one)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="as in '/stripe'"):
        app.webhook("one", verify=unsigned)(one)
    with pytest.raises(ConfigError, match="max_size"):
        app.webhook("/one", verify=unsigned, max_size=0)(one)
    with pytest.raises(ConfigError, match="between them"):
        app.webhook("/one", verify=unsigned)(one.fn)  # type: ignore[type-var]
    with pytest.raises(ConfigError, match="two webhooks are at /open"):
        app.webhook("/open", verify=unsigned)(one)
    with pytest.raises(ConfigError, match="another app"):
        App(f"sqlite:///{tmp_path}/other.db").webhook("/one", verify=unsigned)(one)


@pytest.mark.parametrize(("path", "root"), [("/hooks/github", "/hooks"), ("/github", "/hooks"), ("/github", "/git")])
def test_mounted(post: Callable[..., Call], path: str, root: str) -> None:
    """Servers and frameworks tell the path with what they are mounted at, older ones without."""
    assert post(path, root=root).status == 202


def test_lifespan_and_other_kinds_of_connections(app: App, tmp_path: Path) -> None:
    async def live(asgi: Any, *kinds: str, type: str = "lifespan") -> list[Any]:
        left, sent = list(kinds), []

        async def receive() -> dict[str, str]:
            return {"type": left.pop(0)}

        async def send(message: dict[str, str]) -> None:
            sent.append(message["type"])

        await asgi({"type": type}, receive, send)
        return sent

    startup, shutdown = "lifespan.startup", "lifespan.shutdown"
    whole = asyncio.run(live(app.webhooks, startup, shutdown))
    assert whole == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    unreachable = App(f"sqlite:///{tmp_path}/no/such/folder/windlass.db")
    assert asyncio.run(live(unreachable.webhooks, startup, shutdown)) == whole
    nonsense = App("nonsense://host")
    assert asyncio.run(live(nonsense.webhooks, startup)) == ["lifespan.startup.failed"]
    assert asyncio.run(live(app.webhooks, type="websocket")) == ["websocket.close"]
    with pytest.raises(RuntimeError, match="expected http"):
        asyncio.run(live(app.webhooks, type="other"))


@contextlib.contextmanager
def served(asgi: Any) -> Iterator[int]:
    """A real server around an ASGI app; its port."""
    server = uvicorn.Server(uvicorn.Config(asgi, port=0, log_level="error", ws="none"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until(lambda: server.started, "the server")
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(PATIENCE)


def stripe_event(number: int, more: bytes = b'"amount": 5') -> tuple[bytes, dict[str, str]]:
    body = b'{"id": "evt_%d", %s}' % (number, more)
    sent = f"{time.time():.0f}"
    digest = hmac.digest(b"whsec_x", f"{sent}.".encode() + body, "sha256").hex()
    return body, {"Content-Type": "application/json", "Stripe-Signature": f"t={sent},v1={digest}"}


@pytest.mark.parametrize("mounted", [False, True])
def test_over_http(app: App, mounted: bool) -> None:
    @app.webhook("/stripe", verify=stripe("whsec_x"))
    @app.task(name="paid")
    def paid(event: dict[str, Any]) -> None: ...

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await app.aclose()

    site = Starlette(routes=[Mount("/hooks", app.webhooks)], lifespan=lifespan)
    with served(site if mounted else app.webhooks) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        for number, status in ((1, 202), (1, 202), (2, 202)):
            connection.request("POST", "/hooks/stripe" if mounted else "/stripe", *stripe_event(number))
            response = connection.getresponse()
            answer = json.loads(response.read())
            assert response.status == status, answer
        assert app.jobs.get(answer["id"]).args == {"event": {"id": "evt_2", "amount": 5}}
        assert app.jobs.count(task="paid") == 2
        connection.request("POST", "/hooks/stripe" if mounted else "/stripe", b"x" * 2_000_000, stripe_event(3)[1])
        assert connection.getresponse().status == 413
        connection.close()


def test_the_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    example = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "webhooks.md").read_text("utf-8"), re.DOTALL)[0]
    (tmp_path / "shop.py").write_text(example)
    monkeypatch.setenv("WINDLASS_URL", f"sqlite:///{tmp_path}/windlass.db")
    monkeypatch.setenv("STRIPE_SECRET", "whsec_x")
    monkeypatch.setenv("GITHUB_SECRET", SECRET)
    monkeypatch.syspath_prepend(tmp_path)
    shop = import_module("shop")
    sys.modules.pop("shop")
    body, headers = stripe_event(1, b'"type": "charge", "data": {}, "livemode": false')
    answers = [
        asyncio.run(Call(shop.app.webhooks)("/stripe", [body], {name.lower(): text for name, text in headers.items()})),
        asyncio.run(Call(shop.app.webhooks)("/github")),
    ]
    assert [answer.status for answer in answers] == [202, 202]
    found = [shop.app.jobs.get(answer.body["id"]).args for answer in answers]
    assert found == [
        {"event": {"id": "evt_1", "type": "charge", "data": {}}},
        {"event": json.loads(BODY), "kind": "push"},
    ]
    shop.app.close()
