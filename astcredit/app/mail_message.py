"""A notification as the bytes that SMTP carries.

Headers are written by Python's older mail classes: the newer ones decode "=?utf-8?…?=" in what they
are given, so that a client of such a name could smuggle a line end, and with it a header, past
every check. Here a text is either printable ASCII, kept as it is, or encoded whole; and what was
written is read again before it leaves.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email import policy
from email.charset import QP, Charset
from email.errors import MessageError
from email.header import Header
from email.mime.multipart import MIMEMultipart
from email.mime.nonmultipart import MIMENonMultipart
from email.utils import format_datetime, formataddr
from typing import Final

from astcredit.app.setting_sections import MailSettings
from astcredit.domain.notices import one_line
from astcredit.service.notification_ports import Mail

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LINE: Final = 76
"""Characters of a line with encoded words (RFC 2047); the others have 78 (RFC 5322)."""
_POLICY: Final = policy.compat32.clone(linesep="\r\n", max_line_length=78)

_ENCODED_WORD: Final = "=?"
"""What begins an encoded word (RFC 2047): a text with it is encoded, or it would be decoded."""

_LONGEST_WORD: Final = 60
"""Characters of a word that is not encoded: lines are folded between words."""

_UTF8: Final = Charset("utf-8")
_UTF8.body_encoding = QP  # lines of any length become short ones, and ASCII stays readable


def compose(mail: Mail, settings: MailSettings, now_ms: int) -> bytes:
    """The message, lines ended by CRLF. Raises ValueError if it would have a header too many.

    Its Message-ID is made of the mail's key: whoever gets it twice can see so.
    """
    message = _content(mail)
    headers = dict(_headers(mail, settings, now_ms))
    for name, value in headers.items():
        message[name] = value
    try:
        written = message.as_bytes(policy=_POLICY)
    except MessageError as error:
        raise ValueError(f"the message cannot be written: {error}") from error
    _check(written, {*headers, "Content-Type", "Content-Transfer-Encoding", "MIME-Version"})
    return written


def message_id(key: str, sender: str) -> str:
    """The Message-ID of a row of the outbox; the domain is the sender's."""
    digest = hashlib.sha256(key.encode()).hexdigest()[:32]
    return f"<astcredit.{digest}@{sender.rpartition('@')[2]}>"


def _headers(mail: Mail, settings: MailSettings, now_ms: int) -> Iterator[tuple[str, str]]:
    yield "From", _mailbox(settings.sender_name, settings.sender)
    yield "To", ", ".join(mail.recipients)
    yield "Subject", _text("Subject", mail.notice.subject)
    yield "Date", format_datetime(_EPOCH + timedelta(milliseconds=now_ms))
    yield "Message-ID", message_id(mail.key, settings.sender)
    # So that nobody's vacation program answers (RFC 3834).
    yield "Auto-Submitted", "auto-generated"
    for name, value in mail.notice.headers:
        yield name, _text(name, value)


def _text(name: str, text: str) -> str:
    """The text of the header of that name as ASCII, encoded where it has to be."""
    line = one_line(text)
    if _plain(line):
        return line
    return Header(line, _UTF8, header_name=name, maxlinelen=_LINE).encode(linesep="\r\n")


def _mailbox(name: str, address: str) -> str:
    name = one_line(name)
    return formataddr((name, address)) if _plain(name) else f"{_text('From', name)} <{address}>"


def _plain(line: str) -> bool:
    """Whether a line can stand in a header as it is."""
    short = all(len(word) <= _LONGEST_WORD for word in line.split(" "))
    return short and line.isascii() and line == line.strip() and _ENCODED_WORD not in line


def _content(mail: Mail) -> MIMEMultipart | MIMENonMultipart:
    plain = _part("plain", mail.notice.body)
    if mail.notice.html is None:
        return plain
    both = MIMEMultipart("alternative")
    both.attach(plain)
    both.attach(_part("html", mail.notice.html))
    return both


def _part(subtype: str, text: str) -> MIMENonMultipart:
    part = MIMENonMultipart("text", subtype, charset="utf-8")
    # Without it the dot that ends the message would stand in the text's last line.
    part.set_payload(text if text.endswith("\n") else f"{text}\n", _UTF8)
    return part


def _check(written: bytes, expected: set[str]) -> None:
    """Raise ValueError unless the header has lines of the expected names only, each once."""
    head = written.partition(b"\r\n\r\n")[0].decode("ascii")
    lines = [line for line in head.split("\r\n") if not line.startswith((" ", "\t"))]
    names = [line.partition(":")[0] for line in lines]
    ends = head.count("\n") + head.count("\r") - 2 * head.count("\r\n")
    if ends or len(set(names)) != len(names) or not set(names) <= expected:
        raise ValueError("the message would have a header that the program did not write")
