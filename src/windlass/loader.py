"""Finding the app that a command names."""

import importlib
import os
import sys
from importlib.util import find_spec
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
    """The app that `spec` names, its module imported. Raises `ConfigError`; what the module raises goes through."""
    found = spec_or_default(spec)
    name, _, attribute = found.partition(":")
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    module = import_module(name)
    if attribute:
        return named(module, name, attribute)
    apps = {key: value for key, value in vars(module).items() if isinstance(value, App)}
    if len(set(map(id, apps.values()))) != 1:
        raise ConfigError(f"module {name} has {len(apps)} apps ({', '.join(apps) or 'none'}). {HOW}")
    return next(iter(apps.values()))


def import_module(name: str) -> Any:
    """A module by name. Raises `ConfigError` if there is none; an error inside of it goes through as it is."""
    try:
        exists = find_spec(name) is not None
    except (ImportError, ValueError) as error:
        if isinstance(error, ModuleNotFoundError) and error.name and not f"{name}.".startswith(f"{error.name}."):
            raise
        exists = False
    if not exists:
        raise ConfigError(f"there is no module {name!r} in {os.getcwd()} or where Python looks. {HOW}")
    return importlib.import_module(name)


def named(module: Any, name: str, path: str) -> App:
    """An attribute of a module that must be an app. Raises `ConfigError`."""
    value = module
    for part in path.split("."):
        if not hasattr(value, part):
            close = ", ".join(key for key, one in vars(module).items() if isinstance(one, App)) or "none"
            raise ConfigError(f"module {name} has no {path!r}; its apps: {close}. {HOW}")
        value = getattr(value, part)
    if not isinstance(value, App):
        raise ConfigError(f"{name}:{path} is no windlass.App but a {type(value).__name__}. {HOW}")
    return value
