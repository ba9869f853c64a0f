"""Handing mails to an SMTP server.

smtplib in a thread of its own for each mail: mails are few, its login and TLS are proven, and the
event loop that answers calls never waits for it. The conversation is led step by step, because one
question decides whether a mail may be sent again: had the server its last byte? Until then nothing
was sent; after that only the server knows. So it is noted before that byte leaves.
"""

from __future__ import annotations

import asyncio
import re
import smtplib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Final, TypeVar

from astcredit.app.mail_message import compose
from astcredit.app.setting_sections import MailSettings
from astcredit.domain.notices import one_line
from astcredit.domain.text import printable
from astcredit.service.errors import RefusedError
from astcredit.service.notification_ports import (
    HandOver,
    Mail,
    MailDelayedError,
    MailError,
    MailRefusedError,
    MailUnsureError,
    Receipt,
)

T = TypeVar("T")

CONNECT_SECONDS: Final = 10.0
"""A server that is there accepts a connection at once."""

MOST_REPLY: Final = 100
"""Characters of a server's answer that are shown."""

_PERMANENT: Final = 500
"""Replies from this on mean never; those below: not now."""
_START_INPUT: Final = 354
_LINE_BEGINS_WITH_DOT: Final = re.compile(rb"^\.", re.MULTILINE)
_END_OF_DATA: Final = b".\r\n"

_CLOSING: Final = 421
"""The server closes the connection, whatever was asked."""


