"""Carriers and customers for the lab: sipp processes that play the scenarios of tests/lab.

Standard library only, for `scripts/lab` uses it without a virtual environment.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from support.ports import LOOPBACK, free_port
from support.sipp_trace import Talk, received, talks

SCENARIOS = Path(__file__).resolve().parents[1] / "lab" / "scenarios"
# Longest call of any test; a sipp that is older than this was forgotten.
FOR_EVER_MS = 3_600_000
# sipp binds its socket within milliseconds; a machine busy with other tests needs more.
START_DEADLINE_S = 30.0
PR_SET_PDEATHSIG = 1
# sipp binds audio, its RTCP, video and its RTCP, whether it sends any or not.
MEDIA_PORTS = 4
# Every final answer to an INVITE that Asterisk can give: sipp wants each one named.
REFUSALS = (
    *(300, 301, 302, 305, 380),
    *(400, 401, 402, 403, 404, 405, 406, 407, 408, 410, 413, 414, 415, 416, 420, 421),
    *(480, 481, 482, 483, 484, 485, 486, 487, 488, 489, 491, 493),
    *(500, 501, 502, 503, 504, 505, 513, 600, 603, 604, 606),
)
# What a customer's telephone says it is: a number of those kept for drama.
CALLER = "442079460000"
# Asterisk writes the Request-URI first, then From, then To.
_USERS = re.compile(r"^(?:INVITE |From: .*<)sip:([^@>]*)@", re.MULTILINE)
_serial = itertools.count(1)


class SippError(Exception):
    """sipp is missing, did not start, or did not come to an end in time."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The carrier rings for `ring_s`, answers, and hangs up after `hangup_after_s` seconds;
    None: it leaves hanging up to the caller."""

    hangup_after_s: float | None = None
    ring_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Reject:
    """The carrier refuses each call with this SIP code: 486 is busy, 503 out of order."""

    code: int


@dataclass(frozen=True, slots=True)
class Ring:
    """The carrier rings for ever; the call ends when the caller gives up or time is out."""


@dataclass(frozen=True, slots=True)
class Redirect:
    """The carrier answers each call with 302: call this number instead."""

    number: str


Behaviour = Answer | Reject | Redirect | Ring
BUSY = Reject(486)
OUT_OF_ORDER = Reject(503)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one call went, as the customer's telephone saw it."""

    code: int
    """Final SIP answer to the INVITE: 200 or that of the refusal."""
    ended_by: str = ""
    """`near` (the customer hung up), `far` (Asterisk did), empty when not answered."""

    @property
    def answered(self) -> bool:
        return self.code == 200


@dataclass(frozen=True, slots=True)
class CustomerScript:
    """What the customer does: whom to call, as whom, and when to hang up.

    With `cancel_after_s` the customer gives up that long after the first ringing. `headers` are
    further SIP header lines, `claimed` a host that From, Via and Contact name in place of the
    customer's own. All texts go into the INVITE as they are."""

    number: str
    hangup_after_s: float | None = None
    cancel_after_s: float | None = None
    caller: str = CALLER
    display: str = ""
    headers: Sequence[str] = ()
    claimed: str = ""
    calls: int = 1
    calls_per_second: int = 200

    def scenario(self) -> str:
        name = "customer" if self.cancel_after_s is None else "customer_cancel"
        end = self.hangup_after_s if self.cancel_after_s is None else self.cancel_after_s
        return _fill(
            name,
            NUMBER=_literal(self.number),
            CALLER=_literal(self.caller),
            HOST=_literal(self.claimed) or "[local_ip]",
            DISPLAY=f'"{_literal(self.display)}" ' if self.display else "",
            HEADERS="".join(f"{_literal(line)}\n" for line in self.headers),
            HANGUP_MS=_milliseconds(end),
            REFUSALS="\n".join(_refusal(code) for code in REFUSALS),
        )


