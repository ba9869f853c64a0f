"""Accounts as rows: every setting for programs, a few readable columns for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from astcredit.cli.output import Cell, Column, flag, number, text
from astcredit.service.account_settings import SEPARATOR

if TYPE_CHECKING:
    from astcredit.service.account_ports import Account, Termination

COLUMNS: Final[tuple[Column, ...]] = (
    number("id"),
    text("name"),
    text("client"),
    text("ident_by"),
    text("ident"),
    text("rate_table"),
    text("tag"),
    text("notes"),
    flag("enabled"),
    text("tech_prefix"),
    text("gateways"),
    text("routing_plan"),
    text("src_policy"),
    text("dids"),
    flag("orig_enabled"),
    number("orig_capacity"),
    flag("term_enabled"),
    text("term_rate_table"),
    text("term_tag"),
    number("term_capacity"),
    text("protocol"),
    text("host"),
    number("port"),
    text("proxy"),
    text("routing_ip"),
)
"""All settings. Scripts read these: new ones come at the end."""

PEOPLES_COLUMNS: Final[tuple[Column, ...]] = (
    number("ID"),
    text("Client"),
    text("Account"),
    text("Name/ANI/IP"),
    text("Tech prefix"),
    text("Orig details"),
    text("Term details"),
)
"""What a list shows to people."""


def row(account: Account) -> tuple[Cell, ...]:
    """All settings of an account, one a column."""
    state = account.state()
    return (account.id, account.name, *(_cell(state[column.name]) for column in COLUMNS[2:]))


def _cell(value: str | int | bool | list[str] | None) -> Cell:
    """What is empty is not there."""
    if isinstance(value, list):
        value = SEPARATOR.join(value)
    return None if value == "" else value


def peoples_row(account: Account) -> tuple[Cell, ...]:
    """An account in the columns of a list for people."""
    return (
        account.id,
        account.client,
        account.name,
        f"{account.ident_by} {'; '.join(account.idents)}",
        account.tech_prefix or None,
        _orig_details(account),
        _term_details(account),
    )


def matching(words: Sequence[str], accounts: Iterable[Account]) -> list[Account]:
    """The accounts in which every word appears, in capitals or not: in what a list shows of them,
    in their tags or their notes."""
    wanted = [word.casefold() for word in words]
    if not wanted:
        return list(accounts)
    return [account for account in accounts if _has_all(account, wanted)]


def _has_all(account: Account, words: Sequence[str]) -> bool:
    term_tag = account.termination.tag if account.termination else ""
    cells = (*peoples_row(account), account.tag, term_tag, account.notes)
    # A line end between the cells: no word that is typed reaches over two of them.
    shown = "\n".join(str(cell) for cell in cells if cell is not None).casefold()
    return all(word in shown for word in words)


def _orig_details(account: Account) -> str:
    parts = [
        "" if account.enabled and account.orig_enabled else "disabled",
        _named("rate table", account.rate_table),
        _named("routing plan", account.routing_plan),
        account.source_policy.value,
        _numbers(account.dids),
        _capacity(account.orig_capacity),
        _named("only on", ", ".join(account.gateways)),
    ]
    return "; ".join(filter(None, parts))


def _term_details(account: Account) -> str | None:
    term = account.termination
    if term is None:
        return None
    parts = [
        "" if account.enabled and term.enabled else "disabled",
        f"{term.protocol} {_target(term)}",
        _named("rate table", term.rate_table) or "no rate table",
        _capacity(term.capacity),
    ]
    return "; ".join(filter(None, parts))


def _target(term: Termination) -> str:
    """Where calls are handed to: the peer, the address, or the peer and its address."""
    host = term.routing_ip or term.host
    if host and term.port is not None:
        host = f"[{host}]:{term.port}" if ":" in host else f"{host}:{term.port}"
    return " at ".join(filter(None, (term.proxy, host))) or "nowhere"


def _named(what: str, name: str) -> str:
    return name and f"{what} {name}"


def _numbers(dids: Sequence[str]) -> str:
    return f"{len(dids)} DID{'' if len(dids) == 1 else 's'}" if dids else ""


def _capacity(calls: int | None) -> str:
    return "" if calls is None else f"capacity {calls}"
