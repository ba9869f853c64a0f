"""Asterisk's side of the manager interface: accepts the controller, answers it, sends it events.

What is sent while a piece of work is done goes out in one write at its end, as a kernel's buffer
would join the writes of a busy Asterisk. What the controller does not take yet waits here: nothing
is ever dropped, and `waiting` says how much it is.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Mapping

from asterisk_texts import BANNER, BOOTED, CHANNEL_ITEMS, stamp

Message = Mapping[str, str]
"""An action of the controller's, names in small letters."""

_READ_BYTES = 65_536
_WRITE_BYTES = 1_000_000
_STARTED = b"CoreStartupDate: 2026-11-21\r\nCoreStartupTime: 20:19:27\r\n"


class LiveCall:
    """A call that is up, as the manager interface tells of it."""

    __slots__ = ("account", "answered_us", "call_id", "leg", "number", "serial", "uniqueid")

    def __init__(self, serial: int, account: bytes, number: bytes, epoch: int) -> None:
        self.serial = serial
        self.account = account
        self.number = number
        self.uniqueid = b"%d.%d" % (epoch, 2 * serial)
        self.leg = b"%d.%d" % (epoch, 2 * serial + 1)
        self.call_id = b""
        self.answered_us = 0

    def values(self, at_us: int) -> dict[bytes, bytes | int]:
        """What fills the texts of events at an instant, µs since 1970."""
        return {
            b"serial": self.serial,
            b"account": self.account,
            b"number": self.number,
            b"uniqueid": self.uniqueid,
            b"leg": self.leg,
            b"call": self.call_id,
            b"told": b"%b/%b" % (self.call_id, stamp(self.answered_us)),
            b"at": stamp(at_us),
        }