@dataclass(frozen=True, slots=True)
class TransferScript:
    """A customer who calls `number`, talks for `talk_s` and transfers the callee to `target`:
    blindly, or `attended`, after a second call of as much talk."""

    number: str
    target: str
    talk_s: float
    attended: bool = False
    calls: int = 1
    calls_per_second: int = 200

    def scenario(self) -> str:
        return _fill(
            "customer_attended_transfer" if self.attended else "customer_blind_transfer",
            NUMBER=_literal(self.number),
            TARGET=_literal(self.target),
            CALLER=CALLER,
            TALK_MS=_milliseconds(self.talk_s),
        )


Script = CustomerScript | TransferScript


@dataclass(frozen=True, slots=True)
class Invite:
    """A call as it arrived at a carrier: the digits that were dialled, the number presented."""

    dialled: str
    presented: str


class Sipp:
    """One running sipp process with its own files in `directory`."""

    def __init__(
        self,
        directory: Path,
        scenario: str,
        arguments: Sequence[str],
        port: int,
        *,
        outlive: bool = False,
    ) -> None:
        program = shutil.which("sipp")
        if program is None:
            raise SippError("sipp is not installed (Debian: apt-get install sip-tester)")
        self._base = directory / f"sipp-{port}-{next(_serial)}"
        self._base.with_suffix(".xml").write_text(scenario, encoding="latin-1")
        self._process = subprocess.Popen(
            [
                *(program, "-sf", str(self._base.with_suffix(".xml"))),
                *("-p", str(port), "-nostdin", "-nd"),
                *("-trace_msg", "-message_file", str(self._base.with_suffix(".msg"))),
                *("-trace_logs", "-log_file", str(self._base.with_suffix(".log"))),
                *("-trace_err", "-error_file", str(self._base.with_suffix(".err"))),
                *arguments,
            ],
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=outlive,
            preexec_fn=None if outlive else die_with_parent,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def read(self, suffix: str) -> str:
        """What sipp wrote so far: `msg` messages, `log` the scenario's log, `err` complaints."""
        with contextlib.suppress(FileNotFoundError):
            return self._base.with_suffix(f".{suffix}").read_text(encoding="latin-1")
        return ""

    def finish(self, deadline_s: float) -> int:
        """Wait until it ends by itself; returns the exit status (0: every call as planned)."""
        try:
            return self._process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            self.stop()
            raise SippError(f"sipp did not end within {deadline_s} s: {self.read('err')}") from None

    def stop(self) -> None:
        """End the process; harmless when it has ended."""
        if self.running:
            self._process.kill()
        self._process.wait()


class Carrier:
    """A carrier that answers on `port` as `behaviour` says, until `stop`."""

    def __init__(
        self, directory: Path, port: int, behaviour: Behaviour, *, outlive: bool = False
    ) -> None:
        arguments = ["-i", LOOPBACK, "-mi", LOOPBACK, "-mp", str(free_port(MEDIA_PORTS))]
        self._sipp = Sipp(directory, _carrier_scenario(behaviour), arguments, port, outlive=outlive)
        try:
            _wait_for_udp(port, self._sipp)
        except SippError:
            self._sipp.stop()
            raise

    @property
    def pid(self) -> int:
        return self._sipp.pid

    def invites(self) -> list[str]:
        """The first INVITE of every call that came, whole."""
        seen: dict[str, str] = {}
        for message in received(self._sipp.read("msg")):
            call_id = re.search(r"^Call-ID:\s*(\S+)", message, re.MULTILINE | re.IGNORECASE)
            if message.startswith("INVITE ") and call_id:
                seen.setdefault(call_id[1], message)
        return list(seen.values())

    def calls(self) -> list[Invite]:
        """The calls that came, in order of arrival."""
        return [Invite(*_USERS.findall(invite)[:2]) for invite in self.invites()]

    def sleep(self) -> None:
        """Hear nothing: what comes waits, until `wake`."""
        os.kill(self._sipp.pid, signal.SIGSTOP)

    def wake(self) -> None:
        """Go on with what came meanwhile."""
        os.kill(self._sipp.pid, signal.SIGCONT)

    def talks(self) -> list[Talk]:
        """The calls that it answered and that have ended, in order of arrival."""
        return talks(self._sipp.read("msg"))

    def stop(self) -> None:
        self._sipp.stop()


@dataclass(slots=True)
class CustomerCalls:
    """Calls under way; `wait` for their outcomes."""

    sipp: Sipp
    calls: int
    _outcomes: list[Outcome] = field(default_factory=list)

    def wait(self, deadline_s: float = 30.0) -> list[Outcome]:
        """The outcome of each call, in no particular order; SippError if one was none."""
        status = self.sipp.finish(deadline_s)
        self._outcomes = _outcomes(self.sipp.read("log"))
        if len(self._outcomes) != self.calls:
            raise SippError(
                f"{len(self._outcomes)} outcomes of {self.calls} calls, sipp ended with {status}: "
                f"{self.sipp.read('err') or self.sipp.read('msg')}"
            )
        return self._outcomes

    def stop(self) -> None:
        self.sipp.stop()


def start_customer(
    directory: Path, script: Script, *, port: int, address: str, target_port: int
) -> CustomerCalls:
    """Place `script.calls` calls from `address`:`port` to Asterisk at `target_port`."""
    arguments = [
        *("-i", address, "-mi", address, "-mp", str(free_port(MEDIA_PORTS))),
        # Without an @: a Call-ID that stands in a URI (Replaces) needs no escapes.
        *("-cid_str", "%u-%p-%s"),
        *("-m", str(script.calls), "-l", str(script.calls), "-r", str(script.calls_per_second)),
        f"{LOOPBACK}:{target_port}",
    ]
    return CustomerCalls(Sipp(directory, script.scenario(), arguments, port), script.calls)


def die_with_parent() -> None:
    """In a child before exec: be killed when the thread that forked it ends, however it ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def bound(port: int, table: str = "udp") -> bool:
    """Whether the kernel lists a socket on this port: `udp` any, `tcp` any state."""
    return f":{port:04X} 0" in Path(f"/proc/net/{table}").read_text()


def _carrier_scenario(behaviour: Behaviour) -> str:
    match behaviour:
        case Answer(hangup_after_s, ring_s):
            end = _milliseconds(hangup_after_s)
            return _fill("carrier_answer", HANGUP_MS=end, RING_MS=_milliseconds(ring_s))
        case Reject(code):
            return _fill("carrier_reject", CODE=str(code), CONTACT="")
        case Redirect(number):
            contact = f"Contact: <sip:{number}@{LOOPBACK}>\n"
            return _fill("carrier_reject", CODE="302", CONTACT=contact)
        case Ring():
            return _fill("carrier_ring")


def _fill(scenario: str, **values: str) -> str:
    text = (SCENARIOS / f"{scenario}.xml").read_text(encoding="latin-1")
    return re.sub(r"@([A-Z_]+)@", lambda name: values[name[1]], text)


def _literal(text: str) -> str:
    """Text that sipp does not take for a keyword."""
    return text.replace("[", "\\x5B")


def _refusal(code: int) -> str:
    action = (
        '<action><ereg regexp="[0-9][0-9][0-9]" search_in="msg" start_line="0" '
        'assign_to="code"/></action>'
    )
    return f'  <recv response="{code}" optional="true" next="2">{action}</recv>'


def _milliseconds(seconds: float | None) -> str:
    # 1, for sipp takes a time-out of 0 for none.
    return str(FOR_EVER_MS if seconds is None else max(1, round(seconds * 1000)))


def _outcomes(log: str) -> list[Outcome]:
    codes: dict[str, int] = {}
    enders: dict[str, str] = {}
    for line in log.splitlines():
        match line.split():
            case ["answered", call]:
                codes[call] = 200
            case ["refused", code, call]:
                codes[call] = int(code)
            case ["ended", side, call]:
                enders[call] = side
    return [Outcome(code, enders.get(call, "")) for call, code in codes.items()]


def _wait_for_udp(port: int, sipp: Sipp) -> None:
    """Until the kernel lists the socket: only then an INVITE is not lost."""
    deadline = time.monotonic() + START_DEADLINE_S
    while not bound(port):
        if not sipp.running:
            raise SippError(f"sipp ended at once on port {port}: {sipp.read('err')}")
        if time.monotonic() > deadline:
            raise SippError(f"sipp did not listen on port {port} within {START_DEADLINE_S} s")
        time.sleep(0.005)
