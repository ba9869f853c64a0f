"""Templates as administrators change them: checked when saved, recorded, and one for each key."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from astcredit.domain.alerts import AlertKind, Audience
from astcredit.domain.notices import MOST_BYTES, MOST_SUBJECT, Template
from astcredit.domain.shipped_notices import SHIPPED
from astcredit.service.errors import RefusedError
from astcredit.service.template_desk import TemplateChange, TemplateDesk, TemplateKey
from astcredit.storage.admin_notifications import SqlNotifications
from astcredit.storage.database import Database
from support.calls import query
from support.core import Clock, opened
from support.outbox import post

QUOTA = TemplateKey(AlertKind.QUOTA)
NORTHS = TemplateKey(AlertKind.QUOTA, Audience.CLIENT, "north")
SHIPPED_QUOTA = SHIPPED[AlertKind.QUOTA, Audience.CLIENT]
HOSTILE = "'; DROP TABLE asttemplate; -- %s %(x)s {{0}} ${{EXTEN}} \\ =1+1 \U0001f600"

Work = Callable[[Database, TemplateDesk], Awaitable[None]]


def desk_on(database: Database) -> TemplateDesk:
    return TemplateDesk(SqlNotifications(database), "me@here", Clock())


def at_desk(url: str, work: Work) -> None:
    async def run() -> None:
        async with post(url) as database:
            await work(database, desk_on(database))

    asyncio.run(run())


async def audit_rows(database: Database) -> list[tuple[Any, ...]]:
    rows = await query(database, "SELECT * FROM astaudit ORDER BY id")
    states = ("state_before", "state_after")
    return [
        (
            *(row[name] for name in ("actor", "action", "object_kind", "object_name")),
            *(row[state] and json.loads(row[state]) for state in states),
        )
        for row in rows
    ]


def test_a_change_begins_with_what_was_in_force(database_url: str) -> None:
    async def work(database: Database, desk: TemplateDesk) -> None:
        assert (await desk.template(NORTHS)).origin == "shipped"
        found = await desk.set(QUOTA, TemplateChange(subject="all {client}"))
        assert found.template == Template(
            "all {client}", SHIPPED_QUOTA.body, SHIPPED_QUOTA.html, ()
        )
        await desk.set(NORTHS, TemplateChange(headers=("X-A: {client}", "Reply-To: a@b.example")))
        northern = await desk.template(NORTHS)
        assert northern.origin == "reseller north"
        assert northern.template.subject == "all {client}"
        assert northern.template.headers == ("X-A: {client}", "Reply-To: a@b.example")
        # What is changed for all later does not reach who has a template of its own.
        await desk.set(QUOTA, TemplateChange(subject="other"))
        assert (await desk.template(NORTHS)).template.subject == "all {client}"
        assert (await desk.template(QUOTA)).template.headers == ()

    at_desk(database_url, work)


def test_a_new_body_takes_the_old_html_away(database_url: str) -> None:
    async def work(database: Database, desk: TemplateDesk) -> None:
        async def texts(change: TemplateChange) -> tuple[str, str | None]:
            template = (await desk.set(QUOTA, change)).template
            return template.body, template.html

        assert await texts(TemplateChange(body="b\r\nc\rd")) == ("b\nc\nd", None)
        assert await texts(TemplateChange(html="<p>\r\n")) == ("b\nc\nd", "<p>\n")
        assert await texts(TemplateChange(subject="s")) == ("b\nc\nd", "<p>\n")
        assert await texts(TemplateChange(body="x", html="<b>")) == ("x", "<b>")
        assert await texts(TemplateChange(html="")) == ("x", None)

    at_desk(database_url, work)


def test_every_change_is_recorded_with_what_was_before(database_url: str) -> None:
    async def work(database: Database, desk: TemplateDesk) -> None:
        await desk.set(QUOTA, TemplateChange(subject="one", body="b", headers=("X-A: 1",)))
        await desk.set(QUOTA, TemplateChange(subject="two"))
        await desk.set(QUOTA, TemplateChange(subject="two"))  # nothing new: no row
        await desk.set(NORTHS, TemplateChange(subject="three"))
        assert await desk.reset(QUOTA)
        assert not await desk.reset(QUOTA)
        texts = {"body": "b", "html": None, "headers": ["X-A: 1"]}
        one, two, three = ({"subject": s, **texts} for s in ("one", "two", "three"))
        template = ("me@here", "set", "template")
        assert await audit_rows(database) == [
            (*template, "quota client", None, one),
            (*template, "quota client", {"subject": "one"}, {"subject": "two"}),
            (*template, "quota client north", None, three),
            ("me@here", "reset", "template", "quota client", two, None),
        ]
        assert (await desk.template(QUOTA)).template == SHIPPED_QUOTA
        assert (await desk.template(NORTHS)).template.subject == "three"

    at_desk(database_url, work)


def test_calls_know_nothing_of_templates(database_url: str) -> None:
    async def work(database: Database, desk: TemplateDesk) -> None:
        before = await query(database, "SELECT * FROM astcatalog")
        await desk.set(QUOTA, TemplateChange(subject="one"))
        assert await query(database, "SELECT * FROM astcatalog") == before

    at_desk(database_url, work)


@pytest.mark.parametrize(
    ("key", "change", "message"),
    [
        (QUOTA, TemplateChange(subject="{balance}"), r"no placeholder '\{balance\}'"),
        (QUOTA, TemplateChange(body="{"), "body: a { stands alone"),
        (QUOTA, TemplateChange(subject="a\nBcc: x@y"), "subject"),
        (QUOTA, TemplateChange(headers=("Bcc: x@y.example",)), "header 'Bcc'"),
        (TemplateKey(AlertKind.QUOTA, Audience.CLIENT, "nroth"), TemplateChange(subject="s"),
         "no reseller 'nroth'; the nearest is 'north'"),
    ],
)  # fmt: skip
def test_what_could_not_be_sent_is_refused_and_changes_nothing(
    database_url: str, key: TemplateKey, change: TemplateChange, message: str
) -> None:
    async def work(database: Database, desk: TemplateDesk) -> None:
        with pytest.raises(RefusedError, match=message):
            await desk.set(key, change)
        assert await query(database, "SELECT * FROM asttemplate") == []
        assert await audit_rows(database) == []

    at_desk(database_url, work)


def test_a_reseller_that_is_not_there_is_named(database_url: str) -> None:
    async def work(database: Database, desk: TemplateDesk) -> None:
        nobody = TemplateKey(AlertKind.QUOTA, Audience.CLIENT, "nobody")
        for asked in (desk.template(nobody), desk.preview(nobody), desk.reset(nobody)):
            with pytest.raises(RefusedError, match="there is no reseller 'nobody'"):
                await asked

    at_desk(database_url, work)


def test_the_list_has_what_is_in_force_for_all_then_the_resellers_own(database_url: str) -> None:
    async def work(database: Database, desk: TemplateDesk) -> None:
        admins = TemplateKey(AlertKind.LOW_BALANCE, Audience.ADMIN)
        south = TemplateKey(AlertKind.LOW_BALANCE, Audience.CLIENT, "south")
        for key in (south, admins, NORTHS):
            await desk.set(key, TemplateChange(subject="s"))
        found = [(each.key, each.origin) for each in await desk.templates()]
        assert found == [
            (QUOTA, "shipped"),
            (TemplateKey(AlertKind.QUOTA, Audience.ADMIN), "shipped"),
            (TemplateKey(AlertKind.LOW_BALANCE), "shipped"),
            (admins, "all clients"),
            (NORTHS, "reseller north"),
            (south, "reseller south"),
        ]

    at_desk(database_url, work)


def test_a_preview_is_filled_in_with_a_sample(database_url: str) -> None:
    async def work(database: Database, desk: TemplateDesk) -> None:
        await desk.set(NORTHS, TemplateChange("{client}: {spent}", "{period}", "<i>{kind}"))
        notice = await desk.preview(NORTHS)
        assert (notice.subject, notice.body) == ("Acme Ltd: 402.35", "2026-11")
        assert notice.html == "<i>monthly"

    at_desk(database_url, work)


def test_texts_come_back_as_they_were_given(database_url: str) -> None:
    async def work(database: Database, desk: TemplateDesk) -> None:
        change = TemplateChange(HOSTILE, HOSTILE + "\n\tx\n", HOSTILE, (f"X-A: {HOSTILE[:60]}",))
        await desk.set(NORTHS, change)
        template = (await desk.template(NORTHS)).template
        assert template == Template(
            change.subject or "", change.body or "", change.html, change.headers or ()
        )

    at_desk(database_url, work)


def test_the_largest_template_is_stored_with_its_history(database_url: str) -> None:
    async def work(database: Database, desk: TemplateDesk) -> None:
        text, subject = '"' * MOST_BYTES, "\U0001f600" * MOST_SUBJECT
        for letter in "ab":
            headers = tuple(f"X-{n:02}: {letter}" + "\U0001f600" * 90 for n in range(10))
            await desk.set(QUOTA, TemplateChange(subject, text[1:] + letter, text, headers))
        assert (await desk.template(QUOTA)).template.body.endswith("b")
        assert await desk.reset(QUOTA)
        assert len(await audit_rows(database)) == 3

    at_desk(database_url, work)


def test_two_administrators_at_once_leave_one_template(database_url: str) -> None:
    """No index keeps two templates for all clients apart: NULL is not equal to NULL."""

    async def work(database: Database, desk: TemplateDesk) -> None:
        async def change(number: int) -> None:
            async with opened(database_url) as own:
                await desk_on(own).set(QUOTA, TemplateChange(subject=f"s{number}"))

        await asyncio.gather(*(change(number) for number in range(6)))
        (stored,) = await query(database, "SELECT subject FROM asttemplate")
        history = await audit_rows(database)
        assert len(history) == 6
        assert history[-1][-1]["subject"] == stored["subject"]
        assert [row[4] is None for row in history] == [True, *[False] * 5]

    at_desk(database_url, work)
