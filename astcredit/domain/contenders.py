"""Contenders: accounts that a call's origin could mean, compared, and the outcome in words.

The order of `Contender.rank` is the order in which `Identities.find` looks; here it is written down
a second time, for people who ask why a call was taken for another's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from astcredit.domain.accounts import Account
from astcredit.domain.idents import MOST_NAME, Ident
from astcredit.domain.text import printable

By: TypeAlias = Literal["account", "accountcode", "endpoint", "address", "caller's number"]
"""What of a call's origin an account was recognised by, the strongest first."""

_ORDER: Final[tuple[By, ...]] = ("account", "accountcode", "endpoint", "address", "caller's number")


@dataclass(frozen=True, slots=True)
class Considered:
    """An account that has to do with a call's origin, and why it was chosen or was not."""

    account: Account
    ident: str
    chosen: bool
    why: str


@dataclass(frozen=True, slots=True)
class Contender:
    """An ident that an origin meets, with what decides whether its account fits, and how well.

    `passed_over`: the script names an account, and this is none that it names.
    """

    by: By
    account: Account
    ident: Ident
    port: int | None
    number: str
    node: str
    passed_over: bool

    @property
    def misfits(self) -> str:
        """Why it does not fit; empty if it does."""
        account, named = self.account, self.ident.port
        reasons = []
        if self.passed_over:
            reasons.append("the script names an account, and then nothing else counts")
        if named is not None and named != self.port:
            reasons.append(f"the call does not come from port {named}")
        if not self.number.startswith(account.tech_prefix):
            reasons.append(f"the number does not begin with its tech prefix {account.tech_prefix}")
        if not account.serves(self.node):
            bound = ", ".join(map(shown, account.gateways))
            reasons.append(f"it is bound to gateway {bound}, the call is on {shown(self.node)}")
        return "; ".join(reasons)

    @property
    def rank(self) -> tuple[bool, int, int, bool, int, bool, int, str]:
        """The lower the better."""
        account, ident = self.account, self.ident
        return (
            self.misfits != "",
            _ORDER.index(self.by),
            -ident.specificity,
            ident.port is None,
            -len(account.tech_prefix),
            not account.gateways,
            account.id,
            ident.text,
        )

    def considered(self, best: Contender) -> Considered:
        """What is to be said about it, where `best` has the lowest rank."""
        why = self.misfits
        chosen = self is best and not why
        if not why:
            why = self._reason() if chosen else self._outdone_by(best)
        return Considered(self.account, self.ident.text, chosen, why)

    def _reason(self) -> str:
        account, ident = self.account, self.ident
        how = "is" if ident.whole else "begins with" if ident.family == "ani" else "is in"
        text = f"{_BY_TEXTS[self.by]} {how} {shown(ident.text)}"
        if account.tech_prefix:
            text += f"; the number begins with its tech prefix {account.tech_prefix}"
        return f"{text}; it is bound to this gateway" if account.gateways else text

    def _outdone_by(self, best: Contender) -> str:
        """Why another, which fits as well, comes before it: the first of the rules that differs."""
        account, ident = best.account, best.ident
        name = shown(account.name)
        if self.by != best.by:
            return f"{name} is found by the {best.by}, which comes before the {self.by}"
        if self.ident.specificity != ident.specificity:
            return f"{shown(ident.text)} of {name} is more specific"
        if self.ident.port != ident.port:
            return f"{shown(ident.text)} of {name} names the port, too"
        if self.account.tech_prefix != account.tech_prefix:
            return f"the tech prefix {account.tech_prefix} of {name} is longer and fits"
        return f"{name} is bound to this gateway, and this one to none"


_BY_TEXTS: Final[Mapping[By, str]] = {
    "account": "the account that the script names",
    "accountcode": "the accountcode",
    "endpoint": "the PJSIP endpoint",
    "address": "the source address",
    "caller's number": "the caller's number",
}


def shown(text: str) -> str:
    """A name or an ident in quotes, safe for a terminal."""
    return printable(text, MOST_NAME)
