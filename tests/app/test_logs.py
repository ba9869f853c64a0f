"""Logs: events that people and programs can read, and that no caller can forge."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astcredit.app.logs import MOST_FIELD_CHARACTERS, JsonFormatter, TextFormatter, configure

HOSTILE = 'a"b\n2025 ERROR forged action=paid\x1b[2J\r\x85\u2028\u202egnol\x00\udc80'


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """The root logger as it was."""
    root = logging.getLogger()
    handlers, level, noise = root.handlers[:], root.level, logging.raiseExceptions
    quiet = {name: logging.getLogger(name).level for name in ("panoramisk", "asyncio")}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, old in quiet.items():
        logging.getLogger(name).setLevel(old)
    logging.raiseExceptions = noise


def logged(format: str, message: str, level: str = "info", **extra: object) -> str:
    stream = io.StringIO()
    configure(level, format, stream)
    logging.getLogger("astcredit.test").warning(message, extra=extra)
    return stream.getvalue()


def test_text_is_time_level_message_and_fields() -> None:
    line = logged("text", "AMI link lost", action="ami_lost", node="pbx 1", seconds=12, up=None)
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z WARNING AMI link lost "
        r'action=ami_lost node="pbx 1" seconds=12 up=null\n',
        line,
    )


def test_json_is_an_object_a_line_with_the_same_fields() -> None:
    event = json.loads(logged("json", "AMI link lost", action="ami_lost", node="Zürich", up=True))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", event.pop("time"))
    assert event == {
        "level": "warning",
        "logger": "astcredit.test",
        "message": "AMI link lost",
        "action": "ami_lost",
        "node": "Zürich",
        "up": True,
    }


def test_a_field_does_not_overwrite_what_the_log_itself_says() -> None:
    event = json.loads(logged("json", "x", time="never"))
    assert event["time_"] == "never"
    assert event["level"] == "warning"


@pytest.mark.parametrize("format", ["text", "json"])
def test_what_a_caller_sent_stays_in_its_field(format: str) -> None:
    line = logged(format, "refused", action="refused", callerid=HOSTILE)
    assert line.count("\n") == 1
    assert line.rstrip("\n").isprintable()
    assert line.encode("utf-8")
    if format == "json":
        assert json.loads(line)["callerid"] == HOSTILE
    else:
        assert r'callerid="a\"b\n2025 ERROR forged action=paid\x1b[2J\r\x85' in line


@given(text=st.text())
def test_no_text_can_add_a_line_or_a_field(text: str) -> None:
    fields = {"levelname": "INFO", "msg": "event", "number": text, "action": "end"}
    record = logging.makeLogRecord(fields)
    line = TextFormatter().format(record)
    assert line.isprintable()
    assert re.fullmatch(r'\S+ INFO event number=("(\\.|[^"\\])*"|[^" ]+) action=end', line)
    if len(text) <= MOST_FIELD_CHARACTERS:
        assert json.loads(JsonFormatter().format(record))["number"] == text


@pytest.mark.parametrize("format", ["text", "json"])
def test_a_huge_field_is_cut_and_says_so(format: str) -> None:
    line = logged(format, "refused", callerid="9" * 10_000)
    assert len(line) < MOST_FIELD_CHARACTERS + 200
    assert "(10000 characters)" in line


@pytest.mark.parametrize("format", ["text", "json"])
def test_an_exception_comes_whole_and_cannot_forge_a_line(format: str) -> None:
    stream = io.StringIO()
    configure("info", format, stream)
    try:
        raise ValueError("first\n2025-11-21T20:15:12.123Z ERROR forged\x1b[2J")
    except ValueError:
        logging.getLogger("x").exception("batch failed", extra={"action": "batch_failed"})
    lines = stream.getvalue().splitlines()
    assert "Traceback" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()
    assert "action=batch_failed" in lines[0] or json.loads(lines[0])["action"] == "batch_failed"
    assert all(line.startswith("    ") for line in lines[1:])


def test_the_level_and_the_second_call() -> None:
    first, second = io.StringIO(), io.StringIO()
    configure("debug", "text", first)
    configure("error", "text", second)
    logging.getLogger("astcredit").warning("not seen")
    logging.getLogger("astcredit").error("seen")
    assert first.getvalue() == ""
    assert second.getvalue().endswith(" ERROR seen\n")


def test_libraries_that_log_secrets_stay_quiet_at_debug() -> None:
    stream = io.StringIO()
    configure("debug", "text", stream)
    logging.getLogger("panoramisk.manager").debug("Secret: hush-hush")
    logging.getLogger("astcredit.asterisk").debug("ours")
    assert "hush-hush" not in stream.getvalue()
    assert "ours" in stream.getvalue()
