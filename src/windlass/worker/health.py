"""How a worker is, as it shows others: probes over HTTP, and the service manager that started it."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from windlass.config import address_of
from windlass.errors import ConfigError
from windlass.worker.http import Answer, Route, Server, as_json
from windlass.worker.systemd import Systemd

STUCK = 15.0
"""Seconds without a turn of what should turn several times a second; then only a restart helps."""

UNMANNED = 60.0
"""Seconds without any runner process, though they are started again and again; then too."""

TELL_EVERY = 1.0
"""Seconds between two words to the service manager; less if its watchdog wants it."""


@dataclass(frozen=True, slots=True)
class Vitals:
    """Seconds since things happened last, and what there is. `beat`: None before the worker is registered."""

    worker: str
    ready: int
    slots: int
    stopping: bool
    lease: float
    beat: float | None
    turn: float
    manned: float

    def not_live(self) -> list[str]:
        """Why this process should be ended and started again; a store that is away is no reason."""
        why = []
        if self.turn > STUCK:
            why.append(f"the runners have not been looked after for {self.turn:.0f} s")
        if self.manned > UNMANNED and not self.stopping:
            why.append(f"no runner could be started for {self.manned:.0f} s")
        return why

    def not_ready(self) -> list[str]:
        """Why this worker begins no job now."""
        why = self.not_live()
        if self.stopping:
            why.append("the worker is stopping")
        if self.beat is None:
            why.append("the worker is not registered with its store yet")
        elif self.beat > self.lease / 2:
            why.append(f"the store has not answered for {self.beat:.1f} s")
        if not self.ready:
            why.append("no runner is ready")
        return why


class Health:
    """Shows the vitals of one worker. `routes` is the place for whatever else its port shall answer."""

    def __init__(self, vitals: Callable[[], Vitals]) -> None:
        self._vitals = vitals
        self._systemd = Systemd()
        self.routes: dict[str, Route] = {"/livez": self._livez, "/readyz": self._readyz}
        self._server = Server(self.routes)

    async def open(self, address: str) -> None:
        """Answer at this address, if there is one and we do not yet. Raises `ConfigError`."""
        if not address or self._server.is_open:
            return
        host, port = address_of(address)
        try:
            await self._server.open(host, port)
        except OSError as error:
            raise ConfigError(f"expected a free address for health; {address} cannot be used: {error}") from error

    def close(self) -> None:
        """Answer no more."""
        self._server.close()

    async def run(self) -> None:
        """Keep the service manager informed, until cancelled."""
        begun = False
        pause = min(TELL_EVERY, self._systemd.watchdog / 3 or TELL_EVERY)
        while True:
            vitals = self._vitals()
            if not begun and vitals.beat is not None:
                self._systemd.ready()
                begun = True
            if not vitals.not_live():
                self._systemd.alive()
            self._systemd.status("; ".join(vitals.not_ready()) or f"{vitals.ready} runners, {vitals.slots} slots")
            await asyncio.sleep(pause)

    def stopping(self) -> None:
        """The worker begins to stop."""
        self._systemd.stopping()

    def _livez(self) -> Answer:
        vitals = self._vitals()
        return answer("live", vitals.not_live(), vitals)

    def _readyz(self) -> Answer:
        vitals = self._vitals()
        return answer("ready", vitals.not_ready(), vitals)


def answer(what: str, why_not: list[str], vitals: Vitals) -> Answer:
    """200 if there is no reason against it, else 503; and the reasons."""
    body: dict[str, Any] = {
        what: not why_not,
        "why": why_not,
        "worker": vitals.worker,
        "runners": vitals.ready,
        "slots": vitals.slots,
    }
    return as_json(503 if why_not else 200, body)
