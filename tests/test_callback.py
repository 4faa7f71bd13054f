"""`using(callback_url=…)`: what is posted, to whom, and where nothing is ever sent."""

import asyncio
import json
import re
import socket
import ssl
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Self

import aiohttp
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from standardwebhooks import Webhook

from tests.worker.rig import PATIENCE, ROOT
from windlass import App, Cancel, ConfigError, Fail, Retry, Secret, Snooze, callback, poster
from windlass.outward import Outward
from windlass.source.verify import standard_webhooks
from windlass.vault import make_key

SECRET, OLD = "whsec_" + "n" * 32, "whsec_" + "o" * 32


class Receiver:
    """A server on this machine that keeps what it was told."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.status, self.headers = 200, dict[str, str]()
        self.got: list[tuple[str, dict[str, str], bytes]] = []
        self.port = 0
        self._tls = tls

    async def __aenter__(self) -> Self:
        async def take(request: web.BaseRequest) -> web.Response:
            headers = {name.lower(): value for name, value in request.headers.items()}
            self.got.append((request.path_qs, headers, await request.read()))
            return web.Response(status=self.status, headers=self.headers, body=b"x" * 1_000_000)

        self._runner = web.ServerRunner(web.Server(take))
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._tls).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def told(self) -> list[Any]:
        """The messages, checked as their receivers would."""
        for _, headers, body in self.got:
            Webhook(SECRET).verify(body, headers)
            standard_webhooks(OLD)(headers, body, datetime.now(UTC).timestamp())
        return [json.loads(body) for _, _, body in self.got]


async def run(receiver: Receiver, folder: Path, *names: str, **settings: Any) -> list[Any]:
    """Let a worker run those tasks with a callback, and wait for what was told of them, in the order of their names."""
    secrets = [SECRET, OLD]
    app = App(f"sqlite:///{folder}/windlass.db", callback_secrets=secrets, callback_hosts=[receiver.origin], **settings)

    @app.task(name="good")
    async def good(n: int) -> dict[str, int]:
        return {"double": n * 2}

    @app.task(name="bad", retry=Retry(attempts=1))
    async def bad(n: int) -> None:
        raise ValueError(f"not {n}")

    @app.task(name="ended")
    async def ended(n: int) -> None:
        raise Cancel("not wanted")

    @app.task(name="hidden")
    async def hidden(n: int) -> Annotated[str, Secret()]:
        return "canary"

    async with app.worker(concurrency=4):
        for name in names:
            task = app.tasks[name].using(callback_url=f"{receiver.origin}/told?token=t0ken", meta={"a": 1}, tags=["x"])
            await task.aenqueue(21)
        async with asyncio.timeout(PATIENCE):
            while len(await app.jobs.afind(task=callback.NAME, state="succeeded")) < len(names):
                await asyncio.sleep(0.02)
        jobs = await app.jobs.afind(task=callback.NAME)
    assert [job.args for job in jobs] == [{"url": "***"}] * len(names)
    assert {job.queue for job in jobs} == {callback.QUEUE}
    await app.aclose()
    return sorted(receiver.told(), key=lambda one: names.index(one["data"]["task"]))


@pytest.mark.parametrize("keys", [(), (make_key("k1"), make_key("unique"))], ids=["plain", "sealed"])
def test_the_end_of_a_job_is_told(keys: tuple[str, ...], tmp_path: Path) -> None:
    async def whole() -> tuple[Receiver, list[Any]]:
        async with Receiver() as receiver:
            return receiver, await run(receiver, tmp_path, "good", "bad", "ended", "hidden", keys=keys)

    receiver, (good, bad, ended, hidden) = asyncio.run(whole())
    assert good["type"] == "job.succeeded"
    assert good["data"]["result"] == {"double": 42}
    assert good["data"]["meta"] == {"a": 1}
    assert good["data"]["tags"] == ["x"]
    assert good["data"]["finished_at"] == good["timestamp"]
    assert (bad["type"], bad["data"]["error"]) == ("job.failed", {"type": "ValueError", "message": "not 21"})
    assert (ended["type"], ended["data"]["reason"]) == ("job.cancelled", "not wanted")
    assert "result" not in hidden["data"]
    assert {path for path, _, _ in receiver.got} == {"/told?token=t0ken"}
    assert len({headers["webhook-id"] for _, headers, _ in receiver.got}) == 4


async def sent(receiver: Receiver, *, late: bool = False) -> Any:
    """What becomes of one try."""
    outward = Outward([SECRET, OLD], [receiver.origin])
    try:
        return await callback.send(f"{receiver.origin}/", "msg_1", b"{}", outward, late=late)
    except Exception as error:
        return error


@pytest.mark.parametrize(
    ("status", "headers", "late", "expected"),
    [
        (204, {}, False, int),
        (500, {}, False, callback.Refusal),
        (301, {"location": "/elsewhere"}, False, callback.Refusal),
        (307, {"location": "/elsewhere"}, False, callback.Refusal),
        (400, {}, False, Fail),
        (404, {"retry-after": "3"}, False, Fail),
        (410, {}, False, Fail),
        (408, {}, False, callback.Refusal),
        (425, {}, False, callback.Refusal),
        (429, {}, False, callback.Refusal),
        (429, {"retry-after": "30"}, False, Snooze),
        (429, {"retry-after": "30"}, True, callback.Refusal),
        (503, {"retry-after": "99999"}, False, Snooze),
        (503, {"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, False, callback.Refusal),
    ],
)
def test_what_an_answer_means(status: int, headers: dict[str, str], late: bool, expected: type) -> None:
    async def whole() -> Any:
        async with Receiver() as receiver:
            receiver.status, receiver.headers = status, headers
            found = await sent(receiver, late=late)
            assert len(receiver.got) == 1
            return found

    found = asyncio.run(whole())
    assert type(found) is expected, repr(found)
    if isinstance(found, Snooze):
        assert found.delay == min(float(headers["retry-after"]), callback.LONGEST_WAIT)


def test_a_receiver_that_is_not_there() -> None:
    async def whole() -> Any:
        async with Receiver() as receiver:
            pass
        return await sent(receiver)

    assert isinstance(asyncio.run(whole()), aiohttp.ClientConnectorError)


CLOSED = """
0.0.0.0 0.1.2.3 10.0.0.1 100.64.0.1 100.127.255.254 127.0.0.1 127.1.2.3 169.254.169.254 172.16.0.1 172.31.255.255
192.0.0.1 192.0.2.1 192.88.99.1 192.168.0.1 198.18.0.1 198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.255 240.0.0.1
255.255.255.255 :: ::1 ::127.0.0.1 ::8.8.8.8 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 64:ff9b::7f00:1
64:ff9b::a9fe:a9fe 64:ff9b:1::1 100::1 2001::1 2001:db8::1 2002:7f00:1:: 2002:808:808:: fc00::1 fd00:ec2::254 fe80::1
fe80::1%eth0 fec0::1 ff02::1 ff0e::1 nonsense 127.1 2130706433 0x7f000001 0177.0.0.1
"""

OPEN = "8.8.8.8 172.32.0.1 100.128.0.1 ::ffff:8.8.8.8 64:ff9b::808:808 2606:4700:4700::1111"


def test_which_addresses_are_public() -> None:
    assert [one for one in CLOSED.split() if poster.is_public(one)] == []
    assert [one for one in OPEN.split() if not poster.is_public(one)] == []


FORBIDDEN = """
localhost 127.0.0.1 127.0.0.2 0x7f000001 0x7f.1 0.0.0.0 [::1] [::] [0:0:0:0:0:0:0:1] [::ffff:127.0.0.1] [::ffff:7f00:1]
[::127.0.0.1] [64:ff9b::7f00:1] [2002:7f00:1::] 169.254.169.254 [fd00:ec2::254]
"""

NO_HOSTS = "LOCALHOST. 127.1 127.0.1 2130706433 0177.0.0.1 017700000001 0 127.0.0.1. %31%32%37.0.0.1"
"""These are refused as no address, or found nowhere; were they taken as systems do, they would be this machine."""


@pytest.mark.parametrize("host", [*FORBIDDEN.split(), *NO_HOSTS.split()])
def test_no_name_of_this_machine_leads_to_it(host: str) -> None:
    async def whole() -> None:
        async with Receiver() as receiver:
            with pytest.raises((poster.Forbidden, aiohttp.ClientError)) as refused:
                await poster.post(f"https://{host}:{receiver.port}/", b"{}", {}, Outward([SECRET]))
            assert not isinstance(refused.value, aiohttp.ClientConnectorSSLError), "it was connected"
            assert receiver.got == []
            if host in FORBIDDEN.split():
                assert isinstance(refused.value, poster.Forbidden | aiohttp.InvalidURL), repr(refused.value)

    asyncio.run(whole())


def test_a_job_for_a_forbidden_address_fails_at_once() -> None:
    with pytest.raises(Fail, match="name it in callback_hosts"):
        asyncio.run(callback.send("https://127.0.0.1/", "msg_1", b"{}", Outward([SECRET]), late=False))


def test_every_address_of_a_name_has_to_be_public(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(host: str, port: int, *_: object, **__: object) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in ("8.8.8.8", "10.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(poster.Forbidden):
        asyncio.run(poster.post("https://mixed.test/", b"{}", {}, Outward([SECRET])))


def test_a_name_is_resolved_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that leads inside when it is asked again, as in DNS rebinding, is not asked again."""
    answers, reached = ["8.8.8.8", "127.0.0.1"], list[str]()

    def resolve(host: str, port: int, *_: object, **__: object) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (answers.pop(0), port))]

    def refuse(info: poster.Info) -> socket.socket:
        reached.append(info[4][0])
        raise OSError("no network in tests")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(poster, "public_socket", refuse)
    with pytest.raises(aiohttp.ClientConnectorError):
        asyncio.run(poster.post("https://rebinding.test/", b"{}", {}, Outward([SECRET])))
    assert (reached, answers) == (["8.8.8.8"], ["127.0.0.1"])


