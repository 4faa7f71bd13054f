"""Alerts as data: what is watched, who is told, and what is told when. Pure values; the docs are docs/alerts.md.

A rule is looked at by one worker at a time. An alarm is one stretch of time in which its rule sees a problem.
"""

from collections.abc import Iterable
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from windlass import options
from windlass.errors import ConfigError
from windlass.options import Seconds, short
from windlass.outward import split

TASK, QUEUE = "windlass.alert.", "windlass.alerts"
"""What the tasks that tell people begin with (the name of the alert stands behind it), and their queue."""

QUIET = 900.0

MOST = 1_000
"""The most failed jobs that a rule may wait for: so many are looked at."""

LONGEST = 100
"""Characters of the name of an alert."""


class QueueAge(Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True):
    """The first job that is due in a queue waits for longer than so many seconds."""

    seconds: float
    queue: str | None = None

    def __str__(self) -> str:
        return f"the oldest job in {self.queue or 'any queue'} waits for over {self.seconds:g} s"


class FailureRate(Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True):
    """More than a part of the attempts that ended within so many seconds failed, if there were enough of them."""

    part: float
    within: float
    at_least: int
    queue: str | None = None
    task: str | None = None

    def __str__(self) -> str:
        of = " and ".join(one for one in (self.task, self.queue and f"queue {self.queue}") if one)
        return (
            f"over {self.part:.4g} of the attempts{f' of {of}' if of else ''} fail, within {self.within:g} s, "
            f"if there are {self.at_least:,} of them"
        )


class ScheduleMissed(Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True):
    """A run of a schedule has been due for so many seconds, and nobody fired it."""

    seconds: float
    schedule: str | None = None

    def __str__(self) -> str:
        return f"a run of {self.schedule or 'any schedule'} is late by over {self.seconds:g} s"


class NoWorker(Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True):
    """No worker lives, or none that serves a queue."""

    queue: str | None = None

    def __str__(self) -> str:
        return f"no worker serves {self.queue}" if self.queue else "no worker is running"


class FailedJobs(Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True):
    """There are so many failed jobs, or more: dead letters that nobody has retried or deleted."""

    count: int
    queue: str | None = None
    task: str | None = None

    def __str__(self) -> str:
        of = " and ".join(one for one in (self.task, self.queue and f"queue {self.queue}") if one)
        return f"{self.count:,} or more failed jobs{f' of {of}' if of else ''}"


Rule = QueueAge | FailureRate | ScheduleMissed | NoWorker | FailedJobs


def queue_age(seconds: Seconds, queue: str | None = None) -> QueueAge:
    """The first job that is due in `queue` (in any, without one) waits for longer; paused queues do not count."""
    return QueueAge(seconds=options.seconds("queue_age", seconds, above_zero=True), queue=optional("queue", queue))


def failure_rate(
    part: float, *, within: Seconds = 600, at_least: int = 20, queue: str | None = None, task: str | None = None
) -> FailureRate:
    """More than `part` (from 0 to 1) of the attempts failed, tries that are repeated included, in the last `within`
    seconds, in which at least `at_least` ended."""
    if isinstance(part, bool) or not isinstance(part, int | float) or not 0 <= part < 1:
        raise ConfigError(f"expected failure_rate as a part, from 0 to below 1, as in 0.2; {short(part)} came")
    seconds = options.seconds("within", within)
    if not 60 <= seconds <= 86_400:
        raise ConfigError(f"expected within from a minute to a day; {seconds:g} s came")
    return FailureRate(
        part=float(part),
        within=seconds,
        at_least=whole("at_least", at_least, 10**9),
        queue=optional("queue", queue),
        task=optional("task", task),
    )


def schedule_missed(schedule: str | None = None, *, seconds: Seconds = 60) -> ScheduleMissed:
    """A run of `schedule` (of any, without one) is late by more than so many seconds; paused ones do not count."""
    return ScheduleMissed(seconds=options.seconds("seconds", seconds), schedule=optional("schedule", schedule))


def no_worker(queue: str | None = None) -> NoWorker:
    """No worker lives that serves `queue`, or none at all. With none left, the dashboard tells, or `windlass alerts
    check`."""
    return NoWorker(queue=optional("queue", queue))


def failed_jobs(count: int = 1, *, queue: str | None = None, task: str | None = None) -> FailedJobs:
    """There are `count` failed jobs or more, which nobody has retried or deleted."""
    return FailedJobs(
        count=whole("failed_jobs", count, MOST), queue=optional("queue", queue), task=optional("task", task)
    )


def optional(what: str, value: str | None) -> str | None:
    """A name, or None. Raises `ConfigError`."""
    return None if value is None else options.name(what, value)


