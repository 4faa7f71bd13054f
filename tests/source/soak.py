"""Messages while workers are killed and the broker is restarted: python -m tests.source.soak --broker rabbitmq.

A worker is killed every few seconds, with all its processes, and another one started; the broker is restarted twice
while messages are sent and read. In the end each message must have exactly one job. Prints one line of figures; the
exit code is 1 if a message has no job, or two.
"""

import argparse
import asyncio
import contextlib
import json
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil

from tests.source.kinds import KINDS, Kind
from tests.worker.rig import Rig, empty_store
from windlass.model import Filter
from windlass.store.dispatch import make_store

BROKERS = {"rabbitmq": "amqp", "mosquitto": "mqtt", "nats": "nats", "redis": "redis"}
BATCH = 500
"""Messages that are sent at a time."""

LONGEST = 1800.0
"""Seconds after which it is given up."""


class Soak:
    """One run."""

    def __init__(self, kind: Kind, rig: Rig, messages: int, every: float) -> None:
        self.kind, self.rig, self.messages, self.every = kind, rig, messages, every
        self.kills = self.restarts = self.again = 0
        self.sending = True

    async def run(self) -> Counter[int]:
        """The jobs by the number of their message."""
        await self.kind.prepare()
        killing = asyncio.create_task(self.kill())
        sending = asyncio.create_task(self.send())
        store = make_store(self.rig.url)
        await store.open()
        try:
            async with asyncio.timeout(LONGEST):
                for part in (1, 2):
                    while await store.count(Filter()) < self.messages * part / 3:
                        await asyncio.sleep(0.2)
                    await asyncio.to_thread(self.kind.server.restart)
                    self.restarts += 1
                await sending
                while await store.count(Filter()) < self.messages or await self.kind.left():
                    await asyncio.sleep(1.0 if self.kind.watched else 20.0)
        finally:
            killing.cancel()
            sending.cancel()
            await asyncio.gather(killing, sending, return_exceptions=True)
        found: Counter[int] = Counter()
        after = None
        while True:
            page = await store.find(Filter(), 1000, after)
            found.update(json.loads(job.args)["number"] for job in page.jobs)
            if (after := page.after) is None:
                break
        await store.close()
        return found

    async def send(self) -> None:
        """Send the messages; a batch that failed is sent again from its first message that the broker did not take."""
        for first in range(0, self.messages, BATCH):
            batch = [str(number).encode() for number in range(first, min(first + BATCH, self.messages))]
            ids = [f"{self.kind.name}-{number.decode()}" for number in batch]
            while True:
                try:
                    async with asyncio.timeout(30):
                        await self.kind.publish(batch, ids)
                    break
                except Exception as error:
                    self.again += 1
                    print(f"sending again after {type(error).__name__}: {error}", file=sys.stderr)
                    await asyncio.sleep(0.5)

    async def kill(self) -> None:
        """Start a worker, kill it with its processes, start another."""
        while True:
            worker = self.rig.start("--processes", "1", app="tests.source.soak_app:app")
            await asyncio.sleep(self.every)
            with contextlib.suppress(psutil.NoSuchProcess):
                main = psutil.Process(worker.pid)
                for one in [*main.children(recursive=True), main]:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        one.kill()
            worker.wait()
            self.kills += 1


def main() -> int:
    """From arguments to an exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.source.soak", description=__doc__)
    parser.add_argument("--broker", choices=sorted(BROKERS), required=True)
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--store", choices=["sqlite", "postgres", "redis"], default="postgres")
    parser.add_argument("--kill-every", type=float, default=5.0, help="seconds")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kind = KINDS[BROKERS[given.broker]](folder)
        rig = Rig(folder, empty_store(given.store, folder))
        rig.environment |= {"SOURCE": kind.url, "READER": kind.reader}
        soak = Soak(kind, rig, given.messages, given.kill_every)
        began = time.monotonic()
        try:
            found = asyncio.run(soak.run())
        except TimeoutError:
            print(rig.text()[-3000:], file=sys.stderr)
            raise
        finally:
            rig.close()
        missing = given.messages - len(found)
        double = sum(count - 1 for count in found.values())
        print(
            f"{given.broker} into {given.store}: {given.messages:,} messages in {time.monotonic() - began:.0f} s, "
            f"{soak.kills} workers killed, {soak.restarts} restarts of the broker, {soak.again} batches sent again: "
            f"{missing} messages without a job, {double} jobs too many"
        )
        return 1 if missing or double else 0


if __name__ == "__main__":
    os.chdir(Path(__file__).parent.parent.parent)
    raise SystemExit(main())
