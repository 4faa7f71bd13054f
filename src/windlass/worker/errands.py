"""What a runner and its process children say to each other."""

from msgspec import Struct

from windlass.model import Claim, Outcome, Progress
from windlass.worker.pipeline import Stop


class Do(Struct, frozen=True, tag=True):
    """Runner: run this job now. The child is idle."""

    claim: Claim


class End(Struct, frozen=True, tag=True):
    """Runner: end this attempt, if it still runs. Who does not is killed soon."""

    id: str
    fence: int
    why: Stop


class Leave(Struct, frozen=True, tag=True):
    """Runner: close the app when the running job is over, and end."""


class Ready(Struct, frozen=True, tag=True):
    """Child: the app is imported and its lifespan open."""


class Broken(Struct, frozen=True, tag=True):
    """Child: the app cannot run here, for this reason; the process ends."""

    text: str


class Did(Struct, frozen=True, tag=True):
    """Child: the attempt is over, and the child idle again."""

    outcome: Outcome


class Moved(Struct, frozen=True, tag=True):
    """Child: the attempt got this far, and logged this."""

    id: str
    fence: int
    progress: Progress | None
    lines: str


FromChild = Ready | Broken | Did | Moved
FromRunner = Do | End | Leave
