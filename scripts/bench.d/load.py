"""Calls as Asterisk makes them, many at once: the AGI connections of `authorize`, and after each
that is allowed the events of an answered call.

A closed load keeps so many authorizations in flight: the next call begins when an answer is there.
An open load begins calls at planned instants, whatever becomes of those before; its latencies
count from the planned instant, so that a controller that stands still for a moment is charged with
every call that should have begun meanwhile.
"""

from __future__ import annotations

import errno
import re
import select
import socket
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from asterisk_texts import ANSWERED_CALL, ENDED_CALL, REQUEST, SET, UNKNOWN_COMMAND
from manager_side import LiveCall

_READ_BYTES = 4_096
_VARIABLE = re.compile(rb"\$\{([^{}]*\}?)\}")
_NOT_YET = (errno.EAGAIN, errno.EINPROGRESS, errno.ENOTCONN)
_CALLS_A_TURN = 64
"""Calls begun, or ended, before the sockets are looked at again."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done.

    `calls` at most, begun within `seconds` (0: without limit of time); `at_once` authorizations in
    flight, or `rate` calls a second. They are made by accounts PREFIX0 … PREFIX(accounts-1) in
    turn. An allowed call is answered at once and ends `hold` seconds later (never, where that is
    negative); its events say that it lasted up to `talk_ms`.
    """

    port: int
    calls: int = 1_000_000_000
    seconds: float = 0.0
    at_once: int = 0
    rate: float = 0.0
    accounts: int = 1
    prefix: str = "client"
    hold: float = 0.1
    talk_ms: int = 120_000


@dataclass(slots=True)
class Outcome:
    """What came of it. Instants are of the monotonic clock, which all processes share."""

    began: float
    ended: float = 0.0
    statuses: Counter[str] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)
    """Seconds from the begin of a call until the controller has closed the connection, which is
    when the dialplan goes on."""
    late: float = 0.0
    """Seconds by which the generator itself began a planned call too late, at worst."""
    faults: Counter[str] = field(default_factory=Counter)
    """What an AGI server must not do, and connections that could not be made."""


class _Visit:
    """One AGI connection."""

    __slots__ = ("began", "call", "connection", "fd", "status", "unread", "unsent")

    def __init__(self, connection: socket.socket, call: LiveCall, began: float) -> None:
        self.connection = connection
        self.fd = connection.fileno()
        self.call = call
        self.began = began
        self.status = "LOST"
        self.unread = b""
        self.unsent = b""


