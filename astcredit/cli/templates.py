"""`astcredit template`: what notifications say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TextIO, TypeVar

import click

from astcredit.cli.context import App, Group, pass_app
from astcredit.cli.desks import at_desks
from astcredit.cli.output import Cell, Column, flag, text
from astcredit.domain.alerts import AlertKind, Audience
from astcredit.service.naming import shown_name

if TYPE_CHECKING:
    from astcredit.domain.notices import Notice
    from astcredit.service.template_desk import TemplateInForce, TemplateKey

F = TypeVar("F", bound=Callable[..., object])

_HEAD: tuple[Column, ...] = (
    text("kind"),
    text("audience"),
    text("reseller"),
    text("origin"),
    text("subject"),
    text("headers"),
)
COLUMNS: tuple[Column, ...] = (*_HEAD, flag("has_html"))
IN_FULL: tuple[Column, ...] = (*_HEAD, text("body"), text("html"))


def _head(found: TemplateInForce) -> tuple[Cell, ...]:
    key, template = found.key, found.template
    return (
        key.kind,
        key.audience,
        key.reseller or None,
        found.origin,
        template.subject,
        "; ".join(template.headers) or None,
    )


def _row(found: TemplateInForce) -> tuple[Cell, ...]:
    """A row of a list: whether there is HTML, and not which."""
    return (*_head(found), found.template.html is not None)


def _full(found: TemplateInForce) -> tuple[Cell, ...]:
    return (*_head(found), found.template.body, found.template.html)


def _named(command: F) -> F:
    """Which template: of what, for whom, and whose."""
    for decorate in (
        click.option(
            "--reseller", metavar="NAME", default="", help="For this reseller's clients only."
        ),
        click.option(
            "--audience",
            type=click.Choice([audience.value for audience in Audience]),
            default=Audience.CLIENT.value,
            show_default=True,
            help="Who reads it.",
        ),
        click.argument("kind", type=click.Choice([kind.value for kind in AlertKind])),
    ):
        command = decorate(command)
    return command


def _key(kind: str, audience: str, reseller: str) -> TemplateKey:
    from astcredit.service.template_desk import TemplateKey

    return TemplateKey(AlertKind(kind), Audience(audience), reseller)


@click.group(cls=Group)
def template() -> None:
    """Texts of notifications: as shipped, for all clients, or for one reseller's.

    Example: astcredit template preview quota
    """


@template.command("set")
@_named
@click.option("--subject", metavar="TEXT", help="The subject.")
@click.option(
    "--body",
    type=click.File(encoding="utf-8"),
    metavar="FILE",
    help="The plain text, - for stdin. Without --html the mail becomes plain text only.",
)
@click.option(
    "--html",
    type=click.File(encoding="utf-8"),
    metavar="FILE",
    help="The same in HTML, - for stdin; an empty file (/dev/null): none.",
)
@click.option(
    "--header",
    "headers",
    multiple=True,
    metavar="LINE",
    help="A further header, as 'Reply-To: help@example.com'; may be repeated, replaces those that"
    " are; '' for none.",
)
@pass_app
def set_(
    app: App,
    kind: str,
    audience: str,
    reseller: str,
    subject: str | None,
    body: TextIO | None,
    html: TextIO | None,
    headers: Sequence[str],
) -> None:
    """Change the text of a notification; what is not named stays.

    {client}, {currency}, {at} and other placeholders are filled in (a wrong one is refused with
    the list of those that there are); a brace is written twice. Reply-To, Precedence, List-… and
    X-… are the headers that may be set.

    Example: astcredit template set quota --reseller north --subject "{threshold} % used" --body
    quota.txt --header "Reply-To: help@north.example"
    """
    from astcredit.service.template_desk import TemplateChange

    change = TemplateChange(
        subject,
        _read(body, "body"),
        _read(html, "html"),
        tuple(filter(None, headers)) if headers else None,
    )
    if change == TemplateChange():
        raise click.UsageError("nothing to change: --subject, --body, --html or --header")
    key = _key(kind, audience, reseller)
    found = at_desks(app, lambda desks: desks.templates.set(key, change))
    app.output.done(f"template {key.kind} for {_whose(key)} set", IN_FULL, _full(found))


@template.command("list")
@pass_app
def list_(app: App) -> None:
    """List the templates in force, and where each is from.

    Example: astcredit template list
    """
    found = at_desks(app, lambda desks: desks.templates.templates())
    app.output.rows(COLUMNS, map(_row, found))


@template.command("show")
@_named
@pass_app
def show(app: App, kind: str, audience: str, reseller: str) -> None:
    """Show the template that is in force, as it was written.

    Example: astcredit template show low-balance --audience admin
    """
    key = _key(kind, audience, reseller)
    found = at_desks(app, lambda desks: desks.templates.template(key))
    if app.format != "table":
        app.output.item(IN_FULL, _full(found))
        return
    app.output.line(f"Origin: {found.origin}")
    for line in (f"Subject: {found.template.subject}", *found.template.headers):
        app.output.line(line)
    _print_texts(app, found.template.body, found.template.html)


@template.command("preview")
@_named
@pass_app
def preview(app: App, kind: str, audience: str, reseller: str) -> None:
    """Show the mail that the template in force makes for a client called Acme Ltd.

    Example: astcredit template preview quota --reseller north
    """
    key = _key(kind, audience, reseller)
    notice = at_desks(app, lambda desks: desks.templates.preview(key))
    if app.format != "table":
        app.output.item(PREVIEW, _previewed(notice))
        return
    app.output.line(f"Subject: {notice.subject}")
    for name, value in notice.headers:
        app.output.line(f"{name}: {value}")
    _print_texts(app, notice.body, notice.html)


@template.command("reset")
@_named
@pass_app
def reset(app: App, kind: str, audience: str, reseller: str) -> None:
    """Take a template back: the one for all clients counts again, or the shipped one.

    What it was stays in astaudit.

    Example: astcredit template reset quota --reseller north
    """
    key = _key(kind, audience, reseller)
    changed = at_desks(app, lambda desks: desks.templates.reset(key))
    found = at_desks(app, lambda desks: desks.templates.template(key))
    done = "reset" if changed else "was not set"
    message = f"template {key.kind} for {_whose(key)} {done}; in force: {found.origin}"
    app.output.done(message, IN_FULL, _full(found))


PREVIEW: tuple[Column, ...] = (text("subject"), text("headers"), text("body"), text("html"))


def _previewed(notice: Notice) -> tuple[Cell, ...]:
    headers = "; ".join(f"{name}: {value}" for name, value in notice.headers)
    return (notice.subject, headers or None, notice.body, notice.html)


def _whose(key: TemplateKey) -> str:
    whose = f" of reseller {shown_name(key.reseller)}" if key.reseller else ""
    return f"{key.audience}s{whose}"


def _read(file: TextIO | None, name: str) -> str | None:
    if file is None:
        return None
    try:
        return file.read()
    except UnicodeDecodeError:
        raise click.BadParameter("not UTF-8 text", param_hint=f"--{name}") from None


def _print_texts(app: App, body: str, html: str | None) -> None:
    for part in (body, html):
        if part is not None:
            app.output.line("")
            for line in part.rstrip("\n").split("\n"):
                app.output.line(line.expandtabs())
