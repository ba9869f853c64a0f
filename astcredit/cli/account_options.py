"""The settings of an account as options of the command line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias, TypedDict

import click

from astcredit.cli.parameters import capacity_option
from astcredit.domain.accounts import IdentKind, Protocol, SourcePolicy
from astcredit.service.account_rules import AccountChange, Port, TerminationChange
from astcredit.service.account_settings import SEPARATOR, SettingError, read_port
from astcredit.service.catalog_rules import KEEP, Capacity

Decorator: TypeAlias = Callable[[Callable[..., object]], Callable[..., object]]


class Asked(TypedDict):
    """The settings as click hands them on; what was not given is None, KEEP or ()."""

    ident_by: str | None
    ident: str | None
    tech_prefix: str | None
    gateways: tuple[str, ...]
    rate_table: str | None
    routing_plan: str | None
    tag: str | None
    notes: str | None
    src_policy: str | None
    dids: tuple[str, ...]
    orig: bool | None
    orig_capacity: Capacity
    term: bool | None
    term_rate_table: str | None
    term_tag: str | None
    term_capacity: Capacity
    protocol: str | None
    host: str | None
    port: Port
    proxy: str | None
    routing_ip: str | None


def settings(*, required: bool) -> Decorator:
    """The options that `add` and `set` share; with `required` those that `add` must have."""

    def decorate(command: Callable[..., object]) -> Callable[..., object]:
        options = (*_recognition(required), *_ORIGINATOR, *_TERMINATOR, *_LABELS)
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def change_of(asked: Asked) -> AccountChange:
    """The change that the options ask for."""
    ident = asked["ident"]
    return AccountChange(
        idents=None if ident is None else tuple(ident.split(SEPARATOR)),
        rate_table=asked["rate_table"],
        tag=asked["tag"],
        notes=asked["notes"],
        ident_by=IdentKind(asked["ident_by"]) if asked["ident_by"] else None,
        tech_prefix=asked["tech_prefix"],
        gateways=_list(asked["gateways"]),
        routing_plan=asked["routing_plan"],
        source_policy=SourcePolicy(asked["src_policy"]) if asked["src_policy"] else None,
        dids=_list(asked["dids"]),
        orig_enabled=asked["orig"],
        orig_capacity=asked["orig_capacity"],
        termination=TerminationChange(
            rate_table=asked["term_rate_table"],
            tag=asked["term_tag"],
            capacity=asked["term_capacity"],
            protocol=Protocol(asked["protocol"]) if asked["protocol"] else None,
            host=asked["host"],
            port=asked["port"],
            proxy=asked["proxy"],
            routing_ip=asked["routing_ip"],
            enabled=asked["term"],
        ),
    )


def _list(values: tuple[str, ...]) -> tuple[str, ...] | None:
    """What an option that can be given several times was given; one '' alone empties the list."""
    if not values:
        return None
    return () if values == ("",) else values


def _port(_: click.Context, parameter: click.Parameter, value: str | None) -> Port:
    if value is None:
        return KEEP
    try:
        return read_port(value)
    except SettingError as error:
        raise click.BadParameter(str(error), param=parameter) from None


def _recognition(required: bool) -> tuple[Decorator, ...]:
    return (
        click.option(
            "--ident-by",
            type=click.Choice([kind.value for kind in IdentKind]),
            required=required,
            help="How a call is recognised: by the name in its accountcode or of its PJSIP "
            "endpoint, by the address that its signalling comes from, or by the caller's number.",
        ),
        click.option(
            "--ident",
            metavar="VALUE[;VALUE...]",
            required=required,
            help="What identifies the account, separated by semicolons: names; addresses and "
            "networks as 10.0.0.5, 10.0.0.0/24, 10.0.0.5:5061, 2001:db8::/32; numbers as "
            "442071234567, or 44207* for all that begin so.",
        ),
        click.option(
            "--tech-prefix",
            metavar="DIGITS",
            help="What the numbers of its calls begin with, to tell it from others with the same "
            "ident; taken off before anything else looks at the number. '' for none.",
        ),
        click.option(
            "--gateway",
            "gateways",
            metavar="NODE",
            multiple=True,
            help="An Asterisk server for which the account counts; can be given several times. "
            "'' for all servers.",
        ),
    )


_ORIGINATOR: Final[tuple[Decorator, ...]] = (
    click.option(
        "--rate-table",
        metavar="NAME",
        help="Comes before the client's rate table. '' for none.",
    ),
    click.option(
        "--routing-plan",
        metavar="NAME",
        help="Comes before the client's routing plan. '' for none.",
    ),
    click.option(
        "--src-policy",
        type=click.Choice([policy.value for policy in SourcePolicy]),
        help="What becomes of a caller's number that is none of the account's DIDs: it is let "
        "through, the call is rejected, or one of the DIDs stands in its place.  [add: allow-any]",
    ),
    click.option(
        "--did",
        "dids",
        metavar="NUMBER",
        multiple=True,
        help="A number that the account may present, with its country code; can be given several "
        "times. '' for none.",
    ),
    click.option(
        "--orig/--no-orig",
        default=None,
        help="Whether the account may make calls.  [add: yes]",
    ),
    capacity_option("--orig-capacity", "Most calls that it makes at once."),
)

_TERMINATOR: Final[tuple[Decorator, ...]] = (
    click.option(
        "--term/--no-term",
        default=None,
        help="Whether calls may be routed to the account. It becomes a terminator by any of the "
        "options that follow; then they may, unless --no-term is said.",
    ),
    click.option(
        "--term-rate-table",
        metavar="NAME",
        help="What the terminator charges; until it is set no call is routed to it. '' for none.",
    ),
    click.option("--term-tag", help="A word to group terminators by. '' for none."),
    capacity_option("--term-capacity", "Most calls that are handed to it at once."),
    click.option(
        "--protocol",
        type=click.Choice([protocol.value for protocol in Protocol]),
        help="The channel technology that it is dialled with.  [PJSIP]",
    ),
    click.option("--host", help="Its name or address. '' for none."),
    click.option("--port", metavar="PORT", callback=_port, help="'' for the protocol's own.  ['']"),
    click.option(
        "--proxy",
        metavar="NAME",
        help="What Asterisk calls it: a PJSIP endpoint or a peer. '' for none.",
    ),
    click.option(
        "--routing-ip", metavar="ADDRESS", help="Dialled in place of the host. '' for none."
    ),
)

_LABELS: Final[tuple[Decorator, ...]] = (
    click.option("--tag", help="A word to group accounts by. '' for none."),
    click.option("--notes", help="For people. '' for none."),
)
