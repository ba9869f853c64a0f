"""Classic AGI: pyst2 on a pair of pipes, Asterisk at their other ends.

The fake Asterisk runs in a thread, since reading blocks the process that Asterisk starts.
"""

from __future__ import annotations

import asyncio
import io
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import BinaryIO

import pytest
from asterisk import agi as pyst2

from astcredit.asterisk.agi import HEADER_LINES, LINE_BYTES
from astcredit.asterisk.classic import EXIT_DONE, EXIT_FAILED, run_classic
from astcredit.asterisk.dial_results import BILLSEC
from astcredit.asterisk.scripts import ANSWER_SECONDS
from astcredit.domain.calls import Authorization, CallRequest
from astcredit.service.ports import CallControl
from support.agi_fakes import (
    AC_VARIABLES,
    ALLOWED,
    LINKEDID,
    SOURCE,
    FakeChannel,
    FakeControl,
    header_block,
)


@dataclass(slots=True)
class FakeAsterisk:
    """Asterisk's ends of the pipes. `play` runs in a thread of its own."""

    to_script: BinaryIO
    from_script: BinaryIO
    channel: FakeChannel = field(default_factory=FakeChannel)
    block: bytes = header_block("astcredit-agi")
    answered: Callable[[str, str], str] = lambda command, answer: answer
    ended: threading.Event = field(default_factory=threading.Event)

    def play(self) -> None:
        """Send the request, answer commands until the script closes its stdout."""
        try:
            with self.to_script, self.from_script:
                self._play()
        except BrokenPipeError:
            pass
        finally:
            self.ended.set()

    def _play(self) -> None:
        self._send(self.block)
        for line in self.from_script:
            command = line.decode().removesuffix("\n")
            answer = self.answered(command, self.channel.answer(command))
            if not answer:
                return
            self._send(answer.encode())

    def _send(self, data: bytes) -> None:
        self.to_script.write(data)
        self.to_script.flush()


@contextmanager
def pipes() -> Iterator[tuple[FakeAsterisk, BinaryIO, BinaryIO]]:
    """A fake Asterisk, and the stdin and stdout that it gives to a script."""
    stdin, to_script = os.pipe()
    from_script, stdout = os.pipe()
    script_in = os.fdopen(stdin, "rb", buffering=0)
    script_out = os.fdopen(stdout, "wb")
    with script_in, script_out:
        yield (
            FakeAsterisk(os.fdopen(to_script, "wb"), os.fdopen(from_script, "rb")),
            script_in,
            script_out,
        )


def play(
    control: CallControl,
    script: str,
    arguments: Sequence[str] = (),
    prepare: Callable[[FakeAsterisk], None] = lambda asterisk: None,
    reply_seconds: float = 60,
    answer_seconds: float = ANSWER_SECONDS,
) -> tuple[int, FakeChannel]:
    """Run a script as Asterisk would; its exit status, and the channel after it."""
    numbers = count(1)
    with pipes() as (asterisk, stdin, stdout):
        prepare(asterisk)
        thread = threading.Thread(target=asterisk.play)
        thread.start()
        status = asyncio.run(
            run_classic(
                script,
                arguments,
                control,
                new_call_id=lambda: f"call-{next(numbers)}",
                now_ms=lambda: 0,
                stdin=stdin,
                stdout=stdout,
                node="pbx1",
                reply_seconds=reply_seconds,
                answer_seconds=answer_seconds,
            )
        )
        stdin.close()
        stdout.close()
        thread.join(60)
        assert not thread.is_alive()
        return status, asterisk.channel


def test_a_call_is_authorized_over_stdin_and_stdout(capfd: pytest.CaptureFixture[str]) -> None:
    control = FakeControl()
    status, channel = play(control, "authorize", ["00442071234567", "acme2"])
    assert status == EXIT_DONE
    assert channel.variables["AC_STATUS"] == "ALLOWED"
    assert set(AC_VARIABLES) <= set(channel.variables)
    asked = control.requests[0]
    assert (asked.number, asked.account, asked.node) == ("00442071234567", "acme2", "pbx1")
    assert (asked.uniqueid, asked.linkedid) == ("1795292445.7", LINKEDID)
    assert (asked.accountcode, asked.source) == ("acme", SOURCE)
    assert capfd.readouterr() == ("", ""), "pyst2 writes every line to stderr by itself"


