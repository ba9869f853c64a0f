"""What notifications say: nothing that is filled in can become more than text."""

from __future__ import annotations

import html
import json
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astcredit.domain.alerts import AlertKind, Audience
from astcredit.domain.notices import (
    MOST_BYTES,
    MOST_HEADER,
    MOST_HEADERS,
    MOST_SUBJECT,
    PLACEHOLDERS,
    SAMPLES,
    Template,
    check_template,
    mail_address,
    render,
)
from astcredit.domain.shipped_notices import SHIPPED

QUOTA = AlertKind.QUOTA
PAIRS = [(kind, audience) for kind in AlertKind for audience in Audience]
SAMPLE = SAMPLES[QUOTA]

AUDIT_COLUMN_BYTES = 65_535
"""What a TEXT column of MariaDB holds."""


def with_client(name: str) -> dict[str, str]:
    return {**SAMPLE, "client": name}


class Tags(HTMLParser):
    """The tags and texts of a page as a mail program would see them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(f"{tag} {attrs}")

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize(("kind", "audience"), PAIRS)
def test_a_text_is_shipped_for_everything_that_is_told(kind: AlertKind, audience: Audience) -> None:
    template = SHIPPED[kind, audience]
    check_template(kind, template)
    notice = render(kind, template, SAMPLES[kind])
    for text in (notice.subject, notice.body, notice.html or ""):
        assert text
        assert not set("{}") & set(text)
    assert "Acme Ltd" in notice.body


def test_samples_have_every_placeholder_and_no_other() -> None:
    for kind in AlertKind:
        assert set(SAMPLES[kind]) == set(PLACEHOLDERS[kind])


def test_amounts_are_shown_as_people_write_them() -> None:
    body = "{quota} {spent} {reserved} {remaining} {percent} {threshold} {at}"
    notice = render(QUOTA, Template("x", body), SAMPLE)
    assert notice.body == "500.00 402.35 3.60 94.05 80 80 2026-11-21 20:00:00 UTC"
    low = render(
        AlertKind.LOW_BALANCE, Template("x", "{threshold}"), SAMPLES[AlertKind.LOW_BALANCE]
    )
    assert low.body == "5.00"


def test_a_brace_is_written_twice() -> None:
    template = Template("s", "{{client}} }}{{ {{{client}}}", "<style>p {{color: red}}</style>")
    check_template(QUOTA, template)
    notice = render(QUOTA, template, with_client("A"))
    assert notice.body == "{client} }{ {A}"
    assert notice.html == "<style>p {color: red}</style>"


@pytest.mark.parametrize(
    "inside",
    [
        "",
        "0",
        "clients",
        "Client",
        " client",
        "client ",
        "client.__class__",
        "client[0]",
        "client!r",
        "client:>99999999",
        "__import__('os')",
    ],
)
@pytest.mark.parametrize("part", ["subject", "body", "html", "header"])
def test_what_is_no_placeholder_is_refused_by_its_name(part: str, inside: str) -> None:
    with pytest.raises(ValueError, match=f"^{part}: there is no placeholder ") as caught:
        check_template(QUOTA, with_part(part, f"ok {{{inside}}}"))
    assert f"{{{inside}}}" in str(caught.value)


def with_part(part: str, text: str) -> Template:
    return {
        "subject": Template(text, "b"),
        "body": Template("s", text),
        "html": Template("s", "b", text),
        "header": Template("s", "b", headers=(f"X-Note: {text}",)),
    }[part]


def test_a_placeholder_of_another_kind_is_none() -> None:
    check_template(QUOTA, Template("s", "{period}"))
    with pytest.raises(ValueError, match=r"\{period\}.*expected one of \{client\}.*\{balance\}"):
        check_template(AlertKind.LOW_BALANCE, Template("s", "{period}"))


@pytest.mark.parametrize("text", ["{", "}", "a } b", "{client", "client}", "{{client}", "{{}}}"])
def test_a_brace_that_stands_alone_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^subject: a [{}] stands alone"):
        check_template(QUOTA, Template(text, "b"))


def test_a_mistake_is_named_with_its_line() -> None:
    with pytest.raises(ValueError, match=r"^body, line 3: there is no placeholder '\{clinet\}'"):
        check_template(QUOTA, Template("s", "one\ntwo {client}\n{clinet}\n{x}"))


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (Template("a\nBcc: x@y", "b"), "subject 'a.nBcc: x@y': expected one line"),
        (Template("a\rb", "b"), "subject"),
        (Template("", "b"), "subject '': expected one line of 1 to 200"),
        (Template(" ", "b"), "subject"),
        (Template("x" * (MOST_SUBJECT + 1), "b"), "subject"),
        (Template("s", ""), "body: expected a text"),
        (Template("s", "\n \n"), "body: expected a text"),
        (Template("s", "a\nb\x1b[2J"), "body, line 2: "),
        (Template("s", "a\rb"), "body, line 1: "),
        (Template("s", "b", "<p>\x00"), "html, line 1: "),
        (Template("s", "b", ""), "html: expected a text"),
        (Template("s", "ü" * (MOST_BYTES // 2 + 1)), "body: expected at most 15000 bytes"),
        (Template("s", "b", "x" * (MOST_BYTES + 1)), "html: expected at most 15000 bytes"),
    ],
)
def test_texts_that_cannot_be_sent_are_refused(template: Template, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        check_template(QUOTA, template)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "header",
    [
        "Reply-To: help@example.com",
        "reply-to:help@example.com",
        "X-Client: {client}",
        "Precedence: bulk",
        "List-Unsubscribe: <https://x.example/{client}>",
        "X-A: ü",
    ],
)
def test_headers_that_may_be_set(header: str) -> None:
    check_template(QUOTA, Template("s", "b", headers=(header,)))
    ((name, value),) = render(QUOTA, Template("s", "b", headers=(header,)), SAMPLE).headers
    assert name == header.partition(":")[0]
    assert value == header.partition(":")[2].strip().replace("{client}", "Acme Ltd")


@pytest.mark.parametrize(
    "name",
    [
        "From",
        "To",
        "Cc",
        "Bcc",
        "bcc",
        "Subject",
        "Sender",
        "Date",
        "Message-ID",
        "Received",
        "Return-Path",
        "Resent-To",
        "Resent-Bcc",
        "MIME-Version",
        "Content-Type",
        "DKIM-Signature",
        "Content-Transfer-Encoding",
        "Auto-Submitted",
        "Apparently-To",
        "In-Reply-To",
        "X-",
        "X_A",
    ],
)
def test_headers_that_are_the_programs_are_refused_by_name(name: str) -> None:
    with pytest.raises(ValueError, match=rf"^header '{name}': a template may set X-"):
        check_template(QUOTA, Template("s", "b", headers=(f"{name}: x@y.example",)))


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        (("X-A: 1\r\nBcc: x@y",), "expected one line"),
        (("X-A: 1\nBcc: x@y",), "expected one line"),
        (("X-A: 1\u2028Bcc: x@y",), "expected one line"),
        (("X-A",), "expected NAME: VALUE"),
        (("X A: 1",), "expected NAME: VALUE"),
        ((": 1",), "expected NAME: VALUE"),
        (("X-Ü: 1",), "expected NAME: VALUE"),
        (("X-A: ",), "expected a value"),
        (("X-{client}: 1",), "a template may set"),
        (("X-A: 1", "x-a: 2"), "'x-a' is there twice"),
        (("X-A: " + "x" * MOST_HEADER,), "expected one line"),
        (tuple(f"X-{n}: 1" for n in range(MOST_HEADERS + 1)), "expected at most 10, there are 11"),
        (("Reply-To: {client}@example.com",), "Reply-To.*without a placeholder"),
        (("Reply-To: a@x, b@y",), "Reply-To"),
        (("Reply-To: A <a@x>",), "Reply-To"),
    ],
)
def test_header_lines_that_could_be_more_than_one_are_refused(
    headers: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        check_template(QUOTA, Template("s", "b", headers=headers))
    assert str(caught.value).isprintable()


@given(name=st.text(max_size=60))
def test_whatever_a_client_is_called_stays_one_line_of_text(name: str) -> None:
    template = Template(
        "s {client}", "a {client} b", '<p title="{client}">{client}</p>', ("X-C: {client}",)
    )
    notice = render(QUOTA, template, with_client(name))
    assert notice.subject.isprintable()
    assert notice.headers[0][1].isprintable()
    assert notice.body.count("\n") == 0
    assert len(notice.body.splitlines()) <= 1
    page = Tags(notice.html or "")
    (tag,) = page.tags
    shown = "".join(c if c.isprintable() else " " for c in name)
    assert tag == f"p {[('title', shown)]}"
    assert page.text == shown


@pytest.mark.parametrize(
    "name",
    [
        "<script>alert(1)</script>",
        '"><img src=x onerror=y>',
        "&amp;",
        "' onclick='x",
        "{spent}",
        "{{quota}}",
        "%s %(client)s",
        "${client}",
        "a\r\nBcc: evil@example.com\r\n\r\nbody",
    ],
)
def test_what_is_filled_in_is_not_looked_at_again(name: str) -> None:
    notice = render(QUOTA, Template("{client}", "{client}", "{client}"), with_client(name))
    shown = name.replace("\r", " ").replace("\n", " ")
    assert (notice.subject, notice.body) == (shown, shown)
    assert html.unescape(notice.html or "") == shown
    assert not set("<>\"'") & set(notice.html or "")


def test_a_fact_that_is_missing_is_named() -> None:
    facts = {name: value for name, value in SAMPLE.items() if name != "spent"}
    with pytest.raises(ValueError, match="there is no fact 'spent'"):
        render(QUOTA, Template("s", "{spent}"), facts)
    with pytest.raises(ValueError, match="'5 EUR': expected a decimal amount"):
        render(QUOTA, Template("s", "{spent}"), {**SAMPLE, "spent": "5 EUR"})


def test_the_largest_template_fits_into_the_column_of_its_history() -> None:
    """The escapes that JSON needs included; see `MOST_BYTES`."""
    body = '"' * MOST_BYTES
    header = "X-A: " + "\U0001f600" * (MOST_HEADER - 7)
    headers = tuple(header.replace("A", f"{n:02}") for n in range(MOST_HEADERS))
    template = Template("\U0001f600" * MOST_SUBJECT, body, body, headers)
    check_template(QUOTA, template)
    state = {
        "subject": template.subject,
        "body": template.body,
        "html": template.html,
        "headers": list(template.headers),
    }
    assert len(json.dumps(state, ensure_ascii=False).encode()) <= AUDIT_COLUMN_BYTES


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("anna@example.com", "anna@example.com"),
        ("o'brien+x.y@a-b.example", "o'brien+x.y@a-b.example"),
        ("root@localhost", "root@localhost"),
        ("anna@bücher.example", "anna@xn--bcher-kva.example"),
    ],
)
def test_addresses_as_smtp_takes_them(text: str, address: str) -> None:
    assert mail_address(text) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "@",
        "anna",
        "anna@",
        "@example.com",
        "a@b@c",
        "a b@c",
        "a@b c",
        "a@b,c@d",
        "a,b@c",
        "a;b@c",
        "<a@b>",
        "A <a@b>",
        "a@b>",
        '"a b"@c',
        "a:b@c",
        "(x)a@b",
        "a..b@c",
        ".a@b",
        "a@b..c",
        "a@-b",
        "a@b-",
        "a@.b",
        "a@[127.0.0.1]",
        "änna@example.com",
        "a@b\r\nRCPT TO:<x@y>",
        "a@b\n",
        "a\x00@b",
        "a@\u2028b",
        "a@ü..example",
        f"{'a' * 65}@b",
        f"a@{'b' * 63}.{'c' * 63}.{'d' * 63}.{'e' * 63}",
        f"a@{'ü' * 80}.example",
    ],
)
def test_addresses_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"^address .*: expected one as anna@") as error:
        mail_address(text)
    assert str(error.value).isprintable()


@given(st.text(alphabet=st.characters(max_codepoint=300), max_size=30))
def test_an_address_has_nothing_that_ends_a_header_or_a_command(text: str) -> None:
    try:
        address = mail_address(f"{text}@example.com")
    except ValueError:
        return
    assert address.isascii()
    assert not set(address) & set(' \t\r\n<>,;:"()[]\\\x00')
    assert address.count("@") == 1
