"""Hints may be lost, all of them: the beat of the worker finds what is due."""

from types import ModuleType

from tests.worker.rig import Rig, until


def test_jobs_start_without_hints(rig: Rig, tasks: ModuleType) -> None:
    with rig.worker("-p", "2", "-c", "4", app="tests.worker.deaf_app:app"):
        until(lambda: len(rig.effects("lifespan opened")) == 2, "both runners are ready")
        for delay in (0, 0, 0.5, 0):
            assert tasks.on_loop.using(delay=delay).enqueue(1).result(timeout=60) == 2, "at a beat, one a second"
