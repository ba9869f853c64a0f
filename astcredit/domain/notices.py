"""What notifications say: templates, their placeholders, and what may stand in a mail. Pure.

A placeholder is a name in braces, {client}, and nothing more: no attribute, no index, no format can
be reached through it. A brace that is meant is written twice. Everything that is filled in is made
one printable line first, and escaped in HTML: a client may call itself anything.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from astcredit.domain.alerts import AlertKind
from astcredit.domain.money import parse_amount, short_text
from astcredit.domain.text import printable

MOST_SUBJECT: Final = 200
"""Characters: what the column holds."""

MOST_BYTES: Final = 15_000
"""Of the plain text and of the HTML, in UTF-8. Together, with subject and headers and with every
quotation mark escaped, they fit into a state that astaudit keeps (65,535 bytes)."""

MOST_HEADERS: Final = 10
MOST_HEADER: Final = 100
"""Further header lines, and characters of each: an address, a word. See `MOST_BYTES`."""

MOST_ADDRESS: Final = 254
MOST_LOCAL_PART: Final = 64
"""Characters of an address and of what stands before its @ (RFC 5321, 4.5.3.1)."""

PLACEHOLDERS: Final[Mapping[AlertKind, tuple[str, ...]]] = {
    AlertKind.QUOTA: (
        "client", "currency", "kind", "period", "quota", "spent", "reserved", "remaining",
        "percent", "threshold", "at",
    ),
    AlertKind.LOW_BALANCE: ("client", "currency", "balance", "threshold", "at"),
}  # fmt: skip
"""What a template of each kind may say: the facts of the alert, the client's name and currency."""

SAMPLES: Final[Mapping[AlertKind, Mapping[str, str]]] = {
    AlertKind.QUOTA: {
        "client": "Acme Ltd",
        "currency": "EUR",
        "kind": "monthly",
        "period": "2026-11",
        "quota": "500.000000",
        "spent": "402.350000",
        "reserved": "3.600000",
        "remaining": "94.050000",
        "percent": "80",
        "threshold": "80",
        "at": "2026-11-21 20:00:00.000",
    },
    AlertKind.LOW_BALANCE: {
        "client": "Acme Ltd",
        "currency": "EUR",
        "balance": "4.270000",
        "threshold": "5.000000",
        "at": "2026-11-21 20:00:00.000",
    },
}
"""Facts for a look at a template."""

# A percentage is called a threshold, too: it is no amount.
_AMOUNTS: Final[Mapping[AlertKind, frozenset[str]]] = {
    AlertKind.QUOTA: frozenset({"quota", "spent", "reserved", "remaining"}),
    AlertKind.LOW_BALANCE: frozenset({"balance", "threshold"}),
}

ALLOWED_HEADERS: Final = frozenset(
    {
        "reply-to",
        "organization",
        "precedence",
        "importance",
        "priority",
        "keywords",
        "comments",
        "feedback-id",
        "list-id",
        "list-help",
        "list-owner",
        "list-unsubscribe",
        "list-unsubscribe-post",
    }
)
"""Headers that a template may set, besides X-…: what tells people and their programs how to treat
the mail. A list of what is allowed and not of what is forbidden, because a header that decides who
gets a mail, who sent it or how it is read (From, To, Cc, Bcc, Sender, Date, Message-ID, Content-…,
Received, DKIM-Signature, …) must not slip through for not being on it."""

_TOKEN: Final = re.compile(r"\{\{|\}\}|\{[^{}]*\}|[{}]")
_HEADER: Final = re.compile(r"([!-9;-~]+):[ \t]*(.*)")
_EXTENSION: Final = re.compile(r"x-[a-z0-9-]+", re.ASCII)
_REPLY_TO: Final = "reply-to"

_LABEL: Final = r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?"
_ADDRESS: Final = re.compile(
    rf"[A-Za-z0-9!#$%&'*+/=?^_`{{|}}~-]+(\.[A-Za-z0-9!#$%&'*+/=?^_`{{|}}~-]+)*@{_LABEL}(\.{_LABEL})*",
    re.ASCII,
)

