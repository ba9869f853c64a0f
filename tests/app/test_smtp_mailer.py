"""Mails handed to SMTP servers: real ones, and such that fail at every step of the conversation."""

from __future__ import annotations

import asyncio
import smtplib
import socket
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest

from astcredit.app import smtp_mailer
from astcredit.app.setting_kinds import HostPort
from astcredit.app.setting_sections import MailSettings
from astcredit.app.smtp_mailer import MOST_REPLY, SmtpMailer
from astcredit.domain.notices import Notice
from astcredit.service.errors import RefusedError, TransientError
from astcredit.service.notification_ports import (
    Mail,
    MailDelayedError,
    MailError,
    MailRefusedError,
    MailUnsureError,
    Receipt,
)
from support.core import Clock
from support.databases import free_port
from support.mail import (
    CLOSE,
    MESSAGE,
    SENDER,
    SILENCE,
    Certificate,
    Postbox,
    RudeServer,
    login_with,
    mail_settings,
    make_certificate,
    rude_server,
    smtp_server,
)

T = TypeVar("T")

ANNA, BOB = "anna@example.com", "bob@example.com"
BODY = "first\n.\n..two\n. three\nlast without an end"
MAIL = Mail((ANNA,), Notice("Hello", BODY, None, ()), "1:a:1")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"))


async def noted() -> None:
    """Nobody has to know that a mail is handed over."""


def send(settings: MailSettings, mail: Mail = MAIL) -> Receipt:
    async def run() -> Receipt:
        return await SmtpMailer(settings, Clock()).send(mail, noted)

    return asyncio.run(run())


def failure(settings: MailSettings, mail: Mail = MAIL) -> MailError:
    with pytest.raises(MailError) as caught:
        send(settings, mail)
    assert str(caught.value).isprintable()
    return caught.value


def test_a_mail_arrives_as_it_was_written() -> None:
    postbox = Postbox()
    with smtp_server(postbox) as server:
        assert send(mail_settings(server)) == Receipt((ANNA,))
    (taken,) = postbox.taken
    assert (taken.sender, taken.recipients) == (SENDER, (ANNA,))
    assert taken.message.get_content().replace("\r\n", "\n") == BODY + "\n"
    assert not taken.encrypted


def test_starttls_encrypts_before_anything_is_said(certificate: Certificate) -> None:
    postbox = Postbox()
    options: dict[str, Any] = {"tls_context": certificate.context, "require_starttls": True}
    with smtp_server(postbox, **options) as server:
        send(mail_settings(server, tls="starttls", ca_file=str(certificate.path)))
    assert [taken.encrypted for taken in postbox.taken] == [True]


def test_tls_from_the_first_byte(certificate: Certificate) -> None:
    postbox = Postbox()
    with smtp_server(postbox, ssl_context=certificate.context) as server:
        send(mail_settings(server, tls="tls", ca_file=str(certificate.path)))
    assert len(postbox.taken) == 1


@pytest.mark.parametrize("tls", ["starttls", "tls"])
def test_a_certificate_that_nobody_vouches_for_is_not_taken(
    certificate: Certificate, tls: str
) -> None:
    postbox = Postbox()
    options: dict[str, Any] = {
        "ssl_context" if tls == "tls" else "tls_context": certificate.context
    }
    with smtp_server(postbox, **options) as server:
        error = failure(mail_settings(server, tls=tls))
    assert isinstance(error, MailDelayedError)
    assert error.unreachable
    assert "certificate verify failed" in str(error)
    assert postbox.taken == []


def test_a_certificate_for_another_name_is_not_taken(certificate: Certificate) -> None:
    postbox = Postbox()
    with smtp_server(postbox, ssl_context=certificate.context) as server:
        other = HostPort("localhost", server.port)
        error = failure(mail_settings(other, tls="tls", ca_file=str(certificate.path)))
    assert "localhost" in str(error)
    assert postbox.taken == []


def test_a_server_without_starttls_gets_neither_mail_nor_password() -> None:
    """Whoever strikes STARTTLS out of the greeting must not get the mail in clear for it."""
    postbox = Postbox()
    with smtp_server(postbox) as server:
        settings = mail_settings(server, tls="starttls", user="me", password="secret")
        error = failure(settings)
    assert isinstance(error, MailDelayedError)
    assert error.unreachable
    assert "STARTTLS" in str(error)
    assert postbox.taken == []


def test_login(certificate: Certificate) -> None:
    postbox = Postbox()
    options = {"tls_context": certificate.context, **login_with(b"me", b"hush-hush")}
    with smtp_server(postbox, **options) as server:
        given: dict[str, Any] = {"tls": "starttls", "ca_file": str(certificate.path)}
        right = mail_settings(server, user="me", password="hush-hush", **given)
        send(right)
        assert [taken.login for taken in postbox.taken] == [b"me"]
        assert asyncio.run(SmtpMailer(right, Clock()).check()) == "logged in"
        for user, password in (("me", "hush-hash"), ("", ""), ("me", "grün")):
            error = failure(mail_settings(server, user=user, password=password, **given))
            assert isinstance(error, MailDelayedError), user  # a person can mend it
            assert error.unreachable
            assert "hush" not in str(error)
    assert len(postbox.taken) == 1


