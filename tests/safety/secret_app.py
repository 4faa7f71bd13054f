"""Tasks that are trusted with secrets, and tell them wherever a task can tell something."""

import logging
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import quote_plus

from windlass import App, Cancel, Hook, Retry, Secret, Snooze, current
from windlass.context import Context
from windlass.model import Outcome
from windlass.policy import MAX_TEXT


@dataclass
class Card:
    number: Annotated[str, {"shown": "nowhere"}, Secret()]
    holder: str


Hidden = Annotated[str, Secret()]


class Loud(Hook):
    def before(self, context: Context) -> None:
        logging.getLogger("shop").info("begins: %r", context.job)

    def after(self, context: Context, outcome: Outcome) -> None:
        logging.getLogger("shop").info("ended: %r", outcome)


app = App(grace=1.0, hooks=[Loud()])


class Speaking:
    """Cannot be stored, and says why."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text

    def model_dump_json(self, **_: Any) -> str:
        raise ValueError(self.text)


def tell(how: str, given: dict[str, Any]) -> Any:
    """End as `how` says, with everything in it."""
    text, everything = given["text"], f"known {given} {quote_plus(given['text'])} {given['raw'].decode()}"
    current().log.warning("runs as %r", current().job)
    current().progress(1, 2, everything)
    match how:
        case "raise":
            raise ValueError(everything) from KeyError(text)
        case "group":
            raise ExceptionGroup("known group", [ValueError(given["pem"]), KeyError(everything)])
        case "cut head":
            raise ValueError("x" * (MAX_TEXT - 12) + text)
        case "cut tail":
            raise ValueError(text + "x" * (MAX_TEXT - 12))
        case "cancel":
            raise Cancel(everything)
        case "snooze":
            raise Snooze(3600, everything)
        case "speak":
            return Speaking(text)
    return everything


@app.task(retry=Retry(attempts=1))
async def on_loop(
    how: str, text: Hidden, many: Annotated[list[str], Secret()], raw: Annotated[bytes, Secret()],
    number: Annotated[int, Secret()], pem: Hidden, card: Card, default: Hidden = "unset",
    **named: Hidden,
) -> Hidden:  # fmt: skip
    return tell(how, locals())  # type: ignore[no-any-return]


@app.task(retry=Retry(attempts=1))
def in_thread(
    how: str, text: Hidden, many: Annotated[list[str], Secret()], raw: Annotated[bytes, Secret()],
    number: Annotated[int, Secret()], pem: Hidden, card: Card, **named: Hidden,
) -> Hidden:  # fmt: skip
    return tell(how, locals())  # type: ignore[no-any-return]


@app.task(executor="process", retry=Retry(attempts=1))
def in_process(
    how: str, text: Hidden, many: Annotated[list[str], Secret()], raw: Annotated[bytes, Secret()],
    number: Annotated[int, Secret()], pem: Hidden, card: Card, **named: Hidden,
) -> Hidden:  # fmt: skip
    return tell(how, locals())  # type: ignore[no-any-return]
