"""What follows a job: the jobs that its end makes, as data kept with it.

The text is a JSON array, read by every store at the end of the job: objects with `on` (letters of the states that make
it: s, f, c), `task`, `queue`, `args` and, where there is something to say, `priority`, `ahead`, `delay` and `expires`
(microseconds), `options`, `tags`, `gates` (needs as a text) and `follow` (such a text itself). The job's id is that of
the one that ended, the fence and the letter of its end, and the place in the array: `ID.1s.0`.
"""

import re
from collections.abc import Callable, Sequence

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from windlass.errors import DecodeError, PayloadTooLarge
from windlass.gate import write_needs
from windlass.model import NewJob
from windlass.vault import Vault

ENDS = {"on_success": "s", "on_failure": "f", "on_final": "sfc", "callback_url": "sfc"}
"""The ends that make what is given under each name."""

GENERATIONS = 4
"""The most jobs that may follow one another: each makes the ids longer, and what is stored with the first job."""

MICRO = 1_000_000

DEEP = "deep-"
"""What stands, with a hash, for a parent whose id is too long to be part of its children's (`windlass.lineage`)."""

_OF = re.compile(rf"(?!{DEEP}[0-9a-f]+\.[^.]+$)(.+)\.(?:\d+[sfc]\.\d+|\d+-[a-z]\d+)")


class Follower(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One job to be made."""

    on: str
    task: str
    queue: str
    args: str
    priority: int = 0
    ahead: int = 0
    delay: int = 0
    expires: int | None = None
    options: str | None = None
    tags: tuple[str, ...] = ()
    gates: str | None = None
    follow: str | None = None


_decode = msgspec.json.Decoder(list[Follower]).decode
_encode = msgspec.json.Encoder().encode


def write(jobs: Sequence[tuple[str, NewJob]], id: str, vault: Vault, limit: int) -> bytes:
    """What follows job `id`, given under names of ENDS, sealed for it. Raises `PayloadTooLarge` over `limit` bytes."""
    text = _encode([follower(ENDS[what], job, vault) for what, job in jobs])
    if len(text) > limit:
        raise PayloadTooLarge(f"{len(text):,} bytes of JSON, where max_payload allows {limit:,}", "callbacks")
    return sealed(text, id, vault) or b""


def follower(on: str, job: NewJob, vault: Vault) -> Follower:
    """A job as one that follows, not sealed."""
    own = None if job.options is None else vault.open(job.options, job.id, job.task, "options")
    inner = opened(job.follow, job.id, vault)
    return Follower(
        on=on,
        task=job.task,
        queue=job.queue,
        args=vault.open(job.args, job.id, job.task, "args").decode(),
        priority=job.priority,
        ahead=round(job.ahead * MICRO),
        delay=round(job.delay * MICRO),
        expires=None if job.expires_in is None else round(job.expires_in * MICRO),
        options=None if own is None else own.decode(),
        tags=job.tags,
        gates=write_needs(job.gates),
        follow=None if inner is None else inner.decode(),
    )


def sealed(text: bytes | None, id: str, vault: Vault) -> bytes | None:
    """What follows job `id`, as it is stored with it."""
    return changed(text, id, vault.seal) if vault.seals else text


def opened(text: bytes | None, id: str, vault: Vault) -> bytes | None:
    """The way back. Raises `DecodeError`."""
    return changed(text, id, vault.open) if vault.seals else text


def changed(text: bytes | None, id: str, change: Callable[[bytes, str, str, str], bytes]) -> bytes | None:
    """The same with every payload changed so."""
    if text is None:
        return None
    try:
        rows = _decode(text)
    except msgspec.MsgspecError as error:
        raise DecodeError(f"what follows job {id} cannot be read: {error}") from error
    return _encode([change_one(one, f"{id}.{place}", change) for place, one in enumerate(rows)])


def change_one(one: Follower, id: str, change: Callable[[bytes, str, str, str], bytes]) -> Follower:
    """One follower of that id, changed so."""
    own = None if one.options is None else change(one.options.encode(), id, one.task, "options").decode()
    inner = changed(None if one.follow is None else one.follow.encode(), id, change)
    return replace(
        one,
        args=change(one.args.encode(), id, one.task, "args").decode(),
        options=own,
        follow=None if inner is None else inner.decode(),
    )


def with_options(text: bytes | None, change: Callable[[bytes | None], bytes]) -> bytes | None:
    """What follows a job, not sealed, each with its options changed so, through all generations."""
    if text is None:
        return None
    return _encode([with_own(one, change) for one in _decode(text)])


def with_own(one: Follower, change: Callable[[bytes | None], bytes]) -> Follower:
    """One follower with its options changed so, and those of what follows it."""
    inner = with_options(None if one.follow is None else one.follow.encode(), change)
    own = change(None if one.options is None else one.options.encode())
    return replace(one, options=own.decode(), follow=None if inner is None else inner.decode())


def read(text: bytes | None) -> list[Follower]:
    """What follows a job, as it is stored; nothing where that cannot be read."""
    try:
        return _decode(text) if text else []
    except msgspec.MsgspecError:
        return []


def named(on: str) -> str:
    """The name under which those ends are given."""
    return next((name for name, letters in ENDS.items() if letters == on), on)


def depth(text: bytes | None) -> int:
    """How many generations follow."""
    if text is None:
        return 0
    return 1 + max((depth(one.follow.encode() if one.follow else None) for one in _decode(text)), default=0)


def origin_of(id: str) -> str:
    """The id of the job that its line began with: its parent's parent's…, or its own."""
    while (parent := parent_of(id)) is not None:
        id = parent
    return id


def parent_of(id: str) -> str | None:
    """The id of the job that enqueued this one, or whose end made it; None if its id does not tell."""
    found = _OF.fullmatch(id)
    return found[1] if found else None
