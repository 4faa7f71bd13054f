"""The dashboard below other people's apps, with their users: FastAPI, Flask and Django, as docs/dashboard.md says."""

import json
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from flask import Flask, Response, session
from playwright.sync_api import Browser, expect
from starlette.requests import Request
from starlette.testclient import TestClient
from werkzeug.serving import make_server

from tests.web.conftest import apart
from tests.web.stage import make_app, new
from windlass import App, ConfigError
from windlass.web import Dashboard, Role, User
from windlass.web.wsgi import mount

PAGE = Path(__file__).parents[2] / "docs" / "dashboard.md"
SAME = {"Sec-Fetch-Site": "same-origin"}


def example(mark: str) -> str:
    """The Python of the page that has these words."""
    found: list[str] = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    return next(one for one in found if mark in one)


def test_fastapi(app: App) -> None:
    web = FastAPI()

    @web.get("/hello")
    def hello() -> str:
        return "hello"

    async def load_session(request: Request) -> Any:
        class Session:
            email, staff = "otto@shop.example", True

        return Session if request.cookies.get("session") == "s3cret" else None

    exec(example("web.mount"), {"web": web, "app": app, "load_session": load_session})
    with TestClient(web, "https://shop.example.com", follow_redirects=False) as client:
        assert client.get("/hello").json() == "hello"
        assert client.get("/ops/jobs/").status_code == 401
        client.cookies["session"] = "s3cret"
        assert 'href="/ops/jobs/static/app.css' in client.get("/ops/jobs/").text
        assert (
            client.post("/ops/jobs/jobs/fail-01/retry", headers=SAME).headers["location"].startswith("/ops/jobs/jobs/")
        )
        assert client.post("/ops/jobs/jobs/fail-01/delete", headers=SAME).status_code == 403
        assert client.get("/ops/jobs/api/openapi.json").json()["servers"] == [{"url": "/ops/jobs/api"}]
        assert client.get("/ops/jobs/", headers={"Host": "evil.test"}).status_code == 421


@pytest.fixture
def site(app: App) -> Flask:
    """A Flask site with the dashboard below it."""
    site = Flask("site")
    site.secret_key = "x" * 30

    @site.get("/in")
    def sign_in() -> Response:
        session["user"] = "otto"
        return Response("in")

    known = {"site": site, "app": app, "Dashboard": Dashboard, "Role": Role, "User": User}
    exec(example("from flask"), known)
    return site


def test_flask(site: Flask) -> None:
    client = site.test_client()
    assert client.get("/ops/jobs/").status_code == 401
    assert client.get("/ops/jobsters").status_code == 404
    assert client.get("/in").text == "in"
    assert client.get("/ops/jobs").status_code == 307
    assert 'action="/ops/jobs/jobs/fail-01/retry"' in client.get("/ops/jobs/jobs/fail-01").text
    assert client.get("/ops/jobs/live").status_code == 204
    assert client.get("/ops/jobs/static/app.js").content_type.startswith("text/javascript")
    assert client.post("/ops/jobs/jobs/fail-01/retry").status_code == 403
    assert client.post("/ops/jobs/jobs/fail-01/retry", headers=SAME).status_code == 303
    form = {"queue": "mail", "state": "ready"}
    assert client.post("/ops/jobs/bulk/cancel", data=form, headers=SAME).location.endswith("&done=cancel&n=5")
    assert client.post("/ops/jobs/api/bulk/cancel", data=b"x" * 70_000, headers=SAME).status_code == 413
    assert client.post("/ops/jobs/jobs/fail-01/delete", headers=SAME).status_code == 403


def test_without_users_wsgi_lets_in_this_machine_alone(app: App) -> None:
    site = Flask("site")
    site.wsgi_app = mount(site.wsgi_app, "/ops", Dashboard(app))  # type: ignore[method-assign, assignment]
    for address, headers, status in (
        ("127.0.0.1", {}, 200),
        ("203.0.113.9", {}, 403),
        ("127.0.0.1", {"X-Forwarded-For": "127.0.0.1"}, 403),
        ("", {}, 403),
    ):
        found = site.test_client().get("/ops/", headers=headers, environ_overrides={"REMOTE_ADDR": address})
        assert found.status_code == status, (address, headers)
    with pytest.raises(ConfigError, match="/ops/jobs"):
        mount(site.wsgi_app, "ops/", Dashboard(app))


def test_django_over_wsgi_and_asgi(app: App) -> None:
    command = [sys.executable, "-m", "tests.web.django_site", app.config.url, str(PAGE)]
    over = [json.loads(line)[0] for line in subprocess.check_output(command, text=True).splitlines()]
    assert over[0] == [200, 401, 200, 303, 403, 401, 401, 401]
    assert over[1] == [200, 401, 200, 409, 403, 401, 401, 401]


@pytest.mark.xdist_group("browser")
def test_open_pages_follow_without_a_stream(browser: Browser, tmp_path: Path) -> None:
    app = make_app(f"sqlite:///{tmp_path}/windlass.db")
    site = Flask("site")
    site.wsgi_app = mount(site.wsgi_app, "/ops", Dashboard(app))  # type: ignore[method-assign, assignment]
    server = make_server("127.0.0.1", 0, site, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    context = browser.new_context()
    try:
        page = context.new_page()
        wrong: list[str] = []
        page.on("console", lambda message: wrong.append(message.text))
        page.goto(f"http://127.0.0.1:{server.server_port}/ops/jobs?tag=news")
        expect(page.locator("#status")).to_have_text("live")

        async def put() -> None:
            await (await app.connect()).put([new("news-01", "shop.pay.charge", tags=("news",), delay=9_000)])

        apart(put)
        expect(page.locator("#row-news-01")).to_be_visible()
        assert wrong == []
    finally:
        context.close()
        server.shutdown()
        thread.join()
        server.server_close()
        apart(app.aclose)
