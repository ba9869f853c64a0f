"""The stream of a manager interface, cut into messages, and the few headers of an event that count.

Asterisk ends a message with an empty line. A busy server sends some ten thousand events a second,
each with some 35 headers of which nine count: so a message is cut as bytes, known by its first line
and, where it is an event about dialling, searched for these nine in one go. Everything else about
the manager interface, which is not hot, is panoramisk's (`ami_session`).

What is read here is read strictly, for a caller can put headers of their own into an event (a line
break in a number): a header's name counts as Asterisk writes it, letter by letter, and one that
stands there twice makes the event `repeated`, which nobody believes.
"""

from __future__ import annotations

import re
from typing import Final

from astcredit.asterisk.dial_events import CALL_VARIABLE, EventHeaders

END: Final = b"\r\n\r\n"

_CHANNEL: Final = rf"Chan(?:nel|Variable(?=: {CALL_VARIABLE}=))"


def _reader(names: str) -> re.Pattern[str]:
    """Finds headers by a pattern of their names, which begins with the commonest.

    A value ends where its line does, CR and LF; each of them alone is a stranger's text.
    """
    return re.compile(rf"\r\n({names}|Event): ([^\r]*(?:\r(?!\n)[^\r]*)*)")


# Of the channel variables only the call's id: others may be there, and as often as they like.
_DIAL: Final = _reader(rf"D(?:est(?:{_CHANNEL}|Uniqueid)|ialStatus)|{_CHANNEL}|Uniqueid|Timestamp")
_HANGUP: Final = _reader("Cause|Uniqueid|Timestamp")

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


def read_dial_event(kind: str, counts: re.Pattern[str], message: bytes) -> EventHeaders:
    """The headers that count of a message whose first line is one of DIAL_EVENTS, which has the
    other arguments.

    A byte that is not UTF-8 becomes U+FFFD: dropped, it would bring those beside it together.
    """
    found = counts.findall(message.decode("utf8", "replace"))
    found.append(("Event", kind))
    headers = EventHeaders(found)
    headers.repeated = len(headers) < len(found)
    return headers
