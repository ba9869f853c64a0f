"""Notifications from the outbox to the mailbox: once each, whatever fails on the way."""

from __future__ import annotations

import asyncio
import json
import signal
import threading
from collections import Counter
from pathlib import Path

import pytest

from astcredit.app.clock import now_ms
from astcredit.app.mailer import PostCounter, exposes_password, post_office, sender_name
from astcredit.app.metrics import Metrics
from astcredit.app.setting_kinds import HostPort
from astcredit.app.setting_sections import DatabaseSettings, MailSettings, Settings
from astcredit.app.smtp_mailer import SmtpMailer
from astcredit.asterisk.simulator import SimulatedChannel
from astcredit.service.errors import RefusedError
from astcredit.service.notification_ports import MailStatus
from astcredit.service.outbox_desk import OutboxDesk
from astcredit.service.postman import MINUTE_MS, Postman
from astcredit.storage.admin_notifications import SqlNotifications
from astcredit.storage.database import Database
from astcredit.storage.outbox import SqlOutbox
from support.core import Clock, opened
from support.databases import free_port
from support.mail import (
    ADMIN,
    MESSAGE,
    SENDER,
    SILENCE,
    Postbox,
    mail_settings,
    rude_server,
    smtp_server,
)
from support.outbox import due, post, row, rows
from support.people import ACME, LONE
from support.server import astcredit, serving

WAIT_SECONDS = 60
"""For what comes at once, on a machine that is busy with other things."""


def postman(
    database: Database, server: HostPort, clock: Clock, metrics: Metrics | None = None
) -> Postman:
    settings = mail_settings(server)
    return Postman(
        SqlOutbox(database),
        SmtpMailer(settings, clock),
        settings.admin,
        sender_name,
        clock,
        PostCounter(metrics or Metrics()),
    )


async def one_round(url: str, server: HostPort, clock: Clock) -> bool:
    """A round of a postman who was just started, with connections of his own."""
    async with opened(url) as own:
        return await postman(own, server, clock).round(asyncio.Event())


def test_each_mail_arrives_once_with_several_postmen_and_after_restarts(database_url: str) -> None:
    postbox, clock = Postbox(), Clock()

    async def work(server: HostPort) -> None:
        async with post(database_url) as database:
            for number in range(12):
                await due(database, f"a{number}", ACME)
                await due(database, f"b{number}", LONE, "admin")
            for _ in range(3):
                await asyncio.gather(*(one_round(database_url, server, clock) for _ in range(4)))
            assert {each["status"] for each in await rows(database)} == {"sent"}

    with smtp_server(postbox) as server:
        asyncio.run(work(server))
    assert Counter(taken.recipients for taken in postbox.taken) == {
        ("anna@acme.example",): 12,
        (ADMIN,): 12,
    }
    assert len({taken.message["Message-ID"] for taken in postbox.taken}) == 24
    assert {taken.sender for taken in postbox.taken} == {SENDER}


def test_a_server_that_was_down_for_a_while_gets_each_mail_once(database_url: str) -> None:
    postbox, clock, port = Postbox(), Clock(), free_port()
    nowhere = HostPort("127.0.0.1", port)

    async def down() -> None:
        async with post(database_url) as database:
            first, second = await due(database, "a"), await due(database, "b")
            assert not await one_round(database_url, nowhere, clock)
            states = [(await row(database, id))["status"] for id in (first, second)]
            assert states == ["waiting", "waiting"]
            assert (await row(database, first))["next_attempt"] == clock.now_ms + MINUTE_MS
            assert (await row(database, first))["error"] == "Connection refused"
            assert (await row(database, second))["attempts"] == 0
            clock.now_ms += MINUTE_MS
            assert not await one_round(database_url, nowhere, clock)

    async def up(server: HostPort) -> None:
        async with opened(database_url) as database:
            assert await one_round(database_url, server, clock)  # the one that is due by now
            clock.now_ms += 2 * MINUTE_MS
            assert await one_round(database_url, server, clock)
            assert await one_round(database_url, server, clock)
            assert {each["status"] for each in await rows(database)} == {"sent"}

    asyncio.run(down())
    with smtp_server(postbox, port) as server:
        asyncio.run(up(server))
    assert len(postbox.taken) == 2


