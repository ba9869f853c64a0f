"""Who is calling: the account that answers to what is known of a call's origin.

An account that the script names counts alone: the one of that own name, else one with that ident.
So the own name of an account, with which AC_PAYER names it, always means that account. Without a
name the first of these that finds an account: the accountcode and then the PJSIP endpoint, as
idents; the address from which the signalling came; the caller's number. Of the accounts that one of
these finds, the best is

1. the one with the most specific ident: the smallest network; a whole number before a prefix, the
   longest prefix first;
2. then the one whose ident names the port, too;
3. then the one with the longest tech prefix that the dialled number begins with;
4. then the one that is bound to this gateway, before the one that is bound to none.

Accounts that would be equal in all four are refused when the index is made. So the answer never
depends on the order in which the accounts come.

Idents are kept in tables, one for each width of a network and each length of a number's prefix. A
look-up asks the tables from the most specific one on, so what it takes grows with the number of
widths in use and not with the number of accounts. What a table has for a key is a slot: the
accounts that share an ident, told apart by port, tech prefix and gateway.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final, TypeAlias

from astcredit.domain.accounts import Account, AmbiguousAccountsError, IdentKind
from astcredit.domain.calls import Origin
from astcredit.domain.contenders import By, Considered, Contender, shown
from astcredit.domain.idents import (
    Family,
    Ident,
    Key,
    parse_callerid,
    parse_ident,
    parse_source,
)
from astcredit.domain.records import record
from astcredit.domain.text import printable

__all__ = [
    "By",
    "Considered",
    "GrowingIdentities",
    "Ident",
    "Identified",
    "Identities",
    "conflicts",
    "parse_callerid",
    "parse_ident",
    "parse_source",
]

_Shape: TypeAlias = tuple[Family, int]
_GroupKey: TypeAlias = tuple[int | None, str]
_Slot: TypeAlias = "_Entry | _Crowd"
_Table: TypeAlias = dict[Key, _Slot]
_Levels: TypeAlias = tuple[tuple[int, _Table], ...]
_Change: TypeAlias = "tuple[_Entry, bool]"
"""An entry that is put in (True) or taken out (False)."""

_Met: TypeAlias = "tuple[By, int | None, _Slot]"
"""What of an origin met which slot, and the port from which the call came, where that counts."""

_NO_TABLE: Final[_Table] = {}

_TECH_PREFIX: Final = re.compile(r"[0-9]*")


@record
class Identified:
    """The account that a call was recognised as, and how.

    `number` is the dialled number without the account's tech prefix, `ident` (in canonical form)
    and `kind` what matched, `by` the part of the origin that it matched.
    """

    account: Account
    number: str
    ident: str
    kind: IdentKind
    by: By


@record
class _Entry:
    """One ident of an account. Where no other has the ident, it is a slot by itself."""

    account: Account
    ident: Ident

    def find(self, number: str, node: str, port: int | None) -> _Entry | None:
        """This entry, if it fits."""
        account, named = self.account, self.ident.port
        if named is not None and named != port:
            return None
        return self if number.startswith(account.tech_prefix) and account.serves(node) else None

    def entries(self) -> Iterator[_Entry]:
        """This entry."""
        yield self


@dataclass(frozen=True, slots=True)
class _Crowd:
    """A slot that several entries share, by port and tech prefix.

    Each group is told apart by gateway, accounts that are bound to one first. `lengths` are those
    of the tech prefixes, the longest first.
    """

    lengths: tuple[int, ...]
    groups: Mapping[_GroupKey, tuple[_Entry, ...]]

    def find(self, number: str, node: str, port: int | None) -> _Entry | None:
        """The best entry that fits."""
        for named in (None,) if port is None else (port, None):
            for length in self.lengths:
                for entry in self.groups.get((named, number[:length]), ()):
                    if entry.account.serves(node):
                        return entry
        return None

    def entries(self) -> Iterator[_Entry]:
        """All entries, in no order."""
        return chain.from_iterable(self.groups.values())


def _with_changes(slot: _Slot | None, changes: Sequence[_Change]) -> _Slot | None:
    """What a slot becomes; None if nobody is left. Raises AmbiguousAccountsError."""
    groups = dict(slot.groups) if isinstance(slot, _Crowd) else {}
    if isinstance(slot, _Entry):
        changes = [(slot, True), *changes]
    for entry, put_in in changes:
        key = (entry.ident.port, entry.account.tech_prefix)
        group = [old for old in groups.pop(key, ()) if old.account.id != entry.account.id]
        if put_in:
            _refuse_ties(entry, group)
            group.append(entry)
            group.sort(key=lambda entry: (not entry.account.gateways, entry.account.id))
        if group:
            groups[key] = tuple(group)
    if sum(map(len, groups.values())) <= 1:
        return next((entry for (entry,) in groups.values()), None)
    lengths = sorted({len(tech_prefix) for _, tech_prefix in groups}, reverse=True)
    return _Crowd(tuple(lengths), groups)


def conflicts(one: Account, other: Account) -> str:
    """Why two different accounts would tie: a line with both names and the ident; else empty.

    Raises ValueError for an ident that is none.
    """
    if one.ident_by is not other.ident_by or one.tech_prefix != other.tech_prefix:
        return ""
    if not _meet(one, other):
        return ""
    theirs = {ident.text for ident in _idents_of(other)}
    shared = next((ident for ident in _idents_of(one) if ident.text in theirs), None)
    return _conflict_text(one, other, shared) if shared else ""


def _meet(one: Account, other: Account) -> bool:
    """Whether there is a gateway on which neither account comes before the other."""
    if not one.gateways or not other.gateways:
        return not one.gateways and not other.gateways
    return not set(one.gateways).isdisjoint(other.gateways)


def _refuse_ties(entry: _Entry, group: Iterable[_Entry]) -> None:
    """Raise AmbiguousAccountsError if `entry` would tie with one of its group."""
    for old in group:
        if _meet(old.account, entry.account):
            one, other = sorted((old.account, entry.account), key=lambda account: account.id)
            raise AmbiguousAccountsError(_conflict_text(one, other, entry.ident))


_KIND_TEXTS: Final = {
    IdentKind.NAME: "the name",
    IdentKind.IP: "the address",
    IdentKind.ANI: "the caller's number",
}


def _conflict_text(one: Account, other: Account, ident: Ident) -> str:
    text = (
        f"accounts {shown(one.name)} and {shown(other.name)} are both identified by"
        f" {_KIND_TEXTS[ident.kind]} {shown(ident.text)}"
    )
    if one.tech_prefix:
        text += f" with the tech prefix {one.tech_prefix}"
    common = next((gateway for gateway in one.gateways if gateway in other.gateways), None)
    return text if common is None else f"{text} on the gateway {shown(common)}"


def _idents_of(account: Account) -> list[Ident]:
    """An account's idents; a text that is empty identifies nothing. Raises ValueError."""
    if account.tech_prefix and not _TECH_PREFIX.fullmatch(account.tech_prefix):
        raise ValueError(f"tech prefix {printable(account.tech_prefix)}: expected digits")
    return [parse_ident(account.ident_by, text) for text in account.idents if text]


