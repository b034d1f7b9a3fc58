"""Log lines: a sentence plus fields, for people (console) or for machines (one JSON object a line).

    log = logging.getLogger("edge_agent.agent")
    log.info("A job was refused.", extra={"action": "job-refused", "job_id": job_id})

Text from peers and libraries may be anything, so control characters are escaped: nobody can forge a line.
Secrets should never reach the log; what looks like one is hidden all the same.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from enum import Enum
from typing import Final, Literal, TextIO, TypeAlias

Level: TypeAlias = Literal["debug", "info", "warning", "error"]
Format: TypeAlias = Literal["console", "json"]

OURS: Final = ("edge_agent", "hardware")
"""The loggers that follow the `log.level` setting; all others only say what is at least a warning."""
HIDDEN: Final = "(hidden)"
MAX_VALUE_CHARACTERS: Final = 2_000

# What a LogRecord has by itself; everything else in it came through `extra`.
_OWN: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_JSON_NAMES: Final = frozenset({"time", "level", "logger", "message", "error"})
_SECRET_NAME: Final = re.compile(r"password|passwd|secret|token|private_key|authorization", re.IGNORECASE)
_URL_USER: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)[^/\s@]+@")
_PEM: Final = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL)
# Control characters, and those that change the direction of the text around them or end a line.
_UNPRINTABLE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
_PLAIN: Final = re.compile(r"[^\s\"=]+")


def set_up(level: Level, form: Format, stream: TextIO | None = None) -> None:
    """Send the log of this process to `stream` (standard error), replacing what was set up before.

    Args:
        level: the least serious lines of ours that are written.
        form: for people or for machines.
        stream: where to; the caller keeps it open.
    """
    handler = logging.StreamHandler(stream if stream is not None else sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else ConsoleFormatter())
    root = logging.getLogger()
    for old in list(root.handlers):
        if isinstance(old.formatter, _Formatter):
            root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    for name in OURS:
        logging.getLogger(name).setLevel(level.upper())


def short_name(logger: str) -> str:
    """Return the name of a logger without the package it is in: `edge_agent.agent.core` is `agent.core`."""
    return logger.removeprefix("edge_agent.")


def fields(record: logging.LogRecord) -> dict[str, object]:
    """Return what was given as `extra`, in order, without secrets and in types that JSON holds."""
    return {name: _field(name, value) for name, value in vars(record).items() if name not in _OWN}


def without_secrets(text: str) -> str:
    """Return `text` without users and passwords in addresses and without secret keys."""
    if "://" in text:
        text = _URL_USER.sub(rf"\1{HIDDEN}@", text)
    return _PEM.sub(HIDDEN, text) if "PRIVATE KEY" in text else text


class _Formatter(logging.Formatter):
    """What both forms share."""

    def _sentence(self, record: logging.LogRecord) -> str:
        return without_secrets(record.getMessage())

    def _error(self, record: logging.LogRecord) -> str | None:
        parts = []
        if record.exc_info and record.exc_info[0] is not None:
            parts.append(self.formatException(record.exc_info))
        if record.stack_info:
            parts.append(self.formatStack(record.stack_info))
        return without_secrets("\n".join(parts)) if parts else None


class ConsoleFormatter(_Formatter):
    """`12:00:00 INFO agent: sentence  action=… job_id=…` in local time; tracebacks on lines of their own."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without the newline at its end."""
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        line = f"{clock} {record.levelname} {short_name(record.name)}: {_escaped(self._sentence(record))}"
        extra = " ".join(f"{_escaped(name)}={_shown(value)}" for name, value in fields(record).items())
        if extra:
            line += f"  {extra}"
        error = self._error(record)
        if error is not None:
            line += "\n" + "\n".join(f"    {_escaped(part)}" for part in error.split("\n"))
        return line


class JsonFormatter(_Formatter):
    """One object a line: `time` (UTC), `level`, `logger`, `message`, the fields, `error` (traceback)."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the object, in ASCII."""
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        document: dict[str, object] = {
            "time": f"{seconds}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": short_name(record.name),
            "message": self._sentence(record),
        }
        for name, value in fields(record).items():
            document[f"{name}_" if name in _JSON_NAMES else name] = value
        error = self._error(record)
        if error is not None:
            document["error"] = error
        return json.dumps(document, allow_nan=False)


def _field(name: str, value: object) -> object:
    # MQTT numbers its messages with tokens; numbers and nothing are no secrets.
    if _SECRET_NAME.search(name) and not name.endswith("_file") and not isinstance(value, int | float | None):
        return HIDDEN
    return _simple(value)


def _simple(value: object) -> object:
    """Return a value that JSON holds and that is not too long for a line."""
    if isinstance(value, Enum):
        value = value.value
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if value - value == 0 else str(value)  # JSON has no NaN and no infinity
    if isinstance(value, bytes | bytearray | memoryview):
        value = bytes(value[:MAX_VALUE_CHARACTERS]).hex()
    elif isinstance(value, list | tuple | set | frozenset):
        return [_simple(item) for item in list(value)[:100]]
    elif isinstance(value, dict):
        return {str(name): _field(str(name), item) for name, item in list(value.items())[:100]}
    text = without_secrets(str(value))
    return text if len(text) <= MAX_VALUE_CHARACTERS else text[:MAX_VALUE_CHARACTERS] + "…"


def _shown(value: object) -> str:
    if isinstance(value, str):
        return value if _PLAIN.fullmatch(value) and not _UNPRINTABLE.search(value) else _quoted(value)
    if isinstance(value, float):
        return f"{value:.6g}"
    return "-" if value is None else _quoted(value) if isinstance(value, list | dict) else str(value)


def _quoted(value: object) -> str:
    return _escaped(json.dumps(value, ensure_ascii=False))


def _escaped(text: str) -> str:
    return _UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
