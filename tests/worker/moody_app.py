"""An app whose first import fails."""

import os
from pathlib import Path

from tests.worker.children_app import app

mood = Path(os.environ["MOOD"])
if not mood.exists():
    mood.touch()
    raise RuntimeError("not today")

__all__ = ["app"]
