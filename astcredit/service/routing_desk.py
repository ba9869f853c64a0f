"""Changing the catalog: routing plans and their rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from astcredit.domain.routing_plan import RouteOrder
from astcredit.service.admin_ports import AdminTransaction
from astcredit.service.catalog_rules import require
from astcredit.service.desk import CatalogDesk, changes, verb
from astcredit.service.errors import RefusedError
from astcredit.service.history_ports import AuditEntry
from astcredit.service.naming import already_there, check_name, shown_name
from astcredit.service.persistence import persistently
from astcredit.service.routing_csv import PlanDifference, PlanLine, check_accounts, difference
from astcredit.service.routing_ports import Place, PlanHead, PlanRule, RuleFilter
from astcredit.service.routing_rules import (
    RuleChange,
    RuleRef,
    known_routing_plan,
    known_rule,
    known_terminator,
    shown_prefix,
)


@dataclass(frozen=True, slots=True)
class PlanImport:
    """What an import changed in a routing plan, or on a dry run would change: rules added, changed,
    disabled because the file does not have them, and left as they are."""

    plan: str
    added: int
    changed: int
    disabled: int
    unchanged: int
    dry_run: bool

    @property
    def does_nothing(self) -> bool:
        """Whether the plan is as the file says already."""
        return not (self.added or self.changed or self.disabled)


class RoutingDesk(CatalogDesk):
    """The administrator's use cases on routing plans and their rules."""

    async def add_plan(self, name: str, order: RouteOrder = RouteOrder.PRIORITY) -> PlanHead:
        """Add a routing plan without rules."""
        new = PlanHead(check_name("routing plan", name), order)

        async def add() -> PlanHead:
            async with self._store.changing_catalog() as transaction:
                if await transaction.routing.plan(name) is not None:
                    raise already_there("routing plan", name)
                await transaction.routing.add_plan(new, self._now_ms())
                await self.record(transaction, "add", "routing-plan", None, new)
                return await known_routing_plan(transaction, name)

        return await persistently(add)

    async def set_plan(self, name: str, order: RouteOrder | None) -> PlanHead:
        """Change in what order a plan's rules are tried; None leaves it."""

        async def set_() -> PlanHead:
            async with self._store.changing_catalog() as transaction:
                old = await known_routing_plan(transaction, name)
                await self._change_plan(
                    transaction, "set", old, replace(old, order=order or old.order)
                )
                return await known_routing_plan(transaction, name)

        return await persistently(set_)

    async def enable_plan(self, name: str, enabled: bool) -> bool:
        """Route by a plan, or refuse every call that needs it; False if it was so already."""

        async def enable() -> bool:
            async with self._store.changing_catalog() as transaction:
                old = await known_routing_plan(transaction, name)
                new = replace(old, enabled=enabled)
                return await self._change_plan(transaction, verb(enabled), old, new)

        return await persistently(enable)

    async def plans(self) -> Sequence[PlanHead]:
        """All routing plans, by name."""
        async with self._store.looking() as transaction:
            return await transaction.routing.plans()

    async def plan(self, name: str) -> PlanHead:
        """One routing plan."""
        async with self._store.looking() as transaction:
            return await known_routing_plan(transaction, name)

    async def add_rule(self, place: Place, change: RuleChange) -> PlanRule:
        """Add a rule to a plan; what `change` leaves open is as in any new rule."""
        new = change.applied_to(PlanRule(*place))

        async def add() -> PlanRule:
            async with self._store.changing_catalog() as transaction:
                await known_routing_plan(transaction, place.plan)
                await known_terminator(transaction, place.account)
                _refuse_second(await transaction.routing.rule_at(place))
                await transaction.routing.add_rules([new], self._now_ms())
                await transaction.routing.rules_changed(place.plan)
                await self.record(transaction, "add", "route", None, new)
                return await known_rule(transaction, place)

        return await persistently(add)

    async def set_rule(self, ref: RuleRef, change: RuleChange) -> PlanRule:
        """Change a rule's settings; another prefix or account is another rule."""

        async def set_() -> PlanRule:
            async with self._store.changing_catalog() as transaction:
                old = await known_rule(transaction, ref)
                new = change.applied_to(old)
                await self._change_rule(transaction, "set", old, new)
            return new

        return await persistently(set_)

    async def enable_rule(self, ref: RuleRef, enabled: bool) -> tuple[bool, PlanRule]:
        """Route by a rule, or pass it over; the rule, and False if it was so already."""

        async def enable() -> tuple[bool, PlanRule]:
            async with self._store.changing_catalog() as transaction:
                old = await known_rule(transaction, ref)
                new = replace(old, enabled=enabled)
                return await self._change_rule(transaction, verb(enabled), old, new), new

        return await persistently(enable)

    async def rules(self, wanted: RuleFilter) -> Sequence[PlanRule]:
        """The rules that are wanted: by plan, prefix, priority and account."""
        async with self._store.looking() as transaction:
            if wanted.plan is not None:
                await known_routing_plan(transaction, wanted.plan)
            if wanted.account is not None:
                await require(transaction, "account", wanted.account)
            return await transaction.routing.rules(wanted)

    async def rule(self, ref: RuleRef) -> PlanRule:
        """One rule."""
        async with self._store.looking() as transaction:
            return await known_rule(transaction, ref)

    async def import_rules(
        self, plan: str, lines: Sequence[PlanLine], *, replacing: bool, dry_run: bool, source: str
    ) -> PlanImport:
        """Put the lines of a file into a plan, wholly or not at all.

        Rules that are not in the file stay as they are; with `replacing` they are disabled.
        `dry_run` only says what would be done. `source` is what astaudit calls the file. Raises
        DeckErrors for accounts that no call can be routed to.
        """
        if not lines:
            raise RefusedError(f"{source}: no rules in it")

        async def import_() -> PlanImport:
            opened = self._store.looking if dry_run else self._store.changing_catalog
            async with opened() as transaction:
                head = await known_routing_plan(transaction, plan)
                accounts = {line.place.account for line in lines}
                check_accounts(lines, await transaction.routing.terminators(accounts))
                stored = await transaction.routing.rules(RuleFilter(plan))
                found = difference(stored, lines, replacing=replacing)
                if found and not dry_run:
                    await self._write(transaction, head, found, source)
            return PlanImport(
                plan,
                added=len(found.added),
                changed=len(found.changed),
                disabled=len(found.disabled),
                unchanged=found.unchanged,
                dry_run=dry_run,
            )

        return await persistently(import_)

    async def _change_plan(
        self, transaction: AdminTransaction, action: str, old: PlanHead, new: PlanHead
    ) -> bool:
        if new == old:
            return False
        await transaction.routing.change_plan(new)
        await self.record(transaction, action, "routing-plan", old, new)
        return True

    async def _change_rule(
        self, transaction: AdminTransaction, action: str, old: PlanRule, new: PlanRule
    ) -> bool:
        if new == old:
            return False
        await transaction.routing.change_rules([new])
        await transaction.routing.rules_changed(old.plan)
        await self.record(transaction, action, "route", old, new)
        return True

    async def _write(
        self, transaction: AdminTransaction, plan: PlanHead, found: PlanDifference, source: str
    ) -> None:
        """Write what an import changes, with a row of astaudit for it and for each rule."""
        now_ms = self._now_ms()
        changed = (*found.changed, *found.disabled)
        await transaction.routing.add_rules(found.added, now_ms)
        await transaction.routing.change_rules([new for _, new in changed])
        await transaction.routing.rules_changed(plan.name)
        counts = {
            "rules": plan.rules + len(found.added),
            "added": len(found.added),
            "changed": len(found.changed),
            "disabled": len(found.disabled),
        }
        whole = AuditEntry(
            now_ms,
            self._actor,
            "import",
            "routing-plan",
            plan.name,
            {"rules": plan.rules},
            counts,
            source,
        )
        await transaction.record(whole)
        await transaction.record_all(
            [
                *(self._entry(now_ms, "add", None, new, source) for new in found.added),
                *(self._entry(now_ms, "set", old, new, source) for old, new in found.changed),
                *(self._entry(now_ms, "disable", old, new, source) for old, new in found.disabled),
            ]
        )

    def _entry(
        self, now_ms: int, action: str, old: PlanRule | None, new: PlanRule, source: str
    ) -> AuditEntry:
        before, after = changes(old.state() if old else None, new.state())
        return AuditEntry(now_ms, self._actor, action, "route", new.name, before, after, source)


def _refuse_second(rule: PlanRule | None) -> None:
    """Refuse to add a rule where there is one."""
    if rule is not None:
        raise RefusedError(
            f"routing plan {shown_name(rule.plan)} has route {rule.id} for prefix"
            f" {shown_prefix(rule.prefix)} to account {shown_name(rule.account)} already"
        )
