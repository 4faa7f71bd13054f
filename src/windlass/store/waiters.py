"""Who waits for a hint in this process, in whatever event loop."""

import asyncio
import contextlib

from windlass.store.contract import Topic


class Waiters:
    """Who waits for which bell, in any event loop of this process. A ring that nobody hears is kept for the next."""

    def __init__(self) -> None:
        self._waiting: dict[Topic, set[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]]] = {}
        self._kept: set[Topic] = set()

    def wake(self, topic: Topic) -> None:
        """End every wait for `topic`."""
        waiting = self._waiting.pop(topic, None)
        if not waiting:
            self._kept.add(topic)
            return
        for loop, heard in waiting:
            with contextlib.suppress(RuntimeError):  # that loop is closed
                loop.call_soon_threadsafe(finish, heard)

    async def wait(self, topic: Topic, timeout: float) -> bool:
        """Whether `topic` was rung within `timeout` seconds, or before without being heard."""
        if topic in self._kept:
            self._kept.discard(topic)
            return True
        loop = asyncio.get_running_loop()
        heard: asyncio.Future[None] = loop.create_future()
        entry = (loop, heard)
        self._waiting.setdefault(topic, set()).add(entry)
        try:
            await asyncio.wait_for(heard, timeout)
        except TimeoutError:
            return False
        finally:
            self._waiting.get(topic, set()).discard(entry)
        return True


def finish(heard: asyncio.Future[None]) -> None:
    """End one wait, unless it ended by itself."""
    if not heard.done():
        heard.set_result(None)