def certificate(file: Path) -> Path:
    """A certificate of hook.test that vouches for itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hook.test")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("hook.test")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    file.write_bytes(made.public_bytes(pem) + key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    return file


def test_tls_and_host_go_by_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(host: str, port: int, *_: object, **__: object) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    file, names = certificate(tmp_path / "hook.pem"), list[str | None]()
    trust = ssl.create_default_context(cafile=file)
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(poster, "is_public", lambda _: True)
    monkeypatch.setattr(poster, "context", lambda: trust)
    serve = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serve.load_cert_chain(file)
    serve.sni_callback = lambda _, name, __: names.append(name)

    async def whole() -> None:
        async with Receiver(serve) as receiver:
            reply = await poster.post(f"https://hook.test:{receiver.port}/in", b"{}", {}, Outward([SECRET]))
            assert reply.status == 200
            assert receiver.got[0][1]["host"] == f"hook.test:{receiver.port}"
            with pytest.raises(aiohttp.ClientConnectorCertificateError):
                await poster.post(f"https://other.test:{receiver.port}/in", b"{}", {}, Outward([SECRET]))
            assert len(receiver.got) == 1

    asyncio.run(whole())
    assert names == ["hook.test", "other.test"]


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/",
        "HTTP://example.com/",
        "ftp://example.com/",
        "file:///etc/passwd",
        "gopher://example.com",
        "//example.com/",
        "https:///path",
        "https://user:canary@example.com/",
        "https://canary@example.com/",
        "https://example.com/#canary",
        "https://example.com:0/",
        "https://example.com:99999/",
        "https://example.com\\@10.0.0.1/",
        "https://exa\nmple.com/",
        "https://exämple.com/",
        "https://example.com/" + "x" * 3000,
        "",
        5,
    ],
)
def test_urls_that_cannot_be_called(url: Any) -> None:
    with pytest.raises(ConfigError, match="expected callback_url") as told:
        Outward([SECRET]).check(url)
    assert "canary" not in str(told.value)


def test_hosts_inside() -> None:
    outward = Outward([SECRET], ["hooks.internal", "http://10.0.0.1:8080", "https://Hooks.internal:8443/"])
    inside = ["https://hooks.internal/x", "https://hooks.internal:443", "http://10.0.0.1:8080/"]
    outside = ["https://hooks.internal:8080/", "https://10.0.0.1:8080/", "https://internal/"]
    assert all(outward.is_inside(outward.check(url)) for url in [*inside, "https://hooks.internal:8443"])
    assert not any(map(outward.is_inside, outside))
    for wrong in ("http://10.0.0.1/", "http://hooks.internal/"):
        with pytest.raises(ConfigError, match="callback_hosts"):
            outward.check(wrong)
    for host in ("", "a b", "https://host/path", "ftp://host"):
        with pytest.raises(ConfigError, match="callback_hosts as in"):
            Outward([SECRET], [host])


def test_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{tmp_path}/windlass.db"
    with pytest.raises(ConfigError, match="callback_secrets") as told:
        App(url, callback_secrets=["whsec_canary"])
    assert "canary" not in str(told.value)
    with pytest.raises(ConfigError, match="while one replaces the other"):
        App(url, callback_secrets=[SECRET] * 3)
    plain = App(url)

    @plain.task(name="one")
    def one() -> None: ...

    with pytest.raises(ConfigError, match="WINDLASS_CALLBACK_SECRETS"):
        one.using(callback_url="https://example.com/")
    assert callback.NAME not in plain.tasks
    monkeypatch.setenv("WINDLASS_CALLBACK_SECRETS", f"{SECRET},{OLD}")
    monkeypatch.setenv("WINDLASS_CALLBACK_HOSTS", "hooks.internal")
    signing = App(url)
    assert callback.NAME in signing.tasks
    assert SECRET not in repr(signing.config) + repr(signing.outward)


def test_a_callback_url_can_be_changed_and_taken_away(tmp_path: Path) -> None:
    app = App(f"sqlite:///{tmp_path}/windlass.db", callback_secrets=SECRET)

    @app.task(name="one")
    def one() -> None: ...

    called = one.using(callback_url="https://example.com/", on_final=one)
    both = called.bind().new.follow or b""
    other = called.using(callback_url="https://example.org/").bind().new.follow or b""
    assert (both.count(b"example.com"), other.count(b"example.com"), other.count(b"example.org")) == (1, 0, 1)
    assert called.using(callback_url="", on_final=()).bind().new.follow is None


def test_the_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    example = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "webhooks.md").read_text("utf-8"), re.DOTALL)[1]
    monkeypatch.setenv("WINDLASS_URL", f"sqlite:///{tmp_path}/windlass.db")
    monkeypatch.setenv("CALLBACK_SECRET", SECRET)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "callback_example.py").write_text(example)
    app = import_module("callback_example").app
    (job,) = app.jobs.find()
    assert b"example.com/done" in job.record.follow
    app.close()
