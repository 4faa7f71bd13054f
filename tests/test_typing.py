"""The types that users see, as two type checkers see them."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
RIGHT, WRONG = (ROOT / "tests" / "typing" / name for name in ("right.py", "wrong.py"))
Lines = dict[str, set[int]]


def run(*command: str) -> str:
    """What a command prints; type checkers end with 1 when they find something."""
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.stdout


def mypy() -> Lines:
    """The lines that mypy --strict flags, by file."""
    flagged: Lines = {}
    for line in run("mypy", "--strict", "--no-error-summary", str(RIGHT), str(WRONG)).splitlines():
        if found := re.match(r"(.+?):(\d+): error", line):
            flagged.setdefault(Path(found[1]).name, set()).add(int(found[2]))
    return flagged


def pyright() -> Lines:
    """The lines that pyright flags in strict mode, by file."""
    found = json.loads(run("pyright", "--outputjson", "--pythonpath", sys.executable, str(RIGHT), str(WRONG)))
    flagged: Lines = {}
    for one in found["generalDiagnostics"]:
        flagged.setdefault(Path(one["file"]).name, set()).add(one["range"]["start"]["line"] + 1)
    return flagged


@pytest.mark.parametrize("check", [mypy, pyright])
def test_each_wrong_call_is_flagged_and_no_right_one(check: Callable[[], Lines]) -> None:
    flagged = check()
    lines = WRONG.read_text("utf-8").splitlines()
    wrong = {number for number, line in enumerate(lines, 1) if line.endswith("# wrong")}
    assert len(wrong) >= 30
    missed = [lines[number - 1] for number in sorted(wrong - flagged.get("wrong.py", set()))]
    assert not missed, "not flagged"
    assert flagged.get("wrong.py", set()) == wrong, "flagged although no call on that line is marked as wrong"
    assert "right.py" not in flagged, f"flagged although right: lines {sorted(flagged['right.py'])}"
