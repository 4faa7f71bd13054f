"""What a service manager is told: the protocol of `sd_notify(3)`, datagrams to the socket that NOTIFY_SOCKET names."""

import contextlib
import os
import socket
from collections.abc import MutableMapping


class Systemd:
    """The service manager that started this process, if one did and wants to know."""

    def __init__(self, environment: MutableMapping[str, str] = os.environ) -> None:
        """Take the variables out of the environment: what we start must not speak in our name."""
        self._address = environment.pop("NOTIFY_SOCKET", "")
        microseconds = environment.pop("WATCHDOG_USEC", "")
        meant = environment.pop("WATCHDOG_PID", "")
        mine = bool(self._address) and meant in ("", str(os.getpid()))
        self.watchdog = int(microseconds) / 1e6 if mine and microseconds.isdigit() else 0.0
        self._status = ""

    def ready(self) -> None:
        """The service works."""
        self._tell("READY=1")

    def stopping(self) -> None:
        """The service begins to stop."""
        self._tell("STOPPING=1")

    def alive(self) -> None:
        """All is as it should be; said within `watchdog` seconds, or the manager kills this process."""
        self._tell("WATCHDOG=1")

    def status(self, text: str) -> None:
        """How the service is, for `systemctl status`."""
        if text != self._status:
            self._status = text
            self._tell(f"STATUS={text}")

    def _tell(self, line: str) -> None:
        if not self._address:
            return
        address = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)  # a manager that does not read must not stop a worker
            sock.sendto(line.encode(), address)