def test_arguments_default_to_the_channel() -> None:
    control = FakeControl()
    play(control, "authorize")
    asked = control.requests[0]
    assert (asked.number, asked.accountcode, asked.account) == ("442071234567", "acme", "")


def test_arguments_that_are_not_utf8_are_text() -> None:
    control = FakeControl()
    play(control, "authorize", ["44\udcff"])
    assert control.requests[0].number == "44\\xff"


@pytest.mark.parametrize("script", ["next-route", "balance"])
def test_the_other_scripts_run(script: str) -> None:
    status, channel = play(FakeControl(), script)
    assert status == EXIT_DONE
    assert channel.variables["AC_STATUS"] in ("ALLOWED", "NOACCOUNT")


def test_hangup_runs_although_the_channel_is_hung_up() -> None:
    """Asterisk has sent SIGHUP by then; pyst2 alone would refuse every command."""
    control = FakeControl()
    values = {BILLSEC: "2.001800", "DIALSTATUS": "ANSWER", "AC_CALL": "c7"}

    def hang_up(command: str, answer: str) -> str:
        return "HANGUP\n" + answer

    def prepare(asterisk: FakeAsterisk) -> None:
        asterisk.channel.variables.update(values)
        asterisk.block += b"HANGUP\n"
        asterisk.answered = hang_up

    status, _ = play(control, "hangup", prepare=prepare)
    assert status == EXIT_DONE
    assert control.reports[0].talk_ms == 2001


@pytest.mark.parametrize("value", ["hangup", "a|b", "(", ")", "Zo\u00eb", '"', "a b"])
def test_values_are_read_as_they_are(value: str) -> None:
    """pyst2 takes a value "hangup" for a hangup."""
    control = FakeControl()

    def prepare(asterisk: FakeAsterisk) -> None:
        asterisk.channel.variables["CHANNEL(linkedid)"] = value

    play(control, "authorize", prepare=prepare)
    assert control.requests[0].linkedid == value


def test_a_hostile_caller_id_arrives_as_text() -> None:
    control = FakeControl()
    hostile = '"\\${X}|,\udcff' * 1_000

    def prepare(asterisk: FakeAsterisk) -> None:
        asterisk.block = header_block("astcredit-agi", callerid=hostile)

    status, _ = play(control, "authorize", prepare=prepare)
    assert status == EXIT_DONE
    assert control.requests[0].callerid == hostile.replace("\udcff", "\\xff")


@pytest.mark.parametrize(
    "block",
    [
        header_block("x", callerid="1\nagi_accountcode: victim"),
        header_block("x", callerid="1\nagi_threadid: 1\n\n200 result=1 (x)\n200 result=0"),
        b"GET / HTTP/1.0\r\n\r\n",
        b"agi_x: " + b"y" * (LINE_BYTES + 1) + b"\n\n",
        b"".join(b"agi_%d: x\n" % number for number in range(HEADER_LINES + 1)) + b"\n",
    ],
    ids=["header", "end", "http", "line", "lines"],
)
def test_what_fastagi_refuses_is_refused(block: bytes) -> None:
    control = FakeControl()

    def prepare(asterisk: FakeAsterisk) -> None:
        asterisk.block = block

    status, channel = play(control, "authorize", prepare=prepare)
    assert status == EXIT_FAILED
    assert control.requests == []
    assert "AC_STATUS" not in channel.variables


def test_a_terminal_is_told_in_time() -> None:
    """Nobody sends a request."""

    def prepare(asterisk: FakeAsterisk) -> None:
        asterisk.block = b""

    status, _ = play(FakeControl(), "authorize", prepare=prepare, reply_seconds=0.02)
    assert status == EXIT_FAILED


