"""MODULE:APP, and what is said when it names nothing."""

import sys
from pathlib import Path

import pytest

from windlass import ConfigError
from windlass.loader import load


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of modules; what they leave behind is taken away."""
    monkeypatch.delenv("WINDLASS_APP", raising=False)
    monkeypatch.setenv("WINDLASS_URL", "sqlite:///never-opened.db")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "one.py").write_text("from windlass import App\napp = App()\nsame = app\nnumber = 1\n")
    (tmp_path / "two.py").write_text("from windlass import App\nfirst, second = App(), App()\n")
    (tmp_path / "none.py").write_text("")
    (tmp_path / "bad.py").write_text("def f():\n    return 1 / 0\nf()\n")
    (tmp_path / "needs.py").write_text("import not_installed_anywhere\n")
    (tmp_path / "leaves.py").write_text("raise SystemExit(3)\n")
    (tmp_path / "syntax.py").write_text("def f(:\n")
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "tasks.py").write_text("import one\nclass holder: app = one.app\n")
    return tmp_path


def test_an_app_by_name() -> None:
    assert load("one:app") is load("one") is load("one:same")
    assert load("pkg.tasks:holder.app") is load("one")


def test_where_the_name_comes_from(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="which app"):
        load()
    (folder / "pyproject.toml").write_text('[tool.windlass]\napp = "one:app"\n')
    one = load()
    assert one is load("one")
    monkeypatch.setenv("WINDLASS_APP", "two:second")
    assert load() is not one


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("nowhere:app", "there is no module 'nowhere'"),
        ("pkg.nowhere:app", "there is no module 'pkg.nowhere'"),
        ("one.app", "there is no module 'one.app'"),
        ("one:ap", "module one has no 'ap'; did you mean one:app"),
        ("one:number", "expected one:number to be a windlass.App; its type is int; it has one:app, one:same"),
        ("two", "which app of module two. it has two:first, two:second"),
        ("none", "it has no App at all"),
        ("none:app", "it has no App at all"),
        ("one.py:app", "expected a module, as in one:app"),
        ("./pkg/tasks.py", "expected a module, as in pkg.tasks:app"),
        ("a b:app", "no module's name"),
        (":app", "no module's name"),
        ("bad:app", r"module bad was found, but importing it failed:(.|\n)*bad\.py(.|\n)*ZeroDivisionError"),
        ("needs:app", r"module needs was found(.|\n)*needs\.py(.|\n)*No module named 'not_installed_anywhere'"),
        ("leaves:app", r"module leaves was found(.|\n)*SystemExit: 3"),
        ("syntax:app", r"module syntax was found(.|\n)*SyntaxError"),
    ],
)
def test_what_cannot_be_loaded(spec: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as found:
        load(spec)
    assert "importlib" not in str(found.value)
