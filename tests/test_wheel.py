"""The wheel holds all that the package reads: SQL, Lua, templates, what pages load, the mark of types."""

import zipfile
from pathlib import Path

import pytest
from hatchling.build import build_wheel

ROOT = Path(__file__).parent.parent


def test_nothing_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    wheel = zipfile.ZipFile(tmp_path / build_wheel(str(tmp_path)))
    with wheel:
        packed = {name: wheel.read(name) for name in wheel.namelist()}
    files = [file for file in (ROOT / "src").rglob("*") if file.is_file() and "__pycache__" not in file.parts]
    assert any(file.suffix == ".html" for file in files)
    for file in files:
        assert packed[file.relative_to(ROOT / "src").as_posix()] == file.read_bytes()
