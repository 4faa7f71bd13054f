"""Finding the app that a command names."""

import importlib
import os
import sys
import traceback
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

from windlass.app import App
from windlass.config import find_project, project_settings
from windlass.errors import ConfigError

HOW = "Name it as MODULE:APP (such as shop.tasks:app), in WINDLASS_APP, or as `app` in [tool.windlass]"


def spec_or_default(spec: str | None) -> str:
    """MODULE:APP as given, else from WINDLASS_APP, else from pyproject.toml. Raises `ConfigError`."""
    found = spec or os.environ.get("WINDLASS_APP") or project_settings(find_project()).get("app")
    if not found or not isinstance(found, str):
        raise ConfigError(f"which app? {HOW}")
    return found


def load(spec: str | None = None) -> App:
    """The app that `spec` names, its module imported; the working directory comes first. Raises `ConfigError`."""
    found = spec_or_default(spec)
    name, colon, attribute = found.partition(":")
    refuse_path(name, attribute)
    here = str(Path.cwd())
    if sys.path[:1] not in ([here], [""]):
        sys.path.insert(0, here)
    module = import_module(name)
    return named(module, attribute) if colon else the_one(module)


def refuse_path(name: str, attribute: str) -> None:
    """Raise `ConfigError` for a file's path in place of a module's name, saying the name."""
    if "/" in name or "\\" in name or name.endswith(".py"):
        path = Path(name.replace("\\", "/"))
        module = ".".join(path.with_suffix("").parts).strip(".")
        raise ConfigError(f"expected a module, as in {module}:{attribute or 'app'}; the path {name} came")
    if not all(part.isidentifier() for part in name.split(".")):
        raise ConfigError(f"{name!r} is no module's name. {HOW}")


def import_module(name: str) -> ModuleType:
    """A module by name. Raises `ConfigError`: there is none, or it raised an error, which is shown."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if not error.name or not f"{name}.".startswith(f"{error.name}."):
            raise broken(name, error) from error
        raise ConfigError(f"there is no module {error.name!r} in {Path.cwd()} or where Python looks. {HOW}") from None
    except (Exception, SystemExit) as error:
        raise broken(name, error) from error


def broken(name: str, error: BaseException) -> ConfigError:
    """The error of a module that exists and cannot be imported, with the lines that lead to it in the user's code."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not is_ours(frame.filename)]
    kept = traceback.TracebackException.from_exception(error)
    kept.stack = traceback.StackSummary.from_list(frames)
    text = "".join(kept.format()).rstrip()
    return ConfigError(f"module {name} was found, but importing it failed:\n{text}")


def is_ours(file: str) -> bool:
    """Whether a traceback's line is of the import machinery or of this file."""
    return file == __file__ or "importlib" in file


def named(module: ModuleType, path: str) -> App:
    """An attribute of a module that must be an app. Raises `ConfigError`."""
    value: Any = module
    for part in path.split("."):
        if not hasattr(value, part):
            raise ConfigError(f"module {module.__name__} has no {path!r}; {choice(module, path)}")
        value = getattr(value, part)
    if not isinstance(value, App):
        raise ConfigError(
            f"expected {module.__name__}:{path} to be a windlass.App; its type is {type(value).__name__}; "
            f"{choice(module, path)}"
        )
    return value


def the_one(module: ModuleType) -> App:
    """The only app of a module. Raises `ConfigError`."""
    apps = apps_of(module)
    if len({id(app) for app in apps.values()}) != 1:
        raise ConfigError(f"which app of module {module.__name__}? {choice(module, '')}")
    return next(iter(apps.values()))


def apps_of(module: ModuleType) -> dict[str, App]:
    """The apps among a module's names."""
    return {name: value for name, value in vars(module).items() if isinstance(value, App)}


def choice(module: ModuleType, meant: str) -> str:
    """What could have been named."""
    apps = list(apps_of(module))
    if not apps:
        return f"it has no App at all. {HOW}"
    close = get_close_matches(meant, apps, n=1) or (apps if len(apps) == 1 else [])
    if close:
        return f"did you mean {module.__name__}:{close[0]}?"
    return f"it has {', '.join(f'{module.__name__}:{app}' for app in apps)}"
