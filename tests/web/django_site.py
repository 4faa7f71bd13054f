"""A Django site with the dashboard below it, as docs/dashboard.md says, over WSGI and ASGI; prints what it answers.

A process of its own: Django is configured once. `python -m tests.web.django_site URL PAGE`, with the page of docs.
"""

import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import django
from django.conf import settings
from django.core.management import call_command
from django.http import HttpResponse
from django.urls import path
from starlette.testclient import TestClient
from werkzeug.test import Client

urlpatterns = [path("hello", lambda _: HttpResponse("hello"))]


def main(url: str, page: Path) -> None:
    folder = tempfile.mkdtemp()
    settings.configure(
        ALLOWED_HOSTS=["*"],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": f"{folder}/site.db"}},
        INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"],
        ROOT_URLCONF=__name__,
        PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
        SECRET_KEY="x" * 50,
    )
    django.setup()
    call_command("migrate", verbosity=0)
    names = {name: sign_in(name, staff) for name, staff in (("otto", True), ("carl", False))}
    blocks = re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    who, wsgi, asgi = (next(one for one in blocks if text in one) for text in ("aget_user", "get_wsgi", "get_asgi"))
    from django.core.asgi import get_asgi_application
    from django.core.wsgi import get_wsgi_application

    from windlass import App
    from windlass.web import Dashboard, Role, User
    from windlass.web.wsgi import mount

    app = App(url)
    known: dict[str, Any] = {
        "Dashboard": Dashboard, "Role": Role, "User": User, "app": app, "mount": mount,
        "get_asgi_application": get_asgi_application, "get_wsgi_application": get_wsgi_application,
    }  # fmt: skip
    exec(who, known)
    exec(wsgi, known)
    print(json.dumps([asked(Client(known["application"], use_cookies=False), names)]))
    exec(asgi, known)
    with TestClient(known["application"], follow_redirects=False) as client:
        print(json.dumps([asked(client, names)]))
    app.close()


def sign_in(name: str, staff: bool) -> str:
    """The key of a session in which somebody is signed in."""
    from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
    from django.contrib.auth.models import User
    from django.contrib.sessions.backends.db import SessionStore

    user = User.objects.create_user(name, password="x", is_staff=staff)
    session = SessionStore()
    session[SESSION_KEY], session[HASH_SESSION_KEY] = str(user.pk), user.get_session_auth_hash()
    session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
    session.save()
    return str(session.session_key)


def asked(client: Any, sessions: dict[str, str]) -> list[int]:
    """The statuses of what everybody asks for."""
    same = {"Sec-Fetch-Site": "same-origin"}
    found = [client.get("/hello").status_code, client.get("/ops/jobs/").status_code]
    for key in sessions.values():
        cookie = {"Cookie": f"sessionid={key}"}
        found.append(client.get("/ops/jobs/jobs/fail-01", headers=cookie).status_code)
        found.append(client.post("/ops/jobs/jobs/fail-01/retry", headers={**cookie, **same}).status_code)
        found.append(client.post("/ops/jobs/jobs/fail-01/delete", headers={**cookie, **same}).status_code)
    return found


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