class ManagerSide:
    """The listening socket and those who are connected to it.

    `live` are the calls that are up, by the caller's unique id; `end` is called with a call that
    the controller wants to be hung up.
    """

    def __init__(
        self, poller: select.epoll, live: Mapping[bytes, LiveCall], end: Callable[[LiveCall], None]
    ) -> None:
        self._poller = poller
        self._live = live
        self._end = end
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self.port = int(self._listener.getsockname()[1])
        self._sessions: dict[int, _Session] = {}
        self._unsent: list[bytes] = []
        self.lost = 0
        """Connections of a controller that have ended."""
        self.longest_stall = 0.0
        """Seconds for which at most nothing could be sent because the controller did not read."""
        poller.register(self._listener.fileno(), select.EPOLLIN)

    @property
    def sessions(self) -> int:
        """Controllers that have logged in."""
        return sum(session.logged_in for session in self._sessions.values())

    @property
    def waiting(self) -> int:
        """Bytes that controllers have not taken yet."""
        return sum(len(session.unsent) for session in self._sessions.values())

    def send(self, events: bytes) -> None:
        """Send events to whoever has logged in, at the next `flush`."""
        self._unsent.append(events)

    def flush(self) -> None:
        """Hand over to the kernel what it takes."""
        if self._unsent:
            events = b"".join(self._unsent)
            self._unsent.clear()
            for session in list(self._sessions.values()):
                if session.logged_in:
                    self._write(session, events)

    def handle(self, fd: int, flags: int) -> bool:
        """Take what epoll said of a socket; False if it is none of the manager's."""
        if fd == self._listener.fileno():
            connection, _ = self._listener.accept()
            connection.setblocking(False)
            session = self._sessions[connection.fileno()] = _Session(connection)
            self._poller.register(connection.fileno(), select.EPOLLIN)
            self._write(session, BANNER)
            return True
        found = self._sessions.get(fd)
        if found is None:
            return False
        if flags & select.EPOLLOUT:
            self._write(found, b"")
        if flags & ~select.EPOLLOUT:
            self._read(found)
        return True

    def _read(self, session: _Session) -> None:
        try:
            data = session.connection.recv(_READ_BYTES)
        except OSError:
            data = b""
        if not data:
            self._drop(session)
            return
        session.unread += data
        while (end := session.unread.find(b"\r\n\r\n")) >= 0:
            block, session.unread = session.unread[:end], session.unread[end + 4 :]
            pairs = (line.partition(": ") for line in block.decode().split("\r\n"))
            action = {name.lower(): value for name, _, value in pairs}
            self.flush()  # what happened before the question comes before its answer
            self._write(session, self._answer(session, action))

    def _write(self, session: _Session, data: bytes) -> None:
        session.unsent += data
        now = time.monotonic()
        if session.blocked_since:
            self.longest_stall = max(self.longest_stall, now - session.blocked_since)
        try:
            while session.unsent:
                with memoryview(session.unsent) as unsent:
                    sent = session.connection.send(unsent[:_WRITE_BYTES])
                del session.unsent[:sent]
                session.blocked_since = 0.0
        except BlockingIOError:
            session.blocked_since = session.blocked_since or now
        except OSError:
            self._drop(session)
            return
        self._ask_for_room(session)

    def _ask_for_room(self, session: _Session) -> None:
        """Be told when the controller takes more, as long as something is left for it."""
        wanted = select.EPOLLIN | (select.EPOLLOUT if session.unsent else 0)
        if wanted != session.asked:
            session.asked = wanted
            self._poller.modify(session.connection.fileno(), wanted)

    def _drop(self, session: _Session) -> None:
        self._sessions.pop(session.connection.fileno(), None)
        session.connection.close()
        self.lost += 1

    # ---- answers

    def _answer(self, session: _Session, action: Message) -> bytes:
        name = action["action"].lower()
        if name == "login":
            session.logged_in = True
            return _reply(action, b"Message: Authentication accepted\r\n") + BOOTED
        answer = getattr(self, f"_on_{name}", None)
        if answer is None:
            return _reply(action, b"Message: Invalid/unknown command\r\n", b"Error")
        found: bytes = answer(action)
        return found

    def _on_filter(self, action: Message) -> bytes:
        return _reply(action, b"Message: Filter added successfully\r\n")

    def _on_ping(self, action: Message) -> bytes:
        return _reply(action, b"Ping: Pong\r\nTimestamp: %b\r\n" % stamp(time.time_ns() // 1000))

    def _on_coresettings(self, action: Message) -> bytes:
        return _reply(action, b"AsteriskVersion: 22.10.1\r\nSystemName: bench\r\n")

    def _on_corestatus(self, action: Message) -> bytes:
        return _reply(action, _STARTED)

    def _on_coreshowchannels(self, action: Message) -> bytes:
        begin = _reply(action, b"EventList: start\r\nMessage: Channels will follow\r\n")
        ours = action["actionid"].encode()
        items = [
            CHANNEL_ITEMS % {**call.values(0), b"action": ours} for call in self._live.values()
        ]
        end = b"Event: CoreShowChannelsComplete\r\nActionID: %b\r\nEventList: Complete\r\n"
        return begin + b"".join(items) + end % ours + b"ListItems: %d\r\n\r\n" % (2 * len(items))

    def _on_absolutetimeout(self, action: Message) -> bytes:
        if self._found(action) is None:
            return _no_channel(action)
        return _reply(action, b"Message: Timeout Set\r\n")

    def _on_getvar(self, action: Message) -> bytes:
        call = self._found(action)
        if call is None:
            return _no_channel(action)
        at_us = call.answered_us - (500_000 if "start" in action["variable"] else 0)
        return _reply(action, b"Value: %b\r\n" % stamp(at_us))

    def _on_hangup(self, action: Message) -> bytes:
        call = self._found(action)
        if call is None:
            return _no_channel(action)
        self._end(call)
        return _reply(action, b"Message: Channel Hungup\r\n")

    def _found(self, action: Message) -> LiveCall | None:
        """The call of a channel that is named by its unique id or its name."""
        wanted = action["channel"].encode()
        for call in self._live.values():
            names = (b"PJSIP/%b-%08x" % (call.account, call.serial), b"PJSIP/carrier-%08x")
            if wanted in (call.uniqueid, call.leg, names[0], names[1] % call.serial):
                return call
        return None


class _Session:
    """One connection of a controller."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.logged_in = False
        self.unread = b""
        self.unsent = bytearray()
        self.asked = select.EPOLLIN
        self.blocked_since = 0.0


def _reply(action: Message, headers: bytes, response: bytes = b"Success") -> bytes:
    ours = action.get("actionid", "").encode()
    return b"Response: %b\r\nActionID: %b\r\n%b\r\n" % (response, ours, headers)


def _no_channel(action: Message) -> bytes:
    return _reply(action, b"Message: No such channel\r\n", b"Error")
