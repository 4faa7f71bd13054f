"""What both ways to a server share: commands as bytes, where the server is, what an error means."""

import email.parser  # noqa: F401 - connecting needs these two; imported with the driver, a fork waits for them
import encodings.idna  # noqa: F401
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from redis import exceptions
from redis.crc import key_slot

from windlass.errors import StoreUnavailable
from windlass.store.redis.scripts import Script
from windlass.store.redis.url import CLUSTER, PLAIN, SENTINEL, Address, Target

Argument = str | bytes | int

PATIENCE = 4.5
"""Seconds that a call may take, all its tries included: less than the 5 s after which the layers above give up, because
we know better what to say."""

CONNECT_WITHIN = 2.0
"""Seconds that one server may take to let us in, so that there is time to try another."""

ASK_WITHIN = 1.0
"""The same for a question where the master is."""

PAUSES = (0.02, 0.05, 0.1, 0.2, 0.4)
"""Seconds between the tries of a call; the last again and again."""

PASSING = (
    exceptions.ReadOnlyError,
    exceptions.AskError,
    exceptions.TryAgainError,
    exceptions.ClusterDownError,
    exceptions.BusyLoadingError,
)
"""Answers of a server that cannot serve us now, but will, or another in its place. Nothing was written."""

PASSING_WORDS = ("BUSY ", "NOREPLICAS", "max number of clients", "UNBLOCKED")

ADVICE = (
    (exceptions.OutOfMemoryError, "free some memory or raise maxmemory; what is queued can still be worked off"),
    ((exceptions.AuthenticationError, exceptions.NoPermissionError), "check user and password in the URL, and the ACL"),
)


@dataclass(slots=True)
class Request:
    """One call of a script. `mark` is the argument that becomes "1" in a repeat; `sent` whether an earlier try may
    have been carried out."""

    script: Script
    tag: str
    arguments: list[Argument]
    repeatable: bool = True
    mark: int | None = None
    sent: bool = False

    def packed(self, whole: bool = False) -> bytes:
        """The command, by digest or with the script's whole text."""
        if self.sent and self.mark is not None:
            self.arguments[self.mark] = "1"
        how = ("EVAL", self.script.text) if whole else ("EVALSHA", self.script.digest)
        return pack((*how, "1", self.tag, *self.arguments))


@dataclass(slots=True)
class Plain:
    """One ordinary command, safe to repeat."""

    words: Sequence[Argument]
    repeatable: bool = True
    sent: bool = False

    def packed(self, whole: bool = False) -> bytes:
        """The command."""
        return pack(tuple(self.words))


def pack_plainly(words: tuple[Argument, ...]) -> bytes:
    """A command in the protocol's form."""
    parts = [b"*%d\r\n" % len(words)]
    for word in words:
        data = word if isinstance(word, bytes) else str(word).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(parts)


try:
    hiredis: Any = import_module("hiredis")
except ImportError:
    hiredis = None

pack: Callable[[tuple[Argument, ...]], bytes] = hiredis.pack_command if hiredis else pack_plainly
"""The same, by the driver's C part where that is installed."""


@dataclass(slots=True)
class Tries:
    """The tries of one call: how long it may still take, and what went wrong."""

    target: Target
    timeout: float
    request: Request | Plain
    count: int = 0
    problem: BaseException | None = None
    began: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return self.began + self.timeout - time.monotonic()

    def failed(self, error: BaseException, sent: bool) -> float:
        """Seconds to wait before the next try. Raises `StoreUnavailable` if there is none."""
        self.problem = error
        answered = isinstance(error, (exceptions.ResponseError, exceptions.BusyLoadingError))
        self.request.sent = self.request.sent or (sent and not answered)
        final = not is_passing(error) if answered else isinstance(error, exceptions.AuthenticationError)
        pause = PAUSES[min(self.count, len(PAUSES) - 1)]
        self.count += 1
        if final or (self.request.sent and not self.request.repeatable) or self.left <= pause:
            raise self.over() from error
        return pause

    def over(self) -> StoreUnavailable:
        """What a caller is told in the end."""
        if self.problem is None:
            return StoreUnavailable(
                f"{self.target.shown} did not answer within {self.timeout:g} s: is the server stopped, or busy?"
            )
        return unavailable(self.target, self.problem)


def is_passing(error: BaseException) -> bool:
    """Whether an answer of the server speaks of a state that passes."""
    return isinstance(error, PASSING) or str(error).startswith(PASSING_WORDS)


def unavailable(target: Target, error: BaseException) -> StoreUnavailable:
    """An error of the driver as one of ours, with what can be done about it."""
    advice = next((text for kinds, text in ADVICE if isinstance(error, kinds)), None)
    if advice is None:
        answered = isinstance(error, exceptions.ResponseError)
        advice = "look at the server's log" if answered else "is the server running, and is the URL right?"
    return StoreUnavailable(f"{target.shown}: {str(error).rstrip('.')}; {advice}")


def logins(target: Target) -> list[dict[str, Any]]:
    """Ways to log in where one asks for the master. Sentinels mostly have no password, else the same."""
    if target.kind != SENTINEL:
        return [target.login]
    open_door = {key: value for key, value in target.login.items() if key.startswith("ssl")}
    return [open_door, {**target.login, "db": 0}]


Search = Generator[tuple[Address, tuple[str, ...]], Any, Address]


def find_master(target: Target, known: set[Address]) -> Search:
    """Where the server is that has the app's keys: yields questions (server, command), takes their answers (None: there
    was none). In a cluster `known` gets all nodes seen, for when those in the URL are gone."""
    if target.kind == PLAIN:
        return target.nodes[0]
    slot = key_slot(target.tag.encode())
    for node in (*target.nodes, *sorted(known - set(target.nodes))):
        if target.kind == CLUSTER:
            answer = yield node, ("CLUSTER", "SLOTS")
            found = owner(answer or (), slot, node, known)
        else:
            answer = yield node, ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", target.service)
            found = (answer[0].decode(), int(answer[1])) if answer else None
        if found:
            return found
    what = "node of the cluster" if target.kind == CLUSTER else f"sentinel that knows {target.service!r}"
    raise exceptions.ConnectionError(f"no {what} answers")


def owner(slots: Sequence[Any], slot: int, asked: Address, known: set[Address]) -> Address | None:
    """The master of a slot in an answer to CLUSTER SLOTS."""
    found = None
    for first, last, *nodes in slots:
        places = [(host.decode() if host else asked[0], port) for host, port, *_ in nodes]
        known.update(places)
        if first <= slot <= last:
            found = places[0]
    return found