@pytest.mark.parametrize(
    "reply",
    [f"200 result=1 ({'x' * LINE_BYTES})\n", "100 Trying\n" * 7_000 + "200 result=0\n"],
    ids=["line", "lines"],
)
def test_a_reply_without_an_end_is_refused(reply: str) -> None:
    control = FakeControl()

    def prepare(asterisk: FakeAsterisk) -> None:
        asterisk.answered = lambda command, answer: reply

    status, _ = play(control, "authorize", prepare=prepare)
    assert status == EXIT_FAILED
    assert control.requests == []


def at_mset(answer: str) -> Callable[[str, str], str]:
    return lambda command, real: answer if command.startswith("EXEC") else real


@pytest.mark.parametrize(
    ("answer", "abandoned"),
    [
        ("", ["call-1"]),
        ("junk\n", []),
        ("200 result=-1\n", ["call-1"]),
        ("HANGUP\n200 result=0\n", ["call-1"]),
    ],
)
def test_an_answer_that_was_not_taken_is_taken_back_once(answer: str, abandoned: list[str]) -> None:
    """Where the pipe is closed pyst2 alone raises ValueError: int('')."""
    control = FakeControl()

    def prepare(asterisk: FakeAsterisk) -> None:
        asterisk.answered = at_mset(answer)

    status, _ = play(control, "authorize", prepare=prepare)
    assert status == EXIT_FAILED
    assert control.abandoned == abandoned


def test_a_signal_that_the_caller_hung_up_takes_the_answer_back() -> None:
    class HangsUp(FakeControl):
        async def authorize(self, request: CallRequest) -> Authorization:
            signal.raise_signal(signal.SIGHUP)
            return ALLOWED

    before = signal.getsignal(signal.SIGHUP)
    control = HangsUp()
    status, channel = play(control, "authorize")
    assert status == EXIT_FAILED
    assert control.abandoned == ["call-1"]
    assert "AC_STATUS" not in channel.variables
    assert signal.getsignal(signal.SIGHUP) is before


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        ("510 Invalid or unknown command\n", "ALLOWED"),
        ("520-Usage\nx\n520 End of proper usage.\n", "ALLOWED"),
        ("100 Trying\n" * 2_000 + "200 result=-2\n", "ALLOWED"),
    ],
    ids=["510", "520", "100"],
)
def test_an_asterisk_without_mset_gets_variables_one_by_one(reply: str, status: str) -> None:
    def prepare(asterisk: FakeAsterisk) -> None:
        asterisk.answered = at_mset(reply)
        asterisk.channel = FakeChannel(mset=False)

    done, channel = play(FakeControl(), "authorize", prepare=prepare)
    assert done == EXIT_DONE
    assert channel.variables["AC_STATUS"] == status


def test_a_control_that_hangs_delays_no_caller() -> None:
    """Asterisk sees the script's end before the control's: its stdout is closed by then."""

    @dataclass(slots=True)
    class AnswersWhenClosed(FakeControl):
        asterisk: FakeAsterisk | None = None
        answered: bool = False

        async def authorize(self, request: CallRequest) -> Authorization:
            assert self.asterisk is not None
            self.answered = await asyncio.to_thread(self.asterisk.ended.wait, 60)
            return ALLOWED

    control = AnswersWhenClosed()

    def prepare(asterisk: FakeAsterisk) -> None:
        control.asterisk = asterisk

    status, channel = play(control, "authorize", prepare=prepare, answer_seconds=0.02)
    assert status == EXIT_DONE
    assert channel.variables["AC_STATUS"] == "ERROR"
    assert control.answered
    assert control.abandoned == ["call-1"]


def test_a_failure_and_a_wrong_name_are_an_exit_status() -> None:
    failed, channel = play(FakeControl(error=RuntimeError("bug")), "authorize")
    assert (failed, channel.variables["AC_STATUS"]) == (EXIT_FAILED, "ERROR")
    wrong, channel = play(FakeControl(), "authorise")
    assert (wrong, channel.variables["AC_STATUS"]) == (EXIT_FAILED, "ERROR")


def test_pyst2_alone_takes_a_closed_stdin_for_an_answer() -> None:
    """Why its stdin is wrapped. If this fails, pyst2 has changed."""
    agi = pyst2.AGI(io.StringIO(""), io.StringIO(), io.StringIO())
    with pytest.raises(ValueError, match="int"):
        agi.execute("ANSWER")
