"""The fields of the running job on the records of any logger."""

import logging

from windlass.context import running

NAMES = ("job_id", "task", "queue", "attempt", "trace_id", "runner")


class JobFields(logging.Filter):
    """Puts `job_id`, `task`, `queue`, `attempt`, `trace_id` and `runner` on each record; empty texts outside of a job.

    Add it to a handler: `handler.addFilter(JobFields())`, and any format may name them. What a record brings itself
    (`extra={"task": …}`) stays.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Let it pass, with the fields."""
        job = running()
        fields = job.fields if job else {}
        for name in NAMES:
            if not hasattr(record, name):
                setattr(record, name, fields.get(name, ""))
        return True
