"""`astcredit template`, `astcredit outbox`, and what `doctor` says of the mail server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from astcredit.app.setting_kinds import HostPort
from astcredit.app.settings import describe, load
from support.core import NOW_MS, opened
from support.databases import free_port
from support.mail import ADMIN, SENDER, Postbox, rude_server, smtp_server
from support.outbox import due
from support.server import astcredit


@pytest.fixture
def url(sqlite_url: str) -> str:
    astcredit(sqlite_url, "init")
    astcredit(sqlite_url, "reseller", "add", "north")
    astcredit(sqlite_url, "client", "add", "acme", "--email", "anna@acme.example")
    return sqlite_url


def shown(url: str, *arguments: str) -> Any:
    return json.loads(astcredit(url, *arguments, "--format", "json").stdout)


def refused(url: str, *arguments: str, status: int = 1) -> str:
    done = astcredit(url, *arguments, status=status)
    assert done.stdout == ""
    return done.stderr.splitlines()[-1]


class TestTemplates:
    def test_a_template_is_set_shown_previewed_and_reset(self, url: str, tmp_path: Path) -> None:
        body, page = tmp_path / "body.txt", tmp_path / "page.html"
        body.write_text("Grüße {client}\n\t{spent} {currency}\n")
        page.write_text("<p>{client}</p>\n")
        north = ("--reseller", "north")
        done = astcredit(
            *(url, "template", "set", "quota", *north, "--subject", "{percent} %"),
            *("--body", str(body), "--html", str(page)),
            *("--header", "Reply-To: help@north.example", "--header", "X-Client: {client}"),
        )
        assert done.stdout == "template quota for clients of reseller 'north' set\n"
        found = shown(url, "template", "show", "quota", *north)
        assert found == {
            "kind": "quota",
            "audience": "client",
            "reseller": "north",
            "origin": "reseller north",
            "subject": "{percent} %",
            "headers": "Reply-To: help@north.example; X-Client: {client}",
            "body": "Grüße {client}\n\t{spent} {currency}\n",
            "html": "<p>{client}</p>\n",
        }
        assert astcredit(url, "template", "preview", "quota", *north).stdout == (
            "Subject: 80 %\n"
            "Reply-To: help@north.example\n"
            "X-Client: Acme Ltd\n"
            "\n"
            "Grüße Acme Ltd\n"
            "        402.35 EUR\n"
            "\n"
            "<p>Acme Ltd</p>\n"
        )
        done = astcredit(url, "template", "reset", "quota", *north)
        assert done.stdout.endswith("reset; in force: shipped\n")
        done = astcredit(url, "template", "reset", "quota", *north)
        assert done.stdout.endswith("was not set; in force: shipped\n")

    def test_what_is_shown_can_be_set_again(self, url: str, tmp_path: Path) -> None:
        """Out into a file, changed by a person, and in again."""
        found = shown(url, "template", "show", "low-balance", "--audience", "admin")
        body = tmp_path / "body.txt"
        body.write_text(found["body"])
        astcredit(
            *(url, "template", "set", "low-balance", "--audience", "admin", "--body", str(body))
        )
        again = shown(url, "template", "show", "low-balance", "--audience", "admin")
        assert again == {**found, "origin": "all clients", "html": None}

    def test_headers_and_html_can_be_taken_away(self, url: str) -> None:
        astcredit(url, "template", "set", "quota", "--header", "X-A: 1")
        assert shown(url, "template", "show", "quota")["headers"] == "X-A: 1"
        astcredit(url, "template", "set", "quota", "--header", "", "--html", "/dev/null")
        found = shown(url, "template", "show", "quota")
        assert (found["headers"], found["html"]) == (None, None)

    def test_the_list_has_a_line_for_each_text(self, url: str) -> None:
        astcredit(url, "template", "set", "quota", "--reseller", "north", "--subject", "s")
        found = shown(url, "template", "list")
        assert [(row["kind"], row["audience"], row["origin"]) for row in found] == [
            ("quota", "client", "shipped"),
            ("quota", "admin", "shipped"),
            ("low-balance", "client", "shipped"),
            ("low-balance", "admin", "shipped"),
            ("quota", "client", "reseller north"),
        ]
        assert {row["has_html"] for row in found} == {True}

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("--subject", "{clinet}"), "Error: subject: there is no placeholder '{clinet}'"),
            (("--subject", "a\nBcc: x@y"), "Error: subject 'a\\nBcc: x@y': expected one line"),
            (("--header", "Bcc: x@y.example"), "Error: header 'Bcc': a template may set X-"),
            (("--subject", "s", "--reseller", "nroth"), "Error: there is no reseller 'nroth'"),
        ],
    )
    def test_what_could_not_be_sent_is_refused_in_one_line(
        self, url: str, arguments: tuple[str, ...], message: str
    ) -> None:
        assert refused(url, "template", "set", "quota", *arguments).startswith(message)
        assert {row["origin"] for row in shown(url, "template", "list")} == {"shipped"}

    def test_wrong_usage(self, url: str, tmp_path: Path) -> None:
        binary = tmp_path / "binary"
        binary.write_bytes(b"\xff\xfe")
        for arguments in (
            ("quota",),
            ("quotas", "--subject", "s"),
            ("quota", "--audience", "press", "--subject", "s"),
            ("quota", "--body", str(tmp_path / "missing")),
            ("quota", "--body", str(binary)),
        ):
            assert "Error: " in refused(url, "template", "set", *arguments, status=2)


def put(url: str, reference: str, **values: Any) -> int:
    async def run() -> int:
        async with opened(url) as database:
            return await due(database, reference, **values)

    return asyncio.run(run())


class TestOutbox:
    def test_the_list_and_its_filters(self, url: str) -> None:
        put(url, "a")
        failed = put(url, "b", status="failed", error="550 no\x1b[2J such user", attempts=1)
        sent = {"status": "sent", "sent_at": NOW_MS, "recipient": "a@b.example"}
        put(url, "c", **sent)
        listed = shown(url, "outbox", "list")
        assert [row["reference"] for row in listed] == ["c", "b", "a"]
        assert listed[0]["sent_at"] == "2027-01-15 08:00:00.000"
        (row,) = shown(url, "outbox", "list", "--status", "failed", "--client", "acme")
        assert (row["id"], row["client"], row["attempts"]) == (failed, "acme", 1)
        table = astcredit(url, "outbox", "list").stdout
        assert "550 no\\x1b[2J such user" in table
        assert refused(url, "outbox", "list", "--client", "acne").endswith("'acme'")
        assert "waiting" in refused(url, "outbox", "list", "--status", "lost", status=2)

    def test_a_failed_one_is_sent_again_when_a_person_says_so(self, url: str) -> None:
        id = put(url, "a", status="failed", attempts=17, error="why")
        done = astcredit(url, "outbox", "retry", str(id))
        assert done.stdout == f"notification {id} waits to be sent; it was failed\n"
        (row,) = shown(url, "outbox", "list")
        assert (row["status"], row["attempts"], row["error"]) == ("waiting", 0, None)
        assert refused(url, "outbox", "retry", "4711") == "Error: there is no notification 4711"
        other = put(url, "b", status="sent", sent_at=NOW_MS, recipient="a@b.example")
        assert "was sent 2027-01-15" in refused(url, "outbox", "retry", str(other))


class TestDoctor:
    @staticmethod
    def mail(url: str, status: int = 0, **settings: str) -> Mapping[str, str]:
        done = astcredit(url, "--format", "json", "doctor", status=status, **settings)
        assert "hush-hush" not in done.stdout
        (row,) = (row for row in json.loads(done.stdout) if row["check"] == "mail")
        found: dict[str, str] = row
        return found

    @staticmethod
    def settings(server: HostPort, **more: str) -> dict[str, str]:
        given = {"mail_server": str(server), "mail_tls": "none", "mail_sender": SENDER}
        return {**given, "fastagi_listen": f"127.0.0.1:{free_port()}", **more}

    def test_without_a_server_it_says_that_notifications_wait(self, url: str) -> None:
        found = self.mail(url, fastagi_listen=f"127.0.0.1:{free_port()}")
        assert found["verdict"] == "warning"
        assert "wait in the outbox" in found["detail"]

    def test_a_server_that_answers_and_one_whose_admin_is_not_told(self, url: str) -> None:
        postbox = Postbox()
        with smtp_server(postbox) as server:
            assert self.mail(url, 0, **self.settings(server, mail_admin=ADMIN)) == {
                "check": "mail",
                "verdict": "ok",
                "detail": f"{server} answers",
            }
            lonely = self.mail(url, 0, **self.settings(server))
        assert lonely["verdict"] == "warning"
        assert "mail.admin is empty" in lonely["detail"]
        assert postbox.taken == []

    def test_a_server_that_is_not_there_or_will_not_have_us(self, url: str) -> None:
        nowhere = HostPort("127.0.0.1", free_port())
        gone = self.mail(url, 1, **self.settings(nowhere))
        assert (gone["verdict"], gone["detail"]) == ("error", f"{nowhere}: Connection refused")
        half = self.mail(url, 1, **self.settings(nowhere, mail_sender=""))
        assert "mail.sender" in half["detail"]

        async def refusing() -> Mapping[str, str]:
            async with rude_server({"": "554 go away"}) as rude:
                login = {"mail_user": "me", "mail_password": "hush-hush"}
                settings = self.settings(rude.place, **login)
                return await asyncio.to_thread(self.mail, url, 1, **settings)

        assert asyncio.run(refusing())["detail"].endswith("554 go away")


def test_a_password_is_shown_nowhere_and_guarded_in_its_file(url: str, tmp_path: Path) -> None:
    config = tmp_path / "astcredit.toml"
    config.write_text('[mail]\npassword = "hush-hush"\n')
    config.chmod(0o644)
    assert "mail.password holds a secret" in refused(url, "--config", str(config), "client", "list")
    config.chmod(0o600)
    astcredit(url, "--config", str(config), "client", "list")
    settings = load(config)
    assert settings.mail.password == "hush-hush"
    (row,) = (row for row in describe(settings) if row.name == "mail.password")
    assert row.value == "***"
    assert "hush-hush" not in repr(settings)
