"""The postman of a server process: his task, his own database connections, his mail server."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

from astcredit.app.clock import now_ms
from astcredit.app.metrics import Metrics
from astcredit.app.settings import MailSettings, Settings
from astcredit.app.smtp_mailer import SmtpMailer
from astcredit.service.notification_ports import MailStatus
from astcredit.service.postman import Postman
from astcredit.storage.database import open_database
from astcredit.storage.outbox import SqlOutbox

FINISH_SECONDS: Final = 5.0
"""At the program's end a mail that is being sent gets so long; then it is broken off."""

MOST_HOST: Final = 50
"""Characters of the host's name in a sender's name: the column holds 80 in all."""

LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")


@asynccontextmanager
async def post_office(settings: Settings, metrics: Metrics) -> AsyncIterator[None]:
    """Send notifications while the block runs, if there is a mail server.

    Raises RefusedError for settings that cannot work. Its database is opened once more: no call
    waits for a connection that a mail has.
    """
    if settings.mail.server is None:
        yield
        return
    mailer = SmtpMailer(settings.mail, now_ms)
    database = open_database(settings.database.url)
    postman = Postman(
        SqlOutbox(database), mailer, settings.mail.admin, sender_name, now_ms, PostCounter(metrics)
    )
    stop = asyncio.Event()
    task = asyncio.create_task(postman.run(stop), name="postman")
    try:
        yield
    finally:
        stop.set()
        await _finished(task, mailer)
        await database.close()


def sender_name() -> str:
    """A name for a sender that none had before: a process can get the number of a dead one."""
    return f"{socket.gethostname()[:MOST_HOST]}:{os.getpid()}:{secrets.token_hex(4)}"


async def _finished(task: asyncio.Task[None], mailer: SmtpMailer) -> None:
    """Wait for the postman; he writes what became of a mail that is broken off."""
    done, _ = await asyncio.wait({task}, timeout=FINISH_SECONDS)
    if not done:
        mailer.cut()
        done, _ = await asyncio.wait({task}, timeout=FINISH_SECONDS)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


class PostCounter:
    """Brings what happens to notifications to the metrics.

    Implements `astcredit.service.postman.PostObserver`.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def mail(self, status: MailStatus) -> None:
        """An attempt ended so."""
        self._metrics.mails.labels(status.value).inc()

    def outbox(self, counts: Mapping[MailStatus, int]) -> None:
        """So many notifications are not sent."""
        for status, rows in counts.items():
            self._metrics.outbox.labels(status.value).set(rows)


async def try_server(settings: MailSettings) -> str:
    """Connect to the mail server and log in, without a mail; what came of it.

    Raises RefusedError for settings that cannot work, MailError if the server does not let us in.
    """
    return await SmtpMailer(settings, now_ms).check()


def exposes_password(settings: MailSettings) -> bool:
    """Whether the password would go over a network as it is."""
    if settings.server is None or settings.tls != "none":
        return False
    return bool(settings.user) and settings.server.host not in LOOPBACK
