"""Changing the texts of notifications: for all clients, or for one reseller's.

A template is checked when it is saved, and each change leaves a row in astaudit. They are no part
of the catalog: no call waits for one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from astcredit.domain.alerts import AlertKind, Audience
from astcredit.domain.notices import SAMPLES, Notice, Template, check_template, render
from astcredit.domain.shipped_notices import SHIPPED
from astcredit.service.catalog_rules import require
from astcredit.service.desk import changes
from astcredit.service.errors import RefusedError
from astcredit.service.history_ports import AuditEntry, State
from astcredit.service.notification_ports import (
    NotificationStore,
    NotificationTransaction,
    StoredTemplate,
)
from astcredit.service.persistence import persistently


@dataclass(frozen=True, slots=True)
class TemplateKey:
    """Which template is meant: for whom it speaks of what; of all clients or one reseller's."""

    kind: AlertKind
    audience: Audience = Audience.CLIENT
    reseller: str = ""


@dataclass(frozen=True, slots=True)
class TemplateChange:
    """New parts of a template; what is None stays.

    A new body without `html` makes it plain text only: the HTML that is would say something else.
    An empty `html` does, too.
    """

    subject: str | None = None
    body: str | None = None
    html: str | None = None
    headers: tuple[str, ...] | None = None

    def applied_to(self, template: Template) -> Template:
        """The template after the change."""
        html = template.html if self.body is None else None
        if self.html is not None:
            html = _lines(self.html) or None
        return replace(
            template,
            subject=template.subject if self.subject is None else self.subject,
            body=template.body if self.body is None else _lines(self.body),
            html=html,
            headers=template.headers if self.headers is None else self.headers,
        )


@dataclass(frozen=True, slots=True)
class TemplateInForce:
    """A template and where it is from: a reseller's, all clients' or shipped."""

    key: TemplateKey
    template: Template
    origin: str


class TemplateDesk:
    """The administrator's use cases on templates. Every method may raise StorageError."""

    def __init__(self, store: NotificationStore, actor: str, now_ms: Callable[[], int]) -> None:
        self._store = store
        self._actor = actor
        self._now_ms = now_ms

    async def set(self, key: TemplateKey, change: TemplateChange) -> TemplateInForce:
        """Change a template; one that is not there yet begins as the one that was in force.

        Raises RefusedError, which names what is wrong, for a text that could not be sent.
        """

        async def set_() -> TemplateInForce:
            async with self._store.changing() as transaction:
                old = await _stored(transaction, key)
                base = old.template if old else (await _in_force(transaction, key)).template
                new = StoredTemplate(
                    key.kind, key.audience, key.reseller, _checked(key, change.applied_to(base))
                )
                if old is None or new != old:
                    await transaction.templates.put(new, self._now_ms())
                    states = changes(old.state() if old else None, new.state())
                    await self._record(transaction, "set", new.name, *states)
            return TemplateInForce(key, new.template, _origin(new))

        return await persistently(set_)

    async def reset(self, key: TemplateKey) -> bool:
        """Take a template back, so that the next one counts: all clients', the shipped one.

        False if there was none.
        """

        async def reset_() -> bool:
            async with self._store.changing() as transaction:
                old = await _stored(transaction, key)
                if old is None:
                    return False
                await transaction.templates.remove(key.kind, key.audience, key.reseller)
                await self._record(transaction, "reset", old.name, old.state(), None)
            return True

        return await persistently(reset_)

    async def template(self, key: TemplateKey) -> TemplateInForce:
        """The template that is in force."""
        async with self._store.looking() as transaction:
            await _require_reseller(transaction, key)
            return await _in_force(transaction, key)

    async def templates(self) -> Sequence[TemplateInForce]:
        """The templates in force for all clients, then those of resellers."""
        async with self._store.looking() as transaction:
            stored = await transaction.templates.all()
        general = {(one.kind, one.audience): one for one in stored if not one.reseller}
        found = [_of(TemplateKey(*pair), general.get(pair)) for pair in SHIPPED]
        return found + [
            _of(TemplateKey(one.kind, one.audience, one.reseller), one)
            for one in stored
            if one.reseller
        ]

    async def preview(self, key: TemplateKey) -> Notice:
        """What the template in force says of a client that is not there."""
        found = await self.template(key)
        try:
            return render(key.kind, found.template, SAMPLES[key.kind])
        except ValueError as error:
            raise RefusedError(f"the template of {found.origin}: {error}") from None

    async def _record(
        self,
        transaction: NotificationTransaction,
        action: str,
        name: str,
        before: State | None,
        after: State | None,
    ) -> None:
        entry = AuditEntry(self._now_ms(), self._actor, action, "template", name, before, after)
        await transaction.record(entry)


def _lines(text: str) -> str:
    """A text with the line ends that all systems write."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _checked(key: TemplateKey, template: Template) -> Template:
    try:
        check_template(key.kind, template)
    except ValueError as error:
        raise RefusedError(str(error)) from None
    return template


async def _require_reseller(transaction: NotificationTransaction, key: TemplateKey) -> None:
    if key.reseller:
        await require(transaction, "reseller", key.reseller)


async def _stored(transaction: NotificationTransaction, key: TemplateKey) -> StoredTemplate | None:
    """The template of exactly that key."""
    await _require_reseller(transaction, key)
    return await transaction.templates.get(key.kind, key.audience, key.reseller)


async def _in_force(transaction: NotificationTransaction, key: TemplateKey) -> TemplateInForce:
    found = await transaction.templates.get(key.kind, key.audience, key.reseller)
    if found is None and key.reseller:
        found = await transaction.templates.get(key.kind, key.audience, "")
    return _of(key, found)


def _of(key: TemplateKey, found: StoredTemplate | None) -> TemplateInForce:
    template = found.template if found else SHIPPED[key.kind, key.audience]
    return TemplateInForce(key, template, _origin(found))


def _origin(found: StoredTemplate | None) -> str:
    if found is None:
        return "shipped"
    return f"reseller {found.reseller}" if found.reseller else "all clients"
