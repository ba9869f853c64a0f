"""Classic AGI: a process per call, which Asterisk starts and talks to on stdin and stdout.

pyst2's `AGI` speaks the protocol; what it lacks is put around it:

- it reads without limit or time-out, and takes a closed stdin for an answer (`int('')`): its stdin
  is an `AgiInput`, which bounds both and raises AgiError;
- it overwrites repeated headers and decodes strictly: the request is made from the same bytes by
  the parser that FastAGI uses;
- it stops at SIGHUP before a command, but the `hangup` script runs on a channel that is hung up:
  commands are sent and read in two steps here, and the signal is only noted;
- it writes each line to stderr, which is the console of whoever started Asterisk: it gets none.

Reading blocks the event loop. That is meant: nothing else runs in this process, and a wait for
Asterisk has its time limit in `AgiInput`.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import select
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import BinaryIO

from asterisk import agi as pyst2

from astcredit.asterisk.agi import (
    HANGUPS,
    LINE_BYTES,
    REPLY_BYTES,
    AgiClosedEarly,
    AgiError,
    AgiPeerGone,
    AgiProtocolError,
    AgiReply,
    AgiRequest,
    AgiTooLarge,
    AgiTooSlow,
    HeaderParser,
    drop_hangups,
)
from astcredit.asterisk.scripts import ANSWER_SECONDS, ScriptFailed, Scripts, UnknownScript
from astcredit.asterisk.variables import ChannelVariables
from astcredit.domain.text import printable
from astcredit.service.ports import CallControl

REPLY_SECONDS = 5.0
"""For the request block, and for each reply: Asterisk is on the same machine and takes 0.3 ms, so
this is a broken one, or a person who started the program in a terminal."""

LATE_SECONDS = 10.0
"""How long the process lives on for a question that was given up, so that what it reserved after
all is released. The dialplan does not wait: stdout is closed by then."""

EXIT_DONE = 0
EXIT_FAILED = 1

_log = logging.getLogger(__name__)


class AgiInput:
    """A stdin for pyst2: `readline` with limits. Bytes are read from the descriptor `fd`."""

    def __init__(self, fd: int, seconds: float) -> None:
        self._fd = fd
        self._seconds = seconds
        self._buffer = bytearray()
        self._deadline = 0.0
        self._bytes_left = 0
        self._headers = HeaderParser()
        self._when_closed: type[AgiPeerGone] = AgiClosedEarly
        self.request: AgiRequest | None = None
        self.hung_up = False
        self.expect()

    def expect(self) -> None:
        """What is read from now on is one answer, with its own limits."""
        self._deadline = time.monotonic() + self._seconds
        self._bytes_left = REPLY_BYTES

    def readline(self) -> str:
        """The next line, but for `HANGUP`. Raises AgiError instead of returning an empty text."""
        line = self._line()
        while line in HANGUPS:
            self.hung_up = True
            line = self._line()
        if self.request is None:
            self.request = self._headers.feed(line)
            if self.request is not None:
                self._when_closed = AgiPeerGone
        return line.decode("utf-8", "backslashreplace")

    def expect_silence(self) -> None:
        """Raise AgiProtocolError if anything but `HANGUP` has come without being asked for."""
        while len(self._buffer) <= LINE_BYTES and self._readable(0):
            self._read()
        self.hung_up |= drop_hangups(self._buffer)

    def _line(self) -> bytes:
        while (end := self._buffer.find(b"\n") + 1) == 0:
            if len(self._buffer) > LINE_BYTES:
                raise AgiTooLarge(f"a line of more than {LINE_BYTES} bytes")
            if not self._readable(self._deadline - time.monotonic()):
                raise AgiTooSlow("nothing from Asterisk: this program is started by its AGI()")
            self._read()
        line = bytes(self._buffer[:end])
        del self._buffer[:end]
        self._bytes_left -= end
        if end > LINE_BYTES or self._bytes_left < 0:
            raise AgiTooLarge(f"more than {REPLY_BYTES} bytes, or {LINE_BYTES} in a line")
        return line

    def _readable(self, seconds: float) -> bool:
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        return bool(poll.poll(max(seconds, 0) * 1000))

    def _read(self) -> None:
        data = os.read(self._fd, 4096)
        if not data:
            raise self._when_closed("Asterisk closed stdin")
        self._buffer += data


class _Silence:
    """A stderr that says nothing."""

    def write(self, text: str) -> int:
        return len(text)


class ClassicCommands:
    """AGI commands through pyst2 (`AgiCommands`)."""

    def __init__(self, agi: pyst2.AGI, received: AgiInput) -> None:
        self._agi = agi
        self._received = received

    @property
    def hung_up(self) -> bool:
        """Asterisk has sent SIGHUP, or a `HANGUP` line."""
        try:
            self._agi.test_hangup()
        except pyst2.AGIHangup:
            return True
        return self._received.hung_up

    async def command(self, line: str) -> AgiReply:
        """Send a command and wait for its reply. Raises AgiError."""
        self._received.expect_silence()
        self._received.expect()
        try:
            self._agi.send_command(line)
            while (reply := self._reply()) is None:
                pass
        except OSError as error:
            raise AgiPeerGone("Asterisk closed stdout") from error
        return reply

    def _reply(self) -> AgiReply | None:
        """The next reply; None for `1xx`, after which another comes."""
        try:
            result, data = self._agi.get_result()["result"]
        except pyst2.AGIInvalidCommand:
            return AgiReply(510)
        except pyst2.AGIUsageError:
            return AgiReply(520)
        except pyst2.AGIResultHangup:  # how pyst2 takes a value that reads "hangup"
            return AgiReply(200, "1", "hangup")
        except pyst2.AGIAppError:
            return AgiReply(200, "-1")
        except pyst2.AGIUnknownError as error:
            code = error.args[0]
            return None if 100 <= code < 200 else AgiReply(code)
        except ValueError:
            raise AgiProtocolError("expected a reply") from None
        return AgiReply(200, result, data)


async def run_classic(
    script: str,
    arguments: Sequence[str],
    control: CallControl,
    *,
    new_call_id: Callable[[], str],
    now_ms: Callable[[], int],
    stdin: BinaryIO,
    stdout: BinaryIO,
    node: str = "default",
    reply_seconds: float = REPLY_SECONDS,
    answer_seconds: float = ANSWER_SECONDS,
) -> int:
    """Run one script for the channel at the other end of `stdin` and `stdout`.

    Name and arguments come from the command line: in classic AGI the request names the program.
    `stdin` needs a file descriptor and must not have been read. `stdout` is closed if a question
    was given up, so that Asterisk goes on while this waits for its end. To be called in the main
    thread: pyst2 handles SIGHUP; the handler before it is put back. Returns the exit status,
    EXIT_FAILED if the script could not be run to its end (AGISTATUS is FAILURE then).
    """
    scripts = Scripts(
        control, new_call_id=new_call_id, now_ms=now_ms, answer_seconds=answer_seconds
    )
    before = signal.getsignal(signal.SIGHUP)
    text = io.TextIOWrapper(stdout, encoding="utf-8", newline="\n", write_through=True)
    try:
        received = AgiInput(stdin.fileno(), reply_seconds)
        commands = ClassicCommands(pyst2.AGI(received, text, _Silence()), received)
        request = _request(received, script, arguments)
        await scripts.run(request, ChannelVariables(commands), node)
    except (AgiError, ScriptFailed, UnknownScript) as error:
        extra = {"action": "agi_classic_failed", "script": printable(script), "error": str(error)}
        _log.warning("AGI script not done", extra=extra)
        return EXIT_FAILED
    finally:
        with contextlib.suppress(OSError):  # Asterisk may be gone
            text.detach()
            if scripts.late:
                stdout.close()
        signal.signal(signal.SIGHUP, before)
        await scripts.drain(LATE_SECONDS)
    return EXIT_DONE


def _request(received: AgiInput, script: str, arguments: Sequence[str]) -> AgiRequest:
    """The request that Asterisk sent, with script and arguments from the command line."""
    request = received.request
    if request is None:
        raise AgiProtocolError("no request before the first command")
    decoded = tuple(_decoded(argument) for argument in arguments)
    return replace(request, script=script, arguments=decoded)


def _decoded(argument: str) -> str:
    """An argument without the surrogates that Python makes of bytes that are not UTF-8."""
    return argument.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
