"""A store under load, with workers to do it, and what a fault needs to happen to them."""

import contextlib
import functools
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import psutil
from uuid_utils import uuid7

from tests.faults import app as load_app
from tests.faults.follower import Follower
from tests.faults.grounds import Ground
from tests.history import Event, Log, read, tell_found
from windlass.errors import StoreError, WindlassError
from windlass.model import FINAL, JobRecord

ROOT = Path(__file__).parent.parent.parent
LEASE, GRACE, ENQUEUE = 2.0, 3.0, 2.0
"""The test profile, in seconds: lease, grace, and the most that one enqueue may take."""

GONE_WITHIN = 2.0
"""Seconds in which nothing may be left of what was killed, and of what that had started."""

PATIENCE = 60.0
"""Seconds in which, when nothing new comes, one of the jobs that are left is over; else they are stuck."""

WORKED_OFF = 600.0
"""Seconds in which, when nothing new comes, all are."""


class Mix(msgspec.Struct, frozen=True):
    """What the load is made of: jobs per second, how long they take, and how many in a hundred are special."""

    rate: float = 30.0
    seconds: tuple[float, float] = (0.005, 0.5)
    threads: int = 20
    processes: int = 8
    stumbling: int = 8
    delayed: int = 10
    unique: int = 10
    long: float = 0.0
    """Seconds that `longs` jobs in a hundred take, if any do."""
    longs: float = 5.0


class Load(threading.Thread):
    """Enqueues a mix of jobs. What was not acknowledged is repeated under its id until it is."""

    def __init__(self, url: str, log: Log, mix: Mix, seed: int) -> None:
        super().__init__(daemon=True)
        self.put: dict[str, int] = {}
        """The jobs that the store took, and the attempts that each shall be charged."""
        self.slowest = 0.0
        self.refused = 0
        self._app = load_app.make_app(url, enqueue_timeout=ENQUEUE)
        self._log, self._mix, self._dice = log, mix, random.Random(seed)
        self._unsure: list[tuple[str, Callable[[], Any], str, int]] = []
        self._over = threading.Event()

    def run(self) -> None:
        """Until `finish`."""
        due = time.monotonic()
        while not self._over.is_set() or self._unsure:
            if not self._over.is_set() and len(self._unsure) < 200:
                self._unsure.append(self._make())
            for one in tuple(self._unsure[-3:]):  # after an outage three for each that is new
                if not self._try(*one):
                    break
                self._unsure.remove(one)
            due = max(due + 1 / self._mix.rate, time.monotonic() - 0.1)  # what an outage left out is not made up for
            self._over.wait(max(0.0, due - time.monotonic()))

    def _make(self) -> tuple[str, Callable[[], Any], str, int]:
        mix, roll = self._mix, functools.partial(self._dice.uniform, 0, 100)
        seconds = self._dice.uniform(*mix.seconds)
        if mix.long and roll() < mix.longs:
            seconds = mix.long
        kind = roll()
        bounds = (("doze", mix.threads), ("toil", mix.processes), ("stumble", mix.stumbling))
        name = "nap"
        for other, share in bounds:
            if kind < share:
                name = other
                break
            kind -= share
        id, options = str(uuid7()), dict[str, Any]()
        if roll() < mix.delayed:
            options["delay"] = self._dice.uniform(0.05, 1.0)
        if roll() < mix.unique:
            options["unique"] = f"{name}-{self._dice.randrange(5)}"  # a key is one of its task
        task: Any = self._app.tasks[name].using(id=id, **options)
        return id, lambda: task.enqueue(seconds), options.get("unique", ""), 1 + (name == "stumble")

    def _try(self, id: str, enqueue: Callable[[], Any], key: str, charged: int) -> bool:
        began = time.monotonic()
        self._log.tell("asked", id, word=key)
        try:
            job = enqueue()
        except StoreError:
            self.refused += 1
            return False
        finally:
            self.slowest = max(self.slowest, time.monotonic() - began)
        if job.id == id:
            self._log.tell("put", id, word=key, yes=job.new, since=began)
            self.put[id] = charged
        return True

    def finish(self) -> None:
        """Make no more; what is not sure yet becomes so."""
        self._over.set()
        self.join(PATIENCE)

    def close(self) -> None:
        """Let go of the store."""
        self._app.close()


