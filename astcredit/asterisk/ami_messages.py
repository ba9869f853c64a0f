"""The stream of a manager interface, cut into messages, and the few headers of an event that count.

Asterisk ends a message with an empty line. A busy server sends some ten thousand events a second,
each with some 35 headers of which nine count: so a message is cut as bytes, known by its first line
and, where it is an event about dialling, searched for these nine. Everything else about
the manager interface, which is not hot, is panoramisk's (`ami_session`).

What is read here is read strictly, for a caller can put headers of their own into an event (a line
break in a number): a header's name counts as Asterisk writes it, letter by letter, and one that
stands there twice makes the event `repeated`, which nobody believes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from astcredit.asterisk.dial_events import CALL_VARIABLE, EventHeaders

END: Final = b"\r\n\r\n"


class _Header(NamedTuple):
    """A header that counts: how the line before it ends and it begins, and where its value does."""

    name: str
    beginning: str
    value_at: int


def _header(name: str, value: str = "") -> _Header:
    """A header, or those of its name whose value begins in that way."""
    line = f"\r\n{name}: "
    return _Header(name, line + value, len(line))


# Of the channel variables only the call's id: others may be there, and as often as they like.
_DIAL: Final = (
    *map(_header, ("Timestamp", "Channel", "Uniqueid", "DestChannel", "DestUniqueid")),
    _header("DialStatus"),
    *(_header(name, f"{CALL_VARIABLE}=") for name in ("ChanVariable", "DestChanVariable")),
)
_HANGUP: Final = tuple(map(_header, ("Timestamp", "Uniqueid", "Cause")))
_EVENT: Final = _header("Event").beginning

DIAL_EVENTS: Final = {
    b"Event: DialBegin": ("DialBegin", _DIAL),
    b"Event: DialEnd": ("DialEnd", _DIAL),
    b"Event: Hangup": ("Hangup", _HANGUP),
}
"""By first line, the events that are read here: what each is called, and what counts in it."""


class MessageCutter:
    """Cuts a stream that comes in any pieces into messages. `unread_bytes` is how long the message
    is whose end has not come yet."""

    def __init__(self) -> None:
        self.unread_bytes = 0
        self._parts: list[bytes] = []
        self._tail = b""

    def cut(self, piece: bytes) -> list[bytes]:
        """The messages that are complete with this piece, without the empty line that ends each;
        some may be empty."""
        if END not in piece and END not in self._tail + piece[: len(END) - 1]:
            # Joined when the end has come, and not before: the pieces may be as small as a byte.
            self._parts.append(piece)
            self._tail = (self._tail + piece)[1 - len(END) :]
            self.unread_bytes += len(piece)
            return []
        *messages, rest = b"".join([*self._parts, piece]).split(END)
        self._parts, self._tail, self.unread_bytes = [rest], rest[1 - len(END) :], len(rest)
        return messages


def first_line(message: bytes) -> bytes:
    """What kind of message it is: `Event: Hangup`, `Response: Success`."""
    return message.partition(b"\r\n")[0]


def read_dial_event(kind: str, counts: Sequence[_Header], message: bytes) -> EventHeaders:
    """The headers that count of a message whose first line is one of DIAL_EVENTS, which has the
    other arguments. A value ends where its line does, with CR and LF; each of them alone is a
    stranger's text.

    A byte that is not UTF-8 becomes U+FFFD: dropped, it would bring those beside it together.
    """
    text = message.decode("utf8", "replace")
    headers = EventHeaders(Event=kind)
    repeated = _EVENT in text  # the first one has no line before it
    for name, beginning, value_at in counts:
        found = text.find(beginning)
        if found >= 0:
            start = found + value_at
            end = text.find("\r\n", start)
            headers[name] = text[start:] if end < 0 else text[start:end]
            repeated = repeated or text.find(beginning, start) >= 0
    headers.repeated = repeated
    return headers
