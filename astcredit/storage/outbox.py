"""The outbox in SQL, as its senders use it: each method is a transaction of its own.

What is due is looked for in a transaction that only reads, so that an idle sender takes no lock. A
row that is to be changed is locked by its primary key and looked at once more: a condition beside
the key may have MariaDB come by another index, and two that come by different ways meet in a
deadlock.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from astcredit.domain.notices import Template
from astcredit.service.notification_ports import Letter, MailStatus, Outcome
from astcredit.storage.admin_templates import TEMPLATE_TEXTS, template_of
from astcredit.storage.database import Database
from astcredit.storage.tables import astclient, astoutbox, asttemplate, fit

# Several senders look at the same moment and see the same rows; who comes too late for one looks
# at the next.
CANDIDATES = 10

AT_ONCE = 100
"""Rows that are changed in one transaction: on SQLite no call is written meanwhile."""

SENDER_ENDED = "the program ended while it was being sent"
TOO_OLD = "given up: it was due for two days and not sent"

BETWEEN = ", "
"""Between addresses, of which none has one in it."""

_NOT_SENT = tuple(status for status in MailStatus if status is not MailStatus.SENT)


class SqlOutbox:
    """The outbox of one database. Implements `service.notification_ports.Outbox`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def claim(self, sender: str, now_ms: int, until_ms: int) -> Letter | None:
        """A row that is due, now the sender's; one that was its own already comes first."""
        c = astoutbox.c
        own = (c.status == MailStatus.SENDING) & (c.sender == sender) & c.handed_over_at.is_(None)
        due = (c.status == MailStatus.WAITING) & (c.next_attempt <= now_ms)
        candidates = [*await self._ids(own, 1), *await self._ids(due, CANDIDATES)]
        if not candidates:
            return None
        async with self._database.transaction() as connection:
            for id in candidates:
                row = await _locked(connection, id)
                was_own = row.status == MailStatus.SENDING and row.sender == sender
                if was_own or (row.status == MailStatus.WAITING and row.next_attempt <= now_ms):
                    attempts = row.attempts + (0 if was_own else 1)
                    await _change(connection, id, _sending(sender, attempts, until_ms))
                    return await _letter(connection, id)
        return None

    async def report(self, letter: Letter, sender: str, outcome: Outcome) -> None:
        """Write what became of an attempt, if the row is still the sender's."""
        waits = outcome.status is MailStatus.WAITING
        values = {
            "status": outcome.status,
            "next_attempt": outcome.next_attempt_ms,
            "recipient": fit(astoutbox, "recipient", outcome.recipient),
            "error": fit(astoutbox, "error", outcome.error),
            "sender": "" if waits else sender,
            "sent_at": outcome.at_ms if outcome.status is MailStatus.SENT else None,
            "taken_for": BETWEEN.join(outcome.taken_for) or None,
            **({"handed_over_at": None} if waits else {}),
        }
        async with self._database.transaction() as connection:
            row = await _locked(connection, letter.id)
            # One that was taken for dead, and is not, knows better.
            unknown = row.status in (MailStatus.SENDING, MailStatus.UNSURE)
            if unknown and (row.sender, row.attempts) == (sender, letter.attempts):
                await _change(connection, letter.id, values)

    async def hand_over(self, letter: Letter, sender: str, now_ms: int) -> bool:
        """Note that a mail server may have the mail from now on, if the row is the sender's."""
        async with self._database.transaction() as connection:
            row = await _locked(connection, letter.id)
            held = (row.status, row.sender, row.attempts)
            if held != (MailStatus.SENDING, sender, letter.attempts):
                return False
            await _change(connection, letter.id, {"handed_over_at": now_ms})
        return True

    async def abandon(self, now_ms: int) -> Mapping[str, MailStatus]:
        """Take the rows whose senders should have reported by now: what became of them."""
        fates = {}
        for row in await self._changed(MailStatus.SENDING, now_ms, partial(_left, now_ms)):
            handed_over = row.handed_over_at is not None
            fates[row.reference] = MailStatus.UNSURE if handed_over else MailStatus.WAITING
        return fates

    async def expire(self, due_before_ms: int) -> Sequence[str]:
        """Give up some rows that wait and were due before that; their references."""
        values = {"status": MailStatus.FAILED, "next_attempt": None, "error": TOO_OLD}
        found = await self._changed(MailStatus.WAITING, due_before_ms, lambda _: values)
        return [row.reference for row in found]

    async def _changed(
        self, status: MailStatus, before_ms: int, values: Callable[[Row[Any]], Mapping[str, Any]]
    ) -> Sequence[Row[Any]]:
        """Change rows of a status whose next attempt was before an instant; as they were."""
        c = astoutbox.c
        ids = await self._ids((c.status == status) & (c.next_attempt < before_ms), AT_ONCE)
        found: list[Row[Any]] = []
        if not ids:
            return found
        async with self._database.transaction() as connection:
            for id in sorted(ids):
                row = await _locked(connection, id)
                if row.status == status and row.next_attempt < before_ms:
                    await _change(connection, id, values(row))
                    found.append(row)
        return found

    async def counts(self) -> Mapping[MailStatus, int]:
        """How many rows there are that are not sent, by status."""
        status = astoutbox.c.status
        statement = select(status, func.count()).where(status.in_(_NOT_SENT)).group_by(status)
        async with self._database.reading() as connection:
            found = {row[0]: row[1] for row in await connection.execute(statement)}
        return {each: found.get(each, 0) for each in _NOT_SENT}

    async def _ids(self, condition: ColumnElement[bool], most: int) -> Sequence[int]:
        c = astoutbox.c
        statement = select(c.id).where(condition).order_by(c.next_attempt, c.id).limit(most)
        async with self._database.reading() as connection:
            return [row[0] for row in await connection.execute(statement)]


