"""The systems that are compared: where they come from, pinned, and how their workers are run."""

from dataclasses import dataclass, field

PEERS = "benchmarks.rivals.peers"
REDIS = ("redis==8.1.0", "hiredis==3.5.0")


@dataclass(frozen=True)
class System:
    """One system with its settings; `{bin}` in its commands is the folder of its environment's programs."""

    name: str
    peer: str
    """Its script in `peers`, and its environment."""

    worker: str
    """The command of its worker, started `processes` times."""

    processes: int = 1
    pins: tuple[str, ...] = ()
    """What its environment has; of the npm registry for a script in JavaScript, else of the Python package index."""

    needs: tuple[str, ...] = ()
    """Programs that this machine must have."""

    bulk: bool = True
    """Whether it has a call that enqueues many jobs."""

    share: float = 1.0
    """The share of the jobs that it gets, so that the drain of a slow one does not take minutes."""

    note: str = ""
    env: dict[str, str] = field(default_factory=dict)

    @property
    def client(self) -> str:
        """The command that obeys a line of `benchmarks.drive`."""
        if "ruby" in self.needs:
            return f"ruby benchmarks/rivals/peers/{self.peer}.rb"
        if "node" in self.needs:
            return f"node benchmarks/rivals/peers/{self.peer}.cjs"
        return f"{{bin}}/python -m benchmarks.drive {PEERS}.{self.peer}"


WINDLASS = System(
    "Windlass",
    "windlass",
    "{bin}/python -m windlass worker benchmarks.tasks:app --quiet -p 2 -c 200",
    share=2.0,
    note="timeouts, retries, results and history on; at least once",
)

HUEY = f"{{bin}}/huey_consumer {PEERS}.huey.huey -k process -w 2 -q"
HUEY_PINS = ("huey==3.5.4", *REDIS)
POLLS = " -d 0.005 -m 0.005"
TASKIQ = "--workers 2 --max-async-tasks 100 --max-prefetch 100 --log-level ERROR"
TASKIQ_PINS = ("taskiq==0.13.0", "taskiq-redis==1.2.4", *REDIS, "uvloop==0.23.0")

RIVALS = {
    "postgres": (
        System(
            "PgQueuer",
            "pgqueuer",
            f"{{bin}}/python -m {PEERS}.pgqueuer",
            processes=2,
            pins=("pgqueuer==1.6.0", "asyncpg==0.32.0", "uvloop==0.23.0"),
            share=2.0,
            note="logged tables, batches of 1,000, no limit, uvloop; at least once",
        ),
        System(
            "Procrastinate",
            "procrastinate",
            f"{{bin}}/procrastinate --app {PEERS}.procrastinate.app worker -c 100",
            processes=2,
            pins=("procrastinate==3.10.0", "psycopg[binary]==3.3.9"),
            share=0.05,
            note="few jobs, as it slows with its own backlog; started jobs of a dead worker need a task of one's own",
        ),
    ),
    "redis": (
        System(
            "Celery",
            "celery",
            f"{{bin}}/celery -A {PEERS}.celery worker -P solo -l ERROR "
            "-n %n{number} --without-gossip --without-mingle --without-heartbeat",
            processes=2,
            pins=("celery==5.7.0", "packaging==26.4", *REDIS),
            bulk=False,
            share=0.15,
            note="no results, 200 prefetched; one process per worker, which is quicker than a pool; at most once",
        ),
        System(
            "RQ",
            "rq",
            "{bin}/rq worker-pool -n 2 -w rq.worker.SimpleWorker -q -u {store}",
            pins=("rq==3.0.0", *REDIS),
            share=0.1,
            note="no fork per job, no results; at most once",
        ),
        System(
            "Dramatiq",
            "dramatiq",
            f"{{bin}}/dramatiq -p 2 -t 8 {PEERS}.dramatiq",
            pins=("dramatiq==2.2.1", *REDIS),
            bulk=False,
            share=0.5,
            note="at least once",
        ),
        System(
            "arq",
            "arq",
            f"{{bin}}/arq {PEERS}.arq.Worker",
            processes=2,
            pins=("arq==0.28.0", "redis==5.3.1", "hiredis==3.5.0", "uvloop==0.23.0"),
            bulk=False,
            share=0.2,
            note="max_jobs 100, poll_delay 0.05, no results, uvloop; at least once",
        ),
        System(
            "taskiq, stream",
            "taskiq",
            f"{{bin}}/taskiq worker {PEERS}.taskiq:broker {TASKIQ}",
            pins=TASKIQ_PINS,
            bulk=False,
            share=0.5,
            note="no results, uvloop; at least once",
        ),
        System(
            "taskiq, list",
            "taskiq",
            f"{{bin}}/taskiq worker {PEERS}.taskiq:broker {TASKIQ}",
            pins=TASKIQ_PINS,
            bulk=False,
            share=0.5,
            note="no results, uvloop; at most once",
            env={"BROKER": "ListQueueBroker"},
        ),
        System("Huey", "huey", HUEY, pins=HUEY_PINS, bulk=False, share=0.5, note="no results; at most once"),
        System(
            "BullMQ",
            "bullmq",
            "node benchmarks/rivals/peers/bullmq.cjs worker",
            processes=2,
            pins=("bullmq@6.7.0", "ioredis@6.0.0"),
            needs=("node", "npm"),
            note="concurrency 100, jobs removed at their end; at least once",
        ),
        System(
            "Sidekiq",
            "sidekiq",
            "sidekiq -r ./benchmarks/rivals/peers/sidekiq.rb -c 10",
            processes=2,
            needs=("ruby", "sidekiq"),
            note="at most once",
        ),
    ),
    "sqlite": (
        System(
            "Huey, synced",
            "huey",
            HUEY + POLLS,
            pins=HUEY_PINS,
            bulk=False,
            share=0.3,
            note="fsync on; polls every 5 ms; at most once",
            env={"FSYNC": "1"},
        ),
        System(
            "Huey",
            "huey",
            HUEY + POLLS,
            pins=HUEY_PINS,
            bulk=False,
            note="fsync off, its default: a power cut loses jobs; polls every 5 ms; at most once",
        ),
    ),
}
