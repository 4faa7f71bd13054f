"""An app of a later version: it knows a task that the sample does not."""

from windlass import App

app = App()


@app.task(aliases=["tests.worker.other.older"])
def newer() -> str:
    return "new"
