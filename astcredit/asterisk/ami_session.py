"""One connection to Asterisk's manager interface, from connect and login until it is lost.

panoramisk pairs answers with actions and parses both. Events about dialling, of which there are
thousands a second, are read in `ami_messages`, which takes a tenth of the time. What panoramisk
leaves open is closed here:

- It decodes each piece that it reads by itself and drops what is not UTF-8: a letter of two
  bytes that arrives in two pieces is lost, and an invalid byte between CR and LF, where no filter
  in Asterisk takes them for a line's end, makes them one. Here it is only given whole messages in
  which an invalid byte has become U+FFFD.
- It connects again by itself and then sends again whatever was not answered: a `Hangup` meant
  for one channel would be carried out minutes later. Here a Manager serves one connection, and
  what was not answered in it fails with it.
- An action that is never answered waits for ever, and stays in its table. Here each has a
  deadline, after which it is forgotten.
- It logs actions that it could not send, with the secret of a login. Here it has no voice.
- A value with a line break would add headers of its own to an action. Here it is refused.

And one thing that Asterisk 22 leaves open: a line break that a caller hides in a number (`%0d%0a`
in a SIP address) is written as it is, in lists as well as in events, so that a caller can end a
message and begin one of their own. Asterisk sends a list in one piece, with no event between its
items: an event there is forged and not believed, and the list is not complete. Nor is it when
something arrives that is no message: the rest of one that was cut in two.

AmiError                  whatever went wrong with a manager interface
├── AmiLostError          no connection, or none any more; an action's outcome is unknown
│   └── AmiTimeoutError   the peer did not answer in time
├── AmiRefusedError       Asterisk does not accept user and secret
├── AmiRejectedError      Asterisk answered an action with an error; the text is Asterisk's
└── AmiIncompleteError    a list ended before it was complete
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from panoramisk.actions import Action
from panoramisk.ami_protocol import AMIProtocol
from panoramisk.manager import Manager

from astcredit.asterisk.ami_intake import Intake
from astcredit.asterisk.ami_messages import DIAL_EVENTS, MessageCutter, first_line, read_dial_event
from astcredit.asterisk.ami_node import AmiNode
from astcredit.asterisk.legs import HeaderValue
from astcredit.service.errors import AstcreditError

CONNECT_SECONDS: Final = 5.0
"""A TCP connect within a site takes milliseconds; lost SYNs are sent again after 1 s and 3 s."""

LOGIN_SECONDS: Final = 10.0
"""Asterisk holds back the answer to a wrong secret for 1 s; a machine in swap takes some more."""

REPLY_SECONDS: Final = 10.0
"""Asterisk answers in under a millisecond, but one action after the other and behind the events
that wait; this long means that it is stuck."""

LIST_SECONDS: Final = 30.0
"""The list of channels is 0.5 kB a channel: 10,000 channels, 5 MB, over a slow line."""

PING_SECONDS: Final = 10.0
"""Between two questions whether the peer still lives. With REPLY_SECONDS: a dead one is noticed
within 20 s, before the shortest usual prepaid call has outlived its end by a minute."""

RECONNECT_SECONDS: Final = 2.0
"""Between two attempts to connect: Asterisk needs some seconds to start again."""

REFUSED_SECONDS: Final = 30.0
"""After a wrong secret. It needs a person, and each attempt is a line in Asterisk's security log,
where tools like fail2ban count them."""

MAX_MESSAGE_BYTES: Final = 1024 * 1024
"""One message. An event has some 60 headers, of which a caller fills ten with up to 64 kB at most
(what fits in a SIP message over UDP). Beyond this the peer is no Asterisk."""

_BEGINNINGS: Final = ("Event: ", "Response: ", "Asterisk Call Manager/")
_EVENT: Final = b"Event: "
_ACTION_ID: Final = b"\r\nActionID: "
_OWN_EVENTS: Final = frozenset({b"Event: FullyBooted", b"Event: Shutdown"})
"""Wanted besides those about dialling, and rare."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# What panoramisk pairs answers by: it trips over an item of a list in which one is repeated.
_PAIRING = re.compile(r"\r\n(ActionID|CommandID|Event|EventList|SubEvent|Message): ", re.IGNORECASE)

# panoramisk logs whole actions and messages: a logger that never passes anything on.
_SILENT: Final = logging.Logger("panoramisk", logging.CRITICAL + 1)

_log = logging.getLogger(__name__)

Headers = Mapping[str, HeaderValue]
"""A message of Asterisk's. The names are looked up without regard to case."""


class AmiError(AstcreditError):
    """Something went wrong with a manager interface."""


class AmiLostError(AmiError):
    """There is no connection, or it ended before the answer came."""


class AmiTimeoutError(AmiLostError):
    """The peer did not answer in time."""


class AmiRefusedError(AmiError):
    """Asterisk does not accept user and secret."""


class AmiRejectedError(AmiError):
    """Asterisk answered an action with an error."""


