"""Tasks whose jobs hold a canary: in arguments, results, errors, progress, reasons and meta."""

import asyncio

from windlass import App, Cancel, Retry, current

app = App(grace=1.0)


@app.task
async def echo(text: str, n: int = 0) -> dict[str, str]:
    current().progress(1, 2, f"note {text}")
    return {"result": text}


@app.task
def echo_in_thread(text: str, n: int = 0) -> dict[str, str]:
    current().progress(1, 2, f"note {text}")
    return {"result": text}


@app.task(executor="process")
def echo_in_process(text: str, n: int = 0) -> dict[str, str]:
    current().progress(1, 2, f"note {text}")
    return {"result": text}


@app.task(retry=Retry(attempts=1))
async def fail(text: str) -> None:
    raise ValueError(f"cannot take {text}")


@app.task(retry=Retry(attempts=1), executor="process")
def fail_in_process(text: str) -> None:
    raise ValueError(f"cannot take {text}")


@app.task
async def cancel(text: str) -> None:
    raise Cancel(f"do not want {text}")


@app.task
async def linger(text: str) -> None:
    """Long enough for its progress to be stored."""
    current().progress(1, 2, f"note {text}")
    await asyncio.sleep(1.2)


@app.task
def book(text: str) -> str:
    with current().transaction(result=f"booked {text}"):
        pass
    return f"booked {text}"