class Tree:
    """One `windlass worker` with its runners and their children."""

    def __init__(self, command: Sequence[str], environment: dict[str, str], log: Path) -> None:
        self.environment = environment
        self.cgroup: Path | None = None
        self._command, self._log = command, log
        self.start()

    def start(self) -> None:
        """Start it, under a new pid."""
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self._join(), *self._command],
                cwd=ROOT,
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _join(self) -> list[str]:
        if self.cgroup is None:
            return []
        return ["sh", "-c", f'echo $$ >"{self.cgroup}/cgroup.procs" && exec "$@"', "sh"]

    @property
    def pid(self) -> int:
        """The supervisor's."""
        return self.process.pid

    @property
    def alive(self) -> bool:
        """Whether the supervisor runs."""
        return self.process.poll() is None

    def members(self) -> dict[str, list[int]]:
        """The pids that live now, by what they are."""
        found: dict[str, list[int]] = {"supervisor": [self.pid] if self.alive else [], "runner": [], "child": []}
        return found | self.below(self.pid)

    def below(self, pid: int) -> dict[str, list[int]]:
        """The runners and children that descend from one of them."""
        found: dict[str, list[int]] = {"runner": [], "child": []}
        with contextlib.suppress(psutil.NoSuchProcess):
            for one in psutil.Process(pid).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    words = one.cmdline()[3:4]
                    kind = {"windlass.worker.process": "runner", "windlass.worker.child": "child"}.get("".join(words))
                    if kind:
                        found[kind].append(one.pid)
        return found

    def pids(self) -> list[int]:
        """All of them, the supervisor first."""
        return [pid for kind in self.members().values() for pid in kind]

    def end(self) -> None:
        """Stop it as an operator would; kill what does not."""
        if self.alive:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(GRACE + 15)
        for pid in self.pids():
            send(pid, signal.SIGKILL)
        self.process.wait()


def send(pid: int, number: int) -> None:
    """A signal, to whom it still reaches."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def alive(pid: int) -> bool:
    """Whether a process still runs."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError), open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] != "Z"
    return False


class Mark(msgspec.Struct, frozen=True):
    """Processes that were disturbed at a moment: what ran in them shall start again. `seen`: by their supervisor, which
    lives, and needs no lease to end for that."""

    at: float
    pids: frozenset[int]
    fault: str
    wall: float
    seen: bool