def _left(now_ms: int, row: Row[Any]) -> Mapping[str, Any]:
    """What becomes of a row whose sender died: sent again, unless the mail may have left."""
    if row.handed_over_at is not None:
        return {"status": MailStatus.UNSURE, "next_attempt": None, "error": SENDER_ENDED}
    waiting = {"status": MailStatus.WAITING, "next_attempt": now_ms, "sender": ""}
    return {**waiting, "error": SENDER_ENDED}


def _sending(sender: str, attempts: int, until_ms: int) -> Mapping[str, Any]:
    return {
        "status": MailStatus.SENDING,
        "sender": sender,
        "attempts": attempts,
        "next_attempt": until_ms,
        "handed_over_at": None,
    }


async def _locked(connection: AsyncConnection, id: int) -> Row[Any]:
    """A row, which nobody else changes before the transaction ends."""
    statement = select(astoutbox).where(astoutbox.c.id == id).with_for_update()
    return (await connection.execute(statement)).one()


async def _change(connection: AsyncConnection, id: int, values: Mapping[str, Any]) -> None:
    await connection.execute(update(astoutbox).where(astoutbox.c.id == id).values(**values))


async def _letter(connection: AsyncConnection, id: int) -> Letter:
    row = (await connection.execute(_LETTERS.where(astoutbox.c.id == id))).one()
    id, reference, kind, audience, facts, *rest, reseller_id, taken_for = row
    attempts, created_at_ms, client, currency, email = rest
    return Letter(
        id,
        reference,
        kind,
        audience,
        _facts(facts),
        attempts,
        created_at_ms,
        client,
        currency,
        email,
        await _template(connection, kind, audience, reseller_id),
        tuple(filter(None, (taken_for or "").split(BETWEEN))),
    )


async def _template(
    connection: AsyncConnection, kind: str, audience: str, reseller_id: int | None
) -> Template | None:
    """The reseller's template, else the one for all clients."""
    c = asttemplate.c
    statement = (
        select(*TEMPLATE_TEXTS)
        .where(c.kind == kind, c.audience == audience)
        .where(or_(c.reseller_id.is_(None), c.reseller_id == reseller_id))
        .order_by(c.reseller_id.is_(None), c.id)
        .limit(1)
    )
    row = (await connection.execute(statement)).first()
    return None if row is None else template_of(*row)


def _facts(text: str) -> Mapping[str, str]:
    """The facts of a row. What is no such thing has none: one bad row must not stop the others."""
    try:
        facts = json.loads(text)
    except ValueError:
        facts = None
    if not isinstance(facts, dict):
        return {}
    return {name: str(value) for name, value in facts.items()}


_LETTERS: Select[Any] = select(
    astoutbox.c.id,
    astoutbox.c.reference,
    astoutbox.c.kind,
    astoutbox.c.audience,
    astoutbox.c.facts,
    astoutbox.c.attempts,
    astoutbox.c.date_created,
    astclient.c.name,
    astclient.c.currency,
    astclient.c.email,
    astclient.c.reseller_id,
    astoutbox.c.taken_for,
).join_from(astoutbox, astclient, astclient.c.id == astoutbox.c.client_id)
