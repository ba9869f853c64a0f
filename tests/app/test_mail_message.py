"""A mail as SMTP carries it: what people read is what was meant, and no header is smuggled in."""

from __future__ import annotations

import email
import email.policy
from email.header import decode_header, make_header
from email.message import EmailMessage, Message
from email.utils import parsedate_to_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astcredit.app import mail_message
from astcredit.app.mail_message import compose
from astcredit.app.setting_sections import MailSettings
from astcredit.domain.notices import Notice
from astcredit.service.notification_ports import Mail
from support.core import NOW_MS

SETTINGS = MailSettings(sender="billing@example.com", sender_name="Billing")
OURS = ["Date", "From", "Message-ID", "Auto-Submitted", "Subject", "To"]
OF_MIME = {"Content-Type", "MIME-Version", "Content-Transfer-Encoding"}

ATTACKS = [
    "=?utf-8?q?x=0D=0ABcc:_evil@example.com?=",
    "=?utf-8?b?eA0KQmNjOiBldmlsQGV4YW1wbGUuY29t?=",
    "a =?iso-8859-1?q?=0ABcc:_evil@example.com?= b",
    "a\r\nBcc: evil@example.com",
    "a\nBcc: evil@example.com\n\nbody",
    "a\rBcc: evil@example.com",
    "a\x0b\x0c\x1c\x85\u2028\u2029Bcc: evil@example.com",
    "a\x00\ud800\udfff",
    "a" * 2_000,
    "ü" * 2_000,
    " ".join(["Bcc: evil@example.com"] * 80),
]
"""Names that have broken mail programs before."""


def mail(
    subject: str = "Subject",
    body: str = "Body\n",
    html: str | None = None,
    headers: tuple[tuple[str, str], ...] = (),
    recipients: tuple[str, ...] = ("anna@example.com",),
    key: str = "1:quota:17:2026-11:80:client:1",
) -> Mail:
    return Mail(recipients, Notice(subject, body, html, headers), key)


def written(of: Mail, settings: MailSettings = SETTINGS) -> Message:
    return email.message_from_bytes(compose(of, settings, NOW_MS))


def text_of(header: str) -> str:
    """What a person sees of an unstructured header."""
    return str(make_header(decode_header(header.replace("\r\n", "")))).replace("\n", "")


def parts(message: Message) -> list[tuple[str, str]]:
    parsed = email.message_from_bytes(message.as_bytes(), policy=email.policy.default)
    assert isinstance(parsed, EmailMessage)
    return [
        (part.get_content_type(), part.get_content().replace("\r\n", "\n"))
        for part in parsed.walk()
        if not part.is_multipart()
    ]


def test_who_what_when_and_that_a_machine_wrote_it() -> None:
    message = written(mail("Hello", recipients=("a@x.example", "b@y.example")))
    assert message["From"] == "Billing <billing@example.com>"
    assert message["To"] == "a@x.example, b@y.example"
    assert message["Subject"] == "Hello"
    assert parsedate_to_datetime(message["Date"]).timestamp() * 1000 == NOW_MS
    assert message["Auto-Submitted"] == "auto-generated"
    assert sorted(set(message.keys()) - OF_MIME) == sorted(OURS)


def test_the_message_id_belongs_to_the_row_and_not_to_the_moment() -> None:
    first, again, other = mail(), mail("another text"), mail(key="2:x:1")
    ids = [written(each, SETTINGS)["Message-ID"] for each in (first, again, other)]
    assert ids[0] == ids[1] != ids[2]
    assert ids[0].startswith("<astcredit.")
    assert ids[0].endswith("@example.com>")
    later = email.message_from_bytes(compose(first, SETTINGS, NOW_MS + 86_400_000))
    assert later["Message-ID"] == ids[0]
    assert later["Date"] != written(first)["Date"]


