"""PURE: a call kept as data, which makes many jobs: what schedules and subscriptions enqueue."""

from collections.abc import Callable

from msgspec import Struct
from msgspec.structs import replace

from windlass import follow
from windlass.errors import ConfigError
from windlass.model import Need, NewJob
from windlass.vault import Vault


class Call(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is enqueued. Where payloads are sealed, `args`, `options` and followers are, under their keeper's name."""

    task: str
    args: bytes
    queue: str = "default"
    priority: int = 0
    ahead: float = 0
    expires_in: float | None = None
    tags: tuple[str, ...] = ()
    options: bytes | None = None
    follow: bytes | None = None
    gates: tuple[Need, ...] = ()


def call_of(job: NewJob, vault: Vault, instead: str) -> Call:
    """What makes jobs like this one, not sealed. Raises `ConfigError` for options that only one job can have; `instead`
    says what there is for them."""
    if job.delay or job.run_at is not None or job.unique or not job.fresh:
        raise ConfigError(
            f"this call of {job.task} makes many jobs, so it takes no delay, run_at, unique or id: {instead}"
        )
    own = job.options
    return Call(
        task=job.task,
        args=vault.open(job.args, job.id, job.task, "args"),
        queue=job.queue,
        priority=job.priority,
        ahead=job.ahead,
        expires_in=job.expires_in,
        tags=job.tags,
        options=None if own is None else vault.open(own, job.id, job.task, "options"),
        follow=follow.opened(job.follow, job.id, vault),
        gates=job.gates,
    )


def job_of(call: Call, id: str, vault: Vault, *, fresh: bool = False) -> NewJob:
    """A job of a call that is not sealed."""
    made = changed(call, id, vault.seal)
    return NewJob(
        id=id,
        task=made.task,
        args=made.args,
        queue=made.queue,
        priority=made.priority,
        ahead=made.ahead,
        expires_in=made.expires_in,
        tags=made.tags,
        options=made.options,
        follow=follow.sealed(call.follow, id, vault),
        gates=made.gates,
        fresh=fresh,
    )


def seal_call(name: str, call: Call, vault: Vault) -> Call:
    """A call as its keeper of that name has it."""
    return replace(changed(call, place(name), vault.seal), follow=follow.sealed(call.follow, place(name), vault))


def open_call(name: str, call: Call, vault: Vault) -> Call:
    """The way back. Raises `DecodeError`."""
    return replace(changed(call, place(name), vault.open), follow=follow.opened(call.follow, place(name), vault))


def changed(call: Call, id: str, change: Callable[[bytes, str, str, str], bytes]) -> Call:
    """The same with its own payloads changed so."""
    own = call.options
    return replace(
        call,
        args=change(call.args, id, call.task, "args"),
        options=None if own is None else change(own, id, call.task, "options"),
    )


def place(name: str) -> str:
    """What stands for a job's id where a kept call is sealed."""
    return f"call:{name}"
