"""An app that takes its time to import."""

import time

from tests.worker.children_app import app

time.sleep(1.5)

__all__ = ["app"]
