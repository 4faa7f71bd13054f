"""The signatures of webhooks: the vectors of those who made the schemes, and what has to be refused."""

import base64
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime

import pytest
from standardwebhooks import Webhook

from windlass import ConfigError
from windlass.source.verify import Refused, Verify, github, standard_webhooks, stripe, unsigned

NOW = 1_614_265_330.0
STANDARD, OTHER = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_" + base64.b64encode(b"o" * 32).decode()
BODY = b'{"test": 2432232314}'
SIGNED = {
    "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "webhook-timestamp": "1614265330",
    "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
}
GITHUB = "It's a Secret to Everybody"
PUSHED = {
    "x-github-delivery": "72d3162e-cc78-11e3-81ab-4c9367dc0958",
    "x-hub-signature-256": "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
}
EVENT = b'{"id": "evt_1", "object": "event"}'


def charged(secret: str = "whsec_test", sent: str = "1614265330", body: bytes = EVENT) -> dict[str, str]:
    digest = hmac.digest(secret.encode(), f"{sent}.".encode() + body, "sha256").hex()
    return {
        "stripe-signature": f"t={sent},v1={digest},v0=6ffbb59b2300aae63f272406069a9788598b792a944a07aba816edb039989a39"
    }


def refused(verify: Verify, headers: Mapping[str, str], body: bytes, now: float = NOW) -> str:
    with pytest.raises(Refused) as caught:
        verify(headers, body, now)
    return str(caught.value)


def test_vector_of_standard_webhooks() -> None:
    assert standard_webhooks(STANDARD)(SIGNED, BODY, NOW) == SIGNED["webhook-id"]


def test_what_the_library_of_standard_webhooks_signs() -> None:
    for secret in (STANDARD, OTHER):
        signature = Webhook(secret).sign("msg_1", datetime.fromtimestamp(NOW, UTC), '{"a":"ü"}')
        headers = {"webhook-id": "msg_1", "webhook-timestamp": f"{NOW:.0f}", "webhook-signature": signature}
        assert standard_webhooks(STANDARD, OTHER)(headers, '{"a":"ü"}'.encode(), NOW) == "msg_1"


def test_names_of_svix() -> None:
    headers = {name.replace("webhook", "svix"): value for name, value in SIGNED.items()}
    assert standard_webhooks(STANDARD)(headers, BODY, NOW) == SIGNED["webhook-id"]


def test_one_of_several_signatures() -> None:
    many = {**SIGNED, "webhook-signature": f"v1a,AAAA v1,bad= {SIGNED['webhook-signature']} v2,x"}
    assert standard_webhooks(OTHER, STANDARD)(many, BODY, NOW)


@pytest.mark.parametrize("late", [-301, 301, 10_000_000])
def test_time_that_is_off(late: float) -> None:
    assert "300 s are allowed" in refused(standard_webhooks(STANDARD), SIGNED, BODY, NOW + late)
    assert "300 s are allowed" in refused(stripe("whsec_test"), charged(), EVENT, NOW + late)


@pytest.mark.parametrize("late", [-299, 299])
def test_time_within_bounds(late: float) -> None:
    assert standard_webhooks(STANDARD)(SIGNED, BODY, NOW + late)
    assert stripe("whsec_test")(charged(), EVENT, NOW + late) == "evt_1"


@pytest.mark.parametrize(
    "changed",
    [
        {"webhook-id": "msg_2"},
        {"webhook-id": ""},
        {"webhook-timestamp": "1614265331"},
        {"webhook-timestamp": "1614265330.0"},
        {"webhook-timestamp": "nan"},
        {"webhook-timestamp": "\u0661"},
        {"webhook-signature": ""},
        {"webhook-signature": "v1"},
        {"webhook-signature": "v1,"},
        {"webhook-signature": "v1,\udc80"},
        {"webhook-signature": SIGNED["webhook-signature"].replace("v1", "v2")},
        {"webhook-signature": SIGNED["webhook-signature"] + "x"},
    ],
)
def test_changed_headers(changed: Mapping[str, str]) -> None:
    refused(standard_webhooks(STANDARD), {**SIGNED, **changed}, BODY)


def test_a_message_is_cut_in_one_way_only() -> None:
    """What was signed as (id, time, body) must not pass as another id with another body."""
    body = b'{"note":"x.1614265331.[1]"}'
    signature = Webhook(STANDARD).sign("m", datetime.fromtimestamp(NOW, UTC), body.decode())
    forged = {
        "webhook-id": 'm.1614265330.{"note":"x',
        "webhook-timestamp": "1614265331",
        "webhook-signature": signature,
    }
    assert "without points" in refused(standard_webhooks(STANDARD), forged, b'[1]"}')


def test_vector_of_github() -> None:
    assert github(GITHUB)(PUSHED, b"Hello, World!", NOW) == PUSHED["x-github-delivery"]
    assert github("another", GITHUB)(PUSHED, b"Hello, World!", NOW)


@pytest.mark.parametrize("changed", [{"x-hub-signature-256": "sha256=00"}, {"x-hub-signature-256": ""}])
def test_github_refuses(changed: Mapping[str, str]) -> None:
    refused(github(GITHUB), {**PUSHED, **changed}, b"Hello, World!")
    refused(github(GITHUB), PUSHED, b"Hello, World?")
    refused(github("another"), PUSHED, b"Hello, World!")


def test_github_needs_an_id() -> None:
    assert "X-GitHub-Delivery" in refused(github(GITHUB), {**PUSHED, "x-github-delivery": ""}, b"Hello, World!")


def test_stripe() -> None:
    assert stripe("whsec_test")(charged(), EVENT, NOW) == "evt_1"
    assert stripe("whsec_new", "whsec_test")(charged(), EVENT, NOW) == "evt_1"
    both = f"{charged()['stripe-signature']},{charged('whsec_new')['stripe-signature'].partition(',')[2]}"
    assert stripe("whsec_new")({"stripe-signature": both}, EVENT, NOW) == "evt_1"


@pytest.mark.parametrize(
    "header",
    ["", "t=", "t=1614265330", "v1=00", "t=1614265330,v1=", charged()["stripe-signature"].replace("v1", "v0")],
)
def test_stripe_refuses(header: str) -> None:
    refused(stripe("whsec_test"), {"stripe-signature": header}, EVENT)


def test_stripe_takes_one_time_only() -> None:
    """A second t= must not make an old signature look new."""
    old = charged(sent="1514265330")["stripe-signature"]
    refused(stripe("whsec_test"), {"stripe-signature": f"{old},t=1614265330"}, EVENT)


@pytest.mark.parametrize("body", [b"[]", b'{"id": 5}', b'{"id": ""}', b"{"])
def test_stripe_needs_an_id(body: bytes) -> None:
    assert "id of the event" in refused(stripe("whsec_test"), charged(body=body), body)


def test_unsigned_takes_all() -> None:
    take: Verify = unsigned
    assert take({}, b"", NOW) is None


@pytest.mark.parametrize("scheme", [standard_webhooks, github, stripe])
def test_secrets(scheme: object) -> None:
    assert callable(scheme)
    for wrong in (
        (),
        ("",),
        ("a", "b", "c"),
        (None,),
        (" hidden",),
        ("whsec_hidden!",) if scheme is standard_webhooks else (5,),
    ):
        with pytest.raises(ConfigError, match="secret") as caught:
            scheme(*wrong)
        assert "hidden" not in str(caught.value)
    assert STANDARD[6:] not in repr(scheme(STANDARD))
