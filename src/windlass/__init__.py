"""Background jobs for Python that can be trusted."""

from windlass.app import App
from windlass.breaker import Breaker
from windlass.context import current
from windlass.errors import (
    CallError,
    Cancel,
    ConfigError,
    DecodeError,
    EncodeError,
    EnqueueUnknown,
    Fail,
    JobCancelled,
    JobFailed,
    JobNotFound,
    NotUnique,
    PayloadTooLarge,
    QueueDraining,
    QueueFull,
    ResultTimeout,
    ScheduleNotFound,
    Snooze,
    StoreError,
    StoreUnavailable,
    WindlassError,
    WorkerNotFound,
    WorkerTooOld,
)
from windlass.hook import Hook
from windlass.jobs import Job
from windlass.limits import limit, rate
from windlass.model import State
from windlass.outbox import Outbox
from windlass.policy import Retry
from windlass.schedules import Schedule
from windlass.secret import Secret
from windlass.task import Task
from windlass.timing import at, cron, every, rrule
from windlass.unique import Unique, debounce

__all__ = [
    "App",
    "Breaker",
    "CallError",
    "Cancel",
    "ConfigError",
    "DecodeError",
    "EncodeError",
    "EnqueueUnknown",
    "Fail",
    "Hook",
    "Job",
    "JobCancelled",
    "JobFailed",
    "JobNotFound",
    "NotUnique",
    "Outbox",
    "PayloadTooLarge",
    "QueueDraining",
    "QueueFull",
    "ResultTimeout",
    "Retry",
    "Schedule",
    "ScheduleNotFound",
    "Secret",
    "Snooze",
    "State",
    "StoreError",
    "StoreUnavailable",
    "Task",
    "Unique",
    "WindlassError",
    "WorkerNotFound",
    "WorkerTooOld",
    "at",
    "cron",
    "current",
    "debounce",
    "every",
    "limit",
    "rate",
    "rrule",
]
