"""What a supervisor and its runners say to each other. Nothing here is user data beyond ids and task names."""

from msgspec import Struct

from windlass.model import Held, Tally
from windlass.pause import View
from windlass.worker.timed import Called


class Hello(Struct, frozen=True, tag=True):
    """Runner: the app is imported, and this is what it says of itself. `keys` open and seal what schedules enqueue."""

    url: str
    lease: float
    grace: float
    keep: dict[str, float]
    tasks: tuple[str, ...]
    max_memory: int = 0
    health: str = ""
    keys: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Hello({len(self.tasks)} tasks)"


class Broken(Struct, frozen=True, tag=True):
    """Runner: the app cannot be imported, or its lifespan failed; the process ends."""

    text: str


class Chosen(Struct, frozen=True, tag=True):
    """Runner: of its slots it uses so many from now on, by adaptive concurrency; what jobs take with few at a time."""

    limit: int
    calm: dict[str, float]


class Welcome(Struct, frozen=True, tag=True):
    """Supervisor: the worker is registered; join it and begin, as soon as there are slots.

    `learnt`: what the predecessor knew of concurrency, if there is one and it is adaptive.
    """

    worker: str
    learnt: Chosen | None = None


class Slots(Struct, frozen=True, tag=True):
    """Supervisor: so many jobs at a time from now on; a predecessor needs the others no longer."""

    slots: int


class Cancel(Struct, frozen=True, tag=True):
    """Supervisor: an operator wants this attempt to end."""

    id: str
    fence: int


class Wake(Struct, frozen=True, tag=True):
    """Supervisor: there may be something to claim."""


class Pause(Struct, frozen=True, tag=True):
    """Supervisor: claim nothing more, and end when nothing runs; this process is replaced."""


class Paused(Struct, frozen=True, tag=True):
    """Supervisor: claim nothing of these queues and tasks; what runs goes on."""

    view: View


class Stop(Struct, frozen=True, tag=True):
    """Supervisor: claim nothing more, end within `grace` seconds."""

    grace: float


class Drained(Struct, frozen=True, tag=True):
    """The helper of a worker inside another process: somebody has asked this worker to end."""


class Child(Struct, frozen=True, tag=True):
    """Runner: a process child was started, or is gone."""

    pid: int
    alive: bool


class Spent(Struct, frozen=True, tag=True):
    """Runner: it has had enough jobs or memory, and should be replaced."""

    why: str


class Left(Struct, frozen=True, tag=True):
    """Runner: it claims nothing more, and so many jobs still run."""

    running: int


class Holding(Struct, frozen=True, tag=True):
    """Runner: the claims that it holds now."""

    held: Held


class Counted(Struct, frozen=True, tag=True):
    """Runner: what its jobs and its calls of the store came to since the last word, and how many jobs run now."""

    rows: tuple[Tally, ...]
    calls: tuple[Called, ...]
    running: int

    def __repr__(self) -> str:
        return f"Counted({len(self.rows)} rows)"


class Bye(Struct, frozen=True, tag=True):
    """A worker inside another process: it stops, and holds nothing any more."""


FromRunner = Hello | Broken | Child | Spent | Left | Chosen | Holding | Counted | Bye
FromSupervisor = Welcome | Slots | Cancel | Wake | Pause | Paused | Drained | Stop
