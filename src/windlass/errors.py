"""The errors of Windlass. Each says what was expected, what came, and what to do."""

from datetime import timedelta


class WindlassError(Exception):
    """Base of all errors that Windlass raises at its callers."""


class ConfigError(WindlassError):
    """A setting is missing or wrong."""


class UnknownTask(WindlassError, LookupError):
    """No task of that name is known here."""


class CallError(WindlassError, TypeError):
    """The arguments do not fit the task's signature."""


class EncodeError(WindlassError, ValueError):
    """A value cannot be stored. `path` leads to it, as in `args.order.lines[3]`."""

    def __init__(self, message: str, path: str) -> None:
        super().__init__(f"{path}: {message}")
        self.path = path


class PayloadTooLarge(EncodeError):
    """The encoded value is over the limit (`max_payload`)."""


class DecodeError(WindlassError, ValueError):
    """Stored bytes do not fit the task's annotations any more."""


class ScheduleNotFound(WindlassError, LookupError):
    """There is no schedule of that name."""


class WorkerNotFound(WindlassError, LookupError):
    """There is no such worker: it never was, or it has ended."""


class WorkerTooOld(WindlassError):
    """A worker does not hear what is asked of it: its version knows of no such thing. Nothing was changed."""


class StoreError(WindlassError):
    """The store could not do what was asked."""


class StoreUnavailable(StoreError):
    """The store cannot be reached or opened, or did not answer in time; nothing was written."""


class NotUnique(WindlassError):
    """Another job holds the unique key (`on_conflict="raise"`); nothing was stored. `job` is the id of that one."""

    def __init__(self, message: str, job: str) -> None:
        super().__init__(message)
        self.job = job


class EnqueueUnknown(StoreError):
    """The store did not answer in time: the job `id` may exist. Repeating with `using(id=…)` is safe."""

    def __init__(self, message: str, id: str) -> None:
        super().__init__(message)
        self.id = id


class QueueFull(WindlassError):
    """A queue with a `max_length` has no room. `depth` is how many jobs waited in it; `stored` are the ids of those
    calls of the same bulk that had found room before, which stay."""

    def __init__(self, message: str, queue: str, depth: int) -> None:
        super().__init__(message)
        self.queue, self.depth = queue, depth
        self.stored: tuple[str, ...] = ()


class QueueDraining(WindlassError):
    """A queue takes no more jobs, because somebody drains it (`app.queues.drain`); nothing was stored."""

    def __init__(self, message: str, queue: str) -> None:
        super().__init__(message)
        self.queue = queue


class UniquePending(StoreError):
    """Another transaction that is still open has taken the unique key: whether it stays is not known yet. Nothing was
    written, and your own transaction is as it was: try again after that one ends."""


class Conflict(StoreError):
    """A document was changed by somebody else since it was read; nothing was written."""


class Evicted(StoreError):
    """This runner or worker is no longer registered: its jobs belong to others. Stop, and start under a new id."""


class JobNotFound(WindlassError, LookupError):
    """There is no such job (never was, was deleted, or retention dropped it)."""


class JobFailed(WindlassError):
    """The job failed for good. The text holds its last error; `type` and `traceback` tell more."""

    def __init__(self, message: str, type: str = "", traceback: str = "") -> None:
        super().__init__(message)
        self.type, self.traceback = type, traceback


class JobCancelled(WindlassError):
    """The job was cancelled, or expired before it started."""


class ResultTimeout(WindlassError, TimeoutError):
    """The job was not finished when the time given to `result()` was over. It goes on."""


class TooManyWaiting(WindlassError):
    """So many jobs wait for jobs of their own that one more cannot. As any error, it is tried again by its retry."""


class Directive(Exception):
    """Base of what a task raises to say how its attempt ends. Not an error: never logged as one."""


class Snooze(Directive):
    """Run again after `delay` (seconds, or a timedelta) without charging an attempt."""

    def __init__(self, delay: float | timedelta, reason: str = "") -> None:
        self.delay = delay.total_seconds() if isinstance(delay, timedelta) else float(delay)
        super().__init__(reason or f"snoozed for {self.delay:g} s")


class Cancel(Directive):
    """End as cancelled: the work is not wanted any more."""


class Fail(Directive):
    """Fail for good now, whatever attempts are left."""