class Identities:
    """An immutable index of accounts by what they are recognised by.

    Look-ups take microseconds and are safe from any thread.
    """

    __slots__ = ("_accounts", "_ani", "_by_name", "_ipv4", "_ipv6", "_names", "_tables")

    def __init__(
        self,
        accounts: Mapping[int, Account],
        tables: Mapping[_Shape, _Table],
        by_name: Mapping[str, Account],
    ) -> None:
        """For this class alone: make one with `of`."""
        self._accounts: Final = accounts
        self._by_name: Final = by_name
        self._tables: Final = tables
        self._names: Final = tables.get(("name", 0), {})
        self._ipv4: Final = _shifts(32, self._levels("ipv4"))
        self._ipv6: Final = _shifts(128, self._levels("ipv6"))
        self._ani: Final = self._levels("ani")

    def _levels(self, family: Family) -> _Levels:
        """The tables of a family with their specificity, the highest first."""
        shapes = sorted((shape for shape in self._tables if shape[0] == family), reverse=True)
        return tuple((shape[1], self._tables[shape]) for shape in shapes)

    @classmethod
    def of(cls, accounts: Iterable[Account]) -> Identities:
        """The index of these accounts, disabled ones included.

        Raises AmbiguousAccountsError for two that would tie, ValueError for a text that is no ident
        or tech prefix, and for two accounts with one id.
        """
        return cls({}, {}, {}).changed((), accounts)

    def changed(self, gone: Iterable[Account], now: Iterable[Account]) -> Identities:
        """The index after the accounts `gone` went (their ids count) and `now` came.

        An account of `now` takes the place of the one that had its id. This index stays as it is.
        Raises as `of`.
        """
        growing = GrowingIdentities(self)
        growing.change(gone, now)
        return growing.identities()

    def copies(self) -> tuple[dict[int, Account], dict[str, Account], _Draft]:
        """For `GrowingIdentities` alone: accounts by id and by name, and the tables."""
        return dict(self._accounts), dict(self._by_name), _Draft(self._tables)

    def find(self, origin: Origin, number: str) -> Identified | None:
        """The account that a call from `origin` to `number` (as it was dialled) is recognised as.

        An account with a tech prefix matches only numbers that begin with it. None: nobody's call.
        """
        named = self._named(origin.account, number) if origin.account else None
        if named is not None:
            return named
        node = origin.node
        for by, port, slot in self._met(origin):
            entry = slot.find(number, node, port)
            if entry is not None:
                account, ident = entry.account, entry.ident
                rest = number[len(account.tech_prefix) :]
                return Identified(account, rest, ident.text, ident.kind, by)
        return None

    def _named(self, name: str, number: str) -> Identified | None:
        """The account that the script calls by its own name, whatever else it is recognised by.

        Its tech prefix may stand before the number and need not: a transferred leg dials what its
        caller wrote, a forwarded one what a carrier wrote. One with + or 00 never begins with it.
        """
        account = self._by_name.get(name)
        if account is None:
            return None
        rest = number.removeprefix(account.tech_prefix)
        return Identified(account, rest, name, IdentKind.NAME, "account")

    def explain(self, origin: Origin, number: str) -> list[Considered]:
        """Each account that an ident connects with this origin, best first, with its reason.

        Exactly one of them is chosen if `find` finds an account, else none.
        """
        named = self._by_name.get(origin.account) if origin.account else None
        best: dict[int, Contender] = {}
        for contender in self._contenders(origin, number, by_own_name=named is not None):
            if contender.account is named:
                continue
            other = best.setdefault(contender.account.id, contender)
            if contender.rank < other.rank:
                best[contender.account.id] = contender
        contenders = sorted(best.values(), key=lambda contender: contender.rank)
        found = [contender.considered(contenders[0]) for contender in contenders]
        if named is not None:
            why = "the script names the account itself, which counts alone"
            found.insert(0, Considered(named, named.name, True, why))
        return found

    def _met(self, origin: Origin) -> Iterator[_Met]:
        """The slots that count for an origin, the strongest first."""
        return self._met_named(origin) if origin.account else self._met_unnamed(origin)

    def _met_named(self, origin: Origin) -> Iterator[_Met]:
        """The slot of the accounts that have as an ident what the script names."""
        slot = self._names.get(origin.account)
        if slot is not None:
            yield "account", None, slot

    def _met_unnamed(self, origin: Origin) -> Iterator[_Met]:
        """The slots of an origin for which the script names no account."""
        slot = self._names.get(origin.accountcode)
        if slot is not None:
            yield "accountcode", None, slot
        slot = self._names.get(origin.endpoint)
        if slot is not None:
            yield "endpoint", None, slot
        source = parse_source(origin.source) if origin.source else None
        if source is not None:
            width, bits, port = source
            for shift, table in self._ipv4 if width == 32 else self._ipv6:
                if (key := bits >> shift) in table:
                    yield "address", port, table[key]
        digits = parse_callerid(origin.callerid) if origin.callerid else ""
        if digits:
            for length, table in self._ani:
                if (start := digits[:length]) in table:
                    yield "caller's number", None, table[start]

    def _contenders(self, origin: Origin, number: str, *, by_own_name: bool) -> Iterator[Contender]:
        """Each entry that an origin meets, whether it fits or not. `by_own_name`: the script names
        an account by its own name."""
        for by, port, slot in chain(self._met_named(origin), self._met_unnamed(origin)):
            passed_over = by_own_name or (origin.account != "" and by != "account")
            for entry in slot.entries():
                yield Contender(
                    by, entry.account, entry.ident, port, number, origin.node, passed_over
                )