class AmiIncompleteError(AmiError):
    """Asterisk began a list and did not complete it."""


@dataclass(frozen=True, slots=True)
class AmiTimes:
    """All deadlines and pauses of a link, in seconds. Reasons stand with the constants."""

    connect: float = CONNECT_SECONDS
    login: float = LOGIN_SECONDS
    reply: float = REPLY_SECONDS
    listing: float = LIST_SECONDS
    ping: float = PING_SECONDS
    ping_reply: float = REPLY_SECONDS
    reconnect: float = RECONNECT_SECONDS
    refused: float = REFUSED_SECONDS


class AmiSession:
    """A logged-in connection; it never comes back once `closed` is set, `reason` then says why.
    `strays` counts what came and Asterisk cannot have sent.

    `on_event` is called with each event that is wanted, in Asterisk's order, in the event loop;
    of events about dialling with the headers that count.
    """

    def __init__(self, node: AmiNode, on_event: Callable[[Headers], None], times: AmiTimes) -> None:
        self._node = node
        self._on_event = on_event
        self._times = times
        self._pending: set[asyncio.Future[Headers | list[Headers]]] = set()
        self._manager: _OneConnection | None = None
        self._intake: Intake | None = None
        self.closed = asyncio.Event()
        self.reason = ""
        self.strays = 0

    @property
    def behind_seconds(self) -> float:
        """For how long the oldest thing that Asterisk sent and is not handled has waited here."""
        intake = self._intake
        return intake.behind_seconds if intake else 0.0

    @property
    def waiting_bytes(self) -> int:
        """How much Asterisk has sent that is not handled yet."""
        intake = self._intake
        return intake.waiting_bytes if intake else 0

    async def open(self) -> None:
        """Connect and log in. Raises AmiLostError or AmiRefusedError, and is closed then."""
        try:
            await self._connect()
            await self._login()
        except BaseException:
            self.close()
            raise

    async def request(
        self, action: str, headers: Mapping[str, str] | None = None, seconds: float | None = None
    ) -> Headers:
        """Send an action and return the answer to it.

        Raises AmiRejectedError when Asterisk answers with an error, AmiLostError when no answer
        comes within `seconds` (by default the usual deadline).
        """
        answer = await self._exchange(action, headers or {}, seconds or self._times.reply)
        first: Headers = answer[0] if isinstance(answer, list) else answer
        if text_of(first, "Response").lower() == "error":
            raise AmiRejectedError(text_of(first, "Message"))
        return first

    async def request_list(self, action: str) -> list[Headers]:
        """Send an action that is answered with a list, and return its items, all of them.

        Raises AmiIncompleteError rather than return a part; else as `request`.
        """
        strays = self.strays
        answer = await self._exchange(action, {}, self._times.listing)
        if not isinstance(answer, list):
            if text_of(answer, "Response").lower() == "error":
                raise AmiRejectedError(text_of(answer, "Message"))
            raise AmiIncompleteError(f"{action} was not answered with a list")
        if self.strays != strays:
            raise AmiIncompleteError(f"{action} was answered with a list that is not its own")
        items, end = answer[1:-1], answer[-1]
        complete = text_of(end, "EventList").lower() == "complete"
        if not complete or text_of(end, "ListItems") != str(len(items)):
            raise AmiIncompleteError(f"{action} was answered with a list that is not complete")
        return items

    def close(self) -> None:
        """End the connection, after what it has brought is handled; what waits for an answer gets
        AmiLostError. Can be repeated."""
        if self._intake is not None:
            self._intake.drain()
        if self._manager is not None:
            self._manager.close()
        self._end("closed")

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        manager = _OneConnection(self._dispatch, self._stray, self._end, loop)
        try:
            async with asyncio.timeout(self._times.connect):
                made = await loop.create_connection(
                    lambda: _Connection(manager, self._node.name), self._node.host, self._node.port
                )
        except TimeoutError:
            raise AmiTimeoutError("no connection in time") from None
        except (OSError, UnicodeError) as error:  # UnicodeError: a host name that cannot be one
            raise AmiLostError(f"cannot connect: {error}") from error
        self._manager, self._intake = manager, made[1].intake
        ready: asyncio.Future[tuple[asyncio.Transport, _Connection]] = loop.create_future()
        ready.set_result(made)
        manager.connection_made(ready)

    async def _login(self) -> None:
        login = {"Username": self._node.username, "Secret": self._node.secret}
        try:
            await self.request("Login", login, self._times.login)
        except AmiRejectedError as error:
            raise AmiRefusedError(f"login refused: {error}") from None

    async def _exchange(
        self, action: str, headers: Mapping[str, str], seconds: float
    ) -> Headers | list[Headers]:
        if self._manager is None or self.closed.is_set():
            raise AmiLostError("not connected")
        if any(_CONTROL.search(value) for value in headers.values()):
            raise ValueError("an AMI header must not contain a control character")
        message = Action({"Action": action, **headers})
        future: asyncio.Future[Headers | list[Headers]] = self._manager.send_action(message)
        self._pending.add(future)
        try:
            async with asyncio.timeout(seconds):
                return await future
        except TimeoutError:
            raise AmiTimeoutError(f"no answer to {action} in time") from None
        finally:
            self._pending.discard(future)
            self._manager.protocol.responses.pop(message.id, None)

    def _dispatch(self, event: Headers) -> None:
        if not self.closed.is_set():
            self._on_event(event)

    def _stray(self) -> None:
        self.strays += 1
        extra = {"action": "ami_tampered", "node": self._node.name}
        _log.warning("AMI message that Asterisk does not send", extra=extra)

    def _end(self, reason: str) -> None:
        if not self.closed.is_set():
            self.reason = reason
        self.closed.set()
        for future in self._pending:
            if not future.done():
                future.set_exception(AmiLostError(reason))


