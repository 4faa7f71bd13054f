"""What a supervisor knows of its worker, as it is shown in `/metrics`."""

import os
from collections.abc import Collection, Iterable

from windlass import metrics
from windlass.machine import cpu_time, resident
from windlass.metrics import Found, Series
from windlass.worker.health import Vitals
from windlass.worker.pulse import Pulse
from windlass.worker.reports import OWN, Pids
from windlass.worker.seat import Seat


def readings(vitals: Vitals, seats: Collection[Seat], pulse: Pulse | None, deaths: int) -> Found:
    """How it is, and what its processes take."""
    found: dict[Series, float] = {
        metrics.RUNNING: float(sum(seat.running for seat in seats)),
        metrics.SLOTS: float(vitals.slots),
        metrics.RUNNERS: float(vitals.ready),
        metrics.DEATHS: float(deaths),
    }
    if pulse and vitals.beat is not None:
        found |= {metrics.REAPED: float(pulse.reaped), metrics.LEASE: vitals.lease, metrics.LEASE_AGE: vitals.beat}
    return {**{one: {(): value} for one, value in found.items()}, **taken(seats)}


def taken(seats: Iterable[Seat]) -> Found:
    """The memory and the processor time of this process and of the youngest runner of each line, and the memory of its
    process children: their time is no sum that only grows."""
    young = [seat for seat in seats if seat is seat.line[-1]]
    pids = {"supervisor": os.getpid(), **{f"runner-{seat.number}": seat.pid for seat in young}}
    memory: dict[tuple[str, ...], float] = {(name,): float(resident(pid)) for name, pid in pids.items()}
    memory |= {(f"children-{one.number}",): float(sum(map(resident, one.children))) for one in young if one.children}
    spent = {(name,): cpu_time(pid) for name, pid in pids.items()}
    return {metrics.MEMORY: memory, metrics.CPU: {name: time for name, time in spent.items() if time is not None}}


def processes(seats: Iterable[Seat]) -> Pids:
    """This process, and every runner with its process children."""
    return {OWN: (os.getpid(),), **{seat.id: (seat.pid, *seat.children) for seat in seats}}
