"""The app of the soak: every job writes down nothing; the store is asked in the end."""

import os

from windlass import App

app = App()


@app.task(name="soak.take")
async def take(number: int) -> None: ...


app.source(os.environ["SOURCE"], task=take, name=os.environ["READER"])
