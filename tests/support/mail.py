"""SMTP servers on the loopback: a real one (aiosmtpd), and one that misbehaves as it is told.

Both collect what they took. The real one runs in a thread of its own; the other in the test's
event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import email
import email.policy
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from email.message import EmailMessage
from pathlib import Path
from typing import Any, cast

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from astcredit.app.setting_kinds import HostPort
from astcredit.app.setting_sections import MailSettings
from support.databases import free_port
from support.project import require_programs

SENDER = "billing@example.com"
ADMIN = "noc@example.com"


@dataclass(frozen=True)
class Taken:
    """A mail that a server took, as it was sent."""

    sender: str
    recipients: tuple[str, ...]
    content: bytes
    encrypted: bool = False
    login: bytes = b""

    @property
    def message(self) -> EmailMessage:
        parsed = email.message_from_bytes(self.content, policy=email.policy.default)
        assert isinstance(parsed, EmailMessage)
        return parsed

    @property
    def names(self) -> list[str]:
        """The names of all headers, as they stand there."""
        return [name.lower() for name in self.message.keys()]  # noqa: SIM118 - it is no dict


@dataclass
class Postbox:
    """aiosmtpd's handler: takes everything, unless it is told what to answer."""

    taken: list[Taken] = field(default_factory=list)
    answer_recipient: Callable[[str], str | None] = lambda _: None
    answer_data: Callable[[bytes], str | None] = lambda _: None

    async def handle_RCPT(  # noqa: N802 - aiosmtpd calls it so
        self,
        server: SMTP,
        session: Session,
        envelope: Envelope,
        address: str,
        options: list[str],
    ) -> str:
        answer = self.answer_recipient(address)
        if answer is None:
            envelope.rcpt_tos.append(address)
        return answer or "250 OK"

    async def handle_DATA(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        content = envelope.content
        assert isinstance(content, bytes)
        answer = self.answer_data(content)
        if answer is None:
            taken = Taken(
                envelope.mail_from or "",
                tuple(envelope.rcpt_tos),
                content,
                session.ssl is not None,
                getattr(session.auth_data, "login", b""),
            )
            self.taken.append(taken)
        return answer or "250 OK"


ACCEPTING = 10
"""Steps of the event loop within which a connection that was accepted begins to talk."""


async def let_nobody_in(server: asyncio.Server) -> None:
    """Accept no more connections, and see those begin that were accepted: asyncio (3.11) loses one
    whose server is closed between the two, and an open socket is a warning, which is an error."""
    for listening in server.sockets:
        asyncio.get_running_loop().remove_reader(listening.fileno())
    for _ in range(ACCEPTING):
        await asyncio.sleep(0)


class _Server(Controller):
    """A server that hangs up when it stops: open sockets are warnings, which are errors."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._lines: list[SMTP] = []

    def factory(self) -> SMTP:
        line: SMTP = super().factory()  # type: ignore[no-untyped-call]
        self._lines.append(line)
        return line

    def stop(self, no_assert: bool = False) -> None:
        asyncio.run_coroutine_threadsafe(self._hang_up(), self.loop).result()
        super().stop(no_assert)

    async def _hang_up(self) -> None:
        assert isinstance(self.server, asyncio.Server)
        await let_nobody_in(self.server)
        while any(line.transport is not None for line in self._lines):
            for line in self._lines:
                # Python 3.11.2: an encrypted one that is closed already says AttributeError.
                with contextlib.suppress(AttributeError):
                    if line.transport is not None:
                        cast(asyncio.Transport, line.transport).abort()
            await asyncio.sleep(0)


@contextmanager
def smtp_server(postbox: Postbox, port: int = 0, **options: Any) -> Iterator[HostPort]:
    """A real SMTP server for the block; options are aiosmtpd's."""
    place = HostPort("127.0.0.1", port or free_port())
    # server_hostname: or it asks the name server who it is.
    controller = _Server(postbox, *place, server_hostname="mail.test", **options)
    controller.start()
    try:
        yield place
    finally:
        controller.stop()


def login_with(user: bytes, password: bytes) -> dict[str, Any]:
    """Options for a server that wants this login, over TLS."""

    def authenticator(
        server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any
    ) -> AuthResult:
        good = data == LoginPassword(user, password)
        return AuthResult(success=good, handled=good, auth_data=data)

    return {"authenticator": authenticator, "auth_required": True, "require_starttls": True}


@dataclass(frozen=True)
class Certificate:
    """A certificate for 127.0.0.1 that was signed with its own key."""

    path: Path
    context: ssl.SSLContext


def make_certificate(folder: Path) -> Certificate:
    """Make one; skips the test where there is no openssl."""
    require_programs("openssl", package="openssl")
    certificate, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=mail.test", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    return Certificate(certificate, context)


def mail_settings(server: HostPort, **changes: Any) -> MailSettings:
    """Settings for a server without TLS, if nothing else is said."""
    given: dict[str, Any] = {"server": server, "tls": "none", "sender": SENDER, "admin": (ADMIN,)}
    return MailSettings(**{**given, **changes})


CLOSE = "close"
"""An answer of a rude server: it closes the connection."""

SILENCE = "silence"
"""… or says nothing any more."""

MESSAGE = "."
"""The end of a message, among the commands of `RudeServer`."""

USUAL: Mapping[str, str] = {
    "": "220 rude.test",
    "EHLO": "250 rude.test",
    "MAIL": "250 OK",
    "RCPT": "250 OK",
    "DATA": "354 go on",
    MESSAGE: "250 OK",
    "QUIT": "221 bye",
}


class RudeServer:
    """Answers each command by a table; the empty command is the greeting.

    `reached` is set when a command whose answer is SILENCE has come, `messages` counts those that
    came whole.
    """

    def __init__(self, answers: Mapping[str, str]) -> None:
        self._answers = {**USUAL, **answers}
        self.reached = asyncio.Event()
        self.messages = 0
        self.connections = 0
        self.place = HostPort("127.0.0.1", 0)
        self._talks: dict[asyncio.StreamWriter, asyncio.Task[Any]] = {}

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._talks[writer] = task
        try:
            with suppress(ConnectionError):
                await self._talk(reader, writer)
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def leave(self) -> None:
        """End all conversations."""
        for writer in self._talks:
            writer.transport.abort()
        await asyncio.gather(*self._talks.values())

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        command = ""
        while True:
            answer = self._answers.get(command, "500 what?")
            if command == MESSAGE:
                self.messages += 1
            if answer == CLOSE:
                return
            if answer == SILENCE:
                self.reached.set()
                await reader.read()  # until the other side has gone
                return
            writer.write(f"{answer}\r\n".encode())
            if command == "DATA" and answer.startswith("354"):
                while (line := await reader.readline()) != b".\r\n":
                    if not line:
                        return
                command = MESSAGE
                continue
            line = await reader.readline()
            if not line:
                return
            command = line.decode().split(maxsplit=1)[0].upper()


@asynccontextmanager
async def rude_server(answers: Mapping[str, str]) -> AsyncIterator[RudeServer]:
    """A server that misbehaves, in the running event loop."""
    rude = RudeServer(answers)
    server = await asyncio.start_server(rude.talk, "127.0.0.1", 0)
    rude.place = HostPort("127.0.0.1", server.sockets[0].getsockname()[1])
    try:
        yield rude
    finally:
        await let_nobody_in(server)
        server.close()
        await rude.leave()
        await server.wait_closed()
