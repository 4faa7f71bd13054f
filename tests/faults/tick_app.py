"""The app of `tests.faults.ticks`."""

import os

from windlass import App

app = App(os.environ["WINDLASS_URL"], lease=2.0, grace=3.0)


@app.task(name="tick")
async def tick() -> None:
    """Nothing: that it was made is what counts."""
