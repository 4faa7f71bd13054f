"""What a supervisor knows of its worker, as it is shown in `/metrics`."""

import os
from collections.abc import Iterable

from windlass import metrics
from windlass.machine import cpu_time, resident
from windlass.worker.exporter import Readings, Usage
from windlass.worker.health import Vitals
from windlass.worker.pulse import Pulse
from windlass.worker.reports import OWN, Pids
from windlass.worker.seat import Seat


def readings(vitals: Vitals, seats: Iterable[Seat], pulse: Pulse | None, deaths: int) -> Readings:
    """The series without labels."""
    found: Readings = {
        metrics.RUNNING: float(sum(seat.running for seat in seats)),
        metrics.SLOTS: float(vitals.slots),
        metrics.RUNNERS: float(vitals.ready),
        metrics.DEATHS: float(deaths),
    }
    if pulse and vitals.beat is not None:
        found |= {metrics.REAPED: float(pulse.reaped), metrics.LEASE: vitals.lease, metrics.LEASE_AGE: vitals.beat}
    return found


def usage(seats: Iterable[Seat]) -> dict[str, Usage]:
    """What this process takes, and the youngest runner of each line with its process children."""
    found = {"supervisor": Usage(resident(os.getpid()), cpu_time(os.getpid()))}
    for seat in seats:
        if seat is seat.line[-1]:
            found[f"runner-{seat.number}"] = Usage(resident(seat.pid), cpu_time(seat.pid))
            if seat.children:
                found[f"children-{seat.number}"] = Usage(sum(map(resident, seat.children)))
    return found


def processes(seats: Iterable[Seat]) -> Pids:
    """This process, and every runner with its process children."""
    return {OWN: (os.getpid(),), **{seat.id: (seat.pid, *seat.children) for seat in seats}}
