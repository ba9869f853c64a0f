"""The outbox in SQL: a row is one sender's at a time, whatever senders do at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from astcredit.domain.alerts import AlertKind, Audience
from astcredit.domain.notices import Template
from astcredit.service.errors import RefusedError
from astcredit.service.notification_ports import (
    Letter,
    MailStatus,
    OutboxQuery,
    Outcome,
    StoredTemplate,
)
from astcredit.service.outbox_desk import OutboxDesk
from astcredit.storage.admin_notifications import SqlNotifications
from astcredit.storage.database import Database
from astcredit.storage.outbox import AT_ONCE, SENDER_ENDED, TOO_OLD, SqlOutbox
from support.calls import query
from support.core import NOW_MS, Clock, opened
from support.outbox import FACTS, due, post, row, rows, set_client
from support.people import ACME, LONE

UNTIL_MS = NOW_MS + 900_000
SENT = Outcome(MailStatus.SENT, NOW_MS + 5, None, "anna@acme.example")

Work = Callable[[Database, SqlOutbox], Awaitable[None]]


def at_post(url: str, work: Work) -> None:
    async def run() -> None:
        async with post(url) as database:
            await work(database, SqlOutbox(database))

    asyncio.run(run())


async def claim(outbox: SqlOutbox, sender: str = "one") -> Letter | None:
    return await outbox.claim(sender, NOW_MS, UNTIL_MS)


async def claimed(outbox: SqlOutbox, sender: str = "one") -> Letter:
    letter = await claim(outbox, sender)
    assert letter is not None
    return letter


def test_a_claimed_row_has_all_that_its_text_needs(database_url: str) -> None:
    async def work(database: Database, outbox: SqlOutbox) -> None:
        id = await due(database)
        assert await claimed(outbox) == Letter(
            id=id,
            reference="quota:1:2026-11:80:client",
            kind="quota",
            audience="client",
            facts=FACTS,
            attempts=1,
            created_at_ms=NOW_MS,
            client="acme",
            currency="EUR",
            email="anna@acme.example",
            template=None,
        )
        found = await row(database, id)
        state = (found["status"], found["sender"], found["next_attempt"], found["attempts"])
        assert state == ("sending", "one", UNTIL_MS, 1)

    at_post(database_url, work)


def test_rows_are_claimed_when_they_are_due_the_oldest_first(database_url: str) -> None:
    async def work(database: Database, outbox: SqlOutbox) -> None:
        last = await due(database, "a", next_attempt=NOW_MS)
        first = await due(database, "b", next_attempt=NOW_MS - 1)
        await due(database, "c", next_attempt=NOW_MS + 1)
        for status in ("sending", "sent", "failed", "unsure"):
            await due(database, status, status=status, sender="somebody")
        for id in (first, last):
            letter = await claimed(outbox)
            assert letter.id == id
            await outbox.report(letter, "one", SENT)
        assert await claim(outbox) is None

    at_post(database_url, work)


def test_a_row_is_claimed_by_one_of_many_senders(database_url: str) -> None:
    """Eight senders with connections of their own take thirty rows, all at the same time."""

    async def work(database: Database, outbox: SqlOutbox) -> None:
        for number in range(30):
            await due(database, f"r{number}")

        async def take_all(sender: str) -> list[int]:
            taken = []
            async with opened(database_url) as own:
                while (letter := await claim(SqlOutbox(own), sender)) is not None:
                    taken.append(letter.id)
                    await SqlOutbox(own).report(letter, sender, SENT)
            return taken

        found = await asyncio.gather(*(take_all(f"sender-{n}") for n in range(8)))
        taken = sorted(id for ids in found for id in ids)
        assert taken == [each["id"] for each in await rows(database)]
        assert {each["status"] for each in await rows(database)} == {"sent"}
        assert {each["attempts"] for each in await rows(database)} == {1}

    at_post(database_url, work)


def test_a_claim_whose_answer_was_lost_is_found_again_by_its_sender_only(
    database_url: str,
) -> None:
    async def work(database: Database, outbox: SqlOutbox) -> None:
        await due(database)
        first = await claimed(outbox)
        assert await claim(outbox, "two") is None
        assert await claimed(outbox) == first  # and it counts as one attempt

    at_post(database_url, work)


@pytest.mark.parametrize(
    "outcome",
    [
        SENT,
        Outcome(MailStatus.WAITING, NOW_MS, NOW_MS + 60_000, "a@b.example", "451 later"),
        Outcome(MailStatus.FAILED, NOW_MS, None, "", "no address " + "é" * 300),
        Outcome(MailStatus.UNSURE, NOW_MS, None, "a@b.example", "no answer"),
    ],
)
def test_an_outcome_is_written_once_and_may_be_repeated(
    database_url: str, outcome: Outcome
) -> None:
    async def work(database: Database, outbox: SqlOutbox) -> None:
        id = await due(database)
        letter = await claimed(outbox)
        for _ in range(2):
            await outbox.report(letter, "one", outcome)
            found = await row(database, id)
            assert found["status"] == outcome.status
            assert found["next_attempt"] == outcome.next_attempt_ms
            assert found["recipient"] == outcome.recipient
            assert found["error"] == outcome.error[:200]
            assert found["sender"] == ("" if outcome.status is MailStatus.WAITING else "one")
            assert found["sent_at"] == (SENT.at_ms if outcome is SENT else None)

    at_post(database_url, work)


def test_only_its_sender_says_what_became_of_a_row(database_url: str) -> None:
    async def work(database: Database, outbox: SqlOutbox) -> None:
        id = await due(database)
        letter = await claimed(outbox)
        failed = Outcome(MailStatus.FAILED, NOW_MS)
        await outbox.report(letter, "two", failed)
        assert (await row(database, id))["status"] == "sending"
        waiting = Outcome(MailStatus.WAITING, NOW_MS, NOW_MS)
        await outbox.report(letter, "one", waiting)
        await outbox.report(letter, "one", failed)  # too late: it is nobody's now
        assert (await row(database, id))["status"] == "waiting"
        again = await claimed(outbox)
        assert again.attempts == 2
        await outbox.report(letter, "one", failed)  # nor is it of this attempt
        assert (await row(database, id))["status"] == "sending"

    at_post(database_url, work)


def test_what_dead_senders_handed_over_is_unsure_and_not_sent_again(database_url: str) -> None:
    async def work(database: Database, outbox: SqlOutbox) -> None:
        id = await due(database)
        letter = await claimed(outbox)
        assert await outbox.hand_over(letter, "one", NOW_MS)
        assert await outbox.abandon(UNTIL_MS) == {}
        assert await outbox.abandon(UNTIL_MS + 1) == {letter.reference: MailStatus.UNSURE}
        assert await outbox.abandon(UNTIL_MS + 1) == {}
        found = await row(database, id)
        assert (found["status"], found["error"]) == ("unsure", SENDER_ENDED)
        assert found["next_attempt"] is None
        for sender in ("one", "two"):
            assert await outbox.claim(sender, UNTIL_MS * 2, UNTIL_MS * 3) is None
        # The sender was only slow: it knows what became of it.
        await outbox.report(letter, "one", SENT)
        assert (await row(database, id))["status"] == "sent"

    at_post(database_url, work)


def test_what_dead_senders_had_not_handed_over_is_sent_by_another(database_url: str) -> None:
    async def work(database: Database, outbox: SqlOutbox) -> None:
        id = await due(database)
        letter = await claimed(outbox)
        assert await outbox.abandon(UNTIL_MS + 1) == {letter.reference: MailStatus.WAITING}
        found = await row(database, id)
        assert (found["status"], found["sender"], found["error"]) == ("waiting", "", SENDER_ENDED)
        again = await outbox.claim("two", UNTIL_MS + 1, UNTIL_MS * 2)
        assert again is not None
        assert again.attempts == 2
        # The first one was only slow: it may not hand the mail over any more.
        assert not await outbox.hand_over(letter, "one", UNTIL_MS + 2)
        assert (await row(database, id))["handed_over_at"] is None
        assert await outbox.hand_over(again, "two", UNTIL_MS + 2)
        assert (await row(database, id))["handed_over_at"] == UNTIL_MS + 2

    at_post(database_url, work)


def test_what_was_handed_over_is_not_claimed_again_by_its_sender(database_url: str) -> None:
    async def work(database: Database, outbox: SqlOutbox) -> None:
        await due(database)
        letter = await claimed(outbox)
        await outbox.hand_over(letter, "one", NOW_MS)
        assert await claim(outbox) is None

    at_post(database_url, work)


def test_who_has_got_a_mail_is_remembered_while_it_waits(database_url: str) -> None:
    async def work(database: Database, outbox: SqlOutbox) -> None:
        id = await due(database)
        letter = await claimed(outbox)
        await outbox.hand_over(letter, "one", NOW_MS)
        taken = tuple(f"noc{n}@{'long-' * 40}.example" for n in range(9))
        partly = Outcome(MailStatus.WAITING, NOW_MS, NOW_MS, "noc", "450 busy", taken)
        await outbox.report(letter, "one", partly)
        assert (await row(database, id))["handed_over_at"] is None
        again = await claimed(outbox)
        assert again == replace(letter, attempts=2, taken_for=taken)

    at_post(database_url, work)


def test_what_is_due_for_too_long_is_given_up(database_url: str) -> None:
    async def work(database: Database, outbox: SqlOutbox) -> None:
        for number in range(AT_ONCE + 20):
            await due(database, f"r{number:03}", next_attempt=NOW_MS - 1)
        fresh = await due(database, "fresh", next_attempt=NOW_MS)
        other = await due(database, "other", next_attempt=NOW_MS - 1, status="sending", sender="x")
        given_up = [await outbox.expire(NOW_MS) for _ in range(3)]
        assert [len(references) for references in given_up] == [AT_ONCE, 20, 0]
        found = {each["id"]: each for each in await rows(database)}
        assert (found[fresh]["status"], found[other]["status"]) == ("waiting", "sending")
        failed = [each for each in found.values() if each["status"] == "failed"]
        assert len(failed) == AT_ONCE + 20
        assert {(each["error"], each["next_attempt"]) for each in failed} == {(TOO_OLD, None)}

    at_post(database_url, work)


def test_abandoning_is_told_once_by_many(database_url: str) -> None:
    async def work(database: Database, outbox: SqlOutbox) -> None:
        for number in range(5):
            await due(database, f"r{number}", status="sending", sender="dead")

        async def look() -> list[str]:
            async with opened(database_url) as own:
                return list(await SqlOutbox(own).abandon(NOW_MS + 1))

        found = await asyncio.gather(*(look() for _ in range(4)))
        assert sorted(name for names in found for name in names) == [f"r{n}" for n in range(5)]

    at_post(database_url, work)


def test_counts_leave_out_what_was_sent(database_url: str) -> None:
    async def work(database: Database, outbox: SqlOutbox) -> None:
        nothing = {status: 0 for status in MailStatus if status is not MailStatus.SENT}
        assert await outbox.counts() == nothing
        for number, status in enumerate(("waiting", "waiting", "sent", "failed")):
            await due(database, f"r{number}", status=status)
        assert await outbox.counts() == {
            **nothing,
            MailStatus.WAITING: 2,
            MailStatus.FAILED: 1,
        }

    at_post(database_url, work)


@pytest.mark.parametrize("facts", ["", "no json", "[1]", "null", '"x"', '{"percent": 80}'])
def test_a_row_whose_facts_are_broken_stops_nobody(database_url: str, facts: str) -> None:
    async def work(database: Database, outbox: SqlOutbox) -> None:
        await due(database, facts=facts)
        letter = await claimed(outbox)
        assert letter.facts == ({"percent": "80"} if "percent" in facts else {})

    at_post(database_url, work)


def test_the_resellers_template_comes_before_all_clients(database_url: str) -> None:
    async def put(database: Database, audience: Audience, reseller: str, subject: str) -> None:
        async with SqlNotifications(database).changing() as transaction:
            stored = StoredTemplate(AlertKind.QUOTA, audience, reseller, Template(subject, "b"))
            await transaction.templates.put(stored, NOW_MS)

    async def subject(
        database: Database, outbox: SqlOutbox, client: int, audience: str = "client"
    ) -> str | None:
        await due(database, f"{client}:{await _count(database)}", client, audience)
        letter = await claimed(outbox)
        await outbox.report(letter, "one", SENT)
        return letter.template.subject if letter.template else None

    async def work(database: Database, outbox: SqlOutbox) -> None:
        await put(database, Audience.ADMIN, "", "for administrators")
        await put(database, Audience.CLIENT, "north", "north's")
        assert await subject(database, outbox, ACME) == "north's"
        assert await subject(database, outbox, LONE) is None
        await put(database, Audience.CLIENT, "", "for all")
        await put(database, Audience.CLIENT, "south", "south's")
        assert await subject(database, outbox, ACME) == "north's"
        assert await subject(database, outbox, LONE) == "for all"
        assert await subject(database, outbox, LONE, "admin") == "for administrators"
        await set_client(database, ACME, reseller_id=2)
        assert await subject(database, outbox, ACME) == "south's"

    at_post(database_url, work)


async def _count(database: Database) -> int:
    return len(await rows(database))


class TestPeople:
    """What people see of the outbox, and do with it."""

    @staticmethod
    def desk(database: Database) -> OutboxDesk:
        return OutboxDesk(SqlNotifications(database), "me@here", Clock(NOW_MS + 7))

    def test_a_list_is_narrowed_by_status_and_client(self, database_url: str) -> None:
        async def work(database: Database, outbox: SqlOutbox) -> None:
            desk = self.desk(database)
            await due(database, "a")
            await due(database, "b", LONE, status="failed", error="why")
            await due(database, "c", status="failed")

            async def found(**wanted: Any) -> list[str]:
                return [each.reference for each in await desk.rows(OutboxQuery(**wanted))]

            assert await found() == ["c", "b", "a"]
            assert await found(limit=2) == ["c", "b"]
            assert await found(status=MailStatus.FAILED) == ["c", "b"]
            assert await found(client="acme") == ["c", "a"]
            assert await found(client="acme", status=MailStatus.WAITING) == ["a"]
            with pytest.raises(RefusedError, match="no client 'acne'; the nearest is 'acme'"):
                await found(client="acne")
            (shown,) = await desk.rows(OutboxQuery(client="lone"))
            assert (shown.client, shown.status, shown.error) == ("lone", MailStatus.FAILED, "why")

        at_post(database_url, work)

    @pytest.mark.parametrize("status", ["failed", "unsure", "waiting"])
    def test_what_was_not_sent_can_be_sent_by_a_persons_will(
        self, database_url: str, status: str
    ) -> None:
        async def work(database: Database, outbox: SqlOutbox) -> None:
            id = await due(
                database,
                status=status,
                attempts=17,
                sender="dead",
                error="why",
                next_attempt=None if status != "waiting" else NOW_MS + 99_999,
            )
            assert (await self.desk(database).retry(id)).status == status
            found = await row(database, id)
            assert (found["status"], found["attempts"], found["sender"]) == ("waiting", 0, "")
            assert (found["next_attempt"], found["error"]) == (NOW_MS + 7, "")
            (audited,) = await query(database, "SELECT * FROM astaudit")
            assert audited["actor"] == "me@here"
            assert audited["action"] == "retry"
            assert audited["object_kind"] == "notification"
            assert audited["object_name"] == "quota:1:2026-11:80:client"
            assert status in audited["state_before"]
            assert (await outbox.claim("one", NOW_MS + 7, UNTIL_MS)) is not None

        at_post(database_url, work)

    @pytest.mark.parametrize(
        ("status", "message"),
        [
            ("sent", r"was sent 2027-01-15 08:00:00.000 to a@b\.example"),
            ("sending", "is just being sent by somebody"),
        ],
    )
    def test_what_was_sent_or_is_being_sent_is_not_sent_twice(
        self, database_url: str, status: str, message: str
    ) -> None:
        async def work(database: Database, outbox: SqlOutbox) -> None:
            id = await due(
                database,
                status=status,
                sender="somebody",
                sent_at=NOW_MS if status == "sent" else None,
                recipient="a@b.example",
            )
            before = await rows(database)
            with pytest.raises(RefusedError, match=message):
                await self.desk(database).retry(id)
            with pytest.raises(RefusedError, match="there is no notification 4711"):
                await self.desk(database).retry(4711)
            assert await rows(database) == before
            assert await query(database, "SELECT * FROM astaudit") == []

        at_post(database_url, work)
