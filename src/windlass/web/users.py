"""Who may do what on the dashboard, and how somebody shows who they are."""

import base64
import binascii
import hmac
import re
from collections import deque
from collections.abc import Sequence
from enum import IntEnum

from msgspec import Struct

from windlass.audit import Who
from windlass.clock import Clock
from windlass.errors import ConfigError

ENTRY = re.compile(r"([A-Za-z0-9_.@-]{1,64}):(viewer|operator|admin):(\S+)")

LEAST = 16
"""The fewest characters of a secret: nobody tries so many."""

TRIES, SPAN = 10, 60.0
"""Wrong secrets of one address that are told within so many seconds."""

ADDRESSES = 10_000
"""Addresses whose wrong secrets are counted."""


class Role(IntEnum):
    """What somebody may do; each may do what those before it may."""

    VIEWER = 1
    OPERATOR = 2
    ADMIN = 3


class User(Struct, frozen=True):
    """Somebody who is known. The way in (dashboard or api) and the address are filled in for the audit log."""

    name: str
    role: Role
    via: str = "dashboard"
    place: str = ""

    @property
    def who(self) -> Who:
        """The same for the audit log."""
        return Who(user=self.name, role=self.role.name.lower(), via=self.via, place=self.place)


LOCAL = User("local", Role.ADMIN)
"""Whoever sits at this machine, where nobody else is let in."""


class Users:
    """Those who may come in, from texts such as 'anna:operator:SECRET'. The secret is the password of that name, and a
    bearer token. Raises `ConfigError`, which shows no secret."""

    def __init__(self, entries: Sequence[str]) -> None:
        self._known = [parse(entry) for entry in entries]
        if not self._known:
            raise ConfigError("expected at least one user such as 'anna:operator:SECRET' for the dashboard; none came")

    def __repr__(self) -> str:
        return f"<{len(self._known)} users>"

    def find(self, name: str | None, secret: str) -> User | None:
        """The user with this secret, and this name unless it is None. Takes as long for each that there is none."""
        found = None
        for user, known in self._known:
            fits = hmac.compare_digest(known.encode(), secret.encode("utf-8", "surrogatepass"))
            if fits and name in (None, user.name):
                found = user
        return found

    def read(self, header: str) -> User | None:
        """The user that an Authorization header names."""
        scheme, _, value = header.partition(" ")
        if scheme.lower() == "bearer":
            return self.find(None, value.strip())
        if scheme.lower() != "basic":
            return None
        try:
            name, _, secret = base64.b64decode(value.strip(), validate=True).decode().partition(":")
        except (binascii.Error, ValueError):
            return None
        return self.find(name, secret)


def parse(entry: str) -> tuple[User, str]:
    """A user and the secret. Raises `ConfigError`."""
    found = ENTRY.fullmatch(entry.strip()) if isinstance(entry, str) else None
    if found is None:
        raise ConfigError(
            "expected users of the dashboard as NAME:ROLE:SECRET, where ROLE is viewer, operator or admin; "
            "something else came"
        )
    name, role, secret = found.groups()
    if len(secret) < LEAST:
        raise ConfigError(
            f"the secret of {name} has {len(secret)} characters; expected at least {LEAST}, such as those that "
            "`python -c 'import secrets; print(secrets.token_urlsafe())'` prints"
        )
    return User(name, Role[role.upper()]), secret


class Tries:
    """Counts wrong secrets by address. They cannot be guessed, at any rate; but whoever tries shall not fill the log,
    nor keep others at that address out."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._wrong: dict[str, deque[float]] = {}

    def over(self, address: str) -> bool:
        """Whether this address has to wait."""
        times = self._wrong.get(address, deque())
        while times and times[0] < self._clock.boot() - SPAN:
            times.popleft()
        return len(times) >= TRIES

    def add(self, address: str) -> None:
        """A wrong secret came from there."""
        if address not in self._wrong and len(self._wrong) >= ADDRESSES:
            self._wrong.pop(next(iter(self._wrong)))
        self._wrong.setdefault(address, deque(maxlen=TRIES)).append(self._clock.boot())