def test_metrics_say_what_was_sent_and_what_waits(database_url: str) -> None:
    postbox, metrics = Postbox(), Metrics()

    def value(name: str, status: str) -> float | None:
        return metrics.registry.get_sample_value(name, {"status": status})

    async def work(server: HostPort) -> None:
        async with post(database_url) as database:
            await due(database, "a")
            await due(database, "b", status="failed")
            await due(database, "c", next_attempt=Clock().now_ms + 1)
            await postman(database, server, Clock(), metrics).round(asyncio.Event())

    with smtp_server(postbox) as server:
        asyncio.run(work(server))
    assert value("astcredit_mails_total", "sent") == 1
    assert value("astcredit_outbox", "waiting") == 1
    assert value("astcredit_outbox", "failed") == 1
    assert value("astcredit_outbox", "unsure") == 0


def settings_for(url: str, mail: MailSettings) -> Settings:
    return Settings(database=DatabaseSettings(url), mail=mail)


def test_a_process_sends_what_waits(database_url: str) -> None:
    sent = threading.Event()

    def answer(_: bytes) -> None:
        sent.set()

    async def work(server: HostPort) -> None:
        async with post(database_url) as database:
            id = await due(database, next_attempt=now_ms())
            async with post_office(settings_for(database_url, mail_settings(server)), Metrics()):
                assert await asyncio.to_thread(sent.wait, WAIT_SECONDS)
            assert (await row(database, id))["status"] == "sent"

    with smtp_server(Postbox(answer_data=answer)) as server:
        asyncio.run(work(server))


@pytest.mark.parametrize(
    ("step", "status"), [("MAIL", "waiting"), ("DATA", "waiting"), (MESSAGE, "unsure")]
)
def test_a_process_that_ends_writes_what_became_of_its_mail(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch, step: str, status: str
) -> None:
    monkeypatch.setattr("astcredit.app.mailer.FINISH_SECONDS", 0.5)

    async def work() -> None:
        async with post(sqlite_url) as database, rude_server({step: SILENCE}) as rude:
            id = await due(database, next_attempt=now_ms())
            settings = settings_for(sqlite_url, mail_settings(rude.place))
            async with post_office(settings, Metrics()):
                await asyncio.wait_for(rude.reached.wait(), WAIT_SECONDS)
            found = await row(database, id)
            assert found["status"] == status
            assert "the program ends" in found["error"]
            assert rude.connections == 1

    asyncio.run(work())


def test_without_a_server_everything_waits(sqlite_url: str) -> None:
    async def work() -> None:
        async with post(sqlite_url) as database:
            id = await due(database, next_attempt=now_ms())
            before = len(asyncio.all_tasks())
            async with post_office(settings_for(sqlite_url, MailSettings()), Metrics()):
                assert len(asyncio.all_tasks()) == before
            assert (await row(database, id))["status"] == "waiting"

    asyncio.run(work())


def test_a_process_does_not_start_with_half_a_mail_server(sqlite_url: str) -> None:
    async def work() -> None:
        settings = settings_for(sqlite_url, mail_settings(HostPort("127.0.0.1", 25), sender=""))
        with pytest.raises(RefusedError, match=r"mail\.sender"):
            async with post_office(settings, Metrics()):
                pass

    asyncio.run(work())


def test_a_senders_name_is_new_each_time_and_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "h" * 200)
    names = {sender_name() for _ in range(50)}
    assert len(names) == 50
    assert max(map(len, names)) <= 80


def test_a_password_in_clear_is_noticed() -> None:
    away, here = HostPort("mail.example.com", 25), HostPort("127.0.0.1", 25)
    login = {"user": "me", "password": "secret"}
    assert exposes_password(mail_settings(away, **login))
    assert not exposes_password(mail_settings(away))
    assert not exposes_password(mail_settings(here, **login))
    assert not exposes_password(mail_settings(away, tls="starttls", **login))
    assert not exposes_password(MailSettings())