class SmtpMailer:
    """Sends by SMTP. Implements `astcredit.service.notification_ports.Mailer`.

    One mail at a time. Raises RefusedError for settings that cannot work.
    """

    def __init__(self, settings: MailSettings, now_ms: Callable[[], int]) -> None:
        if settings.server is None or not settings.sender:
            raise RefusedError("mail.sender: expected an address, because mail.server is set")
        self._settings = settings
        self._now_ms = now_ms
        self._tls = _tls(settings)
        self._cut = asyncio.Event()

    async def send(self, mail: Mail, hand_over: HandOver) -> Receipt:
        """Hand a mail over, once `hand_over` has noted it. Raises the MailErrors."""
        try:
            message = compose(mail, self._settings, self._now_ms())
        except ValueError as error:
            raise MailRefusedError(str(error)) from error
        note = partial(_wait_for, hand_over, asyncio.get_running_loop())
        conversation = _Conversation(self._settings, self._tls)
        return await self._led(
            conversation, lambda: conversation.deliver(mail.recipients, message, note)
        )

    async def check(self) -> str:
        """Connect, encrypt and log in, and send nothing; who answered. Raises the MailErrors."""
        conversation = _Conversation(self._settings, self._tls)
        return await self._led(conversation, conversation.greet)

    def cut(self) -> None:
        """Break off what is being sent, now and from now on: the program ends."""
        self._cut.set()

    async def _led(self, conversation: _Conversation, work: Callable[[], T]) -> T:
        """The result of `work`, which leads the conversation in a thread; broken off in time."""
        result = asyncio.ensure_future(_in_thread(work))
        cut = asyncio.ensure_future(self._cut.wait())
        try:
            seconds = self._settings.timeout_seconds
            await asyncio.wait({result, cut}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if result.done():
                return result.result()
            why = "the program ends" if cut.done() else f"no end after {seconds} seconds"
            raise conversation.broken_off(why)
        finally:
            conversation.break_off()
            result.cancel()
            cut.cancel()


class _Conversation:
    """A connection to the server for one mail. Its methods run in a thread, `broken_off` and
    `break_off` outside."""

    def __init__(self, settings: MailSettings, tls: ssl.SSLContext | None) -> None:
        self._settings = settings
        self._tls = tls
        self._lock = threading.Lock()
        self._smtp: smtplib.SMTP | None = None
        self._broken_off = False
        self._handed_over = False

    def break_off(self) -> None:
        """End the connection under the hands of the thread. From now on nothing is sent."""
        with self._lock:
            self._broken_off = True
            sock = None if self._smtp is None else self._smtp.sock
        if sock is not None:
            with suppress(OSError):
                # The plain socket's method: it wakes the thread, and leaves TLS to it.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def broken_off(self, why: str) -> MailError:
        """Break off; what is to be said of the mail then."""
        self.break_off()
        return self._failed(why)

    def greet(self) -> str:
        """Connect and log in; what came of it."""
        with self._connected():
            return "logged in" if self._settings.user else "answers"

    def deliver(
        self, recipients: Sequence[str], message: bytes, note: Callable[[], None]
    ) -> Receipt:
        """Hand the message over, after `note` has returned."""
        with self._connected() as smtp:
            _expect(smtp.mail(self._settings.sender))
            receipt = _name_recipients(smtp, recipients)
            self._hand_over(smtp, message, note)
            return receipt

    @contextmanager
    def _connected(self) -> Iterator[smtplib.SMTP]:
        """A connection, closed at the end. Whatever goes wrong comes out as a MailError."""
        try:
            smtp = self._connect()
            try:
                yield smtp
            except MailError:
                _take_leave(smtp)
                raise
            _take_leave(smtp)
        except MailError:
            raise
        except Exception as error:  # the network's, smtplib's, or a text that is not ASCII
            raise self._failed(_text(error)) from error
        finally:
            if self._smtp is not None:
                self._smtp.close()

    def _failed(self, why: str) -> MailError:
        if self._handed_over:
            return MailUnsureError(f"{why}; the server may have taken the mail")
        return MailDelayedError(why, unreachable=True)

    def _connect(self) -> smtplib.SMTP:
        server, settings = self._settings.server, self._settings
        assert server is not None
        if settings.tls == "tls":
            smtp: smtplib.SMTP = smtplib.SMTP_SSL(
                server.host, server.port, timeout=CONNECT_SECONDS, context=self._tls
            )
        else:
            smtp = smtplib.SMTP(server.host, server.port, timeout=CONNECT_SECONDS)
        with self._lock:
            self._smtp = smtp
            if self._broken_off:
                raise OSError("broken off")
        assert smtp.sock is not None
        smtp.sock.settimeout(settings.timeout_seconds)
        if settings.tls == "starttls":
            smtp.starttls(context=self._tls)
        smtp.ehlo_or_helo_if_needed()
        if settings.user:
            smtp.login(settings.user, settings.password)
        return smtp

    def _hand_over(self, smtp: smtplib.SMTP, message: bytes, note: Callable[[], None]) -> None:
        code, reply = smtp.docmd("DATA")
        if code != _START_INPUT:
            raise _refusal(code, reply)
        smtp.send(_LINE_BEGINS_WITH_DOT.sub(b"..", message))
        note()
        with self._lock:
            if self._broken_off:
                raise OSError("broken off")
            self._handed_over = True
        smtp.send(_END_OF_DATA)
        code, reply = smtp.getreply()
        if not _is_done(code):
            # An answer is an answer, whatever it is: the server did not take the mail.
            raise _refusal(code, reply)


def _name_recipients(smtp: smtplib.SMTP, recipients: Sequence[str]) -> Receipt:
    """Who may get the mail. Raises a MailError if nobody may."""
    taken, refused, delayed, replies = [], [], [], []
    for recipient in recipients:
        code, reply = smtp.rcpt(recipient)
        if _is_done(code):
            taken.append(recipient)
        else:
            replies.append((code, reply))
            delayed += [recipient] if code < _PERMANENT else []
            refused.append(f"not for {recipient}: {_reply(code, reply)}")
    if not taken:
        # If one may be taken later, all are tried again.
        raise _refusal(*min(replies, key=lambda each: each[0] >= _PERMANENT))
    return Receipt(tuple(taken), "; ".join(refused), tuple(delayed))


def _is_done(code: int) -> bool:
    return 200 <= code < 300


def _expect(answer: tuple[int, bytes]) -> None:
    """Raise unless the server agrees to something that does not depend on the recipient."""
    if not _is_done(answer[0]):
        raise smtplib.SMTPResponseException(*answer)


def _refusal(code: int, reply: bytes) -> MailError:
    text = _reply(code, reply)
    if code >= _PERMANENT:
        return MailRefusedError(text)
    return MailDelayedError(text, unreachable=code == _CLOSING)


def _reply(code: int, reply: bytes | str) -> str:
    text = reply.decode("utf-8", "replace") if isinstance(reply, bytes) else reply
    return f"{code} {' '.join(one_line(text).split())[:MOST_REPLY]}"


def _text(error: Exception) -> str:
    """What went wrong with the connection, in a line."""
    if isinstance(error, smtplib.SMTPResponseException):
        return _reply(error.smtp_code, error.smtp_error)
    if isinstance(error, TimeoutError):
        return "no answer"
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(one_line(reason).split())


def _take_leave(smtp: smtplib.SMTP) -> None:
    """Whether the server still hears it does not matter, and is not waited for long."""
    with suppress(OSError, smtplib.SMTPException):
        if smtp.sock is not None:
            smtp.sock.settimeout(CONNECT_SECONDS)
        smtp.quit()


def _tls(settings: MailSettings) -> ssl.SSLContext | None:
    if settings.tls == "none":
        return None
    try:
        return ssl.create_default_context(cafile=settings.ca_file or None)
    except OSError as error:
        shown = printable(settings.ca_file)
        raise RefusedError(f"mail.ca_file {shown}: {error.strerror or error}") from error


def _wait_for(hand_over: HandOver, loop: asyncio.AbstractEventLoop) -> None:
    """Have the event loop note it, from a thread. Raises what that raises."""
    noting = hand_over()
    try:
        asyncio.run_coroutine_threadsafe(noting, loop).result()
    except RuntimeError:  # the loop is closed: the program has ended
        noting.close()
        raise


async def _in_thread(work: Callable[[], T]) -> T:
    """The result of `work`, run in a thread that does not keep the program from ending."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def run() -> None:
        try:
            tell = partial(done.set_result, work())
        except BaseException as error:
            tell = partial(done.set_exception, error)
        with suppress(RuntimeError):  # the loop is closed: nobody is left to be told
            loop.call_soon_threadsafe(lambda: None if done.done() else tell())

    threading.Thread(target=run, name="mail", daemon=True).start()
    return await done