class Load:
    """One plan being carried out. `live` gets the calls that are up, `send` their events."""

    def __init__(
        self,
        plan: Plan,
        poller: select.epoll,
        live: dict[bytes, LiveCall],
        send: Callable[[bytes], None],
        first_serial: int,
        epoch: int,
    ) -> None:
        self._plan = plan
        self._poller = poller
        self._live = live
        self._send = send
        self._epoch = epoch
        self._address = ("127.0.0.1", plan.port)
        self._accounts = [f"{plan.prefix}{n}".encode() for n in range(plan.accounts)]
        self._visits: dict[int, _Visit] = {}
        self._to_end: deque[tuple[float, LiveCall]] = deque()
        self._replies: dict[bytes, Callable[[LiveCall], bytes]] = {}
        self.serial = first_serial
        self._begun = 0
        self.outcome = Outcome(time.monotonic())

    @property
    def done(self) -> bool:
        """Whether all calls have been made, and have ended if they were to."""
        return not self._visits and not self._to_end and not self._more(time.monotonic())

    def _more(self, now: float) -> bool:
        plan = self._plan
        if self._begun >= plan.calls:
            return False
        began = self.outcome.began
        planned = began + self._begun / plan.rate if plan.rate else now
        return not plan.seconds or planned - began < plan.seconds

    def next_due(self) -> float | None:
        """When something is to be done that no socket tells of; None: nothing."""
        due = self._to_end[0][0] if self._to_end else None
        if self._plan.rate and self._more(0.0):
            planned = self.outcome.began + self._begun / self._plan.rate
            return planned if due is None else min(planned, due)
        return due

    def turn(self) -> None:
        """Begin and end the calls whose time has come."""
        now = time.monotonic()
        for _ in range(_CALLS_A_TURN):
            if not self._to_end or self._to_end[0][0] > now:
                break
            self.end(self._to_end.popleft()[1])
        for _ in range(_CALLS_A_TURN):
            if not self._more(now) or not self._begin_one(now):
                break

    def _begin_one(self, now: float) -> bool:
        """Begin a call if it is time for one."""
        plan = self._plan
        if not plan.rate:
            if len(self._visits) >= plan.at_once:
                return False
            self._begin(now)
            return True
        planned = self.outcome.began + self._begun / plan.rate
        if planned > now:
            return False
        self.outcome.late = max(self.outcome.late, now - planned)
        self._begin(planned)
        return True

    def _begin(self, began: float) -> None:
        serial = self.serial
        self.serial += 1
        account = self._accounts[self._begun % len(self._accounts)]
        self._begun += 1
        call = LiveCall(serial, account, b"44207123%04d" % (serial % 10_000), self._epoch)
        connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        visit = _Visit(connection, call, began)
        refused = connection.connect_ex(self._address)
        self._visits[visit.fd] = visit
        self._poller.register(visit.fd, select.EPOLLIN)
        if refused not in (0, errno.EINPROGRESS):
            self._finish(visit)
            return
        self._write(
            visit,
            REQUEST
            % {
                b"account": account,
                b"serial": serial,
                b"uniqueid": call.uniqueid,
                b"number": call.number,
            },
        )

    def _write(self, visit: _Visit, data: bytes) -> None:
        try:
            sent = visit.connection.send(data)
        except OSError as error:
            if error.errno not in _NOT_YET:
                self._finish(visit)
                return
            sent = 0
        if sent < len(data):
            visit.unsent = data[sent:]
            flags = select.EPOLLIN | select.EPOLLOUT
            self._poller.modify(visit.fd, flags)

    def handle(self, fd: int, flags: int) -> bool:
        """Take what epoll said of a socket; False if it is no connection of this load."""
        visit = self._visits.get(fd)
        if visit is not None:
            self._ready(visit, flags)
        return visit is not None

    def _ready(self, visit: _Visit, flags: int) -> None:
        if visit.unsent and flags & select.EPOLLOUT:
            data, visit.unsent = visit.unsent, b""
            self._poller.modify(visit.fd, select.EPOLLIN)
            self._write(visit, data)
            if not flags & ~select.EPOLLOUT:
                return
        try:
            data = visit.connection.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._finish(visit)
            return
        if visit.unread:
            data, visit.unread = visit.unread + data, b""
        self._command(visit, data)

    def _command(self, visit: _Visit, data: bytes) -> None:
        """Answer a command; one that came together with another is a fault, for a real Asterisk
        would stall."""
        first_end = data.find(b"\n") + 1
        if not first_end:
            visit.unread = data
            return
        if first_end != len(data):
            self.outcome.faults["two commands at once"] += 1
        if data.startswith(b"EXEC MSet "):
            status = _value(data, b"AC_STATUS=")
            if status:
                visit.status = status.decode()
                visit.call.call_id = _value(data, b"AC_CALL=")
            self._write(visit, SET)
            return
        reply = self._replies.get(data)
        if reply is None:
            reply = self._replies[data] = _reply_to(data)
        self._write(visit, reply(visit.call))

    def _finish(self, visit: _Visit) -> None:
        if self._visits.pop(visit.fd, None) is None:
            return
        visit.connection.close()
        now = time.monotonic()
        self.outcome.ended = now
        self.outcome.statuses[visit.status] += 1
        if visit.status == "LOST":
            self.outcome.faults["no answer on a connection"] += 1
        self.outcome.latencies.append(now - visit.began)
        if visit.status == "ALLOWED":
            self._answer(visit.call, now)

    def _answer(self, call: LiveCall, now: float) -> None:
        call.answered_us = time.time_ns() // 1000
        self._live[call.uniqueid] = call
        self._send(ANSWERED_CALL % call.values(call.answered_us))
        if self._plan.hold >= 0:
            self._to_end.append((now + self._plan.hold, call))

    def end(self, call: LiveCall) -> None:
        """Hang up a call; its events tell how long it has lasted, not how long it was up here."""
        if self._live.pop(call.uniqueid, None) is None:
            return
        talk_us = 1_000 * (call.serial * 7_919 % (self._plan.talk_ms + 1))
        self._send(ENDED_CALL % call.values(call.answered_us + talk_us))


def _value(command: bytes, name: bytes) -> bytes:
    """What an MSet gives to a variable, for values without a comma."""
    begin = command.find(name)
    if begin < 0:
        return b""
    begin += len(name)
    ends = (command.find(b",", begin), command.find(b'"', begin))
    return command[begin : min(end for end in ends if end >= 0)]


def _reply_to(command: bytes) -> Callable[[LiveCall], bytes]:
    """How a command other than MSet is answered. The controller asks the same of every call, so
    this is found out once."""
    if not command.startswith((b"GET FULL VARIABLE ", b"GET VARIABLE ")):
        return lambda _: UNKNOWN_COMMAND
    text = command.split(b" ", 2)[2] if b"FULL" not in command else command.split(b" ", 3)[3]
    text = text.strip().strip(b'"').replace(b"%", b"%%")
    if b"FULL" not in command:
        text = b"${%b}" % text
    places = {
        b"CHANNEL(linkedid)": b"%(uniqueid)b",
        b"CHANNEL(pjsip,remote_addr)": b"192.0.2.7:5060",
    }
    template = _VARIABLE.sub(lambda match: places.get(match[1], b""), text)
    reply = b"200 result=1 (%b)\n" % template
    return lambda call: reply % {b"uniqueid": call.uniqueid}