def server_settings(server: HostPort) -> dict[str, str]:
    return {"mail_server": str(server), "mail_tls": "none", "mail_sender": SENDER}


async def killed_while_sending(url: str, folder: Path, silent_at: str) -> int:
    """The row of a mail whose sender was killed when the server fell silent at that step."""
    async with post(url) as database, rude_server({silent_at: SILENCE}) as rude:
        id = await due(database, next_attempt=now_ms())
        with serving(url, folder, **server_settings(rude.place)) as server:
            await asyncio.wait_for(rude.reached.wait(), WAIT_SECONDS)
            server.process.send_signal(signal.SIGKILL)
            await asyncio.to_thread(server.process.wait)
        assert rude.messages == (silent_at == MESSAGE)
        assert (await row(database, id))["status"] == "sending"
        return id


async def time_passes(url: str) -> None:
    """More than a sender has: the test does not wait for it."""
    async with opened(url) as database, database.transaction() as connection:
        await connection.exec_driver_sql(
            "UPDATE astoutbox SET next_attempt = '2020-01-01 00:00:00.000'"
        )


async def round_of_another(url: str, server: HostPort) -> str:
    """What a round of another postman makes of the only mail."""
    async with opened(url) as database:
        await one_round(url, server, Clock(now_ms()))
        return str((await rows(database))[0]["status"])


def test_a_killed_process_leaves_its_mail_unsure_and_it_is_never_sent_twice(
    database_url: str, tmp_path: Path
) -> None:
    """The server has the whole mail when the sender is killed; the next process leaves it alone."""
    postbox = Postbox()
    id = asyncio.run(killed_while_sending(database_url, tmp_path, MESSAGE))
    with smtp_server(postbox) as server:
        assert asyncio.run(round_of_another(database_url, server)) == "sending"  # it may be at it
        asyncio.run(time_passes(database_url))
        for _ in range(2):
            assert asyncio.run(round_of_another(database_url, server)) == "unsure"
        assert postbox.taken == []
        astcredit(database_url, "outbox", "retry", str(id))  # a person has asked the client
        assert asyncio.run(round_of_another(database_url, server)) == "sent"
    assert len(postbox.taken) == 1


def test_a_mail_that_a_killed_process_had_not_handed_over_is_sent_by_another(
    database_url: str, tmp_path: Path
) -> None:
    """The server fell silent before it had the mail: it cannot have sent it."""
    postbox = Postbox()
    asyncio.run(killed_while_sending(database_url, tmp_path, "DATA"))
    asyncio.run(time_passes(database_url))
    with smtp_server(postbox) as server:
        for _ in range(2):
            assert asyncio.run(round_of_another(database_url, server)) == "sent"
    assert len(postbox.taken) == 1


def test_an_administrator_who_is_busy_gets_the_mail_later_and_the_other_one_once(
    database_url: str,
) -> None:
    clock = Clock()
    refused = {ADMIN: "450 greylisted"}
    postbox = Postbox(answer_recipient=lambda address: refused.get(address))

    async def work(server: HostPort) -> None:
        async with post(database_url) as database:
            id = await due(database, audience="admin")
            settings = mail_settings(server, admin=(ADMIN, "noc2@example.com"))
            mailer = SmtpMailer(settings, clock)
            observer = PostCounter(Metrics())
            man = Postman(SqlOutbox(database), mailer, settings.admin, sender_name, clock, observer)
            await man.round(asyncio.Event())
            found = await row(database, id)
            assert (found["status"], found["taken_for"]) == ("waiting", "noc2@example.com")
            assert found["error"] == f"not for {ADMIN}: 450 greylisted"
            refused.clear()
            clock.now_ms += MINUTE_MS
            await man.round(asyncio.Event())
            found = await row(database, id)
            assert (found["status"], found["recipient"]) == ("sent", f"noc2@example.com, {ADMIN}")

    with smtp_server(postbox) as server:
        asyncio.run(work(server))
    assert [taken.recipients for taken in postbox.taken] == [("noc2@example.com",), (ADMIN,)]


