"""Acts of the command line in the audit log."""

import getpass

from tests.cli.conftest import Shell, job_id, trail


def test_what_commands_do_stands_in_the_audit_log(filled: Shell) -> None:
    filled("jobs", "retry", job_id("failed"))
    filled("jobs", "cancel", "--all", "--task", "old.gone", "--yes")
    filled("queues", "pause", "mail", "--reason", "too\nmany")
    filled("queues", "resume", "night")
    filled("queues", "drain", "night", "--no-wait")
    filled("schedules", "pause", "nightly", code=1)
    filled("gates", "set", "nothing", "--limit", "3", code=2)
    filled("gates", "pause", "nothing", "--key", "acme", "--reason", "too many", code=2)
    filled("jobs", "list")

    found = filled.store(trail)
    assert [(one.act, one.target, one.done) for one in found] == [
        ("retry", f"jobs {job_id('failed')}", 1),
        ("cancel", "jobs with task=old.gone", 1),
        ("pause", "queue mail: too\\nmany", 1),
        ("resume", "queue night", 0),
        ("drain", "queue night", 1),
        ("pause", "schedule nightly", 0),
        ("limit", "nothing to 3", 0),
        ("pause", "key nothing/acme: too many", 0),
    ]
    assert {(one.user, one.via) for one in found} == {(getpass.getuser(), "command")}
    assert ["nightly" in found[-3].error, *("name of a gate" in one.error for one in found[-2:])] == [True] * 3
