"""Sending what waits in the outbox: each notification once, however many processes send.

A row is claimed in a transaction of its own before anything is sent, what became of it is written
afterwards, and in between, before the last byte of the mail is sent, that it is handed over. From
there on the mail may have left: a row whose sender died then is `unsure` and waits for a person,
because two mails are worse than one question. One whose sender died before waits again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Final, Protocol

from astcredit.domain.alerts import AlertKind, Audience
from astcredit.domain.notices import Notice, mail_address, one_line, render
from astcredit.domain.shipped_notices import SHIPPED
from astcredit.service.errors import StorageError
from astcredit.service.notification_ports import (
    Letter,
    Mail,
    MailDelayedError,
    Mailer,
    MailError,
    MailRefusedError,
    MailStatus,
    Outbox,
    Outcome,
    Receipt,
)

log = logging.getLogger(__name__)

MINUTE_MS: Final = 60_000
DAY_MS: Final = 24 * 60 * MINUTE_MS
FIRST_PAUSE_MS: Final = MINUTE_MS
LONGEST_PAUSE_MS: Final = 6 * 60 * MINUTE_MS
MOST_ATTEMPTS: Final = 17
"""1, 2, 4, … 256 minutes, then six hours each: the last try is 50 hours after the first. Mail
servers that are mended on Monday get what was due on Saturday."""

PATIENCE_DAYS: Final = 2
"""What was due for so long and not even tried is given up as what was tried for so long: without a
mail server a month of mails would be sent, late and all at once, when there is one."""

CLAIM_MS: Final = 15 * MINUTE_MS
"""A sender that has not said for so long what became of a row is dead. The longest that a server
may take for a mail is a third of it (setting mail.timeout_seconds); the rest is for writing the
outcome into a database that is busy."""

POLL_SECONDS: Final = 5.0
"""How often the outbox is looked at: a mail takes longer to be read."""

UNREACHABLE_SECONDS: Final = 60.0
"""A server that cannot be reached is asked again after this, by one mail, however many wait."""

REPORT_SECONDS: Final = 2.0
"""How often it is tried to write an outcome: nothing is sent before that is done."""

MOST_ERROR: Final = 200
"""Characters of a reason: what the column holds."""


class PostObserver(Protocol):
    """Told what happens to notifications."""

    def mail(self, status: MailStatus) -> None:
        """An attempt ended so; WAITING: there will be another."""

    def outbox(self, counts: Mapping[MailStatus, int]) -> None:
        """So many notifications are not sent, by status."""


class Postman:
    """Sends what is due, one mail at a time.

    `new_name` makes a name that no sender had before, of at most 80 characters. `admins` are the
    addresses of the deployment's administrators.
    """

    def __init__(
        self,
        outbox: Outbox,
        mailer: Mailer,
        admins: Sequence[str],
        new_name: Callable[[], str],
        now_ms: Callable[[], int],
        observer: PostObserver,
    ) -> None:
        self._outbox = outbox
        self._mailer = mailer
        self._admins = tuple(admins)
        self._new_name = new_name
        self._name = new_name()
        self._now_ms = now_ms
        self._observer = observer

    async def run(self, stop: asyncio.Event) -> None:
        """Send until `stop` is set; what is being sent then is finished."""
        while not stop.is_set():
            reachable = True
            try:
                reachable = await self.round(stop)
            except StorageError as error:
                log.warning("outbox not read", extra={"action": "outbox", "error": str(error)})
            except Exception:
                # What was being sent then may have left. It is never claimed again under another
                # name, and is found as one whose sender died.
                log.exception("postman failed", extra={"action": "postman_failed"})
                self._name = self._new_name()
            await _wait(stop, POLL_SECONDS if reachable else UNREACHABLE_SECONDS)

    async def round(self, stop: asyncio.Event) -> bool:
        """Send what is due; False as soon as the mail server cannot be reached.

        Raises StorageError when nothing can be claimed.
        """
        await self._tidy()
        reachable = True
        while reachable and not stop.is_set() and (letter := await self._claimed()) is not None:
            reachable = await self._deliver(letter, stop)
        self._observer.outbox(await self._outbox.counts())
        return reachable

    async def _tidy(self) -> None:
        """Take what dead senders left behind, and give up what is too old."""
        for reference, status in (await self._outbox.abandon(self._now_ms())).items():
            unsure = status is MailStatus.UNSURE
            self._observer.mail(status)
            log.log(
                logging.ERROR if unsure else logging.WARNING,
                "mail may have been sent or not" if unsure else "mail not sent",
                extra={"action": f"mail_{status}", "reference": reference, "error": "sender ended"},
            )
        too_old_ms = self._now_ms() - PATIENCE_DAYS * DAY_MS
        while references := await self._outbox.expire(too_old_ms):
            for reference in references:
                self._observer.mail(MailStatus.FAILED)
                extra = {"action": "mail_failed", "reference": reference, "error": "too old"}
                log.warning("mail not sent", extra=extra)

    async def _claimed(self) -> Letter | None:
        now_ms = self._now_ms()
        return await self._outbox.claim(self._name, now_ms, now_ms + CLAIM_MS)

    async def _deliver(self, letter: Letter, stop: asyncio.Event) -> bool:
        """Send a letter and write what became of it; False if the server cannot be reached."""
        outcome, reachable = await self._attempt(letter)
        self._observer.mail(outcome.status)
        log.log(
            logging.INFO if outcome.status is MailStatus.SENT else logging.WARNING,
            "mail sent" if outcome.status is MailStatus.SENT else "mail not sent",
            extra={
                "action": f"mail_{outcome.status}",
                "reference": letter.reference,
                "attempt": letter.attempts,
                "error": outcome.error,
            },
        )
        await self._report(letter, outcome, stop)
        return reachable

    async def _attempt(self, letter: Letter) -> tuple[Outcome, bool]:
        try:
            mail = Mail(self._recipients(letter), _notice(letter), _key(letter))
        except ValueError as error:
            return self._failed(letter, str(error)), True
        if not mail.recipients:  # the others are no administrators any more
            return self._received(letter, Receipt(())), True
        recipient = ", ".join(mail.recipients)
        try:
            receipt = await self._mailer.send(mail, partial(self._hand_over, letter))
        except MailDelayedError as error:
            return self._delayed(letter, recipient, str(error)), not error.unreachable
        except MailRefusedError as error:
            return self._failed(letter, str(error), recipient), True
        except MailError as error:
            return self._outcome(letter, MailStatus.UNSURE, str(error), recipient), True
        except Exception as error:  # a fault of the program, after which the mail may have left
            log.exception("mailer failed", extra={"action": "mailer_failed"})
            text = f"{type(error).__name__}: {error}"
            return self._outcome(letter, MailStatus.UNSURE, text, recipient), True
        if receipt.delayed:
            taken_by_now = replace(letter, taken_for=letter.taken_for + receipt.recipients)
            return self._delayed(taken_by_now, recipient, receipt.refused), True
        return self._received(letter, receipt), True

    async def _hand_over(self, letter: Letter) -> None:
        if not await self._outbox.hand_over(letter, self._name, self._now_ms()):
            raise StorageError("another sender has taken it over")

    def _recipients(self, letter: Letter) -> tuple[str, ...]:
        """Who is to get the letter and has not yet. Raises ValueError if nobody is."""
        if letter.audience == Audience.ADMIN:
            if not self._admins:
                raise ValueError("no administrator's address is set (mail.admin)")
            admins = map(mail_address, self._admins)
            return tuple(admin for admin in admins if admin not in letter.taken_for)
        if not letter.email:
            raise ValueError("the client has no email address")
        return (mail_address(letter.email),)

    def _received(self, letter: Letter, receipt: Receipt) -> Outcome:
        """Nobody is left who may get it later."""
        sent_to = ", ".join(letter.taken_for + receipt.recipients)
        return self._outcome(letter, MailStatus.SENT, receipt.refused, sent_to)

    def _delayed(self, letter: Letter, recipient: str, error: str) -> Outcome:
        pause = pause_after(letter.attempts)
        if pause is None:
            text = f"given up after {letter.attempts} attempts: {error}"
            return self._failed(letter, text, recipient)
        return self._outcome(letter, MailStatus.WAITING, error, recipient, pause)

    def _failed(self, letter: Letter, error: str, recipient: str = "") -> Outcome:
        """The end of it: failed for all, or sent to those that have got it before."""
        if letter.taken_for:
            return self._outcome(letter, MailStatus.SENT, error, ", ".join(letter.taken_for))
        return self._outcome(letter, MailStatus.FAILED, error, recipient)

    def _outcome(
        self,
        letter: Letter,
        status: MailStatus,
        error: str,
        recipient: str = "",
        pause_ms: int | None = None,
    ) -> Outcome:
        now_ms = self._now_ms()
        following = None if pause_ms is None else now_ms + pause_ms
        text = one_line(error)[:MOST_ERROR]
        return Outcome(status, now_ms, following, recipient, text, letter.taken_for)

    async def _report(self, letter: Letter, outcome: Outcome, stop: asyncio.Event) -> None:
        """Write an outcome, however long the database is away; at the program's end once more.

        If it cannot be written then, the row is found as one whose sender died.
        """
        last = False
        while True:
            try:
                await self._outbox.report(letter, self._name, outcome)
            except StorageError as error:
                log.warning(
                    "outcome of a mail not written",
                    extra={"action": "mail_report", "id": letter.id, "error": str(error)},
                )
            else:
                return
            if last:
                return
            last = await _wait(stop, REPORT_SECONDS)


def pause_after(attempts: int) -> int | None:
    """Milliseconds to the next attempt after so many, at least 1, have failed; None: give up."""
    if attempts >= MOST_ATTEMPTS:
        return None
    return min(FIRST_PAUSE_MS << (attempts - 1), LONGEST_PAUSE_MS)


def _notice(letter: Letter) -> Notice:
    """The letter's text. Raises ValueError when there is none, or it cannot be filled in."""
    kind, audience = AlertKind(letter.kind), Audience(letter.audience)
    facts = {**letter.facts, "client": letter.client, "currency": letter.currency}
    try:
        return render(kind, letter.template or SHIPPED[kind, audience], facts)
    except ValueError as error:
        raise ValueError(f"template: {error}") from None


def _key(letter: Letter) -> str:
    """The same after a restart, and for a row that a person lets be sent once more."""
    return f"{letter.id}:{letter.reference}:{letter.created_at_ms}"


async def _wait(stop: asyncio.Event, seconds: float) -> bool:
    """Wait for so long, or until `stop` is set; whether it is."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()
    return stop.is_set()