def test_mails_of_a_month_without_a_server_are_given_up_but_for_the_last_two_days(
    database_url: str,
) -> None:
    """A person may let one be sent all the same."""
    postbox, clock = Postbox(), Clock()
    day_ms = 24 * 60 * MINUTE_MS

    async def work(server: HostPort) -> None:
        async with post(database_url) as database:
            at_ms = [clock.now_ms - days * day_ms for days in (30, 10, 3, 1)]
            ids = [await due(database, f"r{at}", next_attempt=at, date_created=at) for at in at_ms]
            assert await one_round(database_url, server, clock)
            states = [(await row(database, id))["status"] for id in ids]
            assert states == ["failed", "failed", "failed", "sent"]
            assert "due for two days" in (await row(database, ids[0]))["error"]
            desk = OutboxDesk(SqlNotifications(database), "me@here", clock)
            await desk.retry(ids[0])
            await one_round(database_url, server, clock)
            assert (await row(database, ids[0]))["status"] == "sent"

    with smtp_server(postbox) as server:
        asyncio.run(work(server))
    assert len(postbox.taken) == 2


def test_from_a_call_that_uses_a_quota_up_to_two_mailboxes(
    database_url: str, tmp_path: Path
) -> None:
    """One mail to the client, one to the administrator for each threshold; none for more calls."""
    for command in (
        ("init", "--demo"),
        ("client", "set", "demo", "--monthly-quota", "0.02", "--email", "anna@acme.example"),
    ):
        astcredit(database_url, *command)
    four, postbox = threading.Event(), Postbox()

    def count(_: bytes) -> None:
        if len(postbox.taken) == 3:  # and this is one more
            four.set()

    postbox.answer_data = count
    with smtp_server(postbox) as smtp:
        settings = {**server_settings(smtp), "mail_admin": ADMIN}
        with serving(database_url, tmp_path, **settings) as server:
            listen = f"127.0.0.1:{server.port}"
            call = ("simulate", "00442071234567", "--account", "demo", "--talk", "60")
            astcredit(database_url, *call, fastagi_listen=listen)  # 0.018 of 0.02
            for _ in range(2):
                astcredit(database_url, *call, status=1, fastagi_listen=listen)  # AC_STATUS=QUOTA
            assert four.wait(WAIT_SECONDS)
    messages = [(taken.recipients[0], taken.message["Subject"]) for taken in postbox.taken]
    month = next(iter(asyncio.run(_facts(database_url))))["period"]
    assert sorted(messages) == [
        ("anna@acme.example", "100 % of your monthly telephone quota is used"),
        ("anna@acme.example", "80 % of your monthly telephone quota is used"),
        (ADMIN, f"demo: 100 % of the monthly quota for {month}"),
        (ADMIN, f"demo: 80 % of the monthly quota for {month}"),
    ]


async def _facts(url: str) -> list[dict[str, str]]:
    async with opened(url) as database:
        return [json.loads(each["facts"]) for each in await rows(database)]


def test_a_silent_mail_server_delays_no_call_and_no_end(sqlite_url: str, tmp_path: Path) -> None:
    astcredit(sqlite_url, "init", "--demo")

    async def work() -> None:
        async with opened(sqlite_url) as database, rude_server({"EHLO": SILENCE}) as rude:
            await due(database, client_id=1, audience="admin", next_attempt=now_ms())
            settings = {**server_settings(rude.place), "mail_admin": ADMIN}
            with serving(sqlite_url, tmp_path, **settings) as server:
                await asyncio.wait_for(rude.reached.wait(), WAIT_SECONDS)
                call = SimulatedChannel("127.0.0.1", server.port, "1.1", "demo", "00442071234567")
                await call.run("authorize")
                assert call.variables["AC_STATUS"] == "ALLOWED"
                server.process.send_signal(signal.SIGTERM)
                assert await asyncio.to_thread(server.process.wait, WAIT_SECONDS) == 0
            (left,) = await rows(database)
            assert left["status"] == MailStatus.WAITING

    asyncio.run(work())
