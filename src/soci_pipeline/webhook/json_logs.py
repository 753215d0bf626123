"""JSON logs, one object per line. Fields are passed explicitly, so headers, bodies and secrets are never logged."""

import json
import logging
from datetime import UTC, datetime
from typing import TextIO

from soci_pipeline.log import logger


class JsonFormatter(logging.Formatter):
    """Formats the time, level, logger, message, the fields passed to `log`, and the traceback of an exception."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the log line."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        fields = getattr(record, "fields", None)
        if isinstance(fields, dict):
            line |= {key: value for key, value in fields.items() if key not in line}
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=True)


def log(message: str, *, level: int = logging.INFO, **fields: object) -> None:
    """Log a message with additional fields; fields that are None are left out."""
    logger().log(level, message, extra={"fields": {key: value for key, value in fields.items() if value is not None}})


def log_as_json(stream: TextIO) -> None:
    """Write every log record of the process to ``stream`` as JSON; replaces the existing root handlers."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # The clients' request logs contain URLs; the receiver logs the relevant events itself.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.getLogger("httpcore").setLevel(logging.WARNING)
    logging.getLogger("botocore").setLevel(logging.WARNING)
