"""What a file of accounts would change, and the change itself."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from astcredit.domain.deck import DeckErrors
from astcredit.service.account_csv import AccountLine, AccountSheet
from astcredit.service.account_ports import Account
from astcredit.service.account_rules import AccountChange, contradictions
from astcredit.service.account_settings import SettingError
from astcredit.service.account_ties import recognised_alike, ties
from astcredit.service.admin_ports import AdminTransaction, Client, RateTableHead
from astcredit.service.desk import changes
from astcredit.service.history_ports import AuditEntry
from astcredit.service.naming import shown_name
from astcredit.service.sheets import Faults

STEP = 5_000
"""Accounts between two moves of the progress bar."""

MOST_NEAREST = 1_000
"""Names among which the nearest to a misspelt one is looked for, which is done for each error."""


@dataclass(frozen=True, slots=True)
class Imported:
    """How many accounts an import added, changed and left as they were.

    `need_term_rates` names those of the former two to which no call is routed for want of rates.
    """

    added: int
    changed: int
    unchanged: int
    need_term_rates: Sequence[str]


@dataclass(frozen=True, slots=True)
class Known:
    """What the lines of a file can refer to, each by its name."""

    clients: Mapping[str, Client]
    rate_tables: Mapping[str, RateTableHead]
    routing_plans: Collection[str]
    accounts: Mapping[str, Account]

    @classmethod
    async def of(cls, transaction: AdminTransaction) -> Known:
        """All that is there, as the transaction sees it."""
        return cls(
            {client.name: client for client in await transaction.clients()},
            {table.name: table for table in await transaction.rate_tables()},
            {plan.name for plan in await transaction.routing.plans()},
            {account.name: account for account in await transaction.accounts.all()},
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """The accounts that a file adds, the old and new form of those that it changes, and how many
    of its lines change nothing. False if none does."""

    added: Sequence[Account]
    changed: Sequence[tuple[Account, Account]]
    unchanged: int

    def __bool__(self) -> bool:
        return bool(self.added or self.changed)

    @property
    def summary(self) -> Imported:
        """The plan in numbers."""
        new = [*self.added, *(new for _, new in self.changed)]
        need = [account.name for account in new if account.needs_term_rates]
        return Imported(len(self.added), len(self.changed), self.unchanged, need)

    def entries(self, now_ms: int, actor: str, source: str) -> list[AuditEntry]:
        """The rows of astaudit: one of each account, one of the import."""

        def entry(action: str, old: Account | None, new: Account) -> AuditEntry:
            before, after = changes(old.state() if old else None, new.state())
            return AuditEntry(now_ms, actor, action, "account", new.name, before, after, source)

        counts = {
            "added": len(self.added),
            "changed": len(self.changed),
            "unchanged": self.unchanged,
        }
        return [
            *(entry("add", None, account) for account in self.added),
            *(entry("set", old, new) for old, new in self.changed),
            AuditEntry(now_ms, actor, "import", "account", source, None, counts),
        ]


def plan_import(sheet: AccountSheet, known: Known) -> Plan:
    """What a file would change. Raises DeckErrors with everything that is wrong in it."""
    faults = Faults()
    try:
        for error in sheet.errors:
            faults.add(error.line, error.column, error.value, error.expected)
        plan = _Planning(known, faults).of(sheet.lines)
        faults.raise_if_any()
    except DeckErrors as errors:
        in_order = sorted(errors.errors, key=lambda error: error.line)
        raise DeckErrors(in_order, errors.more) from None
    return plan


async def write_plan(
    transaction: AdminTransaction, plan: Plan, now_ms: int, progress: Callable[[int], None]
) -> None:
    """Write what a plan adds and changes; `progress` is told how many accounts are written."""
    done = 0
    for start in range(0, len(plan.added), STEP):
        part = plan.added[start : start + STEP]
        await transaction.accounts.add(part, now_ms)
        done += len(part)
        progress(done)
    for start in range(0, len(plan.changed), STEP):
        changed = plan.changed[start : start + STEP]
        await transaction.accounts.change([new for _, new in changed])
        done += len(changed)
        progress(done)


class _Planning:
    """The lines of one file, held against what is there."""

    def __init__(self, known: Known, faults: Faults) -> None:
        self._known = known
        self._faults = faults
        self._nearest: dict[tuple[str, str], str] = {}

    def of(self, lines: Sequence[AccountLine]) -> Plan:
        """The plan; of use only if no fault was noted."""
        added: list[Account] = []
        changed: list[tuple[Account, Account]] = []
        for line in lines:
            old = self._known.accounts.get(line.name)
            new = self._applied(line, old)
            if new is None:
                continue
            if old is None:
                added.append(new)
            elif new != old:
                changed.append((old, new))
        self._note_ties(lines, added, changed)
        return Plan(added, changed, len(lines) - len(added) - len(changed))

    def _applied(self, line: AccountLine, old: Account | None) -> Account | None:
        """The account that a line makes; None if there is anything wrong with it."""
        client = line.client or (old.client if old else "")
        errors = [*_identity_errors(line, old), *self._unknown(line.change, client)]
        new = None
        try:
            new = line.change.applied_to(old or Account(line.name, client))
        except SettingError as error:
            errors.append(error)
        else:
            if line.no_terminator:
                new = replace(new, termination=None)
            # Of a line that was read in part, the parts that are there may seem not to fit.
            errors += contradictions(new) if line.sound else ()
        for wrong in errors:
            self._faults.add(line.number, wrong.column, wrong.value, wrong.expected)
        return None if errors or not line.sound else new

    def _unknown(self, change: AccountChange, client_name: str) -> Iterator[SettingError]:
        """What a line names that is not there, or is in another currency than its client."""
        known = self._known
        client = known.clients.get(client_name)
        if client_name and client is None:
            yield self._no("client", "client", client_name, known.clients)
        named = {
            "rate_table": ("rate table", change.rate_table, known.rate_tables),
            "routing_plan": ("routing plan", change.routing_plan, known.routing_plans),
            "term_rate_table": ("rate table", change.termination.rate_table, known.rate_tables),
        }
        for column, (kind, name, names) in named.items():
            if name and name not in names:
                yield self._no(column, kind, name, names)
        table = known.rate_tables.get(change.rate_table or "")
        if table and client and table.currency != client.currency:
            whose = f"the currency of client {shown_name(client.name)}"
            expected = f"a rate table in {client.currency}, {whose}, this one is in"
            yield SettingError("rate_table", table.name, f"{expected} {table.currency}")

    def _no(self, column: str, kind: str, name: str, names: Collection[str]) -> SettingError:
        """The error for a name that is not there, with the nearest that is."""
        if (kind, name) not in self._nearest:
            among = list(names)[:MOST_NEAREST]
            close = difflib.get_close_matches(name, among, n=1)
            near = f"; the nearest is {shown_name(close[0])}" if close else ""
            self._nearest[kind, name] = f"a {kind} that is there{near}"
        return SettingError(column, name, self._nearest[kind, name])

    def _note_ties(
        self,
        lines: Sequence[AccountLine],
        added: Sequence[Account],
        changed: Sequence[tuple[Account, Account]],
    ) -> None:
        moved = [*added, *(new for old, new in changed if not recognised_alike(old, new))]
        if not moved:
            return
        numbers = {line.name: line.number for line in lines}
        moved.sort(key=lambda account: numbers[account.name])
        names = {account.name for account in moved}
        others = (one for one in self._known.accounts.values() if one.name not in names)
        for account, error in ties(moved, others):
            self._faults.add(numbers[account.name], error.column, error.value, error.expected)


def _identity_errors(line: AccountLine, old: Account | None) -> Iterator[SettingError]:
    """What is wrong with a line about whose and which account it is."""
    if old is None:
        if not line.client:
            yield SettingError("client", "", "the client of the new account")
        if line.id:
            yield SettingError(
                "id", line.id, "nothing: the new account gets its id when it is added"
            )
        if line.sound and line.change.ident_by is None:
            yield SettingError("ident_by", "", "name, ip or ani: the kind of the idents")
        return
    if line.client is not None and line.client != old.client:
        expected = f"{shown_name(old.client)}: the client of an account cannot change"
        yield SettingError("client", line.client, expected)
    if line.id and line.id != str(old.id):
        yield SettingError("id", line.id, f"{old.id}, the id of account {shown_name(old.name)}")
