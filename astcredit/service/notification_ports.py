"""Notifications on their way: the outbox, what delivers mails, and where templates are kept."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, TypeAlias

from astcredit.domain.alerts import AlertKind, Audience
from astcredit.domain.notices import Notice, Template
from astcredit.service.admin_ports import AdminTransaction
from astcredit.service.errors import AstcreditError
from astcredit.service.history_ports import State


class MailStatus(StrEnum):
    """Where a notification is. Nothing leads from UNSURE or FAILED back to WAITING but a person."""

    WAITING = "waiting"
    SENDING = "sending"
    SENT = "sent"
    FAILED = "failed"
    UNSURE = "unsure"


class MailError(AstcreditError):
    """A mail was not handed over, as far as is known. The text is one line for a person."""


class MailRefusedError(MailError):
    """The server does not take this mail for this recipient, now or later (5xx)."""


class MailDelayedError(MailError):
    """It was not handed over this time. `unreachable`: nor would any other mail be."""

    def __init__(self, text: str, *, unreachable: bool = False) -> None:
        super().__init__(text)
        self.unreachable = unreachable


class MailUnsureError(MailError):
    """It was handed over, and the server's answer did not come: it may have been taken."""


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail to be sent. `key` is the same for the same row of the outbox, and for no other."""

    recipients: tuple[str, ...]
    notice: Notice
    key: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """Who the server took a mail for, and in words for whom it did not; `delayed` are those of
    them that it may take later."""

    recipients: tuple[str, ...]
    refused: str = ""
    delayed: tuple[str, ...] = ()


HandOver: TypeAlias = Callable[[], Coroutine[None, None, None]]
"""Notes that from now on a server may have a mail. Raises a StorageError if it must not have it:
that cannot be noted, or it is another sender's."""


class Mailer(Protocol):
    """Hands mails to a server."""

    async def send(self, mail: Mail, hand_over: HandOver) -> Receipt:
        """Hand a mail over; somebody at least gets it.

        `hand_over` is awaited before the last byte is sent; if it raises, nothing was sent. Raises
        the MailErrors.
        """


@dataclass(frozen=True, slots=True)
class Letter:
    """A row of the outbox that is being sent, with all that its text needs.

    `kind` and `audience` are as they stand in the row: another version of the program may have
    written it. `template` is the one of the client's reseller, else the deployment's, else None.
    `taken_for` are the addresses that got it by an earlier attempt.
    """

    id: int
    reference: str
    kind: str
    audience: str
    facts: Mapping[str, str]
    attempts: int
    created_at_ms: int
    client: str
    currency: str
    email: str
    template: Template | None
    taken_for: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an attempt; `next_attempt_ms` None: there will be none by itself. `taken_for`
    are all the addresses that have got it by now."""

    status: MailStatus
    at_ms: int
    next_attempt_ms: int | None = None
    recipient: str = ""
    error: str = ""
    taken_for: tuple[str, ...] = ()


class Outbox(Protocol):
    """The outbox as its sender sees it. Every method is a transaction, may raise StorageError."""

    async def claim(self, sender: str, now_ms: int, until_ms: int) -> Letter | None:
        """A row that is due, now `sender`'s alone; the oldest first.

        First one that is `sender`'s already: its claim was committed and the answer lost. Who has
        not said by `until_ms` what became of a row is taken for dead.
        """

    async def report(self, letter: Letter, sender: str, outcome: Outcome) -> None:
        """Write what became of an attempt. May be repeated; changes nothing where the row is no
        longer the sender's."""

    async def hand_over(self, letter: Letter, sender: str, now_ms: int) -> bool:
        """Note that from now on a mail server may have it; False, and nothing noted, where the row
        is no longer the sender's."""

    async def abandon(self, now_ms: int) -> Mapping[str, MailStatus]:
        """Take what senders that are taken for dead left behind: by reference, unsure if it was
        handed over, waiting again if not."""

    async def expire(self, due_before_ms: int) -> Sequence[str]:
        """Give up some of what waits and was due before an instant: the references; none when all
        is given up."""

    async def counts(self) -> Mapping[MailStatus, int]:
        """How many rows there are that are not sent, by status."""


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """A row of the outbox, for people."""

    id: int
    reference: str
    kind: str
    audience: str
    client: str
    status: MailStatus
    attempts: int
    next_attempt_ms: int | None
    sender: str
    recipient: str
    error: str
    created_at_ms: int
    sent_at_ms: int | None


@dataclass(frozen=True, slots=True)
class OutboxQuery:
    """Which rows of the outbox are asked for: all that fit, the newest `limit` of them."""

    status: MailStatus | None = None
    client: str | None = None
    limit: int = 100


@dataclass(frozen=True, slots=True)
class StoredTemplate:
    """A template that replaces the shipped one; for one reseller's clients if `reseller` is set."""

    kind: AlertKind
    audience: Audience
    reseller: str
    template: Template

    @property
    def name(self) -> str:
        """What astaudit calls it."""
        return f"{self.kind} {self.audience} {self.reseller}".rstrip()

    def state(self) -> State:
        """What astaudit keeps of it."""
        return {
            "subject": self.template.subject,
            "body": self.template.body,
            "html": self.template.html,
            "headers": list(self.template.headers),
        }


class TemplateStore(Protocol):
    """Templates, inside a transaction. An empty reseller means all clients."""

    async def get(
        self, kind: AlertKind, audience: Audience, reseller: str
    ) -> StoredTemplate | None: ...

    async def all(self) -> Sequence[StoredTemplate]:
        """All templates; those for all clients before the resellers', these by name."""

    async def put(self, stored: StoredTemplate, now_ms: int) -> None:
        """Write a template in place of the one that is there, if any."""

    async def remove(self, kind: AlertKind, audience: Audience, reseller: str) -> None: ...


class OutboxStore(Protocol):
    """The outbox, inside a person's transaction."""

    async def rows(self, wanted: OutboxQuery) -> Sequence[OutboxRow]:
        """The rows that fit, the newest first."""

    async def locked(self, id: int) -> OutboxRow | None:
        """A row, so that nobody else changes it before the transaction ends."""

    async def put_back(self, id: int, now_ms: int) -> None:
        """Let a row wait to be sent now, as if it had never been tried."""


class NotificationTransaction(AdminTransaction, Protocol):
    """One transaction of a person. Every method may raise StorageError."""

    @property
    def templates(self) -> TemplateStore:
        """The templates, in the same transaction."""

    @property
    def outbox(self) -> OutboxStore:
        """The outbox, in the same transaction."""


class NotificationStore(Protocol):
    """Opens people's transactions on notifications; all raise StorageErrors."""

    def changing(self) -> AbstractAsyncContextManager[NotificationTransaction]:
        """A transaction that changes templates or the outbox: one at a time."""

    def looking(self) -> AbstractAsyncContextManager[NotificationTransaction]:
        """A transaction that only reads."""