def whole(what: str, value: object, most: int) -> int:
    """A whole number from 1 on. Raises `ConfigError`."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise ConfigError(f"expected a whole number from 1 to {most:,} for {what}; {short(value)} came")
    return value


# Whom to tell


class Webhook(Struct, frozen=True):
    """Posts JSON to a URL, signed with `callback_secrets` if the app has any."""

    url: str

    def __repr__(self) -> str:
        return f"webhook at {urlsplit(self.url).hostname}"


class Slack(Struct, frozen=True):
    """Posts to an incoming webhook of Slack, or of what speaks its language (Mattermost, Rocket.Chat)."""

    url: str

    def __repr__(self) -> str:
        return f"Slack at {urlsplit(self.url).hostname}"


class Email(Struct, frozen=True, kw_only=True):
    """Sends mail by SMTP."""

    url: str
    sender: str
    to: tuple[str, ...]

    def __repr__(self) -> str:
        return f"mail to {', '.join(self.to)}"


Target = Webhook | Slack | Email


def webhook(url: str) -> Webhook:
    """JSON to a URL, of your own network too. Raises `ConfigError`, which does not show it: it may hold a token."""
    return Webhook(callable_url("webhook", url))


def slack(url: str) -> Slack:
    """A message in a channel, by its incoming webhook. Raises `ConfigError`, which does not show the URL."""
    return Slack(callable_url("slack", url))


def email(url: str, to: str | Iterable[str], *, sender: str | None = None) -> Email:
    """Mail, by `smtp://USER:PASSWORD@HOST:587` (TLS as soon as the server offers it, and always before a password) or
    `smtps://HOST`. `sender` is the first of `to` unless given. Raises `ConfigError`, which does not show the URL."""
    people = (to,) if isinstance(to, str) else tuple(to)
    try:
        parts = urlsplit(url)
        fine = parts.scheme in ("smtp", "smtps") and bool(parts.hostname) and parts.port != 0
    except (ValueError, AttributeError, TypeError):
        fine = False
    if not fine:
        raise ConfigError("expected smtp://USER:PASSWORD@HOST:PORT or smtps://… as the first of email(…)")
    for one in (*people, *([] if sender is None else [sender])):
        if not isinstance(one, str) or "@" not in one or not one.isprintable() or set(one) & set(" ,;<>"):
            raise ConfigError(f"expected an address such as ops@example.com in email(…); {short(one)} came")
    if not people:
        raise ConfigError("expected somebody in to= of email(…); nobody came")
    return Email(url=url, sender=people[0] if sender is None else sender, to=people)


def callable_url(what: str, url: object) -> str:
    """A URL to which one can post. Raises `ConfigError`."""
    if not isinstance(url, str) or split(url) is None:
        raise ConfigError(f"expected https://HOST/PATH, without user, password or fragment, for {what}(…)")
    return url


class Alert(Struct, frozen=True):
    """Tell `to` when `rule` sees a problem, and once more when it is over.

    `name` is of letters, digits, '_', '.' and '-'. After an alarm was told, no other of this name is told for `quiet`
    seconds: one that still lasts then is told then.
    """

    name: str
    rule: Rule
    to: Target | tuple[Target, ...] | list[Target]
    quiet: Seconds = QUIET

    def __post_init__(self) -> None:
        if len(options.name("the name of an alert", self.name)) > LONGEST:
            raise ConfigError(f"expected a name of at most {LONGEST} characters for an alert; {short(self.name)} came")
        if not isinstance(self.rule, Rule):
            raise ConfigError(f"expected a rule such as queue_age(300) in alert {self.name}; {short(self.rule)} came")
        if not self.targets or not all(isinstance(one, Target) for one in self.targets):
            raise ConfigError(f"expected webhook(…), slack(…), email(…), or some of them, in alert {self.name}")
        options.seconds("quiet", self.quiet)

    @property
    def targets(self) -> tuple[Target, ...]:
        """All that are told."""
        return tuple(self.to) if isinstance(self.to, tuple | list) else (self.to,)


# What becomes of one in time


class Message(Struct, frozen=True, kw_only=True):
    """What is told: `kind` is alarm, over or test; `since` in seconds since the epoch."""

    kind: str
    name: str
    text: str
    since: float = 0.0

    @property
    def line(self) -> str:
        """All of it in one line."""
        words = {"alarm": "Alarm", "over": "Over"}
        return f"{words.get(self.kind, 'Test')}: {self.name}: {self.text}"


class Waiting(Struct, frozen=True, kw_only=True):
    """The arguments of the job that tells one of those who are told, number `at` of them."""

    kind: str
    text: str
    since: float
    at: int


class Watched(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An alert as it is stored, without those who are told: they are the secrets of its app. `origin`: that app.
    `brought`: not by a worker, so that any worker that declares one of this name takes it over.

    Moments are seconds since the epoch, by the store's clock. `since`: the alarm began (0: all is well); `told`: it was
    told; `told_at`: when one was told last.
    """

    rule: Rule
    quiet: float
    targets: int
    origin: str
    since: float = 0.0
    text: str = ""
    told: bool = False
    told_at: float = 0.0
    looked_at: float = 0.0
    brought: bool = False


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Watched).decode


def write(watched: Watched) -> bytes:
    """An alert as it is stored."""
    return _encode(watched)


def read(body: bytes) -> Watched | None:
    """A stored alert; None for one that cannot be read."""
    try:
        return _decode(body)
    except msgspec.MsgspecError:
        return None


def watched(alert: Alert, origin: str, before: Watched | None, *, brought: bool) -> Watched:
    """An alert as its app declares it now; an alarm goes on as long as its rule is the same."""
    fresh = Watched(
        rule=alert.rule,
        quiet=options.seconds("quiet", alert.quiet),
        targets=len(alert.targets),
        origin=origin,
        brought=brought,
    )
    if before is None or before.rule != fresh.rule:
        return fresh
    return replace(before, quiet=fresh.quiet, targets=fresh.targets, origin=origin, brought=brought)


def advance(name: str, now: float, before: Watched, problem: str) -> tuple[Watched, Message | None]:
    """The alert after a look that found this problem (empty: all is well), and what is to be told."""
    after = replace(before, looked_at=now)
    if not problem:
        calm = replace(after, since=0.0, text="", told=False)
        return calm, Message(kind="over", name=name, text=before.text, since=before.since) if before.told else None
    after = replace(after, text=problem, since=before.since or now)
    if before.told or now - before.told_at < before.quiet:
        return after, None
    told = replace(after, told=True, told_at=now)
    return told, Message(kind="alarm", name=name, text=problem, since=told.since)
