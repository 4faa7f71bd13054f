"""An app with a schedule of one second, which CODE=new declares under another name."""

import os

from windlass import App, current, every

app = App(lease=2.0)


@app.schedule(every(seconds=1), name=os.environ.get("CODE", "old"), catch_up="all")
@app.task(name="clock.tick")
def tick() -> list[object]:
    """The schedule and the moment that it is for."""
    context = current()
    return [context.schedule, context.tick]
