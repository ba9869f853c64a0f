"""Templates of notifications in SQL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Select, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from astcredit.domain.alerts import AlertKind, Audience
from astcredit.domain.notices import Template
from astcredit.service.notification_ports import StoredTemplate
from astcredit.storage.tables import astreseller, asttemplate, id_of

_LINE_END = "\n"
"""Between header lines in their column: the one character that no header can have."""

TEMPLATE_TEXTS = (
    asttemplate.c.subject,
    asttemplate.c.body,
    asttemplate.c.html,
    asttemplate.c.headers,
)
"""The columns that make a template, in the order that `template_of` takes."""


def template_of(subject: str, body: str, html: str | None, headers: str | None) -> Template:
    """The template that stands in these columns."""
    return Template(subject, body, html, tuple(headers.split(_LINE_END)) if headers else ())


class SqlTemplates:
    """Templates, in one transaction. Implements `service.notification_ports.TemplateStore`."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def get(
        self, kind: AlertKind, audience: Audience, reseller: str
    ) -> StoredTemplate | None:
        """The template of exactly that key."""
        whose = astreseller.c.name == reseller if reseller else asttemplate.c.reseller_id.is_(None)
        c = asttemplate.c
        statement = _TEMPLATES.where(c.kind == kind, c.audience == audience, whose)
        row = (await self._connection.execute(statement.order_by(c.id).limit(1))).first()
        return None if row is None else _stored(row)

    async def all(self) -> Sequence[StoredTemplate]:
        """All templates; those for all clients before the resellers', these by name."""
        c = asttemplate.c
        rows = await self._connection.execute(
            _TEMPLATES.order_by(
                c.reseller_id.is_not(None), astreseller.c.name, c.kind, c.audience, c.id
            )
        )
        # What another version of the program wrote about is its own affair.
        return [_stored(row) for row in rows if row[0] in _KINDS and row[1] in _AUDIENCES]

    async def put(self, stored: StoredTemplate, now_ms: int) -> None:
        """Update the template that is there, else insert it; the transaction has the lock."""
        texts: dict[str, Any] = {
            "subject": stored.template.subject,
            "body": stored.template.body,
            "html": stored.template.html,
            "headers": _LINE_END.join(stored.template.headers) or None,
        }
        if await self.get(stored.kind, stored.audience, stored.reseller) is not None:
            here = _is(stored.kind, stored.audience, stored.reseller)
            await self._connection.execute(update(asttemplate).where(*here).values(texts))
            return
        key = {
            "kind": stored.kind,
            "audience": stored.audience,
            "reseller_id": id_of(astreseller, stored.reseller),
            "date_created": now_ms,
        }
        await self._connection.execute(insert(asttemplate).values({**key, **texts}))

    async def remove(self, kind: AlertKind, audience: Audience, reseller: str) -> None:
        """Delete the template of that key."""
        statement = delete(asttemplate).where(*_is(kind, audience, reseller))
        await self._connection.execute(statement)


_KINDS = frozenset(AlertKind)
_AUDIENCES = frozenset(Audience)

_TEMPLATES: Select[Any] = select(
    asttemplate.c.kind, asttemplate.c.audience, astreseller.c.name, *TEMPLATE_TEXTS
).outerjoin_from(asttemplate, astreseller, astreseller.c.id == asttemplate.c.reseller_id)


def _is(kind: AlertKind, audience: Audience, reseller: str) -> Sequence[ColumnElement[bool]]:
    c = asttemplate.c
    id = id_of(astreseller, reseller)
    whose = c.reseller_id.is_(None) if id is None else c.reseller_id == id
    return (c.kind == kind, c.audience == audience, whose)


def _stored(row: Sequence[Any]) -> StoredTemplate:
    kind, audience, reseller, *texts = row
    return StoredTemplate(AlertKind(kind), Audience(audience), reseller or "", template_of(*texts))