def refusing(**answers: str) -> Callable[[str], str | None]:
    return lambda address: answers.get(address.partition("@")[0])


@pytest.mark.parametrize(
    ("answers", "kind"),
    [
        ({"anna": "550 no such user"}, MailRefusedError),
        ({"anna": "451 try later"}, MailDelayedError),
        ({"anna": "550 no", "bob": "450 greylisted"}, MailDelayedError),
        ({"anna": "550 no", "bob": "551 no"}, MailRefusedError),
    ],
)
def test_recipients_that_are_not_taken(answers: dict[str, str], kind: type[MailError]) -> None:
    postbox = Postbox(answer_recipient=refusing(**answers))
    recipients = (ANNA, BOB)[: len(answers)]
    with smtp_server(postbox) as server:
        error = failure(mail_settings(server), Mail(recipients, MAIL.notice, "k"))
    assert type(error) is kind
    assert str(error) in answers.values()
    if isinstance(error, MailDelayedError):
        assert not error.unreachable  # the next mail may well be taken
    assert postbox.taken == []


def test_one_of_two_recipients_is_better_than_none() -> None:
    postbox = Postbox(answer_recipient=refusing(anna="550 no such user"))
    with smtp_server(postbox) as server:
        receipt = send(mail_settings(server), Mail((ANNA, BOB), MAIL.notice, "k"))
    assert receipt == Receipt((BOB,), f"not for {ANNA}: 550 no such user")
    assert [taken.recipients for taken in postbox.taken] == [(BOB,)]


@pytest.mark.parametrize(
    ("answer", "kind"),
    [("554 looks like spam", MailRefusedError), ("452 disk full", MailDelayedError)],
)
def test_a_mail_that_is_refused_when_it_was_read(answer: str, kind: type[MailError]) -> None:
    postbox = Postbox(answer_data=lambda _: answer)
    with smtp_server(postbox) as server:
        error = failure(mail_settings(server))
    assert (type(error), str(error)) == (kind, answer)


def test_a_recipient_that_is_busy_is_named_beside_one_that_is_not() -> None:
    answers = refusing(anna="450 greylisted", bob="550 no such user")
    postbox = Postbox(answer_recipient=answers)
    carl = "carl@example.com"
    with smtp_server(postbox) as server:
        receipt = send(mail_settings(server), Mail((ANNA, BOB, carl), MAIL.notice, "k"))
    said = f"not for {ANNA}: 450 greylisted; not for {BOB}: 550 no such user"
    assert receipt == Receipt((carl,), said, (ANNA,))


def test_nobody_listens() -> None:
    error = failure(mail_settings(HostPort("127.0.0.1", free_port())))
    assert isinstance(error, MailDelayedError)
    assert error.unreachable
    assert str(error) == "Connection refused"


def with_rude_server(
    answers: dict[str, str], work: Callable[[RudeServer, SmtpMailer], Coroutine[Any, Any, T]]
) -> T:
    async def run() -> T:
        async with rude_server(answers) as rude:
            return await work(rude, SmtpMailer(mail_settings(rude.place), Clock()))

    return asyncio.run(run())


def outcome(answers: dict[str, str]) -> tuple[MailError, int]:
    """What a mail comes to, and how many messages the server got whole."""

    async def work(rude: RudeServer, mailer: SmtpMailer) -> tuple[MailError, int]:
        with pytest.raises(MailError) as caught:
            await mailer.send(MAIL, noted)
        return caught.value, rude.messages

    return with_rude_server(answers, work)


@pytest.mark.parametrize(
    ("step", "answer"),
    [
        ("", CLOSE), ("", "554 go away"), ("", "421 busy"), ("EHLO", CLOSE), ("MAIL", CLOSE),
        ("MAIL", "550 you may not send"), ("MAIL", "451 later"), ("RCPT", CLOSE),
        ("RCPT", "421 closing"), ("DATA", CLOSE), ("DATA", "421 closing"), (MESSAGE, "421 closing"),
    ],
)  # fmt: skip
def test_before_the_message_is_complete_nothing_was_sent(step: str, answer: str) -> None:
    """… nor when the server says that it did not take it; and the next mail fares no better."""
    error, messages = outcome({step: answer})
    assert isinstance(error, MailDelayedError)
    assert error.unreachable
    assert messages == (step == MESSAGE)


def test_after_the_message_only_the_server_knows() -> None:
    error, messages = outcome({MESSAGE: CLOSE})
    assert isinstance(error, MailUnsureError)
    assert messages == 1


def test_a_mail_is_noted_when_all_but_its_end_is_sent() -> None:
    """And is not completed where that cannot be noted."""

    async def work(rude: RudeServer, mailer: SmtpMailer) -> None:
        seen = []

        async def note() -> None:
            seen.append(rude.messages)

        async def away() -> None:
            raise TransientError("the database is away")

        await mailer.send(MAIL, note)
        assert (seen, rude.messages) == ([0], 1)
        with pytest.raises(MailDelayedError, match="the database is away") as caught:
            await mailer.send(MAIL, away)
        assert caught.value.unreachable
        assert rude.messages == 1

    with_rude_server({}, work)


