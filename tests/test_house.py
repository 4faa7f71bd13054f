"""The rules of the house: the import law, sizes, no cleverness that hides a cycle."""

import ast
import statistics
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src"
FILES = sorted(SOURCE.rglob("*.py"))

LAYERS = [
    {
        "blocking",
        "discreet",
        "lazy",
        "origin",
        "model",
        "errors",
        "clock",
        "values",
        "machine",
        "secret",
        "signature",
        "usage",
        "wall",
    },
    {
        "alert",
        "breaker",
        "call",
        "codec",
        "policy",
        "context",
        "description",
        "family",
        "follow",
        "event",
        "gate",
        "limits",
        "lineage",
        "lines",
        "logs",
        "metrics",
        "options",
        "outward",
        "pause",
        "place",
        "schedule",
        "timing",
        "unique",
        "vault",
    },
    {"store.contract", "store.queries"},
    {"store", "config"},
    {
        "access",
        "audit",
        "bulk",
        "carrier",
        "drain",
        "ends",
        "events",
        "gates",
        "hook",
        "jobs",
        "kin",
        "move",
        "overview",
        "picking",
        "pressure",
        "queues",
        "schedules",
        "standing",
        "task",
        "workers",
    },
    {"callback", "notice", "poster", "worker", "source"},
    {"app", "outbox"},
    {"view"},
    {"loader", "standby", "web"},
    {"worker.process", "worker.child", "worker.beater", "worker.watcher"},
    {"cli", "contrib", "testing", "__main__"},
]
"""Who may import whom: a module imports from its own set or from those above. The longest matching name counts."""

ALLOWED = {"": {"app"}}
"""Exceptions: the package's front door names the public things."""


def module_of(file: Path) -> str:
    parts = file.relative_to(SOURCE / "windlass").with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def layer(module: str) -> int:
    names = module.split(".")
    for length in range(len(names), 0, -1):
        for at, layer in enumerate(LAYERS):
            if ".".join(names[:length]) in layer:
                return at
    raise AssertionError(f"{module} has no place in LAYERS: give it one")


def imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("windlass"):
            base = node.module.removeprefix("windlass").lstrip(".")
            for name in node.names:
                inner = f"{base}.{name.name}".lstrip(".")
                target = SOURCE / "windlass" / Path(*inner.split("."))
                yield inner if target.with_suffix(".py").exists() or target.is_dir() else base
        elif isinstance(node, ast.Import):
            for name in node.names:
                if name.name.startswith("windlass"):
                    yield name.name.removeprefix("windlass").lstrip(".")


def functions(file: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{file.relative_to(ROOT)}:{node.lineno} {node.name}", (node.end_lineno or 0) - node.lineno + 1


def test_import_law() -> None:
    wrong = [
        f"{module_of(file)} imports {target or 'windlass'}"
        for file in FILES
        if module_of(file)
        for target in imports(file)
        if not target or layer(target) > layer(module_of(file))
    ]
    assert not wrong, "against the import law (tests/test_house.py, LAYERS):\n" + "\n".join(wrong)


def test_no_import_cycles() -> None:
    graph = {module_of(file): set(imports(file)) - {module_of(file)} for file in FILES}
    done: set[str] = set()

    def walk(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, f"import cycle: {' -> '.join((*path[path.index(module) :], module))}"
        if module in done:
            return
        for target in graph.get(module, ()):
            walk(target, (*path, module))
        done.add(module)

    for module in graph:
        walk(module, ())


def test_no_type_checking_tricks() -> None:
    assert not [file for file in FILES if "TYPE_CHECKING" in file.read_text("utf-8")]


def test_nothing_executes_stored_data() -> None:
    banned = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "yaml"}
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            names = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
            assert not banned & {name.partition(".")[0] for name in names}, file
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in {"eval", "exec"}, file


def test_sizes() -> None:
    long_files = [f"{file}: {count}" for file in FILES if (count := len(file.read_text("utf-8").splitlines())) > 500]
    assert not long_files, f"over 500 lines; which two things live in there? {long_files}"
    sizes = [entry for file in FILES for entry in functions(file)]
    long_functions = [f"{name}: {lines}" for name, lines in sizes if lines > 60]
    assert not long_functions, f"over 60 lines: {long_functions}"
    assert statistics.median(lines for _, lines in sizes) <= 7


def test_sql_lives_in_files() -> None:
    verbs = ("INSERT INTO", "UPDATE jobs", "DELETE FROM", "CREATE TABLE")
    wrong = [str(file) for file in FILES if any(verb in file.read_text("utf-8") for verb in verbs)]
    assert not wrong, f"statements belong into .sql files: {wrong}"
