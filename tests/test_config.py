"""Where settings come from, and what is said of wrong ones."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from windlass import App, ConfigError, State
from windlass.config import make_config, masked
from windlass.machine import default_processes


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own, with nothing set."""
    for name in ("URL", "APP", "CONCURRENCY", "LEASE", "KEEP", "QUEUES"):
        monkeypatch.delenv(f"WINDLASS_{name}", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(project: Path, text: str) -> None:
    (project / "pyproject.toml").write_text(f"[tool.windlass]\n{text}")


def test_defaults(project: Path) -> None:
    config = make_config()
    assert config.url == f"sqlite:///{project}/windlass.db"
    assert (config.concurrency, config.queues, config.lease, config.grace) == (25, "", 15.0, 25.0)
    assert (config.max_payload, config.enqueue_timeout, config.processes) == (2**20, 5.0, default_processes())
    assert config.keep == {"succeeded": 259_200.0, "cancelled": 259_200.0, "failed": 2_592_000.0}


def test_the_default_store_lies_beside_the_nearest_pyproject(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(project, "")
    (project / "deep" / "down").mkdir(parents=True)
    monkeypatch.chdir(project / "deep" / "down")
    assert make_config().url == f"sqlite:///{project}/windlass.db"


def test_argument_over_environment_over_project_over_default(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(project, 'concurrency = 2\nlease = 20\nqueues = "a"\napp = "shop:app"')
    monkeypatch.setenv("WINDLASS_CONCURRENCY", "3")
    monkeypatch.setenv("WINDLASS_LEASE", "30")
    config = make_config(concurrency=4)
    assert (config.concurrency, config.lease, config.queues, config.grace) == (4, 30.0, "a", 25.0)
    assert make_config(concurrency=None, lease=timedelta(minutes=1)).lease == 60.0


def test_concurrency_may_be_auto(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert make_config(concurrency="auto").concurrency == "auto"
    monkeypatch.setenv("WINDLASS_CONCURRENCY", "7")
    assert make_config().concurrency == 7
    monkeypatch.setenv("WINDLASS_CONCURRENCY", "auto")
    assert make_config().concurrency == "auto"


def test_relative_paths(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(project, 'url = "sqlite:///jobs.db?synchronous=normal"')
    (project / "deep").mkdir()
    monkeypatch.chdir(project / "deep")
    assert make_config().url == f"sqlite:///{project}/jobs.db?synchronous=normal"
    assert make_config("sqlite:///here.db").url == f"sqlite:///{project}/deep/here.db"
    assert make_config("sqlite:////srv/x.db").url == "sqlite:////srv/x.db"
    assert make_config("sqlite:///:memory:").url == "sqlite:///:memory:"
    monkeypatch.setenv("WINDLASS_URL", "redis://host")
    assert make_config().url == "redis://host"


def test_the_query_of_a_servers_url_makes_it_no_path() -> None:
    url = "postgresql://user@host:5432/shop?schema=jobs"
    assert make_config(url=url).url == url


@pytest.mark.parametrize(
    ("text", "size"), [("512M", 2**29), ("1.5g", 3 * 2**29), ("2GiB", 2**31), ("65536", 65536), ("4 kb", 4096)]
)
def test_sizes_of_memory(text: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WINDLASS_MAX_MEMORY", text)
    assert make_config().max_memory == size


def test_an_empty_health_switches_off_what_the_project_says(project: Path) -> None:
    write(project, "health = 8080")
    assert make_config().health == "8080"
    assert make_config(health="").health == ""


def test_how_long_finished_jobs_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    assert make_config(keep={"failed": timedelta(days=1)}).keep[State.FAILED] == 86_400.0
    assert make_config(keep={State.FAILED: 1}).keep[State.SUCCEEDED] == 259_200.0
    monkeypatch.setenv("WINDLASS_KEEP", "succeeded=60, failed=0")
    assert make_config().keep == {"succeeded": 60.0, "cancelled": 259_200.0, "failed": 0.0}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"concurrency": 0}, "whole number from 1 on for concurrency=; 0 came"),
        ({"concurrency": 2.5}, "2.5 came"),
        ({"concurrency": "many"}, "whole number from 1 on, or auto, for concurrency=; 'many' came"),
        ({"max_memory": "lots"}, "a size such as 512M or 2G, or whole bytes from 0 on, for max_memory=; 'lots' came"),
        ({"max_memory": -1}, "for max_memory=; -1 came"),
        ({"max_memory": 1.5}, "for max_memory=; 1.5 came"),
        ({"health": "web"}, "expected a port, or HOST:PORT, for health=; 'web' came"),
        ({"concurrency": True}, "True came"),
        ({"lease": 0.5}, "a number from 1 on for lease=; 0.5 came"),
        ({"lease": float("inf")}, "inf came"),
        ({"lease": "soon"}, "'soon' came"),
        ({"queues": 1}, "expected text for queues=; 1 came"),
        ({"keep": {"done": 1}}, "succeeded"),
        ({"keep": {"failed": -1}}, "failed in keep=; -1 came"),
        ({"keep": 3}, "seconds by outcome"),
        ({"url": "windlass.db"}, "expected a URL such as"),
        ({"concurency": 3}, "did you mean concurrency"),
        ({"colour": 3}, "expected one of callback_hosts"),
    ],
)
def test_wrong_arguments(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        App(**given)


def test_wrong_settings_elsewhere(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WINDLASS_CONCURRENCY", "many")
    with pytest.raises(ConfigError, match="WINDLASS_CONCURRENCY; 'many' came"):
        make_config()
    monkeypatch.delenv("WINDLASS_CONCURRENCY")
    monkeypatch.setenv("WINDLASS_OF_ANOTHER_PROGRAM", "1")
    make_config()
    monkeypatch.setenv("WINDLASS_CONCURENCY", "3")
    with pytest.raises(ConfigError, match="WINDLASS_CONCURENCY; did you mean WINDLASS_CONCURRENCY"):
        make_config()
    monkeypatch.delenv("WINDLASS_CONCURENCY")
    for text, says in (
        ("leese = 3", "has 'leese'; did you mean lease"),
        ('lease = "x"', r"lease of \[tool.windlass\] in .*pyproject.toml; 'x' came"),
        ("lease = ", "cannot be read"),
    ):
        write(project, text)
        with pytest.raises(ConfigError, match=says):
            make_config()


def test_a_lifespan_has_to_be_a_context_manager() -> None:
    async def lifespan(app: App) -> Any:
        yield

    wrong: Any = lifespan
    with pytest.raises(ConfigError, match="asynccontextmanager"):
        App(lifespan=wrong)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://user:secret@host/0", "redis://user:***@host/0"),
        ("redis://:secret@host", "redis://:***@host"),
        ("postgresql://u:p@ss/w:rd@host:1/db", "postgresql://u:***@host:1/db"),
        ("postgresql://host/db?user=u&password=secret&x=1", "postgresql://host/db?user=u&password=***&x=1"),
        ("sqlite:////home/a:b@c/windlass.db", "sqlite:////home/a:b@c/windlass.db"),
        ("redis://host", "redis://host"),
    ],
)
def test_passwords_are_masked(url: str, shown: str) -> None:
    assert masked(url) == shown
