"""Log lines: their two forms, what is hidden, and that nobody can forge one."""

from __future__ import annotations

import io
import json
import logging
import re
import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from edge_agent import log
from edge_agent.wire.keys import SigningKey

if TYPE_CHECKING:
    from collections.abc import Iterator

LOGGER = logging.getLogger("edge_agent.agent")
NAMES = ("", "edge_agent", "hardware", "edge_agent.agent", "somebody.else")


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Leave logging as it was."""
    root = logging.getLogger()
    handlers = list(root.handlers)
    levels = {name: logging.getLogger(name).level for name in NAMES}
    yield
    root.handlers[:] = handlers
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def written(form: log.Format, **extra: Any) -> str:  # noqa: ANN401 - fields are any
    """Log one sentence with these fields and return what was written."""
    stream = io.StringIO()
    log.set_up("info", form, stream)
    LOGGER.info("A job was taken.", extra=extra)
    return stream.getvalue()


def test_console_line_is_a_sentence_and_fields() -> None:
    """The form that the documentation shows, fields in the order in which they were given."""
    line = written("console", action="job-taken", job_id="4f2a", count=3, share=0.25, where=None)
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d INFO agent: A job was taken\.  action=job-taken job_id=4f2a count=3 share=0\.25 where=-\n",
        line,
    )


def test_json_line_is_one_object() -> None:
    """Time in UTC with milliseconds, level, logger, message and the fields with their types."""
    stream = io.StringIO()
    log.set_up("info", "json", stream)
    record = LOGGER.makeRecord(LOGGER.name, logging.WARNING, "", 0, "Sent %d.", (2,), None, extra={"count": 2})
    record.created, record.msecs = 1_800_000_000.25, 250
    LOGGER.handle(record)
    assert json.loads(stream.getvalue()) == {
        "time": "2027-01-15T08:00:00.250Z",
        "level": "warning",
        "logger": "agent",
        "message": "Sent 2.",
        "count": 2,
    }


def test_values_of_all_kinds_are_written() -> None:
    """Bytes are hexadecimal, paths and enums are text, NaN does not break JSON, long texts are cut."""

    class State(Enum):
        ON = "on"

    document = json.loads(
        written(
            "json",
            job=b"\x01\xff",
            path=Path("/x"),
            state=State.ON,
            ratio=float("nan"),
            names=("a", b"b"),
            held={"x": 1},
            long="x" * 5000,
        )
    )
    assert document["job"] == "01ff"
    assert document["path"] == "/x"
    assert document["state"] == "on"
    assert document["ratio"] == "nan"
    assert document["names"] == ["a", "62"]
    assert document["held"] == {"x": 1}
    assert len(document["long"]) == log.MAX_VALUE_CHARACTERS + 1


def test_fields_do_not_replace_the_sentence() -> None:
    """A field called like one of ours keeps its value under another name."""
    document = json.loads(written("json", level="high", time=5))
    assert (document["level"], document["level_"], document["time_"]) == ("info", "high", 5)


@pytest.mark.parametrize("form", ["console", "json"])
def test_secrets_are_hidden(form: log.Format) -> None:
    """By the field's name, by type, in addresses, and as PEM; also inside dicts, tracebacks and messages."""
    key = SigningKey.generate(bytes(32))
    pem = "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----"
    stream = io.StringIO()
    log.set_up("info", form, stream)
    try:
        raise ValueError("mqtt://user:hunter2@host refused")  # noqa: TRY301 - a traceback is what is tested
    except ValueError:
        LOGGER.exception(
            "Connecting to mqtt://user:hunter2@host failed: %s",
            pem,
            extra={
                "password": "hunter2",
                "broker_password": "hunter2",
                "api_token": "hunter2",
                "url": "mqtts://user:hunter2@host:8883",
                "nested": {"client_secret": "hunter2"},
                "pydantic": SecretStr("hunter2"),
                "pem": pem[:40],
                "key": key,
            },
        )
    text = stream.getvalue()
    assert "hunter2" not in text
    assert "ValueError" in text
    assert "@host:8883" in text


def test_harmless_fields_are_not_hidden() -> None:
    """MQTT numbers its messages with tokens, and the path of a password file is no password."""
    assert "token=7 password_file=/run/p" in written("console", token=7, password_file="/run/p")  # noqa: S106 - a path


@given(st.text(), st.text(min_size=1))
def test_a_line_cannot_be_forged(message: str, value: str) -> None:
    """Whatever a peer sends stays inside one line, without control characters or a change of direction."""
    record = logging.LogRecord("edge_agent.agent", logging.INFO, "", 0, "%s", (message,), None)
    record.__dict__["value"] = value
    console = log.ConsoleFormatter().format(record)
    assert not re.search("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]", console)
    assert json.loads(log.JsonFormatter().format(record))["logger"] == "agent"
    assert log.JsonFormatter().format(record).isascii()


def test_a_value_with_spaces_is_quoted() -> None:
    """So that fields can be told apart again."""
    assert written("console", reason='not "now" = later', empty="").endswith(
        'reason="not \\"now\\" = later" empty=""\n'
    )


def test_traceback_follows_its_line() -> None:
    """Indented in the console form, one member in the JSON form."""
    try:
        raise RuntimeError("broken")  # noqa: TRY301 - a traceback is what is tested
    except RuntimeError:
        record = LOGGER.makeRecord(LOGGER.name, logging.ERROR, "", 0, "It failed.", (), sys.exc_info())
    lines = log.ConsoleFormatter().format(record).split("\n")
    assert lines[0].endswith("ERROR agent: It failed.")
    assert all(line.startswith("    ") for line in lines[1:])
    assert lines[-1] == "    RuntimeError: broken"
    assert json.loads(log.JsonFormatter().format(record))["error"].endswith("RuntimeError: broken")


def test_levels_are_ours_and_others_are_quiet() -> None:
    """`debug` is about our own loggers; libraries only say what is at least a warning."""
    stream = io.StringIO()
    log.set_up("debug", "console", stream)
    LOGGER.debug("ours")
    logging.getLogger("somebody.else").info("chatter")
    logging.getLogger("somebody.else").warning("trouble")
    assert [line.split(": ")[1] for line in stream.getvalue().splitlines()] == ["ours", "trouble"]


def test_setting_up_again_replaces() -> None:
    """No line is written twice, and the other stream gets nothing more."""
    first = io.StringIO()
    log.set_up("info", "console", first)
    assert written("json").count("\n") == 1
    assert first.getvalue() == ""
