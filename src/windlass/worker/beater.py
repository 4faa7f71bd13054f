"""The helper of a worker inside a user's own process: it beats for it, because user code cannot keep it from that.

It cannot kill its host. So it promises less than a supervisor: a host that blocks keeps its lease and its jobs, and a
timeout that a thread ignores is not enforced.
"""

import asyncio
import json
import os
import signal
import socket
import sys
from typing import Any

from windlass.clock import SystemClock
from windlass.errors import StoreError
from windlass.model import Ending, Held, Orders, State
from windlass.pause import View
from windlass.store.dispatch import make_store
from windlass.vault import Vault
from windlass.worker.board import Board
from windlass.worker.duties import Duties
from windlass.worker.fires import Fires
from windlass.worker.logs import set_up
from windlass.worker.messages import Bye, Cancel, Drained, FromRunner, Holding, Paused, Wake, Welcome
from windlass.worker.pauses import Pauses
from windlass.worker.pulse import Pulse
from windlass.worker.reports import OWN, Reports
from windlass.worker.wire import Channel


class Beater:
    """Beats for the host at the other end of the channel, until it leaves or dies."""

    def __init__(self, given: dict[str, Any]) -> None:
        self._given = given
        self._board = Board(given["board"])
        self._parent = os.getppid()
        self._store = make_store(given["url"])
        self._held: dict[str, Held] = {}
        self._stopping = asyncio.Event()
        self._fires = Fires(self._store, Vault(given["keys"]))
        self._pulse = Pulse(
            self._store,
            SystemClock(),
            given["lease"],
            queues=given["queues"],
            concurrency=given["concurrency"],
            held=lambda: self._held,
            on_orders=self._follow,
            on_evicted=self._evicted,
        )

    async def main(self) -> None:
        """From registration to the end of the host."""
        self._channel = await Channel.open(socket.socket(fileno=self._given["channel"]), FromRunner)
        await self._store.open()
        await self._pulse.enlist()
        self._board.beat = self._pulse.last
        self._channel.send(Welcome(worker=self._pulse.id))
        keep = {State(state): seconds for state, seconds in self._given["keep"].items()}
        duties = Duties(self._store, keep)
        pauses = Pauses(self._store, self._hold, every=not self._given["queues"])
        pids = {OWN: (os.getpid(),), self._given["id"]: (self._parent,)}
        reports = Reports(self._store, lambda: self._pulse.id, lambda: pids, self._stopping)
        work = [asyncio.create_task(one.run()) for one in (self._pulse, duties, self._fires, pauses, reports)]
        clean = False
        async for message in self._channel:
            if isinstance(message, Holding):
                self._held = {self._given["id"]: message.held}
            clean = isinstance(message, Bye)
        for task in work:
            task.cancel()
        try:
            if not clean:
                await asyncio.wait_for(self._store.release([self._given["id"]], Ending.LOST), 10)
        except (StoreError, TimeoutError):
            pass
        await self._pulse.leave()
        await self._store.close()

    def _hold(self, view: View) -> None:
        self._channel.send(Paused(view=view))
        if self._pulse.id in view.workers and not self._stopping.is_set():
            self._stopping.set()
            self._channel.send(Drained())

    def _follow(self, orders: Orders) -> None:
        if os.getppid() != self._parent:  # a copy that the host forked keeps the channel open, but nobody works there
            os.kill(os.getpid(), signal.SIGKILL)
        self._board.beat = self._pulse.last
        for order in orders.cancel:
            self._channel.send(Cancel(id=order.id, fence=order.fence))
        self._fires.hear(orders.fire)
        if orders.due is not None and orders.due < 1.0:
            asyncio.get_running_loop().call_later(orders.due, self._channel.send, Wake())

    async def _evicted(self) -> None:
        """The host finds out by itself at its next exchange."""


def main() -> None:
    """`python -m windlass.worker.beater`, what it is about on its input; started by `App.worker()` only."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    set_up()
    asyncio.run(Beater(json.load(sys.stdin)).main())


if __name__ == "__main__":
    main()
