"""The series of `/metrics`: their names, and the text that Prometheus reads (exposition format 0.0.4).

Written by hand: docs/design/dependencies.md says why.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Literal, NamedTuple

from windlass.model import BUCKETS

KIND = "text/plain; version=0.0.4; charset=utf-8"
"""The content type."""

MOST = 200
"""Pairs of queue and task, or queues, that are told apart; the rest is OTHER. Prometheus keeps each for long."""

CALL_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
"""Upper bounds, in seconds, for what a call of the store takes."""


class Spread(NamedTuple):
    """A histogram: counts by bucket, the last one beyond all bounds, and the sum in seconds."""

    counts: Sequence[int]
    seconds: float


class Series(NamedTuple):
    """One name, with what it counts, its labels, and the upper bounds of its buckets."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()


Samples = Mapping[tuple[str, ...], float | Spread]
"""Values by the values of the labels."""

Found = Mapping[Series, Samples]

JOB = ("queue", "task")

# One worker's own

STARTED = Series("windlass_jobs_started_total", "counter", "Attempts that began here.", JOB)
ENDED = Series(
    "windlass_jobs_total",
    "counter",
    "Attempts that ended here, by outcome: succeeded, failed (for good), cancelled, retried, lost (its process died).",
    (*JOB, "outcome"),
)
WAIT = Series("windlass_job_wait_seconds", "histogram", "From due to begun.", JOB, BUCKETS)
RUN = Series("windlass_job_run_seconds", "histogram", "From begun to ended, however it ended.", JOB, BUCKETS)
RUNNING = Series("windlass_worker_running", "gauge", "Jobs that run in this worker.")
SLOTS = Series("windlass_worker_slots", "gauge", "Jobs that this worker runs at a time at most.")
RUNNERS = Series("windlass_worker_runners", "gauge", "Runner processes that are ready.")
DEATHS = Series("windlass_worker_runner_deaths_total", "counter", "Runner processes that died unasked.")
REAPED = Series(
    "windlass_worker_reaped_total", "counter", "Other workers whose lease was over, found dead by this one."
)
LEASE = Series("windlass_worker_lease_seconds", "gauge", "Seconds after which a silent worker counts as dead.")
LEASE_AGE = Series("windlass_worker_lease_age_seconds", "gauge", "Seconds since this worker's lease was renewed.")
CALLS = Series(
    "windlass_store_call_seconds", "histogram", "What calls of the store took, by method.", ("method",), CALL_BUCKETS
)
ERRORS = Series(
    "windlass_store_errors_total", "counter", "Calls that the store did not take or answer, by method.", ("method",)
)
MEMORY = Series(
    "windlass_process_resident_memory_bytes",
    "gauge",
    "Memory of the supervisor, of each runner, and of each runner's process children together.",
    ("process",),
)
CPU = Series(
    "windlass_process_cpu_seconds_total", "counter", "Processor time of the supervisor and each runner.", ("process",)
)
BUILD = Series("windlass_build_info", "gauge", "Always 1.", ("version", "python"))

# The store's: the same from whoever tells it

UP = Series("windlass_store_up", "gauge", "Whether the store answers: 1 or 0.")
AGE = Series("windlass_store_age_seconds", "gauge", "Seconds since what is told of the store was read.")
DEPTH = Series("windlass_queue_jobs", "gauge", "Live jobs; waiting ones wait for a limit.", ("queue", "state"))
OLDEST = Series(
    "windlass_queue_oldest_seconds", "gauge", "Seconds that the oldest ready job has been due; 0: none is.", ("queue",)
)
LAG = Series("windlass_schedule_lag_seconds", "gauge", "Seconds by which the latest schedule is late; 0: none is.")
WORKERS = Series("windlass_workers", "gauge", "Workers whose lease is not over.")
ALL_SLOTS = Series("windlass_slots", "gauge", "Jobs that those workers run at a time at most.")

ALL = (
    *(STARTED, ENDED, WAIT, RUN, RUNNING, SLOTS, RUNNERS, DEATHS, REAPED, LEASE, LEASE_AGE, CALLS, ERRORS, MEMORY, CPU),
    *(BUILD, UP, AGE, DEPTH, OLDEST, LAG, WORKERS, ALL_SLOTS),
)
"""Every series there is."""


def build() -> Found:
    """What runs here."""
    return {BUILD: {(version("windlass"), ".".join(map(str, sys.version_info[:3]))): 1.0}}


def text(found: Found) -> bytes:
    """All of it, for Prometheus."""
    return "".join(line for series, samples in found.items() for line in written(series, samples)).encode()


def written(series: Series, samples: Samples) -> Iterator[str]:
    """The lines of one series."""
    yield f"# HELP {series.name} {series.help}\n# TYPE {series.name} {series.kind}\n"
    for values, value in samples.items():
        labels = ",".join(f'{name}="{escaped(one)}"' for name, one in zip(series.labels, values, strict=True))
        if isinstance(value, Spread):
            yield spread(series, labels, value)
        else:
            yield f"{series.name}{{{labels}}} {value!r}\n" if labels else f"{series.name} {value!r}\n"


def spread(series: Series, labels: str, value: Spread) -> str:
    """The lines of one histogram: how many took at most as long as each bound."""
    start = f"{series.name}_bucket{{{labels}{',' if labels else ''}le="
    total, lines = 0, []
    for bound, count in zip((*series.bounds, "+Inf"), value.counts, strict=True):
        total += count
        lines.append(f'{start}"{bound}"}} {total}\n')
    own = f"{{{labels}}}" if labels else ""
    return "".join(lines) + f"{series.name}_sum{own} {value.seconds!r}\n{series.name}_count{own} {total}\n"


def escaped(label: str) -> str:
    """The value of a label; what is no text is shown as a question mark."""
    plain = label.encode("utf-8", "replace").decode()
    return plain.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