class GrowingIdentities:
    """An index in the making: as `Identities.changed` as often as one wants, without a copy of
    everything each time. After `identities` it must not be changed any more."""

    def __init__(self, base: Identities | None = None) -> None:
        self._accounts, self._by_name, self._draft = (base or Identities({}, {}, {})).copies()

    def change(self, gone: Iterable[Account], now: Iterable[Account]) -> None:
        """Take out the accounts `gone` (their ids count), put in those of `now`, in place of the
        ones that had their ids. Raises as `Identities.of`; then this is of no use any more."""
        now, accounts, by_name, draft = list(now), self._accounts, self._by_name, self._draft
        for account in (*gone, *now):
            if account.id in accounts:
                old = accounts.pop(account.id)
                draft.take_out(old)
                by_name.pop(old.name, None)
        for account in now:
            if accounts.setdefault(account.id, account) is not account:
                raise ValueError(f"account id {account.id}: expected each id once")
            draft.put_in(account)
            by_name[account.name] = account
        draft.settle()

    def identities(self) -> Identities:
        """The index."""
        return Identities(self._accounts, self._draft.tables(), self._by_name)


def _shifts(width: int, levels: _Levels) -> _Levels:
    """Levels of networks by the bits to drop from an address, in place of those to keep."""
    return tuple((width - length, table) for length, table in levels)


