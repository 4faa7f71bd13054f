"""Tasks that write down what they get."""

from typing import Any

from windlass import App, Retry, current

app = App(grace=1.0)
got: dict[str, Any] = {}


def keep(value: Any) -> None:
    job = current().job
    assert job
    assert job.id not in got
    got[job.id] = value


@app.task(retry=Retry(attempts=1))
async def take(value: Any) -> None:
    keep(value)


@app.task(retry=Retry(attempts=1))
async def typed(text: str, n: int = 0, items: list[int] | None = None) -> None:
    keep((text, n, items))
