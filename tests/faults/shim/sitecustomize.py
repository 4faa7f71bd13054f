"""For processes under libfaketime, by whose clock_nanosleep Python cannot sleep if only the wall clock is faked."""

import select
import time
from typing import Any


def sleep(seconds: Any, /) -> None:
    """As `time.sleep`."""
    select.select([], [], [], max(0.0, float(seconds)))


time.sleep = sleep