_ESCAPES: Final = str.maketrans(
    {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;"}
)


@dataclass(frozen=True, slots=True)
class Template:
    """The text of a kind of notification; `html` None is plain text only. `headers` are lines."""

    subject: str
    body: str
    html: str | None = None
    headers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Notice:
    """A template that was filled in: subject and values of headers are one printable line each."""

    subject: str
    body: str
    html: str | None
    headers: tuple[tuple[str, str], ...]


def render(kind: AlertKind, template: Template, facts: Mapping[str, str]) -> Notice:
    """The template with the facts in it.

    Raises ValueError, one line, if it names a fact that is not there or is none that
    `check_template` would pass.
    """
    values = {name: _shown(kind, name, fact) for name, fact in facts.items()}
    escaped = {name: value.translate(_ESCAPES) for name, value in values.items()}
    return Notice(
        one_line(_filled("subject", template.subject, values)),
        _filled("body", template.body, values),
        None if template.html is None else _filled("html", template.html, escaped),
        tuple(
            (name, one_line(_filled("header", value, values)))
            for name, value in map(split_header, template.headers)
        ),
    )


def check_template(kind: AlertKind, template: Template) -> None:
    """Raise ValueError, one line that names what is wrong, unless the template can be sent."""
    _check_line("subject", template.subject, MOST_SUBJECT)
    _check_text("body", template.body)
    if template.html is not None:
        _check_text("html", template.html)
    _check_headers(template.headers)
    parts = {"subject": template.subject, "body": template.body, "html": template.html or ""}
    for part, text in (*parts.items(), *(("header", line) for line in template.headers)):
        _fill(part, text, _known(kind, part))


def split_header(line: str) -> tuple[str, str]:
    """Name and value of a header line. Raises ValueError if a template may not set it."""
    match = _HEADER.fullmatch(line)
    if match is None:
        raise ValueError(f"header {printable(line)}: expected NAME: VALUE")
    name, value = match.groups()
    if name.lower() not in ALLOWED_HEADERS and _EXTENSION.fullmatch(name.lower()) is None:
        raise ValueError(
            f"header {printable(name)}: a template may set X-… and"
            f" {', '.join(sorted(map(str.title, ALLOWED_HEADERS)))}"
        )
    return name, value


def mail_address(text: str) -> str:
    """An address as SMTP takes it, a domain of other scripts as IDNA. Raises ValueError.

    Only plain ones, anna@example.com: nothing in it can end a header or a command, or be taken for
    a second address. Quoted local parts and such with accents are not delivered to.
    """
    local, at, domain = text.rpartition("@")
    try:
        address = f"{local}{at}{domain if domain.isascii() else domain.encode('idna').decode()}"
    except UnicodeError:
        address = ""
    if _ADDRESS.fullmatch(address) is None or not _short_enough(address):
        raise ValueError(f"address {printable(text)}: expected one as anna@example.com")
    return address


def one_line(text: str) -> str:
    """`text` with a space for everything that does not print: line ends, marks, controls."""
    return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)


def _short_enough(address: str) -> bool:
    return len(address) <= MOST_ADDRESS and address.index("@") <= MOST_LOCAL_PART


def _shown(kind: AlertKind, name: str, fact: str) -> str:
    """A fact as a person reads it: amounts without needless zeros, instants to the second."""
    if name in _AMOUNTS[kind]:
        return short_text(parse_amount(fact))
    if name == "at":
        return f"{one_line(fact).partition('.')[0]} UTC"
    return one_line(fact)


def _fill(part: str, text: str, value: Callable[[str], str]) -> str:
    """`text` with `value(name)` for each placeholder, and single braces for double ones.

    What is filled in is not looked at again. Raises ValueError for a brace that stands alone.
    """

    def filled(match: re.Match[str]) -> str:
        token = match[0]
        if token in ("{{", "}}"):
            return token[0]
        if len(token) == 1:
            raise ValueError(
                f"{part}{_line(text, match)}: a {token} stands alone; {token * 2} writes one"
            )
        try:
            return value(token[1:-1])
        except ValueError as error:
            raise ValueError(f"{part}{_line(text, match)}: {error}") from None

    return _TOKEN.sub(filled, text)


def _line(text: str, match: re.Match[str]) -> str:
    """Where a mistake stands, in a text of several lines."""
    return f", line {text.count(chr(10), 0, match.start()) + 1}" if "\n" in text else ""


def _filled(part: str, text: str, values: Mapping[str, str]) -> str:
    def value(name: str) -> str:
        if name not in values:
            raise ValueError(f"there is no fact {printable(name)}")
        return values[name]

    return _fill(part, text, value)


def _known(kind: AlertKind, part: str) -> Callable[[str], str]:
    """Passes the placeholders that there are."""

    def value(name: str) -> str:
        if name not in PLACEHOLDERS[kind]:
            known = ", ".join(f"{{{each}}}" for each in PLACEHOLDERS[kind])
            shown = printable(f"{{{name}}}")
            raise ValueError(f"there is no placeholder {shown}: expected one of {known}")
        return ""

    return value


def _check_line(what: str, text: str, most: int) -> None:
    if not text.strip() or len(text) > most or not text.isprintable():
        raise ValueError(
            f"{what} {printable(text)}: expected one line of 1 to {most} printable characters"
        )


def _check_text(what: str, text: str) -> None:
    if not text.strip():
        raise ValueError(f"{what}: expected a text, this one is empty")
    for number, line in enumerate(text.split("\n"), 1):
        if not line.replace("\t", "").isprintable():
            raise ValueError(f"{what}, line {number}: {printable(line)} does not print as it is")
    if (size := len(text.encode())) > MOST_BYTES:
        raise ValueError(f"{what}: expected at most {MOST_BYTES} bytes, this one has {size}")


def _check_headers(lines: Sequence[str]) -> None:
    if len(lines) > MOST_HEADERS:
        raise ValueError(f"headers: expected at most {MOST_HEADERS}, there are {len(lines)}")
    names: set[str] = set()
    for line in lines:
        _check_line("header", line, MOST_HEADER)
        name, value = split_header(line)
        if name.lower() in names:
            raise ValueError(f"header {printable(name)} is there twice")
        names.add(name.lower())
        if not value.strip():
            raise ValueError(f"header {printable(name)}: expected a value")
        if name.lower() == _REPLY_TO:
            _check_reply_to(value)


def _check_reply_to(value: str) -> None:
    """One address, as it is: filled in, a client's name would become a part of it."""
    if set("{}") & set(value):
        raise ValueError("header 'Reply-To': expected an address without a placeholder")
    try:
        mail_address(value)
    except ValueError as error:
        raise ValueError(f"header 'Reply-To': {error}") from None