class _OneConnection(Manager):  # type: ignore[misc] # panoramisk comes without types
    """panoramisk's Manager for a single connection: it neither reconnects nor pings."""

    def __init__(
        self,
        on_event: Callable[[Headers], None],
        on_stray: Callable[[], None],
        on_lost: Callable[[str], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(loop=loop, log=_SILENT)
        self.hear = on_event
        self.on_stray = on_stray
        self._on_lost = on_lost

    def dispatch(self, event: Headers) -> None:
        """Take an event that belongs to no action."""
        if self.nothing_listed():
            self.hear(event)

    def nothing_listed(self) -> bool:
        """Whether an event can come now: no list has begun that is not at its end. One that comes
        all the same is a stray."""
        asked = self.protocol.responses
        if asked and any(action.responses for action in asked.values()):
            self.on_stray()
            return False
        return True

    def connection_lost(self, exc: object) -> None:
        # An exception, None at the end of the stream, or the event Shutdown.
        self._on_lost("Asterisk shuts down" if isinstance(exc, Mapping) else "connection lost")

    def ping(self) -> None:
        """The link asks itself: panoramisk never looks whether an answer comes."""


class _Connection(AMIProtocol):  # type: ignore[misc] # panoramisk comes without types
    """panoramisk's protocol, fed with whole messages only, and with none that is hot."""

    encoding = "utf8"

    def __init__(self, manager: _OneConnection, node: str) -> None:
        self._manager = manager
        self._node = node
        self._cutter = MessageCutter()

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self.factory = self._manager  # so that a peer that is gone at once is noticed as well
        self.log = _SILENT
        self.intake = Intake(self._node, transport, self._cut, self._take)

    def connection_lost(self, exc: object) -> None:
        # What was said before the end is heard before the end.
        self.intake.finish(lambda: AMIProtocol.connection_lost(self, exc))

    def data_received(self, data: bytes) -> None:
        self.intake.put(data)

    def _cut(self, data: bytes) -> list[bytes]:
        messages = self._cutter.cut(data)
        if self._cutter.unread_bytes > MAX_MESSAGE_BYTES and not self.transport.is_closing():
            _log.error("AMI message without an end", extra={"action": "ami_message_too_long"})
            self.transport.abort()
        return messages

    def _take(self, message: bytes) -> None:
        try:
            first = first_line(message)
            dial_event = DIAL_EVENTS.get(first)
            if dial_event is not None:
                if self._manager.nothing_listed():
                    self._manager.hear(read_dial_event(*dial_event, message))
            elif _is_unwanted(first, message):
                self._manager.nothing_listed()
            else:
                self._take_rare(message.decode("utf8", "replace"))
        except Exception as error:
            _log.exception("AMI event not understood", extra={"action": "ami_event_broken"})
            self._give_up(error)

    def _take_rare(self, message: str) -> None:
        """An answer, a part of one, or an event of Asterisk's own state."""
        if not message.lstrip().startswith(_BEGINNINGS) or _is_forged_item(message):
            if message.strip():
                self._manager.on_stray()
            return
        try:
            super().data_received(f"{message}\r\n\r\n".encode())
        except Exception as error:  # panoramisk takes a repeated header for granted to be none
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        """Which messages came after one that cannot be read is not known, so a new connection has
        to find out what is true."""
        extra = {"action": "ami_message_broken", "node": self._node, "error": repr(error)}
        _log.error("AMI message not understood", extra=extra)
        self.intake.drop()
        self.transport.abort()


def _is_unwanted(first: bytes, message: bytes) -> bool:
    """Whether a message is an event that nobody asked for: no item of a list."""
    return first.startswith(_EVENT) and first not in _OWN_EVENTS and _ACTION_ID not in message


def _is_forged_item(message: str) -> bool:
    """Whether a caller's line break added something to an item of a list that is paired by."""
    names = [name.lower() for name in _PAIRING.findall(f"\r\n{message}")]
    return "event" in names and len(set(names)) < len(names)


def text_of(headers: Headers, name: str) -> str:
    """A header's text, the first where it was repeated, empty where it is missing."""
    value = headers.get(name, "")
    return value[0] if isinstance(value, list) else value
