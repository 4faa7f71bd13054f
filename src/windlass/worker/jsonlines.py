"""Log lines as JSON, one object each, for what collects logs."""

import json
import logging
from datetime import UTC, datetime
from typing import Any

from pythonjsonlogger.msgspec import MsgspecFormatter

from windlass.logs import NAMES


class JsonLines(MsgspecFormatter):
    """`timestamp` (in UTC), `level`, `logger`, `message`, the fields of the job if one runs, what `extra=` gave, and
    `exc_info`."""

    def __init__(self) -> None:
        super().__init__(
            ["levelname", "name", "message"], rename_fields={"levelname": "level", "name": "logger"}, timestamp=True
        )

    def format(self, record: logging.LogRecord) -> str:
        """One line, whatever the record holds."""
        try:
            return super().format(record)
        except Exception as error:
            return json.dumps(plain(record, error))

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        """Without the fields that say nothing."""
        return {name: value for name, value in log_data.items() if name not in NAMES or value != ""}


def plain(record: logging.LogRecord, error: Exception) -> dict[str, Any]:
    """What can be said of a record that cannot be written as it is."""
    try:
        message = record.getMessage()
    except Exception:
        message = f"(what was logged cannot be formatted: {type(error).__name__})"
    fields = {name: str(value) for name in NAMES if (value := getattr(record, name, ""))}
    moment = datetime.fromtimestamp(record.created, UTC).isoformat()
    return {"timestamp": moment, "level": record.levelname, "logger": record.name, "message": message, **fields}