@pytest.mark.parametrize("farewell", [CLOSE, "500 what", "250 OK"])
def test_a_server_that_took_the_mail_may_leave_as_it_likes(farewell: str) -> None:
    async def work(rude: RudeServer, mailer: SmtpMailer) -> None:
        assert await mailer.send(MAIL, noted) == Receipt((ANNA,))
        assert rude.messages == 1

    with_rude_server({"QUIT": farewell}, work)


@pytest.mark.parametrize("step", ["", "EHLO", "MAIL", "RCPT", "DATA", MESSAGE])
def test_a_server_that_falls_silent_is_left_when_the_program_ends(step: str) -> None:
    """And it is known whether the mail may have been sent, without waiting for the server."""

    async def work(rude: RudeServer, mailer: SmtpMailer) -> MailError:
        sending = asyncio.create_task(mailer.send(MAIL, noted))
        await rude.reached.wait()
        mailer.cut()
        with pytest.raises(MailError, match="the program ends") as caught:
            await sending
        return caught.value

    error = with_rude_server({step: SILENCE}, work)
    assert type(error) is (MailUnsureError if step == MESSAGE else MailDelayedError)


def test_a_mail_after_the_end_is_not_begun() -> None:
    async def work(rude: RudeServer, mailer: SmtpMailer) -> int:
        mailer.cut()
        with pytest.raises(MailDelayedError):
            await mailer.send(MAIL, noted)
        return rude.messages

    assert with_rude_server({}, work) == 0


def test_what_was_broken_off_is_not_completed_a_moment_later() -> None:
    """Who broke off was told that nothing was sent: the thread may not prove it wrong."""

    class Server(smtplib.SMTP):
        def __init__(self) -> None:
            super().__init__()
            self.got = b""

        def docmd(self, cmd: str, args: str = "") -> tuple[int, bytes]:
            return 354, b"go on"

        def send(self, s: Any) -> None:
            self.got += s
            if b"Hello" in s:
                assert isinstance(conversation.broken_off("the end"), MailDelayedError)

    server = Server()
    conversation = smtp_mailer._Conversation(mail_settings(HostPort("127.0.0.1", 25)), None)
    with pytest.raises(OSError, match="broken off"):
        conversation._hand_over(server, b"Hello\r\n", lambda: None)
    assert server.got == b"Hello\r\n"


def test_a_server_that_takes_too_long_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(rude: RudeServer, mailer: SmtpMailer) -> None:
        monkeypatch.setattr(asyncio, "wait", no_patience)
        with pytest.raises(MailDelayedError, match="no end after 120 seconds"):
            await mailer.send(MAIL, noted)

    async def no_patience(waited: set[asyncio.Future[Any]], **_: Any) -> tuple[Any, Any]:
        """The time is over at once."""
        return set(), waited

    with_rude_server({"": SILENCE}, work)


def test_checking_sends_nothing() -> None:
    async def work(rude: RudeServer, mailer: SmtpMailer) -> None:
        assert await mailer.check() == "answers"
        assert (rude.connections, rude.messages) == (1, 0)

    with_rude_server({"MAIL": CLOSE}, work)
    with pytest.raises(MailError, match="554 go away"):
        with_rude_server({"": "554 go away"}, lambda _, mailer: mailer.check())


def test_what_a_server_answers_is_one_short_line() -> None:
    error, _ = outcome({"RCPT": "550-\x1b[2Jno\r\n550-such\r\n550 user" + "!" * 400})
    assert str(error).startswith("550 [2Jno such user!!!")
    assert len(str(error)) == len("550 ") + MOST_REPLY


def test_settings_that_cannot_work_are_refused(tmp_path: Path) -> None:
    server = HostPort("127.0.0.1", 25)
    with pytest.raises(RefusedError, match=r"^mail\.sender: expected an address"):
        SmtpMailer(mail_settings(server, sender=""), Clock())
    missing, wrong = tmp_path / "missing.pem", tmp_path / "wrong.pem"
    wrong.write_text("no certificate")
    for path in (missing, wrong):
        with pytest.raises(RefusedError, match=r"^mail\.ca_file ") as caught:
            SmtpMailer(mail_settings(server, tls="tls", ca_file=str(path)), Clock())
        assert str(caught.value).isprintable()


def test_a_name_that_does_not_resolve() -> None:
    error = failure(mail_settings(HostPort("mail.invalid", 25)))
    assert isinstance(error, MailDelayedError)
    assert error.unreachable


def test_no_socket_is_left_behind() -> None:
    """Unclosed sockets are warnings, and warnings are errors here; this one counts, too."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    for step in ("EHLO", "MAIL", "DATA", MESSAGE):
        outcome({step: CLOSE})
    assert len(list(Path("/proc/self/fd").iterdir())) <= before
    assert socket.getdefaulttimeout() is None
