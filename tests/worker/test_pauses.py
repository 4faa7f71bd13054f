"""Workers know what is paused: before their first job, and when it changes."""

from types import ModuleType

from tests.worker.rig import Rig, until


def test_a_worker_that_starts_while_something_is_paused(rig: Rig, tasks: ModuleType) -> None:
    tasks.app.queues.pause("mail")
    tasks.app.queues.pause(task=tasks.in_process)
    mail = tasks.on_loop.using(queue="mail").enqueue(1)
    process = tasks.in_process.enqueue(1)
    with rig.worker("-p", "2", "-c", "2"):
        assert [tasks.in_thread.enqueue(n).result(60) for n in range(4)] == [0, 3, 6, 9]
        assert (mail.refresh().state, process.refresh().state) == ("ready", "ready")
        tasks.app.queues.pause(task=tasks.in_thread)
        until(lambda: not ran_soon(tasks), "a running worker leaves out what is paused")
        for paused in ({"queue": "mail"}, {"task": tasks.in_process}, {"task": tasks.in_thread}):
            assert tasks.app.queues.resume(**paused)
        assert (mail.result(60), process.result(60)) == (2, 4)
        until(lambda: tasks.app.jobs.count(state="ready") == 0, "all goes on")


def ran_soon(tasks: ModuleType) -> bool:
    """Whether a job of the task is begun before one that came after it and is not paused."""
    first, second = tasks.app.enqueue_many([tasks.in_thread.bind(0), tasks.on_loop.bind(0)])
    second.result(60)
    return bool(first.refresh().state != "ready")