class _Draft:
    """Tables of an index while they are being changed; what is shared is copied once.

    First accounts are taken out, then others put in: a tie in between does not count.
    """

    def __init__(self, tables: Mapping[_Shape, _Table]) -> None:
        self._tables: Final = dict(tables)
        self._own: Final[dict[_Shape, _Table]] = {}
        self._crowded: Final[dict[tuple[_Shape, Key], list[_Change]]] = {}

    def take_out(self, account: Account) -> None:
        for ident in _idents_of(account):
            table = self._table((ident.family, ident.specificity))
            slot = table.get(ident.key)
            if isinstance(slot, _Crowd):
                self._note(_Entry(account, ident), put_in=False)
            elif slot is not None:  # None: the account names this ident twice
                del table[ident.key]

    def put_in(self, account: Account) -> None:
        """Raises ValueError for an ident that is none."""
        for ident in _idents_of(account):
            entry, shape = _Entry(account, ident), (ident.family, ident.specificity)
            table = self._own.get(shape) or self._table(shape)
            if table.setdefault(ident.key, entry) is not entry:
                self._note(entry, put_in=True)

    def settle(self) -> None:
        """Have accounts that share an ident told apart. Raises AmbiguousAccountsError."""
        for (shape, key), changes in self._crowded.items():
            table = self._table(shape)
            slot = _with_changes(table.pop(key, None), changes)
            if slot is not None:
                table[key] = slot
        self._crowded.clear()

    def tables(self) -> dict[_Shape, _Table]:
        """The tables after all changes; they are settled."""
        return {shape: table for shape, table in self._tables.items() if table}

    def _table(self, shape: _Shape) -> _Table:
        """The table, this draft's own."""
        if shape not in self._own:
            self._own[shape] = self._tables[shape] = self._tables.get(shape, _NO_TABLE).copy()
        return self._own[shape]

    def _note(self, entry: _Entry, put_in: bool) -> None:
        where = (entry.ident.family, entry.ident.specificity), entry.ident.key
        self._crowded.setdefault(where, []).append((entry, put_in))