def test_plain_text_alone_and_with_html() -> None:
    body = ".\n..\nFrom me\n" + "ü € 😀 " * 300 + "\n{x}=\n"
    assert parts(written(mail(body=body))) == [("text/plain", body)]
    page = f"<p>{'long ' * 400}</p>\n.\n"
    assert parts(written(mail(body="no end"))) == [("text/plain", "no end\n")]
    both = written(mail(body=body, html=page))
    assert both.get_content_type() == "multipart/alternative"
    assert parts(both) == [("text/plain", body), ("text/html", page)]


def test_lines_are_short_and_end_as_smtp_wants_them() -> None:
    for page in (None, "<p>" + "y" * 5_000):
        found = compose(mail("ü" * 200, "x" * 5_000, page), SETTINGS, NOW_MS)
        assert found.isascii()
        lines = found.split(b"\r\n")
        assert max(map(len, lines)) <= 78
        assert not any(b"\n" in line or b"\r" in line for line in lines)
        assert found.endswith(b"\r\n")  # or the end of the message would not be seen


def test_further_headers() -> None:
    message = written(mail(headers=(("Reply-To", "help@example.com"), ("X-Note", "grün"))))
    assert message["Reply-To"] == "help@example.com"
    assert text_of(message["X-Note"]) == "grün"


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_text_becomes_a_header(attack: str) -> None:
    settings = MailSettings(sender="billing@example.com", sender_name=attack)
    message = written(mail(attack, headers=(("X-Note", attack),)), settings)
    assert sorted(set(message.keys()) - OF_MIME) == sorted([*OURS, "X-Note"])
    assert len(message.keys()) == len(set(message.keys()))
    assert message["From"].endswith("<billing@example.com>")
    # Read once more by the newer classes, which decode before they look for line ends.
    newer = email.message_from_bytes(message.as_bytes(), policy=email.policy.default)
    assert newer["Bcc"] is None
    assert newer["From"].addresses[0].addr_spec == "billing@example.com"
    assert len(newer["From"].addresses) == 1


@given(text=st.text(min_size=1, max_size=120))
def test_a_subject_arrives_as_it_was_meant(text: str) -> None:
    shown = "".join(c if c.isprintable() else " " for c in text)
    assert text_of(written(mail(text))["Subject"]) == shown


@given(name=st.text(max_size=80))
def test_the_senders_name_never_adds_a_sender(name: str) -> None:
    settings = MailSettings(sender="billing@example.com", sender_name=name)
    newer = email.message_from_bytes(compose(mail(), settings, NOW_MS), policy=email.policy.default)
    (address,) = newer["From"].addresses
    assert address.addr_spec == "billing@example.com"


@pytest.mark.parametrize(
    "line",
    [
        "x\r\nBcc: evil@example.com",
        "x\r\nTo: evil@example.com",
        "x\nBcc: evil@example.com",
        "x\r\n\r\nbody",
        "x\ny",
        "x\ry",
    ],
)
def test_a_header_that_was_not_meant_is_noticed_before_it_leaves(
    monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    """Should all that is done to a text once be not enough: the bytes are looked at as well."""
    monkeypatch.setattr(mail_message, "_text", lambda name, text: line)
    with pytest.raises(ValueError, match=r"^the message "):
        compose(mail(), SETTINGS, NOW_MS)


def test_a_recipient_cannot_be_a_header() -> None:
    with pytest.raises(ValueError, match=r"^the message "):
        compose(mail(recipients=("a@x\r\nBcc: evil@example.com",)), SETTINGS, NOW_MS)


@pytest.mark.parametrize(
    "head",
    [
        b"To: a\r\nBcc: b",
        b"To: a\r\nto: b",
        b"To: a\r\nTo: b",
        b"To: a\nTo: b",
        b"To: a\rb",
        b"To: a\r\n \n b",
        b"no header",
    ],
)
def test_what_is_not_ours_is_seen_in_the_bytes(head: bytes) -> None:
    mail_message._check(b"To: a,\r\n b\r\nSubject: c\r\n\r\nBcc: d\r\n", {"To", "Subject"})
    with pytest.raises(ValueError, match="a header that the program did not write"):
        mail_message._check(head + b"\r\n\r\nbody", {"To", "Subject"})
