"""Named SQL statements, kept in .sql files beside the store that runs them."""

import re
from importlib import resources
from types import SimpleNamespace

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


class Queries(SimpleNamespace):
    """One attribute per `-- name: …` in the file."""

    def __getattr__(self, name: str) -> str:
        raise AttributeError(f"no statement is named {name!r} in the .sql file")


def load_queries(package: str, file: str) -> Queries:
    """The statements of a file in `package`, without their comments."""
    text = resources.files(package).joinpath(file).read_text("utf-8")
    _, *parts = _NAME.split(text)
    bodies = ("\n".join(row for row in part.splitlines() if not row.lstrip().startswith("--")) for part in parts[1::2])
    return Queries(**{name: body.strip().rstrip(";") for name, body in zip(parts[::2], bodies, strict=True)})


def load_migrations(package: str) -> list[tuple[int, str, str]]:
    """The numbered migrations of a store as (number, name, script), in order."""
    files = resources.files(package).joinpath("migrations").iterdir()
    named = sorted((file.name, file.read_text("utf-8")) for file in files if file.name.endswith(".sql"))
    return [(int(name[:4]), name.removesuffix(".sql"), script) for name, script in named]