class Field:
    """A ground, workers on it, a load, and the history of it all."""

    def __init__(
        self,
        ground: Ground,
        folder: Path,
        *,
        trees: int = 2,
        processes: int = 1,
        slots: int = 8,
        mix: Mix | None = None,
        seed: int = 0,
        backlog: int = 3_000,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.stack = contextlib.ExitStack()
        self.backlog = backlog
        """Jobs that one round of a backlog puts."""
        self.ground, self.folder = ground, folder
        self.dice = random.Random(seed)
        self.mix = mix or Mix()
        self.history = folder / "history"
        self.history.mkdir()
        self.worker_log = folder / "worker.log"
        self.log = Log(self.history)
        self.marks: list[Mark] = []
        self.started = 0
        """How often a worker was started because it had ended by itself."""
        self.orphans = 0
        """Processes that still ran a while after they, or who started them, had been killed."""
        self.fault = ""
        self._watches: list[threading.Timer] = []
        self._environment = os.environ | {
            "WINDLASS_URL": ground.url,
            "WINDLASS_LEASE": f"{LEASE:g}",
            "WINDLASS_GRACE": f"{GRACE:g}",
            "HISTORY": str(self.history),
            "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}",
            "PYTHONDONTWRITEBYTECODE": "",  # processes start as they do where a package is installed
            **(environment or {}),
        }
        self._command = ["-p", str(processes), "-c", str(slots)]
        self.app = load_app.make_app(ground.url, enqueue_timeout=ENQUEUE)
        self.trees: list[Tree] = []
        self.load = Load(ground.url, self.log, self.mix, seed)
        self.own: dict[str, str] = {}
        """Jobs besides the load, and the state that each shall end in."""
        self.forgotten: set[str] = set()
        """Jobs that were acknowledged, and that a failover lost."""
        self._follow = Follower(self.history)
        try:
            self._open(trees)
        except BaseException:
            self.close()
            raise

    def _open(self, trees: int) -> None:
        self.app.jobs.count(state="ready")  # the schema is there before two workers want to make it
        self.trees += [self.plant() for _ in range(trees)]
        self.load.start()
        self.wait(lambda: len(self._follow.workers()) >= trees, "every worker to run a job")

    def plant(self, **environment: str) -> Tree:
        """One more worker."""
        command = [sys.executable, "-m", "windlass", "worker", "tests.faults.app:app", *self._command]
        return Tree(command, self._environment | environment, self.worker_log)

    # Waiting

    def wait(self, condition: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
        """Until it holds; workers that ended meanwhile are started again, and counted."""
        end = time.monotonic() + patience
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(f"waited {patience:g} s for {what}; see {self.folder}")
            self.look_after()
            time.sleep(0.05)

    def look_after(self) -> None:
        """Start what ended without being told to."""
        for tree in self.trees:
            if not tree.alive:
                self.started += 1
                tree.start()

    def rest(self) -> None:
        """Let the load go on for a random moment."""
        time.sleep(self.dice.uniform(0.1, 0.5))

    def recover(self) -> float:
        """Wait until a job that is put from now on is done; how many seconds that takes."""
        began = time.monotonic()
        self.wait(lambda: self._follow.first_after(began), "a new job to run")
        return self._follow.first_after(began) - began

    def calm(self) -> float:
        """The same; and wait for all jobs that were put before."""
        before = dict.fromkeys(self.load.put)
        took = self.recover()
        if self.mix.long:
            return took
        with contextlib.suppress(TimeoutError):  # what is stuck is found in the end
            self.wait(lambda: not self.open(before), "the jobs before to end", PATIENCE / 2)
        return took

    def open(self, ids: Iterable[str]) -> list[str]:
        """Those of these jobs that are not over."""
        self._follow.look()
        left = [id for id in ids if id not in self._follow.over]
        if left and len(left) < 300:  # the one who would tell of the end may have died in between
            with contextlib.suppress(WindlassError):
                for job in self.app.jobs.get_many(left):
                    if job.record.state in FINAL:
                        self._follow.over.add(job.id)
        return [id for id in left if id not in self._follow.over]

    def took_any(self, since: float) -> bool:
        """Whether the store took a job after that moment."""
        self._follow.look()
        return any(at > since for at in self._follow.put.values())

    def busy(self, tree: Tree, kind: str) -> list[int]:
        """Pids of that kind in which a job runs now."""
        self._follow.look()
        members = tree.members()
        if kind == "runner":  # in itself; or in a child, which tells its own pid
            return [pid for pid in members["runner"] if self._follow.running.get(pid)]
        return [pid for pid in members[kind] if self._follow.running.get(pid)]

    def runs(self, tree: Tree, id: str) -> bool:
        """Whether that job runs in one of a worker's runners now."""
        self._follow.look()
        return any(id in self._follow.running.get(pid, ()) for pid in tree.members()["runner"])

    def forget(self, before: Iterable[str]) -> list[float]:
        """Take off the list what the store does not know any more of these jobs, put before a failover; when they had
        been put. Only a store may forget that says so."""
        ids = list(before)
        known = {job.id for at in range(0, len(ids), 500) for job in self.app.jobs.get_many(ids[at : at + 500])}
        gone = set(ids) - known
        if self.ground.forgetful:
            for id in gone:
                del self.load.put[id]
                self.forgotten.add(id)
        return [self._follow.put.get(id, 0.0) for id in gone]

    # Doing

    def tell(self, what: str, pids: Iterable[int]) -> None:
        """Write down what is done to processes, before it is done."""
        for pid in pids:
            self.log.tell(what, process=str(pid))

    def mark(self, pids: Iterable[int], *, seen: bool = False) -> None:
        """What runs in these processes now shall start again, somewhere."""
        self.marks.append(Mark(time.monotonic(), frozenset(pids), self.fault, time.time(), seen))

    def kill(self, pids: Sequence[int], *, to: int | None = None, seen: bool = False) -> None:
        """kill -9 of all at once; or of the first `to` of them, by which the others shall end."""
        self.tell("killed", pids)
        self.mark(pids, seen=seen)
        for pid in pids[:to]:
            send(pid, signal.SIGKILL)
        watch = threading.Timer(GONE_WITHIN, self._count_orphans, [pids])
        watch.start()
        self._watches.append(watch)

    def _count_orphans(self, pids: Sequence[int]) -> None:
        self.orphans += sum(map(alive, pids))

    @contextlib.contextmanager
    def frozen(self, tree: Tree) -> Iterator[list[int]]:
        """All processes of a worker stand still."""
        pids = tree.pids()
        self.tell("frozen", pids)
        for pid in pids:
            send(pid, signal.SIGSTOP)
        try:
            yield pids
        finally:
            for pid in pids:
                send(pid, signal.SIGCONT)
            self.tell("thawed", pids)

    def a_tree(self) -> Tree:
        """One of the workers."""
        return self.dice.choice(self.trees)

    def ask(self, task: str, *args: Any, ends: str = "succeeded", **options: Any) -> Any:
        """A job besides the load; the state that it shall end in."""
        job = self.app.tasks[task].using(**options).enqueue(*args)
        self.own[job.id] = ends
        self.log.tell("put", job.id)
        return job

    # The end

    def finish(self) -> None:
        """End the load, wait until all is over, and tell what the store has."""
        self.load.finish()
        with contextlib.suppress(TimeoutError):
            self.work_off()
        self.stop()
        for watch in self._watches:
            watch.join()
        tell_found(self.log, self.records())

    def work_off(self) -> None:
        """Wait until all jobs are over, as long as some of them come to their end. Raises `TimeoutError`."""
        until = time.monotonic() + WORKED_OFF
        left = self.open([*self.load.put, *self.own])
        while left and time.monotonic() < until:
            self.wait(functools.partial(self._fewer, left), "one of the jobs that are left to end")
            left = self.open(left)

    def _fewer(self, ids: Sequence[str]) -> bool:
        return len(self.open(ids)) < len(ids)

    def records(self) -> list[JobRecord]:
        """What the store has of all jobs that it was given."""
        ids = [*self.load.put, *self.own]
        parts = (ids[at : at + 500] for at in range(0, len(ids), 500))
        return [job.record for part in parts for job in self.app.jobs.get_many(part)]

    def events(self) -> list[Event]:
        """The whole history."""
        return [event for event in read(self.history) if event.job not in self.forgotten]

    def stop(self) -> None:
        """End the workers."""
        for tree in self.trees:
            if tree.alive:
                tree.process.terminate()
        for tree in self.trees:
            tree.end()

    def close(self) -> None:
        """Let go of everything but the folder."""
        self.load.finish() if self.load.is_alive() else None
        for tree in self.trees:
            for pid in tree.pids():
                send(pid, signal.SIGKILL)
            tree.process.wait()
        self.stack.close()
        self.load.close()
        self.app.close()
