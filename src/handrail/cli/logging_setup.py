"""Logging of the commands that run until they are stopped: readable lines or JSON, on standard error.

Values of a record's `extra`, such as `run_id` and `tenant`, are part of both formats. An error's message is part of
neither, as `handrail.kernel.tracebacks` explains; a formatter never raises, since the record would be lost.
"""

import json
import logging
import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import typer
from pydantic_core import to_jsonable_python

from handrail.kernel.text import sanitize, shorten
from handrail.kernel.tracebacks import format_traceback

LogFormat = Annotated[
    Literal["text", "json"],
    typer.Option("--log-format", help="How to log to standard error: readable lines, or one JSON object per line."),
]

_RECORD_FIELDS = frozenset({*vars(logging.makeLogRecord({})), "asctime", "message", "taskName", "color_message"})
_BLOCKS = ("traceback", "stack")
"""Fields of several lines: the code that the record comes from, or that an error was raised in."""
_MAX_VALUE_LENGTH = 2_000
# Pydantic's warnings and errors quote the input. The input may contain anything, so the last end that fits is its end.
_QUOTED_INPUT = re.compile(r"input_value=.*(?=, input_type=)", re.DOTALL)


def configure_logging(log_format: Literal["text", "json"]) -> None:
    """Sends the log of this process to standard error: Handrail's from level info, other packages' from warning.

    Python's warnings are part of the log.

    Args:
        log_format: `text` for people, `json` for log collectors.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("handrail").setLevel(logging.INFO)
    logging.captureWarnings(capture=True)


class TextFormatter(logging.Formatter):
    """One line per record, in local time. A traceback is indented, so that no line of it can pass for a record."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as text; control characters are replaced."""
        time = datetime.fromtimestamp(record.created).astimezone().strftime("%Y-%m-%d %H:%M:%S")
        extra = _extra(record)
        blocks = [extra.pop(name) for name in _BLOCKS if name in extra]
        fields = "".join(f" {_one_line(name)}={_one_line(value)}" for name, value in extra.items())
        line = f"{time} {record.levelname:<7} {record.name}: {_one_line(_message(record))}{fields}"
        return "\n    ".join([line, *(line for block in blocks for line in sanitize(_text(block)).splitlines())])


class JsonFormatter(logging.Formatter):
    """One JSON object per line, in UTC: time, level, logger, message, and the record's `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON in ASCII, so that it contains no control characters."""
        extra = _extra(record)
        blocks = {name: sanitize(_text(extra.pop(name))) for name in _BLOCKS if name in extra}
        fields = {
            **{_shorten(_text(name)): _plain(value) for name, value in extra.items()},
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _shorten(_message(record)),
            **blocks,
        }
        return json.dumps(fields)


def _extra(record: logging.LogRecord) -> dict[Any, Any]:
    """The record's own fields; its traceback and stack are among them."""
    fields: dict[Any, Any] = {name: value for name, value in vars(record).items() if name not in _RECORD_FIELDS}
    error = record.exc_info[1] if record.exc_info else None
    if error is not None:
        fields["traceback"] = format_traceback(error)
    if record.stack_info:
        fields["stack"] = record.stack_info
    return fields


def _message(record: logging.LogRecord) -> str:
    try:
        message = record.getMessage()
    except Exception:  # noqa: BLE001 - arguments that do not fit the message, or have no text
        message = _text(record.msg)
    if record.name == "asyncio":
        # The lines that follow show the task, and with it its error's message.
        message = message.partition("\n")[0]
    return _hide_input(message)


def _plain(value: object) -> Any:
    """The value as JSON can hold it; as text where JSON has no form for it or the form is too long."""
    if isinstance(value, str):
        return _shorten(_text(value))
    try:
        plain = to_jsonable_python(value, bytes_mode="base64", fallback=_text, serialize_unknown=True)
        written = json.dumps(plain, allow_nan=False)
    except Exception:  # noqa: BLE001 - infinity, a value that contains itself, a property that raises...
        return _shorten(_text(value))
    shown = _shorten(_hide_input(written))
    return plain if shown == written else shown


def _text(value: object) -> str:
    try:
        return _hide_input(str(value))
    except Exception:  # noqa: BLE001 - a record is worth more than one of its values
        return f"<{type(value).__name__} that cannot be shown>"


def _hide_input(text: str) -> str:
    return _QUOTED_INPUT.sub("input_value=...", text)


def _shorten(text: str) -> str:
    return text if len(text) <= _MAX_VALUE_LENGTH else text[: _MAX_VALUE_LENGTH - 1] + "…"


def _one_line(value: object) -> str:
    return shorten(sanitize(_text(value)), _MAX_VALUE_LENGTH)
