"""What the README shows runs, and its words are true."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.worker.rig import PATIENCE, ROOT

README = (ROOT / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_examples_run(tmp_path: Path) -> None:
    module, producer, result = blocks("python")
    (tmp_path / "shop.py").write_text(module)
    (tmp_path / "pyproject.toml").write_text("")
    script = f"{producer}\nprint(job.result(timeout={PATIENCE}) + '!')\n{result}"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("WINDLASS")}
    command = next(line for line in "\n".join(blocks("console")).splitlines() if "windlass worker" in line)
    arguments = command.partition("#")[0].split()[2:]
    worker = subprocess.Popen([sys.executable, "-m", "windlass", *arguments], cwd=tmp_path, env=environment)
    try:
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
    finally:
        worker.terminate()
        worker.wait(PATIENCE)
    assert done.stdout.endswith("receipt 42 sent!\n"), done.stderr
    assert (tmp_path / "windlass.db").exists()


def test_the_two_commands_come_first() -> None:
    first = blocks("console")[0].splitlines()
    assert [line.split()[1] for line in first] == ["scripts/demo", "scripts/test"]


@pytest.mark.parametrize("file", [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")], ids=lambda file: file.name)
def test_links_lead_somewhere(file: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", file.read_text("utf-8")):
        assert target.startswith("https://") or (file.parent / target).exists(), target


def test_every_command_is_in_the_readme() -> None:
    listing = subprocess.run(
        [sys.executable, "-m", "windlass", "--help"], capture_output=True, text=True, check=True
    ).stdout
    commands = re.findall(r"^  (\w+)  ", listing.partition("Commands:")[2], re.MULTILINE)
    assert commands
    assert [name for name in commands if f"windlass {name}" not in README and name != "completion"] == []


PAGES = {"schedules": "[] 2 0\n", "events": "[] 0 2\n"}


@pytest.mark.parametrize("page", PAGES)
def test_the_examples_of_pages_run(tmp_path: Path, page: str) -> None:
    text = (ROOT / "docs" / f"{page}.md").read_text("utf-8")
    script = "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL)).replace("tx=session", "tx=None")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("WINDLASS")}
    (tmp_path / "pyproject.toml").write_text("")
    done = subprocess.run(
        [sys.executable, "-c", f"{script}\nprint(app.schedules.list(), len(app.plans), len(app.subscriptions))"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.endswith(PAGES[page]), done.stderr
