"""The app of `tests.faults.publishes`: in workers, five subscribers; as a program, a publisher that knows none."""

import os
import sys
from pathlib import Path

from windlass import App, StoreError

TOPIC = "order.paid"

app = App(os.environ["WINDLASS_URL"], lease=2.0, grace=3.0)


async def hear(event: int) -> None:
    """Nothing: that it was made is what counts."""


if __name__ != "__main__":
    for number in range(5):
        app.on(TOPIC)(app.task(name=f"hear{number}")(hear))


def publish(file: Path, most: int) -> None:
    """Publish numbers from where the file ends, and write each down when it is published."""
    with file.open("a+b", buffering=0) as done:
        done.seek(0)
        number = len(done.read().split())
        while number < most:
            try:
                app.publish(TOPIC, number, id=f"event-{number}")
            except StoreError:
                continue
            done.write(b"%d\n" % number)
            number += 1


if __name__ == "__main__":
    publish(Path(sys.argv[1]), int(sys.argv[2]))
